//! The vector instruction set (MMX, SSE to SSE4.2, SSE4A, AVX, AVX2, FMA, F16C) as values: what each instruction computes, without registers or memory.
//!
//! [`decode`] gives the plan of an encoding: operation, operands, memory access and checks. [`eval2`], [`eval2_mmx`] and the
//! floating-point functions compute results. Whoever owns registers and memory reads operands, evaluates and writes.

mod crypto;
mod decode;
mod fma;
mod fp;
mod int;
mod lanes;
mod op;
mod plan;
mod shuffle;
mod string;

pub use decode::decode;
pub use fma::eval_fma;
pub use fp::{compare, eval_fp, eval_fp_wide};
pub use int::{eval2, eval2_mmx, eval3};
pub use op::{Arith, FmaKind, FmaOp, FmaOrder, Fmt, FpOp, Lanes, Shape, StringOp, ToInt, Vec3Op, VecOp};
pub use plan::{Check, HalvesOp, Mem, MmxState, Op, Operand, VecInsn, Wide};
pub use shuffle::BitField;
pub use string::{StringResult, compare_strings};
