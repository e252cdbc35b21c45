//! Request bodies: bounded in size, time and memory before anything is parsed; errors name the field.

use crate::error::ApiError;
use crate::router::App;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use gavel_core::units::thousands;
use gavel_core::{Bytes as Size, Problem};
use gavel_store::Idempotency;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

/// Bodies up to this size are read without asking the common budget.
const SMALL_BODY: u64 = 64 * 1024;

/// How long and how much of a refused body is still read, so that the client sees the answer instead
/// of a reset connection.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;

/// How long a request that already holds some of the budget waits for more: whoever waits for what it holds is
/// not to wait long.
const MORE: Duration = Duration::from_secs(2);

/// A body in memory, and the part of the common budget that it uses.
pub struct Received {
    pub bytes: Bytes,
    pub held: Held,
}

/// A part of the common budget, kept as long as what is made of a body lives. Dropped, it is free again.
#[derive(Debug, Default)]
pub struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    /// Reserves so many bytes more.
    pub async fn more(&mut self, app: &App, size: u64) -> Result<(), ApiError> {
        let permit = reserve(app, size, Instant::now() + MORE).await?;
        match &mut self.0 {
            Some(held) => held.merge(permit),
            None => self.0 = Some(permit),
        }
        Ok(())
    }
}

/// Reads a whole JSON body of at most `max`.
pub async fn json_body(app: &App, headers: &HeaderMap, body: Body, max: Size) -> Result<Received, ApiError> {
    require_type(headers, &["application/json"])?;
    read(app, headers, body, max).await
}

/// The same of any type, for whoever looks at the type himself.
pub async fn any_body(app: &App, headers: &HeaderMap, body: Body, max: Size) -> Result<Received, ApiError> {
    require_no_coding(headers)?;
    read(app, headers, body, max).await
}

async fn read(app: &App, headers: &HeaderMap, body: Body, max: Size) -> Result<Received, ApiError> {
    let deadline = Instant::now() + app.options().body_timeout;
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut body = body;
    if declared.is_some_and(|length| length > max.0) {
        linger(&mut body).await;
        return Err(too_large(max));
    }
    // A body without a length may grow to the limit, so it reserves that much.
    let budget = match declared.unwrap_or(max.0) {
        ..=SMALL_BODY => None,
        size => Some(reserve(app, size, deadline).await?),
    };
    match timeout_at(deadline, collect(&mut body, max)).await {
        Ok(Ok(bytes)) => Ok(Received { bytes, held: Held(budget) }),
        Ok(Err(Refused::TooLarge)) => {
            linger(&mut body).await;
            Err(too_large(max))
        }
        Ok(Err(Refused::Broken(cause))) => {
            tracing::debug!(%cause, "a request body broke off");
            Err(ApiError::malformed("the body of the request broke off"))
        }
        Err(_) => Err(timed_out(app.options().body_timeout)),
    }
}

enum Refused {
    TooLarge,
    Broken(axum::Error),
}

async fn collect(body: &mut Body, max: Size) -> Result<Bytes, Refused> {
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Refused::Broken)?.into_data() else { continue };
        if (first.len().max(rest.len()) + data.len()) as u64 > max.0 {
            return Err(Refused::TooLarge);
        }
        // Most bodies are one frame, which is used where it is.
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(first.len() + data.len());
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

async fn reserve(app: &App, size: u64, deadline: Instant) -> Result<OwnedSemaphorePermit, ApiError> {
    let busy = || ApiError::busy("busy", "too many large requests at once: try again later", 1);
    let kib = u32::try_from(size.div_ceil(1024)).map_err(|_| busy())?;
    match timeout_at(deadline, app.body_budget().clone().acquire_many_owned(kib)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(busy()),
    }
}

async fn linger(body: &mut Body) {
    let until = Instant::now() + LINGER;
    let mut read = 0;
    while read < LINGER_BYTES
        && let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

pub fn too_large(max: Size) -> ApiError {
    ApiError::too_large(format!("the body is larger than {} bytes, which is this server's limit", thousands(max.0)))
}

fn timed_out(limit: Duration) -> ApiError {
    ApiError::new(
        axum::http::StatusCode::REQUEST_TIMEOUT,
        "timeout",
        "Request timeout",
        format!("the body of the request did not arrive within {} s", limit.as_secs()),
    )
}

/// One line of a stream.
pub enum Line {
    Whole(Vec<u8>),
    /// Longer than the body of a job may be; what it said is gone.
    TooLong,
}

/// Cuts a body into lines; empty ones are left out. Holds at most one line and one frame.
pub struct Lines {
    body: Body,
    app: App,
    buffer: Vec<u8>,
    /// How much of the buffer holds no line break.
    scanned: usize,
    /// The present line is too long: it is thrown away until it ends.
    discarding: bool,
    ended: bool,
    budget: Option<OwnedSemaphorePermit>,
}

impl Lines {
    pub fn new(body: Body, app: App) -> Self {
        Self { body, app, buffer: Vec::new(), scanned: 0, discarding: false, ended: false, budget: None }
    }

    /// Nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.cut() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.more().await;
        }
    }

    /// The next line that the buffer holds whole.
    fn cut(&mut self) -> Option<Line> {
        while let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let rest = self.buffer.split_off(self.scanned + at + 1);
            let line = std::mem::replace(&mut self.buffer, rest);
            self.scanned = 0;
            if let Some(line) = self.finish(line) {
                return Some(line);
            }
        }
        self.scanned = self.buffer.len();
        let max = self.app.options().max_body.as_usize();
        if self.buffer.len() > max {
            self.discarding = true;
            self.buffer = Vec::new();
            self.scanned = 0;
        }
        if self.ended {
            // The last line may lack its line break.
            let line = std::mem::take(&mut self.buffer);
            self.scanned = 0;
            return self.finish(line);
        }
        None
    }

    fn finish(&mut self, line: Vec<u8>) -> Option<Line> {
        if self.buffer.len() <= SMALL_BODY as usize {
            self.budget = None;
        }
        if std::mem::take(&mut self.discarding) || line.len() as u64 > self.app.options().max_body.0 {
            return Some(Line::TooLong);
        }
        (!line.iter().all(u8::is_ascii_whitespace)).then_some(Line::Whole(line))
    }

    async fn more(&mut self) {
        if self.buffer.len() as u64 > SMALL_BODY && self.budget.is_none() {
            // A long line may grow to the limit, so it reserves that much; others read on meanwhile.
            let kib = u32::try_from(self.app.options().max_body.as_kib()).unwrap_or(u32::MAX);
            self.budget = self.app.body_budget().clone().acquire_many_owned(kib).await.ok();
        }
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.buffer.extend_from_slice(data);
                }
            }
            None => self.ended = true,
            Some(Err(cause)) => {
                tracing::debug!(%cause, "a stream of jobs broke off");
                // Half a line is no request.
                self.buffer.clear();
                self.scanned = 0;
                self.ended = true;
            }
        }
    }
}

