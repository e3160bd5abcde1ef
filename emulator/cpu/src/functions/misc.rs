//! Rare integer instructions: rotates through carry, BCD arithmetic, frames and register-set pushes, wide compare-exchange.

use super::Function;
use crate::Cpu;
use crate::fault::{Fault, vector};
use crate::state::rflags;
use egret_isa::Generation;
use egret_isa::emit::Emit;
use egret_isa::flags::{AF, ARITH, CF, OF, PF, SF, ZF};
use egret_isa::insn::{Insn, Operand, Seg};
use egret_isa::ops::{Cond, Width};
use iced_x86::Mnemonic as M;

const AX: u8 = 0;
const CX: u8 = 1;
const DX: u8 = 2;
const BX: u8 = 3;
const SP: u8 = 4;
const BP: u8 = 5;

pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Rcl | M::Rcr => rotate_through_carry,
        M::Aaa => aaa,
        M::Aas => aas,
        M::Aad => aad,
        M::Aam => aam,
        M::Daa => daa,
        M::Das => das,
        M::Cld => cld,
        M::Std => std_,
        M::Pusha | M::Pushad => pusha,
        M::Popa | M::Popad => popa,
        M::Enter => enter,
        M::Bound => bound,
        M::Cmpxchg8b => cmpxchg8b,
        M::Cmpxchg16b => cmpxchg16b,
        M::Salc => salc,
        _ => return None,
    })
}

/// Reads operand `n` (register, memory or immediate), zero-extended.
pub(super) fn read(cpu: &mut Cpu, i: &Insn, n: usize) -> Result<u64, Fault> {
    Ok(match i.ops[n] {
        Operand::Reg(r, w) => cpu.gpr_w(r, w),
        Operand::High(r) => cpu.gpr_w(r, Width::W) >> 8,
        Operand::Mem(bytes) => {
            let at = cpu.offset(i, &i.mem);
            let size = u8::try_from(bytes).ok().filter(|b| Width::from_bytes(*b).is_some()).unwrap_or(i.width.bytes());
            cpu.read(i.mem.seg, at, size)?
        }
        Operand::Imm => i.imm & i.width.mask(),
        Operand::Imm2 => i.imm2,
        _ => 0,
    })
}

/// Writes operand `n` with width `i.width`.
pub(super) fn write(cpu: &mut Cpu, i: &Insn, n: usize, v: u64) -> Result<(), Fault> {
    match i.ops[n] {
        Operand::Reg(r, w) => cpu.set_gpr(r, w, v),
        Operand::High(r) => {
            let low = cpu.gpr_w(r, Width::B);
            cpu.set_gpr(r, Width::W, (v & 0xff) << 8 | low);
        }
        Operand::Mem(_) => {
            let at = cpu.offset(i, &i.mem);
            cpu.write(i.mem.seg, at, i.width.bytes(), v)?;
        }
        _ => {}
    }
    Ok(())
}

/// RCL, RCR: SDM Vol. 2, "RCL/RCR/ROL/ROR—Rotate". The rotated string is the operand with CF above it. OF, defined for
/// count 1, is computed the same way for all counts.
fn rotate_through_carry(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let w = i.width;
    let bits = w.bits();
    let count = if i.ops[1] == Operand::None { 1 } else { read(cpu, i, 1)? } & cpu.count_mask(w);
    let n = count as u32 % (bits + 1);
    let left = i.mnemonic == M::Rcl;
    let carry = cpu.cond(Cond::B);
    let turn = |a: u64| -> (u64, u64) {
        let string = u128::from(carry) << bits | u128::from(a);
        let n = if left { n } else { (bits + 1 - n) % (bits + 1) };
        let mask = (1u128 << (bits + 1)) - 1;
        let r = if n == 0 { string } else { (string << n | string >> (bits + 1 - n)) & mask };
        ((r & u128::from(w.mask())) as u64, (r >> bits) as u64)
    };
    let (r, carry) = if let Operand::Mem(_) = i.ops[0] {
        let at = cpu.offset(i, &i.mem);
        let mut out = (0, 0);
        cpu.rmw(i.mem.seg, at, w, i.lock, |_, a| {
            out = turn(a);
            out.0
        })?;
        out
    } else {
        let a = read(cpu, i, 0)?;
        let out = turn(a);
        write(cpu, i, 0, out.0)?;
        out
    };
    if count != 0 {
        let top = r >> (bits - 1) & 1;
        let overflow = if left { top ^ carry } else { top ^ (r >> (bits - 2) & 1) };
        cpu.set_flags_word(CF | OF, carry | overflow << 11);
    }
    Ok(())
}

pub(crate) fn result_flags(v: u8) -> u32 {
    let parity = if v.count_ones().is_multiple_of(2) { PF } else { 0 };
    let zero = if v == 0 { ZF } else { 0 };
    let sign = if v & 0x80 != 0 { SF } else { 0 };
    parity | zero | sign
}

