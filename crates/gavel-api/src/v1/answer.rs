//! Answers as they are written: rows of the book to JSON. Borrowed, so that outputs are not copied twice.

use super::body::TtyBody;
use crate::error::{ApiError, ProblemBody};
use crate::languages::LanguageState;
use crate::service::Receipt;
use crate::stats::busy_share;
use crate::times::{Rfc3339, ms};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use gavel_core::board::WorkerEntry;
use gavel_core::verdict::Evidence;
use gavel_core::{JobId, Language, Limits, Status, Timestamp};
use gavel_store::{JobRecord, JobSummary};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// Bytes that are written as base64, without a copy in between.
#[derive(Debug, Clone, Copy)]
pub struct Base64<'a>(pub &'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// Bytes as text; where they are no UTF-8, lossy, and exactly as base64 beside it.
pub fn text(bytes: &[u8]) -> (Cow<'_, str>, Option<Base64<'_>>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), None),
        Err(_) => (String::from_utf8_lossy(bytes), Some(Base64(bytes))),
    }
}

/// A job. What has not happened yet is null. Times of day are RFC 3339 in UTC, durations milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobBody<'a> {
    #[schema(value_type = String, format = "uuid")]
    pub id: JobId,
    pub language: &'a str,
    #[schema(value_type = String, example = "completed")]
    pub status: &'static str,
    /// `accepted`, `wrong_answer`, `compile_error`, `runtime_error`, `time_limit_exceeded`,
    /// `memory_limit_exceeded` or `output_limit_exceeded`; null unless the status is `completed`.
    #[schema(value_type = Option<String>, example = "accepted")]
    pub verdict: Option<&'static str>,
    /// The verdict's reason, in one sentence.
    pub reason: Option<&'a str>,
    /// The numbers behind the verdict; the unit is the end of the name.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub evidence: Cow<'a, Evidence>,
    /// Text; lossy where the bytes are no UTF-8.
    #[schema(value_type = Option<String>)]
    pub stdout: Option<Cow<'a, str>>,
    /// The exact bytes, only where they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub stdout_base64: Option<Base64<'a>>,
    #[schema(value_type = Option<String>)]
    pub stderr: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub stderr_base64: Option<Base64<'a>>,
    #[schema(value_type = Option<String>)]
    pub compile_output: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub compile_output_base64: Option<Base64<'a>>,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    /// Files that matched `collect`.
    pub files: Vec<FileAnswer<'a>>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// CPU time of the run.
    pub execution_time_ms: Option<f64>,
    pub wall_time_ms: Option<f64>,
    /// Peak memory of all processes together, in KiB.
    pub memory_usage_kb: Option<u64>,
    /// CPU time of the compiler; 0 when its result came from the cache.
    pub compile_time_ms: Option<f64>,
    pub compile_cached: Option<bool>,
    /// From its creation to the start of the attempt.
    pub queue_time_ms: Option<f64>,
    pub worker_id: Option<i32>,
    pub node: Option<&'a str>,
    /// Attempts begun so far; more than one only after faults of the server.
    pub attempt: u32,
    /// Why the server failed; only where the status is `failed`.
    pub error_message: Option<&'a str>,
    #[schema(value_type = BTreeMap<String, String>)]
    pub metadata: &'a BTreeMap<String, String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Rfc3339,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Rfc3339>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Rfc3339>,
    /// True where the outputs are left out because the answer would be too large: read the job by its id.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub output_omitted: bool,
}

/// What a job was asked to be, with every default filled in: fields of a job that only `?fields=` shows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobRequested)]
pub struct RequestAnswer<'a> {
    #[schema(value_type = String)]
    pub source_code: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source_code_base64: Option<Base64<'a>>,
    #[schema(value_type = String)]
    pub stdin: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub stdin_base64: Option<Base64<'a>>,
    #[schema(value_type = Option<String>)]
    pub expected_output: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub expected_output_base64: Option<Base64<'a>>,
    #[schema(value_type = Vec<String>)]
    pub args: &'a [String],
    #[schema(value_type = Vec<String>)]
    pub compiler_options: &'a [String],
    #[schema(value_type = BTreeMap<String, String>)]
    pub env: &'a BTreeMap<String, String>,
    pub limits: LimitsAnswer,
    pub stderr_to_stdout: bool,
    pub network: bool,
    pub runs: u32,
    pub priority: i32,
    pub interactive: bool,
    pub tty: Option<TtyBody>,
    #[schema(value_type = Vec<String>)]
    pub collect: &'a [String],
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CollectedFile)]
pub struct FileAnswer<'a> {
    pub path: &'a str,
    pub executable: bool,
    #[schema(value_type = String)]
    pub content_base64: Base64<'a>,
}

