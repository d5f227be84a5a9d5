//! The byte vectors of every message in every layout, in both directions.

use std::collections::HashMap;

use ttmem_wire::{Arch, DeviceInfo, Header, Kind, Layout, Reply, Totals, decode_request, encode_request};

/// One vector of the file: its lines by their names.
struct Vector(HashMap<&'static str, &'static str>);

impl Vector {
    fn text(&self, name: &str) -> &'static str {
        self.0.get(name).unwrap_or_else(|| panic!("a vector without a line {name}: {:?}", self.0))
    }

    fn number(&self, name: &str) -> i128 {
        self.text(name).parse().unwrap_or_else(|error| panic!("{name} in {:?}: {error}", self.0))
    }

    /// A field of the frame; zero if the layout has no place for it.
    fn field<T: TryFrom<i128> + Default>(&self, name: &str) -> T {
        if !self.0.contains_key(name) {
            return T::default();
        }
        T::try_from(self.number(name)).unwrap_or_else(|_| panic!("{name} does not fit: {:?}", self.0))
    }

    fn layout(&self) -> Layout {
        Layout::from_frame_bytes(self.field("layout")).expect("a layout's size")
    }

    fn kind(&self) -> Kind {
        let kind = Kind::from_byte(self.field("type")).expect("a message type");
        assert_eq!(kind.name(), self.text("message"));
        kind
    }

    fn frame(&self) -> Vec<u8> {
        let hex = self.text("hex");
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hex digits"))
            .collect()
    }

    fn request(&self) -> Header {
        Header {
            kind: self.kind(),
            device_id: self.field("device_id"),
            size_bytes: self.field("size_bytes"),
            buffer_type: self.field("buffer_type"),
            process_id: self.field("process_id"),
            buffer_id: self.field("buffer_id"),
            timestamp_ns: self.field("timestamp_ns"),
        }
    }

    fn reply(&self) -> Reply {
        Reply {
            kind: self.kind(),
            device_id: self.field("device_id"),
            totals: Totals {
                dram_bytes: self.field("dram_bytes"),
                l1_bytes: self.field("l1_bytes"),
                l1_small_bytes: self.field("l1_small_bytes"),
                trace_bytes: self.field("trace_bytes"),
                cb_bytes: self.field("cb_bytes"),
                kernel_bytes: self.field("kernel_bytes"),
            },
            info: DeviceInfo {
                total_dram_bytes: self.field("total_dram_bytes"),
                total_l1_bytes: self.field("total_l1_bytes"),
                arch: Arch::from_number(self.field("arch")).expect("an architecture"),
                num_dram_channels: self.field("num_dram_channels"),
                dram_bytes_per_channel: self.field("dram_bytes_per_channel"),
                l1_bytes_per_core: self.field("l1_bytes_per_core"),
                is_available: self.field::<u8>("is_available") == 1,
                num_devices: self.field("num_devices"),
            },
        }
    }
}

fn vectors() -> Vec<Vector> {
    include_str!("../vectors/vectors.txt")
        .split("\n\n")
        .map(|block| {
            let lines = block.lines().filter(|line| !line.starts_with('#'));
            Vector(lines.filter_map(|line| line.split_once(' ')).collect())
        })
        .filter(|vector| !vector.0.is_empty())
        .collect()
}

#[test]
fn every_message_has_a_vector_in_every_layout() {
    let vectors = vectors();
    for layout in Layout::ALL {
        for kind in Kind::ALL {
            assert!(
                vectors.iter().any(|vector| vector.layout() == layout && vector.kind() == kind),
                "{} in {layout} bytes",
                kind.name()
            );
        }
    }
}

#[test]
fn the_bytes_are_the_fields_and_the_fields_are_the_bytes() {
    for vector in vectors() {
        let (name, layout, frame) = (vector.text("vector"), vector.layout(), vector.frame());
        assert_eq!(frame.len(), layout.frame_bytes(), "{name}");
        if vector.kind().is_request() {
            let request = vector.request();
            assert_eq!(decode_request(&frame, layout), Ok(request), "{name}");
            assert_eq!(encode_request(&request, layout)[..], frame, "{name}");
        } else {
            let reply = vector.reply();
            assert_eq!(Reply::decode(&frame, layout), Ok(reply), "{name}");
            assert_eq!(reply.encode(layout)[..], frame, "{name}");
        }
    }
}
