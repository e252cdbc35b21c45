//! What a client submits: a [`Draft`] as it was asked for, a [`Job`] as it will be judged.

use crate::check::Comparison;
use crate::{Limits, LimitsRequest};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// UUID v7: sorts by the time of creation.
pub type JobId = uuid::Uuid;

/// A file that a job brings along, below its working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub content: Vec<u8>,
}

/// Whom a job tells that it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    pub url: String,
    pub form: CallbackForm,
}

/// What is sent, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackForm {
    /// A signed POST with the job as the native API shows it.
    Native,
    /// A PUT with the submission as Judge0 shows it.
    Judge0,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tty {
    pub rows: u16,
    pub cols: u16,
}

/// A job whose input comes from its client while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interactive {
    /// Its streams are a terminal of this size at first, instead of pipes.
    pub tty: Option<Tty>,
}

/// A request that nobody has checked yet. `None` means "not given".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft {
    pub language: String,
    pub source: Vec<u8>,
    pub stdin: Vec<u8>,
    pub args: Vec<String>,
    pub compiler_options: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub files: Vec<File>,
    pub limits: LimitsRequest,
    pub expected_output: Option<Vec<u8>>,
    pub stderr_to_stdout: bool,
    pub network: bool,
    pub runs: Option<u32>,
    pub priority: i32,
    pub interactive: Option<Interactive>,
    pub collect: Vec<String>,
    pub callback: Option<Callback>,
    pub comparison: Comparison,
    pub metadata: BTreeMap<String, String>,
    pub origin: Option<Vec<u8>>,
}

/// A validated job: every limit is set, and its language is one of the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Id of the language.
    pub language: String,
    pub source: Vec<u8>,
    pub stdin: Vec<u8>,
    pub args: Vec<String>,
    pub compiler_options: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub files: Vec<File>,
    pub limits: Limits,
    pub expected_output: Option<Vec<u8>>,
    pub stderr_to_stdout: bool,
    pub network: bool,
    /// How often the program is run; times and memory are the mean of all runs.
    pub runs: u32,
    /// Higher is sooner.
    pub priority: i32,
    pub interactive: Option<Interactive>,
    /// Globs of files that come back with the result.
    pub collect: Vec<String>,
    pub callback: Option<Callback>,
    pub comparison: Comparison,
    pub metadata: BTreeMap<String, String>,
    /// What the API that took the job wants to have back with it. Nobody else knows what it says.
    pub origin: Option<Vec<u8>>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Pending,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// An ended job never changes again.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("unknown status {text:?}: use pending, running, completed, failed or cancelled"))
    }
}
