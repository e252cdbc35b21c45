//! The one place where the parts meet: from the configuration to parts that work together.

use crate::catalogue::{self, Bounds};
use crate::config::Config;
use crate::config::value::{BackendChoice, Judge0Version, MetricsAccess, PoolPolicy, Secrets, TokensRequired};
use crate::data_dir;
use crate::exit::{ExitCode, coded};
use anyhow::{Context, Result};
use gavel_api::auth::Required;
use gavel_api::callbacks::CallbackOptions;
use gavel_api::{
    Auth, AuthOptions, HealthOptions, HttpOptions, LanguageState, Origins, ServeOptions, ServiceOptions, Tls, judge0,
};
use gavel_core::language::Scratch;
use gavel_core::{Bytes, Catalogue, Language};
use gavel_judge::Cache;
use gavel_sandbox::both::Both;
use gavel_sandbox::docker::{Docker, DockerOptions, Policy, Recipe};
use gavel_sandbox::native::{Native, NativeOptions};
use gavel_sandbox::{Backend, Fault};
use gavel_store::sqlite::{OpenError, TokenBook};
use gavel_store::{Scope, Scopes, SqliteOptions, SqliteStore, Store};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub fn catalogue(config: &Config) -> Result<Catalogue> {
    catalogue::load(config.place.languages_dir.as_deref(), &Bounds::of(config))
        .map_err(|message| coded(ExitCode::Config, message))
}

/// What isolates the jobs, and what that makes of the languages.
pub struct Isolation {
    pub backend: Arc<dyn Backend>,
    /// As jobs are judged: what runs in a container has its image by id, what runs on the host's files none.
    pub catalogue: Catalogue,
    /// As clients see it: the same limits, and images by name.
    pub shown: Catalogue,
    pub states: BTreeMap<String, LanguageState>,
}

impl Isolation {
    pub fn state(&self, language: &Language) -> LanguageState {
        self.states.get(&language.id).cloned().unwrap_or_default()
    }

    pub fn is_available(&self, language: &Language) -> bool {
        self.state(language).unavailable.is_none()
    }
}

/// For whom jobs are isolated.
#[derive(Debug, Default)]
pub struct Purpose<'a> {
    /// Holds the files that may be mapped into sandboxes.
    pub shared_dir: Option<&'a Path>,
    /// A server keeps containers ready and knows what an earlier one of its name left; a program that runs
    /// a few jobs does neither.
    pub server: bool,
}

/// Opens what isolates the jobs: what the configuration wants, and what single languages want besides.
pub fn isolation(config: &Config, catalogue: &Catalogue, purpose: &Purpose) -> Result<Isolation> {
    let mut opened = Opened::default();
    let usual = opened.open_usual(config, purpose).map_err(|reason| {
        let message = format!("jobs cannot be isolated here: {reason}; `gavel doctor` says how to change that");
        coded(ExitCode::Machine, message)
    })?;
    let kinds: Vec<(Arc<Language>, Kind)> =
        catalogue.iter().map(|language| (language.clone(), kind(language, usual))).collect();
    for kind in [Kind::Native, Kind::Docker] {
        if kinds.iter().any(|(_, wanted)| *wanted == kind) {
            opened.open(kind, config, purpose);
        }
    }
    opened.find_images(&kinds);
    let mut isolation = Isolation {
        backend: opened.backend(usual)?,
        catalogue: Catalogue::default(),
        shown: Catalogue::default(),
        states: BTreeMap::new(),
    };
    let (mut judged, mut shown) = (Vec::new(), Vec::new());
    for (language, kind) in &kinds {
        let unavailable = opened.unavailable(language, *kind);
        let state = LanguageState { backend: Some(kind.name().to_owned()), version: None, unavailable };
        isolation.states.insert(language.id.clone(), state);
        let language = opened.bounded(language, *kind, config);
        judged.push(Language { image: opened.image(&language, *kind), ..language.clone() });
        shown.push(language);
    }
    if let (Some(docker), true) = (&opened.docker, purpose.server) {
        docker.announce(judged.iter().filter(|language| isolation.is_available(language)).flat_map(recipes));
    }
    (isolation.catalogue, isolation.shown) = (Catalogue::new(judged), Catalogue::new(shown));
    Ok(isolation)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Native,
    Docker,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Docker => "docker",
        }
    }
}

fn kind(language: &Language, usual: Kind) -> Kind {
    match language.backend.as_deref() {
        Some("native") => Kind::Native,
        Some("docker") => Kind::Docker,
        _ => usual,
    }
}

