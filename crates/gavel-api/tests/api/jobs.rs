//! Submitting, waiting, reading, listing, cancelling, erasing.

use crate::server::{Options, Server, job, problem_fields};
use crate::worker::NODE;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_job_is_stored_and_answered_at_once() {
    let server = Server::with(Options { workers: false, ..Default::default() }).await;
    let mut request = job("print(1)", "");
    request["metadata"] = json!({"k": "v"});
    let answer = server.post("/api/v1/jobs").json(request.to_string()).send().await;
    assert_eq!(answer.status, 201);
    let body = answer.json();
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{}", body["id"].as_str().unwrap()));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(body["status"], "pending");
    assert_eq!(body["language"], "python3");
    assert_eq!(body["metadata"], json!({"k": "v"}));
    assert_eq!((&body["verdict"], &body["stdout"], &body["attempt"]), (&Value::Null, &Value::Null, &json!(0)));
    let created = body["created_at"].as_str().unwrap();
    assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
    // The row says the same.
    assert_eq!(server.job(body["id"].as_str().unwrap()).await, body);
}

#[tokio::test]
async fn waiting_gives_the_whole_result() {
    let server = Server::start().await;
    let answer = server.post("/api/v1/jobs?wait=true").json(job("cat", "7\n").to_string()).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    for (field, want) in [
        ("status", json!("completed")),
        ("verdict", json!("accepted")),
        ("reason", json!("exited with code 0")),
        ("evidence", json!({"cpu_time_ms": 1.204})),
        ("stdout", json!("7\n")),
        ("stderr", json!("warning: none\n")),
        ("compile_output", json!("")),
        ("stdout_truncated", json!(false)),
        ("files", json!([{"path": "out/a.bin", "executable": false, "content_base64": "AP8="}])),
        ("exit_code", json!(0)),
        ("signal", json!(null)),
        ("execution_time_ms", json!(1.204)),
        ("wall_time_ms", json!(2.31)),
        ("memory_usage_kb", json!(1532)),
        ("compile_time_ms", json!(0.0)),
        ("compile_cached", json!(true)),
        ("node", json!(NODE)),
        ("attempt", json!(1)),
        ("error_message", json!(null)),
        ("metadata", json!({})),
    ] {
        assert_eq!(body[field], want, "{field}");
    }
    assert!(body["queue_time_ms"].is_f64() && body["worker_id"].is_i64(), "{body}");
    assert!(body["started_at"].is_string() && body["completed_at"].is_string());
    assert!(body.get("stdout_base64").is_none() && body.get("source_code").is_none());
    server.nothing_held().await;
}

#[tokio::test]
async fn a_wait_that_is_too_short_gives_the_job_as_it_is() {
    let server = Server::start().await;
    let answer = server.post("/api/v1/jobs?wait=true&timeout_ms=100").json(job("hold", "").to_string()).send().await;
    assert_eq!(answer.status, 202);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert!(["pending", "running"].contains(&answer.json()["status"].as_str().unwrap()));
    let path = format!("/api/v1/jobs/{id}?wait=true&timeout_ms=10000");
    let (waited, ()) = tokio::join!(server.get(&path).send(), async { server.hold.add_permits(1) });
    assert_eq!((waited.status.as_u16(), waited.json()["status"].as_str()), (200, Some("completed")));
}

#[tokio::test]
async fn a_fault_is_no_verdict() {
    let server = Server::start().await;
    let body = server.post("/api/v1/jobs?wait=true").json(job("fault", "").to_string()).send().await.json();
    assert_eq!(body["status"], "failed");
    assert_eq!(body["verdict"], Value::Null);
    assert_eq!(body["error_message"], "the sandbox could not be opened");
}

#[tokio::test]
async fn an_attempt_that_was_given_back_is_waited_for() {
    let server = Server::start().await;
    let body = server.post("/api/v1/jobs?wait=true").json(job("again", "x").to_string()).send().await.json();
    assert_eq!((&body["status"], &body["attempt"]), (&json!("completed"), &json!(2)));
}

#[tokio::test]
async fn bytes_that_are_no_text_come_back_exactly() {
    let server = Server::start().await;
    let request = json!({"language": "c", "source_code_base64": "Y2F0", "stdin_base64": "AGH/"});
    let body = server.post("/api/v1/jobs?wait=true").json(request.to_string()).send().await.json();
    assert_eq!(body["stdout"], "\u{0}a\u{fffd}");
    assert_eq!(body["stdout_base64"], "AGH/");
    let path = format!("/api/v1/jobs/{}?fields=stdin,stdin_base64,source_code", body["id"].as_str().unwrap());
    let picked = server.get(&path).send().await.json();
    assert_eq!(picked, json!({"stdin": "\u{0}a\u{fffd}", "stdin_base64": "AGH/", "source_code": "cat"}));
}

