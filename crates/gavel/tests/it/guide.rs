//! The commands of docs/api/guide.md, each run as it stands there, and what it prints compared with what
//! the page says.

use crate::harness::{Server, among_others};
use std::io::Write;
use std::process::{Command, Stdio};

/// A command, and the text below it.
struct Example {
    line: usize,
    command: String,
    expected: String,
}

/// What separates the outputs of commands in that of the one shell that runs them all.
const END: &str = "\u{1e}";

#[test]
fn the_commands_of_the_guide_print_what_it_says() {
    let _turn = among_others();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/guide.md"));
    let examples = examples(&page.expect("the guide can be read"));
    assert!(examples.len() > 10, "only {} examples were found", examples.len());
    let server = Server::start(&[]);
    // One shell for all, because later ones use variables of earlier ones.
    let script: String = examples.iter().map(|example| format!("{}\nprintf '{END}'\n", example.command)).collect();
    let mut shell = Command::new("bash")
        .args(["-euo", "pipefail"])
        .env("GAVEL", &server.url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash starts");
    shell.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("bash reads");
    let output = shell.wait_with_output().expect("bash ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let outputs: Vec<&str> = text.split(END).collect();
    for (n, example) in examples.iter().enumerate() {
        let got = outputs.get(n).copied().unwrap_or_default();
        assert!(
            matches(got.trim_end(), example.expected.trim_end()),
            "docs/api/guide.md, line {}: it prints\n{got}\ninstead of\n{}\nstderr: {}",
            example.line,
            example.expected,
            String::from_utf8_lossy(&output.stderr),
        );
    }
    assert!(output.status.success(), "{output:?}");
}

/// Every block of shell, and the block of text that follows it.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = page.lines().zip(1..);
    while let Some((fence, line)) = lines.next() {
        let mut block = || {
            let body = lines.by_ref().map(|(text, _)| text).take_while(|text| *text != "```");
            body.flat_map(|text| [text, "\n"]).collect::<String>()
        };
        match fence {
            "```sh" => examples.push(Example { line, command: block(), expected: String::new() }),
            "```text" => examples.last_mut().expect("a command comes first").expected = block(),
            _ => assert!(!fence.starts_with("```"), "line {line}: a block that is neither sh nor text"),
        }
    }
    examples
}

/// `…` stands for anything.
fn matches(got: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = got.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    for (got, expected) in [("a", "a"), ("a1b2c", "a…b…c"), ("", "…"), ("xyz", "…z"), ("abab", "ab…ab")] {
        assert!(matches(got, expected), "{got:?} {expected:?}");
    }
    for (got, expected) in [("a", "b"), ("ab", "a"), ("a1c", "a…b"), ("ab", "ab…ab"), ("xa", "a…")] {
        assert!(!matches(got, expected), "{got:?} {expected:?}");
    }
}
