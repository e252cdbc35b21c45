//! Up to a thousand jobs in one request, stored in one transaction.

use super::answer::{BatchAnswer, BatchItem, JobBody, encode, json};
use super::body::{BatchBody, BatchRequest, SubmitBody};
use super::jobs::patience;
use crate::error::{ApiError, ProblemBody};
use crate::input;
use crate::owner::Owner;
use crate::query::Params;
use crate::router::App;
use crate::service::{ServiceError, Submitted, Waited};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use gavel_core::{Draft, Problem, Rejection};
use serde::Serialize;
use std::sync::Arc;

/// Submits many jobs.
///
/// Each job is accepted or refused for itself; the answers are in the order of the request. With
/// `wait=true` they are whole jobs. An `Idempotency-Key` covers the batch, so that a batch of which only
/// a part was stored can be sent again.
#[utoipa::path(
    post, path = "/api/v1/jobs/batch", operation_id = "submit_batch", tag = "jobs",
    params(
        ("wait" = Option<bool>, Query, description = "Wait for all jobs to end"),
        ("timeout_ms" = Option<u64>, Query, description = "How long to wait at most, for the whole batch"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    request_body = BatchRequest,
    responses(
        (status = 201, description = "What became of each job", body = BatchAnswer),
        (status = 200, description = "All have ended or were refused (with wait=true): `jobs` holds whole jobs", body = BatchAnswer),
        (status = 202, description = "Some have not ended in time (with wait=true)", body = BatchAnswer),
        (status = 400, description = "Malformed JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Larger than this server takes", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "No jobs, or too many", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was stored: queue full, store unavailable or shutting down", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn create(State(app): State<App>, owner: Owner, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let mut params = Params::of(parts.uri.query());
    let patience = patience(&mut params, app.service())?;
    params.end()?;
    let received = input::json_body(&app, &parts.headers, body, app.options().max_batch_body).await?;
    let key = input::idempotency(&parts.headers, &received.bytes)?;
    let (bytes, max) = (received.bytes.clone(), app.service().options().max_batch);
    // A thousand jobs take a while to parse: not on a thread that serves sockets.
    let drafts = match tokio::task::spawn_blocking(move || read_drafts(&bytes, max)).await {
        Ok(drafts) => drafts?,
        Err(error) => return Err(ApiError::internal(Arc::new(error))),
    };
    drop(received);
    let Some(patience) = patience else {
        let answers = app.service().submit_batch(&owner, drafts, key).await?;
        return Ok(json(StatusCode::CREATED, stored(answers)?));
    };
    let mut page = Page::new(app.options().max_batch_answer);
    app.service().submit_batch_and_wait(&owner, drafts, key, patience, |answer| page.add(answer)).await?;
    page.finish()
}

fn read_drafts(bytes: &[u8], max: usize) -> Result<Vec<Result<Draft, Rejection>>, ApiError> {
    let batch: BatchBody = input::parse(bytes)?;
    if batch.jobs.len() > max {
        return Err(ApiError::field("jobs", format!("has more than {max} jobs, which is this server's limit")));
    }
    Ok(batch.jobs.into_iter().map(|job| read_draft(job.get().as_bytes())).collect())
}

fn read_draft(json: &[u8]) -> Result<Draft, Rejection> {
    input::parse::<SubmitBody>(json).map_err(refusal)?.into_draft()
}

/// One element of a batch that cannot be read is refused for itself.
pub fn refusal(error: ApiError) -> Rejection {
    let problems = if error.errors.is_empty() {
        vec![Problem { field: "body".into(), message: error.detail.into_owned() }]
    } else {
        error.errors
    };
    Rejection { problems, too_large: false }
}

fn stored(answers: Vec<Result<Submitted, ServiceError>>) -> Result<Vec<u8>, ApiError> {
    let mut errors = Vec::new();
    let answers: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer {
            Ok(Submitted::New(receipt)) => Ok(receipt.id),
            Ok(Submitted::Known(id)) => Ok(id),
            Err(error) => {
                errors.push(ApiError::from(error));
                Err(errors.len() - 1)
            }
        })
        .collect();
    let item = |answer: &Result<_, usize>| match answer {
        Ok(id) => BatchItem::Stored { id: *id },
        Err(at) => BatchItem::Refused { error: errors[*at].body() },
    };
    encode(&BatchAnswer { jobs: answers.iter().map(item).collect() })
}

/// The answer to a batch that waits, written job by job and bounded in size.
struct Page {
    json: Vec<u8>,
    room: usize,
    all_ended: bool,
    failure: Option<ApiError>,
}

impl Page {
    fn new(room: usize) -> Self {
        Self { json: b"{\"jobs\":[".to_vec(), room, all_ended: true, failure: None }
    }

    fn add(&mut self, answer: Result<Waited, ServiceError>) {
        let written = match answer {
            Ok(Waited::Read(record)) => {
                self.all_ended &= record.status.has_ended();
                let outputs =
                    record.outcome.as_ref().map_or(0, |o| o.stdout.len() + o.stderr.len() + o.compile_output.len());
                let body = JobBody::of(&record);
                if self.json.len() + outputs > self.room {
                    self.push(&body.without_outputs())
                } else {
                    self.push(&body)
                }
            }
            Ok(Waited::Unread(receipt)) => {
                self.all_ended = false;
                self.push(&JobBody::pending(&receipt))
            }
            Err(error) => self.push(&BatchItem::Refused { error: ApiError::from(error).body() }),
        };
        if let Err(error) = written {
            self.failure = Some(error);
        }
    }

    fn push(&mut self, item: &impl Serialize) -> Result<(), ApiError> {
        if !self.json.ends_with(b"[") {
            self.json.push(b',');
        }
        serde_json::to_writer(&mut self.json, item).map_err(|error| ApiError::internal(Arc::new(error)))
    }

    fn finish(mut self) -> Result<Response, ApiError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.json.extend_from_slice(b"]}");
        Ok(json(if self.all_ended { StatusCode::OK } else { StatusCode::ACCEPTED }, self.json))
    }
}
