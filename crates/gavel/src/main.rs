//! The `gavel` program: the one crate that sees everything.
//!
//! `cli` is what was typed, `config` and `catalogue` are what is read, `commands` is what is done,
//! `wiring` is where the parts meet, `exit` is what the shell is told.

mod catalogue;
mod cli;
mod commands;
mod config;
mod data_dir;
mod exit;
mod logging;
mod rootfs;
mod ui;
mod versions;
mod wiring;

use anyhow::Result;
use cli::{Cli, Command};
use config::{Config, Settings, Sources};
use exit::{ExitCode, coded};
use ui::say_line;

fn main() -> std::process::ExitCode {
    match cli::parse().and_then(|(cli, sources)| dispatch(cli, &sources)) {
        Ok(code) => code.into(),
        Err(error) => {
            let paint = ui::Paint::for_stream(&std::io::stderr());
            eprintln!("{} {error:#}", paint.red("gavel:"));
            exit::code_of(&error).into()
        }
    }
}

fn dispatch(cli: Cli, sources: &Sources) -> Result<ExitCode> {
    let json = cli.common.json;
    if let Some(Command::Config(command)) = &cli.command
        && command.markdown
    {
        ui::say(config::show::as_markdown());
        return Ok(ExitCode::Success);
    }
    let (config, settings) = resolve(sources)?;
    match cli.command.unwrap_or(Command::Serve(cli::Serve::default())) {
        Command::Serve(command) => commands::serve::run(&command, config, json),
        Command::Run(command) => commands::run::run(&command, &config, json),
        Command::Languages(command) => commands::languages::run(&command, &config, json),
        Command::Doctor => commands::doctor::run(&config, json),
        Command::Config(_) => show(&settings, json),
        Command::Bench(command) => commands::bench::run(&command, &config, &settings, json),
        Command::Token(command) => commands::token::run(&command, &config, json),
        Command::Migrate => commands::migrate::run(&config, json),
    }
}

fn resolve(sources: &Sources) -> Result<(Config, Settings)> {
    config::resolve(sources).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        coded(ExitCode::Config, format!("the configuration is wrong:\n  {}", lines.join("\n  ")))
    })
}

fn show(settings: &Settings, json: bool) -> Result<ExitCode> {
    match json {
        true => say_line!("{:#}", config::show::as_json(settings)),
        false => ui::say(config::show::as_toml(settings, ui::Paint::for_stream(&std::io::stdout()))),
    }
    Ok(ExitCode::Success)
}
