//! One call: resolve once, check every address, connect to one that was checked, send, hear the answer.
//!
//! No redirect is followed and no proxy is asked, since either would lead past the check. A name that
//! resolves to something else a moment later changes nothing: it is not asked again.

use super::message::Message;
use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::header::{CONNECTION, HOST, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use gavel_core::CallbackRules;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tracing::{debug, warn};
use url::{Host, Position, Url};

/// What is read of the head of an answer, and of its body.
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 4 << 10;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Turns names into addresses. Another one than the system's is for tests.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks as the system is configured to.
#[derive(Debug)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// The authorities that this machine trusts. Reads files: call it once, before serving.
pub fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        debug!(%error, "a certificate of an authority cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        warn!(
            "this machine trusts no certificate authority, so no https callback will arrive: install ca-certificates"
        );
    }
    roots
}

/// What the receiver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
}

/// Why there is no answer. The words are public: they tell nothing of the network that the server is in, and so
/// do not tell a name that is unknown from one that leads to where nobody may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    NotAllowed,
    NoAddress,
    Connection,
    Tls,
    Protocol,
    Timeout,
}

impl Failure {
    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::NoAddress => "no_address",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "this server does not call such a URL any more",
            Self::NoAddress => "the host has no address that this server may call",
            Self::Connection => "no connection to the host",
            Self::Tls => "no secure connection to the host: is its certificate valid for its name?",
            Self::Protocol => "the answer is not HTTP, or the connection broke off before it",
            Self::Timeout => "no answer in time",
        })
    }
}

pub struct Caller {
    rules: CallbackRules,
    resolver: Arc<dyn Resolver>,
    tls: TlsConnector,
    timeout: Duration,
}

impl Caller {
    pub fn new(
        rules: CallbackRules,
        resolver: Arc<dyn Resolver>,
        roots: RootCertStore,
        timeout: Duration,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { rules, resolver, tls: TlsConnector::from(Arc::new(config)), timeout })
    }

    /// Returns within the time limit, whatever the receiver does.
    pub async fn call(&self, url: &str, message: Message) -> Result<Reply, Failure> {
        let until = Instant::now() + self.timeout;
        // Ends with this call, and with it the connection.
        let mut connections = JoinSet::new();
        let head = self.head(url, message, until, &mut connections);
        let mut response = timeout_at(until, head).await.map_err(|_| Failure::Timeout)??;
        let reply = Reply { status: response.status(), retry_after: retry_after(response.headers()) };
        // Taken so that a polite receiver can finish; the answer stands whether it does or not.
        let _ = timeout_at(until, take_body(response.body_mut())).await;
        Ok(reply)
    }

    async fn head(
        &self,
        url: &str,
        message: Message,
        until: Instant,
        connections: &mut JoinSet<()>,
    ) -> Result<Response<Incoming>, Failure> {
        // Checked when it was submitted, but perhaps by other rules.
        let url = self.rules.check(url).map_err(|why| refuse(url, &why))?;
        let socket = self.connect(&url, until).await?;
        let request = request(&url, message).ok_or(Failure::Protocol)?;
        if url.scheme() == "https" {
            let name = server_name(&url).ok_or(Failure::Tls)?;
            let secured = self.tls.connect(name, socket).await.map_err(|error| failed(Failure::Tls, &url, &error))?;
            exchange(secured, request, connections).await
        } else {
            exchange(socket, request, connections).await
        }
        .map_err(|error| failed(Failure::Protocol, &url, &error))
    }

    /// To one of the addresses that were checked, and no other.
    async fn connect(&self, url: &Url, until: Instant) -> Result<TcpStream, Failure> {
        let addresses = self.addresses(url).await?;
        let port = url.port_or_known_default().ok_or(Failure::NotAllowed)?;
        let tried = addresses.len().min(MAX_ADDRESSES);
        for (n, address) in addresses.into_iter().take(tried).enumerate() {
            // One that swallows everything must not take the time of the others.
            let now = Instant::now();
            let share = now + until.saturating_duration_since(now) / (tried - n) as u32;
            match timeout_at(share, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => _ = failed(Failure::Connection, url, &error),
                Err(_) if n + 1 == tried => return Err(Failure::Timeout),
                Err(_) => {}
            }
        }
        Err(Failure::Connection)
    }

    /// All addresses of the host. If one of them may not be called, none is: the name then leads to where its
    /// owner wants, and not to where the client says.
    async fn addresses(&self, url: &Url) -> Result<Vec<IpAddr>, Failure> {
        let addresses = match url.host() {
            Some(Host::Domain(name)) => {
                self.resolver.resolve(name).await.map_err(|error| failed(Failure::NoAddress, url, &error))?
            }
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            None => Vec::new(),
        };
        if let Some((address, kind)) = addresses.iter().find_map(|a| Some((a, self.rules.refuses(*a)?))) {
            warn!(host = url.host_str(), %address, "a callback is not sent: its host leads to {kind}");
            return Err(Failure::NoAddress);
        }
        if addresses.is_empty() { Err(Failure::NoAddress) } else { Ok(addresses) }
    }
}

fn refuse(url: &str, why: &str) -> Failure {
    warn!(url = ?gavel_core::callback::called(url), "a callback is not sent: its URL {why}");
    Failure::NotAllowed
}

/// The cause is the operator's.
fn failed(failure: Failure, url: &Url, error: &dyn fmt::Display) -> Failure {
    debug!(host = url.host_str(), %error, "a callback did not arrive: {failure}");
    failure
}

fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::from(IpAddr::from(address))),
        Host::Ipv6(address) => Some(ServerName::from(IpAddr::from(address))),
    }
}

fn request(url: &Url, message: Message) -> Option<Request<Full<Bytes>>> {
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let mut request = Request::builder().method(message.method).uri(target).body(Full::new(message.body)).ok()?;
    *request.headers_mut() = message.headers;
    request.headers_mut().insert(HOST, HeaderValue::try_from(host).ok()?);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(request)
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    connections: &mut JoinSet<()>,
) -> Result<Response<Incoming>, hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await?;
    connections.spawn(async move {
        // What breaks it shows in the answer.
        let _ = connection.await;
    });
    sender.send_request(request).await
}

async fn take_body(body: &mut Incoming) {
    let mut taken = 0;
    while taken < MAX_BODY {
        match body.frame().await {
            Some(Ok(frame)) => taken += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().into();
    Some(date.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::try_from(text).unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "long ago");
        let far = read("Wed, 21 Oct 2195 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(86_400 * 365 * 100), "{far:?}");
        for text in ["", "-1", "soon", "1.5"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_names_its_host_as_the_url_does() {
        let request = |url: &str| {
            let message =
                Message { method: axum::http::Method::PUT, headers: HeaderMap::new(), body: Bytes::from_static(b"x") };
            let request = super::request(&Url::parse(url).unwrap(), message).unwrap();
            (request.headers()[HOST].to_str().unwrap().to_owned(), request.uri().to_string())
        };
        assert_eq!(request("https://example.org"), ("example.org".into(), "/".into()));
        assert_eq!(request("http://example.org:8080/a%20b?c=d&e"), ("example.org:8080".into(), "/a%20b?c=d&e".into()));
        assert_eq!(request("http://[2a00::1]/"), ("[2a00::1]".into(), "/".into()));
    }
}
