//! The byte vectors of the stats pages: written by the server's half, read by the other.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use ttmem_wire::stats::{
    DeviceDescription, DevicePage, DeviceRow, Figure, HolderDescription, HolderRow, MEMORY_TYPE_NAMES,
    MEMORY_TYPES, MemoryFigures, PageKind, PageWriter, ProcessPage, Text, describe, publish, sequence,
};
use ttmem_wire::{Arch, Totals};

/// Lines by their names; what is not there is zero.
#[derive(Default)]
struct Fields(HashMap<&'static str, &'static str>);

impl Fields {
    fn text(&self, name: &str) -> &'static str {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> T {
        let text = self.0.get(name).unwrap_or(&"0");
        let number: u64 = text.parse().unwrap_or_else(|error| panic!("{name} {text:?}: {error}"));
        T::try_from(number).unwrap_or_else(|_| panic!("{name} {text:?} does not fit"))
    }

    fn by_memory_type(&self, what: &str) -> [u64; MEMORY_TYPES] {
        MEMORY_TYPE_NAMES.map(|name| self.number(&format!("{name}_{what}_bytes")))
    }

    fn figures(&self) -> [u64; Figure::ALL.len()] {
        Figure::ALL.map(|figure| self.number(figure.name()))
    }

    fn device(&self) -> DeviceDescription {
        DeviceDescription {
            arch: Arch::from_number(self.number("arch")).expect("an architecture"),
            board: Text::new(self.text("board")),
            limit_bytes: self.by_memory_type("limit"),
            untracked: self.number::<u64>("untracked_plus_one").checked_sub(1),
        }
    }

    fn holder(&self) -> HolderDescription {
        HolderDescription {
            pid: self.number("pid"),
            start_ticks: self.number("start_ticks"),
            start_unix_ns: self.number("start_unix_ns"),
            uid: self.number("uid"),
            device: self.number("device"),
            memory_type: self.number("memory_type"),
            name: Text::new(self.text("name")),
            user: Text::new(self.text("user")),
        }
    }
}

/// One vector of the file.
#[derive(Default)]
struct Vector {
    header: Fields,
    rows: Vec<(usize, Fields)>,
    words: Vec<u64>,
}

impl Vector {
    fn parse(block: &'static str) -> Vector {
        let mut vector = Vector::default();
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        for (name, value) in lines.filter_map(|line| line.split_once(' ')) {
            match name {
                "row" => vector.rows.push((value.parse().expect("an index"), Fields::default())),
                "hex" => {
                    let words = value.as_bytes().as_chunks::<16>().0;
                    let word = |digits: &[u8; 16]| {
                        let digits = str::from_utf8(digits).expect("digits");
                        u64::from_str_radix(digits, 16).expect("hexadecimal digits").swap_bytes()
                    };
                    vector.words = words.iter().map(word).collect();
                }
                _ => {
                    let fields = vector.rows.last_mut().map_or(&mut vector.header, |(_, fields)| fields);
                    fields.0.insert(name, value);
                }
            }
        }
        vector
    }

    fn kind(&self) -> PageKind {
        match self.header.number::<u32>("kind") {
            1 => PageKind::Devices,
            2 => PageKind::Processes,
            kind => panic!("kind {kind}"),
        }
    }

    /// The page as the server would have written it.
    fn written(&self) -> Vec<AtomicU64> {
        let (kind, rows_max) = (self.kind(), self.header.number("rows_max"));
        let words: Vec<_> = (0..kind.page_bytes(rows_max) / 8).map(|_| AtomicU64::new(0)).collect();
        let writer = PageWriter::initialise(&words, kind, rows_max);
        for (index, fields) in &self.rows {
            match kind {
                PageKind::Devices => write_device(writer.row(*index), fields),
                PageKind::Processes => {
                    let row: &HolderRow = writer.row(*index);
                    describe(row, &fields.holder());
                    publish(row, fields.figures());
                }
            }
            writer.set_rows_used(index + 1);
        }
        writer.set_rows_missing(self.header.number("rows_missing"));
        words
    }
}

fn write_device(row: &DeviceRow, fields: &Fields) {
    fields.device().write(row);
    let (usage, peak) = (fields.by_memory_type("usage"), fields.by_memory_type("peak"));
    sequence::write_among_others(&row[0], || {
        for memory_type in 0..MEMORY_TYPES {
            let figures = MemoryFigures::of(row, memory_type);
            figures.usage_bytes.store(usage[memory_type], Relaxed);
            figures.peak_bytes.store(peak[memory_type], Relaxed);
        }
    });
}

fn vectors() -> Vec<Vector> {
    let blocks = include_str!("../vectors/pages.txt").split("\n\n").map(Vector::parse);
    let vectors: Vec<_> = blocks.filter(|vector| !vector.words.is_empty()).collect();
    assert!(vectors.len() >= 3);
    vectors
}

#[test]
fn the_pages_are_written_as_the_vectors_are() {
    for vector in vectors() {
        let words: Vec<u64> = vector.written().iter().map(|word| word.load(Relaxed)).collect();
        assert_eq!(words, vector.words, "{}", vector.header.text("page"));
    }
}

#[test]
fn the_vectors_are_read_as_their_fields_are() {
    for vector in vectors() {
        let words: Vec<_> = vector.words.iter().copied().map(AtomicU64::new).collect();
        match vector.kind() {
            PageKind::Devices => check_devices(&vector, DevicePage::open(&words).expect("a page")),
            PageKind::Processes => check_holders(&vector, ProcessPage::open(&words).expect("a page")),
        }
    }
}

fn check_devices(vector: &Vector, page: DevicePage<'_>) {
    assert_eq!(u64::from(page.devices_end()), vector.header.number::<u64>("rows_used"));
    for index in 0..vector.header.number("rows_max") {
        let fields = vector.rows.iter().find(|(row, _)| *row == usize::from(index)).map(|(_, fields)| fields);
        let device = page.device(index).expect("nobody writes");
        let totals = page.totals(index).expect("nobody writes");
        assert_eq!((device.is_some(), totals.is_some()), (fields.is_some(), fields.is_some()));
        let (Some(fields), Some(device)) = (fields, device) else { continue };
        assert_eq!(device.description, fields.device());
        assert_eq!(device.peak_bytes, fields.by_memory_type("peak"));
        let usage = fields.by_memory_type("usage");
        assert_eq!(device.usage_bytes, usage);
        let [dram_bytes, l1_bytes, l1_small_bytes, trace_bytes, cb_bytes, kernel_bytes, _] = usage;
        let expected = Totals { dram_bytes, l1_bytes, l1_small_bytes, trace_bytes, cb_bytes, kernel_bytes };
        assert_eq!(totals, Some(expected));
    }
}

fn check_holders(vector: &Vector, page: ProcessPage<'_>) {
    assert_eq!(page.missing(), vector.header.number::<u64>("rows_missing"));
    let holders: Vec<_> = page.holders().map(|holder| holder.expect("nobody writes")).collect();
    assert_eq!(holders.len(), vector.rows.len());
    for (holder, (_, fields)) in holders.iter().zip(&vector.rows) {
        assert_eq!(holder.description, fields.holder());
        assert_eq!(holder.has_ended, fields.number::<u8>("state") == 2);
        assert_eq!(Figure::ALL.map(|figure| holder.figure(figure)), fields.figures());
    }
}
