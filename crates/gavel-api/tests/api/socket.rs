//! A job over a WebSocket, with a client of the kind that everybody has.

use crate::client::PATIENCE;
use crate::server::{Options, Server, job};
use futures_util::{SinkExt, StreamExt};
use gavel_api::{HttpOptions, Origins, ServeOptions, ServiceOptions};
use gavel_store::StoreError;
use gavel_store::faulty::Call as StoreCall;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

#[derive(Debug, PartialEq)]
enum Got {
    Event(Value),
    Binary(Vec<u8>),
    Closed(u16, String),
}

impl Socket {
    async fn open(server: &Server, id: &str) -> Self {
        Self::try_open(server, &format!("/api/v1/jobs/{id}/ws"), &[]).await.expect("a WebSocket")
    }

    /// The status of the answer, if it is no WebSocket.
    async fn try_open(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match timeout(PATIENCE, tokio_tungstenite::connect_async(request)).await.expect("no answer") {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// What comes next, besides pings.
    async fn next(&mut self) -> Got {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("nothing comes") {
                Some(Ok(Message::Text(text))) => return Got::Event(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Binary(bytes))) => return Got::Binary(bytes.into()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Got::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Close(None))) | None => return Got::Closed(1005, String::new()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Got::Closed(1006, error.to_string()),
            }
        }
    }

