//! What the machine-level tests share: a PC whose console is kept as text, and programs of random bytes.
#![forbid(unsafe_code)]

pub mod machine;
pub mod random;
pub mod rng;

use egret_cpu::ir_engine::IrEngine;
use egret_cpu::{Engine, Interp};
use egret_jit::JitEngine;

/// An engine's name and how to make one.
pub type Make = (&'static str, fn() -> Box<dyn Engine>);

fn make_jit() -> Box<dyn Engine> {
    Box::new(JitEngine::new().expect("a compiler for this host"))
}

fn make_eager_jit() -> Box<dyn Engine> {
    Box::new(JitEngine::foreground().expect("a compiler for this host"))
}

/// Every engine that can run a machine.
pub const ENGINES: &[Make] = &[("interp", || Box::<Interp>::default()), ("jit", make_jit)];

/// Every engine that is to do what the interpreter does, to the bit. The JIT of this list compiles everything before it runs.
pub const COMPARED: &[Make] = &[("ir", || Box::<IrEngine>::default()), ("eager-jit", make_eager_jit)];
