//! Arithmetic and logic with two operands, and their one-operand kin.

use super::operand::{modify, read};
use crate::emit::Emit;
use crate::insn::Insn;
use crate::ops::{Bin, Cond, FlagsOp, Un};

type R<E> = Result<(), <E as Emit>::Fault>;

#[inline(always)]
fn binary<E: Emit>(e: &mut E, i: &Insn, op: Bin, flags: FlagsOp) -> R<E> {
    let w = i.width;
    let b = read(e, i, 1)?;
    modify(e, i, |e, a| {
        let r = e.bin(op, w, a, b);
        e.flags(flags, w, a, b, r);
        r
    })
}

/// ADD: SDM Vol. 2, "ADD—Add".
pub(super) fn add<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    binary(e, i, Bin::Add, FlagsOp::Add)
}

/// SUB: SDM Vol. 2, "SUB—Subtract".
pub(super) fn sub<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    binary(e, i, Bin::Sub, FlagsOp::Sub)
}

/// AND: SDM Vol. 2, "AND—Logical AND".
pub(super) fn and<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    binary(e, i, Bin::And, FlagsOp::Logic)
}

/// OR: SDM Vol. 2, "OR—Logical Inclusive OR".
pub(super) fn or<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    binary(e, i, Bin::Or, FlagsOp::Logic)
}

/// XOR: SDM Vol. 2, "XOR—Logical Exclusive OR".
pub(super) fn xor<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    if i.ops[0] == i.ops[1] && !matches!(i.ops[0], crate::insn::Operand::High(_)) {
        return zero_idiom(e, i);
    }
    binary(e, i, Bin::Xor, FlagsOp::Logic)
}

/// A register exclusive-ored with itself is zero whatever it held.
fn zero_idiom<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let zero = e.imm(0);
    e.flags(FlagsOp::Logic, i.width, zero, zero, zero);
    super::operand::write_reg(e, i.ops[0], zero);
    Ok(())
}

/// ADC: SDM Vol. 2, "ADC—Add With Carry".
pub(super) fn adc<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    with_carry(e, i, Bin::Add, FlagsOp::Adc)
}

/// SBB: SDM Vol. 2, "SBB—Integer Subtraction With Borrow".
pub(super) fn sbb<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    with_carry(e, i, Bin::Sub, FlagsOp::Sbb)
}

#[inline(always)]
fn with_carry<E: Emit>(e: &mut E, i: &Insn, op: Bin, flags: FlagsOp) -> R<E> {
    let w = i.width;
    let b = read(e, i, 1)?;
    let c = e.cond(Cond::B);
    modify(e, i, |e, a| {
        let r = e.bin(op, w, a, b);
        let r = e.bin(op, w, r, c);
        e.flags(flags, w, a, b, r);
        r
    })
}

/// CMP: SDM Vol. 2, "CMP—Compare Two Operands".
pub(super) fn cmp<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let a = read(e, i, 0)?;
    let b = read(e, i, 1)?;
    let r = e.bin(Bin::Sub, i.width, a, b);
    e.flags(FlagsOp::Sub, i.width, a, b, r);
    Ok(())
}

/// TEST: SDM Vol. 2, "TEST—Logical Compare".
pub(super) fn test<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let a = read(e, i, 0)?;
    let b = read(e, i, 1)?;
    let r = e.bin(Bin::And, i.width, a, b);
    e.flags(FlagsOp::Logic, i.width, a, b, r);
    Ok(())
}

/// INC: SDM Vol. 2, "INC—Increment by 1".
pub(super) fn inc<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    step(e, i, Bin::Add, FlagsOp::Inc)
}

/// DEC: SDM Vol. 2, "DEC—Decrement by 1".
pub(super) fn dec<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    step(e, i, Bin::Sub, FlagsOp::Dec)
}

#[inline(always)]
fn step<E: Emit>(e: &mut E, i: &Insn, op: Bin, flags: FlagsOp) -> R<E> {
    let w = i.width;
    modify(e, i, |e, a| {
        let carry = e.cond(Cond::B);
        let one = e.imm(1);
        let r = e.bin(op, w, a, one);
        e.flags(flags, w, a, carry, r);
        r
    })
}

/// NEG: SDM Vol. 2, "NEG—Two's Complement Negation".
pub(super) fn neg<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    modify(e, i, |e, b| {
        let zero = e.imm(0);
        let r = e.un(Un::Neg, w, b);
        e.flags(FlagsOp::Sub, w, zero, b, r);
        r
    })
}

/// NOT: SDM Vol. 2, "NOT—One's Complement Negation".
pub(super) fn not<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    modify(e, i, |e, a| e.un(Un::Not, w, a))
}
