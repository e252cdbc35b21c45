//! Workers that claim jobs, judge them and settle the results.
//!
//! A worker is a thread with a sandbox; it waits at the store for its next job, or for a dispatcher that
//! claims for several. It blocks, so that nothing asynchronous ever waits for a program. Results are
//! settled by tasks while the worker already has its next job. The lease of every claim is extended
//! until its result is in the book; whatever is lost on the way comes back by the sweep.

mod dispatch;
mod lease;
mod settle;
mod slot;
mod sweep;

use crate::cache::Cache;
use gavel_core::board::{WorkerEntry, WorkerState};
use gavel_core::{Board, Catalogue, JobId, Timestamp};
use gavel_sandbox::{Backend, Cancel};
use gavel_store::{ClaimKey, Queue, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Name of this process in claims; no two that share a store may have the same.
    pub node: String,
    /// Sandboxes that are opened at start and kept open.
    pub min_workers: u32,
    /// Most jobs that run at once. Workers beyond the minimum open their sandbox when they get work
    /// and close it when they have had none for `idle_timeout`.
    pub max_workers: u32,
    pub idle_timeout: Duration,
    /// How long a claim holds without being extended.
    pub lease: Duration,
    /// How often a job is tried before a fault of ours makes it fail.
    pub max_attempts: u32,
    /// Interactive jobs are ended when they have had neither input nor output for so long.
    pub interactive_idle: Duration,
    /// How often claims that ran out and old jobs are looked for.
    pub cleanup_interval: Duration,
    /// How long ended jobs are kept; `None`: for ever.
    pub retention: Option<Duration>,
}

/// What a pool works with.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub board: Arc<Board>,
    pub catalogue: Arc<Catalogue>,
    pub backend: Arc<dyn Backend>,
    pub cache: Arc<Cache>,
}

/// Why a running job should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody asked for it.
    Wanted,
    /// The claim is not ours any more.
    LeaseLost,
    /// This process is going away.
    Drain,
}

/// A claim that is not settled yet.
struct Held {
    cancel: Cancel,
    why: Option<Why>,
}

#[derive(Default)]
struct Claims {
    held: HashMap<ClaimKey, Held>,
    /// Wishes to cancel that came before their claim did.
    early: HashSet<JobId>,
}

/// More early wishes than this are forgotten; the row keeps them, and the heartbeat brings them.
const MAX_EARLY: usize = 4096;

struct Shared {
    options: PoolOptions,
    parts: Parts,
    claims: Mutex<Claims>,
    /// For the jobs to come, one for each worker: otherwise each job would make and close a descriptor.
    cancels: Mutex<Vec<Cancel>>,
    draining: watch::Sender<bool>,
    /// Told of every claim that is let go.
    let_go: Notify,
}

impl Shared {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Every change under the lock is a single insertion, removal or assignment.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, key: ClaimKey) -> std::io::Result<Cancel> {
        let cancel = self.cancels().pop().map_or_else(Cancel::new, Ok)?;
        let mut claims = self.claims();
        let why = claims.early.remove(&key.id).then_some(Why::Wanted);
        if why.is_some() {
            cancel.cancel();
        }
        claims.held.insert(key, Held { cancel: cancel.clone(), why });
        Ok(cancel)
    }

    fn let_go(&self, key: ClaimKey) {
        let held = self.claims().held.remove(&key);
        if let Some(cancel) = held.and_then(|held| held.cancel.recycled()) {
            let mut cancels = self.cancels();
            if cancels.len() < self.options.max_workers as usize {
                cancels.push(cancel);
            }
        }
        self.let_go.notify_waiters();
    }

    fn cancels(&self) -> MutexGuard<'_, Vec<Cancel>> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops a job. The first reason stands.
    fn stop(&self, key: ClaimKey, why: Why) {
        if let Some(held) = self.claims().held.get_mut(&key) {
            held.why.get_or_insert(why);
            held.cancel.cancel();
        }
    }

    fn why_stopped(&self, key: ClaimKey) -> Option<Why> {
        self.claims().held.get(&key)?.why
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// A running pool. Dropping it without [`Pool::drain`] ends its tasks; its jobs come back by the sweep.
pub struct Pool {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    settler: JoinHandle<()>,
}

/// Starts the workers. Takes back what an earlier process of this name had claimed.
pub async fn start(options: PoolOptions, parts: Parts) -> Result<Pool, StoreError> {
    let taken_back = parts.store.take_back(options.node.clone(), now(), options.max_attempts).await?;
    if taken_back.requeued + taken_back.failed > 0 {
        tracing::info!(
            requeued = taken_back.requeued,
            failed = taken_back.failed,
            "took back the jobs of an earlier run"
        );
    }
    for id in 0..options.max_workers {
        let now = now();
        parts.board.add(WorkerEntry {
            id: id as i32,
            node: options.node.clone(),
            backend: parts.backend.name().to_owned(),
            state: WorkerState::Starting,
            job: None,
            jobs_done: 0,
            faults: 0,
            busy: Duration::ZERO,
            since: now,
            started_at: now,
        });
    }
    let shared = Arc::new(Shared {
        options,
        parts,
        claims: Mutex::default(),
        cancels: Mutex::default(),
        draining: watch::Sender::new(false),
        let_go: Notify::new(),
    });
    let (done, settler) = settle::start(&shared);
    let (slots, idle) = slot::start_all(&shared, &done);
    let tasks = vec![
        tokio::spawn(dispatch::run(Arc::clone(&shared), slots, idle)),
        tokio::spawn(lease::heartbeat(Arc::clone(&shared))),
        tokio::spawn(lease::listen_for_cancels(Arc::clone(&shared))),
        tokio::spawn(sweep::run(Arc::clone(&shared))),
    ];
    Ok(Pool { shared, tasks, settler })
}

impl Pool {
    /// Claims nothing more, lets running jobs finish for up to `grace`, gives the rest back, and returns
    /// when every result is in the book.
    pub async fn drain(self, grace: Duration) {
        self.shared.draining.send_replace(true);
        if !self.is_empty_within(grace).await {
            let keys: Vec<ClaimKey> = self.shared.claims().held.keys().copied().collect();
            tracing::warn!(jobs = keys.len(), "giving back the jobs that did not finish in time");
            keys.into_iter().for_each(|key| self.shared.stop(key, Why::Drain));
            if !self.is_empty_within(GIVING_BACK).await {
                tracing::error!("some jobs could not be given back; their leases will run out");
            }
        }
        // The dispatcher ends by itself and closes the slots, which end the settler.
        for task in &self.tasks[1..] {
            task.abort();
        }
        for task in self.tasks {
            let _ = task.await;
        }
        if tokio::time::timeout(GIVING_BACK, self.settler).await.is_err() {
            tracing::error!("a worker does not end");
        }
    }

    async fn is_empty_within(&self, limit: Duration) -> bool {
        let empty = async {
            loop {
                let mut change = pin!(self.shared.let_go.notified());
                // Before the look, so that no change is missed after it.
                change.as_mut().enable();
                if self.shared.claims().held.is_empty() {
                    return;
                }
                change.await;
            }
        };
        tokio::time::timeout(limit, empty).await.is_ok()
    }
}

/// How long killing the remaining jobs and storing their release may take.
const GIVING_BACK: Duration = Duration::from_secs(10);
