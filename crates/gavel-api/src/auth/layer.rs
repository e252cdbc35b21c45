//! What happens to each request before its handler: it becomes somebody's, or it is refused.

use super::access::{self, Access, Dialect, Need};
use super::{Auth, Pass};
use crate::error::ApiError;
use crate::owner::Caller;
use crate::times::now;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gavel_store::Scope;
use governor::clock::{Clock, DefaultClock};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const X_AUTH_USER: HeaderName = HeaderName::from_static("x-auth-user");
/// The same as parameters of the query, which are told apart by case.
const TOKEN_PARAMETER: &str = "X-Auth-Token";
const USER_PARAMETER: &str = "X-Auth-User";

/// No token is longer, and nobody makes us hash more.
const LONGEST: usize = 512;

/// Whom a connection is from. The server puts it into the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoToken,
    WrongToken,
    Expired,
    /// The address showed too many wrong tokens.
    Guessing(Duration),
    Scope(Scope),
    Rate(Duration),
}

pub async fn check(State(auth): State<Auth>, mut request: Request, next: Next) -> Response {
    if !auth.in_force() {
        request.extensions_mut().insert(Caller::operator());
        return next.run(request).await;
    }
    let is_route = request.extensions().get::<MatchedPath>().is_some();
    let access = access::of(request.method(), request.uri().path(), is_route);
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let shown = Shown::take(&mut request);
    match auth.admit(&shown, access, peer) {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(refusal) => {
            refusal.count();
            let method = request.method();
            match refusal {
                // The only ones that somebody should look at; as many as are let through, at most.
                Refusal::WrongToken => warn!(?peer, %method, "a wrong token"),
                _ => debug!(?peer, %method, ?refusal, "refused"),
            }
            refusal.into_response(access.dialect)
        }
    }
}

/// The secrets that a request shows. They end here: no handler and no log sees them.
#[derive(Default)]
struct Shown {
    token: Option<String>,
    user: Option<String>,
}

impl Shown {
    /// `X-Auth-Token` goes first: clients of Judge0 behind a gateway send an `Authorization` that is the
    /// gateway's business.
    fn take(request: &mut Request) -> Self {
        let headers = request.headers_mut();
        let bearer = bearer(headers);
        let mut shown = Self { token: header(headers, &X_AUTH_TOKEN), user: header(headers, &X_AUTH_USER) };
        for name in [AUTHORIZATION, X_AUTH_TOKEN, X_AUTH_USER] {
            headers.remove(name);
        }
        let from_query = from_query(request);
        shown.token = shown.token.or(bearer).or(from_query.token);
        shown.user = shown.user.or(from_query.user);
        shown
    }
}

/// An empty one is as good as none. One that is there twice is wrong: who knows which was meant.
fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().map(str::trim);
    match (value, values.next()) {
        (Ok(""), None) => None,
        (Ok(value), None) => Some(value.to_owned()),
        _ => Some(NO_TOKEN_IS_THIS.to_owned()),
    }
}

/// Headers cannot have it.
const NO_TOKEN_IS_THIS: &str = "\0";

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = header(headers, &AUTHORIZATION)?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// For browsers, which can give neither a WebSocket nor an event stream a header. Handlers see a URL without.
fn from_query(request: &mut Request) -> Shown {
    let mut shown = Shown::default();
    let Some(query) = request.uri().query().filter(|query| query.contains("X-Auth-")) else { return shown };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let mut parsed = form_urlencoded::parse(pair.as_bytes());
        match parsed.next() {
            Some((name, value)) if name == TOKEN_PARAMETER => shown.token = Some(value.into_owned()),
            Some((name, value)) if name == USER_PARAMETER => shown.user = Some(value.into_owned()),
            _ => rest.push(pair),
        }
    }
    let target = match rest.is_empty() {
        true => request.uri().path().to_owned(),
        false => format!("{}?{}", request.uri().path(), rest.join("&")),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = target.parse().ok();
    // A part of a valid URI is one; were it not, the handler would refuse the parameter.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    shown
}

