//! The HTTP border of Gavel: JSON in, JSON out, and nothing that judges.
//!
//! Reading order: [`service`] (what can be done, without HTTP), [`v1`] (the routes and their bodies),
//! [`error`] (what a client is told when it cannot be done), [`serve`] (sockets and their bounds).
//! This crate does not know sandboxes: it meets the workers only in the store and at the bell.

pub mod archive;
pub mod auth;
pub mod callbacks;
mod cors;
mod docs;
mod edge;
pub mod error;
pub mod health;
mod host;
mod input;
pub mod judge0;
pub mod languages;
pub mod metrics;
pub mod openapi;
mod owner;
mod places;
mod query;
pub mod router;
pub mod serve;
pub mod service;
mod stall;
pub mod stats;
mod times;
pub mod tls;
pub mod v1;
pub mod watch;

pub use auth::{Auth, AuthOptions};
pub use cors::Origins;
pub use health::{Health, HealthOptions};
pub use languages::{LanguageBook, LanguageState};
pub use owner::{Caller, Owner};
pub use router::{HttpOptions, router};
pub use serve::{ServeOptions, serve};
pub use service::{Parts, Service, ServiceError, ServiceOptions};
pub use times::Rfc3339;
pub use tls::Tls;
