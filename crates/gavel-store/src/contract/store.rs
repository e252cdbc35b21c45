//! The rules of the book.

use super::{
    Fixture, LEASE, NODE, at, claim_ids, claim_one, claimant, completed, full_job, full_outcome, id_at, new_job, put,
    with_key, with_priority,
};
use crate::{
    Cancelled, Claim, ClaimKey, Claimant, Deleted, Depth, Filter, Inserted, JobRecord, Lease, NewJob, Settlement,
    Store, StoreError, Swept,
};
use gavel_core::{JobId, Status, Timestamp, Verdict};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::timeout;

/// One test for each rule, on the stores of a fixture.
#[macro_export]
macro_rules! store_contract {
    ($fixture:expr) => {
        $crate::store_contract!(@ $fixture;
            a_job_comes_back_exactly_as_it_went_in
            an_outcome_comes_back_exactly_as_it_was_settled
            a_job_goes_from_pending_to_running_to_completed
            what_nobody_stored_is_not_found
            an_insert_that_is_repeated_is_stored_once
            an_unsynced_insert_is_an_insert
            jobs_are_claimed_oldest_first
            ten_seconds_of_waiting_weigh_as_much_as_a_step_of_priority
            a_claim_takes_at_most_one_job_for_each_worker
            no_job_is_claimed_twice_by_eight_at_once
            who_stands_for_a_job_gets_the_next_one
            who_stands_gets_what_waits_in_its_order
            who_stands_gets_no_job_before_its_time
            a_stand_that_is_given_up_takes_no_job_away
            jobs_that_come_while_many_stand_and_give_up_are_each_done_once
            a_released_job_waits_for_its_delay_and_then_has_its_old_place
            a_result_of_an_old_attempt_is_refused
            a_job_is_settled_once
            an_attempt_that_is_given_back_does_not_count
            a_lease_that_ran_out_is_taken_back_and_an_extended_one_is_not
            a_job_whose_last_attempt_is_lost_fails
            a_node_that_starts_anew_gets_back_its_own_claims_only
            a_failed_job_says_why
            a_pending_job_is_cancelled_at_once
            a_running_job_is_asked_to_stop
            a_job_that_should_stop_is_never_run_again
            a_job_that_has_ended_cannot_be_cancelled
            only_ended_jobs_are_deleted
            a_known_key_gives_the_same_job
            a_known_key_with_another_body_is_a_conflict
            a_key_belongs_to_its_owner
            a_key_counts_within_its_own_batch
            one_of_many_with_the_same_key_at_once_is_new
            a_key_outlives_a_job_that_is_erased_on_the_same_day
            a_full_queue_refuses_what_is_too_much_and_nothing_else
            the_depth_is_exact
            a_listing_is_newest_first_and_without_contents
            each_filter_keeps_what_it_names
            ids_that_tell_no_time_are_found_by_time_all_the_same
            a_listing_knows_what_waits_and_what_runs
            a_counted_page_knows_how_many_there_are
            a_census_counts_every_job_once
            pages_have_neither_gaps_nor_duplicates_while_jobs_come_in
            retention_erases_the_oldest_ended_jobs_and_no_others
            the_latest_ended_jobs_come_newest_first
            everything_is_there_after_opening_again
            a_store_that_works_says_so
            a_closed_store_is_unavailable
        );
    };
    (@ $fixture:expr; $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::contract::store::$rule(&$fixture).await;
            }
        )*
    };
}

const PLENTY: u64 = 1_000_000;

async fn find(store: &dyn Store, id: JobId) -> JobRecord {
    store.find(id).await.expect("find").expect("the job is there")
}

async fn status(store: &dyn Store, id: JobId) -> Status {
    find(store, id).await.status
}

pub async fn a_job_comes_back_exactly_as_it_went_in(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let new = full_job(at(5));
    put(&*store, vec![new.clone()]).await;
    let expected = JobRecord {
        id: new.id,
        job: new.job.clone(),
        owner: new.owner,
        status: Status::Pending,
        worker_id: None,
        node: None,
        attempt: 0,
        error_message: None,
        outcome: None,
        created_at: at(5),
        started_at: None,
        completed_at: None,
    };
    assert_eq!(find(&*store, new.id).await, expected);
    let claim = claim_one(&*store, at(6)).await;
    assert_eq!((claim.job, claim.created_at, claim.started_at), (new.job, at(5), at(6)));
}

pub async fn an_outcome_comes_back_exactly_as_it_was_settled(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let new = full_job(at(0));
    put(&*store, vec![new.clone()]).await;
    let claim = claim_one(&*store, at(1)).await;
    store.settle(claim.key, at(2), Settlement::Completed(Arc::new(full_outcome()))).await.expect("settle");
    let record = find(&*store, new.id).await;
    assert_eq!(record.job, new.job, "the request is still there");
    assert_eq!(record.outcome.as_deref(), Some(&full_outcome()));
}

pub async fn a_job_goes_from_pending_to_running_to_completed(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    let by = Claimant { node: NODE.to_owned(), workers: vec![7] };
    let claim = store.claim(by, at(1), LEASE).await.expect("claim").remove(0);
    assert_eq!((claim.key, claim.tries, claim.worker), (ClaimKey { id, attempt: 1 }, 1, 7));

    let running = find(&*store, id).await;
    assert_eq!((running.status, running.worker_id, running.attempt), (Status::Running, Some(7), 1));
    assert_eq!((running.node.as_deref(), running.started_at, running.completed_at), (Some(NODE), Some(at(1)), None));

    store.settle(claim.key, at(2), completed(Verdict::Accepted)).await.expect("settle");
    let done = find(&*store, id).await;
    assert_eq!((done.status, done.worker_id, done.attempt), (Status::Completed, Some(7), 1));
    assert_eq!((done.node.as_deref(), done.started_at, done.completed_at), (Some(NODE), Some(at(1)), Some(at(2))));
    assert_eq!(done.outcome.map(|outcome| outcome.verdict), Some(Verdict::Accepted));
    assert_eq!(claim_ids(&*store, 1, at(3)).await, Vec::<JobId>::new());
}

