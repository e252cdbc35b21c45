//! What a submission may say, and what is answered when it says something else.

use crate::setup::{changed, idle, packed, start, token_of, with, with_judge0};
use futures_util::future::join_all;
use gavel_core::check::Comparison;
use gavel_core::job::CallbackForm;
use gavel_core::{Bytes, CallbackRules, Limits};
use gavel_store::faulty::Call as StoreCall;
use serde_json::{Value, json};
use std::time::Duration;

/// Exact bodies of refusals.
fn refusals() -> Vec<(Value, Value)> {
    let one = |attribute: &str, message: &str| json!({ attribute: [message] });
    vec![
        (
            json!({}),
            json!({
                "source_code": ["can't be blank"],
                "language_id": ["can't be blank", "language with id  doesn't exist"]
            }),
        ),
        (json!({ "language_id": 46 }), one("source_code", "can't be blank")),
        (changed(json!({ "source_code": " \n\t\u{a0}" })), one("source_code", "can't be blank")),
        (changed(json!({ "source_code": null })), one("source_code", "can't be blank")),
        (changed(json!({ "source_code": ["a"] })), one("source_code", "can't be blank")),
        (
            changed(json!({ "language_id": null })),
            json!({ "language_id": ["can't be blank", "language with id  doesn't exist"] }),
        ),
        (
            changed(json!({ "language_id": "" })),
            json!({ "language_id": ["can't be blank", "language with id  doesn't exist"] }),
        ),
        (changed(json!({ "language_id": 150000 })), one("language_id", "language with id 150000 doesn't exist")),
        (changed(json!({ "language_id": "abc" })), one("language_id", "language with id 0 doesn't exist")),
        (changed(json!({ "language_id": -3 })), one("language_id", "language with id -3 doesn't exist")),
        // Known to the catalogue, but not installed.
        (changed(json!({ "language_id": 77 })), one("language_id", "language with id 77 doesn't exist")),
        (
            changed(json!({ "language_id": 4 })),
            one("language_id", "language with id 4 is archived and cannot be used anymore"),
        ),
        (
            changed(json!({ "language_id": 89 })),
            json!({ "source_code": ["must be blank"], "additional_files": ["can't be blank"] }),
        ),
        (json!({ "language_id": 89, "source_code": "" }), one("additional_files", "can't be blank")),
        (changed(json!({ "cpu_time_limit": 15.1 })), one("cpu_time_limit", "must be less than or equal to 15.0")),
        (changed(json!({ "cpu_time_limit": -0.5 })), one("cpu_time_limit", "must be greater than or equal to 0")),
        (changed(json!({ "cpu_time_limit": "five" })), one("cpu_time_limit", "is not a number")),
        (changed(json!({ "cpu_extra_time": 6 })), one("cpu_extra_time", "must be less than or equal to 5.0")),
        (changed(json!({ "cpu_extra_time": -1 })), one("cpu_extra_time", "must be greater than or equal to 0")),
        (changed(json!({ "wall_time_limit": 20.5 })), one("wall_time_limit", "must be less than or equal to 20.0")),
        (changed(json!({ "wall_time_limit": 0.5 })), one("wall_time_limit", "must be greater than or equal to 1")),
        (changed(json!({ "memory_limit": 512001 })), one("memory_limit", "must be less than or equal to 512000")),
        (changed(json!({ "memory_limit": 2047 })), one("memory_limit", "must be greater than or equal to 2048")),
        (changed(json!({ "stack_limit": 128001 })), one("stack_limit", "must be less than or equal to 128000")),
        (changed(json!({ "stack_limit": -1 })), one("stack_limit", "must be greater than or equal to 0")),
        (
            changed(json!({ "max_processes_and_or_threads": 121 })),
            one("max_processes_and_or_threads", "must be less than or equal to 120"),
        ),
        (
            changed(json!({ "max_processes_and_or_threads": 0 })),
            one("max_processes_and_or_threads", "must be greater than 0"),
        ),
        (changed(json!({ "max_file_size": 4097 })), one("max_file_size", "must be less than or equal to 4096")),
        (changed(json!({ "max_file_size": -1 })), one("max_file_size", "must be greater than or equal to 0")),
        (changed(json!({ "number_of_runs": 21 })), one("number_of_runs", "must be less than or equal to 20")),
        (changed(json!({ "number_of_runs": 0 })), one("number_of_runs", "must be greater than 0")),
        (changed(json!({ "number_of_runs": "x" })), one("number_of_runs", "is not a number")),
        (
            changed(json!({ "compiler_options": "-O2" })),
            one("compiler_options", "setting compiler options is only allowed for compiled languages"),
        ),
        (
            changed(json!({ "language_id": 50, "compiler_options": "x".repeat(513) })),
            one("compiler_options", "is too long (maximum is 512 characters)"),
        ),
        (
            changed(json!({ "command_line_arguments": "é".repeat(513) })),
            one("command_line_arguments", "is too long (maximum is 512 characters)"),
        ),
        (changed(json!({ "enable_network": true })), one("enable_network", "enabling network is not allowed")),
    ]
}

