//! The languages this server offers, and whether each of them works right now.

use gavel_core::{Catalogue, Language};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What was found out about one language on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LanguageState {
    /// Name of the backend that runs it.
    pub backend: Option<String>,
    /// Version of its toolchain, as the toolchain says it.
    pub version: Option<String>,
    /// Why it cannot be used; shown to clients. `None`: it can.
    pub unavailable: Option<String>,
}

/// All languages at one moment.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    pub catalogue: Catalogue,
    states: BTreeMap<String, LanguageState>,
}

impl Shelf {
    /// A language that nobody has looked at yet is taken to work.
    pub fn state(&self, id: &str) -> LanguageState {
        self.states.get(id).cloned().unwrap_or_default()
    }

    /// Why jobs in this language are refused.
    pub fn unavailable(&self, id: &str) -> Option<&str> {
        self.states.get(id)?.unavailable.as_deref()
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Language>> {
        self.catalogue.get(id)
    }
}

/// A shared, replaceable [`Shelf`]. Readers hold it for a moment and never see half of a change.
#[derive(Debug, Clone, Default)]
pub struct LanguageBook {
    shelf: Arc<RwLock<Arc<Shelf>>>,
}

impl LanguageBook {
    pub fn new(catalogue: Catalogue, states: impl IntoIterator<Item = (String, LanguageState)>) -> Self {
        let book = Self::default();
        book.replace(catalogue, states);
        book
    }

    pub fn read(&self) -> Arc<Shelf> {
        // The lock is only held for an assignment, so a panic cannot have left it half done.
        self.shelf.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other languages in place of all. Jobs that were accepted keep what they were accepted with.
    pub fn replace(&self, catalogue: Catalogue, states: impl IntoIterator<Item = (String, LanguageState)>) {
        let next = Arc::new(Shelf { catalogue, states: states.into_iter().collect() });
        *self.shelf.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Changes what is known of one language.
    pub fn set_state(&self, id: &str, state: LanguageState) {
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut shelf).states.insert(id.to_owned(), state);
    }
}
