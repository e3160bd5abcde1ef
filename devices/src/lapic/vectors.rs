//! A set of interrupt vectors, laid out as the IRR, ISR and TMR registers are.

/// 256 bits, one a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vectors([u32; 8]);

impl Vectors {
    /// The 32 vectors from `32 * index`.
    pub fn word(&self, index: u32) -> u32 {
        self.0[(index & 7) as usize]
    }

    /// Whether `vector` is in the set.
    pub fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] >> (vector & 31) & 1 != 0
    }

    /// Puts `vector` in or takes it out.
    pub fn put(&mut self, vector: u8, present: bool) {
        let (word, bit) = (&mut self.0[usize::from(vector >> 5)], 1 << (vector & 31));
        *word = if present { *word | bit } else { *word & !bit };
    }

    /// The highest vector.
    pub fn highest(&self) -> Option<u8> {
        let index = self.0.iter().rposition(|&word| word != 0)?;
        Some((index as u32 * 32 + self.0[index].ilog2()) as u8)
    }
}
