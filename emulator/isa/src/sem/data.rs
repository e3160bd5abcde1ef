//! Moves, exchanges and flag moves.

use super::operand::{modify, read, write, write_reg};
use crate::emit::Emit;
use crate::flags::{AF, CF, PF, SF, ZF};
use crate::insn::{Insn, Operand};
use crate::ops::{Bin, Cond, FlagsOp, Rel, Width};

type R<E> = Result<(), <E as Emit>::Fault>;

const AX: u8 = 0;
const DX: u8 = 2;
const BX: u8 = 3;

/// NOP and hints.
pub(super) fn nop<E: Emit>(_e: &mut E, _i: &Insn) -> R<E> {
    Ok(())
}

/// MOV: SDM Vol. 2, "MOV—Move". Storing a selector to memory writes 16 bits whatever the operand size.
pub(super) fn mov<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let v = read(e, i, 1)?;
    write(e, i, 0, v)
}

/// MOVZX: SDM Vol. 2, "MOVZX—Move With Zero-Extend".
pub(super) fn movzx<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let v = read(e, i, 1)?;
    write_reg(e, i.ops[0], v);
    Ok(())
}

/// MOVSX, MOVSXD: SDM Vol. 2, "MOVSX/MOVSXD—Move With Sign-Extension".
pub(super) fn movsx<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let from = match i.ops[1] {
        Operand::Reg(_, w) => w,
        Operand::Mem(bytes) => Width::from_bytes(bytes as u8).unwrap_or(Width::D),
        _ => Width::B,
    };
    let v = read(e, i, 1)?;
    let v = e.sext(from, i.width, v);
    write_reg(e, i.ops[0], v);
    Ok(())
}

/// LEA: SDM Vol. 2, "LEA—Load Effective Address".
pub(super) fn lea<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let at = e.offset(i, &i.mem);
    let at = e.trunc(i.width, at);
    write_reg(e, i.ops[0], at);
    Ok(())
}

/// XCHG: SDM Vol. 2, "XCHG—Exchange Register/Memory With Register". With memory it is locked by itself.
pub(super) fn xchg<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let b = read(e, i, 1)?;
    if let Operand::Mem(_) = i.ops[0] {
        let at = e.offset(i, &i.mem);
        return e.rmw(i.mem.seg, at, i.width, true, |e, a| {
            write_reg(e, i.ops[1], a);
            b
        });
    }
    let a = read(e, i, 0)?;
    write_reg(e, i.ops[1], a);
    write_reg(e, i.ops[0], b);
    Ok(())
}

/// XADD: SDM Vol. 2, "XADD—Exchange and Add".
pub(super) fn xadd<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let b = read(e, i, 1)?;
    modify(e, i, |e, a| {
        let r = e.bin(Bin::Add, w, a, b);
        e.flags(FlagsOp::Add, w, a, b, r);
        write_reg(e, i.ops[1], a);
        r
    })
}

/// CMPXCHG: SDM Vol. 2, "CMPXCHG—Compare and Exchange". The destination is always written, as the manual says.
pub(super) fn cmpxchg<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let new = read(e, i, 1)?;
    let expected = e.gpr(AX, w);
    if let Operand::Mem(_) = i.ops[0] {
        let at = e.offset(i, &i.mem);
        return e.rmw(i.mem.seg, at, w, i.lock, |e, old| {
            let equal = compare(e, w, expected, old);
            keep_old(e, w, equal, old);
            e.select(equal, new, old)
        });
    }
    let old = read(e, i, 0)?;
    let equal = compare(e, w, expected, old);
    // A 32-bit destination register is written (and so zero-extended) only on success; EAX only on failure.
    let _ = e.when(equal, |e| {
        write_reg(e, i.ops[0], new);
        Ok(())
    });
    keep_old(e, w, equal, old);
    Ok(())
}

fn compare<E: Emit>(e: &mut E, w: Width, a: E::V, b: E::V) -> E::V {
    let r = e.bin(Bin::Sub, w, a, b);
    e.flags(FlagsOp::Sub, w, a, b, r);
    e.rel(Rel::Eq, w, a, b)
}

fn keep_old<E: Emit>(e: &mut E, w: Width, equal: E::V, old: E::V) {
    let zero = e.imm(0);
    let differs = e.rel(Rel::Eq, Width::B, equal, zero);
    let _ = e.when(differs, |e| {
        e.set_gpr(AX, w, old);
        Ok(())
    });
}

