//! x86 as text: encodings, semantics, ops, IR, flags, soft floating point. No I/O, no unsafe, no Cranelift.
#![forbid(unsafe_code)]

pub mod fp;
pub mod vec;
