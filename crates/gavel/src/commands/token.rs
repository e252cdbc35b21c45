//! `gavel token`: who may use the API. It works on the database, also beside the server that has it open.

use crate::cli::{CreateToken, Token as Command};
use crate::config::Config;
use crate::exit::{ExitCode, coded};
use crate::ui::{self, Paint, say_line};
use crate::wiring;
use anyhow::{Context, Result};
use gavel_api::{Rfc3339, auth};
use gavel_core::Timestamp;
use gavel_core::units::parse_duration;
use gavel_store::{Quota, Rate, Scope, Scopes, Token, TokenCreated};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::{Value, json};
use std::io::{stderr, stdout};
use std::num::NonZeroU32;
use std::time::SystemTime;
use uuid::Uuid;

pub fn run(command: &Command, config: &Config, json: bool) -> Result<ExitCode> {
    match command {
        Command::Create(command) => create(command, config, json),
        Command::List { all } => list(*all, config, json),
        Command::Revoke { token } => revoke(token, config, json),
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn create(command: &CreateToken, config: &Config, json: bool) -> Result<ExitCode> {
    let secret = auth::secret(random()?);
    let token = wanted(command, &secret)?;
    let mut book = wiring::token_book(config)?;
    if book.create(&token)? == TokenCreated::NameTaken {
        let message = format!("there is a token {} already: revoke it first, or choose another name", token.name);
        return Err(coded(ExitCode::Failure, message));
    }
    if json {
        let mut shown = as_json(&token);
        shown["token"] = secret.into();
        say_line!("{shown:#}");
    } else {
        // The token alone on stdout, for `TOKEN=$(gavel token create ...)`.
        let paint = Paint::for_stream(&stderr());
        eprintln!("{} {}", paint.bold(&token.name), describe(&token));
        eprintln!("{}", paint.dim("this is the only time that it is shown: the server keeps a hash of it"));
        say_line!("{secret}");
    }
    Ok(ExitCode::Success)
}

/// From the kernel, which waits until it has enough of it.
fn random() -> Result<[u8; 24]> {
    let mut bytes = [0; 24];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("the kernel gives no random bytes"),
        }
    }
    Ok(bytes)
}

fn wanted(command: &CreateToken, secret: &str) -> Result<Token> {
    let usage = |message: String| coded(ExitCode::Usage, message);
    if !is_name(&command.name) || Uuid::try_parse(&command.name).is_ok() {
        let message = "a token's name has 1 to 64 letters, digits, '-', '_' and '.', and is no id";
        return Err(usage(message.to_owned()));
    }
    let owner = command.owner.clone().unwrap_or_else(|| command.name.clone());
    if !is_name(&owner) {
        return Err(usage("--owner has 1 to 64 letters, digits, '-', '_' and '.'".to_owned()));
    }
    let mut scopes = Scopes::default();
    for scope in &command.scopes {
        scopes = scopes.with(scope.trim().parse::<Scope>().map_err(|error| usage(format!("--scope: {error}")))?);
    }
    if scopes.is_empty() {
        scopes = [Scope::Submit, Scope::Read].into_iter().collect();
    }
    let created_at = now();
    let expires_at = match &command.expires {
        None => None,
        Some(text) => match parse_duration(text) {
            Ok(time) if !time.is_zero() => Some(created_at.plus(time)),
            Ok(_) => return Err(usage("--expires: write a time above 0, as in 30d".to_owned())),
            Err(error) => return Err(usage(format!("--expires {text}: {error}"))),
        },
    };
    let rate = command.rate.map(|per_second| {
        let twice = per_second.saturating_mul(TWO);
        Rate { per_second, burst: command.burst.unwrap_or(twice) }
    });
    Ok(Token {
        id: Uuid::now_v7(),
        name: command.name.clone(),
        owner,
        hash: auth::hash(secret),
        scopes,
        rate,
        quota: Quota { jobs_per_day: command.jobs_per_day, concurrent: command.concurrent },
        created_at,
        expires_at,
        revoked_at: None,
        last_used_at: None,
    })
}

