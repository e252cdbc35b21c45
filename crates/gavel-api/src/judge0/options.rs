//! What the operator may change: Judge0's settings, under names of our own.

use std::time::Duration;

/// A value that holds where a submission names none, and the highest that it may name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound<T> {
    pub default: T,
    pub max: T,
}

impl<T> Bound<T> {
    pub const fn new(default: T, max: T) -> Self {
        Self { default, max }
    }
}

/// Judge0's defaults where nothing else is said. Seconds and KiB, as Judge0 counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub enabled: bool,
    /// The version that `/about` names: clients choose their language ids by it.
    pub version: Version,
    /// Told to whoever submits while it is set.
    pub maintenance: Option<String>,
    pub wait: bool,
    pub compiler_options: bool,
    /// Languages with compiler options, by the beginning of their name; empty: all.
    pub compiler_options_languages: Vec<String>,
    pub command_line_arguments: bool,
    pub delete: bool,
    pub batches: bool,
    pub max_batch: usize,
    pub callbacks: bool,
    pub callback_tries: u32,
    pub callback_timeout: Duration,
    pub additional_files: bool,
    /// Size of all unpacked files, in KiB.
    pub max_extract: u64,
    pub cpu_time: Bound<f64>,
    pub cpu_extra_time: Bound<f64>,
    pub wall_time: Bound<f64>,
    pub memory: Bound<u64>,
    pub stack: Bound<u64>,
    pub processes: Bound<u64>,
    pub file_size: Bound<u64>,
    pub runs: Bound<u64>,
    /// A program that a signal ended is shown as one that exited with 128 and the signal's number, because
    /// that is what Judge0's shell makes of it.
    pub signals_as_exit_codes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1_13_1,
    V1_14_0,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: true,
            version: Version::V1_13_1,
            maintenance: None,
            wait: true,
            compiler_options: true,
            compiler_options_languages: Vec::new(),
            command_line_arguments: true,
            delete: false,
            batches: true,
            max_batch: 20,
            callbacks: true,
            callback_tries: 3,
            callback_timeout: Duration::from_secs(5),
            additional_files: true,
            max_extract: 10_240,
            cpu_time: Bound::new(5.0, 15.0),
            cpu_extra_time: Bound::new(1.0, 5.0),
            wall_time: Bound::new(10.0, 20.0),
            memory: Bound::new(128_000, 512_000),
            stack: Bound::new(64_000, 128_000),
            processes: Bound::new(60, 120),
            file_size: Bound::new(1024, 4096),
            runs: Bound::new(1, 20),
            signals_as_exit_codes: false,
        }
    }
}
