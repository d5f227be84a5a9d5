//! tt-metal's shared-memory regions as a host can really have them: whole, damaged, forged, stale, and beside the socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, RenameFlags, mkfifoat, renameat_with};
use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use support::regions::{Sleeper, dump_region, slot_of, write_region};
use support::{Daemon, Directory, Metrics, Peer, ttmem, wait_for};

/// A device that only the tests' own mark is on.
const MARK_DEVICE: u16 = 1023;
/// Comes after every other region in the daemon's order.
const MARK_NAME: &str = "tt_device_zz_memory";
/// Where the first slot's DRAM stands in a region.
const FIRST_SLOT_DRAM_AT: u64 = 864;
const REGION_BYTES: u64 = 8576;
/// A user that owns nothing, on any Linux.
const NOBODY: u32 = 65_534;
/// The values of series that are not there.
const NOTHING: [f64; 0] = [];

/// A daemon that looks at its regions often, and a way to know that it has.
struct Watched {
    daemon: Daemon,
    mark: Sleeper,
    looks: AtomicU64,
}

impl Watched {
    fn start(arguments: &[&str]) -> Watched {
        let arguments = [&["--shm-interval-ms", "10"], arguments].concat();
        let (daemon, mark) = (Daemon::start(&arguments), Sleeper::start());
        let region = json!({"device_id": MARK_DEVICE, "processes": [mark.holding(1)]});
        write_region(&daemon.shm().join(MARK_NAME), &region);
        Watched { daemon, mark, looks: AtomicU64::new(1) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.shm().join(format!("tt_device_{name}_memory"))
    }

    fn write(&self, name: &str, region: &Value) -> PathBuf {
        let path = self.path(name);
        write_region(&path, region);
        path
    }

    /// Waits until the daemon has looked at all regions as they are now.
    fn look(&self) -> Metrics {
        let mark = OpenOptions::new().write(true).open(self.daemon.shm().join(MARK_NAME)).unwrap();
        // A look under way may have passed the others before they were changed; the one in which the mark changes again has not.
        self.advance(&mark);
        self.advance(&mark)
    }

    fn advance(&self, mark: &File) -> Metrics {
        let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        mark.write_all_at(&look.to_le_bytes(), FIRST_SLOT_DRAM_AT).unwrap();
        self.daemon.wait_for_metrics("the daemon to look at the regions", |metrics| {
            metrics.process_usage(self.mark.pid(), MARK_DEVICE, "dram") == Some(look as f64)
        })
    }

    /// What the log says about a region.
    fn complaints(&self, path: &Path) -> Vec<String> {
        let path = path.to_str().unwrap();
        let lines =
            self.daemon.log().into_iter().filter(|line| line["level"] == "WARN" && line["path"] == path);
        lines.map(|line| line["error"].as_str().unwrap().to_owned()).collect()
    }
}

/// Bytes that a process holds on a device, where 0 and no sample are the same.
fn held(metrics: &Metrics, process: &Sleeper, device: u16, memory_type: &str) -> f64 {
    metrics.process_usage(process.pid(), device, memory_type).unwrap_or(0.0)
}

#[test]
fn both_versions_are_read_slot_by_slot() {
    let watched = Watched::start(&[]);
    let (first, second) = (Sleeper::start(), Sleeper::start());
    let all = json!({"pid": first.pid(), "dram": 8192, "l1": 4096, "l1_small": 32, "trace": 64, "cb": 2048});
    // The header's totals are what a killed process would have left in them.
    let totals = json!({"dram": 1_u64 << 40, "l1": 1_u64 << 40, "l1_small": 0, "trace": 0, "cb": 0});
    let region = json!({"version": 3, "chip_unique_id": 0x71001, "device_id": 0, "totals": totals,
                        "processes": [all, second.holding(1)]});
    watched.write("71001", &region);
    watched.write(
        "71002",
        &json!({"version": 4, "chip_unique_id": 0x71002, "device_id": 7, "processes": [first.holding(512)]}),
    );
    let metrics = watched.look();
    for (memory_type, bytes) in
        [("dram", 8192.0), ("l1", 4096.0), ("l1_small", 32.0), ("trace", 64.0), ("cb", 2048.0)]
    {
        assert_eq!(metrics.process_usage(first.pid(), 0, memory_type), Some(bytes), "{memory_type}");
    }
    assert_eq!(metrics.process_usage(second.pid(), 0, "dram"), Some(1.0));
    assert_eq!(metrics.process_usage(first.pid(), 7, "dram"), Some(512.0));
    assert_eq!((metrics.usage(0, "dram"), metrics.usage(7, "dram")), (Some(8193.0), Some(512.0)));
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(2.0));
    for (device, asic_id) in [("0", "71001"), ("7", "71002")] {
        let labels = [("device", device), ("asic_id", asic_id)];
        assert_eq!(metrics.value("ttmem_device_info", &labels), Some(1.0), "{}", metrics.text);
    }
    let pid = first.pid().to_string();
    let labels = [("pid", pid.as_str()), ("process", "sleep"), ("source", "shm")];
    assert_eq!(metrics.value("ttmem_process_info", &labels), Some(1.0));
    metrics.assert_adds_up();
}

