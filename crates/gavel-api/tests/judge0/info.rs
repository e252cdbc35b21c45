//! Languages, statuses, settings and counts.

use crate::setup::{completed, echo, idle, start, with, with_judge0};
use gavel_api::judge0::Version;
use gavel_core::Verdict;
use serde_json::{Value, json};

#[tokio::test]
async fn languages_are_listed_by_name_and_only_those_that_work() {
    let server = start().await;
    let list = server.get("/languages").send().await.json();
    let wanted = json!([
        { "id": 46, "name": "Bash (5.2.15)" },
        { "id": 48, "name": "C (GCC 12.2.0)" }, { "id": 49, "name": "C (GCC 12.2.0)" },
        { "id": 50, "name": "C (GCC 12.2.0)" }, { "id": 103, "name": "C (GCC 12.2.0)" },
        { "id": 52, "name": "C++ (GCC 12.2.0)" }, { "id": 54, "name": "C++ (GCC 12.2.0)" },
        { "id": 105, "name": "C++ (GCC 12.2.0)" },
        { "id": 89, "name": "Multi-file program" },
        { "id": 43, "name": "Plain Text" },
        { "id": 71, "name": "Python (3.11.2)" }, { "id": 113, "name": "Python (3.11.2)" },
    ]);
    assert_eq!(list, wanted);
    let all = server.get("/languages/all").send().await.json();
    let all = all.as_array().unwrap();
    let archived: Vec<_> = all.iter().filter(|l| l["is_archived"] == true).map(|l| l["id"].as_u64().unwrap()).collect();
    assert_eq!((archived.len(), all.len()), (42, 54));
    assert!((1..=42).all(|id| archived.contains(&id)));
    for id in [77, 90, 0, 1000] {
        assert_eq!(server.get(&format!("/languages/{id}")).send().await.status, 404, "{id}");
    }
    let c = json!({
        "id": 50, "name": "C (GCC 12.2.0)", "is_archived": false, "source_file": "main.c",
        "compile_cmd": "/usr/bin/gcc %s main.c", "run_cmd": "/usr/bin/run main.c",
    });
    assert_eq!(server.get("/languages/50").send().await.json(), c);
    let bash = server.get("/languages/46").send().await.json();
    assert_eq!((&bash["source_file"], &bash["compile_cmd"]), (&json!("main.sh"), &Value::Null));
    let nothing = json!({ "id": 89, "name": "Multi-file program", "is_archived": false, "source_file": null, "compile_cmd": null, "run_cmd": null });
    assert_eq!(server.get("/languages/89").send().await.json(), nothing);
    let old = server.get("/languages/4").send().await.json();
    assert_eq!((&old["name"], &old["is_archived"]), (&json!("C (gcc 7.2.0)"), &json!(true)));
}

#[tokio::test]
async fn the_extra_flavour_has_numbers_of_its_own() {
    let server = start().await;
    let list = server.get("/extra/languages").send().await.json();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|l| l["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [89, 9, 10, 25, 31, 32, 33], "{list}");
    let answer = server
        .post("/extra/submissions?wait=true&fields=language,stdout")
        .json(json!({ "source_code": "x", "language_id": 33, "stdin": "7" }).to_string())
        .send()
        .await;
    assert_eq!(answer.json(), json!({ "stdout": "7", "language": { "id": 33, "name": "Python (3.11.2)" } }));
    for (path, id) in
        [("/extra/submissions", 71), ("/extra/submissions", 46), ("/submissions", 33), ("/submissions", 10)]
    {
        let answer = server.post(path).json(json!({ "source_code": "x", "language_id": id }).to_string()).send().await;
        assert_eq!(answer.status, 422, "{path} {id}");
    }
}

#[tokio::test]
async fn the_version_is_the_one_that_clients_choose_their_numbers_by() {
    let server = start().await;
    for (path, version) in [("", "1.13.1"), ("/extra", "1.13.1-extra")] {
        let about = server.get(&format!("{path}/about")).send().await.json();
        assert_eq!(about["version"], version);
        let text = server.get(&format!("{path}/version")).send().await;
        assert_eq!((text.text().as_str(), text.header("content-type")), (version, "text/plain; charset=utf-8"));
    }
    let server = with_judge0(|options| options.version = Version::V1_14_0).await;
    assert_eq!(server.get("/extra/about").send().await.json()["version"], "1.14.0-extra");
}

#[tokio::test]
async fn there_are_fourteen_statuses() {
    let server = start().await;
    let list = server.get("/statuses").send().await.json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 14);
    assert_eq!(
        (&list[0], &list[10]),
        (&json!({ "id": 1, "description": "In Queue" }), &json!({ "id": 11, "description": "Runtime Error (NZEC)" }))
    );
    assert!(list.iter().zip(1..).all(|(status, id)| status["id"] == id));
}

