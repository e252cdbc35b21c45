//! The door: a [`Draft`] becomes a [`Job`] or is refused with everything that is wrong with it.

use crate::callback::CallbackRules;
use crate::job::{Draft, Interactive, Job};
use crate::language::{Catalogue, Language};
use crate::limits::{Limits, LimitsRequest};
use crate::path;
use crate::units::{Bytes, thousands};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What this server accepts, whatever the language.
#[derive(Debug, Clone)]
pub struct Rules {
    pub max_source: Bytes,
    pub max_stdin: Bytes,
    pub max_files: usize,
    pub max_files_total: Bytes,
    pub max_runs: u32,
    pub max_collect: usize,
    /// The operator lets jobs reach the network.
    pub allow_network: bool,
    /// Jobs may name a URL that is told of their end; `None`: they may not.
    pub callbacks: Option<CallbackRules>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_source: Bytes::mib(1),
            max_stdin: Bytes::mib(16),
            max_files: 1000,
            max_files_total: Bytes::mib(16),
            max_runs: 20,
            max_collect: 32,
            allow_network: false,
            callbacks: None,
        }
    }
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field in the request, as in `limits.memory_kb` or `files[2].path`.
    pub field: String,
    pub message: String,
}

/// Why a draft was refused. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub problems: Vec<Problem>,
    /// Something is larger than this server takes, as opposed to wrong.
    pub too_large: bool,
}

const MAX_ARGS: usize = 256;
const MAX_ARG: usize = 16 * 1024;
const MAX_ENV: usize = 64;
const MAX_METADATA: usize = 64;
const MAX_METADATA_VALUE: usize = 1024;
const MAX_PRIORITY: i32 = 100;

/// The largest terminal that somebody may ask for.
pub const MAX_ROWS: u16 = 1000;
pub const MAX_COLS: u16 = 1000;

/// Variables that change how a runtime loads code or that the sandbox itself sets. A program may set
/// them for its children; a request may not set them for the program that is measured.
const REFUSED_ENV: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "BASH_ENV",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "NODE_OPTIONS",
    "PERL5OPT",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "RUBYOPT",
];

struct Findings {
    problems: Vec<Problem>,
    too_large: bool,
}

impl Findings {
    fn wrong(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), message: message.into() });
    }

    fn size(&mut self, field: &str, size: usize, max: Bytes) {
        if size as u64 > max.0 {
            self.too_large = true;
            self.wrong(
                field,
                format!("is {} bytes; this server takes at most {} ({max})", thousands(size as u64), thousands(max.0)),
            );
        }
    }
}

/// Checks everything, so that a client learns of all its mistakes at once.
pub fn validate(draft: Draft, catalogue: &Catalogue, rules: &Rules) -> Result<Job, Rejection> {
    let mut found = Findings { problems: Vec::new(), too_large: false };
    let language = find_language(&draft, catalogue, &mut found);
    check_source(&draft, language.as_deref(), rules, &mut found);
    found.size("stdin", draft.stdin.len(), rules.max_stdin);
    check_strings("args", &draft.args, &mut found);
    check_strings("compiler_options", &draft.compiler_options, &mut found);
    check_env(&draft, &mut found);
    check_files(&draft, language.as_deref(), rules, &mut found);
    check_collect(&draft, rules, &mut found);
    check_switches(&draft, rules, &mut found);
    let limits = language.as_deref().and_then(|language| resolve_limits(&draft, language, &mut found));
    match (language, limits) {
        (Some(_), Some(limits)) if found.problems.is_empty() => Ok(accept(draft, limits)),
        _ => Err(Rejection { problems: found.problems, too_large: found.too_large }),
    }
}

