//! Input that comes while a command runs.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use gavel_core::job::Tty;

/// What a command reads from as long as it runs, after its [`crate::Command::stdin`].
#[derive(Debug, Clone, Copy)]
pub struct Live<'a> {
    pub input: &'a LiveInput,
    /// A terminal of this size instead of pipes; what the command writes to stderr then comes as stdout.
    pub tty: Option<Tty>,
    /// Without input and output for so long the command is stopped.
    pub idle: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    Bytes(Vec<u8>),
    /// Nothing more will come.
    End,
    /// The terminal has this size now.
    Resize(Tty),
}

/// Wakes whoever waits for input in a poll. Cloned freely.
#[derive(Debug, Clone)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// There is something to take.
    pub fn ring(&self) {
        // A counter that is full is as readable as any other.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// It has been heard. Whoever calls this looks for input afterwards, or could miss some.
    pub(crate) fn hush(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }
}

type Take = dyn FnMut() -> Option<Typed> + Send;

/// A source that is asked when there is room for what it gives, and not before: so it fills up, and whoever types
/// has to wait.
pub struct LiveInput {
    bell: Bell,
    take: Mutex<Box<Take>>,
}

impl LiveInput {
    /// `take` never blocks; `bell` rings when it has something again after it had nothing.
    pub fn new(bell: Bell, take: impl FnMut() -> Option<Typed> + Send + 'static) -> Self {
        Self { bell, take: Mutex::new(Box::new(take)) }
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(crate) fn take(&self) -> Option<Typed> {
        let mut take = self.take.lock().unwrap_or_else(PoisonError::into_inner);
        (*take)()
    }
}

impl std::fmt::Debug for LiveInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveInput").finish_non_exhaustive()
    }
}
