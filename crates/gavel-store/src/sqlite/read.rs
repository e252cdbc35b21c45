//! Queries that only read: one job, a listing, a sample for statistics.

use super::insert::least_id;
use super::row::{Columns, RANK, add_brought, blob, collected_files};
use crate::{Census, Ended, Filter, JobRecord, JobSummary, Page, StoreError, Tally};
use gavel_core::{JobId, Status, Timestamp, Verdict};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use std::sync::Arc;
use std::time::Duration;

/// While a job waits or runs, the hot tables know better than its row.
const LIVE: &str = "CASE WHEN r.id IS NULL THEN j.status ELSE 'running' END AS status,
    coalesce(r.worker_id, j.worker_id) AS worker_id, coalesce(r.node, j.node) AS node,
    coalesce(r.attempt, p.attempt, j.attempt) AS attempt, coalesce(r.started_at, j.started_at) AS started_at";

const RECORD: &str = "j.owner, j.language, j.verdict, j.reason, j.priority, j.exit_code, j.signal,
    j.execution_time_ms, j.wall_time_ms, j.memory_usage_kb, j.compile_time_ms, j.compile_cached,
    j.stdout_truncated, j.stderr_truncated, j.error_message, j.created_at, j.completed_at, j.evidence,
    j.request, j.source_code, j.stdin, j.expected_output, j.stdout, j.stderr, j.compile_output,
    j.seq, j.input_files, j.output_files, r.id IS NULL AND p.id IS NULL AS in_no_queue";

const SUMMARY: &str = "j.language, j.verdict, j.reason, j.evidence, j.exit_code, j.signal, j.execution_time_ms,
    j.wall_time_ms, j.memory_usage_kb, j.priority, j.error_message, j.created_at, j.completed_at";

pub(super) fn find(conn: &Connection, id: JobId) -> Result<Option<JobRecord>, StoreError> {
    // One snapshot for the row and its files.
    let snapshot = conn.unchecked_transaction()?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT j.id, {LIVE}, {RECORD} FROM jobs j
         LEFT JOIN running r ON r.id = j.id LEFT JOIN pending p ON p.rank = {RANK} AND p.id = j.id
         WHERE j.id = ?1"
    ))?;
    let mut rows = statement.query([blob(&id)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let columns = Columns::new(row)?;
    let mut record = columns.record()?;
    if record.status == Status::Pending && columns.get("in_no_queue")? {
        return Err(columns.damaged("pending, but in no queue"));
    }
    let seq = columns.get("seq")?;
    add_brought(&mut record.job, conn, seq, columns.get("input_files")?, id)?;
    if let Some(outcome) = record.outcome.as_mut().and_then(Arc::get_mut) {
        outcome.files = collected_files(conn, seq, columns.get("output_files")?, id)?;
    }
    drop(rows);
    drop(statement);
    snapshot.finish()?;
    Ok(Some(record))
}

pub(super) fn list(
    conn: &Connection,
    filter: &Filter,
    limit: usize,
    skew_ms: i64,
) -> Result<Vec<JobSummary>, StoreError> {
    let Listing { sql, values } = Listing::of(filter, limit, skew_ms);
    // Only as many different texts as there are combinations of filters, so the statements are cached.
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut jobs = Vec::with_capacity(limit.min(256));
    while let Some(row) = rows.next()? {
        jobs.push(Columns::new(row)?.summary()?);
    }
    Ok(jobs)
}

/// A query for a listing. Which table or index leads is chosen here and not by the planner, which knows
/// nothing of how the rows are spread: most are completed and accepted, few wait, fewer run.
struct Listing {
    sql: String,
    values: Vec<Value>,
}

impl Listing {
    fn of(filter: &Filter, limit: usize, skew_ms: i64) -> Self {
        let mut listing = Self { sql: String::new(), values: Vec::new() };
        let ids = listing.ids(filter, skew_ms);
        let and_ids = |id: &str| ids.iter().map(|bound| format!(" AND {id} {bound}")).collect::<String>();
        let others = listing.others(filter);
        let limit = listing.bind(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let (from, order) = match filter.status {
            Some(Status::Running) => (
                "running r CROSS JOIN jobs j ON j.seq = r.seq LEFT JOIN pending p ON FALSE".to_owned(),
                "ORDER BY j.id DESC",
            ),
            // Sorted while it is narrow: the wide rows are then read one by one until there are enough.
            // The LIMIT that limits nothing keeps SQLite from dissolving the inner query and its order.
            Some(Status::Pending) => (
                format!(
                    "(SELECT id, seq, attempt FROM pending WHERE TRUE{} ORDER BY id DESC LIMIT -1) p
                     CROSS JOIN jobs j ON j.seq = p.seq LEFT JOIN running r ON FALSE",
                    and_ids("id")
                ),
                "",
            ),
            _ => (
                format!(
                    "jobs j {} LEFT JOIN running r ON r.id = j.id
                     LEFT JOIN pending p ON p.rank = {RANK} AND p.id = j.id",
                    leading_index(filter)
                ),
                "ORDER BY j.id DESC",
            ),
        };
        listing.sql = format!(
            "SELECT j.id, {LIVE}, {SUMMARY} FROM {from} WHERE TRUE{}{others} {order} LIMIT {limit}",
            and_ids("j.id")
        );
        listing
    }

    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    /// Bounds on the id: the cursor, and what follows from the window of time.
    fn ids(&mut self, filter: &Filter, skew_ms: i64) -> Vec<String> {
        let id = |id: JobId| Value::Blob(id.as_bytes().to_vec());
        let mut bounds = Vec::new();
        let from_time = filter.created_before.and_then(|before| first_id_after(before, skew_ms));
        if let Some(before) = filter.before.into_iter().chain(from_time).min() {
            bounds.push(format!("< {}", self.bind(id(before))));
        }
        if let Some(after) = filter.created_after {
            let ms = after.0.div_euclid(1000).saturating_sub(skew_ms).saturating_sub(1);
            bounds.push(format!(">= {}", self.bind(id(least_id(ms)))));
        }
        bounds
    }

    fn others(&mut self, filter: &Filter) -> String {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut sql = String::new();
        let mut add = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                sql.push_str(&format!(" AND {condition} {}", self.bind(value)));
            }
        };
        add("j.owner =", filter.owner.as_deref().map(text));
        add("j.language =", filter.language.as_deref().map(text));
        add("j.created_at >=", filter.created_after.map(|at| Value::Integer(at.0)));
        add("j.created_at <", filter.created_before.map(|at| Value::Integer(at.0)));
        let ended = filter.status.filter(|status| status.has_ended());
        add("j.status =", ended.map(|status| text(status.as_str())));
        add("j.verdict =", filter.verdict.map(|verdict| text(verdict.as_str())));
        // A partial index may be used only where the query says the same as the index.
        if let Some(Status::Failed | Status::Cancelled) = filter.status {
            sql.push_str(" AND j.status IN ('failed', 'cancelled')");
        }
        if filter.verdict.is_some_and(|verdict| verdict != Verdict::Accepted) {
            sql.push_str(" AND j.verdict <> 'accepted'");
        }
        sql
    }
}

