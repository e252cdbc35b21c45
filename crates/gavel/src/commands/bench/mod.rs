//! `gavel bench`: a server under load, and in the same run the machine's own limit, so that a result
//! is a ratio and not a number that only holds on one machine.

mod bare;
mod client;
mod docker_run;
mod live;
mod load;
mod own;

use crate::catalogue::{self, Bounds};
use crate::cli::{Baseline, Bench, BenchBackend};
use crate::config::{Config, Settings};
use crate::exit::{ExitCode, coded};
use crate::ui::{self, say_line};
use anyhow::{Context, Result, bail};
use bare::Program;
use client::{Client, Request};
use gavel_core::{Catalogue, Language};
use load::{Load, Measured, closed_loop};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// What was measured for one program at one concurrency, everything in turns.
struct Row {
    program: String,
    concurrency: usize,
    measured: Vec<(String, Measured)>,
}

impl Row {
    fn of(&self, name: &str) -> Option<&Measured> {
        self.measured.iter().find(|(known, _)| known == name).map(|(_, measured)| measured)
    }
}

const BARE: &str = "bare";
const DOCKER_RUN: &str = "docker run";

/// A server under test.
struct Server {
    name: String,
    host: String,
    /// Where it is the bench's own, it ends with this.
    _own: Option<own::OwnServer>,
}

pub fn run(command: &Bench, config: &Config, settings: &Settings, json: bool) -> Result<ExitCode> {
    check(command)?;
    let catalogue = catalogue::load(config.place.languages_dir.as_deref(), &Bounds::of(config))
        .map_err(|message| coded(ExitCode::Config, message))?;
    let servers = servers(command, settings)?;
    if command.live {
        let delays = live::run(&servers, command.rounds, command.seconds)?;
        match json {
            true => say_line!("{:#}", live::as_json(&delays)),
            false => ui::say(live::as_table(&delays)),
        }
        return Ok(ExitCode::Success);
    }
    let mut rows = Vec::new();
    for id in &command.programs {
        let language = pick(&catalogue, id)?;
        let concurrency = if command.idle.is_some() { &vec![1] } else { &command.concurrency };
        for &concurrency in concurrency {
            rows.push(measure(command, config, language, &servers, concurrency)?);
        }
    }
    match json {
        true => say_line!("{:#}", as_json(command, &rows)),
        false => ui::say(as_table(command, &rows)),
    }
    Ok(ExitCode::Success)
}

fn servers(command: &Bench, settings: &Settings) -> Result<Vec<Server>> {
    if let Some(url) = &command.url {
        return Ok(vec![Server { name: "gavel".to_owned(), host: host_of(url)?, _own: None }]);
    }
    let start = |name: &str, more: &[&str]| -> Result<Server> {
        let own = own::OwnServer::start(settings, more)?;
        Ok(Server { name: name.to_owned(), host: host_of(&own.url)?, _own: Some(own) })
    };
    if command.backends.is_empty() {
        return Ok(vec![start("gavel", &[])?]);
    }
    let started = command.backends.iter().map(|backend| match backend {
        BenchBackend::Native => start("native", &["sandbox.backend=native"]),
        BenchBackend::DockerFresh => start("docker fresh", &["sandbox.backend=docker", "sandbox.pool_policy=fresh"]),
        BenchBackend::DockerReuse => start("docker reuse", &["sandbox.backend=docker", "sandbox.pool_policy=reuse"]),
    });
    started.collect()
}

fn check(command: &Bench) -> Result<()> {
    let wrong = |message: &str| Err(coded(ExitCode::Usage, message));
    let seconds = |n: f64| n.is_finite() && (0.0..=86400.0).contains(&n);
    if command.rounds == 0 || command.concurrency.iter().any(|&n| n == 0 || n > 4096) {
        return wrong("--rounds must be at least 1, and --concurrency between 1 and 4096");
    }
    if !seconds(command.seconds) || !seconds(command.warm_up) || command.seconds == 0.0 {
        return wrong("--seconds must be above 0 and --warm-up at least 0, both at most a day");
    }
    Ok(())
}

/// The address in a URL of plain HTTP.
fn host_of(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} must start with http://"))?;
    let host = rest.split('/').next().unwrap_or(rest);
    Ok(if host.contains(':') { host.to_owned() } else { format!("{host}:80") })
}

fn pick<'a>(catalogue: &'a Catalogue, id: &str) -> Result<&'a Language> {
    let language = catalogue.get(id).or_else(|| catalogue.get(catalogue.similar(id)?));
    let language = language.with_context(|| format!("there is no language {id}: `gavel languages list` shows them"))?;
    match catalogue::missing(language) {
        Some(reason) => Err(coded(ExitCode::Machine, format!("{id} {reason}"))),
        None => Ok(language),
    }
}

