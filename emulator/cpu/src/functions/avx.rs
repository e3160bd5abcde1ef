//! AVX instructions that are more than ops: masked moves, gathers, floating point on both halves with exceptions unmasked;
//! and the string comparisons of SSE4.2, in either encoding.

use super::Function;
use crate::Cpu;
use crate::fault::Fault;
use crate::state::rflags;
use egret_isa::emit::{Emit, Unit};
use egret_isa::fp::Env;
use egret_isa::insn::{Insn, Mem as Place, Operand as O};
use egret_isa::ops::Width;
use egret_isa::sem::avx::{finish, sources};
use egret_isa::sem::vector::plan;
use egret_isa::vec::{self, Check, Mem, Op, Shape, StringOp, VecInsn, Wide};

pub(super) fn table(i: &Insn) -> Option<Function> {
    let p = plan(i.code)?;
    Some(match p.op {
        Op::MaskedMove(_) => masked_move,
        Op::Gather { .. } => gather,
        Op::Strings(_) => strings,
        Op::Fp(_) | Op::Fma(_) if p.check == Check::Avx => floating_point,
        _ => return None,
    })
}

/// A YMM register as lanes of 32 bits.
type Lanes = [u32; 8];

fn ymm(cpu: &Cpu, r: u8) -> Lanes {
    let n = usize::from(r & 15);
    let (low, high) = (cpu.state.xmm[n], cpu.state.ymm_hi[n]);
    std::array::from_fn(|i| if i < 4 { low >> (32 * i) } else { high >> (32 * (i - 4)) } as u32)
}

fn set_ymm(cpu: &mut Cpu, r: u8, v: Lanes) {
    let join = |part: &[u32]| part.iter().rev().fold(0, |r, &v| r << 32 | u128::from(v));
    let n = usize::from(r & 15);
    (cpu.state.xmm[n], cpu.state.ymm_hi[n]) = (join(&v[..4]), join(&v[4..]));
}

/// Element `n` of `size` bytes, zero-extended.
fn element(v: &Lanes, n: usize, size: u8) -> u64 {
    if size == 4 { v[n & 7].into() } else { u64::from(v[(2 * n) & 7]) | u64::from(v[(2 * n + 1) & 7]) << 32 }
}

fn set_element(v: &mut Lanes, n: usize, size: u8, value: u64) {
    if size == 4 {
        v[n & 7] = value as u32;
    } else {
        (v[(2 * n) & 7], v[(2 * n + 1) & 7]) = (value as u32, (value >> 32) as u32);
    }
}

/// The sign bit of a mask's element.
fn chosen(mask: &Lanes, n: usize, size: u8) -> bool {
    element(mask, n, size) >> (8 * size - 1) & 1 != 0
}

/// A vector register's number, and whether it is a YMM register.
fn register(o: O) -> Result<(u8, bool), Fault> {
    match o {
        O::Xmm(r) => Ok((r, false)),
        O::Ymm(r) => Ok((r, true)),
        _ => Err(Fault::UD),
    }
}

fn width(s: Shape) -> u8 {
    s.bytes() as u8
}

/// VMASKMOVPS, VPMASKMOVD and the like (SDM Vol. 2, "VMASKMOV"): elements whose mask is clear cause no fault, and alignment
/// is not checked.
fn masked_move(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Some(&VecInsn { op: Op::MaskedMove(shape), mem, .. }) = plan(i.code) else { return Err(Fault::UD) };
    cpu.require(Unit::Avx)?;
    let size = width(shape);
    let (mask, wide) = register(i.ops[1])?;
    let mask = ymm(cpu, mask);
    let count = if wide { 32 } else { 16 } / usize::from(size);
    let at = cpu.offset(i, &i.mem);
    let place = |n: usize| at.wrapping_add(n as u64 * u64::from(size)) & i.mem.width.mask();
    if let Mem::Store { .. } = mem {
        let (source, _) = register(i.ops[2])?;
        let source = ymm(cpu, source);
        for n in (0..count).filter(|n| chosen(&mask, *n, size)) {
            cpu.without_alignment(|cpu| cpu.probe_write(i.mem.seg, place(n), size))?;
        }
        for n in (0..count).filter(|n| chosen(&mask, *n, size)) {
            cpu.without_alignment(|cpu| cpu.write(i.mem.seg, place(n), size, element(&source, n, size)))?;
        }
        return Ok(());
    }
    let mut result = [0; 8];
    for n in (0..count).filter(|n| chosen(&mask, *n, size)) {
        let v = cpu.without_alignment(|cpu| cpu.read(i.mem.seg, place(n), size))?;
        set_element(&mut result, n, size, v);
    }
    let (target, _) = register(i.ops[0])?;
    set_ymm(cpu, target, result);
    Ok(())
}

