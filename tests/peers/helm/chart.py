#!/usr/bin/env python3
"""The chart's derived files, and what its rendered objects are held to.

usage: chart.py derived [--write]   compares the files that are made from others with what they should be, or writes them
       chart.py check < MANIFESTS   validates rendered objects; prints {"objects": [...], "problems": [...]}
"""

import json
import pathlib
import re
import sys

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate.utils import schema_contents

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CHART = ROOT / "helm" / "ttmem"
OLDEST, NEWEST = "1.31", "1.37"  # objects have to be valid in both; the schema's Kubernetes types are NEWEST's

# Copies: where a chart's own files have to be, and where they are written.
COPIES = [("alerts", "*.rules.yml", "rules"), ("dashboards", "*.json", "dashboards")]

# Settings of the daemon that the chart sets from values of its own.
CHART_SETS = {
    "socket", "listen", "shm_dir", "container_log_dir", "kubelet_pods_socket", "kubelet_resources_socket", "state_dir",
    "web_config",
}

NAME = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", "maxLength": 53}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": ["integer", "null"], "minimum": 0}
FLAG = {"type": ["boolean", "null"]}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
PATH = {"type": "string", "pattern": "^/[^:]*$"}
DURATION = {"type": "string", "pattern": "^(([0-9]+)(ms|[smhdwy]))*$"}


def core(name):
    return {"$ref": f"#/definitions/io.k8s.api.core.v1.{name}"}


def many(fragment):
    return {"type": "array", "items": fragment}


def one_of(*names):
    return {"enum": list(names)}


def network(name):
    return {"$ref": f"#/definitions/io.k8s.api.networking.v1.{name}"}


LABEL = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1."

