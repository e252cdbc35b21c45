//! The rules about tokens and quotas.

use super::{Fixture, at, claim_one, completed, new_job, put};
use crate::{Inserted, NewJob, Quota, QuotaKind, Rate, Scope, Scopes, Store, StoreError, Token, TokenCreated};
use gavel_core::{Timestamp, Verdict};
use std::num::NonZeroU32;
use std::time::Duration;
use uuid::Uuid;

/// One test for each rule, on the stores of a fixture.
#[macro_export]
macro_rules! token_contract {
    ($fixture:expr) => {
        $crate::token_contract!(@ $fixture;
            a_token_comes_back_exactly_as_it_went_in
            a_name_belongs_to_one_active_token
            a_revoked_token_stays_on_the_list
            a_revoked_token_is_found_by_its_id_and_by_its_name
            every_change_of_tokens_shows_in_the_number_of_changes
            the_latest_use_of_a_token_is_kept
            tokens_are_there_after_opening_again
            an_owner_has_no_more_open_jobs_than_its_quota
            an_owner_submits_no_more_jobs_a_day_than_its_quota
            a_quota_is_never_exceeded_by_many_at_once
            a_batch_is_stored_as_far_as_the_quota_goes
        );
    };
    (@ $fixture:expr; $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::contract::tokens::$rule(&$fixture).await;
            }
        )*
    };
}

const PLENTY: u64 = 1_000_000;

fn token(n: u8, name: &str) -> Token {
    Token {
        id: Uuid::from_u128(0x1000 + u128::from(n)),
        name: name.to_owned(),
        owner: name.to_owned(),
        hash: [n; 32],
        scopes: [Scope::Submit, Scope::Read].into_iter().collect(),
        rate: None,
        quota: Quota::default(),
        created_at: at(u64::from(n)),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    }
}

async fn create(store: &dyn Store, token: &Token) -> TokenCreated {
    store.create_token(token.clone()).await.expect("create")
}

async fn revoke(store: &dyn Store, which: &str) -> Option<Token> {
    store.revoke_token(which.to_owned(), at(500)).await.expect("revoke")
}

async fn tokens(store: &dyn Store) -> Vec<Token> {
    store.tokens().await.expect("tokens")
}

pub async fn a_token_comes_back_exactly_as_it_went_in(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let some = |n| NonZeroU32::new(n).expect("not zero");
    let full = Token {
        scopes: Scopes::all(),
        owner: "somebody else's 'ü'".to_owned(),
        rate: Some(Rate { per_second: some(5), burst: some(u32::MAX) }),
        quota: Quota { jobs_per_day: Some(1000), concurrent: Some(0) },
        expires_at: Some(at(1000)),
        last_used_at: Some(at(3)),
        ..token(1, "full")
    };
    let plain = token(2, "plain");
    for token in [&plain, &full] {
        assert_eq!(create(&*store, token).await, TokenCreated::Done);
    }
    assert_eq!(tokens(&*store).await, [full, plain], "oldest first");
}

pub async fn a_name_belongs_to_one_active_token(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let first = Token { expires_at: Some(at(100)), ..token(1, "ci") };
    assert_eq!(create(&*store, &first).await, TokenCreated::Done);
    assert_eq!(create(&*store, &token(2, "ci")).await, TokenCreated::NameTaken);
    assert_eq!(tokens(&*store).await.len(), 1);
    // The first one has expired by then.
    let late = Token { created_at: at(100), ..token(3, "ci") };
    assert_eq!(create(&*store, &late).await, TokenCreated::Done);
    assert_eq!(revoke(&*store, "ci").await.map(|token| token.id), Some(late.id));
    assert_eq!(create(&*store, &Token { created_at: at(101), ..token(4, "ci") }).await, TokenCreated::Done);
}

pub async fn a_revoked_token_stays_on_the_list(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    create(&*store, &token(1, "a")).await;
    let revoked = Token { revoked_at: Some(at(500)), ..token(1, "a") };
    assert_eq!(revoke(&*store, "a").await, Some(revoked.clone()));
    assert_eq!(tokens(&*store).await, [revoked]);
}

pub async fn a_revoked_token_is_found_by_its_id_and_by_its_name(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    for (n, name) in [(1, "a"), (2, "b")] {
        create(&*store, &token(n, name)).await;
    }
    assert_eq!(revoke(&*store, "c").await, None);
    assert_eq!(revoke(&*store, &token(1, "a").id.to_string()).await.map(|token| token.name), Some("a".to_owned()));
    assert_eq!(revoke(&*store, "a").await, None, "it is revoked already");
    assert_eq!(revoke(&*store, &token(1, "a").id.to_string()).await, None);
    assert!(revoke(&*store, "b").await.is_some());
}

pub async fn every_change_of_tokens_shows_in_the_number_of_changes(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let changes = async || store.token_changes().await.expect("changes");
    let mut last = changes().await;
    assert_eq!(changes().await, last, "nothing changed");
    create(&*store, &token(1, "a")).await;
    assert_ne!(changes().await, std::mem::replace(&mut last, changes().await), "one was created");
    create(&*store, &token(2, "a")).await;
    revoke(&*store, "nobody").await;
    store.touch_tokens(vec![(token(1, "a").id, at(9))]).await.expect("touch");
    assert_eq!(changes().await, last, "none was created or revoked");
    revoke(&*store, "a").await;
    assert_ne!(changes().await, last, "one was revoked");
}

