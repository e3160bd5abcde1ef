//! Vector instructions that touch MMX registers or MXCSR, and masked stores: by the plans of [`egret_isa::vec`].
//! Those on XMM and general registers alone are semantics: [`egret_isa::sem::vector`]. VEX-encoded ones and string comparisons are in
//! [`super::avx`].

use super::Function;
use super::fpu::MXCSR_MASK;
use crate::Cpu;
use crate::fault::Fault;
use egret_isa::emit::{Emit, Unit};
use egret_isa::insn::{Insn, Operand as O, Seg};
use egret_isa::ops::Width;
use egret_isa::sem::vector::plan;
use egret_isa::vec::{self, Check, Mem, MmxState, Op, Operand, VecInsn};

const DI: u8 = 7;

pub(super) fn table(i: &Insn) -> Option<Function> {
    plan(i.code).map(|_| execute as Function)
}

fn execute(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Some(p) = plan(i.code) else { return Err(Fault::UD) };
    let memory = i.has_mem();
    let entering = p.mmx == MmxState::Entered || (p.mmx == MmxState::EnteredByRegister && !memory);
    check(cpu, i, p, entering)?;
    if (matches!(p.check, Check::Mmx) || entering) && cpu.x87.pending_exception() && cpu.x87_exception(i)? {
        return Ok(());
    }
    match p.op(memory) {
        Op::Emms => cpu.x87.emms(),
        Op::MaskedStore => masked_store(cpu, i, p)?,
        _ => compute(cpu, i, p, memory)?,
    }
    if entering {
        cpu.x87.enter_mmx();
    }
    Ok(())
}

fn check(cpu: &mut Cpu, _i: &Insn, p: &VecInsn, entering: bool) -> Result<(), Fault> {
    match p.check {
        Check::None => Ok(()),
        Check::Mmx => cpu.require(Unit::Mmx),
        Check::Sse => cpu.require(Unit::Sse),
        Check::Avx => cpu.require(Unit::Avx),
        Check::SseMmx => {
            cpu.require(Unit::Sse)?;
            if entering { cpu.require(Unit::Mmx) } else { Ok(()) }
        }
    }
}

fn compute(cpu: &mut Cpu, i: &Insn, p: &VecInsn, memory: bool) -> Result<(), Fault> {
    let b = match (p.mem, memory) {
        (Mem::Load { bytes, aligned }, true) => load(cpu, i, bytes, aligned)?,
        _ => source(cpu, i, p.b, 1),
    };
    let a = match p.a(memory) {
        Operand::None => b,
        kind => source(cpu, i, kind, 0),
    };
    let imm = p.immediate(i.imm);
    let result = match p.op(memory) {
        Op::Vec(op) if p.mmx_lanes => vec::eval2_mmx(op, a as u64, b as u64, imm).into(),
        Op::Vec(op) => cpu.vec(op, a, b, imm),
        Op::Fp(op) => cpu.fp(op, a, b, imm)?,
        _ => return Err(Fault::UD),
    };
    if let (Mem::Store { bytes, aligned }, true) = (p.mem, memory) {
        let at = cpu.offset(i, &i.mem);
        return cpu.store_x(i.mem.seg, at, bytes, aligned, result);
    }
    if p.dst == Operand::Mxcsr {
        if result as u32 & !MXCSR_MASK != 0 {
            return Err(Fault::GP0);
        }
        cpu.set_mxcsr(result as u32);
        return Ok(());
    }
    match i.ops[0] {
        O::Mm(n) => cpu.x87.set_mm(n, result as u64),
        O::Xmm(n) => cpu.set_xmm(n, result),
        O::Reg(n, w) => cpu.set_gpr(n, w.max(Width::D), result as u64 & w.max(Width::D).mask()),
        _ => {}
    }
    Ok(())
}

fn load(cpu: &mut Cpu, i: &Insn, bytes: u8, aligned: bool) -> Result<u128, Fault> {
    let at = cpu.offset(i, &i.mem);
    cpu.load_x(i.mem.seg, at, bytes, aligned)
}

fn source(cpu: &mut Cpu, i: &Insn, kind: Operand, n: usize) -> u128 {
    match (kind, i.ops[n]) {
        (Operand::Mxcsr, _) => cpu.state.mxcsr.into(),
        (Operand::Imm8, _) => u128::from(i.imm & 0xff),
        (_, O::Mm(n)) => cpu.x87.mm(n).into(),
        (_, O::Xmm(n)) => cpu.xmm(n),
        (Operand::Gpr64, O::Reg(n, _)) => cpu.gpr_w(n, Width::Q).into(),
        (_, O::Reg(n, _)) => cpu.gpr_w(n, Width::D).into(),
        _ => 0,
    }
}

/// MASKMOVQ, MASKMOVDQU: SDM Vol. 2, "MASKMOVDQU—Store Selected Bytes of Double Quadword".
fn masked_store(cpu: &mut Cpu, i: &Insn, p: &VecInsn) -> Result<(), Fault> {
    let bytes = if p.b == Operand::Mm || matches!(i.ops[1], O::Mm(_)) || matches!(i.ops[0], O::Mm(_)) { 8 } else { 16 };
    // iced lists the implied memory operand first; the two registers follow it.
    let registers: Vec<O> = i.ops.iter().copied().filter(|o| matches!(o, O::Mm(_) | O::Xmm(_))).collect();
    let value = |cpu: &mut Cpu, o: Option<&O>| match o {
        Some(O::Mm(n)) => u128::from(cpu.x87.mm(*n)),
        Some(O::Xmm(n)) => cpu.xmm(*n),
        _ => 0,
    };
    let data = value(cpu, registers.first()).to_le_bytes();
    let mask = value(cpu, registers.get(1)).to_le_bytes();
    let at = cpu.gpr_w(DI, i.addrsize);
    let seg: Seg = i.mem.seg;
    let chosen = |n: &usize| mask[*n] & 0x80 != 0;
    // SDM: faults with an empty mask are left to the implementation; Zen 4 raises them.
    cpu.probe_write(seg, at, 8)?;
    if bytes > 8 {
        cpu.probe_write(seg, at.wrapping_add(8) & i.addrsize.mask(), 8)?;
    }
    for n in (0..bytes).filter(chosen) {
        cpu.probe_write(seg, at.wrapping_add(n as u64) & i.addrsize.mask(), 1)?;
    }
    for n in (0..bytes).filter(chosen) {
        cpu.write(seg, at.wrapping_add(n as u64) & i.addrsize.mask(), 1, data[n].into())?;
    }
    Ok(())
}
