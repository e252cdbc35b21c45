//! Claims jobs for the workers that the store sends away, and lets them rest when there is nothing to claim.
//!
//! An idle worker stands at the store, which may give it a job in the very commit that brings the job. A
//! store that does not let it stand, or has a job that may not be handed out yet, sends it here; a look at
//! the store is then one for all such workers, and so is the wait for the bell.

use super::{Shared, now, slot::Task};
use gavel_store::{Claimant, StoreError};
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc::Sender as Slot};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

/// A ring of the bell may be lost; then this is how long a job waits at most.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Pause after the store failed.
pub const STORE_PAUSE: Duration = Duration::from_millis(500);

/// A worker without a job, and what the store said to it.
pub struct Idle {
    pub worker: u32,
    pub error: Option<StoreError>,
}

/// Runs until the pool drains. There are never more messages in `idle` than workers, whence no bound.
pub async fn run(shared: Arc<Shared>, slots: Vec<Slot<Task>>, idle: UnboundedReceiver<Idle>) {
    let dispatcher =
        Dispatcher { shared, slots, idle, resting: BTreeSet::new(), look_at: Instant::now(), store_works: true };
    dispatcher.run().await;
}

struct Dispatcher {
    shared: Arc<Shared>,
    slots: Vec<Slot<Task>>,
    idle: UnboundedReceiver<Idle>,
    /// There was nothing for them, or no store: until the bell rings.
    resting: BTreeSet<u32>,
    /// When those that rest look again without a ring.
    look_at: Instant,
    store_works: bool,
}

impl Dispatcher {
    async fn run(mut self) {
        let mut draining = self.shared.draining.subscribe();
        while !self.shared.is_draining() {
            let rest = !self.resting.is_empty();
            tokio::select! {
                Some(first) = self.idle.recv() => self.receive(first).await,
                () = self.shared.parts.queue.wait(), if rest && self.store_works => self.wake(),
                () = sleep_until(self.look_at), if rest => self.wake(),
                _ = draining.changed() => {}
            }
        }
    }

    /// Takes this worker and the others that are there already.
    async fn receive(&mut self, first: Idle) {
        let mut workers = BTreeSet::new();
        let mut failed = None;
        let mut next = Some(first);
        while let Some(Idle { worker, error }) = next {
            workers.insert(worker);
            failed = error.or(failed);
            next = self.idle.try_recv().ok();
        }
        match failed {
            Some(error) => self.rest(workers, Some(error)),
            None => self.look(workers).await,
        }
    }

    /// Claims for workers that the store does not let stand. The lowest numbers come first: the workers
    /// beyond the minimum stay closed while these suffice.
    async fn look(&mut self, mut workers: BTreeSet<u32>) {
        let claimant = Claimant {
            node: self.shared.options.node.clone(),
            workers: workers.iter().map(|worker| *worker as i32).collect(),
        };
        match self.shared.parts.store.claim(claimant, now(), self.shared.options.lease).await {
            Ok(claims) => {
                for claim in claims {
                    let worker = claim.worker as u32;
                    workers.remove(&worker);
                    self.send(worker, Task::Judge(Box::new(claim)));
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

    /// Sends everybody who rests to the store again.
    fn wake(&mut self) {
        for worker in std::mem::take(&mut self.resting) {
            self.send(worker, Task::Stand);
        }
    }

    fn send(&self, worker: u32, task: Task) {
        if self.slots[worker as usize].send(task).is_err() {
            // Its claim, if it had one, runs out.
            tracing::error!(worker, "a worker has ended");
        }
    }
}
