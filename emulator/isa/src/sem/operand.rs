//! Reading and writing operands.

use crate::emit::Emit;
use crate::insn::{Insn, Operand};
use crate::ops::{Bin, Width};

/// The value of operand `n`, zero-extended from its own width.
#[inline(always)]
pub(super) fn read<E: Emit>(e: &mut E, i: &Insn, n: usize) -> Result<E::V, E::Fault> {
    Ok(match i.ops[n] {
        Operand::Reg(r, w) => e.gpr(r, w),
        Operand::High(r) => high(e, r),
        Operand::Mem(bytes) => {
            let at = e.offset(i, &i.mem);
            let w = if bytes == 0 { i.width } else { Width::from_bytes(bytes as u8).unwrap_or(i.width) };
            return e.load(i.mem.seg, at, w);
        }
        Operand::Imm => e.imm(i.imm & i.width.mask()),
        Operand::Imm2 => e.imm(i.imm2),
        Operand::Seg(s) => e.selector(s),
        _ => e.imm(0),
    })
}

/// AH, CH, DH or BH.
fn high<E: Emit>(e: &mut E, r: u8) -> E::V {
    let v = e.gpr(r, Width::W);
    let eight = e.imm(8);
    e.bin(Bin::Shr, Width::W, v, eight)
}

/// Writes a register operand; any other kind is left alone.
#[inline(always)]
pub(super) fn write_reg<E: Emit>(e: &mut E, op: Operand, v: E::V) {
    match op {
        Operand::Reg(r, w) => e.set_gpr(r, w, v),
        Operand::High(r) => set_high(e, r, v),
        _ => {}
    }
}

fn set_high<E: Emit>(e: &mut E, r: u8, v: E::V) {
    let old = e.gpr(r, Width::W);
    let keep = e.imm(0xff);
    let low = e.bin(Bin::And, Width::W, old, keep);
    let eight = e.imm(8);
    let high = e.bin(Bin::Shl, Width::W, v, eight);
    let new = e.bin(Bin::Or, Width::W, low, high);
    e.set_gpr(r, Width::W, new);
}

/// Writes operand `n`, of width `i.width` when it is memory.
#[inline(always)]
pub(super) fn write<E: Emit>(e: &mut E, i: &Insn, n: usize, v: E::V) -> Result<(), E::Fault> {
    if let Operand::Mem(_) = i.ops[n] {
        let at = e.offset(i, &i.mem);
        e.store(i.mem.seg, at, i.width, v)
    } else {
        write_reg(e, i.ops[n], v);
        Ok(())
    }
}

/// Replaces operand 0 by `f` of itself. `f` sets flags itself; it runs when nothing can fault any more.
#[inline(always)]
pub(super) fn modify<E, F>(e: &mut E, i: &Insn, mut f: F) -> Result<(), E::Fault>
where
    E: Emit,
    F: FnMut(&mut E, E::V) -> E::V,
{
    if let Operand::Mem(_) = i.ops[0] {
        let at = e.offset(i, &i.mem);
        e.rmw(i.mem.seg, at, i.width, i.lock, f)
    } else {
        let old = read(e, i, 0)?;
        let new = f(e, old);
        write_reg(e, i.ops[0], new);
        Ok(())
    }
}
