//! The rules of callbacks in the book. [`super::store`] lists them with the others.

use super::{Fixture, LEASE, NODE, at, claim_one, claimant, completed, new_job, put, with_callback};
use crate::{
    Cancelled, Courier, Deleted, Deliveries, Delivery, DeliveryEnd, DeliveryKey, DeliveryRecord, DeliveryState,
    DeliveryTry, Settlement, Store, StoreError,
};
use gavel_core::{JobId, Timestamp, Verdict};
use std::collections::BTreeMap;
use std::time::Duration;

const PLENTY: u64 = 1_000_000;
const URL: &str = "https://a.example/hook";

fn courier() -> Courier {
    Courier { node: NODE.to_owned(), max: 100, per_host: 100, busy: BTreeMap::new() }
}

async fn claim(store: &dyn Store, now: Timestamp) -> Deliveries {
    store.claim_deliveries(courier(), now, LEASE).await.expect("claim deliveries")
}

async fn claim_ids(store: &dyn Store, now: Timestamp) -> Vec<JobId> {
    claim(store, now).await.claimed.iter().map(|delivery| delivery.key.id).collect()
}

async fn record(store: &dyn Store, id: JobId) -> DeliveryRecord {
    store.delivery(id).await.expect("delivery").expect("there is a delivery")
}

/// A job that wants this URL called and ended at this time.
async fn ended(store: &dyn Store, time: Timestamp, n: u64, url: &str) -> JobId {
    let id = put(store, vec![with_callback(new_job(time, n), url)]).await[0];
    let claim = claim_one(store, time).await;
    assert_eq!(claim.key.id, id);
    store.settle(claim.key, time, completed(Verdict::Accepted)).await.expect("settle");
    id
}

fn failed(started_at: Timestamp, status_code: Option<u16>) -> DeliveryTry {
    let error = Some(if status_code.is_some() { "refused \"it\"" } else { "timeout" }.to_owned());
    DeliveryTry { started_at, duration: Duration::from_micros(1_234_567), status_code, error }
}

fn good(started_at: Timestamp) -> DeliveryTry {
    DeliveryTry { started_at, duration: Duration::from_millis(3), status_code: Some(204), error: None }
}

pub async fn a_job_with_a_callback_leaves_a_delivery_however_it_ends(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let store = &*store;
    let failed = || Settlement::Failed { message: "x".to_owned() };
    let released = Settlement::Released { delay: Duration::ZERO, count_attempt: true };
    let mut owed = BTreeMap::new();
    let mut n = 0;
    let mut next = async |time| {
        n += 1;
        // One that wants nothing beside each that does, ended in the same way.
        put(store, vec![with_callback(new_job(time, n), URL), new_job(time, 1000 + n)]).await
    };
    for (seconds, end) in [(1, completed(Verdict::WrongAnswer)), (2, failed()), (3, Settlement::Cancelled)] {
        let ids = next(at(seconds)).await;
        for claim in store.claim(claimant(2), at(seconds), LEASE).await.expect("claim") {
            store.settle(claim.key, at(seconds + 10), end.clone()).await.expect("settle");
        }
        owed.insert(ids[0], at(seconds + 10));
    }
    let ids = next(at(4)).await;
    for id in &ids {
        assert_eq!(store.cancel(*id, at(14)).await, Ok(Cancelled::Done));
    }
    owed.insert(ids[0], at(14));
    // Wanted cancelled and then given back, or lost.
    for (seconds, lost) in [(5, false), (100, true)] {
        let ids = next(at(seconds)).await;
        for claim in store.claim(claimant(2), at(seconds), LEASE).await.expect("claim") {
            assert_eq!(store.cancel(claim.key.id, at(seconds)).await, Ok(Cancelled::Wanted));
            if !lost {
                store.settle(claim.key, at(seconds + 10), released.clone()).await.expect("settle");
            }
        }
        if lost {
            store.sweep(at(seconds + 10).plus(LEASE), 3).await.expect("sweep");
        }
        owed.insert(ids[0], at(seconds + 10).plus(if lost { LEASE } else { Duration::ZERO }));
    }
    // Lost for the last time.
    for (seconds, node) in [(300, false), (400, true)] {
        let ids = next(at(seconds)).await;
        assert_eq!(store.claim(claimant(2), at(seconds), LEASE).await.expect("claim").len(), 2);
        let now = at(seconds + 10).plus(LEASE);
        let swept = match node {
            true => store.take_back(NODE.to_owned(), now, 1).await,
            false => store.sweep(now, 1).await,
        };
        assert_eq!(swept.expect("swept").failed, 2);
        owed.insert(ids[0], now);
    }
    assert_eq!(store.pending_deliveries().await, Ok(owed.len() as u64));
    for (id, time) in &owed {
        let expected = DeliveryRecord {
            state: DeliveryState::Pending,
            next_at: Some(*time),
            created_at: *time,
            ended_at: None,
            tries: vec![],
        };
        assert_eq!(record(store, *id).await, expected);
    }
    let mut claimed = claim_ids(store, at(10_000)).await;
    claimed.sort_unstable();
    assert_eq!(claimed, owed.into_keys().collect::<Vec<_>>());
}

