//! Clients of Judge0 against the real sandbox: what real programs end as.

use crate::harness::{Server, among_others, eventually, sample};
use serde_json::{Value, json};

const C: u32 = 50;
const BASH: u32 = 46;
const PYTHON: u32 = 71;

/// Creates a submission, waits for it, and gives all that is known of it.
fn run(server: &Server, language_id: u32, source_code: &str, more: Value) -> Value {
    let mut body = json!({ "language_id": language_id, "source_code": source_code });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = server.post("/submissions?wait=true&fields=*", &body);
    assert_eq!(answer.status, 201, "{body}: {}", answer.body);
    answer.body
}

fn main_that(statement: &str) -> String {
    format!(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <signal.h>\n#include <string.h>\nint main(void) {{ {statement} return 0; }}\n"
    )
}

/// Language, source, other attributes; then status, exit code, exit signal, and the beginning of the message.
fn programs() -> Vec<(u32, String, Value, Value, Option<&'static str>)> {
    let bash = |source: &str, more: Value, wanted: Value, message| (BASH, source.to_owned(), more, wanted, message);
    let c = |statement: &str, more: Value, wanted: Value, message| (C, main_that(statement), more, wanted, message);
    vec![
        bash("echo hi", json!({}), json!([3, 0, null]), None),
        bash("echo hi", json!({ "expected_output": "hi \n\n" }), json!([3, 0, null]), None),
        bash("echo hi", json!({ "expected_output": "ho" }), json!([4, 0, null]), None),
        bash("exit 7", json!({ "expected_output": "ho" }), json!([11, 7, null]), Some("Exited with error status 7")),
        bash("while :; do :; done", json!({ "cpu_time_limit": 0.3 }), json!([5, 0, null]), Some("Time limit exceeded")),
        bash("sleep 5", json!({ "wall_time_limit": 1 }), json!([5, 0, null]), Some("Time limit exceeded (wall clock)")),
        c("int *p = 0; *(volatile int *)p = 1;", json!({}), json!([7, 0, 11]), Some("Caught fatal signal 11")),
        c("raise(SIGFPE);", json!({}), json!([9, 0, 8]), Some("Caught fatal signal 8")),
        c("abort();", json!({}), json!([10, 0, 6]), Some("Caught fatal signal 6")),
        c("raise(SIGTERM);", json!({}), json!([12, 0, 15]), Some("Caught fatal signal 15")),
        c(
            "for (;;) { char *p = malloc(1 << 20); if (p) memset(p, 1, 1 << 20); }",
            json!({ "memory_limit": 20_000 }),
            json!([11, 137, null]),
            Some("Exited with error status 137: memory limit exceeded, "),
        ),
        c(
            "char b[1 << 16]; memset(b, 'x', sizeof b); for (int i = 0; i < 100; i++) fwrite(b, 1, sizeof b, stdout);",
            json!({ "max_file_size": 100 }),
            json!([8, 0, 25]),
            Some("Caught fatal signal 25: "),
        ),
        (C, "int main(void) { return x; }".to_owned(), json!({}), json!([6, null, null]), None),
    ]
}

#[test]
fn each_end_of_a_real_program_has_its_status() {
    let _turn = among_others();
    let server = Server::start(&[]);
    for (language, source, more, wanted, message) in programs() {
        let shown = run(&server, language, &source, more);
        let got = json!([shown["status"]["id"], shown["exit_code"], shown["exit_signal"]]);
        assert_eq!(got, wanted, "{source}: {shown}");
        match message {
            Some(message) => assert!(shown["message"].as_str().is_some_and(|m| m.starts_with(message)), "{shown}"),
            None => assert_eq!(shown["message"], Value::Null, "{shown}"),
        }
        if wanted[0] == 6 {
            assert!(shown["compile_output"].as_str().unwrap().contains("main.c:1"), "{shown}");
            assert_eq!((&shown["time"], &shown["stdout"]), (&Value::Null, &Value::Null));
        }
        if wanted[0] == 8 {
            assert_eq!(shown["stdout"].as_str().unwrap().len(), 100 * 1024, "the output up to the limit is kept");
        }
    }
}

#[test]
fn signals_are_exit_codes_where_the_operator_wants_it_so() {
    let _turn = among_others();
    let server = Server::start(&["judge0.signals_as_exit_codes=true"]);
    let shown = run(&server, C, &main_that("int *p = 0; *(volatile int *)p = 1;"), json!({}));
    let wanted = json!([11, 139, null, "Exited with error status 139"]);
    assert_eq!(json!([shown["status_id"], shown["exit_code"], shown["exit_signal"], shown["message"]]), wanted);
}

