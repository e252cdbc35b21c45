//! Every case of the corpus through a running server, on each backend: one after another on one worker,
//! where whatever a case leaves behind meets the next one, and two at a time on two workers.

use crate::daemon::{FRESH, ON_DOCKER, REUSE};
use crate::harness::{Server, alone};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One case sends 50 MiB that its program never reads.
const ROOM: [&str; 2] = ["limits.max_stdin=64m", "server.max_body=64m"];

/// One folder of the corpus.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    folder: PathBuf,
    #[allow(dead_code)] // For people who read the case.
    about: String,
    language: String,
    /// A file of the folder; none where the program is all in its files.
    source: Option<String>,
    #[serde(default)]
    stdin: String,
    stdin_repeat: Option<Repeat>,
    #[serde(default)]
    args: Vec<String>,
    expected_output: Option<String>,
    #[serde(default)]
    files: Vec<ExtraFile>,
    #[serde(default)]
    limits: Map<String, Value>,
    expect: Expect,
    docker: Option<OnDocker>,
}

/// What is different in a container, where it cannot be the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDocker {
    why: String,
    /// In place of the other expectation.
    expect: Expect,
}

impl Case {
    fn expected_on(&self, backend: &str) -> &Expect {
        match &self.docker {
            Some(docker) if backend == ON_DOCKER => &docker.expect,
            _ => &self.expect,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    text: String,
    times: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtraFile {
    path: String,
    content: String,
}

/// What must hold of the result; what is not named may be anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expect {
    verdict: Vec<String>,
    exit_code: Option<i64>,
    signal: Option<i64>,
    stdout: Option<String>,
    stdout_contains: Vec<String>,
    stdout_lacks: Vec<String>,
    stderr_contains: Vec<String>,
    compile_output_contains: Vec<String>,
    compile_output_lacks: Vec<String>,
    reason_contains: Vec<String>,
    max_turnaround_ms: Option<u64>,
}

const NATIVE: &str = "sandbox.backend=native";

#[test]
fn every_case_on_one_worker_in_alphabetical_order() {
    one_after_another(&[NATIVE]);
}

#[test]
fn every_case_beside_its_neighbours_on_two_workers() {
    two_at_a_time(&[NATIVE]);
}

/// Reused containers: what is left in one meets the next case.
#[test]
fn every_case_in_reused_containers_in_alphabetical_order() {
    one_after_another(&[ON_DOCKER, REUSE]);
}

#[test]
fn every_case_in_a_fresh_container_beside_its_neighbours() {
    two_at_a_time(&[ON_DOCKER, FRESH]);
}

/// The first setting names the backend.
fn one_after_another(settings: &[&str]) {
    let _turn = alone();
    let server = Server::start(&[settings, &ROOM, &["workers.max_workers=1"]].concat());
    let mut failures = Vec::new();
    for case in cases() {
        failures.extend(run(&server, &case, settings, 1));
    }
    report(&failures);
}

fn two_at_a_time(settings: &[&str]) {
    let _turn = alone();
    let server = Server::start(&[settings, &ROOM, &["workers.max_workers=2"]].concat());
    let cases = cases();
    let next = Mutex::new(cases.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else { return };
                    // Two cases share two cores with their compilers: they may take twice as long.
                    let found = run(&server, case, settings, 2);
                    failures.lock().unwrap().extend(found);
                }
            });
        }
    });
    report(&failures.into_inner().unwrap());
}

