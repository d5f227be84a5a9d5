//! What processes, users and containers are called, in every format: no name can end the line, the string or the message that it is in.

use std::collections::HashSet;
use std::sync::Arc;

use ttmem::registry::{
    BufferFilter, Container, ContainerNames, Cursor, Identity, MemoryType, ProcessInfo, Registry, Source,
    Time,
};
use ttmem::sinks::traces;
use ttmem::views::exposition::{ByteFormat, Selection, expose};
use ttmem::views::json;
use ttmem::views::protobuf::Protobuf;
use ttmem::views::text::{Dialect, Text};

use super::exposition;

const TIME: Time = Time { monotonic_ns: 2_000_000_000, unix_ns: 1_700_000_000_000_000_000 };

/// The names stand one behind the other, each ended by a byte of 0xff: process, user, group, namespace, pod, container.
pub fn views(data: &[u8]) {
    let mut names = data.split(|byte| *byte == 0xff).map(|name| String::from_utf8_lossy(name).into_owned());
    let [name, user, cgroup, namespace, pod, container]: [String; 6] =
        std::array::from_fn(|_| names.next().unwrap_or_default());
    let registry = Registry::new(0);
    let known = Container::new("a".repeat(64), None);
    known.settle(Some(ContainerNames { namespace: namespace.clone(), pod, container }));
    let info = ProcessInfo {
        name: name.clone(),
        uid: 1000,
        user: user.clone(),
        cgroup: Some(cgroup),
        container: Some(Arc::new(known)),
        ns_pid: None,
        slurm: None,
        start_time_seconds: Some(1.0),
        source: Source::Socket,
    };
    let process = registry.process(Identity { pid: 7, start_ticks: 1 }, 1, info);
    registry.batch(&process, 1).allocate(3, MemoryType::L1, 1, 4096).expect("the first buffer");
    check_text(&registry, [("process", &name), ("user", &user), ("k8s_namespace_name", &namespace)]);
    assert!(write(&registry, Text::new(Dialect::OpenMetrics)).ends_with(b"\n# EOF\n"));
    check_messages(&write(&registry, Protobuf::default()));
    check_json(&registry, &name);
}

fn write<E: ByteFormat>(registry: &Registry, mut to: E) -> Vec<u8> {
    let selection = Selection { names: HashSet::new(), processes_max: 10 };
    expose(registry.snapshot(TIME), selection, 0, &mut to);
    to.finish()
}

/// A strict reader finds the names as they are, but for what a terminal would obey.
fn check_text(registry: &Registry, expected: [(&str, &String); 3]) {
    let text = String::from_utf8(write(registry, Text::new(Dialect::Prometheus))).expect("UTF-8");
    let families = exposition::read(&text).unwrap_or_else(|problem| panic!("{problem}"));
    let info = families.iter().find(|family| family.name == "ttmem_process_info").expect("one process");
    for (label, value) in expected {
        let shown = info.samples[0].labels.get(label).map_or("", String::as_str);
        let harmless: String = value
            .chars()
            .map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter })
            .collect();
        assert_eq!(shown, harmless, "{label}");
    }
}

/// Every message is as long as it says, and the last one ends where the bytes do.
fn check_messages(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut length = 0;
        let mut shift = 0;
        loop {
            let (byte, rest) = bytes.split_first().expect("a length has an end");
            length |= usize::from(byte & 0x7f) << shift;
            (bytes, shift) = (rest, shift + 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        bytes = bytes.get(length..).expect("a message that is all there");
    }
}

fn check_json(registry: &Registry, name: &str) {
    let snapshot = registry.snapshot(TIME);
    let read = |text: serde_json::Result<String>| -> serde_json::Value {
        serde_json::from_str(&text.expect("a text")).expect("JSON")
    };
    let processes = json::Processes::of(&snapshot, &traces::host(), |_| true);
    assert_eq!(read(serde_json::to_string(&processes))["processes"][0]["process"], name);
    let page = registry.buffers(&BufferFilter::default(), Cursor::default(), 10, TIME.monotonic_ns);
    assert_eq!(read(serde_json::to_string(&json::Buffers::of(&page, TIME)))["buffers"][0]["process"], name);
}
