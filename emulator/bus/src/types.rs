//! Address and time types.

use std::fmt;

/// A guest physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Phys(pub u64);

impl Phys {
    /// The address `n` bytes further on, wrapping at 2^64.
    #[must_use]
    pub fn offset(self, n: u64) -> Phys {
        Phys(self.0.wrapping_add(n))
    }

    /// The page frame number (4 KiB pages).
    #[must_use]
    pub fn frame(self) -> u64 {
        self.0 >> 12
    }
}

impl fmt::Debug for Phys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phys:{:#x}", self.0)
    }
}

/// Guest time in nanoseconds since power-on. Devices take it as an argument and never read a host clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticks(pub u64);

impl Ticks {
    /// One second.
    pub const SECOND: Ticks = Ticks(1_000_000_000);

    /// `self + nanoseconds`, saturating.
    #[must_use]
    pub fn after(self, nanoseconds: u64) -> Ticks {
        Ticks(self.0.saturating_add(nanoseconds))
    }

    /// Nanoseconds from `earlier` to `self`, zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Ticks) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How many whole periods of a clock of `hertz` fit in this time.
    #[must_use]
    pub fn periods(self, hertz: u64) -> u64 {
        u64::try_from(u128::from(self.0) * u128::from(hertz) / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// The first time at which `n` whole periods of a clock of `hertz` have passed.
    #[must_use]
    pub fn from_periods(n: u64, hertz: u64) -> Ticks {
        let hertz = u128::from(hertz.max(1));
        Ticks(u64::try_from((u128::from(n) * 1_000_000_000).div_ceil(hertz)).unwrap_or(u64::MAX))
    }
}
