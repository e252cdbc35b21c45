//! Log lines on stderr: text for people, JSON for collectors.

use crate::config::Config;
use crate::config::value::LogFormat;
use crate::exit::{ExitCode, coded};
use crate::ui::Paint;
use anyhow::Result;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

pub fn start(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.telemetry.log).map_err(|error| {
        let example = "use error, warn, info, debug, trace, or \"info,gavel_judge=debug\"";
        coded(ExitCode::Config, format!("telemetry.log = {:?}: {error}; {example}", config.telemetry.log))
    })?;
    let json = match config.telemetry.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match json {
        true => builder.json().flatten_event(true).init(),
        false => builder.with_ansi(Paint::for_stream(&stderr()).is_on()).init(),
    }
    Ok(())
}
