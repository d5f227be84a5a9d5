//! What holds for the boards in dashboards/: the rules of Grafana's dashboard linter, metrics and links that exist, and data for every
//! panel from the demonstration, asked of a real Prometheus.
//!
//! The idea is that each rule is a function from boards or queries to complaints, so that it can be shown one that breaks it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::boards::{
    Query, board_at, boards, folder, has_variable, list, overrides, panels, queries, text, variables_in,
};
use support::cgroup::ContainerGroup;
use support::prometheus::Prometheus;
use support::regions::write_region;
use support::{Daemon, Directory, ttmem, wait_for};

/// The units that boards use. Grafana shows a number without any where it does not know one.
const UNITS: &[&str] =
    &["none", "short", "bytes", "binBps", "percentunit", "s", "ops", "cps", "bool_yes_no", "dateTimeAsIso"];
/// The oldest form of boards that has all that these use.
const SCHEMA_VERSION_MIN: u64 = 39;
/// The width of a board in Grafana's grid.
const GRID_COLUMNS: u64 = 24;
/// Where a share turns yellow and red; the second is where TtmemMemoryAlmostFull fires.
const SHARE_LEVELS: [f64; 2] = [0.8, 0.95];
/// What the alerts have to say for the boards' colours to be right: a share, and two times left.
const ALERT_LEVELS: [&str; 3] = [
    "device:ttmem_device_memory_usage:ratio > 0.95",
    "predict_linear(ttmem_device_memory_usage_bytes[10m], 30 * 60)",
    "predict_linear(ttmem_device_memory_usage_bytes[1h], 4 * 3600)",
];
/// What Prometheus itself adds to every target, and makes of every rule.
const FROM_PROMETHEUS: &[(&str, &[&str])] = &[
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity", "device", "memory_type", "process"]),
    ("ALERTS_FOR_STATE", &["alertname", "severity", "device", "memory_type", "process"]),
];
/// What queries give nothing about while all is well, and why.
const NOT_IN_THE_DEMO: &[(&str, &str)] = &[
    ("ALERTS_FOR_STATE", "a Prometheus without rules has no alerts"),
    ("ttmem_process_suppressed_memory_usage_bytes", "all processes have series of their own"),
    ("ttmem_process_leak_score", "a leak is seen after minutes"),
    ("ttmem_device_untracked_processes", "the demonstration needs no kernel driver"),
    ("ttmem_device_renumbered_processes", "the demonstration needs no kernel driver"),
    ("ttmem_container_assigned_devices", "the directory of logs tells of no devices"),
];
/// Stands for $__rate_interval where a query is parsed: a range that nobody writes by hand.
const RATE_INTERVAL: (&str, u64) = ("4m59s", 299_000);

