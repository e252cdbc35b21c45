//! The command line: what was typed. The configuration's short flags come from its table.

use crate::config::{DEFAULT_FILE, KEYS, Sources};
use crate::exit::{self, ExitCode, coded};
use anyhow::Result;
use clap::builder::ValueHint;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// An online judge and code-execution server.
#[derive(Debug, Parser)]
#[command(name = "gavel", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Args)]
pub struct Common {
    /// Configuration file [default: gavel.toml, where there is one; also GAVEL_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING, value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Sets any key of the configuration
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", help_heading = HEADING)]
    set: Vec<String>,
    /// Write JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
}

const HEADING: &str = "Configuration (`gavel config` shows all keys)";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server: HTTP API and workers in one process (also what plain `gavel` does)
    Serve(Serve),
    /// Compile and run one file in a sandbox, without a server
    #[command(after_help = exit::RUN_HELP)]
    Run(Run),
    /// Show the languages, or check that they work here
    #[command(subcommand)]
    Languages(Languages),
    /// Say what this machine can do, what it cannot, and how to change that
    Doctor,
    /// Print the resolved configuration and where each value came from
    Config(ShowConfig),
    /// Measure a server, and the machine's own limit beside it
    Bench(Bench),
    /// Make, list and revoke the tokens that clients show
    #[command(subcommand)]
    Token(Token),
    /// Bring the database up to date and exit; `serve` does it as well
    Migrate,
}

