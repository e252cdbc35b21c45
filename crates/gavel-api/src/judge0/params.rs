//! Parameters of a request: query and body merged, as Judge0's framework does it. The query wins.

use super::attributes::ATTRIBUTES;
use super::error::Refusal;
use crate::cors::Origins;
use crate::input::{self, Held};
use crate::router::App;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use gavel_core::Bytes as Size;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

/// Values by name; those of forms and queries are texts. Only names that mean something are kept: a body of
/// millions of others would take many times its size.
#[derive(Debug, Default)]
pub struct Params {
    pub values: Map<String, Value>,
    /// What the values hold of the budget for bodies.
    pub held: Held,
}

/// The list in the body of a batch.
const LIST: &str = "submissions";

/// What is asked for beside attributes of submissions.
const OTHERS: [&str; 8] = ["base64_encoded", "fields", "invalidate_cache", "page", "per_page", LIST, "tokens", "wait"];

fn is_known(name: &str) -> bool {
    ATTRIBUTES.contains(&name) || OTHERS.contains(&name)
}

/// Work on more than this is done beside the threads that serve sockets.
const LARGE: usize = 1 << 20;

impl Params {
    pub fn of_query(query: Option<&str>) -> Result<Self, Refusal> {
        let values = read_form(query.unwrap_or_default().as_bytes())?;
        Ok(Self { values, held: Held::default() })
    }

    pub async fn read(app: &App, head: &Parts, body: Body, max: Size) -> Result<Self, Refusal> {
        let query = Self::of_query(head.uri.query())?;
        refuse_foreign_pages(head, &app.options().origins)?;
        let received = input::any_body(app, &head.headers, body, max).await?;
        let mut values = read_body(&head.headers, received.bytes, app.judge0().max_batch).await?;
        values.extend(query.values);
        Ok(Self { values, held: received.held })
    }

    /// Only the text `true` is true, not even JSON's own.
    pub fn switch(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
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

async fn read_body(headers: &HeaderMap, body: Bytes, max_batch: usize) -> Result<Map<String, Value>, Refusal> {
    match format(headers) {
        Format::Json if body.len() > LARGE => aside(move || read_json(&body, max_batch)).await?,
        Format::Json => read_json(&body, max_batch),
        Format::Form if body.len() > LARGE => aside(move || read_form(&body)).await?,
        Format::Form => read_form(&body),
        Format::Multipart(boundary) => read_parts(body, boundary).await,
        Format::Other => Ok(Map::new()),
    }
}

/// What is JSON, but no object, holds no parameters.
fn read_json(body: &[u8], max_batch: usize) -> Result<Map<String, Value>, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // Also what is stepped over must be text.
    let body = std::str::from_utf8(body).map_err(|_| Refusal::MALFORMED)?;
    let mut reader = serde_json::Deserializer::from_str(body);
    let value = Level::Body { max_batch }.deserialize(&mut reader).map_err(|_| Refusal::MALFORMED)?;
    reader.end().map_err(|_| Refusal::MALFORMED)?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// Reads what means something, and steps over the rest. A list or an object that means nothing is an empty one.
#[derive(Clone, Copy)]
enum Level {
    Body {
        max_batch: usize,
    },
    /// The list of a batch. One element more than a batch may have is enough to refuse it.
    List {
        max_batch: usize,
    },
    Item,
    Attribute,
}

impl Level {
    /// How the value of a name is read, if it is kept.
    fn below(self, name: &str) -> Option<Self> {
        match self {
            Self::Body { max_batch } if name == LIST => Some(Self::List { max_batch }),
            Self::Body { .. } if is_known(name) => Some(Self::Attribute),
            Self::Item if ATTRIBUTES.contains(&name) => Some(Self::Attribute),
            _ => None,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = from.next_key::<Cow<'de, str>>()? {
            match self.below(&name) {
                Some(level) => _ = map.insert(name.into_owned(), from.next_value_seed(level)?),
                None => _ = from.next_value::<IgnoredAny>()?,
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        if let Self::List { max_batch } = self {
            while list.len() <= max_batch {
                match from.next_element_seed(Self::Item)? {
                    Some(item) => list.push(item),
                    None => return Ok(Value::Array(list)),
                }
            }
        }
        while from.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(list))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// Pairs; the last of a name wins.
fn read_form(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let (mut map, mut damaged) = (Map::new(), false);
    // The decoder puts this character where bytes are no text; who sends it in earnest sends its own bytes.
    const REPLACED: char = '\u{fffd}';
    for (name, value) in form_urlencoded::parse(body) {
        damaged |= name.contains(REPLACED) || value.contains(REPLACED);
        if is_known(&name) {
            map.insert(name.into_owned(), Value::from(value));
        }
    }
    let meant = || body.windows(9).any(|bytes| bytes.eq_ignore_ascii_case(b"%EF%BF%BD"));
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
            if is_known(&name) {
                map.insert(name, Value::from(text));
            }
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
        let form = read_form(b"stdin=1&fields=x+y%0A&stdin=2&wait&a=1&b").unwrap();
        assert_eq!(Value::from(form), serde_json::json!({"stdin": "2", "fields": "x y\n", "wait": ""}));
        assert!(read_form(b"a=%FF").is_err());
        assert!(read_form("a=%EF%BF%BD&b=%ef%bf%bd".as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_object_holds_nothing() {
        for json in ["[1]", "\"x\"", "null", "", "  "] {
            assert!(read_json(json.as_bytes(), 20).unwrap().is_empty(), "{json:?}");
        }
        for json in [&b"{"[..], b"{\"a\":\"\xff\"}", b"{\"stdin\":\"\xff\"}", b"{} {}", b"{\"a\":[1,}"] {
            assert!(read_json(json, 20).is_err());
        }
    }

    #[test]
    fn what_means_nothing_is_stepped_over() {
        let json = r#"{"x": {"stdin": 1}, "stdin": [1, {"a": 2}], "wall_time_limit": 1.5, "cpu_time_limit": -1,
            "language_id": 46, "enable_network": true, "callback_url": null, "source_code": "\u0041",
            "submissions": [{"x": [1], "stdin": {"a": 1}, "submissions": [1]}, 1, [2], {}]}"#;
        let read = read_json(json.as_bytes(), 2).unwrap();
        let wanted = serde_json::json!({
            "stdin": [], "wall_time_limit": 1.5, "cpu_time_limit": -1, "language_id": 46, "enable_network": true,
            "callback_url": null, "source_code": "A", "submissions": [{"stdin": {}}, 1, []],
        });
        assert_eq!(Value::from(read), wanted);
    }
}
