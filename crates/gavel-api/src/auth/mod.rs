//! Who is asking: tokens, what they may be used for, and how often.
//!
//! Reading order: [`Auth`] (the tokens of this server in memory), `layer` (what happens to a request),
//! `access` (what each route asks for), `peers` (who guesses).
//!
//! A token is found by its hash and never compared: how long that takes depends on the hash of what was
//! sent, which nobody can choose byte by byte. The hash is a fast one, on purpose. Slow ones (argon2,
//! bcrypt) make up for secrets that people think up; these have 192 random bits, which nobody tries out, and
//! every request would pay.

pub(crate) mod access;
mod layer;
mod peers;

pub use layer::{Peer, check};

use crate::times::now;
use gavel_core::Timestamp;
use gavel_store::{Quota, Rate, Scopes, Store, StoreError, Token, TokenHash};
use governor::{DefaultDirectRateLimiter, RateLimiter};
use peers::Failures;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use uuid::Uuid;

/// What every token begins with, so that a scanner of repositories can tell one.
pub const PREFIX: &str = "gvl_";

/// The least that a secret from the configuration must have.
pub const MIN_STATIC: usize = 16;

/// How often the store is asked whether tokens changed: a revoked one works this long at most.
const LOOK: Duration = Duration::from_secs(1);
/// How often uses of tokens are written down, in looks.
const WRITE_EVERY: u32 = 15;

/// What stands for a token in the store.
pub fn hash(secret: &str) -> TokenHash {
    // Another context than any other use of this hash, so that no other hash is ever a token's.
    blake3::derive_key("gavel 2026-11 api token", secret.as_bytes())
}

/// Makes the text of a token from random bytes.
pub fn secret(random: [u8; 24]) -> String {
    use base64::Engine;
    format!("{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}

/// Does the API ask for tokens?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Required {
    /// Once there is one; and then for good, also when all are revoked.
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Default)]
pub struct AuthOptions {
    pub required: Required,
    /// Secrets from the configuration, and what they may do.
    pub fixed: Vec<(String, Scopes)>,
    /// Everybody may read `/metrics`.
    pub open_metrics: bool,
}

/// Whose the jobs are that come with a token from the configuration.
pub const FIXED_OWNER: &str = "config";

/// A token in use.
#[derive(Debug)]
pub struct Pass {
    pub token: Token,
    /// A person may have chosen it, so somebody else may guess it.
    guessable: bool,
    limiter: Option<DefaultDirectRateLimiter>,
    revoked: AtomicBool,
    last_used: AtomicI64,
    written: AtomicI64,
}

impl Pass {
    fn new(token: Token, guessable: bool) -> Self {
        let limiter = token.rate.map(|Rate { per_second, burst }| {
            RateLimiter::direct(governor::Quota::per_second(per_second).allow_burst(burst))
        });
        let used = token.last_used_at.map_or(i64::MIN, |at| at.0);
        let (last_used, written) = (AtomicI64::new(used), AtomicI64::new(used));
        Self { token, guessable, limiter, revoked: AtomicBool::new(false), last_used, written }
    }

    pub fn is_valid(&self, now: Timestamp) -> bool {
        !self.revoked.load(Ordering::Acquire) && self.token.is_active(now)
    }

    fn touch(&self, now: Timestamp) {
        self.last_used.fetch_max(now.0, Ordering::Relaxed);
    }

    /// The use that is not written down yet.
    fn unwritten(&self) -> Option<(Uuid, Timestamp)> {
        let used = self.last_used.load(Ordering::Relaxed);
        (!self.guessable && used > self.written.load(Ordering::Relaxed)).then_some((self.token.id, Timestamp(used)))
    }
}

/// The tokens of this server.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: Option<Arc<dyn Store>>,
    options: AuthOptions,
    table: RwLock<Arc<Table>>,
    failures: Failures,
}

/// What the store had when it was last looked at.
#[derive(Default)]
struct Table {
    by_hash: HashMap<TokenHash, Arc<Pass>>,
    /// There is a token, or there was one.
    ever: bool,
    changes: Option<u64>,
}