/// The backends that are needed, or why one does not work.
#[derive(Default)]
struct Opened {
    native: Option<Arc<Native>>,
    docker: Option<Arc<Docker>>,
    why_not: BTreeMap<&'static str, String>,
    /// Ids of images by their names.
    images: BTreeMap<String, String>,
}

impl Opened {
    fn keep_native(&mut self, native: Native) -> Kind {
        self.native = Some(Arc::new(native));
        Kind::Native
    }

    fn keep_docker(&mut self, docker: Docker) -> Kind {
        self.docker = Some(Arc::new(docker));
        Kind::Docker
    }

    fn open_usual(&mut self, config: &Config, purpose: &Purpose) -> Result<Kind, String> {
        let text = |fault: Fault| fault.to_string();
        match config.sandbox.backend {
            BackendChoice::Native => native(config, purpose).map(|native| self.keep_native(native)).map_err(text),
            BackendChoice::Docker => docker(config, purpose).map(|docker| self.keep_docker(docker)).map_err(text),
            BackendChoice::Auto => {
                let why_not = match native(config, purpose) {
                    Ok(native) => return Ok(self.keep_native(native)),
                    Err(fault) => fault,
                };
                let docker = docker(config, purpose).map_err(|fault| format!("native: {why_not}; docker: {fault}"))?;
                tracing::info!(reason = %why_not, "jobs run in containers: the native backend does not work here");
                Ok(self.keep_docker(docker))
            }
        }
    }

    /// What only some languages want is no reason not to start.
    fn open(&mut self, wanted: Kind, config: &Config, purpose: &Purpose) {
        let opened = match wanted {
            Kind::Native if self.native.is_none() => native(config, purpose).map(|native| self.keep_native(native)),
            Kind::Docker if self.docker.is_none() => docker(config, purpose).map(|docker| self.keep_docker(docker)),
            _ => return,
        };
        if let Err(fault) = opened {
            tracing::warn!(error = %fault, "the {} backend does not work, but some languages want it", wanted.name());
            self.why_not.insert(wanted.name(), fault.to_string());
        }
    }

    fn find_images(&mut self, kinds: &[(Arc<Language>, Kind)]) {
        let Some(docker) = &self.docker else { return };
        let of_docker = kinds.iter().filter(|(_, kind)| *kind == Kind::Docker);
        let names: Vec<&str> = of_docker.filter_map(|(language, _)| language.image.as_deref()).collect();
        match docker.images(&names) {
            Ok(images) => self.images = images,
            Err(fault) => {
                tracing::error!(error = %fault, "it is not known which images there are");
                self.why_not.insert(Kind::Docker.name(), fault.to_string());
            }
        }
    }

    fn backend(&self, usual: Kind) -> Result<Arc<dyn Backend>> {
        match (self.native.clone(), self.docker.clone()) {
            (Some(native), Some(docker)) => Ok(Arc::new(Both::new(native, docker))),
            (Some(native), None) => Ok(native),
            (None, Some(docker)) => Ok(docker),
            (None, None) => Err(coded(ExitCode::Machine, format!("the {} backend is gone", usual.name()))),
        }
    }

    fn unavailable(&self, language: &Language, kind: Kind) -> Option<String> {
        if let Some(reason) = self.why_not.get(kind.name()) {
            return Some(format!("needs the {} backend: {reason}", kind.name()));
        }
        match (kind, &language.image) {
            (Kind::Native, _) => catalogue::missing(language),
            (Kind::Docker, None) => Some("has no image: name one in its language.toml".to_owned()),
            (Kind::Docker, Some(image)) if self.images.contains_key(image) => None,
            (Kind::Docker, Some(image)) => {
                Some(format!("needs the image {image}: `gavel languages build {}`", language.id))
            }
        }
    }

    /// A client may ask for as much as a container can have.
    fn bounded(&self, language: &Arc<Language>, kind: Kind, config: &Config) -> Language {
        let mut language = Language::clone(language);
        if let (Kind::Docker, Some(docker)) = (kind, &self.docker) {
            let largest = docker.largest();
            let most = config.sandbox.container_memory_limit.min(largest);
            language.cap.memory = language.cap.memory.min(most);
            language.limits.memory = language.limits.memory.min(most);
            if let Some(compile) = &mut language.compile {
                compile.limits.memory = compile.limits.memory.min(largest);
            }
        }
        language
    }

    /// For commands. One that is not there keeps its name, so that a fault names it.
    fn image(&self, language: &Language, kind: Kind) -> Option<String> {
        let name = language.image.as_ref().filter(|_| kind == Kind::Docker)?;
        Some(self.images.get(name).unwrap_or(name).clone())
    }
}

