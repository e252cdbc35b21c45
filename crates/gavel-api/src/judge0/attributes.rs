//! The attributes of a submission: read as Judge0 reads them, refused in its words, and made a draft.
//!
//! What is checked here is what Judge0 has messages of its own for. Everything else is left to the one
//! validation of jobs, whose findings [`translate`] puts under the attribute they belong to.

use super::error::Errors;
use super::languages::{self, MULTI_FILE};
use super::options::{Bound, Options};
use super::origin::Origin;
use super::{Flavour, base64};
use crate::archive;
use crate::languages::Shelf;
use gavel_core::check::Comparison;
use gavel_core::job::{Callback, CallbackForm};
use gavel_core::{Bytes, Draft, File, Language, LimitsRequest, Rejection, Rules};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// What attributes are read with.
#[derive(Clone)]
pub struct Reading {
    pub shelf: Arc<Shelf>,
    pub flavour: Flavour,
    pub options: Arc<Options>,
    pub rules: Rules,
    /// Source, input and expected output are base64.
    pub base64: bool,
}

/// Every attribute that is read.
pub const ATTRIBUTES: [&str; 20] = [
    "additional_files",
    "callback_url",
    "command_line_arguments",
    "compiler_options",
    "cpu_extra_time",
    "cpu_time_limit",
    "enable_network",
    "enable_per_process_and_thread_memory_limit",
    "enable_per_process_and_thread_time_limit",
    "expected_output",
    "language_id",
    "max_file_size",
    "max_processes_and_or_threads",
    "memory_limit",
    "number_of_runs",
    "redirect_stderr_to_stdout",
    "source_code",
    "stack_limit",
    "stdin",
    "wall_time_limit",
];

/// The longest text of options and of arguments, in characters.
const MAX_WORDS: usize = 512;

impl Reading {
    /// What the archive of a submission may grow to, by its size alone.
    pub fn may_unpack(&self, attributes: &Map<String, Value>) -> u64 {
        match attributes.get("additional_files") {
            // Four characters are at most three bytes.
            Some(Value::String(text)) if self.options.additional_files && !text.is_empty() => {
                archive_limits(&self.options, &self.rules).most((text.len() as u64).div_ceil(4) * 3)
            }
            _ => 0,
        }
    }

    /// One submission, or everything that is wrong with it. Its archive takes of `room`, in bytes.
    pub fn draft(&self, attributes: Map<String, Value>, room: &mut u64) -> Result<Draft, Errors> {
        let mut given = Given { attributes, errors: Errors::default(), room };
        let Some((id, language)) = self.language(&mut given) else {
            // The rest is checked as far as it does not depend on the language.
            self.rest(&mut given, None);
            return Err(given.errors);
        };
        match self.rest(&mut given, Some((id, &language))) {
            Some(draft) if given.errors.is_empty() => Ok(draft),
            _ => Err(given.errors),
        }
    }

    fn language(&self, given: &mut Given) -> Option<(u32, Arc<Language>)> {
        let Some(id) = given.identifier("language_id") else {
            given.wrong("language_id", "can't be blank");
            // Judge0 says both, the second with a hole in it, and clients compare the whole answer.
            given.wrong("language_id", "language with id  doesn't exist");
            return None;
        };
        let entry = u32::try_from(id).ok().and_then(|id| languages::find(&self.shelf, self.flavour, id));
        match entry {
            None => given.wrong("language_id", format!("language with id {id} doesn't exist")),
            Some(entry) => match entry.language {
                Some(language) => return Some((entry.id, language)),
                None => {
                    let message = format!("language with id {id} is archived and cannot be used anymore");
                    given.wrong("language_id", message);
                }
            },
        }
        None
    }

