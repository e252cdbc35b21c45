//! What the workers of this process are doing right now: written by the pool, read by the API.

use crate::job::JobId;
use crate::units::Timestamp;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    Starting,
    Idle,
    Busy,
    /// Its sandbox failed and is being opened again.
    Recovering,
    Stopped,
}

impl WorkerState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Recovering => "recovering",
            Self::Stopped => "stopped",
        }
    }
}

/// One execution slot, as `GET /api/v1/workers` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerEntry {
    pub id: i32,
    pub node: String,
    pub backend: String,
    pub state: WorkerState,
    pub job: Option<JobId>,
    /// Jobs that it ended, with their result in the book; jobs that were given back do not count.
    pub jobs_done: u64,
    /// Times that a job met a fault of ours.
    pub faults: u64,
    /// Time spent on jobs since the worker started.
    pub busy: Duration,
    /// When it entered its state.
    pub since: Timestamp,
    pub started_at: Timestamp,
}

/// All workers of this process. Held only for a copy, never across a wait.
#[derive(Debug, Default)]
pub struct Board {
    workers: Mutex<Vec<WorkerEntry>>,
}

impl Board {
    pub fn add(&self, entry: WorkerEntry) {
        self.lock().push(entry);
    }

    /// Moves a worker to another state; the time spent busy is added up here.
    pub fn change(&self, id: i32, now: Timestamp, state: WorkerState, job: Option<JobId>) {
        let mut workers = self.lock();
        let Some(worker) = workers.iter_mut().find(|w| w.id == id) else { return };
        if worker.state == WorkerState::Busy {
            worker.busy += now.since(worker.since);
        }
        worker.state = state;
        worker.job = job;
        worker.since = now;
    }

    pub fn count_done(&self, id: i32) {
        self.lock().iter_mut().filter(|w| w.id == id).for_each(|w| w.jobs_done += 1);
    }

    pub fn count_fault(&self, id: i32) {
        self.lock().iter_mut().filter(|w| w.id == id).for_each(|w| w.faults += 1);
    }

    pub fn snapshot(&self) -> Vec<WorkerEntry> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WorkerEntry>> {
        // A panic while the lock was held cannot leave a half-written entry behind.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
