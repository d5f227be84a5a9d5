//! What each device is: the sources that say something about it, kept apart, and what follows from all of them together.
//!
//! The idea is that a source only ever replaces what it said itself; what the registry shows is one pure function of all sources, so
//! none can overwrite or outlive another.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::driver::Card;
use ttmem_wire::BANKS_MAX;

use crate::config::{Arch as ConfigArch, DeviceConfig, Product};
use crate::registry::{
    Arch, BUFFER_BYTES_MAX, Banks, DeviceInfo, MemoryType, Registry, Rejection, Renumbered, Untracked,
};

/// How far a client's statement may be from what the product has: chips of one product differ by their harvested cores and by what is set
/// aside at their opening, which has never been more than half.
const STATEMENT_FACTOR_MAX: u64 = 2;

/// Every device that a source has said something about.
pub struct Devices {
    registry: Arc<Registry>,
    sources: Mutex<BTreeMap<u16, Sources>>,
}

/// What has been said about one device, by whom.
#[derive(Default)]
struct Sources {
    /// The operator. Goes before all others.
    configured: Option<DeviceConfig>,
    /// tt-metal's region: the chip's unique id.
    chip: Option<u64>,
    /// The kernel driver.
    card: Option<Card>,
    untracked: Option<Untracked>,
    /// The driver's number of the card.
    ordinal: Option<u16>,
    renumbered: Option<Vec<Renumbered>>,
    /// The last client whose allocator told, of DRAM and of L1. It stays when its process ends, as a chip's memory does.
    stated_dram: Option<Statement>,
    stated_l1: Option<Statement>,
}

/// What a client's allocator has of one kind of memory on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Statement {
    bytes: u64,
    /// Where the client tells.
    banks: Option<Banks>,
}

impl Statement {
    /// A client's words, if they can be true of any device. No banks means that it does not tell.
    pub(super) fn new(bytes: u64, banks: u64) -> Result<Statement, Rejection> {
        let banks = match banks {
            _ if bytes == 0 => return Err(Rejection::ZeroSize),
            _ if bytes > BUFFER_BYTES_MAX => return Err(Rejection::SizeTooLarge),
            0 => None,
            1..=BANKS_MAX if bytes.is_multiple_of(banks) => {
                Some(Banks { count: banks as u32, bank_bytes: bytes / banks })
            }
            _ => return Err(Rejection::Capacity),
        };
        Ok(Statement { bytes, banks })
    }

    /// Whether a product that has so much can have been meant.
    fn is_plausible(&self, product_bytes: Option<u64>) -> bool {
        product_bytes.is_none_or(|product_bytes| {
            self.bytes <= product_bytes.saturating_mul(STATEMENT_FACTOR_MAX)
                && self.bytes.saturating_mul(STATEMENT_FACTOR_MAX) >= product_bytes
        })
    }
}

/// What the driver says about a card, in one look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Inventoried {
    pub(super) card: Card,
    /// Processes that hold it open and report nothing; `None` where the driver does not tell.
    pub(super) untracked: Option<Untracked>,
}

impl Devices {
    /// Those of a registry; none yet.
    pub fn new(registry: Arc<Registry>) -> Arc<Devices> {
        Arc::new(Devices { registry, sources: Mutex::default() })
    }

    /// What the configuration says now, in place of what it said before. Every device in it is known from now on.
    pub fn configure(&self, devices: &[DeviceConfig]) {
        let mut sources = self.sources.lock();
        for (index, sources) in sources.iter_mut() {
            let is_gone = !devices.iter().any(|device| device.index == *index);
            if is_gone && sources.configured.take().is_some() {
                self.show(*index, sources);
            }
        }
        for device in devices {
            let sources = sources.entry(device.index).or_default();
            sources.configured = Some(device.clone());
            self.show(device.index, sources);
        }
    }

    /// A region names the chip behind a device. Regions outlive their processes, and processes that see different chips may all call
    /// theirs 0, so a chip in use takes the place of one that is not.
    pub(super) fn name_chip(&self, index: u16, chip_unique_id: u64, is_in_use: bool) {
        let mut sources = self.sources.lock();
        let sources = sources.entry(index).or_default();
        if sources.chip.is_none() || is_in_use && sources.chip != Some(chip_unique_id) {
            sources.chip = Some(chip_unique_id);
            self.show(index, sources);
        }
    }