#[test]
fn boards_are_what_their_source_says() {
    let output = Command::new("python3").arg(folder().join("generate.py")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn boards_follow_the_rules() {
    let boards = boards();
    assert!(boards.len() >= 5, "{}", boards.len());
    assert_none(complaints(&boards));
    let mut alerts = String::new();
    for file in fs::read_dir(root().join("alerts")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|kind| kind == "yml") {
            alerts += &fs::read_to_string(file).unwrap();
        }
    }
    assert_none(ALERT_LEVELS.iter().filter(|level| !alerts.contains(**level)));
    assert_none(alert_links(&alerts, &boards));
    let broken = "/d/ttmem-fleet?var-device=0'\n/d/ttmem-fleets?var-job=a'";
    assert_eq!(alert_links(broken, &boards).len(), 2);
}

#[test]
fn each_rule_finds_what_breaks_it() {
    // A place in the first board, what is put there, and what is said of it.
    let cases = [
        ("/uid", json!("ttmem-device"), "two boards are called ttmem-device"),
        ("/schemaVersion", json!(16), "is too old a form"),
        ("/editable", json!(true), "can be edited"),
        ("/id", json!(7), "has an id of one server"),
        ("/title", json!(""), "has no title"),
        ("/templating/list/0/query", json!("loki"), "variable datasource: query"),
        ("/templating/list/0/label", json!("Source"), "variable datasource: label"),
        ("/templating/list/1/multi", json!(false), "variable job: multi"),
        ("/templating/list/2/allValue", json!(".*"), "variable instance: allValue"),
        ("/templating/list/2/refresh", json!(1), "variable instance: refresh"),
        ("/templating/list/2/datasource/uid", json!("abc"), "variable instance: datasource"),
        ("/templating/list/2/name", json!("host"), "there is no variable instance"),
        ("/panels/0/title", json!(""), "has no title"),
        ("/panels/0/description", json!(""), "has no description"),
        ("/panels/0/datasource/uid", json!("abc"), "does not ask the chosen data source"),
        ("/panels/0/targets/0/datasource/uid", json!("abc"), "does not ask the chosen data source"),
        ("/panels/0/targets", json!([]), "asks nothing"),
        ("/panels/0/targets/0/legendFormat", json!("__auto"), "A has no legend"),
        ("/panels/0/targets/0/expr", json!("$nowhere"), "uses $nowhere, which is no variable"),
        ("/panels/0/fieldConfig/defaults/unit", json!("furlong"), "has no known unit: \"furlong\""),
        ("/panels/0/gridPos/x", json!(4), "lies on"),
        ("/panels/0/gridPos/w", json!(25), "reaches beyond"),
        ("/panels/0/id", json!(2), "shares its id"),
        ("/panels/4/fieldConfig/defaults/thresholds/steps/2/value", json!(0.9), "changes colour at"),
        ("/panels/6/fieldConfig/overrides/3/properties", json!([]), "column Value #A has no known unit"),
        ("/annotations/list/0/expr", json!("up"), "does not mark alerts"),
        ("/annotations/list/0/enable", json!(false), "does not mark alerts"),
        ("/links/0/url", json!("/d/ttmem-devise"), "leads to /d/ttmem-devise, which is no board"),
        ("/links/0/includeVars", json!(false), "drops the variables"),
        ("/links", json!([]), "does not lead to"),
        (
            "/panels/6/fieldConfig/overrides/0/properties",
            json!([{"id": "links", "value": [{"url": "/d/ttmem-device?var-devise=${__data.fields.pid}"}]}]),
            "sets devise, which ttmem-device does not have",
        ),
        (
            "/panels/6/fieldConfig/overrides/0/properties",
            json!([{"id": "links", "value": [{"url": "/d/ttmem-device?var-device=${__data.fields.pid}"}]}]),
            "uses a field pid that it does not have",
        ),
    ];
    for (place, value, expected) in cases {
        let mut boards = boards();
        let at = boards.iter().position(|board| board["uid"] == "ttmem-fleet").unwrap();
        boards.swap(0, at);
        put(&mut boards[0], place, value);
        let said = complaints(&boards);
        assert!(said.iter().any(|complaint| complaint.contains(expected)), "{place}: {said:#?}");
    }
}

/// Puts a value at a place, which need not have one yet.
fn put(board: &mut Value, place: &str, value: Value) {
    let (parent, key) = place.rsplit_once('/').unwrap();
    let parent = board.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}"));
    match key.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[key] = value,
    }
}

