//! How attempts end: settled, taken back, cancelled.

use super::claim::remove_pending;
use super::deliver;
use super::request::evidence_to_json;
use super::row::{COLLECTED, blob, id_at, rank, to_ms};
use super::writer::Tx;
use crate::{Cancelled, ClaimKey, Settlement, StoreError, Swept};
use gavel_core::{JobId, Outcome, Status, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

/// A row of `running`.
struct Attempt {
    id: JobId,
    seq: i64,
    attempt: u32,
    tries: u32,
    worker_id: i32,
    node: String,
    cancel_wanted: bool,
    rank: i64,
    created_at: i64,
    started_at: i64,
    callback: Option<String>,
}

const ATTEMPT: &str = "SELECT id, seq, attempt, tries, worker_id, node, cancel_wanted, rank, created_at, started_at,
                              callback
                       FROM running";

impl Attempt {
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: id_at(row, 0)?,
            seq: row.get(1)?,
            attempt: row.get(2)?,
            tries: row.get(3)?,
            worker_id: row.get(4)?,
            node: row.get(5)?,
            cancel_wanted: row.get(6)?,
            rank: row.get(7)?,
            created_at: row.get(8)?,
            started_at: row.get(9)?,
            callback: row.get(10)?,
        })
    }

    fn find(tx: &Tx<'_>, id: JobId) -> Result<Option<Self>, StoreError> {
        let mut statement = tx.conn.prepare_cached(&format!("{ATTEMPT} WHERE id = ?1"))?;
        let mut rows = statement.query([blob(&id)])?;
        rows.next()?.map(Self::read).transpose()
    }

    /// Takes the attempt out of the hot set; what becomes of the job is up to the caller.
    fn stop(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.conn.prepare_cached("DELETE FROM running WHERE id = ?1")?.execute([blob(&self.id)])?;
        tx.hot.running_removed();
        Ok(())
    }

    /// Back to the place in the queue that its age gives it, unless somebody wanted it cancelled.
    fn put_back(&self, tx: &mut Tx<'_>, now: Timestamp, not_before: Timestamp, tries: u32) -> Result<(), StoreError> {
        if self.cancel_wanted {
            return self.end(tx, now, Status::Cancelled, None);
        }
        tx.conn
            .prepare_cached(
                "INSERT INTO pending (rank, id, seq, not_before, attempt, tries, created_at, callback)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.rank,
                blob(&self.id),
                self.seq,
                not_before.0,
                self.attempt,
                tries,
                self.created_at,
                self.callback
            ])?;
        tx.hot.pending_added(self.created_at);
        Ok(())
    }

    /// Ends the job without an outcome.
    fn end(&self, tx: &Tx<'_>, now: Timestamp, status: Status, message: Option<&str>) -> Result<(), StoreError> {
        tx.conn
            .prepare_cached(
                "UPDATE jobs SET status = ?1, error_message = ?2, worker_id = ?3, node = ?4, attempt = ?5,
                                 started_at = ?6, completed_at = ?7
                 WHERE seq = ?8",
            )?
            .execute(params![
                status.as_str(),
                message,
                self.worker_id,
                self.node,
                self.attempt,
                self.started_at,
                now.0,
                self.seq
            ])?;
        deliver::enqueue(tx, self.id, self.callback.as_deref(), now)
    }

    fn complete(&self, tx: &Tx<'_>, now: Timestamp, outcome: &Outcome) -> Result<(), StoreError> {
        let evidence = evidence_to_json(&outcome.evidence)
            .map_err(|error| StoreError::Unavailable(format!("the outcome cannot be written down: {error}")))?;
        tx.conn
            .prepare_cached(
                "UPDATE jobs SET status = 'completed', verdict = ?1, reason = ?2, evidence = ?3, stdout = ?4,
                     stderr = ?5, compile_output = ?6, stdout_truncated = ?7, stderr_truncated = ?8,
                     output_files = ?9, exit_code = ?10, signal = ?11, execution_time_ms = ?12,
                     wall_time_ms = ?13, memory_usage_kb = ?14, compile_time_ms = ?15, compile_cached = ?16,
                     worker_id = ?17, node = ?18, attempt = ?19, started_at = ?20, completed_at = ?21
                 WHERE seq = ?22",
            )?
            .execute(params![
                outcome.verdict.as_str(),
                outcome.reason,
                evidence,
                outcome.stdout,
                outcome.stderr,
                outcome.compile_output,
                outcome.stdout_truncated,
                outcome.stderr_truncated,
                outcome.files.len(),
                outcome.exit_code,
                outcome.signal,
                to_ms(outcome.cpu),
                to_ms(outcome.wall),
                outcome.memory.as_kib(),
                to_ms(outcome.compile_time),
                outcome.compile_cached,
                self.worker_id,
                self.node,
                self.attempt,
                self.started_at,
                now.0,
                self.seq
            ])?;
        for (n, file) in outcome.files.iter().enumerate() {
            tx.conn
                .prepare_cached(
                    "INSERT INTO job_files (seq, kind, n, path, executable, content)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![self.seq, COLLECTED, n, file.path, file.executable, file.content])?;
        }
        deliver::enqueue(tx, self.id, self.callback.as_deref(), now)
    }
}

