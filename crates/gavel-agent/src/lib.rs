//! The words that a server and its agents exchange. The agent itself is the binary of this crate.

pub mod wire;
