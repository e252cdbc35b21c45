//! Shapes for `/openapi.json` only: what a submission may say, and what is said of it.

use utoipa::ToSchema;

/// A submission. Numbers may also be texts; null means the default. Unknown attributes are ignored.
#[allow(dead_code, reason = "only its schema is used")]
#[derive(ToSchema)]
#[schema(as = Judge0Submission)]
pub struct SubmissionRequest {
    /// Text, or base64 with `base64_encoded=true`; blank for programs of many files.
    pub source_code: Option<String>,
    /// One of `GET /languages`.
    pub language_id: i64,
    /// At most 512 characters; words as in a shell.
    pub compiler_options: Option<String>,
    /// At most 512 characters; words as in a shell.
    pub command_line_arguments: Option<String>,
    pub stdin: Option<String>,
    /// When given, stdout is compared with it.
    pub expected_output: Option<String>,
    /// Seconds; 0 is no limit.
    pub cpu_time_limit: Option<f64>,
    /// Seconds; without effect.
    pub cpu_extra_time: Option<f64>,
    /// Seconds.
    pub wall_time_limit: Option<f64>,
    /// KiB.
    pub memory_limit: Option<f64>,
    /// KiB.
    pub stack_limit: Option<i64>,
    pub max_processes_and_or_threads: Option<i64>,
    /// Without effect.
    pub enable_per_process_and_thread_time_limit: Option<bool>,
    /// Without effect.
    pub enable_per_process_and_thread_memory_limit: Option<bool>,
    /// KiB; also of stdout and of stderr.
    pub max_file_size: Option<i64>,
    pub redirect_stderr_to_stdout: Option<bool>,
    pub enable_network: Option<bool>,
    pub number_of_runs: Option<i64>,
    /// A zip archive as base64, whatever `base64_encoded` says.
    pub additional_files: Option<String>,
    pub callback_url: Option<String>,
}

/// Several submissions.
#[allow(dead_code, reason = "only its schema is used")]
#[derive(ToSchema)]
#[schema(as = Judge0Batch)]
pub struct BatchRequest {
    pub submissions: Vec<SubmissionRequest>,
}

/// Those of the attributes that were asked for; without `fields` stdout, time, memory, stderr, token,
/// compile_output, message and status.
#[allow(dead_code, reason = "only its schema is used")]
#[derive(ToSchema)]
#[schema(as = Judge0Result)]
pub struct SubmissionAnswer {
    pub source_code: Option<String>,
    pub language_id: Option<u32>,
    pub stdin: Option<String>,
    pub expected_output: Option<String>,
    pub stdout: Option<String>,
    pub status_id: Option<u8>,
    /// `2026-11-22T18:40:27.874Z`
    pub created_at: Option<String>,
    pub finished_at: Option<String>,
    /// CPU time in seconds.
    pub time: Option<String>,
    /// KiB.
    pub memory: Option<u64>,
    pub stderr: Option<String>,
    pub token: Option<String>,
    pub number_of_runs: Option<u32>,
    pub cpu_time_limit: Option<String>,
    pub cpu_extra_time: Option<String>,
    pub wall_time_limit: Option<String>,
    pub memory_limit: Option<u64>,
    pub stack_limit: Option<u64>,
    pub max_processes_and_or_threads: Option<u64>,
    pub enable_per_process_and_thread_time_limit: Option<bool>,
    pub enable_per_process_and_thread_memory_limit: Option<bool>,
    pub max_file_size: Option<u64>,
    pub compile_output: Option<String>,
    pub exit_code: Option<i32>,
    pub exit_signal: Option<i32>,
    pub message: Option<String>,
    /// Seconds.
    pub wall_time: Option<String>,
    pub compiler_options: Option<String>,
    pub command_line_arguments: Option<String>,
    pub redirect_stderr_to_stdout: Option<bool>,
    pub callback_url: Option<String>,
    pub additional_files: Option<String>,
    pub enable_network: Option<bool>,
    pub status: Option<super::status::Shown>,
    pub language: Option<LanguageOfSubmission>,
    /// With `wait=true` only: why the rest is missing.
    pub error: Option<String>,
}

#[allow(dead_code, reason = "only its schema is used")]
#[derive(ToSchema)]
#[schema(as = Judge0LanguageOfResult)]
pub struct LanguageOfSubmission {
    pub id: Option<u32>,
    pub name: String,
}

/// Submissions in the order in which they were asked for; null for unknown ones.
#[allow(dead_code, reason = "only its schema is used")]
#[derive(ToSchema)]
#[schema(as = Judge0Results)]
pub struct ListAnswer {
    pub submissions: Vec<Option<SubmissionAnswer>>,
    /// Of a page only.
    pub meta: Option<Meta>,
}

#[allow(dead_code, reason = "only its schema is used")]
#[derive(ToSchema)]
#[schema(as = Judge0Meta)]
pub struct Meta {
    pub current_page: u64,
    pub next_page: Option<u64>,
    pub prev_page: Option<u64>,
    pub total_pages: u64,
    pub total_count: u64,
}

#[allow(dead_code, reason = "only its schema is used")]
#[derive(ToSchema)]
#[schema(as = Judge0Error)]
pub struct ErrorAnswer {
    pub error: String,
}
