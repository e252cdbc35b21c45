//! Several submissions in one request.

use crate::setup::{changed, echo, id_of, packed, start, token_of, with, with_judge0};
use gavel_core::Bytes;
use serde_json::{Value, json};

const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

fn batch(list: &[Value]) -> String {
    json!({ "submissions": list }).to_string()
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_batch() {
    let server = start().await;
    let list = [echo("a"), changed(json!({ "language_id": 150000 })), echo("b"), json!({})];
    let answer = server.post("/submissions/batch").json(batch(&list)).send().await;
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), body.as_array().unwrap().len()), (201, 4));
    assert_eq!(body[1], json!({ "language_id": ["language with id 150000 doesn't exist"] }));
    assert_eq!(body[3]["language_id"], json!(["can't be blank", "language with id  doesn't exist"]));
    let (a, b) = (token_of(&body[0]), token_of(&body[2]));
    for token in [&a, &b] {
        server.reach(&id_of(token), "completed").await;
    }
    let path = format!("/submissions/batch?tokens={b},{UNKNOWN},{a},,{b},nonsense&fields=stdout&base64_encoded=true");
    let read = server.get(&path).send().await;
    let wanted = json!({ "submissions": [{ "stdout": "Yg==\n" }, null, { "stdout": "YQ==\n" }, null, { "stdout": "Yg==\n" }, null] });
    assert_eq!((read.status.as_u16(), read.json()), (200, wanted));
    let by_header = server.get("/submissions/batch?fields=stdout").header("tokens", &a).send().await;
    assert_eq!(by_header.json(), json!({ "submissions": [{ "stdout": "a" }] }));
}

#[tokio::test]
async fn a_batch_without_a_valid_submission_is_refused() {
    let server = start().await;
    let answer = server.post("/submissions/batch?wait=true").json(batch(&[json!({ "language_id": 46 })])).send().await;
    assert_eq!((answer.status.as_u16(), answer.json()), (422, json!([{ "source_code": ["can't be blank"] }])));
}

#[tokio::test]
async fn a_batch_has_between_one_and_twenty() {
    let server = start().await;
    let none = json!({ "error": "there should be at least one submission in a batch" });
    for body in ["{}", "{\"submissions\":null}", "{\"submissions\":[]}", "[]", "[{\"language_id\":46}]", ""] {
        let answer = server.post("/submissions/batch").json(body.to_owned()).send().await;
        assert_eq!((answer.status.as_u16(), answer.json()), (400, none.clone()), "{body}");
    }
    for path in ["/submissions/batch", "/submissions/batch?tokens=", "/submissions/batch?tokens=,,"] {
        let answer = server.get(path).send().await;
        assert_eq!((answer.status.as_u16(), answer.json()), (400, none.clone()), "{path}");
    }
    let many = json!({ "error": "number of submissions in a batch should be less than or equal to 20" });
    let answer = server.post("/submissions/batch").json(batch(&vec![echo(""); 21])).send().await;
    assert_eq!((answer.status.as_u16(), answer.json()), (400, many.clone()));
    let tokens = vec![UNKNOWN; 21].join(",");
    let answer = server.get(&format!("/submissions/batch?tokens={tokens}")).send().await;
    assert_eq!((answer.status.as_u16(), answer.json()), (400, many));
    let full = server.post("/submissions/batch").json(batch(&vec![echo(""); 20])).send().await;
    assert_eq!(full.status, 201);
    for wrong in ["{\"submissions\":\"x\"}", "{\"submissions\":[1,2]}"] {
        assert_eq!(server.post("/submissions/batch").json(wrong.to_owned()).send().await.status, 400, "{wrong}");
    }
    let answer = server.get("/submissions/batch?tokens=a&fields=x").send().await;
    assert_eq!(answer.json(), json!({ "error": "invalid fields: [x]" }));
}

#[tokio::test]
async fn batches_can_be_switched_off_and_do_not_mind_maintenance() {
    let server = with_judge0(|options| options.batches = false).await;
    for answer in [
        server.post("/submissions/batch").json(batch(&[echo("")])).send().await,
        server.get(&format!("/submissions/batch?tokens={UNKNOWN}")).send().await,
    ] {
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (400, json!({ "error": "batched submissions are not allowed" }))
        );
    }
    let server = with_judge0(|options| options.maintenance = Some("Back at noon.".into())).await;
    let refused = server.create("", &echo("")).await;
    assert_eq!((refused.status.as_u16(), refused.json()), (503, json!({ "error": "Back at noon." })));
    assert_eq!(server.call("DELETE", &format!("/submissions/{UNKNOWN}")).send().await.status, 503);
    assert_eq!(server.post("/submissions/batch").json(batch(&[echo("")])).send().await.status, 201);
}

#[tokio::test]
async fn a_full_queue_takes_all_of_a_batch_or_nothing() {
    let server = with(|options| {
        options.workers = false;
        options.max_depth = 3;
    })
    .await;
    server.created("", &echo("")).await;
    let full = json!({ "error": "queue is full" });
    // Also before its size is looked at.
    for size in [3, 21] {
        let answer = server.post("/submissions/batch").json(batch(&vec![echo(""); size])).send().await;
        assert_eq!((answer.status.as_u16(), answer.json()), (503, full.clone()), "{size}");
    }
    let fits = server.post("/submissions/batch").json(batch(&[echo(""), echo("")])).send().await;
    assert_eq!(fits.status, 201);
    for query in ["", "?wait=true", "?fields=nope"] {
        // Nobody reads the submission, either.
        for body in [echo(""), json!({})] {
            let answer = server.create(query, &body).await;
            assert_eq!((answer.status.as_u16(), answer.json()), (503, full.clone()));
        }
    }
}

#[tokio::test]
async fn the_archives_of_a_batch_share_their_room() {
    let server = with(|options| {
        options.http.max_batch_body = Bytes::kib(1536);
        options.http.judge0.max_extract = 1024;
    })
    .await;
    let item = changed(json!({ "additional_files": packed("data.txt", &[0; 900 << 10]) }));
    let small = changed(json!({ "additional_files": packed("data.txt", b"hi") }));
    let answer = server.post("/submissions/batch").json(batch(&[item.clone(), item, small])).send().await;
    let body = answer.json();
    assert_eq!(answer.status, 201);
    let files = server.job_behind(&token_of(&body[0])).await.files;
    assert_eq!(files[0].content.len(), 900 << 10);
    let told = body[1]["additional_files"][0].as_str().unwrap();
    assert!(told.ends_with("larger than the 651264 bytes that other archives of the request leave to it"), "{told}");
    token_of(&body[2]);
}
