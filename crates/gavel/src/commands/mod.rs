//! The subcommands, one module each.

pub mod bench;
pub mod doctor;
mod keyboard;
pub mod languages;
pub mod migrate;
pub mod run;
pub mod serve;
pub mod token;
