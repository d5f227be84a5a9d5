//! Who exports: the resource that every request names.

use std::fs;
use std::path::Path;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::config::OtlpConfig;

/// The namespace that OpenTelemetry's conventions give for instance ids that are derived (version 5 of UUIDs).
const INSTANCE_NAMESPACE: [u8; 16] =
    [0x4d, 0x63, 0x00, 0x9a, 0x8d, 0x0f, 0x11, 0xee, 0xaa, 0xd7, 0x4c, 0x79, 0x6e, 0xd8, 0xe3, 0x20];

/// What is known of the host and this daemon, and over it what the operator says.
pub(super) fn resource(config: &OtlpConfig, socket: &Path) -> Resource {
    let host_id = first_line("/etc/machine-id");
    let mut attributes = vec![
        ("service.name", Some(env!("CARGO_PKG_NAME").to_owned())),
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("service.instance.id", instance_id(host_id.as_deref(), socket)),
        ("host.name", first_line("/proc/sys/kernel/hostname")),
        ("host.id", host_id),
        ("host.arch", Some(host_arch().to_owned())),
        ("os.type", Some(std::env::consts::OS.to_owned())),
    ];
    let said = |name: &str| config.resource_attributes.iter().any(|(said, _)| said == name);
    attributes.retain(|(name, _)| !said(name));
    let own = attributes.into_iter().filter_map(|(name, value)| Some(attribute(name, value?)));
    let said = config.resource_attributes.iter().map(|(name, value)| attribute(name, value.clone()));
    let mut attributes: Vec<KeyValue> = own.chain(said).collect();
    if let Some(name) = &config.service_name {
        attributes.retain(|attribute| attribute.key != "service.name");
        attributes.insert(0, attribute("service.name", name.clone()));
    }
    Resource { attributes, ..Resource::default() }
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// The same for the same socket on the same host, so that a restart makes no new instance; where a host has no id, one for this run.
fn instance_id(host_id: Option<&str>, socket: &Path) -> Option<String> {
    let Some(host_id) = host_id else { return first_line("/proc/sys/kernel/random/uuid") };
    let name =
        [INSTANCE_NAMESPACE.as_slice(), host_id.as_bytes(), socket.as_os_str().as_encoded_bytes()].concat();
    let mut bytes: [u8; 16] = digest(&SHA1_FOR_LEGACY_USE_ONLY, &name).as_ref().first_chunk().copied()?;
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// OpenTelemetry's word for the processor.
fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn first_line(path: &str) -> Option<String> {
    let content = fs::read_to_string(path).ok()?;
    content.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_its_id() {
        let id = |host: &str, socket: &str| instance_id(Some(host), Path::new(socket)).expect("derived");
        assert_eq!(id("a", "/run/b"), id("a", "/run/b"));
        assert_ne!(id("a", "/run/b"), id("a", "/run/c"));
        assert_ne!(id("a", "/run/b"), id("b", "/run/b"));
        let parts: Vec<usize> = id("a", "/run/b").split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&id("a", "/run/b")[14..15], "5");
    }

    #[test]
    fn the_operator_has_the_last_word() {
        let config = OtlpConfig {
            service_name: Some("mine".to_owned()),
            resource_attributes: vec![
                ("host.name".to_owned(), "node-7".to_owned()),
                ("service.name".to_owned(), "theirs".to_owned()),
                ("k8s.node.name".to_owned(), "n7".to_owned()),
            ],
            ..OtlpConfig::default()
        };
        let resource = resource(&config, Path::new("/run/a"));
        let values = |name: &str| -> Vec<Value> {
            let found = resource.attributes.iter().filter(|attribute| attribute.key == name);
            found.filter_map(|attribute| attribute.value.clone()?.value).collect()
        };
        let text = |text: &str| vec![Value::StringValue(text.to_owned())];
        assert_eq!(values("service.name"), text("mine"));
        assert_eq!(values("host.name"), text("node-7"));
        assert_eq!(values("k8s.node.name"), text("n7"));
        assert_eq!(values("os.type"), text("linux"));
    }
}
