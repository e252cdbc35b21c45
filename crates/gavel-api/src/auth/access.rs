//! What each route asks for. A route that is not named here asks for `admin`, so that a new one is closed
//! until somebody decides.

use axum::http::Method;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Everybody, without a token.
    Nothing,
    /// Whoever has a token, whatever its scopes.
    Token,
    Read,
    Submit,
    Admin,
    /// As the configuration says: everybody or `admin`.
    Metrics,
}

/// How a refusal is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A problem as JSON.
    Native,
    /// As clients of Judge0 know it: no body.
    Judge0,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub need: Need,
    pub dialect: Dialect,
}

/// `is_route`: a handler is there for this path; what is no route is answered with 404 to everybody.
/// Paths are compared as they were sent: the router decodes nothing either before it compares.
pub fn of(method: &Method, path: &str, is_route: bool) -> Access {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let native = |need| Access { need, dialect: Dialect::Native };
    if let Some(need) = native_need(method, &segments) {
        return native(need);
    }
    if let Some(need) = judge0_need(method, &segments) {
        return Access { need, dialect: Dialect::Judge0 };
    }
    // To Judge0 another method is another path: one that is not there. Whatever answers it has no caller.
    let is_judge0 = [Method::GET, Method::POST, Method::DELETE].iter().any(|m| judge0_need(m, &segments).is_some());
    if is_judge0 {
        return Access { need: Need::Nothing, dialect: Dialect::Judge0 };
    }
    native(if is_route { Need::Admin } else { Need::Nothing })
}

fn native_need(method: &Method, segments: &[&str]) -> Option<Need> {
    let need = match (word(method), segments) {
        ("GET", ["healthz" | "readyz" | "openapi.json" | "docs"] | ["docs", _]) => Need::Nothing,
        ("GET", ["metrics"]) => Need::Metrics,
        (_, ["api", "v1", rest @ ..]) => match (word(method), rest) {
            ("GET", ["languages"] | ["languages", _]) => Need::Token,
            ("GET", ["jobs"] | ["jobs", _] | ["jobs", _, "events" | "ws" | "deliveries"]) => Need::Read,
            ("POST", ["jobs"] | ["jobs", "batch" | "stream"] | ["jobs", _, "cancel"]) => Need::Submit,
            ("DELETE", ["jobs", _]) => Need::Submit,
            _ => return None,
        },
        _ => return None,
    };
    Some(need)
}

/// Judge0 has two levels: what it calls authentication is any scope that fits here, what it calls
/// authorization is `admin`. Its paths may stand below `/extra`, end in a slash or in `.json`.
fn judge0_need(method: &Method, segments: &[&str]) -> Option<Need> {
    let segments = judge0_segments(segments);
    let mut segments: Vec<&str> = segments.to_vec();
    if let Some(last) = segments.last_mut() {
        *last = last.strip_suffix(".json").unwrap_or(last);
    }
    Some(match (word(method), segments.as_slice()) {
        ("GET", []) => Need::Nothing,
        ("POST", ["submissions"] | ["submissions", "batch"]) => Need::Submit,
        ("GET", ["submissions"]) => Need::Admin,
        ("GET", ["submissions", _]) => Need::Read,
        ("DELETE", ["submissions", _]) => Need::Admin,
        ("GET", ["languages"] | ["languages", _]) => Need::Token,
        ("GET", [page]) if INFORMATION.contains(page) => Need::Token,
        ("POST", ["authenticate"]) => Need::Token,
        ("POST", ["authorize"]) => Need::Admin,
        _ => return None,
    })
}

const INFORMATION: &[&str] =
    &["statuses", "system_info", "config_info", "about", "version", "isolate", "license", "statistics", "workers"];

fn judge0_segments<'a, 'b>(segments: &'a [&'b str]) -> &'a [&'b str] {
    let segments = if let ["extra", rest @ ..] = segments { rest } else { segments };
    if let [rest @ .., ""] = segments { rest } else { segments }
}

/// HEAD is GET without a body.
fn word(method: &Method) -> &str {
    if method == Method::HEAD { "GET" } else { method.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ROUTES;

    fn need(method: &str, path: &str) -> Need {
        of(&method.parse().unwrap(), path, true).need
    }

    #[test]
    fn every_operation_of_the_document_has_a_need_of_its_own() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi::json().unwrap()).unwrap();
        let mut open = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                let segments: Vec<&str> = path.split('/').skip(1).collect();
                let known = native_need(&method, &segments).or_else(|| judge0_need(&method, &segments));
                // What shows everybody's work asks for admin by not being named.
                let for_admins = ["/api/v1/workers", "/api/v1/stats"].contains(&path.as_str());
                assert_eq!(known.is_none(), for_admins, "{method} {path}");
                if known == Some(Need::Nothing) {
                    open.push(path.clone());
                }
            }
        }
        open.sort();
        assert_eq!(open, ["/", "/docs", "/docs/{file}", "/healthz", "/openapi.json", "/readyz"]);
        assert!(ROUTES.iter().all(|route| document["paths"].get(route).is_some()));
    }

    #[test]
    fn what_nobody_named_asks_for_admin_and_what_is_no_route_for_nothing() {
        for (method, path) in [
            ("PUT", "/api/v1/jobs"),
            ("GET", "/api/v1/secrets"),
            ("POST", "/api/v1/jobs/1/new"),
            ("DELETE", "/api/v1/jobs"),
            ("GET", "/api/v1//jobs"),
            ("GET", "/api/v2/jobs"),
            ("POST", "/healthz"),
            ("GET", "/submissions/1/2"),
            ("GET", "/docs/a/b"),
        ] {
            assert_eq!(need(method, path), Need::Admin, "{method} {path}");
            assert_eq!(of(&method.parse().unwrap(), path, false).need, Need::Nothing, "{method} {path}");
        }
    }

    #[test]
    fn paths_of_judge0_have_its_levels_and_its_dialect() {
        for (method, path, expected) in [
            ("GET", "/", Need::Nothing),
            ("GET", "/extra/", Need::Nothing),
            ("POST", "/submissions", Need::Submit),
            ("POST", "/submissions/", Need::Submit),
            ("POST", "/extra/submissions", Need::Submit),
            ("POST", "/submissions/batch.json", Need::Submit),
            ("GET", "/submissions/batch", Need::Read),
            ("HEAD", "/submissions/0b9c6d2e.json", Need::Read),
            ("GET", "/submissions", Need::Admin),
            ("GET", "/submissions.json", Need::Admin),
            ("DELETE", "/submissions/x", Need::Admin),
            ("GET", "/languages/all", Need::Token),
            ("GET", "/extra/about", Need::Token),
            ("POST", "/authenticate", Need::Token),
            ("POST", "/authorize", Need::Admin),
            ("GET", "/authorize", Need::Nothing),
            ("PATCH", "/languages", Need::Nothing),
            ("PUT", "/extra/submissions/1", Need::Nothing),
        ] {
            let access = of(&method.parse().unwrap(), path, true);
            assert_eq!(access, Access { need: expected, dialect: Dialect::Judge0 }, "{method} {path}");
        }
        assert_eq!(of(&Method::GET, "/api/v1/jobs", true).dialect, Dialect::Native);
    }
}
