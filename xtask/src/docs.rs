//! Rules about the documents: they are true to the tree, and name nothing of anybody's machine.

use crate::repository::{File, files, is_our_rust, nothing_wrong, paths, read, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Documents that list the metrics.
const METRIC_LISTS: [&str; 2] = ["docs/operations.md", "docs/api/v1.md"];

/// Where each metric has its description for `/metrics`.
const DESCRIPTIONS: &str = "crates/gavel-api/src/metrics.rs";

/// What looks like a metric's name and is a crate's.
const CRATES: [&str; 6] = ["gavel_agent", "gavel_api", "gavel_core", "gavel_judge", "gavel_sandbox", "gavel_store"];

/// The texts between two marks, line by line.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.lines().flat_map(move |line| line.split(mark).skip(1).step_by(2))
}

fn metric_names<'a>(candidates: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let plain = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    candidates
        .filter(|name| name.starts_with("gavel_") && !CRATES.contains(name))
        .filter(plain)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let sources = files(|path| is_our_rust(path) && path.starts_with("crates/") && path.contains("/src/"));
    let counted: BTreeSet<String> = sources.iter().flat_map(|file| metric_names(between(&file.text, '"'))).collect();
    assert!(!counted.is_empty(), "no metrics were found");
    let mut wrong = Vec::new();
    for path in METRIC_LISTS {
        let listed = metric_names(between(&read(path), '`'));
        wrong.extend(counted.difference(&listed).map(|name| format!("{path} lacks {name}")));
        wrong.extend(listed.difference(&counted).map(|name| format!("{path} has {name}, which nothing counts")));
    }
    nothing_wrong("keep the lists of metrics true", &wrong);
}

#[test]
fn every_metric_is_described_once() {
    let names = |text: &str| metric_names(between(text, '"'));
    let sources = files(|path| is_our_rust(path) && path.starts_with("crates/") && path.contains("/src/"));
    let text = read(DESCRIPTIONS);
    let mut descriptions: Vec<String> = text
        .split("describe_")
        .skip(1)
        .filter_map(|call| call.split_once("!(")?.1.trim_start().strip_prefix('"')?.split('"').next())
        .map(str::to_owned)
        .collect();
    let described: BTreeSet<String> = descriptions.iter().cloned().collect();
    let mut wrong: Vec<String> = sources
        .iter()
        .flat_map(|file| names(&file.text))
        .collect::<BTreeSet<_>>()
        .difference(&described)
        .map(|name| format!("{DESCRIPTIONS} does not describe {name}"))
        .collect();
    descriptions.sort();
    wrong.extend(descriptions.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("{} twice", pair[0])));
    nothing_wrong("describe each metric", &wrong);
}

#[test]
fn decisions_are_numbered_once_without_gaps_and_have_three_parts() {
    let decisions = files(|path| path.starts_with("docs/adr/"));
    let mut wrong = Vec::new();
    for (at, File { path, text }) in decisions.iter().enumerate() {
        let name = path.trim_start_matches("docs/adr/");
        let number = format!("{:04}", at + 1);
        if !name.starts_with(&format!("{number}-")) || !name.ends_with(".md") {
            wrong.push(format!("{path} should begin with {number}- and end with .md"));
        }
        if !text.starts_with(&format!("# {number}: ")) {
            wrong.push(format!("{path} should begin with \"# {number}: \""));
        }
        let parts = ["## Context", "## Decision", "## Consequences"];
        wrong.extend(parts.iter().filter(|part| !text.contains(*part)).map(|part| format!("{path} has no {part}")));
    }
    nothing_wrong("docs/adr/ holds one decision in each file", &wrong);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for file in files(|path| path.ends_with(".md")) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for (_, rest) in file.text.match_indices("](").map(|(at, mark)| file.text.split_at(at + mark.len())) {
            let target = rest.split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") || root().join(folder).join(path).exists() {
                continue;
            }
            wrong.push(format!("{}: {target}", file.path));
        }
    }
    nothing_wrong("the link's target is not there", &wrong);
}

