//! x86 as text: decoded instructions, their semantics written once over a small op vocabulary, the IR those ops
//! record, flags, and exact soft floating point. No I/O, no unsafe code, no Cranelift.
#![forbid(unsafe_code)]

pub mod decode;
pub mod emit;
pub mod flags;
pub mod fp;
pub mod insn;
pub mod ir;
pub mod model;
pub mod ops;
pub mod rows;
pub mod sem;
pub mod vec;
pub mod x87;

pub use emit::{Emit, Unit};
pub use insn::{Ctx, Insn, Mem, Mode, Operand, Rep, Seg};
pub use model::{CpuModel, Feature, Features, Generation};
pub use ops::{Bin, Cond, FlagsOp, Rel, Un, Width};
