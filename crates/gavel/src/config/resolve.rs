//! Default < file < environment < flag: which text holds for each key, and where it came from.

use super::file;
use super::table::{Config, Default, KEYS, Key};
use super::value::{Kind, Value, shown};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { file: PathBuf, line: usize },
    Env(String),
    Flag(String),
}

impl Origin {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File { .. } => "file",
            Self::Env(_) => "env",
            Self::Flag(_) => "flag",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{} line {line}", file.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong with the configuration: where, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    pub fn file(file: &Path, line: usize, message: impl fmt::Display) -> Self {
        Self(format!("{} line {line}: {message}", file.display()))
    }

    pub fn value(key: &str, setting: &Setting, message: impl fmt::Display) -> Self {
        let kind = KEYS.iter().find(|known| known.path() == key).map_or(Kind::Text, |known| known.kind);
        Self(format!("{key} = {:?} ({}): {message}", shown(kind, &setting.text), setting.origin))
    }

    pub fn other(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub text: String,
    pub origin: Origin,
}

/// The text of every key, with its origin.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    by_path: BTreeMap<String, Setting>,
}

impl Settings {
    /// The text of a key that stands earlier in the table than whoever asks.
    pub fn text(&self, path: &str) -> String {
        self.by_path.get(path).map(|setting| setting.text.clone()).unwrap_or_default()
    }

    pub fn setting(&self, path: &str) -> Setting {
        let unset = || Setting { text: String::new(), origin: Origin::Default };
        self.by_path.get(path).cloned().unwrap_or_else(unset)
    }

    pub fn get<T: Value>(&self, section: &str, name: &str) -> Result<T, ConfigError> {
        let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let setting = self.setting(&path);
        T::parse(&setting.text).map_err(|message| ConfigError::value(&path, &setting, message))
    }
}

/// What the user gave, before anything was resolved.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file's path and text.
    pub file: Option<(PathBuf, String)>,
    /// Variables whose name starts with `GAVEL_`.
    pub env: Vec<(String, String)>,
    /// Flags: how it was written, the key's path, the text.
    pub flags: Vec<(String, String, String)>,
}

