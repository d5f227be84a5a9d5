//! A small generator of numbers that look random and are the same in every run.

/// SplitMix64: one multiplication chain per number, and every seed is a good one.
pub(in crate::cli) struct Random {
    state: u64,
}

impl Random {
    pub(in crate::cli) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `lowest` to `highest`, both included.
    pub(in crate::cli) fn between(&mut self, lowest: u64, highest: u64) -> u64 {
        lowest + self.next() % (highest - lowest + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again_and_all_of_a_range() {
        let draw = || {
            let mut random = Random::new(7);
            (0..1000).map(|_| random.between(3, 6)).collect::<Vec<_>>()
        };
        let numbers = draw();
        assert_eq!(numbers, draw());
        for expected in 3..=6 {
            assert!(numbers.contains(&expected));
        }
        assert!(numbers.iter().all(|number| (3..=6).contains(number)));
    }
}
