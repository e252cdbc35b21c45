//! What can be submitted.

use super::answer::{LanguageBody, LanguagesBody, encode, json};
use crate::error::{ApiError, ProblemBody};
use crate::query::Params;
use crate::router::App;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

/// Lists the languages, by id.
#[utoipa::path(
    get, path = "/api/v1/languages", operation_id = "list_languages", tag = "languages",
    responses((status = 200, description = "All languages, also those that are not available here", body = LanguagesBody))
)]
pub async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    Params::of(query.as_deref()).end()?;
    let shelf = app.service().languages();
    let languages = shelf.catalogue.iter().map(|l| LanguageBody::of(l, shelf.state(&l.id))).collect();
    Ok(json(StatusCode::OK, encode(&LanguagesBody { languages })?))
}

/// Shows one language.
#[utoipa::path(
    get, path = "/api/v1/languages/{id}", operation_id = "get_language", tag = "languages",
    params(("id" = String, Path, description = "Id of the language")),
    responses(
        (status = 200, description = "The language", body = LanguageBody),
        (status = 404, description = "Unknown language", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn find(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    Params::of(query.as_deref()).end()?;
    let shelf = app.service().languages();
    let language = path.ok().and_then(|Path(id)| shelf.get(&id));
    let language = language.ok_or_else(|| ApiError::not_found("there is no such language"))?;
    Ok(json(StatusCode::OK, encode(&LanguageBody::of(language, shelf.state(&language.id)))?))
}
