//! The rules of alerts/: each is tested by promtool, explained by a runbook and made of metrics that exist; and from a device that
//! fills up to the notification, with real Prometheus and Alertmanager.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use support::alertmanager::{Alertmanager, Webhook};
use support::prometheus::Prometheus;
use support::rules::{self, Rule, Vocabulary};
use support::{Daemon, Directory, Peer, installed, installed_peer, request, send_signal, wait_for};

/// Metrics that rules use and that no version exports yet. One that is exported has to go from here: a test says so.
const ANNOUNCED: &[(&str, &[&str])] = &[];
/// The webhook's address in the example for Alertmanager.
const EXAMPLE_WEBHOOK: &str = "127.0.0.1:9099";
/// What tt-metal can use of an n150's DRAM.
const N150_DRAM_BYTES: u64 = 12_871_236_864;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of a folder whose names end so, in order, by name.
fn files(folder: &str, end: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(repository().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.ends_with(end))
        .map(|name| (name.clone(), read(&format!("{folder}/{name}"))))
        .collect()
}

fn all_rules() -> Vec<Rule> {
    files("alerts", ".rules.yml").values().flat_map(|text| Rule::all(text)).collect()
}

fn all_tests() -> String {
    files("alerts/tests", ".test.yml").into_values().collect()
}

fn vocabulary() -> Vocabulary {
    let mut vocabulary = Vocabulary::of_reference(&read("METRICS.md"));
    assert_eq!(vocabulary.announce(ANNOUNCED), Vec::<String>::new());
    vocabulary.record(&all_rules());
    vocabulary
}

/// The variables of each dashboard, by its uid.
fn boards() -> BTreeMap<String, BTreeSet<String>> {
    let boards = files("dashboards", ".json").into_values().map(|text| {
        let board: Value = serde_json::from_str(&text).unwrap();
        let variables = board["templating"]["list"].as_array().into_iter().flatten();
        let names = variables.map(|variable| variable["name"].as_str().unwrap().to_owned()).collect();
        (board["uid"].as_str().unwrap().to_owned(), names)
    });
    boards.collect()
}

