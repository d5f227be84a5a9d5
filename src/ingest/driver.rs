//! What the kernel driver says: which cards there are, what they are, and which processes hold them open.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::devices::plain_hexadecimal;
use crate::config::{PRODUCTS, Product};
use crate::registry::DEVICES_MAX;

/// Bytes read of one file: the list has a line of seven bytes for each descriptor, of which a host has thousands.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A card's class entry is named so, followed by its number: the kernel writes `!` for the slash in `tenstorrent/0`.
const CLASS_PREFIX: &str = "tenstorrent!";
/// What the driver writes where the firmware names no card that it knows.
const UNKNOWN_CARD: &str = "unknown";

/// Where the driver shows itself.
#[derive(Debug)]
pub(super) struct Driver {
    /// `None`: not looked at.
    pub(super) proc_directory: Option<PathBuf>,
    /// `None`: not looked at.
    pub(super) sys_directory: Option<PathBuf>,
}

/// One card. What its firmware does not tell is `None`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Card {
    pub(super) card_type: Option<String>,
    pub(super) serial: Option<String>,
    /// Without leading zeros, as tt-metal's regions have it.
    pub(super) asic_id: Option<String>,
    pub(super) pci_bus_id: Option<String>,
    pub(super) firmware: Option<String>,
}

/// The processes that hold a card open.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Holders {
    pub(super) pids: BTreeSet<u32>,
    /// Whether there are some that this pid namespace cannot see: the driver writes 0 for them.
    pub(super) has_hidden: bool,
}

impl Driver {
    /// The numbers of the cards, as in /dev/tenstorrent. None where there is no driver.
    pub(super) fn ordinals(&self) -> io::Result<BTreeSet<u16>> {
        let mut ordinals = BTreeSet::new();
        for (directory, prefix) in [(&self.proc_directory, ""), (&self.sys_directory, CLASS_PREFIX)] {
            let Some(directory) = directory else { continue };
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", directory.display())));
                }
            };
            for entry in entries {
                let name = entry?.file_name();
                let ordinal: Option<u16> =
                    name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
                ordinals.extend(ordinal.filter(|ordinal| *ordinal < DEVICES_MAX));
            }
        }
        Ok(ordinals)
    }

    /// Tells one appearance of a card from the next: firmware is only read anew after a reset, which makes its entry anew.
    pub(super) fn appearance(&self, ordinal: u16) -> Option<u64> {
        fs::metadata(self.class_entry(ordinal)?).ok().map(|metadata| metadata.ino())
    }

    /// What the card is.
    pub(super) fn card(&self, ordinal: u16) -> Card {
        let Some(entry) = self.class_entry(ordinal) else { return Card::default() };
        let attribute = |name: &str| {
            let text = read(&entry.join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty() && text != UNKNOWN_CARD)
        };
        Card {
            card_type: attribute("tt_card_type"),
            serial: attribute("tt_serial"),
            asic_id: attribute("tt_asic_id").map(|id| plain_hexadecimal(&id)),
            // A link to the PCI device, whose directory is named by its address.
            pci_bus_id: fs::read_link(entry.join("device"))
                .ok()
                .and_then(|target| Some(target.file_name()?.to_str()?.to_ascii_lowercase())),
            firmware: attribute("tt_fw_bundle_ver"),
        }
    }

    /// Who holds it open; `None` where the driver does not tell.
    pub(super) fn holders(&self, ordinal: u16) -> Option<Holders> {
        let directory = self.proc_directory.as_ref()?;
        let text = read(&directory.join(ordinal.to_string()).join("pids")).ok()?;
        Some(Holders::parse(&text))
    }

    fn class_entry(&self, ordinal: u16) -> Option<PathBuf> {
        Some(self.sys_directory.as_ref()?.join(format!("{CLASS_PREFIX}{ordinal}")))
    }
}

impl Holders {
    /// One pid a line, one line for each open descriptor.
    pub(super) fn parse(text: &str) -> Holders {
        let pids: BTreeSet<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let has_hidden = pids.contains(&0);
        Holders { pids: pids.into_iter().filter(|pid| *pid != 0).collect(), has_hidden }
    }
}

impl Card {
    /// The product whose capacities it has. The driver names variants that do not differ in them by a letter more.
    pub(super) fn product(&self) -> Option<&'static Product> {
        let name = match self.card_type.as_deref()? {
            "galaxy-wormhole" => "galaxy",
            "galaxy-blackhole" => "blackhole-galaxy",
            name => name.trim_end_matches(['a', 'b', 'c']),
        };
        PRODUCTS.iter().find(|product| product.name == name)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_descriptor_and_0_is_somebody_unseen() {
        let check = |text: &str, pids: &[u32], has_hidden: bool| {
            let expected = Holders { pids: pids.iter().copied().collect(), has_hidden };
            assert_eq!(Holders::parse(text), expected, "{text:?}");
        };
        check("", &[], false);
        check("77\n12\n77\n", &[12, 77], false);
        check("0\n12\n0\n", &[12], true);
        check("a\n-3\n12", &[12], false);
    }

    #[test]
    fn the_drivers_names_are_products() {
        let check = |card_type: &str, expected: Option<&str>| {
            let card = Card { card_type: Some(card_type.into()), ..Card::default() };
            assert_eq!(card.product().map(|product| product.name), expected, "{card_type}");
        };
        check("n150", Some("n150"));
        check("n300", Some("n300"));
        check("p100a", Some("p100"));
        check("p150b", Some("p150"));
        check("p300c", Some("p300"));
        check("galaxy-wormhole", Some("galaxy"));
        check("galaxy-blackhole", Some("blackhole-galaxy"));
        check("p999", None);
        assert_eq!(Card::default().product(), None);
    }
}
