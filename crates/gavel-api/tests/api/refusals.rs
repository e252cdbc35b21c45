//! What is refused, with which status, and which field is named.

use crate::client::{Answer, Call};
use crate::server::{Options, Server, problem_fields};
use gavel_api::{HttpOptions, Origins, ServiceOptions};
use gavel_core::{Bytes, Rules};

#[track_caller]
fn check_problem(answer: &Answer, status: u16, fields: &[&str], what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    let body = answer.json();
    assert_eq!(body["status"], status, "{what}");
    for name in ["type", "title", "detail"] {
        assert!(body[name].as_str().is_some_and(|text| !text.is_empty()), "{what}: {name}");
    }
    assert_eq!(problem_fields(answer), fields, "{what}: {}", answer.text());
}

/// A valid job with `extra` written into it.
fn with(extra: &str) -> String {
    format!(r#"{{"language": "python3", "source_code": "x", {extra}}}"#)
}

#[tokio::test]
async fn each_wrong_body_names_what_is_wrong() {
    let server = Server::start().await;
    let deep = "[".repeat(200) + &"]".repeat(200);
    let many = vec!["\"\""; 20_000].join(",");
    let table: Vec<(String, u16, &[&str])> = vec![
        ("".into(), 400, &[]),
        ("{".into(), 400, &[]),
        (with(r#""runs": 1"#) + " x", 400, &[]),
        (with(r#""priority": NaN"#), 400, &[]),
        (with(r#""stdin": "\ud800""#), 400, &[]),
        (with(&format!(r#""args": {deep}"#)), 422, &["args[0]"]),
        (with(&format!(r#""metadata": {{"k": {deep}}}"#)), 422, &["metadata.k"]),
        (deep.clone(), 422, &["body"]),
        ("[]".into(), 422, &["body"]),
        (r#"["python3", "print(1)"]"#.into(), 422, &["body"]),
        (with(r#""limits": [1000]"#), 422, &["limits"]),
        (with(r#""files": [["a", "b"]]"#), 422, &["files[0]"]),
        ("null".into(), 422, &["body"]),
        ("3".into(), 422, &["body"]),
        ("{}".into(), 422, &["language"]),
        (r#"{"language": "python3"}"#.into(), 422, &["source_code"]),
        (r#"{"source_code": "x"}"#.into(), 422, &["language"]),
        (with(r#""sauce": 1"#), 422, &["sauce"]),
        (with(r#""limits": {"cpu": 1}"#), 422, &["limits.cpu"]),
        (with(r#""files": [{"path": "a", "mode": 1}]"#), 422, &["files[0].mode"]),
        (with(r#""files": [{"content": "a"}]"#), 422, &["files[0].path"]),
        (with(r#""stdin": 5"#), 422, &["stdin"]),
        (with(r#""stdin": "a", "stdin": "b""#), 422, &["stdin"]),
        (with(r#""args": "a""#), 422, &["args"]),
        (with(r#""args": ["a", 2]"#), 422, &["args[1]"]),
        (with(&format!(r#""args": [{many}]"#)), 422, &["args"]),
        (with(r#""env": {"A": 1}"#), 422, &["env.A"]),
        (with(r#""env": {"LD_PRELOAD": "x"}"#), 422, &["env.LD_PRELOAD"]),
        (with(r#""metadata": {"k": 1}"#), 422, &["metadata.k"]),
        (with(r#""metadata": []"#), 422, &["metadata"]),
        (with(r#""limits": {"cpu_time_ms": -1}"#), 422, &["limits.cpu_time_ms"]),
        (with(r#""limits": {"cpu_time_ms": 1.5}"#), 422, &["limits.cpu_time_ms"]),
        (with(r#""limits": {"cpu_time_ms": 1e3}"#), 422, &["limits.cpu_time_ms"]),
        (with(r#""limits": {"cpu_time_ms": 99999999999999999999}"#), 422, &["limits.cpu_time_ms"]),
        (with(r#""limits": {"cpu_time_ms": 1e999}"#), 422, &["limits.cpu_time_ms"]),
        (with(r#""limits": {"cpu_time_ms": 18446744073709551615}"#), 422, &["limits.cpu_time_ms"]),
        (with(r#""limits": {"wall_time_ms": 18446744073709551615}"#), 422, &["limits.wall_time_ms"]),
        (with(r#""limits": {"memory_kb": 18446744073709551615}"#), 422, &["limits.memory_kb"]),
        (with(r#""limits": {"memory_kb": 0, "stack_kb": 0}"#), 422, &["limits.memory_kb", "limits.stack_kb"]),
        (with(r#""limits": {"processes": 4294967296}"#), 422, &["limits.processes"]),
        (with(r#""runs": 0"#), 422, &["runs"]),
        (with(r#""priority": 2147483647"#), 422, &["priority"]),
        (with(r#""priority": -2147483647"#), 422, &["priority"]),
        (with(r#""priority": 2147483648"#), 422, &["priority"]),
        (with(r#""source_code_base64": "eA==""#), 422, &["source_code_base64"]),
        (with(r#""stdin_base64": "*""#), 422, &["stdin_base64"]),
        (with(r#""stdin": "a", "stdin_base64": "YQ==""#), 422, &["stdin_base64"]),
        (with(r#""files": [{"path": "a"}, {"path": "b", "content_base64": "*"}]"#), 422, &["files[1].content_base64"]),
        (with(r#""files": [{"path": "../a", "content": ""}]"#), 422, &["files[0].path"]),
        (with(r#""collect": ["/etc/*"]"#), 422, &["collect[0]"]),
        (with(r#""network": true"#), 422, &["network"]),
        (with(r#""interactive": true, "runs": 2"#), 422, &["runs"]),
        (with(r#""tty": {"rows": 24, "cols": 80}"#), 422, &["tty"]),
        (with(r#""interactive": true, "tty": {"rows": 0, "cols": 1001}"#), 422, &["tty.rows", "tty.cols"]),
        (with(r#""interactive": true, "tty": {"rows": 24}"#), 422, &["tty.cols"]),
        (with(r#""interactive": true, "tty": {"rows": 24, "cols": -1}"#), 422, &["tty.cols"]),
        (with(r#""callback_url": "http://127.0.0.1/""#), 422, &["callback_url"]),
        (r#"{"language": "py", "source_code": "x"}"#.into(), 422, &["language"]),
        (r#"{"language": "cobol", "source_code": "x"}"#.into(), 422, &["language"]),
    ];
    for (body, status, fields) in table {
        let shown: String = body.chars().take(120).collect();
        let answer = server.post("/api/v1/jobs").json(body).send().await;
        check_problem(&answer, status, fields, &shown);
        assert!(answer.body.len() < 2000, "an answer does not repeat the request: {shown}");
    }
}

#[tokio::test]
async fn null_is_the_same_as_left_out() {
    let server = Server::start().await;
    let body = with(
        r#""source_code_base64": null, "stdin": null, "args": null, "env": null, "files": null, "limits": null,
           "expected_output": null, "runs": null, "callback_url": null, "collect": null, "metadata": null"#,
    );
    let answer = server.post("/api/v1/jobs").json(body).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test]
async fn messages_are_in_the_clients_words() {
    let server = Server::start().await;
    let message = async |body: String| {
        let answer = server.post("/api/v1/jobs").json(body).send().await.json();
        answer["errors"][0]["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        message(with(r#""limits": {"cpu_time_ms": -1}"#)).await,
        "invalid value: integer `-1`, expected a whole number from 0 up"
    );
    assert!(message(with(r#""limits": {"memory_kb": 99999999}"#)).await.contains("between 2048 and 1048576 KiB"));
    assert!(message(r#"{"language": "py", "source_code": "x"}"#.into()).await.contains("did you mean \"python3\"?"));
    assert!(message(r#"{"language": "cobol", "source_code": "x"}"#.into()).await.contains("install gnucobol"));
    let long = message(with(&format!(r#""runs": "{}""#, "y".repeat(100_000)))).await;
    assert!(long.len() < 400 && long.ends_with("expected a whole number from 0 to 4294967295"), "{long}");
}

#[tokio::test]
async fn requests_that_miss_a_route_are_told_so() {
    let server = Server::start().await;
    let call = |method: &str, path: &str| server.call(method, path);
    let table: Vec<(Call, u16, &[&str])> = vec![
        (call("GET", "/nowhere"), 404, &[]),
        (call("GET", "/api/v1"), 404, &[]),
        (call("GET", "/api/v1/jobs/"), 404, &[]),
        (call("GET", "/api/v1/jobs/123"), 404, &[]),
        (call("GET", "/api/v1/jobs/%ff"), 404, &[]),
        (call("GET", "/api/v1/jobs/00000000000000000000000000000000"), 404, &[]),
        (call("GET", "/api/v1/jobs/00000000-0000-7000-8000-000000000000"), 404, &[]),
        (call("POST", "/api/v1/jobs/123/cancel"), 404, &[]),
        (call("DELETE", "/api/v1/jobs/123"), 404, &[]),
        (call("GET", "/api/v1/jobs/00000000-0000-7000-8000-000000000000/events"), 404, &[]),
        (call("GET", "/api/v1/languages/klingon"), 404, &[]),
        (call("PUT", "/api/v1/jobs"), 405, &[]),
        (call("DELETE", "/healthz"), 405, &[]),
        (call("GET", "/api/v1/jobs?limit=0"), 422, &["limit"]),
        (call("GET", "/api/v1/jobs?limit=201"), 422, &["limit"]),
        (call("GET", "/api/v1/jobs?status=done"), 422, &["status"]),
        (call("GET", "/api/v1/jobs?verdict=ok"), 422, &["verdict"]),
        (call("GET", "/api/v1/jobs?created_after=yesterday"), 422, &["created_after"]),
        (call("GET", "/api/v1/jobs?cursor=x"), 422, &["cursor"]),
        (call("GET", "/api/v1/jobs?colour=red"), 422, &["colour"]),
        (call("GET", "/api/v1/stats?x=1"), 422, &["x"]),
        (call("POST", "/api/v1/jobs?wait=yes"), 422, &["wait"]),
        (call("POST", "/api/v1/jobs?timeout_ms=5"), 422, &["timeout_ms"]),
        (call("POST", "/api/v1/jobs?wait=true&timeout_ms=300001"), 422, &["timeout_ms"]),
        (call("POST", "/api/v1/jobs").body("{}"), 415, &[]),
        (call("POST", "/api/v1/jobs").header("content-type", "text/plain").body("{}"), 415, &[]),
        (call("POST", "/api/v1/jobs").header("content-encoding", "gzip").json("{}"), 415, &[]),
        (call("POST", "/api/v1/jobs/stream").json("{}"), 415, &[]),
    ];
    for (at, (call, status, fields)) in table.into_iter().enumerate() {
        check_problem(&call.send().await, status, fields, &format!("row {at}"));
    }
    let answer = server.call("PUT", "/api/v1/jobs").send().await;
    let mut allowed: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test]
async fn what_is_too_large_is_told_apart() {
    let server = Server::with(Options {
        service: ServiceOptions {
            rules: Rules { max_source: Bytes::kib(1), ..Default::default() },
            ..Default::default()
        },
        http: HttpOptions { max_body: Bytes::kib(100), ..Default::default() },
        ..Default::default()
    })
    .await;
    let source = |size: usize| format!(r#"{{"language": "python3", "source_code": "{}"}}"#, "x".repeat(size));
    let answer = server.post("/api/v1/jobs").json(source(2000)).send().await;
    check_problem(&answer, 413, &["source_code"], "a source over its limit");
    assert!(answer.json()["errors"][0]["message"].as_str().unwrap().contains("1,024"));
    let answer = server.post("/api/v1/jobs").json(source(10 << 20)).send().await;
    check_problem(&answer, 413, &[], "a body over its limit");
    assert!(answer.json()["detail"].as_str().unwrap().contains("102,400 bytes"), "{}", answer.text());
    assert_eq!(server.post("/api/v1/jobs").json(source(1000)).send().await.status, 201);
}

#[tokio::test]
async fn ids_of_requests_are_kept_when_they_are_sane() {
    let server = Server::start().await;
    let id = async |given: &str| {
        server.get("/healthz").header("x-request-id", given).send().await.header("x-request-id").to_owned()
    };
    assert_eq!(id("abc-1.2_3:4").await, "abc-1.2_3:4");
    for wrong in ["", "a b", "x\"y", &"x".repeat(129)] {
        let made = id(wrong).await;
        assert!(made.len() == 32 && made != wrong, "{wrong:?} {made:?}");
    }
    assert_eq!(server.get("/healthz").send().await.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn other_origins_are_kept_out_unless_they_are_named() {
    let server = Server::start().await;
    let origin = "https://ide.example";
    let answer = server.get("/api/v1/languages").header("origin", origin).send().await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let http = HttpOptions { origins: Origins::parse(&[origin.to_owned()]).unwrap(), ..Default::default() };
    let server = Server::with(Options { http, ..Default::default() }).await;
    let asked = server
        .call("OPTIONS", "/api/v1/jobs")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type")
        .send()
        .await;
    assert_eq!(asked.header("access-control-allow-origin"), origin);
    let other = server.get("/api/v1/languages").header("origin", "https://evil.example").send().await;
    assert_eq!(other.header("access-control-allow-origin"), "");
}
