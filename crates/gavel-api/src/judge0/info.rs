//! What the server says about itself: languages, statuses, settings, counts.

use super::document::ErrorAnswer;
use super::error::{Refusal, answer, empty};
use super::languages::{self, Listed, ListedWithArchived};
use super::params::Params;
use super::status::{self, Status};
use super::{Flavour, Version, authorized};
use crate::owner::Owner;
use crate::router::App;
use crate::service::Counted;
use crate::times::now;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use gavel_core::Timestamp;
use gavel_core::board::WorkerState;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// Lists the languages that can be submitted, by name.
#[utoipa::path(
    get, path = "/languages", operation_id = "judge0_languages", tag = "judge0",
    responses(
        (status = 200, description = "The languages", body = Vec<Listed>),
    )
)]
pub async fn languages(State(app): State<App>, Extension(flavour): Extension<Flavour>) -> Response {
    let list = languages::active(&app.service().languages(), flavour);
    answer(StatusCode::OK, &list.into_iter().map(Listed::from).collect::<Vec<_>>())
}

/// Lists also the languages that cannot be submitted any more.
#[utoipa::path(
    get, path = "/languages/all", operation_id = "judge0_all_languages", tag = "judge0",
    responses(
        (status = 200, description = "The languages", body = Vec<ListedWithArchived>),
    )
)]
pub async fn all_languages(State(app): State<App>, Extension(flavour): Extension<Flavour>) -> Response {
    let list = languages::all(&app.service().languages(), flavour);
    answer(StatusCode::OK, &list.into_iter().map(ListedWithArchived::from).collect::<Vec<_>>())
}

/// Shows one language.
#[utoipa::path(
    get, path = "/languages/{id}", operation_id = "judge0_language", tag = "judge0",
    params(
        ("id" = String, Path, description = "Number of the language"),
    ),
    responses(
        (status = 200, description = "The language", body = languages::Shown),
        (status = 404, description = "Unknown"),
    )
)]
pub async fn language(
    State(app): State<App>,
    Extension(flavour): Extension<Flavour>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = path.ok().and_then(|Path(text)| text.strip_suffix(".json").unwrap_or(&text).parse().ok());
    let shelf = app.service().languages();
    let entry = id.and_then(|id| languages::find(&shelf, flavour, id)).ok_or(Refusal::NOT_FOUND)?;
    Ok(answer(StatusCode::OK, &languages::Shown::from(entry)))
}

/// Lists the statuses that a submission can have.
#[utoipa::path(
    get, path = "/statuses", operation_id = "judge0_statuses", tag = "judge0",
    responses(
        (status = 200, description = "The statuses", body = Vec<status::Shown>),
    )
)]
pub async fn statuses() -> Response {
    answer(StatusCode::OK, &Status::all().map(Status::shown).collect::<Vec<_>>())
}

fn version_text(version: Version, flavour: Flavour) -> &'static str {
    match (version, flavour) {
        (Version::V1_13_1, Flavour::Ce) => "1.13.1",
        (Version::V1_13_1, Flavour::Extra) => "1.13.1-extra",
        (Version::V1_14_0, Flavour::Ce) => "1.14.0",
        (Version::V1_14_0, Flavour::Extra) => "1.14.0-extra",
    }
}

/// Says which version of Judge0's API this is. Clients choose their language ids by it.
#[utoipa::path(
    get, path = "/about", operation_id = "judge0_about", tag = "judge0",
    responses(
        (status = 200, description = "The version"),
    )
)]
pub async fn about(State(app): State<App>, Extension(flavour): Extension<Flavour>) -> Response {
    let about = json!({
        "version": version_text(app.judge0().version, flavour),
        "homepage": "/docs",
        "source_code": concat!("gavel ", env!("CARGO_PKG_VERSION")),
        "maintainer": "the operator of this server",
    });
    answer(StatusCode::OK, &about)
}

/// Says the version as text.
#[utoipa::path(
    get, path = "/version", operation_id = "judge0_version", tag = "judge0",
    responses(
        (status = 200, description = "The version"),
    )
)]
pub async fn version(State(app): State<App>, Extension(flavour): Extension<Flavour>) -> Response {
    plain_text(version_text(app.judge0().version, flavour).to_owned())
}