#[test]
fn every_query_is_right_and_gives_data_from_the_demo() {
    // Its processes are those of a pod.
    let group = ContainerGroup::new();
    let directory = Directory::new();
    let (shm, logs) = (directory.join("shm"), directory.join("containers"));
    fs::create_dir(&shm).unwrap();
    group.log_in(&logs, ["ml-team", "demo-0", "workload"]);
    let state = directory.join("state");
    let flags = [
        "--demo",
        "--shm-interval-ms",
        "100",
        "--container-log-dir",
        logs.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
        // Where no collector is.
        "--otlp-endpoint",
        "http://127.0.0.1:9",
    ];
    let daemon = Daemon::launch(group.command(&ttmem()), directory, &shm, &flags);
    let leaking = daemon.wait_for_metrics("the notebook", |metrics| notebook(&metrics.text).is_some());
    // tt-metal's own count of the same process, which never is quite the same.
    let slot = json!({"pid": notebook(&leaking.text), "name": "leaky-notebook", "dram": 4096});
    write_region(&daemon.shm().join("tt_device_1_memory"), &json!({"device_id": 1, "processes": [slot]}));
    let prometheus = Prometheus::start(daemon.http());
    wait_for("some scrapes", || {
        prometheus.value("sum(count_over_time(up[1h]))").filter(|count| *count >= 3.0)
    });

    let metrics = known_metrics(&daemon.get("/metrics").body);
    assert_queries_can_be_wrong(&prometheus, &metrics);
    let boards = boards();
    for query in queries(&boards) {
        assert_none(query_complaints(&prometheus, &metrics, &query.expr).iter().map(|it| query.says(it)));
        let gives_data = || gives_data(&prometheus, &query);
        if NOT_IN_THE_DEMO.iter().any(|(metric, _)| query.expr.contains(metric)) {
            assert!(!gives_data(), "{}", query.says("gives data and has to be taken off the list"));
        } else {
            wait_for(&query.says("data"), || gives_data().then_some(()));
        }
    }
    for (metric, _) in NOT_IN_THE_DEMO {
        assert!(
            queries(&boards).iter().any(|query| query.expr.contains(metric)),
            "nothing asks for {metric}"
        );
    }
    assert_eq!(prometheus.complaints(), Vec::<Value>::new());
}

