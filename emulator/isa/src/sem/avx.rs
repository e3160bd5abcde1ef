//! AVX: the plans of VEX encodings, executed in halves of 128 bits.
//!
//! A VEX.128 encoding clears bits 128 and up of its destination; legacy encodings keep them (SDM Vol. 1, "Programming
//! Considerations with 128-bit SIMD Instructions"). Masked moves, gathers and string comparisons are the CPU's functions; so are
//! 256-bit floating-point operations while an exception is unmasked, for the exceptions of both halves are detected together.

use super::vector;
use crate::emit::{Emit, Unit};
use crate::insn::{Ctx, Insn, Mode, Operand as O};
use crate::ops::{Bin, Width};
use crate::vec::{HalvesOp, Mem, Op, Operand, Shape, Vec3Op, VecInsn, VecOp, Wide};

type R<E> = Result<(), <E as Emit>::Fault>;

/// The sources of an instruction in halves; the upper ones repeat the lower where there are none.
#[derive(Clone, Copy, Debug)]
pub struct Sources<X> {
    /// The destination's old value.
    pub old: [X; 2],
    /// The first source.
    pub a: [X; 2],
    /// The second source.
    pub b: [X; 2],
}

/// Whether [`execute`] runs the instruction.
pub(super) fn has_ops(i: &Insn, p: &VecInsn) -> bool {
    let function = matches!(p.op, Op::Strings(_) | Op::MaskedStore | Op::MaskedMove(_) | Op::Gather { .. });
    let control = [p.dst, p.b].contains(&Operand::Mxcsr);
    let together = p.vex.is_some_and(|w| w != Wide::No) && p.reads_mxcsr() && !i.ctx.has(Ctx::FP_MASKED);
    let before_store = matches!(p.op, Op::Fp(_)) && matches!(p.mem, Mem::Store { .. }) && i.has_mem();
    !(function || control || together || before_store)
}

/// Executes a VEX encoding by its plan.
pub(super) fn execute<E: Emit>(e: &mut E, i: &Insn, p: &VecInsn, wide: Wide) -> R<E> {
    e.require(Unit::Avx)?;
    let memory = i.has_mem();
    let op = p.op(memory);
    match op {
        Op::Zero(all) => {
            zero(e, i, all);
            return Ok(());
        }
        Op::Halves(op) => return halves(e, i, p, op),
        _ => {}
    }
    let s = sources(e, i, p, wide)?;
    match op {
        Op::Compare { fmt, signaling } => return vector::compare(e, fmt, signaling, s.a[0], s.b[0]),
        Op::Test(lanes) => {
            let pieces = [(s.a[0], s.b[0]), (s.a[1], s.b[1])];
            vector::test(e, lanes, if wide == Wide::No { &pieces[..1] } else { &pieces });
            return Ok(());
        }
        _ => {}
    }
    let imm = p.immediate(i.imm);
    let low = half(e, i, op, &s, 0, imm)?;
    let high = match wide {
        Wide::No => low,
        Wide::Each(shift) => half(e, i, op, &s, 1, imm >> shift)?,
        _ => half(e, i, op, &s, 1, imm)?,
    };
    finish(e, i, p, wide, [low, high])
}

/// One half of the result.
fn half<E: Emit>(e: &mut E, i: &Insn, op: Op, s: &Sources<E::X>, n: usize, imm: u8) -> Result<E::X, E::Fault> {
    let (old, a, b) = (s.old[n], s.a[n], s.b[n]);
    match op {
        Op::Vec(op) => Ok(e.vec(op, a, b, imm)),
        Op::Vec3(op) => {
            let c = register(e, i.ops[3], n == 1);
            Ok(e.vec3(op, a, b, c))
        }
        Op::Fma(op) => e.fma(op, old, a, b),
        Op::Fp(op) => e.fp(op, a, b, imm),
        _ => Ok(b),
    }
}

/// Half of a vector register; zero for any other operand.
fn register<E: Emit>(e: &mut E, o: O, high: bool) -> E::X {
    match o {
        O::Xmm(r) | O::Ymm(r) if high => e.ymm_hi(r),
        O::Xmm(r) | O::Ymm(r) => e.xmm(r),
        _ => {
            let zero = e.imm(0);
            e.x_of(zero)
        }
    }
}

/// Both halves of a vector register, or the lower one twice.
fn both<E: Emit>(e: &mut E, o: O, wide: bool) -> [E::X; 2] {
    let low = register(e, o, false);
    [low, if wide { register(e, o, true) } else { low }]
}

/// The number of the last register or memory operand, but for the mask of a blend.
fn last(i: &Insn) -> usize {
    i.ops.iter().filter(|o| matches!(o, O::Xmm(_) | O::Ymm(_) | O::Reg(..) | O::Mem(_))).count().saturating_sub(1).min(2)
}

/// Reads all sources.
pub fn sources<E: Emit>(e: &mut E, i: &Insn, p: &VecInsn, wide: Wide) -> Result<Sources<E::X>, E::Fault> {
    let memory = i.has_mem();
    let full = wide != Wide::No;
    let b = match (p.mem, memory) {
        (Mem::Load { bytes: 32, aligned }, true) => {
            let at = e.offset(i, &i.mem);
            let (low, high) = e.load_y(i.mem.seg, at, aligned)?;
            [low, high]
        }
        (Mem::Load { bytes, aligned }, true) => [vector::load(e, i, bytes, aligned)?; 2],
        _ => match p.b {
            Operand::Xmm => both(e, i.ops[last(i)], full && matches!(wide, Wide::Each(_) | Wide::Narrow | Wide::Masks)),
            kind => [vector::source(e, i, kind, last(i)); 2],
        },
    };
    let b = match wide {
        Wide::Widen(bytes) => {
            let n = e.imm(bytes.into());
            let n = e.x_of(n);
            [b[0], e.vec(VecOp::ByteShiftRight, b[0], n, 0)]
        }
        _ => b,
    };
    let first = usize::from(p.dst != Operand::Flags);
    let a = match p.a(memory) {
        Operand::None => b,
        _ => both(e, i.ops[first], full),
    };
    let old = if matches!(p.op, Op::Fma(_)) { both(e, i.ops[0], full) } else { a };
    Ok(Sources { old, a, b })
}

