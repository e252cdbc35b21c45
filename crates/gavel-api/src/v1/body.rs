//! Requests as they are written: JSON bodies to drafts.

use crate::input::Object;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gavel_core::check::Comparison;
use gavel_core::job::{Callback, CallbackForm, Interactive, Tty};
use gavel_core::{Bytes, Draft, File, LimitsRequest, Problem, Rejection};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;
use utoipa::ToSchema;

/// A job to run. `null` is the same as leaving a field out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobRequest)]
pub struct SubmitBody {
    /// Id of a language, as `GET /api/v1/languages` lists them.
    #[schema(example = "python3")]
    pub language: String,
    /// The program. Either this or `source_code_base64`.
    #[schema(example = "print(sum(map(int, input().split())))")]
    pub source_code: Option<String>,
    /// The program as base64, for bytes that are no UTF-8.
    pub source_code_base64: Option<String>,
    /// Standard input; empty when left out.
    #[schema(example = "3 4\n")]
    pub stdin: Option<String>,
    pub stdin_base64: Option<String>,
    /// Arguments of the program.
    #[serde(default, deserialize_with = "bounded_or_null")]
    pub args: Option<Vec<String>>,
    /// Options of the compiler.
    #[serde(default, deserialize_with = "bounded_or_null")]
    pub compiler_options: Option<Vec<String>>,
    /// Environment variables of the program.
    pub env: Option<BTreeMap<String, String>>,
    /// Files that lie in the working directory of the program.
    #[serde(default, deserialize_with = "bounded_or_null")]
    #[schema(value_type = Option<Vec<FileBody>>)]
    pub files: Option<Vec<Object<FileBody>>>,
    #[schema(value_type = Option<LimitsBody>)]
    pub limits: Option<Object<LimitsBody>>,
    /// When given, stdout is compared with it: trailing white space of lines and trailing blank lines do not matter.
    #[schema(example = "7\n")]
    pub expected_output: Option<String>,
    pub expected_output_base64: Option<String>,
    /// Write stderr into stdout, in the order of writing.
    pub stderr_to_stdout: Option<bool>,
    /// Let the program reach the network, where the operator allows it.
    pub network: Option<bool>,
    /// How often the program is run; times and memory are the mean.
    #[schema(minimum = 1)]
    pub runs: Option<u32>,
    /// -100 to 100; higher is sooner.
    #[schema(minimum = -100, maximum = 100)]
    pub priority: Option<i32>,
    /// Take more input while the program runs, over `GET /api/v1/jobs/{id}/ws`, after `stdin`.
    pub interactive: Option<bool>,
    /// A pseudo-terminal instead of pipes; only with `interactive`.
    #[schema(value_type = Option<TtyBody>)]
    pub tty: Option<Object<TtyBody>>,
    /// Globs of files that come back with the result.
    #[serde(default, deserialize_with = "bounded_or_null")]
    pub collect: Option<Vec<String>>,
    /// Called when the job has ended, where the operator allows it: a signed POST with the job.
    #[schema(format = "uri", max_length = 2048, example = "https://example.org/hook")]
    pub callback_url: Option<String>,
    /// Kept with the job and given back; means nothing to the server.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Tty)]
pub struct TtyBody {
    #[schema(minimum = 1, maximum = 1000, example = 24)]
    pub rows: u16,
    #[schema(minimum = 1, maximum = 1000, example = 80)]
    pub cols: u16,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FileRequest)]
pub struct FileBody {
    /// Relative, without `.` and `..`.
    #[schema(example = "data/in.txt")]
    pub path: String,
    pub content: Option<String>,
    pub content_base64: Option<String>,
}

/// Each is optional: the language's default holds. Above the language's cap is refused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LimitsRequest)]
pub struct LimitsBody {
    /// CPU time of all processes together, in milliseconds.
    pub cpu_time_ms: Option<u64>,
    /// Time from start to end, in milliseconds. Default: three times the CPU limit, at least 3 s more than it.
    pub wall_time_ms: Option<u64>,
    /// Memory of all processes together, in KiB.
    pub memory_kb: Option<u64>,
    pub stack_kb: Option<u64>,
    /// Processes and threads alive at once.
    pub processes: Option<u32>,
    /// KiB kept of stdout, and as many of stderr.
    pub output_kb: Option<u64>,
    /// Size of one written file, in KiB.
    pub file_size_kb: Option<u64>,
}

/// Each element is parsed for itself, so that one mistake spoils one job and not the batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody<'a> {
    #[serde(borrow, deserialize_with = "bounded")]
    pub jobs: Vec<&'a RawValue>,
}

/// What the document says of a batch.
#[derive(Debug, ToSchema)]
pub struct BatchRequest {
    /// 1 to 1000 jobs.
    #[allow(dead_code, reason = "read by the schema only")]
    pub jobs: Vec<SubmitBody>,
}

