//! The kernel driver's files, in its documented format, beside real processes: what the cards are, and who holds one without a word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::regions::{Sleeper, write_region};
use support::{Daemon, Directory, Peer};

/// What a card's firmware tells, as the driver writes it.
const CARDS: [(u16, &str, &str, &str, &str); 2] = [
    (0, "n150", "0100018411724057", "1122334455667788", "0000:01:00.0"),
    (1, "p150b", "0000041131925014", "00000000000B0B0B", "0000:41:00.0"),
];

/// A host with the driver's files.
struct Host(Directory);

impl Host {
    fn new() -> Host {
        let host = Host(Directory::new());
        for (ordinal, card_type, serial, asic_id, pci_bus_id) in CARDS {
            let (entry, pci) = (host.class_entry(ordinal), host.0.path().join("devices").join(pci_bus_id));
            fs::create_dir_all(&entry).unwrap();
            fs::create_dir_all(&pci).unwrap();
            for (name, value) in [
                ("tt_card_type", card_type),
                ("tt_serial", serial),
                ("tt_asic_id", asic_id),
                ("tt_fw_bundle_ver", "18.12.0.0"),
            ] {
                fs::write(entry.join(name), format!("{value}\n")).unwrap();
            }
            symlink(pci, entry.join("device")).unwrap();
            host.hold(ordinal, &[]);
        }
        host
    }

    fn class_entry(&self, ordinal: u16) -> PathBuf {
        self.0.path().join(format!("sys/tenstorrent!{ordinal}"))
    }

    fn proc_entry(&self, ordinal: u16) -> PathBuf {
        self.0.path().join(format!("proc/{ordinal}"))
    }

    /// The processes that hold a card open, one entry for each descriptor.
    fn hold(&self, ordinal: u16, pids: &[u32]) {
        let entry = self.proc_entry(ordinal);
        fs::create_dir_all(&entry).unwrap();
        let text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        // Whole at every moment, as the driver's own file is.
        fs::write(entry.join("pids.new"), text).unwrap();
        fs::rename(entry.join("pids.new"), entry.join("pids")).unwrap();
    }

    fn daemon(&self) -> Daemon {
        let [proc_directory, sys_directory] =
            ["proc", "sys"].map(|name| self.0.path().join(name).to_str().unwrap().to_owned());
        Daemon::start(&["--driver-proc-dir", &proc_directory, "--driver-sys-dir", &sys_directory])
    }
}

fn untracked(daemon: &Daemon, device: &str, processes: Option<f64>) {
    daemon.wait_for_metrics("the untracked processes", |metrics| {
        metrics.value("ttmem_device_untracked_processes", &[("device", device)]) == processes
    });
}

fn device(daemon: &Daemon, index: usize) -> Value {
    daemon.json("/api/v1/devices")["devices"][index].clone()
}

#[test]
fn idle_cards_are_known_for_what_they_are() {
    let host = Host::new();
    let daemon = host.daemon();
    untracked(&daemon, "1", Some(0.0));
    let metrics = daemon.metrics();
    for labels in [
        [("device", "0"), ("board", "n150"), ("arch", "wormhole_b0"), ("asic_id", "1122334455667788")],
        [("device", "1"), ("board", "p150b"), ("arch", "blackhole"), ("asic_id", "b0b0b")],
        [
            ("device", "1"),
            ("board", "p150b"),
            ("pci_bus_id", "0000:41:00.0"),
            ("capacity_source", "product_table"),
        ],
    ] {
        assert_eq!(metrics.value("ttmem_device_info", &labels), Some(1.0), "{labels:?}\n{}", metrics.text);
    }
    assert_eq!(
        metrics.value("ttmem_device_memory_limit_bytes", &[("device", "1"), ("memory_type", "dram")]),
        Some(34_216_082_432.0)
    );
    let card = device(&daemon, 0);
    assert_eq!((&card["serial"], &card["firmware"]), (&json!("0100018411724057"), &json!("18.12.0.0")));
}