impl Auth {
    /// Whose request this is; `None` where nobody needs to know.
    fn admit(&self, shown: &Shown, access: Access, peer: Option<IpAddr>) -> Result<Option<Caller>, Refusal> {
        let scope = match access.need {
            Need::Nothing => return Ok(None),
            Need::Metrics if self.0.options.open_metrics => return Ok(None),
            Need::Token => None,
            Need::Read => Some(Scope::Read),
            Need::Submit => Some(Scope::Submit),
            Need::Admin | Need::Metrics => Some(Scope::Admin),
        };
        let secret = shown.token.as_deref().filter(|secret| !secret.is_empty()).ok_or(Refusal::NoToken)?;
        let pass = self.identify(secret, peer)?;
        let mut scopes = pass.token.scopes;
        // The second level of Judge0. Looked at only where it decides: whoever sends a wrong one with every request
        // would count as somebody who guesses, and lock out others of the same address.
        if scope == Some(Scope::Admin)
            && !scopes.has(Scope::Admin)
            && let Some(user) = shown.user.as_deref().filter(|user| !user.is_empty())
            && let Ok(other) = self.identify(user, peer)
            && other.token.scopes.has(Scope::Admin)
        {
            scopes = scopes.with(Scope::Admin);
        }
        if let Some(limiter) = &pass.limiter {
            let now = DefaultClock::default().now();
            limiter.check().map_err(|until| Refusal::Rate(until.wait_time_from(now)))?;
        }
        match scope.filter(|scope| !scopes.has(*scope)) {
            Some(missing) => Err(Refusal::Scope(missing)),
            None => Ok(Some(Caller::of(pass, scopes))),
        }
    }

    /// The token that has this secret and works.
    fn identify(&self, secret: &str, peer: Option<IpAddr>) -> Result<Arc<Pass>, Refusal> {
        let (time, now) = (Instant::now(), now());
        let found = if secret.len() <= LONGEST { self.find(secret) } else { None };
        let Some(pass) = found else {
            return Err(match self.0.failures.record(peer, time) {
                Some(left) => Refusal::Guessing(left),
                None => Refusal::WrongToken,
            });
        };
        // Guessing is of no use where a secret has 192 random bits; and many may share an address with
        // somebody who guesses. So only what a person may have chosen is kept from those.
        if pass.guessable
            && let Some(left) = self.0.failures.too_many(peer, time)
        {
            return Err(Refusal::Guessing(left));
        }
        if !pass.is_valid(now) {
            return Err(if pass.token.has_expired(now) { Refusal::Expired } else { Refusal::WrongToken });
        }
        pass.touch(now);
        Ok(pass)
    }
}

impl Refusal {
    fn count(self) {
        let reason = match self {
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::Expired => "expired",
            Self::Guessing(_) => "guessing",
            Self::Scope(_) => "scope",
            Self::Rate(_) => "rate",
        };
        metrics::counter!("gavel_auth_refusals_total", "reason" => reason).increment(1);
    }

    fn into_response(self, dialect: Dialect) -> Response {
        let error = ApiError::from(self);
        match dialect {
            Dialect::Native => native(self, error),
            Dialect::Judge0 => judge0(error),
        }
    }
}

