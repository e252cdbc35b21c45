//! The rules that every implementation of [`Store`] and [`Queue`](crate::Queue) keeps: one function
//! for each, named as a sentence. An implementation runs them all with `store_contract!` and
//! `queue_contract!`.

pub mod crash;
pub mod delivery;
pub mod model;
pub mod queue;
pub mod store;
pub mod tokens;

use crate::{Claim, Claimant, Idempotency, Inserted, NewJob, Quota, Settlement, Store};
use async_trait::async_trait;
use gavel_core::check::Comparison;
use gavel_core::job::{Callback, CallbackForm, Interactive, Tty};
use gavel_core::{Bytes, CollectedFile, File, Job, JobId, Limits, Outcome, Timestamp, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How the suite gets at an implementation.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// An empty store that refuses more than `max_depth` pending jobs.
    async fn fresh(&self, max_depth: u64) -> Arc<dyn Store>;
    /// The same book opened again by a new process, as far as that can be had within one.
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store>;
}

pub const LEASE: Duration = Duration::from_secs(60);
pub const NODE: &str = "node-1";

/// A moment of the suite's own clock: it starts in the past and never moves by itself.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp(1_700_000_000_000_000).plus(Duration::from_secs(seconds))
}

/// An id as the server makes them at this time; `n` tells ids of the same time apart.
pub fn id_at(time: Timestamp, n: u64) -> JobId {
    let mut tail = [0; 10];
    tail[2..].copy_from_slice(&n.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis((time.0 / 1000) as u64, &tail).into_uuid()
}

pub fn plain_job() -> Job {
    Job {
        language: "python3".to_owned(),
        source: b"print(int(input()) + 1)\n".to_vec(),
        stdin: b"6\n".to_vec(),
        args: vec![],
        compiler_options: vec![],
        env: BTreeMap::new(),
        files: vec![],
        limits: Limits::standard(),
        expected_output: None,
        stderr_to_stdout: false,
        network: false,
        runs: 1,
        priority: 0,
        interactive: None,
        collect: vec![],
        callback: None,
        comparison: Comparison::Native,
        metadata: BTreeMap::new(),
        origin: None,
    }
}

/// A plain job; its id and its time agree, as they do in the server.
pub fn new_job(created_at: Timestamp, n: u64) -> NewJob {
    let (owner, idempotency, quota) = (None, None, Quota::default());
    NewJob { id: id_at(created_at, n), job: plain_job(), owner, idempotency, quota, created_at }
}

/// A plain job that wants this URL called.
pub fn with_callback(mut new: NewJob, url: &str) -> NewJob {
    new.job.callback = Some(Callback { url: url.to_owned(), form: CallbackForm::Native });
    new
}

pub fn with_priority(mut new: NewJob, priority: i32) -> NewJob {
    new.job.priority = priority;
    new
}

pub fn with_key(mut new: NewJob, owner: &str, key: &str, body: u8) -> NewJob {
    new.owner = Some(owner.to_owned());
    new.idempotency = Some(Idempotency { key: key.to_owned(), fingerprint: [body; 32] });
    new
}

const AWKWARD: &[u8] = b"NUL \0, no UTF-8 \xff\xfe\xc3(, quotes '\" and the end\r\n";

/// A job with nothing left at its default, and with bytes that are no text.
pub fn full_job(created_at: Timestamp) -> NewJob {
    let texts = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let map = |list: &[(&str, &str)]| list.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let job = Job {
        language: "cpp".to_owned(),
        source: AWKWARD.to_vec(),
        stdin: (0..=255).cycle().take(100_000).collect(),
        args: texts(&["", "-x", "a b", "\u{0}", "zażółć 🦀", "'; DROP TABLE jobs; --"]),
        compiler_options: texts(&["-O2", "-DX=\"y\""]),
        env: map(&[("LANG_X", "ü"), ("EMPTY", "")]),
        files: vec![
            File { path: "data/in.txt".to_owned(), content: AWKWARD.to_vec() },
            File { path: "empty".to_owned(), content: vec![] },
        ],
        limits: Limits {
            cpu_time: Duration::from_millis(1501),
            wall_time: Duration::from_micros(7_000_001),
            memory: Bytes(123_456_789),
            stack: Bytes::kib(65),
            processes: 7,
            output: Bytes(0),
            file_size: Bytes(u64::MAX / 4),
        },
        expected_output: Some(AWKWARD.to_vec()),
        stderr_to_stdout: true,
        network: true,
        runs: 3,
        priority: -7,
        interactive: Some(Interactive { tty: Some(Tty { rows: 24, cols: 80 }) }),
        collect: texts(&["out/*.png", "**"]),
        callback: Some(Callback { url: "https://ü.example/\"".to_owned(), form: CallbackForm::Judge0 }),
        comparison: Comparison::Judge0,
        metadata: map(&[("k", "v"), ("", ""), ("nul", "\u{0}")]),
        origin: Some(AWKWARD.to_vec()),
    };
    let idempotency = Some(Idempotency { key: "k\u{0}".to_owned(), fingerprint: [0xab; 32] });
    let (owner, quota) = (Some("owner 'x'".to_owned()), Quota::default());
    NewJob { id: id_at(created_at, 1), job, owner, idempotency, quota, created_at }
}

pub fn outcome(verdict: Verdict) -> Outcome {
    Outcome {
        verdict,
        reason: "because".to_owned(),
        evidence: BTreeMap::new(),
        stdout: b"7\n".to_vec(),
        stderr: vec![],
        compile_output: vec![],
        stdout_truncated: false,
        stderr_truncated: false,
        files: vec![],
        exit_code: Some(0),
        signal: None,
        cpu: Duration::from_micros(1204),
        wall: Duration::from_micros(2310),
        memory: Bytes::kib(1532),
        compile_time: Duration::ZERO,
        compile_cached: false,
    }
}

pub fn full_outcome() -> Outcome {
    let evidence = [("cpu_time_ms", 2004.3000000000002), ("tenth", 0.1), ("large", 1e300), ("negative", -0.5)];
    Outcome {
        verdict: Verdict::RuntimeError,
        reason: "killed by SIGSEGV, \"quoted\" \u{0} 🦀".to_owned(),
        evidence: evidence.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        stdout: AWKWARD.to_vec(),
        stderr: (0..=255).rev().cycle().take(70_000).collect(),
        compile_output: AWKWARD.to_vec(),
        stdout_truncated: true,
        stderr_truncated: true,
        files: vec![
            CollectedFile { path: "out/a.png".to_owned(), executable: true, content: AWKWARD.to_vec() },
            CollectedFile { path: "out/b".to_owned(), executable: false, content: vec![] },
        ],
        exit_code: None,
        signal: Some(11),
        cpu: Duration::from_nanos(1_234_567_891),
        wall: Duration::from_micros(5_000_001),
        memory: Bytes::kib(131_204),
        compile_time: Duration::from_millis(731),
        compile_cached: true,
    }
}

pub fn completed(verdict: Verdict) -> Settlement {
    Settlement::Completed(Arc::new(outcome(verdict)))
}

pub fn claimant(workers: i32) -> Claimant {
    Claimant { node: NODE.to_owned(), workers: (0..workers).collect() }
}

/// Stores jobs that must all be new.
pub async fn put(store: &dyn Store, jobs: Vec<NewJob>) -> Vec<JobId> {
    let ids: Vec<JobId> = jobs.iter().map(|new| new.id).collect();
    let inserted = store.insert(jobs).await.expect("insert");
    assert!(inserted.iter().all(|i| *i == Inserted::New), "{inserted:?}");
    ids
}

pub async fn claim_one(store: &dyn Store, now: Timestamp) -> Claim {
    let mut claims = store.claim(claimant(1), now, LEASE).await.expect("claim");
    assert_eq!(claims.len(), 1, "one job was to be claimed");
    claims.remove(0)
}

pub async fn claim_ids(store: &dyn Store, workers: i32, now: Timestamp) -> Vec<JobId> {
    store.claim(claimant(workers), now, LEASE).await.expect("claim").iter().map(|claim| claim.key.id).collect()
}
