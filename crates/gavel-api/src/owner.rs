//! Whose jobs a request may see.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::convert::Infallible;

/// The owner of what a request creates, and the only one whose jobs it sees. `None`: a server
/// without tokens, where every client is the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner(pub Option<String>);

impl Owner {
    /// May a request of this owner see a job of that one?
    pub fn sees(&self, owner: Option<&str>) -> bool {
        match &self.0 {
            None => true,
            Some(me) => owner == Some(me),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Owner {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // Tokens will be read here; every handler already asks for its owner.
        Ok(Self(None))
    }
}

#[cfg(test)]
mod tests {
    use super::Owner;

    #[test]
    fn an_owner_sees_only_its_own_jobs() {
        let nobody = Owner(None);
        let ada = Owner(Some("ada".into()));
        assert!(nobody.sees(None) && nobody.sees(Some("ada")));
        assert!(ada.sees(Some("ada")) && !ada.sees(Some("bob")) && !ada.sees(None));
    }
}
