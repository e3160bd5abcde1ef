//! BMI1, BMI2, LZCNT, ADX and MOVBE.

use super::operand::{read, write, write_reg};
use crate::emit::Emit;
use crate::flags::{ARITH, CF, OF};
use crate::insn::Insn;
use crate::ops::{Bin, Cond, FlagsOp, Rel, Un, Width};
use iced_x86::Mnemonic as M;

type R<E> = Result<(), <E as Emit>::Fault>;

const DX: u8 = 2;

/// Writes operand 0 and sets the flags of the result, with CF as given and OF clear. AF and PF, which the manual leaves undefined,
/// are as AMD's Zen 4 has them: AF clear, PF of the result.
fn finish<E: Emit>(e: &mut E, i: &Insn, r: E::V, carry: Option<E::V>) {
    let zero = e.imm(0);
    e.flags(FlagsOp::Logic, i.width, zero, zero, r);
    if let Some(carry) = carry {
        e.set_flags_word(CF, carry);
    }
    write_reg(e, i.ops[0], r);
}

/// ANDN: SDM Vol. 2, "ANDN—Logical AND NOT".
pub(super) fn andn<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let b = read(e, i, 2)?;
    let a = read(e, i, 1)?;
    let a = e.un(Un::Not, w, a);
    let r = e.bin(Bin::And, w, a, b);
    finish(e, i, r, None);
    Ok(())
}

/// BLSI: SDM Vol. 2, "BLSI—Extract Lowest Set Isolated Bit".
pub(super) fn blsi<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let a = read(e, i, 1)?;
    let negative = e.un(Un::Neg, w, a);
    let r = e.bin(Bin::And, w, a, negative);
    let zero = e.imm(0);
    let carry = e.rel(Rel::Ne, w, a, zero);
    finish(e, i, r, Some(carry));
    Ok(())
}

/// BLSMSK: SDM Vol. 2, "BLSMSK—Get Mask Up to Lowest Set Bit".
pub(super) fn blsmsk<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    lowest(e, i, Bin::Xor)
}

/// BLSR: SDM Vol. 2, "BLSR—Reset Lowest Set Bit".
pub(super) fn blsr<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    lowest(e, i, Bin::And)
}

fn lowest<E: Emit>(e: &mut E, i: &Insn, op: Bin) -> R<E> {
    let w = i.width;
    let a = read(e, i, 1)?;
    let (zero, one) = (e.imm(0), e.imm(1));
    let below = e.bin(Bin::Sub, w, a, one);
    let r = e.bin(op, w, a, below);
    let carry = e.rel(Rel::Eq, w, a, zero);
    finish(e, i, r, Some(carry));
    Ok(())
}

/// All ones below bit `n`; `n` up to the width, which gives all ones.
fn mask_below<E: Emit>(e: &mut E, w: Width, n: E::V) -> E::V {
    let (one, ones, bits) = (e.imm(1), e.imm(w.mask()), e.imm(w.bits().into()));
    let bit = e.bin(Bin::Shl, w, one, n);
    let below = e.bin(Bin::Sub, w, bit, one);
    let inside = e.rel(Rel::Ult, Width::D, n, bits);
    e.select(inside, below, ones)
}

/// BEXTR: SDM Vol. 2, "BEXTR—Bit Field Extract".
pub(super) fn bextr<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let a = read(e, i, 1)?;
    let control = read(e, i, 2)?;
    let (byte, eight, bits, zero) = (e.imm(0xff), e.imm(8), e.imm(w.bits().into()), e.imm(0));
    let start = e.bin(Bin::And, Width::D, control, byte);
    let len = e.bin(Bin::Shr, Width::D, control, eight);
    let len = e.bin(Bin::And, Width::D, len, byte);
    let shifted = e.bin(Bin::Shr, w, a, start);
    let inside = e.rel(Rel::Ult, Width::D, start, bits);
    let shifted = e.select(inside, shifted, zero);
    let mask = mask_below(e, w, len);
    let r = e.bin(Bin::And, w, shifted, mask);
    zero_flag_only(e, i, r);
    Ok(())
}

/// ZF of the result alone; the other flags are clear.
fn zero_flag_only<E: Emit>(e: &mut E, i: &Insn, r: E::V) {
    let (zero, six) = (e.imm(0), e.imm(6));
    let is_zero = e.rel(Rel::Eq, i.width, r, zero);
    let word = e.bin(Bin::Shl, Width::D, is_zero, six);
    e.set_flags_word(ARITH, word);
    write_reg(e, i.ops[0], r);
}