/// AAA: SDM Vol. 2, "AAA—ASCII Adjust After Addition".
fn aaa(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    ascii_adjust(cpu, 0x106u16)
}

/// AAS: SDM Vol. 2, "AAS—ASCII Adjust AL After Subtraction".
fn aas(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    ascii_adjust(cpu, 0x106u16.wrapping_neg())
}

fn ascii_adjust(cpu: &mut Cpu, step: u16) -> Result<(), Fault> {
    let ax = cpu.gpr_w(AX, Width::W) as u16;
    let adjust = ax & 15 > 9 || cpu.flags_word() as u32 & AF != 0;
    let r = match adjust {
        false => ax,
        true if cpu.generation() == Generation::I8086 => cpu.adjust_bytes(ax, step),
        true => ax.wrapping_add(step),
    } & 0xff0f;
    cpu.set_gpr(AX, Width::W, r.into());
    let carry = if adjust { AF | CF } else { 0 };
    cpu.set_flags_word(ARITH, u64::from(carry | result_flags(r as u8)));
    Ok(())
}

/// AAD: SDM Vol. 2, "AAD—ASCII Adjust AX Before Division".
fn aad(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let ax = cpu.gpr_w(AX, Width::W) as u16;
    let product = (ax >> 8).wrapping_mul(i.imm as u8 as u16) as u8;
    let r = product.wrapping_add(ax as u8);
    cpu.set_gpr(AX, Width::W, r.into());
    cpu.set_flags_word(ARITH, result_flags(r).into());
    Ok(())
}

/// AAM: SDM Vol. 2, "AAM—ASCII Adjust AX After Multiply".
fn aam(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let al = cpu.gpr_w(AX, Width::B) as u8;
    let base = i.imm as u8;
    let (Some(high), Some(low)) = (al.checked_div(base), al.checked_rem(base)) else {
        cpu.flags_of_aam_zero(al);
        return Err(Fault::DE);
    };
    cpu.set_gpr(AX, Width::W, u64::from(high) << 8 | u64::from(low));
    cpu.set_flags_word(ARITH, result_flags(low).into());
    Ok(())
}

/// DAA: SDM Vol. 2, "DAA—Decimal Adjust AL after Addition".
fn daa(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    decimal_adjust(cpu, u8::wrapping_add)
}

/// DAS: SDM Vol. 2, "DAS—Decimal Adjust AL after Subtraction".
fn das(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    decimal_adjust(cpu, u8::wrapping_sub)
}

fn decimal_adjust(cpu: &mut Cpu, step: fn(u8, u8) -> u8) -> Result<(), Fault> {
    let al = cpu.gpr_w(AX, Width::B) as u8;
    let flags = cpu.flags_word() as u32;
    let mut r = al;
    let mut out = 0;
    if al & 15 > 9 || flags & AF != 0 {
        r = step(r, 6);
        out |= AF;
        // DAS: a borrow out of this step alone also sets CF.
        if step(0, 1) == 0xff && al < 6 && cpu.generation() != Generation::I8086 {
            out |= CF;
        }
    }
    if al > cpu.decimal_limit(flags & AF != 0) || flags & CF != 0 {
        r = step(r, 0x60);
        out |= CF;
    }
    cpu.set_gpr(AX, Width::B, r.into());
    cpu.set_flags_word(ARITH, u64::from(out | result_flags(r)));
    Ok(())
}

/// SALC: AL = all ones when CF is set (undocumented by Intel, present in every chip; AMD APM Vol. 3 lists D6h as invalid in 64-bit mode).
fn salc(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    let carry = cpu.cond(Cond::B);
    cpu.set_gpr(AX, Width::B, carry.wrapping_neg() & 0xff);
    Ok(())
}

/// CLD: SDM Vol. 2, "CLD—Clear Direction Flag".
fn cld(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.state.system_flags &= !rflags::DF;
    Ok(())
}

/// STD: SDM Vol. 2, "STD—Set Direction Flag".
fn std_(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.state.system_flags |= rflags::DF;
    Ok(())
}

/// PUSHA, PUSHAD: SDM Vol. 2, "PUSHA/PUSHAD—Push All General-Purpose Registers".
fn pusha(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (w, sw) = (i.opsize, i.stack());
    let size = u64::from(w.bytes());
    let top = cpu.gpr_w(SP, sw);
    // Every slot is checked before any is written.
    for n in 1..=8 {
        cpu.probe_write(Seg::Ss, top.wrapping_sub(n * size) & sw.mask(), w.bytes())?;
    }
    for r in 0..8u8 {
        let v = cpu.gpr_w(r, w);
        cpu.write(Seg::Ss, top.wrapping_sub((u64::from(r) + 1) * size) & sw.mask(), w.bytes(), v)?;
    }
    cpu.set_gpr(SP, sw, top.wrapping_sub(8 * size) & sw.mask());
    Ok(())
}

