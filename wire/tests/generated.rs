//! The files that the generator writes are what it would write now, and the client that PROTOCOL.md prints speaks the protocol.

use std::process::Command;

#[test]
fn the_vectors_the_dumps_and_the_client_of_the_document_are_current() {
    let generator = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/generate.py");
    let output = Command::new("python3")
        .args([generator, "--check"])
        .output()
        .expect("this test runs vectors/generate.py: install python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