/// The rules about queries, and the look for data, find what breaks them.
fn assert_queries_can_be_wrong(prometheus: &Prometheus, metrics: &Labels) {
    const HOST: &str = r#"job=~"$job", instance=~"$instance""#;
    let check = |expr: &str, expected: &str| {
        let said = query_complaints(prometheus, metrics, &expr.replace("HOST", HOST));
        assert!(said.iter().any(|complaint| complaint.contains(expected)), "{expr}: {said:?}");
    };
    check(r#"sum(up{instance=~"$instance"})"#, "up is asked of every job");
    check(r#"sum(up{job=~"$job", instance="$instance"})"#, "up is asked of every instance");
    check("ttmem_nonsense{HOST}", "ttmem_nonsense is no metric");
    check(r#"up{HOST, colour="red"}"#, "up has no label colour");
    check("sum by (colour) (up{HOST})", "nothing here has a label colour");
    check("up{HOST} * on (colour) up{HOST}", "nothing here has a label colour");
    check("sum(ttmem_events_total{HOST})", "ttmem_events_total is a counter outside of rate and increase");
    check("rate(ttmem_events_total{HOST}[5m])", "a rate over another range than $__rate_interval");
    check(
        "delta(ttmem_events_total{HOST}[5m])",
        "ttmem_events_total is a counter outside of rate and increase",
    );
    check("increase(ttmem_series{HOST}[5m])", "ttmem_series is no counter");
    assert_none(query_complaints(
        prometheus,
        metrics,
        &format!("rate(ttmem_events_total{{{HOST}}}[$__rate_interval])"),
    ));
    let nothing = Query { expr: "ttmem_nonsense".to_owned(), ..Query::default() };
    assert!(
        !gives_data(prometheus, &nothing) && !gives_data(prometheus, &Query { is_instant: true, ..nothing })
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

// What boards have to be ---------------------------------------------------------------------------------------------

/// All that is wrong with boards.
fn complaints(boards: &[Value]) -> Vec<String> {
    let mut said = Vec::new();
    for (number, board) in boards.iter().enumerate() {
        let uid = text(&board["uid"]);
        if boards[..number].iter().any(|other| other["uid"] == uid) {
            said.push(format!("two boards are called {uid}"));
        }
        let about_board =
            [form(board), variables(board), placement(board), annotations(board), links(board, boards)];
        said.extend(about_board.into_iter().flatten().map(|complaint| format!("{uid} {complaint}")));
        for panel in panels(board) {
            let about_panel =
                [looks(panel), targets(panel, board), units(panel), levels(panel), cell_links(panel, boards)];
            let title = text(&panel["title"]);
            said.extend(
                about_panel.into_iter().flatten().map(|complaint| format!("{uid} / {title:?} {complaint}")),
            );
        }
    }
    said
}

fn form(board: &Value) -> Vec<String> {
    let mut said = Vec::new();
    if board["schemaVersion"].as_u64() < Some(SCHEMA_VERSION_MIN) {
        said.push("is too old a form".to_owned());
    }
    if board["editable"] != false {
        said.push("can be edited, but what is provisioned cannot be saved".to_owned());
    }
    if !board["id"].is_null() {
        said.push("has an id of one server".to_owned());
    }
    for field in ["title", "description", "uid"] {
        if text(&board[field]).is_empty() {
            said.push(format!("has no {field}"));
        }
    }
    said
}

fn variables(board: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let all = list(&board["templating"]["list"]);
    let mut expect = |name: &str, expected: &[(&str, Value)]| {
        let Some(variable) = all.iter().find(|variable| variable["name"] == name) else {
            return said.push(format!("there is no variable {name}"));
        };
        for (field, value) in expected {
            if variable[field] != *value {
                said.push(format!("variable {name}: {field} is {} instead of {value}", variable[field]));
            }
        }
    };
    let source = ("datasource", json!({"type": "prometheus", "uid": "${datasource}"}));
    expect(
        "datasource",
        &[("type", json!("datasource")), ("query", json!("prometheus")), ("label", json!("Data source"))],
    );
    for (name, label) in [("job", "Job"), ("instance", "Instance")] {
        expect(name, &[("type", json!("query")), ("label", json!(label)), ("includeAll", json!(true))]);
    }
    for variable in all.iter().filter(|variable| variable["type"] == "query") {
        let expected =
            [("multi", json!(true)), ("allValue", json!(".+")), ("refresh", json!(2)), source.clone()];
        expect(text(&variable["name"]), &expected);
    }
    // Each is used, and what is used is there.
    let names: BTreeSet<&str> = all.iter().map(|variable| text(&variable["name"])).collect();
    let mut texts: Vec<&str> = all.iter().map(|variable| text(&variable["definition"])).collect();
    texts.extend(panels(board).flat_map(|panel| list(&panel["targets"])).map(|target| text(&target["expr"])));
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| variables_in(text)).collect();
    for name in names.iter().filter(|name| **name != "datasource" && !used.contains(**name)) {
        said.push(format!("has a variable {name} that nothing uses"));
    }
    for name in used.iter().filter(|name| !name.starts_with("__") && !names.contains(**name)) {
        said.push(format!("uses ${name}, which is no variable"));
    }
    said
}

fn placement(board: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
    let all = list(&board["panels"]);
    for (number, panel) in all.iter().enumerate() {
        let [x, y, w, h] = place(panel);
        if x + w > GRID_COLUMNS {
            said.push(format!("/ {:?} reaches beyond the board", text(&panel["title"])));
        }
        for other in &all[..number] {
            let [left, top, width, height] = place(other);
            if x < left + width && left < x + w && y < top + height && top < y + h {
                said.push(format!("/ {:?} lies on {:?}", text(&panel["title"]), text(&other["title"])));
            }
            if panel["id"] == other["id"] {
                said.push(format!(
                    "/ {:?} shares its id with {:?}",
                    text(&panel["title"]),
                    text(&other["title"])
                ));
            }
        }
    }
    said
}

fn annotations(board: &Value) -> Vec<String> {
    let marks = |annotation: &Value| {
        let expr = text(&annotation["expr"]);
        annotation["enable"] == true && expr.starts_with("ALERTS{") && expr.contains("$instance")
    };
    let is_marked = list(&board["annotations"]["list"]).iter().any(marks);
    if is_marked { Vec::new() } else { vec!["does not mark alerts".to_owned()] }
}

fn links(board: &Value, boards: &[Value]) -> Vec<String> {
    let mut said = Vec::new();
    let links = list(&board["links"]);
    for link in links {
        let url = text(&link["url"]);
        if board_at(url, boards).is_none() {
            said.push(format!("leads to {url}, which is no board"));
        }
        if link["includeVars"] != true || link["keepTime"] != true {
            said.push(format!("drops the variables or the time on the way to {url}"));
        }
    }
    for other in boards.iter().map(|other| text(&other["uid"])).filter(|other| board["uid"] != *other) {
        if !links.iter().any(|link| link["url"] == format!("/d/{other}")) {
            said.push(format!("does not lead to {other}"));
        }
    }
    said
}

fn looks(panel: &Value) -> Vec<String> {
    let empty = ["title", "description"].into_iter().filter(|field| text(&panel[field]).is_empty());
    empty.map(|field| format!("has no {field}")).collect()
}

fn targets(panel: &Value, board: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let targets = list(&panel["targets"]);
    if targets.is_empty() {
        said.push("asks nothing".to_owned());
    }
    for asking in std::iter::once(panel).chain(targets) {
        if asking["datasource"]["uid"] != "${datasource}" {
            said.push(format!("of {} does not ask the chosen data source", board["uid"]));
        }
    }
    for target in targets {
        let name = text(&target["refId"]);
        if ["", "__auto"].contains(&text(&target["legendFormat"])) {
            said.push(format!("{name} has no legend"));
        }
        if targets.iter().filter(|other| other["refId"] == name).count() > 1 {
            said.push(format!("{name} is there twice"));
        }
    }
    said
}

fn units(panel: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let unit = &panel["fieldConfig"]["defaults"]["unit"];
    if !UNITS.contains(&text(unit)) {
        said.push(format!("has no known unit: {unit}"));
    }
    // In a table a unit for all would be put on labels, too: each column of numbers has its own.
    for column in overrides(panel).filter(|column| column.name.starts_with("Value")) {
        if !column.property("unit").is_some_and(|unit| UNITS.contains(&text(unit))) {
            said.push(format!("column {} has no known unit", column.name));
        }
    }
    said
}

/// A share that turns red does so where the others do.
fn levels(panel: &Value) -> Vec<String> {
    let defaults = &panel["fieldConfig"]["defaults"];
    let mut coloured = vec![(&defaults["unit"], &defaults["thresholds"])];
    for column in overrides(panel) {
        coloured.extend(column.property("unit").zip(column.property("thresholds")));
    }
    let shares = coloured
        .into_iter()
        .filter(|(unit, _)| **unit == "percentunit")
        .map(|(_, levels)| list(&levels["steps"]));
    let wrong = shares.filter(|steps| steps.iter().any(|step| step["color"] == "red")).filter_map(|steps| {
        let values: Vec<f64> = steps.iter().filter_map(|step| step["value"].as_f64()).collect();
        (values != SHARE_LEVELS).then(|| format!("changes colour at {values:?}"))
    });
    wrong.collect()
}

fn cell_links(panel: &Value, boards: &[Value]) -> Vec<String> {
    let mut said = Vec::new();
    let fields: BTreeSet<&str> = overrides(panel).map(|column| column.name).collect();
    for link in overrides(panel).flat_map(|column| list(column.property("links").unwrap_or(&Value::Null))) {
        let url = text(&link["url"]);
        let Some(target) = board_at(url, boards) else {
            said.push(format!("leads to {url}, which is no board"));
            continue;
        };
        for (variable, value) in
            url.split(['?', '&']).filter_map(|part| part.strip_prefix("var-")?.split_once('='))
        {
            if !has_variable(target, variable) {
                said.push(format!("sets {variable}, which {} does not have", text(&target["uid"])));
            }
            let field = value
                .strip_prefix("${__data.fields.")
                .and_then(|rest| rest.strip_suffix('}'))
                .unwrap_or(value);
            if !fields.contains(field) || !panel["targets"].to_string().contains(&format!("{{{{{field}}}}}"))
            {
                said.push(format!("uses a field {field} that it does not have"));
            }
        }
    }
    said
}

/// What is wrong with the links from alerts to boards, each of which ends with its line.
fn alert_links(alerts: &str, boards: &[Value]) -> Vec<String> {
    let mut said = Vec::new();
    for link in alerts.split("/d/").skip(1).filter_map(|rest| rest.lines().next()) {
        let uid = link.split(['?', '\'']).next().unwrap();
        let Some(board) = board_at(&format!("/d/{uid}"), boards) else {
            said.push(format!("an alert leads to {uid}, which is no board"));
            continue;
        };
        for variable in link.split("var-").skip(1).filter_map(|part| part.split('=').next()) {
            if !has_variable(board, variable) {
                said.push(format!("an alert sets {variable}, which {uid} does not have"));
            }
        }
    }
    said
}

// What queries have to be --------------------------------------------------------------------------------------------

/// The labels that each metric has, beside those of its target.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// The metrics of METRICS.md, the process collector's, and Prometheus' own.
fn known_metrics(exposition: &str) -> Labels {
    let reference = fs::read_to_string(root().join("METRICS.md")).unwrap();
    let mut metrics = Labels::new();
    // What follows says how labels are called elsewhere.
    let (reference, _) = reference.split_once("\n## ").unwrap();
    for line in reference.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [name, kind, _, labels, ..] = cells[..] else { panic!("{line}") };
        let mut labels: BTreeSet<String> = labels.split(", ").map(str::to_owned).collect();
        if kind == "histogram" {
            metrics.insert(format!("{name}_count"), labels.clone());
            metrics.insert(format!("{name}_sum"), labels.clone());
            // Where Prometheus keeps it as a native one, it has no parts.
            metrics.insert(name.to_owned(), labels.clone());
            labels.insert("le".to_owned());
            metrics.insert(format!("{name}_bucket"), labels);
        } else {
            metrics.insert(name.to_owned(), labels);
        }
    }
    assert!(metrics.len() > 30, "{metrics:?}");
    let own = exposition.lines().filter(|line| line.starts_with("process_"));
    metrics.extend(own.map(|line| (line.split(['{', ' ']).next().unwrap().to_owned(), BTreeSet::new())));
    let from_prometheus = FROM_PROMETHEUS.iter();
    metrics.extend(from_prometheus.map(|(name, labels)| {
        ((*name).to_owned(), labels.iter().map(|label| (*label).to_owned()).collect())
    }));
    metrics
}

/// What is wrong with a query, as Prometheus itself reads it.
fn query_complaints(prometheus: &Prometheus, metrics: &Labels, expr: &str) -> Vec<String> {
    let query = filled(expr, RATE_INTERVAL.0, &[]);
    let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let tree = prometheus.api(&format!("parse_query?query={encoded}"));
    let mut said = Vec::new();
    let mut labels: BTreeSet<&str> = ["job", "instance"].into();
    let mut demanded = BTreeSet::new();
    walk(&tree, None, &mut |node, function| match text(&node["type"]) {
        "vectorSelector" | "matrixSelector" => {
            let name = text(&node["name"]);
            let Some(known) = metrics.get(name) else { return said.push(format!("{name} is no metric")) };
            labels.extend(known.iter().map(String::as_str));
            let is_histogram = metrics.contains_key(&format!("{name}_bucket"));
            selector_complaints(node, known, is_histogram, function, &mut said);
        }
        "call" if node["func"]["name"] == "label_replace" => labels.extend(node["args"][1]["val"].as_str()),
        "aggregation" => demanded.extend(list(&node["grouping"]).iter().map(text)),
        "binaryExpr" => demanded
            .extend(["labels", "include"].iter().flat_map(|part| list(&node["matching"][part])).map(text)),
        _ => {}
    });
    said.extend(demanded.difference(&labels).map(|label| format!("nothing here has a label {label}")));
    said
}

fn selector_complaints(
    node: &Value,
    known: &BTreeSet<String>,
    is_histogram: bool,
    function: Option<&str>,
    said: &mut Vec<String>,
) {
    let name = text(&node["name"]);
    let matchers: Vec<[&str; 3]> = list(&node["matchers"])
        .iter()
        .map(|matcher| ["name", "type", "value"].map(|part| text(&matcher[part])))
        .collect();
    for label in ["job", "instance"] {
        if !matchers.contains(&[label, "=~", &format!("${label}")]) {
            said.push(format!("{name} is asked of every {label}"));
        }
    }
    for [label, ..] in matchers {
        if !["__name__", "job", "instance"].contains(&label) && !known.contains(label) {
            said.push(format!("{name} has no label {label}"));
        }
    }
    let is_counter =
        is_histogram || ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix));
    let is_rate = function.is_some_and(|function| ["rate", "irate", "increase"].contains(&function));
    if is_counter && !is_rate {
        said.push(format!("{name} is a counter outside of rate and increase"));
    }
    if is_rate && !is_counter {
        said.push(format!("{name} is no counter"));
    }
    if function.is_some_and(|function| function.ends_with("rate")) && node["range"] != RATE_INTERVAL.1 {
        said.push(format!("{name}: a rate over another range than $__rate_interval"));
    }
}

/// Shows each node of a parsed query, with the name of the function that it is the argument of.
fn walk<'a>(node: &'a Value, function: Option<&'a str>, look: &mut impl FnMut(&'a Value, Option<&'a str>)) {
    look(node, function);
    let function = node["func"]["name"].as_str();
    for part in ["expr", "lhs", "rhs", "param"].map(|part| &node[part]).into_iter().chain(list(&node["args"]))
    {
        if part.is_object() {
            walk(part, function, look);
        }
    }
}

