//! Floating point with 128 significant bits, for the inside of transcendental functions: relative error below 2^-122 per operation,
//! without exceptions, the same on every host.

use crate::fp::num::Num;

/// `(-1)^sign × sig × 2^(exp - 127)` with bit 127 of `sig` set, or zero with `sig == 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wide {
    pub sign: bool,
    pub exp: i32,
    pub sig: u128,
}

/// A positive constant.
pub(super) const fn constant(exp: i32, sig: u128) -> Wide {
    Wide { sign: false, exp, sig }
}

pub(super) const ZERO: Wide = constant(0, 0);
pub(super) const ONE: Wide = constant(0, 1 << 127);
pub(super) const PI: Wide = constant(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
pub(super) const LN2: Wide = constant(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
pub(super) const LOG2_E: Wide = constant(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89);

/// 1/n.
pub(super) const fn reciprocal(n: u32) -> Wide {
    let k = n.ilog2();
    if n.is_power_of_two() {
        return constant(-(k as i32), 1 << 127);
    }
    // 2^128 / n is q + (r + 1)/n; scaled by 2^k it has 128 bits.
    let (q, r) = (u128::MAX / n as u128, u128::MAX % n as u128 + 1);
    constant(-(k as i32) - 1, (q << k) + ((r << k) / n as u128))
}

impl From<Num> for Wide {
    fn from(num: Num) -> Wide {
        Wide { sign: num.sign, exp: num.exp, sig: num.sig }
    }
}

impl Wide {
    fn num(&self) -> Num {
        Num { sign: self.sign, exp: self.exp, sig: self.sig }
    }

    /// The number to be rounded, known not to be representable: the last bit is sticky. `None` for zero.
    pub fn irrational(self) -> Option<Num> {
        (self.sig != 0).then(|| Num { sig: self.sig | 1, ..self.num() })
    }

    /// The number to be rounded, if it is exact. `None` for zero.
    pub fn exact(self) -> Option<Num> {
        (self.sig != 0).then(|| self.num())
    }

    pub fn from_int(n: i32) -> Wide {
        Num::from_int(n < 0, n.unsigned_abs().into()).map_or(ZERO, Wide::from)
    }

    pub fn negate(self) -> Wide {
        Wide { sign: !self.sign, ..self }
    }

    pub fn abs(self) -> Wide {
        Wide { sign: false, ..self }
    }

    /// Multiplied by 2^n.
    pub fn scaled(self, n: i32) -> Wide {
        Wide { exp: self.exp + n, ..self }
    }

    pub fn add(self, b: Wide) -> Wide {
        match (self.sig, b.sig) {
            (0, _) => b,
            (_, 0) => self,
            _ => self.num().add(&b.num()).map_or(ZERO, Wide::from),
        }
    }

    pub fn sub(self, b: Wide) -> Wide {
        self.add(b.negate())
    }

    pub fn mul(self, b: Wide) -> Wide {
        if self.sig == 0 || b.sig == 0 {
            return ZERO;
        }
        const LOW: u128 = u64::MAX as u128;
        let (ah, al, bh, bl) = (self.sig >> 64, self.sig & LOW, b.sig >> 64, b.sig & LOW);
        let (high, mid1, mid2, low) = (ah * bh, ah * bl, al * bh, al * bl);
        let carry = ((mid1 & LOW) + (mid2 & LOW) + (low >> 64)) >> 64;
        // The product of the significands, without its low 128 bits; it has 127 or 128 bits.
        let product = high + (mid1 >> 64) + (mid2 >> 64) + carry;
        let shift = product.leading_zeros();
        Wide { sign: self.sign ^ b.sign, exp: self.exp + b.exp + 1 - shift as i32, sig: product << shift }
    }

    /// `self / b` for a nonzero `b`: a 64-bit quotient, corrected by the quotient of its remainder.
    pub fn div(self, b: Wide) -> Wide {
        if self.sig == 0 || b.sig == 0 {
            return ZERO;
        }
        let first = Wide::from(self.num().div(&b.num()));
        let rest = self.sub(first.mul(b));
        if rest.sig == 0 {
            return first;
        }
        first.add(Wide::from(rest.num().div(&b.num())))
    }

    /// Is the magnitude below b's?
    pub fn less_magnitude(&self, b: &Wide) -> bool {
        self.num().cmp_magnitude(&b.num()).is_lt()
    }
}