fn cases() -> Vec<Case> {
    let corpus = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../corpus"));
    // For looking at a few cases by hand; the tests themselves are always run with all.
    let only = std::env::var("GAVEL_TEST_CASES").unwrap_or_default();
    let readme = std::fs::read_to_string(corpus.join("README.md")).expect("the corpus's README");
    let mut cases: Vec<Case> = std::fs::read_dir(&corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry of the corpus").path())
        .filter(|folder| folder.is_dir() && folder.to_string_lossy().contains(&only))
        .map(|folder| {
            let text = std::fs::read_to_string(folder.join("case.toml")).expect("a case.toml");
            let mut case: Case = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            case.name = folder.file_name().expect("a name").to_string_lossy().into_owned();
            case.folder = folder;
            assert!(!case.expect.verdict.is_empty(), "{} expects no verdict", case.name);
            if let Some(docker) = &case.docker {
                let complete = docker.why.ends_with('.') && !docker.expect.verdict.is_empty();
                assert!(complete, "{}: [docker] says why, and what to expect", case.name);
                let line = format!("| `{}` | {} |", case.name, docker.why);
                assert!(readme.contains(&line), "corpus/README.md lacks the line {line}");
            }
            case
        })
        .collect();
    assert!(!cases.is_empty(), "no case matches {only:?}");
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// A failure: the case, what was expected and what came.
type Failure = (String, String);

fn run(server: &Server, case: &Case, settings: &[&str], slower: u64) -> Vec<Failure> {
    let expect = case.expected_on(settings[0]);
    let began = Instant::now();
    let answer = server.post("/api/v1/jobs?wait=true&timeout_ms=120000", &request(case));
    let took = began.elapsed();
    if answer.status != 200 {
        return vec![(
            case.name.clone(),
            format!("answered with {}: {}", answer.status, head(&answer.body.to_string())),
        )];
    }
    let done = answer.body;
    let mut wrong = compare(expect, &done);
    if done["attempt"] != 1 {
        wrong.push(format!("attempt {}: the first one failed by a fault of ours", done["attempt"]));
    }
    if let Some(max) = expect.max_turnaround_ms
        && took > Duration::from_millis(max * slower)
    {
        wrong.push(format!("took {} ms of at most {}", took.as_millis(), max * slower));
    }
    // A fresh container has never seen the case, and takes half a second to start.
    if !settings.contains(&FRESH) {
        let control = server.judge(&control());
        if control["verdict"] != "accepted" {
            wrong.push(format!("the next job suffers: {control}"));
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("got {}", shorten(&done)));
    }
    wrong.into_iter().map(|what| (case.name.clone(), what)).collect()
}

fn request(case: &Case) -> Value {
    let source = case.source.as_ref().map(|name| std::fs::read(case.folder.join(name)).expect("the source of a case"));
    let stdin = match &case.stdin_repeat {
        Some(repeat) => repeat.text.repeat(repeat.times),
        None => case.stdin.clone(),
    };
    let files: Vec<Value> =
        case.files.iter().map(|file| json!({ "path": file.path, "content": file.content })).collect();
    json!({
        "language": case.language, "source_code_base64": BASE64_STANDARD.encode(source.unwrap_or_default()), "stdin": stdin,
        "args": case.args, "expected_output": case.expected_output, "files": files, "limits": case.limits,
    })
}

/// An honest job, which must not notice who was there before.
fn control() -> Value {
    json!({
        "language": "bash", "source_code": "read -r a b; echo $((a + b)); ls -A /tmp /dev/shm | wc -w",
        "stdin": "3 4\n", "expected_output": "7\n2\n",
    })
}

fn compare(expect: &Expect, done: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let text = |field: &str| done[field].as_str().unwrap_or_default();
    if !expect.verdict.iter().any(|verdict| verdict == text("verdict")) {
        wrong.push(format!("verdict {} instead of {}", done["verdict"], expect.verdict.join(" or ")));
    }
    for (field, expected) in [("exit_code", expect.exit_code), ("signal", expect.signal)] {
        if let Some(expected) = expected
            && done[field].as_i64() != Some(expected)
        {
            wrong.push(format!("{field} {} instead of {expected}", done[field]));
        }
    }
    if let Some(expected) = &expect.stdout
        && text("stdout") != expected
    {
        wrong.push(format!("stdout {:?} instead of {expected:?}", head(text("stdout"))));
    }
    let contained = [
        ("stdout", &expect.stdout_contains),
        ("stderr", &expect.stderr_contains),
        ("compile_output", &expect.compile_output_contains),
        ("reason", &expect.reason_contains),
    ];
    for (field, needles) in contained {
        for needle in needles.iter().filter(|needle| !text(field).contains(needle.as_str())) {
            wrong.push(format!("{field} lacks {needle:?}"));
        }
    }
    for (field, needles) in [("stdout", &expect.stdout_lacks), ("compile_output", &expect.compile_output_lacks)] {
        for needle in needles.iter().filter(|needle| text(field).contains(needle.as_str())) {
            wrong.push(format!("{field} contains {needle:?}"));
        }
    }
    wrong
}

fn head(text: &str) -> String {
    text.chars().take(300).collect()
}

/// A result with its long texts cut.
fn shorten(done: &Value) -> Value {
    let mut short = json!({});
    for field in [
        "status",
        "verdict",
        "reason",
        "evidence",
        "exit_code",
        "signal",
        "execution_time_ms",
        "wall_time_ms",
        "memory_usage_kb",
    ] {
        short[field] = done[field].clone();
    }
    for field in ["stdout", "stderr", "compile_output", "error_message"] {
        short[field] = head(done[field].as_str().unwrap_or_default()).into();
    }
    short
}

fn report(failures: &[Failure]) {
    for (case, what) in failures {
        println!("{case:<28} {what}");
    }
    let mut names: Vec<&str> = failures.iter().map(|(case, _)| case.as_str()).collect();
    names.dedup();
    assert!(failures.is_empty(), "{} cases failed: {}", names.len(), names.join(" "));
}
