//! Out of the queue: claims and their leases.

use super::deliver;
use super::row::{Columns, add_brought, blob, id_at};
use super::writer::Tx;
use crate::{Claim, ClaimKey, Claimant, Lease, StoreError};
use gavel_core::{Job, JobId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

/// What a job that cannot be read back says in the end. The cause is in the log.
const UNREADABLE: &str = "the stored job could not be read back";

struct Candidate {
    id: JobId,
    rank: i64,
    seq: i64,
    attempt: u32,
    tries: u32,
    created_at: i64,
    callback: Option<String>,
}

impl Candidate {
    fn claim(&self, job: Job, owner: Option<String>, worker: i32, now: Timestamp) -> Claim {
        Claim {
            key: ClaimKey { id: self.id, attempt: self.attempt + 1 },
            tries: self.tries + 1,
            worker,
            job,
            owner,
            created_at: Timestamp(self.created_at),
            started_at: now,
        }
    }
}

pub(super) fn claim(tx: &mut Tx<'_>, by: &Claimant, now: Timestamp, lease: Duration) -> Result<Vec<Claim>, StoreError> {
    let mut claims = Vec::new();
    while claims.len() < by.workers.len() && tx.hot.pending() > 0 {
        let wanted = by.workers.len() - claims.len();
        let found = candidates(tx, now, wanted)?;
        for candidate in &found {
            let worker = by.workers[claims.len()];
            match load(tx, candidate) {
                Ok((job, owner)) => {
                    let claim = candidate.claim(job, owner, worker, now);
                    remove_pending(tx, candidate.rank, candidate.id, candidate.created_at)?;
                    let callback = candidate.callback.as_deref();
                    insert_running(tx.conn, &claim, candidate.seq, candidate.rank, &by.node, lease, callback)?;
                    tx.hot.running_added();
                    claims.push(claim);
                }
                // One bad row must not stand at the head of the queue for ever.
                Err(StoreError::Damaged(cause)) => give_up(tx, candidate, now, &cause)?,
                Err(error) => return Err(error),
            }
        }
        if found.len() < wanted {
            break;
        }
    }
    Ok(claims)
}

fn candidates(tx: &Tx<'_>, now: Timestamp, limit: usize) -> Result<Vec<Candidate>, StoreError> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT id, rank, seq, attempt, tries, created_at, callback FROM pending
         WHERE not_before <= ?1 ORDER BY rank, id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![now.0, limit])?;
    let mut found = Vec::with_capacity(limit.min(256));
    while let Some(row) = rows.next()? {
        found.push(Candidate {
            id: id_at(row, 0)?,
            rank: row.get(1)?,
            seq: row.get(2)?,
            attempt: row.get(3)?,
            tries: row.get(4)?,
            created_at: row.get(5)?,
            callback: row.get(6)?,
        });
    }
    Ok(found)
}

/// The job and its owner.
fn load(tx: &Tx<'_>, candidate: &Candidate) -> Result<(Job, Option<String>), StoreError> {
    let (seq, id) = (candidate.seq, candidate.id);
    let mut statement = tx.conn.prepare_cached(
        "SELECT owner, language, priority, input_files, request, source_code, stdin, expected_output
         FROM jobs WHERE seq = ?1 AND id = ?2",
    )?;
    let mut rows = statement.query(params![seq, blob(&id)])?;
    let row = rows.next()?.ok_or_else(|| StoreError::Damaged(format!("job {id}: its row is missing")))?;
    let columns = Columns::of(row, id);
    let mut job = columns.job()?;
    add_brought(&mut job, tx.conn, seq, columns.get("input_files")?, id)?;
    Ok((job, columns.get("owner")?))
}

/// Writes down who has the job.
pub(super) fn insert_running(
    conn: &Connection,
    claim: &Claim,
    seq: i64,
    rank: i64,
    node: &str,
    lease: Duration,
    callback: Option<&str>,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO running
             (id, seq, attempt, tries, worker_id, node, lease_until, rank, created_at, started_at, callback)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        blob(&claim.key.id),
        seq,
        claim.key.attempt,
        claim.tries,
        claim.worker,
        node,
        claim.started_at.plus(lease).0,
        rank,
        claim.created_at.0,
        claim.started_at.0,
        callback
    ])?;
    Ok(())
}

pub(super) fn remove_pending(tx: &mut Tx<'_>, rank: i64, id: JobId, created_at: i64) -> Result<(), StoreError> {
    let removed =
        tx.conn.prepare_cached("DELETE FROM pending WHERE rank = ?1 AND id = ?2")?.execute(params![rank, blob(&id)])?;
    if removed > 0 {
        tx.hot.pending_removed(created_at);
    }
    Ok(())
}

fn give_up(tx: &mut Tx<'_>, candidate: &Candidate, now: Timestamp, cause: &str) -> Result<(), StoreError> {
    tracing::error!(job.id = %candidate.id, cause, "a stored job is damaged and fails");
    remove_pending(tx, candidate.rank, candidate.id, candidate.created_at)?;
    let failed = tx
        .conn
        .prepare_cached(
            "UPDATE jobs SET status = 'failed', error_message = ?1, completed_at = ?2 WHERE seq = ?3 AND id = ?4",
        )?
        .execute(params![UNREADABLE, now.0, candidate.seq, blob(&candidate.id)]);
    match failed.map_err(StoreError::from) {
        // So damaged that not even this can be written: it is out of the queue at least.
        Ok(_) | Err(StoreError::Damaged(_)) => deliver::enqueue(tx, candidate.id, candidate.callback.as_deref(), now),
        Err(error) => Err(error),
    }
}

pub(super) fn extend(
    tx: &mut Tx<'_>,
    keys: &[ClaimKey],
    now: Timestamp,
    lease: Duration,
) -> Result<Vec<Lease>, StoreError> {
    let until = now.plus(lease).0;
    keys.iter()
        .map(|key| {
            let wanted: Option<bool> = tx
                .conn
                .prepare_cached(
                    "UPDATE running SET lease_until = ?1 WHERE id = ?2 AND attempt = ?3 RETURNING cancel_wanted",
                )?
                .query_row(params![until, blob(&key.id), key.attempt], |row| row.get(0))
                .optional()?;
            Ok(match wanted {
                None => Lease::Lost,
                Some(false) => Lease::Held,
                Some(true) => Lease::CancelWanted,
            })
        })
        .collect()
}
