//! The document of the API, generated from the handlers and bodies themselves.

use crate::auth::access::{self, Dialect, Need};
use crate::error::ApiError;
use crate::{docs, health, judge0, metrics, v1};
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use std::sync::{Arc, OnceLock};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Gavel",
        description = "Runs programs in isolation and tells exactly what happened to them.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "jobs", description = "Submit programs and get their results"),
        (name = "languages", description = "What can be submitted"),
        (name = "judge0", description = "For clients of Judge0 1.13.1. A slash or `.json` may follow each path, and each is also below `/extra`, with other numbers for languages"),
        (name = "operation", description = "How the server is doing"),
    ),
    paths(
        v1::jobs::create, v1::jobs::list, v1::batch::create, v1::stream::create, v1::jobs::find, v1::jobs::erase,
        v1::jobs::cancel, v1::deliveries::list, v1::events::follow, v1::socket::attach, v1::languages::list,
        v1::languages::find, v1::workers::list,
        v1::workers::stats, health::healthz, health::readyz, metrics::metrics, document, docs::page, docs::asset,
        judge0::submissions::create, judge0::submissions::list, judge0::batch::create, judge0::batch::find,
        judge0::submissions::find, judge0::submissions::delete, judge0::info::languages, judge0::info::all_languages,
        judge0::info::language, judge0::info::statuses, judge0::info::system, judge0::info::config, judge0::info::about,
        judge0::info::version, judge0::info::isolate, judge0::info::license, judge0::info::statistics,
        judge0::info::workers, judge0::info::authenticate, judge0::info::authorize, judge0::info::home,
    ),
    components(schemas(v1::answer::RequestAnswer)),
    modifiers(&Access)
)]
struct Document;

/// What holds for all operations that need a token: how it is sent, and how one is refused.
struct Access;

impl Modify for Access {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let header = |name: &str, about: &str| {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, about)))
        };
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token, `gvl_...`")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("x-auth-token", header("X-Auth-Token", "The same token, as Judge0 has it"));
        for (path, item) in &mut document.paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::DELETE, &mut item.delete),
                (Method::PUT, &mut item.put),
                (Method::PATCH, &mut item.patch),
            ];
            for (method, operation) in operations {
                let need = access::of(&method, path, true);
                if let (Some(operation), true) = (operation, need.need != Need::Nothing) {
                    guard(operation, need.dialect);
                }
            }
        }
    }
}

fn guard(operation: &mut Operation, dialect: Dialect) {
    // A server without tokens asks for none.
    let none = SecurityRequirement::default();
    let scheme = |name: &str| SecurityRequirement::new(name, [] as [&str; 0]);
    operation.security = Some(vec![none, scheme("bearer"), scheme("x-auth-token")]);
    let answers = match dialect {
        Dialect::Native => &[
            ("401", "No token that works"),
            ("403", "The token lacks a scope"),
            ("429", "The token's rate or its owner's quota is used up; `Retry-After` says for how long"),
        ][..],
        Dialect::Judge0 => &[("401", "No token that works"), ("403", "The token lacks a scope")],
    };
    for (status, about) in answers {
        let mut response = ResponseBuilder::new().description(*about);
        if dialect == Dialect::Native {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            response = response.content("application/problem+json", problem);
        }
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| response.build().into());
    }
}

/// OpenAPI 3.1, as `GET /openapi.json` answers it and `docs/api/openapi.json` keeps it.
pub fn json() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Document::openapi()).map(|text| text + "\n")
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"))
)]
pub async fn document() -> Result<Response, ApiError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = match TEXT.get() {
        Some(text) => text,
        None => {
            let text = json().map_err(|error| ApiError::internal(Arc::new(error)))?;
            TEXT.get_or_init(|| text)
        }
    };
    let mut response = Response::new(Body::from(text.as_str()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}
