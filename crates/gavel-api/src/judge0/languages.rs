//! Judge0's numbers for languages, and which of ours stand behind them.

use super::Flavour;
use crate::languages::Shelf;
use gavel_core::Language;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// One language as Judge0 lists it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: u32,
    pub name: String,
    /// `None`: archived.
    pub language: Option<Arc<Language>>,
}

/// The number of multi-file programs, in both flavours.
pub const MULTI_FILE: u32 = 89;

/// Languages that Judge0 retired before it counted to 43: known by name, and refused.
const ARCHIVED: [&str; 42] = [
    "Bash (4.4)",
    "Bash (4.0)",
    "Basic (fbc 1.05.0)",
    "C (gcc 7.2.0)",
    "C (gcc 6.4.0)",
    "C (gcc 6.3.0)",
    "C (gcc 5.4.0)",
    "C (gcc 4.9.4)",
    "C (gcc 4.8.5)",
    "C++ (g++ 7.2.0)",
    "C++ (g++ 6.4.0)",
    "C++ (g++ 6.3.0)",
    "C++ (g++ 5.4.0)",
    "C++ (g++ 4.9.4)",
    "C++ (g++ 4.8.5)",
    "C# (mono 5.4.0.167)",
    "C# (mono 5.2.0.224)",
    "Clojure (1.8.0)",
    "Crystal (0.23.1)",
    "Elixir (1.5.1)",
    "Erlang (OTP 20.0)",
    "Go (1.9)",
    "Haskell (ghc 8.2.1)",
    "Haskell (ghc 8.0.2)",
    "Insect (5.0.0)",
    "Java (OpenJDK 9 with Eclipse OpenJ9)",
    "Java (OpenJDK 8)",
    "Java (OpenJDK 7)",
    "JavaScript (nodejs 8.5.0)",
    "JavaScript (nodejs 7.10.1)",
    "OCaml (4.05.0)",
    "Octave (4.2.0)",
    "Pascal (fpc 3.0.0)",
    "Python (3.6.0)",
    "Python (3.5.3)",
    "Python (2.7.9)",
    "Python (2.6.9)",
    "Ruby (2.4.0)",
    "Ruby (2.3.3)",
    "Ruby (2.2.6)",
    "Ruby (2.1.9)",
    "Rust (1.20.0)",
];

/// The other flavour counts anew. "Python for ML" is plain Python here, and says so by its name: the
/// official SDK runs programs in it when it is told no language.
const EXTRA: &[(u32, &str)] = &[
    (1, "c-clang"),
    (2, "cpp-clang"),
    (4, "java"),
    (9, "nim"),
    (10, "python3"),
    (13, "c-clang"),
    (14, "cpp-clang"),
    (22, "csharp"),
    (25, "python3"),
    (27, "pypy3"),
    (31, "python3"),
    (32, "python3"),
    (33, "python3"),
];

/// What can be submitted, by name.
pub fn active(shelf: &Shelf, flavour: Flavour) -> Vec<Entry> {
    let mut entries = match flavour {
        Flavour::Ce => shelf
            .catalogue
            .iter()
            .flat_map(|language| language.judge0_ids.iter().filter_map(|id| entry(shelf, *id, language)))
            .collect::<Vec<_>>(),
        Flavour::Extra => {
            let listed = EXTRA.iter().filter_map(|(id, ours)| entry(shelf, *id, shelf.get(ours)?));
            listed.chain(find_active(shelf, Flavour::Ce, MULTI_FILE)).collect()
        }
    };
    entries.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    entries
}

/// Also the archived ones.
pub fn all(shelf: &Shelf, flavour: Flavour) -> Vec<Entry> {
    let mut entries = active(shelf, flavour);
    if flavour == Flavour::Ce {
        entries.extend((1..).zip(ARCHIVED).map(|(id, name)| Entry { id, name: name.to_owned(), language: None }));
    }
    entries.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    entries
}

pub fn find(shelf: &Shelf, flavour: Flavour, id: u32) -> Option<Entry> {
    find_active(shelf, flavour, id).or_else(|| {
        let archived = ARCHIVED.get(id.checked_sub(1)? as usize).filter(|_| flavour == Flavour::Ce)?;
        Some(Entry { id, name: (*archived).to_owned(), language: None })
    })
}

fn find_active(shelf: &Shelf, flavour: Flavour, id: u32) -> Option<Entry> {
    let language = match flavour {
        Flavour::Extra if id != MULTI_FILE => {
            let (_, ours) = EXTRA.iter().find(|(number, _)| *number == id)?;
            shelf.get(ours)?
        }
        _ => shelf.catalogue.iter().find(|language| language.judge0_ids.contains(&id))?,
    };
    entry(shelf, id, language)
}

/// `None`: it does not work on this server, so for its clients it does not exist.
fn entry(shelf: &Shelf, id: u32, language: &Arc<Language>) -> Option<Entry> {
    if shelf.unavailable(&language.id).is_some() {
        return None;
    }
    Some(Entry { id, name: name_on(shelf, Some(id), language), language: Some(language.clone()) })
}

