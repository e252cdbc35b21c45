//! A job as it happens.

use crate::client::Open;
use crate::server::{Options, Server, job};
use gavel_api::{HttpOptions, ServiceOptions};
use serde_json::{Value, json};
use std::time::Duration;

async fn follow(server: &Server, id: &str) -> Open {
    let open = server.get(&format!("/api/v1/jobs/{id}/events")).open().await;
    assert_eq!(open.response.status(), 200);
    assert_eq!(open.response.headers()["content-type"], "text/event-stream");
    open
}

/// The next event, as its name and data; comments are skipped. `None` at the end.
async fn next(open: &mut Open) -> Option<(String, Value)> {
    loop {
        let block = open.until("\n\n").await?;
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        if let Some(event) = field("event: ") {
            let data = field("data: ").unwrap();
            return Some((event, serde_json::from_str(&data).unwrap()));
        }
    }
}

async fn all(open: &mut Open) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while let Some(event) = next(open).await {
        events.push(event);
    }
    events
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn a_running_job_is_shown_live() {
    let server = Server::start().await;
    let id = server.submit(job("hold", "")).await;
    server.reach(&id, "running").await;
    let mut open = follow(&server, &id).await;
    let (name, data) = next(&mut open).await.unwrap();
    assert_eq!((name.as_str(), &data["status"], &data["attempt"]), ("status", &json!("running"), &json!(1)));
    assert_eq!(next(&mut open).await.unwrap(), ("stdout".into(), json!({"text": "begun "})));
    server.hold.add_permits(1);
    let rest = all(&mut open).await;
    // What the bell did not bring is taken from the row.
    assert_eq!(names(&rest), ["stdout", "stderr", "status", "done"]);
    assert_eq!(rest[0].1, json!({"text": "and ended"}));
    assert_eq!(rest[2].1["status"], "completed");
    assert_eq!((&rest[3].1["verdict"], &rest[3].1["stdout"]), (&json!("accepted"), &json!("begun and ended")));
    server.nothing_held().await;
}

#[tokio::test]
async fn an_ended_job_is_replayed() {
    let server = Server::start().await;
    let id = server.submit(job("cat", "7\n")).await;
    server.reach(&id, "completed").await;
    for _ in 0..2 {
        let events = all(&mut follow(&server, &id).await).await;
        assert_eq!(names(&events), ["stdout", "stderr", "status", "done"]);
        assert_eq!(events[0].1, json!({"text": "7\n"}));
        assert_eq!(events[3].1["id"], id.as_str());
    }
    let again = server.get(&format!("/api/v1/jobs/{id}/events")).header("last-event-id", "done").send().await;
    assert_eq!(again.status, 204, "a browser stops coming back");
}

#[tokio::test]
async fn characters_are_not_cut_and_other_bytes_are_exact() {
    let server = Server::start().await;
    let id = server.submit(job("live", "")).await;
    let events = all(&mut follow(&server, &id).await).await;
    let pieces: Vec<_> = events.iter().filter(|(name, _)| name == "stdout").map(|(_, data)| data.clone()).collect();
    let text: String = pieces.iter().map(|data| data["text"].as_str().unwrap()).collect();
    assert_eq!(text, "a\u{e9}b\u{fffd}");
    assert!(pieces.last().unwrap()["base64"].is_string(), "{pieces:?}");
}

#[tokio::test]
async fn an_attempt_that_was_given_back_voids_what_was_shown() {
    let server = Server::start().await;
    let id = server.submit(job("again", "final")).await;
    let events = all(&mut follow(&server, &id).await).await;
    let last = events.last().unwrap();
    assert_eq!((last.0.as_str(), &last.1["attempt"]), ("done", &json!(2)));
    let restarted = events.iter().rposition(|(name, data)| name == "status" && data["restarted"] == true);
    let after = &events[restarted.map_or(0, |at| at + 1)..];
    let text: String =
        after.iter().filter(|(name, _)| name == "stdout").map(|(_, data)| data["text"].as_str().unwrap()).collect();
    assert_eq!(text, "final");
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive() {
    let http = HttpOptions { keep_alive: Duration::from_millis(50), ..Default::default() };
    let server = Server::with(Options { http, workers: false, ..Default::default() }).await;
    let id = server.submit(job("cat", "")).await;
    let mut open = follow(&server, &id).await;
    next(&mut open).await.unwrap();
    assert_eq!(open.until("\n\n").await.unwrap(), ": keep-alive");
    // The end is heard all the same.
    server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await;
    let events = all(&mut open).await;
    assert_eq!(names(&events), ["status", "done"]);
    assert_eq!(events[1].1["status"], "cancelled");
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_place_back() {
    let service = ServiceOptions { max_watchers: 1, ..Default::default() };
    let server = Server::with(Options { service, workers: false, ..Default::default() }).await;
    let id = server.submit(job("cat", "")).await;
    let open = follow(&server, &id).await;
    let path = format!("/api/v1/jobs/{id}/events");
    let refused = server.get(&path).send().await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "5"));
    open.abandon();
    server.nothing_held().await;
    assert_eq!(server.get(&path).open().await.response.status(), 200);
}

#[tokio::test]
async fn a_job_that_is_erased_ends_its_stream() {
    let service = ServiceOptions { poll: Duration::from_millis(50), ..Default::default() };
    let server = Server::with(Options { service, ..Default::default() }).await;
    let id = server.submit(job("cat", "")).await;
    server.reach(&id, "completed").await;
    server.call("DELETE", &format!("/api/v1/jobs/{id}")).send().await;
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/events")).send().await.status, 404);
}