#[tokio::test]
async fn refusals_are_word_for_word_those_of_judge0() {
    let server = start().await;
    for (body, wanted) in refusals() {
        let answer = server.create("", &body).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (422, wanted), "{body}");
        assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    }
    assert_eq!(server.get("/submissions").send().await.json()["meta"]["total_count"], 0, "nothing was stored");
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let server = start().await;
    let body = json!({ "source_code": "", "language_id": 7000, "memory_limit": 1, "number_of_runs": 99, "wall_time_limit": "?" });
    let answer = server.create("?wait=true", &body).await;
    let wanted = json!({
        "language_id": ["language with id 7000 doesn't exist"],
        "source_code": ["can't be blank"],
        "wall_time_limit": ["is not a number"],
        "memory_limit": ["must be greater than or equal to 2048"],
        "number_of_runs": ["must be less than or equal to 20"],
    });
    assert_eq!((answer.status.as_u16(), answer.json()), (422, wanted));
}

#[tokio::test]
async fn what_was_switched_off_is_refused_in_its_words() {
    let server = with_judge0(|options| {
        options.compiler_options = false;
        options.command_line_arguments = false;
        options.callbacks = false;
        options.additional_files = false;
    })
    .await;
    let body = changed(json!({
        "language_id": 50, "compiler_options": "-O2", "command_line_arguments": "a", "callback_url": "http://x.example",
        "additional_files": "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==", "enable_network": "false",
    }));
    let wanted = json!({
        "compiler_options": ["setting compiler options is not allowed"],
        "command_line_arguments": ["setting command line arguments is not allowed"],
        "callback_url": ["setting callback is not allowed"],
        "additional_files": ["setting additional files is not allowed"],
    });
    assert_eq!(server.create("", &body).await.json(), wanted);
    let blank = changed(json!({ "compiler_options": " ", "command_line_arguments": "", "callback_url": "" }));
    assert_eq!(server.create("", &blank).await.status, 201);

    let server =
        with_judge0(|options| options.compiler_options_languages = vec!["C++".into(), "Java".into(), "Rust".into()])
            .await;
    let options = |id: u32| changed(json!({ "language_id": id, "compiler_options": "-O2" }));
    let wanted = json!({ "compiler_options": ["setting compiler options is only allowed for C++, Java and Rust"] });
    assert_eq!(server.create("", &options(50)).await.json(), wanted);
    assert_eq!(server.create("", &options(54)).await.status, 201);
}