/// Refuses other media types. Strict on purpose: a web page of another origin cannot send JSON
/// without asking first, so it cannot submit jobs behind its visitor's back.
pub fn require_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), ApiError> {
    let refuse = || ApiError::unsupported_media_type(format!("send the body with Content-Type: {}", accepted[0]));
    require_no_coding(headers)?;
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).ok_or_else(refuse)?;
    let essence = given.split(';').next().unwrap_or("").trim();
    if accepted.iter().any(|accepted| essence.eq_ignore_ascii_case(accepted)) { Ok(()) } else { Err(refuse()) }
}

fn require_no_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(ApiError::unsupported_media_type("send the body without a Content-Encoding"));
    }
    Ok(())
}

/// Reads the header `Idempotency-Key`; the fingerprint is of the body as it was sent.
pub fn idempotency(headers: &HeaderMap, body: &[u8]) -> Result<Option<Idempotency>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let visible = |byte: &u8| (0x20..=0x7e).contains(byte);
    let key = value.as_bytes();
    if values.next().is_some() || key.is_empty() || key.len() > 255 || !key.iter().all(visible) {
        return Err(ApiError::field("Idempotency-Key", "must be one value of 1 to 255 visible ASCII characters"));
    }
    let key = String::from_utf8_lossy(key).into_owned();
    Ok(Some(Idempotency { key, fingerprint: *blake3::hash(body).as_bytes() }))
}

/// A struct that is written as an object. Serde would also take a list of its fields in their order, which
/// nobody means.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Parses JSON once; only a refused body is parsed again, to find where it is wrong.
pub fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json).map(|Object(value)| value).map_err(|error| explain::<T>(json, &error))
}

#[cold]
fn explain<'a, T: Deserialize<'a>>(json: &'a [u8], error: &serde_json::Error) -> ApiError {
    if json.iter().all(u8::is_ascii_whitespace) {
        return ApiError::malformed("the body is empty: send a JSON object");
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let path = match serde_path_to_error::deserialize::<_, Object<T>>(&mut reader) {
        Err(error) => error.path().to_string(),
        Ok(_) => ".".to_owned(),
    };
    let text = error.to_string();
    let number_too_large = text.starts_with("number out of range");
    if error.classify() != Category::Data && !number_too_large {
        return ApiError::malformed(format!("the body is not valid JSON: {}", shorten(&text)));
    }
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    ApiError::invalid(vec![Problem { field: field_of(&path, message), message: plain_words(message) }])
}

/// The path of the field that a message is about. Serde leaves a missing or unknown field out of it.
fn field_of(path: &str, message: &str) -> String {
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let path = if path == "." { "" } else { path };
    match named {
        Some(name) if path != name && !path.ends_with(&format!(".{name}")) => {
            let name: String = name.chars().take(64).collect();
            if path.is_empty() { name } else { format!("{path}.{name}") }
        }
        _ if path.is_empty() => "body".to_owned(),
        _ => path.chars().take(200).collect(),
    }
}

/// Says in the client's words what serde says in Rust's.
fn plain_words(message: &str) -> String {
    let mut text = shorten(message);
    for (rust, plain) in [
        ("expected u64", "expected a whole number from 0 up"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected i32", "expected a whole number"),
    ] {
        if let Some(start) = text.strip_suffix(rust) {
            text = format!("{start}{plain}");
        }
    }
    text
}

/// A message may quote the request; no more of it than helps.
fn shorten(message: &str) -> String {
    const MAX: usize = 300;
    if message.len() <= MAX {
        return message.to_owned();
    }
    // The end says what was expected.
    let head: String = message.chars().take(MAX / 2).collect();
    let tail: Vec<char> = message.chars().rev().take(MAX / 2).collect();
    format!("{head} … {}", tail.into_iter().rev().collect::<String>())
}

/// The common memory for request bodies, in KiB.
pub fn budget(size: Size) -> Arc<tokio::sync::Semaphore> {
    let kib = usize::try_from(size.as_kib()).unwrap_or(usize::MAX);
    Arc::new(tokio::sync::Semaphore::new(kib.min(tokio::sync::Semaphore::MAX_PERMITS)))
}
