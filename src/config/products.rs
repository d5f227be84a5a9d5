//! The products that can be named in the configuration, with the memory that their allocator can use.

use super::values::{Arch, did_you_mean_one_of};

/// What one chip of a product offers. The sizes are those that tt-metal's allocator reports as usable, so
/// they lie below the figures of a data sheet; L1 bank counts are those of a chip with its usual harvesting
/// and dispatch.
#[derive(Debug, PartialEq, Eq)]
pub struct Product {
    /// As it is written in the configuration.
    pub name: &'static str,
    /// The chip's architecture.
    pub arch: Arch,
    /// DRAM banks of one chip.
    pub dram_banks: u32,
    /// Usable bytes of one DRAM bank.
    pub dram_bank_bytes: u64,
    /// L1 banks of one chip, one for each core that holds buffers.
    pub l1_banks: u32,
    /// Usable bytes of one L1 bank.
    pub l1_bank_bytes: u64,
}

impl Product {
    /// Usable DRAM of one chip.
    pub const fn dram_bytes(&self) -> u64 {
        self.dram_banks as u64 * self.dram_bank_bytes
    }

    /// Usable L1 of one chip.
    pub const fn l1_bytes(&self) -> u64 {
        self.l1_banks as u64 * self.l1_bank_bytes
    }

    /// The product of this name.
    pub(super) fn parse(name: &str) -> Result<&'static Self, String> {
        let wanted = name.to_ascii_lowercase();
        PRODUCTS
            .iter()
            .find(|product| product.name == wanted)
            .ok_or_else(|| did_you_mean_one_of(name, PRODUCTS.iter().map(|product| product.name)))
    }
}

/// Every product with known capacities. A board with several chips appears as several devices, each with
/// these sizes.
pub const PRODUCTS: &[Product] = &[
    wormhole("n150", 72),
    wormhole("n300", 64),
    wormhole("t3k", 64),
    wormhole("galaxy", 80),
    blackhole("p100", P100_DRAM, 120),
    blackhole("p150", P150_DRAM, 120),
    blackhole("p300", P150_DRAM, 120),
    blackhole("8xp150", P150_DRAM, 130),
    blackhole("blackhole-galaxy", P150_DRAM, 130),
];

/// Banks, and usable bytes of each.
type Banks = (u32, u64);

const WORMHOLE_DRAM: Banks = (12, 1_072_603_072);
const P100_DRAM: Banks = (7, 4_276_985_728);
const P150_DRAM: Banks = (8, 4_277_010_304);

const fn wormhole(name: &'static str, l1_banks: u32) -> Product {
    product(name, Arch::WormholeB0, WORMHOLE_DRAM, (l1_banks, 1_360_544))
}

const fn blackhole(name: &'static str, dram: Banks, l1_banks: u32) -> Product {
    product(name, Arch::Blackhole, dram, (l1_banks, 1_428_352))
}

const fn product(name: &'static str, arch: Arch, dram: Banks, l1: Banks) -> Product {
    Product { name, arch, dram_banks: dram.0, dram_bank_bytes: dram.1, l1_banks: l1.0, l1_bank_bytes: l1.1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities() {
        let check = |name, dram_bytes, l1_bytes| {
            let product = Product::parse(name).expect("a known product");
            assert_eq!((product.dram_bytes(), product.l1_bytes()), (dram_bytes, l1_bytes), "{name}");
        };
        check("n150", 12_871_236_864, 97_959_168);
        check("N300", 12_871_236_864, 87_074_816);
        check("p100", 29_938_900_096, 171_402_240);
        check("p150", 34_216_082_432, 171_402_240);
        check("blackhole-galaxy", 34_216_082_432, 185_685_760);
        assert_eq!(
            Product::parse("p150a").expect_err("not a known product"),
            "\"p150a\" is not one of n150, n300, t3k, galaxy, p100, p150, p300, 8xp150, blackhole-galaxy; \
             did you mean p150?"
        );
    }
}