/// The containers that jobs of a language need when they ask for nothing special.
fn recipes(language: &Language) -> Vec<Recipe> {
    let Some(image) = &language.image else { return Vec::new() };
    let run = Recipe::new(image, &language.limits, &Scratch::for_run(&language.limits));
    let compile = language.compile.as_ref();
    let compile = compile.map(|compile| Recipe::new(image, &compile.limits, &Scratch::for_compile()));
    [Some(run), compile].into_iter().flatten().collect()
}

fn native(config: &Config, purpose: &Purpose) -> Result<Native, Fault> {
    Native::new(NativeOptions {
        uid_base: config.sandbox.uid_base.get(),
        allow_weak_isolation: config.sandbox.allow_weak_isolation,
        allow_network: config.sandbox.allow_network,
        shared_dir: purpose.shared_dir.map(Path::to_owned),
    })
}

fn docker(config: &Config, purpose: &Purpose) -> Result<Docker, Fault> {
    let sandbox = &config.sandbox;
    let policy = match sandbox.pool_policy {
        PoolPolicy::Fresh => Policy::Fresh,
        PoolPolicy::Reuse => Policy::Reuse { jobs: sandbox.reuse_jobs.get(), time: sandbox.reuse_time },
    };
    Docker::new(DockerOptions {
        cli: sandbox.docker_cli.clone(),
        runtime: sandbox.docker_runtime.clone(),
        node: if purpose.server { docker_node(config) } else { None },
        cpus: sandbox.container_cpu_limit.0,
        policy,
        ahead: purpose.server,
        pool_min: sandbox.pool_min,
        pool_max: sandbox.pool_max.get(),
        pool_memory: sandbox.pool_memory,
        idle_timeout: config.workers.idle_timeout,
        cleanup_interval: config.workers.cleanup_interval,
        allow_network: sandbox.allow_network,
        allow_weak_isolation: sandbox.allow_weak_isolation,
    })
}

