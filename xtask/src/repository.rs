//! The files of the repository: what git tracks, and what it would track.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One text file.
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every path that is tracked, or new and not ignored.
pub fn paths() -> Vec<String> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
    let listing = String::from_utf8(listing.stdout).expect("paths are UTF-8");
    let mut paths: Vec<String> = listing.split_terminator('\0').map(str::to_owned).collect();
    // One that is deleted but still tracked is on its way out.
    paths.retain(|path| root().join(path).is_file());
    paths.sort();
    paths
}

/// The text files that `wanted` picks. A file that is not UTF-8 is no text.
pub fn files(wanted: impl Fn(&str) -> bool) -> Vec<File> {
    let read = |path: String| {
        let text = String::from_utf8(std::fs::read(root().join(&path)).ok()?).ok()?;
        Some(File { path, text })
    };
    paths().into_iter().filter(|path| wanted(path)).filter_map(read).collect()
}

/// Our own Rust: the samples of languages and the programs of the corpus are somebody else's.
pub fn is_our_rust(path: &str) -> bool {
    path.ends_with(".rs") && (path.starts_with("crates/") || path.starts_with("xtask/"))
}

/// The text of one file that must be there.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The folders directly below `path`.
pub fn folders(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let entries = entries.map(|entry| entry.expect("a readable directory"));
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a UTF-8 name"))
        .collect();
    names.sort();
    names
}

pub fn toml(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with every place that breaks a rule, and what to do.
#[track_caller]
pub fn nothing_wrong(remedy: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{remedy}:\n  {}\n", wrong.join("\n  "));
}