    /// A client's allocator says what it has. Refused where it cannot be true of the device.
    pub(super) fn state_capacity(
        &self,
        index: u16,
        memory_type: MemoryType,
        statement: Statement,
    ) -> Result<(), Rejection> {
        let mut sources = self.sources.lock();
        let sources = sources.entry(index).or_default();
        let product = sources.product();
        let (stated, product_bytes) = match memory_type {
            MemoryType::Dram => (&mut sources.stated_dram, product.map(Product::dram_bytes)),
            MemoryType::L1 => (&mut sources.stated_l1, product.map(Product::l1_bytes)),
            // Set aside by a program for itself.
            _ => return Ok(()),
        };
        if !statement.is_plausible(product_bytes) {
            return Err(Rejection::Capacity);
        }
        if stated.replace(statement) != Some(statement) {
            self.show(index, sources);
        }
        Ok(())
    }

    /// The cards that the driver shows now, by its own numbers. Gives the device that each of them is; those that are none have another
    /// chip's number.
    pub(super) fn take_inventory(&self, cards: &BTreeMap<u16, Inventoried>) -> BTreeMap<u16, Option<u16>> {
        let mut sources = self.sources.lock();
        let mut placed = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (ordinal, inventoried) in cards {
            let place = place(&sources, *ordinal, &inventoried.card);
            places.insert(*ordinal, place);
            placed.extend(place.map(|index| (index, (*ordinal, inventoried))));
        }
        for index in placed.keys() {
            sources.entry(*index).or_default();
        }
        for (index, sources) in sources.iter_mut() {
            let now = placed.get(index);
            let ordinal = now.map(|(ordinal, _)| *ordinal);
            let (card, untracked) =
                (now.map(|(_, now)| now.card.clone()), now.and_then(|(_, now)| now.untracked.clone()));
            if (&sources.card, &sources.untracked, sources.ordinal) != (&card, &untracked, ordinal) {
                (sources.card, sources.untracked, sources.ordinal) = (card, untracked, ordinal);
                self.show(*index, sources);
            }
        }
        places
    }

    /// The processes to which a device's number is another card, by that number. Told of the devices whose holders the driver shows.
    pub(super) fn take_renumbered(&self, mut renumbered: BTreeMap<u16, Vec<Renumbered>>) {
        let mut sources = self.sources.lock();
        for (index, sources) in sources.iter_mut() {
            let now = renumbered.remove(index);
            let now = now.or_else(|| sources.untracked.is_some().then(Vec::new));
            if sources.renumbered != now {
                sources.renumbered = now;
                self.show(*index, sources);
            }
        }
    }

    fn show(&self, index: u16, sources: &Sources) {
        self.registry.device(index).update_info(|info| *info = sources.describe());
    }
}

/// The device that a card is. The chip's id tells where anything names it; elsewhere processes are taken to see all cards, and to number
/// them as the driver does.
fn place(sources: &BTreeMap<u16, Sources>, ordinal: u16, card: &Card) -> Option<u16> {
    let named = sources.iter().find(|(_, sources)| card.asic_id.is_some() && sources.named() == card.asic_id);
    if let Some((index, _)) = named {
        return Some(*index);
    }
    let is_another = sources.get(&ordinal).is_some_and(|sources| sources.named().is_some());
    (!is_another || card.asic_id.is_none()).then_some(ordinal)
}

impl Sources {
    /// The chip's id in the driver's spelling, as far as somebody but the driver tells.
    fn named(&self) -> Option<String> {
        let configured = self.configured.as_ref().and_then(|device| device.asic_id.as_deref());
        configured.map(plain_hexadecimal).or_else(|| self.chip.map(|chip| format!("{chip:x}")))
    }

