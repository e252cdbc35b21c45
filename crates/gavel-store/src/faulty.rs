//! A store and a queue that fail on demand, for the tests of those who must live with that.

use crate::{
    Cancelled, Census, Claim, ClaimKey, Claimant, Courier, Deleted, Deliveries, DeliveryEnd, DeliveryKey,
    DeliveryRecord, Depth, Ended, Event, Filter, Input, InputRefused, Inputs, Inserted, JobRecord, JobSummary, Lease,
    Listener, NewJob, Page, Queue, Settlement, Store, StoreError, Swept, Token, TokenCreated,
};
use async_trait::async_trait;
use gavel_core::{JobId, Timestamp};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// A method of [`Store`] that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Insert,
    Sync,
    Claim,
    Extend,
    Settle,
    Find,
    List,
    Page,
    Census,
    Cancel,
    Delete,
    Sweep,
    TakeBack,
    Retain,
    ClaimDeliveries,
    SettleDelivery,
    Delivery,
    PendingDeliveries,
    Depth,
    Recent,
    Check,
    CreateToken,
    RevokeToken,
    Tokens,
    TokenChanges,
    TouchTokens,
}

impl Call {
    pub const ALL: [Self; 26] = [
        Self::Insert,
        Self::Sync,
        Self::Claim,
        Self::Extend,
        Self::Settle,
        Self::Find,
        Self::List,
        Self::Page,
        Self::Census,
        Self::Cancel,
        Self::Delete,
        Self::Sweep,
        Self::TakeBack,
        Self::Retain,
        Self::ClaimDeliveries,
        Self::SettleDelivery,
        Self::Delivery,
        Self::PendingDeliveries,
        Self::Depth,
        Self::Recent,
        Self::Check,
        Self::CreateToken,
        Self::RevokeToken,
        Self::Tokens,
        Self::TokenChanges,
        Self::TouchTokens,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// Nothing was done.
    Refused(StoreError),
    /// It was done, but the answer got lost: what a cut connection looks like.
    AnswerLost(StoreError),
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    nth: HashMap<u64, Fault>,
    always: Option<StoreError>,
    delay: Duration,
}

/// Passes everything on to a real store, except what it was told to spoil.
pub struct Faulty<S> {
    inner: S,
    plans: Mutex<HashMap<Call, Plan>>,
}

impl<S: Store> Faulty<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, plans: Mutex::default() }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The `n`th call of this kind from now on (1 is the next) fails and does nothing.
    pub fn fail_nth(&self, call: Call, n: u64, error: StoreError) -> &Self {
        self.spoil_nth(call, n, Fault::Refused(error))
    }

    /// The `n`th call of this kind from now on (1 is the next) is carried out, but says that it failed.
    pub fn lose_answer_nth(&self, call: Call, n: u64, error: StoreError) -> &Self {
        self.spoil_nth(call, n, Fault::AnswerLost(error))
    }

    /// Every call of this kind fails until [`Faulty::heal`].
    pub fn fail(&self, call: Call, error: StoreError) -> &Self {
        self.plan(|plans| plans.entry(call).or_default().always = Some(error));
        self
    }

    /// Every call of any kind fails until [`Faulty::heal_all`]: the database is gone.
    pub fn fail_all(&self, error: StoreError) -> &Self {
        for call in Call::ALL {
            self.fail(call, error.clone());
        }
        self
    }

    /// Every call of this kind takes so much longer.
    pub fn delay(&self, call: Call, delay: Duration) -> &Self {
        self.plan(|plans| plans.entry(call).or_default().delay = delay);
        self
    }

    /// Forgets what was planned for this kind of call.
    pub fn heal(&self, call: Call) -> &Self {
        self.plan(|plans| {
            let plan = plans.entry(call).or_default();
            *plan = Plan { calls: plan.calls, ..Plan::default() };
        });
        self
    }

    pub fn heal_all(&self) -> &Self {
        for call in Call::ALL {
            self.heal(call);
        }
        self
    }

    /// How often this kind was called, spoilt calls included.
    pub fn calls(&self, call: Call) -> u64 {
        self.plan(|plans| plans.get(&call).map_or(0, |plan| plan.calls))
    }

    fn spoil_nth(&self, call: Call, n: u64, fault: Fault) -> &Self {
        self.plan(|plans| {
            let plan = plans.entry(call).or_default();
            plan.nth.insert(plan.calls + n, fault);
        });
        self
    }

    fn plan<T>(&self, change: impl FnOnce(&mut MutexGuard<'_, HashMap<Call, Plan>>) -> T) -> T {
        change(&mut self.plans.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn pass<T>(
        &self,
        call: Call,
        real: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let (fault, delay) = self.plan(|plans| {
            let plan = plans.entry(call).or_default();
            plan.calls += 1;
            let fault = plan.nth.remove(&plan.calls);
            (fault.or_else(|| plan.always.clone().map(Fault::Refused)), plan.delay)
        });
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match fault {
            None => real.await,
            Some(Fault::Refused(error)) => Err(error),
            Some(Fault::AnswerLost(error)) => {
                // Whether it went well is what the caller will not learn.
                let _lost = real.await;
                Err(error)
            }
        }
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn insert(&self, jobs: Vec<NewJob>) -> Result<Vec<Inserted>, StoreError> {
        self.pass(Call::Insert, self.inner.insert(jobs)).await
    }

    async fn insert_unsynced(&self, jobs: Vec<NewJob>) -> Result<Vec<Inserted>, StoreError> {
        self.pass(Call::Insert, self.inner.insert_unsynced(jobs)).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.pass(Call::Sync, self.inner.sync()).await
    }

    async fn claim(&self, by: Claimant, now: Timestamp, lease: Duration) -> Result<Vec<Claim>, StoreError> {
        self.pass(Call::Claim, self.inner.claim(by, now, lease)).await
    }

    async fn claim_next(
        &self,
        node: &str,
        worker: i32,
        clock: fn() -> Timestamp,
        lease: Duration,
    ) -> Result<Option<Claim>, StoreError> {
        self.pass(Call::Claim, self.inner.claim_next(node, worker, clock, lease)).await
    }

    async fn extend(&self, keys: Vec<ClaimKey>, now: Timestamp, lease: Duration) -> Result<Vec<Lease>, StoreError> {
        self.pass(Call::Extend, self.inner.extend(keys, now, lease)).await
    }

    async fn settle(&self, key: ClaimKey, now: Timestamp, end: Settlement) -> Result<(), StoreError> {
        self.pass(Call::Settle, self.inner.settle(key, now, end)).await
    }

    async fn find(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.pass(Call::Find, self.inner.find(id)).await
    }

    async fn list(&self, filter: Filter, limit: usize) -> Result<Vec<JobSummary>, StoreError> {
        self.pass(Call::List, self.inner.list(filter, limit)).await
    }

    async fn page(&self, owner: Option<String>, offset: u64, limit: usize) -> Result<Page, StoreError> {
        self.pass(Call::Page, self.inner.page(owner, offset, limit)).await
    }

    async fn census(&self, owner: Option<String>) -> Result<Census, StoreError> {
        self.pass(Call::Census, self.inner.census(owner)).await
    }

    async fn cancel(&self, id: JobId, now: Timestamp) -> Result<Cancelled, StoreError> {
        self.pass(Call::Cancel, self.inner.cancel(id, now)).await
    }

    async fn delete(&self, id: JobId) -> Result<Deleted, StoreError> {
        self.pass(Call::Delete, self.inner.delete(id)).await
    }

    async fn sweep(&self, now: Timestamp, max_attempts: u32) -> Result<Swept, StoreError> {
        self.pass(Call::Sweep, self.inner.sweep(now, max_attempts)).await
    }

    async fn take_back(&self, node: String, now: Timestamp, max_attempts: u32) -> Result<Swept, StoreError> {
        self.pass(Call::TakeBack, self.inner.take_back(node, now, max_attempts)).await
    }

    async fn retain(&self, before: Timestamp, max: usize) -> Result<u64, StoreError> {
        self.pass(Call::Retain, self.inner.retain(before, max)).await
    }

    async fn claim_deliveries(
        &self,
        courier: Courier,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Deliveries, StoreError> {
        self.pass(Call::ClaimDeliveries, self.inner.claim_deliveries(courier, now, lease)).await
    }

    async fn settle_delivery(&self, key: DeliveryKey, now: Timestamp, end: DeliveryEnd) -> Result<(), StoreError> {
        self.pass(Call::SettleDelivery, self.inner.settle_delivery(key, now, end)).await
    }

    async fn delivery(&self, id: JobId) -> Result<Option<DeliveryRecord>, StoreError> {
        self.pass(Call::Delivery, self.inner.delivery(id)).await
    }

    async fn pending_deliveries(&self) -> Result<u64, StoreError> {
        self.pass(Call::PendingDeliveries, self.inner.pending_deliveries()).await
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        self.pass(Call::Depth, self.inner.depth()).await
    }

    async fn recent(&self, limit: usize) -> Result<Vec<Ended>, StoreError> {
        self.pass(Call::Recent, self.inner.recent(limit)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.pass(Call::Check, self.inner.check()).await
    }

    async fn create_token(&self, token: Token) -> Result<TokenCreated, StoreError> {
        self.pass(Call::CreateToken, self.inner.create_token(token)).await
    }

    async fn revoke_token(&self, which: String, now: Timestamp) -> Result<Option<Token>, StoreError> {
        self.pass(Call::RevokeToken, self.inner.revoke_token(which, now)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.pass(Call::Tokens, self.inner.tokens()).await
    }

    async fn token_changes(&self) -> Result<u64, StoreError> {
        self.pass(Call::TokenChanges, self.inner.token_changes()).await
    }

    async fn touch_tokens(&self, uses: Vec<(Uuid, Timestamp)>) -> Result<(), StoreError> {
        self.pass(Call::TouchTokens, self.inner.touch_tokens(uses)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A bell that can be muffled: whatever relies on it must then be late, never wrong.
pub struct FaultyQueue {
    inner: Arc<dyn Queue>,
    mute: AtomicBool,
}

impl FaultyQueue {
    pub fn new(inner: Arc<dyn Queue>) -> Self {
        Self { inner, mute: AtomicBool::new(false) }
    }

    /// While it is mute, announcements, events and wishes to cancel get lost.
    pub fn set_mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::SeqCst);
    }

    fn rings(&self) -> bool {
        !self.mute.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    fn announce(&self, jobs: usize) {
        if self.rings() {
            self.inner.announce(jobs);
        }
    }

    async fn wait(&self) {
        self.inner.wait().await;
    }

    fn announce_deliveries(&self) {
        if self.rings() {
            self.inner.announce_deliveries();
        }
    }

    async fn wait_for_deliveries(&self) {
        self.inner.wait_for_deliveries().await;
    }

    fn publish(&self, id: JobId, event: Event) {
        if self.rings() {
            self.inner.publish(id, event);
        }
    }

    fn listen(&self, id: JobId) -> Box<dyn Listener> {
        self.inner.listen(id)
    }

    fn want_cancel(&self, id: JobId) {
        if self.rings() {
            self.inner.want_cancel(id);
        }
    }

    async fn cancel_wanted(&self) -> JobId {
        self.inner.cancel_wanted().await
    }

    async fn send_input(&self, id: JobId, input: Input) -> Result<(), InputRefused> {
        self.inner.send_input(id, input).await
    }

    fn take_input(&self, id: JobId, ring: Box<dyn Fn() + Send + Sync>) -> Box<dyn Inputs> {
        self.inner.take_input(id, ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{at, claimant, new_job};
    use crate::sqlite::{SqliteOptions, SqliteStore};

    fn broken() -> StoreError {
        StoreError::Unavailable("on purpose".to_owned())
    }

    #[tokio::test]
    async fn what_was_told_to_fail_fails_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = SqliteStore::open(SqliteOptions::new(directory.path().join("db"))).expect("open");
        let store = Faulty::new(store);
        store.fail_nth(Call::Insert, 2, broken()).lose_answer_nth(Call::Insert, 3, broken());
        let insert = async |n| store.insert(vec![new_job(at(n), n)]).await.map(|answers| answers[0]);
        assert_eq!(insert(1).await, Ok(Inserted::New));
        assert_eq!(insert(2).await, Err(broken()));
        assert_eq!(insert(3).await, Err(broken()));
        assert!(matches!(insert(3).await, Ok(Inserted::Existing(_))), "the third was done");
        assert_eq!(store.calls(Call::Insert), 4);

        store.fail_all(broken());
        assert_eq!(store.check().await, Err(broken()));
        assert_eq!(store.claim(claimant(9), at(9), Duration::ZERO).await.map(|claims| claims.len()), Err(broken()));
        store.heal_all();
        assert_eq!(store.claim(claimant(9), at(9), Duration::ZERO).await.map(|claims| claims.len()), Ok(2));
        store.close().await;
    }
}
