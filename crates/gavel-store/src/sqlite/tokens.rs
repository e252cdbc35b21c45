//! Tokens and quotas. Tokens are written by running servers and by `gavel token` beside them: each change
//! is a transaction of its own on whichever connection, and `token_changes` tells the others.

use super::error::OpenError;
use super::open::{DirectoryLock, connect_writer, create_private, refuse_scraps};
use super::row::blob;
use super::{SqliteOptions, migrate};
use crate::token::{Quota, QuotaKind, Rate, Scopes, Token, TokenCreated, TokenHash};
use crate::{NewJob, StoreError};
use gavel_core::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::num::NonZeroU32;
use uuid::Uuid;

const COLUMNS: &str = "id, name, owner, hash, scopes, rate_per_second, rate_burst, jobs_per_day, concurrent,
                       created_at, expires_at, revoked_at, last_used_at";

pub(super) fn create(conn: &Connection, token: &Token) -> Result<TokenCreated, StoreError> {
    // A token that has expired keeps nobody from using its name.
    conn.prepare_cached(
        "UPDATE tokens SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL AND expires_at <= ?2",
    )?
    .execute(params![token.name, token.created_at.0])?;
    let taken = conn
        .prepare_cached("SELECT 1 FROM tokens WHERE name = ?1 AND revoked_at IS NULL")?
        .exists(params![token.name])?;
    if taken {
        return Ok(TokenCreated::NameTaken);
    }
    conn.prepare_cached(&format!(
        "INSERT INTO tokens ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    ))?
    .execute(params![
        blob(&token.id),
        token.name,
        token.owner,
        &token.hash[..],
        token.scopes.to_string(),
        token.rate.map(|rate| rate.per_second.get()),
        token.rate.map(|rate| rate.burst.get()),
        token.quota.jobs_per_day.map(stored),
        token.quota.concurrent.map(stored),
        token.created_at.0,
        token.expires_at.map(|at| at.0),
        token.revoked_at.map(|at| at.0),
        token.last_used_at.map(|at| at.0),
    ])?;
    changed(conn)?;
    Ok(TokenCreated::Done)
}

/// By name or id. `None`: no token that is not revoked has it.
pub(super) fn revoke(conn: &Connection, which: &str, now: Timestamp) -> Result<Option<Token>, StoreError> {
    let id = Uuid::try_parse(which).ok();
    let sql = format!(
        "UPDATE tokens SET revoked_at = ?3 WHERE (name = ?1 OR id = ?2) AND revoked_at IS NULL RETURNING {COLUMNS}"
    );
    let token = conn
        .prepare_cached(&sql)?
        .query_row(params![which, id.as_ref().map(blob), now.0], |row| Ok(read(row)))
        .optional()?
        .transpose()?;
    if token.is_some() {
        changed(conn)?;
    }
    Ok(token)
}

/// Oldest first, those that were revoked too.
pub(super) fn list(conn: &Connection) -> Result<Vec<Token>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens ORDER BY created_at, id"))?;
    let mut rows = statement.query([])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(read(row)?);
    }
    Ok(tokens)
}

pub(super) fn changes(conn: &Connection) -> Result<u64, StoreError> {
    let changes: i64 =
        conn.prepare_cached("SELECT value FROM meta WHERE name = 'token_changes'")?.query_row([], |row| row.get(0))?;
    Ok(changes.unsigned_abs())
}

pub(super) fn touch(conn: &Connection, uses: &[(Uuid, Timestamp)]) -> Result<(), StoreError> {
    let mut update = conn.prepare_cached(
        "UPDATE tokens SET last_used_at = ?2 WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)",
    )?;
    for (id, at) in uses {
        update.execute(params![blob(id), at.0])?;
    }
    Ok(())
}

fn changed(conn: &Connection) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE meta SET value = value + 1 WHERE name = 'token_changes'")?.execute([])?;
    Ok(())
}

/// Beyond what SQLite can hold nobody counts.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> Result<Token, StoreError> {
    let damaged = |what: String| StoreError::Damaged(format!("a token: {what}"));
    let time = |column| Ok::<_, StoreError>(row.get::<_, Option<i64>>(column)?.map(Timestamp));
    let number = |column| Ok::<_, StoreError>(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs));
    let some = |column| Ok::<_, StoreError>(row.get::<_, Option<u32>>(column)?.and_then(NonZeroU32::new));
    let rate = match (some(5)?, some(6)?) {
        (Some(per_second), Some(burst)) => Some(Rate { per_second, burst }),
        _ => None,
    };
    Ok(Token {
        id: Uuid::from_bytes(row.get(0)?),
        name: row.get(1)?,
        owner: row.get(2)?,
        hash: row.get::<_, TokenHash>(3)?,
        scopes: row.get::<_, String>(4)?.parse::<Scopes>().map_err(damaged)?,
        rate,
        quota: Quota { jobs_per_day: number(7)?, concurrent: number(8)? },
        created_at: Timestamp(row.get(9)?),
        expires_at: time(10)?,
        revoked_at: time(11)?,
        last_used_at: time(12)?,
    })
}