    fn product(&self) -> Option<&'static Product> {
        let configured = self.configured.as_ref().and_then(|device| device.product);
        configured.or_else(|| self.card.as_ref().and_then(Card::product))
    }

    fn describe(&self) -> DeviceInfo {
        let nothing = DeviceConfig::default();
        let configured = self.configured.as_ref().unwrap_or(&nothing);
        let card = self.card.clone().unwrap_or_default();
        let product = self.product();
        let told = DeviceConfig { product, ..configured.clone() };
        let dram = capacity(
            told.dram_bytes,
            self.stated_dram,
            product.map(|product| (product.dram_banks, product.dram_bank_bytes)),
        );
        let l1 = capacity(
            told.l1_bytes,
            self.stated_l1,
            product.map(|product| (product.l1_banks, product.l1_bank_bytes)),
        );
        DeviceInfo {
            arch: told.architecture().map(arch),
            board: configured.board_name().map(Into::into).or(card.card_type),
            asic_id: configured
                .asic_id
                .clone()
                .or_else(|| self.chip.map(|chip| format!("{chip:x}")))
                .or(card.asic_id),
            pci_bus_id: configured.pci_bus_id.clone().or(card.pci_bus_id),
            capacity_source: dram.source.max(l1.source).map(CapacitySource::name),
            dram_bytes: dram.bytes,
            l1_bytes: l1.bytes,
            dram_banks: dram.banks,
            l1_banks: l1.banks,
            serial: card.serial,
            firmware: card.firmware,
            untracked: self.untracked.clone(),
            card: self.ordinal,
            is_vouched_for: self.configured.is_some() || self.card.is_some(),
            renumbered: self.renumbered.clone(),
        }
    }
}

/// Who says how much a device has; the later goes before the earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum CapacitySource {
    ProductTable,
    Client,
    Configuration,
}

impl CapacitySource {
    const fn name(self) -> &'static str {
        match self {
            CapacitySource::ProductTable => "product_table",
            CapacitySource::Client => "client",
            CapacitySource::Configuration => "configuration",
        }
    }
}

/// How much a device has of one kind of memory.
#[derive(Default)]
struct Capacity {
    bytes: Option<u64>,
    banks: Option<Banks>,
    source: Option<CapacitySource>,
}

/// What follows from what the operator has written, a client has stated, and the product has: banks, and bytes of each.
fn capacity(written: Option<u64>, stated: Option<Statement>, product: Option<(u32, u64)>) -> Capacity {
    let product_banks = product.map(|(count, bank_bytes)| Banks { count, bank_bytes });
    let product_bytes = product_banks.map(|banks| u64::from(banks.count) * banks.bank_bytes);
    // What the product is may have been learnt after the statement.
    let stated = stated.filter(|stated| stated.is_plausible(product_bytes));
    if written.is_some() {
        Capacity { bytes: written, banks: None, source: Some(CapacitySource::Configuration) }
    } else if let Some(Statement { bytes, banks }) = stated {
        Capacity { bytes: Some(bytes), banks, source: Some(CapacitySource::Client) }
    } else {
        let source = product.map(|_| CapacitySource::ProductTable);
        Capacity { bytes: product_bytes, banks: product_banks, source }
    }
}

/// A hexadecimal number without what people and programs put before it.
pub(super) fn plain_hexadecimal(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    text.strip_prefix("0x").unwrap_or(&text).trim_start_matches('0').to_owned()
}

