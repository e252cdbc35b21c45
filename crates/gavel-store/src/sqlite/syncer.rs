//! The thread that waits for the disk, so that the writer does not.
//!
//! The writer commits without an fsync: SQLite's log is one file in one order, so one fdatasync after any
//! number of commits makes all of them durable, and the next ones are written meanwhile. Whoever was promised
//! durability is answered from here. Claims are not: a worker has its next job before the disk has it.
//!
//! Once the disk has refused, this thread promises nothing any more: the kernel tells of a lost page once, so
//! the next fdatasync would succeed over a hole. The writer rescues the log ([`super::log`]) and starts anew.

use super::writer::Op;
use crate::{Depth, StoreError};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    disk: watch::Sender<Disk>,
    /// The next fdatasync fails, as where the kernel has lost a page: that one only.
    #[cfg(test)]
    pub refuse_once: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Disk {
    /// The last group that it has.
    synced: u64,
    /// It has refused a later one, or nobody asks it any more: what was committed after `synced` can be read,
    /// and a power cut may take it back.
    in_doubt: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            disk: watch::Sender::new(Disk { synced: 0, in_doubt: false }),
            #[cfg(test)]
            refuse_once: Default::default(),
        }
    }

    /// Call before the commit. The number goes to [`Syncer::send`] whatever becomes of the group.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns when the disk has all that could be read before this call.
    pub async fn reached(&self) -> Result<(), StoreError> {
        let begun = self.begun.load(Ordering::SeqCst);
        let known = |disk: &Disk| disk.synced >= begun || disk.in_doubt;
        let mut disk = *self.disk.borrow();
        if !known(&disk) {
            // The sender is here, so this does not end before its time.
            disk = self.disk.subscribe().wait_for(known).await.map_or(disk, |disk| *disk);
        }
        if disk.synced >= begun { Ok(()) } else { Err(refused()) }
    }

    pub fn is_in_doubt(&self) -> bool {
        self.disk.borrow().in_doubt
    }

    fn doubt(&self) {
        self.disk.send_modify(|disk| disk.in_doubt = true);
    }

    /// The disk has all that was committed. Only the writer can say so, and between two groups.
    pub fn rescued(&self) {
        let synced = self.begun.load(Ordering::SeqCst);
        self.disk.send_replace(Disk { synced, in_doubt: false });
    }
}

fn refused() -> StoreError {
    StoreError::Unavailable("the disk has refused the store's log".to_owned())
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
}

impl Syncer {
    pub fn start(progress: Arc<Progress>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("gavel-store-s".to_owned()).spawn(move || {
            let serving = Serving(&progress);
            serving.serve(&receiver);
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    pub fn send(&self, committed: Committed) {
        let Some(sender) = &self.sender else { return };
        if let Err(lost) = sender.send(committed) {
            let error = StoreError::Unavailable("the store's disk thread failed".to_owned());
            lost.0.group.into_iter().for_each(|op| op.fail(error.clone()));
        }
    }
}

/// Waits until everything is on the disk, or refused, and everybody is answered.
impl Drop for Syncer {
    fn drop(&mut self) {
        self.sender.take();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's disk thread ended in a panic");
        }
    }
}

struct Serving<'a>(&'a Progress);

/// After a panic nobody asks the disk any more, and readers must not wait for its answer.
impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.doubt();
        }
    }
}