    fn rest(&self, given: &mut Given, language: Option<(u32, &Arc<Language>)>) -> Option<Draft> {
        let options = &self.options;
        let multi_file = language.is_some_and(|(id, _)| id == MULTI_FILE);
        let source = given.content("source_code", self.base64);
        match (is_blank(source.as_deref()), multi_file) {
            (true, false) => given.wrong("source_code", "can't be blank"),
            (false, true) => given.wrong("source_code", "must be blank"),
            _ => {}
        }
        let stdin = given.content("stdin", self.base64);
        let expected_output = given.content("expected_output", self.base64);

        let compiler_options = given.words("compiler_options");
        let ours = language.map(|(_, language)| &**language);
        self.check_compiler_options(given, compiler_options.as_deref(), ours);
        let arguments = given.words("command_line_arguments");
        if !options.command_line_arguments && arguments.as_deref().is_some_and(|text| !text.trim().is_empty()) {
            given.wrong("command_line_arguments", "setting command line arguments is not allowed");
        }

        let cpu = given.seconds("cpu_time_limit", "0", options.cpu_time);
        let extra = given.seconds("cpu_extra_time", "0", options.cpu_extra_time);
        let wall = given.seconds("wall_time_limit", "1", options.wall_time);
        let memory = given.whole("memory_limit", Least::Is(2048), options.memory);
        let stack = given.whole("stack_limit", Least::Is(0), options.stack);
        let processes = given.whole("max_processes_and_or_threads", Least::Above(0), options.processes);
        let file_size = given.whole("max_file_size", Least::Is(0), options.file_size);
        let runs = given.whole("number_of_runs", Least::Above(0), options.runs);

        let per_process_time_limit = given.switch("enable_per_process_and_thread_time_limit");
        let per_process_memory_limit = given.switch("enable_per_process_and_thread_memory_limit");
        let stderr_to_stdout = given.switch("redirect_stderr_to_stdout");
        let network = given.switch("enable_network");
        if network && !self.rules.allow_network {
            given.wrong("enable_network", "enabling network is not allowed");
        }
        let callback_url = given.text("callback_url").filter(|url| !url.trim().is_empty());
        if callback_url.is_some() && !options.callbacks {
            given.wrong("callback_url", "setting callback is not allowed");
        }
        let archive = given.text("additional_files").map(|text| base64::decode(&text));
        let files = self.files(given, archive.as_deref(), language.map(|(id, language)| (id, &**language)));

        let (language_id, language) = language?;
        let limits = Asked { cpu, wall, memory, stack, processes, file_size }.limits(language);
        let args = split(given, "command_line_arguments", arguments.as_deref());
        let compile_args = split(given, "compiler_options", compiler_options.as_deref());
        let kib = |asked: Setting<u64>, limit: Option<Bytes>| match limit {
            // What was not asked for is said as it holds.
            Some(limit) if !asked.given => limit.as_kib(),
            _ => asked.value,
        };
        let origin = Origin {
            flavour: self.flavour,
            language_id: Some(language_id),
            has_source: source.is_some(),
            has_stdin: stdin.is_some(),
            compiler_options,
            command_line_arguments: arguments,
            cpu_time_limit: cpu.value,
            cpu_extra_time: extra.value,
            wall_time_limit: wall.value,
            memory_limit: kib(memory, limits.memory),
            stack_limit: kib(stack, limits.stack),
            max_processes_and_or_threads: processes.value,
            per_process_time_limit,
            per_process_memory_limit,
            max_file_size: kib(file_size, limits.output),
            additional_files: archive.filter(|bytes| !bytes.is_empty()).map(|bytes| base64::encode(&bytes)),
        };
        Some(Draft {
            language: language.id.clone(),
            source: source.unwrap_or_default(),
            stdin: stdin.unwrap_or_default(),
            args,
            compiler_options: compile_args,
            files,
            limits,
            expected_output,
            stderr_to_stdout,
            network,
            runs: u32::try_from(runs.value).ok(),
            comparison: Comparison::Judge0,
            callback: callback_url.map(|url| Callback { url, form: CallbackForm::Judge0 }),
            origin: serde_json::to_vec(&origin).ok(),
            ..Draft::default()
        })
    }

    fn check_compiler_options(&self, given: &mut Given, text: Option<&str>, language: Option<&Language>) {
        if text.is_none_or(|text| text.trim().is_empty()) {
            return;
        }
        let allowed = &self.options.compiler_options_languages;
        let Some(language) = language else { return };
        if !self.options.compiler_options {
            given.wrong("compiler_options", "setting compiler options is not allowed");
        } else if !languages::takes_options(language) {
            given.wrong("compiler_options", "setting compiler options is only allowed for compiled languages");
        } else if !allowed.is_empty() && !allowed.iter().any(|name| language.name.starts_with(&format!("{name} "))) {
            let message = format!("setting compiler options is only allowed for {}", sentence(allowed));
            given.wrong("compiler_options", message);
        }
    }

