//! What a client of Judge0 is told when something was not done, in Judge0's words and bodies.

use crate::error::{ApiError, Cause};
use crate::service::ServiceError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::sync::Arc;

/// A refused request.
#[derive(Debug)]
pub enum Refusal {
    /// As the framework under Judge0 answers: a body only for whoever accepts JSON and nothing else.
    Framework(StatusCode),
    /// `{"error": "…"}`
    Message(StatusCode, String),
    /// The same, for what may be tried again after so many seconds.
    Busy(String, u32),
    /// Attributes and what is wrong with each.
    Invalid(Errors),
    /// Nothing but a status.
    Empty(StatusCode),
    /// Our fault; only the log learns why.
    Internal(Cause),
}

impl Refusal {
    pub fn bad(message: impl Into<String>) -> Self {
        Self::Message(StatusCode::BAD_REQUEST, message.into())
    }

    pub const NOT_FOUND: Self = Self::Framework(StatusCode::NOT_FOUND);
    pub const MALFORMED: Self = Self::Framework(StatusCode::BAD_REQUEST);
}

/// Messages by attribute, in the order in which they were found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Errors(Vec<(&'static str, Vec<String>)>);

impl Errors {
    pub fn add(&mut self, attribute: &'static str, message: impl Into<String>) {
        let message = message.into();
        match self.0.iter_mut().find(|(name, _)| *name == attribute) {
            Some((_, messages)) => messages.push(message),
            None => self.0.push((attribute, vec![message])),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Errors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (attribute, messages) in &self.0 {
            map.serialize_entry(attribute, messages)?;
        }
        map.end()
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// An answer in JSON, as it was written.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The same from a value; strings, numbers and lists of them cannot fail to be written.
pub fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    json(status, serde_json::to_vec(body).unwrap_or_default())
}

/// A status and nothing else.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

fn message(status: StatusCode, text: &str) -> Response {
    answer(status, &serde_json::json!({ "error": text }))
}

/// Marks an answer whose body depends on what the client accepts; [`frame`] writes it.
#[derive(Debug, Clone, Copy)]
struct OfTheFramework;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Framework(status) => {
                let mut response = empty(status);
                response.extensions_mut().insert(OfTheFramework);
                response
            }
            Self::Message(status, text) => message(status, &text),
            Self::Busy(text, seconds) => {
                let mut response = message(StatusCode::SERVICE_UNAVAILABLE, &text);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                response
            }
            Self::Invalid(errors) => answer(StatusCode::UNPROCESSABLE_ENTITY, &errors),
            Self::Empty(status) => empty(status),
            Self::Internal(cause) => {
                let mut response = Self::Framework(StatusCode::INTERNAL_SERVER_ERROR).into_response();
                response.extensions_mut().insert(cause);
                response
            }
        }
    }
}

/// Gives the framework's answers their bodies: JSON for `Accept: application/json` alone, else none.
pub async fn frame(request: Request, next: Next) -> Response {
    let wants_json = request.headers().get(ACCEPT).is_some_and(|accept| accept == "application/json");
    let mut response = next.run(request).await;
    if response.extensions_mut().remove::<OfTheFramework>().is_none() {
        return response;
    }
    let status = response.status();
    if wants_json {
        let reason = status.canonical_reason().unwrap_or_default();
        let body = format!(r#"{{"status":{},"error":"{reason}"}}"#, status.as_u16());
        *response.body_mut() = Body::from(body);
        response.headers_mut().insert(CONTENT_TYPE, JSON);
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
    }
    response
}

/// What the native API would have said, in Judge0's form.
impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        match (error.cause, error.retry_after) {
            (Some(cause), None) => Self::Internal(cause),
            (Some(cause), Some(seconds)) => {
                tracing::error!(%cause, "a request of a Judge0 client failed");
                Self::Busy(error.detail.into_owned(), seconds)
            }
            (None, Some(seconds)) => Self::Busy(error.detail.into_owned(), seconds),
            // Judge0 knows no other status for a body that cannot be read.
            (None, None) if error.status == StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::MALFORMED,
            (None, None) => Self::Message(error.status, error.detail.into_owned()),
        }
    }
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::UnknownJob => Self::NOT_FOUND,
            ServiceError::TokenEnded => Self::Empty(StatusCode::UNAUTHORIZED),
            ServiceError::QueueFull => Self::Busy("queue is full".to_owned(), 1),
            ServiceError::Rejected(rejection) => Self::Invalid(super::attributes::translate(&rejection)),
            other => ApiError::from(other).into(),
        }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(Arc::new(error))
    }
}
