//! Callbacks: a job that names a URL has that URL called when it has ended.
//!
//! The store holds what is to be delivered, from the transaction that ended the job. [`deliverer`] takes what is
//! due and calls; [`message`] says what is sent, [`signature`] proves from whom, and [`send`] connects, to
//! addresses that were checked only. A call may happen twice, never not at all: `webhook-id` tells receivers.

mod deliverer;
mod message;
mod send;
mod signature;

pub use deliverer::{CallbackOptions, CallbackParts, Deliverer};
pub use message::Judge0Body;
pub use send::{Resolver, SystemResolver, system_roots};
pub use signature::Secret;
