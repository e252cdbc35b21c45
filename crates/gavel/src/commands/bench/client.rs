//! A minimal HTTP/1.1 client: one keep-alive connection, one request at a time.
//!
//! The clients share the cores with the server they measure, so each job costs one write, one or two
//! reads and no allocation; a general client costs several times that.

use anyhow::{Context, Result, anyhow, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any job may take.
const TIMEOUT: Duration = Duration::from_secs(120);
const MAX_ANSWER: usize = 64 << 20;

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request in the bytes that go over the wire.
#[derive(Debug, Clone)]
pub struct Request(Vec<u8>);

impl Request {
    pub fn post_json(host: &str, path: &str, body: &serde_json::Value) -> Self {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self((head + &body).into_bytes())
    }
}

impl Client {
    /// `host` is an address and a port.
    pub fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).with_context(|| format!("no server answers at {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buffer: Vec::with_capacity(8192) })
    }

    /// Sends a request and returns the status and the body of the answer.
    pub fn send(&mut self, request: &Request) -> Result<(u16, &[u8])> {
        self.stream.write_all(&request.0)?;
        self.buffer.clear();
        let head_end = self.read_until(|bytes| find(bytes, b"\r\n\r\n").map(|at| at + 4))?;
        let (status, length) = parse_head(&self.buffer[..head_end])?;
        let end = head_end + length;
        self.read_until(|bytes| (bytes.len() >= end).then_some(end))?;
        Ok((status, &self.buffer[head_end..end]))
    }

    fn read_until(&mut self, done: impl Fn(&[u8]) -> Option<usize>) -> Result<usize> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(end) = done(&self.buffer) {
                return Ok(end);
            }
            match self.stream.read(&mut chunk)? {
                0 => bail!("the server closed the connection in the middle of an answer"),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
            if self.buffer.len() > MAX_ANSWER {
                bail!("an answer is longer than {MAX_ANSWER} bytes");
            }
        }
    }
}

/// Status and body length of a response head.
fn parse_head(head: &[u8]) -> Result<(u16, usize)> {
    let head = std::str::from_utf8(head).context("the head of an answer is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    status.zip(length).ok_or_else(|| anyhow!("this is no answer with a status and a content-length: {head:?}"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 12\r\n\r\n").unwrap(), (200, 12));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