/// No tokens, and none wanted.
impl Default for Auth {
    fn default() -> Self {
        let options = AuthOptions { required: Required::Never, ..AuthOptions::default() };
        Self(Arc::new(Inner { store: None, options, table: RwLock::default(), failures: Failures::default() }))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("in_force", &self.in_force()).finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads the tokens, so that no request comes before them.
    pub async fn load(store: Arc<dyn Store>, options: AuthOptions) -> Result<Self, StoreError> {
        let inner = Inner { store: Some(store), options, table: RwLock::default(), failures: Failures::default() };
        let auth = Self(Arc::new(inner));
        auth.refresh().await?;
        Ok(auth)
    }

    /// Does a request need a token?
    pub fn in_force(&self) -> bool {
        match self.0.options.required {
            Required::Always => true,
            Required::Never => false,
            Required::Auto => self.table().ever,
        }
    }

    /// Is there a token that works?
    pub fn has_usable(&self) -> bool {
        let now = now();
        self.table().by_hash.values().any(|pass| pass.is_valid(now))
    }

    /// Looks for tokens that were made or revoked, and writes down which were used, until it is dropped.
    pub async fn keep_fresh(self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut away) = (0, false);
        loop {
            ticks.tick().await;
            match self.refresh().await {
                Ok(()) if away => {
                    away = false;
                    info!("the tokens can be read again");
                }
                Ok(()) => {}
                Err(error) if !away => {
                    away = true;
                    warn!(%error, "the tokens cannot be read: those that were known go on working");
                }
                Err(_) => {}
            }
            looks += 1;
            if looks % WRITE_EVERY == 0 {
                self.write_uses().await;
            }
        }
    }

    /// Reads the tokens again if any changed.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let Some(store) = &self.0.store else { return Ok(()) };
        // Before the tokens: a change that comes in between is then seen at the next look.
        let changes = Some(store.token_changes().await?);
        let old = self.table();
        if old.changes == changes {
            return Ok(());
        }
        let tokens = store.tokens().await?;
        let ever = !tokens.is_empty() || !self.0.options.fixed.is_empty();
        let mut by_hash = HashMap::new();
        for pass in self.fixed(&old) {
            by_hash.insert(pass.token.hash, pass);
        }
        for token in tokens.into_iter().filter(|token| token.revoked_at.is_none()) {
            // The same pass as before: how much of its rate it has used must not be forgotten.
            let known = old.by_hash.get(&token.hash).filter(|pass| pass.token.id == token.id).cloned();
            by_hash.insert(token.hash, known.unwrap_or_else(|| Arc::new(Pass::new(token, false))));
        }
        for (hash, pass) in &old.by_hash {
            if !by_hash.contains_key(hash) {
                pass.revoked.store(true, Ordering::Release);
            }
        }
        let table = Arc::new(Table { by_hash, ever, changes });
        *self.0.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// The tokens of the configuration. They never change while the server runs.
    fn fixed(&self, old: &Table) -> Vec<Arc<Pass>> {
        let pass = |(secret, scopes): &(String, Scopes)| {
            let hash = hash(secret);
            if let Some(pass) = old.by_hash.get(&hash).filter(|pass| pass.guessable) {
                return pass.clone();
            }
            let token = Token {
                id: Uuid::nil(),
                name: FIXED_OWNER.to_owned(),
                owner: FIXED_OWNER.to_owned(),
                hash,
                scopes: *scopes,
                rate: None,
                quota: Quota::default(),
                created_at: now(),
                expires_at: None,
                revoked_at: None,
                last_used_at: None,
            };
            Arc::new(Pass::new(token, true))
        };
        self.0.options.fixed.iter().map(pass).collect()
    }

    /// Writes down when tokens were used. Losing that costs nothing but the number.
    pub async fn write_uses(&self) {
        let Some(store) = &self.0.store else { return };
        let table = self.table();
        let uses: Vec<_> = table.by_hash.values().filter_map(|pass| pass.unwritten()).collect();
        if uses.is_empty() {
            return;
        }
        match store.touch_tokens(uses).await {
            Ok(()) => table.by_hash.values().for_each(|pass| {
                if let Some((_, used)) = pass.unwritten() {
                    pass.written.store(used.0, Ordering::Relaxed);
                }
            }),
            Err(error) => warn!(%error, "the uses of tokens cannot be written down"),
        }
    }

    fn table(&self) -> Arc<Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, secret: &str) -> Option<Arc<Pass>> {
        self.table().by_hash.get(&hash(secret)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_can_stand_in_a_url() {
        let secret = secret([0xff; 24]);
        assert_eq!(secret.len(), PREFIX.len() + 32);
        assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{secret}");
        assert_ne!(hash(&secret), *blake3::hash(secret.as_bytes()).as_bytes());
    }
}
