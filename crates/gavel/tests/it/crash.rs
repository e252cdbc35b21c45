//! The second promise: what was acknowledged is not lost, whenever the server dies.

use crate::harness::{Dice, Server, alone, eventually, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const ROUNDS: u64 = 50;

/// Jobs of each round; some run long enough to be running when the server dies.
const JOBS: u64 = 12;

/// What is known of an acknowledged job.
#[derive(Debug, Default)]
struct Known {
    expected: String,
    /// Its end, once somebody has been told of it: attempt and time.
    ended: Option<(Value, Value)>,
}

#[test]
fn jobs_survive_kills_at_random_moments_and_end_once() {
    let _turn = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Every crash costs an attempt of the jobs that were running: none may run out of them here.
    let settings = ["workers.max_workers=2", "workers.max_attempts=1000"];
    let mut dice = Dice::new("crash");
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for round in 0..ROUNDS {
        let server = Server::start_in(dir.path(), &settings);
        let delay = Duration::from_millis(dice.below(250));
        std::thread::scope(|scope| {
            let submitting = scope.spawn(|| submit(&server, round));
            let watching = scope.spawn(|| ended_jobs(&server));
            // The moment of death is what is random here; nothing is waited for.
            std::thread::sleep(delay);
            server.signal(rustix::process::Signal::KILL);
            known.extend(submitting.join().expect("the submitter ends"));
            remember(&mut known, watching.join().expect("the watcher ends"));
        });
        server.kill();
    }
    assert!(known.len() as u64 > ROUNDS, "only {} jobs were acknowledged: the test tests nothing", known.len());
    let server = Server::start_in(dir.path(), &settings);
    check_all(&server, &known);
}

/// Submits until the server is gone; returns what it acknowledged.
fn submit(server: &Server, round: u64) -> BTreeMap<String, Known> {
    let mut acknowledged = BTreeMap::new();
    for n in 0..JOBS {
        let expected = format!("round {round} job {n}\n");
        let seconds = if n % 3 == 0 { "0.1" } else { "0" };
        let source = format!("sleep {seconds}\nprintf '%s' \"$1\"\n");
        let job = json!({ "language": "bash", "source_code": source, "args": [expected], "expected_output": expected });
        let Some(answer) = server.try_post("/api/v1/jobs", &job) else { break };
        assert_eq!(answer.status, 201, "{}", answer.body);
        acknowledged.insert(text(&answer.body, "id"), Known { expected, ended: None });
    }
    acknowledged
}

/// Asks for ended jobs until the server is gone: id, attempt and time of the end.
fn ended_jobs(server: &Server) -> Vec<(String, (Value, Value))> {
    let mut seen = Vec::new();
    while let Some(answer) = server.try_get("/api/v1/jobs?status=completed&limit=50") {
        for job in answer.body["jobs"].as_array().into_iter().flatten() {
            seen.push((text(job, "id"), (job["attempt"].clone(), job["completed_at"].clone())));
        }
    }
    seen
}

fn remember(known: &mut BTreeMap<String, Known>, seen: Vec<(String, (Value, Value))>) {
    for (id, end) in seen {
        // A job whose acknowledgement was lost may be seen as well.
        let Some(known) = known.get_mut(&id) else { continue };
        let first = known.ended.get_or_insert(end.clone());
        assert_eq!(*first, end, "job {id} ended twice");
    }
}

fn check_all(server: &Server, known: &BTreeMap<String, Known>) {
    eventually("nothing is pending or running", || {
        let left = ["pending", "running"].iter().any(|status| {
            let answer = server.get(&format!("/api/v1/jobs?status={status}&limit=1"));
            answer.body["jobs"].as_array().is_none_or(|jobs| !jobs.is_empty())
        });
        (!left).then_some(())
    });
    let mut more_than_one = 0;
    for (id, known) in known {
        let job = server.job(id);
        assert_eq!((text(&job, "status"), text(&job, "verdict")), ("completed".into(), "accepted".into()), "{job:#}");
        assert_eq!(text(&job, "stdout"), known.expected, "{job:#}");
        let attempt = job["attempt"].as_u64().expect("an attempt");
        assert!((1..=ROUNDS + 1).contains(&attempt), "{attempt} attempts in {ROUNDS} rounds: {job:#}");
        more_than_one += u64::from(attempt > 1);
        if let Some((attempt, completed_at)) = &known.ended {
            assert_eq!((attempt, completed_at), (&job["attempt"], &job["completed_at"]), "ended twice: {job:#}");
        }
    }
    println!("{} jobs acknowledged, {more_than_one} of them begun more than once", known.len());
    assert!(more_than_one > 0, "no kill hit a running job: the test tests nothing");
}
