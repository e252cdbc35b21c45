//! `gavel languages`: which languages there are, whether they work here, and their images.

mod build;
mod docker;
mod export;
mod unpack;

use crate::cli::Languages;
use crate::config::Config;
use crate::exit::{ExitCode, coded};
use crate::ui::{self, Paint, say_line};
use crate::versions;
use crate::wiring::{self, Isolation, Purpose};
use anyhow::{Context, Result};
use gavel_core::{Bytes, Catalogue, Draft, Language, Verdict};
use gavel_judge::{Cache, Judged};
use gavel_sandbox::{Cancel, Sandbox};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::stdout;
use std::sync::Arc;

pub fn run(command: &Languages, config: &Config, json: bool) -> Result<ExitCode> {
    let catalogue = wiring::catalogue(config)?;
    match command {
        Languages::List => list(&catalogue, config, json),
        Languages::Check { ids } => check(&catalogue, ids, config, json),
        Languages::Build(command) => build::run(command, &catalogue, config, json),
        Languages::Export(command) => export::run(command, &catalogue, config, json),
    }
}

fn list(catalogue: &Catalogue, config: &Config, json: bool) -> Result<ExitCode> {
    let isolation = wiring::isolation(config, catalogue, &Purpose::default())?;
    let available = isolation.catalogue.iter().filter(|language| isolation.is_available(language));
    let available: Vec<_> = available.cloned().collect();
    let (backend, slot) = (&*isolation.backend, crate::commands::run::slot());
    let mut versions = BTreeMap::new();
    versions::probe(backend, slot, &available, &Cancel::new()?, &mut |language, found| {
        versions.insert(language.id.clone(), found);
    });
    backend.close();
    let version = |id: &str| versions.get(id).and_then(|found| found.clone().ok());
    let problem = |language: &Language| match versions.get(&language.id) {
        Some(Err(reason)) => Some(reason.clone()),
        _ => isolation.state(language).unavailable,
    };
    if json {
        let entries: Vec<_> = catalogue
            .iter()
            .map(|language| {
                json!({
                    "id": language.id, "name": language.name, "extensions": language.extensions,
                    "version": version(&language.id), "backend": isolation.state(language).backend,
                    "image": language.image, "rootfs": language.rootfs, "unavailable": problem(language),
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
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let cache = Cache::open(dir.path(), Bytes::mib(2048).0).context("cannot keep what compilers make")?;
    let purpose = Purpose { shared_dir: Some(cache.directory()), server: false };
    let isolation = wiring::isolation(config, catalogue, &purpose)?;
    let catalogue = &isolation.catalogue;
    let wanted: Vec<Arc<Language>> = match ids.is_empty() {
        true => catalogue.iter().filter(|language| isolation.is_available(language)).cloned().collect(),
        false => ids.iter().map(|id| named(catalogue, id)).collect::<Result<_>>()?,
    };
    let mut results = Vec::new();
    for language in &wanted {
        let result = check_one(language, &isolation, config, &cache);
        if !json {
            let paint = Paint::for_stream(&stdout());
            match &result {
                Ok(time) => say_line!("{}  {} ({time})", paint.green("ok  "), language.id),
                Err(reason) => say_line!("{}  {}: {reason}", paint.red("FAIL"), language.id),
            }
        }
        results.push((language.id.clone(), result));
    }
    isolation.backend.close();
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
fn check_one(language: &Language, isolation: &Isolation, config: &Config, cache: &Cache) -> Result<String, String> {
    if let Some(reason) = isolation.state(language).unavailable {
        return Err(reason);
    }
    let sample = language.sample.as_ref().ok_or("it has no sample")?;
    let draft = Draft {
        language: language.id.clone(),
        source: sample.source.clone(),
        files: sample.files.clone(),
        stdin: sample.stdin.clone(),
        expected_output: Some(sample.expected.clone()),
        ..Draft::default()
    };
    let job = gavel_core::validate::validate(draft, &isolation.catalogue, &config.rules()).map_err(|rejection| {
        rejection.problems.iter().map(|p| format!("{} {}", p.field, p.message)).collect::<String>()
    })?;
    let fault = |fault: gavel_sandbox::Fault| fault.to_string();
    let mut sandbox: Box<dyn Sandbox> = isolation.backend.open(crate::commands::run::slot()).map_err(fault)?;
    let cancel = Cancel::new().map_err(|error| error.to_string())?;
    let judged =
        gavel_judge::judge(&mut *sandbox, language, &job, cache, None, &cancel, &mut |_, _| ()).map_err(fault)?;
    let Judged::Outcome(outcome) = judged else { return Err("it was interrupted".to_owned()) };
    if outcome.verdict != Verdict::Accepted {
        let output = [&outcome.compile_output[..], &outcome.stderr].concat();
        let output: String = String::from_utf8_lossy(&output).chars().take(500).collect();
        return Err(format!("{}: {} {}", outcome.verdict, outcome.reason, output.trim()));
    }
    let time = (outcome.compile_time + outcome.cpu).as_secs_f64();
    Ok(ui::time(time))
}