#[tokio::test]
async fn defaults_are_those_of_judge0_and_null_means_them() {
    let server = idle().await;
    let all_null = [
        "stdin",
        "expected_output",
        "cpu_time_limit",
        "cpu_extra_time",
        "wall_time_limit",
        "memory_limit",
        "stack_limit",
        "max_processes_and_or_threads",
        "enable_per_process_and_thread_time_limit",
        "max_file_size",
        "number_of_runs",
        "enable_per_process_and_thread_memory_limit",
        "redirect_stderr_to_stdout",
        "enable_network",
        "additional_files",
        "callback_url",
        "compiler_options",
        "command_line_arguments",
    ];
    let nulls: Value =
        all_null.iter().map(|name| ((*name).to_owned(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
    for body in [changed(json!({})), changed(nulls)] {
        let token = server.created("", &body).await;
        let shown = server.all_of(&token).await;
        let wanted = json!({
            "source_code": "echo", "language_id": 46, "stdin": null, "expected_output": null, "stdout": null, "status_id": 1,
            "finished_at": null, "time": null, "memory": null, "stderr": null, "number_of_runs": 1, "cpu_time_limit": "5.0",
            "cpu_extra_time": "1.0", "wall_time_limit": "10.0", "memory_limit": 128000, "stack_limit": 64000,
            "max_processes_and_or_threads": 60, "enable_per_process_and_thread_time_limit": false,
            "enable_per_process_and_thread_memory_limit": false, "max_file_size": 1024, "compile_output": null,
            "exit_code": null, "exit_signal": null, "message": null, "wall_time": null, "compiler_options": null,
            "command_line_arguments": null, "redirect_stderr_to_stdout": false, "callback_url": null,
            "additional_files": null, "enable_network": false, "status": {"id": 1, "description": "In Queue"},
            "language": {"id": 46, "name": "Bash (5.2.15)"},
        });
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(shown[name], *value, "{name}");
        }
        let job = server.job_behind(&token).await;
        assert_eq!(job.comparison, Comparison::Judge0);
        let limits = Limits {
            cpu_time: Duration::from_secs(5),
            wall_time: Duration::from_secs(10),
            memory: Bytes::kib(128_000),
            stack: Bytes::kib(64_000),
            processes: 60,
            output: Bytes::kib(1024),
            file_size: Bytes::kib(1024),
        };
        assert_eq!(job.limits, limits);
    }
}

#[tokio::test]
async fn values_of_other_kinds_are_coerced_as_judge0_does_it() {
    let server = idle().await;
    let token = server.created("", &json!({
        "source_code": 123, "language_id": "46.9", "stdin": true, "cpu_time_limit": "1e1", "wall_time_limit": "12.5",
        "memory_limit": 2048.5, "number_of_runs": "1.5", "stack_limit": "", "max_processes_and_or_threads": "7",
        "redirect_stderr_to_stdout": "1", "enable_per_process_and_thread_time_limit": "off",
        "enable_per_process_and_thread_memory_limit": 1, "enable_network": "FALSE", "expected_output": {"a": 1},
        "unknown": "ignored",
    })).await;
    let shown = server.all_of(&token).await;
    let wanted = json!({
        "source_code": "123", "language_id": 46, "stdin": "t", "cpu_time_limit": "10.0", "wall_time_limit": "12.5",
        "memory_limit": 2048, "number_of_runs": 1, "stack_limit": 64000, "max_processes_and_or_threads": 7,
        "redirect_stderr_to_stdout": true, "enable_per_process_and_thread_time_limit": false,
        "enable_per_process_and_thread_memory_limit": true, "enable_network": false, "expected_output": null,
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(shown[name], *value, "{name}");
    }
}

#[tokio::test]
async fn options_and_arguments_become_words_and_are_shown_as_they_were_sent() {
    let server = idle().await;
    let token = server.created("", &changed(json!({
        "language_id": 50, "compiler_options": " -O3 '-DX=a b';", "command_line_arguments": "a \"b c\" $HOME `id`\nd",
    }))).await;
    let job = server.job_behind(&token).await;
    assert_eq!(job.compiler_options, ["-O3", "-DX=a b"]);
    assert_eq!(job.args, ["a", "b c", "HOME", "id", "d"]);
    let shown = server.all_of(&token).await;
    assert_eq!(shown["compiler_options"], " -O3 '-DX=a b';");
    assert_eq!(shown["command_line_arguments"], "a \"b c\" $HOME `id`\nd");
    let answer = server.create("", &changed(json!({ "command_line_arguments": "'open" }))).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (422, json!({ "command_line_arguments": ["has a quote that is not closed"] }))
    );
}

#[tokio::test]
async fn no_cpu_limit_is_as_much_as_the_wall_time_allows() {
    let server = idle().await;
    let token = server.created("", &changed(json!({ "cpu_time_limit": 0, "wall_time_limit": 2, "max_processes_and_or_threads": 3, "stack_limit": 0 }))).await;
    let limits = server.job_behind(&token).await.limits;
    assert_eq!((limits.cpu_time, limits.wall_time), (Duration::from_secs(6), Duration::from_secs(2)));
    assert!(limits.stack > Bytes(0), "a program needs some");
    assert_eq!(server.all_of(&token).await["cpu_time_limit"], "0.0");
}

#[tokio::test]
async fn what_only_the_one_validation_knows_is_told_under_its_attribute() {
    let server = with(|options| options.service.rules.max_stdin = Bytes(10)).await;
    let answer = server.create("", &changed(json!({ "stdin": "x".repeat(11) }))).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.json()["stdin"][0].as_str().unwrap().contains("at most"), "{}", answer.text());
}

#[tokio::test]
async fn base64_is_read_leniently_and_only_where_it_is_meant() {
    let server = idle().await;
    let body = json!({
        "source_code": "ZWNo\nbw", "language_id": 46, "stdin": "aGk*K!", "expected_output": "", "command_line_arguments": "aGkK",
    });
    let token = server.created("?base64_encoded=true", &body).await;
    let shown = server.all_of(&token).await;
    assert_eq!(shown["source_code"], "echo");
    assert_eq!((&shown["stdin"], &shown["expected_output"]), (&json!("hi\n"), &json!("")));
    assert_eq!(shown["command_line_arguments"], "aGkK");
    let blank = json!({ "source_code": "!!!", "language_id": 46 });
    let answer = server.create("?base64_encoded=true", &blank).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (422, json!({ "source_code": ["can't be blank"] })));
    for not_true in ["True", "1", "yes", "", "TRUE"] {
        let token = server.created(&format!("?base64_encoded={not_true}"), &body).await;
        assert_eq!(server.all_of(&token).await["source_code"], "ZWNo\nbw", "{not_true:?}");
    }
}