pub async fn what_nobody_stored_is_not_found(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = id_at(at(0), 1);
    assert_eq!(store.find(id).await, Ok(None));
    assert_eq!(store.cancel(id, at(0)).await, Ok(Cancelled::Unknown));
    assert_eq!(store.delete(id).await, Ok(Deleted::Unknown));
    let key = ClaimKey { id, attempt: 1 };
    assert_eq!(store.settle(key, at(0), Settlement::Cancelled).await, Err(StoreError::LeaseLost));
    assert_eq!(store.extend(vec![key], at(0), LEASE).await, Ok(vec![Lease::Lost]));
    assert_eq!(store.insert(vec![]).await, Ok(vec![]));
    assert_eq!(store.list(Filter::default(), 10).await, Ok(vec![]));
}

pub async fn an_insert_that_is_repeated_is_stored_once(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let (first, second) = (new_job(at(0), 1), new_job(at(0), 2));
    put(&*store, vec![first.clone()]).await;
    let again = store.insert(vec![first.clone(), second]).await;
    assert_eq!(again, Ok(vec![Inserted::Existing(first.id), Inserted::New]));
    assert_eq!(claim_ids(&*store, 5, at(1)).await.len(), 2);
}

pub async fn jobs_are_claimed_oldest_first(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, vec![new_job(at(30), 1), new_job(at(10), 2), new_job(at(20), 3), new_job(at(10), 1)]).await;
    assert_eq!(claim_ids(&*store, 3, at(40)).await, [ids[3], ids[1], ids[2]]);
    assert_eq!(claim_ids(&*store, 3, at(40)).await, [ids[0]]);
}

pub async fn ten_seconds_of_waiting_weigh_as_much_as_a_step_of_priority(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(
        &*store,
        vec![
            with_priority(new_job(at(100), 1), 0),
            with_priority(new_job(at(109), 2), 1), // urgent, and less than 10 s later
            with_priority(new_job(at(111), 3), 1), // urgent, but more than 10 s later
            with_priority(new_job(at(95), 4), -1), // older, but not urgent
            with_priority(new_job(at(200), 5), 100), // however urgent, the oldest one comes ...
            with_priority(new_job(at(0), 6), -100), // ... in the end
        ],
    )
    .await;
    assert_eq!(claim_ids(&*store, 9, at(300)).await, [ids[4], ids[1], ids[0], ids[2], ids[3], ids[5]]);
}

pub async fn a_claim_takes_at_most_one_job_for_each_worker(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    put(&*store, (0..5).map(|n| new_job(at(0), n)).collect()).await;
    let by = Claimant { node: NODE.to_owned(), workers: vec![4, 9] };
    let claims = store.claim(by, at(1), LEASE).await.expect("claim");
    assert_eq!(claims.iter().map(|claim| claim.worker).collect::<Vec<_>>(), [4, 9]);
    let nobody = Claimant { node: NODE.to_owned(), workers: vec![] };
    assert_eq!(store.claim(nobody, at(1), LEASE).await.expect("claim").len(), 0);
    assert_eq!(claim_ids(&*store, 100, at(1)).await.len(), 3);
}

pub async fn no_job_is_claimed_twice_by_eight_at_once(fixture: &dyn Fixture) {
    const JOBS: u64 = 2000;
    let store = fixture.fresh(PLENTY).await;
    for hundred in 0..JOBS / 100 {
        put(&*store, (0..100).map(|n| new_job(at(hundred), n)).collect()).await;
    }
    let mut claimers = tokio::task::JoinSet::new();
    for claimer in 0..8 {
        let store = store.clone();
        claimers.spawn(async move {
            let (mut mine, mut size) = (Vec::new(), claimer);
            loop {
                // Different sizes, so that the claims do not fall into step.
                size = size % 7 + 1;
                let claims = store.claim(claimant(size), at(1000), LEASE).await.expect("claim");
                if claims.is_empty() {
                    return mine;
                }
                for claim in claims {
                    assert_eq!(claim.key.attempt, 1);
                    store.settle(claim.key, at(1001), completed(Verdict::Accepted)).await.expect("settle");
                    mine.push(claim.key.id);
                }
            }
        });
    }
    let all = claimers.join_all().await.concat();
    assert_eq!(all.len() as u64, JOBS);
    assert_eq!(BTreeSet::from_iter(all).len() as u64, JOBS);
    assert_eq!(store.depth().await, Ok(Depth::default()));
}

/// The next job of a worker that stands; from a store that does not wait, when it is there.
async fn stand(store: &dyn Store, worker: i32, clock: fn() -> Timestamp) -> Claim {
    loop {
        if let Some(claim) = store.claim_next(NODE, worker, clock, LEASE).await.expect("stand") {
            return claim;
        }
        let by = Claimant { node: NODE.to_owned(), workers: vec![worker] };
        if let Some(claim) = store.claim(by, clock(), LEASE).await.expect("claim").pop() {
            return claim;
        }
        yield_now().await;
    }
}

/// Lets others have their turn for a while.
async fn linger(turns: u64) {
    for _ in 0..turns {
        yield_now().await;
    }
}

pub async fn who_stands_for_a_job_gets_the_next_one(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let new = full_job(at(5));
    let standing = {
        let store = store.clone();
        tokio::spawn(async move { stand(&*store, 7, || at(6)).await })
    };
    linger(1000).await;
    put(&*store, vec![new.clone()]).await;
    let claim = standing.await.expect("standing");
    assert_eq!((claim.key, claim.tries, claim.worker), (ClaimKey { id: new.id, attempt: 1 }, 1, 7));
    assert_eq!((claim.job, claim.owner), (new.job.clone(), new.owner.clone()));
    assert_eq!((claim.created_at, claim.started_at), (at(5), at(6)));
    assert_eq!(store.depth().await, Ok(Depth { pending: 0, running: 1, oldest_pending: None }));
    let running = find(&*store, new.id).await;
    assert_eq!((running.status, running.worker_id, running.attempt), (Status::Running, Some(7), 1));
    assert_eq!((running.node.as_deref(), running.started_at), (Some(NODE), Some(at(6))));

    // It is a claim as any other: its lease runs out, and the job has its old place and its key.
    assert_eq!(store.sweep(at(65), 3).await, Ok(Swept::default()));
    assert_eq!(store.sweep(at(66), 3).await, Ok(Swept { requeued: 1, failed: 0 }));
    assert_eq!(claim_one(&*store, at(67)).await.key, ClaimKey { id: new.id, attempt: 2 });
    let lost = store.settle(claim.key, at(68), completed(Verdict::Accepted)).await;
    assert_eq!(lost, Err(StoreError::LeaseLost));
    assert_eq!(store.insert(vec![new.clone()]).await, Ok(vec![Inserted::Existing(new.id)]));
}