const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn list(all: bool, config: &Config, json: bool) -> Result<ExitCode> {
    let (mut tokens, now) = (wiring::token_book(config)?.list()?, now());
    let before = tokens.len();
    tokens.retain(|token| all || token.is_active(now));
    if json {
        say_line!("{:#}", json!({ "tokens": tokens.iter().map(as_json).collect::<Vec<_>>() }));
        return Ok(ExitCode::Success);
    }
    let time = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| Rfc3339(at).to_string()[..16].replace('T', " "));
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|token| {
            let rate = token.rate.map_or("-".to_owned(), |rate| format!("{}/s ({})", rate.per_second, rate.burst));
            vec![
                token.name.clone(),
                token.owner.clone(),
                token.scopes.to_string(),
                state(token, now).to_owned(),
                time(token.expires_at),
                time(token.last_used_at),
                rate,
                number(token.quota.jobs_per_day),
                number(token.quota.concurrent),
                token.id.to_string(),
            ]
        })
        .collect();
    let header =
        ["name", "owner", "scopes", "state", "expires (UTC)", "last used", "rate", "jobs/day", "concurrent", "id"];
    if !rows.is_empty() {
        ui::say(ui::table(&header, &rows, false));
    }
    let hidden = before - tokens.len();
    if hidden > 0 || rows.is_empty() {
        let paint = Paint::for_stream(&stdout());
        let hint = match (hidden, rows.is_empty()) {
            (0, _) => "no tokens: `gavel token create NAME` makes one".to_owned(),
            (hidden, _) => format!("{hidden} more have expired or were revoked: `gavel token list --all`"),
        };
        say_line!("{}", paint.dim(&hint));
    }
    Ok(ExitCode::Success)
}

fn revoke(which: &str, config: &Config, json: bool) -> Result<ExitCode> {
    let Some(token) = wiring::token_book(config)?.revoke(which, now())? else {
        let shown: String = which.chars().take(64).collect();
        let message = match which.starts_with(auth::PREFIX) {
            // It may have been pasted by mistake, and errors are kept in logs.
            true => "name a token by its name or its id, as `gavel token list` shows them".to_owned(),
            false => format!("there is no token {shown:?} that works: `gavel token list` shows them"),
        };
        return Err(coded(ExitCode::Failure, message));
    };
    match json {
        true => say_line!("{:#}", as_json(&token)),
        false => say_line!("{} is revoked ({})", token.name, token.id),
    }
    Ok(ExitCode::Success)
}

fn state(token: &Token, now: Timestamp) -> &'static str {
    match (token.revoked_at, token.has_expired(now)) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "active",
    }
}

fn describe(token: &Token) -> String {
    let mut parts = vec![format!("may {}", token.scopes.names().collect::<Vec<_>>().join(" and "))];
    parts.push(format!("jobs of {}", token.owner));
    if let Some(at) = token.expires_at {
        parts.push(format!("until {}", &Rfc3339(at).to_string()[..19]));
    }
    if let Some(rate) = token.rate {
        parts.push(format!("{} requests/s, {} at once", rate.per_second, rate.burst));
    }
    if let Some(jobs) = token.quota.jobs_per_day {
        parts.push(format!("{jobs} jobs a day"));
    }
    if let Some(jobs) = token.quota.concurrent {
        parts.push(format!("{jobs} jobs at a time"));
    }
    parts.join("; ")
}

/// Without the secret, which nobody has, and without its hash.
fn as_json(token: &Token) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| Rfc3339(at).to_string());
    json!({
        "id": token.id.to_string(),
        "name": token.name,
        "owner": token.owner,
        "scopes": token.scopes.names().collect::<Vec<_>>(),
        "state": state(token, now()),
        "rate_per_second": token.rate.map(|rate| rate.per_second.get()),
        "rate_burst": token.rate.map(|rate| rate.burst.get()),
        "jobs_per_day": token.quota.jobs_per_day,
        "concurrent": token.quota.concurrent,
        "created_at": time(Some(token.created_at)),
        "expires_at": time(token.expires_at),
        "revoked_at": time(token.revoked_at),
        "last_used_at": time(token.last_used_at),
    })
}