#[test]
fn a_submission_shows_what_was_asked_and_what_was_measured() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let shown = run(&server, BASH, "echo hi; echo err >&2; cat", json!({ "stdin": "foo" }));
    assert_eq!((&shown["stdout"], &shown["stderr"]), (&json!("hi\nfoo"), &json!("err\n")));
    assert_eq!(shown.as_object().unwrap().len(), 35);
    assert_eq!(
        (&shown["language_id"], &shown["memory_limit"], &shown["cpu_extra_time"]),
        (&json!(46), &json!(128_000), &json!("1.0"))
    );
    // Toolchains are asked for their versions after the start.
    eventually("Bash has its version", || {
        let name = server.get("/languages/46").body["name"].as_str()?.to_owned();
        (name.starts_with("Bash (5.") && name.ends_with(')')).then_some(())
    });
    let seconds = |field: &str| shown[field].as_str().unwrap().parse::<f64>().unwrap();
    assert!(seconds("time") > 0.0 && seconds("wall_time") >= seconds("time") / 4.0, "{shown}");
    assert!(shown["memory"].as_u64().unwrap() > 100, "{shown}");
}

#[test]
fn options_of_a_submission_reach_its_program() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let arguments = json!({ "command_line_arguments": "a 'b c' ; $X", "redirect_stderr_to_stdout": true });
    let shown = run(&server, BASH, "echo $# \"$2\"; echo err >&2", arguments);
    assert_eq!((&shown["stdout"], &shown["stderr"]), (&json!("3 b c\nerr\n"), &Value::Null));

    let source = "#include <stdio.h>\nint main(void) { puts(TEXT); return 0; }";
    let shown = run(&server, C, source, json!({ "compiler_options": "'-DTEXT=\"a b\"'" }));
    assert_eq!(shown["stdout"], "a b\n", "{shown}");

    let shown = run(&server, BASH, "echo once", json!({ "number_of_runs": 3, "expected_output": "once" }));
    assert_eq!(
        (&shown["status_id"], &shown["number_of_runs"], &shown["stdout"]),
        (&json!(3), &json!(3), &json!("once\n"))
    );

    let shown = run(&server, PYTHON, "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)", json!({}));
    assert_eq!((&shown["status_id"], &shown["enable_network"]), (&json!(11), &json!(false)), "there is no network");
}

#[test]
fn bytes_that_are_no_text_go_in_and_out_in_base64() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let body = json!({ "language_id": BASH, "source_code": "Y2F0", "stdin": "/wE=", "expected_output": "/w==" });
    let answer = server.post("/submissions?wait=true&base64_encoded=true&fields=stdout,status_id,stdin", &body);
    assert_eq!(answer.body, json!({ "stdin": "/wE=\n", "stdout": "/wE=\n", "status_id": 4 }));
}

#[test]
fn a_batch_is_run_and_read_by_its_tokens() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let list: Vec<Value> = (0..5).map(|n| json!({ "language_id": BASH, "source_code": format!("echo {n}") })).collect();
    let answer = server.post("/submissions/batch", &json!({ "submissions": list }));
    let tokens: Vec<&str> =
        answer.body.as_array().unwrap().iter().map(|item| item["token"].as_str().unwrap()).collect();
    for token in &tokens {
        // The native API has it by a UUID of version 7 instead of 4.
        server.wait_for_status(&format!("{}7{}", &token[..14], &token[15..]), &["completed"]);
    }
    let read = server.get(&format!("/submissions/batch?tokens={}&fields=stdout", tokens.join(",")));
    let wanted: Vec<Value> = (0..5).map(|n| json!({ "stdout": format!("{n}\n") })).collect();
    assert_eq!(read.body, json!({ "submissions": wanted }));
}

/// The numbers of every language that has some, from its folder.
fn numbered() -> Vec<(String, Vec<u32>)> {
    let folders = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../languages")).expect("languages");
    let number = |id: &toml::Value| u32::try_from(id.as_integer().expect("a number")).expect("a small one");
    let read = |folder: std::fs::DirEntry| {
        let spec: toml::Table = std::fs::read_to_string(folder.path().join("language.toml")).ok()?.parse().ok()?;
        let ids = spec.get("judge0_ids")?.as_array()?.iter().map(number).collect();
        Some((folder.file_name().to_string_lossy().into_owned(), ids))
    };
    folders.filter_map(|folder| read(folder.expect("a folder"))).collect()
}

/// With Judge0's own limits, which are tighter than ours in places, and under every number.
#[test]
fn the_samples_of_all_languages_run_within_judge0s_default_limits() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let mut failures = Vec::new();
    let mut ran = 0;
    for (ours, ids) in numbered() {
        for id in ids {
            let shown = server.get(&format!("/languages/{id}"));
            // Not installed here; or a program of many files, which has tests of its own.
            if shown.status == 404 || shown.body["source_file"].is_null() {
                continue;
            }
            let sample = sample(&ours);
            let body = json!({
                "language_id": id, "source_code": sample.source, "stdin": sample.stdin, "expected_output": sample.expected,
            });
            let answer = server.post("/submissions?wait=true&fields=*", &body);
            if answer.body["status_id"] != 3 || answer.body["language"]["id"] != id {
                failures.push(format!("{ours} as {id}: {}", answer.body));
            }
            ran += 1;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(ran >= 5, "only {ran} ran");
}
