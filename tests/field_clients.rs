//! The clients that are in the field, quirks included, against the real daemon.

mod support;

use support::{Daemon, Peer};

#[test]
fn the_seeds_free_names_neither_process_nor_device() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Peer::field_client(&daemon, "seed");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    client.ask(r#"{"op":"allocate","device":0,"type":"l1_small","size":32,"id":2}"#);
    client.ask(r#"{"op":"allocate","device":0,"type":"trace","size":64,"id":3}"#);
    let totals = client.ask(r#"{"op":"query","device":0}"#);
    assert_eq!((totals["type"].as_u64(), totals["dram"].as_u64()), (Some(4), Some(4096)));
    assert_eq!((totals["l1_small"].as_u64(), totals["trace"].as_u64()), (Some(32), Some(64)));
    client.ask(r#"{"op":"free","id":1}"#);
    assert_eq!(client.ask(r#"{"op":"query","device":0}"#)["dram"], 0);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(client.pid(), 0, "l1_small"), Some(32.0));
}
