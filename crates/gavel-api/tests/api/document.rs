//! The document of the API says what the API is.

use crate::server::{Server, job};
use serde_json::Value;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(&gavel_api::openapi::json().unwrap()).unwrap()
}

#[test]
fn the_kept_document_is_the_present_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/openapi.json");
    let present = gavel_api::openapi::json().unwrap();
    if std::env::var_os("GAVEL_UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &present).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == present, "docs/api/openapi.json is old: run the tests once with GAVEL_UPDATE_OPENAPI=1");
}

#[tokio::test]
async fn every_route_is_documented_and_every_documented_route_exists() {
    let server = Server::start().await;
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let documented: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = gavel_api::metrics::ROUTES.iter().copied().collect();
    assert_eq!(documented, known);
    let operations = || paths.values().flat_map(|path| path.as_object().unwrap().values());
    let names: BTreeSet<_> = operations().map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations().count(), "names of operations are unique");
    for (path, operations) in paths {
        let concrete = path.replace("{id}", "x").replace("{file}", "x").replace("{token}", "x");
        // Judge0 does not tell a wrong method from an unknown path.
        let of_judge0 = operations.as_object().unwrap().values().all(|operation| operation["tags"][0] == "judge0");
        for method in ["get", "post", "delete", "put", "patch"] {
            let answer = server.call(&method.to_uppercase(), &concrete).send().await;
            if of_judge0 && operations.get(method).is_some() && path.contains('{') {
                continue;
            }
            let exists = answer.status != if of_judge0 { 404 } else { 405 };
            assert_eq!(exists, operations.get(method).is_some(), "{method} {path}: {}", answer.status);
            let no_route = answer.text().contains("there is no route");
            assert!(!no_route, "{method} {path} is documented and missing");
        }
    }
}

#[tokio::test]
async fn a_job_has_exactly_the_documented_fields() {
    let server = Server::start().await;
    let job = server.post("/api/v1/jobs?wait=true").json(job("live", "").to_string()).send().await.json();
    let document = document();
    let documented: BTreeSet<_> = keys(&document["components"]["schemas"]["Job"]["properties"]);
    let selectable: BTreeSet<_> = gavel_api::v1::fields::ANSWER.iter().map(|name| (*name).to_owned()).collect();
    let rare = BTreeSet::from(["output_omitted"].map(str::to_owned));
    assert_eq!(documented, selectable.union(&rare).cloned().collect());
    let only_for_bytes = BTreeSet::from(["stderr_base64", "compile_output_base64"].map(str::to_owned));
    assert_eq!(keys(&job), selectable.difference(&only_for_bytes).cloned().collect());
    let requested = keys(&document["components"]["schemas"]["JobRequested"]["properties"]);
    assert_eq!(requested, gavel_api::v1::fields::REQUEST.iter().map(|name| (*name).to_owned()).collect());
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn the_document_and_the_page_are_served_and_closed_to_scripts_from_elsewhere() {
    let server = Server::start().await;
    let served = server.get("/openapi.json").send().await;
    assert_eq!(served.json(), document());
    assert!(served.json()["openapi"].as_str().unwrap().starts_with("3.1"));
    let page = server.get("/docs").send().await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"), "{policy}");
    let html = page.text();
    assert!(!html.contains("http://") && !html.contains("https://"), "nothing is fetched from elsewhere");
    let mut files = 0;
    for attribute in ["src=\"", "href=\""] {
        for rest in html.split(attribute).skip(1) {
            let file = rest.split('"').next().unwrap();
            let answer = server.get(file).send().await;
            assert_eq!(answer.status, 200, "{file}");
            assert!(!answer.body.is_empty() && !answer.header("content-security-policy").is_empty());
            files += 1;
        }
    }
    assert!(files >= 5, "{html}");
    assert!(server.get("/docs/swagger-initializer.js").send().await.text().contains("/openapi.json"));
    for missing in ["/docs/x", "/docs/..%2fsecret", "/docs/index.html", "/docs/%ff"] {
        assert_eq!(server.get(missing).send().await.status, 404, "{missing}");
    }
}
