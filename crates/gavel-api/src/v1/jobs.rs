//! One job at a time: submit, wait, read, list, cancel, erase.

use super::answer::{JobBody, ListBody, SummaryBody, encode, json};
use super::body::SubmitBody;
use super::fields::{Fields, job_json};
use crate::error::{ApiError, ProblemBody};
use crate::input;
use crate::owner::Owner;
use crate::query::Params;
use crate::router::App;
use crate::service::{Service, ServiceError, Submitted, Waited};
use crate::times;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use gavel_core::{Draft, JobId};
use gavel_store::{Filter, Idempotency, JobRecord};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Work on more than this is done beside the threads that serve sockets.
const LARGE: usize = 1 << 20;

/// Submits a job.
///
/// With `wait=true`: 200 with the ended job, or 202 with the job as it is when the time is up.
#[utoipa::path(
    post, path = "/api/v1/jobs", operation_id = "submit_job", tag = "jobs",
    params(
        ("wait" = Option<bool>, Query, description = "Wait for the job to end"),
        ("timeout_ms" = Option<u64>, Query, description = "How long to wait at most; default 30000, at most 300000"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters; the same key and body give the same job"),
    ),
    request_body = SubmitBody,
    responses(
        (status = 201, description = "Stored; `Location` is its address", body = JobBody),
        (status = 200, description = "Ended (with wait=true), or known by its idempotency key", body = JobBody),
        (status = 202, description = "Not ended in time (with wait=true)", body = JobBody),
        (status = 400, description = "Malformed JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The idempotency key was used with another body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Larger than this server takes", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not valid; `errors` names the fields", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Queue full, store unavailable or shutting down; `Retry-After` says when to come back", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn create(State(app): State<App>, owner: Owner, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let mut params = Params::of(parts.uri.query());
    let patience = patience(&mut params, app.service())?;
    params.end()?;
    let received = input::json_body(&app, &parts.headers, body, app.options().max_body).await?;
    let (draft, key) = read_draft(&parts.headers, received.bytes.clone()).await?;
    let held = received.held;
    let Some(patience) = patience else {
        return match app.service().submit(&owner, draft, key).await? {
            Submitted::New(receipt) => created(receipt.id, encode(&JobBody::pending(&receipt))?),
            Submitted::Known(id) => {
                let record = app.service().find(&owner, id).await.map_err(outlived)?;
                Ok(json(StatusCode::OK, render(Arc::new(record), None).await?))
            }
        };
    };
    waited(app.service().submit_and_wait(&owner, draft, key, patience, held).await.map_err(outlived)?).await
}

/// A key may outlive its job; the client asked for a job, not for one that it knows to exist.
fn outlived(error: ServiceError) -> ServiceError {
    match error {
        ServiceError::UnknownJob => ServiceError::KeyOutlivedJob,
        other => other,
    }
}

fn created(id: JobId, body: Vec<u8>) -> Result<Response, ApiError> {
    let mut response = json(StatusCode::CREATED, body);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/jobs/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

async fn waited(waited: Waited) -> Result<Response, ApiError> {
    match waited {
        Waited::Read(record) => current(record, None).await,
        Waited::Unread(receipt) => Ok(json(StatusCode::ACCEPTED, encode(&JobBody::pending(&receipt))?)),
    }
}

/// 200 with an ended job, 202 with one that goes on.
async fn current(record: Arc<JobRecord>, fields: Option<Fields>) -> Result<Response, ApiError> {
    let status = if record.status.has_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json(status, render(record, fields).await?))
}

async fn read_draft(headers: &HeaderMap, body: Bytes) -> Result<(Draft, Option<Idempotency>), ApiError> {
    let key_of = |body: &[u8]| input::idempotency(headers, body);
    if body.len() <= LARGE {
        return Ok((parse_draft(&body)?, key_of(&body)?));
    }
    let key = key_of(&body)?;
    Ok((aside(move || parse_draft(&body)).await?, key))
}

fn parse_draft(body: &[u8]) -> Result<Draft, ApiError> {
    Ok(input::parse::<SubmitBody>(body)?.into_draft()?)
}

async fn render(record: Arc<JobRecord>, fields: Option<Fields>) -> Result<Vec<u8>, ApiError> {
    let size = record.outcome.as_ref().map_or(0, |o| o.stdout.len() + o.stderr.len() + o.compile_output.len())
        + if fields.is_some() { record.job.source.len() + record.job.stdin.len() } else { 0 };
    if size <= LARGE {
        return job_json(&record, fields.as_ref());
    }
    aside(move || job_json(&record, fields.as_ref())).await
}

/// Runs work that takes a while on a thread that serves no sockets.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, ApiError> + Send + 'static) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::internal(Arc::new(error))),
    }
}

/// Reads `wait` and `timeout_ms`; `None`: the client does not wait.
pub fn patience(params: &mut Params, service: &Service) -> Result<Option<Duration>, ApiError> {
    let options = service.options();
    let wait = params.bool("wait")?;
    let max = u64::try_from(options.max_wait.as_millis()).unwrap_or(u64::MAX);
    let timeout = params.number("timeout_ms", 0, max)?;
    match (wait, timeout) {
        (true, Some(ms)) => Ok(Some(Duration::from_millis(ms))),
        (true, None) => Ok(Some(options.default_wait)),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::field("timeout_ms", "means nothing without wait=true")),
    }
}

