//! What comes out of files, variables and flags.

use std::ffi::OsString;

use super::*;

/// Loads a file's text (none if empty), variables `NAME=value` and flags, and compares what differs from the
/// defaults and the warnings, or the problems.
#[track_caller]
fn check(file: &str, variables: &[&str], flags: &[&str], expected: &[&str]) {
    let mut arguments = vec!["serve"];
    if !file.is_empty() {
        arguments.extend(["--config", "ttmem.toml"]);
    }
    arguments.extend(flags);
    let command = clap::Command::new("serve").args(super::arguments());
    let matches = command.try_get_matches_from(arguments).expect("flags that clap knows");
    let environment = variables.iter().map(|variable| {
        let (name, value) = variable.split_once('=').expect("NAME=value");
        (OsString::from(name), OsString::from(value))
    });
    let origin = Origin::new(&matches, environment);
    let lines = match origin.combine(Some(file)) {
        Ok(loaded) => [differences(&loaded.config), loaded.warnings].concat(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    };
    assert_eq!(lines, expected);
}

fn file(text: &str, expected: &[&str]) {
    check(text, &[], &[], expected);
}

fn flag(flag: &str, expected: &str) {
    check("", &[], &[flag], &[expected]);
}

#[test]
fn the_stronger_source_wins() {
    check("", &[], &[], &[]);
    let text = "clients_max = 1\nshm_interval_ms = 11\nlog_level = \"warn\"";
    let variables = ["TTMEM_CLIENTS_MAX=2", "TTMEM_SHM_INTERVAL_MS=12"];
    let flags = ["--clients-max=3"];
    check(text, &variables, &flags, &["clients_max = 3", "log_level = \"warn\"", "shm_interval_ms = 12"]);
    check("demo = true", &[], &["--demo=false"], &[]);
    check("demo = true", &["TTMEM_DEMO="], &[], &["demo = true"]);
    check(
        "socket_group = \"tt\"\nshm_dir = \"/shm\"",
        &["TTMEM_SHM_DIR=none"],
        &["--socket-group=none"],
        &["shm_dir = \"none\""],
    );
}

#[test]
fn a_list_replaces_a_weaker_one() {
    check(
        "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]",
        &[],
        &[],
        &["listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]"],
    );
    check(
        "listen = \"127.0.0.1:1\"",
        &["TTMEM_LISTEN=[::1]:3,127.0.0.1:4"],
        &[],
        &["listen = [\"[::1]:3\", \"127.0.0.1:4\"]"],
    );
    check(
        "",
        &["TTMEM_LISTEN=[::1]:3"],
        &["--listen=127.0.0.1:5", "--listen=127.0.0.1:6"],
        &["listen = [\"127.0.0.1:5\", \"127.0.0.1:6\"]"],
    );
    check(
        "listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
        &[],
        &[],
        &["ttmem.toml:1: listen: \"127.0.0.1:1\" is given twice; keep one of the two"],
    );
    check("", &[], &["--listen=unix:/run/s,[::1]:1"], &["listen = [\"unix:/run/s\", \"[::1]:1\"]"]);
    check(
        "",
        &[],
        &["--listen=unix:/run/s,unix:/run/s"],
        &["--listen: \"unix:/run/s\" is given twice; keep one of the two"],
    );
    check("", &[], &["--listen=127.0.0.1:0,127.0.0.1:0"], &["listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]"]);
    file(
        "listen = []",
        &["ttmem.toml:1: listen: [] is empty; write at least one, such as [\"127.0.0.1:8080\"]"],
    );
}

#[test]
fn a_device_replaces_the_same_index() {
    let text = "[[device]]\nindex = 2\nproduct = \"n150\"\nboard = \"upper\"\n[[device]]\nindex = 0\ndram_bytes = 1_000";
    file(
        text,
        &[
            "device = [{ index = 0, dram_bytes = 1000 }, { index = 2, product = \"n150\", board = \"upper\" }]",
        ],
    );
    check(
        text,
        &["TTMEM_DEVICE=1=p150,2=p150"],
        &["--device=2=p100"],
        &[
            "device = [{ index = 0, dram_bytes = 1000 }, { index = 1, product = \"p150\" }, { index = 2, product = \"p100\" }]",
        ],
    );
    file(
        "device = [\"0-1=t3k\", { index = 2 }]",
        &["device = [{ index = 0, product = \"t3k\" }, { index = 1, product = \"t3k\" }, { index = 2 }]"],
    );
    file(
        "[[device]]\nindex = 3\n[[device]]\nindex = 3\n",
        &["ttmem.toml:3: device: device 3 is given twice; keep one of the two"],
    );
    check(
        "",
        &[],
        &["--device=0-3=t3k", "--device=2=n150"],
        &["--device: device 2 is given twice; keep one of the two"],
    );
}

#[test]
fn devices_are_what_is_written_or_their_product() {
    let check = |text: &str, l1, arch, board| {
        let text = format!("[[device]]\nindex = 0\n{text}");
        let origin = Origin::of_file(std::path::Path::new("ttmem.toml"), []);
        let config = origin.combine(Some(&text)).expect("a valid file").config;
        let device = &config.devices[0];
        assert_eq!((device.l1_bytes, device.architecture(), device.board_name()), (l1, arch, board));
    };
    check("", None, None, None);
    check("arch = \"quasar\"\nboard = \"x\"", None, Some(Arch::Quasar), Some("x"));
    check("product = \"n150\"", None, Some(Arch::WormholeB0), Some("n150"));
    check("l1_bytes = 5", Some(5), None, None);
    let written = "product = \"n150\"\nl1_bytes = 5\nboard = \"x\"";
    check(written, Some(5), Some(Arch::WormholeB0), Some("x"));
}

#[test]
fn every_problem_of_a_file_is_told_with_its_line() {
    let text = "\
socket_mode = \"0888\"
clients_max = \"16384\"

sokcet = 1
colour = \"red\"
socket = [\"a\",
  \"b\"]
trust_claimed_pids = \"yes\"
log_level = \"inof\"
device = \"0=n105\"
shm_interval_ms = -5
listen = [\"localhost:8080\", 7]
";
    file(
        text,
        &[
            "ttmem.toml:1: socket_mode: \"0888\" is not an octal mode; write three or four digits 0-7, such as \"0660\"",
            "ttmem.toml:2: clients_max: \"16384\" is a string; write an integer from 1 to 1000000, without quotes",
            "ttmem.toml:4: sokcet: this key is not known; did you mean socket?",
            "ttmem.toml:5: colour: this key is not known; `ttmem check-config --list` prints every key",
            "ttmem.toml:6: socket: this is an array; write a string in quotes",
            "ttmem.toml:8: trust_claimed_pids: \"yes\" is a string; write true or false, without quotes",
            "ttmem.toml:9: log_level: \"inof\" is not one of error, warn, info, debug, trace; did you mean info?",
            "ttmem.toml:10: device: \"n105\" is not one of n150, n300, t3k, galaxy, p100, p150, p300, 8xp150, \
         blackhole-galaxy; did you mean n150?",
            "ttmem.toml:11: shm_interval_ms: \"-5\" is not allowed; write a whole number from 10 to 60000",
            "ttmem.toml:12: listen: 7 is an integer; write an array of strings in quotes",
            "ttmem.toml:12: listen: \"localhost:8080\" is a name; write the address that it stands for, such as \
         \"127.0.0.1:8080\"",
        ],
    );
}

#[test]
fn problems_of_device_tables() {
    let text = "\
[[device]]
product = \"n150\"
[[device]]
index = 1024
dram = 5
arch = \"wormhole\"
pci_bus_id = \"01:00.0\"
";
    file(
        text,
        &[
            "ttmem.toml:1: device: the index is missing; write which device it is, such as index = 0",
            "ttmem.toml:4: device.index: \"1024\" is not allowed; write a whole number from 0 to 1023",
            "ttmem.toml:5: device.dram: this key is not known; did you mean dram_bytes?",
            "ttmem.toml:6: device.arch: \"wormhole\" is not one of grayskull, wormhole_b0, blackhole, quasar; \
         did you mean wormhole_b0?",
            "ttmem.toml:7: device.pci_bus_id: \"01:00.0\" is not a PCI address; write domain, bus, device and function, \
         such as \"0000:01:00.0\"",
        ],
    );
    file(
        "[device]\nindex = 0",
        &[
            "ttmem.toml:1: device: [device] is a table; write [[device]] tables, or an array such as [\"0=n150\", \"1=n150\"]",
        ],
    );
}

#[test]
fn broken_toml_keeps_its_position() {
    file(
        "log_level = \"info\"\nsocket = /run/x",
        &["ttmem.toml:2:10: this is not valid TOML: string values must be quoted, expected literal string"],
    );
    file("socket = \"a\"\nsocket = \"b\"", &["ttmem.toml:2:1: this is not valid TOML: duplicate key"]);
}

#[test]
fn toml_may_write_a_value_in_another_way() {
    file(
        "socket_mode = 0o660\nsocket_layout = 72\nclients_max = 0x10\ningest_threads = \"auto\"",
        &["socket_mode = \"0660\"", "socket_layout = \"72\"", "clients_max = 16"],
    );
    file(
        "socket_mode = 660",
        &["ttmem.toml:1: socket_mode: 660 is an integer; write octal digits in quotes, such as \"0660\""],
    );
}

#[test]
fn a_value_names_its_variable_or_flag() {
    check(
        "",
        &["TTMEM_CLIENTS_MAX=0"],
        &["--socket-mode=1777"],
        &[
            "TTMEM_CLIENTS_MAX: \"0\" is not allowed; write a whole number from 1 to 1000000",
            "--socket-mode: \"1777\" is not an octal mode; write three or four digits 0-7, such as \"0660\"",
        ],
    );
    flag("--socket=", "--socket: \"\" is not a path; write one, such as \"/run/ttmem\"");
    let long = format!("--socket={}", "x".repeat(108));
    let message = "has 108 bytes and a socket's path holds 107; write a shorter path";
    flag(&long, &format!("--socket: \"{}\" {message}", "x".repeat(108)));
    flag("--demo=maybe", "--demo: \"maybe\" is neither true nor false; write one of the two");
    flag("--log-format=xml", "--log-format: \"xml\" is not one of auto, text, json");
    flag(
        "--device=n150",
        "--device: \"n150\" lacks the \"=\"; write an index and a product, such as \"0=n150\"",
    );
    flag("--device=7-0=t3k", "--device: \"7-0=t3k\" counts down; write the lower index first");
    flag("--device=x=t3k", "--device: \"x\" is not allowed; write a whole number from 0 to 1023");
}

#[test]
fn addresses() {
    let check = |text: &str, expected: &str| flag(&format!("--listen={text}"), expected);
    let both = "write \"127.0.0.1:90\" for this host only, or \"[::]:90\" for every interface";
    check(":90", &format!("--listen: \":90\" has no address; {both}"));
    check("90", &format!("--listen: \"90\" has no address; {both}"));
    check("0.0.0.0", "--listen: \"0.0.0.0\" has no port; write \"0.0.0.0:8080\"");
    check("::1", "--listen: \"::1\" has no port; write \"[::1]:8080\"");
    check(
        "host.example:90",
        "--listen: \"host.example:90\" is a name; write the address that it stands for, such as \"127.0.0.1:90\"",
    );
    let neither = "is not an address and a port; write \"127.0.0.1:8080\" or \"[::1]:8080\"";
    check("", &format!("--listen: \"\" {neither}"));
    check("127.0.0.1:99999", &format!("--listen: \"127.0.0.1:99999\" {neither}"));
}

#[test]
fn unknown_variables_are_warned_about() {
    check(
        "",
        &["TTMEM_SOKCET=/x", "TTMEM_COLOUR=red", "TTMEM_SERVER=http://x", "OTHER=1"],
        &[],
        &[
            "the environment variable TTMEM_SOKCET has no effect: it is not known; did you mean TTMEM_SOCKET?",
            "the environment variable TTMEM_COLOUR has no effect: it is not known",
        ],
    );
    let service_links = [
        "TTMEM_PORT=tcp://10.0.0.1:8080",
        "TTMEM_SERVICE_HOST=10.0.0.1",
        "TTMEM_SERVICE_PORT_HTTP=8080",
        "TTMEM_PORT_8080_TCP_ADDR=10.0.0.1",
    ];
    check("", &service_links, &[], &[]);
}

#[test]
fn what_is_said_of_ours_is_stronger_than_opentelemetrys_variables() {
    let url = "OTEL_EXPORTER_OTLP_ENDPOINT=http://a:1";
    check("", &[url], &[], &["otlp_endpoint = \"http://a:1/\""]);
    check("otlp_endpoint = \"http://b:1\"", &[url], &[], &["otlp_endpoint = \"http://b:1/\""]);
    check(
        "otlp_endpoint = \"http://b:1\"",
        &[url, "TTMEM_OTLP_ENDPOINT=http://c:1"],
        &[],
        &["otlp_endpoint = \"http://c:1/\""],
    );
    check("", &[url], &["--otlp-endpoint=none"], &[]);
    check(
        "",
        &["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://a:1/x", "OTEL_EXPORTER_OTLP_HEADERS=authorization=secret"],
        &[],
        &[
            "otlp_endpoint = { traces = \"none\", metrics = \"none\", logs = \"http://a:1/x\" }",
            "otlp_headers = \"authorization=(hidden)\"",
        ],
    );
    check("", &["OTEL_EXPORTER_OTLP_TIMEOUT=", "OTEL_PROPAGATORS=b3"], &[], &[]);
    let mistaken =
        "OTEL_EXPORTER_OTLP_TIMEOUT: \"1 s\" is not allowed; write a whole number from 1 to 600000";
    check("otlp_timeout_ms = 7", &["OTEL_EXPORTER_OTLP_TIMEOUT=1 s"], &[], &[mistaken]);
    check(
        "otlp_headers = \"secret\"",
        &[],
        &[],
        &["ttmem.toml:1: otlp_headers: entry 1 is not NAME=VALUE; write a comma in a value as %2C"],
    );
}

#[test]
fn a_changed_file_tells_what_needs_a_restart() {
    let load = |text| {
        let origin = Origin::of_file(std::path::Path::new("ttmem.toml"), []);
        origin.combine(Some(text)).expect("a valid file").config
    };
    let old = load("log_level = \"info\"");
    let new = load("log_level = \"debug\"\nsocket = \"/x\"\nlisten = \"[::1]:1\"\ndevice = \"0=n150\"");
    assert_eq!(restart_needed(&old, &new), ["socket", "listen"]);
    assert_eq!(restart_needed(&new, &new), [""; 0]);
}

#[test]
fn the_table_agrees_with_itself() {
    for setting in SETTINGS {
        assert_eq!(setting.flag, setting.key.replace('_', "-"));
        assert!(!setting.help.ends_with('.') && setting.description().ends_with('.'), "{}", setting.key);
        if let Kind::Number(Range { min, max }) = setting.kind {
            assert!(setting.details.contains(&format!("{min} to {max}")), "{}", setting.key);
        }
        let variable = format!("{}={}", setting.variable(), setting.default);
        check("", &[&variable], &[], &[]);
    }
    for product in PRODUCTS {
        let device = SETTINGS.iter().find(|setting| setting.key == "device").expect("a row for devices");
        assert!(device.details.contains(product.name), "{}", product.name);
    }
}

#[test]
fn the_example_holds_every_key() {
    let example = example();
    file(&example, &[]);
    let settings = example.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    let settings = settings.collect::<Vec<_>>().join("\n");
    for key in SETTINGS.iter().map(|setting| setting.key).filter(|key| *key != "device") {
        assert!(settings.contains(&format!("\n{key} = ")), "{key}");
    }
    file(
        &settings,
        &["device = [{ index = 0, product = \"n150\", dram_bytes = 12871236864, l1_bytes = 97959168, \
         arch = \"wormhole_b0\", board = \"n150 in slot 2\", asic_id = \"0x2a51c9e0\", pci_bus_id = \"0000:01:00.0\" }]"],
    );
}

#[test]
fn what_is_written_reads_back() {
    let text = "socket = \"/tmp/a \\\"b\\\\c\\u0007\"\nsocket_group = \"ä\"";
    file(text, &["socket = \"/tmp/a \\\"b\\\\c\\u0007\"", "socket_group = \"ä\""]);
}