#[tokio::test]
async fn fields_give_what_was_asked_and_nothing_else() {
    let server = Server::start().await;
    let mut request = job("cat", "in");
    request["limits"] = json!({"cpu_time_ms": 1000});
    let id = server.submit(request).await;
    server.reach(&id, "completed").await;
    let get = async |fields: &str| server.get(&format!("/api/v1/jobs/{id}?fields={fields}")).send().await;
    assert_eq!(get("status,verdict").await.text(), r#"{"status":"completed","verdict":"accepted"}"#);
    assert_eq!(get("stdout,stdout_base64").await.json(), json!({"stdout": "in", "stdout_base64": null}));
    let request = get("source_code,stdin,limits,runs,args,env").await.json();
    assert_eq!(request["source_code"], "cat");
    assert_eq!(request["limits"]["cpu_time_ms"], 1000);
    assert_eq!(request["limits"]["wall_time_ms"], 4000);
    assert_eq!(request["limits"]["memory_kb"], 262_144);
    let wrong = get("status,secret").await;
    assert_eq!((wrong.status.as_u16(), problem_fields(&wrong)), (422, vec!["fields".to_owned()]));
}

#[tokio::test]
async fn a_key_gives_the_same_job_again() {
    let server = Server::start().await;
    let post = async |key: &str, body: Value, path: &str| {
        server.post(path).header("idempotency-key", key).json(body.to_string()).send().await
    };
    let first = post("k 1", job("cat", "1"), "/api/v1/jobs").await;
    let again = post("k 1", job("cat", "1"), "/api/v1/jobs").await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let waited = post("k 1", job("cat", "1"), "/api/v1/jobs?wait=true").await;
    assert_eq!((waited.status.as_u16(), &waited.json()["id"]), (200, &first.json()["id"]));
    let other = post("k 1", job("cat", "2"), "/api/v1/jobs").await;
    assert_eq!(other.status, 409);
    assert_eq!(other.json()["type"], "urn:gavel:problem:conflict");
    let other_key = post("k 2", job("cat", "1"), "/api/v1/jobs").await;
    assert_ne!(other_key.json()["id"], first.json()["id"]);
    let erased = format!("/api/v1/jobs/{}", first.json()["id"].as_str().unwrap());
    assert_eq!(server.call("DELETE", &erased).send().await.status, 204);
    assert_eq!(post("k 1", job("cat", "1"), "/api/v1/jobs").await.status, 409, "its job is gone");
    for wrong in ["", "\u{7f}", &"x".repeat(256)] {
        let Ok(_) = hyper::header::HeaderValue::from_str(wrong) else { continue };
        let answer = post(wrong, job("cat", "1"), "/api/v1/jobs").await;
        assert_eq!((answer.status.as_u16(), problem_fields(&answer)), (422, vec!["Idempotency-Key".to_owned()]));
    }
}

#[tokio::test]
async fn a_pending_job_is_cancelled_at_once() {
    let server = Server::with(Options { workers: false, ..Default::default() }).await;
    let id = server.submit(job("cat", "")).await;
    let path = format!("/api/v1/jobs/{id}?wait=true");
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await
    };
    let began = Instant::now();
    let (waited, cancelled) = tokio::join!(server.get(&path).send(), cancel);
    assert_eq!((cancelled.status.as_u16(), cancelled.json()["status"].as_str()), (200, Some("cancelled")));
    assert_eq!((waited.status.as_u16(), waited.json()["status"].as_str()), (200, Some("cancelled")));
    assert!(began.elapsed() < Duration::from_millis(1500), "whoever waits hears of it");
    let again = server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await;
    assert_eq!(again.status, 409);
    server.nothing_held().await;
    let counted = r#"gavel_jobs_total{language="python3",status="cancelled",verdict="none"}"#;
    assert!(gavel_api::metrics::install().unwrap().render().contains(counted));
}

#[tokio::test]
async fn a_running_job_is_stopped() {
    let server = Server::start().await;
    let id = server.submit(job("hold", "")).await;
    server.reach(&id, "running").await;
    let early = server.call("DELETE", &format!("/api/v1/jobs/{id}")).send().await;
    assert_eq!(early.status, 409, "a running job cannot be erased");
    let answer = server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await;
    assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str()), (200, Some("cancelled")));
    assert_eq!(server.call("DELETE", &format!("/api/v1/jobs/{id}")).send().await.status, 204);
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}")).send().await.status, 404);
    assert_eq!(server.call("DELETE", &format!("/api/v1/jobs/{id}")).send().await.status, 404);
}

#[tokio::test]
async fn a_job_that_ended_by_itself_cannot_be_cancelled() {
    let server = Server::start().await;
    let id = server.submit(job("cat", "")).await;
    server.reach(&id, "completed").await;
    let answer = server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await;
    assert_eq!(answer.status, 409);
    assert!(answer.json()["detail"].as_str().unwrap().contains("completed"));
}

#[tokio::test]
async fn pages_are_newest_first_and_fit_together() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(server.submit(job("cat", &n.to_string())).await);
    }
    ids.reverse();
    let (mut seen, mut path) = (Vec::new(), "/api/v1/jobs?limit=3".to_owned());
    loop {
        let page = server.get(&path).send().await.json();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/jobs?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, ids);
    let line = &server.get("/api/v1/jobs?limit=1").send().await.json()["jobs"][0];
    assert!(line.get("stdout").is_none() && line.get("source_code").is_none(), "{line}");
}

#[tokio::test]
async fn listings_are_filtered() {
    let server = Server::start().await;
    let right = server.submit(job("cat", "1")).await;
    let mut request = job("cat", "1");
    request["expected_output"] = json!("2");
    request["language"] = json!("c");
    let wrong = server.submit(request).await;
    for id in [&right, &wrong] {
        server.reach(id, "completed").await;
    }
    let created = server.job(&wrong).await["created_at"].as_str().unwrap().to_owned();
    let list = async |query: &str| -> Vec<String> {
        let page = server.get(&format!("/api/v1/jobs?{query}")).send().await.json();
        page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list("verdict=wrong_answer").await, std::slice::from_ref(&wrong));
    assert_eq!(list("language=python3&status=completed").await, std::slice::from_ref(&right));
    assert_eq!(list("status=running").await, Vec::<String>::new());
    assert_eq!(list(&format!("created_after={created}")).await, std::slice::from_ref(&wrong));
    assert_eq!(list(&format!("created_before={created}")).await, [right]);
}