fn leading_index(filter: &Filter) -> &'static str {
    // First of all, so that what a client costs depends on its own jobs and not on everybody's.
    if filter.owner.is_some() {
        "INDEXED BY jobs_owner"
    } else if matches!(filter.status, Some(Status::Failed | Status::Cancelled)) {
        "INDEXED BY jobs_status"
    } else if filter.verdict.is_some_and(|verdict| verdict != Verdict::Accepted) {
        "INDEXED BY jobs_verdict"
    } else if filter.language.is_some() {
        "INDEXED BY jobs_language"
    } else {
        "INDEXED BY sqlite_autoindex_jobs_1"
    }
}

/// An id above those of all jobs created before this time; `None` where nothing can be said.
fn first_id_after(time: Timestamp, skew_ms: i64) -> Option<JobId> {
    let ms = time.0.div_euclid(1000).checked_add(skew_ms)?.checked_add(1)?;
    (ms < 1 << 48).then(|| least_id(ms))
}

/// The latest ended jobs, newest first.
pub(super) fn recent(conn: &Connection, limit: usize) -> Result<Vec<Ended>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, language, status, verdict, compile_time_ms, compile_cached, execution_time_ms, wall_time_ms,
                created_at, started_at, completed_at
         FROM jobs INDEXED BY jobs_completed_at WHERE completed_at IS NOT NULL
         ORDER BY completed_at DESC LIMIT ?1",
    )?;
    let mut rows = statement.query([limit])?;
    let mut sample = Vec::new();
    while let Some(row) = rows.next()? {
        let columns = Columns::new(row)?;
        let duration = |column| Ok::<_, StoreError>(columns.duration(column)?.unwrap_or(Duration::ZERO));
        let completed_at = Timestamp(columns.get("completed_at")?);
        // A job that was cancelled before it ran has waited until then.
        let waited_until = columns.time("started_at")?.unwrap_or(completed_at);
        sample.push(Ended {
            language: columns.get("language")?,
            status: columns.status()?,
            verdict: columns.verdict()?,
            queue: waited_until.since(Timestamp(columns.get("created_at")?)),
            compile: duration("compile_time_ms")?,
            compile_cached: columns.get::<Option<bool>>("compile_cached")?.unwrap_or(false),
            cpu: duration("execution_time_ms")?,
            wall: duration("wall_time_ms")?,
            completed_at,
        });
    }
    Ok(sample)
}

const MICROS_A_DAY: i64 = 86_400_000_000;

