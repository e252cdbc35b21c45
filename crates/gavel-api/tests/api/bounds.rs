//! Many clients, slow clients, clients that go away, and the end of the server.

use crate::client::PATIENCE;
use crate::server::{Options, Server, job};
use futures_util::future::join_all;
use gavel_api::{HttpOptions, ServeOptions, ServiceOptions};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_wait_at_once() {
    let server = Server::start().await;
    let calls =
        (0..100).map(|n| server.post("/api/v1/jobs?wait=true").json(job("cat", &n.to_string()).to_string()).send());
    for (n, answer) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!((answer.status.as_u16(), answer.json()["stdout"].as_str()), (200, Some(n.to_string().as_str())));
    }
    server.nothing_held().await;
}

#[tokio::test]
async fn there_is_a_limit_on_who_waits() {
    let service = ServiceOptions { max_waiters: 2, ..Default::default() };
    let server = Server::with(Options { service, workers: false, ..Default::default() }).await;
    let wait =
        |ms: u32| server.post(&format!("/api/v1/jobs?wait=true&timeout_ms={ms}")).json(job("cat", "").to_string());
    let calls = (0..3).map(|_| wait(500).send());
    let answers = join_all(calls).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 202, 503]);
    let refused = answers.iter().find(|answer| answer.status == 503).unwrap();
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.json()["type"], "urn:gavel:problem:too_many_waiters");
    let stored = server.get("/api/v1/jobs").send().await.json()["jobs"].as_array().unwrap().len();
    assert_eq!(stored, 2, "what was refused was not stored");
    // The places are free again, also those of clients that went away.
    for _ in 0..3 {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let body = job("cat", "").to_string();
        let request = format!(
            "POST /api/v1/jobs?wait=true HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(100)).await;
        drop(socket);
        sleep(Duration::from_millis(100)).await;
    }
    server.nothing_held().await;
    assert_eq!(wait(10).send().await.status, 202);
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_dropped() {
    let server = Server::with(Options {
        serve: ServeOptions { header_timeout: Duration::from_millis(300), ..Default::default() },
        http: HttpOptions { body_timeout: Duration::from_millis(300), ..Default::default() },
        ..Default::default()
    })
    .await;
    let read_all = async |mut socket: TcpStream| {
        let mut bytes = Vec::new();
        timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the connection stays open").ok();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut head = TcpStream::connect(server.address).await.unwrap();
    head.write_all(b"GET /healthz HT").await.unwrap();
    assert!(!read_all(head).await.contains("200"));
    let silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_all(silent).await, "");
    let mut body = TcpStream::connect(server.address).await.unwrap();
    let request = "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                   content-length: 100\r\n\r\n{";
    body.write_all(request.as_bytes()).await.unwrap();
    let answer = read_all(body).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped() {
    let serve = ServeOptions { stall_timeout: Duration::from_millis(300), ..Default::default() };
    let server = Server::with(Options { serve, ..Default::default() }).await;
    let id = server.submit(job("big", "")).await;
    server.reach(&id, "completed").await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    // Far more than the buffers of both sockets hold, and nobody reads.
    let request = format!("GET /api/v1/jobs/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n").repeat(30);
    socket.write_all(request.as_bytes()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the connection stays open");
    assert!(end.is_err() || bytes.len() < 30 << 20, "{} bytes", bytes.len());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let serve = ServeOptions { max_connections: 1, ..Default::default() };
    let server = Server::with(Options { serve, ..Default::default() }).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let second = server.get("/healthz").send();
    let free = async {
        sleep(Duration::from_millis(200)).await;
        drop(first);
    };
    let began = Instant::now();
    let (answer, ()) = tokio::join!(second, free);
    assert_eq!(answer.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn before_a_shutdown_nothing_new_is_taken_and_everything_else_goes_on() {
    let server = Server::start().await;
    let id = server.submit(job("hold", "")).await;
    server.reach(&id, "running").await;
    let waiting = tokio::spawn(server.get(&format!("/api/v1/jobs/{id}?wait=true")).send());
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.get("/readyz").send().await.status, 200);
    server.service.begin_drain();
    let ready = server.get("/readyz").send().await;
    assert_eq!((ready.status.as_u16(), ready.json()["ready"].as_bool()), (503, Some(false)));
    assert_eq!(ready.json()["checks"][0]["detail"], "draining");
    let body = job("cat", "").to_string();
    for (path, body) in [
        ("/api/v1/jobs", body.clone()),
        ("/api/v1/jobs?wait=true", body.clone()),
        ("/api/v1/jobs/batch", format!(r#"{{"jobs": [{body}]}}"#)),
        ("/api/v1/jobs/batch?wait=true", format!(r#"{{"jobs": [{body}]}}"#)),
    ] {
        let answer = server.post(path).json(body).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"), "{path}");
        assert_eq!(answer.json()["type"], "urn:gavel:problem:draining");
    }
    let stream = server.post("/api/v1/jobs/stream").header("content-type", "application/x-ndjson");
    let line = stream.body(body).send().await.json();
    assert_eq!((&line["index"], &line["error"]["status"]), (&0.into(), &503.into()), "{line}");
    assert_eq!(server.get("/api/v1/jobs").send().await.json()["jobs"].as_array().unwrap().len(), 1);
    server.hold.add_permits(1);
    assert_eq!(waiting.await.unwrap().json()["status"], "completed");
    server.nothing_held().await;
}

#[tokio::test]
async fn a_shutdown_answers_whoever_waits() {
    let mut server = Server::start().await;
    let id = server.submit(job("hold", "")).await;
    server.reach(&id, "running").await;
    let mut events = server.get(&format!("/api/v1/jobs/{id}/events")).open().await;
    events.until("\n\n").await.unwrap();
    let idle = TcpStream::connect(server.address).await.unwrap();
    let waiting = tokio::spawn(server.post("/api/v1/jobs?wait=true").json(job("hold", "").to_string()).send());
    let streaming = server.post("/api/v1/jobs/stream").header("content-type", "application/x-ndjson");
    let streaming = tokio::spawn(streaming.body(job("hold", "").to_string()).send());
    sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    server.begin_shutdown();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str()), (202, Some("running")));
    let streamed = streaming.await.unwrap();
    assert!(streamed.text().contains(r#""status":"running""#), "{}", streamed.text());
    let mut last = String::new();
    while let Some(block) = events.until("\n\n").await {
        last = block;
    }
    assert!(last.contains("retry: "), "{last}");
    server.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(idle);
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_request_in_flight_at_the_shutdown_is_answered() {
    let mut server = Server::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let body = job("cat", "").to_string();
    let head = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    server.begin_shutdown();
    sleep(Duration::from_millis(100)).await;
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("problem:draining"), "{answer}");
    server.stopped().await;
}

#[tokio::test]
async fn the_grace_period_has_an_end() {
    let serve = ServeOptions { grace: Duration::from_millis(300), ..Default::default() };
    let mut server = Server::with(Options { serve, ..Default::default() }).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket
        .write_all(
            b"POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n",
        )
        .await
        .unwrap();
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    server.begin_shutdown();
    server.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
