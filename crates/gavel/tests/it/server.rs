//! How a server starts, refuses to start, and stops.

use crate::harness::{Server, among_others, eventually, gavel, spawn, text};
use rustix::process::Signal;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Starts a server that is expected to refuse; returns its exit code and what it said.
fn refused(dir: &Path, settings: &[&str]) -> (Option<i32>, String) {
    let (mut child, ready, log) = spawn(dir, settings);
    let status = eventually("the server has ended", || child.try_wait().expect("a child can be waited for"));
    assert!(!ready.exists(), "it said that it is ready");
    (status.code(), std::fs::read_to_string(log).expect("a log"))
}

fn sleeper(seconds: &str) -> serde_json::Value {
    json!({ "language": "bash", "source_code": format!("sleep {seconds}; echo done") })
}

#[test]
fn a_port_in_use_is_named() {
    let _turn = among_others();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (code, said) = refused(dir.path(), &[&format!("server.bind={address}")]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&address) && said.contains("--bind"), "{said}");
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = Server::start_in(dir.path(), &[]);
    let other = tempfile::tempdir().expect("a temporary directory");
    let data = format!("data_dir={}", dir.path().join("data").display());
    let (code, said) = refused(other.path(), &[&data]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&first.pid().to_string()), "does not name process {}: {said}", first.pid());
    assert_eq!(first.judge(&sleeper("0"))["verdict"], "accepted");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named_with_a_remedy() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Root may write everywhere, but not into a file.
    std::fs::write(dir.path().join("file"), "").expect("a file");
    let data = dir.path().join("file/data");
    let (code, said) = refused(dir.path(), &[&format!("data_dir={}", data.display())]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains(&data.display().to_string()), "{said}");
}

#[test]
fn the_first_lines_say_where_it_is_and_what_to_try() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let said = server.log();
    assert!(said.contains(&server.url), "{said}");
    assert!(said.contains("curl "), "{said}");
    eventually("the languages are listed", || server.log().contains("python3").then_some(()));
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.body);
}

#[test]
fn a_stopping_server_lets_the_running_job_finish_and_keeps_the_rest() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = ["workers.max_workers=1"];
    let mut server = Server::start_in(dir.path(), &settings);
    let running = server.submit(&sleeper("1"));
    server.wait_for_status(&running, &["running"]);
    let waiting: Vec<String> = (0..3).map(|_| server.submit(&sleeper("0"))).collect();
    let status = server.stop();
    assert!(status.success(), "{status}: {}", server.log());

    let server = Server::start_in(dir.path(), &settings);
    let job = server.job(&running);
    assert_eq!((text(&job, "status").as_str(), &job["attempt"]), ("completed", &json!(1)), "{job}");
    for id in &waiting {
        let job = server.wait_for_status(id, &["completed", "failed"]);
        assert_eq!(text(&job, "stdout"), "done\n");
    }
}

#[test]
fn a_stopping_server_is_not_ready_and_takes_no_new_jobs_but_still_answers() {
    let _turn = among_others();
    let mut server = Server::start(&["workers.max_workers=1"]);
    let id = server.submit(&sleeper("2"));
    server.wait_for_status(&id, &["running"]);
    assert_eq!(server.get("/readyz").status, 200);
    server.signal(Signal::TERM);
    let ready = eventually("it is not ready", || Some(server.get("/readyz")).filter(|ready| ready.status != 200));
    assert_eq!((ready.status, &ready.body["checks"][0]["detail"]), (503, &json!("draining")), "{}", ready.body);
    let refused = server.post("/api/v1/jobs", &sleeper("0"));
    assert_eq!((refused.status, &refused.body["type"]), (503, &json!("urn:gavel:problem:draining")));
    assert_eq!(server.job(&id)["status"], "running");
    assert!(server.wait_for_end().success(), "{}", server.log());
}

#[test]
fn other_names_are_refused_unless_they_are_configured() {
    let _turn = among_others();
    let server = Server::start(&["server.allowed_hosts=judge.example,other.example"]);
    for (host, status) in [("judge.example", "200"), ("other.example:80", "200"), ("evil.example", "421")] {
        let mut socket = std::net::TcpStream::connect(server.url.trim_start_matches("http://")).expect("a connection");
        write!(socket, "GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("a request");
        let answer = std::io::read_to_string(socket).expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}

#[test]
fn whoever_waits_for_a_running_job_gets_its_result_from_a_stopping_server() {
    let _turn = among_others();
    let mut server = Server::start(&["workers.max_workers=1"]);
    let done = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.judge(&sleeper("1")));
        eventually("the job is running", || {
            let running = server.get("/api/v1/jobs?status=running");
            running.body["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1).then_some(())
        });
        server.signal(Signal::TERM);
        waiting.join().expect("the client ends")
    });
    assert_eq!(text(&done, "stdout"), "done\n", "{done}");
    assert!(server.wait_for_end().success(), "{}", server.log());
}

#[test]
fn a_job_that_outlives_the_drain_is_given_back() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start_in(dir.path(), &["workers.drain_timeout=100ms", "workers.max_attempts=1"]);
    let id = server.submit(&sleeper("3"));
    server.wait_for_status(&id, &["running"]);
    assert!(server.stop().success(), "{}", server.log());

    // One attempt is allowed, and the drain did not use it up.
    let server = Server::start_in(dir.path(), &["workers.max_attempts=1"]);
    let job = server.wait_for_status(&id, &["completed", "failed"]);
    assert_eq!(text(&job, "stdout"), "done\n", "{job}");
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let _turn = among_others();
    let mut server = Server::start(&["workers.drain_timeout=60s"]);
    let id = server.submit(&sleeper("5"));
    server.wait_for_status(&id, &["running"]);
    server.signal(Signal::TERM);
    eventually("it says that it drains", || server.log().contains("drain").then_some(()));
    server.signal(Signal::TERM);
    let status = server.wait_for_end();
    assert_eq!(status.code(), Some(130), "{}", server.log());
}

#[test]
fn plain_gavel_is_gavel_serve() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = gavel(dir.path()).args(["--bind", "192.0.2.1:1"]).output().expect("gavel starts");
    assert_eq!(output.status.code(), Some(3));
}
