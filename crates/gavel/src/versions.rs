//! Versions of the toolchains: asked in the sandbox, because that is where they will run, and
//! remembered as long as the files they come from are the same.

use gavel_core::language::{Scratch, version_in};
use gavel_core::{Exit, Facts, Language, Limits};
use gavel_sandbox::{Backend, Cancel, Collect, Command, Fault, OnOutputLimit, Sandbox};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// The version, or why the toolchain does not even say that. Empty: it has none.
pub type Found = Result<String, String>;

/// Asks every language for its version, in one sandbox of its own; stops early when cancelled.
pub fn probe(
    backend: &dyn Backend,
    slot: u32,
    languages: &[Arc<Language>],
    cancel: &Cancel,
    tell: &mut dyn FnMut(&Language, Found),
) {
    let mut asking = Asking { backend, slot, cancel, sandbox: None };
    for language in languages {
        let found = asking.version(language);
        if cancel.is_wanted() {
            return;
        }
        tell(language, found);
    }
}

struct Asking<'a> {
    backend: &'a dyn Backend,
    slot: u32,
    cancel: &'a Cancel,
    sandbox: Option<Box<dyn Sandbox>>,
}

impl Asking<'_> {
    fn version(&mut self, language: &Language) -> Found {
        if language.version_command.is_empty() {
            return Ok(String::new());
        }
        let facts = self.ask(language).map_err(|fault| {
            // What a sandbox holds after a fault is unknown.
            self.sandbox = None;
            fault.to_string()
        })?;
        let text = [&facts.stdout[..], &facts.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        match (facts.exit, version_in(&text)) {
            (Exit::Code(0), Some(version)) => Ok(version),
            _ => {
                let shown: String = text.trim().chars().take(200).collect();
                Err(format!("{} does not say its version: {shown}", language.version_command.join(" ")))
            }
        }
    }

    fn ask(&mut self, language: &Language) -> Result<Facts, Fault> {
        let (limits, scratch) = bounds(language);
        let command = Command {
            image: language.image.as_deref(),
            root: language.rootfs.as_deref(),
            argv: language.version_command.clone(),
            env: language.env.clone().into_iter().collect(),
            stdin: b"",
            live: None,
            files: Vec::new(),
            limits,
            scratch,
            stderr_to_stdout: false,
            network: false,
            on_output_limit: OnOutputLimit::Discard,
            collect: Collect::default(),
        };
        let open = match &mut self.sandbox {
            Some(open) => open,
            none => none.insert(self.backend.open(self.slot)?),
        };
        open.run(&command, self.cancel, &mut |_, _| ())
    }
}

/// As for a compiler. A container gets the memory of a run, because then the one that the pool starts in its
/// place is one that a job can use.
fn bounds(language: &Language) -> (Limits, Scratch) {
    let standard = Limits::standard_compile();
    if language.image.is_none() {
        return (standard, Scratch::for_compile());
    }
    let run = &language.limits;
    (Limits { memory: run.memory, processes: run.processes, ..standard }, Scratch::for_run(run))
}

/// What was found the last time, with what the toolchain's files looked like then.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Remembered(BTreeMap<String, Known>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    version: String,
    files: Vec<FileId>,
    /// The image by its id, where it comes from one.
    #[serde(default)]
    image: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileId {
    path: String,
    inode: u64,
    size: u64,
    changed: i64,
}

impl Remembered {
    /// An unreadable file is an empty one: everything is asked again.
    pub fn read(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let half = path.with_extension("half");
        std::fs::write(&half, serde_json::to_vec(self)?)?;
        std::fs::rename(half, path)
    }

    pub fn version(&self, language: &Language) -> Option<String> {
        let known = self.0.get(&language.id)?;
        (known.image == language.image && known.files == identity(language)).then(|| known.version.clone())
    }

    pub fn learn(&mut self, language: &Language, version: String) {
        self.0.insert(language.id.clone(), Known { version, files: identity(language), image: language.image.clone() });
    }
}

/// The files of the host that a version comes from. Links are followed: an upgrade changes what they point to.
fn identity(language: &Language) -> Vec<FileId> {
    if language.image.is_some() {
        return Vec::new();
    }
    let id = |path: &String| {
        let meta = std::fs::metadata(path).ok()?;
        Some(FileId { path: path.clone(), inode: meta.ino(), size: meta.size(), changed: meta.ctime() })
    };
    if let Some(root) = &language.rootfs {
        return id(&root.display().to_string()).into_iter().collect();
    }
    language.version_command.first().into_iter().chain(&language.requires).filter_map(id).collect()
}
