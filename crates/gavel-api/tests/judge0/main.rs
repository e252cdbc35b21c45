//! The API of Judge0 over a real socket, with the real store and bell, and a worker that plays a script.

#[allow(dead_code)]
#[path = "../api/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../api/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "../api/worker.rs"]
mod worker;

mod access;
mod attributes;
mod batch;
mod http;
mod info;
mod reading;
mod setup;
mod statuses;