impl<'a> JobBody<'a> {
    /// A job that was stored a moment ago.
    pub fn pending(receipt: &'a Receipt) -> Self {
        Self::empty(receipt.id, &receipt.language, Status::Pending, &receipt.metadata, receipt.created_at)
    }

    pub fn of(record: &'a JobRecord) -> Self {
        let job = &record.job;
        let body = Self {
            queue_time_ms: record.started_at.map(|started| ms(started.since(record.created_at))),
            worker_id: record.worker_id,
            node: record.node.as_deref(),
            attempt: record.attempt,
            error_message: record.error_message.as_deref(),
            started_at: record.started_at.map(Rfc3339),
            completed_at: record.completed_at.map(Rfc3339),
            ..Self::empty(record.id, &job.language, record.status, &job.metadata, record.created_at)
        };
        let Some(outcome) = &record.outcome else { return body };
        let (stdout, stdout_base64) = text(&outcome.stdout);
        let (stderr, stderr_base64) = text(&outcome.stderr);
        let (compile_output, compile_output_base64) = text(&outcome.compile_output);
        let file = |file: &'a gavel_core::CollectedFile| FileAnswer {
            path: &file.path,
            executable: file.executable,
            content_base64: Base64(&file.content),
        };
        Self {
            verdict: Some(outcome.verdict.as_str()),
            reason: Some(&outcome.reason),
            evidence: Cow::Borrowed(&outcome.evidence),
            stdout: Some(stdout),
            stdout_base64,
            stderr: Some(stderr),
            stderr_base64,
            compile_output: Some(compile_output),
            compile_output_base64,
            stdout_truncated: outcome.stdout_truncated,
            stderr_truncated: outcome.stderr_truncated,
            files: outcome.files.iter().map(file).collect(),
            exit_code: outcome.exit_code,
            signal: outcome.signal,
            execution_time_ms: Some(ms(outcome.cpu)),
            wall_time_ms: Some(ms(outcome.wall)),
            memory_usage_kb: Some(outcome.memory.as_kib()),
            compile_time_ms: Some(ms(outcome.compile_time)),
            compile_cached: Some(outcome.compile_cached),
            ..body
        }
    }

    /// The same without what may be large.
    pub fn without_outputs(self) -> Self {
        Self {
            stdout: None,
            stdout_base64: None,
            stderr: None,
            stderr_base64: None,
            compile_output: None,
            compile_output_base64: None,
            files: Vec::new(),
            output_omitted: true,
            ..self
        }
    }

    fn empty(
        id: JobId,
        language: &'a str,
        status: Status,
        metadata: &'a BTreeMap<String, String>,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            language,
            status: status.as_str(),
            verdict: None,
            reason: None,
            evidence: Cow::Owned(Evidence::new()),
            stdout: None,
            stdout_base64: None,
            stderr: None,
            stderr_base64: None,
            compile_output: None,
            compile_output_base64: None,
            stdout_truncated: false,
            stderr_truncated: false,
            files: Vec::new(),
            exit_code: None,
            signal: None,
            execution_time_ms: None,
            wall_time_ms: None,
            memory_usage_kb: None,
            compile_time_ms: None,
            compile_cached: None,
            queue_time_ms: None,
            worker_id: None,
            node: None,
            attempt: 0,
            error_message: None,
            metadata,
            created_at: Rfc3339(created_at),
            started_at: None,
            completed_at: None,
            output_omitted: false,
        }
    }
}