#[derive(Debug, Default, Args)]
pub struct Serve {
    /// Write the server's URL to this file once it is ready
    #[arg(long, value_name = "FILE", hide = true)]
    pub ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The program
    pub file: PathBuf,
    /// Arguments of the program, after --
    #[arg(last = true)]
    pub args: Vec<String>,
    /// Language id [default: by the file's extension]
    #[arg(long, short)]
    pub language: Option<String>,
    /// File that the program reads as its standard input; - is yours
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// Your keyboard is its standard input, while it runs
    #[arg(long, short, conflicts_with = "stdin")]
    pub interactive: bool,
    /// It has a terminal, of the size of yours, and Ctrl-C is its own
    #[arg(long, short, requires = "interactive")]
    pub tty: bool,
    /// One more argument of the program
    #[arg(long = "arg", value_name = "TEXT", allow_hyphen_values = true)]
    pub more_args: Vec<String>,
    /// A limit, named as in the API: cpu_time_ms=1000, wall_time_ms, memory_kb, stack_kb, processes, output_kb,
    /// file_size_kb
    #[arg(long = "limit", value_name = "NAME=NUMBER")]
    pub limits: Vec<String>,
    /// File with the expected output; another output is a wrong answer
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,
    /// No summary line
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Languages {
    /// List the languages, with versions, or why one is unavailable
    List,
    /// Run the samples and compare their output
    Check {
        /// Only these languages [default: all that are installed]
        ids: Vec<String>,
    },
    /// Build the Docker images of languages from their Dockerfiles
    Build(Build),
    /// Unpack the Docker image of a language, for the native backend to run its jobs on
    Export(Export),
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it, this once; a running server knows it within seconds
    Create(CreateToken),
    /// List the tokens that work
    List {
        /// Those that have expired or were revoked, too
        #[arg(long)]
        all: bool,
    },
    /// Revoke a token; a running server refuses it within seconds
    Revoke {
        /// Its name or its id
        token: String,
    },
}

#[derive(Debug, Args)]
pub struct CreateToken {
    /// Name: letters, digits, '-', '_' and '.'
    pub name: String,
    /// What it may be used for: submit, read, admin [default: submit,read]
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// Whose jobs it submits and sees; several tokens may share an owner [default: its name]
    #[arg(long)]
    pub owner: Option<String>,
    /// Time after which it works no more, as in 30d
    #[arg(long, value_name = "DURATION")]
    pub expires: Option<String>,
    /// Requests per second
    #[arg(long, value_name = "NUMBER")]
    pub rate: Option<NonZeroU32>,
    /// Requests that may come at once after a pause [default: twice the rate]
    #[arg(long, value_name = "NUMBER", requires = "rate")]
    pub burst: Option<NonZeroU32>,
    /// Jobs of the owner from midnight to midnight UTC
    #[arg(long, value_name = "NUMBER")]
    pub jobs_per_day: Option<u64>,
    /// Jobs of the owner that are pending or running at once
    #[arg(long, value_name = "NUMBER")]
    pub concurrent: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Build {
    /// Only these languages [default: all that have a Dockerfile]
    pub ids: Vec<String>,
    /// Image to build on, in place of the one that the Dockerfile names
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<String>,
    /// Push each image to this registry as well, as REGISTRY/gavel-python3:latest
    #[arg(long, value_name = "REGISTRY")]
    pub push: Option<String>,
    /// Network of the build, as in `docker build --network host`
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Install everything again, in its newest version
    #[arg(long)]
    pub no_cache: bool,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The languages
    #[arg(required = true)]
    pub ids: Vec<String>,
    /// Unpack into this directory instead of the data directory [one language]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ShowConfig {
    /// Print the documentation of all keys
    #[arg(long, hide = true)]
    pub markdown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
    Bare,
    DockerRun,
}

/// A backend, and for containers what becomes of them after a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchBackend {
    Native,
    DockerFresh,
    DockerReuse,
}

#[derive(Debug, Clone, Args)]
pub struct Bench {
    /// A running server, as in http://127.0.0.1:2358 [default: start one for this run]
    pub url: Option<String>,
    /// Programs: c, cpp, python
    #[arg(long, value_delimiter = ',', default_value = "c,cpp,python")]
    pub programs: Vec<String>,
    /// Clients that each wait for one job at a time: few show latency, many the highest rate
    #[arg(long, short, value_delimiter = ',', default_value = "2,16")]
    pub concurrency: Vec<usize>,
    /// What Gavel is compared with, in turns: bare (fork, exec and wait of the same program, isolated by
    /// nothing), docker-run (one hardened `docker run --rm` for each job, as a script would do it)
    #[arg(long, value_delimiter = ',', value_enum, default_value = "bare")]
    pub baseline: Vec<Baseline>,
    /// Servers to start and compare, in turns [default: one, as it is configured]
    #[arg(long, value_delimiter = ',', value_enum, conflicts_with = "url")]
    pub backends: Vec<BenchBackend>,
    /// Rounds; all that is compared takes turns in each
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds before the first measurement of each program
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Measure the latency of one job every so many milliseconds instead
    #[arg(long, value_name = "MILLISECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "100")]
    pub idle: Option<u32>,
    /// Measure instead how long a line of output takes to a client that follows the job, on this machine
    #[arg(long, conflicts_with = "idle")]
    pub live: bool,
}

/// What was typed: the commands, and what it says about the configuration.
pub fn parse() -> Result<(Cli, Sources)> {
    let matches = command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // Of those before the command and those behind it the parser keeps only the latter.
    let typed = typed_settings(std::env::args_os().skip(1));
    if typed.len() > cli.common.set.len() {
        cli.common.set = typed;
    }
    let sources = sources(&cli.common, &matches)?;
    Ok((cli, sources))
}

/// The value of each `--set`, wherever it stands; what follows `--` is the job's.
fn typed_settings(args: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut args = args.take_while(|arg| arg != "--").map(|arg| arg.to_string_lossy().into_owned());
    let mut settings = Vec::new();
    while let Some(arg) = args.next() {
        match arg.strip_prefix("--set=") {
            Some(setting) => settings.push(setting.to_owned()),
            None if arg == "--set" => settings.extend(args.next()),
            // Its value may look like anything.
            None if arg == "--arg" => drop(args.next()),
            None => {}
        }
    }
    settings
}

/// The derived command line and the short flags of the configuration's table.
fn command() -> clap::Command {
    let short_flags = KEYS.iter().filter_map(|key| {
        let flag = key.flag?;
        let arg = Arg::new(flag).long(flag).global(true).help(key.about.trim_end_matches('.')).help_heading(HEADING);
        Some(match key.kind {
            // A switch needs no value on the command line, and can still be turned off.
            crate::config::value::Kind::Switch => {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
            }
            _ => arg.value_name("VALUE"),
        })
    });
    Cli::command().args(short_flags)
}

fn sources(common: &Common, matches: &ArgMatches) -> Result<Sources> {
    let mut flags = Vec::new();
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        if let Some(text) = matches.get_one::<String>(flag) {
            flags.push((format!("--{flag}"), key.path(), text.clone()));
        }
    }
    for pair in &common.set {
        let Some((path, text)) = pair.split_once('=') else {
            return Err(coded(
                ExitCode::Usage,
                format!("--set {pair}: write KEY=VALUE, as in server.bind=127.0.0.1:8080"),
            ));
        };
        flags.push((format!("--set {path}"), path.to_owned(), text.to_owned()));
    }
    let mut env = Vec::new();
    for (name, text) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("GAVEL_")) else { continue };
        match text.into_string() {
            Ok(text) => env.push((name.to_owned(), text)),
            Err(_) => return Err(coded(ExitCode::Config, format!("the variable {name} is not UTF-8"))),
        }
    }
    env.sort();
    Ok(Sources { file: file(common)?, env, flags })
}

fn file(common: &Common) -> Result<Option<(PathBuf, String)>> {
    let named = common.config.clone().or_else(|| std::env::var_os("GAVEL_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => Err(coded(ExitCode::Config, format!("cannot read {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_count_on_both_sides_of_a_command() {
        let args = ["--set", "a=1", "run", "--set=b=2", "--arg", "--set", "--set", "c=3", "x.c", "--", "--set", "d=4"];
        assert_eq!(typed_settings(args.iter().map(OsString::from)), ["a=1", "b=2", "c=3"]);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_of_the_table_work_before_and_after_the_command() {
        for line in [["gavel", "--bind", "127.0.0.1:1", "serve"], ["gavel", "serve", "--bind", "127.0.0.1:1"]] {
            let matches = command().try_get_matches_from(line).unwrap();
            assert_eq!(matches.get_one::<String>("bind").unwrap(), "127.0.0.1:1");
        }
    }
}