pub async fn who_stands_gets_what_waits_in_its_order(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, vec![new_job(at(1), 1), with_priority(new_job(at(2), 2), 3), new_job(at(0), 3)]).await;
    for id in [ids[1], ids[2], ids[0]] {
        assert_eq!(stand(&*store, 1, || at(9)).await.key.id, id);
    }
}

pub async fn who_stands_gets_no_job_before_its_time(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    let claim = claim_one(&*store, at(1)).await;
    store.settle(claim.key, at(2), released(10, true)).await.expect("release");
    // It would stand for ever: nothing tells the store when it is time.
    let early = store.claim_next(NODE, 1, || at(11), LEASE).await.expect("stand");
    assert_eq!(early.map(|claim| claim.key.id), None);
    assert_eq!(stand(&*store, 1, || at(12)).await.key, ClaimKey { id, attempt: 2 });
}

pub async fn a_stand_that_is_given_up_takes_no_job_away(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    for n in 0..20 {
        let waiting = timeout(Duration::from_micros(50 * n), store.claim_next(NODE, 1, || at(5), LEASE)).await;
        assert!(!matches!(waiting, Ok(Ok(Some(_)))), "there is no job");
    }
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    let claim = claim_one(&*store, at(6)).await;
    assert_eq!((claim.key.id, claim.tries), (id, 1));
}

pub async fn jobs_that_come_while_many_stand_and_give_up_are_each_done_once(fixture: &dyn Fixture) {
    const JOBS: u64 = 400;
    let store = fixture.fresh(PLENTY).await;
    let done = Arc::new(AtomicU64::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let (store, done) = (store.clone(), done.clone());
        workers.spawn(async move {
            let mut mine = Vec::new();
            let mut patience = worker as u64;
            while done.load(Ordering::SeqCst) < JOBS {
                // Some are given up while their job is under way.
                patience = (patience * 7 + 3) % 13;
                let next = timeout(Duration::from_micros(300 * patience), stand(&*store, worker, || at(5000))).await;
                let Ok(claim) = next else { continue };
                assert_eq!((claim.tries, claim.worker), (1, worker), "nothing but giving up came before");
                store.settle(claim.key, at(5001), completed(Verdict::Accepted)).await.expect("settle");
                mine.push(claim.key.id);
                done.fetch_add(1, Ordering::SeqCst);
            }
            mine
        });
    }
    for n in 0..JOBS / 4 {
        put(&*store, (0..4).map(|m| new_job(at(n), m)).collect()).await;
        linger(200 * (n % 5)).await;
    }
    let all = timeout(Duration::from_secs(60), workers.join_all()).await.expect("no job is lost").concat();
    assert_eq!(all.len() as u64, JOBS);
    assert_eq!(BTreeSet::from_iter(all).len() as u64, JOBS);
    assert_eq!(store.depth().await, Ok(Depth::default()));
}

fn released(delay: u64, count_attempt: bool) -> Settlement {
    Settlement::Released { delay: Duration::from_secs(delay), count_attempt }
}

pub async fn a_released_job_waits_for_its_delay_and_then_has_its_old_place(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, vec![new_job(at(0), 1), new_job(at(1), 2), new_job(at(2), 3)]).await;
    let claim = claim_one(&*store, at(3)).await;
    store.settle(claim.key, at(4), released(10, true)).await.expect("release");
    let record = find(&*store, ids[0]).await;
    assert_eq!((record.status, record.worker_id, record.started_at), (Status::Pending, None, None));
    assert_eq!(record.attempt, 1, "one attempt was begun");
    assert_eq!(claim_ids(&*store, 1, at(13)).await, [ids[1]]);
    assert_eq!(claim_ids(&*store, 5, at(14)).await, [ids[0], ids[2]]);
}

pub async fn a_result_of_an_old_attempt_is_refused(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    let first = claim_one(&*store, at(1)).await;
    store.settle(first.key, at(2), released(0, true)).await.expect("release");
    let late = || store.settle(first.key, at(3), completed(Verdict::WrongAnswer));
    assert_eq!(late().await, Err(StoreError::LeaseLost), "while it is pending");

    let second = claim_one(&*store, at(4)).await;
    assert_eq!((second.key.attempt, second.tries), (2, 2));
    assert_eq!(late().await, Err(StoreError::LeaseLost), "while it runs again");
    let leases = store.extend(vec![first.key, second.key], at(5), LEASE).await;
    assert_eq!(leases, Ok(vec![Lease::Lost, Lease::Held]));

    store.settle(second.key, at(6), completed(Verdict::Accepted)).await.expect("settle");
    assert_eq!(late().await, Err(StoreError::LeaseLost), "when it has ended");
    assert_eq!(find(&*store, id).await.outcome.map(|o| o.verdict), Some(Verdict::Accepted));
}

pub async fn a_job_is_settled_once(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    let claim = claim_one(&*store, at(1)).await;
    store.settle(claim.key, at(2), completed(Verdict::Accepted)).await.expect("settle");
    for again in [completed(Verdict::WrongAnswer), Settlement::Cancelled, released(0, true)] {
        assert_eq!(store.settle(claim.key, at(3), again).await, Err(StoreError::LeaseLost));
    }
    assert_eq!(find(&*store, id).await.completed_at, Some(at(2)));
    assert_eq!(store.extend(vec![claim.key], at(3), LEASE).await, Ok(vec![Lease::Lost]));
}

pub async fn an_attempt_that_is_given_back_does_not_count(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    for attempt in 1..=5 {
        let claim = claim_one(&*store, at(1)).await;
        assert_eq!((claim.key.attempt, claim.tries), (attempt, 1), "the fence rises, the count does not");
        store.settle(claim.key, at(1), released(0, false)).await.expect("release");
    }
    let claim = claim_one(&*store, at(1)).await;
    assert_eq!((claim.key.attempt, claim.tries), (6, 1));
    // Its first real try is lost: it has another.
    assert_eq!(store.sweep(at(1000), 2).await, Ok(Swept { requeued: 1, failed: 0 }));
    assert_eq!(status(&*store, id).await, Status::Pending);
}

