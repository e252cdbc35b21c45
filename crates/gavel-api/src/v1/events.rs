//! Server-sent events of one job: live while it runs, replayed when it has ended.

use super::answer::{Base64, JobBody, encode};
use super::jobs::job_id;
use super::pieces::{Pieces, name};
use crate::error::{ApiError, ProblemBody};
use crate::owner::Owner;
use crate::query::Params;
use crate::router::App;
use crate::watch::{Seen, Watch};
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gavel_store::Stream;
use serde::Serialize;
use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::timeout;
use tracing::error;
use utoipa::ToSchema;

/// Follows a job.
///
/// Server-sent events; the data of each is one JSON object. `status`: `{status, worker_id, attempt,
/// restarted}`; where `restarted` is true, the output so far is void. `stdout`, `stderr`,
/// `compile_output`: `{text}`, with `base64` where the bytes are no UTF-8. `dropped`: `{bytes}` of output are
/// missing here; `done` has them. `done`: the whole job, and the end.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/events", operation_id = "follow_job", tag = "jobs",
    params(
        ("id" = String, Path, description = "UUID of the job"),
        ("Last-Event-ID" = Option<String>, Header, description = "`done` is answered with 204, so that a browser stops coming back"),
    ),
    responses(
        (status = 200, description = "Events until `done`; the schema is that of one event", body = EventBody, content_type = "text/event-stream"),
        (status = 204, description = "The client has seen `done`"),
        (status = 404, description = "Unknown job", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Too many event streams are open", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn follow(
    State(app): State<App>,
    owner: Owner,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = job_id(path)?;
    Params::of(query.as_deref()).end()?;
    if headers.get("last-event-id").is_some_and(|last| last == DONE) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = app.service().watch(&owner, id).await?;
    let feed = Feed { watch, keep_alive: app.options().keep_alive, pieces: Pieces::default() };
    let events = stream::unfold(feed, |mut feed| async move { Some((Ok::<_, Infallible>(feed.next().await?), feed)) });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One event of the stream.
#[derive(ToSchema)]
#[schema(as = JobEvent)]
#[allow(dead_code)]
struct EventBody {
    #[schema(example = "stdout")]
    event: EventName,
    /// A JSON object, as text.
    data: String,
    /// Only of the last event: `done`.
    id: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code)]
enum EventName {
    Status,
    Stdout,
    Stderr,
    CompileOutput,
    Dropped,
    Done,
}

/// The id of the last event.
const DONE: &str = "done";

struct Feed {
    watch: Watch,
    keep_alive: Duration,
    pieces: Pieces,
}

#[derive(Serialize)]
struct StatusEvent {
    status: &'static str,
    worker_id: Option<i32>,
    attempt: u32,
    restarted: bool,
}

#[derive(Serialize)]
struct OutputEvent<'a> {
    text: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<Base64<'a>>,
}

#[derive(Serialize)]
struct DroppedEvent {
    bytes: u64,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let Ok(seen) = timeout(self.keep_alive, self.watch.next()).await else {
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            };
            let events = self.write(seen?);
            // A piece of output may be nothing but the beginning of a character.
            if !events.is_empty() {
                return Some(events.into());
            }
        }
    }

    fn write(&mut self, seen: Seen) -> Vec<u8> {
        let mut out = Vec::new();
        match seen {
            Seen::Status { status, worker, attempt, restarted } => {
                if restarted {
                    self.pieces = Pieces::default();
                } else if status.has_ended() {
                    self.pieces.rest().for_each(|(stream, rest)| output_event(&mut out, stream, &rest));
                }
                let data = StatusEvent { status: status.as_str(), worker_id: worker, attempt, restarted };
                event(&mut out, "status", None, &data);
            }
            Seen::Output { stream, bytes } => {
                if let Some(bytes) = self.pieces.add(stream, bytes) {
                    output_event(&mut out, stream, &bytes);
                }
            }
            Seen::Dropped { bytes } => event(&mut out, "dropped", None, &DroppedEvent { bytes }),
            Seen::Done(record) => event(&mut out, "done", Some(DONE), &JobBody::of(&record)),
            Seen::Gone => out.extend_from_slice(b": the job was erased\n\n"),
            Seen::Draining => out.extend_from_slice(b": the server is going away, come back\nretry: 2000\n\n"),
        }
        out
    }
}

fn output_event(out: &mut Vec<u8>, stream: Stream, bytes: &[u8]) {
    let (text, base64) = super::answer::text(bytes);
    event(out, name(stream), None, &OutputEvent { text, base64 });
}

/// JSON has no raw line breaks, so the data is one line.
fn event(out: &mut Vec<u8>, name: &str, id: Option<&str>, data: &impl Serialize) {
    let json = match encode(data) {
        Ok(json) => json,
        Err(problem) => {
            error!(cause = ?problem.cause, event = name, "cannot write an event");
            return;
        }
    };
    out.extend_from_slice(format!("event: {name}\n").as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&json);
    out.extend_from_slice(b"\n\n");
}
