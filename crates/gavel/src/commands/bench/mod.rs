//! `gavel bench`: a server under load, and in the same run the machine's own limit, so that a result
//! is a ratio and not a number that only holds on one machine.

mod bare;
mod client;
mod load;
mod own;

use crate::catalogue::{self, Bounds};
use crate::cli::Bench;
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

/// One job at a time, this often, when latency on an idle machine is measured.
const IDLE_PACE: Duration = Duration::from_millis(100);

/// What was measured for one program at one concurrency.
struct Row {
    program: String,
    concurrency: usize,
    limit: Measured,
    gavel: Measured,
}

pub fn run(command: &Bench, config: &Config, settings: &Settings, json: bool) -> Result<ExitCode> {
    check(command)?;
    let catalogue = catalogue::load(config.place.languages_dir.as_deref(), &Bounds::of(config))
        .map_err(|message| coded(ExitCode::Config, message))?;
    let own = match &command.url {
        Some(_) => None,
        None => Some(own::OwnServer::start(settings)?),
    };
    let url = own.as_ref().map(|server| &server.url).or(command.url.as_ref()).context("there is no server")?;
    let host = host_of(url)?;
    let mut rows = Vec::new();
    for id in &command.programs {
        let language = pick(&catalogue, id)?;
        let concurrency = if command.idle { &vec![1] } else { &command.concurrency };
        for &concurrency in concurrency {
            rows.push(measure(command, language, &host, concurrency)?);
        }
    }
    match json {
        true => say_line!("{:#}", as_json(command, &rows)),
        false => ui::say(as_table(command, &rows)),
    }
    Ok(ExitCode::Success)
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

/// Warms up, then lets the bare machine and the server take turns, so that both see the same weather.
fn measure(command: &Bench, language: &Language, host: &str, concurrency: usize) -> Result<Row> {
    let sample = language.sample.as_ref().with_context(|| format!("{} has no sample to run", language.id))?;
    let program = Program::build(language, sample)?;
    let body = json!({
        "language": language.id,
        "source_code": String::from_utf8_lossy(&sample.source),
        "stdin": String::from_utf8_lossy(&sample.stdin),
        "expected_output": String::from_utf8_lossy(&sample.expected),
    });
    let request = Request::post_json(host, "/api/v1/jobs?wait=true", &body);
    let load =
        |seconds| Load { concurrency, time: Duration::from_secs_f64(seconds), pace: command.idle.then_some(IDLE_PACE) };
    let over_http = |seconds| {
        closed_loop(load(seconds), || {
            let mut client = Client::connect(host)?;
            let request = &request;
            Ok(move || one_job(&mut client, request))
        })
    };
    let by_hand = |seconds| closed_loop(load(seconds), || Ok(|| program.run()));
    over_http(command.warm_up)?;
    let mut row = Row { program: language.id.clone(), concurrency, limit: Measured::new(), gavel: Measured::new() };
    for _ in 0..command.rounds {
        row.limit.add(by_hand(command.seconds)?)?;
        row.gavel.add(over_http(command.seconds)?)?;
    }
    Ok(row)
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
    let time = |m: &Measured, q| ui::time(m.quantile(q));
    let cells = |row: &Row| {
        let (limit, gavel) = (&row.limit, &row.gavel);
        // At a fixed pace the rates are equal by construction: the ratio is that of the latencies.
        let ratio = match command.idle {
            true => format!("{:.1} x", gavel.quantile(0.5) / limit.quantile(0.5)),
            false => format!("{:.2}", gavel.rate() / limit.rate()),
        };
        vec![
            row.program.clone(),
            row.concurrency.to_string(),
            format!("{:.0}", limit.rate()),
            time(limit, 0.5),
            format!("{:.0}", gavel.rate()),
            time(gavel, 0.5),
            time(gavel, 0.95),
            time(gavel, 0.99),
            ui::time(gavel.max()),
            ratio,
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let header = ["program", "clients", "bare/s", "bare p50", "jobs/s", "p50", "p95", "p99", "max", "ratio"];
    let note = match command.idle {
        true => "One job every 100 ms. bare: fork, exec and wait of the same program. ratio: p50 / bare p50.",
        false => "bare: fork, exec and wait of the same program, without isolation. ratio: jobs/s / bare/s.",
    };
    format!("{}\n{note}\n", ui::table(&header, &rows, true))
}

fn as_json(command: &Bench, rows: &[Row]) -> serde_json::Value {
    let measured = |m: &Measured| {
        json!({
            "rate": m.rate(), "rates": m.rates, "count": m.latency.len(),
            "p50_ms": m.quantile(0.5) * 1e3, "p95_ms": m.quantile(0.95) * 1e3, "p99_ms": m.quantile(0.99) * 1e3,
            "max_ms": m.max() * 1e3,
        })
    };
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "program": row.program, "concurrency": row.concurrency,
                "limit": measured(&row.limit), "gavel": measured(&row.gavel),
                "ratio": row.gavel.rate() / row.limit.rate(),
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "mode": if command.idle { "idle" } else { "closed_loop" },
        "rounds": command.rounds, "seconds": command.seconds,
        "results": rows,
    })
}
