//! The one list of routes, and what every request passes on its way in and out.

use crate::auth::{self, Auth};
use crate::cors::Origins;
use crate::health::Health;
use crate::service::Service;
use crate::{docs, edge, health, input, judge0, metrics, openapi, v1};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use gavel_core::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Size of the body of one job, and of one line of a stream.
    pub max_body: Bytes,
    pub max_batch_body: Bytes,
    /// Time in which a body must have arrived.
    pub body_timeout: Duration,
    /// Memory that all request bodies together may take.
    pub body_budget: Bytes,
    /// Size of the answer to a batch that waits; outputs beyond it are left out.
    pub max_batch_answer: usize,
    /// Jobs of one stream that are in work at once; more are read when one has ended.
    pub stream_window: usize,
    /// How long a stream may be silent while none of its jobs is in work.
    pub stream_idle: Duration,
    /// Time between two comments on a silent event stream.
    pub keep_alive: Duration,
    /// Origins whose web pages may use the API; none by default.
    pub origins: Origins,
    /// Names besides those of loopback addresses that the header `Host` of a request may have.
    pub allowed_hosts: Vec<String>,
    /// The API of Judge0.
    pub judge0: judge0::Options,
    /// Who may use it; everybody by default.
    pub auth: Auth,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_body: Bytes::mib(32),
            max_batch_body: Bytes::mib(64),
            body_timeout: Duration::from_secs(30),
            body_budget: Bytes::mib(256),
            max_batch_answer: 64 << 20,
            stream_window: 64,
            stream_idle: Duration::from_secs(300),
            keep_alive: Duration::from_secs(15),
            origins: Origins::default(),
            allowed_hosts: Vec::new(),
            judge0: judge0::Options::default(),
            auth: Auth::default(),
        }
    }
}

/// What handlers share.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    service: Arc<Service>,
    health: Health,
    options: HttpOptions,
    body_budget: Arc<Semaphore>,
    judge0: Arc<judge0::Options>,
}

impl App {
    pub fn service(&self) -> &Arc<Service> {
        &self.0.service
    }

    pub fn health(&self) -> &Health {
        &self.0.health
    }

    pub fn options(&self) -> &HttpOptions {
        &self.0.options
    }

    pub fn judge0(&self) -> &Arc<judge0::Options> {
        &self.0.judge0
    }

    pub fn body_budget(&self) -> &Arc<Semaphore> {
        &self.0.body_budget
    }
}

/// Builds everything that answers HTTP.
pub fn router(service: Arc<Service>, health: Health, options: HttpOptions) -> Router {
    let cors = options.origins.layer();
    let auth = options.auth.clone();
    let hosts: Arc<[String]> = options.allowed_hosts.clone().into();
    // A request may never need more than the whole budget, or it would wait for ever: its body, and what its
    // archives grow to.
    let largest = options.max_body.max(options.max_batch_body);
    let unpacked = match options.judge0.enabled {
        true => judge0::most_unpacked(&options.judge0, &service.options().rules, options.max_batch_body),
        false => Bytes(0),
    };
    let body_budget = input::budget(options.body_budget.max(Bytes(largest.0.saturating_add(unpacked.0))));
    let judge0 = Arc::new(options.judge0.clone());
    let of_judge0 = if judge0.enabled { judge0::routes() } else { Router::new() };
    let app = App(Arc::new(Shared { service, health, options, body_budget, judge0 }));
    let router = Router::new()
        .merge(of_judge0)
        .nest("/api/v1", v1::routes())
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(docs::page))
        .route("/docs/{file}", get(docs::asset))
        .fallback(edge::unknown_route)
        .method_not_allowed_fallback(edge::wrong_method);
    // Inside the one for other origins: a browser asks before it sends a token, and may read a refusal.
    let router = router.layer(from_fn_with_state(auth, auth::check));
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    // The outermost: it also counts and refuses what the layer above answers.
    router.layer(from_fn_with_state(hosts, edge::pass)).with_state(app)
}
