//! `gavel migrate`: brings the database up to date, for operators who want to do that before a start.

use crate::config::Config;
use crate::config::value::without_secrets;
use crate::exit::ExitCode;
use crate::ui::say_line;
use crate::wiring;
use anyhow::Result;

pub fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let applied = wiring::migrate(config)?;
    let database = without_secrets(&config.store.url.0);
    match (json, applied) {
        (true, _) => say_line!("{}", serde_json::json!({ "database": database, "applied": applied })),
        (false, 0) => say_line!("{database} is up to date"),
        (false, n) => say_line!("{database} is up to date: {n} changes applied"),
    }
    Ok(ExitCode::Success)
}
