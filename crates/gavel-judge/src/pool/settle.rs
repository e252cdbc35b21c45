//! Puts results into the book, then rings.

use super::{Shared, now};
use gavel_core::Status;
use gavel_core::verdict::Verdict;
use gavel_store::{ClaimKey, Event, Settlement, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{JoinHandle, JoinSet};

/// What a worker has done with a claim; `end` is `None` where the claim was lost.
pub struct Done {
    pub key: ClaimKey,
    pub language: String,
    pub end: Option<Settlement>,
}

/// First pause before a result is offered to the store again; doubled up to a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes results until every worker is gone, and settles them side by side, so that the store can put
/// many into one commit.
pub fn start(shared: &Arc<Shared>) -> (Sender<Done>, JoinHandle<()>) {
    // A worker whose result finds no room here waits: the store is the slower one then.
    let (sender, mut receiver) = channel::<Done>(shared.options.max_workers as usize * 2 + 2);
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let mut settling = JoinSet::new();
        loop {
            tokio::select! {
                done = receiver.recv() => match done {
                    None => break,
                    Some(Done { key, end: None, .. }) => forget(&shared, key),
                    Some(Done { key, language, end: Some(end) }) => {
                        let shared = Arc::clone(&shared);
                        settling.spawn(async move { settle(&shared, key, Some(&language), end).await });
                    }
                },
                Some(_) = settling.join_next() => {}
            }
        }
        while settling.join_next().await.is_some() {}
    });
    (sender, task)
}

/// Settles one claim, however long the store is away, while the lease can be held.
pub async fn settle(shared: &Arc<Shared>, key: ClaimKey, language: Option<&str>, end: Settlement) {
    let deadline = Instant::now() + shared.options.lease;
    let mut pause = PAUSE;
    let mut end = end;
    loop {
        match shared.parts.store.settle(key, now(), end.clone()).await {
            Ok(()) => {
                if let Some(language) = language {
                    count(language, &end);
                }
                announce(shared, key, &end);
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
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
    forget(shared, key);
}

fn forget(shared: &Shared, key: ClaimKey) {
    shared.let_go(key);
    // Wakes a drain that waits for the last one.
    shared.draining.send_modify(|_| {});
}

fn announce(shared: &Arc<Shared>, key: ClaimKey, end: &Settlement) {
    let queue = &shared.parts.queue;
    let Settlement::Released { delay, .. } = end else {
        queue.publish(key.id, Event::Ended);
        return;
    };
    queue.publish(key.id, Event::Restarted);
    let (shared, delay) = (Arc::clone(shared), *delay);
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        shared.parts.queue.announce(1);
    });
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