/// Says what isolates the programs.
#[utoipa::path(
    get, path = "/isolate", operation_id = "judge0_isolate", tag = "judge0",
    responses(
        (status = 200, description = "The sandboxes"),
    )
)]
pub async fn isolate(State(app): State<App>) -> Response {
    let mut backends: Vec<String> = app.service().workers().into_iter().map(|worker| worker.backend).collect();
    backends.sort_unstable();
    backends.dedup();
    let sandboxes = if backends.is_empty() { "no workers here".to_owned() } else { backends.join(", ") };
    plain_text(format!("gavel {} ({sandboxes})\n", env!("CARGO_PKG_VERSION")))
}

/// Says the licence of this server.
#[utoipa::path(
    get, path = "/license", operation_id = "judge0_license", tag = "judge0",
    responses(
        (status = 200, description = "The licence"),
    )
)]
pub async fn license() -> Response {
    plain_text(include_str!("../../../../LICENSE").to_owned())
}

fn plain_text(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The answer to `/config_info`: exactly the keys that Judge0 1.13.1 has, because clients want them all.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Judge0Config)]
pub struct Config<'a> {
    maintenance_mode: bool,
    enable_wait_result: bool,
    enable_compiler_options: bool,
    // Spelt as Judge0 spells it.
    allowed_languages_for_compile_options: &'a [String],
    enable_command_line_arguments: bool,
    enable_submission_delete: bool,
    enable_callbacks: bool,
    callbacks_max_tries: u32,
    callbacks_timeout: f64,
    enable_additional_files: bool,
    max_extract_size: u64,
    enable_batched_submissions: bool,
    max_submission_batch_size: usize,
    submission_cache_duration: f64,
    use_docs_as_homepage: bool,
    max_queue_size: u64,
    cpu_time_limit: f64,
    max_cpu_time_limit: f64,
    cpu_extra_time: f64,
    max_cpu_extra_time: f64,
    wall_time_limit: f64,
    max_wall_time_limit: f64,
    memory_limit: u64,
    max_memory_limit: u64,
    stack_limit: u64,
    max_stack_limit: u64,
    max_processes_and_or_threads: u64,
    max_max_processes_and_or_threads: u64,
    enable_per_process_and_thread_time_limit: bool,
    allow_enable_per_process_and_thread_time_limit: bool,
    enable_per_process_and_thread_memory_limit: bool,
    allow_enable_per_process_and_thread_memory_limit: bool,
    max_file_size: u64,
    max_max_file_size: u64,
    enable_network: bool,
    allow_enable_network: bool,
    redirect_stderr_to_stdout: bool,
    number_of_runs: u64,
    max_number_of_runs: u64,
}

/// Shows the settings that hold.
#[utoipa::path(
    get, path = "/config_info", operation_id = "judge0_config_info", tag = "judge0",
    responses(
        (status = 200, description = "The settings", body = Config<'_>),
    )
)]
pub async fn config(State(app): State<App>) -> Response {
    let (options, service) = (app.judge0(), app.service().options());
    let config = Config {
        maintenance_mode: options.maintenance.is_some(),
        enable_wait_result: options.wait,
        enable_compiler_options: options.compiler_options,
        allowed_languages_for_compile_options: &options.compiler_options_languages,
        enable_command_line_arguments: options.command_line_arguments,
        enable_submission_delete: options.delete,
        enable_callbacks: options.callbacks,
        callbacks_max_tries: options.callback_tries,
        callbacks_timeout: options.callback_timeout.as_secs_f64(),
        enable_additional_files: options.additional_files,
        max_extract_size: options.max_extract,
        enable_batched_submissions: options.batches,
        max_submission_batch_size: options.max_batch,
        // Nothing is cached: an answer is what the book says.
        submission_cache_duration: 0.0,
        use_docs_as_homepage: false,
        max_queue_size: service.max_depth,
        cpu_time_limit: options.cpu_time.default,
        max_cpu_time_limit: options.cpu_time.max,
        cpu_extra_time: options.cpu_extra_time.default,
        max_cpu_extra_time: options.cpu_extra_time.max,
        wall_time_limit: options.wall_time.default,
        max_wall_time_limit: options.wall_time.max,
        memory_limit: options.memory.default,
        max_memory_limit: options.memory.max,
        stack_limit: options.stack.default,
        max_stack_limit: options.stack.max,
        max_processes_and_or_threads: options.processes.default,
        max_max_processes_and_or_threads: options.processes.max,
        // The limits are always those of all processes together; asking for others is no error.
        enable_per_process_and_thread_time_limit: false,
        allow_enable_per_process_and_thread_time_limit: true,
        enable_per_process_and_thread_memory_limit: false,
        allow_enable_per_process_and_thread_memory_limit: true,
        max_file_size: options.file_size.default,
        max_max_file_size: options.file_size.max,
        enable_network: false,
        allow_enable_network: service.rules.allow_network,
        redirect_stderr_to_stdout: false,
        number_of_runs: options.runs.default,
        max_number_of_runs: options.runs.max,
    };
    answer(StatusCode::OK, &config)
}

