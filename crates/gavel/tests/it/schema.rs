//! The server against its own OpenAPI document: requests that the document allows, and such that it does not,
//! and no answer that it does not announce.

use crate::harness::{Server, among_others};
use crate::python;

/// What is checked of each answer. Not among them is that what the document allows is accepted: there may be
/// no such job, and the server may not have room for it.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method,allow_header_conformance,\
    use_after_free,ensure_resource_availability";

#[test]
fn every_answer_is_one_that_the_document_announces() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    // With one worker, as it is by default: the requests are the same each time, and Python 3.11 does not
    // bear what the tool does in several threads.
    let output = python::command("schemathesis", dir.path())
        .env("SCHEMATHESIS_HOOKS", python::folder().join("hooks.py"))
        .arg("run")
        .arg(format!("{}/openapi.json", server.url))
        .args(["--checks", CHECKS, "--seed", "1", "--max-examples", "60", "--generation-database", "none"])
        .args(["--continue-on-failure", "--no-shrink", "--request-timeout", "60", "--no-color"])
        .output()
        .expect("schemathesis starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // It did not only knock at the door.
    let metrics = server.get("/metrics").body.to_string();
    for (route, status) in [
        ("/api/v1/jobs", "201"),
        ("/api/v1/jobs", "200"),
        ("/api/v1/jobs", "422"),
        ("/api/v1/jobs/{id}/events", "200"),
        ("/submissions", "201"),
        ("/submissions/batch", "201"),
        ("/submissions/{token}", "200"),
    ] {
        let mut lines = metrics.split("\\n").filter(|line| line.starts_with("gavel_http_requests_total{"));
        let (route, status) = (format!("route=\\\"{route}\\\""), format!("status=\\\"{status}\\\""));
        assert!(lines.any(|line| line.contains(&route) && line.contains(&status)), "{route} {status}: {metrics}");
    }
}
