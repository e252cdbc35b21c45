//! Claims jobs for idle workers, and waits when there is nothing to claim.

use super::{Shared, now, slot::Task};
use gavel_store::{Claim, Claimant, Settlement};
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc::Sender as Slot};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// A ring of the bell may be lost; then this is how long a job waits at most.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the pool drains. `idle` brings the number of each worker that has nothing to do; there
/// are never more of them under way than workers, whence no bound.
pub async fn run(shared: Arc<Shared>, slots: Vec<Slot<Task>>, mut idle: UnboundedReceiver<u32>) {
    let mut free: BTreeSet<u32> = BTreeSet::new();
    let mut draining = shared.draining.subscribe();
    while !shared.is_draining() {
        while let Ok(worker) = idle.try_recv() {
            free.insert(worker);
        }
        if free.is_empty() {
            tokio::select! {
                Some(worker) = idle.recv() => { free.insert(worker); }
                _ = draining.changed() => {}
            }
            continue;
        }
        let asked = free.len();
        let claims = claim(&shared, &free).await;
        let (store_works, got) = (claims.is_some(), claims.as_ref().map_or(0, Vec::len));
        for claim in claims.into_iter().flatten() {
            hand_out(&shared, &slots, &mut free, claim).await;
        }
        if got == asked {
            continue;
        }
        // Nothing is pending now. Whatever makes that change rings the bell.
        let pause = if store_works { LOOK_AGAIN } else { STORE_PAUSE };
        tokio::select! {
            () = shared.parts.queue.wait(), if store_works => {}
            _ = draining.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// `None`: the store failed.
async fn claim(shared: &Shared, free: &BTreeSet<u32>) -> Option<Vec<Claim>> {
    // The lowest numbers first: the workers beyond the minimum stay closed while these suffice.
    let workers = free.iter().map(|worker| *worker as i32).collect();
    let claimant = Claimant { node: shared.options.node.clone(), workers };
    match shared.parts.store.claim(claimant, now(), shared.options.lease).await {
        Ok(claims) => Some(claims),
        Err(e) => {
            tracing::error!(error = %e, "cannot claim jobs");
            None
        }
    }
}

async fn hand_out(shared: &Arc<Shared>, slots: &[Slot<Task>], free: &mut BTreeSet<u32>, claim: Claim) {
    let (key, worker) = (claim.key, claim.worker as u32);
    free.remove(&worker);
    let handed = if shared.is_draining() {
        Err("the pool drains".to_owned())
    } else {
        let cancel = shared.hold(key).map_err(|e| e.to_string());
        cancel.and_then(|cancel| slots[worker as usize].send(Task { claim, cancel }).map_err(|e| e.to_string()))
    };
    if let Err(e) = handed {
        // Or no descriptor for its bell, or a worker that ended: the job is not to blame.
        tracing::warn!(job.id = %key.id, worker, error = %e, "giving back a job that cannot be handed out");
        let release = Settlement::Released { delay: STORE_PAUSE, count_attempt: false };
        super::settle::settle(shared, key, None, release).await;
        free.insert(worker);
    }
}
