//! Numbers for Prometheus. Labels have few values: the route and not the path, the language and not the job.

use crate::error::ApiError;
use crate::router::App;
use crate::service::Service;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use gavel_core::board::WorkerState;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::timeout;
use tracing::warn;

/// From below the cost of one store commit to beyond the longest wait.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Of groups: from alone to the largest batch.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();

/// Makes this process count, from the first call on; everything that uses the facade `metrics` is then
/// part of `GET /metrics`. Later calls give the same recorder.
pub fn install() -> Result<&'static PrometheusHandle, &'static str> {
    let recorder = RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), SIZES))
            .map_err(|error| error.to_string())?;
        let handle = builder.install_recorder().map_err(|error| error.to_string())?;
        describe();
        Ok(handle)
    });
    recorder.as_ref().map_err(String::as_str)
}

/// Also of what the other parts of the process count: this page is where it is read.
fn describe() {
    describe_counter!("gavel_jobs_submitted_total", "Jobs that were accepted and stored.");
    describe_counter!("gavel_jobs_total", "Jobs that ended, by language, status and verdict.");
    describe_counter!("gavel_http_requests_total", "HTTP requests that were answered.");
    describe_histogram!("gavel_http_request_seconds", Unit::Seconds, "Time to the head of the answer.");
    describe_counter!("gavel_auth_refusals_total", "Requests that were refused for their token, by reason.");
    describe_gauge!("gavel_queue_depth", "Jobs that are pending.");
    describe_gauge!("gavel_jobs_running", "Jobs that are running.");
    describe_gauge!("gavel_queue_oldest_seconds", Unit::Seconds, "Age of the oldest pending job.");
    describe_gauge!("gavel_workers", "Workers of this node, by state.");
    describe_histogram!("gavel_run_cpu_seconds", Unit::Seconds, "CPU time of runs.");
    describe_histogram!("gavel_run_wall_seconds", Unit::Seconds, "Wall time of runs.");
    describe_histogram!(
        "gavel_compile_cpu_seconds",
        Unit::Seconds,
        "CPU time of compile commands; cached ones are left out."
    );
    describe_counter!("gavel_sandboxes_opened_total", "Sandboxes that were opened.");
    describe_histogram!("gavel_sandbox_open_seconds", Unit::Seconds, "Time to open a sandbox.");
    describe_counter!("gavel_containers_started_total", "Containers that were started.");
    describe_counter!("gavel_containers_removed_total", "Containers that were removed.");
    describe_counter!(
        "gavel_containers_failed_total",
        "Containers that could not be started or removed, or had to be thrown away."
    );
    describe_gauge!("gavel_pool_ready", "Containers that wait for a command.");
    describe_histogram!("gavel_pool_wait_seconds", Unit::Seconds, "Time that a command waited for its container.");
    describe_counter!("gavel_faults_total", "Faults of ours, by the step that failed.");
    describe_histogram!("gavel_store_commit_seconds", Unit::Seconds, "Time from a commit until the disk has it.");
    describe_histogram!("gavel_store_group_size", "Requests that shared one commit.");
    describe_histogram!("gavel_store_sync_size", "Durable requests that shared one wait for the disk.");
    describe_gauge!("gavel_deliveries_pending", "Callbacks that are due, under way or waiting to be tried again.");
    describe_counter!("gavel_delivery_attempts_total", "Callbacks that were tried, by what came of it.");
    describe_counter!("gavel_deliveries_given_up_total", "Callbacks that nobody tries again.");
    describe_histogram!("gavel_delivery_seconds", Unit::Seconds, "Time of one attempt at a callback.");
    describe_gauge!("gavel_worker_jobs_done", "Jobs that the workers of this node ended.");
    describe_gauge!("gavel_worker_faults", "Jobs of this node's workers that met a fault of ours, each time.");
}

/// Counts an answered request.
pub fn count_request(route: &str, method: &Method, status: StatusCode, took: Duration) {
    let (route, method) = (known_route(route), known_method(method));
    counter!("gavel_http_requests_total", "route" => route, "method" => method, "status" => known_status(status))
        .increment(1);
    histogram!("gavel_http_request_seconds", "route" => route, "method" => method).record(took.as_secs_f64());
}