#[test]
fn whoever_holds_a_card_and_reports_nothing_is_named_until_it_reports() {
    let host = Host::new();
    let daemon = host.daemon();
    let mut client = Peer::field_client(&daemon, "metal");
    let sleeper = Sleeper::start();
    // Connecting says nothing yet; three descriptors are one process.
    host.hold(0, &[client.pid(), client.pid(), sleeper.pid(), client.pid()]);
    untracked(&daemon, "0", Some(2.0));
    let named = device(&daemon, 0)["untracked"]["named"].clone();
    let named: Vec<_> =
        named.as_array().unwrap().iter().map(|process| (&process["pid"], &process["process"])).collect();
    assert!(named.contains(&(&json!(sleeper.pid()), &json!("sleep"))), "{named:?}");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    untracked(&daemon, "0", Some(1.0));
    host.hold(0, &[client.pid()]);
    untracked(&daemon, "0", Some(0.0));
}

#[test]
fn a_chip_that_a_region_names_is_that_device_whatever_the_drivers_number() {
    let host = Host::new();
    let daemon = host.daemon();
    untracked(&daemon, "1", Some(0.0));
    let process = Sleeper::start();
    // A process that is shown only the second card calls it device 0.
    let region = json!({"chip_unique_id": 0xb0b0b, "device_id": 0, "processes": [process.holding(4096)]});
    write_region(&daemon.shm().join("tt_device_b0b0b_memory"), &region);
    host.hold(1, &[process.pid(), std::process::id()]);
    untracked(&daemon, "0", Some(1.0));
    let metrics = daemon.metrics();
    let labels = [("device", "0"), ("board", "p150b"), ("asic_id", "b0b0b")];
    assert_eq!(metrics.value("ttmem_device_info", &labels), Some(1.0), "{}", metrics.text);
    assert_eq!(
        metrics.value("ttmem_device_untracked_processes", &[("device", "1")]),
        None,
        "{}",
        metrics.text
    );
    daemon.wait_for_log(
        "card 0 is none of the devices that processes report about: its number is another chip's",
    );
}

#[test]
fn a_process_that_numbers_the_cards_its_own_way_is_told_of() {
    let host = Host::new();
    let daemon = host.daemon();
    untracked(&daemon, "1", Some(0.0));
    let renumbered = |device: &str, processes: f64| {
        daemon.wait_for_metrics("the renumbered processes", |metrics| {
            metrics.value("ttmem_device_renumbered_processes", &[("device", device)]) == Some(processes)
        })
    };
    renumbered("0", 0.0);
    // Both call theirs 0; the second is shown the second card alone.
    let mut clients = [0, 1].map(|_| {
        let mut client = Peer::field_client(&daemon, "metal");
        client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
        client.ask(r#"{"op":"query","device":0}"#);
        client
    });
    for (client, ordinal) in clients.iter().zip(0..) {
        host.hold(ordinal, &[client.pid()]);
    }
    renumbered("0", 1.0);
    let found = device(&daemon, 0);
    assert_eq!(found["card"], 0);
    assert_eq!(found["renumbered"], json!([{"pid": clients[1].pid(), "card": 1}]));
    daemon.wait_for_log(
        "a process reports about device 0 and holds another card alone: it is shown some of the cards (TT_VISIBLE_DEVICES), and what it holds counts under its own number; renumbered in /api/v1/devices names it",
    );
    clients[1].ask(r#"{"op":"free","device":0,"id":1}"#);
    clients[1].ask(r#"{"op":"query","device":0}"#);
    renumbered("0", 0.0);
}

#[test]
fn a_card_may_vanish_and_come_back_as_another() {
    let host = Host::new();
    let daemon = host.daemon();
    untracked(&daemon, "1", Some(0.0));
    fs::remove_dir_all(host.class_entry(1)).unwrap();
    fs::remove_dir_all(host.proc_entry(1)).unwrap();
    untracked(&daemon, "1", None);
    daemon.wait_for_log("the kernel driver shows this card no longer");
    let entry = host.class_entry(1);
    fs::create_dir_all(&entry).unwrap();
    fs::write(entry.join("tt_card_type"), "n300\n").unwrap();
    host.hold(1, &[0]);
    daemon.wait_for_metrics("the new card", |metrics| {
        metrics.value("ttmem_device_info", &[("device", "1"), ("board", "n300")]) == Some(1.0)
    });
    daemon.wait_for_log(
        "processes of other pid namespaces hold a device; run the daemon in the host's (hostPID: true, --pid=host) to see them",
    );
}
