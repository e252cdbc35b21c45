//! Who is let in, as clients of Judge0 show it and are told; and pages of other origins.

use crate::server::Server;
use crate::setup::{echo, token_of, with};
use gavel_api::{AuthOptions, Origins};
use gavel_store::{Scope, Scopes};
use serde_json::json;

const USER: &str = "a user's secret of many letters";
const ADMIN: &str = "an admin's secret of many letters";

async fn with_tokens() -> Server {
    with(|options| {
        let user: Scopes = [Scope::Submit, Scope::Read].into_iter().collect();
        let fixed = vec![(USER.to_owned(), user), (ADMIN.to_owned(), Scopes::all())];
        options.auth = Some(AuthOptions { fixed, ..AuthOptions::default() });
        options.http.judge0.delete = true;
    })
    .await
}

#[tokio::test]
async fn without_a_token_every_route_is_401_without_a_word() {
    let server = with_tokens().await;
    let wrong = [("POST", "/authenticate"), ("POST", "/authorize"), ("POST", "/submissions"), ("GET", "/submissions")];
    let more = ["/submissions/x", "/languages", "/languages/46", "/statuses", "/about", "/config_info", "/workers"];
    for (method, path) in wrong.into_iter().chain(more.map(|path| ("GET", path))) {
        for call in [server.call(method, path), server.call(method, path).header("x-auth-token", "no token of ours")] {
            let answer = call.send().await;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (401, ""), "{method} {path}");
        }
    }
    assert_eq!(server.get("/").send().await.status, 200, "the only one for everybody");
}

#[tokio::test]
async fn a_token_comes_in_the_header_or_as_a_parameter() {
    let server = with_tokens().await;
    let encoded = USER.replace(' ', "+");
    let answer = server.post("/submissions?wait=true").header("x-auth-token", USER).json(echo("hi").to_string());
    assert_eq!(answer.send().await.json()["stdout"], "hi");
    let answer = server.post(&format!("/submissions?X-Auth-Token={encoded}")).json(echo("hi").to_string()).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let token = token_of(&answer.json());
    let answer = server.get(&format!("/submissions/{token}?fields=stdin&X-Auth-Token={encoded}")).send().await;
    assert_eq!(answer.json(), json!({ "stdin": "hi" }));
    for path in ["/authenticate", "/extra/authenticate"] {
        let answer = server.post(path).header("x-auth-token", USER).send().await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""));
    }
}

#[tokio::test]
async fn statistics_say_of_the_server_only_to_whoever_sees_all() {
    let server = with_tokens().await;
    let user = |method: &str, path: &str| server.call(method, path).header("x-auth-token", USER);
    let held = json!({ "source_code": "hold", "language_id": 46 });
    let created = user("POST", "/submissions").json(held.to_string()).send().await;
    server.until_depth(|depth| depth.running == 1).await;
    let statistics = async |secret: &str| server.get("/statistics").header("x-auth-token", secret).send().await.json();
    let (mine, all) = (statistics(USER).await, statistics(ADMIN).await);
    let status = |id, name: &str| json!([{ "status": { "id": id, "name": name }, "count": 1 }]);
    assert_eq!((&mine["statuses"], &all["statuses"]), (&status(1, "In Queue"), &status(2, "Processing")));
    assert_eq!(mine["database"], json!({ "size_pretty": "0 kB", "size_in_bytes": 0 }));
    assert!(all["database"]["size_in_bytes"].as_u64().unwrap() > 0);
    server.hold.add_permits(1);
    assert_eq!(created.status, 201);
}

#[tokio::test]
async fn what_needs_authorization_is_403_without_a_word_for_others() {
    let server = with_tokens().await;
    let user = |method: &str, path: &str| server.call(method, path).header("x-auth-token", USER);
    let created = user("POST", "/submissions?wait=true").json(echo("").to_string()).send().await;
    let path = format!("/submissions/{}", token_of(&created.json()));
    for (method, path) in [("POST", "/authorize"), ("GET", "/submissions"), ("DELETE", &path)] {
        for call in [user(method, path), user(method, path).header("x-auth-user", "nobody")] {
            let answer = call.send().await;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (403, ""), "{method} {path}");
        }
        let answer = user(method, path).header("x-auth-user", ADMIN).send().await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_send_what_its_gateway_wants() {
    let origin = "https://ide.example";
    let server = with(|options| options.http.origins = Origins::parse(&[origin.into()]).unwrap()).await;
    let asked = "content-type,authorization,x-rapidapi-key,x-judge0-app";
    let ask = |origin: &str| {
        server
            .call("OPTIONS", "/submissions?base64_encoded=true")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", asked)
    };
    let answer = ask(origin).send().await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(answer.header("access-control-allow-origin"), origin);
    assert_eq!(answer.header("access-control-allow-headers"), asked);
    assert_eq!(answer.header("access-control-max-age"), "7200");
    let methods = answer.header("access-control-allow-methods");
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert!(methods.split(',').any(|known| known.trim() == method), "{methods}");
    }
    assert_eq!(ask("https://evil.example").send().await.header("access-control-allow-origin"), "");
    let answer = server
        .post("/submissions")
        .header("origin", origin)
        .header("x-rapidapi-key", "of a gateway")
        .header("authorization", "Bearer of a gateway")
        .json(echo("").to_string())
        .send()
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), origin);
}
