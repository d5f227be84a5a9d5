//! The chart in helm/ttmem, rendered by the real helm over a matrix of values files and held to what an API server, the Prometheus Operator
//! and this daemon accept. `UPDATE_GOLDEN=1 cargo test --test helm` writes the chart's derived files again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::frames::Frame;
use support::regions::write_region;
use support::{Daemon, Directory, Peer, installed_peer, peers, ttmem, wait_for};

/// Host directories that the chart may mount, and whether the daemon may write there.
const HOST_VOLUMES: [(&str, bool); 7] = [
    ("socket", true),
    ("state", true),
    ("shm", false),
    ("passwd", false),
    ("containers", false),
    ("kubelet-pod-resources", false),
    ("kubelet-pods-api", false),
];

#[test]
fn every_values_file_renders_to_valid_objects() {
    for values in files("values") {
        let linted = helm(&["lint", "--strict", "--values", text(&values)]);
        assert!(linted.status.success(), "{}: {}", values.display(), outcome(&linted));
        let rendered = render(&values);
        assert_eq!(rendered.problems, [""; 0], "{}", values.display());
    }
}

#[test]
fn wrong_values_are_rejected_with_the_reason() {
    for values in files("rejected") {
        let content = fs::read_to_string(&values).unwrap();
        let reason = content.lines().next().unwrap().strip_prefix("# ").unwrap();
        let output = template(&values);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{} was accepted", values.display());
        assert!(said.contains(reason), "{}: expected {reason:?} in:\n{said}", values.display());
    }
}

#[test]
fn derived_files_are_up_to_date() {
    let mut command = Command::new(python());
    command.arg(peers().join("helm/chart.py")).arg("derived");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        command.arg("--write");
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}\nUPDATE_GOLDEN=1 cargo test --test helm writes what is out of date",
        outcome(&output)
    );
    let chart = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for line in [format!("version: {version}"), format!("appVersion: \"{version}\"")] {
        assert!(chart.lines().any(|known| known == line), "Chart.yaml should say {line:?}");
    }
}

#[test]
fn the_schema_knows_and_describes_every_value() {
    fn check(schema: &Value, path: &str) {
        if let Some(properties) = schema.get("properties") {
            assert_eq!(schema["additionalProperties"], json!(false), "{path} admits unknown keys");
            for (name, property) in properties.as_object().unwrap() {
                check(property, &format!("{path}.{name}"));
            }
        }
        for list in ["items", "additionalProperties"] {
            if schema.get(list).is_some_and(Value::is_object) {
                check(&schema[list], &format!("{path}[]"));
            }
        }
    }
    let content = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&content).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    check(&schema, "");
    for (name, definition) in schema["definitions"].as_object().unwrap() {
        check(definition, name);
    }
    for (name, setting) in schema["properties"]["config"]["properties"].as_object().unwrap() {
        assert!(setting["description"].is_string(), "config.{name} has no description");
    }
}

/// Each value is set to something by a values file of the matrix, and the objects are others without it.
#[test]
fn every_value_does_something() {
    fn leaves<'a>(value: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
        match value.as_object().filter(|object| !object.is_empty()) {
            Some(object) => object.iter().for_each(|(name, inner)| {
                // In a path for --set-json, a dot within a name is escaped.
                leaves(
                    inner,
                    &format!("{path}{}{}", if path.is_empty() { "" } else { "." }, name.replace('.', "\\.")),
                    found,
                );
            }),
            None => found.push((path.to_owned(), value)),
        }
    }
    let read = |path: &Path| {
        let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1])) or {}))";
        let output = Command::new(python()).args(["-c", script, text(path)]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let matrix: Vec<_> =
        files("values").into_iter().map(|path| (read(&path), template(&path).stdout, path)).collect();
    let defaults = read(&chart().join("values.yaml"));
    let mut values = Vec::new();
    leaves(&defaults, "", &mut values);
    let is_effective = |path: &str, default: &Value| {
        let pointer =
            format!("/{}", path.replace("\\.", "\0").replace('/', "~1").replace('.', "/").replace('\0', "."));
        matrix.iter().any(|(set, rendered, file)| {
            set.pointer(&pointer).is_some_and(|value| value != default) && {
                let reset = format!("{path}={default}");
                helm(&[
                    "template",
                    "memory",
                    "--namespace",
                    "monitored",
                    "--values",
                    text(file),
                    "--skip-schema-validation",
                    "--set-json",
                    &reset,
                ])
                .stdout
                    != *rendered
            }
        })
    };
    let idle: Vec<_> = values.iter().filter(|(path, default)| !is_effective(path, default)).collect();
    assert!(idle.is_empty(), "no values file shows what these change: {idle:?}");
}

