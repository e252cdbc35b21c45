//! `GET /docs`: the API to try in a browser. Everything comes from this binary; nothing is fetched.

use crate::error::ApiError;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use axum::response::Response;
use std::sync::Arc;
use utoipa_swagger_ui::Config;

/// Scripts only from here and never inline, and no frame around the page. Styles are set inline by the
/// page's own scripts.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The files of the page; the rest of what the page's makers ship is not served.
const FILES: &[&str] = &[
    "index.css",
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-initializer.js",
    "favicon-16x16.png",
    "favicon-32x32.png",
];

/// A page to read and try this API.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = "operation", responses((status = 200, description = "The page", content_type = "text/html")))]
pub async fn page() -> Result<Response, ApiError> {
    let html = file("index.html")?.0;
    // The page names its files relatively, and its address has no slash at the end.
    let html = String::from_utf8_lossy(&html).replace("href=\"./", "href=\"/docs/").replace("src=\"./", "src=\"/docs/");
    let html = html.replace("href=\"index.css\"", "href=\"/docs/index.css\"");
    Ok(secured(html.into(), "text/html; charset=utf-8"))
}

/// A file of the page.
#[utoipa::path(
    get, path = "/docs/{file}", operation_id = "docs_file", tag = "operation",
    params(("file" = String, Path, description = "Name of the file")),
    responses((status = 200, description = "The file"), (status = 404, description = "No file of the page"))
)]
pub async fn asset(path: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let missing = || ApiError::not_found("the page has no such file");
    let Path(name) = path.map_err(|_| missing())?;
    let name = FILES.iter().find(|file| **file == name).ok_or_else(missing)?;
    let (bytes, content_type) = file(name)?;
    let mut response = secured(bytes, &content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Ok(response)
}

fn file(name: &str) -> Result<(Vec<u8>, String), ApiError> {
    let config = Config::new(["/openapi.json"]).use_base_layout().validator_url("none");
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => Ok((file.bytes.into_owned(), file.content_type)),
        Ok(None) => Err(ApiError::not_found("the page has no such file")),
        Err(error) => Err(ApiError::internal(Arc::new(BrokenPage(error.to_string())))),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the page of the API cannot be made: {0}")]
struct BrokenPage(String);

fn secured(bytes: Vec<u8>, content_type: &str) -> Response {
    let mut response = Response::new(bytes.into());
    let fallback = HeaderValue::from_static("application/octet-stream");
    let headers: [(HeaderName, HeaderValue); 4] = [
        (CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap_or(fallback)),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    response.headers_mut().extend(headers);
    response
}
