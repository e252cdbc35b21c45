//! Submissions as they are shown: which fields, in which order and encoding; listing and deleting.

use crate::setup::{completed, echo, id_of, idle, start, with, with_judge0};
use serde_json::{Value, json};

const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

/// The names of an object in the order in which they were written.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut rest) = (0, text);
    while let Some(at) = rest.find(['{', '}', '"']) {
        match rest.as_bytes()[at] {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {
                let string: Vec<Result<Value, _>> =
                    serde_json::Deserializer::from_str(&rest[at..]).into_iter().take(1).collect();
                let string = string[0].as_ref().unwrap().as_str().unwrap().to_owned();
                let written = serde_json::to_string(&string).unwrap();
                rest = &rest[at + written.len()..];
                if depth == 1 && rest.starts_with(':') {
                    names.push(string);
                }
                continue;
            }
        }
        rest = &rest[at + 1..];
    }
    names
}

#[tokio::test]
async fn the_default_fields_come_in_their_order() {
    let server = start().await;
    let answer = server.create("?wait=true", &echo("hi\n")).await;
    assert_eq!(answer.status, 201);
    let wanted = ["stdout", "time", "memory", "stderr", "token", "compile_output", "message", "status"];
    assert_eq!(names(&answer.text()), wanted);
    assert!(answer.text().ends_with(r#""status":{"id":3,"description":"Accepted"}}"#), "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["stdout"], &body["time"], &body["memory"]), (&json!("hi\n"), &json!("0.001204"), &json!(1532)));
    assert_eq!(body["status"], json!({ "id": 3, "description": "Accepted" }));
    assert_eq!((&body["compile_output"], &body["message"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_waiting_submission_shows_nothing_but_its_token_and_status() {
    let server = idle().await;
    let token = server.created("", &echo("")).await;
    let queued = json!({
        "stdout": null, "time": null, "memory": null, "stderr": null, "token": token, "compile_output": null,
        "message": null, "status": { "id": 1, "description": "In Queue" },
    });
    assert_eq!(server.read(&token, "").await.json(), queued);
    server.take().await;
    assert_eq!(
        server.read(&token, "?fields=status,status_id").await.json(),
        json!({ "status_id": 2, "status": { "id": 2, "description": "Processing" } })
    );
}

#[tokio::test]
async fn all_fields_are_thirty_five_in_their_order() {
    let server = start().await;
    let answer = server.create("?wait=true&fields=*", &echo("foo")).await;
    let wanted = "source_code language_id stdin expected_output stdout status_id created_at finished_at time memory stderr \
                  token number_of_runs cpu_time_limit cpu_extra_time wall_time_limit memory_limit stack_limit \
                  max_processes_and_or_threads enable_per_process_and_thread_time_limit \
                  enable_per_process_and_thread_memory_limit max_file_size compile_output exit_code exit_signal message \
                  wall_time compiler_options command_line_arguments redirect_stderr_to_stdout callback_url \
                  additional_files enable_network status language";
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    assert_eq!((names(&answer.text()), wanted.len()), (wanted.iter().map(|name| (*name).to_owned()).collect(), 35));
    let body = answer.json();
    for text in ["time", "wall_time", "cpu_time_limit", "cpu_extra_time", "wall_time_limit"] {
        let value = body[text].as_str().unwrap_or_else(|| panic!("{text} is no text"));
        assert!(value.contains('.') && value.parse::<f64>().is_ok(), "{text}: {value}");
    }
    for number in ["memory", "memory_limit", "stack_limit", "status_id", "language_id", "exit_code"] {
        assert!(body[number].is_u64(), "{number}");
    }
    for time in ["created_at", "finished_at"] {
        let time = body[time].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    }
    assert_eq!(body["language"], json!({ "id": 46, "name": "Bash (5.2.15)" }));
    let token = body["token"].as_str().unwrap();
    assert_eq!(token, token.to_lowercase());
}

#[tokio::test]
async fn texts_are_base64_in_lines_where_that_is_asked_for() {
    let server = start().await;
    let token = crate::setup::token_of(&server.create("?wait=true", &echo(&"x".repeat(50))).await.json());
    let plain = server.all_of(&token).await;
    let coded = server.read(&token, "?fields=*&base64_encoded=true").await.json();
    assert_eq!(coded["source_code"], "ZWNobw==\n");
    assert_eq!(coded["stderr"], "d2FybmluZzogbm9uZQo=\n");
    let lines: Vec<usize> = coded["stdout"].as_str().unwrap().split('\n').map(str::len).collect();
    assert_eq!(lines, [60, 8, 0]);
    assert_eq!(coded["expected_output"], Value::Null);
    for same in plain.as_object().unwrap().keys() {
        if !["source_code", "stdin", "stdout", "stderr"].contains(&same.as_str()) {
            assert_eq!(plain[same], coded[same], "{same}");
        }
    }
}

#[tokio::test]
async fn a_message_is_base64_too_and_empty_output_is_null() {
    let server = idle().await;
    let token = server.created("", &echo("")).await;
    server
        .settle(completed(|outcome| {
            outcome.verdict = gavel_core::Verdict::RuntimeError;
            outcome.exit_code = Some(3);
        }))
        .await;
    let coded =
        server.read(&token, "?base64_encoded=true&fields=message,stdout,stderr,stdin,compile_output").await.json();
    let wanted = json!({ "message": "RXhpdGVkIHdpdGggZXJyb3Igc3RhdHVzIDM=\n", "stdout": null, "stderr": null, "stdin": "", "compile_output": null });
    assert_eq!(coded, wanted);
}

#[tokio::test]
async fn text_is_text_and_what_is_none_is_refused_in_plain_mode_only() {
    let server = start().await;
    // Says `é` and a byte that is no text.
    let answer = server.create("?wait=true", &json!({ "source_code": "live", "language_id": 46 })).await;
    let error =
        "some attributes for this submission cannot be converted to UTF-8, use base64_encoded=true query parameter";
    let body = answer.json();
    let token = crate::setup::token_of(&body);
    assert_eq!((answer.status.as_u16(), &body), (201, &json!({ "error": error, "token": token })));
    let refused = server.read(&token, "").await;
    assert_eq!((refused.status.as_u16(), refused.json()), (400, json!({ "error": error })));
    assert_eq!(server.read(&token, "?fields=stderr").await.status, 200, "only what is asked for counts");
    assert_eq!(server.read(&token, "?base64_encoded=true").await.json()["stdout"], "YcOpYv8=\n");
    let page = server.get("/submissions").send().await;
    let some = "some attributes for one or more submissions cannot be converted to UTF-8, use base64_encoded=true query parameter";
    assert_eq!((page.status.as_u16(), page.json()), (400, json!({ "error": some })));
    let batch = server.get(&format!("/submissions/batch?tokens={token}")).send().await;
    assert_eq!((batch.status.as_u16(), batch.json()), (400, json!({ "error": some })));

    let answer = server.create("?wait=true", &echo("zażółć \u{0} <&>")).await;
    assert_eq!(answer.json()["stdout"], "zażółć \u{0} <&>");
}

#[tokio::test]
async fn unknown_fields_are_refused_before_unknown_tokens() {
    let server = start().await;
    for (fields, echo) in [
        ("id", "id"),
        ("*,a,stdout,b", "a, b"),
        ("%20stderr", " stderr"),
        ("post_execution_filesystem", "post_execution_filesystem"),
    ] {
        let answer = server.read(UNKNOWN, &format!("?fields={fields}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (400, json!({ "error": format!("invalid fields: [{echo}]") }))
        );
    }
    let answer = server.create("?fields=nope", &echo("")).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (400, json!({ "error": "invalid fields: [nope]" })));
    for token in [UNKNOWN, "x", "..", "01890000000070008000000000000000"] {
        assert_eq!(server.read(token, "").await.status, 404, "{token}");
    }
}

#[tokio::test]
async fn waiting_can_be_switched_off_and_a_fault_is_an_answer_too() {
    let server = with_judge0(|options| options.wait = false).await;
    let answer = server.create("?wait=true", &echo("")).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (400, json!({ "error": "wait not allowed" })));
    assert_eq!(server.create("?wait=True", &echo("")).await.status, 201);

    let server = start().await;
    let answer = server.create("?wait=true", &json!({ "source_code": "fault", "language_id": 46 })).await;
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["status"]["id"]), (201, &json!(13)));
    assert_eq!(body["message"], "the sandbox could not be opened");
}

#[tokio::test]
async fn whoever_waits_too_long_gets_the_submission_as_it_is() {
    let server = with(|options| {
        options.workers = false;
        options.service.max_wait = std::time::Duration::from_millis(50);
    })
    .await;
    let answer = server.create("?wait=true", &echo("")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]["id"]), (201, &json!(1)));
}

#[tokio::test]
async fn pages_are_counted() {
    let server = start().await;
    let mut tokens = Vec::new();
    for n in 0..5 {
        tokens.push(server.created("", &echo(&n.to_string())).await);
        server.reach(&id_of(&tokens[n]), "completed").await;
    }
    let page = |query: &str| server.get(&format!("/submissions{query}")).send();
    let first = page("?per_page=2&fields=token").await.json();
    let newest = json!([{ "token": tokens[4] }, { "token": tokens[3] }]);
    let meta = json!({ "current_page": 1, "next_page": 2, "prev_page": null, "total_pages": 3, "total_count": 5 });
    assert_eq!(first, json!({ "submissions": newest, "meta": meta }));
    let last = page("?per_page=2&page=3&fields=stdin").await.json();
    let meta = json!({ "current_page": 3, "next_page": null, "prev_page": 2, "total_pages": 3, "total_count": 5 });
    assert_eq!(last, json!({ "submissions": [{ "stdin": "0" }], "meta": meta }));
    let beyond = page("?page=7").await.json();
    assert_eq!(
        (&beyond["submissions"], &beyond["meta"]["next_page"], &beyond["meta"]["prev_page"]),
        (&json!([]), &Value::Null, &json!(6))
    );
    for (query, error) in [
        ("?page=0", "invalid page: 0"),
        ("?page=x", "invalid page: 0"),
        ("?per_page=-2", "invalid per_page: -2"),
        ("?per_page=0", "invalid per_page: 0"),
    ] {
        let answer = page(query).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (400, json!({ "error": error })), "{query}");
    }
    assert_eq!(page("?per_page=1001").await.status, 400);
}

