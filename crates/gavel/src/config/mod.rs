//! Configuration: one file < environment < flags, resolved once at start.
//!
//! `table` lists the keys, `file` reads TOML, `resolve` decides which source holds, `rules` checks
//! what concerns several keys, `show` prints the result.

mod file;
mod resolve;
mod rules;
pub mod show;
pub mod table;
pub mod value;

pub use resolve::{Origin, Settings, Sources, resolve};
pub use table::{Config, KEYS};

/// The file that is read when nobody names one.
pub const DEFAULT_FILE: &str = "gavel.toml";