fn native(refusal: Refusal, error: ApiError) -> Response {
    let challenge: Cow<'static, str> = match refusal {
        Refusal::NoToken => "Bearer realm=\"gavel\"".into(),
        Refusal::WrongToken => "Bearer realm=\"gavel\", error=\"invalid_token\"".into(),
        Refusal::Expired => {
            "Bearer realm=\"gavel\", error=\"invalid_token\", error_description=\"the token has expired\"".into()
        }
        Refusal::Scope(scope) => {
            format!("Bearer realm=\"gavel\", error=\"insufficient_scope\", scope=\"{}\"", scope.as_str()).into()
        }
        Refusal::Guessing(_) | Refusal::Rate(_) => return error.into_response(),
    };
    let mut response = error.into_response();
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// As Judge0 refuses: without a body. It knows no 429, and neither do its clients: 503 is what they know of
/// a server that wants to be left alone for a moment.
fn judge0(error: ApiError) -> Response {
    let busy = error.status == StatusCode::TOO_MANY_REQUESTS;
    let (status, text, kind) = match busy {
        true => (
            StatusCode::SERVICE_UNAVAILABLE,
            serde_json::json!({ "error": error.detail }).to_string(),
            "application/json; charset=utf-8",
        ),
        false => (error.status, String::new(), "text/html"),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoToken => Self::no_token(),
            Refusal::WrongToken => Self::unauthenticated("this token is not known here, or was revoked"),
            Refusal::Expired => Self::unauthenticated("this token has expired: ask the operator for a new one"),
            Refusal::Guessing(left) => {
                Self::too_many("too_many_failures", "too many wrong tokens came from this address: try later", left)
            }
            Refusal::Scope(scope) => Self::forbidden(format!("this token lacks the scope {}", scope.as_str())),
            Refusal::Rate(left) => {
                Self::too_many("rate_limited", "this token makes more requests than it may: slow down", left)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthOptions, Required};
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use gavel_store::{Scopes, SqliteOptions, SqliteStore};
    use http_body_util::BodyExt;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    const USER: &str = "a secret of a user";
    const OPERATOR: &str = "a secret of an operator";

    /// Routes with the paths of Judge0, which tell who called them and with what.
    async fn routes() -> (TowerToHyperService<Router>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(directory.path().join("db"))).unwrap();
        let user = [Scope::Submit, Scope::Read].into_iter().collect();
        let fixed = vec![(USER.to_owned(), user), (OPERATOR.to_owned(), Scopes::all())];
        let options = AuthOptions { required: Required::Always, fixed, open_metrics: false };
        let auth = Auth::load(Arc::new(store), options).await.unwrap();
        let tell = async |caller: Caller, uri: Uri, headers: HeaderMap| {
            format!("{:?} {} {uri} {:?}", caller.owner.name, caller.owner.sees_all, headers.get("authorization"))
        };
        let router = Router::new()
            .route("/submissions", get(tell).post(tell))
            .route("/submissions/{token}", get(tell).delete(tell))
            .layer(from_fn_with_state(auth, check));
        (TowerToHyperService::new(router), directory)
    }

    async fn ask(
        routes: &TowerToHyperService<Router>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, HeaderMap, String) {
        let mut request = axum::http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = routes.call(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn clients_of_judge0_are_refused_as_judge0_refuses() {
        let (routes, _directory) = routes().await;
        let token = [("x-auth-token", USER)];
        let wrong_user = [("x-auth-token", USER), ("x-auth-user", "nobody at all")];
        let both = [("x-auth-token", USER), ("x-auth-user", OPERATOR)];
        for (method, path, headers, status) in [
            ("POST", "/submissions", &[][..], 401),
            ("POST", "/submissions", &[("x-auth-token", "wrong")], 401),
            ("GET", "/submissions", &[("x-auth-user", OPERATOR)], 401),
            ("GET", "/submissions", &token, 403),
            ("GET", "/submissions", &wrong_user, 403),
            ("DELETE", "/submissions/x", &token, 403),
            ("GET", "/submissions", &both, 200),
            ("DELETE", "/submissions/x", &both, 200),
            ("POST", "/submissions", &wrong_user, 200),
            ("GET", "/submissions/x", &token, 200),
            ("GET", "/submissions", &[("authorization", "Bearer a secret of an operator")], 200),
        ] {
            let (found, headers_found, body) = ask(&routes, method, path, headers).await;
            assert_eq!(found, status, "{method} {path} {headers:?}: {body}");
            if status != 200 {
                assert_eq!((body.as_str(), &headers_found[CONTENT_TYPE]), ("", &HeaderValue::from_static("text/html")));
            }
        }
        // A wrong user decides nothing there, and is no guess.
        for n in 0..30 {
            let guess = format!("guess {n}");
            let (status, ..) =
                ask(&routes, "POST", "/submissions", &[("x-auth-token", USER), ("x-auth-user", &guess)]).await;
            assert_eq!(status, 200, "{n}");
        }
        // The SDK knows no 429.
        for n in 0..30 {
            ask(&routes, "POST", "/submissions", &[("x-auth-token", &format!("guess {n}"))]).await;
        }
        let (status, headers, body) = ask(&routes, "POST", "/submissions", &token).await;
        assert_eq!((status, headers.contains_key(RETRY_AFTER)), (503, true));
        assert!(body.starts_with("{\"error\":\"too many wrong tokens"), "{body}");
    }

    #[tokio::test]
    async fn handlers_see_who_called_and_no_secret() {
        let (routes, _directory) = routes().await;
        let path = "/submissions/x?fields=%2A&X-Auth-Token=a+secret%20of+a+user&base64_encoded=true";
        let (_, _, told) = ask(&routes, "GET", path, &[("authorization", "Basic c2VjcmV0")]).await;
        assert_eq!(told, "Some(\"config\") false /submissions/x?fields=%2A&base64_encoded=true None");
        let path = "/submissions?X-Auth-Token=a+secret+of+a+user&X-Auth-User=a+secret+of+an+operator";
        let (_, _, told) = ask(&routes, "GET", path, &[]).await;
        assert_eq!(told, "Some(\"config\") true /submissions None");
    }
}
