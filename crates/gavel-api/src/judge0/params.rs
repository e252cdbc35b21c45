//! Parameters of a request: query and body merged, as Judge0's framework does it. The query wins.

use super::error::Refusal;
use crate::cors::Origins;
use crate::input;
use crate::router::App;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use gavel_core::Bytes as Size;
use serde_json::{Map, Value};
use std::convert::Infallible;

/// Values by name; those of forms and queries are texts.
#[derive(Debug, Default)]
pub struct Params(pub Map<String, Value>);

/// Work on more than this is done beside the threads that serve sockets.
const LARGE: usize = 1 << 20;

impl Params {
    pub fn of_query(query: Option<&str>) -> Result<Self, Refusal> {
        Ok(Self(read_form(query.unwrap_or_default().as_bytes())?))
    }

    pub async fn read(app: &App, head: &Parts, body: Body, max: Size) -> Result<Self, Refusal> {
        let query = Self::of_query(head.uri.query())?;
        refuse_foreign_pages(head, &app.options().origins)?;
        let received = input::any_body(app, &head.headers, body, max).await?;
        let mut params = read_body(&head.headers, received.bytes.clone()).await?;
        params.extend(query.0);
        Ok(Self(params))
    }

    /// Only the text `true` is true, not even JSON's own.
    pub fn switch(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }
}

/// A browser lets pages of any origin send forms without asking first; JSON it asks for, and is told by the CORS
/// rules. So that no page submits programs behind its visitor's back, forms are taken from allowed origins only.
fn refuse_foreign_pages(head: &Parts, allowed: &Origins) -> Result<(), Refusal> {
    if matches!(format(&head.headers), Format::Json) || allowed.admit(&head.headers) {
        return Ok(());
    }
    let message = "pages of this origin may send JSON only, or be allowed by the operator (server.cors_origins)";
    Err(Refusal::Message(StatusCode::FORBIDDEN, message.to_owned()))
}

enum Format {
    Json,
    Form,
    Multipart(String),
    Other,
}

fn format(headers: &HeaderMap) -> Format {
    let Some(given) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return Format::Other };
    let essence = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Format::Json,
        "application/x-www-form-urlencoded" => Format::Form,
        "multipart/form-data" => multer::parse_boundary(given).map_or(Format::Other, Format::Multipart),
        _ => Format::Other,
    }
}

async fn read_body(headers: &HeaderMap, body: Bytes) -> Result<Map<String, Value>, Refusal> {
    match format(headers) {
        Format::Json if body.len() > LARGE => aside(move || read_json(&body)).await?,
        Format::Json => read_json(&body),
        Format::Form if body.len() > LARGE => aside(move || read_form(&body)).await?,
        Format::Form => read_form(&body),
        Format::Multipart(boundary) => read_parts(body, boundary).await,
        Format::Other => Ok(Map::new()),
    }
}

/// What is JSON, but no object, holds no parameters.
fn read_json(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body).map_err(|_| Refusal::MALFORMED)? {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// Pairs; the last of a name wins.
fn read_form(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let pairs = form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), Value::from(value)));
    let map: Map<String, Value> = pairs.collect();
    // The decoder puts this character where bytes are no text; who sends it in earnest sends its own bytes.
    const REPLACED: char = '\u{fffd}';
    let replaced = |text: &str| text.contains(REPLACED);
    let damaged = map.iter().any(|(name, value)| replaced(name) || value.as_str().is_some_and(replaced));
    let meant = || String::from_utf8_lossy(body).to_ascii_uppercase().contains("%EF%BF%BD");
    if damaged && !meant() { Err(Refusal::MALFORMED) } else { Ok(map) }
}

/// Fields with a text; files are no attributes of a submission.
async fn read_parts(body: Bytes, boundary: String) -> Result<Map<String, Value>, Refusal> {
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(body)]);
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut map = Map::new();
    while let Some(part) = parts.next_field().await.map_err(|_| Refusal::MALFORMED)? {
        let name = part.name().unwrap_or_default().to_owned();
        let is_file = part.file_name().is_some();
        let bytes = part.bytes().await.map_err(|_| Refusal::MALFORMED)?;
        if !is_file {
            let text = std::str::from_utf8(&bytes).map_err(|_| Refusal::MALFORMED)?;
            map.insert(name, Value::from(text));
        }
    }
    Ok(map)
}

/// Runs work that takes a while on a thread that serves no sockets.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::Internal(std::sync::Arc::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_hold_texts_and_nothing_that_is_none() {
        let form = read_form(b"a=1&b=x+y%0A&a=2&c").unwrap();
        assert_eq!(Value::from(form), serde_json::json!({"a": "2", "b": "x y\n", "c": ""}));
        assert!(read_form(b"a=%FF").is_err());
        assert!(read_form("a=%EF%BF%BD&b=%ef%bf%bd".as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_object_holds_nothing() {
        for json in ["[1]", "\"x\"", "null", "", "  "] {
            assert!(read_json(json.as_bytes()).unwrap().is_empty(), "{json:?}");
        }
        for json in [&b"{"[..], b"{\"a\":\"\xff\"}"] {
            assert!(read_json(json).is_err());
        }
    }
}
