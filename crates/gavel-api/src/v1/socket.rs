//! A job over a WebSocket: its events out, and what somebody types for it in.
//!
//! Everything is bounded by the connection: an event is read when the one before it is on its way, and a message of
//! the client when the one before it is taken. So a client that does not read loses output that is no longer kept
//! (`dropped`), and one that types faster than the program reads has to wait.

use super::answer::{Base64, encode, text};
use super::body::{TtyBody, decode};
use super::fields::{Fields, job_json};
use super::jobs::job_id;
use super::pieces::{Pieces, name};
use crate::error::{ApiError, ProblemBody};
use crate::owner::Caller;
use crate::query::Params;
use crate::router::App;
use crate::service::ServiceError;
use crate::times::now;
use crate::watch::{Seen, Watch};
use axum::extract::rejection::PathRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::http::header::UPGRADE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use gavel_core::JobId;
use gavel_core::job::Tty;
use gavel_core::validate::{MAX_COLS, MAX_ROWS};
use gavel_store::{Input, JobRecord, Scope, Stream};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error};

/// Largest message of a client.
const MAX_MESSAGE: usize = 128 << 10;

/// Every open socket has a buffer of this size; longer messages are read in steps.
const READ_BUFFER: usize = 2 << 10;

/// A message's input goes on its way in pieces of at most this size.
const PIECE: usize = 16 << 10;

/// How long the client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A client that has not answered so many pings is gone.
const PATIENCE: u32 = 4;

/// Follows a job, and types for an interactive one.
///
/// A WebSocket. The server sends JSON: `{"event":"status","status",…}`, `{"event":"stdout","data"}` (also `stderr`,
/// `compile_output`; `data_base64` instead of `data` where the bytes are no UTF-8), `{"event":"dropped","bytes"}`,
/// `{"event":"error","message"}` about a message of the client, and `{"event":"done","job"}` at the end. The
/// client may send `{"stdin"}`, `{"stdin_base64"}`, `{"eof":true}`, `{"resize":{"rows","cols"}}`,
/// `{"cancel":true}`; a binary message is stdin as it is.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/ws", operation_id = "attach_job", tag = "jobs",
    params(
        ("id" = String, Path, description = "UUID of the job"),
        ("binary" = Option<bool>, Query, description = "`true`: stdout comes as binary messages, byte for byte"),
        ("fields" = Option<String>, Query, description = "What `done` says of the job, as for reading one"),
    ),
    responses(
        (status = 101, description = "A WebSocket until the job has ended"),
        (status = 403, description = "A web page of another origin; `server.cors_origins` allows it", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Unknown job", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A parameter that means nothing here", body = ProblemBody, content_type = "application/problem+json"),
        (status = 426, description = "Not a request for a WebSocket", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Too many event streams are open", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn attach(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let id = job_id(path)?;
    let mut params = Params::of(query.as_deref());
    let binary = params.bool("binary")?;
    let fields = params.take("fields")?.map(|names| Fields::parse(&names)).transpose()?;
    params.end()?;
    if !app.options().origins.admit(&headers) {
        return Err(foreign());
    }
    let Ok(upgrade) = upgrade else { return Ok(no_upgrade()) };
    let watch = app.service().watch(&caller.owner, id).await?;
    let keep_alive = app.options().keep_alive;
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        // A message leaves before the next one is made.
        .write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| {
        let session = Session {
            socket,
            watch,
            app,
            caller,
            binary,
            fields,
            pieces: Pieces::default(),
            under_way: None,
            ping_at: Instant::now() + keep_alive,
            unanswered: 0,
        };
        session.run()
    }))
}

fn foreign() -> ApiError {
    let detail = "the header Origin names another site, whose pages may not use this server: add it to \
                  server.cors_origins if they should";
    ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", "Foreign origin", detail)
}

