//! Callbacks on their way: what ended jobs leave for the deliverer, and what became of each attempt.

use super::row::{blob, from_ms, id_at, to_ms};
use super::writer::Tx;
use crate::{
    Courier, Deliveries, Delivery, DeliveryEnd, DeliveryKey, DeliveryRecord, DeliveryState, DeliveryTry, StoreError,
};
use gavel_core::{JobId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

/// Rows that one claim looks at, so that a host with a long queue does not hold up the writer.
const LOOKED_AT: usize = 512;
/// How far those step back that one claim looked at in vain: then nobody waits behind a host that is busy.
const STEP_BACK: Duration = Duration::from_secs(1);

/// Leaves the news of a job's end, in the transaction that ends it.
pub(super) fn enqueue(tx: &Tx<'_>, id: JobId, host: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    let Some(host) = host else { return Ok(()) };
    tx.conn
        .prepare_cached(
            "INSERT INTO deliveries (id, host, state, due_at, created_at) VALUES (?1, ?2, 'pending', ?3, ?3)",
        )?
        .execute(params![blob(&id), host, now.0])?;
    Ok(())
}

pub(super) fn claim(tx: &Tx<'_>, courier: &Courier, now: Timestamp, lease: Duration) -> Result<Deliveries, StoreError> {
    let (chosen, passed_over) = choose(tx, courier, now)?;
    let mut claimed = Vec::with_capacity(chosen.len());
    for id in chosen {
        let delivery = tx
            .conn
            .prepare_cached(
                "UPDATE deliveries SET attempt = attempt + 1, due_at = ?1, node = ?2 WHERE id = ?3
                 RETURNING attempt, tries, host",
            )?
            .query_row(params![now.plus(lease).0, courier.node, blob(&id)], |row| {
                let key = DeliveryKey { id, attempt: row.get(0)? };
                Ok(Delivery { key, tries: row.get(1)?, host: row.get(2)? })
            })?;
        claimed.push(delivery);
    }
    // Only where some may stand behind them that this claim has not seen.
    if passed_over.len() + claimed.len() == LOOKED_AT {
        for id in passed_over {
            tx.conn
                .prepare_cached("UPDATE deliveries SET due_at = ?1, node = NULL WHERE id = ?2")?
                .execute(params![now.plus(STEP_BACK).0, blob(&id)])?;
        }
    }
    let next: Option<i64> = tx
        .conn
        .prepare_cached("SELECT min(due_at) FROM deliveries WHERE due_at IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    Ok(Deliveries { claimed, next: next.map(Timestamp) })
}

/// What may be delivered now, longest due first; and what may not, because enough is under way to its host.
fn choose(tx: &Tx<'_>, courier: &Courier, now: Timestamp) -> Result<(Vec<JobId>, Vec<JobId>), StoreError> {
    let mut busy = courier.busy.clone();
    let (mut chosen, mut passed_over) = (Vec::new(), Vec::new());
    let mut statement = tx.conn.prepare_cached(
        "SELECT id, host FROM deliveries INDEXED BY deliveries_due
         WHERE due_at IS NOT NULL AND due_at <= ?1 ORDER BY due_at, id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![now.0, LOOKED_AT])?;
    while chosen.len() < courier.max
        && let Some(row) = rows.next()?
    {
        let (id, host): (JobId, String) = (id_at(row, 0)?, row.get(1)?);
        let under_way = busy.entry(host).or_insert(0);
        if *under_way < courier.per_host {
            *under_way += 1;
            chosen.push(id);
        } else {
            passed_over.push(id);
        }
    }
    Ok((chosen, passed_over))
}

/// `false`: the lease is lost, and nothing was changed.
pub(super) fn settle(tx: &Tx<'_>, key: DeliveryKey, now: Timestamp, end: &DeliveryEnd) -> Result<bool, StoreError> {
    let (state, due_at, done) = match end {
        DeliveryEnd::Delivered(done) => (DeliveryState::Delivered, None, Some(done)),
        DeliveryEnd::GivenUp(done) => (DeliveryState::GivenUp, None, Some(done)),
        DeliveryEnd::Retry { done, at } => (DeliveryState::Pending, Some(*at), Some(done)),
        DeliveryEnd::Released => (DeliveryState::Pending, Some(now), None),
    };
    let ended_at = due_at.is_none().then_some(now.0);
    let tries: Option<u32> = tx
        .conn
        .prepare_cached(
            "UPDATE deliveries SET state = ?1, due_at = ?2, ended_at = ?3, tries = tries + ?4, node = NULL
             WHERE id = ?5 AND attempt = ?6 AND node IS NOT NULL RETURNING tries",
        )?
        .query_row(
            params![
                state.as_str(),
                due_at.map(|at| at.0),
                ended_at,
                u32::from(done.is_some()),
                blob(&key.id),
                key.attempt
            ],
            |row| row.get(0),
        )
        .optional()?;
    let Some(tries) = tries else { return Ok(false) };
    if let Some(done) = done {
        tx.conn
            .prepare_cached(
                "INSERT INTO delivery_tries (id, n, started_at, duration_ms, status_code, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                blob(&key.id),
                tries,
                done.started_at.0,
                to_ms(done.duration),
                done.status_code,
                done.error
            ])?;
    }
    Ok(true)
}

/// Takes back what a node had under way that starts anew. Whether it arrived is not known: it is sent again.
pub(super) fn take_back(tx: &Tx<'_>, node: &str, now: Timestamp) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached("UPDATE deliveries SET due_at = ?1, node = NULL WHERE node = ?2")?
        .execute(params![now.0, node])?;
    Ok(())
}

pub(super) fn erase(tx: &Tx<'_>, id: JobId) -> Result<(), StoreError> {
    let gone = tx.conn.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([blob(&id)])?;
    if gone > 0 {
        tx.conn.prepare_cached("DELETE FROM delivery_tries WHERE id = ?1")?.execute([blob(&id)])?;
    }
    Ok(())
}

pub(super) fn find(conn: &Connection, id: JobId) -> Result<Option<DeliveryRecord>, StoreError> {
    // One snapshot for the row and its log.
    let snapshot = conn.unchecked_transaction()?;
    let damaged = |what: String| StoreError::Damaged(format!("the callback of job {id}: {what}"));
    let found = conn
        .prepare_cached("SELECT state, due_at, node IS NOT NULL, created_at, ended_at FROM deliveries WHERE id = ?1")?
        .query_row([blob(&id)], |row| {
            let state: String = row.get(0)?;
            let (due_at, under_way): (Option<i64>, bool) = (row.get(1)?, row.get(2)?);
            let record = DeliveryRecord {
                state: DeliveryState::Pending,
                next_at: due_at.filter(|_| !under_way).map(Timestamp),
                created_at: Timestamp(row.get(3)?),
                ended_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
                tries: Vec::new(),
            };
            Ok((state, record))
        })
        .optional()?;
    let Some((state, mut record)) = found else { return Ok(None) };
    record.state = state.parse().map_err(damaged)?;
    let mut statement = conn.prepare_cached(
        "SELECT started_at, duration_ms, status_code, error FROM delivery_tries WHERE id = ?1 ORDER BY n",
    )?;
    let tries = statement.query_map([blob(&id)], |row| {
        Ok(DeliveryTry {
            started_at: Timestamp(row.get(0)?),
            duration: from_ms(row.get(1)?),
            status_code: row.get(2)?,
            error: row.get(3)?,
        })
    })?;
    record.tries = tries.collect::<Result<_, _>>()?;
    drop(statement);
    snapshot.finish()?;
    Ok(Some(record))
}

pub(super) fn pending(conn: &Connection) -> Result<u64, StoreError> {
    let count = "SELECT count(*) FROM deliveries WHERE due_at IS NOT NULL";
    Ok(conn.prepare_cached(count)?.query_row([], |row| row.get(0))?)
}
