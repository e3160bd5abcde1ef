//! Random numbers with a liking for edges.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The generator of program `n` of a seed.
    #[must_use]
    pub fn of(seed: u64, n: u64) -> Rng {
        let mut rng = Rng(seed ^ n.wrapping_mul(0xd134_2543_de82_ef95));
        rng.next();
        rng
    }

    /// 64 random bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True `percent` times of 100.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of a list that is not empty.
    pub fn of_list<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// An integer: edges of all widths, single bits, or anything.
    pub fn integer(&mut self) -> u64 {
        let edge = self.of_list(&[0, 1, 2, 3, 7, 8, 0x0f, 0x10, 0x1f, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xff]);
        match self.below(12) {
            0 => edge,
            1 => edge.wrapping_neg(),
            2 => 0x8000_u64.wrapping_add(edge).wrapping_sub(2),
            3 => 0x8000_0000_u64.wrapping_add(edge).wrapping_sub(2),
            4 => 0x8000_0000_0000_0000_u64.wrapping_add(edge).wrapping_sub(2),
            5 => 1 << self.below(64),
            6 => (1_u64 << self.below(64)).wrapping_sub(1),
            7 => 0,
            8 => u64::MAX,
            9 => self.next() >> self.below(64),
            // The same byte all over, also as decimal digits.
            10 => u64::from(self.of_list(&[0x09_u8, 0x99, 0x7f, 0x80, 0x01, 0xfe, 0x3a])) * 0x0101_0101_0101_0101,
            _ => self.next(),
        }
    }

    fn fraction(&mut self, bits: u32) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let sparse = 1_u64 << self.below(bits.into());
        mask & match self.below(6) {
            0 => 0,
            1 => mask,
            2 => sparse,
            3 => sparse.wrapping_neg(),
            4 => self.next() << self.below(bits.into()),
            _ => self.next(),
        }
    }

    /// A biased exponent: mostly near zero, one, the ends, and where narrower formats end.
    fn exponent(&mut self, bits: u32) -> u64 {
        let ones = (1_u64 << bits) - 1;
        let bias = ones / 2;
        match self.below(14) {
            0 | 1 => 0,
            2 => ones,
            3 => 1 + self.below(3),
            4 => ones - 1 - self.below(3),
            5 => bias / 2 + self.below(8),
            6 => bias + bias / 2 + self.below(8),
            7..=10 => (bias - 4 + self.below(8)) & ones,
            11 => (bias + self.below(80)).min(ones),
            12 if bits > 8 => bias + self.of_list(&[127, 128, 15, 16]) - self.below(2),
            12 if bits > 5 => bias - self.of_list(&[14, 15, 24, 25]),
            _ => self.below(ones),
        }
    }

    /// A floating-point number of `exp` and `frac` bits: denormals, infinities and NaNs among them.
    pub fn float(&mut self, frac: u32, exp: u32) -> u64 {
        (self.next() & 1) << (frac + exp) | self.exponent(exp) << frac | self.fraction(frac)
    }

    /// An 80-bit number, (significand, sign and exponent): now and then one that the 387 does not support.
    pub fn extended(&mut self) -> (u64, u16) {
        let exp = match self.below(8) {
            0 => 16383 + self.of_list(&[127_u64, 128, 1023, 1024]) - self.below(3),
            1 => 16383 - self.of_list(&[126_u64, 127, 149, 150, 1022, 1023, 1074, 1075]) + self.below(3),
            // Integers.
            2 | 3 => 16383 + self.below(66),
            _ => self.exponent(15),
        };
        let integer = match (exp, self.below(20)) {
            (_, 0) => self.next() & 1,
            (0, _) => 0,
            _ => 1,
        };
        (integer << 63 | self.fraction(63), exp as u16 | (self.next() as u16 & 0x8000))
    }

    /// 64 bits of a vector: floats of either size, halves, integers.
    pub fn lane(&mut self) -> u64 {
        match self.below(8) {
            0..=2 => self.float(23, 8) | self.float(23, 8) << 32,
            3 | 4 => self.float(52, 11),
            5 => self.float(10, 5) | self.float(10, 5) << 16 | self.float(10, 5) << 32 | self.float(10, 5) << 48,
            6 => self.integer(),
            _ => self.integer() as u32 as u64 | self.integer() << 32,
        }
    }
}
