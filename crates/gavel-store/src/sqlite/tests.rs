//! The contract on SQLite, and what only SQLite can go through.

use super::*;
use crate::contract::Fixture;
use std::sync::atomic::AtomicU64;
use tempfile::TempDir;

/// A store in a directory of its own, which goes with the fixture.
struct Files {
    directory: TempDir,
    max_depth: AtomicU64,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, max_depth: AtomicU64::new(1_000_000) }
    }

    fn options(&self) -> SqliteOptions {
        let max_depth = self.max_depth.load(Ordering::SeqCst);
        SqliteOptions { max_depth, ..SqliteOptions::new(self.directory.path().join("gavel.db")) }
    }

    fn open(&self) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(self.options()).expect("open"))
    }
}

#[async_trait]
impl Fixture for Files {
    async fn fresh(&self, max_depth: u64) -> Arc<dyn Store> {
        self.max_depth.store(max_depth, Ordering::SeqCst);
        self.open()
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store.close().await;
        self.open()
    }
}

mod contract {
    use super::Files;
    crate::store_contract!(Files::new());
    crate::token_contract!(Files::new());
}

mod walk {
    use super::Files;
    use crate::contract::model::random_walk;

    /// Time bounds the length: every step that writes waits for the disk.
    const STEPS: usize = 3000;

    #[tokio::test]
    async fn a_random_walk_ends_where_its_model_does() {
        random_walk(&Files::new(), 1, STEPS).await;
    }

    #[tokio::test]
    async fn another_random_walk_ends_where_its_model_does() {
        random_walk(&Files::new(), 2, STEPS).await;
    }
}

/// Everything that can go wrong around a running store.
mod trouble {
    use super::*;
    use crate::contract::{LEASE, at, claim_ids, claimant, completed, full_job, new_job, put};
    use gavel_core::{Status, Verdict};
    use std::sync::mpsc::channel;
    use std::time::Instant;

    /// A look at the file from outside, as by somebody with the sqlite3 shell.
    fn outside(files: &Files) -> Connection {
        Connection::open(files.options().path).expect("open from outside")
    }

