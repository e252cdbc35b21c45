//! `gavel languages`: which languages there are, and whether they work here.

use crate::catalogue;
use crate::cli::Languages;
use crate::config::Config;
use crate::exit::{ExitCode, coded};
use crate::ui::{self, Paint, say_line};
use crate::{versions, wiring};
use anyhow::{Context, Result};
use gavel_core::{Bytes, Catalogue, Draft, Language, Verdict};
use gavel_judge::{Cache, Judged};
use gavel_sandbox::{Backend, Cancel, Sandbox};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::stdout;
use std::sync::Arc;

pub fn run(command: &Languages, config: &Config, json: bool) -> Result<ExitCode> {
    let catalogue = wiring::catalogue(config)?;
    match command {
        Languages::List => list(&catalogue, config, json),
        Languages::Check { ids } => check(&catalogue, ids, config, json),
    }
}

fn list(catalogue: &Catalogue, config: &Config, json: bool) -> Result<ExitCode> {
    let backend = wiring::backend(config, None)?;
    let installed: Vec<_> =
        catalogue.iter().filter(|language| catalogue::missing(language).is_none()).cloned().collect();
    let mut versions = BTreeMap::new();
    versions::probe(&*backend, super::run::slot(), &installed, &Cancel::new()?, &mut |language, found| {
        versions.insert(language.id.clone(), found);
    });
    let version = |id: &str| versions.get(id).and_then(|found| found.clone().ok());
    let problem = |language: &Language| match versions.get(&language.id) {
        Some(Err(reason)) => Some(reason.clone()),
        _ => catalogue::missing(language),
    };
    if json {
        let entries: Vec<_> = catalogue
            .iter()
            .map(|language| {
                json!({
                    "id": language.id, "name": language.name, "extensions": language.extensions,
                    "version": version(&language.id), "backend": backend.name(), "unavailable": problem(language),
                })
            })
            .collect();
        say_line!("{:#}", serde_json::Value::Array(entries));
        return Ok(ExitCode::Success);
    }
    let rows: Vec<Vec<String>> = catalogue
        .iter()
        .map(|language| {
            let state = problem(language).unwrap_or_else(|| version(&language.id).unwrap_or("installed".to_owned()));
            vec![language.id.clone(), language.name.clone(), language.extensions.join(" "), state]
        })
        .collect();
    ui::say(ui::table(&["id", "name", "extensions", "version"], &rows, false));
    Ok(ExitCode::Success)
}

fn check(catalogue: &Catalogue, ids: &[String], config: &Config, json: bool) -> Result<ExitCode> {
    let wanted: Vec<Arc<Language>> = match ids.is_empty() {
        true => catalogue.iter().filter(|language| catalogue::missing(language).is_none()).cloned().collect(),
        false => ids.iter().map(|id| named(catalogue, id)).collect::<Result<_>>()?,
    };
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let cache = Cache::open(dir.path(), Bytes::mib(2048).0).context("cannot keep what compilers make")?;
    let backend = wiring::backend(config, Some(cache.directory()))?;
    let mut results = Vec::new();
    for language in &wanted {
        let result = check_one(language, catalogue, config, &*backend, &cache);
        if !json {
            let paint = Paint::for_stream(&stdout());
            match &result {
                Ok(time) => say_line!("{}  {} ({time})", paint.green("ok  "), language.id),
                Err(reason) => say_line!("{}  {}: {reason}", paint.red("FAIL"), language.id),
            }
        }
        results.push((language.id.clone(), result));
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    if json {
        let entry =
            |(id, result): &(String, Result<String, String>)| json!({ "id": id, "problem": result.as_ref().err() });
        say_line!("{:#}", json!({ "checked": results.iter().map(entry).collect::<Vec<_>>(), "failed": failed }));
    } else {
        say_line!("{} of {} languages work", results.len() - failed, results.len());
    }
    Ok(if failed == 0 { ExitCode::Success } else { ExitCode::Failure })
}

fn named(catalogue: &Catalogue, id: &str) -> Result<Arc<Language>> {
    let hint = || format!("there is no language {id}: `gavel languages list` shows them");
    catalogue.get(id).cloned().ok_or_else(|| coded(ExitCode::Usage, hint()))
}

/// Runs the sample as any job; the time it took, or why it does not work.
fn check_one(
    language: &Language,
    catalogue: &Catalogue,
    config: &Config,
    backend: &dyn Backend,
    cache: &Cache,
) -> Result<String, String> {
    if let Some(reason) = catalogue::missing(language) {
        return Err(reason);
    }
    let sample = language.sample.as_ref().ok_or("it has no sample")?;
    let draft = Draft {
        language: language.id.clone(),
        source: sample.source.clone(),
        stdin: sample.stdin.clone(),
        expected_output: Some(sample.expected.clone()),
        ..Draft::default()
    };
    let job = gavel_core::validate::validate(draft, catalogue, &config.rules()).map_err(|rejection| {
        rejection.problems.iter().map(|p| format!("{} {}", p.field, p.message)).collect::<String>()
    })?;
    let fault = |fault: gavel_sandbox::Fault| fault.to_string();
    let mut sandbox: Box<dyn Sandbox> = backend.open(super::run::slot()).map_err(fault)?;
    let cancel = Cancel::new().map_err(|error| error.to_string())?;
    let judged = gavel_judge::judge(&mut *sandbox, language, &job, cache, &cancel, &mut |_, _| ()).map_err(fault)?;
    let Judged::Outcome(outcome) = judged else { return Err("it was interrupted".to_owned()) };
    if outcome.verdict != Verdict::Accepted {
        let output = [&outcome.compile_output[..], &outcome.stderr].concat();
        let output: String = String::from_utf8_lossy(&output).chars().take(500).collect();
        return Err(format!("{}: {} {}", outcome.verdict, outcome.reason, output.trim()));
    }
    let time = (outcome.compile_time + outcome.cpu).as_secs_f64();
    Ok(ui::time(time))
}