#[test]
fn what_only_reports_can_tell_has_no_sample() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    watched.write("1", &json!({"processes": [process.holding(4096)]}));
    let metrics = watched.look();
    let place = [("device", "0"), ("memory_type", "dram")];
    for name in [
        "ttmem_device_buffers",
        "ttmem_device_allocated_bytes_total",
        "ttmem_device_freed_bytes_total",
        "ttmem_device_allocations_total",
        "ttmem_device_frees_total",
        "ttmem_device_oldest_buffer_timestamp_seconds",
        "ttmem_buffer_size_bytes_count",
        "ttmem_buffer_lifetime_seconds_count",
        "ttmem_device_source_drift_bytes",
        "ttmem_device_memory_limit_bytes",
        "ttmem_process_buffers",
        "ttmem_process_allocated_bytes_total",
    ] {
        assert_eq!(metrics.values(name, &place), NOTHING, "{name}");
    }
    assert_eq!(metrics.value("ttmem_device_memory_peak_bytes", &place), Some(4096.0));
}

#[test]
fn figures_follow_the_region() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let path = watched.write("1", &json!({"device_id": 0, "processes": [process.holding(4096)]}));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0);
    watched.write("1", &json!({"device_id": 0, "processes": [process.holding(100)]}));
    let metrics = watched.look();
    assert_eq!(held(&metrics, &process, 0, "dram"), 100.0);
    let place = [("device", "0"), ("memory_type", "dram")];
    assert_eq!(metrics.value("ttmem_device_memory_peak_bytes", &place), Some(4096.0));

    watched.write("1", &json!({"device_id": 3, "processes": [process.holding(100)]}));
    let metrics = watched.look();
    assert_eq!((held(&metrics, &process, 0, "dram"), held(&metrics, &process, 3, "dram")), (0.0, 100.0));
    fs::remove_file(path).unwrap();
    let metrics = watched.look();
    assert_eq!(held(&metrics, &process, 3, "dram"), 0.0);
    assert_eq!(metrics.usage(3, "dram"), Some(0.0));
    metrics.assert_adds_up();
}

#[test]
fn version_four_counts_once_it_is_ready() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let region = |init_state: u32| json!({"version": 4, "init_state": init_state, "processes": [process.holding(4096)]});
    let path = watched.write("1", &region(0));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 0.0);
    watched.write("1", &region(0x5245_4458));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 0.0);
    watched.write("1", &region(0x5245_4459));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0);
    assert_eq!(watched.complaints(&path), [""; 0], "to be set up is nobody's fault");
}

