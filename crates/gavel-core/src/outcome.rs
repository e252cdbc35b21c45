//! The result of one job, as it is stored and answered.

use crate::facts::CollectedFile;
use crate::units::Bytes;
use crate::verdict::{Evidence, Verdict};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub reason: String,
    pub evidence: Evidence,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub compile_output: Vec<u8>,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    pub files: Vec<CollectedFile>,
    /// Neither for a job that was never run.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub cpu: Duration,
    pub wall: Duration,
    pub memory: Bytes,
    /// CPU time of the compiler; zero when the artefacts came from the cache.
    pub compile_time: Duration,
    pub compile_cached: bool,
}
