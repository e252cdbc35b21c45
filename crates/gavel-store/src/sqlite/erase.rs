//! Out of the book: deletion and retention. The pages of erased rows are used again for new ones, so
//! the file stays at its largest size but does not grow; `VACUUM` by hand makes it small.

use super::deliver;
use super::insert::KEY_LIFE;
use super::row::{blob, id_at, rank};
use super::writer::Tx;
use crate::{Deleted, StoreError};
use gavel_core::{JobId, Status, Timestamp};
use rusqlite::{OptionalExtension, params};

pub(super) fn delete(tx: &mut Tx<'_>, id: JobId) -> Result<Deleted, StoreError> {
    let found: Option<(i64, i64, i64)> = tx
        .conn
        .prepare_cached("SELECT seq, created_at, priority FROM jobs WHERE id = ?1")?
        .query_row([blob(&id)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    let Some((seq, created_at, priority)) = found else { return Ok(Deleted::Unknown) };
    // The hot tables decide, not the row's status: so even a damaged row can be deleted.
    let running = tx.conn.prepare_cached("SELECT 1 FROM running WHERE id = ?1")?.exists([blob(&id)])?;
    if running {
        return Ok(Deleted::NotEnded(Status::Running));
    }
    let pending = tx
        .conn
        .prepare_cached("SELECT 1 FROM pending WHERE rank = ?1 AND id = ?2")?
        .exists(params![rank(Timestamp(created_at), priority), blob(&id)])?;
    if pending {
        return Ok(Deleted::NotEnded(Status::Pending));
    }
    erase(tx, seq, id)?;
    Ok(Deleted::Done)
}

/// Erases jobs that ended before `before`, oldest first, and keys that outlived their job. `before` is not
/// later than now, so a day before it is at least a day ago.
pub(super) fn retain(tx: &mut Tx<'_>, before: Timestamp, max: usize) -> Result<u64, StoreError> {
    let mut old = Vec::new();
    {
        let mut statement = tx.conn.prepare_cached(
            "SELECT id, seq FROM jobs WHERE completed_at IS NOT NULL AND completed_at < ?1
             ORDER BY completed_at LIMIT ?2",
        )?;
        let mut rows = statement.query(params![before.0, max])?;
        while let Some(row) = rows.next()? {
            old.push((id_at(row, 0)?, row.get(1)?));
        }
    }
    for (id, seq) in &old {
        erase(tx, *seq, *id)?;
    }
    tx.conn
        .prepare_cached(
            "DELETE FROM idempotency WHERE (owner, key) IN
                 (SELECT owner, key FROM idempotency WHERE job_gone = 1 AND created_at < ?1 LIMIT ?2)",
        )?
        .execute(params![before.minus(KEY_LIFE).0, max])?;
    Ok(old.len() as u64)
}

fn erase(tx: &Tx<'_>, seq: i64, id: JobId) -> Result<(), StoreError> {
    tx.conn.prepare_cached("DELETE FROM job_files WHERE seq = ?1")?.execute([seq])?;
    deliver::erase(tx, id)?;
    tx.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
    tx.conn.prepare_cached("UPDATE idempotency SET job_gone = 1 WHERE job_id = ?1")?.execute([blob(&id)])?;
    Ok(())
}
