//! Exact soft floating point with x86 semantics: bits in, bits out, flags in an [`Env`].
//!
//! * `f32`/`f64` (SSE, AVX): functions such as [`add64`], with a native fast path where native arithmetic provably gives the same
//!   bits and no new flag.
//! * 80-bit extended precision (x87): [`f80`].
//!
//! The host's floating-point environment must be Rust's default: translated code that runs with the guest's MXCSR loaded restores the
//! default before it calls anything here.
//!
//! Every rule that is x86's choice and not IEEE 754's is cited from the Intel SDM Vol. 1, chapters 4 ("Data Types"),
//! 8 ("Programming with the x87 FPU") and 11.5 ("SSE and SSE2 exceptions").

mod approx;
mod convert;
pub mod f80;
mod ieee;
mod native;
mod num;
#[cfg(test)]
mod tests;

pub use approx::{rcp32, rsqrt32};
pub use convert::*;
pub use native::*;

use bitflags::bitflags;

bitflags! {
    /// The six floating-point exceptions in the bit order of MXCSR and of the x87 status word.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
    pub struct Flags: u8 {
        /// Invalid operation.
        const IE = 1;
        /// Denormal operand.
        const DE = 2;
        /// Division by zero.
        const ZE = 4;
        /// Overflow.
        const OE = 8;
        /// Underflow.
        const UE = 16;
        /// Precision (inexact result).
        const PE = 32;
        /// The exceptions detected before the result is computed (SDM Vol. 1, 4.9.2 "Floating-Point Exception Priority").
        const PRE = 7;
        /// The exceptions detected on the result.
        const POST = 56;
    }
}

/// Rounding direction, in the encoding of MXCSR.RC, the x87 RC field and the ROUNDxx immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest = 0,
    /// Toward negative infinity.
    Down = 1,
    /// Toward positive infinity.
    Up = 2,
    /// Toward zero.
    Zero = 3,
}

impl Rounding {
    /// From a two-bit RC field; higher bits are ignored.
    #[inline]
    pub const fn from_bits(bits: u32) -> Rounding {
        match bits & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Zero,
        }
    }
}

/// The result of comparing two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// First operand less than second.
    Less,
    /// Equal (zeros of either sign are equal).
    Equal,
    /// First operand greater than second.
    Greater,
    /// At least one operand is a NaN.
    Unordered,
}

impl Relation {
    /// (ZF, PF, CF) as COMISD, UCOMISD, FCOMI and FUCOMI set them; OF, SF and AF are cleared by those instructions.
    #[inline]
    pub const fn zf_pf_cf(self) -> (bool, bool, bool) {
        match self {
            Relation::Greater => (false, false, false),
            Relation::Less => (false, false, true),
            Relation::Equal => (true, false, false),
            Relation::Unordered => (true, true, true),
        }
    }
}

const DAZ: u32 = 1 << 6;
const MASKS_SHIFT: u32 = 7;
const RC_SHIFT: u32 = 13;
const FTZ: u32 = 1 << 15;

/// The floating-point environment of one instruction: controls in MXCSR layout, and the exceptions the instruction has raised so far.
///
/// An instruction handler makes one from the guest's MXCSR, runs its operations (all elements of a packed one), calls [`Env::commit`],
/// and delivers #XM (or #UD with CR4.OSXMMEXCPT clear) without writing its destination if that returns any flag.
/// x87 uses the same type with a synthetic MXCSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Env {
    csr: u32,
    raised: Flags,
}

impl Default for Env {
    /// The reset state 1F80h: nearest, everything masked, no flags.
    fn default() -> Env {
        Env::from_mxcsr(0x1f80)
    }
}

impl Env {
    /// An environment for one instruction executed under this MXCSR.
    #[inline]
    pub const fn from_mxcsr(mxcsr: u32) -> Env {
        Env { csr: mxcsr, raised: Flags::empty() }
    }

