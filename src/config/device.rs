//! What the operator says about a device: which product it is, or its exact capacities and labels.

use super::products::Product;
use super::settings::Kind;
use super::values::{self, Arch, Range};

/// Device indexes that reports may carry.
pub(super) const INDEXES: Range = Range { min: 0, max: 1023 };

/// Bytes of one memory: far beyond any chip, and 1,024 devices of it still sum up in 64 bits.
const CAPACITY: Range = Range { min: 1, max: 1 << 50 };

/// One device of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceConfig {
    /// As clients report it, 0 to 1023.
    pub index: u16,
    /// Gives everything that is not said otherwise.
    pub product: Option<&'static Product>,
    /// Said in place of the product's.
    pub dram_bytes: Option<u64>,
    /// Said in place of the product's.
    pub l1_bytes: Option<u64>,
    /// Said in place of the product's.
    pub arch: Option<Arch>,
    /// Said in place of the product's name.
    pub board: Option<String>,
    /// A label; nothing follows from it.
    pub asic_id: Option<String>,
    /// Domain, bus, device and function in lower case.
    pub pci_bus_id: Option<String>,
}

impl DeviceConfig {
    /// The architecture, if it is known.
    pub fn architecture(&self) -> Option<Arch> {
        self.arch.or_else(|| self.product.map(|product| product.arch))
    }

    /// What the board is called, if it is known.
    pub fn board_name(&self) -> Option<&str> {
        self.board.as_deref().or_else(|| self.product.map(|product| product.name))
    }
}

/// A key of a `[[device]]` table.
pub struct DeviceKey {
    /// As it is written in the file.
    pub key: &'static str,
    /// What TOML type it wants.
    pub kind: Kind,
    /// One sentence for the documentation.
    pub help: &'static str,
    /// A value for the documentation.
    pub example: &'static str,
    pub(super) apply: fn(&mut DeviceConfig, &str) -> Result<(), String>,
    pub(super) show: fn(&DeviceConfig) -> Option<String>,
}

/// The keys of a `[[device]]` table; only `index` is required.
pub const DEVICE_KEYS: &[DeviceKey] = &[
    DeviceKey {
        key: "index",
        kind: Kind::Number(INDEXES),
        help: "The device's number in reports; the one key that must be there",
        example: "0",
        apply: |device, text| INDEXES.parse(text).map(|index| device.index = index),
        show: |device| Some(device.index.to_string()),
    },
    DeviceKey {
        key: "product",
        kind: Kind::Text,
        help: "The product, which gives what the other keys do not",
        example: "n150",
        apply: |device, text| Product::parse(text).map(|product| device.product = Some(product)),
        show: |device| device.product.map(|product| product.name.to_owned()),
    },
    DeviceKey {
        key: "dram_bytes",
        kind: Kind::Number(CAPACITY),
        help: "Usable bytes of DRAM",
        example: "12871236864",
        apply: |device, text| CAPACITY.parse(text).map(|bytes| device.dram_bytes = Some(bytes)),
        show: |device| device.dram_bytes.map(|bytes| bytes.to_string()),
    },
    DeviceKey {
        key: "l1_bytes",
        kind: Kind::Number(CAPACITY),
        help: "Usable bytes of L1, all cores together",
        example: "97959168",
        apply: |device, text| CAPACITY.parse(text).map(|bytes| device.l1_bytes = Some(bytes)),
        show: |device| device.l1_bytes.map(|bytes| bytes.to_string()),
    },
    DeviceKey {
        key: "arch",
        kind: Kind::Choice(Arch::NAMES),
        help: "The chip's architecture",
        example: "wormhole_b0",
        apply: |device, text| Arch::parse(text).map(|arch| device.arch = Some(arch)),
        show: |device| device.arch.map(|arch| arch.name().to_owned()),
    },
    DeviceKey {
        key: "board",
        kind: Kind::Text,
        help: "What the board is called, if not like the product",
        example: "n150 in slot 2",
        apply: |device, text| values::label(text).map(|board| device.board = Some(board)),
        show: |device| device.board.clone(),
    },
    DeviceKey {
        key: "asic_id",
        kind: Kind::Text,
        help: "The chip's unique id; a label, nothing else",
        example: "0x2a51c9e0",
        apply: |device, text| values::label(text).map(|asic_id| device.asic_id = Some(asic_id)),
        show: |device| device.asic_id.clone(),
    },
    DeviceKey {
        key: "pci_bus_id",
        kind: Kind::Text,
        help: "The PCI address",
        example: "0000:01:00.0",
        apply: |device, text| values::pci_bus_id(text).map(|id| device.pci_bus_id = Some(id)),
        show: |device| device.pci_bus_id.clone(),
    },
];

/// Adds the devices of `INDEX=PRODUCT` or `FIRST-LAST=PRODUCT`.
pub(super) fn add_written(devices: &mut Vec<DeviceConfig>, text: &str) -> Result<(), String> {
    let (indexes, product) = text.split_once('=').ok_or_else(|| {
        format!("{text:?} lacks the \"=\"; write an index and a product, such as \"0=n150\"")
    })?;
    let product = Product::parse(product)?;
    let (first, last) = indexes.split_once('-').unwrap_or((indexes, indexes));
    let (first, last): (u16, u16) = (INDEXES.parse(first)?, INDEXES.parse(last)?);
    if first > last {
        return Err(format!("{text:?} counts down; write the lower index first"));
    }
    (first..=last).try_for_each(|index| {
        add(devices, DeviceConfig { index, product: Some(product), ..DeviceConfig::default() })
    })
}

/// Adds a device that the same source has not named before.
pub(super) fn add(devices: &mut Vec<DeviceConfig>, device: DeviceConfig) -> Result<(), String> {
    if devices.iter().any(|other| other.index == device.index) {
        return Err(format!("device {} is given twice; keep one of the two", device.index));
    }
    devices.push(device);
    Ok(())
}

/// Puts the rows of a source that comes first over those of one that comes second, by index.
pub(super) fn merge(devices: &mut Vec<DeviceConfig>, over: Vec<DeviceConfig>) {
    devices.retain(|device| over.iter().all(|other| other.index != device.index));
    devices.extend(over);
    devices.sort_by_key(|device| device.index);
}
