//! Claims jobs for idle workers, and waits when there is nothing to claim.
//!
//! Each idle worker stands at the store, which may give it a job in the very commit that brings the job. A
//! store that does not let it stand is looked at when the bell rings, for all such workers at once.

use super::{Shared, now, slot::Task};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use gavel_store::{Claim, Claimant, Settlement, StoreError};
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc::Sender as Slot};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

/// A ring of the bell may be lost; then this is how long a job waits at most.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the pool drains. `idle` brings the number of each worker that has nothing to do; there
/// are never more of them under way than workers, whence no bound.
pub async fn run(shared: Arc<Shared>, slots: Vec<Slot<Task>>, idle: UnboundedReceiver<u32>) {
    let dispatcher = Dispatcher {
        shared,
        slots,
        idle,
        free: BTreeSet::new(),
        standing: FuturesUnordered::new(),
        resting: BTreeSet::new(),
        look_at: Instant::now(),
        store_works: true,
    };
    dispatcher.run().await;
}

/// A worker and what the store said to it.
type Answer = (u32, Result<Option<Claim>, StoreError>);

/// Every idle worker is in one of `free`, `standing` and `resting`.
struct Dispatcher {
    shared: Arc<Shared>,
    slots: Vec<Slot<Task>>,
    idle: UnboundedReceiver<u32>,
    /// Nobody has asked for them yet.
    free: BTreeSet<u32>,
    /// They stand at the store. A claim that comes after these are dropped goes back by itself.
    standing: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// There was nothing for them, and the store does not let them wait: until the bell rings.
    resting: BTreeSet<u32>,
    /// When those that rest look again without a ring.
    look_at: Instant,
    store_works: bool,
}

impl Dispatcher {
    async fn run(mut self) {
        let mut draining = self.shared.draining.subscribe();
        while !self.shared.is_draining() {
            while let Ok(worker) = self.idle.try_recv() {
                self.free.insert(worker);
            }
            // The lowest numbers first: the workers beyond the minimum stay closed while these suffice.
            while let Some(worker) = self.free.pop_first() {
                self.standing.push(claim_next(Arc::clone(&self.shared), worker).boxed());
            }
            let rest = !self.resting.is_empty();
            tokio::select! {
                Some(answer) = self.standing.next(), if !self.standing.is_empty() => self.hear(answer).await,
                Some(worker) = self.idle.recv() => { self.free.insert(worker); }
                () = self.shared.parts.queue.wait(), if rest && self.store_works => self.free.append(&mut self.resting),
                () = sleep_until(self.look_at), if rest => self.free.append(&mut self.resting),
                _ = draining.changed() => {}
            }
        }
    }

    /// Takes this answer and the others that are there already.
    async fn hear(&mut self, first: Answer) {
        let mut unserved = BTreeSet::new();
        let mut failed = None;
        let mut next = Some(first);
        while let Some((worker, answer)) = next {
            match answer {
                Ok(Some(claim)) => self.hand_out(claim).await,
                Ok(None) => {
                    unserved.insert(worker);
                }
                Err(error) => {
                    failed = Some(error);
                    self.resting.insert(worker);
                }
            }
            next = self.standing.next().now_or_never().flatten();
        }
        match failed {
            Some(error) => self.rest(unserved, Some(error)),
            None if !unserved.is_empty() => self.look(unserved).await,
            None => self.store_works = true,
        }
    }

    /// Claims for workers that the store does not let stand.
    async fn look(&mut self, mut workers: BTreeSet<u32>) {
        let claimant = Claimant {
            node: self.shared.options.node.clone(),
            workers: workers.iter().map(|worker| *worker as i32).collect(),
        };
        match self.shared.parts.store.claim(claimant, now(), self.shared.options.lease).await {
            Ok(claims) => {
                for claim in claims {
                    workers.remove(&(claim.worker as u32));
                    self.hand_out(claim).await;
                }
                self.rest(workers, None);
            }
            Err(error) => self.rest(workers, Some(error)),
        }
    }

    /// Lets workers wait for a ring, or for the store to recover.
    fn rest(&mut self, mut workers: BTreeSet<u32>, error: Option<StoreError>) {
        if let Some(error) = &error {
            tracing::error!(%error, "cannot claim jobs");
        }
        self.store_works = error.is_none();
        self.resting.append(&mut workers);
        self.look_at = Instant::now() + if self.store_works { LOOK_AGAIN } else { STORE_PAUSE };
    }

    async fn hand_out(&mut self, claim: Claim) {
        let (key, worker) = (claim.key, claim.worker as u32);
        let handed = if self.shared.is_draining() {
            Err("the pool drains".to_owned())
        } else {
            let slot = &self.slots[worker as usize];
            let cancel = self.shared.hold(key).map_err(|e| e.to_string());
            cancel.and_then(|cancel| slot.send(Task { claim, cancel }).map_err(|e| e.to_string()))
        };
        if let Err(e) = handed {
            // Or no descriptor for its bell, or a worker that ended: the job is not to blame.
            tracing::warn!(job.id = %key.id, worker, error = %e, "giving back a job that cannot be handed out");
            let release = Settlement::Released { delay: STORE_PAUSE, count_attempt: false };
            super::settle::settle(&self.shared, key, None, release).await;
            self.free.insert(worker);
        }
    }
}

async fn claim_next(shared: Arc<Shared>, worker: u32) -> Answer {
    let (node, lease) = (&shared.options.node, shared.options.lease);
    (worker, shared.parts.store.claim_next(node, worker as i32, now, lease).await)
}
