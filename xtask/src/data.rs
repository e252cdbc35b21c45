//! Rules about data: languages and the corpus.

use crate::repository::{folders, nothing_wrong, root, toml};

const VERDICTS: [&str; 7] = [
    "accepted",
    "wrong_answer",
    "compile_error",
    "runtime_error",
    "time_limit_exceeded",
    "memory_limit_exceeded",
    "output_limit_exceeded",
];

fn text<'a>(table: &'a toml::Table, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str().filter(|text| !text.trim().is_empty())
}

fn case_problem(name: &str) -> Result<(), String> {
    let folder = format!("corpus/{name}");
    if !root().join(&folder).join("case.toml").is_file() {
        return Err("has no case.toml".to_owned());
    }
    let case = toml(&format!("{folder}/case.toml"));
    let about = text(&case, "about").ok_or("says nothing in `about`")?;
    let language = text(&case, "language").ok_or("names no language")?;
    let source = text(&case, "source").or_else(|| case.get("files").map(|_| "case.toml")).ok_or("names no source")?;
    let verdicts = case.get("expect").and_then(|expect| expect.get("verdict")).and_then(|list| list.as_array());
    let verdicts = verdicts.filter(|list| !list.is_empty()).ok_or("expects no verdict")?;
    if let Some(odd) = verdicts.iter().find(|verdict| !verdict.as_str().is_some_and(|text| VERDICTS.contains(&text))) {
        return Err(format!("expects {odd}, which is no verdict"));
    }
    if !root().join("languages").join(language).is_dir() {
        return Err(format!("is in {language}, which is no language"));
    }
    if !root().join(&folder).join(source).is_file() {
        return Err(format!("has no {source}"));
    }
    if !about.ends_with('.') {
        return Err("`about` is one sentence: end it with a full stop".to_owned());
    }
    Ok(())
}

fn language_problem(id: &str) -> Result<(), String> {
    let folder = format!("languages/{id}");
    if !root().join(&folder).join("language.toml").is_file() {
        return Err("has no language.toml".to_owned());
    }
    let language = toml(&format!("{folder}/language.toml"));
    let sample = language.get("sample").and_then(|sample| sample.as_table()).ok_or("has no sample")?;
    let files = sample.get("files").and_then(|files| files.as_array()).into_iter().flatten();
    let names: Vec<&str> = sample.get("source").into_iter().chain(files).filter_map(|name| name.as_str()).collect();
    if names.is_empty() {
        return Err("its sample has no source".to_owned());
    }
    text(sample, "expected").ok_or("its sample expects nothing")?;
    match names.iter().find(|name| !root().join(&folder).join(name).is_file()) {
        None => Ok(()),
        Some(name) => Err(format!("has no {name}")),
    }
}

fn problems(folder: &str, problem: fn(&str) -> Result<(), String>) -> Vec<String> {
    let names = folders(folder);
    assert!(!names.is_empty(), "{folder} is empty");
    names.iter().filter_map(|name| Some(format!("{folder}/{name} {}", problem(name).err()?))).collect()
}

#[test]
fn every_case_of_the_corpus_states_its_verdict() {
    nothing_wrong("corpus/README.md says what a case holds", &problems("corpus", case_problem));
}

#[test]
fn every_language_has_a_sample() {
    nothing_wrong("languages/README.md says what a language holds", &problems("languages", language_problem));
}