pub async fn a_lease_that_ran_out_is_taken_back_and_an_extended_one_is_not(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, vec![new_job(at(0), 1), new_job(at(1), 2)]).await;
    let claims = store.claim(claimant(2), at(10), LEASE).await.expect("claim");
    assert_eq!(store.sweep(at(69), 3).await, Ok(Swept::default()), "nothing has run out");
    let leases = store.extend(vec![claims[1].key], at(69), LEASE).await;
    assert_eq!(leases, Ok(vec![Lease::Held]));

    assert_eq!(store.sweep(at(70), 3).await, Ok(Swept { requeued: 1, failed: 0 }));
    assert_eq!(status(&*store, ids[0]).await, Status::Pending);
    assert_eq!(status(&*store, ids[1]).await, Status::Running);
    let lost = store.settle(claims[0].key, at(71), completed(Verdict::Accepted)).await;
    assert_eq!(lost, Err(StoreError::LeaseLost));
    assert_eq!(claim_one(&*store, at(72)).await.key, ClaimKey { id: ids[0], attempt: 2 });
}

pub async fn a_job_whose_last_attempt_is_lost_fails(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    claim_one(&*store, at(1)).await;
    assert_eq!(store.sweep(at(100), 2).await, Ok(Swept { requeued: 1, failed: 0 }));
    let last = claim_one(&*store, at(101)).await;
    assert_eq!(last.tries, 2);
    assert_eq!(store.sweep(at(200), 2).await, Ok(Swept { requeued: 0, failed: 1 }));
    let record = find(&*store, id).await;
    assert_eq!((record.status, record.completed_at, record.attempt), (Status::Failed, Some(at(200)), 2));
    assert!(record.error_message.is_some_and(|message| message.contains("2 attempts")));
    assert_eq!(store.settle(last.key, at(201), Settlement::Cancelled).await, Err(StoreError::LeaseLost));
}

pub async fn a_node_that_starts_anew_gets_back_its_own_claims_only(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, vec![new_job(at(0), 1), new_job(at(1), 2), new_job(at(2), 3)]).await;
    let by = |node: &str| Claimant { node: node.to_owned(), workers: vec![0] };
    store.claim(by("a"), at(3), LEASE).await.expect("claim");
    store.claim(by("b"), at(3), LEASE).await.expect("claim");
    store.claim(by("a"), at(3), LEASE).await.expect("claim");
    assert_eq!(store.take_back("a".to_owned(), at(4), 3).await, Ok(Swept { requeued: 2, failed: 0 }));
    assert_eq!(store.take_back("a".to_owned(), at(4), 3).await, Ok(Swept::default()));
    assert_eq!(status(&*store, ids[1]).await, Status::Running);
    store.claim(by("a"), at(5), LEASE).await.expect("claim");
    assert_eq!(store.take_back("a".to_owned(), at(6), 2).await, Ok(Swept { requeued: 0, failed: 1 }));
    assert_eq!(status(&*store, ids[0]).await, Status::Failed);
}

pub async fn a_failed_job_says_why(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    let claim = claim_one(&*store, at(1)).await;
    let message = "the sandbox could not be opened".to_owned();
    store.settle(claim.key, at(2), Settlement::Failed { message: message.clone() }).await.expect("settle");
    let record = find(&*store, id).await;
    assert_eq!((record.status, record.error_message, record.outcome), (Status::Failed, Some(message), None));
    assert_eq!((record.worker_id, record.started_at, record.completed_at), (Some(0), Some(at(1)), Some(at(2))));
}

pub async fn a_pending_job_is_cancelled_at_once(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, vec![new_job(at(0), 1), with_priority(new_job(at(0), 2), 3)]).await;
    for id in ids {
        assert_eq!(store.cancel(id, at(1)).await, Ok(Cancelled::Done));
        let record = find(&*store, id).await;
        assert_eq!((record.status, record.completed_at, record.worker_id), (Status::Cancelled, Some(at(1)), None));
    }
    assert_eq!(claim_ids(&*store, 5, at(2)).await, Vec::<JobId>::new());
    assert_eq!(store.depth().await, Ok(Depth::default()));
}

pub async fn a_running_job_is_asked_to_stop(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![new_job(at(0), 1)]).await[0];
    let claim = claim_one(&*store, at(1)).await;
    for _ in 0..2 {
        assert_eq!(store.cancel(id, at(2)).await, Ok(Cancelled::Wanted));
    }
    assert_eq!(status(&*store, id).await, Status::Running);
    assert_eq!(store.extend(vec![claim.key], at(3), LEASE).await, Ok(vec![Lease::CancelWanted]));
    store.settle(claim.key, at(4), Settlement::Cancelled).await.expect("settle");
    let record = find(&*store, id).await;
    assert_eq!((record.status, record.completed_at, record.outcome), (Status::Cancelled, Some(at(4)), None));
}

pub async fn a_job_that_should_stop_is_never_run_again(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, (0..3).map(|n| new_job(at(n), n)).collect()).await;
    let claims = store.claim(claimant(3), at(5), LEASE).await.expect("claim");
    for id in &ids {
        assert_eq!(store.cancel(*id, at(6)).await, Ok(Cancelled::Wanted));
    }
    store.settle(claims[0].key, at(7), released(0, true)).await.expect("release");
    // It may still come to its end: who asks to stop may be too late.
    store.settle(claims[1].key, at(7), completed(Verdict::Accepted)).await.expect("settle");
    assert_eq!(store.sweep(at(100), 3).await, Ok(Swept::default()));
    assert_eq!(status(&*store, ids[0]).await, Status::Cancelled);
    assert_eq!(status(&*store, ids[1]).await, Status::Completed);
    assert_eq!(status(&*store, ids[2]).await, Status::Cancelled);
    assert_eq!(store.depth().await, Ok(Depth::default()));
}

pub async fn a_job_that_has_ended_cannot_be_cancelled(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, (0..3).map(|n| new_job(at(n), n)).collect()).await;
    let ends = [completed(Verdict::Accepted), Settlement::Failed { message: "x".to_owned() }, Settlement::Cancelled];
    for end in ends {
        let claim = claim_one(&*store, at(5)).await;
        store.settle(claim.key, at(6), end).await.expect("settle");
    }
    for (id, status) in ids.into_iter().zip([Status::Completed, Status::Failed, Status::Cancelled]) {
        assert_eq!(store.cancel(id, at(7)).await, Ok(Cancelled::Ended(status)));
        assert_eq!(find(&*store, id).await.completed_at, Some(at(6)));
    }
}

