//! The HTTP API as a client meets it: refusals, and exact results of the core languages.

use crate::harness::{Server, among_others, sample};
use serde_json::{Value, json};

/// Bodies that must be refused: what is sent, the status, and the field that the answer names.
fn bad_bodies() -> Vec<(Value, u16, &'static str)> {
    let job = |change: Value| {
        let mut job = json!({ "language": "python3", "source_code": "print(1)" });
        let (fields, more) = (job.as_object_mut().unwrap(), change);
        fields.extend(more.as_object().unwrap().clone());
        job
    };
    vec![
        (json!({}), 422, "language"),
        (json!({ "language": "python3" }), 422, "source_code"),
        (job(json!({ "language": "klingon" })), 422, "language"),
        (job(json!({ "language": 7 })), 422, "language"),
        (job(json!({ "source_code": "" })), 422, "source_code"),
        (job(json!({ "source_code_base64": "AA==" })), 422, "source_code"),
        (job(json!({ "sorce": "x" })), 422, "sorce"),
        (job(json!({ "stdin_base64": "*" })), 422, "stdin_base64"),
        (job(json!({ "limits": { "cpu_time_ms": 0 } })), 422, "limits.cpu_time_ms"),
        (job(json!({ "limits": { "cpu_time_ms": -1 } })), 422, "limits.cpu_time_ms"),
        (job(json!({ "limits": { "memory_kb": 1u64 << 60 } })), 422, "limits.memory_kb"),
        (job(json!({ "limits": { "speed": 1 } })), 422, "limits.speed"),
        (job(json!({ "files": [{ "path": "../x", "content": "" }] })), 422, "files[0].path"),
        (job(json!({ "files": [{ "path": "/etc/passwd", "content": "" }] })), 422, "files[0].path"),
        (job(json!({ "env": { "LD_PRELOAD": "x" } })), 422, "env.LD_PRELOAD"),
        (job(json!({ "args": ["a\u{0}b"] })), 422, "args[0]"),
        (job(json!({ "runs": 0 })), 422, "runs"),
        (job(json!({ "priority": 1000 })), 422, "priority"),
        (job(json!({ "network": true })), 422, "network"),
    ]
}

#[test]
fn wrong_jobs_are_refused_and_the_field_is_named() {
    let _turn = among_others();
    let server = Server::start(&[]);
    for (body, status, field) in bad_bodies() {
        let answer = server.post("/api/v1/jobs", &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.content_type.starts_with("application/problem+json"), "{body}: {}", answer.content_type);
        let fields: Vec<&str> =
            answer.body["errors"].as_array().into_iter().flatten().filter_map(|e| e["field"].as_str()).collect();
        assert!(fields.iter().any(|named| named.starts_with(field)), "{body}: {} does not name {field}", answer.body);
    }
    let none = server.get("/api/v1/jobs");
    assert_eq!(none.body["jobs"], json!([]), "a refused job was stored");
}

#[test]
fn what_is_no_job_at_all_is_refused_with_its_status() {
    let _turn = among_others();
    let server = Server::start(&["server.max_body=64k"]);
    let json_type = "application/json";
    let deep = "[".repeat(10_000);
    let table = [
        (server.post_text("/api/v1/jobs", json_type, "{"), 400),
        (server.post_text("/api/v1/jobs", json_type, &deep), 422),
        (server.post_text("/api/v1/jobs", json_type, &format!("{{\"a\":\"{}\"}}", "x".repeat(70_000))), 413),
        (server.get("/api/v1/jobs/not-an-id"), 404),
        (server.get("/api/v1/jobs/01890000-0000-7000-8000-000000000000"), 404),
        (server.delete("/api/v1/jobs/01890000-0000-7000-8000-000000000000"), 404),
        (server.get("/api/v1/nothing"), 404),
        (server.get("/api/v1/jobs?limit=1000"), 422),
        (server.get("/api/v1/languages/klingon"), 404),
    ];
    for (answer, status) in table {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.content_type.starts_with("application/problem+json"), "{answer:?}");
    }
}

#[test]
fn the_samples_of_the_core_languages_give_exact_results() {
    let _turn = among_others();
    let server = Server::start(&[]);
    for id in ["python3", "javascript", "java", "cpp", "c"] {
        sample(id).check_exactly(&server, "native");
    }
}