/// Not beyond a number, because no more matters.
pub(super) const OPEN_JOBS: &str =
    "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE owner = ?1 AND status = 'pending' LIMIT ?2)";

/// What of its quota a job would be too much for. In the transaction that stores the job, so that of many
/// at once not one too many comes in.
pub(super) fn exceeded(conn: &Connection, new: &NewJob) -> Result<Option<QuotaKind>, StoreError> {
    let Some(owner) = &new.owner else { return Ok(None) };
    if let Some(most) = new.quota.jobs_per_day {
        let today: Option<i64> = conn
            .prepare_cached("SELECT jobs FROM owner_days WHERE owner = ?1 AND day = ?2")?
            .query_row(params![owner, day(new.created_at)], |row| row.get(0))
            .optional()?;
        if today.unwrap_or(0).unsigned_abs() >= most {
            return Ok(Some(QuotaKind::JobsPerDay));
        }
    }
    if let Some(most) = new.quota.concurrent {
        // At most so many are counted as may be there, and few more where a quota was made smaller.
        let open: i64 = conn.prepare_cached(OPEN_JOBS)?.query_row(params![owner, stored(most)], |row| row.get(0))?;
        if open.unsigned_abs() >= most {
            return Ok(Some(QuotaKind::Concurrent));
        }
    }
    Ok(None)
}

/// Counts a job of an owner: also without a quota, which may come later in the day.
pub(super) fn count(conn: &Connection, new: &NewJob) -> Result<(), StoreError> {
    let Some(owner) = &new.owner else { return Ok(()) };
    let day = day(new.created_at);
    let jobs: i64 = conn
        .prepare_cached(
            "INSERT INTO owner_days (owner, day, jobs) VALUES (?1, ?2, 1)
             ON CONFLICT (owner, day) DO UPDATE SET jobs = jobs + 1 RETURNING jobs",
        )?
        .query_row(params![owner, day], |row| row.get(0))?;
    if jobs == 1 {
        // The first one of a day clears up. Clocks of clients take no part, so one day back is enough.
        conn.prepare_cached("DELETE FROM owner_days WHERE owner = ?1 AND day < ?2 - 1")?
            .execute(params![owner, day])?;
    }
    Ok(())
}

fn day(at: Timestamp) -> i64 {
    at.0.div_euclid(86_400_000_000)
}

/// The tokens of a database, for a program that may run beside the server that has it open. It holds the
/// database for single short transactions only, and the server sees them by `token_changes`.
pub struct TokenBook {
    conn: Connection,
}

impl TokenBook {
    /// Creates and migrates the database where no server has it. Where one has, its schema must be this one.
    pub fn open(options: &SqliteOptions) -> Result<Self, OpenError> {
        let path = &options.path;
        let sql = |error: rusqlite::Error| OpenError::from_sql(path, &error);
        let lock = match DirectoryLock::take(path) {
            Ok(lock) => Some(lock),
            Err(OpenError::InUse { .. }) => None,
            Err(error) => return Err(error),
        };
        refuse_scraps(path)?;
        create_private(path)?;
        let mut conn = connect_writer(options).map_err(sql)?;
        match &lock {
            Some(_) => drop(migrate::apply(&mut conn, path)?),
            None => migrate::require(&conn, path)?,
        }
        Ok(Self { conn })
    }

    pub fn create(&mut self, token: &Token) -> Result<TokenCreated, StoreError> {
        self.change(|conn| create(conn, token))
    }

    pub fn revoke(&mut self, which: &str, now: Timestamp) -> Result<Option<Token>, StoreError> {
        self.change(|conn| revoke(conn, which, now))
    }

    pub fn list(&self) -> Result<Vec<Token>, StoreError> {
        list(&self.conn)
    }

    fn change<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // Immediate: a change that waits for the server's writer waits before it has read anything.
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&tx)?;
        tx.commit()?;
        Ok(result)
    }
}
