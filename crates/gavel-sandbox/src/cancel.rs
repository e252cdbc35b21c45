//! A request to stop, which wakes whoever waits in a poll.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cloned freely; one `cancel` stops all that hold it.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wanted: AtomicBool,
    bell: OwnedFd,
}

impl Cancel {
    pub fn new() -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { wanted: AtomicBool::new(false), bell })))
    }

    pub fn cancel(&self) {
        self.0.wanted.store(true, Ordering::SeqCst);
        // The counter stays above zero for ever, so every later poll returns at once. A full counter
        // is as readable as any other.
        let _ = rustix::io::write(&self.0.bell, &1u64.to_ne_bytes());
    }

    /// As good as new for the next job, unless somebody holds it still or it has rung.
    pub fn recycled(mut self) -> Option<Self> {
        let unused = Arc::get_mut(&mut self.0).is_some_and(|inner| !*inner.wanted.get_mut());
        unused.then_some(self)
    }

    pub fn is_wanted(&self) -> bool {
        self.0.wanted.load(Ordering::SeqCst)
    }

    /// Readable once cancelled.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}