    /// MXCSR with the instruction's exceptions recorded. If one of them is unmasked and was detected before computation, those
    /// detected on results are dropped (SDM Vol. 1, 4.9.2): no result of any element was computed.
    #[inline]
    pub fn mxcsr(&self) -> u32 {
        let flags = if self.pre_fault() { self.raised & Flags::PRE } else { self.raised };
        self.csr | flags.bits() as u32
    }

    /// Sticky flags: those that were set before and those this instruction raised.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.mxcsr() as u8 & 0x3f)
    }

    /// Exceptions raised since the environment was made. A precision exception that is masked and already sticky may be left out.
    #[inline]
    pub fn raised(&self) -> Flags {
        self.raised
    }

    /// Raised exceptions that are unmasked: the instruction faults if there is one.
    #[inline]
    pub fn unmasked(&self) -> Flags {
        let raised = if self.pre_fault() { self.raised & Flags::PRE } else { self.raised };
        raised & !self.masks()
    }

    /// Ends an instruction: records its exceptions in the guest's MXCSR and returns those that are unmasked, as [`Env::mxcsr`] and
    /// [`Env::unmasked`] do. Quick if nothing was raised.
    #[inline]
    pub fn commit(&self, mxcsr: &mut u32) -> Flags {
        if self.raised.is_empty() {
            return Flags::empty();
        }
        *mxcsr |= self.mxcsr() & 0x3f;
        self.unmasked()
    }

    /// The mask bits: a set bit means that the exception does not fault.
    #[inline]
    pub fn masks(&self) -> Flags {
        Flags::from_bits_truncate((self.csr >> MASKS_SHIFT) as u8 & 0x3f)
    }

    /// Is this exception masked?
    #[inline]
    pub fn masked(&self, flag: Flags) -> bool {
        self.masks().contains(flag)
    }

    /// Rounding direction.
    #[inline]
    pub fn rounding(&self) -> Rounding {
        Rounding::from_bits(self.csr >> RC_SHIFT)
    }

    /// Replaces the rounding direction (static rounding, CVTT, ROUNDxx). Take it on a copy, or restore it before [`Env::mxcsr`].
    #[inline]
    pub fn set_rounding(&mut self, rounding: Rounding) {
        self.csr = (self.csr & !(3 << RC_SHIFT)) | ((rounding as u32) << RC_SHIFT);
    }

    /// Flush-to-zero; it acts only while underflow is masked (SDM Vol. 1, 10.2.3.3).
    #[inline]
    pub fn ftz(&self) -> bool {
        self.csr & FTZ != 0
    }

    /// Denormals-are-zeros.
    #[inline]
    pub fn daz(&self) -> bool {
        self.csr & DAZ != 0
    }

    /// Records exceptions.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.raised |= flags;
    }

    /// An exception of [`Flags::PRE`] is raised and unmasked: no result is to be computed.
    #[inline]
    pub fn pre_fault(&self) -> bool {
        !(self.raised & Flags::PRE & !self.masks()).is_empty()
    }

    /// Native arithmetic may be used if the result is normal: nearest, PE masked, and PE sticky so that exactness does not matter.
    #[inline]
    pub(crate) fn native(&self) -> bool {
        const PE_PM_RC: u32 = 1 << 5 | 1 << 12 | 3 << 13;
        self.csr & PE_PM_RC == (1 << 5 | 1 << 12)
    }

    /// An inexact result changes nothing: PE is masked and sticky.
    #[inline]
    pub(crate) fn inexact_is_silent(&self) -> bool {
        const PE_PM: u32 = 1 << 5 | 1 << 12;
        self.csr & PE_PM == PE_PM
    }

    #[inline]
    pub(crate) fn nearest(&self) -> bool {
        self.csr & (3 << RC_SHIFT) == 0
    }
}

/// Decodes the immediate of ROUNDPS/PD/SS/SD: the rounding direction (imm\[1:0\], or MXCSR.RC if imm\[2\]) and whether the precision
/// exception is suppressed (imm\[3\]).
#[inline]
pub fn round_imm(env: &Env, imm: u8) -> (Rounding, bool) {
    let rounding = if imm & 4 != 0 { env.rounding() } else { Rounding::from_bits(imm as u32) };
    (rounding, imm & 8 != 0)
}
