//! From iced's code of an encoding to its plan: one row per encoding.

mod ext;
mod fp;
mod int;
mod moves;
mod vex;

use iced_x86::{Code, EncodingKind};

use super::plan::{Check, HalvesOp, Mem, MmxState, Op, Operand, VecInsn};
use super::{FpOp, VecOp};

/// The plan of an MMX or SSE instruction, or of a VEX-encoded one of AVX, AVX2, FMA, F16C, VAES or VPCLMULQDQ; `None` for everything
/// else, and for fences, prefetches and the state-saving instructions, which compute nothing.
pub fn decode(code: Code) -> Option<VecInsn> {
    match code.op_code().encoding() {
        EncodingKind::Legacy => legacy(code),
        EncodingKind::VEX => vex::decode(code),
        _ => None,
    }
}

fn legacy(code: Code) -> Option<VecInsn> {
    moves::decode(code).or_else(|| int::decode(code)).or_else(|| fp::decode(code)).or_else(|| ext::decode(code))
}

/// A plan with everything named but the options, which the methods below add.
fn plan(op: Op, dst: Operand, b: Operand, mem: Mem) -> VecInsn {
    let reads_a = match op {
        Op::Vec(op) => op.reads_a(),
        Op::Fp(op) => op.reads_a(),
        Op::Vec3(_) | Op::Fma(_) | Op::Compare { .. } | Op::Test(_) | Op::Strings(_) | Op::MaskedStore => true,
        Op::Halves(op) => !matches!(op, HalvesOp::Extract | HalvesOp::Permute64),
        Op::Emms | Op::Zero(_) | Op::MaskedMove(_) | Op::Gather { .. } => false,
    };
    let a = match dst {
        _ if !reads_a => Operand::None,
        Operand::Flags | Operand::Ecx | Operand::Xmm0 => Operand::Xmm,
        Operand::Mem => b,
        _ => dst,
    };
    let has = |o| dst == o || b == o;
    let check = match (has(Operand::Xmm) || has(Operand::Mxcsr), has(Operand::Mm)) {
        (true, false) => Check::Sse,
        (true, true) => Check::SseMmx,
        (false, true) => Check::Mmx,
        (false, false) => Check::None,
    };
    let mmx = if has(Operand::Mm) { MmxState::Entered } else { MmxState::Untouched };
    let mmx_lanes = has(Operand::Mm) && !has(Operand::Xmm);
    VecInsn { op, mem_op: op, dst, a, b, mem, check, mmx, mmx_lanes, non_temporal: false, vex: None }
}

impl VecInsn {
    fn mem_op(self, op: VecOp) -> VecInsn {
        VecInsn { mem_op: Op::Vec(op), ..self }
    }

    fn non_temporal(self) -> VecInsn {
        VecInsn { non_temporal: true, ..self }
    }
}

/// A load of a whole aligned register.
const ALIGNED: Mem = Mem::Load { bytes: 16, aligned: true };

/// A load without alignment check.
const fn load(bytes: u8) -> Mem {
    Mem::Load { bytes, aligned: false }
}

/// A store without alignment check.
const fn store(bytes: u8) -> Mem {
    Mem::Store { bytes, aligned: false }
}

/// `op xmm, xmm/m128`.
fn xx(op: VecOp) -> VecInsn {
    plan(Op::Vec(op), Operand::Xmm, Operand::Xmm, ALIGNED)
}

/// `op mm, mm/m64`.
fn mm(op: VecOp) -> VecInsn {
    plan(Op::Vec(op), Operand::Mm, Operand::Mm, load(8))
}

/// A floating-point operation on `xmm, xmm/m128`.
fn packed(op: FpOp) -> VecInsn {
    plan(Op::Fp(op), Operand::Xmm, Operand::Xmm, ALIGNED)
}

/// A floating-point operation on `dst, b` with a load of `bytes`.
fn scalar(op: FpOp, dst: Operand, b: Operand, bytes: u8) -> VecInsn {
    plan(Op::Fp(op), dst, b, load(bytes))
}

/// Rows of an operation that has an MMX and an SSE form.
macro_rules! pairs {
    ($code:expr; $($mm:ident, $xmm:ident => $op:expr;)*) => {
        match $code {
            $(Code::$mm => Some(super::mm($op)), Code::$xmm => Some(super::xx($op)),)*
            _ => None,
        }
    };
}

/// Rows of one encoding each.
macro_rules! rows {
    ($code:expr; $($name:ident => $plan:expr;)*) => {
        match $code {
            $(Code::$name => Some($plan),)*
            _ => None,
        }
    };
}

use {pairs, rows};
