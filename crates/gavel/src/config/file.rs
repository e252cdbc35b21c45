//! The file: TOML to (key, text, line), with every unknown key named together with its line.

use super::resolve::{ConfigError, Origin};
use super::table::{KEYS, Key};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// One key as the file has it.
pub struct Entry {
    pub path: String,
    pub text: String,
    pub line: usize,
}

/// Reads a whole file; finds all its mistakes, not only the first.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        vec![ConfigError::file(file, line, error.message())]
    })?;
    let mut found = Found { file, text, entries: Vec::new(), errors: Vec::new() };
    found.section("", table.get_ref());
    if found.errors.is_empty() { Ok(found.entries) } else { Err(found.errors) }
}

struct Found<'a> {
    file: &'a Path,
    text: &'a str,
    entries: Vec<Entry>,
    errors: Vec<ConfigError>,
}

impl Found<'_> {
    fn section(&mut self, section: &str, table: &DeTable) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
            let line = line_of(self.text, key.span().start);
            let known = KEYS.iter().find(|key| key.path() == path);
            match (value.get_ref(), known) {
                (DeValue::Table(inner), None) if is_section(&path) => self.section(&path, inner),
                (_, None) => self.errors.push(ConfigError::file(self.file, line, unknown(&path))),
                (value, Some(key)) => match scalar(value) {
                    Some(text) => self.entries.push(Entry { path, text, line }),
                    None => self.errors.push(ConfigError::file(self.file, line, wrong_shape(key))),
                },
            }
        }
    }
}

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.section == path || key.section.starts_with(&format!("{path}.")))
}

fn wrong_shape(key: &Key) -> String {
    format!("{} cannot have this value: write a {}", key.path(), key.kind.describe())
}

/// An unknown key, with the nearest known one where there is one.
pub fn unknown(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let near = KEYS.iter().map(Key::path).find(|known| {
        let same_name = known.rsplit('.').next() == Some(name);
        same_name || known.replace(['_', '.'], "") == path.replace(['_', '.', '-'], "")
    });
    match near {
        Some(known) => format!("there is no key {path}: did you mean {known}?"),
        None => format!("there is no key {path}: `gavel config` prints all of them"),
    }
}

fn scalar(value: &DeValue) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    DeValue::Integer(number) => Some(number.to_string()),
                    _ => None,
                })
                .collect();
            Some(items?.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

impl Entry {
    pub fn origin(&self, file: &Path) -> Origin {
        Origin::File { file: file.to_owned(), line: self.line }
    }
}
