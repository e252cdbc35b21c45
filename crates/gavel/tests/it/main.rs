//! The program as its users see it: the real binary, real HTTP, a real sandbox. One test binary, so
//! that it is linked once and its tests can take turns.
//!
//! Nothing is skipped: a test that cannot run here fails and says what is missing. No test judges
//! speed, and none sleeps to wait for something: it polls a condition until a deadline.

mod api;
mod auth;
mod callbacks;
mod cli;
mod corpus;
mod crash;
mod daemon;
mod docker;
mod guide;
mod harness;
mod integrity;
mod judge0;
mod leaks;
mod live;
mod python;
mod schema;
mod sdk;
mod server;
mod stability;
