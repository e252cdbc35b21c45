//! What a client is told when something was not done: RFC 9457 problems, and nothing internal in them.

use crate::service::ServiceError;
use crate::times::Rfc3339;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use gavel_core::{Problem, Rejection, Timestamp};
use gavel_store::{QuotaKind, StoreError};
use serde::Serialize;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// A refused request: what the client is told, and a cause that only the log sees.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    /// Names the kind of problem for programs; part of the API.
    pub kind: &'static str,
    pub title: &'static str,
    pub detail: Cow<'static, str>,
    pub errors: Vec<Problem>,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u32>,
    pub cause: Option<Cause>,
}

/// What really happened. Travels in the extensions of the response to the one place that logs it.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `urn:gavel:problem:` and the kind.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: &'a str,
    pub status: u16,
    pub detail: &'a str,
    /// What is wrong with the request, field by field; empty when it is not the request.
    pub errors: Vec<FieldError<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct FieldError<'a> {
    /// Path of the field, as in `limits.memory_kb` or `files[2].path`; a query parameter by its name.
    pub field: &'a str,
    pub message: &'a str,
}

pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl ApiError {
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, kind, title, detail: detail.into(), errors: Vec::new(), retry_after: None, cause: None }
    }

    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail)
    }

    /// A request that can be read and must not be done.
    pub fn invalid(errors: Vec<Problem>) -> Self {
        let detail = match errors.as_slice() {
            [only] => Cow::Owned(format!("{}: {}", only.field, only.message)),
            all => Cow::Owned(format!("{} fields are not valid", all.len())),
        };
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid request", detail) }
    }

    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![Problem { field: field.into(), message: message.into() }])
    }

    pub fn too_large(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Request too large", detail)
    }

    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
    }

    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Not authenticated", detail)
    }

    pub fn no_token() -> Self {
        Self::unauthenticated("this server wants a token: send the header `Authorization: Bearer gvl_...`")
    }

    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// The client is too fast or has had its share; after `left` it may go on.
    pub fn too_many(kind: &'static str, detail: impl Into<Cow<'static, str>>, left: Duration) -> Self {
        let seconds = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, "Too many requests", detail);
        Self { retry_after: Some(seconds), ..error }
    }

    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
    }

    pub fn unsupported_media_type(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type", detail)
    }

    pub fn busy(kind: &'static str, detail: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, "Service unavailable", detail);
        Self { retry_after: Some(retry_after), ..error }
    }

    pub fn internal(cause: Cause) -> Self {
        let detail = "the server failed to do this; its log says why, by the X-Request-Id of this answer";
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail);
        Self { cause: Some(cause), ..error }
    }

    pub fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            kind: format!("urn:gavel:problem:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: self.errors.iter().map(|e| FieldError { field: &e.field, message: &e.message }).collect(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // Strings and numbers only: writing them cannot fail.
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let error = Self::invalid(rejection.problems);
        if !rejection.too_large {
            return error;
        }
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, kind: "too_large", title: "Request too large", ..error }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let answer = match error {
            StoreError::Unavailable(_) => {
                Self::busy("store_unavailable", "the store of jobs cannot be used right now", 2)
            }
            StoreError::Full => Self::busy("store_full", "the server has no room for more jobs", 30),
            StoreError::LeaseLost | StoreError::Damaged(_) => return Self::internal(Arc::new(error)),
        };
        Self { cause: Some(Arc::new(error)), ..answer }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Rejected(rejection) => rejection.into(),
            ServiceError::Store(error) => error.into(),
            ServiceError::KeyConflict => {
                Self::conflict("this Idempotency-Key was used before with another body: use a new key")
            }
            ServiceError::KeyOutlivedJob => {
                Self::conflict("this Idempotency-Key belongs to a job that was erased: use a new key")
            }
            ServiceError::QueueFull => Self::busy("queue_full", "the queue is full: try again later", 1),
            ServiceError::OverQuota { kind: QuotaKind::JobsPerDay, limit, now } => {
                let end = next_day(now);
                let detail =
                    format!("the quota jobs_per_day of {limit} jobs is used up; it begins anew at {}", Rfc3339(end));
                Self::too_many("quota_exceeded", detail, end.since(now))
            }
            ServiceError::OverQuota { kind: QuotaKind::Concurrent, limit, .. } => {
                let detail = format!(
                    "the quota concurrent of {limit} pending and running jobs is used up until one of them has ended"
                );
                Self::too_many("quota_exceeded", detail, Duration::from_secs(1))
            }
            ServiceError::TokenEnded => Self::unauthenticated("this token has expired or was revoked"),
            ServiceError::TooManyWaiters => Self::busy(
                "too_many_waiters",
                "too many requests are waiting for their jobs: try again later, or without wait=true",
                1,
            ),
            ServiceError::TooManyWatchers => {
                Self::busy("too_many_watchers", "too many event streams are open: try again later", 5)
            }
            ServiceError::Draining => {
                Self::busy("draining", "the server is shutting down and takes no new jobs: try again later", 5)
            }
            ServiceError::UnknownJob => Self::not_found("there is no such job"),
            ServiceError::AlreadyEnded(status) => Self::conflict(format!("the job has already ended: it is {status}")),
            ServiceError::NotEnded(status) => {
                Self::conflict(format!("the job is {status}: only an ended job can be erased; cancel it first"))
            }
        }
    }
}

/// Midnight UTC, when jobs per day are counted anew.
fn next_day(now: Timestamp) -> Timestamp {
    const DAY: i64 = 86_400_000_000;
    Timestamp(now.0.div_euclid(DAY).saturating_add(1).saturating_mul(DAY))
}