/// What containers of this server are known by after it died. Several servers may share a daemon, from one
/// machine or many, and the names of nodes may be the same: but one data directory is used by one server.
/// It is told from its copies, and from those of other machines, by what the kernel calls it.
fn docker_node(config: &Config) -> Option<String> {
    let node = node(config).ok()?;
    let dir = std::fs::metadata(&config.place.data_dir).ok()?;
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let identity = format!("{node} {} {} {}", machine.trim(), dir.dev(), dir.ino());
    Some(format!("{node}-{}", &blake3::hash(identity.as_bytes()).to_hex()[..8]))
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

/// `None`: callbacks are switched off, and what is due waits until they are on again.
pub fn callback_options(config: &Config) -> Result<Option<CallbackOptions>> {
    let callbacks = &config.callbacks;
    if !callbacks.enabled {
        return Ok(None);
    }
    Ok(Some(CallbackOptions {
        node: node(config)?,
        rules: config.callback_rules(),
        secrets: callbacks.secrets.clone(),
        timeout: callbacks.timeout,
        max_attempts: callbacks.max_attempts.get(),
        backoff: callbacks.backoff,
        max_backoff: callbacks.max_backoff,
        concurrency: callbacks.concurrency.get(),
        per_host: callbacks.per_host.get(),
        ..CallbackOptions::default()
    }))
}

/// Who may use the API. Refuses what would let everybody in.
pub async fn auth(config: &Config, store: &Arc<dyn Store>) -> Result<Auth> {
    let fixed = |secrets: &Secrets, scopes: Scopes| -> Vec<_> {
        secrets.0.iter().map(|secret| (secret.clone(), scopes)).collect()
    };
    let (bind, cors) = (config.server.bind, &config.server.cors_origins);
    let public = !bind.ip().is_loopback();
    let options = AuthOptions {
        required: match config.auth.required {
            TokensRequired::Auto if public => Required::Always,
            TokensRequired::Auto => Required::Auto,
            TokensRequired::Always => Required::Always,
            TokensRequired::Never => Required::Never,
        },
        // An admin's token last: it holds where one stands on both lists.
        fixed: [
            fixed(&config.auth.tokens, [Scope::Submit, Scope::Read].into_iter().collect()),
            fixed(&config.auth.admin_tokens, Scopes::all()),
        ]
        .concat(),
        open_metrics: config.auth.metrics == MetricsAccess::Open,
    };
    let auth = Auth::load(store.clone(), options).await.map_err(|error| coded(ExitCode::Machine, error))?;
    if public && !auth.has_usable() {
        let message = format!(
            "server.bind = \"{bind}\": without tokens only loopback addresses may be bound: make one with \
             `gavel token create NAME`, or use \"127.0.0.1:{}\"",
            bind.port()
        );
        return Err(coded(ExitCode::Config, message));
    }
    if origins(cors).is_all() && !auth.in_force() {
        let message = "server.cors_origins = \"*\": without tokens the page of every web site could run programs here: \
                       make one with `gavel token create NAME`, or name the origins";
        return Err(coded(ExitCode::Config, message));
    }
    Ok(auth)
}

/// What is no origin was refused with the configuration.
fn origins(list: &[String]) -> Origins {
    Origins::parse(list).unwrap_or_default()
}

/// The tokens of the database, also beside a running server.
pub fn token_book(config: &Config) -> Result<TokenBook> {
    data_dir::create(&config.place.data_dir)?;
    TokenBook::open(&store_options(config)).map_err(|error| store_error(&error))
}

/// `None`: plain HTTP.
pub fn tls(config: &Config) -> Result<Option<Tls>> {
    let (Some(cert), Some(key)) = (&config.server.tls_cert, &config.server.tls_key) else { return Ok(None) };
    Tls::load(cert, key).map(Some).map_err(|error| coded(ExitCode::Config, error))
}

pub fn http_options(config: &Config, auth: Auth) -> HttpOptions {
    let standard = HttpOptions::default();
    HttpOptions {
        max_body: config.server.max_body,
        max_batch_body: standard.max_batch_body.max(config.server.max_body),
        origins: origins(&config.server.cors_origins),
        allowed_hosts: config.server.allowed_hosts.clone(),
        judge0: judge0_options(config),
        auth,
        ..standard
    }
}

/// What clients of Judge0 may ask for: never more than clients of the native API.
pub fn judge0_options(config: &Config) -> judge0::Options {
    let (set, cap) = (&config.judge0, config.limits_cap.limits());
    let seconds = |default: Duration, max: Duration, cap: Duration| {
        let max = max.min(cap);
        judge0::Bound::new(default.min(max).as_secs_f64(), max.as_secs_f64())
    };
    // Rounded down: a KiB more would be above the cap.
    let kib = |default: Bytes, max: Bytes, cap: Bytes| {
        let max = max.min(cap);
        judge0::Bound::new(default.min(max).0 / 1024, max.0 / 1024)
    };
    let count = |default: NonZeroU32, max: NonZeroU32, cap: u32| {
        let max = max.get().min(cap);
        judge0::Bound::new(u64::from(default.get().min(max)), u64::from(max))
    };
    judge0::Options {
        enabled: set.enabled,
        version: match set.version {
            Judge0Version::V1131 => judge0::Version::V1_13_1,
            Judge0Version::V1140 => judge0::Version::V1_14_0,
        },
        maintenance: set.maintenance_message.clone(),
        wait: set.wait,
        compiler_options: set.compiler_options,
        compiler_options_languages: set.compiler_options_languages.clone(),
        command_line_arguments: set.command_line_arguments,
        delete: set.delete,
        batches: set.batches,
        max_batch: set.max_batch.get(),
        callbacks: set.callbacks && config.callbacks.enabled,
        callback_tries: config.callbacks.max_attempts.get(),
        callback_timeout: config.callbacks.timeout,
        additional_files: set.additional_files,
        max_extract: set.max_extract_size.min(config.limits.max_files_total).0 / 1024,
        cpu_time: seconds(set.cpu_time_limit, set.max_cpu_time_limit, cap.cpu_time),
        cpu_extra_time: seconds(set.cpu_extra_time, set.max_cpu_extra_time, Duration::MAX),
        wall_time: seconds(set.wall_time_limit, set.max_wall_time_limit, cap.wall_time),
        memory: kib(set.memory_limit, set.max_memory_limit, cap.memory),
        stack: kib(set.stack_limit, set.max_stack_limit, cap.stack),
        processes: count(set.processes, set.max_processes, cap.processes),
        file_size: kib(set.file_size, set.max_file_size, cap.file_size),
        runs: count(set.runs, set.max_runs, config.limits.max_runs.get()),
        signals_as_exit_codes: set.signals_as_exit_codes,
    }
}

pub fn serve_options(config: &Config, tls: Option<Tls>) -> ServeOptions {
    ServeOptions { max_connections: config.server.max_connections.get(), tls, ..ServeOptions::default() }
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