#[tokio::test]
async fn additional_files_are_always_base64_and_come_back_in_lines() {
    let server = idle().await;
    let archive = packed("dir/data.txt", b"hi");
    for query in ["", "?base64_encoded=true"] {
        let body = json!({ "source_code": "ZWNobw==", "language_id": 46, "additional_files": archive });
        let token = server.created(query, &body).await;
        let files = server.job_behind(&token).await.files;
        assert_eq!((files.len(), files[0].path.as_str(), &files[0].content[..]), (1, "dir/data.txt", &b"hi"[..]));
        let shown = server.all_of(&token).await["additional_files"].as_str().unwrap().to_owned();
        assert!(shown.lines().all(|line| line.len() <= 60) && shown.ends_with('\n'), "{shown:?}");
        assert_eq!(shown.replace('\n', ""), archive);
    }
    // What is no archive at all is no reason to refuse a program, and a hostile one is.
    let token = server.created("", &changed(json!({ "additional_files": "no zip" }))).await;
    assert_eq!(server.job_behind(&token).await.files, []);
    let answer = server.create("", &changed(json!({ "additional_files": packed("../data.txt", b"hi") }))).await;
    assert_eq!(answer.status, 422);
    assert!(answer.json()["additional_files"][0].as_str().unwrap().contains("../data.txt"), "{}", answer.text());
    // It cannot take the source's place.
    let token = server.created("", &changed(json!({ "additional_files": packed("main.sh", b"hi") }))).await;
    assert_eq!(server.job_behind(&token).await.files, []);
}

#[tokio::test]
async fn a_callback_is_kept_in_judge0s_form() {
    let server = with(|options| {
        options.workers = false;
        options.service.rules.callbacks = Some(CallbackRules::default());
    })
    .await;
    let answer = server.create("", &changed(json!({ "callback_url": "http://hook.example/x" }))).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let callback = server.job_behind(&token_of(&answer.json())).await.callback.unwrap();
    assert_eq!((callback.url.as_str(), callback.form), ("http://hook.example/x", CallbackForm::Judge0));
}

/// Little room for bodies, and no wait for it.
fn tight(options: &mut crate::server::Options) {
    options.workers = false;
    options.http.max_body = Bytes::kib(256);
    options.http.max_batch_body = Bytes::kib(256);
    // As much as one request may need: 256 KiB and what its archive may grow to.
    options.http.body_budget = Bytes(0);
    options.http.judge0.max_extract = 1024;
    options.http.body_timeout = Duration::from_millis(500);
}

#[tokio::test]
async fn archives_are_unpacked_only_where_there_is_room_for_what_they_grow_to() {
    let server = with(tight).await;
    let body = changed(json!({ "additional_files": packed("data.txt", &[0; 1 << 20]) }));
    server.store.delay(StoreCall::Insert, Duration::from_secs(4));
    let (first, second) = tokio::join!(server.create("", &body), server.create("", &body));
    let (stored, refused) = if first.status == 201 { (first, second) } else { (second, first) };
    assert_eq!((stored.status.as_u16(), refused.status.as_u16()), (201, 503), "{}", refused.text());
    assert!(refused.json()["error"].as_str().unwrap().contains("too many large requests"), "{}", refused.text());
    server.store.heal(StoreCall::Insert);
    // Whoever waits for a job has given its room back.
    let waiting = tokio::spawn(server.post("/submissions?wait=true").json(body.to_string()).send());
    server.until_depth(|depth| depth.pending == 2).await;
    assert!(!waiting.is_finished());
    server.created("", &body).await;
    waiting.abort();
}

#[tokio::test]
async fn a_body_takes_of_the_budget_until_its_submission_is_stored() {
    let server = with(tight).await;
    let body = changed(json!({ "stdin": "x".repeat(200 << 10) }));
    server.store.delay(StoreCall::Insert, Duration::from_secs(3));
    let answers = join_all((0..8).map(|_| server.create("", &body))).await;
    let refused = answers.iter().filter(|answer| answer.status == 503).count();
    // Six bodies of 200 KiB fit into 1,280 KiB.
    assert_eq!(refused, 2, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
}