/// The YAML in a document.
fn yaml_blocks(document: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned());
    blocks.collect()
}

/// The Prometheus Operator's objects that a document shows for those who do without the chart.
#[test]
fn monitors_that_are_shown_are_valid_and_find_the_daemon() {
    let blocks: Vec<String> = yaml_blocks("docs/prometheus.md")
        .into_iter()
        .filter(|block| block.starts_with("apiVersion: monitoring.coreos.com"))
        .collect();
    let rendered = render(&peers().join("helm/values/defaults.yaml"));
    for (block, (kind, endpoints)) in
        blocks.iter().zip([("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")])
    {
        let shown = checked(block);
        assert_eq!(shown.problems, [""; 0], "{kind}");
        let spec = &shown.the(kind)["spec"];
        let (chosen, ports) = if kind == "PodMonitor" {
            let pod = &rendered.the("DaemonSet")["spec"]["template"];
            (&pod["metadata"]["labels"], &pod["spec"]["containers"][0]["ports"])
        } else {
            let service = rendered.the("Service");
            (&service["metadata"]["labels"], &service["spec"]["ports"])
        };
        for (label, value) in spec["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(chosen[label], *value, "{kind}: {label}");
        }
        assert_eq!(spec[endpoints][0]["port"], ports[0]["name"], "{kind}");
        let broken = block.replace("targetLabel:", "targetLabels:");
        assert!(checked(&broken).problems[0].contains("targetLabels"), "{kind}");
    }
    assert_eq!(blocks.len(), 2);
}

#[test]
fn what_the_guide_shows_is_valid() {
    let directory = Directory::new();
    let mut count = 0;
    for block in &yaml_blocks("docs/kubernetes.md") {
        count += 1;
        if block.starts_with("apiVersion:") {
            assert_eq!(checked(block).problems, [""; 0]);
        } else {
            let path = directory.join("values.yaml");
            fs::write(&path, block).unwrap();
            assert_eq!(render(&path).problems, [""; 0]);
        }
    }
    assert_eq!(count, 7);
}

#[test]
fn pods_have_no_right_that_is_not_argued_for() {
    for (values, capabilities) in [
        ("defaults", &["DAC_READ_SEARCH"][..]),
        ("small", &["DAC_READ_SEARCH"]),
        ("pod-monitor", &["DAC_READ_SEARCH"]),
        ("everything", &["DAC_READ_SEARCH", "SYS_PTRACE"]),
        ("others", &["DAC_READ_SEARCH", "SYS_PTRACE"]),
        ("non-root", &[]),
    ] {
        let rendered = render(&peers().join(format!("helm/values/{values}.yaml")));
        let daemon = &rendered.the("DaemonSet")["spec"]["template"]["spec"];
        assert_eq!(excesses(daemon, capabilities), [""; 0], "{values}");
        assert_eq!(daemon["hostNetwork"], json!(values == "everything"), "{values}");
        assert_eq!(daemon["hostPID"], json!(values != "small"), "{values}");
        let is_root = daemon["securityContext"]["runAsUser"] == json!(0);
        assert_eq!(is_root, values != "non-root", "{values}");
        if let Some(test) = rendered.find("Pod") {
            assert_eq!(excesses(&test["spec"], &[]), [""; 0], "{values}");
            assert_eq!(test["spec"]["securityContext"]["runAsNonRoot"], json!(true), "{values}");
        }
        for account in rendered.all("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], json!(false));
        }
        assert!(
            rendered.objects.iter().all(|object| !object["kind"].as_str().unwrap().contains("Role")),
            "{values}: the daemon needs no right from the API server"
        );
    }
}