fn arch(arch: ConfigArch) -> Arch {
    match arch {
        ConfigArch::Grayskull => Arch::Grayskull,
        ConfigArch::WormholeB0 => Arch::WormholeB0,
        ConfigArch::Blackhole => Arch::Blackhole,
        ConfigArch::Quasar => Arch::Quasar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(asic_id: &str) -> Card {
        Card { card_type: Some("n150".into()), asic_id: Some(asic_id.into()), ..Card::default() }
    }

    fn inventory(cards: &[(u16, &str)]) -> BTreeMap<u16, Inventoried> {
        let inventoried = |asic_id| Inventoried { card: card(asic_id), untracked: None };
        cards.iter().map(|(ordinal, asic_id)| (*ordinal, inventoried(asic_id))).collect()
    }

    fn asic_ids(registry: &Registry) -> Vec<(u16, Option<String>)> {
        registry.devices().map(|device| (device.index(), device.info().asic_id.clone())).collect()
    }

    #[test]
    fn cards_are_devices_of_their_own_number_until_somebody_names_a_chip() {
        let registry = Arc::new(Registry::new(0));
        let devices = Devices::new(Arc::clone(&registry));
        let places = devices.take_inventory(&inventory(&[(0, "a"), (1, "b")]));
        assert_eq!(places, [(0, Some(0)), (1, Some(1))].into());
        assert_eq!(asic_ids(&registry), [(0, Some("a".into())), (1, Some("b".into()))]);
        // A process that sees one card only calls it 0.
        devices.name_chip(0, 0xb, true);
        let places = devices.take_inventory(&inventory(&[(0, "a"), (1, "b")]));
        assert_eq!(places, [(0, None), (1, Some(0))].into(), "0 is another chip now");
        assert_eq!(asic_ids(&registry), [(0, Some("b".into())), (1, None)]);
    }

    #[test]
    fn what_is_configured_goes_before_what_is_found() {
        let registry = Arc::new(Registry::new(0));
        let devices = Devices::new(Arc::clone(&registry));
        let configured = DeviceConfig {
            index: 5,
            asic_id: Some("0x00B".into()),
            l1_bytes: Some(7),
            ..DeviceConfig::default()
        };
        devices.configure(std::slice::from_ref(&configured));
        devices.take_inventory(&inventory(&[(0, "b")]));
        let info = Arc::clone(&registry.device(5).info());
        assert_eq!((info.asic_id.as_deref(), info.board.as_deref()), (Some("0x00B"), Some("n150")));
        assert_eq!((info.l1_bytes, info.capacity_source), (Some(7), Some("configuration")));
        assert_eq!(info.dram_bytes, Some(12_871_236_864), "the card's product gives what is not written");
        assert_eq!((info.l1_banks, info.dram_banks.is_some()), (None, true));
        devices.configure(&[]);
        devices.take_inventory(&inventory(&[(0, "b")]));
        assert_eq!(*registry.device(5).info().as_ref(), DeviceInfo::default());
        assert_eq!(registry.device(0).info().asic_id.as_deref(), Some("b"));
    }

    #[test]
    fn a_client_goes_before_the_product_and_the_operator_before_a_client() {
        let registry = Arc::new(Registry::new(0));
        let devices = Devices::new(Arc::clone(&registry));
        let state = |bytes, banks| {
            Statement::new(bytes, banks)
                .and_then(|statement| devices.state_capacity(0, MemoryType::L1, statement))
        };
        let shown = || {
            let info = Arc::clone(&registry.device(0).info());
            (info.l1_bytes, info.l1_banks.map(|banks| banks.count), info.capacity_source)
        };
        // Nobody else tells: whatever could be a device's.
        assert_eq!(state(3000, 3), Ok(()));
        assert_eq!(shown(), (Some(3000), Some(3), Some("client")));
        assert_eq!(state(5000, 0), Ok(()), "the last one counts");
        assert_eq!(shown(), (Some(5000), None, Some("client")));
        for (bytes, banks, rejection) in [
            (0, 0, Rejection::ZeroSize),
            (BUFFER_BYTES_MAX + 1, 0, Rejection::SizeTooLarge),
            (3001, 3, Rejection::Capacity),
            (BANKS_MAX + 1, BANKS_MAX + 1, Rejection::Capacity),
        ] {
            assert_eq!(state(bytes, banks), Err(rejection));
        }
        // Now it is known what it is, and that it cannot have so little.
        let card = card("a");
        let product_bytes = card.product().map(Product::l1_bytes).expect("a product");
        devices.take_inventory(&BTreeMap::from([(0, Inventoried { card, untracked: None })]));
        assert_eq!(shown(), (Some(product_bytes), Some(72), Some("product_table")));
        for bytes in [product_bytes / 2 - 1, product_bytes * 2 + 1] {
            assert_eq!(state(bytes, 0), Err(Rejection::Capacity));
        }
        assert_eq!(state(product_bytes / 72 * 64, 64), Ok(()));
        assert_eq!(shown(), (Some(product_bytes / 72 * 64), Some(64), Some("client")));
        devices.configure(&[DeviceConfig { index: 0, l1_bytes: Some(7), ..DeviceConfig::default() }]);
        assert_eq!(shown(), (Some(7), None, Some("configuration")));
        devices.configure(&[]);
        assert_eq!(shown().2, Some("client"), "no source overwrites another");
    }
}
