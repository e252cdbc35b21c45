//! Several submissions in one request.

use super::answer::{Encoding, Fields, token};
use super::document::{BatchRequest, ErrorAnswer, ListAnswer};
use super::error::{Errors, Refusal, answer, json};
use super::params::{Params, aside};
use super::submissions::{Missing, Records, id_of, reading, room_for, text_or_header};
use super::{Flavour, attributes, most_unpacked};
use crate::error::ApiError;
use crate::owner::Owner;
use crate::router::App;
use crate::service::ServiceError;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json as value};

/// Creates submissions; one answer for each, in order.
#[utoipa::path(
    post, path = "/submissions/batch", operation_id = "judge0_create_batch", tag = "judge0",
    params(
        ("base64_encoded" = Option<String>, Query, description = "`true`: texts are base64"),
    ),
    request_body = BatchRequest,
    responses(
        (status = 201, description = "A token or what is wrong, for each in order"),
        (status = 400, description = "Not possible: `error` says why"),
        (status = 403, description = "A form of a page that the operator does not allow"),
        (status = 413, description = "Larger than this server takes", body = ErrorAnswer),
        (status = 422, description = "None was valid: what is wrong with each"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn create(
    State(app): State<App>,
    Extension(flavour): Extension<Flavour>,
    owner: Owner,
    request: Request,
) -> Result<Response, Refusal> {
    allowed(&app)?;
    let (head, body) = request.into_parts();
    let mut params = Params::read(&app, &head, body, app.options().max_batch_body).await?;
    let list = match params.values.remove("submissions") {
        Some(Value::Array(list)) => list,
        None | Some(Value::Null) => Vec::new(),
        // Neither a list nor nothing: Judge0 stumbles over it.
        Some(_) => return Err(Refusal::MALFORMED),
    };
    room_for(&app, list.len() as u64).await?;
    check_size(&app, list.len())?;
    let reading = reading(&app, flavour, params.switch("base64_encoded"));
    let grown: u64 = list.iter().filter_map(Value::as_object).map(|item| reading.may_unpack(item)).sum();
    let most = most_unpacked(app.judge0(), &app.service().options().rules, app.options().max_batch_body);
    let mut room = grown.min(most.0);
    if room > 0 {
        params.held.more(&app, room).await?;
    }
    let mut read = move |item| match item {
        Value::Object(attributes) => Some(reading.draft(attributes, &mut room)),
        _ => None,
    };
    let drafts = aside(move || list.into_iter().map(&mut read).collect::<Option<Vec<_>>>()).await?;
    let drafts = drafts.ok_or(Refusal::MALFORMED)?;

    let (mut valid, mut answers) = (Vec::new(), Vec::new());
    for draft in drafts {
        answers.push(match draft {
            Ok(draft) => {
                valid.push(Ok(draft));
                None
            }
            Err(errors) => Some(errors),
        });
    }
    let stored = if valid.is_empty() { Vec::new() } else { app.service().submit_batch(&owner, valid, None).await? };
    drop(params);
    let mut stored = stored.into_iter();
    let mut any = false;
    let answers: Vec<Value> = answers
        .into_iter()
        .map(|refused| match refused {
            Some(errors) => shown(&errors),
            None => match stored.next() {
                Some(Ok(submitted)) => {
                    any = true;
                    token(id_of(&submitted))
                }
                Some(Err(ServiceError::Rejected(rejection))) => shown(&attributes::translate(&rejection)),
                // The queue filled up in between.
                Some(Err(ServiceError::QueueFull)) => value!({ "error": "queue is full" }),
                Some(Err(error @ ServiceError::OverQuota { .. })) => {
                    value!({ "error": ApiError::from(error).detail })
                }
                Some(Err(_)) | None => value!({ "error": "the submission could not be stored" }),
            },
        })
        .collect();
    let status = if any { StatusCode::CREATED } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok(answer(status, &answers))
}

/// Reads submissions by their tokens; unknown ones are null.
#[utoipa::path(
    get, path = "/submissions/batch", operation_id = "judge0_find_batch", tag = "judge0",
    params(
        ("tokens" = Option<String>, Query, description = "Tokens, separated by commas"),
        ("base64_encoded" = Option<String>, Query, description = "`true`: texts are base64"),
        ("fields" = Option<String>, Query, description = "Names of the wanted attributes, separated by commas; `*` is all"),
    ),
    responses(
        (status = 200, description = "The submissions, in order", body = ListAnswer),
        (status = 400, description = "Not possible: `error` says why"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn find(State(app): State<App>, owner: Owner, request: Request) -> Result<Response, Refusal> {
    allowed(&app)?;
    let params = Params::of_query(request.uri().query())?;
    let fields = Fields::parse(params.text("fields"))?;
    let encoding = Encoding::of(params.switch("base64_encoded"));
    let tokens = text_or_header(&params, request.headers(), "tokens").unwrap_or_default();
    // Empty ones at the end are none, as for whoever splits in Ruby.
    let tokens = tokens.trim_end_matches(',');
    let tokens: Vec<&str> = if tokens.is_empty() { Vec::new() } else { tokens.split(',').collect() };
    check_size(&app, tokens.len())?;
    let records = Records { app: &app, owner: &owner, fields, encoding };
    let mut body = records.list(tokens.into_iter().map(super::token::read), Missing::Null).await?;
    body.push(b'}');
    Ok(json(StatusCode::OK, body))
}

fn allowed(app: &App) -> Result<(), Refusal> {
    if app.judge0().batches { Ok(()) } else { Err(Refusal::bad("batched submissions are not allowed")) }
}

fn check_size(app: &App, size: usize) -> Result<(), Refusal> {
    let most = app.judge0().max_batch;
    if size == 0 {
        return Err(Refusal::bad("there should be at least one submission in a batch"));
    }
    if size > most {
        let message = format!("number of submissions in a batch should be less than or equal to {most}");
        return Err(Refusal::bad(message));
    }
    Ok(())
}

fn shown(errors: &Errors) -> Value {
    // Texts by name: they cannot fail to be written.
    serde_json::to_value(errors).unwrap_or_default()
}
