//! From a claim to an outcome.
//!
//! [`judge()`] is the story of one job: compile, run, classify. It blocks, and it knows neither store
//! nor queue. [`pool`] keeps workers that claim jobs, judge them and settle the results.

pub mod cache;
pub mod judge;
pub mod pool;

pub use cache::Cache;
pub use judge::{Judged, judge};
