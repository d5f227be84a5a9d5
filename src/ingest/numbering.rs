//! Finds the processes that number the cards otherwise than the host does: pure, from what each reports and which cards it holds open.
//!
//! A process that is shown some of the cards (TT_VISIBLE_DEVICES) counts those from 0, and says nothing of it in its reports. Which card it
//! means is certain where there is but one way to read it: it holds memory on one device, holds one card open, and the card is one chip.

use std::collections::{BTreeMap, BTreeSet};

use super::driver::{Card, Holders};
use crate::registry::Renumbered;

/// Products whose card has one chip. A device of any other may be a chip that has no card of its own.
const ONE_CHIP: &[&str] = &["n150", "p100", "p150"];

/// A card, as far as it matters here.
pub(super) struct Numbered<'a> {
    pub(super) card: &'a Card,
    /// `None` where it is none of the devices that are known.
    pub(super) device: Option<u16>,
    /// `None` where the driver does not tell.
    pub(super) holders: Option<&'a Holders>,
}

/// The processes that mean another card by a device's number, by that number. `devices_of` gives the devices on which a process holds memory.
pub(super) fn renumbered(
    cards: &BTreeMap<u16, Numbered<'_>>,
    devices_of: impl Fn(u32) -> BTreeSet<u16>,
) -> BTreeMap<u16, Vec<Renumbered>> {
    let mut held: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
    for (ordinal, numbered) in cards {
        for pid in numbered.holders.iter().flat_map(|holders| &holders.pids) {
            held.entry(*pid).or_default().insert(*ordinal);
        }
    }
    let mut found: BTreeMap<u16, Vec<Renumbered>> = BTreeMap::new();
    for (pid, ordinals) in held {
        let Some((ordinal, numbered)) = only(&ordinals).and_then(|ordinal| cards.get_key_value(&ordinal))
        else {
            continue;
        };
        let is_one_chip = numbered.card.product().is_some_and(|product| ONE_CHIP.contains(&product.name));
        let Some(device) = only(&devices_of(pid)).filter(|_| is_one_chip) else { continue };
        if numbered.device != Some(device) {
            found.entry(device).or_default().push(Renumbered { pid, card: *ordinal });
        }
    }
    found
}

/// The one thing in a set of one.
fn only(set: &BTreeSet<u16>) -> Option<u16> {
    set.first().copied().filter(|_| set.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(card_type: &str) -> Card {
        Card { card_type: Some(card_type.into()), ..Card::default() }
    }

    #[track_caller]
    fn check(card_type: &str, holders: [&[u32]; 2], devices: &[(u32, &[u16])], expected: &[(u16, u32, u16)]) {
        let card = card(card_type);
        let holders = holders.map(|pids| Holders { pids: pids.iter().copied().collect(), has_hidden: false });
        let numbered = holders.iter().zip(0..);
        let numbered = numbered.map(|(holders, ordinal)| {
            (ordinal, Numbered { card: &card, device: Some(ordinal), holders: Some(holders) })
        });
        let found = renumbered(&numbered.collect(), |pid| {
            let of = devices.iter().filter(|(other, _)| *other == pid);
            of.flat_map(|(_, devices)| devices.iter().copied()).collect()
        });
        let found: Vec<_> = found
            .iter()
            .flat_map(|(device, all)| all.iter().map(|found| (*device, found.pid, found.card)))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_process_is_found_where_it_can_mean_one_card_alone() {
        check("n150", [&[7], &[]], &[(7, &[0])], &[]);
        check("n150", [&[], &[7]], &[(7, &[0])], &[(0, 7, 1)]);
        check("p150b", [&[8], &[7]], &[(7, &[0]), (8, &[1])], &[(0, 7, 1), (1, 8, 0)]);
        // It may use either of the cards that it holds, and may have held memory on either of its devices on the same card.
        check("n150", [&[7], &[7]], &[(7, &[0])], &[]);
        check("n150", [&[], &[7]], &[(7, &[0, 1])], &[]);
        check("n150", [&[], &[7]], &[(7, &[])], &[]);
        // The second chip of a board is reached through the first one's card.
        check("n300", [&[7], &[]], &[(7, &[1])], &[]);
        check("p999", [&[], &[7]], &[(7, &[0])], &[]);
    }
}