/// All routes: a label is one of these, so that it costs no allocation and cannot grow in number.
pub const ROUTES: &[&str] = &[
    "/api/v1/jobs",
    "/api/v1/jobs/batch",
    "/api/v1/jobs/stream",
    "/api/v1/jobs/{id}",
    "/api/v1/jobs/{id}/cancel",
    "/api/v1/jobs/{id}/deliveries",
    "/api/v1/jobs/{id}/events",
    "/api/v1/jobs/{id}/ws",
    "/api/v1/languages",
    "/api/v1/languages/{id}",
    "/api/v1/workers",
    "/api/v1/stats",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/{file}",
    "/",
    "/submissions",
    "/submissions/batch",
    "/submissions/{token}",
    "/languages",
    "/languages/all",
    "/languages/{id}",
    "/statuses",
    "/system_info",
    "/config_info",
    "/about",
    "/version",
    "/isolate",
    "/license",
    "/statistics",
    "/workers",
    "/authenticate",
    "/authorize",
];

fn known_route(route: &str) -> &'static str {
    let find = |route: &str| ROUTES.iter().find(|known| **known == route).copied();
    // Judge0's routes exist in several spellings.
    let spelt = || {
        let route = route.strip_prefix("/extra").unwrap_or(route);
        find(route.strip_suffix(".json").or(route.strip_suffix('/')).unwrap_or(route))
    };
    find(route).or_else(spelt).unwrap_or("unmatched")
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

fn known_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        101 => "101",
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        308 => "308",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        413 => "413",
        415 => "415",
        421 => "421",
        422 => "422",
        426 => "426",
        429 => "429",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}

/// Shows the numbers of this process to Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
pub async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let recorder = install().map_err(|cause| ApiError::internal(Arc::new(NoRecorder(cause))))?;
    gauge_now(app.service()).await;
    let mut response = Response::new(recorder.render().into());
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    Ok(response)
}

#[derive(Debug, thiserror::Error)]
#[error("no metrics are recorded: {0}")]
struct NoRecorder(&'static str);

/// How long a scrape waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sets what is read and not counted.
async fn gauge_now(service: &Service) {
    match timeout(PATIENCE, service.depth()).await {
        Ok(Ok(depth)) => {
            let age = depth.oldest_pending.map_or(Duration::ZERO, |oldest| crate::times::now().since(oldest));
            gauge!("gavel_queue_depth").set(depth.pending as f64);
            gauge!("gavel_jobs_running").set(depth.running as f64);
            gauge!("gavel_queue_oldest_seconds").set(age.as_secs_f64());
        }
        // The other numbers are wanted most when the store does not work.
        Ok(Err(error)) => warn!(%error, "the depth of the queue cannot be read"),
        Err(_) => warn!("the depth of the queue cannot be read in time"),
    }
    match timeout(PATIENCE, service.pending_deliveries()).await {
        Ok(Ok(pending)) => gauge!("gavel_deliveries_pending").set(pending as f64),
        Ok(Err(error)) => warn!(%error, "the number of callbacks cannot be read"),
        Err(_) => warn!("the number of callbacks cannot be read in time"),
    }
    let workers = service.workers();
    for state in
        [WorkerState::Starting, WorkerState::Idle, WorkerState::Busy, WorkerState::Recovering, WorkerState::Stopped]
    {
        let count = workers.iter().filter(|worker| worker.state == state).count();
        gauge!("gavel_workers", "state" => state.as_str()).set(count as f64);
    }
    gauge!("gavel_worker_jobs_done").set(workers.iter().map(|worker| worker.jobs_done).sum::<u64>() as f64);
    gauge!("gavel_worker_faults").set(workers.iter().map(|worker| worker.faults).sum::<u64>() as f64);
}

/// Moves recorded times into their buckets now and then, so that they do not pile up between scrapes.
pub(crate) async fn upkeep() {
    let Ok(recorder) = install() else { return };
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}
