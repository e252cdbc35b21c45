//! One job, from its source to its verdict.

mod compile;
mod run;

use crate::cache::{Cache, Entry, StoredFile};
use compile::Built;
use gavel_core::{Job, Language, Outcome};
use gavel_sandbox::{Cancel, Content, Fault, InputFile, Live, Sandbox};
use gavel_store::Stream;
use run::Ready;
use std::path::PathBuf;

/// Receives output while the job runs. Called on the sandbox's thread.
pub type OnOutput<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// How judging ended.
#[derive(Debug)]
pub enum Judged {
    Outcome(Box<Outcome>),
    /// Somebody asked us to stop, and we did.
    Cancelled,
}

/// Judges a job. A fault is ours, and says nothing about the program. `live` is where an interactive one's input
/// comes from; without it there is only its stdin.
pub fn judge(
    sandbox: &mut dyn Sandbox,
    language: &Language,
    job: &Job,
    cache: &Cache,
    live: Option<Live>,
    cancel: &Cancel,
    on_output: OnOutput,
) -> Result<Judged, Fault> {
    let Some(compile) = language.compile_with(&job.files) else {
        let ready = Ready { files: sent_files(language, job), program: None };
        return run::run(sandbox, language, job, ready, live, cancel, on_output);
    };
    match compile::build(sandbox, language, compile, job, cache, cancel, on_output)? {
        Built::Cancelled => Ok(Judged::Cancelled),
        Built::Refused(refusal) => Ok(refusal.into()),
        Built::Program(program) => {
            let contents;
            let files = if compile.keeps_everything() {
                contents = contents_of(&program.entry).inspect_err(|_| cache.forget(&program.entry))?;
                program
                    .entry
                    .files
                    .iter()
                    .zip(&contents)
                    .map(|(f, bytes)| input(&f.path, bytes, f.executable))
                    .collect()
            } else {
                let mut files = artifacts(sandbox, language, &program.entry);
                // What the compiler made stands where the client's file of that name was.
                files.extend(own_files(job).filter(|own| program.entry.files.iter().all(|file| file.path != own.path)));
                files
            };
            let ready = Ready { files, program: Some(&program) };
            let judged = run::run(sandbox, language, job, ready, live, cancel, on_output);
            if judged.is_err() {
                // Its files may be what could not be used; the next attempt makes them anew.
                cache.forget(&program.entry);
            }
            judged
        }
    }
}

/// Compiled files, as the sandbox takes them at the lowest price: the program can read and run them, but
/// not always change them.
fn artifacts<'a>(sandbox: &dyn Sandbox, language: &Language, entry: &'a Entry) -> Vec<InputFile<'a>> {
    let files = entry.files.iter();
    match sandbox.shares_files(language.image.as_deref()) {
        true => files.map(|file| shared(&file.path, &entry.shared_path(file), file.executable)).collect(),
        false => files.map(|file| stored(file, entry.path(file))).collect(),
    }
}

/// A whole working directory belongs to the program, data files included: it gets copies that it may change.
fn contents_of(entry: &Entry) -> Result<Vec<Vec<u8>>, Fault> {
    let read = |file| std::fs::read(entry.path(file)).map_err(|error| Fault::new("read a compiled program", error));
    entry.files.iter().map(read).collect()
}

/// What a client sends as its program: the source, where there is one, and the files.
fn sent_files<'a>(language: &'a Language, job: &'a Job) -> Vec<InputFile<'a>> {
    let source = language.source_file.iter().map(|name| input(name, &job.source, false));
    source.chain(own_files(job)).collect()
}

fn own_files(job: &Job) -> impl Iterator<Item = InputFile<'_>> {
    job.files.iter().map(|file| input(&file.path, &file.content, false))
}

fn input<'a>(path: &str, content: &'a [u8], executable: bool) -> InputFile<'a> {
    InputFile { path: path.to_owned(), executable, content: Content::Bytes(content) }
}

fn stored(file: &StoredFile, path: PathBuf) -> InputFile<'_> {
    let content = Content::Stored { path, hash: &file.hash, size: file.size };
    InputFile { path: file.path.clone(), executable: file.executable, content }
}

fn shared(path: &str, from: &str, executable: bool) -> InputFile<'static> {
    InputFile { path: path.to_owned(), executable, content: Content::Shared(from.to_owned()) }
}

/// The environment of a job's commands: the language's, then the client's.
fn environment(language: &Language, job: Option<&Job>) -> Vec<(String, String)> {
    let own = job.into_iter().flat_map(|job| &job.env);
    language.env.iter().chain(own).map(|(name, value)| (name.clone(), value.clone())).collect()
}