    fn files(&self, given: &mut Given, archive: Option<&[u8]>, language: Option<(u32, &Language)>) -> Vec<File> {
        let archive = archive.filter(|bytes| !bytes.is_empty());
        let multi_file = language.is_some_and(|(id, _)| id == MULTI_FILE);
        let Some(bytes) = archive else {
            if multi_file {
                given.wrong("additional_files", "can't be blank");
            }
            return Vec::new();
        };
        if !self.options.additional_files {
            given.wrong("additional_files", "setting additional files is not allowed");
            return Vec::new();
        }
        // Judge0 runs on without the files when they are no archive; clients have come to send such things.
        if !is_archive(bytes) {
            return Vec::new();
        }
        let limits = archive::Limits { left: *given.room, ..archive_limits(&self.options, &self.rules) };
        match archive::unpack(bytes, &limits) {
            // What an archive brings never stands in the source's place.
            Ok(files) => {
                let size: u64 = files.iter().map(|file| file.content.len() as u64).sum();
                *given.room = given.room.saturating_sub(size);
                let source = language.and_then(|(_, language)| language.source_file.as_deref());
                files.into_iter().filter(|file| Some(file.path.as_str()) != source).collect()
            }
            Err(refused) => {
                given.wrong("additional_files", refused.to_string());
                Vec::new()
            }
        }
    }
}

fn archive_limits(options: &Options, rules: &Rules) -> archive::Limits {
    let total = Bytes::kib(options.max_extract).min(rules.max_files_total).0;
    archive::Limits { entries: rules.max_files, total, ..archive::Limits::default() }
}

/// What all archives of one request may grow to: as much as the body of a batch, and never less than one may.
pub fn most_unpacked(options: &Options, rules: &Rules, max_batch_body: Bytes) -> Bytes {
    Bytes(archive_limits(options, rules).total).max(max_batch_body)
}

/// Every zip archive ends in this record, with at most 65,535 bytes of comment behind it.
fn is_archive(bytes: &[u8]) -> bool {
    const END: &[u8] = b"PK\x05\x06";
    const LONGEST: usize = 22 + 65_535;
    let tail = &bytes[bytes.len().saturating_sub(LONGEST)..];
    tail.windows(END.len()).any(|window| window == END)
}

/// `C, C++ and Rust`
fn sentence(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

/// A number with whether it was asked for.
#[derive(Debug, Clone, Copy)]
struct Setting<T> {
    value: T,
    given: bool,
}

/// Judge0's limits, checked.
struct Asked {
    cpu: Setting<f64>,
    wall: Setting<f64>,
    memory: Setting<u64>,
    stack: Setting<u64>,
    processes: Setting<u64>,
    file_size: Setting<u64>,
}

impl Asked {
    /// As the native domain wants them. A default never asks for more than the language may have; what a
    /// client asks for is left as it is, so that it learns of it.
    fn limits(&self, language: &Language) -> LimitsRequest {
        let cap = &language.cap;
        let seconds = |asked: Setting<f64>, cap: Duration| {
            // A limit of less than a millisecond is one of a millisecond.
            let time = Duration::from_secs_f64(asked.value.max(0.001));
            if asked.given { time } else { time.min(cap) }
        };
        let kib = |asked: Setting<u64>, least: u64, cap: Bytes| {
            let size = Bytes::kib(asked.value.max(least));
            if asked.given { size } else { size.min(cap) }
        };
        let wall_time = seconds(self.wall, cap.wall_time);
        let processes = u32::try_from(self.processes.value).unwrap_or(u32::MAX);
        let cpu_time = if self.cpu.value == 0.0 {
            // No limit, that is: as much as all processes can use until the wall time is over.
            cap.cpu_time.min(wall_time.saturating_mul(processes))
        } else {
            seconds(self.cpu, cap.cpu_time)
        };
        let file_size = kib(self.file_size, 0, cap.file_size);
        LimitsRequest {
            cpu_time: Some(cpu_time),
            wall_time: Some(wall_time),
            memory: Some(kib(self.memory, 0, cap.memory)),
            stack: Some(kib(self.stack, LEAST_STACK, cap.stack)),
            processes: Some(if self.processes.given { processes } else { processes.min(cap.processes) }),
            // Streams are files, too.
            output: Some(file_size.min(cap.output)),
            file_size: Some(match BIG_FILES.contains(&language.id.as_str()) {
                true => file_size.max(language.limits.file_size),
                false => file_size,
            }),
        }
    }
}

/// Languages whose runtime keeps the code that it makes in a file of many megabytes, and dies of Judge0's
/// default for written files before it has run anything. Their output is bounded all the same.
const BIG_FILES: [&str; 2] = ["elixir", "erlang"];

/// A program cannot even start with less stack, in KiB.
const LEAST_STACK: u64 = 64;

/// Options or arguments as words: quotes group, a backslash escapes. Judge0 first deletes what means
/// something to its shell, and then runs one; here nothing is run, so a line break only separates.
fn split(given: &mut Given, attribute: &'static str, text: Option<&str>) -> Vec<String> {
    let Some(text) = text else { return Vec::new() };
    let kept: String = text.trim().chars().filter(|c| !matches!(c, '$' | '&' | ';' | '<' | '>' | '|' | '`')).collect();
    shlex::split(&kept).unwrap_or_else(|| {
        given.wrong(attribute, "has a quote that is not closed");
        Vec::new()
    })
}

fn is_blank(content: Option<&[u8]>) -> bool {
    content.is_none_or(|bytes| match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().all(char::is_whitespace),
        Err(_) => false,
    })
}

