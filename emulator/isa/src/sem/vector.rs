//! SSE: one function executes the plan of any instruction whose operands are XMM and general registers and memory.
//! VEX encodings are in [`super::avx`].
//!
//! Instructions that touch MMX registers or MXCSR itself, masked moves and string comparisons are the CPU's functions.

use crate::emit::{Emit, Unit};
use crate::flags::{ARITH, ZF};
use crate::insn::{Insn, Operand as O};
use crate::ops::{Bin, Rel, Width};
use crate::vec::{self, Check, Fmt, FpOp, Mem, Op, Operand, Shape, VecInsn, VecOp};
use iced_x86::Code;
use std::sync::OnceLock;

type R<E> = Result<(), <E as Emit>::Fault>;

/// The plan of a vector instruction by its code: a table of all codes, made on first use.
#[must_use]
pub fn plan(code: Code) -> Option<&'static VecInsn> {
    static PLANS: OnceLock<Vec<Option<VecInsn>>> = OnceLock::new();
    PLANS.get_or_init(|| Code::values().map(vec::decode).collect()).get(code as usize)?.as_ref()
}

/// All vector operations that plans have, each once.
#[must_use]
pub fn vec_ops() -> &'static [VecOp] {
    static OPS: OnceLock<Vec<VecOp>> = OnceLock::new();
    OPS.get_or_init(|| {
        let mut ops = Vec::new();
        for p in Code::values().filter_map(plan) {
            for op in [p.op(false), p.op(true)] {
                if let Op::Vec(op) = op
                    && !ops.contains(&op)
                {
                    ops.push(op);
                }
            }
        }
        ops
    })
}

/// All floating-point operations that plans have, each once.
#[must_use]
pub fn fp_ops() -> &'static [FpOp] {
    static OPS: OnceLock<Vec<FpOp>> = OnceLock::new();
    OPS.get_or_init(|| {
        let mut ops = Vec::new();
        for p in Code::values().filter_map(plan) {
            if let Op::Fp(op) = p.op
                && !ops.contains(&op)
            {
                ops.push(op);
            }
        }
        ops
    })
}

/// Whether [`execute`] runs the instruction.
pub(super) fn has_ops(i: &Insn) -> bool {
    plan(i.code).is_some_and(|p| match p.check {
        Check::Avx => super::avx::has_ops(i, p),
        Check::Sse | Check::None => {
            !matches!(p.op, Op::Strings(_) | Op::MaskedStore | Op::Emms)
                && ![p.dst, p.b].iter().any(|o| matches!(o, Operand::Mxcsr | Operand::Mm))
        }
        Check::Mmx | Check::SseMmx => false,
    })
}

/// Executes a vector instruction by its plan.
pub(super) fn execute<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let Some(p) = plan(i.code) else { return e.call(i) };
    if let Some(wide) = p.vex {
        return super::avx::execute(e, i, p, wide);
    }
    if p.check != Check::None {
        e.require(Unit::Sse)?;
    }
    let memory = i.has_mem();
    // Operand 1 is the second source, except where the result goes nowhere but memory or the flags: it still is.
    let b = match (p.mem, memory) {
        (Mem::Load { bytes, aligned }, true) => load(e, i, bytes, aligned)?,
        _ => source(e, i, p.b, 1),
    };
    let a = match p.a(memory) {
        Operand::None => b,
        kind => source(e, i, kind, 0),
    };
    let imm = p.immediate(i.imm);
    let result = match p.op(memory) {
        Op::Vec(op) => e.vec(op, a, b, imm),
        Op::Vec3(op) => {
            let c = e.xmm(0);
            e.vec3(op, a, b, c)
        }
        Op::Fp(op) => e.fp(op, a, b, imm)?,
        Op::Compare { fmt, signaling } => return compare(e, fmt, signaling, a, b),
        Op::Test(lanes) => {
            test(e, lanes, &[(a, b)]);
            return Ok(());
        }
        _ => return e.call(i),
    };
    if let (Mem::Store { bytes, aligned }, true) = (p.mem, memory) {
        return store(e, i, bytes, aligned, result);
    }
    write(e, i, result);
    Ok(())
}

/// COMISS and its kin.
pub(super) fn compare<E: Emit>(e: &mut E, fmt: Fmt, signaling: bool, a: E::X, b: E::X) -> R<E> {
    let word = e.fp_compare(fmt, signaling, a, b)?;
    e.set_flags_word(ARITH, word);
    Ok(())
}

