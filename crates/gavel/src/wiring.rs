//! The one place where the parts meet: from the configuration to parts that work together.

use crate::catalogue::{self, Bounds};
use crate::config::Config;
use crate::data_dir;
use crate::exit::{ExitCode, coded};
use anyhow::{Context, Result};
use gavel_api::{HealthOptions, HttpOptions, LanguageState, ServeOptions, ServiceOptions};
use gavel_core::{Bytes, Catalogue, Language};
use gavel_judge::Cache;
use gavel_sandbox::Backend;
use gavel_sandbox::native::{Native, NativeOptions};
use gavel_store::sqlite::OpenError;
use gavel_store::{SqliteOptions, SqliteStore};
use std::path::Path;
use std::sync::Arc;

pub fn catalogue(config: &Config) -> Result<Catalogue> {
    catalogue::load(config.place.languages_dir.as_deref(), &Bounds::of(config))
        .map_err(|message| coded(ExitCode::Config, message))
}

/// Opens what isolates the jobs; `shared_dir` holds the files that it may map into sandboxes.
pub fn backend(config: &Config, shared_dir: Option<&Path>) -> Result<Arc<dyn Backend>> {
    let options = NativeOptions {
        uid_base: config.sandbox.uid_base.get(),
        allow_weak_isolation: config.sandbox.allow_weak_isolation,
        allow_network: config.sandbox.allow_network,
        shared_dir: shared_dir.map(Path::to_owned),
    };
    match Native::new(options) {
        Ok(native) => Ok(Arc::new(native)),
        Err(fault) => Err(coded(
            ExitCode::Machine,
            format!("jobs cannot be isolated on this machine: {fault}; `gavel doctor` says how to change that"),
        )),
    }
}

/// What is known of a language before anybody asked its toolchain.
pub fn language_state(language: &Language, backend: &dyn Backend) -> LanguageState {
    let pinned = language.backend.as_deref().filter(|name| *name != backend.name());
    let unavailable = match pinned {
        Some(name) => Some(format!("needs the {name} backend, which this server does not have")),
        None => catalogue::missing(language),
    };
    LanguageState { backend: Some(backend.name().to_owned()), version: None, unavailable }
}

/// The database file, from the store's URL.
fn store_options(config: &Config) -> SqliteOptions {
    let url = &config.store.url.0;
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path);
    SqliteOptions { max_depth: config.queue.max_depth.get(), ..SqliteOptions::new(path) }
}

/// Opens the database, brings it up to date and keeps other servers out of its directory.
pub fn store(config: &Config) -> Result<SqliteStore> {
    data_dir::create(&config.place.data_dir)?;
    SqliteStore::open(store_options(config)).map_err(|error| store_error(&error))
}

/// Brings the database up to date; how many versions of the schema were applied.
pub fn migrate(config: &Config) -> Result<usize> {
    data_dir::create(&config.place.data_dir)?;
    SqliteStore::migrate(&store_options(config)).map_err(|error| store_error(&error))
}

fn store_error(error: &OpenError) -> anyhow::Error {
    let code = match error {
        OpenError::InUse { .. } | OpenError::Locked { .. } => ExitCode::InUse,
        _ => ExitCode::Machine,
    };
    coded(code, format!("{error}: {}", error.remedy()))
}

pub fn cache(config: &Config) -> Result<Cache> {
    data_dir::create(&config.cache.dir)?;
    Cache::open(&config.cache.dir, config.cache.max_size.0)
        .map_err(|error| coded(ExitCode::Machine, format!("cache.dir {}: {error}", config.cache.dir.display())))
}

/// The name under which this server claims jobs. It stays with the data, so that a server that
/// starts again, even in a container with another host name, knows its own claims.
pub fn node(config: &Config) -> Result<String> {
    let path = config.place.data_dir.join("node");
    if let Ok(name) = std::fs::read_to_string(&path)
        && !name.trim().is_empty()
    {
        return Ok(name.trim().to_owned());
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = if host.is_empty() { "gavel".to_owned() } else { host };
    std::fs::write(&path, &name).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}

pub fn service_options(config: &Config) -> ServiceOptions {
    ServiceOptions {
        rules: config.rules(),
        default_wait: config.server.wait_timeout,
        max_wait: config.server.max_wait_timeout,
        max_waiters: config.server.max_waiters.get(),
        max_watchers: config.server.max_watchers.get(),
        max_depth: config.queue.max_depth.get(),
        ..ServiceOptions::default()
    }
}

pub fn http_options(config: &Config) -> HttpOptions {
    let standard = HttpOptions::default();
    HttpOptions {
        max_body: config.server.max_body,
        max_batch_body: standard.max_batch_body.max(config.server.max_body),
        cors_origins: config.server.cors_origins.clone(),
        allowed_hosts: config.server.allowed_hosts.clone(),
        ..standard
    }
}

pub fn serve_options(config: &Config) -> ServeOptions {
    ServeOptions { max_connections: config.server.max_connections.get(), ..ServeOptions::default() }
}

pub fn health_options(config: &Config, backend: &Arc<dyn Backend>) -> HealthOptions {
    let data_dir = config.place.data_dir.clone();
    let backend = Arc::clone(backend);
    HealthOptions {
        // Names the backend and the step only: no internals for clients.
        backend: Some(Arc::new(move || match backend.check() {
            Ok(()) => Ok(backend.name().to_owned()),
            Err(fault) => {
                tracing::error!(step = fault.step, error = %fault, "the backend does not work");
                Err(format!("{}: cannot {}", backend.name(), fault.step))
            }
        })),
        free_space: Some(Arc::new(move || {
            let stat = rustix::fs::statvfs(&data_dir)?;
            Ok(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
        })),
        ..HealthOptions::default()
    }
}
