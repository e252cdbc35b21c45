//! What Judge0 gives back and the native domain does not know. Kept with the job, as JSON.

use super::Flavour;
use super::languages;
use crate::languages::Shelf;
use gavel_core::Job;
use serde::{Deserialize, Serialize};

/// The attributes of a submission as they were asked for, less those that the job has itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub flavour: Flavour,
    /// `None`: the job came by the native API, and its language has no id.
    pub language_id: Option<u32>,
    /// It was given, even if it is empty.
    pub has_source: bool,
    pub has_stdin: bool,
    pub compiler_options: Option<String>,
    pub command_line_arguments: Option<String>,
    pub cpu_time_limit: f64,
    pub cpu_extra_time: f64,
    pub wall_time_limit: f64,
    pub memory_limit: u64,
    pub stack_limit: u64,
    pub max_processes_and_or_threads: u64,
    pub per_process_time_limit: bool,
    pub per_process_memory_limit: bool,
    pub max_file_size: u64,
    /// The archive, as lines of base64.
    pub additional_files: Option<String>,
}

impl Origin {
    /// Of a job of the native API, its limits as Judge0 would say them.
    pub fn of(job: &Job, shelf: &Shelf) -> Self {
        if let Some(origin) = job.origin.as_deref().and_then(|json| serde_json::from_slice(json).ok()) {
            return origin;
        }
        let joined = |list: &[String]| (!list.is_empty()).then(|| languages::command_line(list));
        let limits = &job.limits;
        Self {
            flavour: Flavour::Ce,
            language_id: shelf.get(&job.language).and_then(|language| language.judge0_ids.first().copied()),
            has_source: true,
            has_stdin: !job.stdin.is_empty(),
            compiler_options: joined(&job.compiler_options),
            command_line_arguments: joined(&job.args),
            cpu_time_limit: limits.cpu_time.as_secs_f64(),
            cpu_extra_time: 0.0,
            wall_time_limit: limits.wall_time.as_secs_f64(),
            memory_limit: limits.memory.as_kib(),
            stack_limit: limits.stack.as_kib(),
            max_processes_and_or_threads: u64::from(limits.processes),
            per_process_time_limit: false,
            per_process_memory_limit: false,
            max_file_size: limits.file_size.as_kib(),
            additional_files: None,
        }
    }
}