fn no_upgrade() -> Response {
    let detail = "this route speaks WebSocket: send Connection: Upgrade, Upgrade: websocket and \
                  Sec-WebSocket-Version: 13, or use the route events";
    let error = ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "Upgrade required", detail);
    let mut response = error.into_response();
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

struct Session {
    socket: WebSocket,
    watch: Watch,
    app: App,
    caller: Caller,
    binary: bool,
    /// What of the job is told at the end.
    fields: Option<Fields>,
    pieces: Pieces,
    /// What the client's last message asked for, until it is done; what was wrong with it, if anything was. No
    /// other message is read before.
    under_way: Option<BoxFuture<'static, Option<String>>>,
    ping_at: Instant,
    /// Pings since the client was last heard of.
    unanswered: u32,
}

enum Next {
    Seen(Option<Seen>),
    Message(Option<Result<Message, axum::Error>>),
    Done(Option<String>),
    Ping,
}

/// Why a session is over.
enum End {
    /// It is told why.
    Told(u16, &'static str),
    /// There is nobody to tell.
    Gone,
}

/// The connection is of no use any more.
struct Broken;

impl Session {
    async fn run(mut self) {
        let end = self.until_the_end().await.unwrap_or(End::Gone);
        if let End::Told(code, reason) = end {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            let goodbye = async {
                if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                    // What the client has sent meanwhile is read and dropped: closed with it unread, the connection
                    // would be reset, and the client might lose the end of what we sent.
                    while let Some(Ok(_)) = self.socket.recv().await {}
                }
            };
            let _ = timeout(GOODBYE, goodbye).await;
        }
    }

