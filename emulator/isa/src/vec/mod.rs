//! The vector instruction set (MMX and SSE to SSE4.2) as values: what each instruction computes, without registers or memory.
//!
//! [`decode`] gives the plan of an encoding: operation, operands, memory access and checks. [`eval2`], [`eval2_mmx`] and the
//! floating-point functions compute results. Whoever owns registers and memory reads operands, evaluates and writes.

mod crypto;
mod decode;
mod fp;
mod int;
mod lanes;
mod op;
mod plan;
mod shuffle;
mod string;

pub use decode::decode;
pub use fp::{compare, eval_fp};
pub use int::{eval2, eval2_mmx, eval3, test};
pub use op::{Arith, Fmt, FpOp, Lanes, Shape, StringOp, ToInt, Vec3Op, VecOp};
pub use plan::{Check, Mem, MmxState, Op, Operand, VecInsn};
pub use string::{StringResult, compare_strings};