fn find_language(draft: &Draft, catalogue: &Catalogue, found: &mut Findings) -> Option<Arc<Language>> {
    let language = catalogue.get(&draft.language).cloned();
    if language.is_none() {
        let hint = match catalogue.similar(&draft.language) {
            Some(id) => format!("did you mean {id:?}?"),
            None => "GET /api/v1/languages lists them".to_owned(),
        };
        let shown: String = draft.language.chars().take(64).collect();
        found.wrong("language", format!("there is no language {shown:?}: {hint}"));
    }
    language
}

fn check_source(draft: &Draft, language: Option<&Language>, rules: &Rules, found: &mut Findings) {
    match language.filter(|language| language.source_file.is_none()) {
        None if draft.source.is_empty() => {
            found.wrong("source_code", "is empty: send the program as source_code or source_code_base64");
        }
        Some(language) if !draft.source.is_empty() => {
            found.wrong("source_code", format!("must be empty: a program in {} is all in its files", language.id));
        }
        Some(language) if draft.files.is_empty() => {
            found.wrong("files", format!("is empty: a program in {} is all in its files", language.id));
        }
        _ => {}
    }
    found.size("source_code", draft.source.len(), rules.max_source);
}

fn check_strings(field: &str, list: &[String], found: &mut Findings) {
    if list.len() > MAX_ARGS {
        found.wrong(field, format!("has {} elements; at most {MAX_ARGS} are allowed", list.len()));
    }
    for (i, text) in list.iter().enumerate() {
        if text.contains('\0') {
            found.wrong(format!("{field}[{i}]"), "contains a NUL byte, which no argument can carry");
        }
        if text.len() > MAX_ARG {
            found.wrong(format!("{field}[{i}]"), format!("is longer than {MAX_ARG} bytes"));
        }
    }
}

fn check_env(draft: &Draft, found: &mut Findings) {
    if draft.env.len() > MAX_ENV {
        found.wrong("env", format!("has {} variables; at most {MAX_ENV} are allowed", draft.env.len()));
    }
    for (name, value) in &draft.env {
        let plain = !name.is_empty()
            && name.len() <= 128
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            let shown: String = name.chars().take(64).collect();
            found.wrong("env", format!("{shown:?} is no variable name: use letters, digits and _"));
        } else if name.starts_with("LD_") || REFUSED_ENV.contains(&name.as_str()) {
            found.wrong(
                format!("env.{name}"),
                "may not be set: it is the sandbox's, or it changes how the runtime loads code",
            );
        } else if value.contains('\0') || value.len() > MAX_ARG {
            found.wrong(format!("env.{name}"), format!("contains a NUL byte or is longer than {MAX_ARG} bytes"));
        }
    }
}

fn check_files(draft: &Draft, language: Option<&Language>, rules: &Rules, found: &mut Findings) {
    if draft.files.len() > rules.max_files {
        found.wrong("files", format!("has {} files; at most {} are allowed", draft.files.len(), rules.max_files));
        return;
    }
    found.size("files", draft.files.iter().map(|f| f.content.len()).sum(), rules.max_files_total);
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, file) in draft.files.iter().enumerate() {
        let field = || format!("files[{i}].path");
        if let Err(message) = path::check(&file.path) {
            found.wrong(field(), message);
            continue;
        }
        if language.is_some_and(|l| l.source_file.as_ref() == Some(&file.path)) {
            found.wrong(field(), format!("{:?} is the name of the source itself", file.path));
        }
        if !seen.insert(&file.path) {
            found.wrong(field(), format!("{:?} appears twice", file.path));
        }
    }
    let source = language.and_then(|language| language.source_file.as_deref());
    for path in &seen {
        // "a" and "a/b" cannot both be files.
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = parents.find(|parent| seen.contains(parent) || source == Some(*parent)) {
            found.wrong("files", format!("{parent:?} is a file and a directory of {path:?}"));
        }
    }
}

fn check_collect(draft: &Draft, rules: &Rules, found: &mut Findings) {
    if draft.collect.len() > rules.max_collect {
        found.wrong(
            "collect",
            format!("has {} patterns; at most {} are allowed", draft.collect.len(), rules.max_collect),
        );
    }
    for (i, pattern) in draft.collect.iter().enumerate() {
        if let Err(message) = path::check(pattern) {
            found.wrong(format!("collect[{i}]"), message);
        }
    }
}

