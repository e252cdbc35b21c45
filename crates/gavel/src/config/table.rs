//! The one table of configuration keys. It feeds the file, the environment, the flags,
//! `gavel config` and docs/configuration.md; a key is written down here and nowhere else.

use super::resolve::{ConfigError, Settings};
use super::value::{
    BackendChoice, Cpus, Judge0Version, Kind, LogFormat, MetricsAccess, PoolPolicy, Secrets, TokensRequired, Url, Value,
};
use gavel_api::callbacks::{CallbackOptions, Secret};
use gavel_core::callback::IpNet;
use gavel_core::{Bytes, CallbackRules, Limits, Rules};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// One key, as everybody but the program's own code sees it.
pub struct Key {
    /// Empty for the keys at the top of the file.
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub default: Default,
    /// A short flag besides `--set section.key=value`.
    pub flag: Option<&'static str>,
    pub about: &'static str,
    /// Says what is wrong with a text, if anything is.
    pub check: fn(&str) -> Result<(), String>,
}

/// What holds when no source names the key.
pub enum Default {
    Is(&'static str),
    /// A constant that another crate owns.
    Core(fn() -> String),
    /// Depends on other keys or on the machine: what it depends on in words, and the value.
    From(&'static str, fn(&Settings) -> String),
}

use Default::{Core, From, Is};

impl Key {
    /// The name in full, as in `server.bind`.
    pub fn path(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// The environment variable, as in `GAVEL_SERVER_BIND`.
    pub fn variable(&self) -> String {
        format!("GAVEL_{}", self.path().replace('.', "_").to_uppercase())
    }
}

fn check<T: Value>(text: &str) -> Result<(), String> {
    T::parse(text).map(drop)
}

macro_rules! keys {
    ($( [$section:literal] $field:ident: $type:ident {
        $( $key:ident: $kind:ty = $default:expr, $flag:expr, $about:literal; )*
    } )*) => {
        $(
            #[derive(Debug, Clone)]
            pub struct $type { $( #[doc = $about] pub $key: $kind, )* }
        )*

        /// The resolved configuration.
        #[derive(Debug, Clone)]
        pub struct Config { $( pub $field: $type, )* }

        pub static KEYS: &[Key] = &[ $( $( Key {
            section: $section,
            name: stringify!($key),
            kind: <$kind as Value>::KIND,
            default: $default,
            flag: $flag,
            about: $about,
            check: check::<$kind>,
        }, )* )* ];

        impl Config {
            /// Reads what was resolved; every text has been checked before.
            pub(super) fn read(settings: &Settings) -> Result<Self, ConfigError> {
                Ok(Self { $( $field: $type { $( $key: settings.get($section, stringify!($key))?, )* }, )* })
            }
        }
    };
}

keys! {
    [""] place: Place {
        data_dir: PathBuf = Is("gavel-data"), Some("data-dir"),
            "Where the database and the cache are kept. Relative paths start at the working directory.";
        languages_dir: Option<PathBuf> = Is(""), Some("languages-dir"),
            "Folders here add languages to the built-in ones, or replace those of the same name.";
    }

    ["server"] server: Server {
        bind: SocketAddr = Is("127.0.0.1:2358"), Some("bind"),
            "Address and port of the HTTP API; port 0 takes a free one. Without tokens (`gavel token create`) it must be a loopback address.";
        max_body: Bytes = Is("32m"), None,
            "Largest request body.";
        max_waiters: NonZeroUsize = Is("10000"), None,
            "Jobs that requests may wait for at once.";
        max_watchers: NonZeroUsize = Is("1000"), None,
            "Event streams that may be open at once.";
        wait_timeout: Duration = Is("30s"), None,
            "How long `?wait=true` waits when the request does not say.";
        max_wait_timeout: Duration = Is("300s"), None,
            "The longest wait that a request may ask for.";
        max_connections: NonZeroUsize = Is("4096"), None,
            "Open connections; further ones wait to be accepted.";
        cors_origins: Vec<String> = Is(""), None,
            "Origins whose web pages may use the API, as in [\"https://example.org\"]; [\"*\"] is all of them, which needs tokens.";
        allowed_hosts: Vec<String> = Is(""), None,
            "Names that the header `Host` may have besides `localhost`, 127.0.0.0/8 and `[::1]`, as in [\"judge.example.org\"].";
        tls_cert: Option<PathBuf> = Is(""), None,
            "Certificate chain in PEM; with it and `tls_key` the server speaks HTTPS. Both files are read again when they change, and on SIGHUP.";
        tls_key: Option<PathBuf> = Is(""), None,
            "Private key of the certificate in PEM.";
    }

    ["auth"] auth: Auth {
        required: TokensRequired = Is("auto"), None,
            "Whether the API asks for tokens: once there ever was one (auto), always (true), never (false; on loopback addresses only).";
        tokens: Secrets = Is(""), None,
            "Tokens besides those of `gavel token`, for the scopes submit and read; at least 16 characters each. All share the owner `config`.";
        admin_tokens: Secrets = Is(""), None,
            "The same for the scope admin.";
        metrics: MetricsAccess = Is("admin"), None,
            "Who may read /metrics where tokens are asked for: whoever has the scope admin, or everybody (open).";
    }

    ["store"] store: Store {
        url: Url = From("`gavel.db` in `data_dir`", |s| format!("sqlite:{}/gavel.db", s.text("data_dir"))), None,
            "The database that keeps the jobs.";
        replica_urls: Vec<String> = Is(""), None,
            "Read replicas of the database. SQLite has none.";
        retention: Duration = Is("30d"), None,
            "Ended jobs are erased after this time.";
    }

    ["queue"] queue: Queue {
        max_depth: NonZeroU64 = Is("100000"), None,
            "Pending jobs that are accepted before new ones are refused with 503.";
    }

    ["nats"] nats: Nats {
        url: Option<Url> = Is(""), None,
            "A NATS server that distributes work between nodes.";
    }

    ["workers"] workers: Workers {
        max_workers: NonZeroU32 = From("the number of CPU cores", |_| cores()), Some("max-workers"),
            "Jobs that run at once.";
        min_workers: NonZeroU32 = From("`max_workers`", |s| s.text("workers.max_workers")), Some("min-workers"),
            "Workers that are kept when there is nothing to do.";
        idle_timeout: Duration = Is("60s"), None,
            "Workers beyond `min_workers` give back their sandbox after this time without work; containers that nobody needed for so long are removed.";
        worker_timeout: Duration = Is("300s"), None,
            "A job whose worker has not been heard of for this long is given to another.";
        cleanup_interval: Duration = Is("60s"), None,
            "How often lost jobs, old jobs and leftovers are looked for.";
        max_attempts: NonZeroU32 = Is("3"), None,
            "Attempts at a job that fails by Gavel's own fault.";
        drain_timeout: Duration = Is("30s"), None,
            "How long a stopping server lets running jobs finish before it gives them back.";
    }

    ["sandbox"] sandbox: Sandbox {
        backend: BackendChoice = Is("auto"), Some("backend"),
            "What isolates the jobs.";
        allow_weak_isolation: bool = Is("false"), Some("allow-weak-isolation"),
            "Start even where the kernel offers no cgroup to limit memory and processes with.";
        allow_network: bool = Is("false"), None,
            "Let jobs reach the network when they ask for it.";
        container_memory_limit: Bytes = Is("512m"), None,
            "The most memory that a job may ask for on the docker backend; compilers have limits of their own.";
        container_cpu_limit: Cpus = Is("1"), None,
            "CPUs of a container of the docker backend.";
        docker_cli: String = Is("docker"), None,
            "Command line of the docker backend: docker or podman, by its name or its path.";
        docker_runtime: Option<String> = Is(""), None,
            "OCI runtime of the containers, as in \"runsc\". Left out: the daemon's own.";
        pool_policy: PoolPolicy = Is("fresh"), None,
            "What becomes of a container after a command: it is removed (fresh), or cleaned and used again (reuse).";
        pool_min: u32 = Is("0"), None,
            "Containers that are kept ready for each kind that a language needs, from the start on. Others are kept ready as they are needed.";
        pool_max: NonZeroU32 = From("four times `workers.max_workers`", four_times_the_workers), None,
            "Containers of all kinds together.";
        pool_memory: Option<Bytes> = Is(""), None,
            "Memory of all containers together, by their limits. Left out: three quarters of what the daemon has.";
        reuse_jobs: NonZeroU32 = Is("2000"), None,
            "Commands after which a used container is removed.";
        reuse_time: Duration = Is("600s"), None,
            "Age at which a used container is removed.";
        uid_base: NonZeroU32 = Core(|| gavel_sandbox::native::UID_BASE.to_string()), None,
            "First of the 524,288 user ids of the host that sandboxes run under; nobody else may use them.";
    }

    ["limits"] limits: LimitRules {
        max_source: Bytes = Core(|| bytes(Rules::default().max_source)), None,
            "Largest source code.";
        max_stdin: Bytes = Core(|| bytes(Rules::default().max_stdin)), None,
            "Largest standard input.";
        max_files: usize = Core(|| Rules::default().max_files.to_string()), None,
            "Files that a job may bring along.";
        max_files_total: Bytes = Core(|| bytes(Rules::default().max_files_total)), None,
            "Size of all these files together.";
        max_runs: NonZeroU32 = Core(|| Rules::default().max_runs.to_string()), None,
            "How often a job may ask to be run.";
        max_collect: usize = Core(|| Rules::default().max_collect.to_string()), None,
            "Patterns of files that a job may ask back.";
        interactive_idle: Duration = Is("60s"), None,
            "An interactive job is ended when it has neither read nor written anything for this time.";
    }

    ["limits.default"] limits_default: DefaultLimits {
        cpu_time_ms: NonZeroU64 = Core(|| millis(Limits::standard().cpu_time)), None,
            "CPU time of a job, where neither the job nor its language says.";
        wall_time_ms: Option<NonZeroU64> = Is(""), None,
            "Time from start to end. Left out: three times the CPU time, and at least 3 s more than it.";
        memory_kb: NonZeroU64 = Core(|| kib(Limits::standard().memory)), None,
            "Memory of all processes of a job together.";
        stack_kb: NonZeroU64 = Core(|| kib(Limits::standard().stack)), None,
            "Stack.";
        processes: NonZeroU32 = Core(|| Limits::standard().processes.to_string()), None,
            "Processes and threads at once.";
        output_kb: u64 = Core(|| kib(Limits::standard().output)), None,
            "Bytes of stdout, and as many of stderr.";
        file_size_kb: u64 = Core(|| kib(Limits::standard().file_size)), None,
            "Size of one written file.";
    }

    ["limits.cap"] limits_cap: CapLimits {
        cpu_time_ms: NonZeroU64 = Core(|| millis(Limits::standard_cap().cpu_time)), None,
            "The most CPU time that a job may ask for.";
        wall_time_ms: NonZeroU64 = Core(|| millis(Limits::standard_cap().wall_time)), None,
            "The longest time from start to end.";
        memory_kb: NonZeroU64 = Core(|| kib(Limits::standard_cap().memory)), None,
            "The most memory.";
        stack_kb: NonZeroU64 = Core(|| kib(Limits::standard_cap().stack)), None,
            "The largest stack.";
        processes: NonZeroU32 = Core(|| Limits::standard_cap().processes.to_string()), None,
            "The most processes and threads.";
        output_kb: u64 = Core(|| kib(Limits::standard_cap().output)), None,
            "The most output.";
        file_size_kb: u64 = Core(|| kib(Limits::standard_cap().file_size)), None,
            "The largest file.";
    }

    ["callbacks"] callbacks: Callbacks {
        enabled: bool = Is("false"), None,
            "Let jobs name a URL that is called when they have ended.";
        secrets: Vec<Secret> = Is(""), None,
            "Keys that callbacks are signed with: `whsec_` and base64 of 24 to 64 bytes. Each signs, so that one can be replaced by another.";
        allowed_ports: Vec<u16> = Is("80,443"), None,
            "Ports that may be called.";
        allow_networks: Vec<IpNet> = Is(""), None,
            "Networks that may be called although they are not public, as in [\"10.0.0.0/8\"]. All others that are not are refused, whatever name leads there.";
        timeout: Duration = Is("5s"), None,
            "Time for one call, from the name to the answer.";
        max_attempts: NonZeroU32 = Core(|| CallbackOptions::default().max_attempts.to_string()), None,
            "Calls after which a receiver is given up that does not answer with 2xx.";
        backoff: Duration = Is("1s"), None,
            "Longest pause before the second call; doubled before each further one. The pause is a random part of it.";
        max_backoff: Duration = Is("600s"), None,
            "The longest pause of all.";
        concurrency: NonZeroUsize = Core(|| CallbackOptions::default().concurrency.to_string()), None,
            "Calls at once.";
        per_host: NonZeroUsize = Core(|| CallbackOptions::default().per_host.to_string()), None,
            "Calls at once to the same host and port.";
    }

    ["cache"] cache: Cache {
        dir: PathBuf = From("`cache` in `data_dir`", |s| format!("{}/cache", s.text("data_dir"))), None,
            "Where compiled programs are kept.";
        max_size: Bytes = Is("2g"), None,
            "Size of that directory; what was not used for longest goes first.";
    }

    ["judge0"] judge0: Judge0 {
        enabled: bool = Is("true"), None,
            "Serve the API of Judge0 beside the native one.";
        version: Judge0Version = Is("1.13.1"), None,
            "What `/about` names: clients choose their language ids by it.";
        maintenance_message: Option<String> = Is(""), None,
            "Told to whoever submits, as long as it is set; nothing is taken then.";
        wait: bool = Is("true"), None,
            "Let requests wait for their result with `wait=true`.";
        compiler_options: bool = Is("true"), None,
            "Take compiler options.";
        compiler_options_languages: Vec<String> = Is(""), None,
            "Languages with compiler options, by the beginning of their name, as in [\"C++\", \"Java\"]. Left out: all that are compiled.";
        command_line_arguments: bool = Is("true"), None,
            "Take command line arguments.";
        delete: bool = Is("false"), None,
            "Let submissions be deleted.";
        batches: bool = Is("true"), None,
            "Take several submissions in one request.";
        max_batch: NonZeroUsize = Is("20"), None,
            "Submissions of one batch.";
        callbacks: bool = Is("true"), None,
            "Take callbacks.";
        additional_files: bool = Is("true"), None,
            "Take archives of additional files.";
        max_extract_size: Bytes = Is("10240k"), None,
            "Size of all unpacked additional files of a submission.";
        cpu_time_limit: Duration = Is("5s"), None,
            "CPU time, where a submission names none. None of these limits is above `limits.cap`.";
        max_cpu_time_limit: Duration = Is("15s"), None,
            "The most CPU time that a submission may name.";
        cpu_extra_time: Duration = Is("1s"), None,
            "Shown to clients, and without effect: a program is stopped when its CPU time is used up.";
        max_cpu_extra_time: Duration = Is("5s"), None,
            "The most that a submission may name.";
        wall_time_limit: Duration = Is("10s"), None,
            "Time from start to end, where a submission names none.";
        max_wall_time_limit: Duration = Is("20s"), None,
            "The longest that a submission may name.";
        memory_limit: Bytes = Is("128000k"), None,
            "Memory of all processes together, where a submission names none.";
        max_memory_limit: Bytes = Is("512000k"), None,
            "The most that a submission may name.";
        stack_limit: Bytes = Is("64000k"), None,
            "Stack, where a submission names none.";
        max_stack_limit: Bytes = Is("128000k"), None,
            "The largest that a submission may name.";
        processes: NonZeroU32 = Is("60"), None,
            "Processes and threads at once, where a submission names no number.";
        max_processes: NonZeroU32 = Is("120"), None,
            "The most that a submission may name.";
        file_size: Bytes = Is("1024k"), None,
            "Size of one written file, and of each output stream, where a submission names none.";
        max_file_size: Bytes = Is("4096k"), None,
            "The largest that a submission may name.";
        runs: NonZeroU32 = Is("1"), None,
            "How often a program is run, where a submission does not say.";
        max_runs: NonZeroU32 = Is("20"), None,
            "How often a submission may ask to be run. Never above `limits.max_runs`.";
        signals_as_exit_codes: bool = Is("false"), None,
            "Show a program that a signal ended as Judge0 does in fact: as one that exited with 128 and the signal's number. Left off: as Judge0 documents it.";
    }

    ["telemetry"] telemetry: Telemetry {
        log: String = Is("info"), Some("log"),
            "What is logged: error, warn, info, debug, trace, or directives as in \"info,gavel_judge=debug\".";
        format: LogFormat = Is("auto"), None,
            "How: text with colours on a terminal, JSON elsewhere (auto), or always one of them.";
    }
}

fn cores() -> String {
    std::thread::available_parallelism().map_or(1, usize::from).to_string()
}

fn four_times_the_workers(settings: &Settings) -> String {
    // A text that is no number is refused where it stands.
    let workers: u32 = settings.text("workers.max_workers").parse().unwrap_or(1);
    workers.saturating_mul(4).clamp(1, gavel_sandbox::docker::MAX_CONTAINERS).to_string()
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

fn kib(size: Bytes) -> String {
    size.as_kib().to_string()
}

fn bytes(size: Bytes) -> String {
    match size.0 {
        n if n > 0 && n.is_multiple_of(1 << 30) => format!("{}g", n >> 30),
        n if n > 0 && n.is_multiple_of(1 << 20) => format!("{}m", n >> 20),
        n if n > 0 && n.is_multiple_of(1 << 10) => format!("{}k", n >> 10),
        n => n.to_string(),
    }
}

impl DefaultLimits {
    pub fn limits(&self) -> Limits {
        let cpu_time = Duration::from_millis(self.cpu_time_ms.get());
        Limits {
            cpu_time,
            wall_time: self.wall_time_ms.map_or(Limits::wall_for(cpu_time), |ms| Duration::from_millis(ms.get())),
            memory: Bytes::kib(self.memory_kb.get()),
            stack: Bytes::kib(self.stack_kb.get()),
            processes: self.processes.get(),
            output: Bytes::kib(self.output_kb),
            file_size: Bytes::kib(self.file_size_kb),
        }
    }
}

impl CapLimits {
    pub fn limits(&self) -> Limits {
        Limits {
            cpu_time: Duration::from_millis(self.cpu_time_ms.get()),
            wall_time: Duration::from_millis(self.wall_time_ms.get()),
            memory: Bytes::kib(self.memory_kb.get()),
            stack: Bytes::kib(self.stack_kb.get()),
            processes: self.processes.get(),
            output: Bytes::kib(self.output_kb),
            file_size: Bytes::kib(self.file_size_kb),
        }
    }
}

impl Config {
    /// What this server accepts, whatever the language.
    pub fn rules(&self) -> Rules {
        Rules {
            max_source: self.limits.max_source,
            max_stdin: self.limits.max_stdin,
            max_files: self.limits.max_files,
            max_files_total: self.limits.max_files_total,
            max_runs: self.limits.max_runs.get(),
            max_collect: self.limits.max_collect,
            allow_network: self.sandbox.allow_network,
            callbacks: self.callbacks.enabled.then(|| self.callback_rules()),
        }
    }

    pub fn callback_rules(&self) -> CallbackRules {
        CallbackRules { ports: self.callbacks.allowed_ports.clone(), networks: self.callbacks.allow_networks.clone() }
    }
}
