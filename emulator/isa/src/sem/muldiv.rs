//! Multiplication and division.

use super::operand::{read, write_reg};
use crate::emit::{Emit, Raise};
use crate::insn::{Insn, Operand, Rep};
use crate::model::Generation;
use crate::ops::{Bin, FlagsOp, Rel, Un, Width};

type R<E> = Result<(), <E as Emit>::Fault>;

const AX: u8 = 0;
const DX: u8 = 2;

/// MUL: SDM Vol. 2, "MUL—Unsigned Multiply".
pub(super) fn mul<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let b = read(e, i, 0)?;
    let a = e.gpr(AX, w);
    let low = e.bin(Bin::Mul, w, a, b);
    let high = e.bin(Bin::MulHiU, w, a, b);
    e.flags(FlagsOp::Mul, w, a, high, low);
    set_double(e, w, high, low);
    Ok(())
}

/// IMUL: SDM Vol. 2, "IMUL—Signed Multiply".
pub(super) fn imul<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    if i.ops[1] == Operand::None {
        let b = read(e, i, 0)?;
        let a = e.gpr(AX, w);
        let (high, low) = signed_product(e, w, a, b);
        set_double(e, w, high, low);
        return Ok(());
    }
    let (a, b) = if i.ops[2] == Operand::None { (read(e, i, 0)?, read(e, i, 1)?) } else { (read(e, i, 1)?, read(e, i, 2)?) };
    let (_, low) = signed_product(e, w, a, b);
    write_reg(e, i.ops[0], low);
    Ok(())
}

/// The signed product (high, low), with CF and OF set when the high half is not the low half's sign.
fn signed_product<E: Emit>(e: &mut E, w: Width, a: E::V, b: E::V) -> (E::V, E::V) {
    let low = e.bin(Bin::Mul, w, a, b);
    let high = e.bin(Bin::MulHiS, w, a, b);
    let top = e.imm(u64::from(w.bits()) - 1);
    let sign = e.bin(Bin::Sar, w, low, top);
    let overflow = e.rel(Rel::Ne, w, high, sign);
    e.flags(FlagsOp::Mul, w, a, overflow, low);
    (high, low)
}

/// Writes AX, DX:AX, EDX:EAX or RDX:RAX.
fn set_double<E: Emit>(e: &mut E, w: Width, high: E::V, low: E::V) {
    if w == Width::B {
        let eight = e.imm(8);
        let high = e.bin(Bin::Shl, Width::W, high, eight);
        let both = e.bin(Bin::Or, Width::W, high, low);
        e.set_gpr(AX, Width::W, both);
    } else {
        e.set_gpr(AX, w, low);
        e.set_gpr(DX, w, high);
    }
}

/// DIV: SDM Vol. 2, "DIV—Unsigned Divide".
pub(super) fn div<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    divide(e, i, false)
}

/// IDIV: SDM Vol. 2, "IDIV—Signed Divide".
pub(super) fn idiv<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    divide(e, i, true)
}

fn divide<E: Emit>(e: &mut E, i: &Insn, signed: bool) -> R<E> {
    let w = i.width;
    let d = read(e, i, 0)?;
    let low = e.gpr(AX, w);
    let high = if w == Width::B {
        let ax = e.gpr(AX, Width::W);
        let eight = e.imm(8);
        e.bin(Bin::Shr, Width::W, ax, eight)
    } else {
        e.gpr(DX, w)
    };
    let (mut quotient, remainder) = e.div(w, signed, high, low, d)?;
    if signed && i.ctx.generation() == Generation::I8086 {
        quotient = quotient_8086(e, i, quotient)?;
    }
    if w == Width::B {
        let eight = e.imm(8);
        let high = e.bin(Bin::Shl, Width::W, remainder, eight);
        let both = e.bin(Bin::Or, Width::W, high, quotient);
        e.set_gpr(AX, Width::W, both);
    } else {
        e.set_gpr(AX, w, quotient);
        e.set_gpr(DX, w, remainder);
    }
    Ok(())
}

/// An 8086 divides magnitudes: the most negative quotient is one too many; and with a REP prefix, which its microcode keeps in the
/// flag for the sign, the quotient is negated.
fn quotient_8086<E: Emit>(e: &mut E, i: &Insn, quotient: E::V) -> Result<E::V, E::Fault> {
    let lowest = e.imm(i.width.sign());
    let overflow = e.rel(Rel::Eq, i.width, quotient, lowest);
    e.raise_if(overflow, Raise::DivideError)?;
    Ok(if i.rep == Rep::None { quotient } else { e.un(Un::Neg, i.width, quotient) })
}

/// Division of the double-width `hi:lo` on plain integers: (quotient, remainder), `None` for #DE.
#[must_use]
pub fn divide_values(w: Width, signed: bool, hi: u64, lo: u64, d: u64) -> Option<(u64, u64)> {
    let bits = w.bits();
    let n = u128::from(hi) << bits | u128::from(lo);
    if signed {
        let shift = 128 - 2 * bits;
        let n = ((n << shift) as i128) >> shift;
        let d = i128::from(w.sext(d) as i64);
        let q = n.checked_div(d)?;
        let r = n.checked_rem(d)?;
        let limit = 1i128 << (bits - 1);
        (-limit..limit).contains(&q).then_some((q as u64 & w.mask(), r as u64 & w.mask()))
    } else {
        let q = n.checked_div(d.into())?;
        let r = n.checked_rem(d.into())?;
        (q <= u128::from(w.mask())).then_some((q as u64, r as u64))
    }
}
