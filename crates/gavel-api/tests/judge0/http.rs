//! What every request shares: paths, methods, bodies, and answers of the framework.

use crate::setup::{echo, form, start, token_of, with_judge0};
use gavel_api::Origins;
use serde_json::json;

#[tokio::test]
async fn paths_may_end_in_a_slash_or_in_json() {
    let server = start().await;
    let token = server.created("", &echo("")).await;
    for path in [
        "/submissions",
        "/submissions/",
        "/submissions.json",
        "/languages/",
        "/languages.json",
        "/languages/46.json",
        "/languages/46/",
        "/languages/all/",
        "/statuses.json",
        "/about/",
        "/extra/about",
        "/extra/languages/",
        "/",
        "/extra",
    ] {
        assert_eq!(server.get(path).send().await.status, 200, "{path}");
        let head = server.call("HEAD", path).send().await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
    }
    for path in
        [format!("/submissions/{token}.json"), format!("/submissions/{token}/"), format!("/extra/submissions/{token}")]
    {
        assert_eq!(server.get(&path).send().await.status, 200, "{path}");
    }
    for path in ["/submissions/", "/submissions.json"] {
        let answer = server.post(path).json(echo("").to_string()).send().await;
        assert_eq!(answer.status, 201, "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_a_wrong_path() {
    let server = start().await;
    for (method, path) in [
        ("PUT", "/submissions"),
        ("DELETE", "/languages"),
        ("POST", "/about"),
        ("GET", "/authenticate"),
        ("GET", "/authorize"),
        ("PATCH", "/submissions/x"),
        ("OPTIONS", "/submissions"),
        ("POST", "/"),
        ("GET", "/languages/x"),
    ] {
        let answer = server.call(method, path).send().await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (404, 0), "{method} {path}");
        assert_eq!(answer.header("content-type"), "text/html; charset=UTF-8");
    }
    // Beside them the native API keeps its own words.
    let answer = server.get("/nothing").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (404, "application/problem+json"));
    assert_eq!(server.call("PUT", "/api/v1/jobs").send().await.status, 405);
}

#[tokio::test]
async fn only_who_accepts_json_alone_is_told_the_error() {
    let server = start().await;
    for accept in ["*/*", "text/html", "application/json, text/plain, */*", "application/json;q=1"] {
        let answer = server.get("/submissions/x").header("accept", accept).send().await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (404, 0), "{accept}");
    }
    let answer = server.get("/submissions/x").header("accept", "application/json").send().await;
    assert_eq!(answer.json(), json!({ "status": 404, "error": "Not Found" }));
    let answer = server.post("/submissions").header("accept", "application/json").json("{").send().await;
    assert_eq!((answer.status.as_u16(), answer.json()), (400, json!({ "status": 400, "error": "Bad Request" })));
}

#[tokio::test]
async fn bodies_may_be_json_or_forms_and_others_are_ignored() {
    let server = start().await;
    let blank = json!({ "source_code": ["can't be blank"], "language_id": ["can't be blank", "language with id  doesn't exist"] });
    let encoded = "source_code=echo+1%0A&language_id=46&stdin=h%C3%A9&wait=true";
    let answer = form(server.post("/submissions"), encoded).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["stdout"]), (201, &json!("hé")), "{}", answer.text());
    let parts = "--b\r\ncontent-disposition: form-data; name=\"source_code\"\r\n\r\necho\r\n\
                 --b\r\ncontent-disposition: form-data; name=\"stdin\"; filename=\"x\"\r\n\r\nfile\r\n\
                 --b\r\ncontent-disposition: form-data; name=\"language_id\"\r\n\r\n46\r\n--b--\r\n";
    let answer = server
        .post("/submissions?wait=true&fields=source_code,stdin")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(parts)
        .send()
        .await;
    assert_eq!((answer.status.as_u16(), answer.json()), (201, json!({ "source_code": "echo", "stdin": null })));
    for call in [
        server.post("/submissions").header("content-type", "text/plain").body(echo("").to_string()),
        server.post("/submissions").body(echo("").to_string()),
        server.post("/submissions").json(""),
        server.post("/submissions").json("[1]"),
        server.post("/submissions").json("null"),
        server.post("/submissions").json(json!({ "submission": echo("") }).to_string()),
    ] {
        let answer = call.send().await;
        assert_eq!((answer.status.as_u16(), answer.json()), (422, blank.clone()));
    }
    for call in [
        server.post("/submissions").json("{\"source_code\":"),
        server.post("/submissions").json(&b"{\"source_code\":\"\xff\"}"[..]),
        form(server.post("/submissions"), "source_code=%ff"),
        server.post("/submissions").header("content-type", "multipart/form-data; boundary=b").body("--b\r\nhalf"),
    ] {
        assert_eq!(call.send().await.status, 400);
    }
}

#[tokio::test]
async fn pages_of_other_origins_cannot_send_forms_unasked() {
    let server =
        crate::setup::with(|options| options.http.origins = Origins::parse(&["https://ide.example".into()]).unwrap())
            .await;
    let encoded = "source_code=echo&language_id=46";
    for (origin, status) in
        [("https://evil.example", 403), ("null", 403), ("https://ide.example", 201), ("http://localhost", 201)]
    {
        let answer = form(server.post("/submissions").header("origin", origin), encoded).send().await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.text());
        let answer = server.post(&format!("/submissions?{encoded}")).header("origin", origin).send().await;
        assert_eq!(answer.status, status, "{origin}, all of it in the query");
    }
    let json =
        server.post("/submissions").header("origin", "https://evil.example").json(echo("").to_string()).send().await;
    assert_eq!(json.status, 201, "whether a page may send this, its browser has asked before");
}

#[tokio::test]
async fn the_query_wins_over_the_body_and_switches_are_texts() {
    let server = start().await;
    let body = json!({ "source_code": "echo", "language_id": 46, "stdin": "body", "wait": "true", "fields": "stdin" });
    let answer = server.create("?stdin=query", &body).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (201, json!({ "stdin": "query" })));
    let mut not_text = body.clone();
    not_text["wait"] = json!(true);
    let answer = server.create("?fields=", &not_text).await;
    assert_eq!(answer.json().as_object().unwrap().len(), 1, "{}", answer.text());
    token_of(&answer.json());
}

#[tokio::test]
async fn headers_of_gateways_and_unknown_parameters_are_ignored() {
    let server = start().await;
    let answer = server
        .post("/submissions?foo=bar&page=x")
        .header("x-rapidapi-key", "k")
        .header("x-judge0-app", "sdk")
        .header("x-apihub-key", "k")
        .json(echo("").to_string())
        .send()
        .await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn an_answer_of_the_store_is_never_shown() {
    let server = start().await;
    server.break_store(gavel_store::StoreError::Unavailable("secret path".into()));
    for answer in [server.create("", &echo("")).await, server.read("01890000-0000-7000-8000-000000000000", "").await] {
        assert_eq!(answer.status, 503);
        assert!(!answer.text().contains("secret"), "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty() && answer.json()["error"].is_string());
    }
}

#[tokio::test]
async fn without_this_api_its_paths_are_unknown() {
    let server = with_judge0(|options| options.enabled = false).await;
    for path in ["/submissions", "/about", "/languages", "/"] {
        let answer = server.get(path).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (404, "application/problem+json"),
            "{path}"
        );
    }
}
