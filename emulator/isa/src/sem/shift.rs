//! Shifts and rotates. RCL and RCR, which loop through CF, are the CPU's.

use super::operand::{modify, read};
use crate::emit::Emit;
use crate::flags::{CF, OF};
use crate::insn::{Insn, Operand};
use crate::model::Generation;
use crate::ops::{Bin, FlagsOp, Rel, Width};
use iced_x86::Mnemonic as M;

type R<E> = Result<(), <E as Emit>::Fault>;

/// A shift count, masked to 5 bits (6 for 64-bit operands).
enum Count<V> {
    Known(u64),
    Value(V),
}

#[inline(always)]
fn count<E: Emit>(e: &mut E, i: &Insn, n: usize) -> Result<Count<E::V>, E::Fault> {
    let mask = if i.width == Width::Q { 63 } else { 31 };
    if i.ctx.generation() == Generation::I8086 && i.ops[n] != Operand::None {
        // It shifts as often as CL says.
        return Ok(Count::Value(read(e, i, n)?));
    }
    Ok(match i.ops[n] {
        Operand::Imm => Count::Known(i.imm & mask),
        Operand::None => Count::Known(1),
        _ => {
            let v = read(e, i, n)?;
            let mask = e.imm(mask);
            Count::Value(e.bin(Bin::And, Width::B, v, mask))
        }
    })
}

#[inline(always)]
fn shift<E: Emit>(e: &mut E, i: &Insn, op: Bin, flags: FlagsOp) -> R<E> {
    let w = i.width;
    let mut n = count(e, i, 1)?;
    if i.ctx.generation() == Generation::I8086 {
        if i.mnemonic == M::Sal {
            return set_minus_one(e, i, n);
        }
        n = at_most_63(e, n);
    }
    modify(e, i, |e, a| match n {
        Count::Known(0) => a,
        Count::Known(n) => {
            let n = e.imm(n);
            let r = e.bin(op, w, a, n);
            e.flags(flags, w, a, n, r);
            r
        }
        Count::Value(n) => {
            let r = e.bin(op, w, a, n);
            // A `when` whose body cannot fault.
            let _ = e.when(n, |e| {
                e.flags(flags, w, a, n, r);
                Ok(())
            });
            r
        }
    })
}

/// An 8086's count, cut to what makes no difference.
fn at_most_63<E: Emit>(e: &mut E, n: Count<E::V>) -> Count<E::V> {
    match n {
        Count::Known(n) => Count::Known(n),
        Count::Value(n) => {
            let most = e.imm(63);
            let more = e.rel(Rel::Ult, Width::B, most, n);
            Count::Value(e.select(more, most, n))
        }
    }
}

/// SETMO and SETMOC, an 8086's D0h-D3h /6: all ones, unless the count is zero (Ken Shirriff and others, from the die). The flags
/// are those of an OR that gave it.
fn set_minus_one<E: Emit>(e: &mut E, i: &Insn, n: Count<E::V>) -> R<E> {
    let w = i.width;
    let n = match n {
        Count::Known(n) => e.imm(n),
        Count::Value(n) => n,
    };
    modify(e, i, |e, a| {
        let ones = e.imm(w.mask());
        let _ = e.when(n, |e| {
            let ones = e.imm(w.mask());
            e.flags(FlagsOp::Logic, w, ones, ones, ones);
            Ok(())
        });
        e.select(n, ones, a)
    })
}

/// SHL/SAL: SDM Vol. 2, "SAL/SAR/SHL/SHR—Shift".
pub(super) fn shl<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    shift(e, i, Bin::Shl, FlagsOp::Shl)
}

/// SHR: SDM Vol. 2, "SAL/SAR/SHL/SHR—Shift".
pub(super) fn shr<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    shift(e, i, Bin::Shr, FlagsOp::Shr)
}

/// SAR: SDM Vol. 2, "SAL/SAR/SHL/SHR—Shift".
pub(super) fn sar<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    shift(e, i, Bin::Sar, FlagsOp::Sar)
}

/// ROL: SDM Vol. 2, "RCL/RCR/ROL/ROR—Rotate".
pub(super) fn rol<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    rotate(e, i, Bin::Rol)
}

/// ROR: SDM Vol. 2, "RCL/RCR/ROL/ROR—Rotate".
pub(super) fn ror<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    rotate(e, i, Bin::Ror)
}

fn rotate<E: Emit>(e: &mut E, i: &Insn, op: Bin) -> R<E> {
    let w = i.width;
    let n = count(e, i, 1)?;
    modify(e, i, |e, a| match n {
        Count::Known(0) => a,
        Count::Known(n) => {
            let n = e.imm(n);
            let r = e.bin(op, w, a, n);
            rotate_flags(e, w, op, r);
            r
        }
        Count::Value(n) => {
            let r = e.bin(op, w, a, n);
            let _ = e.when(n, |e| {
                rotate_flags(e, w, op, r);
                Ok(())
            });
            r
        }
    })
}

