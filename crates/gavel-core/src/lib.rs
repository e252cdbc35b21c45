//! Words and rules of Gavel. Values only: no IO, no async, no clock, no serialization.
//!
//! Reading order: [`job`] (what a client wants), [`limits`], [`language`], [`facts`] (what happened),
//! [`verdict`] (what it means), [`check`] (is the output right).

pub mod board;
pub mod callback;
pub mod check;
pub mod facts;
pub mod job;
pub mod language;
pub mod limits;
pub mod outcome;
pub mod path;
pub mod units;
pub mod validate;
pub mod verdict;

pub use board::Board;
pub use callback::CallbackRules;
pub use facts::{CollectedFile, Exit, Facts, Stop};
pub use job::{Draft, File, Job, JobId, Status};
pub use language::{Catalogue, Language};
pub use limits::{Limits, LimitsRequest};
pub use outcome::Outcome;
pub use units::{Bytes, Timestamp};
pub use validate::{Problem, Rejection, Rules};
pub use verdict::Verdict;
