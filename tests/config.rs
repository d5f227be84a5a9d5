//! `ttmem check-config` and the configuration that `ttmem serve` refuses, on the real binary.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs ttmem where the files of these tests are, without any variable of the caller's.
fn ttmem(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttmem"));
    command.args(arguments).env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).expect("the directory for tests can be written");
    path
}

/// Compares exit code, standard output and standard error.
#[track_caller]
fn check(command: &mut Command, code: i32, stdout: &str, stderr: &str) {
    let output: Output = command.output().expect("ttmem runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
    assert_eq!(output.status.code(), Some(code));
}

/// Compares a committed file with what the binary prints.
#[track_caller]
fn check_generated(argument: &str, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let printed = ttmem(&["check-config", argument]).output().expect("ttmem runs").stdout;
    assert!(
        committed.as_bytes() == printed,
        "docs/{name} is out of date: ttmem check-config {argument} > docs/{name}"
    );
}

#[test]
fn a_valid_file_shows_what_differs() {
    file("valid.toml", "log_level = \"info\"\nsocket_mode = \"0660\"\ndevice = [\"0-1=n300\"]\n");
    let differences = "valid.toml: ok\nsocket_mode = \"0660\"\n\
                       device = [{ index = 0, product = \"n300\" }, { index = 1, product = \"n300\" }]\n";
    check(&mut ttmem(&["check-config", "valid.toml"]), 0, differences, "");
    check(ttmem(&["check-config", "valid.toml"]).env("TTMEM_CLIENTS_MAX", "0"), 0, differences, "");
    file("empty.toml", "");
    check(&mut ttmem(&["check-config", "empty.toml"]), 0, "empty.toml: ok\n", "");
}

#[test]
fn every_mistake_is_a_line_with_its_remedy() {
    file(
        "wrong.toml",
        "socket_mode = \"0888\"\n\n[[device]]\nindex = 0\nproduct = \"n15O\"\n\n[http]\nport = 1\n",
    );
    let problems = "\
ttmem: wrong.toml:1: socket_mode: \"0888\" is not an octal mode; write three or four digits 0-7, such as \"0660\"
ttmem: wrong.toml:5: device.product: \"n15O\" is not one of n150, n300, t3k, galaxy, p100, p150, p300, 8xp150, \
blackhole-galaxy; did you mean n150?
ttmem: wrong.toml:7: http: this key is not known; `ttmem check-config --list` prints every key
";
    check(&mut ttmem(&["check-config", "wrong.toml"]), 2, "", problems);
    check(&mut ttmem(&["serve", "--config", "wrong.toml"]), 2, "", problems);
    check(ttmem(&["serve"]).env("TTMEM_CONFIG", "wrong.toml"), 2, "", problems);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let remedy = "name a TOML file that this user may read";
    let missing =
        format!("ttmem: none.toml: cannot be read: No such file or directory (os error 2); {remedy}\n");
    check(&mut ttmem(&["check-config", "none.toml"]), 2, "", &missing);
    check(&mut ttmem(&["serve", "--config", "none.toml"]), 2, "", &missing);
    let directory = format!("ttmem: .: cannot be read: Is a directory (os error 21); {remedy}\n");
    check(&mut ttmem(&["check-config", "."]), 2, "", &directory);
    file("latin1.toml", b"socket_group = \"\xe4\"\n");
    let encoding =
        format!("ttmem: latin1.toml: cannot be read: stream did not contain valid UTF-8; {remedy}\n");
    check(&mut ttmem(&["check-config", "latin1.toml"]), 2, "", &encoding);
    let endless = format!("ttmem: /dev/zero: cannot be read: it has more than 1048576 bytes; {remedy}\n");
    check(&mut ttmem(&["check-config", "/dev/zero"]), 2, "", &endless);
}

#[test]
fn variables_and_flags_are_named() {
    check(
        ttmem(&["serve", "--listen", ":9400"]).env("TTMEM_CLIENTS_MAX", "0").env("TTMEM_LOG_FORMAT", "xml"),
        2,
        "",
        "\
ttmem: TTMEM_CLIENTS_MAX: \"0\" is not allowed; write a whole number from 1 to 1000000
ttmem: TTMEM_LOG_FORMAT: \"xml\" is not one of auto, text, json
ttmem: --listen: \":9400\" has no address; write \"127.0.0.1:9400\" for this host only, or \"[::]:9400\" for every interface
",
    );
}

#[test]
fn a_variable_that_is_not_text_is_named() {
    check(
        ttmem(&["serve"]).env("TTMEM_SOCKET", OsStr::from_bytes(b"/tmp/\xff")),
        2,
        "",
        "ttmem: TTMEM_SOCKET: \"/tmp/\\xFF\" is not UTF-8; write it in UTF-8\n",
    );
}

#[test]
fn the_documentation_is_up_to_date() {
    check_generated("--list", "configuration.md");
    check_generated("--example", "ttmem.toml");
}

#[test]
fn the_example_is_accepted() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ttmem.toml");
    let path = example.to_str().expect("a path in UTF-8");
    check(&mut ttmem(&["check-config", path]), 0, &format!("{path}: ok\n"), "");
}
