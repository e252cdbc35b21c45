//! What is sent: the request for one ended job, in the form that it asked for.

use super::signature::{Secret, signatures};
use crate::times::Rfc3339;
use crate::v1::answer::JobBody;
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use gavel_core::Timestamp;
use gavel_core::job::CallbackForm;
use gavel_store::JobRecord;
use serde::Serialize;
use std::sync::Arc;

/// Outputs and files beyond this are left out, as in the answer to a large batch: receivers are not made for
/// them, and a message is in memory while it is sent.
const MAX_OUTPUTS: usize = 4 << 20;

const AGENT: &str = concat!("gavel/", env!("CARGO_PKG_VERSION"));

/// Writes the body of a callback in Judge0's form.
pub type Judge0Body = Arc<dyn Fn(&JobRecord) -> Vec<u8> + Send + Sync>;

/// A request without its address.
#[derive(Debug, Clone)]
pub struct Message {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Serialize)]
struct NativeBody<'a> {
    #[serde(rename = "type")]
    kind: String,
    /// When the job ended; the same in each attempt.
    timestamp: Rfc3339,
    data: JobBody<'a>,
}

/// `None`: the form is not one that this server can write.
pub fn write(
    record: &JobRecord,
    form: CallbackForm,
    secrets: &[Secret],
    judge0: Option<&Judge0Body>,
    now: Timestamp,
) -> Option<Message> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if form == CallbackForm::Judge0 {
        return Some(Message { method: Method::PUT, headers, body: judge0?(record).into() });
    }
    let body = native(record)?;
    // A job ends once, so its id is that of the message, whenever it is sent.
    let (id, timestamp) = (record.id.to_string(), now.0.div_euclid(1_000_000));
    let signature = signatures(secrets, &id, timestamp, &body);
    for (name, value) in
        [("webhook-id", id), ("webhook-timestamp", timestamp.to_string()), ("webhook-signature", signature)]
    {
        headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value).ok()?);
    }
    Some(Message { method: Method::POST, headers, body: body.into() })
}

fn native(record: &JobRecord) -> Option<Vec<u8>> {
    let outputs = record.outcome.as_ref().map_or(0, |outcome| {
        let files: usize = outcome.files.iter().map(|file| file.content.len()).sum();
        outcome.stdout.len() + outcome.stderr.len() + outcome.compile_output.len() + files
    });
    let data = JobBody::of(record);
    let body = NativeBody {
        kind: format!("job.{}", record.status),
        timestamp: Rfc3339(record.completed_at.unwrap_or(record.created_at)),
        data: if outputs > MAX_OUTPUTS { data.without_outputs() } else { data },
    };
    serde_json::to_vec(&body).ok()
}