/// The smallest value of a whole number.
#[derive(Debug, Clone, Copy)]
enum Least {
    Is(u64),
    Above(u64),
}

/// Attributes as they came, and what is wrong with them so far.
struct Given<'a> {
    attributes: Map<String, Value>,
    errors: Errors,
    /// Bytes that archives may still grow to.
    room: &'a mut u64,
}

impl Given<'_> {
    fn wrong(&mut self, attribute: &'static str, message: impl Into<String>) {
        self.errors.add(attribute, message);
    }

    /// Lists and objects are dropped in silence, as Judge0 does.
    fn scalar(&mut self, attribute: &str) -> Option<Value> {
        let value = self.attributes.remove(attribute)?;
        (!matches!(value, Value::Null | Value::Array(_) | Value::Object(_))).then_some(value)
    }

    fn text(&mut self, attribute: &str) -> Option<String> {
        Some(match self.scalar(attribute)? {
            Value::String(text) => text,
            Value::Bool(true) => "t".to_owned(),
            Value::Bool(false) => "f".to_owned(),
            other => other.to_string(),
        })
    }

    fn content(&mut self, attribute: &str, base64: bool) -> Option<Vec<u8>> {
        let text = self.text(attribute)?;
        Some(if base64 { base64::decode(&text) } else { text.into_bytes() })
    }

    fn words(&mut self, attribute: &'static str) -> Option<String> {
        let text = self.text(attribute)?;
        if text.chars().count() > MAX_WORDS {
            self.wrong(attribute, format!("is too long (maximum is {MAX_WORDS} characters)"));
        }
        Some(text)
    }

    fn switch(&mut self, attribute: &str) -> bool {
        match self.scalar(attribute) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::String(text)) => {
                !matches!(text.as_str(), "" | "0" | "f" | "F" | "false" | "FALSE" | "off" | "OFF")
            }
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(_) => true,
        }
    }

    /// A whole number by the digits at its beginning: `46.7` is 46, `abc` is 0.
    fn identifier(&mut self, attribute: &str) -> Option<i64> {
        match self.scalar(attribute)? {
            Value::Bool(on) => Some(i64::from(on)),
            Value::Number(number) => Some(number.as_f64()? as i64),
            Value::String(text) => {
                let text = text.trim();
                if text.is_empty() {
                    return None;
                }
                let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                let sign = usize::from(text.starts_with(['-', '+']));
                let end = sign + digits(&text[sign..]);
                Some(text[..end].parse().unwrap_or(0))
            }
            _ => None,
        }
    }

    /// `None`: not given. What is given and no number has been refused.
    fn number(&mut self, attribute: &'static str) -> Option<f64> {
        let value = self.scalar(attribute)?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) => read_number(text),
            _ => None,
        };
        if number.is_none() {
            self.wrong(attribute, "is not a number");
        }
        number
    }

    fn seconds(&mut self, attribute: &'static str, least: &str, bound: Bound<f64>) -> Setting<f64> {
        let Some(value) = self.number(attribute) else { return Setting { value: bound.default, given: false } };
        if value < least.parse().unwrap_or(0.0) {
            self.wrong(attribute, format!("must be greater than or equal to {least}"));
        } else if value > bound.max {
            self.wrong(attribute, format!("must be less than or equal to {:?}", bound.max));
        }
        // What was refused is used for nothing, but must be a time.
        Setting { value: value.clamp(0.0, bound.max), given: true }
    }

    fn whole(&mut self, attribute: &'static str, least: Least, bound: Bound<u64>) -> Setting<u64> {
        let Some(value) = self.number(attribute) else { return Setting { value: bound.default, given: false } };
        match least {
            Least::Is(least) if value < least as f64 => {
                self.wrong(attribute, format!("must be greater than or equal to {least}"));
            }
            Least::Above(least) if value <= least as f64 => {
                self.wrong(attribute, format!("must be greater than {least}"));
            }
            _ if value > bound.max as f64 => {
                self.wrong(attribute, format!("must be less than or equal to {}", bound.max));
            }
            _ => {}
        }
        // A fraction that is left of one run is one run; a float-to-int cast saturates.
        let lowest = match least {
            Least::Is(least) => least,
            Least::Above(least) => least + 1,
        };
        Setting { value: (value as u64).clamp(lowest.min(bound.max), bound.max), given: true }
    }
}