#[test]
fn an_unknown_version_is_named_once_and_skipped() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let known = watched.write("1", &json!({"processes": [process.holding(4096)]}));
    let path =
        watched.write("2", &json!({"version": 7, "device_id": 1, "processes": [process.holding(8192)]}));
    watched.look();
    watched.write("2", &json!({"version": 7, "device_id": 1, "processes": [process.holding(9000)]}));
    watched.look();
    let metrics = watched.look();
    assert_eq!(held(&metrics, &process, 0, "dram"), 4096.0);
    assert_eq!(metrics.usage(1, "dram"), None, "nothing is known of its device");
    let complaints = watched.complaints(&path);
    assert!(complaints.len() == 1 && complaints[0].contains("version 7"), "{complaints:?}");
    assert_eq!(metrics.rejected("region"), 1.0);
    assert_eq!(watched.complaints(&known), [""; 0]);

    watched.write("2", &json!({"version": 4, "device_id": 1, "processes": [process.holding(8192)]}));
    assert_eq!(held(&watched.look(), &process, 1, "dram"), 8192.0);
}

#[test]
fn a_file_may_be_of_any_size() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let region = |size_bytes: u64| json!({"size_bytes": size_bytes, "processes": [process.holding(4096)]});
    let path = watched.write("1", &region(100));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 0.0);
    let complaints = watched.complaints(&path);
    assert!(complaints.len() == 1 && complaints[0].contains("100 bytes"), "{complaints:?}");

    watched.write("1", &region(REGION_BYTES));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0, "grown to a region");
    watched.write("1", &region(8 << 20));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0, "grown beyond one");
    // One byte less than the process table ends at.
    watched.write("1", &region(8535));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 0.0, "shrunk");
    watched.write("1", &region(0));
    let metrics = watched.look();
    assert_eq!(held(&metrics, &process, 0, "dram"), 0.0);
    metrics.assert_adds_up();
}

#[test]
fn a_file_may_change_while_it_is_read() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let path = watched.write("1", &json!({"processes": [process.holding(4096)]}));
    let small = fs::read(&path).unwrap();
    watched.write("1", &json!({"processes": [process.holding(8192)]}));
    let large = fs::read(&path).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..3000_u64 {
                let content = if round % 2 == 0 { &small } else { &large };
                match round % 5 {
                    0 => fs::remove_file(&path).unwrap(),
                    1 => {
                        let file = OpenOptions::new().write(true).open(&path).unwrap();
                        file.set_len(round % REGION_BYTES).unwrap();
                    }
                    2 => OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap(),
                    _ => fs::write(&path, content).unwrap(),
                }
                if round % 5 == 0 {
                    fs::write(&path, content).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let metrics = watched.daemon.metrics();
            let held = held(&metrics, &process, 0, "dram");
            assert!([0.0, 4096.0, 8192.0].contains(&held), "{held}");
            metrics.assert_adds_up();
        }
    });
    fs::write(&path, &small).unwrap();
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0);
}

#[test]
fn what_is_not_a_file_is_named_and_skipped() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let elsewhere = watched.daemon.directory().join("elsewhere");
    write_region(&elsewhere, &json!({"device_id": 1, "processes": [process.holding(8192)]}));
    symlink(&elsewhere, watched.path("link")).unwrap();
    fs::create_dir(watched.path("directory")).unwrap();
    mkfifoat(CWD, watched.path("x"), Mode::RUSR | Mode::WUSR).unwrap();
    let _socket = UnixListener::bind(watched.path("socket")).unwrap();
    watched.write("1", &json!({"processes": [process.holding(4096)]}));
    let metrics = watched.look();
    assert_eq!(held(&metrics, &process, 0, "dram"), 4096.0, "the others are read");
    assert_eq!(metrics.usage(1, "dram"), None, "no link is followed");
    watched.look();
    for name in ["link", "directory", "x", "socket"] {
        assert_eq!(watched.complaints(&watched.path(name)).len(), 1, "{name}");
    }
    assert_eq!(metrics.rejected("region"), 4.0);
}

#[test]
fn a_file_that_comes_back_as_it_was_is_read_again() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let path = watched.write("1", &json!({"processes": [process.holding(4096)]}));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0);
    let aside = watched.daemon.shm().join("aside");
    fs::create_dir(&aside).unwrap();
    let exchange = || renameat_with(CWD, &path, CWD, &aside, RenameFlags::EXCHANGE).unwrap();
    exchange();
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 0.0, "it cannot be read");
    exchange();
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0, "it can be read again");
}