    async fn until_the_end(&mut self) -> Result<End, Broken> {
        loop {
            let end = match self.next().await {
                Next::Seen(Some(seen)) => self.show(seen).await?,
                Next::Seen(None) => Some(End::Told(close_code::NORMAL, "")),
                Next::Message(Some(Ok(message))) => self.take(message).await?,
                Next::Message(Some(Err(error))) => {
                    debug!(job.id = %self.watch.id(), %error, "a socket broke off");
                    Some(End::Told(close_code::PROTOCOL, "a message is too large, or is none"))
                }
                Next::Message(None) => Some(End::Gone),
                Next::Done(wrong) => {
                    self.under_way = None;
                    self.complain(wrong).await?;
                    None
                }
                Next::Ping => self.ping().await?,
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    async fn next(&mut self) -> Next {
        let Self { socket, watch, under_way, ping_at, .. } = self;
        let idle = under_way.is_none();
        let done = async {
            match under_way {
                Some(work) => work.await,
                None => pending().await,
            }
        };
        tokio::select! {
            seen = watch.next() => Next::Seen(seen),
            message = socket.recv(), if idle => Next::Message(message),
            wrong = done => Next::Done(wrong),
            () = sleep_until(*ping_at) => Next::Ping,
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Broken> {
        self.ping_at = Instant::now() + self.app.options().keep_alive;
        self.socket.send(message).await.map_err(|_| Broken)
    }

    async fn tell(&mut self, told: &impl Serialize) -> Result<(), Broken> {
        self.say(encode(told)).await
    }

    async fn done(&mut self, record: &JobRecord) -> Result<(), Broken> {
        let around = |mut job: Vec<u8>| {
            job.splice(..0, *br#"{"event":"done","job":"#);
            job.push(b'}');
            job
        };
        self.say(job_json(record, self.fields.as_ref()).map(around)).await
    }

    async fn say(&mut self, json: Result<Vec<u8>, ApiError>) -> Result<(), Broken> {
        match json.map(Utf8Bytes::try_from) {
            Ok(Ok(json)) => self.send(Message::Text(json)).await,
            Ok(Err(_)) => Ok(()),
            Err(problem) => {
                error!(cause = ?problem.cause, "cannot write an event");
                Ok(())
            }
        }
    }

    async fn show(&mut self, seen: Seen) -> Result<Option<End>, Broken> {
        match seen {
            Seen::Status { status, worker, attempt, restarted } => {
                if restarted {
                    self.pieces = Pieces::default();
                } else if status.has_ended() {
                    for (stream, rest) in self.pieces.rest() {
                        self.output(stream, &rest).await?;
                    }
                }
                let status = status.as_str();
                self.tell(&Told::Status { status, worker_id: worker, attempt, restarted }).await?;
            }
            Seen::Output { stream: Stream::Stdout, bytes } if self.binary => {
                self.send(Message::Binary(bytes.into())).await?;
            }
            Seen::Output { stream, bytes } => {
                if let Some(bytes) = self.pieces.add(stream, bytes) {
                    self.output(stream, &bytes).await?;
                }
            }
            Seen::Dropped { bytes } => self.tell(&Told::Dropped { bytes }).await?,
            Seen::Done(record) => self.done(&record).await?,
            Seen::Gone => return Ok(Some(End::Told(close_code::NORMAL, "the job was erased"))),
            Seen::Draining => return Ok(Some(End::Told(close_code::AWAY, "the server is going away, come back"))),
        }
        Ok(None)
    }

    async fn output(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Broken> {
        let (text, base64) = text(bytes);
        let data = base64.is_none().then_some(text);
        self.tell(&Output { event: name(stream), data, data_base64: base64 }).await
    }

    async fn complain(&mut self, wrong: Option<String>) -> Result<(), Broken> {
        match wrong {
            Some(message) => self.tell(&Told::Error { message }).await,
            None => Ok(()),
        }
    }

    async fn ping(&mut self) -> Result<Option<End>, Broken> {
        // While a message waits to be taken, answers to pings wait behind it.
        if self.unanswered >= PATIENCE && self.under_way.is_none() {
            return Ok(Some(End::Gone));
        }
        self.unanswered += 1;
        self.send(Message::Ping(Default::default())).await?;
        Ok(None)
    }

    async fn take(&mut self, message: Message) -> Result<Option<End>, Broken> {
        self.unanswered = 0;
        let asked = match message {
            Message::Text(text) => read(&text),
            Message::Binary(bytes) => Ok(Asked::Input(Input::Bytes(bytes.into()))),
            Message::Ping(_) | Message::Pong(_) => return Ok(None),
            // The answer to it is on its way already.
            Message::Close(_) => return Ok(Some(End::Gone)),
        };
        match asked.and_then(|asked| self.begin(asked)) {
            Ok(work) => self.under_way = Some(work),
            Err(wrong) => self.complain(Some(wrong)).await?,
        }
        Ok(None)
    }

    fn begin(&self, asked: Asked) -> Result<BoxFuture<'static, Option<String>>, String> {
        let (service, id) = (self.app.service().clone(), self.watch.id());
        // Whoever may only read was let in to watch. And a socket may outlive its token.
        if !self.caller.may(Scope::Submit) {
            return Err("the token lacks the scope submit".to_owned());
        }
        if !self.caller.owner.is_valid(now()) {
            return Err("the token has expired or was revoked".to_owned());
        }
        let input = match asked {
            Asked::Cancel => {
                let owner = self.caller.owner.clone();
                return Ok(
                    async move { service.cancel(&owner, id).await.err().map(|error| refused(id, error)) }.boxed()
                );
            }
            Asked::Input(input) => input,
        };
        let interactive = self.watch.interactive().ok_or("the job is not interactive: submit it with interactive")?;
        if matches!(input, Input::Resize(_)) && interactive.tty.is_none() {
            return Err("the job has no terminal: submit it with tty".to_owned());
        }
        if self.watch.is_over() {
            return Err("the job has ended".to_owned());
        }
        Ok(async move {
            for piece in pieces_of(input) {
                if let Err(refused) = service.send_input(id, piece).await {
                    return Some(refused.to_string());
                }
            }
            None
        }
        .boxed())
    }
}

/// What the client is told; what the store said of itself is for the log.
fn refused(id: JobId, error: ServiceError) -> String {
    let ApiError { detail, cause, .. } = error.into();
    if let Some(cause) = cause {
        error!(job.id = %id, %cause, "cannot cancel a job");
    }
    detail.into_owned()
}

fn pieces_of(input: Input) -> Vec<Input> {
    match input {
        Input::Bytes(bytes) if bytes.len() > PIECE => {
            bytes.chunks(PIECE).map(|piece| Input::Bytes(piece.to_vec())).collect()
        }
        other => vec![other],
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Told {
    Status { status: &'static str, worker_id: Option<i32>, attempt: u32, restarted: bool },
    Dropped { bytes: u64 },
    Error { message: String },
}

#[derive(Serialize)]
struct Output<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64<'a>>,
}

/// What a client may send: one of them at a time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asking {
    stdin: Option<String>,
    stdin_base64: Option<String>,
    eof: Option<bool>,
    resize: Option<TtyBody>,
    cancel: Option<bool>,
}

#[derive(Debug)]
enum Asked {
    Input(Input),
    Cancel,
}

fn read(text: &str) -> Result<Asked, String> {
    let asking: Asking = serde_json::from_str(text).map_err(|error| format!("the message cannot be read: {error}"))?;
    match asking {
        Asking { stdin: Some(text), stdin_base64: None, eof: None, resize: None, cancel: None } => {
            Ok(Asked::Input(Input::Bytes(text.into_bytes())))
        }
        Asking { stdin: None, stdin_base64: Some(text), eof: None, resize: None, cancel: None } => {
            let bytes = decode(text).map_err(|wrong| format!("stdin_base64 {wrong}"))?;
            Ok(Asked::Input(Input::Bytes(bytes)))
        }
        Asking { stdin: None, stdin_base64: None, eof: Some(true), resize: None, cancel: None } => {
            Ok(Asked::Input(Input::End))
        }
        Asking { stdin: None, stdin_base64: None, eof: None, resize: Some(size), cancel: None } => {
            if !(1..=MAX_ROWS).contains(&size.rows) || !(1..=MAX_COLS).contains(&size.cols) {
                return Err(format!("resize: rows must be between 1 and {MAX_ROWS}, cols between 1 and {MAX_COLS}"));
            }
            Ok(Asked::Input(Input::Resize(Tty { rows: size.rows, cols: size.cols })))
        }
        Asking { stdin: None, stdin_base64: None, eof: None, resize: None, cancel: Some(true) } => Ok(Asked::Cancel),
        _ => Err("send one of stdin, stdin_base64, eof: true, resize and cancel: true in each message".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_one_thing() {
        assert!(matches!(read(r#"{"stdin":"a"}"#), Ok(Asked::Input(Input::Bytes(bytes))) if bytes == b"a"));
        assert!(
            matches!(read(r#"{"stdin_base64":"AP8="}"#), Ok(Asked::Input(Input::Bytes(bytes))) if bytes == b"\0\xff")
        );
        assert!(matches!(read(r#"{"eof":true}"#), Ok(Asked::Input(Input::End))));
        assert!(matches!(read(r#"{"cancel":true,"eof":null}"#), Ok(Asked::Cancel)));
        let size = Tty { rows: 1000, cols: 1 };
        assert!(
            matches!(read(r#"{"resize":{"rows":1000,"cols":1}}"#), Ok(Asked::Input(Input::Resize(got))) if got == size)
        );
        for wrong in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"eof":false}"#,
            r#"{"cancel":false}"#,
            r#"{"stdin":"a","eof":true}"#,
            r#"{"stdin":1}"#,
            r#"{"stdin_base64":"*"}"#,
            r#"{"resize":{"rows":0,"cols":1}}"#,
            r#"{"resize":{"rows":1,"cols":1001}}"#,
            r#"{"resize":{"rows":1}}"#,
            r#"{"signal":2}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