fn check_switches(draft: &Draft, rules: &Rules, found: &mut Findings) {
    if draft.network && !rules.allow_network {
        found.wrong("network", "this server does not let jobs reach the network: leave it out or set it to false");
    }
    if let Some(interactive) = &draft.interactive {
        check_interactive(draft, interactive, found);
    }
    if let Some(callback) = &draft.callback {
        let checked = match &rules.callbacks {
            Some(callbacks) => callbacks.check(&callback.url).map(drop),
            None => Err("callbacks are switched off on this server: leave it out and use ?wait=true or the job's \
                         events, or have the operator set callbacks.enabled"
                .to_owned()),
        };
        if let Err(message) = checked {
            found.wrong("callback_url", message);
        }
    }
    let runs = draft.runs.unwrap_or(1);
    if runs < 1 || runs > rules.max_runs {
        found.wrong("runs", format!("is {runs}; it must be between 1 and {}", rules.max_runs));
    }
    if draft.priority.unsigned_abs() > MAX_PRIORITY.unsigned_abs() {
        found
            .wrong("priority", format!("is {}; it must be between -{MAX_PRIORITY} and {MAX_PRIORITY}", draft.priority));
    }
    if draft.metadata.len() > MAX_METADATA {
        found.wrong("metadata", format!("has {} entries; at most {MAX_METADATA} are allowed", draft.metadata.len()));
    }
    if draft.metadata.iter().any(|(k, v)| k.len() > MAX_METADATA_VALUE || v.len() > MAX_METADATA_VALUE) {
        found.wrong("metadata", format!("has a name or value longer than {MAX_METADATA_VALUE} bytes"));
    }
    if draft.metadata.iter().any(|(k, v)| k.contains('\0') || v.contains('\0')) {
        found.wrong("metadata", "contains a NUL byte, which not every database can store");
    }
}

/// Its client types once, so it runs once.
fn check_interactive(draft: &Draft, interactive: &Interactive, found: &mut Findings) {
    if draft.runs.unwrap_or(1) > 1 {
        found.wrong("runs", "must be 1 for an interactive job: its input is there once");
    }
    let sides = interactive.tty.map(|tty| [("tty.rows", tty.rows, MAX_ROWS), ("tty.cols", tty.cols, MAX_COLS)]);
    for (field, asked, max) in sides.into_iter().flatten() {
        if asked < 1 || asked > max {
            found.wrong(field, format!("is {asked}; it must be between 1 and {max}"));
        }
    }
}

fn resolve_limits(draft: &Draft, language: &Language, found: &mut Findings) -> Option<Limits> {
    let mut asked = draft.limits.clone();
    if draft.interactive.is_some() {
        // Somebody types: the usual limit is made for programs that do not wait for anybody. The idle limit
        // ends what is forgotten.
        asked = LimitsRequest { wall_time: asked.wall_time.or(Some(language.cap.wall_time)), ..asked };
    }
    match Limits::resolve(&asked, &language.limits, &language.cap) {
        Ok(limits) => Some(limits),
        Err(wrong) => {
            for w in wrong {
                found.wrong(
                    format!("limits.{}", w.field),
                    format!(
                        "is {}; for {} it must be between {} and {} {}",
                        w.asked, language.id, w.min, w.max, w.unit
                    ),
                );
            }
            None
        }
    }
}

