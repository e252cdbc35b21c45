//! Claims that wait inside the writer for a job to come. They save what an idle server is made of: a
//! second commit for each job, and the way to the dispatcher and back between the two.

use super::claim::{claim, insert_running};
use super::row::{called, rank};
use super::writer::Tx;
use crate::{Claim, ClaimKey, Claimant, NewJob, StoreError};
use gavel_core::Timestamp;
use std::time::Duration;
use tokio::sync::oneshot;

/// A worker that waits for its next job.
pub(super) struct Waiting {
    pub node: String,
    pub worker: i32,
    pub clock: fn() -> Timestamp,
    pub lease: Duration,
    pub reply: oneshot::Sender<Result<Option<Claim>, StoreError>>,
}

/// All that wait, and what the transaction under way has found for them. It counts when that transaction
/// is committed; until then a failure takes it back.
#[derive(Default)]
pub(super) struct Standing {
    /// In the order in which they are served.
    waiting: Vec<Waiting>,
    /// One for each of the first in `waiting`.
    found: Vec<Claim>,
}

impl Standing {
    /// The lowest numbers are served first: workers with high ones close their sandbox while they idle.
    pub fn add(&mut self, waiting: Waiting) {
        self.tidy();
        let place = self.waiting.partition_point(|other| other.worker <= waiting.worker);
        self.waiting.insert(place, waiting);
    }

    /// Forgets those that nobody waits for any more.
    pub fn tidy(&mut self) {
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The first that has nothing yet.
    fn next(&self) -> Option<&Waiting> {
        self.waiting.get(self.found.len())
    }

    pub fn rolled_back(&mut self) {
        self.found.clear();
    }

    /// Answers, after the commit; `served` tells whether it was a transaction that looked for jobs for them.
    /// While nothing is pending, those without a job go on waiting; else there is one that may not be handed
    /// out yet, and the bell will say when. Returns the claims that reached nobody.
    pub fn committed(&mut self, pending: u64, served: bool) -> Vec<Claim> {
        let mut found = std::mem::take(&mut self.found).into_iter();
        let answered = if served && pending > 0 { self.waiting.len() } else { found.len() };
        let mut undelivered = Vec::new();
        for waiting in self.waiting.drain(..answered) {
            if let Err(Ok(Some(claim))) = waiting.reply.send(Ok(found.next())) {
                undelivered.push(claim);
            }
        }
        undelivered
    }

    pub fn fail(&mut self, error: &StoreError) {
        self.found.clear();
        for waiting in self.waiting.drain(..) {
            // The caller may have gone; then nobody needs to know.
            let _gone = waiting.reply.send(Err(error.clone()));
        }
    }
}

/// Hands a job that is just being stored to who waits for one, past the queue: `false` where nobody waits,
/// or where others wait in the queue, which have their turn first.
pub(super) fn take_new(tx: &mut Tx<'_>, new: &NewJob, seq: i64) -> Result<bool, StoreError> {
    let Some(standing) = tx.standing.as_deref_mut().filter(|_| tx.hot.pending() == 0) else { return Ok(false) };
    let Some(waiting) = standing.next() else { return Ok(false) };
    let started_at = (waiting.clock)();
    let claim = Claim {
        key: ClaimKey { id: new.id, attempt: 1 },
        tries: 1,
        worker: waiting.worker,
        job: new.job.clone(),
        owner: new.owner.clone(),
        created_at: new.created_at,
        started_at,
    };
    let rank = rank(new.created_at, new.job.priority.into());
    let callback = called(&new.job);
    insert_running(tx.conn, &claim, seq, rank, &waiting.node, waiting.lease, callback.as_deref())?;
    tx.hot.running_added();
    standing.found.push(claim);
    Ok(true)
}

/// Serves those that still wait from the queue: what a command of this group put there, or what was there
/// before them.
pub(super) fn serve(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    while tx.hot.pending() > 0
        && let Some(waiting) = tx.standing.as_deref().and_then(Standing::next)
    {
        let by = Claimant { node: waiting.node.clone(), workers: vec![waiting.worker] };
        let (now, lease) = ((waiting.clock)(), waiting.lease);
        let Some(claim) = claim(tx, &by, now, lease)?.pop() else { break };
        if let Some(standing) = &mut tx.standing {
            standing.found.push(claim);
        }
    }
    Ok(())
}