#[test]
fn a_device_out_of_range_is_named_and_skipped() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let largest = watched.write("1", &json!({"device_id": 1022, "processes": [process.holding(1)]}));
    let beyond = watched.write("2", &json!({"device_id": 1024, "processes": [process.holding(4096)]}));
    let absurd = watched.write("3", &json!({"device_id": u32::MAX, "processes": [process.holding(4096)]}));
    let metrics = watched.look();
    assert_eq!(held(&metrics, &process, 1022, "dram"), 1.0);
    assert_eq!(metrics.sum("ttmem_process_memory_usage_bytes", &[("process", "sleep")]), 1.0 + 3.0);
    assert_eq!(watched.complaints(&largest), [""; 0]);
    for (path, device) in [(beyond, "1024"), (absurd, "4294967295")] {
        let complaints = watched.complaints(&path);
        assert!(complaints.len() == 1 && complaints[0].contains(device), "{complaints:?}");
    }
    assert_eq!(metrics.rejected("region"), 2.0);
}

#[test]
fn figures_beyond_all_sense_are_refused() {
    let watched = Watched::start(&[]);
    let (liar, witness) = (Sleeper::start(), Sleeper::start());
    let lies = json!({"pid": liar.pid(), "dram": u64::MAX, "l1": 1_u64 << 63, "trace": 4096});
    // A second slot of the same process: their sum would leave 64 bits.
    let more = json!({"pid": liar.pid(), "dram": u64::MAX, "l1": 1_u64 << 63});
    let region = json!({"totals": {}, "chips": [], "processes": [lies, more, witness.holding(4096)]});
    watched.write("1", &region);
    let metrics = watched.look();
    assert_eq!((held(&metrics, &liar, 0, "dram"), held(&metrics, &liar, 0, "l1")), (0.0, 0.0));
    assert_eq!(held(&metrics, &liar, 0, "trace"), 4096.0);
    assert_eq!(metrics.usage(0, "dram"), Some(4096.0));
    assert_eq!(metrics.rejected("size_too_large"), 2.0);
    metrics.assert_adds_up();
}

#[test]
fn a_slot_older_than_its_process_is_another_processs() {
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    let now_ns = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let slot =
        |last_update_ns: u64| json!({"pid": process.pid(), "dram": 4096, "last_update_ns": last_update_ns});
    watched.write("1", &json!({"processes": [slot(now_ns - 60_000_000_000)]}));
    let metrics = watched.look();
    let pid = process.pid().to_string();
    assert_eq!(metrics.values("ttmem_process_memory_usage_bytes", &[("pid", &pid)]), NOTHING);
    assert_eq!(metrics.usage(0, "dram"), Some(0.0));
    watched.write("1", &json!({"processes": [slot(now_ns)]}));
    assert_eq!(held(&watched.look(), &process, 0, "dram"), 4096.0, "the process has written it itself");
}

#[test]
fn only_processes_that_live_hold_anything() {
    let watched = Watched::start(&[]);
    let (mut dead, mut zombie, living) = (Sleeper::start(), Sleeper::start(), Sleeper::start());
    dead.end();
    zombie.kill();
    let stat = format!("/proc/{}/stat", zombie.pid());
    wait_for("a process to end", || fs::read_to_string(&stat).unwrap().contains(") Z ").then_some(()));
    let mut slots = vec![dead.holding(1), zombie.holding(2)];
    slots.extend([-1, 0, -2, i32::MIN, i32::MAX].map(|pid| json!({"pid": pid, "dram": 4096})));
    slots.push(living.holding(8192));
    watched.write("1", &json!({"processes": slots}));
    let metrics = watched.look();
    assert_eq!(metrics.usage(0, "dram"), Some(8192.0));
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(1.0));

    let released = json!({"pid": -1, "dram": 8192, "name": "sleep"});
    watched.write("1", &json!({"processes": [released]}));
    let metrics = watched.look();
    assert_eq!(metrics.usage(0, "dram"), Some(0.0), "its slot is being given back");
    metrics.assert_adds_up();
}