/// `Ok(false)`: the lease is lost. That is an answer and no failure: it must not undo the group.
pub(super) fn settle(
    tx: &mut Tx<'_>,
    key: ClaimKey,
    now: Timestamp,
    settlement: &Settlement,
) -> Result<bool, StoreError> {
    let Some(attempt) = Attempt::find(tx, key.id)?.filter(|attempt| attempt.attempt == key.attempt) else {
        return Ok(false);
    };
    attempt.stop(tx)?;
    match settlement {
        Settlement::Completed(outcome) => attempt.complete(tx, now, outcome)?,
        Settlement::Failed { message } => attempt.end(tx, now, Status::Failed, Some(message))?,
        Settlement::Cancelled => attempt.end(tx, now, Status::Cancelled, None)?,
        Settlement::Released { delay, count_attempt } => {
            let tries = if *count_attempt { attempt.tries } else { attempt.tries.saturating_sub(1) };
            attempt.put_back(tx, now, now.plus(*delay), tries)?;
        }
    }
    Ok(true)
}

/// Whose claims are taken back.
pub(super) enum Lost<'a> {
    /// Those whose lease has run out.
    Expired,
    /// Those of a node that starts anew.
    Node(&'a str),
}

pub(super) fn take_back(
    tx: &mut Tx<'_>,
    whose: &Lost<'_>,
    now: Timestamp,
    max_attempts: u32,
) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for attempt in lost_attempts(tx, whose, now)? {
        attempt.stop(tx)?;
        if attempt.tries < max_attempts || attempt.cancel_wanted {
            swept.requeued += u64::from(!attempt.cancel_wanted);
            attempt.put_back(tx, now, now, attempt.tries)?;
        } else {
            swept.failed += 1;
            let message = format!("given up after {} attempts: its worker was lost each time", attempt.tries);
            attempt.end(tx, now, Status::Failed, Some(&message))?;
        }
    }
    if let Lost::Node(node) = whose {
        deliver::take_back(tx, node, now)?;
    }
    Ok(swept)
}

/// Read before anything is changed: the loop above deletes from the table that this reads.
fn lost_attempts(tx: &Tx<'_>, whose: &Lost<'_>, now: Timestamp) -> Result<Vec<Attempt>, StoreError> {
    let (condition, value): (&str, &dyn rusqlite::ToSql) = match whose {
        Lost::Expired => ("lease_until <= ?1", &now.0),
        Lost::Node(node) => ("node = ?1", node),
    };
    let mut statement = tx.conn.prepare_cached(&format!("{ATTEMPT} WHERE {condition}"))?;
    let mut rows = statement.query([value])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(Attempt::read(row)?);
    }
    Ok(attempts)
}

pub(super) fn cancel(tx: &mut Tx<'_>, id: JobId, now: Timestamp) -> Result<Cancelled, StoreError> {
    let asked = tx.conn.prepare_cached("UPDATE running SET cancel_wanted = 1 WHERE id = ?1")?.execute([blob(&id)])?;
    if asked > 0 {
        return Ok(Cancelled::Wanted);
    }
    let found: Option<(i64, String, i64, i64)> = tx
        .conn
        .prepare_cached("SELECT seq, status, created_at, priority FROM jobs WHERE id = ?1")?
        .query_row([blob(&id)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
        .optional()?;
    let Some((seq, status, created_at, priority)) = found else { return Ok(Cancelled::Unknown) };
    let status: Status = status.parse().map_err(|error| StoreError::Damaged(format!("job {id}: {error}")))?;
    if status.has_ended() {
        return Ok(Cancelled::Ended(status));
    }
    let rank = rank(Timestamp(created_at), priority);
    let waiting: Option<(u32, Option<String>)> = tx
        .conn
        .prepare_cached("SELECT attempt, callback FROM pending WHERE rank = ?1 AND id = ?2")?
        .query_row(params![rank, blob(&id)], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    let (attempt, callback) = waiting.unwrap_or((0, None));
    remove_pending(tx, rank, id, created_at)?;
    tx.conn
        .prepare_cached("UPDATE jobs SET status = 'cancelled', attempt = ?1, completed_at = ?2 WHERE seq = ?3")?
        .execute(params![attempt, now.0, seq])?;
    deliver::enqueue(tx, id, callback.as_deref(), now)?;
    Ok(Cancelled::Done)
}
