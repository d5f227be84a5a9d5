//! What each device is: the sources that say something about it, kept apart, and what follows from all of them together.
//!
//! The idea is that a source only ever replaces what it said itself; what the registry shows is one pure function of all sources, so
//! none can overwrite or outlive another.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::driver::Card;
use crate::config::{Arch as ConfigArch, DeviceConfig, Product};
use crate::registry::{Arch, Banks, DeviceInfo, Registry, Renumbered, Untracked};

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

    fn describe(&self) -> DeviceInfo {
        let nothing = DeviceConfig::default();
        let configured = self.configured.as_ref().unwrap_or(&nothing);
        let card = self.card.clone().unwrap_or_default();
        let product = configured.product.or_else(|| card.product());
        let told = DeviceConfig { product, ..configured.clone() };
        let banks = |count, bank_bytes| Banks { count, bank_bytes };
        let is_whole_product = |is_written: bool| product.filter(|_| !is_written);
        DeviceInfo {
            arch: told.architecture().map(arch),
            board: configured.board_name().map(Into::into).or(card.card_type),
            asic_id: configured
                .asic_id
                .clone()
                .or_else(|| self.chip.map(|chip| format!("{chip:x}")))
                .or(card.asic_id),
            pci_bus_id: configured.pci_bus_id.clone().or(card.pci_bus_id),
            capacity_source: told.capacity_source(),
            dram_bytes: told.dram_capacity_bytes(),
            l1_bytes: told.l1_capacity_bytes(),
            dram_banks: is_whole_product(told.dram_bytes.is_some())
                .map(|Product { dram_banks, dram_bank_bytes, .. }| banks(*dram_banks, *dram_bank_bytes)),
            l1_banks: is_whole_product(told.l1_bytes.is_some())
                .map(|Product { l1_banks, l1_bank_bytes, .. }| banks(*l1_banks, *l1_bank_bytes)),
            serial: card.serial,
            firmware: card.firmware,
            untracked: self.untracked.clone(),
            card: self.ordinal,
            renumbered: self.renumbered.clone(),
        }
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
}