/// The name of a job's language, whether or not it still works here.
pub fn name(shelf: &Shelf, flavour: Flavour, id: Option<u32>, ours: &str) -> String {
    if let Some(entry) = id.and_then(|id| find(shelf, flavour, id)) {
        return entry.name;
    }
    shelf.get(ours).map_or_else(|| ours.to_owned(), |language| name_on(shelf, id, language))
}

fn name_on(shelf: &Shelf, id: Option<u32>, language: &Language) -> String {
    match id {
        Some(43) => "Plain Text".to_owned(),
        Some(44) => "Executable".to_owned(),
        Some(MULTI_FILE) => "Multi-file program".to_owned(),
        _ => with_version(&language.name, shelf.state(&language.id).version.as_deref()),
    }
}

/// Judge0's pattern, `Language (Toolchain version)`: clients choose by what stands before the first space.
fn with_version(name: &str, version: Option<&str>) -> String {
    let Some(version) = version.filter(|version| !version.is_empty()) else { return name.to_owned() };
    let Some((language, tools)) = name.strip_suffix(')').and_then(|name| name.split_once(" (")) else {
        return format!("{name} ({version})");
    };
    let (first, others) = tools.split_once(", ").map_or((tools, None), |(first, others)| (first, Some(others)));
    let first = match first {
        // The version is the language's and not that of a tool.
        "CPython" | "JVM" => version.to_owned(),
        tool => format!("{tool} {version}"),
    };
    match others {
        Some(others) => format!("{language} ({first}, {others})"),
        None => format!("{language} ({first})"),
    }
}

/// Does a language take compiler options? That is Judge0's "compiled".
pub fn takes_options(language: &Language) -> bool {
    language.compile.as_ref().is_some_and(|compile| compile.argv.iter().any(|element| element == "{options}"))
}

/// `GET /languages`
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Judge0Language)]
pub struct Listed {
    pub id: u32,
    pub name: String,
}

/// `GET /languages/all`
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Judge0LanguageListed)]
pub struct ListedWithArchived {
    pub id: u32,
    pub name: String,
    pub is_archived: bool,
}

/// `GET /languages/{id}`
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Judge0LanguageShown)]
pub struct Shown {
    pub id: u32,
    pub name: String,
    pub is_archived: bool,
    pub source_file: Option<String>,
    pub compile_cmd: Option<String>,
    pub run_cmd: Option<String>,
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        Self { id: entry.id, name: entry.name }
    }
}

impl From<Entry> for ListedWithArchived {
    fn from(entry: Entry) -> Self {
        Self { id: entry.id, name: entry.name, is_archived: entry.language.is_none() }
    }
}

impl From<Entry> for Shown {
    fn from(entry: Entry) -> Self {
        let is_archived = entry.language.is_none();
        // A program of many files brings all three itself.
        let ours = entry.language.as_deref().filter(|_| entry.id != MULTI_FILE);
        let compile = ours.filter(|language| takes_options(language)).and_then(|language| language.compile.as_ref());
        Self {
            id: entry.id,
            name: entry.name,
            is_archived,
            source_file: ours.and_then(|language| language.source_file.clone()),
            compile_cmd: compile.map(|compile| template(&compile.argv)),
            run_cmd: ours.map(|language| template(&language.run)),
        }
    }
}

/// A command for people to read: options are `%s`, as Judge0 writes them.
fn template(argv: &[String]) -> String {
    let shown: Vec<_> = argv.iter().filter(|element| *element != "{args}").map(|element| quoted(element)).collect();
    shown.join(" ").replace("{options}", "%s")
}

/// Words as a shell would read them back.
pub fn command_line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    if word == "{options}" {
        return word.to_owned();
    }
    // Only a NUL cannot be quoted, and no word has one.
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern_of_judge0() {
        for (name, version, shown) in [
            ("C (GCC)", "12.2.0", "C (GCC 12.2.0)"),
            ("C++ (Clang)", "14.0.6", "C++ (Clang 14.0.6)"),
            ("Python (CPython)", "3.11.2", "Python (3.11.2)"),
            ("Kotlin (JVM)", "1.3.31", "Kotlin (1.3.31)"),
            ("Bash", "5.2.15", "Bash (5.2.15)"),
            ("Assembly (NASM, x86-64)", "2.16.01", "Assembly (NASM 2.16.01, x86-64)"),
            ("TypeScript (esbuild, Node.js)", "0.17.0", "TypeScript (esbuild 0.17.0, Node.js)"),
            ("SQL (SQLite)", "", "SQL (SQLite)"),
        ] {
            assert_eq!(with_version(name, Some(version)), shown);
        }
        assert_eq!(with_version("Go", None), "Go");
    }

    #[test]
    fn commands_are_shown_as_a_shell_reads_them() {
        let argv = ["/usr/bin/gcc", "{options}", "a b.c", "{args}"].map(str::to_owned);
        assert_eq!(template(&argv), "/usr/bin/gcc %s 'a b.c'");
    }
}
