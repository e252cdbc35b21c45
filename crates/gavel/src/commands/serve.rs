//! `gavel serve`: HTTP API and workers in one process, from start to drain.

use crate::cli::Serve;
use crate::config::Config;
use crate::config::table::Server;
use crate::exit::{ExitCode, coded};
use crate::logging;
use crate::ui::say_line;
use crate::versions::{self, Remembered};
use crate::wiring::{self, Isolation, Purpose};
use anyhow::{Context, Result};
use gavel_api::callbacks::{CallbackParts, Deliverer};
use gavel_api::judge0;
use gavel_api::{Health, LanguageBook, Parts, Service, Tls};
use gavel_core::{Board, Catalogue};
use gavel_judge::pool::{self, Pool, PoolOptions};
use gavel_sandbox::{Backend, Cancel};
use gavel_store::local::LocalQueueOptions;
use gavel_store::{LocalQueue, Queue, SqliteStore, Store};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// What a second signal ends the program with, as shells expect it of an interrupt.
const INTERRUPTED: i32 = 130;

pub fn run(command: &Serve, config: Config, json: bool) -> Result<ExitCode> {
    logging::start(&config)?;
    gavel_api::metrics::install().map_err(anyhow::Error::msg)?;
    let catalogue = wiring::catalogue(&config)?;
    let tls = wiring::tls(&config)?;
    // An address that others reach is bound when it is known that they need tokens, and not before.
    let listener = config.server.bind.ip().is_loopback().then(|| listen(config.server.bind)).transpose()?;
    let store = wiring::store(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads()).enable_all().build()?;
    runtime.block_on(serve(command, config, catalogue, Sockets { listener, tls }, store, json))?;
    Ok(ExitCode::Success)
}

/// Threads that serve sockets: half as many as there are cores. The jobs need the cores, and a thread that is
/// woken to help with a request costs more than the help: a fifth of the server's CPU time per job on two cores.
fn threads() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => coded(
            ExitCode::InUse,
            format!("{address} is used by another program: stop it, or choose another port with --bind"),
        ),
        _ => coded(ExitCode::Machine, format!("cannot listen on {address}: {error}; choose another one with --bind")),
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where clients come in.
struct Sockets {
    listener: Option<TcpListener>,
    tls: Option<Tls>,
}

async fn serve(
    command: &Serve,
    config: Config,
    catalogue: Catalogue,
    sockets: Sockets,
    store: SqliteStore,
    json: bool,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let store: Arc<dyn Store> = Arc::new(store);
    let auth = wiring::auth(&config, &store).await?;
    let Sockets { listener, tls } = sockets;
    let listener = listener.map_or_else(|| listen(config.server.bind), Ok)?;
    read_again_on_hangup(tls.clone())?;
    let queue: Arc<dyn Queue> = Arc::new(LocalQueue::new(LocalQueueOptions::default()));
    let board = Arc::new(Board::default());
    let cache = Arc::new(wiring::cache(&config)?);
    let purpose = Purpose { shared_dir: Some(cache.directory()), server: true };
    let Isolation { backend, catalogue, shown, states } = wiring::isolation(&config, &catalogue, &purpose)?;
    let languages = LanguageBook::new(shown, states);
    let pool = start_pool(&config, &store, &queue, &board, &backend, cache, &catalogue).await?;
    // After the pool, which has taken back what an earlier process of this name had under way.
    let deliverer = start_deliverer(&config, &store, &queue)?;
    let service = Service::new(Parts {
        store: store.clone(),
        queue,
        board,
        languages: languages.clone(),
        options: wiring::service_options(&config),
    });
    let router = gavel_api::router(
        service.clone(),
        Health::new(wiring::health_options(&config, &backend)),
        wiring::http_options(&config, auth.clone()),
    );
    let stopping = service.clone();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);
    if !config.server.bind.ip().is_loopback() {
        warn_of_the_public(&config.server);
    }
    let keeping = tokio::spawn(auth.clone().keep_fresh());
    announce(command, &url, auth.in_force(), json)?;
    let probing = probe_versions(&config, &backend, &catalogue, &languages, json)?;

    // HTTP goes on while the pool drains: whoever waits for a running job gets its result.
    let drained = async {
        signals.next().await;
        stopping.begin_drain();
        info!("stopping: no new jobs are started, running ones are drained; a second signal ends at once");
        probing.cancel();
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(INTERRUPTED);
        });
        pool.drain(config.workers.drain_timeout).await;
        if let Some(deliverer) = deliverer {
            deliverer.drain(config.callbacks.timeout).await;
        }
    };
    gavel_api::serve(listener, router, service, wiring::serve_options(&config, tls), drained).await?;
    // Its threads may hold it for a moment longer than we live.
    tokio::task::spawn_blocking(move || backend.close()).await?;
    keeping.abort();
    auth.write_uses().await;
    store.close().await;
    info!("stopped");
    Ok(())
}

fn start_deliverer(config: &Config, store: &Arc<dyn Store>, queue: &Arc<dyn Queue>) -> Result<Option<Deliverer>> {
    let Some(options) = wiring::callback_options(config)? else { return Ok(None) };
    let mut parts = CallbackParts::of_system(store.clone(), queue.clone());
    let judge0 = wiring::judge0_options(config);
    parts.judge0 = Some(Arc::new(move |record| judge0::callback_body(record, &judge0)));
    Ok(Some(Deliverer::start(parts, options).context("callbacks cannot be sent")?))
}

