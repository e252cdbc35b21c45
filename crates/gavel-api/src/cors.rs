//! Which web pages may use the API: those of the origins that the configuration names, or all.

use axum::http::header::{LOCATION, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// The origins whose pages are let in. None by default: then only pages of the server itself are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    all: bool,
    named: Vec<HeaderValue>,
}

impl Origins {
    /// From a list of origins, or of `*` alone. An error names the entry that is no origin.
    pub fn parse(list: &[String]) -> Result<Self, String> {
        if list.iter().any(|origin| origin == "*") {
            return match list {
                [_] => Ok(Self { all: true, named: Vec::new() }),
                _ => Err("\"*\" stands for all origins: write it alone".to_owned()),
            };
        }
        let named: Result<_, String> = list.iter().map(|origin| read(origin)).collect();
        Ok(Self { all: false, named: named? })
    }

    pub fn is_all(&self) -> bool {
        self.all
    }

    /// May a page of this origin come in?
    fn has(&self, origin: &HeaderValue) -> bool {
        self.all || self.named.contains(origin)
    }

    /// May whoever sent these headers open a WebSocket? Browsers ask nobody before they do, but say where
    /// the page is from. Programs say nothing, and pages of the server itself name its own host.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if origins.next().is_some() {
            return false;
        }
        self.has(origin) || is_own(origin, headers)
    }

    /// No origins: no layer, and browsers keep other sites' pages out. No credentials are ever allowed: tokens
    /// travel in headers that a page must know, and there are no cookies.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        let origin = match (self.all, self.named.is_empty()) {
            (true, _) => AllowOrigin::any(),
            (false, true) => return None,
            (false, false) => AllowOrigin::list(self.named.clone()),
        };
        let request_id = HeaderName::from_static("x-request-id");
        Some(
            CorsLayer::new()
                .allow_origin(origin)
                // All that clients of Judge0 are told; what a route does not answer is 405.
                .allow_methods([
                    Method::GET,
                    Method::HEAD,
                    Method::POST,
                    Method::PUT,
                    Method::PATCH,
                    Method::DELETE,
                    Method::OPTIONS,
                ])
                // Whatever the page wants to send: clients of gateways send headers of theirs.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers([request_id, RETRY_AFTER, LOCATION])
                .vary([ORIGIN])
                .max_age(Duration::from_secs(7200)),
        )
    }
}

/// Scheme, host and port, as browsers write it: nothing after them, and the host in small letters.
fn read(origin: &str) -> Result<HeaderValue, String> {
    let wrong = || format!("{origin:?} is no origin: write scheme and host, as in \"https://example.org\"");
    let (scheme, host) = origin.split_once("://").ok_or_else(wrong)?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_lowercase() || b"+-.".contains(&b));
    let is_host = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_:[]".contains(&b));
    if !is_scheme || !is_host {
        return Err(wrong());
    }
    HeaderValue::from_str(origin).map_err(|_| wrong())
}

fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(axum::http::header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((origin, host), (Some(("http" | "https", origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Result<Origins, String> {
        Origins::parse(&list.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for list in [&["https://a.example/"][..], &["a.example"], &["https://"], &["https://*.example"], &["*", "x"]] {
            assert!(origins(list).is_err(), "{list:?}");
        }
        let known = origins(&["https://a.example", "http://localhost:5173", "http://[::1]:80"]).unwrap();
        assert_eq!(known.named.len(), 3);
        assert!(origins(&["*"]).unwrap().is_all());
        assert!(origins(&[]).unwrap().layer().is_none());
    }

    #[test]
    fn a_page_of_another_site_opens_no_socket() {
        let headers = |pairs: &[(&str, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
        };
        let known = origins(&["https://a.example"]).unwrap();
        assert!(known.admit(&headers(&[("host", "judge:80")])), "a program");
        assert!(known.admit(&headers(&[("host", "judge:80"), ("origin", "https://a.example")])));
        assert!(known.admit(&headers(&[("host", "judge:80"), ("origin", "http://Judge:80")])), "its own page");
        for origin in ["https://b.example", "null", "http://judge:81", "http://judge:80.evil.example"] {
            let headers = headers(&[("host", "judge:80"), ("origin", origin)]);
            assert!(!known.admit(&headers), "{origin}");
            assert!(origins(&["*"]).unwrap().admit(&headers), "{origin}");
        }
        let twice = headers(&[("host", "judge"), ("origin", "https://a.example"), ("origin", "https://a.example")]);
        assert!(!known.admit(&twice));
    }
}
