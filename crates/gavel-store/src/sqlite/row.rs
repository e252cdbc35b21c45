//! How values become columns and come back. What cannot come back is damage, and says whose.

use super::request::{Request, evidence_from_json};
use crate::{JobRecord, JobSummary, StoreError};
use gavel_core::check::Comparison;
use gavel_core::verdict::Evidence;
use gavel_core::{Bytes, CollectedFile, File, Job, JobId, Limits, Outcome, Status, Timestamp, Verdict};
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub(super) const BROUGHT: i32 = 0;
/// Where a job's origin is among its files: a path that none of them has.
pub(super) const ORIGIN: &str = "";
pub(super) const COLLECTED: i32 = 1;

/// A step of priority is worth this much waiting. So urgent jobs go first, and a job that has waited
/// long enough is as urgent as any: nothing starves.
const STEP_US: i64 = 10_000_000;

/// The place in the queue: lower is handed out sooner. SQL below repeats this formula (`RANK`).
pub(super) fn rank(created_at: Timestamp, priority: i64) -> i64 {
    created_at.0.saturating_sub(priority.saturating_mul(STEP_US))
}

pub(super) const RANK: &str = "j.created_at - j.priority * 10000000";

/// Whom the job tells of its end.
pub(super) fn called(job: &Job) -> Option<String> {
    job.callback.as_ref().map(|callback| gavel_core::callback::called(&callback.url))
}

pub(super) fn blob(id: &JobId) -> &[u8] {
    id.as_bytes()
}

pub(super) fn to_ms(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

pub(super) fn from_ms(ms: f64) -> Duration {
    // Rounded to whole nanoseconds, in which it was measured; a float-to-int cast saturates.
    Duration::from_nanos((ms * 1e6).round() as u64)
}

/// Reads the columns of one job's row; every error names the job.
pub(super) struct Columns<'a> {
    row: &'a Row<'a>,
    pub id: JobId,
}

impl<'a> Columns<'a> {
    /// `id` must be the first column.
    pub fn new(row: &'a Row<'a>) -> Result<Self, StoreError> {
        Ok(Self { row, id: id_at(row, 0)? })
    }

    /// For a row that is known by other means than its id.
    pub fn of(row: &'a Row<'a>, id: JobId) -> Self {
        Self { row, id }
    }

    pub fn damaged(&self, what: impl Display) -> StoreError {
        StoreError::Damaged(format!("job {}: {what}", self.id))
    }

    pub fn get<T: FromSql>(&self, column: &str) -> Result<T, StoreError> {
        self.row.get(column).map_err(|error| match StoreError::from(error) {
            StoreError::Damaged(what) => self.damaged(what),
            other => other,
        })
    }

    fn parse<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T, StoreError> {
        let text: String = self.get(column)?;
        text.parse().map_err(|error| self.damaged(error))
    }

