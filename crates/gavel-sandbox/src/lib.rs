//! Isolated places in which commands run. Blocking: sandboxes are pipes, pidfds and deadlines.
//!
//! A [`Backend`] opens [`Sandbox`]es; a sandbox runs one [`Command`] at a time, each in a place that
//! is fresh: nothing of one command can be seen by the next. Facts come back, never a judgement.

use gavel_core::language::Scratch;
use gavel_core::{Bytes, Facts, Limits};
use std::path::{Path, PathBuf};

mod agent;
pub mod both;
pub mod cancel;
pub mod docker;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod live;
pub mod native;
mod seccomp;

pub use cancel::Cancel;
pub use live::{Bell, Live, LiveInput, Typed};

/// One program to run: the compile command, the run command, a checker.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    /// The image whose files it sees, as the docker backend knows it; without one it sees the host's.
    pub image: Option<&'a str>,
    /// An unpacked root directory whose files it sees instead of the host's; for the native backend.
    pub root: Option<&'a Path>,
    /// The first element is an absolute path, or one relative to the working directory.
    pub argv: Vec<String>,
    /// Added to the sandbox's own PATH, HOME, LANG and TMPDIR.
    pub env: Vec<(String, String)>,
    pub stdin: &'a [u8],
    /// Somebody types, after that: the command is interactive.
    pub live: Option<Live<'a>>,
    /// Files that are in the working directory when the command starts.
    pub files: Vec<InputFile<'a>>,
    pub limits: Limits,
    pub scratch: Scratch,
    /// stderr is written to stdout, in the order in which the program writes.
    pub stderr_to_stdout: bool,
    pub network: bool,
    /// What goes on after the output limit: the compiler's diagnostics are cut, a program is stopped.
    pub on_output_limit: OnOutputLimit,
    pub collect: Collect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutputLimit {
    Stop,
    Discard,
}

#[derive(Debug, Clone)]
pub struct InputFile<'a> {
    pub path: String,
    pub executable: bool,
    pub content: Content<'a>,
}

#[derive(Debug, Clone)]
pub enum Content<'a> {
    Bytes(&'a [u8]),
    /// A file that nobody writes to any more, with the BLAKE3 hash and the size of what is in it. Where a
    /// sandbox has that content already, nobody reads it again.
    Stored {
        path: PathBuf,
        hash: &'a str,
        size: u64,
    },
    /// A file below the backend's shared directory, by its path relative to it. Nobody writes to it any
    /// more, and a native sandbox maps it instead of copying it.
    Shared(String),
}

/// Files that leave the sandbox after the command ended.
#[derive(Debug, Clone, Default)]
pub struct Collect {
    pub patterns: Vec<String>,
    pub max_files: u32,
    pub max_total: Bytes,
}

/// Which stream a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Receives output while the command runs. Must not block for long: it runs on the sandbox's thread.
pub type OnOutput<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// Our failure: the step that failed and why. Never a verdict.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Fault {
    pub step: &'static str,
    pub cause: String,
}

impl Fault {
    pub fn new(step: &'static str, cause: impl std::fmt::Display) -> Self {
        Self { step, cause: cause.to_string() }
    }
}

/// A kind of isolation.
pub trait Backend: Send + Sync {
    fn name(&self) -> &'static str;

    /// Does what it needs still work? Cheap, and without side effects: health checks call it.
    fn check(&self) -> Result<(), Fault>;

    /// Opens a sandbox for one worker slot; `slot` is unique among the open ones.
    fn open(&self, slot: u32) -> Result<Box<dyn Sandbox>, Fault>;

    /// Removes at once what would outlive the program, and opens nothing any more.
    fn close(&self) {}
}

/// A place of one worker. Dropping it ends and removes everything that belongs to it.
pub trait Sandbox: Send {
    /// Can commands of this image, or of the host's files, be given files of the shared directory?
    fn shares_files(&self, image: Option<&str>) -> bool;

    /// Runs one command. After a fault the sandbox must be dropped: what it holds is unknown.
    fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault>;
}