/// VPGATHERDD and the like (SDM Vol. 2, "VGATHERDPD/VGATHERQPD"): each element read clears its mask, so that after a fault the
/// instruction goes on where it stopped. Alignment is not checked.
fn gather(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Some(&VecInsn { op: Op::Gather { index, data }, .. }) = plan(i.code) else { return Err(Fault::UD) };
    cpu.require(Unit::Avx)?;
    let ((target, wide), (mask, _)) = (register(i.ops[0])?, register(i.ops[2])?);
    let (index_size, size) = (width(index), width(data));
    // A name with two widths has as many elements as the wider of them has room for; with quadword indices of a YMM register
    // the target is an XMM register.
    let bytes = if wide || i.code.op_code().l() == 1 { 32 } else { 16 };
    let count = bytes / usize::from(index_size.max(size));
    let indices = ymm(cpu, i.mem.index);
    let (mut result, mut left) = (ymm(cpu, target), ymm(cpu, mask));
    let end = count * usize::from(size) / 4;
    let base = cpu.offset(i, &Place { index: Place::NONE, ..i.mem });
    let w = if index_size == 4 { Width::D } else { Width::Q };
    let (mut outcome, mut read) = (Ok(()), false);
    for n in 0..count {
        if chosen(&left, n, size) {
            let index = w.sext(element(&indices, n, index_size));
            let at = base.wrapping_add(index.wrapping_shl(i.mem.scale.into())) & i.mem.width.mask();
            match cpu.without_alignment(|cpu| cpu.read(i.mem.seg, at, size)) {
                Ok(v) => {
                    set_element(&mut result, n, size, v);
                    read = true;
                }
                Err(fault) => {
                    outcome = Err(fault);
                    break;
                }
            }
        }
        set_element(&mut left, n, size, 0);
    }
    if outcome.is_ok() {
        // Only when all is read.
        result[end..].fill(0);
        left[end..].fill(0);
    }
    set_ymm(cpu, target, result);
    set_ymm(cpu, mask, left);
    if read && cpu.flag(rflags::TF) && outcome.is_err() {
        // The manual: traps that are due for elements already read come first. The rest faults afterwards.
        cpu.state.rip = cpu.state.rip.wrapping_sub(i.len.into()) & cpu.ip_mask;
        return Ok(());
    }
    outcome
}

/// Floating point whose exceptions must be known before anything is written: on 256 bits those of both halves are detected together,
/// and VCVTPS2PH to memory records none if the store faults.
fn floating_point(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Some(p) = plan(i.code) else { return Err(Fault::UD) };
    cpu.require(Unit::Avx)?;
    let wide = p.vex.unwrap_or(Wide::No);
    let s = sources(cpu, i, p, wide)?;
    if let (Mem::Store { bytes, .. }, true) = (p.mem, i.has_mem()) {
        let at = cpu.offset(i, &i.mem);
        cpu.probe_write(i.mem.seg, at, bytes)?;
    }
    let mut env = Env::from_mxcsr(cpu.state.mxcsr);
    let imm = p.immediate(i.imm);
    let result = match p.op {
        Op::Fp(op) if wide == Wide::No => [vec::eval_fp(op, &mut env, s.a[0], s.b[0], imm); 2],
        Op::Fp(op) => vec::eval_fp_wide(op, &mut env, s.a, s.b, imm),
        Op::Fma(op) if wide == Wide::No => [vec::eval_fma(op, &mut env, s.old[0], s.a[0], s.b[0]); 2],
        Op::Fma(op) => [0, 1].map(|n| vec::eval_fma(op, &mut env, s.old[n], s.a[n], s.b[n])),
        _ => return Err(Fault::UD),
    };
    cpu.settle(&env)?;
    finish(cpu, i, p, wide, result)
}

/// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.
fn strings(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Some(&VecInsn { op: Op::Strings(op), check, .. }) = plan(i.code) else { return Err(Fault::UD) };
    cpu.require(if check == Check::Avx { Unit::Avx } else { Unit::Sse })?;
    let a = match i.ops[0] {
        O::Xmm(r) => cpu.xmm(r),
        _ => return Err(Fault::UD),
    };
    let b = match i.ops[1] {
        O::Xmm(r) => cpu.xmm(r),
        _ => {
            let at = cpu.offset(i, &i.mem);
            cpu.load_x(i.mem.seg, at, 16, false)?
        }
    };
    compare(cpu, op, check, a, b, i.imm as u8);
    Ok(())
}

fn compare(cpu: &mut Cpu, op: StringOp, check: Check, a: u128, b: u128, imm: u8) {
    use egret_isa::flags::{ARITH, CF, OF, SF, ZF};
    const RAX: u8 = 0;
    const RCX: u8 = 1;
    const RDX: u8 = 2;
    let r = vec::compare_strings(op, a, b, cpu.reg(RAX), cpu.reg(RDX), imm);
    if op.mask {
        cpu.set_xmm(0, r.value);
        if check == Check::Avx {
            cpu.set_ymm_hi(0, 0);
        }
    } else {
        cpu.set_gpr(RCX, Width::D, r.value as u64);
    }
    let flags = [(r.cf, CF), (r.zf, ZF), (r.sf, SF), (r.of, OF)];
    let word = flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
    cpu.set_flags_word(ARITH, word.into());
}