/// The checks above are worth something only if they fail on what is wrong.
#[test]
fn a_broken_object_is_noticed() {
    let rendered = render(&peers().join("helm/values/everything.yaml"));
    for (kind, pointer, broken, complaint) in [
        ("DaemonSet", "/spec/template/spec/hostPid", json!(true), "hostPid"),
        ("DaemonSet", "/spec/minReadySeconds", json!("soon"), "minReadySeconds"),
        ("DaemonSet", "/spec/template/spec/containers/0/ports/0/containerPort", Value::Null, "containerPort"),
        ("Service", "/spec/ports/0/targetport", json!("x"), "targetport"),
        ("NetworkPolicy", "/spec/policyType", json!([]), "policyType"),
        ("ConfigMap", "/data/number", json!(3), "data.number"),
        ("Pod", "/spec/restartPolicies", json!("Never"), "restartPolicies"),
        ("ServiceMonitor", "/spec/endpoints/0/intervall", json!("15s"), "intervall"),
        ("ServiceMonitor", "/spec/endpoints/0/interval", json!("15"), "interval"),
        ("ServiceMonitor", "/spec/scrapeProtocols", json!(["Text"]), "scrapeProtocols"),
        ("PrometheusRule", "/spec/groups/0/rules/0/for", json!("a while"), "rules.0.for"),
        ("PrometheusRule", "/spec/groups/0/rules/0/labels", json!({ "severity": 1 }), "severity"),
    ] {
        let mut object = rendered.the(kind).clone();
        set(&mut object, pointer, broken);
        let problems = checked(&serde_json::to_string(&object).unwrap()).problems;
        assert!(
            problems.iter().any(|problem| problem.contains(complaint)),
            "{kind}{pointer}: nothing but {problems:?}"
        );
    }
    let twice = format!("{0}\n---\n{0}", rendered.the("Service"));
    assert!(checked(&twice).problems[0].contains("is there twice"));

    let pod = &rendered.the("DaemonSet")["spec"]["template"]["spec"];
    let allowed = ["DAC_READ_SEARCH", "SYS_PTRACE"];
    let container = pod["containers"].as_array().unwrap().iter().position(|one| one["name"] == "ttmem");
    let container = format!("/containers/{}", container.unwrap());
    for (pointer, broken) in [
        ("/hostIPC".to_owned(), json!(true)),
        ("/enableServiceLinks".to_owned(), json!(true)),
        ("/automountServiceAccountToken".to_owned(), json!(true)),
        ("/securityContext/seccompProfile/type".to_owned(), json!("Unconfined")),
        (format!("{container}/securityContext/privileged"), json!(true)),
        (format!("{container}/securityContext/allowPrivilegeEscalation"), Value::Null),
        (format!("{container}/securityContext/readOnlyRootFilesystem"), json!(false)),
        (format!("{container}/securityContext/capabilities/drop"), json!([])),
        (format!("{container}/securityContext/capabilities/add"), json!(["SYS_ADMIN"])),
        (format!("{container}/securityContext/seccompProfile"), json!({ "type": "Unconfined" })),
        (format!("{container}/volumeMounts/3/readOnly"), json!(false)),
        (format!("{container}/volumeDevices"), json!([{ "name": "shm", "devicePath": "/dev/a" }])),
        ("/volumes/1/name".to_owned(), json!("root")),
    ] {
        let mut broken_pod = pod.clone();
        set(&mut broken_pod, &pointer, broken);
        assert_ne!(excesses(&broken_pod, &allowed), [""; 0], "{pointer}");
    }
}

#[test]
fn the_configuration_is_one_that_the_daemon_takes() {
    let directory = Directory::new();
    let path = directory.join("ttmem.toml");
    let check = |values: &Path| {
        let rendered = render(values);
        fs::write(&path, rendered.settings()).unwrap();
        ttmem().arg("check-config").arg(&path).output().unwrap()
    };
    for values in files("values").iter().filter(|values| !values.ends_with("own-config.yaml")) {
        let output = check(values);
        assert!(output.status.success(), "{}: {}", values.display(), outcome(&output));
    }
    let printed = String::from_utf8(check(&peers().join("helm/values/everything.yaml")).stdout).unwrap();
    for line in [
        "socket_mode = \"0660\"",
        "socket_group = \"4242\"",
        "clients_max = 20000",
        "ring_memory_max_bytes = 268435456",
        "user_clients_max = 4000",
        "buffers_max = 4194304",
        "sandbox = \"calls\"",
        "state_journal_bytes_max = 33554432",
        "history_keep_1s_seconds = 0",
        "history_keep_60s_seconds = 604800",
        "history_size_max_bytes = 268435456",
        "ingest_threads = 7",
        "log_level = \"debug\"",
        "board = \"n150 \\\"upper\\\" \\\\ slot\"",
        "dram_bytes = 12871236864",
        "asic_id = \"0x2a51c9e0\"",
    ] {
        assert!(printed.contains(line), "{line} did not arrive:\n{printed}");
    }

    let wrong = directory.join("wrong.yaml");
    fs::write(&wrong, "config: { log_level: loud }").unwrap();
    let output = check(&wrong);
    assert_eq!(output.status.code(), Some(2), "a wrong setting is noticed: {}", outcome(&output));
}

