//! Rules about the repository that no compiler checks. `cargo test -p xtask` checks them.
//!
//! `repository` finds the files, `rust` reads source text, the others hold the rules: one test each,
//! named as a sentence. A rule that fails names every place and says what to do about it.

#[cfg(test)]
mod code;
#[cfg(test)]
mod data;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod repository;
#[cfg(test)]
mod rust;