/// Which of ARCHITECTURE.md's sections names which files: "### `crates/x/src`" begins one.
fn code_map() -> BTreeMap<String, BTreeSet<String>> {
    let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folder = None;
    for line in read("ARCHITECTURE.md").lines() {
        if line.starts_with('#') {
            folder = line.strip_prefix("### `").and_then(|rest| rest.split('`').next()).map(str::to_owned);
        } else if let (Some(folder), true) = (&folder, line.starts_with("| `")) {
            let names = line.split('|').nth(1).unwrap_or_default();
            let files = between(names, '`').filter(|name| name.ends_with(".rs")).map(str::to_owned);
            map.entry(folder.clone()).or_default().extend(files);
        }
    }
    map
}

#[test]
fn the_code_map_is_true_to_the_tree() {
    let map = code_map();
    let mapped: BTreeSet<String> =
        map.iter().flat_map(|(folder, files)| files.iter().map(move |file| format!("{folder}/{file}"))).collect();
    let sources = |path: &String| is_our_rust(path) && path.contains("/src/");
    let there: BTreeSet<String> = paths().into_iter().filter(sources).collect();
    let mut wrong: Vec<String> = there.difference(&mapped).map(|path| format!("it lacks {path}")).collect();
    wrong.extend(mapped.difference(&there).map(|path| format!("it has {path}, which is not there")));
    nothing_wrong("ARCHITECTURE.md maps every source file with one line", &wrong);
}

/// Hosts of package registries. In pieces, because this file is checked as well.
fn registries() -> Vec<String> {
    ["crates.!io", "pypi.!org", "npmjs.!org", "npmjs.!com", "rubygems.!org", "golang.!org", "debian.!org", "docker.!io"]
        .map(|host| host.replace('!', ""))
        .into()
}

/// The index that cargo itself writes down, in the two files where it must stand.
fn is_cargos_own(path: &str, line: &str) -> bool {
    let index = format!("https://github.com/rust-lang/{}-index", registries()[0]);
    (path == "Cargo.lock" && line == format!("source = \"registry+{index}\""))
        || (path == "deny.toml" && line == format!("allow-registry = [\"{index}\"]"))
}

#[test]
fn nothing_names_a_package_registry() {
    let mut wrong = Vec::new();
    for file in files(|_| true) {
        for (number, line) in file.text.lines().enumerate() {
            if registries().iter().any(|host| line.contains(host)) && !is_cargos_own(&file.path, line) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    nothing_wrong("where packages come from is the business of cargo, apt and the like", &wrong);
}

/// A path below somebody's home. Not "/proc/self/root/" and not the bare names of the directories.
fn names_a_home(line: &str) -> bool {
    let follows = |at: usize, length: usize| line[at + length..].chars().next();
    let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.' || c == '/');
    let home = |prefix: &str| {
        line.match_indices(prefix)
            .any(|(at, _)| begins(at) && follows(at, prefix.len()).is_some_and(|c| c.is_alphanumeric() || c == '.'))
    };
    home(concat!("/ro", "ot/")) || home(concat!("/ho", "me/")) || home(concat!("/Us", "ers/"))
}

#[test]
fn nothing_names_a_path_of_somebodys_machine() {
    let mut wrong = Vec::new();
    // The programs of the corpus look for such paths on purpose.
    for file in files(|path| !path.starts_with("corpus/")) {
        for (number, line) in file.text.lines().enumerate() {
            if names_a_home(line) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    nothing_wrong("use a path relative to the repository, or one that every machine has", &wrong);
}

#[test]
fn homes_are_recognised() {
    for (rest, wanted) in [("ot/project", true), ("ot`, `/x", false), ("ot/", false), ("ot/.cargo", true)] {
        assert_eq!(names_a_home(&format!("see /ro{rest}")), wanted, "{rest}");
    }
    assert!(!names_a_home(&format!("/proc/self/ro{}", "ot/etc")));
}
