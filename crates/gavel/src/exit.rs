//! What the shell is told: exit codes, and the error that carries one.

use std::fmt;

/// How `gavel` ends. `gavel run` passes the program's own code on and uses the codes from 100 up for
/// what the program cannot say itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    Success,
    /// A check did not pass, or something failed that has no code of its own.
    Failure,
    /// Wrong flags; also what clap uses.
    Usage,
    /// The configuration or a language file is wrong.
    Config,
    /// The port or the data directory is used by another server.
    InUse,
    /// This machine cannot do what was asked: no sandbox, directory not writable, tool missing.
    Machine,
    /// `run`: the verdicts that are no exit code of the program.
    CompileError,
    TimeLimit,
    MemoryLimit,
    OutputLimit,
    WrongAnswer,
    /// `run`: Gavel's own fault, so that it cannot be taken for the program's.
    Fault,
    /// `run`: what the program said, or 128 and its signal.
    Program(u8),
}

impl ExitCode {
    pub fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::InUse => 4,
            Self::Machine => 5,
            Self::CompileError => 100,
            Self::TimeLimit => 101,
            Self::MemoryLimit => 102,
            Self::OutputLimit => 103,
            Self::WrongAnswer => 104,
            Self::Fault => 125,
            Self::Program(code) => code,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// For `gavel run --help`.
pub const RUN_HELP: &str = "Exit status:
  the program's own, or 128 + the number of the signal that killed it
  100  it does not compile
  101  time limit exceeded
  102  memory limit exceeded
  103  output limit exceeded
  104  wrong answer (with --expected)
  125  Gavel itself failed
  2    wrong flags      3  wrong configuration      5  no sandbox, or the language is not installed";

/// For `gavel --help`.
pub const HELP: &str = "Exit status:
  0  success
  1  a check did not pass, or another failure
  2  wrong flags
  3  wrong configuration
  4  the port or the data directory is in use
  5  this machine cannot do it: `gavel doctor` says why";

/// An error with an exit code of its own. Any other error is a `Failure`.
#[derive(Debug)]
pub struct Coded {
    pub code: ExitCode,
    message: String,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}

pub fn coded(code: ExitCode, message: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::new(Coded { code, message: message.to_string() })
}

/// The code of an error: that of the first `Coded` in its chain.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    error.chain().find_map(|cause| cause.downcast_ref::<Coded>()).map_or(ExitCode::Failure, |coded| coded.code)
}