pub async fn a_job_that_goes_on_leaves_no_delivery(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = put(&*store, vec![with_callback(new_job(at(0), 1), URL)]).await[0];
    assert_eq!(store.delivery(id).await, Ok(None), "pending");
    for count_attempt in [true, false] {
        let claim = claim_one(&*store, at(1)).await;
        assert_eq!(store.delivery(id).await, Ok(None), "running");
        let released = Settlement::Released { delay: Duration::ZERO, count_attempt };
        store.settle(claim.key, at(1), released).await.expect("settle");
    }
    claim_one(&*store, at(1)).await;
    store.sweep(at(2).plus(LEASE), 3).await.expect("sweep");
    assert_eq!(store.delivery(id).await, Ok(None), "lost, and to be run again");
    assert_eq!(claim(&*store, at(1000)).await, Deliveries::default());
    // It has not been forgotten on the way.
    let claim = claim_one(&*store, at(1000)).await;
    store.settle(claim.key, at(1001), completed(Verdict::Accepted)).await.expect("settle");
    assert!(store.delivery(id).await.expect("delivery").is_some());
}

pub async fn a_delivery_is_handed_out_once_until_its_lease_runs_out(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = ended(&*store, at(0), 1, URL).await;
    let first = claim(&*store, at(1)).await;
    let delivery = |attempt| Delivery { key: DeliveryKey { id, attempt }, tries: 0, host: "a.example:443".to_owned() };
    assert_eq!(first, Deliveries { claimed: vec![delivery(1)], next: Some(at(1).plus(LEASE)) });
    assert_eq!(record(&*store, id).await.next_at, None, "it is under way");
    let second = claim(&*store, at(2)).await;
    assert_eq!(second, Deliveries { claimed: vec![], next: Some(at(1).plus(LEASE)) });
    let third = claim(&*store, at(1).plus(LEASE)).await;
    assert_eq!(third.claimed, [delivery(2)]);
}

pub async fn deliveries_are_handed_out_longest_due_first(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(ended(&*store, at(n), n, URL).await);
    }
    let courier = Courier { max: 2, ..courier() };
    let mut claimed = Vec::new();
    loop {
        let deliveries = store.claim_deliveries(courier.clone(), at(9), LEASE).await.expect("claim").claimed;
        if deliveries.is_empty() {
            break;
        }
        assert!(deliveries.len() <= 2);
        claimed.extend(deliveries.iter().map(|delivery| delivery.key.id));
    }
    assert_eq!(claimed, ids);
}

