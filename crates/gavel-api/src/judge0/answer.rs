//! A job as Judge0 shows a submission: which attributes, in which order, in which encoding.

use super::base64;
use super::error::Refusal;
use super::languages;
use super::options::Options;
use super::origin::Origin;
use super::status::{Ending, Status, ending};
use crate::languages::Shelf;
use gavel_core::{JobId, Timestamp};
use gavel_store::JobRecord;
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Every attribute, in the order in which they are written.
pub const ALL: [&str; 35] = [
    "source_code",
    "language_id",
    "stdin",
    "expected_output",
    "stdout",
    "status_id",
    "created_at",
    "finished_at",
    "time",
    "memory",
    "stderr",
    "token",
    "number_of_runs",
    "cpu_time_limit",
    "cpu_extra_time",
    "wall_time_limit",
    "memory_limit",
    "stack_limit",
    "max_processes_and_or_threads",
    "enable_per_process_and_thread_time_limit",
    "enable_per_process_and_thread_memory_limit",
    "max_file_size",
    "compile_output",
    "exit_code",
    "exit_signal",
    "message",
    "wall_time",
    "compiler_options",
    "command_line_arguments",
    "redirect_stderr_to_stdout",
    "callback_url",
    "additional_files",
    "enable_network",
    "status",
    "language",
];

/// What is shown when nothing is asked for.
const DEFAULT: [&str; 8] = ["stdout", "time", "memory", "stderr", "token", "compile_output", "message", "status"];

/// A choice of attributes: one bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u64);

impl Default for Fields {
    fn default() -> Self {
        Self::of(&DEFAULT)
    }
}

impl Fields {
    fn of(names: &[&str]) -> Self {
        Self((0..ALL.len()).filter(|at| names.contains(&ALL[*at])).map(|at| 1 << at).sum())
    }

    /// Names separated by commas; `*` is all. What is unknown is refused even beside it.
    pub fn parse(text: Option<&str>) -> Result<Self, Refusal> {
        let names: Vec<&str> = text.unwrap_or_default().trim_end_matches(',').split(',').collect();
        if names == [""] {
            return Ok(Self::default());
        }
        let unknown: Vec<&str> = names.iter().filter(|name| **name != "*" && !ALL.contains(name)).copied().collect();
        if !unknown.is_empty() {
            return Err(Refusal::bad(format!("invalid fields: [{}]", unknown.join(", "))));
        }
        Ok(if names.contains(&"*") { Self::of(&ALL) } else { Self::of(&names) })
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        ALL.iter().enumerate().filter(move |(at, _)| self.0 & (1 << at) != 0).map(|(_, name)| *name)
    }
}

/// How texts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    Base64,
}

impl Encoding {
    pub fn of(base64: bool) -> Self {
        if base64 { Self::Base64 } else { Self::Plain }
    }
}

/// A wanted text is no UTF-8, and plain text was asked for.
#[derive(Debug)]
pub struct NotText;

/// What a submission is shown with.
pub struct View<'a> {
    pub shelf: &'a Shelf,
    pub options: &'a Options,
    pub fields: Fields,
    pub encoding: Encoding,
}

