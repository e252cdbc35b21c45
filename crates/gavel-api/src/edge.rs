//! What happens to every request: a look at its host, an id, a measurement, a line in the log, a few headers,
//! and an answer even when a handler panics. One layer, so that a short request stays short.

use crate::error::{ApiError, Cause};
use crate::host;
use crate::metrics::count_request;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tracing::{debug, error};
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for handlers whose work outlives their answer.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or(Self(HeaderValue::from_static("none")))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or("none"))
    }
}

/// `hosts` are names that requests may be for, besides those of loopback addresses.
pub async fn pass(State(hosts): State<Arc<[String]>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("unmatched", MatchedPath::as_str);
    let mut response = if host::is_ours(&request, &hosts) {
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => ApiError::internal(Arc::new(Panicked(panic_text(&*panic)))).into_response(),
        }
    } else {
        host::misdirected().into_response()
    };
    let status = response.status();
    let shown_id = id.to_str().unwrap_or("");
    if let Some(cause) = response.extensions_mut().remove::<Cause>() {
        error!(request_id = shown_id, %method, route, status = status.as_u16(), cause = %cause, "a request failed");
    }
    let took = started.elapsed();
    debug!(request_id = shown_id, %method, route, status = status.as_u16(), ms = took.as_secs_f64() * 1e3, "request");
    count_request(route, &method, status, took);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Jobs are private and change; pages say otherwise themselves.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The client's id when it can go into a log and a header as it is, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let id = value.as_bytes();
        (1..=128).contains(&id.len())
            && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
    };
    if let Some(id) = request.headers().get(REQUEST_ID).filter(sane) {
        return id.clone();
    }
    let mut text = Uuid::encode_buffer();
    let text = Uuid::now_v7().simple().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"))
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

pub async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::not_found(format!("there is no route {method} {path}: GET /openapi.json lists them"))
}

pub async fn wrong_method(method: Method) -> ApiError {
    let detail = format!("this route does not answer {method}: the header Allow says what it answers");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    async fn boom() -> StatusCode {
        panic!("secret {}", 7)
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_not_a_lost_connection() {
        let router: Router = Router::new().route("/", get(boom)).layer(from_fn_with_state(Arc::from([]), pass));
        let request = Request::get("/").header("host", "localhost").body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-request-id"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("urn:gavel:problem:internal") && !text.contains("secret"), "{text}");
    }
}