#[test]
fn the_daemon_starts_as_the_pod_starts_it() {
    let rendered = render(&peers().join("helm/values/small.yaml"));
    let pod = &rendered.the("DaemonSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let arguments: Vec<_> = strings(&container["args"]);
    let expected = [
        "serve",
        "--config=/etc/ttmem/ttmem.toml",
        "--socket=/run/ttmem/tt_allocation_server.sock",
        "--listen=0.0.0.0:8080",
        "--shm-dir=/run/shm",
        "--container-log-dir=/run/containers",
        "--kubelet-pods-socket=none",
        "--kubelet-resources-socket=/run/kubelet/pod-resources/kubelet.sock",
        "--state-dir=/var/lib/ttmem",
    ];
    assert_eq!(arguments, expected);
    // Every path in the arguments is one that is mounted.
    let mounts = container["volumeMounts"].as_array().unwrap();
    let places: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert_eq!(
        places,
        [
            "/etc/ttmem",
            "/run/ttmem",
            "/var/lib/ttmem",
            "/run/shm",
            "/run/containers",
            "/run/kubelet/pod-resources"
        ]
    );

    let directory = Directory::new();
    let config = directory.join("ttmem.toml");
    fs::write(&config, rendered.settings()).unwrap();
    fs::create_dir(directory.join("shm")).unwrap();
    let daemon = Daemon::start_in(directory, &["--config", text(&config)]);
    for probe in ["livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(daemon.get(path).status, 200, "{path}");
    }
    let monitor = &rendered.the("ServiceMonitor")["spec"]["endpoints"][0];
    assert_eq!(daemon.get(monitor["path"].as_str().unwrap()).status, 200);
    daemon.wait_for_metrics("the demonstration to report", |metrics| {
        metrics.usage(0, "dram").is_some_and(|bytes| bytes > 0.0)
    });
}

/// As the chart's defaults have it: a directory that the kubelet made, a root without capabilities, the whole sandbox, and nobody who keeps
/// connections while there is no daemon.
#[test]
fn what_is_known_outlives_the_pod() {
    let rendered = render(&peers().join("helm/values/defaults.yaml"));
    let pod = &rendered.the("DaemonSet")["spec"]["template"]["spec"];
    let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "state").unwrap();
    assert_eq!(volume["hostPath"], json!({ "path": "/var/lib/ttmem", "type": "DirectoryOrCreate" }));
    let directory = Directory::new();
    let (shm, state) = (directory.join("shm"), directory.join("state"));
    fs::create_dir(&shm).unwrap();
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let start = |directory| {
        let mut program = setpriv(&["--bounding-set=-all,+dac_read_search", "--no-new-privs"]);
        program.arg(env!("CARGO_BIN_EXE_ttmem"));
        Daemon::launch(program, directory, &shm, &["--state-dir", text(&state)])
    };
    let mut daemon = start(directory);
    let mut client = Peer::field_client(&daemon, "seed");
    let mut allocate = |id: u64| {
        client
            .ask(&json!({"op": "allocate", "device": 0, "type": "dram", "size": 4096, "id": id}).to_string());
        client.ask(r#"{"op":"query","device":0}"#);
    };
    allocate(1);
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().success());

    let daemon = start(daemon.kill());
    let metrics = daemon.metrics();
    assert_eq!(metrics.usage(0, "dram"), Some(4096.0), "the process has not ended, nor told anything again");
    assert!(metrics.value("ttmem_state_recovery_duration_seconds", &[]).unwrap() > 0.0);
    assert_eq!(metrics.value("ttmem_state_kept", &[]), Some(1.0));
    assert_eq!(metrics.values("ttmem_sandbox_active", &[]), [1.0; 4]);
    let stopped = wait_for("the history of the pod before", || {
        let events: Value =
            serde_json::from_str(&daemon.get("/api/v1/events?kind=daemon_stopped").body).ok()?;
        events["events"].as_array()?.first().cloned()
    });
    assert_eq!(stopped["kind"], "daemon_stopped");
    for file in fs::read_dir(&state).unwrap().map(|file| file.unwrap()) {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is for others to read", file.path());
    }
}