#[test]
fn a_killed_process_holds_nothing_although_its_slot_stays() {
    let watched = Watched::start(&[]);
    let (mut victim, other) = (Sleeper::start(), Sleeper::start());
    let path = watched.write("1", &json!({"processes": [victim.holding(4096), other.holding(512)]}));
    assert_eq!(watched.look().usage(0, "dram"), Some(4608.0));
    victim.end();
    let is_gone = |metrics: &Metrics| metrics.usage(0, "dram") == Some(512.0);
    let metrics = watched.daemon.wait_for_metrics("the memory to be reclaimed", is_gone);
    assert_eq!(held(&metrics, &victim, 0, "dram"), 0.0);
    metrics.assert_adds_up();
    assert_eq!(slot_of(&dump_region(&path), victim.pid()).unwrap()["dram"], 4096);
    // Another process's change makes the daemon read the dead slot again.
    watched.write("1", &json!({"processes": [victim.holding(4096), other.holding(600)]}));
    assert_eq!(watched.look().usage(0, "dram"), Some(600.0));
}

#[test]
fn every_slot_counts() {
    let watched = Watched::start(&[]);
    let processes: Vec<Sleeper> = (0..64).map(|_| Sleeper::start()).collect();
    let sizes = (1_u64..).map(|number| number << 20);
    let slots: Vec<Value> =
        processes.iter().zip(sizes).map(|(process, size)| process.holding(size)).collect();
    watched.write("1", &json!({"processes": slots}));
    let metrics = watched.look();
    for (process, number) in processes.iter().zip(1_u64..) {
        assert_eq!(held(&metrics, process, 0, "dram"), (number << 20) as f64);
    }
    assert_eq!(metrics.usage(0, "dram"), Some(((65_u64 * 32) << 20) as f64));
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(64.0));
    metrics.assert_adds_up();
}