    /// Keeps the writer busy until the returned sender is used or dropped, so that a group gathers.
    async fn hold(store: &Arc<SqliteStore>) -> std::sync::mpsc::Sender<()> {
        let (release, held) = channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let mut begun = Some(begun);
        let held = Mutex::new(held);
        let busy = store.clone();
        tokio::spawn(async move {
            let hold = move |_: &mut Tx<'_>| {
                begun.take().map(|begun| begun.send(()));
                let _released = held.lock().expect("lock").recv();
                Ok(())
            };
            busy.write(Durability::Full, 1, hold).await
        });
        has_begun.await.expect("the writer is busy");
        release
    }

    /// Lets the tasks that were spawned reach their first wait.
    async fn settle_down() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_takes_nobody_with_it() {
        spoil_a_group(|tx| {
            tx.conn.execute("INSERT INTO no_such_table VALUES (1)", [])?;
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_command_that_panics_takes_nobody_with_it() {
        spoil_a_group(|_| panic!("on purpose")).await;
    }

    /// Runs a command that inserts a job and then fails, in the middle of others.
    async fn spoil_a_group(fail: fn(&mut Tx<'_>) -> Result<(), StoreError>) {
        let files = Files::new();
        let store = files.open();
        let release = hold(&store).await;
        let insert = |n| {
            let store = store.clone();
            tokio::spawn(async move { store.insert(vec![new_job(at(n), n)]).await })
        };
        let before = insert(1);
        settle_down().await;
        let bad = {
            let store = store.clone();
            let work = move |tx: &mut Tx<'_>| {
                insert::insert(tx, &[new_job(at(2), 2)], 1000)?;
                fail(tx)
            };
            tokio::spawn(async move { store.write(Durability::Full, 1, work).await })
        };
        settle_down().await;
        let after = insert(3);
        settle_down().await;
        drop(release);
        assert_eq!(before.await.expect("task"), Ok(vec![Inserted::New]));
        assert!(matches!(bad.await.expect("task"), Err(StoreError::Unavailable(_))));
        assert_eq!(after.await.expect("task"), Ok(vec![Inserted::New]));
        assert_eq!(store.depth().await.map(|depth| depth.pending), Ok(2));
        assert_eq!(claim_ids(&*store, 9, at(9)).await, [new_job(at(1), 1).id, new_job(at(3), 3).id]);
    }

    #[tokio::test]
    async fn a_panic_costs_its_command_and_not_the_store() {
        let files = Files::new();
        let store = files.open();
        put(&*store, vec![new_job(at(1), 1)]).await;
        let panic = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            insert::insert(tx, &[new_job(at(2), 2)], 1000)?;
            panic!("on purpose");
        };
        let answer = store.write(Durability::Full, 1, panic).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        assert_eq!(store.depth().await.map(|depth| depth.pending), Ok(1));
        let read = store.read(|_| -> Result<(), StoreError> { panic!("on purpose") }).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        for n in 3..6 {
            put(&*store, vec![new_job(at(n), n)]).await;
            assert!(store.find(new_job(at(n), n).id).await.expect("find").is_some());
        }
    }

    #[tokio::test]
    async fn claims_that_nobody_waits_for_go_back_at_once() {
        let files = Files::new();
        let store = files.open();
        let ids = put(&*store, vec![new_job(at(1), 1), new_job(at(2), 2)]).await;

        // Given up before its turn.
        let release = hold(&store).await;
        let waiting = {
            let store = store.clone();
            tokio::spawn(async move { store.claim(claimant(1), at(3), LEASE).await })
        };
        settle_down().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        drop(release);
        assert_eq!(store.depth().await.map(|depth| depth.running), Ok(0));

        // Given up while it was carried out.
        let (gone, is_gone) = channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let (mut begun, is_gone) = (Some(begun), Mutex::new(is_gone));
        let slow = {
            let store = store.clone();
            let work = move |tx: &mut Tx<'_>| {
                begun.take().map(|begun| begun.send(()));
                let claims = claim::claim(tx, &claimant(1), at(3), LEASE)?;
                let _gone = is_gone.lock().expect("lock").recv();
                Ok(claims)
            };
            tokio::spawn(async move { store.write_or(Durability::Relaxed, 1, work, return_claims).await })
        };
        has_begun.await.expect("begun");
        slow.abort();
        assert!(slow.await.is_err());
        drop(gone);
        store.check().await.expect("check");
        assert_eq!(store.depth().await.map(|depth| (depth.pending, depth.running)), Ok((2, 0)));
        let claims = store.claim(claimant(2), at(4), LEASE).await.expect("claim");
        assert_eq!((claims[0].key, claims[0].tries), (ClaimKey { id: ids[0], attempt: 2 }, 1));
    }

    /// A worker that stands at the store.
    async fn stand(
        store: &Arc<SqliteStore>,
        worker: i32,
    ) -> tokio::task::JoinHandle<Result<Option<Claim>, StoreError>> {
        let store = store.clone();
        let standing = tokio::spawn(async move { store.claim_next("n", worker, || at(9), LEASE).await });
        settle_down().await;
        standing
    }

    #[tokio::test]
    async fn workers_that_stand_are_served_in_the_commit_that_brings_their_jobs() {
        let files = Files::new();
        let store = files.open();
        let (second, first) = (stand(&store, 2).await, stand(&store, 1).await);
        put(&*store, vec![new_job(at(1), 1), new_job(at(2), 2), new_job(at(3), 3)]).await;
        assert_eq!(store.depth().await.map(|depth| (depth.pending, depth.running)), Ok((1, 2)));
        for (standing, n) in [(first, 1), (second, 2)] {
            let claim = standing.await.expect("task").expect("stand").expect("a job");
            assert_eq!((claim.key.id, claim.worker), (new_job(at(n), n).id, n as i32));
        }
    }

    #[tokio::test]
    async fn a_group_that_fails_costs_who_stands_nothing() {
        let fail: fn(&mut Tx<'_>) -> Result<(), StoreError> = |tx| {
            tx.conn.execute("INSERT INTO no_such_table VALUES (1)", [])?;
            Ok(())
        };
        for fail in [fail, |_| panic!("on purpose")] {
            let files = Files::new();
            let store = files.open();
            let release = hold(&store).await;
            let standing = stand(&store, 1).await;
            let insert = {
                let store = store.clone();
                tokio::spawn(async move { store.insert(vec![new_job(at(1), 1)]).await })
            };
            settle_down().await;
            let bad = {
                let store = store.clone();
                tokio::spawn(async move { store.write(Durability::Full, 1, fail).await })
            };
            settle_down().await;
            drop(release);
            assert_eq!(insert.await.expect("task"), Ok(vec![Inserted::New]));
            assert!(matches!(bad.await.expect("task"), Err(StoreError::Unavailable(_))));
            let claim = standing.await.expect("task").expect("stand").expect("the job");
            assert_eq!(claim.key, ClaimKey { id: new_job(at(1), 1).id, attempt: 1 });
            assert_eq!(store.depth().await.map(|depth| (depth.pending, depth.running)), Ok((0, 1)));
        }
    }

    #[tokio::test]
    async fn a_claim_that_was_sent_but_never_received_goes_back() {
        let files = Files::new();
        let store = files.open();
        let mut standing = std::pin::pin!(store.claim_next("n", 1, || at(9), LEASE));
        assert!(is_pending(standing.as_mut()).await);
        put(&*store, vec![new_job(at(1), 1)]).await;
        assert_eq!(store.depth().await.map(|depth| depth.running), Ok(1), "its answer is under way");
        standing.set(store.claim_next("n", 1, || at(9), LEASE));
        store.check().await.expect("check");
        assert_eq!(store.depth().await.map(|depth| (depth.pending, depth.running)), Ok((1, 0)));
    }

    /// Polls once; is it pending?
    async fn is_pending(mut future: std::pin::Pin<&mut impl Future>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn who_stands_is_sent_away_when_the_store_closes() {
        let files = Files::new();
        let store = files.open();
        let standing = stand(&store, 1).await;
        store.close().await;
        assert!(matches!(standing.await.expect("task"), Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_lock_from_outside_is_waited_for_and_then_refused_and_leaves_nothing_broken() {
        let files = Files::new();
        let options = SqliteOptions { busy_timeout: Duration::from_millis(300), ..files.options() };
        let store = Arc::new(SqliteStore::open(options).expect("open"));
        let ids = put(&*store, vec![new_job(at(1), 1)]).await;
        let shell = outside(&files);
        shell.execute_batch("BEGIN EXCLUSIVE").expect("lock");
        let refused = store.insert(vec![new_job(at(2), 2)]).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(matches!(store.check().await, Err(StoreError::Unavailable(_))));
        assert!(store.find(ids[0]).await.expect("find").is_some(), "reads go on");

        let waiting = {
            let store = store.clone();
            tokio::spawn(async move { store.insert(vec![new_job(at(3), 3)]).await })
        };
        settle_down().await;
        shell.execute_batch("ROLLBACK").expect("unlock");
        assert_eq!(waiting.await.expect("task"), Ok(vec![Inserted::New]), "a short lock is only a wait");
        put(&*store, vec![new_job(at(2), 2)]).await;
        assert_eq!(claim_ids(&*store, 9, at(9)).await.len(), 3);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_work_goes_on_when_there_is_room() {
        let files = Files::new();
        let options = SqliteOptions { max_size: Some(Bytes::mib(2)), ..files.options() };
        let store = Arc::new(SqliteStore::open(options).expect("open"));
        let big = |n| {
            let mut new = new_job(at(n), n);
            new.job.stdin = vec![b'x'; 100_000];
            new
        };
        let mut stored = 0;
        let error = loop {
            match store.insert(vec![big(stored)]).await {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, StoreError::Full);
        assert!(stored > 5, "{stored} jobs fitted");
        assert_eq!(store.depth().await.map(|depth| depth.pending), Ok(stored), "the refused one is not counted");

        // What is there can be worked off, and makes room.
        let claims = store.claim(claimant(100), at(1000), LEASE).await.expect("claim");
        assert_eq!(claims.len() as u64, stored);
        for claim in &claims {
            store.settle(claim.key, at(1001), completed(Verdict::Accepted)).await.expect("settle");
        }
        assert_eq!(store.retain(at(2000), 100).await, Ok(stored));
        put(&*store, vec![big(stored + 1)]).await;
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_takes_results_but_no_new_jobs() {
        let files = Files::new();
        let store = files.open();
        put(&*store, vec![new_job(at(1), 1)]).await;
        drop(store);
        let options = SqliteOptions { min_free: Bytes(u64::MAX), ..files.options() };
        let store = Arc::new(SqliteStore::open(options).expect("open"));
        assert_eq!(store.insert(vec![new_job(at(2), 2)]).await, Err(StoreError::Full));
        for claim in store.claim(claimant(2), at(3), LEASE).await.expect("claim") {
            store.settle(claim.key, at(4), completed(Verdict::Accepted)).await.expect("settle");
        }
        assert_eq!(store.depth().await, Ok(Depth::default()));
    }

    #[tokio::test]
    async fn a_large_command_that_does_not_fit_fails_alone() {
        let files = Files::new();
        let options = SqliteOptions { max_size: Some(Bytes::mib(2)), ..files.options() };
        let store = Arc::new(SqliteStore::open(options).expect("open"));
        let release = hold(&store).await;
        let mut huge = new_job(at(1), 1);
        huge.job.stdin = vec![b'x'; 4_000_000];
        let insert = |new| {
            let store = store.clone();
            tokio::spawn(async move { store.insert(vec![new]).await })
        };
        let (huge, small) = (insert(huge), insert(new_job(at(2), 2)));
        settle_down().await;
        drop(release);
        assert_eq!(huge.await.expect("task"), Err(StoreError::Full));
        assert_eq!(small.await.expect("task"), Ok(vec![Inserted::New]));
    }

    #[tokio::test]
    async fn a_damaged_row_is_an_error_and_does_not_block_the_queue() {
        let files = Files::new();
        let store = files.open();
        let damages = [
            "UPDATE jobs SET request = '{' WHERE seq = 1",
            "UPDATE jobs SET request = '{\"limits\": 3}' WHERE seq = 2",
            "UPDATE jobs SET priority = 1 << 40 WHERE seq = 3",
            "UPDATE jobs SET language = CAST(x'ff' AS TEXT) WHERE seq = 4",
            "DELETE FROM job_files WHERE seq = 5",
        ];
        let mut jobs: Vec<_> = (0..6).map(|n| new_job(at(n), n)).collect();
        jobs[4].job.files = full_job(at(0)).job.files;
        let ids = put(&*store, jobs).await;
        for damage in damages {
            outside(&files).execute(damage, []).expect("damage");
        }
        for id in &ids[..5] {
            let found = store.find(*id).await;
            let Err(StoreError::Damaged(what)) = found else { panic!("{found:?}") };
            assert!(what.contains(&id.to_string()), "{what}");
        }
        assert_eq!(claim_ids(&*store, 1, at(9)).await, [ids[5]], "the good one is handed out");
        assert_eq!(store.depth().await.map(|depth| (depth.pending, depth.running)), Ok((0, 1)));
        let failed = Filter { status: Some(Status::Failed), before: Some(ids[2]), ..Filter::default() };
        let listed = store.list(failed, 9).await.expect("list");
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|job| job.error_message.as_deref().is_some_and(|m| m.contains("read back"))));
        for id in &ids[..5] {
            assert_eq!(store.delete(*id).await, Ok(Deleted::Done), "even a damaged job can be deleted");
        }
    }

    #[tokio::test]
    async fn damage_to_results_is_an_error_too() {
        let files = Files::new();
        let store = files.open();
        let ids = put(&*store, (0..6).map(|n| new_job(at(n), n)).collect()).await;
        for claim in store.claim(claimant(5), at(9), LEASE).await.expect("claim") {
            store.settle(claim.key, at(9), completed(Verdict::Accepted)).await.expect("settle");
        }
        let damages = [
            "UPDATE jobs SET status = 'done' WHERE seq = 1",
            "UPDATE jobs SET verdict = 'fine' WHERE seq = 2",
            "UPDATE jobs SET evidence = '[]' WHERE seq = 3",
            "UPDATE jobs SET stdout = NULL WHERE seq = 4",
            "UPDATE jobs SET output_files = 2 WHERE seq = 5",
            "DELETE FROM pending WHERE seq = 6",
        ];
        for damage in damages {
            assert_eq!(outside(&files).execute(damage, []).expect("damage"), 1);
        }
        for id in ids {
            let found = store.find(id).await;
            assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
        }
        assert!(matches!(store.list(Filter::default(), 9).await, Err(StoreError::Damaged(_))));
    }

    #[tokio::test]
    async fn a_database_that_is_deleted_under_the_server_is_noticed() {
        let files = Files::new();
        let store = files.open();
        store.check().await.expect("check");
        std::fs::remove_file(files.options().path).expect("remove");
        let checked = store.check().await;
        assert!(matches!(&checked, Err(StoreError::Unavailable(why)) if why.contains("deleted")), "{checked:?}");
    }

    #[tokio::test]
    async fn space_is_used_again() {
        let files = Files::new();
        let store = files.open();
        let size = || std::fs::metadata(files.options().path).expect("metadata").len();
        let mut sizes = Vec::new();
        for round in 0..6 {
            let start = round * 10_000;
            put(&*store, (0..300).map(|n| full_job_at(start + n)).collect()).await;
            for claim in store.claim(claimant(300), at(start + 500), LEASE).await.expect("claim") {
                store.settle(claim.key, at(start + 500), completed(Verdict::Accepted)).await.expect("settle");
            }
            assert_eq!(store.retain(at(start + 501), 1000).await, Ok(300));
            sizes.push(size());
        }
        assert!(sizes[5] <= sizes[1] + sizes[1] / 10, "the file grew: {sizes:?}");
        let log = files.options().path.with_extension("db-wal");
        let log = std::fs::metadata(log).expect("metadata").len();
        assert!(log <= 64 << 20, "the log is {log} bytes long");
    }

    fn full_job_at(n: u64) -> NewJob {
        let mut new = full_job(at(n));
        new.idempotency = None;
        new.job.stdin.truncate(5_000);
        new
    }

    /// A lone command must not wait for others to join it.
    #[tokio::test]
    async fn a_lone_command_is_carried_out_at_once() {
        let files = Files::new();
        let store = files.open();
        let mut fastest = Duration::MAX;
        for n in 0..50 {
            let started = Instant::now();
            put(&*store, vec![new_job(at(n), n)]).await;
            fastest = fastest.min(started.elapsed());
        }
        // Far above one fsync here and far below any timer that could be hidden inside.
        assert!(fastest < Duration::from_millis(20), "{fastest:?}");
    }
}

/// What is told, and when, of what the disk does not have.
mod disk {
    use super::*;
    use crate::contract::{LEASE, at, claimant, completed, new_job, put};
    use gavel_core::{Status, Verdict};
    use rusqlite::OpenFlags;
    use rusqlite::config::DbConfig;
    use std::time::SystemTime;
    use tokio::time::timeout;

    /// Only a failing test waits for it.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// Short: that something does not happen can only be watched for a while.
    const A_WHILE: Duration = Duration::from_millis(50);

    fn refuse_once(store: &SqliteStore) {
        store.shared.progress.refuse_once.store(true, Ordering::SeqCst);
    }

    fn is_refused<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }

    /// What the database has without its log, which may be lost behind a hole.
    fn jobs_without_the_log(files: &Files) -> Vec<JobId> {
        // Through SQLite: closing a file of our own would let go of the locks that this process has on it.
        let uri = format!("file:{}?immutable=1", files.options().path.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let conn = Connection::open_with_flags(uri, flags).expect("open");
        let mut statement = conn.prepare("SELECT id FROM jobs ORDER BY seq").expect("prepare");
        let ids = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("query");
        ids.map(|id| JobId::from_slice(&id.expect("row")).expect("an id")).collect()
    }

    fn log_size(files: &Files) -> u64 {
        std::fs::metadata(files.options().path.with_extension("db-wal")).expect("metadata").len()
    }

    #[tokio::test]
    async fn what_was_promised_is_shown_when_the_disk_has_it() {
        let files = Files::new();
        let store = files.open();
        let id = put(&*store, vec![new_job(at(1), 1)]).await[0];
        // A promise that is under way for as long as nobody synchronizes.
        store.shared.progress.begin();
        let mut find = std::pin::pin!(store.find(id));
        let mut list = std::pin::pin!(store.list(Filter::default(), 9));
        assert!(timeout(A_WHILE, find.as_mut()).await.is_err(), "it is shown too early");
        assert!(timeout(A_WHILE, list.as_mut()).await.is_err(), "it is listed too early");
        store.check().await.expect("check");
        assert!(timeout(PATIENCE, find).await.expect("shown").expect("find").is_some());
        assert_eq!(timeout(PATIENCE, list).await.expect("listed").expect("list").len(), 1);
    }

    #[tokio::test]
    async fn what_the_disk_refused_is_not_shown_before_it_has_it() {
        let files = Files::new();
        let store = files.open();
        let id = put(&*store, vec![new_job(at(1), 1)]).await[0];
        let claim = store.claim(claimant(1), at(2), LEASE).await.expect("claim").remove(0);
        refuse_once(&store);
        is_refused(store.settle(claim.key, at(3), completed(Verdict::Accepted)).await);
        refuse_once(&store);
        is_refused(store.find(id).await);
        refuse_once(&store);
        is_refused(store.list(Filter::default(), 9).await);
        // Nobody but the reader asks: that is enough for the disk to get it.
        let found = store.find(id).await.expect("find").expect("the job");
        assert_eq!(found.status, Status::Completed, "it was not undone");
        assert!(!store.shared.progress.is_in_doubt());
        assert_eq!(jobs_without_the_log(&files), [id], "it is durable now");
    }

    #[tokio::test]
    async fn after_a_refusal_nothing_is_acknowledged_on_top_of_a_log_with_a_hole() {
        let files = Files::new();
        // The schema is in the database then.
        drop(files.open());
        let store = files.open();
        let mut ids: Vec<_> = put(&*store, (0..200).map(|n| new_job(at(n), n)).collect()).await;
        let before = log_size(&files);
        refuse_once(&store);
        is_refused(store.insert(vec![new_job(at(300), 300)]).await);
        assert!(jobs_without_the_log(&files).is_empty(), "the log was too long for this test");

        put(&*store, vec![new_job(at(301), 301)]).await;
        ids.push(new_job(at(300), 300).id);
        assert_eq!(jobs_without_the_log(&files), ids, "all of the old log is in the database");
        assert!(log_size(&files) < before, "and the new one begins anew");
        ids.push(new_job(at(301), 301).id);
        for id in &ids {
            assert!(store.find(*id).await.expect("find").is_some());
        }
        let depth = Depth { pending: 202, running: 0, oldest_pending: Some(at(0)) };
        assert_eq!(store.depth().await, Ok(depth), "counted again");
        store.close().await;
        assert_eq!(files.open().depth().await, Ok(depth));
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_emptied_keeps_the_store_away_and_then_no_longer() {
        let files = Files::new();
        let options = SqliteOptions { busy_timeout: Duration::from_millis(50), ..files.options() };
        let store = Arc::new(SqliteStore::open(options).expect("open"));
        let id = put(&*store, vec![new_job(at(1), 1)]).await[0];
        let shell = Connection::open(files.options().path).expect("open from outside");
        let look = "SELECT count(*) FROM jobs";
        shell.execute_batch("BEGIN").expect("begin");
        shell.query_row(look, [], |_| Ok(())).expect("a snapshot of the log");
        refuse_once(&store);
        is_refused(store.insert(vec![new_job(at(2), 2)]).await);
        for _ in 0..2 {
            is_refused(store.insert(vec![new_job(at(3), 3)]).await);
            is_refused(store.claim(claimant(1), at(3), LEASE).await);
            is_refused(store.claim_next("n", 1, || at(3), LEASE).await);
            is_refused(store.sync().await);
            is_refused(store.find(id).await);
        }
        let stored: u64 = Connection::open(files.options().path)
            .and_then(|conn| conn.query_row(look, [], |row| row.get(0)))
            .expect("count");
        assert_eq!(stored, 2, "nothing came into the log meanwhile");
        shell.execute_batch("ROLLBACK").expect("end of the snapshot");
        put(&*store, vec![new_job(at(3), 3)]).await;
        assert!(store.find(id).await.expect("find").is_some());
        assert_eq!(store.depth().await.map(|depth| depth.pending), Ok(3));
    }

    /// Nobody knows whether the disk had refused it: that the next process can read it says nothing.
    #[test]
    fn a_log_that_a_dead_process_left_is_written_again() {
        let files = Files::new();
        drop(files.open());
        let dead = Connection::open(files.options().path).expect("open");
        dead.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("no checkpoint");
        dead.execute("UPDATE meta SET value = value + 1 WHERE name = 'checked'", []).expect("update");
        drop(dead);
        let log =
            std::fs::File::options().write(true).open(files.options().path.with_extension("db-wal")).expect("log");
        log.set_modified(SystemTime::UNIX_EPOCH).expect("set the time");
        let store = files.open();
        let metadata = log.metadata().expect("metadata");
        assert!(metadata.len() > 0 && metadata.modified().expect("a time") > SystemTime::UNIX_EPOCH, "{metadata:?}");
        drop(store);
    }

    #[tokio::test]
    async fn a_store_that_closes_after_a_refusal_leaves_a_whole_database() {
        let files = Files::new();
        let store = files.open();
        refuse_once(&store);
        is_refused(store.insert(vec![new_job(at(1), 1)]).await);
        drop(store);
        assert_eq!(jobs_without_the_log(&files), [new_job(at(1), 1).id]);
        assert_eq!(files.open().depth().await.map(|depth| depth.pending), Ok(1));
    }
}

/// Opening, and being refused.
mod opening {
    use super::*;
    use crate::contract::{NODE, at, claim_ids, new_job, put};

    fn refused(options: SqliteOptions) -> OpenError {
        let error = SqliteStore::open(options).err().expect("this should be refused");
        assert!(!error.remedy().is_empty());
        error
    }

    #[tokio::test]
    async fn a_second_server_on_the_same_directory_is_refused() {
        let files = Files::new();
        let store = files.open();
        let error = refused(files.options());
        let message = error.to_string();
        assert!(matches!(error, OpenError::InUse { pid, .. } if pid == Some(std::process::id())), "{message}");
        assert!(message.contains(&files.directory.path().display().to_string()), "{message}");
        assert!(matches!(SqliteStore::migrate(&files.options()), Err(OpenError::InUse { .. })));
        // Reading how far it is migrated disturbs nobody.
        let migrations = SqliteStore::migrations(&files.options()).expect("migrations");
        assert!(migrations.iter().all(|state| state.applied_at.is_some()));
        store.close().await;
        let store = files.open();
        drop(store);
        files.open();
    }

    #[tokio::test]
    async fn a_store_that_is_dropped_has_finished_what_was_queued() {
        let files = Files::new();
        let store = files.open();
        put(&*store, vec![new_job(at(0), 0)]).await;
        drop(store);
        assert_eq!(files.open().depth().await.map(|depth| depth.pending), Ok(1));
    }

    #[test]
    fn what_is_made_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let files = Files::new();
        let directory = files.directory.path().join("a/b");
        let store = SqliteStore::open(SqliteOptions::new(directory.join("gavel.db"))).expect("open");
        let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        for file in ["gavel.db", "gavel.db-wal", "gavel.db-shm", "gavel.lock"] {
            assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
        }
        drop(store);
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let files = Files::new();
        let file = files.directory.path().join("file");
        std::fs::write(&file, "not a directory").expect("write");
        let error = refused(SqliteOptions::new(file.join("gavel.db")));
        assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
        assert!(error.to_string().contains(&file.display().to_string()));
    }

    #[test]
    fn a_file_that_is_no_database_is_left_alone() {
        let files = Files::new();
        let text = "This is a letter, and not a database at all. ".repeat(100);
        std::fs::write(files.options().path, &text).expect("write");
        let error = refused(files.options());
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
        assert_eq!(std::fs::read_to_string(files.options().path).expect("read"), text);
    }

    #[test]
    fn a_database_of_another_program_is_left_alone() {
        let files = Files::new();
        let conn = Connection::open(files.options().path).expect("open");
        conn.execute_batch("CREATE TABLE songs (title TEXT)").expect("create");
        drop(conn);
        let error = refused(files.options());
        assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    }

    #[test]
    fn a_database_of_a_newer_gavel_is_refused() {
        let files = Files::new();
        drop(files.open());
        let conn = Connection::open(files.options().path).expect("open");
        conn.execute("INSERT INTO schema_migrations VALUES (99, 'from the future', 0)", []).expect("insert");
        drop(conn);
        let error = refused(files.options());
        assert!(matches!(error, OpenError::TooNew { found: 99, known: 1..99, .. }), "{error:?}");
        assert!(error.to_string().contains("newer Gavel"));
    }

    #[test]
    fn a_database_that_somebody_keeps_locked_is_told_apart() {
        let files = Files::new();
        drop(files.open());
        let conn = Connection::open(files.options().path).expect("open");
        conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").expect("lock");
        let error = refused(SqliteOptions { busy_timeout: Duration::from_millis(50), ..files.options() });
        assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
    }

    #[test]
    fn a_cut_off_database_is_refused_and_not_a_panic() {
        let files = Files::new();
        drop(files.open());
        let path = files.options().path;
        let whole = std::fs::read(&path).expect("read");
        for length in [1, 100, 5000, whole.len() / 2] {
            std::fs::write(&path, &whole[..length]).expect("write");
            let error = SqliteStore::open(files.options()).err();
            assert!(
                matches!(error, Some(OpenError::NotADatabase { .. } | OpenError::Damaged { .. })),
                "{length} of {} bytes: {error:?}",
                whole.len()
            );
        }
    }

    #[test]
    fn a_disk_without_room_is_told_apart() {
        let files = Files::new();
        let error = refused(SqliteOptions { max_size: Some(Bytes::kib(8)), ..files.options() });
        assert!(matches!(error, OpenError::Full { .. }), "{error:?}");
    }

    #[test]
    fn migrations_are_applied_once() {
        let files = Files::new();
        let states = || SqliteStore::migrations(&files.options()).expect("migrations");
        assert!(states().iter().all(|state| state.applied_at.is_none()));
        assert_eq!(SqliteStore::migrate(&files.options()).expect("migrate"), states().len());
        assert_eq!(SqliteStore::migrate(&files.options()).expect("migrate"), 0);
        assert!(states().iter().all(|state| state.applied_at.is_some()));
    }

    #[tokio::test]
    async fn jobs_of_an_older_gavel_are_run_and_read() {
        let files = Files::new();
        let store = files.open();
        let ids = put(&*store, vec![new_job(at(0), 0), new_job(at(1), 1)]).await;
        assert_eq!(claim_ids(&*store, 1, at(2)).await, ids[..1]);
        store.close().await;
        drop(store);
        let older = Connection::open(files.options().path).expect("open");
        older
            .execute_batch(
                "DROP TABLE deliveries; DROP TABLE delivery_tries; ALTER TABLE pending DROP COLUMN callback;
                 ALTER TABLE running DROP COLUMN callback; DROP TABLE tokens; DROP TABLE owner_days;
                 DROP INDEX jobs_owner_open; DELETE FROM meta WHERE name = 'token_changes';
                 DELETE FROM schema_migrations WHERE version > 1;",
            )
            .expect("the schema of before");
        drop(older);
        let store = files.open();
        store.take_back(NODE.to_owned(), at(3), 3).await.expect("take back");
        assert_eq!(claim_ids(&*store, 2, at(3)).await, ids);
        assert_eq!(store.delivery(ids[0]).await, Ok(None));
    }
}

/// The tokens of a database that a server has open.
mod beside {
    use super::*;
    use crate::contract::{at, new_job, put};
    use crate::token::{Quota, Scopes, Token, TokenCreated};

    fn token(name: &str) -> Token {
        Token {
            id: uuid::Uuid::now_v7(),
            name: name.to_owned(),
            owner: name.to_owned(),
            hash: [name.len() as u8; 32],
            scopes: Scopes::all(),
            rate: None,
            quota: Quota::default(),
            created_at: at(1),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        }
    }

    #[tokio::test]
    async fn tokens_are_changed_beside_a_server_that_goes_on_writing() {
        let files = Files::new();
        let store = files.open();
        let before = store.token_changes().await.expect("changes");
        let mut book = TokenBook::open(&files.options()).expect("open beside");
        for n in 0..20 {
            put(&*store, vec![new_job(at(n), n)]).await;
            let name = "x".repeat(n as usize + 1);
            assert_eq!(book.create(&token(&name)).expect("create"), TokenCreated::Done);
        }
        assert_eq!(store.tokens().await.expect("tokens").len(), 20);
        assert_ne!(store.token_changes().await.expect("changes"), before);
        assert!(book.revoke("x", at(9)).expect("revoke").is_some());
        assert_eq!(book.list().expect("list"), store.tokens().await.expect("tokens"));
        // Neither the lock of the directory nor the log is gone with it.
        drop(book);
        assert!(matches!(SqliteStore::open(files.options()).err(), Some(OpenError::InUse { .. })));
        put(&*store, vec![new_job(at(99), 99)]).await;
        store.close().await;
        assert_eq!(files.open().depth().await.expect("depth").pending, 21);
    }

    #[tokio::test]
    async fn tokens_can_be_made_before_the_first_start_and_keep_no_server_out() {
        let files = Files::new();
        let mut book = TokenBook::open(&files.options()).expect("open");
        let store = files.open();
        assert_eq!(book.create(&token("a")).expect("create"), TokenCreated::Done);
        assert_eq!(store.tokens().await.expect("tokens").len(), 1);
    }

    /// Else each job of an owner with a quota would cost a look at all that the owner ever submitted.
    #[test]
    fn open_jobs_are_counted_by_their_own_index() {
        let files = Files::new();
        drop(files.open());
        let conn = super::super::open::connect_writer(&files.options()).expect("open");
        let explain = format!("EXPLAIN QUERY PLAN {}", super::super::tokens::OPEN_JOBS);
        let plan: Vec<String> = {
            let mut statement = conn.prepare(&explain).expect("prepare");
            let rows = statement.query_map(("ada", 5), |row| row.get(3)).expect("query");
            rows.map(|row| row.expect("a row")).collect()
        };
        assert!(plan.iter().any(|step| step.contains("INDEX jobs_owner_open (owner=?)")), "{plan:?}");
    }

    #[test]
    fn a_server_of_another_version_is_left_alone() {
        let files = Files::new();
        let _store = files.open();
        let conn = Connection::open(files.options().path).expect("open");
        conn.execute("DELETE FROM schema_migrations WHERE version > 1", []).expect("delete");
        let error = TokenBook::open(&files.options()).err().expect("it is refused");
        assert!(matches!(error, OpenError::OtherVersion { found: 1, .. }), "{error:?}");
    }
}

/// The process is killed in the middle of its work, again and again.
mod crash {
    use super::*;
    use crate::contract::crash::{Promises, work_until_killed};
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    const DIRECTORY: &str = "GAVEL_STORE_CRASH_DIRECTORY";
    const SEED: &str = "GAVEL_STORE_CRASH_SEED";

    /// Not a test by itself: the process that the next one kills.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn child() {
        let Ok(directory) = std::env::var(DIRECTORY) else { return };
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).expect("a seed");
        let options = SqliteOptions::new(PathBuf::from(directory).join("gavel.db"));
        work_until_killed(Arc::new(SqliteStore::open(options).expect("open")), seed).await;
    }

    fn start(files: &Files, seed: u64) -> Child {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["sqlite::tests::crash::child", "--exact", "--nocapture"])
            .env(DIRECTORY, files.directory.path())
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the child")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_acknowledged_survives_a_kill() {
        let files = Files::new();
        let mut promises = Promises::default();
        for round in 0..4 {
            let mut child = start(&files, round);
            let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
            let until = Instant::now() + Duration::from_secs(60);
            let enough = promises.len() + 2000;
            let mut killed = false;
            // Read on after the kill: what is in the pipe was acknowledged too.
            for line in lines.map_while(Result::ok) {
                promises.hear(&line);
                assert!(Instant::now() < until, "the child does too little");
                if !killed && promises.len() >= enough {
                    let error = SqliteStore::open(files.options()).err().expect("the child has it");
                    assert!(matches!(error, OpenError::InUse { pid, .. } if pid == Some(child.id())), "{error:?}");
                    child.kill().expect("kill");
                    killed = true;
                }
            }
            assert!(killed, "the child ended by itself");
            child.wait().expect("wait");
            let store = files.open();
            promises.check(&*store).await;
            store.close().await;
        }
        let store = files.open();
        promises.finish(&*store).await;
    }
}
