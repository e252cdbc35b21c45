//! A client that sees everything: status, headers, bytes, and bodies as they arrive.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer in these tests, unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A request to be sent on a connection of its own.
pub struct Call {
    address: SocketAddr,
    builder: hyper::http::request::Builder,
    body: Bytes,
}

impl Call {
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        let builder = Request::builder().method(method).uri(path).header("host", "localhost");
        Self { address, builder, body: Bytes::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub fn json(self, body: impl Into<Bytes>) -> Self {
        let mut call = self.header("content-type", "application/json");
        call.body = body.into();
        call
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The answer as soon as its head is there; the connection lives as long as it.
    pub async fn open(self) -> Open {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = self.builder.body(Full::new(self.body)).unwrap();
        let response = timeout(PATIENCE, sender.send_request(request)).await.expect("no answer").unwrap();
        Open { response, buffer: Vec::new(), connection }
    }

    pub async fn send(self) -> Answer {
        let open = self.open().await;
        let (parts, body) = open.response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("no end of the answer").unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

/// An answer that is still arriving.
pub struct Open {
    pub response: Response<Incoming>,
    buffer: Vec<u8>,
    connection: tokio::task::JoinHandle<()>,
}

impl Open {
    /// Everything up to the separator, which is taken too; `None` at the end.
    pub async fn until(&mut self, separator: &str) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            if let Some((head, _)) = text.split_once(separator) {
                self.buffer.drain(..head.len() + separator.len());
                return Some(head.to_owned());
            }
            let frame = timeout(PATIENCE, self.response.body_mut().frame()).await.expect("nothing comes")?;
            self.buffer.extend_from_slice(&frame.ok()?.into_data().unwrap());
        }
    }

    /// The client goes away, as a closed laptop does.
    pub fn abandon(self) {
        self.connection.abort();
    }
}

/// Sends a stream of lines as they come, with a token.
pub async fn streamed(
    address: SocketAddr,
    path: &str,
    token: &str,
    lines: tokio::sync::mpsc::Receiver<String>,
) -> Open {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let frames = futures_util::stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(Bytes::from(line))), lines))
    });
    let request = Request::post(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/x-ndjson")
        .body(http_body_util::StreamBody::new(Box::pin(frames)))
        .unwrap();
    let response = timeout(PATIENCE, sender.send_request(request)).await.expect("no answer").unwrap();
    Open { response, buffer: Vec::new(), connection }
}