/// CF is the bit that was rotated around; OF, defined for count 1, is CF xor the sign (ROL) or the xor of the
/// top two bits (ROR). The other flags stay.
fn rotate_flags<E: Emit>(e: &mut E, w: Width, op: Bin, r: E::V) {
    let top = bit(e, w, r, w.bits() - 1);
    let (carry, overflow) = if op == Bin::Rol {
        let low = bit(e, w, r, 0);
        (low, e.bin(Bin::Xor, Width::D, low, top))
    } else {
        let second = bit(e, w, r, w.bits() - 2);
        (top, e.bin(Bin::Xor, Width::D, top, second))
    };
    set_cf_of(e, carry, overflow);
}

fn bit<E: Emit>(e: &mut E, w: Width, v: E::V, n: u32) -> E::V {
    let count = e.imm(n.into());
    let one = e.imm(1);
    let v = e.bin(Bin::Shr, w, v, count);
    e.bin(Bin::And, w, v, one)
}

fn set_cf_of<E: Emit>(e: &mut E, carry: E::V, overflow: E::V) {
    let eleven = e.imm(11);
    let of = e.bin(Bin::Shl, Width::D, overflow, eleven);
    let word = e.bin(Bin::Or, Width::D, carry, of);
    e.set_flags_word(CF | OF, word);
}

/// SHLD: SDM Vol. 2, "SHLD—Double Precision Shift Left".
pub(super) fn shld<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    double(e, i, true)
}

/// SHRD: SDM Vol. 2, "SHRD—Double Precision Shift Right".
pub(super) fn shrd<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    double(e, i, false)
}

fn double<E: Emit>(e: &mut E, i: &Insn, left: bool) -> R<E> {
    let w = i.width;
    let fill = read(e, i, 1)?;
    let n = match count(e, i, 2)? {
        Count::Known(n) => e.imm(n),
        Count::Value(n) => n,
    };
    modify(e, i, |e, a| {
        let r = double_result(e, w, a, fill, n, left);
        let _ = e.when(n, |e| {
            double_flags(e, w, a, n, r, left);
            Ok(())
        });
        r
    })
}

/// `a` shifted by `n`, filled from `b`; `n` = 0 gives `a`. For 16-bit operands and counts above 16 (undefined by the
/// manual) the fill comes round again: the chips shift the 48-bit string a:b:a.
fn double_result<E: Emit>(e: &mut E, w: Width, a: E::V, b: E::V, n: E::V, left: bool) -> E::V {
    let zero = e.imm(0);
    let is_zero = e.rel(Rel::Eq, Width::B, n, zero);
    if w == Width::W {
        return double_result_16(e, a, b, n, left);
    }
    let bits = e.imm(w.bits().into());
    let rest = e.bin(Bin::Sub, Width::B, bits, n);
    let (there, back) = if left { (Bin::Shl, Bin::Shr) } else { (Bin::Shr, Bin::Shl) };
    let main = e.bin(there, w, a, n);
    let fill = e.bin(back, w, b, rest);
    let fill = e.select(is_zero, zero, fill);
    e.bin(Bin::Or, w, main, fill)
}

fn double_result_16<E: Emit>(e: &mut E, a: E::V, b: E::V, n: E::V, left: bool) -> E::V {
    let (sixteen, thirty_two) = (e.imm(16), e.imm(32));
    let (high, low) = if left { (a, b) } else { (a, a) };
    let middle = b;
    let high = e.bin(Bin::Shl, Width::Q, high, thirty_two);
    let middle = e.bin(Bin::Shl, Width::Q, middle, sixteen);
    let low = if left { a } else { low };
    let string = e.bin(Bin::Or, Width::Q, high, middle);
    let string = e.bin(Bin::Or, Width::Q, string, low);
    let r = if left {
        let s = e.bin(Bin::Shl, Width::Q, string, n);
        e.bin(Bin::Shr, Width::Q, s, thirty_two)
    } else {
        e.bin(Bin::Shr, Width::Q, string, n)
    };
    e.trunc(Width::W, r)
}

/// CF is the last bit shifted out of `a`; OF tells whether the sign changed.
fn double_flags<E: Emit>(e: &mut E, w: Width, a: E::V, n: E::V, r: E::V, left: bool) {
    let one = e.imm(1);
    let zero = e.imm(0);
    e.flags(FlagsOp::Logic, w, zero, zero, r);
    let carry = if left {
        let bits = e.imm(w.bits().into());
        let at = e.bin(Bin::Sub, Width::B, bits, n);
        e.bin(Bin::Shr, w, a, at)
    } else {
        let at = e.bin(Bin::Sub, Width::B, n, one);
        e.bin(Bin::Shr, w, a, at)
    };
    let carry = e.bin(Bin::And, w, carry, one);
    let changed = e.bin(Bin::Xor, w, a, r);
    let overflow = bit(e, w, changed, w.bits() - 1);
    set_cf_of(e, carry, overflow);
}
