//! How many jobs wait and run: kept in memory, exact, so that nobody has to count rows.

use crate::Depth;
use gavel_core::Timestamp;
use rusqlite::Connection;
use std::collections::BTreeMap;

/// Changed along with the rows, and undone when their transaction fails.
#[derive(Debug, Default)]
pub(super) struct Hot {
    pending: u64,
    running: u64,
    /// Creation times of the pending jobs, for the age of the oldest.
    created: BTreeMap<i64, u32>,
    undo: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Pending { created_at: i64, more: bool },
    Running { more: bool },
}

impl Hot {
    /// Counts the rows: at open, and when memory can no longer be trusted.
    pub fn count(conn: &Connection) -> rusqlite::Result<Self> {
        let mut hot = Self::default();
        let mut statement = conn.prepare("SELECT created_at FROM pending")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            hot.apply(Change::Pending { created_at: row.get(0)?, more: true });
        }
        hot.running = conn.query_row("SELECT count(*) FROM running", [], |r| r.get(0))?;
        Ok(hot)
    }

    pub fn depth(&self) -> Depth {
        Depth {
            pending: self.pending,
            running: self.running,
            oldest_pending: self.created.first_key_value().map(|(at, _)| Timestamp(*at)),
        }
    }

    pub fn pending(&self) -> u64 {
        self.pending
    }

    pub fn pending_added(&mut self, created_at: i64) {
        self.change(Change::Pending { created_at, more: true });
    }

    pub fn pending_removed(&mut self, created_at: i64) {
        self.change(Change::Pending { created_at, more: false });
    }

    pub fn running_added(&mut self) {
        self.change(Change::Running { more: true });
    }

    pub fn running_removed(&mut self) {
        self.change(Change::Running { more: false });
    }

    pub fn committed(&mut self) {
        self.undo.clear();
    }

    pub fn rolled_back(&mut self) {
        while let Some(change) = self.undo.pop() {
            self.apply(match change {
                Change::Pending { created_at, more } => Change::Pending { created_at, more: !more },
                Change::Running { more } => Change::Running { more: !more },
            });
        }
    }

    fn change(&mut self, change: Change) {
        self.undo.push(change);
        self.apply(change);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Pending { created_at, more: true } => {
                self.pending += 1;
                *self.created.entry(created_at).or_insert(0) += 1;
            }
            Change::Pending { created_at, more: false } => {
                self.pending -= 1;
                if let Some(count) = self.created.get_mut(&created_at) {
                    *count -= 1;
                    if *count == 0 {
                        self.created.remove(&created_at);
                    }
                }
            }
            Change::Running { more: true } => self.running += 1,
            Change::Running { more: false } => self.running -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transaction_leaves_no_trace() {
        let mut hot = Hot::default();
        hot.pending_added(5);
        hot.pending_added(3);
        hot.committed();
        let before = hot.depth();
        assert_eq!(before, Depth { pending: 2, running: 0, oldest_pending: Some(Timestamp(3)) });
        hot.pending_removed(3);
        hot.running_added();
        hot.pending_added(1);
        assert_eq!(hot.depth().oldest_pending, Some(Timestamp(1)));
        hot.rolled_back();
        assert_eq!(hot.depth(), before);
    }
}