/// Elements of one list beyond which reading stops: a list of a million empty strings takes far more
/// memory than its text. The real limits are lower and have better messages.
const MAX_ELEMENTS: usize = 10_000;

fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(Bounded(PhantomData))
}

fn bounded_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Vec<T>>, D::Error> {
    from.deserialize_option(OrNull(PhantomData))
}

struct OrNull<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OrNull<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        bounded(from).map(Some)
    }
}

struct Bounded<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == MAX_ELEMENTS {
                return Err(A::Error::custom(format_args!("has more than {MAX_ELEMENTS} elements")));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

impl SubmitBody {
    /// Moves everything over; refuses what cannot be decoded or is given in two ways.
    pub fn into_draft(self) -> Result<Draft, Rejection> {
        let mut wrong = Vec::new();
        let source = either("source_code", self.source_code, self.source_code_base64, &mut wrong);
        let stdin = either("stdin", self.stdin, self.stdin_base64, &mut wrong);
        let expected_output = either("expected_output", self.expected_output, self.expected_output_base64, &mut wrong);
        let files = self.files.unwrap_or_default().into_iter().enumerate();
        let files = files.map(|(index, Object(file))| file.into_file(index, &mut wrong)).collect();
        let is_interactive = self.interactive.unwrap_or(false);
        let tty = self.tty.map(|Object(tty)| Tty { rows: tty.rows, cols: tty.cols });
        if tty.is_some() && !is_interactive {
            let message = "is for interactive jobs: set interactive to true, or leave it out";
            wrong.push(Problem { field: "tty".into(), message: message.into() });
        }
        if !wrong.is_empty() {
            return Err(Rejection { problems: wrong, too_large: false });
        }
        Ok(Draft {
            language: self.language,
            source: source.unwrap_or_default(),
            stdin: stdin.unwrap_or_default(),
            args: self.args.unwrap_or_default(),
            compiler_options: self.compiler_options.unwrap_or_default(),
            env: self.env.unwrap_or_default(),
            files,
            limits: self.limits.map(|Object(limits)| limits.into_request()).unwrap_or_default(),
            expected_output,
            stderr_to_stdout: self.stderr_to_stdout.unwrap_or(false),
            network: self.network.unwrap_or(false),
            runs: self.runs,
            priority: self.priority.unwrap_or(0),
            interactive: is_interactive.then_some(Interactive { tty }),
            collect: self.collect.unwrap_or_default(),
            callback: self.callback_url.map(|url| Callback { url, form: CallbackForm::Native }),
            comparison: Comparison::Native,
            metadata: self.metadata.unwrap_or_default(),
            origin: None,
        })
    }
}

impl FileBody {
    fn into_file(self, index: usize, wrong: &mut Vec<Problem>) -> File {
        let found = either("content", self.content, self.content_base64, wrong);
        // The field of a problem is known here only: it is one of this file.
        if let Some(problem) = wrong.last_mut()
            && problem.field.starts_with("content")
        {
            problem.field = format!("files[{index}].{}", problem.field);
        }
        File { path: self.path, content: found.unwrap_or_default() }
    }
}

impl LimitsBody {
    fn into_request(self) -> LimitsRequest {
        LimitsRequest {
            cpu_time: self.cpu_time_ms.map(Duration::from_millis),
            wall_time: self.wall_time_ms.map(Duration::from_millis),
            memory: self.memory_kb.map(Bytes::kib),
            stack: self.stack_kb.map(Bytes::kib),
            processes: self.processes,
            output: self.output_kb.map(Bytes::kib),
            file_size: self.file_size_kb.map(Bytes::kib),
        }
    }
}

/// The bytes of a field that may come as text or as base64.
fn either(name: &str, text: Option<String>, base64: Option<String>, wrong: &mut Vec<Problem>) -> Option<Vec<u8>> {
    match (text, base64) {
        (Some(_), Some(_)) => {
            let message = format!("is given twice: send {name} or {name}_base64, not both");
            wrong.push(Problem { field: format!("{name}_base64"), message });
            None
        }
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(base64)) => {
            decode(base64).map_err(|message| wrong.push(Problem { field: format!("{name}_base64"), message })).ok()
        }
        (None, None) => None,
    }
}

/// The usual alphabet; line breaks and missing padding, which many tools write or forget, are fine.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub fn decode(mut text: String) -> Result<Vec<u8>, String> {
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        text.retain(|c| !c.is_ascii_whitespace());
    }
    BASE64.decode(&text).map_err(|error| format!("is not valid base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_tools_write_it() {
        for text in ["aGVsbG8=", "aGVsbG8", "aGVs\nbG8=\n"] {
            assert_eq!(decode(text.into()).unwrap(), b"hello", "{text:?}");
        }
        for text in ["aGVsbG8*", "a", "aGV=sbG8", "äö"] {
            assert!(decode(text.into()).is_err(), "{text:?}");
        }
    }
}