/// The id in a path. What is no id names no job, so it is not found, as any other unknown one.
pub fn job_id(path: Result<Path<String>, PathRejection>) -> Result<JobId, ApiError> {
    let id = path.ok().and_then(|Path(text)| if text.len() == 36 { Uuid::try_parse(&text).ok() } else { None });
    id.ok_or_else(|| ApiError::from(ServiceError::UnknownJob))
}

/// Reads a job.
///
/// With `wait=true` the answer comes when the job has ended, or as 202 when the time is up.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}", operation_id = "get_job", tag = "jobs",
    params(
        ("id" = String, Path, description = "UUID of the job"),
        ("fields" = Option<String>, Query, description = "Names of the wanted fields, separated by commas; also those of the request, as source_code and limits"),
        ("wait" = Option<bool>, Query, description = "Wait for the job to end"),
        ("timeout_ms" = Option<u64>, Query, description = "How long to wait at most"),
    ),
    responses(
        (status = 200, description = "The job", body = JobBody),
        (status = 202, description = "Not ended in time (with wait=true)", body = JobBody),
        (status = 404, description = "Unknown id, or no id at all", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Unknown field or parameter", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn find(
    State(app): State<App>,
    owner: Owner,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let id = job_id(path)?;
    let mut params = Params::of(query.as_deref());
    let fields = params.take("fields")?.map(|names| Fields::parse(&names)).transpose()?;
    let patience = patience(&mut params, app.service())?;
    params.end()?;
    match patience {
        Some(patience) => current(app.service().wait(&owner, id, patience).await?, fields).await,
        None => Ok(json(StatusCode::OK, render(Arc::new(app.service().find(&owner, id).await?), fields).await?)),
    }
}

/// Lists jobs, newest first.
#[utoipa::path(
    get, path = "/api/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    params(
        ("status" = Option<String>, Query, description = "pending, running, completed, failed or cancelled"),
        ("verdict" = Option<String>, Query, description = "Only jobs with this verdict"),
        ("language" = Option<String>, Query, description = "Only jobs in this language"),
        ("created_after" = Option<String>, Query, description = "RFC 3339; only younger jobs"),
        ("created_before" = Option<String>, Query, description = "RFC 3339; only older jobs"),
        ("limit" = Option<u64>, Query, description = "1 to 200; default 50"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses(
        (status = 200, description = "A page of jobs", body = ListBody),
        (status = 422, description = "Unknown or wrong parameter", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn list(State(app): State<App>, owner: Owner, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let mut params = Params::of(query.as_deref());
    let mut time = |name| match params.take(name)? {
        Some(text) => times::parse(&text).map(Some).map_err(|message| ApiError::field(name, message)),
        None => Ok(None),
    };
    let (created_after, created_before) = (time("created_after")?, time("created_before")?);
    let filter = Filter {
        owner: None,
        status: params.parse("status")?,
        verdict: params.parse("verdict")?,
        language: params.take("language")?.map(|language| language.into_owned()),
        created_after,
        created_before,
        before: params.take("cursor")?.map(|cursor| read_cursor(&cursor)).transpose()?,
    };
    let limit = params.number("limit", 1, MAX_PAGE)?.unwrap_or(DEFAULT_PAGE) as usize;
    params.end()?;
    // One more than wanted tells whether there is another page.
    let mut jobs = app.service().list(&owner, filter, limit + 1).await?;
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let next_cursor = jobs.last().filter(|_| more).map(|last| last.id.to_string());
    let body = ListBody { jobs: jobs.iter().map(SummaryBody::of).collect(), next_cursor };
    Ok(json(StatusCode::OK, encode(&body)?))
}

const MAX_PAGE: u64 = 200;
const DEFAULT_PAGE: u64 = 50;

fn read_cursor(text: &str) -> Result<JobId, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::field("cursor", "is not a next_cursor that this server gave"))
}

/// Cancels a pending or running job.
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job")),
    responses(
        (status = 200, description = "Cancelled", body = JobBody),
        (status = 202, description = "Still running; it will be stopped", body = JobBody),
        (status = 404, description = "Unknown job", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It has already ended", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn cancel(
    State(app): State<App>,
    owner: Owner,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let id = job_id(path)?;
    Params::of(query.as_deref()).end()?;
    current(app.service().cancel(&owner, id).await?, None).await
}

/// Erases an ended job.
#[utoipa::path(
    delete, path = "/api/v1/jobs/{id}", operation_id = "delete_job", tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job")),
    responses(
        (status = 204, description = "Erased"),
        (status = 404, description = "Unknown job", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It has not ended", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn erase(
    State(app): State<App>,
    owner: Owner,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, ApiError> {
    let id = job_id(path)?;
    Params::of(query.as_deref()).end()?;
    app.service().delete(&owner, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