impl Serving<'_> {
    fn serve(&self, receiver: &Receiver<Committed>) {
        let mut waiting: Vec<Committed> = Vec::new();
        let mut refused_before = false;
        while let Ok(first) = receiver.recv() {
            waiting.push(first);
            waiting.extend(receiver.try_iter());
            if waiting.last().is_some_and(|last| last.depth.pending > last.depth.running) {
                std::thread::sleep(PAUSE);
                waiting.extend(receiver.try_iter());
            }
            if !refused_before && let Err(error) = self.sync(&waiting) {
                tracing::error!(%error, "the store's log could not be written to the disk");
                refused_before = true;
                // Before anybody is answered: whoever comes again finds the writer warned.
                self.0.doubt();
            }
            if refused_before {
                waiting.drain(..).flat_map(|committed| committed.group).for_each(|op| op.fail(refused()));
                continue;
            }
            if let Some(last) = waiting.last() {
                self.0.disk.send_modify(|disk| disk.synced = last.number);
            }
            metrics::histogram!("gavel_store_sync_size")
                .record(waiting.iter().map(|c| c.group.len()).sum::<usize>() as f64);
            for Committed { group, at, .. } in waiting.drain(..) {
                metrics::histogram!("gavel_store_commit_seconds").record(at.elapsed().as_secs_f64());
                // Only claims have a follow-up, and they do not come here.
                group.into_iter().for_each(|op| drop(op.succeed()));
            }
        }
    }

    /// The log changes only when the writer has opened the database again.
    fn sync(&self, waiting: &[Committed]) -> io::Result<()> {
        #[cfg(test)]
        if self.0.refuse_once.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("on purpose"));
        }
        let mut synced: Option<&Arc<File>> = None;
        for Committed { log, .. } in waiting {
            if !synced.is_some_and(|other| Arc::ptr_eq(other, log)) {
                log.sync_data()?;
                synced = Some(log);
            }
        }
        Ok(())
    }
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
        drop(syncer);
        for mut answer in answers {
            assert_eq!(answer.try_recv().unwrap(), Ok(()));
        }
    }

    fn answer(receiver: oneshot::Receiver<Result<(), StoreError>>) -> Result<(), StoreError> {
        receiver.blocking_recv().unwrap()
    }

    #[test]
    fn a_disk_that_has_refused_once_is_not_believed_again() {
        let progress = Arc::new(Progress::new());
        let syncer = Syncer::start(Arc::clone(&progress)).unwrap();
        let send = |log| {
            let (committed, receiver) = committed(progress.begin(), log);
            syncer.send(committed);
            answer(receiver)
        };
        assert_eq!(send(file()), Ok(()));
        assert!(!progress.is_in_doubt());
        assert_eq!(send(refusing()), Err(refused()));
        assert!(progress.is_in_doubt(), "the writer must hear of it");
        // Over the hole, though the call itself would succeed.
        assert_eq!(send(file()), Err(refused()));
        assert!(progress.is_in_doubt());
    }

    #[test]
    fn what_comes_after_a_rescue_is_promised_again() {
        let progress = Arc::new(Progress::new());
        let syncer = Syncer::start(Arc::clone(&progress)).unwrap();
        let receivers: Vec<_> = [refusing(), file(), file()]
            .map(|log| {
                let (committed, receiver) = committed(progress.begin(), log);
                syncer.send(committed);
                receiver
            })
            .into();
        drop(syncer);
        assert!(receivers.into_iter().map(answer).all(|answer| answer == Err(refused())));
        let syncer = Syncer::start(Arc::clone(&progress)).unwrap();
        progress.rescued();
        assert_eq!(progress.reached().now_or_never(), Some(Ok(())));
        let number = progress.begin();
        assert_eq!(progress.reached().now_or_never(), None);
        let (committed, receiver) = committed(number, file());
        syncer.send(committed);
        assert_eq!(answer(receiver), Ok(()));
        assert_eq!(progress.reached().now_or_never(), Some(Ok(())));
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), future).await.expect("this should have happened by now")
    }

    #[tokio::test]
    async fn readers_wait_for_what_was_promised_before_them() {
        let progress = Arc::new(Progress::new());
        let syncer = Syncer::start(Arc::clone(&progress)).unwrap();
        assert_eq!(progress.reached().now_or_never(), Some(Ok(())), "nothing was promised");
        let number = progress.begin();
        assert_eq!(progress.reached().now_or_never(), None);
        syncer.send(committed(number, file()).0);
        assert_eq!(soon(progress.reached()).await, Ok(()));
        let number = progress.begin();
        let reader = progress.reached();
        syncer.send(committed(number, refusing()).0);
        assert_eq!(soon(reader).await, Err(refused()), "it must not be shown");
        assert_eq!(progress.reached().now_or_never(), Some(Err(refused())), "nor may it later");
    }

    /// A command that brings the thread down.
    struct Bomb;

    impl Op for Bomb {
        fn durability(&self) -> Durability {
            Durability::Full
        }

        fn weight(&self) -> usize {
            1
        }

        fn abandoned(&self) -> bool {
            false
        }

        fn run(&mut self, _: &mut Tx<'_>) -> Result<(), StoreError> {
            Ok(())
        }

        fn succeed(self: Box<Self>) -> Option<Box<dyn Op>> {
            panic!("on purpose")
        }

        fn fail(self: Box<Self>, _: StoreError) {}
    }

    #[tokio::test]
    async fn nobody_waits_for_a_thread_that_has_panicked_nor_believes_it() {
        let progress = Arc::new(Progress::new());
        let syncer = Syncer::start(Arc::clone(&progress)).unwrap();
        let (mut first, _receiver) = committed(progress.begin(), file());
        first.group = vec![Box::new(Bomb)];
        let second = progress.begin();
        let reader = progress.reached();
        syncer.send(first);
        assert_eq!(soon(reader).await, Err(refused()));
        assert!(progress.is_in_doubt(), "the writer must hear of it");
        let (second, receiver) = committed(second, file());
        syncer.send(second);
        assert!(!matches!(soon(receiver).await, Ok(Ok(()))));
    }
}