/// Shows the machine: processors and memory, as texts.
#[utoipa::path(
    get, path = "/system_info", operation_id = "judge0_system_info", tag = "judge0",
    responses(
        (status = 200, description = "The machine"),
    )
)]
pub async fn system() -> Response {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    answer(StatusCode::OK, &system_info(&read("/proc/cpuinfo"), &read("/proc/meminfo")))
}

fn system_info(processors: &str, memory: &str) -> BTreeMap<&'static str, String> {
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let size = |name: &str| {
        let kib: f64 = value(memory, name)?.split(' ').next()?.parse().ok()?;
        Some(if kib < 1048576.0 { format!("{:.0}Mi", kib / 1024.0) } else { format!("{:.0}Gi", kib / 1048576.0) })
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut info = BTreeMap::from([("Architecture", std::env::consts::ARCH.to_owned()), ("CPU(s)", cores.to_string())]);
    let found = [
        ("Vendor ID", value(processors, "vendor_id")),
        ("Model name", value(processors, "model name")),
        ("CPU MHz", value(processors, "cpu MHz")),
        ("Mem", size("MemTotal")),
        ("Swap", size("SwapTotal")),
    ];
    info.extend(found.into_iter().filter_map(|(name, value)| Some((name, value?))));
    info
}

/// Shows how busy the workers are.
#[utoipa::path(
    get, path = "/workers", operation_id = "judge0_workers", tag = "judge0",
    responses(
        (status = 200, description = "The workers"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn workers(State(app): State<App>, Extension(flavour): Extension<Flavour>) -> Result<Response, Refusal> {
    let workers = app.service().workers();
    let count = |wanted: &[WorkerState]| workers.iter().filter(|worker| wanted.contains(&worker.state)).count();
    let depth = app.service().depth().await?;
    let (idle, working) = (count(&[WorkerState::Idle]), count(&[WorkerState::Busy]));
    let others = count(&[WorkerState::Starting, WorkerState::Recovering]);
    Ok(answer(
        StatusCode::OK,
        &json!([{
            "queue": version_text(app.judge0().version, flavour),
            "size": depth.pending,
            "available": idle + working + others,
            "idle": idle,
            "working": working,
            "paused": others,
            "failed": 0,
        }]),
    ))
}

/// How long counts are kept.
const KEPT: Duration = Duration::from_secs(600);

/// Counts submissions by day, language and status; at most ten minutes old.
#[utoipa::path(
    get, path = "/statistics", operation_id = "judge0_statistics", tag = "judge0",
    params(
        ("invalidate_cache" = Option<String>, Query, description = "`true`: count again"),
    ),
    responses(
        (status = 200, description = "The counts"),
        (status = 503, description = "Queue full, maintenance, or the store cannot be used", body = ErrorAnswer),
    )
)]
pub async fn statistics(State(app): State<App>, owner: Owner, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let params = Params::of_query(query.as_deref())?;
    // A count reads the whole book: not more often than this, whoever asks.
    let keep = if params.switch("invalidate_cache") { Duration::from_secs(1) } else { KEPT };
    let counted = app.service().census(&owner, keep).await?;
    Ok(answer(StatusCode::OK, &statistics_of(&app, &counted, now())))
}

const MICROS_A_DAY: i64 = 86_400_000_000;