pub async fn the_latest_use_of_a_token_is_kept(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    create(&*store, &token(1, "a")).await;
    create(&*store, &token(2, "b")).await;
    let id = token(1, "a").id;
    store.touch_tokens(vec![(id, at(20)), (id, at(10)), (Uuid::nil(), at(30))]).await.expect("touch");
    let used: Vec<Option<Timestamp>> = tokens(&*store).await.iter().map(|token| token.last_used_at).collect();
    assert_eq!(used, [Some(at(20)), None]);
}

pub async fn tokens_are_there_after_opening_again(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    create(&*store, &token(1, "a")).await;
    let store = fixture.reopen(store).await;
    assert_eq!(tokens(&*store).await, [token(1, "a")]);
    store.close().await;
    let closed = store.tokens().await;
    assert!(matches!(closed, Err(StoreError::Unavailable(_))), "{closed:?}");
}

fn owned(owner: &str, n: u64, quota: Quota) -> NewJob {
    NewJob { owner: Some(owner.to_owned()), quota, ..new_job(at(n), n) }
}

async fn insert(store: &dyn Store, new: NewJob) -> Inserted {
    store.insert(vec![new]).await.expect("insert").remove(0)
}

pub async fn an_owner_has_no_more_open_jobs_than_its_quota(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let two = Quota { concurrent: Some(2), ..Quota::default() };
    let over = Inserted::OverQuota(QuotaKind::Concurrent);
    put(&*store, vec![owned("a", 1, two), owned("a", 2, two)]).await;
    assert_eq!(insert(&*store, owned("a", 3, two)).await, over);
    assert_eq!(insert(&*store, owned("b", 4, two)).await, Inserted::New, "of somebody else");
    assert_eq!(insert(&*store, new_job(at(5), 5)).await, Inserted::New, "of nobody");
    // A running job counts, and so it does after a restart.
    let claim = claim_one(&*store, at(10)).await;
    assert_eq!(insert(&*store, owned("a", 6, two)).await, over);
    let store = fixture.reopen(store).await;
    assert_eq!(insert(&*store, owned("a", 7, two)).await, over);
    store.settle(claim.key, at(11), completed(Verdict::Accepted)).await.expect("settle");
    assert_eq!(insert(&*store, owned("a", 8, two)).await, Inserted::New);
    assert_eq!(insert(&*store, owned("a", 9, two)).await, over);
    let waiting = owned("a", 8, two).id;
    store.cancel(waiting, at(12)).await.expect("cancel");
    assert_eq!(insert(&*store, owned("a", 10, two)).await, Inserted::New, "one was cancelled");
    let none = Quota { concurrent: Some(0), ..Quota::default() };
    assert_eq!(insert(&*store, owned("c", 11, none)).await, over);
}

pub async fn an_owner_submits_no_more_jobs_a_day_than_its_quota(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let three = Quota { jobs_per_day: Some(3), ..Quota::default() };
    let over = Inserted::OverQuota(QuotaKind::JobsPerDay);
    // One of them without a quota, which counts all the same.
    put(&*store, vec![owned("a", 1, three), owned("a", 2, Quota::default()), owned("a", 3, three)]).await;
    assert_eq!(insert(&*store, owned("a", 4, three)).await, over);
    assert_eq!(insert(&*store, owned("b", 5, three)).await, Inserted::New, "of somebody else");
    // What has ended and was erased counts.
    let first = owned("a", 1, three).id;
    store.cancel(first, at(6)).await.expect("cancel");
    store.delete(first).await.expect("delete");
    let store = fixture.reopen(store).await;
    assert_eq!(insert(&*store, owned("a", 7, three)).await, over);
    let tomorrow = Timestamp(at(0).0 - at(0).0 % 86_400_000_000).plus(Duration::from_secs(86_400));
    let late = |n, time| NewJob { created_at: time, ..owned("a", n, three) };
    assert_eq!(insert(&*store, late(8, tomorrow.minus(Duration::from_micros(1)))).await, over, "a moment too early");
    for n in 9..12 {
        assert_eq!(insert(&*store, late(n, tomorrow)).await, Inserted::New);
    }
    assert_eq!(insert(&*store, late(12, tomorrow)).await, over);
}

pub async fn a_quota_is_never_exceeded_by_many_at_once(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let quota = Quota { jobs_per_day: Some(10), concurrent: Some(7) };
    let inserts = (0..40).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { insert(&*store, owned("a", n, quota)).await })
    });
    let mut new = 0;
    for insert in inserts.collect::<Vec<_>>() {
        match insert.await.expect("no panic") {
            Inserted::New => new += 1,
            other => assert_eq!(other, Inserted::OverQuota(QuotaKind::Concurrent)),
        }
    }
    assert_eq!(new, 7);
    assert_eq!(store.depth().await.expect("depth").pending, 7);
}

pub async fn a_batch_is_stored_as_far_as_the_quota_goes(fixture: &impl Fixture) {
    let store = fixture.fresh(PLENTY).await;
    let quota = Quota { jobs_per_day: Some(2), concurrent: Some(5) };
    let batch = (0..3).map(|n| owned("a", n, quota)).collect();
    let answers = store.insert(batch).await.expect("insert");
    assert_eq!(answers, [Inserted::New, Inserted::New, Inserted::OverQuota(QuotaKind::JobsPerDay)]);
    assert_eq!(store.find(owned("a", 2, quota).id).await.expect("find"), None, "what was refused is not there");
}
