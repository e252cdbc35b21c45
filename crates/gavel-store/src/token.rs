//! Tokens: who may use the API, for what, and how much. The secret itself is never here, only its hash.

use gavel_core::Timestamp;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use uuid::Uuid;

/// What stands in for a secret.
pub type TokenHash = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: Uuid,
    /// Unique among the tokens that are not revoked.
    pub name: String,
    /// Whose jobs it submits and sees.
    pub owner: String,
    pub hash: TokenHash,
    pub scopes: Scopes,
    pub rate: Option<Rate>,
    pub quota: Quota,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Written now and then, not with each use.
    pub last_used_at: Option<Timestamp>,
}

impl Token {
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.has_expired(now)
    }
}

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Submit jobs; cancel and erase one's own.
    Submit,
    /// Read one's own jobs.
    Read,
    /// Everything, and the jobs of all.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Submit, Self::Read, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        known.ok_or_else(|| format!("there is no scope {text:?}: use submit, read or admin"))
    }
}

/// A set of scopes. `admin` is in it only where it was named, but implies the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << Scope::Admin as u8 | 1 << scope as u8) != 0
    }

    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes that were named.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & (1 << *scope as u8) != 0).map(Scope::as_str)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}

/// As in `submit,read`.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Scopes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(Scope::from_str).collect()
    }
}

/// Requests per second, and how many may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}

/// How much of the server one owner may take. The jobs of all tokens of an owner count together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Jobs submitted from one midnight UTC to the next; those that were erased count, too.
    pub jobs_per_day: Option<u64>,
    /// Jobs that have not ended.
    pub concurrent: Option<u64>,
}

/// Which part of a quota was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaKind {
    JobsPerDay,
    Concurrent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenCreated {
    Done,
    /// Another token of this name is not revoked and has not expired.
    NameTaken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_implies_every_scope_and_nothing_else_does() {
        let read: Scopes = "read".parse().unwrap();
        assert!(read.has(Scope::Read) && !read.has(Scope::Submit) && !read.has(Scope::Admin));
        let admin: Scopes = "admin".parse().unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| admin.has(scope)));
        assert_eq!(admin.to_string(), "admin");
        assert_eq!(" read , submit".parse::<Scopes>().unwrap().to_string(), "submit,read");
        assert!("write".parse::<Scopes>().unwrap_err().contains("use submit, read or admin"));
    }
}
