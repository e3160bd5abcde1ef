//! The PC's 14.31818 MHz crystal: exactly 315/22 MHz. The timers run at a twelfth and a quarter of it.

use egret_bus::Ticks;

/// A clock of `numerator / denominator` periods a nanosecond.
#[derive(Clone, Copy)]
pub struct Clock {
    numerator: u64,
    denominator: u64,
}

/// The 8254's clock: 105/88 MHz.
pub const PIT: Clock = Clock { numerator: 21, denominator: 17_600 };
impl Clock {
    /// Whole periods since power-on.
    pub fn count(self, now: Ticks) -> u64 {
        (u128::from(now.0) * u128::from(self.numerator) / u128::from(self.denominator)) as u64
    }

    /// The first time at which `count` periods have passed.
    pub fn time(self, count: u64) -> Ticks {
        let time = (u128::from(count) * u128::from(self.denominator)).div_ceil(self.numerator.into());
        Ticks(u64::try_from(time).unwrap_or(u64::MAX))
    }
}