/// BZHI: SDM Vol. 2, "BZHI—Zero High Bits Starting with Specified Bit Position".
pub(super) fn bzhi<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let a = read(e, i, 1)?;
    let n = read(e, i, 2)?;
    let (byte, last) = (e.imm(0xff), e.imm(u64::from(w.bits()) - 1));
    let n = e.bin(Bin::And, Width::D, n, byte);
    let mask = mask_below(e, w, n);
    let r = e.bin(Bin::And, w, a, mask);
    let carry = e.rel(Rel::Ult, Width::D, last, n);
    finish(e, i, r, Some(carry));
    Ok(())
}

/// MULX: SDM Vol. 2, "MULX—Unsigned Multiply Without Affecting Flags". With both destinations the same the high half stays.
pub(super) fn mulx<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let b = read(e, i, 2)?;
    let a = e.gpr(DX, w);
    let low = e.bin(Bin::Mul, w, a, b);
    let high = e.bin(Bin::MulHiU, w, a, b);
    write_reg(e, i.ops[1], low);
    write_reg(e, i.ops[0], high);
    Ok(())
}

/// RORX: SDM Vol. 2, "RORX—Rotate Right Logical Without Affecting Flags".
pub(super) fn rorx<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let a = read(e, i, 1)?;
    let n = e.imm(i.imm & u64::from(w.bits() - 1));
    let r = e.bin(Bin::Ror, w, a, n);
    write_reg(e, i.ops[0], r);
    Ok(())
}

/// SARX, SHLX, SHRX: SDM Vol. 2, "SARX/SHLX/SHRX—Shift Without Affecting Flags".
pub(super) fn shiftx<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let a = read(e, i, 1)?;
    let n = read(e, i, 2)?;
    let mask = e.imm(u64::from(w.bits()) - 1);
    let n = e.bin(Bin::And, Width::D, n, mask);
    let op = match i.mnemonic {
        M::Shlx => Bin::Shl,
        M::Shrx => Bin::Shr,
        _ => Bin::Sar,
    };
    let r = e.bin(op, w, a, n);
    write_reg(e, i.ops[0], r);
    Ok(())
}

/// LZCNT: SDM Vol. 2, "LZCNT—Count the Number of Leading Zero Bits".
pub(super) fn lzcnt<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    zeros(e, i, Un::Clz)
}

/// TZCNT: SDM Vol. 2, "TZCNT—Count the Number of Trailing Zero Bits".
pub(super) fn tzcnt<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    zeros(e, i, Un::Ctz)
}

/// CF tells that the source is zero, ZF that the count is. The other flags are undefined; a Zen 4 keeps OF and clears the rest.
fn zeros<E: Emit>(e: &mut E, i: &Insn, op: Un) -> R<E> {
    let w = i.width;
    let v = read(e, i, 1)?;
    let n = e.un(op, w, v);
    let (zero, six) = (e.imm(0), e.imm(6));
    let carry = e.rel(Rel::Eq, w, v, zero);
    let is_zero = e.rel(Rel::Eq, w, n, zero);
    let zf = e.bin(Bin::Shl, Width::D, is_zero, six);
    let word = e.bin(Bin::Or, Width::D, zf, carry);
    e.set_flags_word(ARITH & !OF, word);
    write_reg(e, i.ops[0], n);
    Ok(())
}

/// ADCX: SDM Vol. 2, "ADCX—Unsigned Integer Addition of Two Operands With Carry Flag".
pub(super) fn adcx<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    add_chain(e, i, Cond::B, CF)
}

/// ADOX: SDM Vol. 2, "ADOX—Unsigned Integer Addition of Two Operands With Overflow Flag".
pub(super) fn adox<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    add_chain(e, i, Cond::O, OF)
}

/// Adds with one flag as carry in and out.
fn add_chain<E: Emit>(e: &mut E, i: &Insn, flag: Cond, bit: u32) -> R<E> {
    let w = i.width;
    let b = read(e, i, 1)?;
    let a = read(e, i, 0)?;
    let carry = e.cond(flag);
    let sum = e.bin(Bin::Add, w, a, b);
    let r = e.bin(Bin::Add, w, sum, carry);
    let first = e.rel(Rel::Ult, w, sum, a);
    let second = e.rel(Rel::Ult, w, r, sum);
    let out = e.bin(Bin::Or, Width::D, first, second);
    let at = e.imm(bit.trailing_zeros().into());
    let word = e.bin(Bin::Shl, Width::D, out, at);
    e.set_flags_word(bit, word);
    write_reg(e, i.ops[0], r);
    Ok(())
}

/// MOVBE: SDM Vol. 2, "MOVBE—Move Data After Swapping Bytes".
pub(super) fn movbe<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let v = read(e, i, 1)?;
    let v = e.un(Un::Bswap, i.width, v);
    write(e, i, 0, v)
}