#[test]
fn memory_that_both_sources_show_counts_once() {
    let watched = Watched::start(&[]);
    let mut client = Peer::field_client(&watched.daemon, "metal");
    let (pid, region_only) = (client.pid(), Sleeper::start());
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    client.ask(r#"{"op":"query","device":0}"#);
    let slot = json!({"pid": pid, "dram": 5000, "l1": 700, "cb": 30});
    let path = watched.write("1", &json!({"processes": [slot, region_only.holding(10_000)]}));
    let metrics = watched.look();
    let usage = |metrics: &Metrics, memory_type| metrics.process_usage(pid, 0, memory_type);
    assert_eq!(usage(&metrics, "dram"), Some(4096.0), "a report of the buffer wins");
    assert_eq!(drift(&metrics, "dram"), Some(904.0), "only over processes that both know");
    assert_eq!((usage(&metrics, "l1"), usage(&metrics, "cb")), (Some(700.0), Some(30.0)));
    assert_eq!((drift(&metrics, "l1"), drift(&metrics, "cb")), (None, None));
    assert_eq!(metrics.usage(0, "dram"), Some(14_096.0));
    metrics.assert_adds_up();
    let pid_label = pid.to_string();
    assert_eq!(metrics.values("ttmem_process_info", &[("pid", &pid_label)]), [1.0]);
    assert_eq!(metrics.values("ttmem_process_info", &[("pid", &pid_label), ("source", "socket")]), [1.0]);

    client.ask(r#"{"op":"allocate","device":0,"type":"l1","size":1000,"id":2}"#);
    client.ask(r#"{"op":"free","id":1}"#);
    let totals = client.ask(r#"{"op":"query","device":0}"#);
    assert_eq!((totals["dram"].as_u64(), totals["l1"].as_u64()), (Some(10_000), Some(1000)));
    let metrics = watched.daemon.metrics();
    assert_eq!((usage(&metrics, "l1"), drift(&metrics, "l1")), (Some(1000.0), Some(-300.0)));
    assert_eq!((usage(&metrics, "dram"), drift(&metrics, "dram")), (Some(0.0), Some(5000.0)));
    metrics.assert_adds_up();

    fs::remove_file(path).unwrap();
    let metrics = watched.look();
    assert_eq!((drift(&metrics, "dram"), drift(&metrics, "l1")), (None, None));
    assert_eq!((usage(&metrics, "l1"), usage(&metrics, "cb")), (Some(1000.0), Some(0.0)));
    assert_eq!(metrics.usage(0, "dram"), Some(0.0));
    metrics.assert_adds_up();
}

#[test]
fn drift_is_the_same_whichever_source_speaks_first() {
    let check = |region_first: bool| {
        let watched = Watched::start(&[]);
        let mut client = Peer::field_client(&watched.daemon, "metal");
        let pid = client.pid();
        let show = || {
            // The region knows the process, and says that it holds no L1.
            watched.write("1", &json!({"processes": [{"pid": pid, "dram": 4096, "l1": 0}]}));
            watched.look();
        };
        if region_first {
            show();
        }
        client.ask(r#"{"op":"allocate","device":0,"type":"l1","size":1000,"id":1}"#);
        client.ask(r#"{"op":"query","device":0}"#);
        if !region_first {
            show();
        }
        assert_eq!(drift(&watched.look(), "l1"), Some(-1000.0), "region first: {region_first}");
    };
    check(false);
    check(true);
}

fn drift(metrics: &Metrics, memory_type: &str) -> Option<f64> {
    let labels = [("device", "0"), ("memory_type", memory_type), ("source", "shm")];
    metrics.value("ttmem_device_source_drift_bytes", &labels)
}

#[test]
fn a_device_is_named_by_the_chip_in_use() {
    let watched = Watched::start(&[]);
    let (mut gone, living) = (Sleeper::start(), Sleeper::start());
    gone.end();
    // Regions are never deleted. Processes that see different chips of a host all begin to count at 0.
    watched.write("1", &json!({"chip_unique_id": 0xa1, "processes": [gone.holding(4096)]}));
    watched.write("2", &json!({"chip_unique_id": 0xb2, "processes": [living.holding(8192)]}));
    let metrics = watched.look();
    assert_eq!(metrics.usage(0, "dram"), Some(8192.0));
    assert_eq!(metrics.values("ttmem_device_info", &[("device", "0"), ("asic_id", "b2")]), [1.0]);
}

#[test]
fn a_region_shows_only_its_owners_processes() {
    let watched = Watched::start(&[]);
    let lie = |pid: u32| json!({"processes": [{"pid": pid, "dram": 1_u64 << 30}]});
    if !geteuid().is_root() {
        // The first process of all is root's.
        watched.write("1", &lie(1));
        assert_eq!(watched.look().usage(0, "dram"), Some(0.0));
        return;
    }
    let (known, unknown) = (Sleeper::start(), Sleeper::start());
    watched.write("1", &json!({"processes": [known.holding(4096)]}));
    assert_eq!(watched.look().usage(0, "dram"), Some(4096.0));
    // Whoever can make files could say anything about other people's processes.
    for (name, process) in [("2", &known), ("3", &unknown)] {
        let path = watched.daemon.shm().join("staged");
        write_region(&path, &lie(process.pid()));
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::rename(&path, watched.path(name)).unwrap();
    }
    let metrics = watched.look();
    assert_eq!((held(&metrics, &known, 0, "dram"), held(&metrics, &unknown, 0, "dram")), (4096.0, 0.0));
    assert_eq!(metrics.usage(0, "dram"), Some(4096.0));
    metrics.assert_adds_up();
}

#[test]
fn a_flood_of_files_that_are_no_regions_hides_nothing_and_does_not_flood_the_log() {
    // More than there can be devices.
    const FILES: usize = 1100;
    const LINES_MAX: usize = 20;
    let watched = Watched::start(&[]);
    let process = Sleeper::start();
    for number in 0..FILES {
        // Before all regions in their order.
        fs::write(watched.path(&format!("!{number}")), [0xff; 16]).unwrap();
    }
    watched.write("1", &json!({"processes": [process.holding(4096)]}));
    let metrics = watched.look();
    assert_eq!(held(&metrics, &process, 0, "dram"), 4096.0, "the others are read");
    assert_eq!(metrics.rejected("region"), FILES as f64, "each is counted");
    let lines = watched.daemon.log().iter().filter(|line| line["level"] == "WARN").count();
    assert!((1..=LINES_MAX).contains(&lines), "{lines} lines");
}

#[test]
fn a_region_is_never_written_to() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let process = Sleeper::start();
    let path = directory.join("shm").join("tt_device_1_memory");
    write_region(&path, &json!({"version": 4, "processes": [process.holding(4096)]}));
    let state = || {
        let metadata = fs::metadata(&path).unwrap();
        let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
        (fs::read(&path).unwrap(), times, metadata.ino(), metadata.mode(), metadata.nlink())
    };
    let before = state();
    let mut daemon = Daemon::start_in(directory, &["--shm-interval-ms", "10"]);
    let is_read =
        |metrics: &Metrics| metrics.process_usage(process.pid(), 0, "dram").is_some_and(|held| held > 0.0);
    daemon.wait_for_metrics("the region to be read", is_read);
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    assert!(!maps.contains("tt_device_"), "a mapping would end the daemon when the file is cut short");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(before == state(), "the region has changed");
    let names: Vec<_> = fs::read_dir(daemon.shm()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["tt_device_1_memory"]);
}

#[test]
fn none_reads_no_regions() {
    let threads = |daemon: &Daemon| -> Vec<String> {
        wait_for("every thread to have its name", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
            let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
            let names: Vec<String> = names.collect();
            // A new thread is called like the main one until it begins to run.
            (names.iter().filter(|name| *name == "ttmem\n").count() == 1).then_some(names)
        })
    };
    let reads = |daemon: &Daemon| threads(daemon).iter().any(|name| name == "ttmem-regions\n");
    let process = Sleeper::start();
    let directory = Directory::new();
    // A directory of that name is not meant.
    fs::create_dir(directory.join("none")).unwrap();
    let region = json!({"processes": [process.holding(4096)]});
    write_region(&directory.join("none").join("tt_device_1_memory"), &region);
    let daemon = Daemon::launch(ttmem(), directory, Path::new("none"), &["--shm-interval-ms", "10"]);
    assert!(!reads(&daemon), "{:?}", threads(&daemon));
    assert!(reads(&Daemon::start(&[])), "the thread has another name");
    assert_eq!(daemon.metrics().usage(0, "dram"), None);
}

#[test]
fn a_missing_directory_is_named_once_and_waited_for() {
    let directory = Directory::new();
    let shm = directory.join("later");
    let daemon = Daemon::launch(ttmem(), directory, &shm, &["--shm-interval-ms", "10"]);
    let about_it = || -> Vec<Value> {
        let lines = daemon.log().into_iter();
        lines.filter(|line| line["directory"].as_str() == shm.to_str()).collect()
    };
    let line = wait_for("a line about the directory", || about_it().into_iter().next());
    let text = line.to_string();
    assert!(line["level"] == "WARN" && text.contains("shm_dir") && text.contains("none"), "{line}");

    let process = Sleeper::start();
    fs::create_dir(&shm).unwrap();
    write_region(&shm.join("tt_device_1_memory"), &json!({"processes": [process.holding(4096)]}));
    let holds = |bytes: f64| move |metrics: &Metrics| metrics.usage(0, "dram") == Some(bytes);
    daemon.wait_for_metrics("the region to be read", holds(4096.0));
    assert_eq!(about_it().len(), 1);
    fs::remove_dir_all(&shm).unwrap();
    daemon.wait_for_metrics("the region to be gone", holds(0.0));
    wait_for("another line about the directory", || (about_it().len() == 2).then_some(()));
}
