//! Sockets and their bounds: how many connections, how long for a request's head, how long to drain.

use crate::auth::Peer;
use crate::metrics;
use crate::service::{Service, raised};
use crate::stall::StallGuard;
use crate::tls::Tls;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections served at once; more wait to be accepted.
    pub max_connections: usize,
    /// Time for the head of a request, and for the next request on an idle connection.
    pub header_timeout: Duration,
    /// A client that takes nothing of an answer for this long is dropped.
    pub stall_timeout: Duration,
    /// Time for requests in flight to end after the shutdown began.
    pub grace: Duration,
    /// With it, connections are TLS and nothing else.
    pub tls: Option<Tls>,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            tls: None,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown` is ready, then drains: waits end with what they have, event streams end, requests
/// in flight finish within the grace period. Returns when the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    service: Arc<Service>,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let closing = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut background = JoinSet::new();
    background.spawn(metrics::upkeep());
    if let Some(tls) = &options.tls {
        background.spawn(tls.clone().follow());
    }
    let mut shutdown = pin!(shutdown);
    loop {
        let (socket, peer, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
            // Reaps what has ended, so that the set does not grow.
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                report(ended);
                continue;
            }
        };
        let service = FromPeer { peer, router: TowerToHyperService::new(router.clone()) };
        connections.spawn(connection(socket, place, service, options.clone(), closing.subscribe()));
    }
    drop(listener);
    service.drain();
    closing.send_replace(true);
    info!(connections = connections.len(), "no new connections; draining");
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
        // Sockets that became WebSockets are nobody's connection any more.
        service.unwatched().await;
    };
    if timeout(options.grace, drained).await.is_err() {
        warn!(connections = connections.len(), "the grace period is over; closing what is left");
        connections.shutdown().await;
    }
    Ok(())
}

/// The next connection and its place. Errors of one connection are not errors of the server.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Peer, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is always a place sooner or later.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((socket, address)) => return (socket, Peer(address.ip()), place),
            Err(error) if of_one_connection(&error) => debug!(%error, "a connection was gone before it was accepted"),
            Err(error) => {
                // Out of file descriptors, most likely: some will be closed soon.
                warn!(%error, "cannot accept connections");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The routes, which learn whom each request is from.
#[derive(Clone)]
struct FromPeer {
    peer: Peer,
    router: TowerToHyperService<Router>,
}

impl HyperService<Request<Incoming>> for FromPeer {
    type Response = <TowerToHyperService<Router> as HyperService<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as HyperService<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as HyperService<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.router.call(request)
    }
}

async fn connection(
    socket: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    service: FromPeer,
    options: ServeOptions,
    mut closing: watch::Receiver<bool>,
) {
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let socket = StallGuard::new(socket, options.stall_timeout);
    let Some(tls) = &options.tls else { return talk(socket, service, &options, closing).await };
    // A client that is not done with this has its place for no longer than one that sends no request.
    let shaken = tokio::select! {
        shaken = timeout(options.handshake_timeout, tls.acceptor().accept(socket)) => shaken,
        () = raised(&mut closing) => return,
    };
    match shaken {
        Ok(Ok(socket)) => talk(socket, service, &options, closing).await,
        Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
        Err(_) => debug!("a TLS handshake took too long"),
    }
}

async fn talk(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: FromPeer,
    options: &ServeOptions,
    mut closing: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(options.header_timeout).max_buf_size(64 * 1024);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service).with_upgrades());
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = raised(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing: it went away, sent no HTTP, or was too slow.
        debug!(%error, "a connection broke off");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}
