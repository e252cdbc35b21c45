//! Languages, workers, statistics, health, metrics, and a store that fails.

use crate::server::{Options, Server, job};
use gavel_api::{HealthOptions, LanguageState};
use gavel_core::Bytes;
use gavel_core::board::WorkerState;
use gavel_store::StoreError;
use gavel_store::faulty::Call;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No word of this may reach a client.
const SECRET: &str = "/var/lib/secret.db: disk I/O error 10";

fn unavailable() -> StoreError {
    StoreError::Unavailable(SECRET.into())
}

#[tokio::test]
async fn languages_say_what_they_can() {
    let server = Server::start().await;
    let list = server.get("/api/v1/languages").send().await.json();
    let ids: Vec<_> = list["languages"].as_array().unwrap().iter().map(|l| l["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["c", "cobol", "python3"]);
    let c = server.get("/api/v1/languages/c").send().await.json();
    assert_eq!((&c["version"], &c["backend"], &c["available"]), (&json!("12.2.0"), &json!("native"), &json!(true)));
    assert_eq!(c["compile_command"], json!(["/usr/bin/gcc", "{options}", "main.c"]));
    assert_eq!(c["limits"]["default"]["cpu_time_ms"], 2000);
    assert_eq!(c["limits"]["cap"]["memory_kb"], 1_048_576);
    assert_eq!(c["limits"]["compile"]["wall_time_ms"], 30_000);
    assert_eq!((&c["source_file"], &c["extensions"]), (&json!("main.c"), &json!(["c"])));
    assert_eq!(c["sample"]["expected_output"], "1");
    let cobol = server.get("/api/v1/languages/cobol").send().await.json();
    assert_eq!(cobol["available"], false);
    assert_eq!(cobol["unavailable_reason"], "/usr/bin/cobc is missing: install gnucobol");
    // What is found out later is shown and counts.
    server.languages.set_state("cobol", LanguageState { version: Some("3.1".into()), ..Default::default() });
    let cobol = server.get("/api/v1/languages/cobol").send().await.json();
    assert_eq!((&cobol["available"], &cobol["version"]), (&json!(true), &json!("3.1")));
    server.submit(json!({"language": "cobol", "source_code": "x"})).await;
}

#[tokio::test]
async fn workers_are_listed() {
    let server = Server::start().await;
    let worker = server.get("/api/v1/workers").send().await.json()["workers"][0].clone();
    assert_eq!((&worker["id"], &worker["state"], &worker["jobs_done"]), (&json!(1), &json!("idle"), &json!(3)));
    assert!((worker["busy_share"].as_f64().unwrap() - 0.1).abs() < 0.02, "{worker}");
}

#[tokio::test]
async fn statistics_are_of_what_ended() {
    let server = Server::start().await;
    for n in 0..3 {
        let id = server.submit(job("cat", &n.to_string())).await;
        server.reach(&id, "completed").await;
    }
    let mut request = json!({"language": "c", "source_code": "x"});
    request["expected_output"] = json!("1");
    let id = server.submit(request).await;
    server.reach(&id, "completed").await;
    let stats = server.get("/api/v1/stats").send().await.json();
    assert!((stats["jobs_per_second"].as_f64().unwrap() - 4.0 / 60.0).abs() < 1e-9, "{stats}");
    assert_eq!((&stats["queue"]["pending"], &stats["queue"]["running"]), (&json!(0), &json!(0)));
    let (c, python) = (&stats["by_language"][0], &stats["by_language"][1]);
    assert_eq!((&c["language"], &c["wrong_answer"], &c["success_rate"]), (&json!("c"), &json!(1), &json!(0.0)));
    assert_eq!(
        (&python["completed"], &python["accepted"], &python["success_rate"]),
        (&json!(3), &json!(3), &json!(1.0))
    );
    assert_eq!(python["execution_time_ms"], json!({"p50": 1.204, "p95": 1.204, "p99": 1.204}));
    assert_eq!(stats["compile_cache"], json!({"hits": 1, "misses": 0, "hit_rate": 1.0}));
    assert_eq!((&stats["workers"]["total"], &stats["sandboxes"]["faults"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let free = Arc::new(std::sync::atomic::AtomicU64::new(1 << 40));
    let space = free.clone();
    let health = HealthOptions {
        backend: Some(Arc::new(|| Ok("native 6.1".to_owned()))),
        free_space: Some(Arc::new(move || Ok(Bytes(space.load(std::sync::atomic::Ordering::Relaxed))))),
        keep: Duration::ZERO,
        time_limit: Duration::from_millis(300),
        ..Default::default()
    };
    let server = Server::with(Options { health, workers: false, max_depth: 2, ..Default::default() }).await;
    let ready = async || {
        let answer = server.get("/readyz").send().await;
        let checks = answer.json()["checks"].as_array().unwrap().clone();
        let failed: Vec<Value> = checks.iter().filter(|c| c["ok"] == false).map(|c| c["name"].clone()).collect();
        assert!(!answer.text().contains(SECRET));
        (answer.status.as_u16(), checks.len(), failed)
    };
    assert_eq!(ready().await, (200, 5, vec![]));
    free.store(1000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(ready().await, (503, 5, vec![json!("disk")]));
    free.store(1 << 40, std::sync::atomic::Ordering::Relaxed);
    server.board.change(1, crate::worker::now(), WorkerState::Recovering, None);
    assert_eq!(ready().await, (503, 5, vec![json!("workers")]));
    server.board.change(1, crate::worker::now(), WorkerState::Idle, None);
    server.break_store(unavailable());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ready().await, (503, 5, vec![json!("database"), json!("queue")]));
    server.store.heal_all();
    server.stall_store(Duration::from_secs(60));
    let began = Instant::now();
    assert_eq!(ready().await.0, 503);
    assert!(began.elapsed() < Duration::from_secs(2), "each check has a time limit");
    server.store.heal_all();
    for n in 0..2 {
        server.submit(job("cat", &n.to_string())).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ready().await, (503, 5, vec![json!("queue")]));
    assert_eq!(server.get("/healthz").send().await.json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn a_backend_that_hangs_is_asked_once() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let probe = move || {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(2));
        Ok(String::new())
    };
    let health = HealthOptions {
        backend: Some(Arc::new(probe)),
        keep: Duration::ZERO,
        time_limit: Duration::from_millis(50),
        ..Default::default()
    };
    let server = Server::with(Options { health, ..Default::default() }).await;
    for _ in 0..5 {
        assert_eq!(server.get("/readyz").send().await.status, 503);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn numbers_are_counted_by_route_and_not_by_path() {
    let server = Server::start().await;
    let id = server.submit(job("cat", "")).await;
    server.reach(&id, "completed").await;
    server.get("/no/such/route/7f3a").send().await;
    let answer = server.get("/metrics").send().await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    for part in [
        r#"gavel_http_requests_total{route="/api/v1/jobs",method="POST",status="201"}"#,
        r#"gavel_http_requests_total{route="unmatched",method="GET",status="404"}"#,
        r#"gavel_http_request_seconds_bucket{route="/api/v1/jobs/{id}",method="GET",le="0.0005"}"#,
        r#"gavel_jobs_submitted_total{language="python3"}"#,
        r#"gavel_workers{state="idle"} 1"#,
        "gavel_queue_depth 0",
        "gavel_queue_oldest_seconds 0",
        "# HELP gavel_http_requests_total HTTP requests that were answered.",
        "# TYPE gavel_http_request_seconds histogram",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains(&id) && !text.contains("7f3a"), "paths are no labels");
}

#[tokio::test]
async fn a_failing_store_is_told_without_its_secrets() {
    let server = Server::start().await;
    let id = server.submit(job("cat", "")).await;
    server.reach(&id, "completed").await;
    for (fault, status, retry) in
        [(unavailable(), 503, "2"), (StoreError::Full, 503, "30"), (StoreError::Damaged(SECRET.into()), 500, "")]
    {
        server.break_store(fault.clone());
        let body = job("cat", "").to_string();
        for call in [
            server.post("/api/v1/jobs").json(body.clone()),
            server.post("/api/v1/jobs?wait=true").json(body.clone()),
            server.post("/api/v1/jobs/batch").json(format!(r#"{{"jobs": [{body}]}}"#)),
            server.get(&format!("/api/v1/jobs/{id}")),
            server.get(&format!("/api/v1/jobs/{id}/events")),
            server.get("/api/v1/jobs"),
            server.get("/api/v1/stats"),
            server.post(&format!("/api/v1/jobs/{id}/cancel")),
            server.call("DELETE", &format!("/api/v1/jobs/{id}")),
        ] {
            let answer = call.send().await;
            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (status, retry), "{fault:?}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(!answer.text().contains("secret") && !answer.text().contains("I/O"), "{}", answer.text());
            assert!(!answer.header("x-request-id").is_empty());
        }
        server.store.heal_all();
    }
    server.nothing_held().await;
}

#[tokio::test]
async fn a_store_that_fails_while_a_job_is_waited_for_costs_time_only() {
    let mut options = Options::default();
    options.service.poll = Duration::from_millis(50);
    let server = Server::with(options).await;
    let path = "/api/v1/jobs?wait=true&timeout_ms=5000";
    let trouble = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.break_store(unavailable());
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.store.heal_all();
        server.hold.add_permits(1);
    };
    let (answer, ()) = tokio::join!(server.post(path).json(job("hold", "").to_string()).send(), trouble);
    assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str()), (200, Some("completed")));
    // And when it does not come back in time, the client still learns the id.
    let trouble = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.break_store(unavailable());
    };
    let path = "/api/v1/jobs?wait=true&timeout_ms=400";
    let (answer, ()) = tokio::join!(server.post(path).json(job("hold", "").to_string()).send(), trouble);
    assert_eq!(answer.status, 202, "{}", answer.text());
    server.store.heal_all();
    server.reach(answer.json()["id"].as_str().unwrap(), "running").await;
}

/// A job that is waited for was stored without waiting for the disk: its id is told only after that.
#[tokio::test]
async fn no_id_is_told_of_a_job_that_the_disk_may_not_have() {
    let server = Server::start().await;
    let body = job("hold", "").to_string();
    let batch = format!(r#"{{"jobs": [{body}]}}"#);
    let wait = |path: &str, body: &str| server.post(path).json(body.to_owned()).send();
    let (single, several) = ("/api/v1/jobs?wait=true&timeout_ms=100", "/api/v1/jobs/batch?wait=true&timeout_ms=100");
    server.store.fail(Call::Sync, unavailable());
    // Whether its row can be read or not.
    for can_be_read in [true, false] {
        if !can_be_read {
            server.store.fail(Call::Find, unavailable());
        }
        let before = server.store.calls(Call::Sync);
        let answer = wait(single, &body).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "2"), "{}", answer.text());
        assert!(answer.json()["id"].is_null() && answer.header("location").is_empty(), "{}", answer.text());
        assert!(server.store.calls(Call::Sync) > before, "it was not even tried");
        let answer = wait(several, &batch).await;
        let text = answer.text();
        assert!(text.contains("503") && !text.contains(r#""id""#), "{text}");
    }
    server.store.heal_all();
    let answer = wait(single, &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(server.job(answer.json()["id"].as_str().unwrap()).await["status"], "running");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let server = Server::with(Options { workers: false, max_depth: 1, ..Default::default() }).await;
    server.submit(job("cat", "")).await;
    for path in ["/api/v1/jobs", "/api/v1/jobs?wait=true"] {
        let answer = server.post(path).json(job("cat", "").to_string()).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
        assert_eq!(answer.json()["type"], "urn:gavel:problem:queue_full");
    }
    server.nothing_held().await;
}

#[tokio::test]
async fn an_answer_that_the_store_lost_is_no_second_job() {
    let server = Server::start().await;
    server.store.lose_answer_nth(Call::Insert, 1, unavailable());
    let send = || server.post("/api/v1/jobs").header("idempotency-key", "once").json(job("cat", "").to_string()).send();
    assert_eq!(send().await.status, 503);
    let again = send().await;
    assert_eq!(again.status, 200, "it was stored the first time: {}", again.text());
    let jobs = server.get("/api/v1/jobs").send().await.json()["jobs"].clone();
    assert_eq!(jobs.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_bell_that_does_not_ring_costs_time_only() {
    let mut options = Options::default();
    options.service.poll = Duration::from_millis(100);
    let server = Server::with(options).await;
    server.bell.set_mute(true);
    let answer = server.post("/api/v1/jobs?wait=true").json(job("cat", "7").to_string()).send().await;
    assert_eq!((answer.status.as_u16(), answer.json()["stdout"].as_str()), (200, Some("7")));
    let id = server.submit(job("cat", "8")).await;
    let events = server.get(&format!("/api/v1/jobs/{id}/events")).send().await.text();
    assert!(events.contains("event: stdout\ndata: {\"text\":\"8\"}") && events.contains("event: done"), "{events}");
}