impl<'a> RequestAnswer<'a> {
    pub fn of(record: &'a JobRecord) -> Self {
        let job = &record.job;
        let (source_code, source_code_base64) = text(&job.source);
        let (stdin, stdin_base64) = text(&job.stdin);
        let (expected_output, expected_output_base64) = match job.expected_output.as_deref().map(text) {
            Some((text, base64)) => (Some(text), base64),
            None => (None, None),
        };
        Self {
            source_code,
            source_code_base64,
            stdin,
            stdin_base64,
            expected_output,
            expected_output_base64,
            args: &job.args,
            compiler_options: &job.compiler_options,
            env: &job.env,
            limits: LimitsAnswer::of(&job.limits),
            stderr_to_stdout: job.stderr_to_stdout,
            network: job.network,
            runs: job.runs,
            priority: job.priority,
            interactive: job.interactive.is_some(),
            tty: job
                .interactive
                .and_then(|interactive| interactive.tty)
                .map(|tty| TtyBody { rows: tty.rows, cols: tty.cols }),
            collect: &job.collect,
        }
    }
}

/// A job in a listing: no source and no output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobSummary)]
pub struct SummaryBody<'a> {
    #[schema(value_type = String, format = "uuid")]
    pub id: JobId,
    pub language: &'a str,
    #[schema(value_type = String)]
    pub status: &'static str,
    #[schema(value_type = Option<String>)]
    pub verdict: Option<&'static str>,
    pub reason: Option<&'a str>,
    #[schema(value_type = BTreeMap<String, f64>)]
    pub evidence: &'a Evidence,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub execution_time_ms: Option<f64>,
    pub wall_time_ms: Option<f64>,
    pub memory_usage_kb: Option<u64>,
    pub queue_time_ms: Option<f64>,
    pub priority: i32,
    pub worker_id: Option<i32>,
    pub node: Option<&'a str>,
    pub attempt: u32,
    pub error_message: Option<&'a str>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Rfc3339,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Rfc3339>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Rfc3339>,
}

impl<'a> SummaryBody<'a> {
    pub fn of(job: &'a JobSummary) -> Self {
        Self {
            id: job.id,
            language: &job.language,
            status: job.status.as_str(),
            verdict: job.verdict.map(|verdict| verdict.as_str()),
            reason: job.reason.as_deref(),
            evidence: &job.evidence,
            exit_code: job.exit_code,
            signal: job.signal,
            execution_time_ms: job.cpu.map(ms),
            wall_time_ms: job.wall.map(ms),
            memory_usage_kb: job.memory_kb,
            queue_time_ms: job.started_at.map(|started| ms(started.since(job.created_at))),
            priority: job.priority,
            worker_id: job.worker_id,
            node: job.node.as_deref(),
            attempt: job.attempt,
            error_message: job.error_message.as_deref(),
            created_at: Rfc3339(job.created_at),
            started_at: job.started_at.map(Rfc3339),
            completed_at: job.completed_at.map(Rfc3339),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobList)]
pub struct ListBody<'a> {
    pub jobs: Vec<SummaryBody<'a>>,
    /// Give it as `cursor` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// One element of the answer to a batch, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BatchItem)]
pub enum BatchItem<'a> {
    Stored {
        #[schema(value_type = String, format = "uuid")]
        id: JobId,
    },
    Refused {
        error: ProblemBody<'a>,
    },
}

/// One line of the answer to a stream: the fields of a job and its `index`, or `index` and `error`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = StreamItem)]
pub enum StreamItem<'a> {
    Ended {
        index: u64,
        #[serde(flatten)]
        job: Box<JobBody<'a>>,
    },
    Refused {
        index: u64,
        error: ProblemBody<'a>,
    },
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchAnswer)]
pub struct BatchAnswer<'a> {
    pub jobs: Vec<BatchItem<'a>>,
}

/// Limits in the units in which they are asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
pub struct LimitsAnswer {
    pub cpu_time_ms: u64,
    pub wall_time_ms: u64,
    pub memory_kb: u64,
    pub stack_kb: u64,
    pub processes: u32,
    pub output_kb: u64,
    pub file_size_kb: u64,
}

