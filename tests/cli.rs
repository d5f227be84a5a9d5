//! What a person or a shell sees of the command line, on the real binary.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

fn ttmem(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttmem"));
    command.args(arguments).env_remove("TTMEM_SERVER").output().expect("ttmem runs")
}

/// The standard output of a command that succeeds and says nothing else.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = ttmem(arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).expect("output in UTF-8")
}

#[test]
fn a_misunderstood_command_line_is_one_line_and_exit_code_2() {
    #[track_caller]
    fn check(arguments: &[&str], expected: &str) {
        let output = ttmem(arguments);
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("ttmem: {expected}\n"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        assert_eq!(output.status.code(), Some(2));
    }
    check(
        &["serve", "--sokcet", "x"],
        "unexpected argument '--sokcet' found; tip: a similar argument exists: '--socket'; try '--help'",
    );
    check(
        &["srve"],
        "unrecognized subcommand 'srve'; tip: a similar subcommand exists: 'serve'; try '--help'",
    );
    check(
        &["serve", "--socket"],
        "a value is required for '--socket <PATH>' but none was supplied; try '--help'",
    );
    check(&["check-config"], "the following required arguments were not provided: <FILE>; try '--help'");
    check(
        &["completions", "tcsh"],
        "invalid value 'tcsh' for '<SHELL>'; [possible values: bash, elvish, fish, powershell, zsh]; \
         tip: a similar value exists: 'zsh'; try '--help'",
    );
    check(
        &["status", "--watch", "0"],
        "invalid value '0' for '--watch [<SECONDS>]': 0 is not in 1..=3600; try '--help'",
    );
}

#[test]
fn no_command_lists_the_commands() {
    let output = ttmem(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("ttmem: ") && stderr.lines().count() == 1, "{stderr}");
    for command in
        ["serve", "status", "top", "run", "demo", "soak", "bench", "check-config", "completions", "man"]
    {
        assert!(stderr.contains(command), "{command}");
    }
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn version() {
    assert_eq!(printed(&["--version"]), concat!("ttmem ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn help_shows_defaults_and_variables() {
    let help = printed(&["serve", "--help"]);
    for expected in [
        "--socket <PATH>",
        "[default: /tmp/tt_allocation_server.sock] [env: TTMEM_SOCKET]",
        "[default: 127.0.0.1:8080] [env: TTMEM_LISTEN]",
        "[possible values: auto, text, json]",
        "Examples:",
    ] {
        assert!(help.contains(expected), "{expected}\n{help}");
    }
    let help = printed(&["status", "--help"]);
    assert!(
        help.contains("[env: TTMEM_SERVER]") && help.contains("[default: http://127.0.0.1:8080]"),
        "{help}"
    );
    for command in ["top", "run", "demo", "soak", "bench", "check-config", "completions", "man"] {
        assert!(printed(&[command, "--help"]).contains("Usage: "), "{command}");
    }
}

#[test]
fn completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(printed(&["completions", shell]).contains("check-config"), "{shell}");
    }
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ttmem.bash");
    fs::write(&script, printed(&["completions", "bash"])).expect("the directory for tests can be written");
    let complete = |words: &str, current: &str| {
        let source = script.display();
        let shell = format!(
            "source {source} && COMP_WORDS=({words} {current}) COMP_CWORD=2 && \
             _ttmem ttmem '{current}' serve && echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["-c", &shell]).output().expect("bash runs");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let syntax = Command::new("bash").arg("-n").arg(&script).status().expect("bash runs");
    assert!(syntax.success());
    assert_eq!(
        complete("ttmem serve", "--socket-"),
        "--socket-mode --socket-group --socket-layout --socket-buffer-types\n"
    );
}

#[test]
fn manual_pages() {
    let page = printed(&["man"]);
    assert!(page.contains(".TH ttmem 1") && page.contains("ttmem\\-serve(1)"), "{page}");
    let page = printed(&["man", "serve"]);
    assert!(page.contains(".TH ttmem-serve 1") && page.contains("TTMEM_SOCKET_MODE"), "{page}");
    let unknown = ttmem(&["man", "sing"]);
    assert_eq!(unknown.status.code(), Some(2));

    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man/man1");
    let paths = printed(&["man", "--dir", dir.to_str().expect("a path in UTF-8")]);
    assert!(paths.lines().count() >= 8, "{paths}");
    for path in paths.lines() {
        assert!(fs::read_to_string(path).expect("a page").contains(".SH SYNOPSIS"), "{path}");
    }
}

#[test]
fn nobody_reading_is_no_failure() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttmem"));
    let output = command.args(["man", "serve"]).stdout(writer).output().expect("ttmem runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttmem"));
    let output = command.arg("man").stdout(full).output().expect("ttmem runs");
    let expected = "ttmem: standard output cannot be written: No space left on device (os error 28)\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(1));
}
