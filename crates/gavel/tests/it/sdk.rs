//! Judge0's official Python SDK, unmodified, as a client: what it shows is in `tests/python/sdk.py`.

use crate::harness::{Server, among_others};
use crate::python;

#[test]
fn the_official_python_sdk_works_unmodified() {
    let _turn = among_others();
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = python::command("python", dir.path())
        .args(["-m", "pytest", "--quiet", "-rA", "--tb=short", "-p", "no:cacheprovider"])
        .arg(python::folder().join("sdk.py"))
        .env("JUDGE0_CE_ENDPOINT", &server.url)
        .env("JUDGE0_CE_AUTH_HEADERS", "{}")
        .env("JUDGE0_EXTRA_CE_ENDPOINT", format!("{}/extra", server.url))
        .env("JUDGE0_EXTRA_CE_AUTH_HEADERS", "{}")
        .env("GAVEL_LANGUAGES", concat!(env!("CARGO_MANIFEST_DIR"), "/../../languages"))
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}