fn promtool(arguments: &[&str], folder: &Path) -> Output {
    Command::new(installed_peer("bin/promtool")).args(arguments).current_dir(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// A copy of alerts/ with other rules.
fn alerts_with(change: impl Fn(&str) -> String) -> Directory {
    let copy = Directory::new();
    fs::create_dir(copy.join("tests")).unwrap();
    for (name, text) in files("alerts", ".rules.yml") {
        fs::write(copy.join(&name), change(&text)).unwrap();
    }
    for (name, text) in files("alerts/tests", ".test.yml") {
        fs::write(copy.join("tests").join(name), text).unwrap();
    }
    copy
}

fn names(folder: &Path, end: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = entries.map(|path| path.to_str().unwrap().to_owned()).collect();
    names.retain(|name| name.ends_with(end));
    names.sort();
    names
}

fn run_unit_tests(alerts: &Path) -> Output {
    let tests = names(&alerts.join("tests"), ".test.yml");
    let arguments: Vec<&str> =
        ["test", "rules"].into_iter().chain(tests.iter().map(String::as_str)).collect();
    promtool(&arguments, alerts)
}

#[test]
fn promtool_accepts_the_rules_and_counts_as_many_as_the_checks_here_see() {
    let alerts = repository().join("alerts");
    for path in names(&alerts, ".rules.yml") {
        let output = promtool(&["check", "rules", "--lint=all", "--lint-fatal", &path], &alerts);
        let count = Rule::all(&fs::read_to_string(&path).unwrap()).len();
        assert!(
            output.status.success() && said(&output).contains(&format!("SUCCESS: {count} rules found")),
            "{}",
            said(&output)
        );
    }
    let output = run_unit_tests(&alerts);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn every_rule_has_a_case_with_and_one_without_a_result() {
    let (rules, tests) = (all_rules(), all_tests());
    assert_eq!(rules::untested(&rules, &tests), Vec::<String>::new());

    let without_firing = tests.replace("exp_alerts:\n", "exp_alerts: []\n");
    let without_values = tests.replace("exp_samples:\n", "exp_samples: []\n");
    let alerts = rules.iter().filter(|rule| rule.is_alert).count();
    assert_eq!(rules::untested(&rules, &without_firing).len(), alerts);
    assert_eq!(rules::untested(&rules, &without_values).len(), rules.len() - alerts);
    assert_eq!(rules::untested(&rules, &tests.replace("[]", "")).len(), rules.len());
}

/// A case that passes whatever the rule says would be none: alerts that never fire, and alerts that always do, fail all of theirs.
#[test]
fn every_case_depends_on_its_rule() {
    let alerts: Vec<Rule> = all_rules().into_iter().filter(|rule| rule.is_alert).collect();
    let with_expression = |expression: &str| {
        let copy = alerts_with(|text| {
            let mut lines = Vec::new();
            let mut is_replaced = false;
            for line in text.lines() {
                is_replaced = is_replaced && line.starts_with("          ");
                if line == "        expr: |-" {
                    lines.push(format!("        expr: {expression}"));
                    is_replaced = true;
                } else if !is_replaced && !line.trim_start().starts_with("for:") {
                    lines.push(line.to_owned());
                }
            }
            lines.join("\n")
        });
        said(&run_unit_tests(copy.path()))
    };
    for (expression, what) in [("vector(1) > 2", "a firing"), ("vector(1) > 0", "a silent")] {
        let said = with_expression(expression);
        for alert in &alerts {
            // Cases that fail are told by "name" of the case, then "alertname: X, time: T".
            let told = format!("alertname: {}, time:", alert.name);
            let fails = said.split(&told).skip(1).any(|after| {
                let expected = after.split("got:").next().unwrap_or_default();
                expected.contains("exp:[]") == (what == "a silent")
            });
            assert!(fails, "{} has no case that notices the lack of {what} condition:\n{said}", alert.name);
        }
    }
}

#[test]
fn every_alert_says_what_a_person_who_is_woken_up_needs() {
    let (rules, boards) = (all_rules(), boards());
    assert_eq!(rules::unhelpful(&rules, &boards), Vec::<String>::new());

    let alert = rules.iter().find(|rule| rule.name == "TtmemMemoryAlmostFull").unwrap();
    for (path, broken, complaint) in [
        ("labels.severity", "page", "severity"),
        ("annotations.summary", "{{ $labels.device }} is full.", "summary"),
        ("annotations.description", "Device {{ $labels.device }} is full.", "host"),
        ("annotations.description", "{{ $labels.instance }} is full.", "device"),
        ("annotations.runbook_url", "https://example.com/TtmemMemoryAlmostFull.md", "runbook_url"),
        ("annotations.dashboard_url", "{{ $externalLabels.grafana_url }}/d/ttmem-devices", "no dashboard"),
        (
            "annotations.dashboard_url",
            "{{ $externalLabels.grafana_url }}/d/ttmem-device?var-host=a",
            "sets host",
        ),
    ] {
        let mut rule = alert.clone();
        rule.fields.insert(path.to_owned(), broken.to_owned());
        let problems = rules::unhelpful(&[rule], &boards);
        assert!(problems.len() == 1 && problems[0].contains(complaint), "{path}: {problems:?}");
    }
}

#[test]
fn every_alert_has_its_runbook_and_no_runbook_is_left_over() {
    let (rules, pages) = (all_rules(), files("docs/runbooks", ".md"));
    assert_eq!(rules::runbook_problems(&rules, &pages), Vec::<String>::new());

    let mut broken = pages.clone();
    let page = broken.remove("TtmemExporterDown.md").unwrap();
    broken.insert("TtmemOld.md".to_owned(), page.replace("## Look here", "## Look there"));
    broken.insert("README.md".to_owned(), pages["README.md"].replace("TtmemReloadFailed.md", ""));
    let problems = rules::runbook_problems(&rules, &broken);
    assert_eq!(
        problems,
        [
            "TtmemExporterDown.md is missing",
            "TtmemOld.md is of no alert",
            "TtmemOld.md has no part \"## Look here\"",
            "README.md lacks TtmemReloadFailed.md",
        ]
    );
}

#[test]
fn rules_and_documents_use_only_metrics_and_labels_that_exist() {
    let vocabulary = vocabulary();
    let mut problems: Vec<String> =
        all_rules().iter().flat_map(|rule| vocabulary.unknown_in_rule(rule)).collect();
    let pages = files("docs/runbooks", ".md").into_iter();
    for (name, text) in pages.chain(
        ["docs/prometheus.md", "docs/alertmanager.md", "docs/kubernetes.md"]
            .map(|path| (path.to_owned(), read(path))),
    ) {
        problems.extend(vocabulary.unknown_in(&text).into_iter().map(|problem| format!("{name}: {problem}")));
    }
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn a_metric_or_label_that_does_not_exist_is_noticed() {
    let check = |text: &str, expected: &[&str]| assert_eq!(vocabulary().unknown_in(text), expected, "{text}");
    check("ttmem_device_memory_used_bytes", &["there is no metric ttmem_device_memory_used_bytes"]);
    check(
        "device:ttmem_device_memory_usage:rate",
        &["there is no metric device:ttmem_device_memory_usage:rate"],
    );
    check(
        r#"ttmem_events_total{kind="free",reason!~"a|b",job="x"}"#,
        &["ttmem_events_total has no label reason"],
    );
    check("`ttmem_device_processes{device=%q,pid=%q}`", &["ttmem_device_processes has no label pid"]);
    check("sum by (device, gpu) (x)", &["no metric has a label gpu"]);
    check("x - ignoring (chip) group_left () y", &["no metric has a label chip"]);
    check("grep ^ttmem_otlp", &[]);
    check("grep ^ttmem_oltp", &["there is no metric ttmem_oltp"]);
    let mut rule = all_rules().into_iter().find(|rule| rule.name == "TtmemExporterDown").unwrap();
    rule.fields.insert("annotations.description".to_owned(), "{{ $labels.device }}".to_owned());
    assert_eq!(vocabulary().unknown_in_rule(&rule).len(), 1);

    let mut known = Vocabulary::of_reference(&read("METRICS.md"));
    let exported: &[(&str, &[&str])] =
        &[("ttmem_device_processes", &["device"]), ("ttmem_events_total", &["device"])];
    let problems = known.announce(exported);
    assert!(
        problems[0].contains("take it from the list") && problems[1].contains("look at its rules"),
        "{problems:?}"
    );
}

/// Every command against the daemon in a runbook, as it stands there.
#[test]
fn the_commands_of_the_runbooks_work() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Peer::field_client(&daemon, "seed");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    client.ask(r#"{"op":"query","device":0}"#);
    let mut count = 0;
    for (page, text) in files("docs/runbooks", ".md") {
        for block in text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()) {
            for command in
                block.replace("|\n", "|").lines().filter(|command| command.contains("http://HOST:8080"))
            {
                // What grep does not find is no mistake of the command.
                let command =
                    command.split("| grep").next().unwrap().replace("HOST:8080", &daemon.http().to_string());
                let (program, rest) = command.split_once(' ').unwrap();
                let program = if program == "ttmem" { env!("CARGO_BIN_EXE_ttmem") } else { program };
                let script = format!("set -o pipefail; {program} {rest}").replace("curl -s ", "curl -sf ");
                let output = Command::new("bash").args(["-c", &script]).output().unwrap();
                assert!(
                    output.status.success() && output.stderr.is_empty(),
                    "{page}: {command}: {}",
                    said(&output)
                );
                count += 1;
            }
        }
    }
    assert!(count > 20, "only {count} commands found");
}

/// The example with a webhook of ours, and told at once.
fn example_for(webhook: SocketAddr) -> String {
    let mut configuration = String::new();
    for line in read("alerts/alertmanager.example.yml").lines() {
        let (key, _) = line.split_once(':').unwrap_or((line, ""));
        match key.trim() {
            "group_wait" => configuration += &format!("{key}: 0s\n"),
            "group_interval" => configuration += &format!("{key}: 1s\n"),
            _ => configuration += &format!("{}\n", line.replace(EXAMPLE_WEBHOOK, &webhook.to_string())),
        }
    }
    configuration
}

#[test]
fn amtool_accepts_the_example_and_routes_as_it_says() {
    let amtool = |arguments: &[&str]| {
        let output = Command::new(installed_peer("bin/amtool")).args(arguments).output().unwrap();
        (output.status.success(), said(&output))
    };
    let example = repository().join("alerts/alertmanager.example.yml");
    let example = example.to_str().unwrap();
    let (is_accepted, said) = amtool(&["check-config", example]);
    assert!(is_accepted && said.contains("SUCCESS"), "{said}");
    for (severity, receiver) in [("critical", "pager"), ("warning", "chat"), ("info", "nobody")] {
        let file = format!("--config.file={example}");
        let severity = format!("severity={severity}");
        let receiver = format!("--verify.receivers={receiver}");
        let (is_so, said) =
            amtool(&["config", "routes", "test", &file, &receiver, "alertname=Ttmem", &severity]);
        assert!(is_so, "{said}");
    }
    let broken = Directory::new();
    fs::write(
        broken.join("broken.yml"),
        read("alerts/alertmanager.example.yml").replace("receiver: pager", "receiver: pgr"),
    )
    .unwrap();
    assert!(!amtool(&["check-config", broken.join("broken.yml").to_str().unwrap()]).0);

    // What the inhibitions speak of exists.
    let rules = all_rules();
    let text = read("alerts/alertmanager.example.yml");
    let quoted = text.split("alertname=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for name in quoted {
        assert!(rules.iter().any(|rule| rule.name == name), "there is no alert {name}");
    }
}

/// The complete configurations in the documents, each checked by the program that it is for.
#[test]
fn the_configurations_in_the_documents_are_accepted() {
    let check = |block: &str| {
        let folder = Directory::new();
        let path = folder.join("config.yml");
        fs::write(&path, block).unwrap();
        let path = path.to_str().unwrap();
        let (program, arguments) = if block.starts_with("route:") {
            ("bin/amtool", vec!["check-config", path])
        } else if block.starts_with("global:") || block.starts_with("scrape_configs:") {
            ("bin/promtool", vec!["check", "config", "--syntax-only", path])
        } else {
            return None;
        };
        let output = Command::new(installed_peer(program)).args(arguments).output().unwrap();
        Some(if output.status.success() { Ok(()) } else { Err(said(&output)) })
    };
    let text = read("docs/prometheus.md") + &read("docs/alertmanager.md");
    let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    let outcomes: Vec<_> = blocks.filter_map(check).collect();
    assert_eq!(outcomes, [const { Ok(()) }; 5]);
    assert!(check("scrape_configs: [{job: ttmem}]").unwrap().is_err());
    assert!(check("route: {receiver: nobody}").unwrap().is_err());
}

#[test]
fn a_device_that_fills_up_is_told_with_process_and_time_left_and_resolves_when_it_is_freed() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Peer::field_client(&daemon, "seed");
    let percent = N150_DRAM_BYTES / 100;
    let allocate = |first: u64, count: u64, client: &mut Peer| {
        client.ask(&format!(
            r#"{{"op":"allocate","device":0,"type":"dram","size":{percent},"id":{first},"count":{count}}}"#
        ));
        client.ask(r#"{"op":"query","device":0}"#);
    };
    allocate(1, 97, &mut client);
    let process = daemon.json("/api/v1/processes")["processes"][0]["process"].as_str().unwrap().to_owned();
    let holder = format!("{process} (pid {})", client.pid());

    let webhook = Webhook::start();
    let alertmanager = Alertmanager::start(&example_for(webhook.address()));
    let rules = alerts_with(|text| {
        let copy = rules::without_waiting(text);
        let expressions = |text: &str| -> Vec<String> {
            Rule::all(text).iter().map(|rule| rule.field("expr").to_owned()).collect()
        };
        assert_eq!(expressions(&copy), expressions(text));
        copy
    });
    let prometheus = Prometheus::start_configured(&format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}/*.rules.yml']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n\
         scrape_configs: [{{job_name: ttmem, static_configs: [{{targets: ['{}']}}]}}]\n",
        rules.path().display(),
        alertmanager.address(),
        daemon.http()
    ));

    // Full, but not growing: nobody is woken up.
    let almost_full = webhook.wait_for("/chat", "TtmemMemoryAlmostFull", "firing");
    assert_eq!(
        (almost_full["labels"]["device"].as_str(), almost_full["labels"]["memory_type"].as_str()),
        (Some("0"), Some("dram"))
    );
    let description = almost_full["annotations"]["description"].as_str().unwrap();
    assert!(description.contains(&format!("Device 0 of {}", daemon.http())), "{description}");
    assert!(
        description.contains(&format!("Held most by {holder} 11.6")) && description.contains("(97% held)"),
        "{description}"
    );
    assert_eq!(alertmanager.state("TtmemOutOfMemoryImminent"), None);

    // It grows: the time that is left is told to the pager, and what follows from it to nobody.
    let scraped = |percents: u64| {
        let usage = r#"ttmem_device_memory_usage_bytes{device="0",memory_type="dram"}"#;
        wait_for("Prometheus to scrape it", || {
            (prometheus.value(usage) == Some((percents * percent) as f64)).then_some(())
        });
    };
    for percents in [98, 99] {
        scraped(percents - 1);
        allocate(percents, 1, &mut client);
    }
    let imminent = webhook.wait_for("/pager", "TtmemOutOfMemoryImminent", "firing");
    let description = imminent["annotations"]["description"].as_str().unwrap();
    let left = description
        .split(" is out of dram memory in ")
        .nth(1)
        .and_then(|rest| rest.split(" at the rate").next());
    assert!(left.is_some_and(|left| left.ends_with('s') && left.starts_with(|digit: char| digit.is_ascii_digit())), "{description}");
    assert!(description.contains(&format!("Growing most: {holder} by ")), "{description}");
    assert_eq!(
        imminent["annotations"]["runbook_url"],
        format!("{}TtmemOutOfMemoryImminent.md", rules::RUNBOOKS_URL)
    );
    wait_for("the level to be suppressed by the forecast", || {
        (alertmanager.state("TtmemMemoryAlmostFull").as_deref() == Some("suppressed")).then_some(())
    });

    // Every rule was evaluated, and every template of those that fire was filled in, without a complaint.
    let groups = prometheus.api("rules");
    for rule in
        groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        assert_eq!((rule["health"].as_str(), &rule["lastError"]), (Some("ok"), &Value::Null), "{rule}");
    }

    client.ask(r#"{"op":"free","id":1,"count":99}"#);
    webhook.wait_for("/pager", "TtmemOutOfMemoryImminent", "resolved");
    webhook.wait_for("/chat", "TtmemMemoryAlmostFull", "resolved");
    assert_eq!(prometheus.complaints(), Vec::<Value>::new());
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// The quickstart's script, ended with the test.
struct Quickstart {
    child: Child,
    folder: Directory,
}

impl Quickstart {
    fn start(arguments: &[String]) -> Quickstart {
        let folder = Directory::new();
        let path = [
            Path::new(env!("CARGO_BIN_EXE_ttmem")).parent().unwrap().to_path_buf(),
            installed().join("bin"),
            PathBuf::from(std::env::var_os("PATH").unwrap_or_default()),
        ];
        let path = path.map(|part| part.into_os_string().into_string().unwrap()).join(":");
        let output = fs::File::create(folder.join("output")).unwrap();
        fs::create_dir(folder.join("tmp")).unwrap();
        // A shell that starts the tests in the background has them ignore Ctrl-C, and no script can take that back.
        let child = Command::new("env")
            .arg("--default-signal=INT")
            .arg(repository().join("docs/quickstart-stack"))
            .args(arguments)
            .env("PATH", path)
            .env("TMPDIR", folder.join("tmp"))
            .stdin(Stdio::null())
            .stderr(output.try_clone().unwrap())
            .stdout(output)
            .spawn()
            .unwrap();
        Quickstart { child, folder }
    }

    fn told(&self) -> String {
        fs::read_to_string(self.folder.join("output")).unwrap()
    }

    /// Waits until it ends; it must have cleared away what it made. True where it says that all went well.
    fn wait(&mut self) -> bool {
        let child = &mut self.child;
        let status = wait_for("the quickstart to end", || child.try_wait().unwrap());
        assert_eq!(fs::read_dir(self.folder.join("tmp")).unwrap().count(), 0);
        status.success()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        // It ends what it has started.
        if matches!(self.child.try_wait(), Ok(None)) {
            send_signal(self.child.id(), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn the_quickstart_starts_all_three_and_leaves_nothing_behind() {
    let [ttmem, prometheus, alertmanager] = free_ports();
    let arguments = [("--ttmem", ttmem), ("--prometheus", prometheus), ("--alertmanager", alertmanager)];
    let mut quickstart =
        Quickstart::start(&arguments.map(|(flag, address)| [flag.to_owned(), address.to_string()]).concat());
    wait_for("the quickstart to say its addresses", || {
        let status = quickstart.child.try_wait().unwrap();
        assert!(status.is_none(), "it ended with {status:?}: {}", quickstart.told());
        quickstart.told().contains("Ctrl-C ends all of them.").then_some(())
    });
    for address in [ttmem, prometheus, alertmanager] {
        assert!(quickstart.told().contains(&format!("http://{address}")), "{}", quickstart.told());
    }
    let data = |path: &str| -> Value {
        let text = format!("GET {path} HTTP/1.0\r\nHost: {prometheus}\r\n\r\n");
        let mut answer: Value = serde_json::from_str(&request(prometheus, &text).body).unwrap();
        answer["data"].take()
    };
    let groups = data("/api/v1/rules");
    let groups = groups["groups"].as_array().unwrap();
    let loaded: usize = groups.iter().map(|group| group["rules"].as_array().unwrap().len()).sum();
    assert_eq!(loaded, all_rules().len());
    wait_for("Prometheus to scrape the demo", || {
        let found = data("/api/v1/query?query=ttmem_process_memory_usage_bytes");
        (!found["result"].as_array()?.is_empty()).then_some(())
    });

    send_signal(quickstart.child.id(), Signal::INT);
    assert!(quickstart.wait(), "{}", quickstart.told());
    for address in [ttmem, prometheus, alertmanager] {
        assert!(TcpStream::connect(address).is_err(), "{address} still listens");
    }
}

#[test]
fn the_quickstart_says_why_it_cannot_start() {
    let check = |arguments: &[&str], reasons: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut quickstart = Quickstart::start(&arguments);
        assert!(!quickstart.wait());
        let told = quickstart.told();
        assert!(reasons.iter().all(|reason| told.contains(reason)), "{told}");
    };
    // Somebody sits there already, who takes connections and does not answer.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    let [prometheus, alertmanager] = free_ports().map(|address| address.to_string());
    let addresses = ["--ttmem", &taken_address, "--prometheus", &prometheus, "--alertmanager", &alertmanager];
    check(&addresses, &["ttmem ended", &taken_address]);
    check(&["--grafana"], &["unknown argument '--grafana'"]);
    check(&["--ttmem", "9090"], &["wants ADDRESS:PORT"]);
}