pub async fn only_ended_jobs_are_deleted(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut job = full_job(at(0));
    job.idempotency = None;
    let id = put(&*store, vec![job.clone()]).await[0];
    assert_eq!(store.delete(id).await, Ok(Deleted::NotEnded(Status::Pending)));
    let claim = claim_one(&*store, at(1)).await;
    assert_eq!(store.delete(id).await, Ok(Deleted::NotEnded(Status::Running)));
    store.settle(claim.key, at(2), Settlement::Completed(Arc::new(full_outcome()))).await.expect("settle");
    assert_eq!(store.delete(id).await, Ok(Deleted::Done));
    assert_eq!(store.delete(id).await, Ok(Deleted::Unknown));
    assert_eq!(store.find(id).await, Ok(None));
    assert_eq!(store.list(Filter::default(), 10).await, Ok(vec![]));
    // Nothing is left over that a new job could stumble upon.
    put(&*store, vec![job.clone()]).await;
    assert_eq!(find(&*store, id).await.job, job.job);
}

pub async fn a_known_key_gives_the_same_job(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![with_key(new_job(at(0), 1), "o", "k", 1)]).await[0];
    let again = |n| vec![with_key(new_job(at(n), n), "o", "k", 1)];
    assert_eq!(store.insert(again(2)).await, Ok(vec![Inserted::Existing(id)]));
    let claim = claim_one(&*store, at(3)).await;
    store.settle(claim.key, at(4), completed(Verdict::Accepted)).await.expect("settle");
    // As long as the job is there, however old the key.
    assert_eq!(store.insert(again(200_000)).await, Ok(vec![Inserted::Existing(id)]));
    assert_eq!(store.list(Filter::default(), 10).await.expect("list").len(), 1);
}

pub async fn an_unsynced_insert_is_an_insert(fixture: &dyn Fixture) {
    let store = fixture.fresh(2).await;
    let key = |n, body| with_key(new_job(at(n), n), "o", "k", body);
    let (first, second) = (key(0, 1), new_job(at(1), 1));
    let too_many = new_job(at(2), 2);
    let answers = store.insert_unsynced(vec![first.clone(), second.clone(), too_many]).await;
    assert_eq!(answers, Ok(vec![Inserted::New, Inserted::New, Inserted::QueueFull]));
    assert_eq!(store.insert_unsynced(vec![key(3, 1)]).await, Ok(vec![Inserted::Existing(first.id)]));
    assert_eq!(store.insert(vec![key(4, 2)]).await, Ok(vec![Inserted::Conflict]));
    assert_eq!(store.sync().await, Ok(()));
    assert_eq!(find(&*store, second.id).await.status, Status::Pending);
    for (job, seconds) in [(&first, 5), (&second, 6)] {
        let claim = claim_one(&*store, at(seconds)).await;
        assert_eq!(claim.key.id, job.id);
        store.settle(claim.key, at(seconds), completed(Verdict::Accepted)).await.expect("settle");
        assert_eq!(find(&*store, job.id).await.status, Status::Completed);
    }
}

pub async fn a_known_key_with_another_body_is_a_conflict(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    put(&*store, vec![with_key(new_job(at(0), 1), "o", "k", 1)]).await;
    let other = with_key(new_job(at(1), 2), "o", "k", 2);
    assert_eq!(store.insert(vec![other.clone()]).await, Ok(vec![Inserted::Conflict]));
    assert_eq!(store.find(other.id).await, Ok(None));
}

pub async fn a_key_belongs_to_its_owner(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut nobodys = with_key(new_job(at(0), 3), "", "k", 3);
    nobodys.owner = None;
    let jobs =
        vec![with_key(new_job(at(0), 1), "a", "k", 1), with_key(new_job(at(0), 2), "b", "k", 2), nobodys.clone()];
    let ids = put(&*store, jobs.clone()).await;
    let known = ids.into_iter().map(Inserted::Existing).collect();
    assert_eq!(store.insert(jobs).await, Ok(known));
}

pub async fn a_key_counts_within_its_own_batch(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let jobs: Vec<_> =
        [1, 1, 2].into_iter().zip(0..).map(|(body, n)| with_key(new_job(at(0), n), "o", "k", body)).collect();
    let first = jobs[0].id;
    let inserted = store.insert(jobs).await;
    assert_eq!(inserted, Ok(vec![Inserted::New, Inserted::Existing(first), Inserted::Conflict]));
    assert_eq!(claim_ids(&*store, 5, at(1)).await, [first]);
}

pub async fn one_of_many_with_the_same_key_at_once_is_new(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..16 {
        let store = store.clone();
        clients.spawn(async move {
            let job = with_key(new_job(at(0), n), "o", "k", 1);
            (job.id, store.insert(vec![job]).await.expect("insert")[0])
        });
    }
    let answers = clients.join_all().await;
    let new: Vec<JobId> = answers.iter().filter(|(_, i)| *i == Inserted::New).map(|(id, _)| *id).collect();
    assert_eq!(new.len(), 1);
    let others = answers.iter().filter(|(_, i)| *i == Inserted::Existing(new[0])).count();
    assert_eq!(others, 15);
}

pub async fn a_key_outlives_a_job_that_is_erased_on_the_same_day(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let now = at(0);
    let job = |n, at| with_key(new_job(at, n), "o", "k", 1);
    let id = put(&*store, vec![job(1, now)]).await[0];
    store.cancel(id, now).await.expect("cancel");
    store.delete(id).await.expect("delete");
    store.retain(now.plus(Duration::from_secs(1)), 100).await.expect("retain");
    let later = |hours: u64| now.plus(Duration::from_secs(hours * 3600));
    assert_eq!(store.insert(vec![job(2, later(23))]).await, Ok(vec![Inserted::Existing(id)]));
    assert_eq!(store.insert(vec![job(3, later(24))]).await, Ok(vec![Inserted::New]));
    assert_eq!(store.insert(vec![job(4, later(24))]).await, Ok(vec![Inserted::Existing(id_at(later(24), 3))]));
}

