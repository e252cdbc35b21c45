//! Is it alive, and is it ready? Each check has a time limit, and its failures are told without internals.

use crate::error::ApiError;
use crate::router::App;
use crate::service::{Service, ServiceError};
use crate::stats::Cached;
use crate::v1::answer::{encode, json};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gavel_core::Bytes;
use gavel_core::board::WorkerState;
use serde::Serialize;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tracing::warn;
use utoipa::ToSchema;

/// A blocking look at something outside. The text is shown to clients: nothing internal in it.
pub type Probe = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Free bytes of the disk that holds the data.
pub type FreeSpace = Arc<dyn Fn() -> std::io::Result<Bytes> + Send + Sync>;

/// What the wiring knows and this crate does not.
#[derive(Clone)]
pub struct HealthOptions {
    /// False for a process that only serves the API.
    pub has_workers: bool,
    /// Does the sandbox backend answer? `None`: this process has none.
    pub backend: Option<Probe>,
    /// `None`: this process keeps no data on a disk of its own.
    pub free_space: Option<FreeSpace>,
    pub min_free: Bytes,
    /// How long one check may take.
    pub time_limit: Duration,
    /// How long an answer is kept.
    pub keep: Duration,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self {
            has_workers: true,
            backend: None,
            free_space: None,
            min_free: Bytes::mib(256),
            time_limit: Duration::from_secs(2),
            keep: Duration::from_secs(1),
        }
    }
}

/// The answer of `GET /readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    pub ready: bool,
    pub checks: Vec<Check>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    /// `database`, `queue`, `workers`, `backend`, `disk` or `server`.
    #[schema(value_type = String)]
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

pub struct Health {
    options: HealthOptions,
    answer: Cached<Arc<Readiness>>,
    /// A probe that hangs is not started a second time: each one holds a thread.
    backend_busy: Arc<AtomicBool>,
    disk_busy: Arc<AtomicBool>,
}

impl Health {
    pub fn new(options: HealthOptions) -> Self {
        let answer = Cached::new(options.keep);
        Self { options, answer, backend_busy: Arc::default(), disk_busy: Arc::default() }
    }

    pub async fn readiness(&self, service: &Service) -> Arc<Readiness> {
        let read = || async { Ok::<_, Infallible>(Arc::new(self.check(service).await)) };
        let Ok(answer) = self.answer.get(read).await;
        answer
    }

    async fn check(&self, service: &Service) -> Readiness {
        let (database, queue, backend, disk) =
            tokio::join!(self.database(service), self.queue(service), self.backend(), self.disk());
        let all = [Some(database), Some(queue), self.workers(service), backend, disk];
        let checks: Vec<Check> = all.into_iter().flatten().collect();
        Readiness { ready: checks.iter().all(|check| check.ok), checks }
    }

    async fn database(&self, service: &Service) -> Check {
        let result = self.in_time(async {
            service.check_store().await.map_err(|error| {
                warn!(%error, "the store does not work");
                "cannot be written".to_owned()
            })?;
            Ok("works".to_owned())
        });
        Check::of("database", result.await)
    }

    async fn queue(&self, service: &Service) -> Check {
        let result = self.in_time(async {
            let depth = service.depth().await.map_err(|error: ServiceError| {
                warn!(%error, "the depth of the queue cannot be read");
                "cannot be read".to_owned()
            })?;
            let max = service.options().max_depth;
            let text = format!("{} of {max} pending", depth.pending);
            if depth.pending < max { Ok(text) } else { Err(format!("full: {text}")) }
        });
        Check::of("queue", result.await)
    }

    fn workers(&self, service: &Service) -> Option<Check> {
        if !self.options.has_workers {
            return None;
        }
        let workers = service.workers();
        let working = |state| !matches!(state, WorkerState::Stopped | WorkerState::Recovering);
        let count = workers.iter().filter(|worker| working(worker.state)).count();
        let text = format!("{count} of {} can work", workers.len());
        Some(Check::of("workers", if count > 0 { Ok(text) } else { Err(text) }))
    }

    async fn backend(&self) -> Option<Check> {
        let probe = self.options.backend.clone()?;
        let result = self.in_time(look(move || probe(), &self.backend_busy)).await;
        Some(Check::of("backend", result))
    }

    async fn disk(&self) -> Option<Check> {
        let free_space = self.options.free_space.clone()?;
        let min = self.options.min_free;
        let look_at_disk = move || {
            let free = free_space().map_err(|error| {
                warn!(%error, "the free space of the disk cannot be read");
                "the free space cannot be read".to_owned()
            })?;
            let text = format!("{free} free");
            if free >= min { Ok(text) } else { Err(format!("{text}, at least {min} are needed")) }
        };
        Some(Check::of("disk", self.in_time(look(look_at_disk, &self.disk_busy)).await))
    }

    async fn in_time(&self, check: impl Future<Output = Result<String, String>>) -> Result<String, String> {
        let limit = self.options.time_limit;
        timeout(limit, check).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
    }
}

impl Check {
    fn of(name: &'static str, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        Self { name, ok, detail: result.unwrap_or_else(|detail| detail) }
    }
}

/// Runs a blocking probe on a thread of its own, unless the last one still runs.
async fn look(
    probe: impl FnOnce() -> Result<String, String> + Send + 'static,
    busy: &Arc<AtomicBool>,
) -> Result<String, String> {
    if busy.swap(true, Ordering::AcqRel) {
        return Err("the last check has not answered yet".to_owned());
    }
    let free = Free(busy.clone());
    let task = tokio::task::spawn_blocking(move || {
        let _free = free;
        probe()
    });
    task.await.unwrap_or_else(|error| {
        warn!(%error, "a check failed");
        Err("the check failed".to_owned())
    })
}

/// Lets the next probe start when this one has ended, however it ended.
struct Free(Arc<AtomicBool>);

impl Drop for Free {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The answer of `GET /healthz`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alive {
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
}

/// Is the process alive? Asks nothing of anything else.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "operation", responses((status = 200, description = "Alive", body = Alive)))]
pub async fn healthz() -> Result<Response, ApiError> {
    Ok(json(StatusCode::OK, encode(&Alive { status: "ok" })?))
}

/// Can this process do its work right now? At most a second old.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "operation",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready; the failed checks say why", body = Readiness),
    )
)]
pub async fn readyz(State(app): State<App>) -> Result<Response, ApiError> {
    if app.service().is_draining() {
        let check = Check::of("server", Err("draining".to_owned()));
        let body = encode(&Readiness { ready: false, checks: vec![check] })?;
        return Ok(json(StatusCode::SERVICE_UNAVAILABLE, body));
    }
    let readiness = app.health().readiness(app.service()).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(json(status, encode(&*readiness)?))
}