/// Writes the result, of which `r[1]` is the upper half.
pub fn finish<E: Emit>(e: &mut E, i: &Insn, p: &VecInsn, wide: Wide, r: [E::X; 2]) -> R<E> {
    let (r, full) = match wide {
        Wide::Narrow => ([e.vec(VecOp::UnpackLow(Shape::I64), r[0], r[1], 0); 2], false),
        Wide::No => (r, false),
        _ => (r, true),
    };
    match (p.mem, i.has_mem()) {
        (Mem::Store { bytes: 32, aligned }, true) => {
            let at = e.offset(i, &i.mem);
            return e.store_y(i.mem.seg, at, aligned, r[0], r[1]);
        }
        (Mem::Store { bytes, aligned }, true) => return vector::store(e, i, bytes, aligned, r[0]),
        _ => {}
    }
    match i.ops[0] {
        O::Xmm(n) | O::Ymm(n) => set(e, n, r[0], full.then_some(r[1])),
        O::Reg(n, w) if wide == Wide::Masks => masks(e, p, n, w, r),
        _ => vector::write(e, i, r[0]),
    }
    Ok(())
}

/// Writes a register; without an upper half it is cleared.
fn set<E: Emit>(e: &mut E, r: u8, low: E::X, high: Option<E::X>) {
    let high = match high {
        Some(high) => high,
        None => {
            let zero = e.imm(0);
            e.x_of(zero)
        }
    };
    e.set_xmm(r, low);
    e.set_ymm_hi(r, high);
}

/// VPMOVMSKB and the like: the mask of the upper half above that of the lower.
fn masks<E: Emit>(e: &mut E, p: &VecInsn, r: u8, w: Width, m: [E::X; 2]) {
    let Op::Vec(VecOp::MoveMask(s)) = p.op else { return };
    let (low, high) = (e.v_of(Width::D, m[0]), e.v_of(Width::D, m[1]));
    let n = e.imm(s.lanes().into());
    let high = e.bin(Bin::Shl, Width::D, high, n);
    let mask = e.bin(Bin::Or, Width::D, low, high);
    e.set_gpr(r, w.max(Width::D), mask);
}

/// VZEROUPPER, VZEROALL: outside 64-bit mode registers 8 to 15 are left alone.
fn zero<E: Emit>(e: &mut E, i: &Insn, all: bool) {
    let zero = e.imm(0);
    let zero = e.x_of(zero);
    for r in 0..if i.mode() == Mode::M64 { 16 } else { 8 } {
        if all {
            e.set_xmm(r, zero);
        }
        e.set_ymm_hi(r, zero);
    }
}

/// What crosses the halves.
fn halves<E: Emit>(e: &mut E, i: &Insn, p: &VecInsn, op: HalvesOp) -> R<E> {
    if op == HalvesOp::Extract {
        let half = register(e, i.ops[1], i.imm & 1 != 0);
        return finish(e, i, p, Wide::No, [half; 2]);
    }
    let imm = p.immediate(i.imm);
    let s = sources(e, i, p, if op == HalvesOp::Insert { Wide::Shared } else { Wide::Each(0) })?;
    let r = match op {
        HalvesOp::Insert if imm & 1 != 0 => [s.a[0], s.b[0]],
        HalvesOp::Insert | HalvesOp::Extract => [s.b[0], s.a[1]],
        HalvesOp::Permute128 => [pick(e, &s, imm), pick(e, &s, imm >> 4)],
        HalvesOp::Permute64 => [pair(e, &s, imm), pair(e, &s, imm >> 4)],
        HalvesOp::Permute32 => [permute(e, &s, 0), permute(e, &s, 1)],
    };
    finish(e, i, p, Wide::Each(0), r)
}

/// SDM Vol. 2, "VPERM2F128": bits 0 and 1 pick a half of `a` or `b`, bit 3 zeroes.
fn pick<E: Emit>(e: &mut E, s: &Sources<E::X>, control: u8) -> E::X {
    if control & 8 != 0 {
        let zero = e.imm(0);
        return e.x_of(zero);
    }
    [s.a[0], s.a[1], s.b[0], s.b[1]][usize::from(control & 3)]
}

/// Two quadwords of the four of `b`.
fn pair<E: Emit>(e: &mut E, s: &Sources<E::X>, control: u8) -> E::X {
    let (low, high) = (control & 3, control >> 2 & 3);
    let (x, y) = (s.b[usize::from(low >> 1)], s.b[usize::from(high >> 1)]);
    e.vec(VecOp::ShufflePd, x, y, low & 1 | (high & 1) << 1)
}

/// Four doublewords of the eight of `b`, by the indices in a half of `a`: bit 2 picks the half.
fn permute<E: Emit>(e: &mut E, s: &Sources<E::X>, n: usize) -> E::X {
    let index = s.a[n];
    let (low, high) = (e.vec(VecOp::Permute32, s.b[0], index, 0), e.vec(VecOp::Permute32, s.b[1], index, 0));
    let count = e.imm(29);
    let count = e.x_of(count);
    let sign = e.vec(VecOp::ShiftLeft(Shape::I32), index, count, 0);
    e.vec3(Vec3Op::BlendVar(Shape::F32), low, high, sign)
}
