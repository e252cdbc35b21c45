//! Many jobs in one request.

use crate::server::{Options, Server, job, problem_fields};
use gavel_api::{HttpOptions, ServiceOptions};
use serde_json::{Value, json};

#[tokio::test]
async fn each_job_is_answered_in_its_place() {
    let server = Server::start().await;
    let wrong = json!({"language": "nope", "source_code": "x"});
    let unknown = json!({"language": "c", "source_code": "x", "limits": {"cpu": 1}});
    let request = json!({"jobs": [job("cat", "0"), wrong, job("cat", "2"), unknown, 7]});
    let answer = server.post("/api/v1/jobs/batch").json(request.to_string()).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let jobs = answer.json()["jobs"].as_array().unwrap().clone();
    assert_eq!(jobs.len(), 5);
    for (at, stdin) in [(0, "0"), (2, "2")] {
        let id = jobs[at]["id"].as_str().unwrap();
        assert_eq!(server.reach(id, "completed").await["stdout"], stdin);
    }
    for (at, field) in [(1, "language"), (3, "limits.cpu"), (4, "body")] {
        assert_eq!(jobs[at]["error"]["status"], 422);
        assert_eq!(jobs[at]["error"]["errors"][0]["field"], field, "{}", jobs[at]);
    }
}

#[tokio::test]
async fn a_batch_can_be_waited_for() {
    let server = Server::start().await;
    let mut jobs: Vec<Value> = (0..200).map(|n| job("cat", &n.to_string())).collect();
    jobs[5] = json!({"language": "nope", "source_code": "x"});
    let request = json!({"jobs": jobs});
    let answer = server.post("/api/v1/jobs/batch?wait=true").json(request.to_string()).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let jobs = answer.json()["jobs"].as_array().unwrap().clone();
    assert_eq!(jobs.len(), 200);
    for (n, job) in jobs.iter().enumerate() {
        if n == 5 {
            assert_eq!(job["error"]["errors"][0]["field"], "language");
        } else {
            assert_eq!((&job["status"], &job["stdout"]), (&json!("completed"), &json!(n.to_string())));
        }
    }
    server.nothing_held().await;
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_answered_as_it_is() {
    let server = Server::start().await;
    let request = json!({"jobs": [job("cat", "1"), job("hold", "")]});
    let answer = server.post("/api/v1/jobs/batch?wait=true&timeout_ms=500").json(request.to_string()).send().await;
    assert_eq!(answer.status, 202);
    let jobs = answer.json()["jobs"].clone();
    assert_eq!((&jobs[0]["status"], &jobs[1]["status"]), (&json!("completed"), &json!("running")));
}

#[tokio::test]
async fn outputs_beyond_the_answers_limit_are_left_out() {
    let http = HttpOptions { max_batch_answer: 1 << 20, ..Default::default() };
    let server = Server::with(Options { http, ..Default::default() }).await;
    let request = json!({"jobs": [job("cat", "small"), job("big", ""), job("cat", "small")]});
    let answer = server.post("/api/v1/jobs/batch?wait=true").json(request.to_string()).send().await;
    assert_eq!(answer.status, 200);
    let jobs = answer.json()["jobs"].clone();
    assert_eq!((&jobs[0]["stdout"], &jobs[2]["stdout"]), (&json!("small"), &json!("small")));
    assert_eq!((&jobs[1]["stdout"], &jobs[1]["output_omitted"]), (&Value::Null, &json!(true)));
    assert_eq!(jobs[1]["verdict"], "accepted");
}

#[tokio::test]
async fn a_batch_has_a_size() {
    let service = ServiceOptions { max_batch: 3, ..Default::default() };
    let server = Server::with(Options { service, ..Default::default() }).await;
    for jobs in [vec![], vec![job("cat", ""); 4]] {
        let answer = server.post("/api/v1/jobs/batch").json(json!({"jobs": jobs}).to_string()).send().await;
        assert_eq!((answer.status.as_u16(), problem_fields(&answer)), (422, vec!["jobs".to_owned()]));
    }
    for (body, status, field) in [
        ("{}", 422, "jobs"),
        (r#"{"jobs": 1}"#, 422, "jobs"),
        (r#"{"jobs": [], "x": 1}"#, 422, "x"),
        ("[]", 422, "body"),
    ] {
        let answer = server.post("/api/v1/jobs/batch").json(body).send().await;
        assert_eq!((answer.status.as_u16(), problem_fields(&answer)), (status, vec![field.to_owned()]), "{body}");
    }
    assert_eq!(server.post("/api/v1/jobs/batch").json(r#"{"jobs": [{]}"#).send().await.status, 400);
}

#[tokio::test]
async fn a_batch_can_be_sent_again_with_its_key() {
    let server = Server::with(Options { workers: false, max_depth: 3, ..Default::default() }).await;
    let request = json!({"jobs": [job("cat", "0"), job("cat", "1"), job("cat", "2"), job("cat", "3")]}).to_string();
    let send = async |key: &str| {
        server.post("/api/v1/jobs/batch").header("idempotency-key", key).json(request.clone()).send().await
    };
    let first = send("k").await.json();
    assert_eq!(first["jobs"][3]["error"]["type"], "urn:gavel:problem:queue_full");
    let again = send("k").await.json();
    for n in 0..3 {
        assert_eq!(first["jobs"][n]["id"], again["jobs"][n]["id"]);
    }
    assert_eq!(again["jobs"][3]["error"]["status"], 503);
    let full = send("other").await;
    assert_eq!((full.status.as_u16(), full.header("retry-after")), (503, "1"), "nothing was stored");
}