pub async fn a_delivery_that_failed_comes_back_when_it_is_due_with_its_log(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = ended(&*store, at(0), 1, URL).await;
    let tries = [failed(at(1), None), failed(at(20), Some(503)), good(at(40))];
    for (n, (done, due)) in tries.iter().zip([at(1), at(20), at(40)]).enumerate() {
        assert!(claim(&*store, due.minus(Duration::from_micros(1))).await.claimed.is_empty() || n == 0);
        let delivery = match n {
            0 => record(&*store, id).await.tries.len() as u32,
            _ => claim(&*store, due).await.claimed[0].tries,
        };
        assert_eq!(delivery as usize, n);
        let key = DeliveryKey { id, attempt: n as u32 + 1 };
        let end = match n {
            0 => DeliveryEnd::Retry { done: done.clone(), at: at(20) },
            1 => DeliveryEnd::Retry { done: done.clone(), at: at(40) },
            _ => DeliveryEnd::Delivered(done.clone()),
        };
        store.settle_delivery(key, due, end).await.expect("settle");
    }
    let expected = DeliveryRecord {
        state: DeliveryState::Delivered,
        next_at: None,
        created_at: at(0),
        ended_at: Some(at(40)),
        tries: tries.to_vec(),
    };
    assert_eq!(record(&*store, id).await, expected);
    assert_eq!(claim(&*store, at(10_000)).await, Deliveries::default());
    assert_eq!(store.pending_deliveries().await, Ok(0));

    let other = ended(&*store, at(50), 2, URL).await;
    let key = claim(&*store, at(50)).await.claimed[0].key;
    store.settle_delivery(key, at(51), DeliveryEnd::GivenUp(failed(at(50), Some(410)))).await.expect("settle");
    let given_up = record(&*store, other).await;
    assert_eq!((given_up.state, given_up.ended_at), (DeliveryState::GivenUp, Some(at(51))));
    assert_eq!(given_up.tries, [failed(at(50), Some(410))]);
}

pub async fn what_became_of_an_old_attempt_at_a_delivery_is_refused(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = ended(&*store, at(0), 1, URL).await;
    let settle = async |attempt, end| store.settle_delivery(DeliveryKey { id, attempt }, at(5), end).await;
    let delivered = || DeliveryEnd::Delivered(good(at(1)));
    assert_eq!(settle(0, delivered()).await, Err(StoreError::LeaseLost), "nobody has it");
    let old = claim(&*store, at(1)).await.claimed[0].key.attempt;
    claim(&*store, at(1).plus(LEASE)).await;
    assert_eq!(settle(old, delivered()).await, Err(StoreError::LeaseLost));
    assert_eq!(settle(old + 1, delivered()).await, Ok(()));
    assert_eq!(settle(old + 1, delivered()).await, Err(StoreError::LeaseLost), "once");
    assert_eq!(record(&*store, id).await.tries.len(), 1);
}

pub async fn a_delivery_that_is_given_back_is_due_at_once_and_counts_nothing(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let id = ended(&*store, at(0), 1, URL).await;
    let key = claim(&*store, at(1)).await.claimed[0].key;
    store.settle_delivery(key, at(2), DeliveryEnd::Released).await.expect("release");
    let released = record(&*store, id).await;
    assert_eq!((released.state, released.next_at, released.tries), (DeliveryState::Pending, Some(at(2)), vec![]));
    let again = claim(&*store, at(2)).await.claimed[0].clone();
    assert_eq!((again.key.attempt, again.tries), (key.attempt + 1, 0));
}

pub async fn a_busy_host_holds_up_nobody_else(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mut ids = Vec::new();
    for (n, url) in [URL, URL, URL, "https://b.example/", "http://a.example/"].iter().enumerate() {
        ids.push(ended(&*store, at(n as u64), n as u64, url).await);
    }
    let busy = BTreeMap::from([("a.example:443".to_owned(), 1)]);
    let courier = Courier { per_host: 2, busy, ..courier() };
    let claimed = store.claim_deliveries(courier, at(9), LEASE).await.expect("claim").claimed;
    let claimed: Vec<JobId> = claimed.iter().map(|delivery| delivery.key.id).collect();
    assert_eq!(claimed, [ids[0], ids[3], ids[4]], "one is under way there, and two may be");
    assert_eq!(claim_ids(&*store, at(9)).await, [ids[1], ids[2]], "the others wait where they were");
}

