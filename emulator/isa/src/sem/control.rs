//! Near control transfers.

use super::operand::read;
use super::stack::{pop_value, push_value};
use crate::emit::Emit;
use crate::insn::{Insn, Operand};
use crate::ops::{Bin, Cond, Rel, Width};
use iced_x86::Mnemonic as M;

type R<E> = Result<(), <E as Emit>::Fault>;

const CX: u8 = 1;
const SP: u8 = 4;

/// JMP rel: SDM Vol. 2, "JMP—Jump".
pub(super) fn jmp_rel<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    e.branch(None, i)
}

/// JMP r/m: SDM Vol. 2, "JMP—Jump".
pub(super) fn jmp<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let target = read(e, i, 0)?;
    e.check_ip(target)?;
    e.jump(target);
    Ok(())
}

/// Jcc: SDM Vol. 2, "Jcc—Jump if Condition Is Met".
pub(super) fn jcc<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let c = e.cond(i.cond);
    e.branch(Some(c), i)
}

/// CALL rel: SDM Vol. 2, "CALL—Call Procedure".
pub(super) fn call_rel<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.opsize;
    let next = e.next_ip(i);
    let disp = e.imm(i.imm & w.mask());
    let target = e.bin(Bin::Add, w, next, disp);
    e.check_ip(target)?;
    push_value(e, i, w, w, next)?;
    e.branch(None, i)
}

/// CALL r/m: SDM Vol. 2, "CALL—Call Procedure".
pub(super) fn call<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.opsize;
    let target = read(e, i, 0)?;
    e.check_ip(target)?;
    let next = e.next_ip(i);
    push_value(e, i, w, w, next)?;
    e.jump(target);
    Ok(())
}

/// RET: SDM Vol. 2, "RET—Return From Procedure".
pub(super) fn ret<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let sw = i.stack();
    let (target, mut sp) = pop_value(e, i, i.opsize)?;
    e.check_ip(target)?;
    if i.ops[0] == Operand::Imm {
        let n = e.imm(i.imm & 0xffff);
        sp = e.bin(Bin::Add, sw, sp, n);
    }
    e.set_gpr(SP, sw, sp);
    e.jump(target);
    Ok(())
}

/// LOOP, LOOPE, LOOPNE: SDM Vol. 2, "LOOP/LOOPcc—Loop According to ECX Counter". A target out of bounds leaves the count.
pub(super) fn loop_<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.addrsize;
    let count = e.gpr(CX, w);
    let one = e.imm(1);
    let count = e.bin(Bin::Sub, w, count, one);
    let zero = e.imm(0);
    let mut c = e.rel(Rel::Ne, w, count, zero);
    let also = match i.mnemonic {
        M::Loope => Some(e.cond(Cond::E)),
        M::Loopne => Some(e.cond(Cond::Ne)),
        _ => None,
    };
    if let Some(also) = also {
        c = e.bin(Bin::And, Width::B, c, also);
    }
    let next = e.next_ip(i);
    let disp = e.imm(i.imm & i.opsize.mask());
    let target = e.bin(Bin::Add, i.opsize, next, disp);
    e.when(c, |e| e.check_ip(target))?;
    e.set_gpr(CX, w, count);
    e.branch(Some(c), i)
}

/// JCXZ, JECXZ, JRCXZ: SDM Vol. 2, "Jcc—Jump if Condition Is Met".
pub(super) fn jcxz<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.addrsize;
    let count = e.gpr(CX, w);
    let zero = e.imm(0);
    let c = e.rel(Rel::Eq, w, count, zero);
    e.branch(Some(c), i)
}