    async fn event(&mut self) -> Value {
        match self.next().await {
            Got::Event(event) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("the socket takes it");
    }

    /// Everything to the end; `data` of stdout is put together.
    async fn rest(&mut self) -> (Vec<Value>, String) {
        let (mut events, mut stdout) = (Vec::new(), String::new());
        loop {
            match self.next().await {
                Got::Event(event) if event["event"] == "stdout" => stdout += event["data"].as_str().unwrap(),
                Got::Event(event) => events.push(event),
                Got::Closed(1000, _) => return (events, stdout),
                other => panic!("{other:?} after {events:?}"),
            }
        }
    }
}

fn interactive(source: &str) -> Value {
    json!({"language": "python3", "source_code": source, "interactive": true, "tty": {"rows": 24, "cols": 80}})
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_running_job_is_shown_live_and_an_ended_one_again() {
    let server = Server::start().await;
    let id = server.submit(job("hold", "")).await;
    server.reach(&id, "running").await;
    let mut socket = Socket::open(&server, &id).await;
    let status = socket.event().await;
    assert_eq!(
        (&status["event"], &status["status"], &status["attempt"]),
        (&json!("status"), &json!("running"), &json!(1))
    );
    assert_eq!(socket.event().await, json!({"event": "stdout", "data": "begun "}));
    server.hold.add_permits(1);
    let (events, stdout) = socket.rest().await;
    assert_eq!((names(&events), stdout.as_str()), (vec!["stderr", "status", "done"], "and ended"));
    assert_eq!((&events[2]["job"]["verdict"], &events[2]["job"]["id"]), (&json!("accepted"), &json!(id)));
    for _ in 0..2 {
        let (events, stdout) = Socket::open(&server, &id).await.rest().await;
        assert_eq!((names(&events), stdout.as_str()), (vec!["stderr", "status", "done"], "begun and ended"));
    }
    server.nothing_held().await;
}

#[tokio::test]
async fn a_large_output_comes_in_pieces_and_the_end_is_as_short_as_wanted() {
    let server = Server::start().await;
    let id = server.submit(job("big", "")).await;
    server.reach(&id, "completed").await;
    let path = format!("/api/v1/jobs/{id}/ws?fields=verdict,exit_code");
    let mut socket = Socket::try_open(&server, &path, &[]).await.unwrap();
    let mut sizes = Vec::new();
    let done = loop {
        let event = socket.event().await;
        match event["event"].as_str().unwrap() {
            "stdout" => sizes.push(event["data"].as_str().unwrap().len()),
            "done" => break event,
            _ => {}
        }
    };
    assert_eq!((sizes.iter().sum::<usize>(), sizes.iter().max()), (1 << 20, Some(&(64 << 10))));
    assert_eq!(done, json!({"event": "done", "job": {"verdict": "accepted", "exit_code": 0}}));
    let wrong = format!("/api/v1/jobs/{id}/ws?fields=x");
    assert_eq!(Socket::try_open(&server, &wrong, &[]).await.err(), Some(422));
}

#[tokio::test]
async fn characters_are_not_cut_and_other_bytes_are_exact() {
    let server = Server::start().await;
    let id = server.submit(job("live", "")).await;
    let mut socket = Socket::open(&server, &id).await;
    let (mut text, mut bytes) = (String::new(), Value::Null);
    while let Got::Event(event) = socket.next().await {
        if event["event"] == "stdout" {
            text += event["data"].as_str().unwrap_or_default();
            bytes = event["data_base64"].clone();
        }
    }
    assert_eq!((text.as_str(), bytes), ("a\u{e9}b", json!("/w==")));
    // Or all as it is.
    let mut socket = Socket::try_open(&server, &format!("/api/v1/jobs/{id}/ws?binary=true"), &[]).await.unwrap();
    assert_eq!(socket.next().await, Got::Binary(b"a\xc3\xa9b\xff".to_vec()));
}

#[tokio::test]
async fn what_is_typed_arrives_and_what_was_typed_early_too() {
    let server = Server::with(Options { workers: false, ..Default::default() }).await;
    let id = server.submit(interactive("echo")).await;
    let mut socket = Socket::open(&server, &id).await;
    assert_eq!(socket.event().await["status"], "pending");
    socket.send(json!({"stdin": "early "})).await;
    socket.send(json!({"resize": {"rows": 50, "cols": 132}})).await;
    // One after another: what is answered with an error shows that the others are taken.
    socket.send(json!({})).await;
    assert_eq!(socket.event().await["event"], "error");
    let worker = tokio::spawn(crate::worker::play(server.store.clone(), server.bell.clone(), server.hold.clone()));
    assert_eq!(socket.event().await["status"], "running");
    let mut stdout = String::new();
    while stdout != "early <50x132>" {
        stdout += socket.event().await["data"].as_str().unwrap();
    }
    socket.send(json!({"stdin_base64": "w6k="})).await;
    assert_eq!(socket.event().await, json!({"event": "stdout", "data": "\u{e9}"}));
    socket.0.send(Message::binary(b"\xffraw".to_vec())).await.unwrap();
    assert_eq!(socket.event().await, json!({"event": "stdout", "data_base64": "/3Jhdw=="}));
    // A second client types for the same job.
    let mut other = Socket::open(&server, &id).await;
    other.send(json!({"stdin": "other"})).await;
    assert_eq!(socket.event().await, json!({"event": "stdout", "data": "other"}));
    socket.send(json!({"eof": true})).await;
    socket.send(json!({"stdin": "late"})).await;
    let mut seen = Vec::new();
    let (events, _) = socket.rest().await;
    seen.extend(events.iter().filter(|event| event["event"] == "error").map(|event| event["message"].clone()));
    assert_eq!(seen.len(), 1, "late input is refused: {events:?}");
    assert_eq!(events.last().unwrap()["job"]["status"], "completed");
    worker.abort();
    drop(other);
    server.nothing_held().await;
}

#[tokio::test]
async fn messages_that_mean_nothing_are_told_and_the_job_goes_on() {
    let server = Server::start().await;
    let id = server.submit(job("hold", "")).await;
    server.reach(&id, "running").await;
    let mut socket = Socket::open(&server, &id).await;
    for _ in 0..2 {
        socket.event().await;
    }
    for (message, wanted) in [
        ("x", "cannot be read"),
        ("{}", "one of stdin"),
        (r#"{"stdin": "a"}"#, "not interactive"),
        (r#"{"eof": true}"#, "not interactive"),
        (r#"{"resize": {"rows": 1, "cols": 1}}"#, "not interactive"),
    ] {
        socket.0.send(Message::text(message)).await.unwrap();
        let told = socket.event().await;
        assert_eq!(told["event"], "error", "{message}: {told}");
        assert!(told["message"].as_str().unwrap().contains(wanted), "{message}: {told}");
    }
    // What the store says of itself stays here.
    for (error, wanted) in [
        (
            StoreError::Unavailable("disk I/O error in /secret/path".into()),
            "the store of jobs cannot be used right now",
        ),
        (StoreError::Damaged("disk I/O error in /secret/path".into()), "the server failed to do this"),
    ] {
        server.store.fail(StoreCall::Cancel, error);
        socket.send(json!({"cancel": true})).await;
        let told = socket.event().await;
        let message = told["message"].as_str().unwrap();
        assert!(message.starts_with(wanted) && !message.contains("secret"), "{told}");
    }
    server.store.heal(StoreCall::Cancel);
    socket.send(json!({"cancel": true})).await;
    let (events, _) = socket.rest().await;
    assert_eq!(events.last().unwrap()["job"]["status"], "cancelled", "{events:?}");
    let piped = json!({"language": "python3", "source_code": "echo", "interactive": true});
    let id = server.submit(piped).await;
    let mut socket = Socket::open(&server, &id).await;
    socket.send(json!({"resize": {"rows": 1, "cols": 1}})).await;
    loop {
        let event = socket.event().await;
        if event["event"] == "error" {
            assert!(event["message"].as_str().unwrap().contains("no terminal"), "{event}");
            break;
        }
    }
    let huge = Message::text(json!({"stdin": "x".repeat(1 << 20)}).to_string());
    // The server closes while this is still on its way.
    let _ = socket.0.send(huge).await;
    loop {
        match socket.next().await {
            Got::Closed(code, _) => {
                assert!([u16::from(CloseCode::Protocol), 1006].contains(&code), "{code}");
                break;
            }
            Got::Event(_) | Got::Binary(_) => {}
        }
    }
    assert_eq!(server.job(&id).await["status"], "running", "the job is none the worse");
}

#[tokio::test]
async fn who_types_faster_than_the_program_reads_waits() {
    let server = Server::start().await;
    let id = server.submit(interactive("deaf")).await;
    server.reach(&id, "running").await;
    let mut socket = Socket::open(&server, &id).await;
    let piece = Message::text(json!({"stdin": "x".repeat(60_000)}).to_string());
    let mut sent = 0;
    // Until the buffers of both ends of the connection are full.
    while timeout(Duration::from_millis(500), socket.0.send(piece.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "all of it was taken");
    }
    // Meanwhile the output goes on, and the way out is another.
    server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await;
    let mut last = Value::Null;
    loop {
        match socket.next().await {
            Got::Event(event) if event["event"] == "done" => last = event,
            Got::Closed(..) => break,
            _ => {}
        }
    }
    assert_eq!(last["job"]["status"], "cancelled");
    server.nothing_held().await;
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let http = HttpOptions { origins: Origins::parse(&["https://ide.example".into()]).unwrap(), ..Default::default() };
    let server = Server::with(Options { http, ..Default::default() }).await;
    let id = server.submit(job("cat", "")).await;
    let path = format!("/api/v1/jobs/{id}/ws");
    let own = format!("http://{}", server.address);
    for (origin, wanted) in
        [("http://evil.example", Some(403)), ("null", Some(403)), ("https://ide.example", None), (own.as_str(), None)]
    {
        let answer = Socket::try_open(&server, &path, &[("origin", origin)]).await.err();
        assert_eq!(answer, wanted, "{origin}");
    }
    // A name that was made to resolve to us.
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
    assert_eq!(Socket::try_open(&server, &path, &rebound).await.err(), Some(421));
}

#[tokio::test]
async fn what_is_no_socket_is_answered_as_http() {
    let service = ServiceOptions { max_watchers: 1, ..Default::default() };
    let server = Server::with(Options { service, workers: false, ..Default::default() }).await;
    let id = server.submit(job("cat", "")).await;
    let path = format!("/api/v1/jobs/{id}/ws");
    let plain = server.get(&path).send().await;
    assert_eq!((plain.status.as_u16(), plain.header("upgrade")), (426, "websocket"), "{}", plain.text());
    assert_eq!(plain.json()["type"], "urn:gavel:problem:upgrade_required");
    let status = async |path: &str| Socket::try_open(&server, path, &[]).await.err();
    assert_eq!(status("/api/v1/jobs/x/ws").await, Some(404));
    assert_eq!(status(&format!("{path}?x=1")).await, Some(422));
    let first = Socket::open(&server, &id).await;
    assert_eq!(status(&path).await, Some(503), "places are counted");
    drop(first);
    server.nothing_held().await;
    assert_eq!(status(&path).await, None);
}

#[tokio::test]
async fn a_silent_client_is_asked_and_one_that_is_gone_is_let_go() {
    let http = HttpOptions { keep_alive: Duration::from_millis(50), ..Default::default() };
    let server = Server::with(Options { http, workers: false, ..Default::default() }).await;
    let id = server.submit(job("cat", "")).await;
    // One that answers stays.
    let mut alive = Socket::open(&server, &id).await;
    alive.event().await;
    let began = Instant::now();
    let mut pings = 0;
    while began.elapsed() < Duration::from_millis(600) {
        if let Ok(Some(message)) = timeout(Duration::from_millis(600), alive.0.next()).await {
            assert!(message.unwrap().is_ping());
            pings += 1;
        }
    }
    assert!(pings >= 3, "{pings}");
    drop(alive);
    // One that neither answers nor goes away.
    let mut dead = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /api/v1/jobs/{id}/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    dead.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let end = timeout(PATIENCE, dead.read_to_end(&mut all)).await;
    assert!(end.is_ok(), "it is kept for ever");
    server.nothing_held().await;
}

#[tokio::test]
async fn a_client_that_never_reads_costs_its_connection_only() {
    let serve = ServeOptions { stall_timeout: Duration::from_millis(300), ..Default::default() };
    let server = Server::with(Options { serve, ..Default::default() }).await;
    let id = server.submit(interactive("flood")).await;
    server.reach(&id, "running").await;
    let socket = Socket::open(&server, &id).await;
    // The worker floods as fast as it can; the client does not read a byte of it.
    server.nobody_watches().await;
    drop(socket);
    // One that comes later is told what it missed.
    let mut late = Socket::open(&server, &id).await;
    let mut dropped = 0;
    for _ in 0..50 {
        let event = late.event().await;
        dropped += event["bytes"].as_u64().unwrap_or(0);
    }
    assert!(dropped > 0, "everything is still kept");
    server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await;
}

#[tokio::test]
async fn a_shutdown_says_goodbye() {
    let mut server = Server::start().await;
    let id = server.submit(interactive("echo")).await;
    server.reach(&id, "running").await;
    let mut socket = Socket::open(&server, &id).await;
    socket.event().await;
    let began = Instant::now();
    server.begin_shutdown();
    assert_eq!(socket.next().await, Got::Closed(1001, "the server is going away, come back".into()));
    server.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
