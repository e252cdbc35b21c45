//! Places for those who wait and watch: so many in all, and on a server with tokens no more than a share of them
//! for one owner, so that nobody shuts out the others.

use crate::owner::Owner;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub struct Places {
    all: Arc<Semaphore>,
    size: usize,
    /// The share of each owner who was here; they are as few as tokens.
    shares: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// One place or several, until dropped.
pub struct Place {
    _all: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub fn new(size: usize) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(size)), size, shares: Mutex::default() }
    }

    /// A quarter of all; `None` on a server without tokens, where all clients are one.
    fn share(&self, owner: &Owner) -> Option<Arc<Semaphore>> {
        let name = owner.name.as_deref()?;
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(name) {
            return Some(share.clone());
        }
        let share = Arc::new(Semaphore::new(self.size.div_ceil(4)));
        shares.insert(name.to_owned(), share.clone());
        Some(share)
    }

    /// All that are wanted, or nothing.
    pub fn try_take(&self, owner: &Owner, wanted: u32) -> Option<Place> {
        let share = match self.share(owner) {
            Some(share) => Some(share.try_acquire_many_owned(wanted).ok()?),
            None => None,
        };
        Some(Place { _all: self.all.clone().try_acquire_many_owned(wanted).ok()?, _share: share })
    }

    /// One, as soon as there is one. First of the owner's share: who waits for that keeps no place from others.
    pub async fn take(&self, owner: &Owner) -> Option<Place> {
        let share = match self.share(owner) {
            Some(share) => Some(share.acquire_owned().await.ok()?),
            None => None,
        };
        Some(Place { _all: self.all.clone().acquire_owned().await.ok()?, _share: share })
    }

    pub fn taken(&self) -> usize {
        self.size - self.all.available_permits()
    }

    /// Returns when nobody is here any more.
    pub async fn all_free(&self) {
        // The semaphore is never closed.
        let _ = self.all.acquire_many(u32::try_from(self.size).unwrap_or(u32::MAX)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn an_owner_has_a_quarter_and_everybody_together_all() {
        let places = Places::new(8);
        let owner = |n: u32| Owner::named(&format!("owner {n}"));
        let mine = places.try_take(&owner(1), 2).unwrap();
        assert!(places.try_take(&owner(1), 1).is_none() && places.take(&owner(1)).now_or_never().is_none());
        assert!(places.try_take(&owner(2), 3).is_none(), "more than a share");
        let others: Vec<_> = (2..=4).map(|n| places.try_take(&owner(n), 2).unwrap()).collect();
        assert_eq!(places.taken(), 8);
        assert!(places.try_take(&owner(5), 1).is_none(), "more than there are");
        drop(mine);
        assert!(places.take(&owner(1)).now_or_never().is_some());
        assert!(places.try_take(&owner(5), 2).is_some(), "what was refused took nothing of the share");
        drop(others);
        assert!(places.all_free().now_or_never().is_some());
    }

    #[test]
    fn without_tokens_all_places_are_for_everybody() {
        let places = Places::new(8);
        assert!(places.try_take(&Owner::operator(), 8).is_some());
    }
}
