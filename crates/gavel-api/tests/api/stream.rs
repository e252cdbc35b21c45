//! Jobs in, results out, one line each.

use crate::server::{Options, Server, job};
use gavel_api::HttpOptions;
use gavel_core::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn by_index(text: &str) -> BTreeMap<u64, Value> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        (value["index"].as_u64().unwrap(), value)
    };
    text.lines().map(line).collect()
}

#[tokio::test]
async fn every_line_gets_its_answer() {
    let server = Server::start().await;
    let mut lines: Vec<String> = (0..300).map(|n| job("cat", &n.to_string()).to_string()).collect();
    lines[7] = "{".into();
    lines[8] = json!({"language": "c", "source_code": "x", "limits": {"cpu": 1}}).to_string();
    // Empty lines do not count, and the last line needs no end.
    let body = format!("\n{}\r\n\n{}", lines[..150].join("\n"), lines[150..].join("\n"));
    let answer = server.post("/api/v1/jobs/stream").header("content-type", "application/x-ndjson").body(body);
    let answer = answer.send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let results = by_index(&answer.text());
    assert_eq!(results.len(), 300);
    for (n, result) in &results {
        match n {
            7 => assert_eq!(result["error"]["status"], 400),
            8 => assert_eq!(result["error"]["errors"][0]["field"], "limits.cpu"),
            n => assert_eq!((&result["status"], &result["stdout"]), (&json!("completed"), &json!(n.to_string()))),
        }
    }
    server.nothing_held().await;
}

#[tokio::test]
async fn a_line_that_is_too_long_spoils_only_itself() {
    let http = HttpOptions { max_body: Bytes::kib(1), ..Default::default() };
    let server = Server::with(Options { http, ..Default::default() }).await;
    let long = job("cat", &"x".repeat(200_000));
    let body = format!("{}\n{long}\n{}\n{long}", job("cat", "a"), job("cat", "b"));
    let answer = server.post("/api/v1/jobs/stream").header("content-type", "application/jsonl").body(body);
    let results = by_index(&answer.send().await.text());
    assert_eq!(results.len(), 4);
    assert_eq!((&results[&0]["stdout"], &results[&2]["stdout"]), (&json!("a"), &json!("b")));
    assert_eq!((&results[&1]["error"]["status"], &results[&3]["error"]["status"]), (&json!(413), &json!(413)));
}

#[tokio::test]
async fn an_empty_stream_has_an_empty_answer() {
    let server = Server::start().await;
    let answer = server.post("/api/v1/jobs/stream").header("content-type", "application/x-ndjson").send().await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""));
}

#[tokio::test]
async fn a_full_queue_slows_a_stream_down() {
    let server = Server::with(Options { max_depth: 2, ..Default::default() }).await;
    let body: String = (0..50).map(|n| format!("{}\n", job("cat", &n.to_string()))).collect();
    let answer = server.post("/api/v1/jobs/stream").header("content-type", "application/x-ndjson").body(body);
    let results = by_index(&answer.send().await.text());
    assert_eq!(results.values().filter(|result| result["status"] == "completed").count(), 50);
}

/// The head of a chunked stream request, on a raw socket.
async fn open_stream(server: &Server) -> TcpStream {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /api/v1/jobs/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
                transfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

async fn send_line(socket: &mut TcpStream, job: &Value) {
    let line = format!("{job}\n");
    socket.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.unwrap();
}

#[tokio::test]
async fn results_come_before_the_request_has_ended() {
    let server = Server::start().await;
    let mut socket = open_stream(&server).await;
    let mut seen = String::new();
    for n in 0..3 {
        send_line(&mut socket, &job("cat", &format!("line{n}"))).await;
        while !seen.contains(&format!("line{n}")) {
            let mut buffer = vec![0; 8192];
            let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(read, 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
    socket.write_all(b"0\r\n\r\n").await.unwrap();
}

#[tokio::test]
async fn no_more_is_read_than_is_in_work() {
    let http = HttpOptions { stream_window: 4, ..Default::default() };
    let server = Server::with(Options { http, ..Default::default() }).await;
    let mut socket = open_stream(&server).await;
    for _ in 0..20 {
        send_line(&mut socket, &job("hold", "")).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stored = server.get("/api/v1/jobs").send().await.json()["jobs"].as_array().unwrap().len();
    assert_eq!(stored, 4);
    // A client that goes away leaves its jobs, and nothing else. Its end stands in the socket behind what
    // it sent before, so it is noticed when a result cannot be written.
    drop(socket);
    server.hold.add_permits(20);
    server.nothing_held().await;
    let jobs = server.get("/api/v1/jobs").send().await.json()["jobs"].clone();
    assert!(jobs.as_array().unwrap().iter().all(|job| job["status"] == "completed"), "{jobs}");
    assert!(jobs.as_array().unwrap().len() < 20, "{jobs}");
}