enum Shown<'a> {
    /// Encoded as the client wants it.
    Bytes(&'a [u8]),
    /// The same, but never a reason to refuse.
    Message(&'a str),
    Plain(Value),
    /// Its members in Judge0's order, which a [`Value`] would not keep.
    Status(Status),
}

impl View<'_> {
    pub fn render(&self, record: &JobRecord) -> Result<Vec<u8>, NotText> {
        let origin = Origin::of(&record.job, self.shelf);
        let ending = ending(record, self.options.signals_as_exit_codes);
        let mut out = vec![b'{'];
        for name in self.fields.names() {
            if out.len() > 1 {
                out.push(b',');
            }
            write(&mut out, &Value::from(name));
            out.push(b':');
            match self.shown(name, record, &origin, &ending) {
                Shown::Plain(value) => write(&mut out, &value),
                Shown::Status(status) => write(&mut out, &status.shown()),
                Shown::Message(text) if self.encoding == Encoding::Plain => write(&mut out, &Value::from(text)),
                Shown::Message(text) => self.bytes(&mut out, text.as_bytes())?,
                Shown::Bytes(bytes) => self.bytes(&mut out, bytes)?,
            }
        }
        out.push(b'}');
        Ok(out)
    }

    fn bytes(&self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), NotText> {
        let text = match self.encoding {
            Encoding::Base64 => Cow::Owned(base64::encode(bytes)),
            Encoding::Plain => Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| NotText)?),
        };
        // Writing a text into memory cannot fail.
        let _written = serde_json::to_writer(out, &text);
        Ok(())
    }

    fn shown<'a>(&self, name: &str, record: &'a JobRecord, origin: &'a Origin, ending: &'a Ending<'a>) -> Shown<'a> {
        let job = &record.job;
        let plain = match name {
            "source_code" => return given(origin.has_source.then_some(&job.source)),
            "stdin" => return given(origin.has_stdin.then_some(&job.stdin)),
            "expected_output" => return given(job.expected_output.as_ref()),
            "stdout" => return output(ending.run.map(|run| &run.stdout[..])),
            "stderr" => return output(ending.run.map(|run| &run.stderr[..])),
            "compile_output" => return output(Some(ending.compile_output)),
            "message" => return ending.message.as_deref().map_or(Shown::Plain(Value::Null), Shown::Message),
            "language_id" => json!(origin.language_id),
            "status_id" => json!(ending.status.0),
            "created_at" => json!(time(record.created_at)),
            "finished_at" => json!(record.completed_at.map(time)),
            "time" => json!(ending.run.map(|run| decimal(run.cpu.as_micros() as f64 / 1e6))),
            "wall_time" => json!(ending.run.map(|run| decimal(run.wall.as_micros() as f64 / 1e6))),
            "memory" => json!(ending.run.map(|run| run.memory.as_kib())),
            "token" => json!(super::token::of(record.id)),
            "number_of_runs" => json!(job.runs),
            "cpu_time_limit" => json!(decimal(origin.cpu_time_limit)),
            "cpu_extra_time" => json!(decimal(origin.cpu_extra_time)),
            "wall_time_limit" => json!(decimal(origin.wall_time_limit)),
            "memory_limit" => json!(origin.memory_limit),
            "stack_limit" => json!(origin.stack_limit),
            "max_processes_and_or_threads" => json!(origin.max_processes_and_or_threads),
            "enable_per_process_and_thread_time_limit" => json!(origin.per_process_time_limit),
            "enable_per_process_and_thread_memory_limit" => json!(origin.per_process_memory_limit),
            "max_file_size" => json!(origin.max_file_size),
            "exit_code" => json!(ending.exit_code),
            "exit_signal" => json!(ending.exit_signal),
            "compiler_options" => json!(origin.compiler_options),
            "command_line_arguments" => json!(origin.command_line_arguments),
            "redirect_stderr_to_stdout" => json!(job.stderr_to_stdout),
            "callback_url" => json!(job.callback.as_ref().map(|callback| &callback.url)),
            "additional_files" => json!(origin.additional_files),
            "enable_network" => json!(job.network),
            "status" => return Shown::Status(ending.status),
            "language" => {
                let name = languages::name(self.shelf, origin.flavour, origin.language_id, &job.language);
                json!({ "id": origin.language_id, "name": name })
            }
            // `ALL` has no other names; a test shows each of them.
            _ => Value::Null,
        };
        Shown::Plain(plain)
    }
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing into memory cannot fail.
    let _written = serde_json::to_writer(out, value);
}

/// What a client sent comes back even when it is empty.
fn given(bytes: Option<&Vec<u8>>) -> Shown<'_> {
    bytes.map_or(Shown::Plain(Value::Null), |bytes| Shown::Bytes(bytes))
}

/// Empty output is none.
fn output(bytes: Option<&[u8]>) -> Shown<'_> {
    bytes.filter(|bytes| !bytes.is_empty()).map_or(Shown::Plain(Value::Null), Shown::Bytes)
}

/// The shortest decimal, with at least one digit behind the point.
fn decimal(number: f64) -> String {
    let text = number.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

/// `2026-11-22T18:40:27.874Z`
pub fn time(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(at.0.div_euclid(1000)).unwrap_or_default();
    format!("{time:.3}")
}

/// `{"token":"…"}`
pub fn token(id: JobId) -> Value {
    json!({ "token": super::token::of(id) })
}

/// The body of a callback: the default attributes, always in base64, whatever the request said.
pub fn callback_body(record: &JobRecord, options: &Options) -> Vec<u8> {
    let view = View { shelf: &Shelf::default(), options, fields: Fields::default(), encoding: Encoding::Base64 };
    // Base64 writes any bytes.
    view.render(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_short_and_never_whole_or_scientific() {
        for (number, text) in
            [(5.0, "5.0"), (0.08, "0.08"), (0.0, "0.0"), (0.000012, "0.000012"), (0.109, "0.109"), (10.0, "10.0")]
        {
            assert_eq!(decimal(number), text);
        }
    }

    #[test]
    fn times_have_three_decimals() {
        assert_eq!(time(Timestamp(1_770_091_506_000_007)), "2026-02-03T04:05:06.000Z");
        assert_eq!(time(Timestamp(1_770_091_506_874_999)), "2026-02-03T04:05:06.874Z");
    }

    #[test]
    fn fields_are_refused_by_their_names() {
        let names = |text| Fields::parse(text).map(|fields| fields.names().collect::<Vec<_>>());
        assert_eq!(names(None).unwrap(), DEFAULT);
        assert_eq!(names(Some("")).unwrap(), DEFAULT);
        assert_eq!(names(Some("*")).unwrap(), ALL);
        assert_eq!(names(Some("token,stdout,")).unwrap(), ["stdout", "token"], "in their own order");
        for (text, echo) in
            [("id", "[id]"), ("*,x,stdout,y", "[x, y]"), (" stderr", "[ stderr]"), ("Stdout", "[Stdout]")]
        {
            match Fields::parse(Some(text)) {
                Err(Refusal::Message(_, message)) => assert_eq!(message, format!("invalid fields: {echo}")),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
