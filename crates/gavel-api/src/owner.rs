//! Whose jobs a request may see, and what it may do.

use crate::auth::Pass;
use crate::error::ApiError;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use gavel_core::Timestamp;
use gavel_store::{Quota, Scope, Scopes};
use std::sync::Arc;

/// The owner of what a request creates, and the only one whose jobs it sees; unless it is an operator, who
/// sees all.
#[derive(Debug, Clone)]
pub struct Owner {
    /// What it creates gets this owner; `None` on a server without tokens.
    pub name: Option<String>,
    /// An operator: somebody with an admin's token, or everybody on a server without tokens.
    pub sees_all: bool,
    /// How much it may have.
    pub quota: Quota,
    /// The token of the request; `None` on a server without tokens.
    pass: Option<Arc<Pass>>,
}

impl Owner {
    /// Everybody on a server without tokens.
    pub fn operator() -> Self {
        Self { name: None, sees_all: true, quota: Quota::default(), pass: None }
    }

    /// Somebody who sees only what is theirs.
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), sees_all: false, ..Self::operator() }
    }

    /// May a request of this owner see a job of that one?
    pub fn sees(&self, owner: Option<&str>) -> bool {
        self.sees_all || (owner.is_some() && owner == self.name.as_deref())
    }

    /// Whose jobs a listing shows; `None`: all.
    pub fn filter(&self) -> Option<String> {
        if self.sees_all { None } else { Some(self.name.clone().unwrap_or_default()) }
    }

    /// A request may outlive its token: a stream of jobs does.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.pass.as_ref().is_none_or(|pass| pass.is_valid(now))
    }
}

/// Who makes a request. Every request that needs a token has one in its extensions, put there by
/// [`crate::auth`]; handlers take this, or only the [`Owner`] in it.
#[derive(Debug, Clone)]
pub struct Caller {
    pub owner: Owner,
    pub scopes: Scopes,
}

impl Caller {
    /// Everybody on a server without tokens.
    pub fn operator() -> Self {
        Self { owner: Owner::operator(), scopes: Scopes::all() }
    }

    pub(crate) fn of(pass: Arc<Pass>, scopes: Scopes) -> Self {
        let token = &pass.token;
        let owner = Owner {
            name: Some(token.owner.clone()),
            sees_all: scopes.has(Scope::Admin),
            quota: token.quota,
            pass: Some(pass),
        };
        Self { owner, scopes }
    }

    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // A route that is open by mistake is closed here: nobody became a caller.
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::no_token)
    }
}

impl<S: Sync> FromRequestParts<S> for Owner {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Caller::from_request_parts(parts, state).await?.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::Owner;

    #[test]
    fn an_owner_sees_only_its_own_jobs() {
        let operator = Owner::operator();
        let ada = Owner::named("ada");
        let nobody = Owner { name: None, ..ada.clone() };
        assert!(operator.sees(None) && operator.sees(Some("ada")));
        assert!(ada.sees(Some("ada")) && !ada.sees(Some("bob")) && !ada.sees(None));
        assert!(!nobody.sees(None) && !nobody.sees(Some("ada")));
        assert_eq!((operator.filter(), ada.filter()), (None, Some("ada".into())));
    }
}
