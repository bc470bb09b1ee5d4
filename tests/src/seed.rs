//! Repeatable choices: SplitMix64 (Steele, Lea, Flood 2014), so that a run that failed can be run again from one number.
//! It decides nothing that must be hard to guess.

/// A stream of choices.
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// The stream of `number`.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The stream that `MAINSTAY_SEED` names, or that of `otherwise`.
    #[must_use]
    pub fn number_or(otherwise: u64) -> u64 {
        std::env::var("MAINSTAY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if there is none.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64().checked_rem(limit).unwrap_or(0)
    }

    /// A place in a list of `length`.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Another stream that goes its own way from here.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self(self.next_u64())
    }
}

/// Whether the whole of a sweep is wanted (`MAINSTAY_SOAK=1`) rather than the slice that `make test` has time for.
#[must_use]
pub fn is_soak() -> bool {
    std::env::var_os("MAINSTAY_SOAK").is_some_and(|value| value == "1")
}
