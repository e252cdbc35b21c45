//! The thread that waits for the disk, so that the writer does not.
//!
//! The writer commits without an fsync: SQLite's log is one file in one order, so one fdatasync after any
//! number of commits makes all of them durable, and the next ones are written meanwhile. Whoever was promised
//! durability is answered from here. Claims are not: a worker has its next job before the disk has it.

use super::writer::Op;
use crate::{Depth, StoreError};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Committed groups that may wait for the disk; the writer waits for room then, and with it everybody.
const WAITING: usize = 256;

/// With more jobs pending than run, no worker waits for an answer from here, and those who do have a queue
/// before them anyway: then more of them share one fdatasync.
const PAUSE: Duration = Duration::from_micros(500);

/// How far the disk is behind. Groups are numbered from 1, in the order of their commits.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last group with a promise that a reader may have seen.
    begun: AtomicU64,
    /// The last group that the disk has, or that it has refused.
    synced: watch::Sender<u64>,
}

impl Progress {
    pub fn new() -> Self {
        Self { begun: AtomicU64::new(0), synced: watch::Sender::new(0) }
    }

    /// Call before the commit. The number goes to [`Syncer::send`] whatever becomes of the group.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns when the disk has all that could be read before this call.
    pub async fn reached(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        if *self.synced.borrow() >= begun {
            return;
        }
        // The sender is here, so this does not end before its time.
        let _ = self.synced.subscribe().wait_for(|synced| *synced >= begun).await;
    }
}

/// Commands of one transaction, and the log that holds it.
pub(super) struct Committed {
    pub number: u64,
    pub group: Vec<Box<dyn Op>>,
    pub log: Arc<File>,
    pub at: Instant,
    pub depth: Depth,
}

pub(super) struct Syncer {
    /// `None` only while ending.
    sender: Option<SyncSender<Committed>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<AtomicBool>,
}

impl Syncer {
    pub fn start(progress: Arc<Progress>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let failed = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&failed);
        let thread = std::thread::Builder::new()
            .name("gavel-store-s".to_owned())
            .spawn(move || serve(&receiver, &progress, &tell))?;
        Ok(Self { sender: Some(sender), thread: Some(thread), failed })
    }

    pub fn send(&self, committed: Committed) {
        let Some(sender) = &self.sender else { return };
        if let Err(lost) = sender.send(committed) {
            let error = StoreError::Unavailable("the store's disk thread failed".to_owned());
            lost.0.group.into_iter().for_each(|op| op.fail(error.clone()));
        }
    }

    /// Has the disk refused since the last call? What is in the log then is in doubt.
    pub fn has_failed(&self) -> bool {
        self.failed.swap(false, Ordering::AcqRel)
    }
}

/// Waits until everything is on the disk and everybody is answered.
impl Drop for Syncer {
    fn drop(&mut self) {
        self.sender.take();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's disk thread ended in a panic");
        }
    }
}

fn serve(receiver: &Receiver<Committed>, progress: &Progress, failed: &AtomicBool) {
    let mut waiting: Vec<Committed> = Vec::new();
    while let Ok(first) = receiver.recv() {
        waiting.push(first);
        waiting.extend(receiver.try_iter());
        if waiting.last().is_some_and(|last| last.depth.pending > last.depth.running) {
            std::thread::sleep(PAUSE);
            waiting.extend(receiver.try_iter());
        }
        let result = sync(&waiting);
        if let Err(error) = &result {
            tracing::error!(%error, "the store's log could not be written to the disk");
            failed.store(true, Ordering::Release);
        }
        if let Some(last) = waiting.last() {
            progress.synced.send_replace(last.number);
        }
        metrics::histogram!("gavel_store_sync_size")
            .record(waiting.iter().map(|c| c.group.len()).sum::<usize>() as f64);
        for Committed { group, at, .. } in waiting.drain(..) {
            metrics::histogram!("gavel_store_commit_seconds").record(at.elapsed().as_secs_f64());
            for op in group {
                match &result {
                    // Only claims have a follow-up, and they do not come here.
                    Ok(()) => drop(op.succeed()),
                    Err(error) => op.fail(StoreError::Unavailable(error.to_string())),
                }
            }
        }
    }
}

/// The log changes only when the writer has opened the database again.
fn sync(waiting: &[Committed]) -> io::Result<()> {
    let mut synced: Option<&Arc<File>> = None;
    for Committed { log, .. } in waiting {
        if !synced.is_some_and(|other| Arc::ptr_eq(other, log)) {
            log.sync_data()?;
            synced = Some(log);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::writer::{Command, Durability, Tx};
    use super::*;
    use futures_util::FutureExt;
    use std::os::fd::OwnedFd;
    use tokio::sync::oneshot;

    fn op() -> (Box<dyn Op>, oneshot::Receiver<Result<(), StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let work = |_: &mut Tx<'_>| Ok(());
        let (durability, undelivered) = (Durability::Full, (|()| None) as fn(()) -> _);
        (Box::new(Command { durability, weight: 1, work, result: Some(()), reply: Some(reply), undelivered }), answer)
    }

    fn committed(number: u64, log: File) -> (Committed, oneshot::Receiver<Result<(), StoreError>>) {
        let (op, answer) = op();
        let (log, depth) = (Arc::new(log), Depth::default());
        (Committed { number, group: vec![op], log, at: Instant::now(), depth }, answer)
    }

    fn file() -> File {
        tempfile::tempfile().unwrap()
    }

    /// A file that the kernel refuses to synchronize.
    fn refusing() -> File {
        OwnedFd::from(std::io::pipe().unwrap().0).into()
    }

    #[test]
    fn who_was_promised_durability_is_answered_in_the_end() {
        let syncer = Syncer::start(Arc::new(Progress::new())).unwrap();
        let (mut answers, count) = (Vec::new(), 100);
        for number in 1..=count {
            let (committed, answer) = committed(number, file());
            syncer.send(committed);
            answers.push(answer);
        }
        assert!(!syncer.has_failed());
        drop(syncer);
        for mut answer in answers {
            assert_eq!(answer.try_recv().unwrap(), Ok(()));
        }
    }

    #[test]
    fn a_disk_that_refuses_is_not_taken_for_done() {
        let syncer = Syncer::start(Arc::new(Progress::new())).unwrap();
        let (committed, answer) = committed(1, refusing());
        syncer.send(committed);
        assert!(matches!(answer.blocking_recv().unwrap(), Err(StoreError::Unavailable(_))));
        assert!(syncer.has_failed(), "the writer must hear of it");
        assert!(!syncer.has_failed(), "once");
    }

    #[tokio::test]
    async fn readers_wait_for_what_was_promised_before_them() {
        let progress = Arc::new(Progress::new());
        let syncer = Syncer::start(Arc::clone(&progress)).unwrap();
        assert_eq!(progress.reached().now_or_never(), Some(()), "nothing was promised");
        let number = progress.begin();
        assert_eq!(progress.reached().now_or_never(), None);
        // Even one that the disk refuses: its commands fail, and nobody waits for ever.
        for log in [file(), refusing()] {
            syncer.send(committed(number, log).0);
            tokio::time::timeout(Duration::from_secs(10), progress.reached()).await.unwrap();
        }
    }
}