/// Warms up, then lets everything take turns, so that all see the same weather.
fn measure(
    command: &Bench,
    config: &Config,
    language: &Language,
    servers: &[Server],
    concurrency: usize,
) -> Result<Row> {
    let sample = language.sample.as_ref().with_context(|| format!("{} has no sample to run", language.id))?;
    let program = Program::build(language, sample)?;
    let body = json!({
        "language": language.id,
        "source_code": String::from_utf8_lossy(&sample.source),
        "stdin": String::from_utf8_lossy(&sample.stdin),
        "expected_output": String::from_utf8_lossy(&sample.expected),
    });
    let pace = command.idle.map(|pause| Duration::from_millis(pause.into()));
    let load = |seconds| Load { concurrency, time: Duration::from_secs_f64(seconds), pace };
    let over_http = |server: &Server, seconds| {
        let host = &server.host;
        let request = Request::post_json(host, "/api/v1/jobs?wait=true", &body);
        closed_loop(load(seconds), || {
            let mut client = Client::connect(host)?;
            let request = &request;
            Ok(move || one_job(&mut client, request))
        })
    };
    let baseline = |baseline: Baseline| match baseline {
        Baseline::Bare => program.bare(),
        Baseline::DockerRun => docker_run::command(&config.sandbox.docker_cli, language, &program),
    };
    for &known in &command.baseline {
        program.check(&mut baseline(known))?;
    }
    for server in servers {
        over_http(server, command.warm_up)?;
    }
    let names = command.baseline.iter().map(|known| name_of(*known).to_owned());
    let names = names.chain(servers.iter().map(|server| server.name.clone()));
    let mut row = Row {
        program: language.id.clone(),
        concurrency,
        measured: names.map(|name| (name, Measured::new())).collect(),
    };
    for _ in 0..command.rounds {
        let mut all = row.measured.iter_mut().map(|(_, measured)| measured);
        for (&known, measured) in command.baseline.iter().zip(&mut all) {
            measured.add(closed_loop(load(command.seconds), || Ok(|| program.run(&mut baseline(known))))?)?;
        }
        for (server, measured) in servers.iter().zip(all) {
            measured.add(over_http(server, command.seconds)?)?;
        }
    }
    Ok(row)
}

fn name_of(baseline: Baseline) -> &'static str {
    match baseline {
        Baseline::Bare => BARE,
        Baseline::DockerRun => DOCKER_RUN,
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    status: &'a str,
    #[serde(borrow)]
    verdict: Option<&'a str>,
}

fn one_job(client: &mut Client, request: &Request) -> Result<()> {
    let (status, body) = client.send(request)?;
    let shown = || String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
    if status != 200 {
        bail!("the server answered {status}: {}", shown());
    }
    let answer: Answer = serde_json::from_slice(body).with_context(|| format!("this is no job: {}", shown()))?;
    if (answer.status, answer.verdict) != ("completed", Some("accepted")) {
        bail!("a job was not accepted: {}", shown());
    }
    Ok(())
}

fn as_table(command: &Bench, rows: &[Row]) -> String {
    let compared: Vec<&str> = command.baseline.iter().map(|known| name_of(*known)).collect();
    let cells = |row: &Row, name: &str, measured: &Measured| {
        let time = |q| ui::time(measured.quantile(q));
        let mut cells = vec![
            format!("{} x {}", row.program, row.concurrency),
            name.to_owned(),
            rate(measured.rate()),
            time(0.5),
            time(0.95),
            time(0.99),
            ui::time(measured.max()),
        ];
        cells.extend(compared.iter().map(|other| match row.of(other) {
            Some(other) => format!("{:.2}", ratio(command, measured, other)),
            None => String::new(),
        }));
        cells
    };
    let rows: Vec<_> =
        rows.iter().flat_map(|row| row.measured.iter().map(|(name, measured)| cells(row, name, measured))).collect();
    let mut header = vec!["program x clients", "what", "per second", "p50", "p95", "p99", "max"];
    let against: Vec<String> = compared.iter().map(|name| format!("/ {name}")).collect();
    header.extend(against.iter().map(String::as_str));
    let note = match command.idle {
        Some(pause) => format!("One job every {pause} ms. The last columns compare p50."),
        None => "The last columns compare the rates.".to_owned(),
    };
    format!("{}\n{note}\n", ui::table(&header, &rows, true))
}

fn rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// At a fixed pace the rates are equal by construction: the ratio is that of the latencies.
fn ratio(command: &Bench, measured: &Measured, other: &Measured) -> f64 {
    match command.idle {
        Some(_) => measured.quantile(0.5) / other.quantile(0.5),
        None => measured.rate() / other.rate(),
    }
}

fn as_json(command: &Bench, rows: &[Row]) -> serde_json::Value {
    let result = |row: &Row, name: &str, m: &Measured| {
        let ratios = command.baseline.iter().filter_map(|known| {
            let other = row.of(name_of(*known))?;
            Some((name_of(*known).to_owned(), json!(ratio(command, m, other))))
        });
        json!({
            "program": row.program, "concurrency": row.concurrency, "what": name,
            "rate": m.rate(), "rates": m.rates, "count": m.latency.len(),
            "p50_ms": m.quantile(0.5) * 1e3, "p95_ms": m.quantile(0.95) * 1e3, "p99_ms": m.quantile(0.99) * 1e3,
            "max_ms": m.max() * 1e3, "ratio_to": ratios.collect::<serde_json::Map<_, _>>(),
        })
    };
    let results: Vec<_> =
        rows.iter().flat_map(|row| row.measured.iter().map(|(name, m)| result(row, name, m))).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "mode": if command.idle.is_some() { "idle" } else { "closed_loop" },
        "rounds": command.rounds, "seconds": command.seconds,
        "results": results,
    })
}