pub async fn a_long_queue_for_one_host_is_stepped_over(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let jobs: Vec<_> = (0..2000).map(|n| with_callback(new_job(at(0), n), URL)).collect();
    let ids = put(&*store, jobs).await;
    for id in &ids {
        assert_eq!(store.cancel(*id, at(0)).await, Ok(Cancelled::Done));
    }
    let other = ended(&*store, at(1), 9999, "https://b.example/").await;
    let courier = Courier { per_host: 1, busy: BTreeMap::from([("a.example:443".to_owned(), 1)]), ..courier() };
    let mut found = false;
    for _ in 0..20 {
        let claimed = store.claim_deliveries(courier.clone(), at(2), LEASE).await.expect("claim").claimed;
        found |= claimed.iter().any(|delivery| delivery.key.id == other);
    }
    assert!(found, "it waits behind a host that takes nothing");
    let all = Courier { max: 3000, per_host: 3000, ..self::courier() };
    let mut claimed = 0;
    for _ in 0..20 {
        claimed += store.claim_deliveries(all.clone(), at(10), LEASE).await.expect("claim").claimed.len();
    }
    assert_eq!(claimed, ids.len(), "nothing was lost on the way");
}

pub async fn a_node_that_starts_anew_gets_back_its_own_deliveries_only(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let mine = ended(&*store, at(0), 1, URL).await;
    assert_eq!(claim_ids(&*store, at(1)).await, [mine]);
    let theirs = ended(&*store, at(0), 2, URL).await;
    let other = Courier { node: "node-2".to_owned(), ..courier() };
    assert_eq!(store.claim_deliveries(other, at(1), LEASE).await.expect("claim").claimed.len(), 1);
    store.take_back(NODE.to_owned(), at(2), 3).await.expect("take back");
    assert_eq!(claim_ids(&*store, at(2)).await, [mine]);
    assert_eq!(record(&*store, theirs).await.next_at, None, "it is still under way");
}

pub async fn a_delivery_goes_with_its_job(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let first = ended(&*store, at(0), 1, URL).await;
    let second = ended(&*store, at(1), 2, URL).await;
    let keys: Vec<DeliveryKey> = claim(&*store, at(2)).await.claimed.iter().map(|delivery| delivery.key).collect();
    let retry = DeliveryEnd::Retry { done: failed(at(2), None), at: at(3) };
    store.settle_delivery(keys[0], at(2), retry.clone()).await.expect("settle");
    assert_eq!(store.delete(first).await, Ok(Deleted::Done));
    assert_eq!(store.retain(at(100), 10).await, Ok(1));
    for (id, key) in [(first, keys[0]), (second, keys[1])] {
        assert_eq!(store.delivery(id).await, Ok(None));
        assert_eq!(store.settle_delivery(key, at(4), retry.clone()).await, Err(StoreError::LeaseLost));
    }
    assert_eq!(claim(&*store, at(10_000)).await, Deliveries::default());
    assert_eq!(store.pending_deliveries().await, Ok(0));
}

pub async fn deliveries_are_there_after_opening_again(fixture: &dyn Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let waiting = put(&*store, vec![with_callback(new_job(at(0), 1), URL)]).await[0];
    let running = put(&*store, vec![with_callback(new_job(at(1), 2), URL)]).await[0];
    let held = store.claim(claimant(2), at(2), LEASE).await.expect("claim");
    let back = Settlement::Released { delay: Duration::ZERO, count_attempt: false };
    store.settle(held[0].key, at(2), back).await.expect("settle");
    let done = ended_before(&*store).await;
    let store = fixture.reopen(store).await;
    assert_eq!(claim_ids(&*store, at(9)).await, [done]);
    store.settle(held[1].key, at(9), completed(Verdict::Accepted)).await.expect("settle");
    assert_eq!(store.cancel(waiting, at(9)).await, Ok(Cancelled::Done));
    assert_eq!(claim_ids(&*store, at(9)).await, [waiting, running], "both were remembered");
}

/// The most urgent of all that wait, so that it is the one that is claimed.
async fn ended_before(store: &dyn Store) -> JobId {
    let new = super::with_priority(with_callback(new_job(at(3), 3), URL), 50);
    let id = put(store, vec![new]).await[0];
    let claim = claim_one(store, at(3)).await;
    store.settle(claim.key, at(3), completed(Verdict::Accepted)).await.expect("settle");
    id
}
