//! The arithmetic flags from an operation's operands and result.

use crate::ops::{Cond, FlagsOp, Width};

/// Carry.
pub const CF: u32 = 1;
/// Parity of the low byte.
pub const PF: u32 = 1 << 2;
/// Carry out of bit 3.
pub const AF: u32 = 1 << 4;
/// Zero.
pub const ZF: u32 = 1 << 6;
/// Sign.
pub const SF: u32 = 1 << 7;
/// Overflow.
pub const OF: u32 = 1 << 11;
/// The six arithmetic flags.
pub const ARITH: u32 = CF | PF | AF | ZF | SF | OF;

/// A pending computation of the arithmetic flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lazy {
    /// The kind of operation.
    pub op: FlagsOp,
    /// Its width.
    pub w: Width,
    /// First operand.
    pub a: u64,
    /// Second operand.
    pub b: u64,
    /// Result.
    pub r: u64,
}

impl Lazy {
    /// Flags known outright.
    #[must_use]
    pub fn word(flags: u32) -> Lazy {
        Lazy { op: FlagsOp::Word, w: Width::Q, a: 0, b: 0, r: u64::from(flags & ARITH) }
    }

    /// CF.
    #[inline]
    #[must_use]
    pub fn carry(&self) -> bool {
        let Lazy { op, w, a, b, r } = *self;
        match op {
            FlagsOp::Word => r & 1 != 0,
            FlagsOp::Add => r < a,
            FlagsOp::Sub => a < b,
            FlagsOp::Adc => ((a & b) | ((a | b) & !r)) & w.sign() != 0,
            FlagsOp::Sbb => ((!a & b) | ((!a | b) & r)) & w.sign() != 0,
            FlagsOp::Logic => false,
            FlagsOp::Inc | FlagsOp::Dec | FlagsOp::Mul => b != 0,
            FlagsOp::Shl => b <= u64::from(w.bits()) && (a >> (u64::from(w.bits()) - b)) & 1 != 0,
            FlagsOp::Shr => (a >> (b.wrapping_sub(1) & 63)) & 1 != 0,
            FlagsOp::Sar => (w.sext(a) as i64 >> (b.wrapping_sub(1) & 63)) & 1 != 0,
        }
    }

    /// OF.
    #[inline]
    #[must_use]
    pub fn overflow(&self) -> bool {
        let Lazy { op, w, a, b, r } = *self;
        let sign = w.sign();
        match op {
            FlagsOp::Word => r as u32 & OF != 0,
            FlagsOp::Add | FlagsOp::Adc => (a ^ r) & (b ^ r) & sign != 0,
            FlagsOp::Sub | FlagsOp::Sbb => (a ^ b) & (a ^ r) & sign != 0,
            FlagsOp::Logic | FlagsOp::Sar => false,
            FlagsOp::Inc => r == sign,
            FlagsOp::Dec => r == sign.wrapping_sub(1),
            FlagsOp::Shl => (r & sign != 0) != self.carry(),
            // SDM: defined for count 1, where it is the sign of the original operand. Chips keep computing the
            // exclusive or of the result's top two bits, which is the same thing for count 1.
            FlagsOp::Shr => (r ^ (r << 1)) & sign != 0,
            FlagsOp::Mul => b != 0,
        }
    }

    /// ZF.
    #[inline]
    #[must_use]
    pub fn zero(&self) -> bool {
        if self.op == FlagsOp::Word { self.r as u32 & ZF != 0 } else { self.r == 0 }
    }

    /// SF.
    #[inline]
    #[must_use]
    pub fn sign(&self) -> bool {
        if self.op == FlagsOp::Word { self.r as u32 & SF != 0 } else { self.r & self.w.sign() != 0 }
    }

    /// PF.
    #[inline]
    #[must_use]
    pub fn parity(&self) -> bool {
        if self.op == FlagsOp::Word { self.r as u32 & PF != 0 } else { (self.r as u8).count_ones() & 1 == 0 }
    }

    /// AF.
    #[inline]
    #[must_use]
    pub fn adjust(&self) -> bool {
        match self.op {
            FlagsOp::Word => self.r as u32 & AF != 0,
            FlagsOp::Inc => self.r & 15 == 0,
            FlagsOp::Dec => self.r & 15 == 15,
            FlagsOp::Add | FlagsOp::Adc | FlagsOp::Sub | FlagsOp::Sbb => (self.a ^ self.b ^ self.r) & 16 != 0,
            // Undefined after these. The 80286 clears it after logic; a Zen 4 clears it after logic, sets it after shifts and
            // keeps it over multiplications.
            FlagsOp::Logic | FlagsOp::Shl | FlagsOp::Shr | FlagsOp::Sar | FlagsOp::Mul => false,
        }
    }

    /// All six flags in their EFLAGS positions.
    #[must_use]
    pub fn flags(&self) -> u32 {
        if self.op == FlagsOp::Word {
            return self.r as u32 & ARITH;
        }
        let bit = |on: bool, mask: u32| if on { mask } else { 0 };
        bit(self.carry(), CF)
            | bit(self.parity(), PF)
            | bit(self.adjust(), AF)
            | bit(self.zero(), ZF)
            | bit(self.sign(), SF)
            | bit(self.overflow(), OF)
    }

    /// Whether a condition holds.
    #[inline]
    #[must_use]
    pub fn cond(&self, cond: Cond) -> bool {
        if self.op == FlagsOp::Sub {
            let (a, b) = (self.a, self.b);
            let (sa, sb) = (self.w.sext(a) as i64, self.w.sext(b) as i64);
            match cond {
                Cond::Be => return a <= b,
                Cond::A => return a > b,
                Cond::L => return sa < sb,
                Cond::Ge => return sa >= sb,
                Cond::Le => return sa <= sb,
                Cond::G => return sa > sb,
                _ => {}
            }
        }
        match cond {
            Cond::O => self.overflow(),
            Cond::No => !self.overflow(),
            Cond::B => self.carry(),
            Cond::Ae => !self.carry(),
            Cond::E => self.zero(),
            Cond::Ne => !self.zero(),
            Cond::Be => self.carry() || self.zero(),
            Cond::A => !(self.carry() || self.zero()),
            Cond::S => self.sign(),
            Cond::Ns => !self.sign(),
            Cond::P => self.parity(),
            Cond::Np => !self.parity(),
            Cond::L => self.sign() != self.overflow(),
            Cond::Ge => self.sign() == self.overflow(),
            Cond::Le => self.zero() || self.sign() != self.overflow(),
            Cond::G => !self.zero() && self.sign() == self.overflow(),
        }
    }
}