pub async fn a_full_queue_refuses_what_is_too_much_and_nothing_else(fixture: &dyn Fixture) {
    let store = fixture.fresh(3).await;
    let known = with_key(new_job(at(0), 0), "o", "k", 1);
    let mut jobs: Vec<_> = (1..5).map(|n| new_job(at(n), n)).collect();
    jobs.insert(0, known.clone());
    let inserted = store.insert(jobs.clone()).await.expect("insert");
    assert_eq!(inserted, [Inserted::New, Inserted::New, Inserted::New, Inserted::QueueFull, Inserted::QueueFull]);
    assert_eq!(store.find(jobs[4].id).await, Ok(None), "nothing was stored");
    // Repeating oneself is no new load.
    assert_eq!(store.insert(vec![known.clone()]).await, Ok(vec![Inserted::Existing(known.id)]));

    let claim = claim_one(&*store, at(10)).await;
    let next = || new_job(at(20), 20);
    assert_eq!(store.insert(vec![next()]).await, Ok(vec![Inserted::New]), "running jobs wait no more");
    assert_eq!(store.insert(vec![new_job(at(21), 21)]).await, Ok(vec![Inserted::QueueFull]));
    // What was accepted once comes back, full or not.
    store.settle(claim.key, at(22), released(0, true)).await.expect("release");
    assert_eq!(store.depth().await.map(|depth| depth.pending), Ok(4));
}

pub async fn the_depth_is_exact(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let depth = async || store.depth().await.expect("depth");
    assert_eq!(depth().await, Depth::default());
    let ids = put(&*store, vec![new_job(at(5), 1), new_job(at(3), 2), with_priority(new_job(at(9), 3), 50)]).await;
    assert_eq!(depth().await, Depth { pending: 3, running: 0, oldest_pending: Some(at(3)) });
    let claim = claim_one(&*store, at(10)).await;
    assert_eq!(claim.key.id, ids[2]);
    assert_eq!(depth().await, Depth { pending: 2, running: 1, oldest_pending: Some(at(3)) });
    store.cancel(ids[1], at(11)).await.expect("cancel");
    assert_eq!(depth().await, Depth { pending: 1, running: 1, oldest_pending: Some(at(5)) });
    store.settle(claim.key, at(12), released(5, true)).await.expect("release");
    assert_eq!(depth().await, Depth { pending: 2, running: 0, oldest_pending: Some(at(5)) });
    let all = store.claim(claimant(9), at(30), LEASE).await.expect("claim");
    assert_eq!(depth().await, Depth { pending: 0, running: 2, oldest_pending: None });
    for claim in all {
        store.settle(claim.key, at(31), completed(Verdict::Accepted)).await.expect("settle");
    }
    assert_eq!(depth().await, Depth::default());
}

async fn listed(store: &dyn Store, filter: Filter) -> Vec<JobId> {
    store.list(filter, 1000).await.expect("list").iter().map(|job| job.id).collect()
}

pub async fn a_listing_is_newest_first_and_without_contents(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, vec![new_job(at(2), 1), full_job(at(1)), new_job(at(3), 1)]).await;
    assert_eq!(listed(&*store, Filter::default()).await, [ids[2], ids[0], ids[1]]);
    assert_eq!(store.list(Filter::default(), 2).await.expect("list").len(), 2);
    assert_eq!(store.list(Filter::default(), 0).await.expect("list").len(), 0);

    let claims = store.claim(claimant(3), at(100), LEASE).await.expect("claim");
    let full = claims.iter().find(|claim| claim.key.id == ids[1]).expect("claimed");
    store.settle(full.key, at(101), Settlement::Completed(Arc::new(full_outcome()))).await.expect("settle");
    let jobs = store.list(Filter::default(), 10).await.expect("list");
    let (line, want) = (&jobs[2], full_outcome());
    assert_eq!((line.id, line.language.as_str(), line.status), (ids[1], "cpp", Status::Completed));
    assert_eq!((line.verdict, line.reason.as_deref()), (Some(want.verdict), Some(want.reason.as_str())));
    assert_eq!((&line.evidence, line.exit_code, line.signal), (&want.evidence, None, Some(11)));
    assert_eq!((line.cpu, line.wall, line.memory_kb), (Some(want.cpu), Some(want.wall), Some(131_204)));
    assert_eq!((line.priority, line.worker_id, line.node.as_deref()), (-7, Some(full.worker), Some(NODE)));
    assert_eq!((line.attempt, line.error_message.as_deref()), (1, None));
    assert_eq!((line.created_at, line.started_at, line.completed_at), (at(1), Some(at(100)), Some(at(101))));
}

/// Twelve jobs of two owners and two languages, in all states; the newest first.
async fn a_mixed_book(store: &dyn Store) -> Vec<JobRecord> {
    let mut jobs: Vec<_> = (0..12).map(|n| new_job(at(n * 10), n)).collect();
    for (n, new) in jobs.iter_mut().enumerate() {
        new.owner = [None, Some("a".to_owned()), Some("b".to_owned())][n % 3].clone();
        if n % 2 == 1 {
            new.job.language = "c".to_owned();
        }
    }
    let ids = put(store, jobs).await;
    let mut claims = store.claim(claimant(9), at(1000), LEASE).await.expect("claim").into_iter();
    let ends = [
        completed(Verdict::Accepted),
        completed(Verdict::WrongAnswer),
        completed(Verdict::Accepted),
        completed(Verdict::TimeLimitExceeded),
        Settlement::Failed { message: "m".to_owned() },
        Settlement::Cancelled,
        completed(Verdict::WrongAnswer),
    ];
    for end in ends {
        let claim = claims.next().expect("a claim for each end");
        store.settle(claim.key, at(1001), end).await.expect("settle");
    }
    store.cancel(ids[11], at(1002)).await.expect("cancel");
    let mut records = Vec::new();
    for id in ids.into_iter().rev() {
        records.push(find(store, id).await);
    }
    records
}

pub async fn each_filter_keeps_what_it_names(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let book = a_mixed_book(&*store).await;
    check_filters(&*store, &book).await;
}

pub async fn ids_that_tell_no_time_are_found_by_time_all_the_same(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut book = a_mixed_book(&*store).await;
    check_filters(&*store, &book).await;
    // One with an id from another century, and one whose id holds no time at all.
    let mut odd = [new_job(at(35), 100), new_job(at(45), 101)];
    odd[0].id = id_at(Timestamp(0), 1);
    odd[1].id = JobId::from_u128(0xf000_0000_0000_4000_8000_0000_0000_0000);
    for new in odd {
        let id = put(&*store, vec![new]).await[0];
        book.push(find(&*store, id).await);
        book.sort_by_key(|record| std::cmp::Reverse(record.id));
        check_filters(&*store, &book).await;
    }
}

