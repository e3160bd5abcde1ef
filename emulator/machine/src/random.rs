//! The guest's source of random numbers.

use crate::clock::ClockSource;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers for RDRAND and RDSEED: under the host's clock a keyed hash (the standard library's SipHash, its 128-bit key from the host)
/// of a counter, which nobody foretells without the key; under the clock by instructions a fixed sequence, so that every run is
/// the same.
pub struct Random {
    key: Option<RandomState>,
    drawn: AtomicU64,
}

impl Random {
    /// A source for a machine with this clock.
    #[must_use]
    pub fn new(clock: ClockSource) -> Random {
        let key = match clock {
            ClockSource::Host => Some(RandomState::new()),
            ClockSource::Instructions => None,
        };
        Random { key, drawn: AtomicU64::new(0) }
    }

    /// The next number.
    pub fn draw(&self) -> u64 {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        match &self.key {
            Some(key) => {
                let mut hasher = key.build_hasher();
                hasher.write_u64(drawn);
                hasher.finish()
            }
            None => mixed(drawn.wrapping_add(1)),
        }
    }
}

/// A number that looks random: the finalizer of SplitMix64 over its own step (Steele, Lea, Flood 2014).
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_decides_whether_runs_differ() {
        let draw = |clock| {
            let r = Random::new(clock);
            std::array::from_fn::<u64, 4, _>(|_| r.draw())
        };
        assert_eq!(draw(ClockSource::Instructions), draw(ClockSource::Instructions));
        assert_ne!(draw(ClockSource::Host), draw(ClockSource::Host));
        let one = draw(ClockSource::Host);
        assert!(one.iter().enumerate().all(|(n, v)| !one[..n].contains(v)));
    }
}
