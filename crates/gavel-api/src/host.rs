//! Which names in `Host` this server answers to. A web page can make its own name resolve to a loopback
//! address (DNS rebinding) and would then read answers as its own; but its requests carry its name.

use crate::error::ApiError;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::HOST;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Is the request for this server? `names` are those besides the names of loopback addresses.
pub fn is_ours(request: &Request, names: &[String]) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    // A target in absolute form goes before the header.
    let target = request.uri().authority();
    host.to_str().is_ok_and(|host| is_known(host, names))
        && target.is_none_or(|target| is_known(target.as_str(), names))
}

pub fn misdirected() -> ApiError {
    let detail = "this server answers to localhost, 127.0.0.0/8 and [::1] only: use one of them as the host of the URL, \
                  or add the name in the header Host to server.allowed_hosts";
    ApiError::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", "Misdirected request", detail)
}

fn is_known(host: &str, names: &[String]) -> bool {
    let Some(name) = without_port(host) else { return false };
    name.eq_ignore_ascii_case("localhost")
        || is_loopback(name)
        || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// `None`: it has an end that is no port.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.starts_with('[') {
        true => host.find(']')? + 1,
        false => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    (port.is_empty() || is_port(port)).then_some(name)
}

fn is_loopback(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name.parse() == Ok(Ipv6Addr::LOCALHOST),
        None => name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback()),
    }
}
