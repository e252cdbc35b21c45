//! `?fields=`: a client that polls for a status does not carry the outputs each time.

use super::answer::{JobBody, RequestAnswer, encode};
use crate::error::ApiError;
use gavel_store::JobRecord;
use serde_json::{Map, Value};

/// What an answer has without `fields`.
pub const ANSWER: &[&str] = &[
    "id",
    "language",
    "status",
    "verdict",
    "reason",
    "evidence",
    "stdout",
    "stdout_base64",
    "stderr",
    "stderr_base64",
    "compile_output",
    "compile_output_base64",
    "stdout_truncated",
    "stderr_truncated",
    "files",
    "exit_code",
    "signal",
    "execution_time_ms",
    "wall_time_ms",
    "memory_usage_kb",
    "compile_time_ms",
    "compile_cached",
    "queue_time_ms",
    "worker_id",
    "node",
    "attempt",
    "error_message",
    "metadata",
    "created_at",
    "started_at",
    "completed_at",
];

/// What it has only when asked: the request, with every default filled in.
pub const REQUEST: &[&str] = &[
    "source_code",
    "source_code_base64",
    "stdin",
    "stdin_base64",
    "expected_output",
    "expected_output_base64",
    "args",
    "compiler_options",
    "env",
    "limits",
    "stderr_to_stdout",
    "network",
    "runs",
    "priority",
    "interactive",
    "tty",
    "collect",
];

/// The part of an answer that may be large.
const OUTPUTS: &[&str] =
    &["stdout", "stdout_base64", "stderr", "stderr_base64", "compile_output", "compile_output_base64", "files"];

/// The fields that a client asked for, in its order.
#[derive(Debug)]
pub struct Fields(Vec<&'static str>);

impl Fields {
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut names = Vec::new();
        for asked in text.split(',') {
            let Some(name) = ANSWER.iter().chain(REQUEST).find(|name| **name == asked) else {
                let shown: String = asked.chars().take(64).collect();
                return Err(ApiError::field("fields", format!("there is no field {shown:?}")));
            };
            names.push(*name);
        }
        Ok(Self(names))
    }

    fn any_of(&self, names: &[&str]) -> bool {
        self.0.iter().any(|name| names.contains(name))
    }

    /// A field that a job does not have, as `stdout_base64` of plain text, is null.
    fn pick(&self, record: &JobRecord) -> Result<Value, ApiError> {
        let mut body = JobBody::of(record);
        if !self.any_of(OUTPUTS) {
            body = body.without_outputs();
        }
        let mut from = to_map(&body)?;
        if self.any_of(REQUEST) {
            from.append(&mut to_map(&RequestAnswer::of(record))?);
        }
        let entry = |name: &&str| ((*name).to_owned(), from.remove(*name).unwrap_or(Value::Null));
        Ok(Value::Object(self.0.iter().map(entry).collect()))
    }
}

fn to_map(value: &impl serde::Serialize) -> Result<Map<String, Value>, ApiError> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(ApiError::internal(std::sync::Arc::new(error))),
    }
}

/// The JSON of a job, whole or in part.
pub fn job_json(record: &JobRecord, fields: Option<&Fields>) -> Result<Vec<u8>, ApiError> {
    match fields {
        None => encode(&JobBody::of(record)),
        Some(fields) => encode(&fields.pick(record)?),
    }
}
