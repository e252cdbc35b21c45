//! What became of a program, as Judge0 says it.

use crate::setup::{completed, echo, idle, with};
use gavel_core::{Outcome, Verdict};
use gavel_store::Settlement;
use serde_json::{Value, json};

type Change = fn(&mut Outcome);

fn killed(outcome: &mut Outcome, signal: i32) {
    outcome.verdict = Verdict::RuntimeError;
    (outcome.exit_code, outcome.signal) = (None, Some(signal));
}

fn slow(outcome: &mut Outcome, cpu_ms: f64) {
    killed(outcome, 9);
    outcome.verdict = Verdict::TimeLimitExceeded;
    outcome.stdout = b"partial".to_vec();
    let numbers = [
        ("cpu_time_ms", cpu_ms),
        ("cpu_time_limit_ms", 5000.0),
        ("wall_time_ms", 10_001.0),
        ("wall_time_limit_ms", 10_000.0),
    ];
    outcome.evidence = numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
}

fn compiler(outcome: &mut Outcome, cpu_ms: f64) {
    outcome.verdict = Verdict::CompileError;
    (outcome.exit_code, outcome.signal) = (None, None);
    outcome.compile_output = b"main.c: no".to_vec();
    let numbers = [("cpu_time_ms", cpu_ms), ("cpu_time_limit_ms", 10_000.0)];
    outcome.evidence = numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
}

/// How a run ended: status, exit_code, exit_signal and message; then status, exit_code and message where signals
/// are shown as exit codes.
fn table() -> Vec<(Change, Value, Value)> {
    let signal = |status: u8, n: i32| {
        let message = format!("Caught fatal signal {n}");
        let imitated = format!("Exited with error status {}", 128 + n);
        (json!([status, 0, n, message]), json!([11, 128 + n, imitated]))
    };
    let with = |change: Change, (usual, imitated): (Value, Value)| (change, usual, imitated);
    let same = |change: Change, status: u8, code: Option<i32>, message: Option<&str>| {
        (change, json!([status, code, null, message]), json!([status, code, message]))
    };
    vec![
        same(|_| (), 3, Some(0), None),
        same(|o| o.verdict = Verdict::WrongAnswer, 4, Some(0), None),
        same(
            |o| {
                o.verdict = Verdict::RuntimeError;
                o.exit_code = Some(7)
            },
            11,
            Some(7),
            Some("Exited with error status 7"),
        ),
        with(|o| killed(o, 11), signal(7, 11)),
        with(|o| killed(o, 25), signal(8, 25)),
        with(|o| killed(o, 8), signal(9, 8)),
        with(|o| killed(o, 6), signal(10, 6)),
        with(|o| killed(o, 9), signal(12, 9)),
        with(|o| killed(o, 31), signal(12, 31)),
        same(|o| slow(o, 5001.0), 5, Some(0), Some("Time limit exceeded")),
        same(|o| slow(o, 20.0), 5, Some(0), Some("Time limit exceeded (wall clock)")),
        (
            |o| {
                killed(o, 9);
                o.verdict = Verdict::MemoryLimitExceeded;
                o.reason = "used it all".into()
            },
            json!([11, 137, null, "Exited with error status 137: memory limit exceeded, used it all"]),
            json!([11, 137, "Exited with error status 137"]),
        ),
        (
            |o| {
                o.exit_code = Some(1);
                o.verdict = Verdict::MemoryLimitExceeded;
                o.reason = "used it all".into()
            },
            json!([11, 1, null, "Exited with error status 1: memory limit exceeded, used it all"]),
            json!([11, 1, "Exited with error status 1"]),
        ),
        (
            |o| {
                o.verdict = Verdict::OutputLimitExceeded;
                o.reason = "wrote too much".into()
            },
            json!([8, 0, 25, "Caught fatal signal 25: wrote too much"]),
            json!([11, 153, "Exited with error status 153"]),
        ),
        same(|o| compiler(o, 1.0), 6, None, None),
        same(|o| compiler(o, 10_000.0), 6, None, None),
    ]
}

#[tokio::test]
async fn each_verdict_has_its_status_exit_data_and_message() {
    let usual = idle().await;
    let imitating = with(|options| {
        options.workers = false;
        options.http.judge0.signals_as_exit_codes = true;
    })
    .await;
    for (change, wanted, imitated) in table() {
        let token = usual.created("", &echo("")).await;
        usual.settle(completed(change)).await;
        let shown = usual.all_of(&token).await;
        assert_eq!(json!([shown["status_id"], shown["exit_code"], shown["exit_signal"], shown["message"]]), wanted);
        assert_eq!(shown["status"]["id"], shown["status_id"]);
        assert!(shown["finished_at"].is_string());

        let token = imitating.created("", &echo("")).await;
        imitating.settle(completed(change)).await;
        let shown = imitating.all_of(&token).await;
        assert_eq!(json!([shown["status_id"], shown["exit_code"], shown["message"]]), imitated);
        assert_eq!(shown["exit_signal"], Value::Null);
    }
}

#[tokio::test]
async fn a_program_that_was_not_run_has_no_times_and_no_output() {
    let server = idle().await;
    let ends: [(Settlement, Value, Value, u8); 4] = [
        (completed(|o| compiler(o, 1.0)), json!("main.c: no"), Value::Null, 6),
        (completed(|o| compiler(o, 10_001.0)), json!("Compilation time limit exceeded."), Value::Null, 6),
        (
            Settlement::Failed { message: "the sandbox could not be opened".into() },
            Value::Null,
            json!("the sandbox could not be opened"),
            13,
        ),
        (Settlement::Cancelled, Value::Null, json!("The submission was cancelled."), 13),
    ];
    for (end, compile_output, message, status) in ends {
        let token = server.created("", &echo("")).await;
        server.settle(end).await;
        let shown = server.all_of(&token).await;
        assert_eq!(
            (&shown["compile_output"], &shown["message"], &shown["status_id"]),
            (&compile_output, &message, &json!(status))
        );
        for empty in ["stdout", "stderr", "time", "wall_time", "memory", "exit_code", "exit_signal"] {
            assert_eq!(shown[empty], Value::Null, "{empty}");
        }
    }
}

#[tokio::test]
async fn output_up_to_a_limit_is_kept() {
    let server = idle().await;
    let token = server.created("", &echo("")).await;
    server.settle(completed(|outcome| slow(outcome, 5001.0))).await;
    let shown = server.all_of(&token).await;
    assert_eq!(
        (&shown["stdout"], &shown["time"], &shown["wall_time"]),
        (&json!("partial"), &json!("0.001204"), &json!("0.00231"))
    );
}

#[tokio::test]
async fn a_callback_says_the_default_fields_in_base64() {
    use gavel_store::Store;
    let server = idle().await;
    let token = server.created("", &echo("")).await;
    server.settle(completed(|outcome| outcome.stdout = b"\xff\n".to_vec())).await;
    let record = server.store.find(gavel_api::judge0::token::read(&token).unwrap()).await.unwrap().unwrap();
    let body = gavel_api::judge0::callback_body(&record, &Default::default());
    let wanted = server.read(&token, "?base64_encoded=true").await;
    assert_eq!(String::from_utf8(body).unwrap(), wanted.text());
    assert_eq!(wanted.json()["stdout"], "/wo=\n");
}
