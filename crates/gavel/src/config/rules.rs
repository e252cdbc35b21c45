//! Rules that concern more than the shape of one value.

use super::resolve::{ConfigError, Settings};
use super::table::Config;
use super::value::TokensRequired;
use gavel_api::Origins;
use gavel_core::Bytes;
use gavel_sandbox::docker::{MAX_CONTAINERS, OVERHEAD};
use std::time::Duration;

/// Everything that is wrong with a configuration whose single values are fine.
pub fn check(config: &Config, settings: &Settings) -> Vec<ConfigError> {
    let mut wrong = Vec::new();
    let mut refuse = |key: &str, message: String| {
        wrong.push(ConfigError::value(key, &settings.setting(key), message));
    };
    for (message, key) in access(config) {
        refuse(key, message);
    }
    if let Some(host) = config.server.allowed_hosts.iter().find(|host| !is_host(host)) {
        let remedy = format!("{host:?} is no name of a host: leave out scheme and port, as in \"judge.example.org\"");
        refuse("server.allowed_hosts", remedy);
    }
    if !config.store.url.0.starts_with("sqlite:") {
        refuse("store.url", "this version keeps its jobs in SQLite: write \"sqlite:PATH\"".to_owned());
    }
    if !config.store.replica_urls.is_empty() {
        refuse("store.replica_urls", "SQLite has no read replicas: leave it empty".to_owned());
    }
    if config.nats.url.is_some() {
        refuse("nats.url", "this version is one node and needs no NATS: leave it out".to_owned());
    }
    if config.workers.min_workers > config.workers.max_workers {
        let most = config.workers.max_workers;
        refuse("workers.min_workers", format!("must not be above workers.max_workers, which is {most}"));
    }
    if config.server.wait_timeout > config.server.max_wait_timeout {
        let most = settings.text("server.max_wait_timeout");
        refuse("server.wait_timeout", format!("must not be above server.max_wait_timeout, which is {most}"));
    }
    if config.sandbox.container_memory_limit < Bytes::mib(64) {
        refuse(
            "sandbox.container_memory_limit",
            "must be at least \"64m\": a language's runtime needs that".to_owned(),
        );
    }
    if config.sandbox.container_cpu_limit.0 < 0.01 {
        refuse("sandbox.container_cpu_limit", "must be at least 0.01".to_owned());
    }
    for (message, key) in callbacks(config, settings) {
        refuse(key, message);
    }
    for (message, key) in pool(config) {
        refuse(key, message);
    }
    for key in ["workers.worker_timeout", "workers.cleanup_interval", "limits.interactive_idle"] {
        if settings.get::<std::time::Duration>("", key).is_ok_and(|time| time.as_secs() == 0) {
            refuse(key, "must be at least \"1s\"".to_owned());
        }
    }
    wrong
}

fn callbacks(config: &Config, settings: &Settings) -> Vec<(String, &'static str)> {
    let callbacks = &config.callbacks;
    let mut wrong = Vec::new();
    if callbacks.enabled && callbacks.secrets.is_empty() {
        let remedy = "callbacks are signed, so that receivers can tell them from forged ones: make a secret with \
                      echo \"whsec_$(head -c 32 /dev/urandom | base64)\"";
        wrong.push((remedy.to_owned(), "callbacks.secrets"));
    }
    if callbacks.allowed_ports.is_empty() {
        wrong.push(("name at least one port, as in [80, 443]".to_owned(), "callbacks.allowed_ports"));
    }
    if callbacks.timeout < Duration::from_millis(100) || callbacks.timeout > Duration::from_secs(60) {
        wrong.push(("must be between \"100ms\" and \"60s\"".to_owned(), "callbacks.timeout"));
    }
    if callbacks.backoff > callbacks.max_backoff {
        let most = settings.text("callbacks.max_backoff");
        wrong.push((format!("must not be above callbacks.max_backoff, which is {most}"), "callbacks.backoff"));
    }
    wrong
}

/// Whether there are tokens is only known once the store is open: see `wiring::auth`.
fn access(config: &Config) -> Vec<(String, &'static str)> {
    let server = &config.server;
    let mut wrong = Vec::new();
    if config.auth.required == TokensRequired::Never && !server.bind.ip().is_loopback() {
        let remedy = format!(
            "is for loopback addresses only, and server.bind is {}: leave it out, and make tokens with `gavel token create`",
            server.bind
        );
        wrong.push((remedy, "auth.required"));
    }
    if let Err(message) = Origins::parse(&server.cors_origins) {
        wrong.push((message, "server.cors_origins"));
    }
    match (&server.tls_cert, &server.tls_key) {
        (Some(_), None) => wrong.push(("needs server.tls_key beside it".to_owned(), "server.tls_cert")),
        (None, Some(_)) => wrong.push(("needs server.tls_cert beside it".to_owned(), "server.tls_key")),
        _ => {}
    }
    wrong
}

fn pool(config: &Config) -> Vec<(String, &'static str)> {
    let sandbox = &config.sandbox;
    let mut wrong = Vec::new();
    if sandbox.docker_cli.trim().is_empty() {
        wrong.push(("name a program: \"docker\" or \"podman\"".to_owned(), "sandbox.docker_cli"));
    }
    if sandbox.pool_max.get() > MAX_CONTAINERS {
        wrong.push((format!("must be at most {MAX_CONTAINERS}: each has user ids of its own"), "sandbox.pool_max"));
    }
    if sandbox.pool_min > sandbox.pool_max.get() {
        let most = sandbox.pool_max;
        wrong.push((format!("must not be above sandbox.pool_max, which is {most}"), "sandbox.pool_min"));
    }
    let largest = Bytes(sandbox.container_memory_limit.0.saturating_add(OVERHEAD.0));
    if sandbox.pool_memory.is_some_and(|memory| memory < largest) {
        wrong.push((format!("must be at least {largest}: the largest container needs that"), "sandbox.pool_memory"));
    }
    wrong
}

/// A name or an address, an IPv6 one in brackets; no patterns.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')),
    }
}