#[tokio::test]
async fn deleting_is_off_unless_it_is_switched_on() {
    let server = start().await;
    for token in [UNKNOWN, &server.created("", &echo("")).await] {
        let answer = server.call("DELETE", &format!("/submissions/{token}")).send().await;
        assert_eq!((answer.status.as_u16(), answer.json()), (400, json!({ "error": "delete not allowed" })));
    }

    let server = with(|options| {
        options.workers = false;
        options.http.judge0.delete = true;
    })
    .await;
    let delete =
        async |token: &str, query: &str| server.call("DELETE", &format!("/submissions/{token}{query}")).send().await;
    assert_eq!(delete(UNKNOWN, "").await.status, 404);
    let token = server.created("", &echo("hi")).await;
    let refused = delete(&token, "").await;
    let error = "submission cannot be deleted because its status is 1 (In Queue)";
    assert_eq!((refused.status.as_u16(), refused.json()), (400, json!({ "error": error })));
    server.settle(completed(|outcome| outcome.stdout = b"\xff".to_vec())).await;
    let deleted = delete(&token, "?fields=stdout,stdin&base64_encoded=false").await;
    assert_eq!((deleted.status.as_u16(), deleted.json()), (200, json!({ "stdin": "aGk=\n", "stdout": "/w==\n" })));
    assert_eq!(server.read(&token, "").await.status, 404);
}

#[tokio::test]
async fn a_job_of_the_native_api_is_a_submission_too() {
    let server = start().await;
    let id = server.submit(json!({ "language": "nim", "source_code": "echo 1", "stdin": "7", "args": ["a b"] })).await;
    server.reach(&id_of(&id), "completed").await;
    let shown = server.all_of(&id).await;
    assert_eq!((&shown["stdout"], &shown["language_id"]), (&json!("7"), &Value::Null));
    assert_eq!(shown["language"], json!({ "id": null, "name": "Nim" }));
    assert_eq!((&shown["command_line_arguments"], &shown["cpu_time_limit"]), (&json!("'a b'"), &json!("2.0")));
}
