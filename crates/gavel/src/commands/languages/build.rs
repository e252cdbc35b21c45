//! `gavel languages build`: the Docker image of each language, from the Dockerfile beside its language.toml.

use super::docker::Docker;
use super::named;
use crate::catalogue::{self, Folder};
use crate::cli::Build;
use crate::config::Config;
use crate::exit::{ExitCode, coded};
use crate::ui::{Paint, say_line};
use anyhow::{Context, Result};
use gavel_core::{Catalogue, Language};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{IsTerminal, stderr, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

/// For one image, from a slow mirror and to a slow registry.
const LONGEST: Duration = Duration::from_secs(3600);

/// Variables that `docker build` hands on to package managers without being told in a Dockerfile.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// A language that can be built: what its image is called, and where its Dockerfile is.
struct Plan {
    id: String,
    tag: String,
    folder: Folder,
}

pub fn run(command: &Build, catalogue: &Catalogue, config: &Config, json: bool) -> Result<ExitCode> {
    let plans = plans(catalogue, config.place.languages_dir.as_deref(), &command.ids)?;
    let docker = Docker::find(&config.sandbox.docker_cli)?;
    let bar = progress(plans.len(), json);
    let mut failed = 0;
    for plan in &plans {
        bar.set_prefix(plan.id.clone());
        let began = Instant::now();
        let built = build(&docker, plan, command, &mut |line| bar.set_message(line.to_owned()));
        bar.inc(1);
        failed += usize::from(built.is_err());
        bar.suspend(|| tell(plan, &built, began.elapsed(), json));
    }
    bar.finish_and_clear();
    if !json {
        say_line!("{} of {} images built", plans.len() - failed, plans.len());
    }
    Ok(if failed == 0 { ExitCode::Success } else { ExitCode::Failure })
}

/// Those that are named, or all that have a Dockerfile.
fn plans(catalogue: &Catalogue, languages_dir: Option<&Path>, ids: &[String]) -> Result<Vec<Plan>> {
    if ids.is_empty() {
        let all = catalogue.iter().filter_map(|language| plan(language, languages_dir).transpose());
        return all.collect();
    }
    let one = |id: &String| {
        let language = named(catalogue, id)?;
        plan(&language, languages_dir)?.ok_or_else(|| {
            let message =
                format!("{id} has no Dockerfile: put one beside its language.toml, or build its image by hand");
            coded(ExitCode::Usage, message)
        })
    };
    ids.iter().map(one).collect()
}

fn plan(language: &Language, languages_dir: Option<&Path>) -> Result<Option<Plan>> {
    let Some(folder) = catalogue::dockerfile(&language.id, languages_dir) else { return Ok(None) };
    let tag = tag(language).map_err(|message| coded(ExitCode::Config, format!("{}: {message}", language.id)))?;
    Ok(Some(Plan { id: language.id.clone(), tag, folder }))
}

/// The name of a language's image with its tag.
fn tag(language: &Language) -> Result<String, String> {
    let name = language.image.clone().unwrap_or_else(|| format!("gavel-{}", language.id));
    if name.contains('@') {
        return Err(format!("image = {name:?} names one image by its content, so none can be built for it"));
    }
    // A colon before the last slash belongs to a registry's port.
    let last = name.rsplit('/').next().unwrap_or(&name);
    Ok(if last.contains(':') { name } else { format!("{name}:latest") })
}

/// Builds one image, and pushes it where that is wanted: its names.
fn build(docker: &Docker, plan: &Plan, command: &Build, show: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
    let copy;
    let context = match &plan.folder {
        Folder::Own(path) => path.as_path(),
        Folder::BuiltIn(text) => {
            copy = tempfile::tempdir().context("cannot make a temporary directory")?;
            std::fs::write(copy.path().join(catalogue::DOCKERFILE), text)?;
            copy.path()
        }
    };
    let context = context.to_str().with_context(|| format!("{} is not UTF-8", context.display()))?;
    let pushed = command.push.as_ref().map(|registry| format!("{}/{}", registry.trim_end_matches('/'), plan.tag));
    let base = command.base.as_ref().map(|base| format!("BASE={base}"));
    let mut words = vec!["build", "--tag", &plan.tag];
    let options =
        [("--tag", pushed.as_deref()), ("--build-arg", base.as_deref()), ("--network", command.network.as_deref())];
    for (option, value) in options {
        words.extend(value.into_iter().flat_map(|value| [option, value]));
    }
    for proxy in PROXIES.iter().filter(|name| std::env::var_os(name).is_some()) {
        words.extend(["--build-arg", proxy]);
    }
    if command.no_cache {
        words.push("--no-cache");
    }
    words.push(context);
    docker.watch(&words, LONGEST, show)?;
    if let Some(tag) = &pushed {
        docker.watch(&["push", tag], LONGEST, show)?;
    }
    Ok([plan.tag.clone()].into_iter().chain(pushed).collect())
}

/// On a terminal only, and not between lines for programs.
fn progress(images: usize, json: bool) -> ProgressBar {
    if json || !stderr().is_terminal() || !stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(images as u64);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {prefix:.bold} {elapsed} {wide_msg:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn tell(plan: &Plan, built: &Result<Vec<String>>, took: Duration, json: bool) {
    let seconds = took.as_secs_f64();
    if json {
        let images = built.as_deref().unwrap_or_default();
        let problem = built.as_ref().err().map(|error| format!("{error:#}"));
        say_line!("{}", json!({ "id": plan.id, "images": images, "seconds": seconds, "problem": problem }));
        return;
    }
    let paint = Paint::for_stream(&stdout());
    match built {
        Ok(images) => say_line!("{}  {}: {} ({seconds:.1} s)", paint.green("ok  "), plan.id, images.join(", ")),
        Err(error) => say_line!("{}  {}: {error:#}", paint.red("FAIL"), plan.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Bounds;
    use crate::rootfs::Roots;
    use gavel_core::Limits;

    fn catalogue() -> Catalogue {
        catalogue::load(
            None,
            &Bounds {
                default: Limits::standard(),
                cap: Limits::standard_cap(),
                roots: Roots::of(Path::new("/nowhere")),
            },
        )
        .unwrap()
    }

    #[test]
    fn every_built_in_language_can_be_built_and_has_an_image_of_its_own() {
        let plans = plans(&catalogue(), None, &[]).unwrap();
        assert_eq!(plans.len(), catalogue().iter().count());
        for plan in plans {
            assert_eq!(plan.tag, format!("gavel-{}:latest", plan.id));
        }
    }

    #[test]
    fn tags_are_completed_and_digests_refused() {
        let mut language = Language::clone(catalogue().get("c").unwrap());
        for (image, expected) in [
            (Some("a"), Ok("a:latest")),
            (Some("a:1"), Ok("a:1")),
            (Some("host:5000/a"), Ok("host:5000/a:latest")),
            (None, Ok("gavel-c:latest")),
            (Some("a@sha256:0"), Err(())),
        ] {
            language.image = image.map(str::to_owned);
            assert_eq!(tag(&language).as_deref().map_err(|_| ()), expected, "{image:?}");
        }
    }

    #[test]
    fn an_unknown_language_is_refused_before_anything_is_built() {
        let error = plans(&catalogue(), None, &["klingon".to_owned()]).err().unwrap();
        assert!(error.to_string().contains("there is no language klingon"), "{error}");
    }
}