async fn start_pool(
    config: &Config,
    store: &Arc<dyn Store>,
    queue: &Arc<dyn Queue>,
    board: &Arc<Board>,
    backend: &Arc<dyn Backend>,
    cache: Arc<gavel_judge::Cache>,
    catalogue: &Catalogue,
) -> Result<Pool> {
    let parts = pool::Parts {
        store: store.clone(),
        queue: queue.clone(),
        board: board.clone(),
        catalogue: Arc::new(catalogue.clone()),
        backend: backend.clone(),
        cache,
    };
    let options = PoolOptions {
        node: wiring::node(config)?,
        min_workers: config.workers.min_workers.get(),
        max_workers: config.workers.max_workers.get(),
        idle_timeout: config.workers.idle_timeout,
        lease: config.workers.worker_timeout,
        max_attempts: config.workers.max_attempts.get(),
        interactive_idle: config.limits.interactive_idle,
        cleanup_interval: config.workers.cleanup_interval,
        retention: Some(config.store.retention),
    };
    pool::start(options, parts).await.context("the workers cannot be started")
}

/// Tells people, and whoever waits for the file, that the server is ready.
fn announce(command: &Serve, url: &str, tokens: bool, json: bool) -> Result<()> {
    if json {
        say_line!("{}", serde_json::json!({ "url": url, "version": env!("CARGO_PKG_VERSION") }));
    } else {
        say_line!("gavel {} listens on {url}", env!("CARGO_PKG_VERSION"));
        let token = if tokens { "-H \"Authorization: Bearer $GAVEL_TOKEN\" " } else { "" };
        say_line!(
            "try: curl -s '{url}/api/v1/jobs?wait=true' {token}-H 'content-type: application/json' \
             -d '{{\"language\":\"python3\",\"source_code\":\"print(6*7)\"}}'"
        );
    }
    if let Some(path) = &command.ready_file {
        write_whole(path, &format!("{url}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Nobody sees half of the file.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let half = path.with_extension("half");
    std::fs::write(&half, text)?;
    std::fs::rename(half, path)
}

/// Fills in the versions: those that are remembered at once, the others in the background.
fn probe_versions(
    config: &Config,
    backend: &Arc<dyn Backend>,
    catalogue: &Catalogue,
    languages: &LanguageBook,
    json: bool,
) -> Result<Cancel> {
    let cancel = Cancel::new()?;
    let (stop, backend, catalogue, languages) = (cancel.clone(), backend.clone(), catalogue.clone(), languages.clone());
    let file = config.place.data_dir.join("versions.json");
    // One above those of the workers.
    let slot = config.workers.max_workers.get();
    tokio::task::spawn_blocking(move || {
        let mut remembered = Remembered::read(&file);
        let shelf = languages.read();
        let mut unknown = Vec::new();
        for language in catalogue.iter().filter(|language| shelf.unavailable(&language.id).is_none()) {
            match remembered.version(language) {
                Some(version) => set_version(&languages, &language.id, version),
                None => unknown.push(language.clone()),
            }
        }
        versions::probe(&*backend, slot, &unknown, &stop, &mut |language, found| match found {
            Ok(version) => {
                set_version(&languages, &language.id, version.clone());
                remembered.learn(language, version);
            }
            Err(reason) => tracing::warn!(language = %language.id, %reason, "its version is not known"),
        });
        if let Err(error) = remembered.write(&file) {
            tracing::warn!(%error, file = %file.display(), "versions cannot be remembered");
        }
        if !json && !stop.is_wanted() {
            list(&languages, backend.name());
        }
    });
    Ok(cancel)
}

fn set_version(languages: &LanguageBook, id: &str, version: String) {
    let mut state = languages.read().state(id);
    state.version = Some(version).filter(|version| !version.is_empty());
    languages.set_state(id, state);
}

/// One line for the languages that work, one for those that do not.
fn list(languages: &LanguageBook, backend: &str) {
    let shelf = languages.read();
    let (mut here, mut missing) = (Vec::new(), Vec::new());
    for language in shelf.catalogue.iter() {
        let state = shelf.state(&language.id);
        match (&state.unavailable, &state.version) {
            (Some(_), _) => missing.push(language.id.clone()),
            (None, Some(version)) => here.push(format!("{} {version}", language.id)),
            (None, None) => here.push(language.id.clone()),
        }
    }
    say_line!("languages ({backend}): {}", here.join(", "));
    if !missing.is_empty() {
        say_line!("not available: {} (`gavel doctor` says what is missing)", missing.join(", "));
    }
}

/// What is easily forgotten where others can reach the server.
fn warn_of_the_public(server: &Server) {
    if server.tls_cert.is_none() {
        warn!("tokens travel unencrypted: set server.tls_cert and server.tls_key, or let a proxy do TLS");
    }
    if server.allowed_hosts.is_empty() {
        warn!("only requests for loopback names are answered: add this server's names to server.allowed_hosts");
    }
}

/// SIGHUP: what other servers do on it. Without TLS there is nothing to read again, and it ends nothing either.
fn read_again_on_hangup(tls: Option<Tls>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match &tls {
                Some(tls) => tls.reload_and_tell(),
                None => info!("SIGHUP reads certificates again, and there are none"),
            }
        }
    });
    Ok(())
}

/// SIGTERM and SIGINT, which mean the same.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
