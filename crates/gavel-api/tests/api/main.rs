//! The API over a real socket, with the real store and bell, and a worker that plays a script.

mod auth;
mod batch;
mod bounds;
mod callbacks;
mod client;
mod document;
mod events;
mod hosts;
mod jobs;
mod operation;
mod receiver;
mod refusals;
mod server;
mod socket;
mod stream;
mod tls;
mod worker;