/// BSWAP: SDM Vol. 2, "BSWAP—Byte Swap". With a 16-bit operand (undefined by the manual) chips write zero.
pub(super) fn bswap<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let v = read(e, i, 0)?;
    let r = if i.width == Width::W { e.imm(0) } else { e.un(crate::ops::Un::Bswap, i.width, v) };
    write_reg(e, i.ops[0], r);
    Ok(())
}

/// XLAT: SDM Vol. 2, "XLAT/XLATB—Table Look-up Translation".
pub(super) fn xlatb<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.addrsize;
    let base = e.gpr(BX, w);
    let index = e.gpr(AX, Width::B);
    let at = e.bin(Bin::Add, w, base, index);
    let v = e.load(i.mem.seg, at, Width::B)?;
    e.set_gpr(AX, Width::B, v);
    Ok(())
}

/// CBW, CWDE, CDQE: SDM Vol. 2, "CBW/CWDE/CDQE—Convert Byte to Word/...".
pub(super) fn sign_extend_a<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    use iced_x86::Mnemonic as M;
    let (from, to) = match i.mnemonic {
        M::Cbw => (Width::B, Width::W),
        M::Cwde => (Width::W, Width::D),
        _ => (Width::D, Width::Q),
    };
    let v = e.gpr(AX, from);
    let v = e.sext(from, to, v);
    e.set_gpr(AX, to, v);
    Ok(())
}

/// CWD, CDQ, CQO: SDM Vol. 2, "CWD/CDQ/CQO—Convert Word to Doubleword/...".
pub(super) fn sign_extend_da<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    use iced_x86::Mnemonic as M;
    let w = match i.mnemonic {
        M::Cwd => Width::W,
        M::Cdq => Width::D,
        _ => Width::Q,
    };
    let v = e.gpr(AX, w);
    let top = e.imm(u64::from(w.bits()) - 1);
    let v = e.bin(Bin::Sar, w, v, top);
    e.set_gpr(DX, w, v);
    Ok(())
}

/// SETcc: SDM Vol. 2, "SETcc—Set Byte on Condition".
pub(super) fn setcc<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let v = e.cond(i.cond);
    write(e, i, 0, v)
}

/// CMOVcc: SDM Vol. 2, "CMOVcc—Conditional Move". The source is read, and a 32-bit destination zero-extended, in any case.
pub(super) fn cmovcc<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let b = read(e, i, 1)?;
    let a = read(e, i, 0)?;
    let c = e.cond(i.cond);
    let v = e.select(c, b, a);
    write_reg(e, i.ops[0], v);
    Ok(())
}

/// LAHF: SDM Vol. 2, "LAHF—Load Status Flags Into AH Register".
pub(super) fn lahf<E: Emit>(e: &mut E, _i: &Insn) -> R<E> {
    let flags = e.flags_word();
    let keep = e.imm((CF | PF | AF | ZF | SF).into());
    let fixed = e.imm(2);
    let v = e.bin(Bin::And, Width::D, flags, keep);
    let v = e.bin(Bin::Or, Width::D, v, fixed);
    write_reg(e, Operand::High(AX), v);
    Ok(())
}

/// SAHF: SDM Vol. 2, "SAHF—Store AH Into Flags".
pub(super) fn sahf<E: Emit>(e: &mut E, _i: &Insn) -> R<E> {
    let ax = e.gpr(AX, Width::W);
    let eight = e.imm(8);
    let ah = e.bin(Bin::Shr, Width::W, ax, eight);
    e.set_flags_word(CF | PF | AF | ZF | SF, ah);
    Ok(())
}

/// CLC: SDM Vol. 2, "CLC—Clear Carry Flag".
pub(super) fn clc<E: Emit>(e: &mut E, _i: &Insn) -> R<E> {
    let zero = e.imm(0);
    e.set_flags_word(CF, zero);
    Ok(())
}

/// STC: SDM Vol. 2, "STC—Set Carry Flag".
pub(super) fn stc<E: Emit>(e: &mut E, _i: &Insn) -> R<E> {
    let one = e.imm(1);
    e.set_flags_word(CF, one);
    Ok(())
}

/// CMC: SDM Vol. 2, "CMC—Complement Carry Flag".
pub(super) fn cmc<E: Emit>(e: &mut E, _i: &Insn) -> R<E> {
    let v = e.cond(Cond::Ae);
    e.set_flags_word(CF, v);
    Ok(())
}