/// The index that has the jobs of an owner, and the condition; without an owner, all of them.
fn of_owner(owner: Option<&str>) -> (&'static str, &'static str) {
    match owner {
        Some(_) => ("jobs INDEXED BY jobs_owner", "owner = ?1"),
        // The parameter is bound all the same, so it must be there.
        None => ("jobs INDEXED BY sqlite_autoindex_jobs_1", "?1 IS NULL"),
    }
}

/// Ids and their number, from an index alone.
pub(super) fn page(conn: &Connection, owner: Option<&str>, offset: u64, limit: usize) -> Result<Page, StoreError> {
    let (jobs, theirs) = of_owner(owner);
    // One snapshot, so that page and total go together.
    let snapshot = conn.unchecked_transaction()?;
    let total = conn
        .prepare_cached(&format!("SELECT count(*) FROM {jobs} WHERE {theirs}"))?
        .query_row([owner], |row| row.get::<_, u64>(0))?;
    let ids = conn
        .prepare_cached(&format!("SELECT id FROM {jobs} WHERE {theirs} ORDER BY id DESC LIMIT ?2 OFFSET ?3"))?
        .query_map(
            params![owner, i64::try_from(limit).unwrap_or(i64::MAX), i64::try_from(offset).unwrap_or(i64::MAX)],
            |row| row.get::<_, [u8; 16]>(0),
        )?
        .map(|id| id.map(JobId::from_bytes))
        .collect::<Result<_, _>>()?;
    snapshot.finish()?;
    Ok(Page { ids, total })
}

/// One pass over the book.
pub(super) fn census(conn: &Connection, owner: Option<&str>) -> Result<Census, StoreError> {
    let (from, theirs) = match owner {
        Some(_) => of_owner(owner),
        None => ("jobs NOT INDEXED", "?1 IS NULL"),
    };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT language, status = 'pending' AS waits, verdict, signal, created_at / {MICROS_A_DAY} AS day, count(*)
         FROM {from} WHERE {theirs} GROUP BY 1, 2, 3, 4, 5"
    ))?;
    let mut rows = statement.query([owner])?;
    let mut tallies = Vec::new();
    while let Some(row) = rows.next()? {
        let verdict: Option<String> = row.get(2)?;
        let verdict = verdict.map(|verdict| verdict.parse()).transpose().map_err(StoreError::Damaged)?;
        tallies.push(Tally {
            language: row.get(0)?,
            pending: row.get(1)?,
            verdict,
            signal: row.get(3)?,
            day: row.get(4)?,
            jobs: row.get(5)?,
        });
    }
    let size =
        conn.query_row("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", [], |row| {
            row.get(0)
        })?;
    Ok(Census { tallies, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_core::Timestamp;

    fn plan(filter: &Filter) -> String {
        let conn = Connection::open_in_memory().expect("open");
        conn.execute_batch(include_str!("../../migrations/sqlite/0001_jobs.sql")).expect("schema");
        let Listing { sql, values } = Listing::of(filter, 50, 1000);
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepare");
        let lines = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).expect("query");
        lines.map(|line| line.expect("line")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn no_listing_sorts_or_scans_the_book() {
        let filter = Filter::default;
        let filters = [
            (filter(), "sqlite_autoindex_jobs_1"),
            (Filter { before: Some(least_id(5)), ..filter() }, "sqlite_autoindex_jobs_1"),
            (Filter { created_before: Some(Timestamp(5)), ..filter() }, "sqlite_autoindex_jobs_1"),
            (Filter { owner: Some("o".into()), verdict: Some(Verdict::WrongAnswer), ..filter() }, "jobs_owner"),
            (Filter { language: Some("c".into()), created_after: Some(Timestamp(5)), ..filter() }, "jobs_language"),
            (Filter { status: Some(Status::Failed), ..filter() }, "jobs_status"),
            (Filter { status: Some(Status::Completed), ..filter() }, "sqlite_autoindex_jobs_1"),
            (Filter { verdict: Some(Verdict::WrongAnswer), ..filter() }, "jobs_verdict"),
            (Filter { verdict: Some(Verdict::Accepted), ..filter() }, "sqlite_autoindex_jobs_1"),
        ];
        for (filter, index) in filters {
            let plan = plan(&filter);
            assert!(plan.contains(&format!("j USING INDEX {index}")), "{filter:?}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
        }
    }

    #[test]
    fn what_waits_and_what_runs_is_found_in_the_narrow_tables() {
        for (status, table) in [(Status::Pending, "SCAN pending"), (Status::Running, "SCAN r")] {
            let plan = plan(&Filter { status: Some(status), ..Filter::default() });
            assert!(plan.contains(table), "{plan}");
            assert!(plan.contains("SEARCH j USING INTEGER PRIMARY KEY"), "{plan}");
        }
    }
}
