//! Whom the server answers: requests under its own names, and no others.

use crate::client::PATIENCE;
use crate::server::{Options, Server, job};
use gavel_api::metrics::ROUTES;
use gavel_api::{HttpOptions, Origins};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends lines of a head as they are; the status and the whole answer.
async fn ask(server: &Server, head: &[&str]) -> (u16, String) {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request = format!("{}\r\nconnection: close\r\n\r\n", head.join("\r\n"));
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("no end of the answer").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{head:?}: {answer}")).parse().unwrap();
    (status, answer)
}

async fn with_names(names: &[&str]) -> Server {
    let allowed_hosts = names.iter().map(|name| (*name).to_owned()).collect();
    let http = HttpOptions {
        allowed_hosts,
        origins: Origins::parse(&["https://ide.example".to_owned()]).unwrap(),
        ..Default::default()
    };
    Server::with(Options { http, ..Default::default() }).await
}

#[tokio::test]
async fn only_its_own_names_are_answered() {
    let server = with_names(&["judge.example", "[fd00::1]"]).await;
    for host in [
        "localhost",
        "LocalHost:2358",
        "localhost:",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.255.3.4:65535",
        "[::1]",
        "[::1]:2358",
        "judge.example",
        "Judge.Example:443",
        "[FD00::1]:80",
    ] {
        let (status, answer) = ask(&server, &["GET /healthz HTTP/1.1", &format!("host: {host}")]).await;
        assert_eq!(status, 200, "{host}: {answer}");
    }
    for host in [
        "evil.example",
        "evil.example:2358",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:127.0.0.1",
        "127.0.0.1@evil.example",
        "user@localhost",
        "localhost:x",
        "localhost:80:80",
        "localhost,evil.example",
        "notlocalhost",
        "judge.example.org",
        "xjudge.example",
        "10.0.0.1",
        "128.0.0.1",
        "0.0.0.0",
        "0127.0.0.1",
        "2130706433",
        "[::2]",
        "[::]",
        "[::ffff:10.0.0.1]",
        "[::1",
        "[::1]x",
        "::1",
        "*",
        "",
        "loc\u{e4}lhost",
    ] {
        let (status, answer) = ask(&server, &["GET /healthz HTTP/1.1", &format!("host: {host}")]).await;
        assert_eq!(status, 421, "{host}: {answer}");
    }
}

#[tokio::test]
async fn no_host_two_hosts_and_a_target_that_says_otherwise_are_refused() {
    let server = Server::start().await;
    let heads: [(&[&str], u16); 8] = [
        (&["GET /healthz HTTP/1.1"], 421),
        (&["GET /healthz HTTP/1.0"], 421),
        (&["GET /healthz HTTP/1.0", "host: localhost"], 200),
        (&["GET /healthz HTTP/1.1", "host: localhost", "host: localhost"], 421),
        (&["GET /healthz HTTP/1.1", "host: localhost", "host: evil.example"], 421),
        (&["GET http://localhost/healthz HTTP/1.1", "host: localhost"], 200),
        (&["GET http://evil.example/healthz HTTP/1.1", "host: localhost"], 421),
        (&["GET http://localhost/healthz HTTP/1.1", "host: evil.example"], 421),
    ];
    for (head, wanted) in heads {
        let (status, answer) = ask(&server, head).await;
        assert_eq!(status, wanted, "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn every_route_refuses_a_foreign_name_and_says_what_to_do() {
    let server = with_names(&[]).await;
    for path in ROUTES.iter().copied().chain(["/", "/no/such/route"]) {
        for method in ["GET", "POST", "DELETE", "PUT", "OPTIONS"] {
            let head = [
                &format!("{method} {path} HTTP/1.1") as &str,
                "host: evil.example",
                // With a configured origin this is a preflight, too.
                "origin: https://ide.example",
                "access-control-request-method: POST",
            ];
            let (status, answer) = ask(&server, &head).await;
            assert_eq!(status, 421, "{method} {path}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("content-type: application/problem+json"), "{head}");
            assert!(head.contains("x-request-id: ") && !head.contains("access-control-"), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["type"], "urn:gavel:problem:misdirected");
            assert!(body["detail"].as_str().unwrap().contains("server.allowed_hosts"), "{body}");
        }
    }
    let body = job("cat", "").to_string();
    let length = format!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let head = ["POST /api/v1/jobs HTTP/1.1", "host: evil.example", "content-type: application/json", &length];
    assert_eq!(ask(&server, &head).await.0, 421);
    assert_eq!(server.get("/api/v1/jobs").send().await.json()["jobs"], serde_json::json!([]), "it was stored");
    let counted = server.get("/metrics").send().await.text();
    assert!(counted.contains(r#"route="/metrics",method="GET",status="421""#), "{counted}");
}
