//! Tells the program which revision it was built from, where git can say.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=TTMEM_REVISION");
    if Path::new(".git/HEAD").exists() {
        // HEAD names the branch; the log changes with every commit on it.
        println!("cargo::rerun-if-changed=.git/HEAD");
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
    let revision = std::env::var("TTMEM_REVISION").ok().or_else(revision).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=TTMEM_REVISION={revision}");
}

fn revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_owned())
}
