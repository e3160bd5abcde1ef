//! SSE: one function executes the plan of any instruction whose operands are XMM and general registers and memory.
//!
//! Instructions that touch MMX registers or MXCSR itself, and masked stores, are the CPU's functions.

use crate::emit::{Emit, Unit};
use crate::insn::{Insn, Operand as O};
use crate::ops::Width;
use crate::vec::{self, Check, Mem, Op, Operand, VecInsn};
use iced_x86::Code;
use std::sync::OnceLock;

type R<E> = Result<(), <E as Emit>::Fault>;

/// The plan of a vector instruction by its code: a table of all codes, made on first use.
#[must_use]
pub fn plan(code: Code) -> Option<&'static VecInsn> {
    static PLANS: OnceLock<Vec<Option<VecInsn>>> = OnceLock::new();
    PLANS.get_or_init(|| Code::values().map(vec::decode).collect()).get(code as usize)?.as_ref()
}

/// Whether [`execute`] runs the instruction.
pub(super) fn has_ops(i: &Insn) -> bool {
    plan(i.code).is_some_and(|p| {
        matches!(p.check, Check::Sse | Check::None)
            && !matches!(p.op, Op::Vec3(_) | Op::Test | Op::Strings(_) | Op::MaskedStore | Op::Emms)
            && ![p.dst, p.b].iter().any(|o| matches!(o, Operand::Mxcsr | Operand::Mm))
    })
}

/// Executes a vector instruction by its plan.
pub(super) fn execute<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let Some(p) = plan(i.code) else { return e.call(i) };
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
        Operand::None => None,
        kind => Some(source(e, i, kind, 0)),
    };
    let imm = if p.reads_imm() { i.imm as u8 } else { 0 };
    let result = match p.op(memory) {
        Op::Vec(op) => {
            let a = a.unwrap_or(b);
            e.vec(op, a, b, imm)
        }
        Op::Fp(op) => {
            let a = a.unwrap_or(b);
            e.fp(op, a, b, imm)?
        }
        Op::Compare { fmt, signaling } => {
            let a = a.unwrap_or(b);
            let word = e.fp_compare(fmt, signaling, a, b)?;
            e.set_flags_word(crate::flags::ARITH, word);
            return Ok(());
        }
        Op::Vec3(_) | Op::Test | Op::Strings(_) | Op::MaskedStore | Op::Emms => return e.call(i),
    };
    if let (Mem::Store { bytes, aligned }, true) = (p.mem, memory) {
        return store(e, i, bytes, aligned, result);
    }
    write(e, i, result);
    Ok(())
}

fn source<E: Emit>(e: &mut E, i: &Insn, kind: Operand, n: usize) -> E::X {
    match (kind, i.ops[n]) {
        (Operand::None, _) => {
            let zero = e.imm(0);
            e.x_of(zero)
        }
        (Operand::Imm8, _) => {
            let v = e.imm(i.imm & 0xff);
            e.x_of(v)
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

fn write<E: Emit>(e: &mut E, i: &Insn, v: E::X) {
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

fn load<E: Emit>(e: &mut E, i: &Insn, bytes: u8, aligned: bool) -> Result<E::X, E::Fault> {
    let at = e.offset(i, &i.mem);
    match Width::from_bytes(bytes) {
        Some(w @ (Width::B | Width::W)) => {
            let v = e.load(i.mem.seg, at, w)?;
            Ok(e.x_of(v))
        }
        _ => e.load_x(i.mem.seg, at, bytes, aligned),
    }
}

fn store<E: Emit>(e: &mut E, i: &Insn, bytes: u8, aligned: bool, v: E::X) -> R<E> {
    let at = e.offset(i, &i.mem);
    match Width::from_bytes(bytes) {
        Some(w @ (Width::B | Width::W)) => {
            let v = e.v_of(w, v);
            e.store(i.mem.seg, at, w, v)
        }
        _ => e.store_x(i.mem.seg, at, bytes, aligned, v),
    }
}
