//! Languages as data: how to compile and run, and within which limits.

use crate::job::File;
use crate::limits::Limits;
use crate::units::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One language, resolved: every default is filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Language {
    pub id: String,
    pub name: String,
    /// The name the source is stored under. `None`: a job has no source, it is all in its files.
    pub source_file: Option<String>,
    pub extensions: Vec<String>,
    /// `None`: the source is run as it is.
    pub compile: Option<Compile>,
    pub run: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Limits of the run when the client names none.
    pub limits: Limits,
    /// The highest limits a client may ask for.
    pub cap: Limits,
    /// Texts on stderr by which the language's runtime reports a failed allocation.
    pub oom_markers: Vec<String>,
    pub image: Option<String>,
    /// Root directory that the image was unpacked into on this machine: the native backend shows its files
    /// instead of the host's.
    pub rootfs: Option<PathBuf>,
    /// A backend that this language must use, by name.
    pub backend: Option<String>,
    /// Files of the host without which the native backend cannot run it.
    pub requires: Vec<String>,
    /// Debian packages that bring those files: the remedy.
    pub packages: Vec<String>,
    pub version_command: Vec<String>,
    pub judge0_ids: Vec<u32>,
    pub sample: Option<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Compile {
    pub argv: Vec<String>,
    /// Globs of the files that the run needs.
    pub artifacts: Vec<String>,
    /// Only jobs that bring one of these files are compiled; empty: all are.
    pub only_with: Vec<String>,
    pub limits: Limits,
}

/// A program that shows the language works.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Empty where the language has no source file.
    pub source: Vec<u8>,
    pub files: Vec<File>,
    pub stdin: Vec<u8>,
    pub expected: Vec<u8>,
}

impl Language {
    /// The run command with its placeholders filled in.
    pub fn run_argv(&self, args: &[String], limits: &Limits) -> Vec<String> {
        expand(&self.run, &[("{args}", args)], limits)
    }

    /// The compile step of a job that brings these files, if it has one.
    pub fn compile_with(&self, files: &[File]) -> Option<&Compile> {
        let brought = |name: &String| files.iter().any(|file| file.path == *name);
        self.compile.as_ref().filter(|compile| compile.only_with.is_empty() || compile.only_with.iter().any(brought))
    }
}

impl Compile {
    pub fn argv(&self, options: &[String]) -> Vec<String> {
        expand(&self.argv, &[("{options}", options)], &self.limits)
    }

    /// The run finds the working directory as the compile step leaves it: files that a job brought are
    /// artifacts like any other, and what was deleted is gone.
    pub fn keeps_everything(&self) -> bool {
        self.artifacts.iter().any(|pattern| pattern == "**")
    }
}

/// Replaces list placeholders that are whole elements, and numbers inside elements. An element is
/// never split, so nothing a client sends can become an option of another position.
fn expand(argv: &[String], lists: &[(&str, &[String])], limits: &Limits) -> Vec<String> {
    let memory_mb = (limits.memory.0 >> 20).max(1);
    let numbers =
        [("{memory_mb}", memory_mb), ("{heap_mb}", (memory_mb * 3 / 4).max(1)), ("{stack_kb}", limits.stack.as_kib())];
    let mut out = Vec::with_capacity(argv.len() + 4);
    for element in argv {
        if let Some((_, list)) = lists.iter().find(|(name, _)| name == element) {
            out.extend(list.iter().cloned());
            continue;
        }
        let mut element = element.clone();
        for (name, value) in numbers {
            if element.contains(name) {
                element = element.replace(name, &value.to_string());
            }
        }
        out.push(element);
    }
    out
}

/// The version in what a tool prints about itself: the first dotted number, else the first number.
pub fn version_in(text: &str) -> Option<String> {
    let numbers = || {
        text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .map(|word| word.trim_matches('.'))
            .filter(|word| !word.is_empty())
    };
    numbers().find(|word| word.contains('.')).or_else(|| numbers().next()).map(str::to_owned)
}

/// All languages that a server knows, by id.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    languages: BTreeMap<String, Arc<Language>>,
}

impl Catalogue {
    pub fn new(languages: impl IntoIterator<Item = Language>) -> Self {
        Self { languages: languages.into_iter().map(|l| (l.id.clone(), Arc::new(l))).collect() }
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Language>> {
        self.languages.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Language>> {
        self.languages.values()
    }

    /// The language that a file name belongs to, by its extension.
    pub fn by_extension(&self, extension: &str) -> Option<&Arc<Language>> {
        self.iter().find(|language| language.extensions.iter().any(|e| e == extension))
    }

    /// The id that somebody who wrote `id` may have meant: the best match first by extension or name,
    /// then by the beginning of the id.
    pub fn similar(&self, id: &str) -> Option<&str> {
        let wanted = id.to_ascii_lowercase();
        let named = |l: &&Arc<Language>| l.name.to_ascii_lowercase() == wanted || l.extensions.contains(&wanted);
        let begins = |l: &&Arc<Language>| {
            wanted.len() >= 2 && (l.id.starts_with(&wanted) || (l.id.len() >= 2 && wanted.starts_with(&l.id)))
        };
        self.iter().find(named).or_else(|| self.iter().find(begins)).map(|l| l.id.as_str())
    }
}

/// Sizes of the writable places of a sandbox, derived from what the job may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    pub work: Bytes,
    pub tmp: Bytes,
    pub shm: Bytes,
    pub inodes: u32,
}

impl Scratch {
    /// For a run: `/box` holds at least one file of the allowed size.
    pub fn for_run(limits: &Limits) -> Self {
        Self { work: Bytes::mib(64).max(limits.file_size), tmp: Bytes::mib(32), shm: Bytes::mib(16), inodes: 4096 }
    }

    pub fn for_compile() -> Self {
        Self { work: Bytes::mib(256), tmp: Bytes::mib(64), shm: Bytes::mib(16), inodes: 16384 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_expand_as_whole_elements_and_numbers_inside() {
        let argv = ["java", "-Xmx{heap_mb}m", "{args}", "x{args}"].map(str::to_owned);
        let args = ["a b".to_owned(), "{heap_mb}".to_owned()];
        let out = expand(&argv, &[("{args}", &args)], &Limits::standard());
        // What the client sends is not expanded again.
        assert_eq!(out, ["java", "-Xmx192m", "a b", "{heap_mb}", "x{args}"]);
    }

    #[test]
    fn versions_are_found_in_what_real_tools_print() {
        for (text, version) in [
            ("Python 3.11.2", "3.11.2"),
            ("v20.20.2\n", "20.20.2"),
            ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0"),
            ("openjdk version \"17.0.15\" 2025-04-15", "17.0.15"),
            ("This is perl 5, version 36, subversion 0 (v5.36.0)", "5.36.0"),
            ("GNU Octave 7", "7"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(version_in("none here."), None);
    }
}
