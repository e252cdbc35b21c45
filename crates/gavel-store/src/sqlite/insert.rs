//! Into the book: new jobs, their files, their idempotency keys.

use super::request::Request;
use super::row::{BROUGHT, ORIGIN, blob, called, rank};
use super::writer::Tx;
use super::{standing, tokens};
use crate::{Inserted, NewJob, StoreError};
use gavel_core::{JobId, Timestamp};
use rusqlite::{OptionalExtension, params};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a key outlives a job that is erased early.
pub(super) const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// `None`: there is no room for new jobs, and nothing was stored. That is an answer and no failure: it must
/// not undo the group.
pub(super) fn insert(tx: &mut Tx<'_>, jobs: &[NewJob], max_depth: u64) -> Result<Option<Vec<Inserted>>, StoreError> {
    let room = tx.room.for_new_jobs(tx.conn)?;
    jobs.iter().map(|job| insert_one(tx, job, max_depth, room)).collect()
}

fn insert_one(tx: &mut Tx<'_>, new: &NewJob, max_depth: u64, room: bool) -> Result<Option<Inserted>, StoreError> {
    // The key first: a client that repeats itself gets its job even while everything is full.
    if let Some(known) = known_key(tx, new)? {
        return Ok(Some(known));
    }
    if !room {
        return Ok(None);
    }
    if tx.hot.pending() >= max_depth {
        return Ok(Some(Inserted::QueueFull));
    }
    if let Some(kind) = tokens::exceeded(tx.conn, new)? {
        return Ok(Some(Inserted::OverQuota(kind)));
    }
    tx.skew.admit(tx.conn, new.id, new.created_at)?;
    let Some(seq) = insert_row(tx, new)? else { return Ok(Some(Inserted::Existing(new.id))) };
    tokens::count(tx.conn, new)?;
    insert_files(tx, seq, new)?;
    if !standing::take_new(tx, new, seq)? {
        enqueue(tx, new, seq)?;
    }
    if let Some(idempotency) = &new.idempotency {
        tx.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency (owner, key, fingerprint, job_id, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                new.owner.as_deref().unwrap_or(""),
                idempotency.key,
                &idempotency.fingerprint[..],
                blob(&new.id),
                new.created_at.0
            ])?;
    }
    Ok(Some(Inserted::New))
}

fn enqueue(tx: &mut Tx<'_>, new: &NewJob, seq: i64) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached(
            "INSERT INTO pending (rank, id, seq, not_before, attempt, tries, created_at, callback)
             VALUES (?1, ?2, ?3, 0, 0, 0, ?4, ?5)",
        )?
        .execute(params![
            rank(new.created_at, new.job.priority.into()),
            blob(&new.id),
            seq,
            new.created_at.0,
            called(&new.job)
        ])?;
    tx.hot.pending_added(new.created_at.0);
    Ok(())
}

fn known_key(tx: &Tx<'_>, new: &NewJob) -> Result<Option<Inserted>, StoreError> {
    let Some(idempotency) = &new.idempotency else { return Ok(None) };
    let found: Option<([u8; 32], [u8; 16], i64, bool)> = tx
        .conn
        .prepare_cached(
            "SELECT fingerprint, job_id, created_at, job_gone FROM idempotency WHERE owner = ?1 AND key = ?2",
        )?
        .query_row(params![new.owner.as_deref().unwrap_or(""), idempotency.key], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
        })
        .optional()?;
    Ok(found.and_then(|(fingerprint, id, created_at, gone)| {
        let outlived = gone && Timestamp(created_at).plus(KEY_LIFE) <= new.created_at;
        match fingerprint == idempotency.fingerprint {
            _ if outlived => None,
            true => Some(Inserted::Existing(JobId::from_bytes(id))),
            false => Some(Inserted::Conflict),
        }
    }))
}

/// `None`: the id is there already, so this is the repetition of an insert whose answer was lost.
fn insert_row(tx: &Tx<'_>, new: &NewJob) -> Result<Option<i64>, StoreError> {
    let job = &new.job;
    let request = serde_json::to_string(&Request::of(job))
        .map_err(|error| StoreError::Unavailable(format!("the job cannot be written down: {error}")))?;
    let changed = tx
        .conn
        .prepare_cached(
            "INSERT INTO jobs (id, owner, language, priority, input_files, created_at, request,
                               source_code, stdin, expected_output)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            blob(&new.id),
            new.owner,
            job.language,
            job.priority,
            job.files.len() + usize::from(job.origin.is_some()),
            new.created_at.0,
            request,
            job.source,
            job.stdin,
            job.expected_output
        ])?;
    Ok((changed > 0).then(|| tx.conn.last_insert_rowid()))
}

fn insert_files(tx: &Tx<'_>, seq: i64, new: &NewJob) -> Result<(), StoreError> {
    let files = new.job.files.iter().map(|file| (file.path.as_str(), &file.content));
    let origin = new.job.origin.iter().map(|content| (ORIGIN, content));
    for (n, (path, content)) in files.chain(origin).enumerate() {
        tx.conn
            .prepare_cached("INSERT INTO job_files (seq, kind, n, path, content) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![seq, BROUGHT, n, path, content])?;
    }
    Ok(())
}

impl super::writer::Skew {
    /// Takes note of how far the time in this id is from the job's time. Rounded up to a power of two,
    /// so that it is hardly ever written.
    fn admit(&mut self, conn: &rusqlite::Connection, id: JobId, created_at: Timestamp) -> Result<(), StoreError> {
        let skew = match id_ms(id) {
            Some(ms) => ms.abs_diff(created_at.0.div_euclid(1000)).saturating_add(1),
            None => u64::MAX,
        };
        if skew <= self.stored.unsigned_abs() {
            return Ok(());
        }
        let skew = skew.checked_next_power_of_two().and_then(|s| i64::try_from(s).ok()).unwrap_or(i64::MAX);
        if self.stored == skew {
            return Ok(());
        }
        self.seen.fetch_max(skew, Ordering::SeqCst);
        conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'id_skew_ms'")?.execute([skew])?;
        self.stored = skew;
        Ok(())
    }
}

/// The time inside a UUID v7.
fn id_ms(id: JobId) -> Option<i64> {
    if id.get_version_num() != 7 {
        return None;
    }
    Some((id.as_u128() >> 80) as i64)
}

/// The least id whose time is `ms`, and so the bound of all ids of that time or later.
pub(super) fn least_id(ms: i64) -> JobId {
    const LAST: i64 = (1 << 48) - 1;
    JobId::from_u128((ms.clamp(0, LAST) as u128) << 80)
}