/// Where nobody can write, nothing is to be kept: a directory that the kubelet would make is root's.
#[test]
fn state_is_kept_where_the_user_can_write() {
    let keeps = |values: &str| {
        let directory = Directory::new();
        let path = directory.join("values.yaml");
        fs::write(&path, values).unwrap();
        let rendered = render(&path);
        assert_eq!(rendered.problems, [""; 0]);
        let pod = &rendered.the("DaemonSet")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["mountPath"] == "/var/lib/ttmem");
        let is_told = strings(&container["args"]).contains(&"--state-dir=/var/lib/ttmem");
        assert_eq!(mount.is_some(), is_told);
        mount.map(|mount| mount["name"].as_str().unwrap().to_owned())
    };
    const NON_ROOT: &str = "runAs: { mode: nonRoot }";
    const OWN: &str = "extraVolumes: [{ name: own, emptyDir: {} }]";
    assert_eq!(keeps("state: { enabled: true }").as_deref(), Some("state"));
    assert_eq!(keeps("state: { enabled: false }"), None);
    assert_eq!(keeps(NON_ROOT), None);
    assert_eq!(keeps(&format!("{NON_ROOT}\nstate: {{ hostPathType: Directory }}")).as_deref(), Some("state"));
    assert_eq!(keeps(&format!("{NON_ROOT}\n{OWN}\nstate: {{ volume: own }}")).as_deref(), Some("own"));
}

#[test]
fn a_web_configuration_changes_arguments_probes_and_monitors() {
    let rendered = render(&peers().join("helm/values/everything.yaml"));
    let pod = &rendered.the("DaemonSet")["spec"]["template"]["spec"];
    assert!(strings(&pod["containers"][0]["args"]).contains(&"--web-config=/etc/ttmem-web/web.yml"));
    assert_eq!(pod["containers"][0]["livenessProbe"]["tcpSocket"]["port"], "http-metrics");
    assert_eq!(pod["securityContext"]["supplementalGroups"], json!([4242]), "the socket's group");
    assert_eq!(rendered.the("ServiceMonitor")["spec"]["endpoints"][0]["scheme"], "https");
    let plain = render(&peers().join("helm/values/defaults.yaml"));
    let arguments = plain.the("DaemonSet")["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(!arguments.contains("web-config"), "{arguments}");
}

#[test]
fn it_runs_where_devices_are_and_only_there() {
    const LABEL: &str = "feature.node.kubernetes.io/pci-1200_1e52.present";
    for (values, terms) in [("defaults", 1), ("everything", 2), ("pod-monitor", 0)] {
        let rendered = render(&peers().join(format!("helm/values/{values}.yaml")));
        let pod = &rendered.the("DaemonSet")["spec"]["template"]["spec"];
        let required = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let found = required["nodeSelectorTerms"].as_array().cloned().unwrap_or_default();
        assert_eq!(found.len(), terms, "{values}");
        for term in &found {
            assert!(term["matchExpressions"].to_string().contains(LABEL), "{values}: {term}");
        }
    }
}

#[test]
fn services_and_monitors_find_the_daemon_and_nothing_else() {
    let rendered = render(&peers().join("helm/values/everything.yaml"));
    let daemon = rendered.the("DaemonSet");
    let pod_labels = &daemon["spec"]["template"]["metadata"]["labels"];
    let test_labels = &rendered.the("Pod")["metadata"]["labels"];
    let selects = |selector: &Value, labels: &Value| {
        selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value)
    };
    for selector in [
        &daemon["spec"]["selector"]["matchLabels"],
        &rendered.the("Service")["spec"]["selector"],
        &rendered.the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ] {
        assert!(selects(selector, pod_labels), "{selector}");
        assert!(!selects(selector, test_labels), "{selector}");
    }
    let monitor = &rendered.the("ServiceMonitor")["spec"];
    assert!(selects(&monitor["selector"]["matchLabels"], &rendered.the("Service")["metadata"]["labels"]));
    assert_eq!(monitor["namespaceSelector"]["matchNames"], json!(["monitored"]));
    let other = render(&peers().join("helm/values/pod-monitor.yaml"));
    let labels = &other.the("DaemonSet")["spec"]["template"]["metadata"]["labels"];
    assert!(selects(&other.the("PodMonitor")["spec"]["selector"]["matchLabels"], labels));
}

