//! What goes in comes out, byte for byte, and to the right client.

use crate::harness::{Dice, Server, alone, among_others, eventually, text};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const SIZE: usize = 64 << 20;

#[test]
fn random_bytes_of_64_mib_come_back_unchanged() {
    let _turn = alone();
    let server = Server::start(&[
        "server.max_body=128m",
        "limits.max_stdin=64m",
        "limits.cap.output_kb=131072",
        "limits.cap.memory_kb=2097152",
    ]);
    let mut dice = Dice::seeded(20_251);
    let bytes: Vec<u8> = (0..SIZE / 8).flat_map(|_| dice.next().to_le_bytes()).collect();
    let done = server.judge(&json!({
        "language": "bash", "source_code": "exec cat", "stdin_base64": BASE64_STANDARD.encode(&bytes),
        "limits": { "output_kb": 131_072, "memory_kb": 1_048_576, "cpu_time_ms": 15_000, "wall_time_ms": 60_000 },
    }));
    assert_eq!(done["verdict"], "accepted", "{} {}", done["verdict"], done["reason"]);
    let back = BASE64_STANDARD.decode(text(&done, "stdout_base64")).expect("base64");
    assert_eq!(back.len(), bytes.len());
    assert_eq!(blake3::hash(&back), blake3::hash(&bytes));
}

#[test]
fn a_thousand_jobs_at_once_each_get_their_own_output() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let job = |n: usize| {
        json!({ "language": "bash", "source_code": "read -r x; echo \"$1 $x $1\"", "args": [n.to_string()],
                "stdin": format!("{}\n", n * 7) })
    };
    let jobs: Vec<Value> = (0..1000).map(job).collect();
    let answer = server.post("/api/v1/jobs/batch", &json!({ "jobs": jobs }));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let ids: Vec<String> = answer.body["jobs"].as_array().expect("a list").iter().map(|job| text(job, "id")).collect();
    assert_eq!(ids.len(), 1000);
    for (n, id) in ids.iter().enumerate() {
        let done = eventually("the job has ended", || {
            let job = server.job(id);
            (job["status"] != "pending" && job["status"] != "running").then_some(job)
        });
        assert_eq!(done["stdout"], format!("{n} {} {n}\n", n * 7), "{done:#}");
    }
}