/// PTEST, VTESTPS: SDM Vol. 2, "PTEST—Logical Compare". Operands are given in pieces of 128 bits.
pub(super) fn test<E: Emit>(e: &mut E, lanes: Option<Shape>, operands: &[(E::X, E::X)]) {
    let mut bits = |op: VecOp| {
        let pieces: Vec<E::X> = operands.iter().map(|(a, b)| e.vec(op, *a, *b, 0)).collect();
        let any = pieces.into_iter().reduce(|x, y| e.vec(VecOp::Or, x, y, 0));
        any.map(|v| fold(e, lanes, v))
    };
    let (both, second) = (bits(VecOp::And), bits(VecOp::AndNot));
    let (Some(both), Some(second)) = (both, second) else { return };
    let zero = e.imm(0);
    let (zf, cf) = (e.rel(Rel::Eq, Width::Q, both, zero), e.rel(Rel::Eq, Width::Q, second, zero));
    let six = e.imm(ZF.trailing_zeros().into());
    let zf = e.bin(Bin::Shl, Width::Q, zf, six);
    let word = e.bin(Bin::Or, Width::Q, zf, cf);
    e.set_flags_word(ARITH, word);
}

/// A number that is zero if no bit, or no sign bit of a lane, is set.
fn fold<E: Emit>(e: &mut E, lanes: Option<Shape>, v: E::X) -> E::V {
    if let Some(s) = lanes {
        let mask = e.vec(VecOp::MoveMask(s), v, v, 0);
        return e.v_of(Width::Q, mask);
    }
    let high = e.vec(VecOp::High64, v, v, 0);
    let (low, high) = (e.v_of(Width::Q, v), e.v_of(Width::Q, high));
    e.bin(Bin::Or, Width::Q, low, high)
}

pub(super) fn source<E: Emit>(e: &mut E, i: &Insn, kind: Operand, n: usize) -> E::X {
    match (kind, i.ops[n]) {
        (Operand::None, _) => {
            let zero = e.imm(0);
            e.x_of(zero)
        }
        (Operand::Imm8, _) => {
            let v = e.imm(i.imm & 0xff);
            e.x_of(v)
        }
        (Operand::Field, _) => {
            let v = e.imm(field(i));
            e.x_of(v)
        }
        (Operand::XmmField, O::Xmm(r)) => {
            let (x, v) = (e.xmm(r), e.imm(field(i)));
            let v = e.x_of(v);
            e.vec(VecOp::UnpackLow(Shape::I64), x, v, 0)
        }
        (_, O::Xmm(r)) => e.xmm(r),
        (_, O::Reg(r, _)) => {
            let v = e.gpr(r, if kind == Operand::Gpr64 { Width::Q } else { Width::D });
            e.x_of(v)
        }
        _ => {
            let zero = e.imm(0);
            e.x_of(zero)
        }
    }
}

/// The two immediates of EXTRQ and INSERTQ: length and index.
fn field(i: &Insn) -> u64 {
    i.imm & 0xff | (i.imm2 & 0xff) << 8
}

pub(super) fn write<E: Emit>(e: &mut E, i: &Insn, v: E::X) {
    match i.ops[0] {
        O::Xmm(r) => e.set_xmm(r, v),
        O::Reg(r, w) => {
            let w = w.max(Width::D);
            let v = e.v_of(w, v);
            e.set_gpr(r, w, v);
        }
        _ => {}
    }
}

pub(super) fn load<E: Emit>(e: &mut E, i: &Insn, bytes: u8, aligned: bool) -> Result<E::X, E::Fault> {
    let at = e.offset(i, &i.mem);
    match Width::from_bytes(bytes) {
        Some(w @ (Width::B | Width::W)) => {
            let v = e.load(i.mem.seg, at, w)?;
            Ok(e.x_of(v))
        }
        _ => e.load_x(i.mem.seg, at, bytes, aligned),
    }
}

pub(super) fn store<E: Emit>(e: &mut E, i: &Insn, bytes: u8, aligned: bool, v: E::X) -> R<E> {
    let at = e.offset(i, &i.mem);
    match Width::from_bytes(bytes) {
        Some(w @ (Width::B | Width::W)) => {
            let v = e.v_of(w, v);
            e.store(i.mem.seg, at, w, v)
        }
        _ => e.store_x(i.mem.seg, at, bytes, aligned, v),
    }
}
