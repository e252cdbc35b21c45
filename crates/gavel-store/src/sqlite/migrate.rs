//! The schema's versions: embedded, applied in order, each in its own transaction.

use super::error::OpenError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::path::Path;
use std::time::SystemTime;

struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "jobs", sql: include_str!("../../migrations/sqlite/0001_jobs.sql") },
    Migration { version: 2, name: "deliveries", sql: include_str!("../../migrations/sqlite/0002_deliveries.sql") },
    Migration { version: 3, name: "tokens", sql: include_str!("../../migrations/sqlite/0003_tokens.sql") },
];

/// "gavl": tells Gavel's databases from those of other programs.
const APPLICATION_ID: i32 = 0x6761_766c;

/// One version of the schema, and when this database got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    pub version: u32,
    pub name: &'static str,
    pub applied_at: Option<gavel_core::Timestamp>,
}

/// Every version that this Gavel knows, as far as this database has it.
pub(super) fn list(conn: &Connection, path: &Path) -> Result<Vec<MigrationState>, OpenError> {
    let sql = |e: rusqlite::Error| OpenError::from_sql(path, &e);
    let known = is_ours(conn, path)?;
    MIGRATIONS
        .iter()
        .map(|m| {
            let applied_at = if known {
                conn.query_row("SELECT applied_at FROM schema_migrations WHERE version = ?1", [m.version], |r| r.get(0))
                    .optional()
                    .map_err(sql)?
            } else {
                None
            };
            Ok(MigrationState { version: m.version, name: m.name, applied_at: applied_at.map(gavel_core::Timestamp) })
        })
        .collect()
}

/// Applies what is missing; returns how many. Refuses a database of another program or of a newer Gavel.
pub(super) fn apply(conn: &mut Connection, path: &Path) -> Result<usize, OpenError> {
    let sql = |e: rusqlite::Error| OpenError::from_sql(path, &e);
    if !is_ours(conn, path)? {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        tx.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS schema_migrations (
                version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT;
             PRAGMA application_id = {APPLICATION_ID};"
        ))
        .map_err(sql)?;
        tx.commit().map_err(sql)?;
    } else {
        // Whatever is written from here on may fold the log, which a process before this one may have left with
        // a hole on the disk.
        super::log::make_whole(conn, path).map_err(sql)?;
    }
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let found = current_version(conn).map_err(sql)?;
    if found > known {
        return Err(OpenError::TooNew { path: path.to_owned(), found, known });
    }
    let mut applied = 0;
    for migration in MIGRATIONS.iter().filter(|m| m.version > found) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        tx.execute_batch(migration.sql).map_err(sql)?;
        let now = gavel_core::Timestamp::from_system(SystemTime::now());
        tx.execute(
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES (?1, ?2, ?3)",
            params![migration.version, migration.name, now.0],
        )
        .map_err(sql)?;
        tx.commit().map_err(sql)?;
        tracing::info!(version = migration.version, name = migration.name, "schema migrated");
        applied += 1;
    }
    Ok(applied)
}

/// Refuses a database whose schema is not exactly this Gavel's, and changes nothing.
pub(super) fn require(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let found = match is_ours(conn, path)? {
        true => current_version(conn).map_err(|e| OpenError::from_sql(path, &e))?,
        false => 0,
    };
    match found == known {
        true => Ok(()),
        false => Err(OpenError::OtherVersion { path: path.to_owned(), found, known }),
    }
}

fn current_version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.query_row("SELECT coalesce(max(version), 0) FROM schema_migrations", [], |r| r.get(0))
}

/// `false` for an empty database; an error for one that holds something else.
fn is_ours(conn: &Connection, path: &Path) -> Result<bool, OpenError> {
    let sql = |e: rusqlite::Error| OpenError::from_sql(path, &e);
    let id: i32 = conn.query_row("PRAGMA application_id", [], |r| r.get(0)).map_err(sql)?;
    if id == APPLICATION_ID {
        return Ok(true);
    }
    let tables: u32 = conn.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0)).map_err(sql)?;
    if id != 0 || tables > 0 {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    Ok(false)
}
