//! PUSH, POP and LEAVE.

use super::operand::{read, write_reg};
use crate::emit::Emit;
use crate::insn::{Insn, Operand, Seg};
use crate::model::Generation;
use crate::ops::{Bin, Width};

type R<E> = Result<(), <E as Emit>::Fault>;

const SP: u8 = 4;
const BP: u8 = 5;

/// Pushes `v` in a slot of width `slot`, writing only `w` bytes of it.
#[inline(always)]
pub(super) fn push_value<E: Emit>(e: &mut E, i: &Insn, slot: Width, w: Width, v: E::V) -> R<E> {
    let sw = i.stack();
    let sp = e.gpr(SP, sw);
    let size = e.imm(slot.bytes().into());
    let sp = e.bin(Bin::Sub, sw, sp, size);
    e.store(Seg::Ss, sp, w, v)?;
    e.set_gpr(SP, sw, sp);
    Ok(())
}

/// The value on top of the stack and the stack pointer above it, which is not committed yet.
#[inline(always)]
pub(super) fn pop_value<E: Emit>(e: &mut E, i: &Insn, w: Width) -> Result<(E::V, E::V), E::Fault> {
    let sw = i.stack();
    let sp = e.gpr(SP, sw);
    let v = e.load(Seg::Ss, sp, w)?;
    let size = e.imm(w.bytes().into());
    let sp = e.bin(Bin::Add, sw, sp, size);
    Ok((v, sp))
}

/// PUSH: SDM Vol. 2, "PUSH—Push Word, Doubleword, or Quadword Onto the Stack". A segment register fills only the
/// low 16 bits of its slot.
pub(super) fn push<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let slot = i.opsize;
    match i.ops[0] {
        Operand::Seg(seg) => {
            let v = e.selector(seg);
            let w = if slot == Width::W { Width::W } else { stored_selector(i) };
            push_value(e, i, slot, w, v)
        }
        Operand::Imm => {
            let v = e.imm(i.imm & slot.mask());
            push_value(e, i, slot, slot, v)
        }
        _ => {
            let mut v = read(e, i, 0)?;
            if i.ctx.generation() == Generation::I8086 && i.ops[0] == Operand::Reg(SP, Width::W) {
                // The 8086 stores what SP is by then (SDM Vol. 3, "Architecture Compatibility", PUSH SP).
                let two = e.imm(2);
                v = e.bin(Bin::Sub, Width::W, v, two);
            }
            push_value(e, i, slot, slot, v)
        }
    }
}

/// 64-bit mode writes the whole slot, zero-extended; 32-bit code writes 16 bits and leaves the rest (SDM Vol. 2, PUSH).
fn stored_selector(i: &Insn) -> Width {
    if i.opsize == Width::Q { Width::Q } else { Width::W }
}

/// POP: SDM Vol. 2, "POP—Pop a Value From the Stack". An address with the stack pointer uses its value after the pop.
pub(super) fn pop<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.opsize;
    let (v, sp) = pop_value(e, i, w)?;
    if let Operand::Mem(_) = i.ops[0] {
        let mut m = i.mem;
        if m.base == SP {
            m.disp = m.disp.wrapping_add(w.bytes().into()) & m.width.mask();
        }
        let at = e.offset(i, &m);
        e.store(m.seg, at, w, v)?;
        e.set_gpr(SP, i.stack(), sp);
        return Ok(());
    }
    e.set_gpr(SP, i.stack(), sp);
    write_reg(e, i.ops[0], v);
    Ok(())
}

/// LEAVE: SDM Vol. 2, "LEAVE—High Level Procedure Exit".
pub(super) fn leave<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let sw = i.stack();
    let w = i.opsize;
    let bp = e.gpr(BP, sw);
    let v = e.load(Seg::Ss, bp, w)?;
    let size = e.imm(w.bytes().into());
    let sp = e.bin(Bin::Add, sw, bp, size);
    e.set_gpr(SP, sw, sp);
    e.set_gpr(BP, w, v);
    Ok(())
}
