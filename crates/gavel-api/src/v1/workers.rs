//! Who works, and how well it goes.

use super::answer::{WorkerBody, WorkersBody, encode, json};
use crate::error::{ApiError, ProblemBody};
use crate::query::Params;
use crate::router::App;
use crate::stats::Stats;
use crate::times::now;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

/// Lists the workers of this node.
#[utoipa::path(
    get, path = "/api/v1/workers", operation_id = "list_workers", tag = "operation",
    responses((status = 200, description = "The workers", body = WorkersBody))
)]
pub async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    Params::of(query.as_deref()).end()?;
    let (workers, now) = (app.service().workers(), now());
    let workers = workers.iter().map(|worker| WorkerBody::of(worker, now)).collect();
    Ok(json(StatusCode::OK, encode(&WorkersBody { workers })?))
}

/// Statistics of the latest ended jobs, the queue and the workers; at most a second old.
#[utoipa::path(
    get, path = "/api/v1/stats", operation_id = "get_stats", tag = "operation",
    responses(
        (status = 200, description = "The statistics", body = Stats),
        (status = 503, description = "The store cannot be read", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn stats(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    Params::of(query.as_deref()).end()?;
    let stats = app.service().stats().await?;
    Ok(json(StatusCode::OK, encode(&*stats)?))
}