impl LimitsAnswer {
    pub fn of(limits: &Limits) -> Self {
        let whole_ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            cpu_time_ms: whole_ms(limits.cpu_time),
            wall_time_ms: whole_ms(limits.wall_time),
            memory_kb: limits.memory.as_kib(),
            stack_kb: limits.stack.as_kib(),
            processes: limits.processes,
            output_kb: limits.output.as_kib(),
            file_size_kb: limits.file_size.as_kib(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Language)]
pub struct LanguageBody<'a> {
    pub id: &'a str,
    pub name: &'a str,
    /// Version of the toolchain; null while unknown.
    pub version: Option<String>,
    /// The backend that runs it; null while unknown.
    pub backend: Option<String>,
    /// False: jobs in this language are refused.
    pub available: bool,
    pub unavailable_reason: Option<String>,
    pub image: Option<&'a str>,
    #[schema(value_type = Vec<String>)]
    pub extensions: &'a [String],
    /// The name under which the source is stored. Null: a job has no source, it is all in its files.
    pub source_file: Option<&'a str>,
    /// Null: the source is run as it is.
    #[schema(value_type = Option<Vec<String>>)]
    pub compile_command: Option<&'a [String]>,
    #[schema(value_type = Vec<String>)]
    pub run_command: &'a [String],
    pub limits: LanguageLimits,
    pub sample: Option<SampleBody<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LanguageLimits {
    /// Hold where a job asks for nothing.
    pub default: LimitsAnswer,
    /// The highest that a job may ask for.
    pub cap: LimitsAnswer,
    /// Of the compile command; a job cannot change them.
    pub compile: Option<LimitsAnswer>,
}

/// A program that shows the language works.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sample)]
pub struct SampleBody<'a> {
    /// Empty where a program is all in its files.
    #[schema(value_type = String)]
    pub source_code: Cow<'a, str>,
    pub files: Vec<SampleFile<'a>>,
    #[schema(value_type = String)]
    pub stdin: Cow<'a, str>,
    #[schema(value_type = String)]
    pub expected_output: Cow<'a, str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SampleFile<'a> {
    pub path: &'a str,
    #[schema(value_type = String)]
    pub content: Cow<'a, str>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LanguageList)]
pub struct LanguagesBody<'a> {
    pub languages: Vec<LanguageBody<'a>>,
}

impl<'a> SampleFile<'a> {
    fn of(file: &'a gavel_core::File) -> Self {
        Self { path: &file.path, content: text(&file.content).0 }
    }
}

impl<'a> LanguageBody<'a> {
    pub fn of(language: &'a Language, state: LanguageState) -> Self {
        let sample = |sample: &'a gavel_core::language::Sample| SampleBody {
            source_code: text(&sample.source).0,
            files: sample.files.iter().map(SampleFile::of).collect(),
            stdin: text(&sample.stdin).0,
            expected_output: text(&sample.expected).0,
        };
        Self {
            id: &language.id,
            name: &language.name,
            version: state.version,
            backend: state.backend.or_else(|| language.backend.clone()),
            available: state.unavailable.is_none(),
            unavailable_reason: state.unavailable,
            image: language.image.as_deref(),
            extensions: &language.extensions,
            source_file: language.source_file.as_deref(),
            compile_command: language.compile.as_ref().map(|compile| compile.argv.as_slice()),
            run_command: &language.run,
            limits: LanguageLimits {
                default: LimitsAnswer::of(&language.limits),
                cap: LimitsAnswer::of(&language.cap),
                compile: language.compile.as_ref().map(|compile| LimitsAnswer::of(&compile.limits)),
            },
            sample: language.sample.as_ref().map(sample),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub struct WorkerBody<'a> {
    pub id: i32,
    pub node: &'a str,
    pub backend: &'a str,
    /// `starting`, `idle`, `busy`, `recovering` or `stopped`.
    #[schema(value_type = String)]
    pub state: &'static str,
    /// The job it is working on.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub job: Option<JobId>,
    /// Share of its life that it spent on jobs, 0 to 1.
    pub busy_share: f64,
    /// Jobs that it ended, with a result.
    pub jobs_done: u64,
    /// Times that a job met a fault of the server here.
    pub faults: u64,
    /// When it entered its state.
    #[schema(value_type = String, format = DateTime)]
    pub since: Rfc3339,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Rfc3339,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkerList)]
pub struct WorkersBody<'a> {
    pub workers: Vec<WorkerBody<'a>>,
}

impl<'a> WorkerBody<'a> {
    pub fn of(worker: &'a WorkerEntry, now: Timestamp) -> Self {
        Self {
            id: worker.id,
            node: &worker.node,
            backend: &worker.backend,
            state: worker.state.as_str(),
            job: worker.job,
            busy_share: busy_share(worker, now),
            jobs_done: worker.jobs_done,
            faults: worker.faults,
            since: Rfc3339(worker.since),
            started_at: Rfc3339(worker.started_at),
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// JSON of a value whose writing cannot fail for a reason of the client.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| ApiError::internal(std::sync::Arc::new(error)))
}

pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
