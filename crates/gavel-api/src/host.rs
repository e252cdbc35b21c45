//! Which names in `Host` this server answers to. A web page can make its own name resolve to a loopback
//! address (DNS rebinding) and would then read answers as its own; but its requests carry its name.

use crate::error::ApiError;
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
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

/// May a page of this request's origin open a WebSocket? Browsers let every page try, and say only whose it is. No
/// origin: no browser.
pub fn may_connect(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (origin, other) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let Some(origin) = origin.to_str().ok().filter(|_| other.is_none()) else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let its_host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    // Our own pages: their host is the one that was asked, which is ours.
    let own = its_host.is_some_and(|its| host.is_some_and(|host| its.eq_ignore_ascii_case(host)));
    own || allowed.iter().any(|allowed| allowed == origin)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_open_no_socket() {
        let may = |origin: &str, allowed: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "localhost:2358".parse().unwrap());
            headers.insert(ORIGIN, origin.parse().unwrap());
            may_connect(&headers, &allowed.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>())
        };
        let mut headers = HeaderMap::new();
        assert!(may_connect(&headers, &[]), "no browser");
        for origin in ["http://localhost:2358", "https://LOCALHOST:2358"] {
            assert!(may(origin, &[]), "{origin}");
        }
        for origin in ["http://localhost", "http://localhost:80", "http://evil.example", "null", "localhost:2358", ""] {
            assert!(!may(origin, &["https://ide.example"]), "{origin}");
        }
        assert!(may("https://ide.example", &["https://ide.example"]));
        headers.append(ORIGIN, "https://ide.example".parse().unwrap());
        headers.append(ORIGIN, "http://evil.example".parse().unwrap());
        assert!(!may_connect(&headers, &["https://ide.example".to_owned()]), "two at once");
    }
}
