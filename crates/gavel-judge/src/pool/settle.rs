//! Puts results into the book, then rings.

use super::{Shared, now};
use futures_util::stream::{FuturesUnordered, StreamExt};
use gavel_core::verdict::Verdict;
use gavel_core::{Job, Outcome, Status, Timestamp};
use gavel_store::{Claim, Event, JobRecord, Settlement, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;

/// What a worker has done with a claim; `end` is `None` where the claim was lost.
pub struct Done {
    pub claim: Claim,
    pub end: Option<Settlement>,
}

/// Whoever waits for a job is told of a result up to this size as it stands in memory; a larger one is read
/// back, for it would stay in memory as long as the slowest listener takes.
const TOLD: usize = 64 << 10;

/// First pause before a result is offered to the store again; doubled up to a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes results until every worker is gone, and settles them side by side, so that the store can put
/// many into one commit.
pub fn start(shared: &Arc<Shared>) -> (Sender<Done>, JoinHandle<()>) {
    // A worker whose result finds no room here waits: the store is the slower one then.
    let (sender, mut receiver) = channel::<Done>(shared.options.max_workers as usize * 2 + 2);
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        // In this task and not in tasks of their own: each would wake another thread.
        let mut settling = FuturesUnordered::new();
        loop {
            tokio::select! {
                done = receiver.recv() => match done {
                    None => break,
                    Some(Done { claim, end: None }) => shared.let_go(claim.key),
                    Some(Done { claim, end: Some(end) }) => {
                        let shared = Arc::clone(&shared);
                        settling.push(async move { settle(&shared, claim, end).await });
                    }
                },
                Some(()) = settling.next() => {}
            }
        }
        while settling.next().await.is_some() {}
    });
    (sender, task)
}

/// Settles one claim, however long the store is away, while the lease can be held.
async fn settle(shared: &Arc<Shared>, claim: Claim, end: Settlement) {
    let key = claim.key;
    let deadline = Instant::now() + shared.options.lease;
    let mut pause = PAUSE;
    let mut end = end;
    // The same for every try, so that the row shows which of them was carried out.
    let settled_at = now();
    let mut tried = false;
    loop {
        match shared.parts.store.settle(key, settled_at, end.clone()).await {
            Ok(()) => {
                tell(shared, claim, settled_at, end);
                break;
            }
            // A try that failed may have been carried out; then whoever waits must be told.
            Err(StoreError::LeaseLost) if tried && stands(shared, &claim, settled_at).await => {
                tell(shared, claim, settled_at, end);
                break;
            }
            Err(StoreError::LeaseLost) => {
                tracing::warn!(job.id = %key.id, attempt = key.attempt, "a result came too late and is dropped");
                break;
            }
            Err(StoreError::Damaged(e)) => {
                // Something in this very result; the job must end all the same.
                tracing::error!(job.id = %key.id, error = %e, "a result cannot be stored");
                if matches!(end, Settlement::Failed { .. }) {
                    break;
                }
                end = Settlement::Failed { message: "the result could not be stored".to_owned() };
            }
            Err(e) if Instant::now() >= deadline => {
                tracing::error!(job.id = %key.id, error = %e, "giving up on a result; the job will run again");
                break;
            }
            Err(e) => {
                tracing::warn!(job.id = %key.id, error = %e, "cannot store a result yet");
                tried = true;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
    shared.let_go(key);
}

/// Does the book say that this very attempt ended at this time?
async fn stands(shared: &Shared, claim: &Claim, settled_at: Timestamp) -> bool {
    let found = shared.parts.store.find(claim.key.id).await;
    matches!(found, Ok(Some(row)) if (row.attempt, row.completed_at) == (claim.key.attempt, Some(settled_at)))
}

/// The book has it.
fn tell(shared: &Arc<Shared>, claim: Claim, settled_at: Timestamp, end: Settlement) {
    count(&claim.job.language, &end);
    if !matches!(end, Settlement::Released { .. }) {
        shared.parts.board.count_done(claim.worker);
    }
    announce(shared, claim, settled_at, end);
}

fn announce(shared: &Arc<Shared>, claim: Claim, settled_at: Timestamp, end: Settlement) {
    let (queue, key) = (&shared.parts.queue, claim.key);
    if claim.job.callback.is_some() {
        queue.announce_deliveries();
    }
    let Settlement::Released { delay, .. } = end else {
        let record = record(claim, &shared.options.node, settled_at, end);
        queue.publish(key.id, Event::Ended(record));
        return;
    };
    queue.publish(key.id, Event::Restarted);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        shared.parts.queue.announce(1);
    });
}

/// The row as it is in the book now. `None`: too large to be told.
fn record(claim: Claim, node: &str, settled_at: Timestamp, end: Settlement) -> Option<Arc<JobRecord>> {
    let (status, outcome, error_message) = match end {
        Settlement::Completed(outcome) => (Status::Completed, Some(outcome), None),
        Settlement::Failed { message } => (Status::Failed, None, Some(message)),
        Settlement::Cancelled => (Status::Cancelled, None, None),
        Settlement::Released { .. } => return None,
    };
    if size(&claim.job) + outcome.as_deref().map_or(0, outcome_size) > TOLD {
        return None;
    }
    let Claim { key, worker, job, owner, created_at, started_at, .. } = claim;
    Some(Arc::new(JobRecord {
        id: key.id,
        job,
        owner,
        status,
        worker_id: Some(worker),
        node: Some(node.to_owned()),
        attempt: key.attempt,
        error_message,
        outcome,
        created_at,
        started_at: Some(started_at),
        completed_at: Some(settled_at),
    }))
}

fn size(job: &Job) -> usize {
    let files: usize = job.files.iter().map(|file| file.content.len()).sum();
    let optional: usize = [&job.expected_output, &job.origin].into_iter().flatten().map(Vec::len).sum();
    job.source.len() + job.stdin.len() + optional + files
}

fn outcome_size(outcome: &Outcome) -> usize {
    let files: usize = outcome.files.iter().map(|file| file.content.len()).sum();
    outcome.stdout.len() + outcome.stderr.len() + outcome.compile_output.len() + files
}

fn count(language: &str, end: &Settlement) {
    let (status, verdict) = match end {
        Settlement::Completed(outcome) => {
            let seconds = |name: &'static str, time: Duration| {
                metrics::histogram!(name, "language" => language.to_owned()).record(time.as_secs_f64());
            };
            seconds("gavel_run_cpu_seconds", outcome.cpu);
            seconds("gavel_run_wall_seconds", outcome.wall);
            if !outcome.compile_cached && outcome.compile_time > Duration::ZERO {
                seconds("gavel_compile_cpu_seconds", outcome.compile_time);
            }
            (Status::Completed, Some(outcome.verdict))
        }
        Settlement::Failed { .. } => (Status::Failed, None),
        Settlement::Cancelled => (Status::Cancelled, None),
        Settlement::Released { .. } => return,
    };
    let verdict = verdict.map_or("none", Verdict::as_str);
    metrics::counter!("gavel_jobs_total", "language" => language.to_owned(), "status" => status.as_str(), "verdict" => verdict)
        .increment(1);
}