/// POPA, POPAD: SDM Vol. 2, "POPA/POPAD—Pop All General-Purpose Registers". The stored stack pointer is skipped.
fn popa(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (w, sw) = (i.opsize, i.stack());
    let size = u64::from(w.bytes());
    let top = cpu.gpr_w(SP, sw);
    let mut values = [0; 8];
    for (n, v) in values.iter_mut().enumerate() {
        *v = cpu.read(Seg::Ss, top.wrapping_add(n as u64 * size) & sw.mask(), w.bytes())?;
    }
    for (n, v) in values.into_iter().enumerate() {
        let r = 7 - n as u8;
        if r != SP {
            cpu.set_gpr(r, w, v);
        }
    }
    cpu.set_gpr(SP, sw, top.wrapping_add(8 * size) & sw.mask());
    Ok(())
}

/// ENTER: SDM Vol. 2, "ENTER—Make Stack Frame for Procedure Parameters".
fn enter(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (w, sw) = (i.opsize, i.stack());
    let size = u64::from(w.bytes());
    let (alloc, level) = (i.imm & 0xffff, i.imm2 & 31);
    let mut sp = cpu.gpr_w(SP, sw);
    let frame_at = sp.wrapping_sub(size) & sw.mask();
    // With a 16-bit stack and 32-bit operands the frame pointer is all of ESP.
    let frame = (cpu.gpr_w(SP, Width::Q) & !sw.mask() | frame_at) & w.mask();
    let bp = cpu.gpr_w(BP, w);
    // The display is pushed before anything is committed; a fault leaves registers alone, memory above SP may be written.
    sp = frame_at;
    cpu.write(Seg::Ss, sp, w.bytes(), bp)?;
    let mut link = cpu.gpr_w(BP, sw);
    for _ in 1..level {
        link = link.wrapping_sub(size) & sw.mask();
        let v = cpu.read(Seg::Ss, link, w.bytes())?;
        sp = sp.wrapping_sub(size) & sw.mask();
        cpu.write(Seg::Ss, sp, w.bytes(), v)?;
    }
    if level > 0 {
        sp = sp.wrapping_sub(size) & sw.mask();
        cpu.write(Seg::Ss, sp, w.bytes(), frame)?;
    }
    sp = sp.wrapping_sub(alloc) & sw.mask();
    // The manual: a write to the final stack pointer must be possible.
    cpu.probe_write(Seg::Ss, sp, w.bytes())?;
    cpu.set_gpr(SP, sw, sp);
    cpu.set_gpr(BP, w, frame);
    Ok(())
}

/// BOUND: SDM Vol. 2, "BOUND—Check Array Index Against Bounds".
fn bound(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let w = i.width;
    let index = w.sext(read(cpu, i, 0)?) as i64;
    let at = cpu.offset(i, &i.mem);
    let low = w.sext(cpu.read(i.mem.seg, at, w.bytes())?) as i64;
    let second = at.wrapping_add(w.bytes().into()) & i.mem.width.mask();
    let high = w.sext(cpu.read(i.mem.seg, second, w.bytes())?) as i64;
    if index < low || index > high { Err(Fault::new(vector::BR)) } else { Ok(()) }
}

/// CMPXCHG8B: SDM Vol. 2, "CMPXCHG8B/CMPXCHG16B—Compare and Exchange Bytes".
fn cmpxchg8b(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let at = cpu.offset(i, &i.mem);
    let pair = |cpu: &mut Cpu, high, low| cpu.gpr_w(high, Width::D) << 32 | cpu.gpr_w(low, Width::D);
    let expected = pair(cpu, DX, AX);
    let new = pair(cpu, CX, BX);
    let mut found = 0;
    cpu.rmw(i.mem.seg, at, Width::Q, i.lock, |_, old| {
        found = old;
        if old == expected { new } else { old }
    })?;
    if found != expected {
        cpu.set_gpr(AX, Width::D, found & 0xffff_ffff);
        cpu.set_gpr(DX, Width::D, found >> 32);
    }
    cpu.set_zero_flag(found == expected);
    Ok(())
}

/// CMPXCHG16B: SDM Vol. 2, "CMPXCHG8B/CMPXCHG16B—Compare and Exchange Bytes".
fn cmpxchg16b(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let at = cpu.offset(i, &i.mem);
    let linear = cpu.linear(i.mem.seg, at, 16, true)?;
    if linear & 15 != 0 {
        return Err(Fault::GP0);
    }
    let pair = |cpu: &mut Cpu, high, low| u128::from(cpu.gpr_w(high, Width::Q)) << 64 | u128::from(cpu.gpr_w(low, Width::Q));
    let expected = pair(cpu, DX, AX);
    cpu.probe_write(i.mem.seg, at, 16)?;
    let new = pair(cpu, CX, BX);
    let found = cpu.compare_exchange_16(i.mem.seg, linear, expected, new)?;
    if found != expected {
        cpu.set_gpr(AX, Width::Q, found as u64);
        cpu.set_gpr(DX, Width::Q, (found >> 64) as u64);
    }
    cpu.set_zero_flag(found == expected);
    Ok(())
}
