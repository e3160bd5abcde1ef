//! Seeded operands: random ones, edges of every lane width, and floating-point specials.

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A value for integer lanes.
    pub fn integer(&mut self) -> u128 {
        const BYTES: [u8; 9] = [0, 1, 0x7f, 0x80, 0x81, 0xfe, 0xff, 0x40, 0xc0];
        const WORDS: [u16; 10] = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x00ff, 0x0100, 0xff80, 0x0080];
        match self.below(6) {
            0 | 1 => self.wide(),
            2 => u128::from_le_bytes(core::array::from_fn(|_| self.pick(&BYTES))),
            3 => (0..8).fold(0, |v, _| v << 16 | u128::from(self.pick(&WORDS))),
            // Counts of shifts, with and without a high half.
            4 => u128::from(self.below(70)) | if self.below(2) == 0 { self.wide() << 64 } else { 0 },
            _ => u128::from(self.pick(&[0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1 << 32, 1 << 63, u64::MAX])),
        }
    }

    fn single(&mut self) -> u32 {
        const SPECIAL: [u32; 22] = [
            0,
            1,
            0x007f_ffff,
            0x0080_0000,
            0x0080_0001,
            0x3f80_0000,
            0x3f80_0001,
            0x3f00_0000,
            0x3fc0_0000,
            0x4000_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0x7fff_ffff,
            0x4f00_0000,
            0x4eff_ffff,
            0x5f00_0000,
            0x5eff_ffff,
            0x4b00_0001,
            0x0040_0000,
            0x3eff_ffff,
        ];
        let bits = match self.below(8) {
            0 => self.next() as u32,
            1..4 => self.pick(&SPECIAL),
            4 => (self.next() as u32 & 0x00ff_ffff) | 0x4f00_0000,
            5 => self.next() as u32 & 0x01ff_ffff,
            // Near one, with few bits: exact results are frequent.
            6 => ((self.below(4) as u32) << 21) + 0x3f00_0000 + ((self.below(8) as u32) << 23),
            _ => ((self.next() as u32) & 0x007f_ffff) + 0x3d00_0000 + ((self.below(12) as u32) << 23),
        };
        bits ^ ((self.next() as u32) & 0x8000_0000)
    }

    fn double(&mut self) -> u64 {
        const SPECIAL: [u64; 26] = [
            0,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x0010_0000_0000_0001,
            0x3ff0_0000_0000_0000,
            0x3ff0_0000_0000_0001,
            0x3fe0_0000_0000_0000,
            0x3ff8_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0x7ff8_0000_0000_0000,
            0x7fff_ffff_ffff_ffff,
            0x41df_ffff_ffc0_0000,
            0x41e0_0000_0000_0000,
            0x41df_ffff_ffe0_0000,
            0x41e0_0000_0010_0000,
            0x43e0_0000_0000_0000,
            0x43df_ffff_ffff_ffff,
            0x47ef_ffff_e000_0000,
            0x47ef_ffff_f000_0000,
            0x3810_0000_0000_0000,
            0x380f_ffff_ffff_ffff,
            0x36a0_0000_0000_0000,
            0x3fdf_ffff_ffff_ffff,
        ];
        let bits = match self.below(9) {
            0 => self.next(),
            1..4 => self.pick(&SPECIAL),
            4 => (self.next() & 0x001f_ffff_ffff_ffff) | 0x41c0_0000_0000_0000,
            5 => self.next() & 0x003f_ffff_ffff_ffff,
            // Around the least and the largest single.
            6 => (self.next() & 0x000f_ffff_ffff_ffff) + ((self.below(40) + self.pick(&[0x36a - 0x10, 0x47e - 0x10])) << 52),
            7 => (self.below(4) << 50) + 0x3fe0_0000_0000_0000 + (self.below(8) << 52),
            _ => (self.next() & 0x000f_ffff_ffff_ffff) + 0x3fa0_0000_0000_0000 + (self.below(12) << 52),
        };
        bits ^ (self.next() & 1 << 63)
    }

    /// Strings of few different characters, some ended by a null; also lengths.
    pub fn text(&mut self) -> u128 {
        let length = u128::from(self.below(40)).wrapping_sub(20);
        match self.below(5) {
            0 => self.integer(),
            // As a general register this is a small length of either sign.
            1 => (self.wide() << 64) | (length & u128::from(u64::MAX)),
            n => {
                let alphabet = if n == 2 { [0x61, 0x62, 0x63, 0x61] } else { [0x61, 0x62, 0, 0x80] };
                u128::from_le_bytes(core::array::from_fn(|_| self.pick(&alphabet)))
            }
        }
    }

    /// A value for floating-point lanes; single or double lanes at random, for conversions see either.
    pub fn float(&mut self) -> u128 {
        match self.below(5) {
            0 | 1 => (0..4).fold(0, |v, _| v << 32 | u128::from(self.single())),
            2 | 3 => u128::from(self.double()) << 64 | u128::from(self.double()),
            _ => self.integer(),
        }
    }
}