/// Every combination of filters, against the same question asked of the records.
async fn check_filters(store: &dyn Store, book: &[JobRecord]) {
    let statuses = Status::ALL.into_iter().map(Some).chain([None]);
    let windows = [(None, None), (Some(at(30)), None), (None, Some(at(60))), (Some(at(30)), Some(at(60)))];
    for status in statuses {
        for verdict in [None, Some(Verdict::Accepted), Some(Verdict::WrongAnswer), Some(Verdict::CompileError)] {
            for owner in [None, Some("a".to_owned())] {
                for language in [None, Some("c".to_owned())] {
                    for (created_after, created_before) in windows {
                        for before in [None, Some(book[3].id)] {
                            let (owner, language) = (owner.clone(), language.clone());
                            let filter =
                                Filter { owner, status, verdict, language, created_after, created_before, before };
                            let kept = book.iter().filter(|record| keeps(&filter, record)).map(|record| record.id);
                            assert_eq!(listed(store, filter.clone()).await, kept.collect::<Vec<_>>(), "{filter:?}");
                        }
                    }
                }
            }
        }
    }
}

/// What a filter means.
pub(super) fn keeps(filter: &Filter, record: &JobRecord) -> bool {
    let verdict = record.outcome.as_ref().map(|outcome| outcome.verdict);
    filter.owner.as_ref().is_none_or(|owner| record.owner.as_ref() == Some(owner))
        && filter.status.is_none_or(|status| record.status == status)
        && filter.verdict.is_none_or(|wanted| verdict == Some(wanted))
        && filter.language.as_ref().is_none_or(|language| record.job.language == *language)
        && filter.created_after.is_none_or(|after| record.created_at >= after)
        && filter.created_before.is_none_or(|before| record.created_at < before)
        && filter.before.is_none_or(|before| record.id < before)
}

pub async fn a_listing_knows_what_waits_and_what_runs(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, (0..4).map(|n| new_job(at(n), n)).collect()).await;
    let by = Claimant { node: "n".to_owned(), workers: vec![5, 6] };
    let claims = store.claim(by, at(10), LEASE).await.expect("claim");
    store.settle(claims[1].key, at(11), released(0, true)).await.expect("release");
    let with = |status| Filter { status: Some(status), ..Filter::default() };
    assert_eq!(listed(&*store, with(Status::Pending)).await, [ids[3], ids[2], ids[1]]);
    assert_eq!(listed(&*store, with(Status::Running)).await, [ids[0]]);
    for filter in [with(Status::Running), Filter { before: Some(ids[1]), ..Filter::default() }] {
        let job = store.list(filter, 1).await.expect("list").remove(0);
        assert_eq!((job.status, job.worker_id, job.node.as_deref()), (Status::Running, Some(5), Some("n")));
        assert_eq!((job.attempt, job.started_at), (1, Some(at(10))));
    }
    for filter in [with(Status::Pending), Filter::default()] {
        let jobs = store.list(filter, 10).await.expect("list");
        let back = jobs.iter().find(|job| job.id == ids[1]).expect("listed");
        assert_eq!((back.status, back.attempt, back.worker_id), (Status::Pending, 1, None));
    }
}

pub async fn a_counted_page_knows_how_many_there_are(fixture: &dyn Fixture) {
    let store = fixture.fresh(100).await;
    let of = |n: u64, owner: Option<&str>| NewJob { owner: owner.map(str::to_owned), ..new_job(at(n), n) };
    put(&*store, (0..7).map(|n| of(n, (n % 3 == 0).then_some("ada"))).collect()).await;
    let page = async |owner: Option<&str>, offset, limit| {
        let page = store.page(owner.map(str::to_owned), offset, limit).await.expect("a page");
        (page.ids, page.total)
    };
    let ids = |list: &[u64]| list.iter().map(|n| id_at(at(*n), *n)).collect::<Vec<_>>();
    assert_eq!(page(None, 0, 3).await, (ids(&[6, 5, 4]), 7));
    assert_eq!(page(None, 6, 3).await, (ids(&[0]), 7));
    assert_eq!(page(None, 7, 3).await, (vec![], 7));
    assert_eq!(page(None, u64::MAX, 3).await, (vec![], 7));
    assert_eq!(page(Some("ada"), 1, 9).await, (ids(&[3, 0]), 3));
    assert_eq!(page(Some("bob"), 0, 9).await, (vec![], 0));
}

pub async fn a_census_counts_every_job_once(fixture: &dyn Fixture) {
    let store = fixture.fresh(100).await;
    assert_eq!(store.census(None).await.expect("a census").tallies, []);
    // Two days, of which one has a job that ended and a job that runs.
    let day = 86_400;
    let mut jobs: Vec<_> = (0..4).map(|n| new_job(at(5 * day + n), n)).collect();
    jobs.push(NewJob { owner: Some("ada".to_owned()), ..new_job(at(6 * day), 9) });
    put(&*store, jobs).await;
    let first = claim_one(&*store, at(7 * day)).await;
    store.settle(first.key, at(7 * day), completed(Verdict::WrongAnswer)).await.expect("settle");
    claim_one(&*store, at(7 * day)).await;
    let census = store.census(None).await.expect("a census");
    let counted: u64 = census.tallies.iter().map(|tally| tally.jobs).sum();
    assert_eq!(counted, 5, "{census:?}");
    assert!(census.size > 0);
    let mut waiting: Vec<_> = census.tallies.iter().filter(|t| t.pending).map(|t| (t.day, t.jobs)).collect();
    waiting.sort_unstable();
    let today = at(5 * day).0.div_euclid(86_400_000_000);
    assert_eq!(waiting, [(today, 3), (today + 1, 1)]);
    let ended: Vec<_> = census.tallies.iter().filter(|t| !t.pending).map(|t| (t.verdict, t.jobs)).collect();
    assert_eq!(ended, [(Some(Verdict::WrongAnswer), 1)]);
    let theirs = store.census(Some("ada".to_owned())).await.expect("a census").tallies;
    assert_eq!(theirs.iter().map(|t| (t.day, t.jobs)).collect::<Vec<_>>(), [(today + 1, 1)]);
}

