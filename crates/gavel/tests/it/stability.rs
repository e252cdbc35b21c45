//! The third promise under load: the same program gets the same verdict every time.

use crate::harness::{Server, alone, eventually, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const TIMES: usize = 200;

/// Programs whose verdict must not depend on what else the machine does.
fn programs() -> Vec<(&'static str, Value)> {
    let c = |source: &str, limits: Value| json!({ "language": "c", "source_code": source, "limits": limits });
    let burn = "#include <time.h>\nint main(void) { while (clock() < CLOCKS_PER_SEC / 5); return 0; }\n";
    let touch = "#include <stdlib.h>\nint main(void) {\n\
                 volatile char *p = malloc(64 << 20); for (int i = 0; i < 64 << 20; i += 4096) p[i] = 1; return 0; }\n";
    let crash = "int main(void) { volatile int *p = 0; return *p; }\n";
    vec![
        ("accepted", c("#include <stdio.h>\nint main(void) { puts(\"7\"); return 0; }\n", json!({}))),
        // 200 ms of CPU time under a limit of 100.
        ("time_limit_exceeded", c(burn, json!({ "cpu_time_ms": 100, "wall_time_ms": 10_000 }))),
        // 64 MiB under a limit of 32.
        ("memory_limit_exceeded", c(touch, json!({ "memory_kb": 32_768 }))),
        ("runtime_error", c(crash, json!({}))),
    ]
}

#[test]
fn verdicts_are_the_same_200_times_of_200_under_full_load() {
    let _turn = alone();
    let server = Server::start(&[]);
    // All at once and mixed: every worker is busy from the first job to the last.
    let programs = programs();
    let jobs: Vec<Value> = (0..TIMES).flat_map(|_| programs.iter().map(|(_, job)| job.clone())).collect();
    let answer = server.post("/api/v1/jobs/batch", &json!({ "jobs": jobs }));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let ids: Vec<String> = answer.body["jobs"].as_array().expect("a list").iter().map(|job| text(job, "id")).collect();
    let mut seen: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for (n, id) in ids.iter().enumerate() {
        let done = eventually("the job has ended", || {
            let job = server.job(id);
            (job["status"] != "pending" && job["status"] != "running").then_some(job)
        });
        let result = format!("{} {}: {}", done["status"], done["verdict"], done["reason"]);
        let expected = programs[n % programs.len()].0;
        let verdict = done["verdict"].as_str().unwrap_or(&result).to_owned();
        if verdict != expected {
            println!("{expected}, but {result}");
        }
        *seen.entry((n % programs.len(), verdict)).or_default() += 1;
    }
    let expected: BTreeMap<(usize, String), usize> =
        programs.iter().enumerate().map(|(n, (verdict, _))| ((n, (*verdict).to_owned()), TIMES)).collect();
    assert_eq!(seen, expected);
}
