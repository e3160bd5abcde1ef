//! The scalar op vocabulary and its meaning on plain integers. Every engine's arithmetic is defined here.

/// Operand width.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    B = 0,
    /// 16 bits.
    W = 1,
    /// 32 bits.
    D = 2,
    /// 64 bits.
    Q = 3,
}

impl Width {
    /// Size in bytes.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u8 {
        1 << self as u8
    }

    /// Size in bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u32 {
        8 << self as u8
    }

    /// All ones of this width.
    #[inline]
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The sign bit.
    #[inline]
    #[must_use]
    pub const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// Sign-extends the low bits of `v` to 64 bits.
    #[inline]
    #[must_use]
    pub const fn sext(self, v: u64) -> u64 {
        let s = 64 - self.bits();
        (((v << s) as i64) >> s) as u64
    }

    /// The width of `bytes` bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn from_bytes(bytes: u8) -> Option<Width> {
        match bytes {
            1 => Some(Width::B),
            2 => Some(Width::W),
            4 => Some(Width::D),
            8 => Some(Width::Q),
            _ => None,
        }
    }
}

/// Two-operand integer ops. Operands are zero-extended to 64 bits; so is the result, cut to the width.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Bin {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Low half of the product.
    Mul,
    /// High half of the unsigned product.
    MulHiU,
    /// High half of the signed product.
    MulHiS,
    /// Left shift; the count is taken modulo 64, also for narrow widths.
    Shl,
    /// Logical right shift; count as for `Shl`.
    Shr,
    /// Arithmetic right shift; count as for `Shl`.
    Sar,
    /// Rotate left; the count is taken modulo the width.
    Rol,
    /// Rotate right; the count is taken modulo the width.
    Ror,
}

impl Bin {
    /// The op on values of width `w`.
    #[inline(always)]
    #[must_use]
    pub fn eval(self, w: Width, a: u64, b: u64) -> u64 {
        let r = match self {
            Bin::Add => a.wrapping_add(b),
            Bin::Sub => a.wrapping_sub(b),
            Bin::And => a & b,
            Bin::Or => a | b,
            Bin::Xor => a ^ b,
            Bin::Mul => a.wrapping_mul(b),
            Bin::MulHiU => ((u128::from(a) * u128::from(b)) >> w.bits()) as u64,
            Bin::MulHiS => ((i128::from(w.sext(a) as i64) * i128::from(w.sext(b) as i64)) >> w.bits()) as u64,
            Bin::Shl => a.wrapping_shl(b as u32),
            Bin::Shr => a.wrapping_shr(b as u32),
            Bin::Sar => (w.sext(a) as i64).wrapping_shr(b as u32) as u64,
            Bin::Rol => rotate_left(w, a, b),
            Bin::Ror => rotate_left(w, a, (w.bits() as u64).wrapping_sub(b)),
        };
        r & w.mask()
    }
}

fn rotate_left(w: Width, a: u64, count: u64) -> u64 {
    let n = count as u32 & (w.bits() - 1);
    match w {
        Width::B => (a as u8).rotate_left(n).into(),
        Width::W => (a as u16).rotate_left(n).into(),
        Width::D => (a as u32).rotate_left(n).into(),
        Width::Q => a.rotate_left(n),
    }
}

/// One-operand integer ops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Un {
    /// Bitwise complement.
    Not,
    /// Two's complement.
    Neg,
    /// Leading zero bits; the width for zero.
    Clz,
    /// Trailing zero bits; the width for zero.
    Ctz,
    /// Number of one bits.
    Popcnt,
    /// Byte order reversed.
    Bswap,
}

impl Un {
    /// The op on a value of width `w`.
    #[inline(always)]
    #[must_use]
    pub fn eval(self, w: Width, a: u64) -> u64 {
        let r = match self {
            Un::Not => !a,
            Un::Neg => a.wrapping_neg(),
            Un::Clz => u64::from(a.leading_zeros().wrapping_sub(64 - w.bits())),
            Un::Ctz => u64::from(a.trailing_zeros().min(w.bits())),
            Un::Popcnt => u64::from(a.count_ones()),
            Un::Bswap => a.swap_bytes() >> (64 - w.bits()),
        };
        r & w.mask()
    }
}

/// Relations between two values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Rel {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Unsigned less.
    Ult,
    /// Unsigned less or equal.
    Ule,
    /// Signed less.
    Slt,
    /// Signed less or equal.
    Sle,
}

impl Rel {
    /// Whether the relation holds between values of width `w`.
    #[inline(always)]
    #[must_use]
    pub fn eval(self, w: Width, a: u64, b: u64) -> bool {
        match self {
            Rel::Eq => a == b,
            Rel::Ne => a != b,
            Rel::Ult => a < b,
            Rel::Ule => a <= b,
            Rel::Slt => (w.sext(a) as i64) < (w.sext(b) as i64),
            Rel::Sle => (w.sext(a) as i64) <= (w.sext(b) as i64),
        }
    }
}

/// Condition codes, numbered as in the low four bits of Jcc's opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Cond {
    O,
    No,
    B,
    Ae,
    E,
    Ne,
    Be,
    A,
    S,
    Ns,
    P,
    Np,
    L,
    Ge,
    Le,
    G,
}

impl Cond {
    /// All conditions by number.
    pub const ALL: [Cond; 16] = {
        use Cond::*;
        [O, No, B, Ae, E, Ne, Be, A, S, Ns, P, Np, L, Ge, Le, G]
    };
}

/// How the six arithmetic flags follow from operands `a`, `b` and result `r` of an operation. See [`crate::flags`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum FlagsOp {
    /// `r` is the flags themselves, in their EFLAGS positions.
    Word = 0,
    /// `r = a + b`.
    Add,
    /// `r = a + b + carry`.
    Adc,
    /// `r = a - b`.
    Sub,
    /// `r = a - b - borrow`.
    Sbb,
    /// CF = OF = AF = 0.
    Logic,
    /// `r = a + 1`; `b` is the CF to keep.
    Inc,
    /// `r = a - 1`; `b` is the CF to keep.
    Dec,
    /// `r = a << b`, `b` from 1 to 31 (63 for 64 bits).
    Shl,
    /// `r = a >> b` logical.
    Shr,
    /// `r = a >> b` arithmetic.
    Sar,
    /// `r` is the low half of a product; CF = OF = (`b` != 0).
    Mul,
}

impl FlagsOp {
    /// By number, as the JIT and the lazy state keep it.
    pub const ALL: [FlagsOp; 12] = {
        use FlagsOp::*;
        [Word, Add, Adc, Sub, Sbb, Logic, Inc, Dec, Shl, Shr, Sar, Mul]
    };
}
