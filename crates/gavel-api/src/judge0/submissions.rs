//! One submission at a time: create, wait, read, list, delete.

use super::answer::{Encoding, Fields, NotText, View, token};
use super::attributes::Reading;
use super::document::{ErrorAnswer, ListAnswer, SubmissionAnswer, SubmissionRequest};
use super::error::{Refusal, answer, json};
use super::params::{Params, aside};
use super::{Flavour, authorized};
use crate::input::Held;
use crate::owner::Owner;
use crate::router::App;
use crate::service::{ServiceError, Submitted, Waited};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use gavel_core::JobId;
use gavel_store::JobRecord;
use serde_json::json as value;
use std::sync::Arc;

/// A text that plain JSON cannot carry.
const NOT_TEXT: &str =
    "some attributes for this submission cannot be converted to UTF-8, use base64_encoded=true query parameter";
const SOME_NOT_TEXT: &str = "some attributes for one or more submissions cannot be converted to UTF-8, \
                             use base64_encoded=true query parameter";

/// Work on more than this is done beside the threads that serve sockets.
const LARGE: usize = 1 << 20;

/// Creates a submission. With `wait=true`, the answer holds its result.
#[utoipa::path(
    post, path = "/submissions", operation_id = "judge0_create", tag = "judge0",
    params(
        ("wait" = Option<String>, Query, description = "`true`: the answer holds the result"),
        ("base64_encoded" = Option<String>, Query, description = "`true`: texts are base64"),
        ("fields" = Option<String>, Query, description = "Names of the wanted attributes, separated by commas; `*` is all"),
    ),
    request_body = SubmissionRequest,
    responses(
        (status = 201, description = "Created: its token, or with `wait=true` what became of it", body = SubmissionAnswer),
        (status = 400, description = "Not possible: `error` says why"),
        (status = 403, description = "A form of a page that the operator does not allow"),
        (status = 413, description = "Larger than this server takes", body = ErrorAnswer),
        (status = 422, description = "Attributes, and what is wrong with each"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn create(
    State(app): State<App>,
    Extension(flavour): Extension<Flavour>,
    owner: Owner,
    request: Request,
) -> Result<Response, Refusal> {
    let options = app.judge0().clone();
    open_for_changes(&app)?;
    let (head, body) = request.into_parts();
    let params = Params::read(&app, &head, body, app.options().max_body).await?;
    let wait = params.switch("wait");
    if wait && !options.wait {
        return Err(Refusal::bad("wait not allowed"));
    }
    room_for(&app, 1).await?;
    let fields = Fields::parse(params.text("fields"))?;
    let base64 = params.switch("base64_encoded");
    let reading = reading(&app, flavour, base64);
    let (draft, held) = read(&app, reading, params).await?;
    if !wait {
        let submitted = app.service().submit(&owner, draft, None).await?;
        drop(held);
        return Ok(answer(StatusCode::CREATED, &token(id_of(&submitted))));
    }
    // Judge0 waits as long as it takes; so does this, as far as the operator allows it.
    let patience = app.service().options().max_wait;
    match app.service().submit_and_wait(&owner, draft, None, patience, held).await? {
        Waited::Unread(receipt) => Ok(answer(StatusCode::CREATED, &token(receipt.id))),
        Waited::Read(record) => {
            let id = record.id;
            match render(&app, record, fields, Encoding::of(base64)).await? {
                Ok(body) => Ok(json(StatusCode::CREATED, body)),
                Err(NotText) => {
                    Ok(answer(StatusCode::CREATED, &value!({ "error": NOT_TEXT, "token": super::token::of(id) })))
                }
            }
        }
    }
}

/// Reads a submission.
#[utoipa::path(
    get, path = "/submissions/{token}", operation_id = "judge0_find", tag = "judge0",
    params(
        ("token" = String, Path, description = "Token of the submission"),
        ("base64_encoded" = Option<String>, Query, description = "`true`: texts are base64"),
        ("fields" = Option<String>, Query, description = "Names of the wanted attributes, separated by commas; `*` is all"),
    ),
    responses(
        (status = 200, description = "The submission", body = SubmissionAnswer),
        (status = 400, description = "Not possible: `error` says why"),
        (status = 404, description = "Unknown"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn find(
    State(app): State<App>,
    owner: Owner,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let params = Params::of_query(query.as_deref())?;
    // Before the submission is looked for, as Judge0 does it.
    let fields = Fields::parse(params.text("fields"))?;
    let encoding = Encoding::of(params.switch("base64_encoded"));
    let record = app.service().find(&owner, id_in(path)?).await?;
    let body = render(&app, Arc::new(record), fields, encoding).await?;
    Ok(json(StatusCode::OK, body.map_err(|NotText| Refusal::bad(NOT_TEXT))?))
}

/// Lists submissions, newest first.
#[utoipa::path(
    get, path = "/submissions", operation_id = "judge0_list", tag = "judge0",
    params(
        ("page" = Option<String>, Query, description = "From 1 up"),
        ("per_page" = Option<String>, Query, description = "1 to 1000; default 20"),
        ("base64_encoded" = Option<String>, Query, description = "`true`: texts are base64"),
        ("fields" = Option<String>, Query, description = "Names of the wanted attributes, separated by commas; `*` is all"),
    ),
    responses(
        (status = 200, description = "A page of submissions", body = ListAnswer),
        (status = 400, description = "Not possible: `error` says why"),
        (status = 403, description = "Not allowed with this token"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn list(State(app): State<App>, owner: Owner, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    authorized(&owner)?;
    let params = Params::of_query(query.as_deref())?;
    let fields = Fields::parse(params.text("fields"))?;
    let page = page_number(&params, "page", 1)?;
    let per_page = page_number(&params, "per_page", 20)?;
    let limit = usize::try_from(per_page).unwrap_or(usize::MAX).min(MAX_PER_PAGE);
    if per_page as usize > limit {
        return Err(Refusal::bad(format!("invalid per_page: {per_page}, the most is {MAX_PER_PAGE}")));
    }
    let offset = (page - 1).saturating_mul(per_page);
    let found = app.service().page(&owner, offset, limit).await?;
    let records = Records { app: &app, owner: &owner, fields, encoding: Encoding::of(params.switch("base64_encoded")) };
    let list = records.list(found.ids.iter().map(|id| Some(*id)), Missing::LeftOut).await?;
    let pages = found.total.div_ceil(per_page);
    let meta = value!({
        "current_page": page,
        "next_page": (page < pages).then_some(page + 1),
        "prev_page": (page > 1).then(|| page - 1),
        "total_pages": pages,
        "total_count": found.total,
    });
    let mut body = list;
    body.extend_from_slice(b",\"meta\":");
    body.extend(serde_json::to_vec(&meta)?);
    body.push(b'}');
    Ok(json(StatusCode::OK, body))
}

/// Deletes an ended submission, and shows it for the last time.
#[utoipa::path(
    delete, path = "/submissions/{token}", operation_id = "judge0_delete", tag = "judge0",
    params(
        ("token" = String, Path, description = "Token of the submission"),
        ("base64_encoded" = Option<String>, Query, description = "`true`: texts are base64"),
        ("fields" = Option<String>, Query, description = "Names of the wanted attributes, separated by commas; `*` is all"),
    ),
    responses(
        (status = 200, description = "The submission as it was", body = SubmissionAnswer),
        (status = 400, description = "Not possible: `error` says why"),
        (status = 403, description = "Not allowed with this token"),
        (status = 404, description = "Unknown"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn delete(
    State(app): State<App>,
    owner: Owner,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    authorized(&owner)?;
    open_for_changes(&app)?;
    let params = Params::of_query(query.as_deref())?;
    let fields = Fields::parse(params.text("fields"))?;
    if !app.judge0().delete {
        return Err(Refusal::bad("delete not allowed"));
    }
    let id = id_in(path)?;
    let record = Arc::new(app.service().find(&owner, id).await?);
    let status = super::status::ending(&record, false).status;
    match app.service().delete(&owner, id).await {
        Err(ServiceError::NotEnded(_)) => Err(Refusal::bad(format!(
            "submission cannot be deleted because its status is {} ({})",
            status.0,
            status.description()
        ))),
        Err(error) => Err(error.into()),
        Ok(()) => match render(&app, record, fields, Encoding::Base64).await? {
            Ok(body) => Ok(json(StatusCode::OK, body)),
            Err(NotText) => Err(Refusal::bad(NOT_TEXT)),
        },
    }
}

/// Submissions of a page. Judge0 knows no bound.
const MAX_PER_PAGE: usize = 1000;

/// A number from 1 up; what is no number counts as 0.
fn page_number(params: &Params, name: &str, default: u64) -> Result<u64, Refusal> {
    let Some(text) = params.text(name) else { return Ok(default) };
    let number: i64 = text.trim().parse().unwrap_or(0);
    u64::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| Refusal::bad(format!("invalid {name}: {number}")))
}

/// Refuses while the operator works on the server.
pub fn open_for_changes(app: &App) -> Result<(), Refusal> {
    match &app.judge0().maintenance {
        Some(message) => Err(Refusal::Message(StatusCode::SERVICE_UNAVAILABLE, message.clone())),
        None => Ok(()),
    }
}

/// All of them or none: Judge0 looks before it reads what is submitted.
pub async fn room_for(app: &App, jobs: u64) -> Result<(), Refusal> {
    if app.service().has_room_for(jobs).await? { Ok(()) } else { Err(ServiceError::QueueFull.into()) }
}

pub fn reading(app: &App, flavour: Flavour, base64: bool) -> Reading {
    let service = app.service();
    let (shelf, rules) = (service.languages(), service.options().rules.clone());
    Reading { shelf, flavour, options: app.judge0().clone(), rules, base64 }
}

/// The draft, and what it holds of the budget for bodies.
async fn read(app: &App, reading: Reading, params: Params) -> Result<(gavel_core::Draft, Held), Refusal> {
    let size = |name| params.text(name).map_or(0, str::len);
    let texts: usize = ["source_code", "stdin", "expected_output"].map(size).iter().sum();
    // An archive may grow, whatever its size.
    let beside = texts > LARGE || size("additional_files") > 0;
    let Params { values, mut held } = params;
    let mut room = reading.may_unpack(&values);
    if room > 0 {
        held.more(app, room).await?;
    }
    let work = move || reading.draft(values, &mut room);
    let draft = if beside { aside(work).await? } else { work() };
    draft.map(|draft| (draft, held)).map_err(Refusal::Invalid)
}

pub fn id_of(submitted: &Submitted) -> JobId {
    match submitted {
        Submitted::New(receipt) => receipt.id,
        Submitted::Known(id) => *id,
    }
}

/// The token in a path, with or without `.json`. What is no token names no submission.
fn id_in(path: Result<Path<String>, PathRejection>) -> Result<JobId, Refusal> {
    let id = path.ok().and_then(|Path(text)| super::token::read(text.strip_suffix(".json").unwrap_or(&text)));
    id.ok_or(Refusal::NOT_FOUND)
}

async fn render(
    app: &App,
    record: Arc<JobRecord>,
    fields: Fields,
    encoding: Encoding,
) -> Result<Result<Vec<u8>, NotText>, Refusal> {
    let (shelf, options) = (app.service().languages(), app.judge0().clone());
    let size = record.outcome.as_ref().map_or(0, |o| o.stdout.len() + o.stderr.len() + o.compile_output.len())
        + record.job.source.len()
        + record.job.stdin.len();
    let work = move || View { shelf: &shelf, options: &options, fields, encoding }.render(&record);
    if size <= LARGE { Ok(work()) } else { aside(work).await }
}

/// What stands for a submission that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Null,
    LeftOut,
}

/// Several submissions in one answer, read and written one by one.
pub struct Records<'a> {
    pub app: &'a App,
    pub owner: &'a Owner,
    pub fields: Fields,
    pub encoding: Encoding,
}

impl Records<'_> {
    /// `{"submissions":[…]`, without the brace at the end.
    pub async fn list(&self, ids: impl Iterator<Item = Option<JobId>>, missing: Missing) -> Result<Vec<u8>, Refusal> {
        const HEAD: &[u8] = b"{\"submissions\":[";
        let most = self.app.options().max_batch_answer;
        let mut out = HEAD.to_vec();
        for id in ids {
            let shown = match id {
                Some(id) => self.one(id).await?,
                None => None,
            };
            let shown = match (shown, missing) {
                (Some(shown), _) => shown,
                (None, Missing::Null) => b"null".to_vec(),
                (None, Missing::LeftOut) => continue,
            };
            if out.len() > HEAD.len() {
                out.push(b',');
            }
            out.extend(shown);
            if out.len() > most {
                let message = "the answer is too large: ask for fewer submissions or fewer fields";
                return Err(Refusal::bad(message));
            }
        }
        out.push(b']');
        Ok(out)
    }

    async fn one(&self, id: JobId) -> Result<Option<Vec<u8>>, Refusal> {
        let record = match self.app.service().find(self.owner, id).await {
            Ok(record) => Arc::new(record),
            Err(ServiceError::UnknownJob) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let shown = render(self.app, record, self.fields, self.encoding).await?;
        Ok(Some(shown.map_err(|NotText| Refusal::bad(SOME_NOT_TEXT))?))
    }
}

/// The value of a parameter that may also come as a header.
pub fn text_or_header<'a>(params: &'a Params, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    params.text(name).or_else(|| headers.get(name)?.to_str().ok())
}
