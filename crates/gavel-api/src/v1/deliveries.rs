//! What became of a job's callback.

use super::answer::{encode, json};
use super::jobs::job_id;
use crate::error::{ApiError, ProblemBody};
use crate::owner::Owner;
use crate::query::Params;
use crate::router::App;
use crate::times::{Rfc3339, ms};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use gavel_core::JobId;
use gavel_core::job::{Callback, CallbackForm};
use gavel_store::{DeliveryRecord, DeliveryTry};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryList)]
pub struct DeliveriesBody<'a> {
    /// One when the job has a callback and has ended, else none.
    pub deliveries: Vec<DeliveryBody<'a>>,
}

/// The news of a job's end on its way to the job's `callback_url`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryBody<'a> {
    /// The `webhook-id` of every attempt.
    #[schema(value_type = String, format = "uuid")]
    pub id: JobId,
    pub url: &'a str,
    /// `native` or `judge0`.
    #[schema(value_type = String, example = "native")]
    pub form: &'static str,
    /// `pending`, `delivered` or `given_up`.
    #[schema(value_type = String, example = "delivered")]
    pub status: &'static str,
    /// When the job ended.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Rfc3339,
    /// When it is tried next; null where it is over or being tried now.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Rfc3339>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Rfc3339>,
    /// What became of each attempt, oldest first.
    pub attempts: Vec<AttemptBody<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
pub struct AttemptBody<'a> {
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Rfc3339,
    pub duration_ms: f64,
    /// What the receiver answered; null where it did not.
    pub status_code: Option<u16>,
    /// Why the attempt failed, where the status code does not say.
    pub error: Option<&'a str>,
}

impl<'a> DeliveryBody<'a> {
    fn of(id: JobId, callback: &'a Callback, delivery: &'a DeliveryRecord) -> Self {
        let attempt = |done: &'a DeliveryTry| AttemptBody {
            started_at: Rfc3339(done.started_at),
            duration_ms: ms(done.duration),
            status_code: done.status_code,
            error: done.error.as_deref(),
        };
        Self {
            id,
            url: &callback.url,
            form: match callback.form {
                CallbackForm::Native => "native",
                CallbackForm::Judge0 => "judge0",
            },
            status: delivery.state.as_str(),
            created_at: Rfc3339(delivery.created_at),
            next_attempt_at: delivery.next_at.map(Rfc3339),
            completed_at: delivery.ended_at.map(Rfc3339),
            attempts: delivery.tries.iter().map(attempt).collect(),
        }
    }
}

/// Shows what became of a job's callback.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/deliveries", operation_id = "list_deliveries", tag = "jobs",
    params(("id" = String, Path, description = "UUID of the job")),
    responses(
        (status = 200, description = "The delivery, if there is one, with its attempts", body = DeliveriesBody),
        (status = 404, description = "Unknown job", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Unknown parameter", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(app): State<App>,
    owner: Owner,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let id = job_id(path)?;
    Params::of(query.as_deref()).end()?;
    let (record, delivery) = app.service().delivery(&owner, id).await?;
    let shown = record.job.callback.as_ref().zip(delivery.as_ref());
    let deliveries = shown.map(|(callback, delivery)| DeliveryBody::of(id, callback, delivery)).into_iter().collect();
    Ok(json(StatusCode::OK, encode(&DeliveriesBody { deliveries })?))
}
