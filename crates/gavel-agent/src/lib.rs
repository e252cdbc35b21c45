//! The static agent.
pub mod wire;
