//! Is there room for more? New jobs are refused a while before nothing fits any more, so that what was
//! accepted can still be carried to its end.

use super::SqliteOptions;
use gavel_core::Bytes;
use rusqlite::Connection;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the file system is asked.
const ASKED_EVERY: Duration = Duration::from_millis(100);
/// The part of `max_size` that is kept for results.
const KEPT_FOR_RESULTS: u64 = 8;

pub(super) struct Room {
    path: PathBuf,
    min_free: Bytes,
    max_size: Option<Bytes>,
    asked: Option<(Instant, bool)>,
}

impl Room {
    pub fn new(options: &SqliteOptions) -> Self {
        Self { path: options.path.clone(), min_free: options.min_free, max_size: options.max_size, asked: None }
    }

    /// May new jobs come in?
    pub fn for_new_jobs(&mut self, conn: &Connection) -> rusqlite::Result<bool> {
        let size_allows = match self.max_size {
            None => true,
            Some(max) => used(conn)? <= max.0 - max.0 / KEPT_FOR_RESULTS,
        };
        Ok(size_allows && self.disk_has_room())
    }

    fn disk_has_room(&mut self) -> bool {
        if let Some((at, answer)) = self.asked
            && at.elapsed() < ASKED_EVERY
        {
            return answer;
        }
        // Where the file system does not say, SQLite's own error will.
        let free = rustix::fs::statvfs(&self.path).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        let answer = free.map_or(true, |free| free >= self.min_free.0);
        self.asked = Some((Instant::now(), answer));
        answer
    }
}

/// Bytes of the database that hold something.
fn used(conn: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma| conn.prepare_cached(pragma)?.query_row([], |row| row.get::<_, u64>(0));
    Ok((number("PRAGMA page_count")? - number("PRAGMA freelist_count")?) * number("PRAGMA page_size")?)
}