fn statistics_of(app: &App, counted: &Counted, now: Timestamp) -> Value {
    let shelf = app.service().languages();
    let today = now.0.div_euclid(MICROS_A_DAY);
    let (mut days, mut total) = (BTreeMap::new(), 0);
    let mut by_language: BTreeMap<&str, u64> = BTreeMap::new();
    let mut by_status: BTreeMap<Status, u64> = BTreeMap::new();
    for tally in &counted.census.tallies {
        total += tally.jobs;
        *days.entry(tally.day).or_default() += tally.jobs;
        *by_language.entry(&tally.language).or_default() += tally.jobs;
        let as_exit_codes = app.judge0().signals_as_exit_codes;
        let status = status::of_kind(tally.pending, tally.verdict, tally.signal, as_exit_codes);
        *by_status.entry(status).or_default() += tally.jobs;
    }
    // Those that run stand among the pending ones in the book.
    let waiting = by_status.get(&status::IN_QUEUE).copied().unwrap_or(0);
    let running = counted.running.min(waiting);
    for (status, jobs) in [(status::IN_QUEUE, waiting - running), (status::PROCESSING, running)] {
        by_status.insert(status, jobs);
    }
    by_status.retain(|_, jobs| *jobs > 0);
    let last_30_days: Map<String, Value> = (1..=30)
        .map(|ago| (date((today - ago) * MICROS_A_DAY), json!(days.get(&(today - ago)).copied().unwrap_or(0u64))))
        .collect();
    let languages = by_language.into_iter().map(|(ours, jobs)| {
        let id = shelf.get(ours).and_then(|language| language.judge0_ids.first().copied());
        let name = languages::name(&shelf, Flavour::Ce, id, ours);
        (jobs, json!({ "language": { "id": id, "name": name }, "count": jobs }))
    });
    let statuses = by_status.into_iter().map(|(status, jobs)| {
        (jobs, json!({ "status": { "id": status.0, "name": status.description() }, "count": jobs }))
    });
    let size = counted.census.size;
    json!({
        "created_at": offset_time(counted.at),
        "cached_until": offset_time(counted.at.plus(KEPT)),
        "submissions": {
            "total": total,
            "today": days.get(&today).copied().unwrap_or(0),
            "last_30_days": last_30_days,
        },
        "languages": most_first(languages.collect()),
        "statuses": most_first(statuses.collect()),
        "database": { "size_pretty": format!("{} kB", size / 1024), "size_in_bytes": size },
    })
}

fn most_first(mut list: Vec<(u64, Value)>) -> Vec<Value> {
    list.sort_by(|(a, _), (b, _)| b.cmp(a));
    list.into_iter().map(|(_, value)| value).collect()
}

fn date(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    time.to_string().chars().take(10).collect()
}

/// `2026-11-22T18:40:48.546+00:00`
fn offset_time(at: Timestamp) -> String {
    super::answer::time(at).replace('Z', "+00:00")
}

/// Says whether the token is valid. Whoever comes here has one, or none is wanted.
#[utoipa::path(
    post, path = "/authenticate", operation_id = "judge0_authenticate", tag = "judge0",
    responses(
        (status = 200, description = "The token is valid, or none is wanted"),
        (status = 401, description = "It is not"),
    )
)]
pub async fn authenticate() -> Response {
    empty(StatusCode::OK)
}

/// Says whether the token may list and delete.
#[utoipa::path(
    post, path = "/authorize", operation_id = "judge0_authorize", tag = "judge0",
    responses(
        (status = 200, description = "The token may list and delete"),
        (status = 401, description = "The token is not valid"),
        (status = 403, description = "Not allowed with this token"),
    )
)]
pub async fn authorize(owner: Owner) -> Result<Response, Refusal> {
    authorized(&owner).map(|()| empty(StatusCode::OK))
}

/// The page that Judge0 shows nothing on.
#[utoipa::path(
    get, path = "/", operation_id = "judge0_home", tag = "judge0",
    responses(
        (status = 200, description = "Nothing"),
    )
)]
pub async fn home() -> Response {
    empty(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_what_the_kernel_says() {
        let info = system_info(
            "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A CPU @ 2 GHz\n",
            "MemTotal:       24670000 kB\nSwapTotal:             0 kB\n",
        );
        assert_eq!(info["Model name"], "A CPU @ 2 GHz");
        assert_eq!((info["Mem"].as_str(), info["Swap"].as_str()), ("24Gi", "0Mi"));
        assert!(!info.contains_key("CPU MHz"));
    }

    #[test]
    fn days_are_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(offset_time(Timestamp(1_770_091_506_874_999)), "2026-02-03T04:05:06.874+00:00");
    }
}
