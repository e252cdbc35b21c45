//! Rules about crates: which one may know which, and what must not get in.

use crate::repository::{folders, nothing_wrong, toml};
use std::collections::BTreeSet;

/// Every crate, and all that it may know of the others. ADR 0001 says why.
const GRAPH: &[(&str, &[&str])] = &[
    ("gavel", &["gavel-api", "gavel-core", "gavel-judge", "gavel-sandbox", "gavel-store"]),
    ("gavel-agent", &[]),
    ("gavel-api", &["gavel-core", "gavel-store"]),
    ("gavel-core", &[]),
    ("gavel-judge", &["gavel-core", "gavel-sandbox", "gavel-store"]),
    ("gavel-sandbox", &["gavel-agent", "gavel-core"]),
    ("gavel-store", &["gavel-core"]),
];

/// What a crate must not depend on, because it holds a promise that way.
const WITHOUT: &[(&str, &[&str], &str)] = &[
    ("gavel-core", &["tokio", "serde", "tracing", "jiff"], "values only: no IO, no clock, no serialization"),
    ("gavel-agent", &["tokio", "tracing", "serde_json"], "small, static, one thread"),
    ("gavel-sandbox", &["tokio", "async-trait", "futures-util"], "blocking: threads, pipes and deadlines"),
    ("gavel-judge", &["axum", "hyper", "rusqlite"], "knows neither HTTP nor SQL"),
    ("gavel-api", &["rusqlite", "rustix", "libc"], "knows neither SQL nor the kernel"),
    ("gavel-store", &["axum", "hyper"], "knows no HTTP"),
];

/// The two crates with a corner of unsafe code; in all others the workspace forbids it.
const WITH_UNSAFE: [&str; 2] = ["gavel-agent", "gavel-sandbox"];

const SECTIONS: [&str; 3] = ["dependencies", "build-dependencies", "dev-dependencies"];

fn dependencies(name: &str, sections: &[&str]) -> BTreeSet<String> {
    let manifest = toml(&format!("crates/{name}/Cargo.toml"));
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn the_crates_are_the_seven() {
    let known: Vec<&str> = GRAPH.iter().map(|(name, _)| *name).collect();
    assert_eq!(folders("crates"), known, "a crate more or less is a decision: ADR 0001, and GRAPH here");
}

#[test]
fn crates_know_each_other_as_decided() {
    let mut wrong = Vec::new();
    for (name, allowed) in GRAPH {
        let allowed: BTreeSet<String> = allowed.iter().map(|other| (*other).to_owned()).collect();
        let ours = |sections| dependencies(name, sections).into_iter().filter(|other| other.starts_with("gavel-"));
        let real: BTreeSet<String> = ours(&SECTIONS[..1]).collect();
        if real != allowed {
            wrong.push(format!("{name} depends on {real:?}, decided is {allowed:?}"));
        }
        wrong.extend(
            ours(&SECTIONS[1..]).filter(|other| !allowed.contains(other)).map(|other| format!("{name} tests {other}")),
        );
    }
    nothing_wrong("the direction of knowledge is decided in ADR 0001", &wrong);
}

#[test]
fn crates_stay_without_what_would_break_their_promise() {
    let mut wrong = Vec::new();
    for (name, without, promise) in WITHOUT {
        let real = dependencies(name, &SECTIONS[..2]);
        wrong.extend(without.iter().filter(|other| real.contains(**other)).map(|other| {
            format!("{name} depends on {other}, but is {promise}") // the promise is the reason
        }));
    }
    nothing_wrong("find another way, or another crate", &wrong);
}

#[test]
fn unsafe_code_is_forbidden_in_every_other_crate() {
    for (name, _) in GRAPH {
        let manifest = toml(&format!("crates/{name}/Cargo.toml"));
        let lints = &manifest["lints"];
        if WITH_UNSAFE.contains(name) {
            assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("deny"), "{name}");
            assert_eq!(lints["clippy"]["undocumented_unsafe_blocks"].as_str(), Some("deny"), "{name}");
        } else {
            assert_eq!(lints["workspace"].as_bool(), Some(true), "{name}");
        }
    }
    let workspace = toml("Cargo.toml");
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}