#[tokio::test]
async fn the_settings_have_the_thirty_nine_keys_with_their_kinds() {
    let server = with(|options| {
        options.max_depth = 77;
        options.service.rules.allow_network = true;
        options.http.judge0.max_batch = 5;
    })
    .await;
    let config = server.get("/config_info").send().await.json();
    let floats = [
        "callbacks_timeout",
        "submission_cache_duration",
        "cpu_time_limit",
        "max_cpu_time_limit",
        "cpu_extra_time",
        "max_cpu_extra_time",
        "wall_time_limit",
        "max_wall_time_limit",
    ];
    let wholes = [
        "callbacks_max_tries",
        "max_extract_size",
        "max_submission_batch_size",
        "max_queue_size",
        "memory_limit",
        "max_memory_limit",
        "stack_limit",
        "max_stack_limit",
        "max_processes_and_or_threads",
        "max_max_processes_and_or_threads",
        "max_file_size",
        "max_max_file_size",
        "number_of_runs",
        "max_number_of_runs",
    ];
    let switches = [
        "maintenance_mode",
        "enable_wait_result",
        "enable_compiler_options",
        "enable_command_line_arguments",
        "enable_submission_delete",
        "enable_callbacks",
        "enable_additional_files",
        "enable_batched_submissions",
        "use_docs_as_homepage",
        "enable_per_process_and_thread_time_limit",
        "allow_enable_per_process_and_thread_time_limit",
        "enable_per_process_and_thread_memory_limit",
        "allow_enable_per_process_and_thread_memory_limit",
        "enable_network",
        "allow_enable_network",
        "redirect_stderr_to_stdout",
    ];
    assert!(floats.iter().all(|key| config[*key].is_f64()), "{config}");
    assert!(wholes.iter().all(|key| config[*key].is_u64()), "{config}");
    assert!(switches.iter().all(|key| config[*key].is_boolean()), "{config}");
    assert_eq!(config["allowed_languages_for_compile_options"], json!([]));
    let keys = config.as_object().unwrap().len();
    assert_eq!((keys, floats.len() + wholes.len() + switches.len() + 1), (39, 39));
    assert_eq!(
        (&config["max_queue_size"], &config["allow_enable_network"], &config["max_submission_batch_size"]),
        (&json!(77), &json!(true), &json!(5))
    );
    assert_eq!((&config["cpu_time_limit"], &config["max_memory_limit"]), (&json!(5.0), &json!(512_000)));
}

#[tokio::test]
async fn the_server_tells_of_its_machine_and_workers() {
    let server = idle().await;
    let system = server.get("/system_info").send().await.json();
    assert!(system.as_object().unwrap().values().all(Value::is_string), "{system}");
    assert!(system["CPU(s)"].as_str().unwrap().parse::<u32>().unwrap() > 0 && system["Mem"].is_string());
    server.created("", &echo("")).await;
    let workers =
        json!([{ "queue": "1.13.1", "size": 1, "available": 1, "idle": 1, "working": 0, "paused": 0, "failed": 0 }]);
    assert_eq!(server.get("/workers").send().await.json(), workers);
    let isolate = server.get("/isolate").send().await;
    assert!(isolate.text().contains("native") && isolate.header("content-type").starts_with("text/plain"));
    assert!(server.get("/license").send().await.text().contains("Apache License"));
}

#[tokio::test]
async fn statistics_count_every_submission() {
    let server = idle().await;
    for verdict in [Verdict::Accepted, Verdict::Accepted, Verdict::WrongAnswer] {
        server.created("", &echo("")).await;
        server.settle(completed(|outcome| outcome.verdict = verdict)).await;
    }
    server.created("", &echo("")).await;
    server.take().await;
    server.created("", &json!({ "source_code": "x", "language_id": 71 })).await;
    let statistics = server.get("/statistics").send().await.json();
    assert_eq!((&statistics["submissions"]["total"], &statistics["submissions"]["today"]), (&json!(5), &json!(5)));
    assert_eq!(statistics["submissions"]["last_30_days"].as_object().unwrap().len(), 30);
    let languages = json!([
        { "language": { "id": 46, "name": "Bash (5.2.15)" }, "count": 4 },
        { "language": { "id": 71, "name": "Python (3.11.2)" }, "count": 1 },
    ]);
    assert_eq!(statistics["languages"], languages);
    let status = |id, name: &str, count| json!({ "status": { "id": id, "name": name }, "count": count });
    let statuses = json!([
        status(3, "Accepted", 2),
        status(1, "In Queue", 1),
        status(2, "Processing", 1),
        status(4, "Wrong Answer", 1)
    ]);
    assert_eq!(statistics["statuses"], statuses);
    assert!(statistics["database"]["size_in_bytes"].as_u64().unwrap() > 0);
    assert!(statistics["created_at"].as_str().unwrap().ends_with("+00:00"));
    server.created("", &echo("")).await;
    assert_eq!(server.get("/statistics").send().await.json()["submissions"]["total"], 5, "it is kept");
}

#[tokio::test]
async fn without_tokens_everybody_may_everything() {
    let server = start().await;
    for path in ["/authenticate", "/authorize"] {
        let answer = server.post(path).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.len(), answer.header("content-type")),
            (200, 0, "text/html"),
            "{path}"
        );
    }
}