/// Resolves all keys, or tells everything that is wrong.
pub fn resolve(sources: &Sources) -> Result<(Config, Settings), Vec<ConfigError>> {
    let mut given: BTreeMap<String, Setting> = BTreeMap::new();
    let mut errors = Vec::new();
    if let Some((path, text)) = &sources.file {
        match file::parse(path, text) {
            Ok(entries) => {
                for entry in entries {
                    let origin = entry.origin(path);
                    given.insert(entry.path, Setting { text: entry.text, origin });
                }
            }
            Err(wrong) => errors.extend(wrong),
        }
    }
    for (name, text) in &sources.env {
        match KEYS.iter().find(|key| key.variable() == *name) {
            Some(key) => {
                _ = given.insert(key.path(), Setting { text: text.clone(), origin: Origin::Env(name.clone()) })
            }
            None if not_ours(name) => {}
            None => errors.push(ConfigError::other(unknown_variable(name))),
        }
    }
    for (flag, path, text) in &sources.flags {
        match KEYS.iter().any(|key| key.path() == *path) {
            true => _ = given.insert(path.clone(), Setting { text: text.clone(), origin: Origin::Flag(flag.clone()) }),
            false => errors.push(ConfigError::other(format!("{flag}: {}", file::unknown(path)))),
        }
    }
    let settings = fill(given, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let config = Config::read(&settings).map_err(|error| vec![error])?;
    let wrong = super::rules::check(&config, &settings);
    if wrong.is_empty() { Ok((config, settings)) } else { Err(wrong) }
}

/// Adds the defaults in the order of the table, and checks every text.
fn fill(mut given: BTreeMap<String, Setting>, errors: &mut Vec<ConfigError>) -> Settings {
    let mut settings = Settings::default();
    for key in KEYS {
        let path = key.path();
        let setting = given
            .remove(&path)
            .unwrap_or_else(|| Setting { text: default_text(key, &settings), origin: Origin::Default });
        if let Err(message) = (key.check)(&setting.text) {
            errors.push(ConfigError::value(&path, &setting, message));
        }
        settings.by_path.insert(path, setting);
    }
    settings
}

fn default_text(key: &Key, settings: &Settings) -> String {
    match key.default {
        Default::Is(text) => text.to_owned(),
        Default::Core(value) => value(),
        Default::From(_, value) => value(settings),
    }
}

/// Variables that exist for other reasons: the name of the file, and those that Kubernetes makes for
/// every service, which a service called "gavel" would turn into unknown keys.
fn not_ours(name: &str) -> bool {
    let ends_as_a_port = |name: &str| {
        name.split_once("_PORT").is_some_and(|(_, rest)| {
            rest.is_empty()
                || rest.split('_').skip(1).all(|word| {
                    matches!(word, "TCP" | "UDP" | "ADDR" | "PORT" | "PROTO")
                        || word.chars().all(|c| c.is_ascii_digit())
                })
        })
    };
    name == "GAVEL_CONFIG" || name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || ends_as_a_port(name)
}

fn unknown_variable(name: &str) -> String {
    let sections = KEYS.iter().map(Key::variable).find(|known| known.ends_with(&name["GAVEL".len()..]));
    match sections {
        Some(known) => format!("there is no variable {name}: did you mean {known}?"),
        None => {
            format!("there is no variable {name}: `gavel config` prints the keys, and GAVEL_SERVER_BIND is server.bind")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
        Sources {
            file: Some((PathBuf::from("gavel.toml"), file.to_owned())),
            env: env.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect(),
            flags: flags.iter().map(|(path, text)| ("--set".to_owned(), path.to_string(), text.to_string())).collect(),
        }
    }

    fn wrong(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
        let errors = resolve(&sources(file, env, flags)).unwrap_err();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn nothing_given_gives_the_defaults() {
        let (config, settings) = resolve(&Sources::default()).unwrap();
        assert_eq!(config.server.bind.to_string(), "127.0.0.1:2358");
        assert_eq!(config.store.url.0, "sqlite:gavel-data/gavel.db");
        assert_eq!(config.limits_default.limits(), gavel_core::Limits::standard());
        assert_eq!(config.limits_cap.limits(), gavel_core::Limits::standard_cap());
        assert_eq!(settings.setting("server.bind").origin, Origin::Default);
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_beats_the_file() {
        let file = "data_dir = \"a\"\n[workers]\nmax_workers = 3\nmax_attempts = 5\n";
        let env = [("GAVEL_DATA_DIR", "b"), ("GAVEL_WORKERS_MAX_WORKERS", "4")];
        let (config, settings) = resolve(&sources(file, &env, &[("data_dir", "c")])).unwrap();
        assert_eq!(config.place.data_dir, PathBuf::from("c"));
        assert_eq!(config.workers.max_workers.get(), 4);
        assert_eq!(config.workers.max_attempts.get(), 5);
        assert_eq!(config.cache.dir, PathBuf::from("c/cache"), "what depends on a key follows it");
        let line = Origin::File { file: PathBuf::from("gavel.toml"), line: 4 };
        assert_eq!(settings.setting("workers.max_attempts").origin, line);
    }

    #[test]
    fn unknown_keys_are_named_with_their_line_and_a_hint() {
        assert_eq!(
            wrong("\n[server]\nbond = 1\n[workers]\nbind = \"x\"\n", &[], &[]),
            "gavel.toml line 3: there is no key server.bond: `gavel config` prints all of them\n\
             gavel.toml line 5: there is no key workers.bind: did you mean server.bind?"
        );
        assert!(wrong("[sever]\n", &[], &[]).contains("line 1: there is no key sever"));
        assert!(wrong("", &[("GAVEL_BIND", "x")], &[]).contains("did you mean GAVEL_SERVER_BIND?"));
        assert!(wrong("", &[], &[("bind", "x")]).contains("did you mean server.bind?"));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_origin_and_a_remedy() {
        let table = [
            ("[server]\nbind = \"here\"", "server.bind = \"here\" (gavel.toml line 2): write an IP address"),
            (
                "[workers]\nmax_workers = 0",
                "workers.max_workers = \"0\" (gavel.toml line 2): write a whole number between 1",
            ),
            ("[cache]\nmax_size = \"2x\"", "unknown unit \"x\""),
            ("[sandbox]\nbackend = \"vm\"", "use one of auto, native, docker"),
            ("[sandbox]\npool_max = 1000", "must be at most 400"),
            ("[sandbox]\npool_min = 3\npool_max = 2", "must not be above sandbox.pool_max, which is 2"),
            ("[sandbox]\npool_memory = \"128m\"", "must be at least 528,384 KiB"),
            ("[server]\nbind = {}", "line 2: server.bind cannot have this value"),
            (
                "[server]\nallowed_hosts = [\"[::1]\", \"a.example:80\"]",
                "\"a.example:80\" is no name of a host: leave out",
            ),
            ("[server]\nallowed_hosts = [\"*\"]", "\"*\" is no name of a host"),
            (
                "[server]\nbind = \"0.0.0.0:80\"\n[auth]\nrequired = false",
                "auth.required = \"false\" (gavel.toml line 4): is for",
            ),
            ("[server]\ncors_origins = [\"example.org\"]", "\"example.org\" is no origin"),
            ("[server]\ntls_cert = \"a\"", "needs server.tls_key"),
            ("[server]\ntls_key = \"a\"", "needs server.tls_cert"),
            ("[auth]\nrequired = \"maybe\"", "use one of auto, true, false"),
            ("[auth]\ntokens = [\"short-secret\"]", "auth.tokens = \"****\" (gavel.toml line 2): write tokens of 16"),
            ("[server", "gavel.toml line 1: "),
            ("[callbacks]\nenabled = true", "callbacks.secrets = \"\" (default): callbacks are signed"),
            ("[callbacks]\nallowed_ports = [0]", "write ports between 1 and 65535"),
            ("[callbacks]\nallowed_ports = []", "name at least one port"),
            (
                "[callbacks]\nallow_networks = [\"10.1.0.0/8\"]",
                "10.1.0.0/8 has bits beyond its length: write 10.0.0.0/8",
            ),
            ("[callbacks]\nallow_networks = [\"lan\"]", "\"lan\" is no network"),
            ("[callbacks]\ntimeout = \"10m\"", "must be between \"100ms\" and \"60s\""),
            ("[callbacks]\nbackoff = \"1h\"", "must not be above callbacks.max_backoff, which is 600s"),
        ];
        for (file, expected) in table {
            assert!(wrong(file, &[], &[]).contains(expected), "{file}: {}", wrong(file, &[], &[]));
        }
    }

    #[test]
    fn variables_that_kubernetes_makes_are_no_mistakes() {
        let env = [
            ("GAVEL_SERVICE_HOST", "10.0.0.1"),
            ("GAVEL_SERVICE_PORT_HTTP", "80"),
            ("GAVEL_PORT", "tcp://10.0.0.1:80"),
            ("GAVEL_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("GAVEL_CONFIG", "x"),
        ];
        assert!(resolve(&sources("", &env, &[])).is_ok());
    }
}