#[test]
fn rules_are_the_shipped_ones_and_can_be_changed_one_by_one() {
    let alerts = |values: &str| {
        let rendered = render(&peers().join(format!("helm/values/{values}.yaml")));
        let spec = &rendered.the("PrometheusRule")["spec"];
        promtool_accepts(spec);
        let groups = spec["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    let shipped = alerts("small");
    let changed = alerts("everything");
    let find = |rules: &[Value], name: &str| rules.iter().find(|rule| rule["alert"] == name).cloned();
    let expression = |rule: &Value| rule["expr"].as_str().unwrap().to_owned();

    assert_eq!(shipped.len(), changed.len(), "one is turned off, one is added");
    assert!(find(&changed, "TtmemExporterDown").is_none());
    assert!(find(&changed, "Ours").is_some());
    let (before, after) =
        (find(&shipped, "TtmemMemoryAlmostFull").unwrap(), find(&changed, "TtmemMemoryAlmostFull").unwrap());
    assert_eq!(expression(&after), expression(&before).replace("0.95", "0.8"));
    assert_ne!(expression(&after), expression(&before));
    assert_eq!(
        (&after["for"], &after["keep_firing_for"], &after["labels"]["severity"]),
        (&json!("1h"), &json!("10m"), &json!("critical"))
    );
    assert_eq!(after["labels"]["team"], "accelerators", "a label for all");
    assert_eq!(
        after["annotations"]["runbook_url"],
        "https://wiki.example.com/runbooks/TtmemMemoryAlmostFull"
    );
    let reload = find(&changed, "TtmemReloadFailed").unwrap();
    assert_eq!(
        (&reload["labels"]["team"], &reload["annotations"]["summary"]),
        (&json!("platform"), &json!("Look."))
    );
    let absent = find(&changed, "TtmemExporterAbsent").unwrap();
    assert!(expression(&absent).contains("job=~\"memory-.*\""), "{absent}");
    assert_eq!(expression(&find(&changed, "TtmemAllocationsKeepFailing").unwrap()), "vector(1) > 0");
}

/// For each threshold: another number is another expression, and still one.
#[test]
fn every_threshold_can_be_set() {
    let thresholds = fs::read_to_string(chart().join("rules/thresholds.yaml")).unwrap();
    let names =
        thresholds.lines().filter(|line| line.starts_with("Ttmem")).map(|line| line.trim_end_matches(':'));
    let overrides: Vec<_> = names.map(|name| format!("    {name}: {{ threshold: 0.123 }}")).collect();
    assert!(!overrides.is_empty());
    let directory = Directory::new();
    let values = directory.join("values.yaml");
    let content = format!("prometheusRule:\n  enabled: true\n  rules:\n{}\n", overrides.join("\n"));
    fs::write(&values, content).unwrap();
    let rendered = render(&values);
    let spec = &rendered.the("PrometheusRule")["spec"];
    assert_eq!(spec.to_string().matches("0.123").count(), overrides.len());
    promtool_accepts(spec);
}

#[test]
fn dashboards_are_the_shipped_ones() {
    let rendered = render(&peers().join("helm/values/small.yaml"));
    let mut found = BTreeSet::new();
    for object in
        rendered.all("ConfigMap").filter(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1")
    {
        for (name, content) in object["data"].as_object().unwrap() {
            let shipped = fs::read_to_string(root().join("dashboards").join(name)).unwrap();
            assert_eq!(content.as_str().unwrap().trim(), shipped.trim(), "{name}");
            assert!(shipped.len() < 1_000_000, "{name} does not fit into a ConfigMap");
            found.insert(name.clone());
        }
    }
    let shipped = fs::read_dir(root().join("dashboards")).unwrap();
    let shipped = shipped.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(found, shipped.filter(|name| name.ends_with(".json")).collect());
}

#[test]
fn the_package_is_whole_and_its_notes_tell_what_is_wrong() {
    let directory = Directory::new();
    let packed = Command::new(installed_peer("bin/helm"))
        .args(["package", "--destination"])
        .arg(directory.path())
        .arg(chart())
        .env("HOME", directory.path())
        .output()
        .unwrap();
    assert!(packed.status.success(), "{}", outcome(&packed));
    let package = directory.join(&format!("ttmem-{}.tgz", env!("CARGO_PKG_VERSION")));
    let notes = |arguments: &[&str]| {
        let mut command = Command::new(installed_peer("bin/helm"));
        command.args(["install", "memory"]).arg(&package).args([
            "--dry-run=client",
            "--namespace",
            "monitored",
        ]);
        let output = command.args(arguments).env("HOME", directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", outcome(&output));
        let printed = String::from_utf8(output.stdout).unwrap();
        printed.split_once("NOTES:").unwrap().1.to_owned()
    };
    let plain = notes(&[]);
    assert!(plain.contains("helm -n monitored test memory") && !plain.contains("WARNING"), "{plain}");
    assert!(plain.contains("path: /run/ttmem"), "{plain}");
    let odd =
        notes(&["--set", "hostPID=false,runAs.mode=nonRoot,hostNetwork=true,serviceMonitor.enabled=true"]);
    assert_eq!(odd.matches("WARNING").count(), 5, "{odd}");
    assert!(odd.contains("no state is kept"), "{odd}");
    assert!(!odd.contains("Nothing scrapes it yet"), "{odd}");
}

/// What values.yaml says about `runAs`: root needs one capability to read the regions of every user, and none for anything else.
#[test]
fn one_capability_is_enough_and_needed_for_other_users_regions() {
    const OWNER: u32 = 4711;
    assert!(rustix::process::geteuid().is_root(), "only root can become a root with one capability");
    let mut model = setpriv(&[&format!("--reuid={OWNER}"), &format!("--regid={OWNER}"), "--clear-groups"]);
    let mut model = model.args(["sleep", "600"]).spawn().unwrap();
    // Until then it is root's, and no slot of that user's region.
    wait_for("the model to be that user's", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", model.id())).unwrap();
        (name.trim() == "sleep").then_some(())
    });
    let bytes_seen = |capabilities: &str| {
        let directory = Directory::new();
        let shm = directory.join("shm");
        fs::create_dir(&shm).unwrap();
        let region = shm.join("tt_device_1_memory");
        let slot = json!({ "pid": model.id(), "name": "model", "dram": 4096 });
        write_region(&region, &json!({ "device_id": 0, "processes": [slot] }));
        fs::set_permissions(&region, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&region, Some(OWNER), Some(OWNER)).unwrap();
        let mut program = setpriv(&[&format!("--bounding-set={capabilities}"), "--no-new-privs"]);
        program.arg(env!("CARGO_BIN_EXE_ttmem"));
        let daemon = Daemon::launch(program, directory, &shm, &["--shm-interval-ms", "10"]);
        // A client of any user gets through, too.
        let mut client = daemon.connect();
        client.write_all(&Frame::alloc(1, 1, 1).bytes(72)).unwrap();
        let metrics = daemon.wait_for_metrics("the client's report and a look at the region", |metrics| {
            let is_refused = daemon
                .log()
                .iter()
                .any(|line| line["level"] == "WARN" && line["path"].as_str() == region.to_str());
            metrics.usage(1, "dram") == Some(1.0) && (metrics.usage(0, "dram").is_some() || is_refused)
        });
        metrics.usage(0, "dram")
    };
    let (with, without) = (bytes_seen("-all,+dac_read_search"), bytes_seen("-all"));
    model.kill().unwrap();
    model.wait().unwrap();
    assert_eq!((with, without), (Some(4096.0), None));
}

fn setpriv(arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(arguments).arg("--");
    command
}

/// What a pod could do that it does not need: the words say where.
fn excesses(pod: &Value, capabilities: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |is_so: bool, what: &str| {
        if !is_so {
            found.push(what.to_owned());
        }
    };
    expect(pod["hostIPC"].is_null(), "hostIPC");
    expect(pod["enableServiceLinks"] == json!(false), "enableServiceLinks");
    expect(pod["automountServiceAccountToken"] == json!(false), "automountServiceAccountToken");
    expect(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile");
    let empty = Vec::new();
    let ours = |container: &&Value| ["ttmem", "status"].contains(&container["name"].as_str().unwrap());
    let container = pod["containers"].as_array().unwrap().iter().find(ours).unwrap();
    let context = &container["securityContext"];
    expect(context["privileged"] == json!(false), "privileged");
    expect(context["allowPrivilegeEscalation"] == json!(false), "allowPrivilegeEscalation");
    expect(context["readOnlyRootFilesystem"] == json!(true), "readOnlyRootFilesystem");
    expect(context["capabilities"]["drop"] == json!(["ALL"]), "capabilities.drop");
    let added = context["capabilities"]["add"].as_array().unwrap_or(&empty);
    expect(*added == capabilities, "capabilities.add");
    expect(context["seccompProfile"].is_null(), "the container's own seccompProfile");
    expect(
        context["runAsUser"].is_null() || pod["securityContext"]["runAsUser"] == context["runAsUser"],
        "runAsUser",
    );
    expect(container["volumeDevices"].is_null(), "volumeDevices");
    for volume in pod["volumes"].as_array().unwrap_or(&empty) {
        if volume.get("hostPath").is_some() {
            let known = HOST_VOLUMES.iter().find(|(name, _)| volume["name"] == *name);
            expect(known.is_some(), "a host path");
            let mount = container["volumeMounts"].as_array().unwrap().iter();
            let mut mount = mount.filter(|mount| mount["name"] == volume["name"]);
            let is_writable = mount.any(|mount| mount["readOnly"] != json!(true));
            expect(!is_writable || known.is_some_and(|(_, writable)| *writable), "a writable host path");
        }
    }
    found
}

fn promtool_accepts(spec: &Value) {
    let directory = Directory::new();
    let path = directory.join("rules.json");
    fs::write(&path, spec.to_string()).unwrap();
    let output =
        Command::new(installed_peer("bin/promtool")).args(["check", "rules"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", outcome(&output));
}

/// What helm made of a values file, and what is wrong with it.
struct Rendered {
    objects: Vec<Value>,
    problems: Vec<String>,
}

impl Rendered {
    fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn find(&self, kind: &str) -> Option<&Value> {
        self.objects.iter().find(|object| object["kind"] == kind)
    }

    fn the(&self, kind: &str) -> &Value {
        self.find(kind).unwrap_or_else(|| panic!("no {kind}"))
    }

    /// The content of ttmem.toml.
    fn settings(&self) -> &str {
        self.all("ConfigMap").find_map(|object| object["data"]["ttmem.toml"].as_str()).unwrap()
    }
}

fn render(values: &Path) -> Rendered {
    let output = template(values);
    assert!(output.status.success(), "{}: {}", values.display(), outcome(&output));
    checked(&String::from_utf8(output.stdout).unwrap())
}

/// Validates objects in YAML.
fn checked(manifests: &str) -> Rendered {
    let mut child = Command::new(python())
        .arg(peers().join("helm/chart.py"))
        .arg("check")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", outcome(&output));
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = strings(&report["problems"]).into_iter().map(str::to_owned).collect();
    let Value::Array(objects) = report["objects"].take() else { panic!("{report}") };
    Rendered { objects, problems }
}

fn template(values: &Path) -> Output {
    helm(&["template", "memory", "--namespace", "monitored", "--values", text(values)])
}

/// Runs helm on the chart, away from the settings of whoever runs the tests.
fn helm(arguments: &[&str]) -> Output {
    let home = Directory::new();
    let mut command = Command::new(installed_peer("bin/helm"));
    command.args(arguments).arg(chart()).env_clear().env("HOME", home.path()).output().unwrap()
}

/// Puts a value at a JSON pointer, whose last part may be new; null takes it away.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")).as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(name);
    } else {
        parent.insert(name.to_owned(), value);
    }
}

/// A matrix's files, in order.
fn files(matrix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(peers().join("helm").join(matrix)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 3, "{matrix}");
    files
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn outcome(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn python() -> PathBuf {
    installed_peer("kubernetes-validate/bin/python")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("helm/ttmem")
}
