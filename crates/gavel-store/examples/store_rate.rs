//! How fast is the store here? `cargo run --release -p gavel-store --example store_rate [DIRECTORY]`

use gavel_core::{Bytes, Job, JobId, Limits, Outcome, Timestamp, Verdict};
use gavel_store::{Claimant, NewJob, Settlement, SqliteOptions, SqliteStore, Store};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const LEASE: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn new_job() -> NewJob {
    let job = Job {
        language: "c".to_owned(),
        source: b"#include <stdio.h>\nint main() { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }\n"
            .to_vec(),
        stdin: b"3 4\n".to_vec(),
        args: vec![],
        compiler_options: vec![],
        env: BTreeMap::new(),
        files: vec![],
        limits: Limits::standard(),
        expected_output: Some(b"7\n".to_vec()),
        stderr_to_stdout: false,
        network: false,
        runs: 1,
        priority: 0,
        interactive: None,
        collect: vec![],
        callback: None,
        comparison: Default::default(),
        origin: None,
        metadata: BTreeMap::new(),
    };
    NewJob { id: JobId::now_v7(), job, owner: None, idempotency: None, quota: Default::default(), created_at: now() }
}

fn outcome() -> Settlement {
    let evidence = ["cpu_time_ms", "cpu_time_limit_ms", "wall_time_ms", "wall_time_limit_ms", "memory_kb", "exit_code"];
    Settlement::Completed(Arc::new(Outcome {
        verdict: Verdict::Accepted,
        reason: "the output is the expected one".to_owned(),
        evidence: evidence.into_iter().map(|name| (name.to_owned(), 1.204)).collect(),
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
        compile_cached: true,
    }))
}

/// One client after the other: insert, claim, settle.
async fn one_by_one(store: &SqliteStore, jobs: usize) -> Result<(), Box<dyn Error>> {
    for _ in 0..jobs {
        store.insert(vec![new_job()]).await?;
        let claims = store.claim(Claimant { node: "n".to_owned(), workers: vec![0] }, now(), LEASE).await?;
        for claim in claims {
            store.settle(claim.key, now(), outcome()).await?;
        }
    }
    Ok(())
}

/// Batches of `size` in, claims of `size` out, settled side by side.
async fn batches(store: Arc<SqliteStore>, jobs: usize, size: usize) -> Result<(), Box<dyn Error>> {
    let inserting = {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..jobs / size {
                store.insert((0..size).map(|_| new_job()).collect()).await?;
            }
            Ok::<_, gavel_store::StoreError>(())
        })
    };
    let mut done = 0;
    while done < jobs / size * size {
        let by = Claimant { node: "n".to_owned(), workers: (0..size as i32).collect() };
        let claims = store.claim(by, now(), LEASE).await?;
        done += claims.len();
        let mut settling = tokio::task::JoinSet::new();
        for claim in claims {
            let store = store.clone();
            settling.spawn(async move { store.settle(claim.key, now(), outcome()).await });
        }
        while let Some(settled) = settling.join_next().await {
            settled??;
        }
    }
    inserting.await??;
    Ok(())
}

/// Many clients with one job each at a time.
async fn side_by_side(store: Arc<SqliteStore>, clients: usize, each: usize) -> Result<(), Box<dyn Error>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                store.insert(vec![new_job()]).await?;
            }
            Ok::<_, gavel_store::StoreError>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// Wall clock and CPU time of this process: the second hardly depends on what else the machine does.
struct Stopwatch {
    started: Instant,
    cpu: f64,
}

impl Stopwatch {
    fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu_seconds() }
    }

    fn report(self, what: &str, jobs: usize) {
        let (wall, cpu) = (self.started.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let (rate, cpu) = (jobs as f64 / wall, cpu * 1e6 / jobs as f64);
        println!("{what:<40} {rate:>9.0} jobs/s {cpu:>9.1} us CPU/job");
    }
}

/// User and system time so far; 0 where /proc does not tell. The kernel counts hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n| after_name.split_whitespace().nth(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = match std::env::args_os().nth(1) {
        Some(path) => std::path::PathBuf::from(path),
        None => std::env::temp_dir().join(format!("gavel-store-rate-{}", std::process::id())),
    };
    let mut options = SqliteOptions::new(directory.join("gavel.db"));
    options.max_depth = u64::MAX;
    let store = Arc::new(SqliteStore::open(options)?);

    for round in 1..=3 {
        println!("round {round}");
        let watch = Stopwatch::start();
        one_by_one(&store, 1000).await?;
        watch.report("insert, claim, settle, one at a time", 1000);

        let watch = Stopwatch::start();
        batches(store.clone(), 50_000, 100).await?;
        watch.report("insert, claim, settle, batches of 100", 50_000);

        let watch = Stopwatch::start();
        side_by_side(store.clone(), 64, 200).await?;
        watch.report("single inserts of 64 clients", 12_800);

        let watch = Stopwatch::start();
        let by = Claimant { node: "n".to_owned(), workers: (0..12_800).collect() };
        let claims = store.claim(by, now(), LEASE).await?;
        watch.report("one large claim", claims.len());
        let watch = Stopwatch::start();
        for claim in claims.iter().take(1000) {
            store.find(claim.key.id).await?;
        }
        watch.report("find, one at a time", 1000);
        // Out of the way of the next round.
        store.take_back("n".to_owned(), now(), 1).await?;
    }
    store.close().await;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
