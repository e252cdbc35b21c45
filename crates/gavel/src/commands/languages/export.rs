//! `gavel languages export`: unpacks an image once, so that the native backend can run jobs on its files.

use super::docker::Docker;
use super::named;
use super::unpack::{Unpacked, unpack};
use crate::cli::Export;
use crate::config::Config;
use crate::data_dir;
use crate::exit::{ExitCode, coded};
use crate::rootfs::{self, ImageId, Roots};
use crate::ui::say_line;
use anyhow::{Context, Result, bail, ensure};
use gavel_core::units::thousands;
use gavel_core::{Catalogue, Language};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn run(command: &Export, catalogue: &Catalogue, config: &Config, json: bool) -> Result<ExitCode> {
    let languages: Vec<Arc<Language>> = command.ids.iter().map(|id| named(catalogue, id)).collect::<Result<_>>()?;
    if let Some(language) = languages.iter().find(|language| language.image.is_none()) {
        let message = format!("{} has no image: name one in its language.toml", language.id);
        return Err(coded(ExitCode::Config, message));
    }
    if command.to.is_some() && languages.len() > 1 {
        return Err(coded(ExitCode::Usage, "--to takes one language: each needs a directory of its own"));
    }
    let docker = Docker::find(&config.sandbox.docker_cli)?;
    for language in &languages {
        match &command.to {
            Some(dir) => to_directory(&docker, language, dir, json)?,
            None => to_data_dir(&docker, language, &config.place.data_dir, json)?,
        }
    }
    Ok(ExitCode::Success)
}

fn to_data_dir(docker: &Docker, language: &Language, data: &Path, json: bool) -> Result<()> {
    data_dir::create(data)?;
    let roots = Roots::of(data);
    let _lock = roots.lock()?;
    let image = image_id(docker, language)?;
    let done = match roots.of_image(&image) {
        Some(_) => None,
        None => Some(roots.add(&image, |dir| export(docker, language, &image, dir))?),
    };
    let root = roots.of_image(&image).context("an image that was unpacked is there")?;
    roots.assign(&language.id, &image)?;
    if no_server_runs(data) {
        roots.sweep()?;
    }
    tell(language, &root, done.as_ref(), json);
    Ok(())
}

fn to_directory(docker: &Docker, language: &Language, dir: &Path, json: bool) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let empty = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.next().is_none();
    ensure!(empty, "{} is not empty: name a new directory", dir.display());
    let done = export(docker, language, &image_id(docker, language)?, dir)?;
    tell(language, dir, Some(&done), json);
    Ok(())
}

fn tell(language: &Language, root: &Path, done: Option<&Unpacked>, json: bool) {
    if json {
        let unpacked = done.map(|done| json!({ "files": done.files, "bytes": done.bytes, "left_out": done.left_out }));
        say_line!("{}", json!({ "id": language.id, "rootfs": root, "unpacked": unpacked }));
        return;
    }
    let what = done.map_or("was there already".to_owned(), |done| {
        format!("{} files, {} MiB", thousands(done.files), thousands(done.bytes >> 20))
    });
    say_line!("{}: {} ({what})", language.id, root.display());
}

fn image_id(docker: &Docker, language: &Language) -> Result<ImageId> {
    let image = language.image.as_deref().context("a language with an image")?;
    let answer = docker
        .say(&["image", "inspect", "--format", "{{.Id}}", image])
        .map_err(|error| coded(ExitCode::Machine, error))?;
    ImageId::parse(&answer).with_context(|| format!("{image} has an odd id: {answer:?}"))
}

/// Writes the files of an image into an empty directory.
fn export(docker: &Docker, language: &Language, image: &ImageId, dir: &Path) -> Result<Unpacked> {
    let name = format!("gavel-export-{}", image.short());
    // A container that never runs. One of this name is left of an export that was killed.
    remove(docker, &name);
    let digest = image.digest();
    docker.say(&["create", "--name", &name, "--network", "none", &digest, "/nothing"])?;
    let unpacked = docker.stream(&["export", &name], |from| unpack(from, dir));
    remove(docker, &name);
    let unpacked = unpacked.with_context(|| format!("cannot unpack the image of {}", language.id))?;
    if let Some(path) = rootfs::missing(language, dir) {
        bail!("the image of {} has no {path}: `gavel languages build {0}` makes one that has", language.id);
    }
    Ok(unpacked)
}

/// That there is none is as good.
fn remove(docker: &Docker, name: &str) {
    _ = docker.say(&["rm", "--force", name]);
}

/// A server has mounted the roots that its languages had when it started.
fn no_server_runs(data: &Path) -> bool {
    let lock: PathBuf = data.join("gavel.lock");
    let Ok(lock) = File::open(lock) else { return true };
    flock(&lock, FlockOperation::NonBlockingLockShared).is_ok()
}