/// Digits with what belongs to them; not the names of numbers that Rust also reads.
fn read_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if plain { text.parse().ok() } else { None }
}

/// What the one validation of jobs refuses, under the attributes that it came from.
pub fn translate(rejection: &Rejection) -> Errors {
    let mut errors = Errors::default();
    for problem in &rejection.problems {
        let field = problem.field.split(['[', '.']).next().unwrap_or_default();
        let attribute = match (field, problem.field.as_str()) {
            (_, "limits.cpu_time_ms") => "cpu_time_limit",
            (_, "limits.wall_time_ms") => "wall_time_limit",
            (_, "limits.memory_kb") => "memory_limit",
            (_, "limits.stack_kb") => "stack_limit",
            (_, "limits.processes") => "max_processes_and_or_threads",
            (_, "limits.output_kb" | "limits.file_size_kb") => "max_file_size",
            ("language", _) => "language_id",
            ("source_code", _) => "source_code",
            ("stdin", _) => "stdin",
            ("expected_output", _) => "expected_output",
            ("args", _) => "command_line_arguments",
            ("compiler_options", _) => "compiler_options",
            ("files", _) => "additional_files",
            ("network", _) => "enable_network",
            ("runs", _) => "number_of_runs",
            ("callback_url", _) => "callback_url",
            _ => "base",
        };
        errors.add(attribute, problem.message.clone());
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(value: Value) -> Given<'static> {
        let attributes = Map::from_iter([("x".to_owned(), value)]);
        Given { attributes, errors: Errors::default(), room: Box::leak(Box::default()) }
    }

    #[test]
    fn identifiers_are_read_by_their_first_digits() {
        for (value, id) in [
            (json!(46), Some(46)),
            (json!("46"), Some(46)),
            (json!(46.7), Some(46)),
            (json!("46abc"), Some(46)),
            (json!("-1"), Some(-1)),
            (json!("abc"), Some(0)),
            (json!(true), Some(1)),
            (json!(""), None),
            (json!("  "), None),
            (json!(null), None),
            (json!([46]), None),
            (json!({"a": 46}), None),
        ] {
            assert_eq!(given(value.clone()).identifier("x"), id, "{value}");
        }
    }

    #[test]
    fn switches_are_on_unless_they_say_off() {
        for off in [json!(false), json!(0), json!("0"), json!("f"), json!("OFF"), json!(""), json!(null), json!([1])] {
            assert!(!given(off.clone()).switch("x"), "{off}");
        }
        for on in [json!(true), json!(1), json!("1"), json!("t"), json!("Off"), json!("no")] {
            assert!(given(on.clone()).switch("x"), "{on}");
        }
    }

    #[test]
    fn numbers_may_be_texts_but_not_words() {
        for (value, number) in [(json!("2.5"), 2.5), (json!("1e1"), 10.0), (json!(" 3 "), 3.0), (json!(4), 4.0)] {
            assert_eq!(given(value).number("x"), Some(number));
        }
        for wrong in [json!("abc"), json!("inf"), json!("nan"), json!("1,5"), json!(true)] {
            let mut given = given(wrong.clone());
            assert_eq!(given.number("x"), None);
            assert!(!given.errors.is_empty(), "{wrong}");
        }
        let mut nothing = given(json!(""));
        assert_eq!((nothing.number("x"), nothing.errors.is_empty()), (None, true));
    }

    #[test]
    fn texts_of_other_kinds_are_texts() {
        for (value, text) in [(json!(123), "123"), (json!(1.5), "1.5"), (json!(true), "t"), (json!(false), "f")] {
            assert_eq!(given(value).text("x").as_deref(), Some(text));
        }
    }

    #[test]
    fn words_are_grouped_and_never_run() {
        let words = |text: &str| split(&mut given(json!(null)), "compiler_options", Some(text));
        assert_eq!(words(" -O2  '-DX=a b' \"c d\" e\\ f "), ["-O2", "-DX=a b", "c d", "e f"]);
        assert_eq!(words("a; b && c | d > e `f` $g"), ["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(words("a\nb # rest"), ["a", "b"]);
        let mut open = given(json!(null));
        assert!(split(&mut open, "compiler_options", Some("'a")).is_empty() && !open.errors.is_empty());
    }
}