fn accept(draft: Draft, limits: Limits) -> Job {
    Job {
        language: draft.language,
        source: draft.source,
        stdin: draft.stdin,
        args: draft.args,
        compiler_options: draft.compiler_options,
        env: draft.env,
        files: draft.files,
        limits,
        expected_output: draft.expected_output,
        stderr_to_stdout: draft.stderr_to_stdout,
        network: draft.network,
        runs: draft.runs.unwrap_or(1),
        priority: draft.priority,
        interactive: draft.interactive,
        collect: draft.collect,
        callback: draft.callback,
        comparison: draft.comparison,
        metadata: draft.metadata,
        origin: draft.origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Callback, CallbackForm, File, Tty};
    use crate::limits::LimitsRequest;

    fn catalogue() -> Catalogue {
        Catalogue::new([Language {
            id: "python3".into(),
            name: "Python".into(),
            source_file: Some("main.py".into()),
            extensions: vec!["py".into()],
            compile: None,
            run: vec!["/usr/bin/python3".into(), "main.py".into()],
            env: Default::default(),
            limits: Limits::standard(),
            cap: Limits::standard_cap(),
            oom_markers: vec![],
            image: None,
            rootfs: None,
            backend: None,
            requires: vec![],
            packages: vec![],
            version_command: vec![],
            judge0_ids: vec![],
            sample: None,
        }])
    }

    /// Python without a source of its own.
    fn all_in_files() -> Catalogue {
        let python = Language::clone(catalogue().get("python3").unwrap());
        Catalogue::new([Language { source_file: None, ..python }])
    }

    fn good() -> Draft {
        Draft { language: "python3".into(), source: b"print(1)".to_vec(), ..Default::default() }
    }

    fn fields(change: impl FnOnce(&mut Draft)) -> Vec<String> {
        let mut draft = good();
        change(&mut draft);
        match validate(draft, &catalogue(), &Rules::default()) {
            Ok(_) => vec![],
            Err(rejection) => rejection.problems.into_iter().map(|p| p.field).collect(),
        }
    }

    fn file(path: &str) -> File {
        File { path: path.into(), content: b"x".to_vec() }
    }

    #[test]
    fn a_plain_draft_becomes_a_job_with_all_limits() {
        let job = validate(good(), &catalogue(), &Rules::default()).unwrap();
        assert_eq!((job.limits, job.runs), (Limits::standard(), 1));
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        type Change = fn(&mut Draft);
        let table: &[(Change, &str)] = &[
            (|d| d.language = "cobol".into(), "language"),
            (|d| d.source.clear(), "source_code"),
            (|d| d.args = vec!["a\0".into()], "args[0]"),
            (|d| d.compiler_options = vec!["x".into(); 257], "compiler_options"),
            (
                |d| {
                    d.env.insert("LD_PRELOAD".into(), "x".into());
                },
                "env.LD_PRELOAD",
            ),
            (
                |d| {
                    d.env.insert("A=B".into(), "x".into());
                },
                "env",
            ),
            (|d| d.files = vec![file("../x")], "files[0].path"),
            (|d| d.files = vec![file("/etc/x")], "files[0].path"),
            (|d| d.files = vec![file("a"), file("a")], "files[1].path"),
            (|d| d.files = vec![file("a"), file("a/b")], "files"),
            (|d| d.files = vec![file("main.py")], "files[0].path"),
            (|d| d.collect = vec!["../*".into()], "collect[0]"),
            (|d| d.network = true, "network"),
            (
                |d| {
                    d.interactive = Some(Interactive { tty: None });
                    d.runs = Some(2);
                },
                "runs",
            ),
            (|d| d.interactive = Some(Interactive { tty: Some(Tty { rows: 0, cols: 80 }) }), "tty.rows"),
            (|d| d.interactive = Some(Interactive { tty: Some(Tty { rows: 24, cols: 1001 }) }), "tty.cols"),
            (|d| d.callback = Some(Callback { url: "http://x".into(), form: CallbackForm::Native }), "callback_url"),
            (|d| d.runs = Some(0), "runs"),
            (|d| d.priority = 1000, "priority"),
            (|d| d.priority = i32::MIN, "priority"),
            (
                |d| d.limits = LimitsRequest { memory: Some(Bytes::mib(1 << 20)), ..Default::default() },
                "limits.memory_kb",
            ),
        ];
        for (change, field) in table {
            assert_eq!(fields(*change), [*field]);
        }
    }

    #[test]
    fn the_source_is_a_file_like_the_others() {
        let file = |path: &str| File { path: path.into(), content: vec![] };
        assert_eq!(fields(|d| d.files = vec![file("main.py")]), ["files[0].path"]);
        assert_eq!(fields(|d| d.files = vec![file("main.py/x")]), ["files"]);
        assert_eq!(fields(|d| d.files = vec![file("a"), file("a/b")]), ["files"]);
        assert_eq!(fields(|d| d.files = vec![file("main.py.d/x")]), [] as [&str; 0]);
    }

    #[test]
    fn a_language_without_a_source_takes_files_and_no_source() {
        let check = |source: &[u8], files: Vec<File>| {
            let draft = Draft { source: source.to_vec(), files, ..good() };
            validate(draft, &all_in_files(), &Rules::default()).map_err(|rejection| rejection.problems)
        };
        assert!(check(b"", vec![file("run")]).is_ok());
        // No name is taken.
        assert!(check(b"", vec![file("main.py")]).is_ok());
        let problem = |field: &str, message: &str| {
            let message = format!("{message}: a program in python3 is all in its files");
            Err(vec![Problem { field: field.into(), message }])
        };
        assert_eq!(check(b"x", vec![file("run")]), problem("source_code", "must be empty"));
        assert_eq!(check(b"", vec![]), problem("files", "is empty"));
        // One mistake, one message.
        assert_eq!(check(b"x", vec![]), problem("source_code", "must be empty"));
    }

    #[test]
    fn a_callback_is_for_the_operator_to_allow() {
        let draft = |url: &str| {
            let callback = Some(Callback { url: url.into(), form: CallbackForm::Native });
            Draft { callback, ..good() }
        };
        let rules = Rules { callbacks: Some(CallbackRules::default()), ..Rules::default() };
        let job = validate(draft("https://example.org/hook"), &catalogue(), &rules).unwrap();
        assert_eq!(job.callback.unwrap().url, "https://example.org/hook");
        let message = |url, rules| validate(draft(url), &catalogue(), rules).unwrap_err().problems[0].message.clone();
        assert!(message("http://127.0.0.1/", &rules).contains("loopback"));
        assert!(message("https://example.org/hook", &Rules::default()).contains("callbacks.enabled"));
    }

    #[test]
    fn an_interactive_job_may_take_its_time() {
        let mut draft = Draft { interactive: Some(Interactive { tty: None }), ..good() };
        let job = validate(draft.clone(), &catalogue(), &Rules::default()).unwrap();
        assert_eq!(job.limits.wall_time, Limits::standard_cap().wall_time);
        draft.limits.wall_time = Some(std::time::Duration::from_secs(7));
        let job = validate(draft, &catalogue(), &Rules::default()).unwrap();
        assert_eq!(job.limits.wall_time.as_secs(), 7, "what was asked for stands");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        assert_eq!(
            fields(|d| {
                d.source.clear();
                d.runs = Some(0);
                d.language = "x".into()
            }),
            ["language", "source_code", "runs"]
        );
    }

    #[test]
    fn too_large_is_told_apart_from_wrong() {
        let mut draft = good();
        draft.source = vec![b'x'; 10 << 20];
        let rejection = validate(draft, &catalogue(), &Rules::default()).unwrap_err();
        assert!(rejection.too_large);
        assert!(rejection.problems[0].message.contains("1,048,576"), "{rejection:?}");
    }

    #[test]
    fn a_near_miss_gets_a_hint() {
        let mut draft = good();
        draft.language = "py".into();
        let rejection = validate(draft, &catalogue(), &Rules::default()).unwrap_err();
        assert_eq!(rejection.problems[0].message, "there is no language \"py\": did you mean \"python3\"?");
    }
}