pub async fn pages_have_neither_gaps_nor_duplicates_while_jobs_come_in(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut expected = put(&*store, (0..100).map(|n| new_job(at(n), n)).collect()).await;
    expected.reverse();
    for status in [None, Some(Status::Pending)] {
        let inserting = {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let new = new_job(at(1000 + n), u64::from(status.is_some()));
                    put(&*store, vec![new]).await;
                }
            })
        };
        let mut pages = Vec::new();
        let mut filter = Filter { status, before: Some(id_at(at(500), 0)), ..Filter::default() };
        loop {
            let page = store.list(filter.clone(), 7).await.expect("list");
            let Some(last) = page.last() else { break };
            filter.before = Some(last.id);
            pages.extend(page.iter().map(|job| job.id));
        }
        assert_eq!(pages, expected);
        inserting.await.expect("inserting");
    }
}

pub async fn retention_erases_the_oldest_ended_jobs_and_no_others(fixture: &dyn Fixture) {
    const OLD: u64 = 450;
    let store = fixture.fresh(PLENTY).await;
    let old = put(&*store, (0..OLD).map(|n| new_job(at(n), n)).collect()).await;
    let claims = store.claim(claimant(OLD as i32), at(1000), LEASE).await.expect("claim");
    for (n, claim) in (0..).zip(&claims) {
        store.settle(claim.key, at(1000 + n), completed(Verdict::Accepted)).await.expect("settle");
    }
    let alive = put(&*store, vec![new_job(at(500), 1), new_job(at(501), 1)]).await;
    claim_one(&*store, at(2000)).await;

    assert_eq!(store.retain(at(1000), 1000).await, Ok(0), "before means before");
    assert_eq!(store.retain(at(1400), 0).await, Ok(0));
    assert_eq!(store.retain(at(1400), 3).await, Ok(3));
    assert_eq!(listed(&*store, Filter::default()).await.len() as u64, OLD - 3 + 2);
    assert_eq!(store.find(old[2]).await, Ok(None));
    assert_eq!(status(&*store, old[3]).await, Status::Completed);
    assert_eq!(store.retain(at(1400), 1_000_000).await, Ok(397));
    assert_eq!(store.retain(at(1400), 1_000_000).await, Ok(0));
    let mut left: Vec<JobId> = old[400..].iter().chain(&alive).copied().collect();
    left.sort_by_key(|id| std::cmp::Reverse(*id));
    assert_eq!(listed(&*store, Filter::default()).await, left);
}

pub async fn the_latest_ended_jobs_come_newest_first(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let ids = put(&*store, (0..4).map(|n| new_job(at(n), n)).collect()).await;
    let claims = store.claim(claimant(3), at(10), LEASE).await.expect("claim");
    store.settle(claims[2].key, at(11), Settlement::Failed { message: "m".to_owned() }).await.expect("settle");
    store.settle(claims[0].key, at(12), Settlement::Completed(Arc::new(full_outcome()))).await.expect("settle");
    store.cancel(ids[3], at(13)).await.expect("cancel");
    let sample = store.recent(10).await.expect("recent");
    assert_eq!(sample.iter().map(|ended| ended.completed_at).collect::<Vec<_>>(), [at(13), at(12), at(11)]);
    assert_eq!(sample[0].queue, Duration::from_secs(10), "it waited until it was cancelled");
    let (line, want) = (&sample[1], full_outcome());
    assert_eq!((line.language.as_str(), line.status), ("python3", Status::Completed));
    assert_eq!((line.verdict, line.queue), (Some(want.verdict), Duration::from_secs(10)));
    assert_eq!((line.cpu, line.wall), (want.cpu, want.wall));
    assert_eq!((line.compile, line.compile_cached), (want.compile_time, want.compile_cached));
    assert_eq!((sample[2].status, sample[2].queue), (Status::Failed, Duration::from_secs(8)));
    assert_eq!(store.recent(1).await.expect("recent").len(), 1);
}

pub async fn everything_is_there_after_opening_again(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut book = a_mixed_book(&*store).await;
    let full = full_job(at(2000));
    put(&*store, vec![full.clone()]).await;
    book.insert(0, find(&*store, full.id).await);
    let depth = store.depth().await;

    let store = fixture.reopen(store).await;
    assert_eq!(store.depth().await, depth);
    for record in &book {
        assert_eq!(find(&*store, record.id).await, *record);
    }
    assert_eq!(store.insert(vec![full.clone()]).await, Ok(vec![Inserted::Existing(full.id)]));
    check_filters(&*store, &book).await;
    // Claims are still leased, under the same fence.
    let running: Vec<_> = book.iter().filter(|record| record.status == Status::Running).collect();
    for record in &running {
        let key = ClaimKey { id: record.id, attempt: record.attempt };
        assert_eq!(store.extend(vec![key], at(1003), LEASE).await, Ok(vec![Lease::Held]));
    }
    let swept = store.take_back(NODE.to_owned(), at(1004), 3).await;
    assert_eq!(swept, Ok(Swept { requeued: running.len() as u64, failed: 0 }));
}

pub async fn a_store_that_works_says_so(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    assert_eq!(store.check().await, Ok(()));
    assert_eq!(store.check().await, Ok(()));
}

pub async fn a_closed_store_is_unavailable(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    // What was under way when it closed is either done and answered, or refused: never left hanging.
    let inserting: Vec<_> = (0..20)
        .map(|n| {
            let store: Arc<dyn Store> = store.clone();
            tokio::spawn(async move { store.insert(vec![new_job(at(n), n)]).await })
        })
        .collect();
    store.close().await;
    for task in inserting {
        let answer = task.await.expect("task");
        assert!(matches!(answer, Ok(_) | Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    let id = id_at(at(0), 0);
    let unavailable = |error: StoreError| assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    unavailable(store.insert(vec![new_job(at(0), 0)]).await.expect_err("insert"));
    unavailable(store.claim(claimant(1), at(0), LEASE).await.expect_err("claim"));
    unavailable(store.find(id).await.expect_err("find"));
    unavailable(store.list(Filter::default(), 1).await.expect_err("list"));
    unavailable(store.depth().await.expect_err("depth"));
    unavailable(store.recent(1).await.expect_err("recent"));
    unavailable(store.check().await.expect_err("check"));
    store.close().await;
}

#[cfg(test)]
mod tests {
    /// A rule that is in no list is kept by nobody.
    #[test]
    fn every_rule_is_in_the_list() {
        for source in [include_str!("store.rs"), include_str!("queue.rs")] {
            let lines = || source.lines().map(str::trim);
            let rules = lines().filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next());
            for rule in rules {
                assert!(lines().any(|line| line == rule), "{rule}");
            }
        }
    }
}