/// Whether a query gives a number now; or, for a graph, at any time.
fn gives_data(prometheus: &Prometheus, query: &Query) -> bool {
    let all = [("job", ".+"), ("instance", ".+"), ("device", ".+"), ("process", ".+")];
    let expr = filled(&query.expr, "1m", &all);
    let series = if query.is_instant { prometheus.query(&expr) } else { prometheus.query_range(&expr) };
    series.iter().flat_map(|series| &series.values).any(|value| value.is_finite())
}

/// A query with what Grafana puts in for its variables.
fn filled(expr: &str, rate_interval: &str, values: &[(&str, &str)]) -> String {
    let given =
        [("__rate_interval", rate_interval), ("__range", "1h"), ("window", "15m"), ("older_than", "1")];
    given
        .iter()
        .chain(values)
        .fold(expr.to_owned(), |expr, (name, value)| expr.replace(&format!("${name}"), value))
}

/// The pid of the demonstration's process that leaks.
fn notebook(exposition: &str) -> Option<u32> {
    let line = exposition
        .lines()
        .find(|line| line.starts_with("ttmem_process_info") && line.contains("leaky-notebook"))?;
    line.split("pid=\"").nth(1)?.split('"').next()?.parse().ok()
}

#[track_caller]
fn assert_none<T: std::fmt::Debug>(found: impl IntoIterator<Item = T>) {
    let found: Vec<T> = found.into_iter().collect();
    assert!(found.is_empty(), "{found:#?}");
}