# What a default value alone does not tell about a value. A key may be a path, or the last part of one.
TYPES = {
    "nameOverride": NAME, "fullnameOverride": NAME,
    "image.repository": {"type": "string", "pattern": "^[^@ ]+$"},
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": one_of("Always", "IfNotPresent", "Never"),
    "imagePullSecrets": many(core("LocalObjectReference")),
    "hostPath": PATH, "hostPathType": one_of("DirectoryOrCreate", "Directory"),
    "state.volume": {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", "maxLength": 63},
    "socket.name": {"type": "string", "pattern": "^[^/]+$", "maxLength": 94},
    "runAs.mode": one_of("root", "nonRoot"),
    "runAs.user": {"type": "integer", "minimum": 1}, "runAs.group": {"type": "integer", "minimum": 1},
    "capabilities.add": many({"type": "string", "pattern": "^[A-Z_]+$", "not": {"enum": ["ALL"]}}),
    "podSecurityContext": core("PodSecurityContext"), "securityContext": core("SecurityContext"),
    "port": PORT, "http.address": {"type": "string", "pattern": r"^([0-9.]+|\[[0-9a-fA-F:.]+\])$"},
    "opentelemetry.endpoint": {"type": "string", "pattern": "^(https?://[^/@ ]+(/[^ ]*)?)?$"},
    "opentelemetry.protocol": one_of("http/protobuf", "grpc"), "opentelemetry.resourceAttributes": STRINGS,
    "extraArgs": many({"type": "string"}), "env": many(core("EnvVar")), "envFrom": many(core("EnvFromSource")),
    "extraVolumes": many(core("Volume")), "extraVolumeMounts": many(core("VolumeMount")),
    "initContainers": many(core("Container")), "extraContainers": many(core("Container")),
    "resources": core("ResourceRequirements"),
    "updateStrategy": {
        "type": "object", "additionalProperties": False,
        "properties": {
            "type": one_of("RollingUpdate", "OnDelete"),
            "rollingUpdate": {
                "type": ["object", "null"], "additionalProperties": False,
                "properties": {
                    "maxUnavailable": {"type": ["integer", "string"], "pattern": "^[0-9]+%?$"},
                    "maxSurge": {"enum": [0, "0", "0%"]},
                },
            },
        },
    },
    "minReadySeconds": {"type": "integer", "minimum": 0}, "revisionHistoryLimit": {"type": "integer", "minimum": 0},
    "terminationGracePeriodSeconds": {"type": "integer", "minimum": 0},
    "livenessProbe": core("Probe"), "readinessProbe": core("Probe"), "startupProbe": core("Probe"),
    "nodeSelector": STRINGS, "affinity": core("Affinity"), "tolerations": many(core("Toleration")),
    "dnsPolicy": one_of("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"), "dnsConfig": core("PodDNSConfig"),
    "labels": STRINGS, "annotations": STRINGS, "commonLabels": STRINGS, "commonAnnotations": STRINGS,
    "podLabels": STRINGS, "podAnnotations": STRINGS, "alertLabels": STRINGS, "alertAnnotations": STRINGS,
    "service.ipFamilyPolicy": one_of("", "SingleStack", "PreferDualStack", "RequireDualStack"),
    "service.ipFamilies": many(one_of("IPv4", "IPv6")),
    "networkPolicy.from": many(network("NetworkPolicyPeer")),
    "networkPolicy.extraIngress": many(network("NetworkPolicyIngressRule")),
    "networkPolicy.egress": many(network("NetworkPolicyEgressRule")),
    "interval": DURATION, "scrapeTimeout": DURATION, "path": PATH, "scheme": one_of("", "http", "https"),
    "bodySizeLimit": {"type": "string", "pattern": "^([0-9.]+[KMGTPE]i?B)?$"},
    "selectorMechanism": one_of("", "RelabelConfig", "RoleSelector"),
    "serviceDiscoveryRole": one_of("", "Endpoints", "EndpointSlice"),
    "nativeHistogramMinBucketFactor": {"type": ["integer", "string", "null"]},
    "prometheusRule.extraGroups": {"$ref": "#/definitions/PrometheusRule.groups"},
    "prometheusRule.rules": {
        "type": "object",
        "additionalProperties": {
            "type": "object", "additionalProperties": False,
            "properties": {
                "enabled": {"type": "boolean", "description": "false leaves the alert out."},
                "severity": one_of("critical", "warning", "info", "none") | {"description": "Its label severity."},
                "for": DURATION | {"description": "How long the condition has to hold."},
                "keepFiringFor": DURATION | {"description": "How long it goes on after the condition has passed."},
                "threshold": {"type": ["number"], "description": "The number that README.md names, for alerts that have one."},
                "expr": {"type": "string", "minLength": 1, "description": "Another expression."},
                "labels": STRINGS | {"description": "Labels to add or replace."},
                "annotations": STRINGS | {"description": "Annotations to add or replace."},
            },
        },
    },
    "test.command": many({"type": "string"}),
}
for name in ("sampleLimit targetLimit labelLimit labelNameLengthLimit labelValueLengthLimit keepDroppedTargets "
             "nativeHistogramBucketLimit").split():
    TYPES[name] = COUNT
for name in ("proxyFromEnvironment followRedirects enableHttp2 honorLabels honorTimestamps trackTimestampsStaleness "
             "filterRunning scrapeNativeHistograms scrapeClassicHistograms convertClassicHistogramsToNHCB").split():
    TYPES[name] = FLAG
for monitor in ("serviceMonitor", "podMonitor"):
    kind = monitor[0].upper() + monitor[1:]
    for name in ("params tlsConfig basicAuth authorization oauth2 proxyConnectHeader relabelings metricRelabelings "
                 "targetLabels podTargetLabels attachMetadata scrapeProtocols").split():
        TYPES[f"{monitor}.{name}"] = {"$ref": f"#/definitions/{kind}.{name}"}


def values():
    text = (CHART / "values.yaml").read_text()
    return yaml.safe_load(text), comments(text)


def comments(text):
    """The comment that stands right above each key, by the key's path."""
    found, above, path = {}, [], []
    for line in text.splitlines():
        comment = re.match(r" *# (?!---)(.*)", line)
        key = re.match(r"( *)([A-Za-z_0-9./]+):", line)
        if comment:
            above.append(comment[1])
            continue
        if key:
            path = path[: len(key[1]) // 2] + [key[2]]
            if above:
                found[".".join(path)] = " ".join(above)
        above = []
    return found


def settings():
    """The daemon's settings from its reference: (key, default, meaning), and those of a [[device]] table."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    plain, _, rest = text.partition("## `[[device]]`")
    devices = rest.partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| \w+ \| (.*) \|$", plain, re.M)
    device_rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*) \|$", devices, re.M)
    assert rows and device_rows, "docs/configuration.md does not look like the reference of the settings any more"
    return rows, device_rows


def setting_type(default):
    if default in ("true", "false"):
        return {"type": "boolean"}
    if default.startswith("["):
        return many({"type": "string"})
    if re.fullmatch(r"[\d_]+", default):
        return {"type": "integer"}
    if re.fullmatch(r"[\d.e-]+", default):
        return {"type": "number"}
    return {"type": ["string", "integer"]} if default == '"auto"' else {"type": "string"}


def config_schema():
    rows, device_rows = settings()
    properties = {}
    for key, default, meaning in rows:
        if key not in CHART_SETS:
            properties[key] = setting_type(default) | {"description": f"{meaning} Default: {default}."}
    table = {key: setting_type(example) | {"description": meaning} for key, example, meaning in device_rows}
    tables = many({"type": "object", "additionalProperties": False, "required": ["index"], "properties": table})
    properties["device"] = {"description": properties["device"]["description"], "anyOf": [many({"type": "string"}), tables]}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def fragment_for(path, value, described):
    """The schema of one value: told in TYPES, or seen from its default."""
    names = path.split(".")
    if path == "config":
        schema = config_schema()
    elif path in TYPES or names[-1] in TYPES:
        schema = dict(TYPES.get(path) or TYPES[names[-1]])
    elif isinstance(value, dict) and value:
        schema = {"type": "object", "additionalProperties": False, "properties": {
            key: fragment_for(f"{path}.{key}", inner, described) for key, inner in value.items()}}
    elif isinstance(value, bool):
        schema = {"type": "boolean"}
    elif isinstance(value, str):
        schema = {"type": "string"}
    elif isinstance(value, int):
        schema = {"type": "integer"}
    else:
        raise SystemExit(f"values.yaml: {path}: nothing tells its type; add it to TYPES in tests/peers/helm/chart.py")
    if path in described:
        schema = {"allOf": [schema]} if "$ref" in schema else schema
        schema = {"description": described[path]} | schema
    elif not (isinstance(value, dict) and value and "properties" in schema):
        raise SystemExit(f"values.yaml: {path} has no comment above it")
    return schema


def crd(name):
    definition = yaml.safe_load((HERE / "crds" / f"{name.lower()}s.yaml").read_text())
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def strict(schema):
    """A CRD's schema as an API server with strict field validation reads it."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "(?i)" in schema.get("pattern", ""):  # Go's spelling, which is no regular expression elsewhere
        schema = {key: value for key, value in schema.items() if key != "pattern"}
    read = {key: strict(value) if key not in ("properties",) else {name: strict(inner) for name, inner in value.items()}
            for key, value in schema.items() if not key.startswith("x-kubernetes-") and key not in ("description", "format")}
    if "properties" in read and "additionalProperties" not in read:
        read["additionalProperties"] = False
    return read


def without_descriptions(node):
    if isinstance(node, dict):
        return {key: without_descriptions(value) for key, value in node.items()
                if not (key == "description" and isinstance(value, str)) and not key.startswith("x-")}
    return [without_descriptions(item) for item in node] if isinstance(node, list) else node


def definitions(schema):
    """What a schema refers to, and what that refers to."""
    known = schema_contents(f"kubernetes-json-schema/v{NEWEST}.0-local-strict/_definitions.json", NEWEST)["$defs"]
    found = {}

    def follow(node):
        for reference in re.findall(r'"\$ref": "[^"]*/([^"/]+)"', json.dumps(node)):
            if reference in found:
                continue
            kind, _, field = reference.partition(".")
            if kind in ("ServiceMonitor", "PodMonitor"):
                spec = crd(kind)["properties"]["spec"]["properties"]
                endpoint = spec["endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"]["items"]["properties"]
                found[reference] = strict(endpoint.get(field) or spec[field])
                # Empty is the default: what a used one has to hold, the API server asks for.
                found[reference].pop("required", None)
            elif kind == "PrometheusRule":
                found[reference] = strict(crd(kind)["properties"]["spec"]["properties"][field])
            else:
                text = json.dumps(without_descriptions(known[reference]))
                found[reference] = json.loads(re.sub(r'"\$ref": "[^"]*/', '"$ref": "#/definitions/', text))
                follow(found[reference])

    follow(schema)
    return dict(sorted(found.items()))


def values_schema():
    defaults, described = values()
    properties = {key: fragment_for(key, value, described) for key, value in defaults.items()}
    # Helm gives these to every chart that is used inside another one.
    properties["global"] = {"type": "object", "description": "Values of a chart around this one; not used."}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the ttmem chart",
        "$comment": "Made by tests/peers/helm/chart.py from values.yaml, docs/configuration.md and the types of Kubernetes.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return schema | {"definitions": definitions(schema)}


def tables():
    """README.md's tables: every value, and every threshold."""
    defaults, described = values()
    lines = ["| Value | Default | Meaning |", "|---|---|---|"]

    def row(path, value):
        if path in described:
            shown = json.dumps(value) if not isinstance(value, str) else f'"{value}"'
            lines.append(f"| `{path}` | `{shown}` | {described[path]} |")
        else:
            for key, inner in value.items():
                row(f"{path}.{key}", inner)

    for key, value in defaults.items():
        row(key, value)
    lines += ["", "| Alert | `threshold` | is the |", "|---|---|---|"]
    for alert, place in yaml.safe_load((CHART / "rules" / "thresholds.yaml").read_text()).items():
        lines.append(f"| {alert} | `{place['value']}` | {place['meaning']} |")
    return "\n".join(lines) + "\n"


def derived():
    """Each derived file and what it should hold; None for one that should not be there."""
    files = {CHART / "values.schema.json": json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n"}
    readme = CHART / "README.md"
    begin, end = "<!-- values -->\n", "<!-- /values -->"
    text = readme.read_text()
    files[readme] = text[: text.index(begin) + len(begin)] + tables() + text[text.index(end):]
    for source, pattern, target in COPIES:
        stale = {path: None for path in (CHART / target).glob(pattern)}
        files |= stale | {CHART / target / path.name: path.read_text() for path in sorted((ROOT / source).glob(pattern))}
    return files


def thresholds_problems():
    """Each threshold has to be found once, or a `threshold` would change nothing or too much."""
    groups = [group for path in sorted((CHART / "rules").glob("*.rules.yml"))
              for group in yaml.safe_load(path.read_text())["groups"]]
    alerts = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
    for alert, place in yaml.safe_load((CHART / "rules" / "thresholds.yaml").read_text()).items():
        text = place["before"] + place["value"]
        if alert not in alerts:
            yield f"helm/ttmem/rules/thresholds.yaml: {alert}: there is no such alert"
        elif len(re.findall(re.escape(text) + r"(?![\d.])", alerts[alert])) != 1 or alerts[alert].count(text) != 1:
            yield f"helm/ttmem/rules/thresholds.yaml: {alert}: {text!r} is not in its expression exactly once"


def main_derived(write):
    problems = []
    for path, content in derived().items():
        current = path.read_text() if path.exists() else None
        if current == content:
            continue
        if not write:
            problems.append(f"{path.relative_to(ROOT)} is out of date")
        elif content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    problems += thresholds_problems()
    jsonschema.Draft7Validator.check_schema(values_schema())
    print("\n".join(problems), end="")
    return bool(problems)


def problems_of(item):
    """What the API server would say against an object."""
    name = f"{item.get('kind')}/{item.get('metadata', {}).get('name')}"
    if item.get("apiVersion", "").startswith("monitoring.coreos.com/"):
        schema = strict(crd(item["kind"]))
        schema["properties"]["metadata"] = {"type": "object"}
        found = jsonschema.Draft7Validator(schema).iter_errors(item)
        return [f"{name}: {'.'.join(map(str, error.path))}: {error.message}" for error in found]
    found = []
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{name}: Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"{name}: {error.message}")
    return found


def main_check():
    objects = [item for item in yaml.safe_load_all(sys.stdin) if item]
    problems = [problem for item in objects for problem in problems_of(item)]
    names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    problems += [f"{name} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    json.dump({"objects": objects, "problems": problems}, sys.stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == ["derived"]:
        sys.exit(main_derived("--write" in sys.argv))
    if sys.argv[1:] == ["check"]:
        sys.exit(main_check())
    sys.exit(__doc__)
