//! What the machine-level tests share: a PC whose console is kept as text, and programs of random bytes.
#![forbid(unsafe_code)]

pub mod machine;
pub mod random;
pub mod rng;

use egret_cpu::ir_engine::IrEngine;
use egret_cpu::{Engine, Interp};
use egret_jit::compile::Tuning;
use egret_jit::engine::{JitEngine, Options};

/// An engine's name and how to make one.
pub type Make = (&'static str, fn() -> Box<dyn Engine>);

fn make_jit() -> Box<dyn Engine> {
    Box::new(JitEngine::new().expect("a compiler for this host"))
}

/// Compiles every block before it first runs.
fn make_eager_jit(verify: bool) -> Box<dyn Engine> {
    let tuning = Tuning { verify, ..Tuning::default() };
    let options = Options { threshold: 1, foreground: true, code_memory: 16 << 20, tuning, ..Options::default() };
    Box::new(JitEngine::with(options).expect("a compiler for this host"))
}

/// Every engine that can run a machine.
pub const ENGINES: &[Make] = &[("interp", || Box::<Interp>::default()), ("jit", make_jit)];

/// Every engine that is to do what the interpreter does, to the bit.
pub const COMPARED: &[Make] = &[("ir", || Box::<IrEngine>::default()), ("eager-jit", || make_eager_jit(false))];

/// The eager JIT with Cranelift's own checks of its input and its register allocation, which take nearly all of the time.
pub const CHECKED: Make = ("checked-jit", || make_eager_jit(true));
