//! The pool over a real store and a scripted backend: what happens to jobs when things go wrong.

use gavel_core::check::Comparison;
use gavel_core::{Board, Catalogue, Facts, JobId, Language, Limits, Status, Stop, Timestamp, Verdict};
use gavel_judge::Cache;
use gavel_judge::pool::{self, Parts, Pool, PoolOptions};
use gavel_sandbox::fake::{Fake, printed};
use gavel_sandbox::{Cancel, Command, Fault};
use gavel_store::faulty::{Call, Faulty};
use gavel_store::{
    Cancelled, Claimant, Event, Inserted, JobRecord, LocalQueue, NewJob, Queue, Quota, SqliteOptions, SqliteStore,
    Store, StoreError, contract,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

struct World {
    store: Arc<Faulty<SqliteStore>>,
    queue: Arc<LocalQueue>,
    board: Arc<Board>,
    options: PoolOptions,
    parts: Parts,
    _dir: TempDir,
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn language() -> Language {
    Language {
        id: "python3".into(),
        name: "Python".into(),
        source_file: Some("main.py".into()),
        extensions: vec![],
        compile: None,
        run: vec!["/bin/x".into()],
        env: BTreeMap::new(),
        limits: Limits::standard(),
        cap: Limits::standard_cap(),
        oom_markers: vec![],
        image: None,
        rootfs: None,
        backend: None,
        requires: vec![],
        packages: vec![],
        version_command: vec![],
        judge0_ids: vec![],
        sample: None,
    }
}

impl World {
    fn new(backend: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(dir.path().join("gavel.db"))).unwrap();
        let store = Arc::new(Faulty::new(store));
        let (queue, board) = (Arc::new(LocalQueue::default()), Arc::new(Board::default()));
        let parts = Parts {
            store: store.clone(),
            queue: queue.clone(),
            board: board.clone(),
            catalogue: Arc::new(Catalogue::new([language()])),
            backend: Arc::new(backend),
            cache: Arc::new(Cache::open(dir.path().join("cache"), 1 << 20).unwrap()),
        };
        let options = PoolOptions {
            node: "test".into(),
            min_workers: 1,
            max_workers: 1,
            idle_timeout: Duration::from_secs(60),
            lease: Duration::from_secs(60),
            max_attempts: 3,
            interactive_idle: Duration::from_secs(60),
            cleanup_interval: Duration::from_secs(60),
            retention: None,
        };
        Self { store, queue, board, options, parts, _dir: dir }
    }

    async fn start(&self) -> Pool {
        pool::start(self.options.clone(), self.parts.clone()).await.unwrap()
    }

    async fn submit(&self, stdin: &str, priority: i32) -> JobId {
        let mut job = contract::plain_job();
        (job.language, job.stdin, job.priority) = ("python3".into(), stdin.into(), priority);
        let id = JobId::now_v7();
        let new = NewJob { id, job, owner: None, idempotency: None, quota: Default::default(), created_at: now() };
        assert_eq!(self.store.insert(vec![new]).await.unwrap(), [Inserted::New]);
        self.queue.announce(1);
        id
    }

    async fn find(&self, id: JobId) -> JobRecord {
        self.store.find(id).await.unwrap().unwrap()
    }

    async fn ended(&self, id: JobId) -> JobRecord {
        let ended = async {
            let mut listener = self.queue.listen(id);
            while !self.find(id).await.status.has_ended() {
                while !matches!(listener.next().await, Some(Event::Ended(_)) | None) {}
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the job ends");
        self.find(id).await
    }
}

/// Waits as a program does that never ends.
fn block(cancel: &Cancel) -> Result<Facts, Fault> {
    let bell = cancel.bell();
    let mut fds = [PollFd::from_borrowed_fd(bell, PollFlags::IN)];
    poll(&mut fds, None).map_err(|e| Fault::new("poll", e))?;
    Ok(Facts { stopped: Some(Stop::Cancelled), ..printed("") })
}

fn echo() -> Fake {
    Fake::new(|command, _, on_output| {
        on_output(gavel_sandbox::Stream::Stdout, command.stdin);
        Ok(printed(command.stdin))
    })
}

fn stdout(record: &JobRecord) -> &[u8] {
    &record.outcome.as_ref().expect("it has an outcome").stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_is_told_what_the_book_says() {
    let backend = Fake::new(|command, _, _| match command.stdin {
        b"fault" => Err(Fault::new("on purpose", "a fault")),
        b"large" => Ok(printed(&[b'x'; 100_000][..])),
        stdin => Ok(printed(stdin)),
    });
    let mut world = World::new(backend);
    world.options.max_attempts = 1;
    let pool = world.start().await;
    for (stdin, told) in [("small", true), ("fault", true), ("large", false)] {
        let mut job = contract::plain_job();
        job.stdin = stdin.into();
        let id = JobId::now_v7();
        let mut listener = world.queue.listen(id);
        let new = NewJob {
            id,
            job,
            owner: Some("somebody".into()),
            idempotency: None,
            quota: Default::default(),
            created_at: now(),
        };
        assert_eq!(world.store.insert(vec![new]).await.unwrap(), [Inserted::New]);
        world.queue.announce(1);
        let end = loop {
            match listener.next().await {
                Some(Event::Ended(end)) => break end,
                Some(_) => {}
                None => panic!("the end is told"),
            }
        };
        assert_eq!(end.is_some(), told, "{stdin}");
        if let Some(record) = end {
            assert_eq!(*record, world.find(id).await);
        }
    }
    pool.drain(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_compared_by_the_rule_that_it_names() {
    let world = World::new(echo());
    let pool = world.start().await;
    for (rule, printed, expected, verdict) in [
        (Comparison::Native, "7\0\n", "7", Verdict::WrongAnswer),
        (Comparison::Judge0, "7\0\n", "7", Verdict::Accepted),
        (Comparison::Native, "", "", Verdict::Accepted),
        (Comparison::Judge0, "", "", Verdict::WrongAnswer),
        (Comparison::Judge0, "\n", "", Verdict::Accepted),
    ] {
        let mut job = contract::plain_job();
        (job.stdin, job.expected_output, job.comparison) = (printed.into(), Some(expected.into()), rule);
        let id = JobId::now_v7();
        let new = NewJob { id, job, owner: None, idempotency: None, quota: Quota::default(), created_at: now() };
        assert_eq!(world.store.insert(vec![new]).await.unwrap(), [Inserted::New]);
        world.queue.announce(1);
        let outcome = world.ended(id).await.outcome.expect("it has an outcome");
        assert_eq!(outcome.verdict, verdict, "{rule:?} {printed:?} {expected:?}: {}", outcome.reason);
    }
    pool.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_gets_its_own_result_once() {
    let mut world = World::new(echo());
    (world.options.min_workers, world.options.max_workers) = (2, 4);
    let pool = world.start().await;
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(world.submit(&format!("job {n}"), 0).await);
    }
    for (n, id) in ids.into_iter().enumerate() {
        let record = world.ended(id).await;
        assert_eq!((record.status, record.attempt), (Status::Completed, 1));
        assert_eq!(stdout(&record), format!("job {n}").as_bytes());
    }
    pool.drain(Duration::from_secs(5)).await;
    let done: u64 = world.board.snapshot().iter().map(|worker| worker.jobs_done).sum();
    assert_eq!(done, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_costs_an_attempt_and_not_the_job() {
    let runs = AtomicU32::new(0);
    let world = World::new(Fake::new(move |_, _, _| match runs.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Fault::new("test", "broken")),
        1 => panic!("a bug"),
        _ => Ok(printed("fine")),
    }));
    let pool = world.start().await;
    let id = world.submit("", 0).await;
    let record = world.ended(id).await;
    assert_eq!((record.status, record.attempt), (Status::Completed, 3));
    assert_eq!(stdout(&record), b"fine");
    pool.drain(Duration::from_secs(5)).await;
    let worker = &world.board.snapshot()[0];
    assert_eq!((worker.faults, worker.jobs_done), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_the_job_fails_and_says_nothing_of_our_insides() {
    let world = World::new(Fake::new(|_, _, _| Err(Fault::new("mount /secret/place", "EPERM"))));
    let pool = world.start().await;
    let id = world.submit("", 0).await;
    let record = world.ended(id).await;
    assert_eq!((record.status, record.attempt, record.outcome.is_none()), (Status::Failed, 3, true));
    let message = record.error_message.unwrap();
    assert!(message.contains("3 times") && !message.contains("secret"), "{message}");
    pool.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_cannot_be_opened_costs_no_attempt() {
    let tries = AtomicU32::new(0);
    let fake = echo().opening(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(Fault::new("open", "not yet")),
        _ => Ok(()),
    });
    let mut world = World::new(fake);
    // No sandbox is kept, so that it is opened for the job.
    world.options.min_workers = 0;
    let pool = world.start().await;
    let id = world.submit("x", 0).await;
    let record = world.ended(id).await;
    assert_eq!((record.status, stdout(&record)), (Status::Completed, b"x".as_slice()));
    pool.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_pending_jobs_can_be_cancelled() {
    let world = World::new(Fake::new(|command: &Command, cancel: &Cancel, _| match command.stdin {
        b"block" => block(cancel),
        other => Ok(printed(other)),
    }));
    let pool = world.start().await;
    let running = world.submit("block", 0).await;
    let mut listener = world.queue.listen(running);
    assert!(matches!(listener.next().await, Some(Event::Started { .. })));
    let pending = world.submit("next", 0).await;
    assert_eq!(world.store.cancel(pending, now()).await.unwrap(), Cancelled::Done);
    assert_eq!(world.store.cancel(running, now()).await.unwrap(), Cancelled::Wanted);
    world.queue.want_cancel(running);
    assert_eq!(world.ended(running).await.status, Status::Cancelled);
    assert_eq!(world.find(pending).await.status, Status::Cancelled);
    let after = world.submit("after", 0).await;
    assert_eq!(stdout(&world.ended(after).await), b"after");
    pool.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_only_the_row_knows_comes_with_the_heartbeat() {
    let mut world = World::new(Fake::new(|_, cancel, _| block(cancel)));
    world.options.lease = Duration::from_millis(600);
    let pool = world.start().await;
    let id = world.submit("", 0).await;
    let mut listener = world.queue.listen(id);
    assert!(matches!(listener.next().await, Some(Event::Started { .. })));
    assert_eq!(world.store.cancel(id, now()).await.unwrap(), Cancelled::Wanted);
    assert_eq!(world.ended(id).await.status, Status::Cancelled);
    pool.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_what_finishes_and_gives_back_the_rest() {
    let mut world = World::new(Fake::new(|command: &Command, cancel: &Cancel, _| match command.stdin {
        b"block" => block(cancel),
        other => Ok(printed(other)),
    }));
    (world.options.min_workers, world.options.max_workers) = (2, 2);
    let pool = world.start().await;
    let quick = world.submit("quick", 0).await;
    let stuck = world.submit("block", 0).await;
    let mut listener = world.queue.listen(stuck);
    assert!(matches!(listener.next().await, Some(Event::Started { .. })));
    pool.drain(Duration::from_millis(300)).await;
    assert_eq!(world.find(quick).await.status, Status::Completed);
    assert_eq!(world.find(stuck).await.status, Status::Pending);
    // It has kept its tries, and the next process runs it.
    let claimant = Claimant { node: "other".into(), workers: vec![0] };
    let claims =
        world.store.claim(claimant, now().plus(Duration::from_secs(5)), Duration::from_secs(60)).await.unwrap();
    assert_eq!((claims[0].key.id, claims[0].tries), (stuck, 1));
    assert!(claims[0].key.attempt > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_higher_priority_runs_first() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let world = World::new(Fake::new(move |command, _, _| {
        seen.lock().unwrap().push(String::from_utf8_lossy(command.stdin).into_owned());
        Ok(printed(""))
    }));
    let low = world.submit("low", -5).await;
    world.submit("normal", 0).await;
    world.submit("high", 5).await;
    let pool = world.start().await;
    world.ended(low).await;
    pool.drain(Duration::from_secs(5)).await;
    assert_eq!(*order.lock().unwrap(), ["high", "normal", "low"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_lease_is_lost_is_dropped() {
    let mut world = World::new(Fake::new(|command: &Command, cancel: &Cancel, _| {
        if command.stdin == b"slow" {
            block(cancel)?;
        }
        Ok(printed("late"))
    }));
    world.options.lease = Duration::from_millis(600);
    let id = world.submit("slow", 0).await;
    let pool = world.start().await;
    let mut listener = world.queue.listen(id);
    assert!(matches!(listener.next().await, Some(Event::Started { .. })));
    // As if this process had been away for an hour: somebody else takes the job.
    let later = now().plus(Duration::from_secs(3600));
    assert_eq!(world.store.sweep(later, 3).await.unwrap().requeued, 1);
    let claimant = Claimant { node: "other".into(), workers: vec![7] };
    let claims = world.store.claim(claimant, later, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(claims[0].key.id, id);
    pool.drain(Duration::from_secs(10)).await;
    let record = world.find(id).await;
    assert_eq!((record.status, record.node.as_deref()), (Status::Running, Some("other")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_stored_though_the_store_said_otherwise_is_told() {
    let world = World::new(echo());
    let away = StoreError::Unavailable("on purpose".into());
    world.store.lose_answer_nth(Call::Settle, 1, away);
    let id = world.submit("once", 0).await;
    let mut listener = world.queue.listen(id);
    let pool = world.start().await;
    let told = async {
        loop {
            match listener.next().await {
                Some(Event::Ended(end)) => break end,
                Some(_) => {}
                None => panic!("the end is told"),
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told).await.expect("the end is told");
    assert_eq!(*told.expect("with the record"), world.find(id).await);
    pool.drain(Duration::from_secs(10)).await;
    assert_eq!(world.store.calls(Call::Settle), 2);
    assert_eq!(world.board.snapshot().iter().map(|worker| worker.jobs_done).sum::<u64>(), 1, "counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_process_had_claimed_is_run_again() {
    let world = World::new(echo());
    let id = world.submit("again", 0).await;
    let claimant = Claimant { node: "test".into(), workers: vec![0] };
    assert_eq!(world.store.claim(claimant, now(), Duration::from_secs(3600)).await.unwrap().len(), 1);
    let pool = world.start().await;
    let record = world.ended(id).await;
    assert_eq!((record.status, record.attempt), (Status::Completed, 2));
    pool.drain(Duration::from_secs(5)).await;
}