    fn parse_if_any<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| text.parse().map_err(|error| self.damaged(error))).transpose()
    }

    pub fn time(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp))
    }

    pub fn duration(&self, column: &str) -> Result<Option<Duration>, StoreError> {
        Ok(self.get::<Option<f64>>(column)?.map(from_ms))
    }

    pub fn status(&self) -> Result<Status, StoreError> {
        self.parse("status")
    }

    pub fn verdict(&self) -> Result<Option<Verdict>, StoreError> {
        self.parse_if_any("verdict")
    }

    fn created_at(&self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp(self.get("created_at")?))
    }

    fn evidence(&self) -> Result<Evidence, StoreError> {
        match self.get::<Option<String>>("evidence")? {
            None => Ok(Evidence::new()),
            Some(text) => evidence_from_json(&text).map_err(|error| self.damaged(error)),
        }
    }

    /// Everything but the files.
    pub fn job(&self) -> Result<Job, StoreError> {
        let mut job = Job {
            language: self.get("language")?,
            source: self.get("source_code")?,
            stdin: self.get("stdin")?,
            args: Vec::new(),
            compiler_options: Vec::new(),
            env: BTreeMap::new(),
            files: Vec::new(),
            limits: Limits::standard(),
            expected_output: self.get("expected_output")?,
            stderr_to_stdout: false,
            network: false,
            runs: 1,
            priority: self.get("priority")?,
            interactive: None,
            collect: Vec::new(),
            callback: None,
            comparison: Comparison::default(),
            metadata: BTreeMap::new(),
            origin: None,
        };
        let text: String = self.get("request")?;
        let request: Request<'_> = serde_json::from_str(&text).map_err(|error| self.damaged(error))?;
        request.fill(&mut job);
        Ok(job)
    }

    pub fn summary(&self) -> Result<JobSummary, StoreError> {
        Ok(JobSummary {
            id: self.id,
            language: self.get("language")?,
            status: self.status()?,
            verdict: self.verdict()?,
            reason: self.get("reason")?,
            evidence: self.evidence()?,
            exit_code: self.get("exit_code")?,
            signal: self.get("signal")?,
            cpu: self.duration("execution_time_ms")?,
            wall: self.duration("wall_time_ms")?,
            memory_kb: self.get("memory_usage_kb")?,
            priority: self.get("priority")?,
            worker_id: self.get("worker_id")?,
            node: self.get("node")?,
            attempt: self.get("attempt")?,
            error_message: self.get("error_message")?,
            created_at: self.created_at()?,
            started_at: self.time("started_at")?,
            completed_at: self.time("completed_at")?,
        })
    }

    /// Everything but the files.
    pub fn record(&self) -> Result<JobRecord, StoreError> {
        let status = self.status()?;
        Ok(JobRecord {
            id: self.id,
            job: self.job()?,
            owner: self.get("owner")?,
            status,
            worker_id: self.get("worker_id")?,
            node: self.get("node")?,
            attempt: self.get("attempt")?,
            error_message: self.get("error_message")?,
            outcome: if status == Status::Completed { Some(Arc::new(self.outcome()?)) } else { None },
            created_at: self.created_at()?,
            started_at: self.time("started_at")?,
            completed_at: self.time("completed_at")?,
        })
    }

    fn outcome(&self) -> Result<Outcome, StoreError> {
        let missing = |column| self.damaged(format_args!("completed without {column}"));
        let duration = |column| self.duration(column)?.ok_or_else(|| missing(column));
        Ok(Outcome {
            verdict: self.verdict()?.ok_or_else(|| missing("verdict"))?,
            reason: self.get("reason")?,
            evidence: self.evidence()?,
            stdout: self.get("stdout")?,
            stderr: self.get("stderr")?,
            compile_output: self.get("compile_output")?,
            stdout_truncated: self.get("stdout_truncated")?,
            stderr_truncated: self.get("stderr_truncated")?,
            files: Vec::new(),
            exit_code: self.get("exit_code")?,
            signal: self.get("signal")?,
            cpu: duration("execution_time_ms")?,
            wall: duration("wall_time_ms")?,
            memory: Bytes::kib(self.get("memory_usage_kb")?),
            compile_time: duration("compile_time_ms")?,
            compile_cached: self.get("compile_cached")?,
        })
    }
}

pub(super) fn id_at(row: &Row<'_>, column: usize) -> Result<JobId, StoreError> {
    let bytes: [u8; 16] = row.get(column)?;
    Ok(JobId::from_bytes(bytes))
}

/// Adds to a job what it brought besides its row: its files and its origin.
pub(super) fn add_brought(job: &mut Job, conn: &Connection, seq: i64, count: u32, id: JobId) -> Result<(), StoreError> {
    for file in stored_files(conn, seq, BROUGHT, count, id)? {
        match file.path.as_str() {
            ORIGIN => job.origin = Some(file.content),
            _ => job.files.push(File { path: file.path, content: file.content }),
        }
    }
    Ok(())
}

pub(super) fn collected_files(
    conn: &Connection,
    seq: i64,
    count: u32,
    id: JobId,
) -> Result<Vec<CollectedFile>, StoreError> {
    stored_files(conn, seq, COLLECTED, count, id)
}

fn stored_files(
    conn: &Connection,
    seq: i64,
    kind: i32,
    count: u32,
    id: JobId,
) -> Result<Vec<CollectedFile>, StoreError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut statement =
        conn.prepare_cached("SELECT path, executable, content FROM job_files WHERE seq = ?1 AND kind = ?2 ORDER BY n")?;
    let mut rows = statement.query(params![seq, kind])?;
    let mut files = Vec::new();
    while let Some(row) = rows.next()? {
        files.push(CollectedFile { path: row.get(0)?, executable: row.get(1)?, content: row.get(2)? });
    }
    if files.len() != count as usize {
        return Err(StoreError::Damaged(format!("job {id}: {} of {count} files are there", files.len())));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_priority_is_worth_ten_seconds_of_waiting() {
        let early = Timestamp(0);
        let late = Timestamp(0).plus(Duration::from_secs(10));
        assert_eq!(rank(early, 0), rank(late, 1));
        assert!(rank(late.plus(Duration::from_micros(1)), 1) > rank(early, 0));
        assert!(rank(late, -1) > rank(late, 0));
    }

    #[test]
    fn durations_come_back_to_the_nanosecond() {
        for nanos in [0, 1, 999, 1_204_000, 1_234_567_891, 86_400_000_000_001] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(from_ms(to_ms(duration)), duration);
        }
    }
}
