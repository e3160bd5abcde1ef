//! What executes vectors.

use super::flat::Bench;
use super::regs::RegFile;
use super::runner::EngineChoice;
use super::vector::Vector;
use egret_cpu::{Interp, IrEngine};
use egret_jit::JitEngine;

/// Something that runs vectors: one of the engines, over a memory of its own.
pub trait VectorEngine {
    /// Runs `vector` from its initial state.
    fn run(&mut self, vector: &Vector) -> Outcome;
}

/// What became of a vector.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It ran.
    Ran(Box<Final>),
    /// The engine cannot run it; the reason is counted.
    Skipped(String),
}

/// The state after a vector.
#[derive(Clone, Debug)]
pub struct Final {
    /// Why it ended.
    pub end: End,
    /// The registers. After a fault `rip` is the instruction that faulted.
    pub regs: RegFile,
    /// The bytes at the addresses of `vector.want.mem`, in its order; `None` where there is no memory.
    pub mem: Vec<Option<u8>>,
    /// Instructions and registers that the engine met and does not have, by name.
    pub unknown: Vec<String>,
    /// Whether compiled code took part, for an engine that compiles.
    pub compiled: Option<bool>,
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The vector's stop condition.
    Stopped,
    /// An exception, where the vector's mode does not deliver it to the guest.
    Fault {
        /// Exception vector.
        vector: u8,
        /// Error code, when the exception has one.
        error: Option<u32>,
        /// CR2, for a page fault.
        cr2: Option<u64>,
    },
    /// A triple fault.
    Shutdown,
    /// It ran longer than any vector may.
    Runaway,
}

/// Makes the bench of an engine; an error is why it cannot run, the reason with which its vectors are skipped.
pub fn make(choice: EngineChoice) -> Result<Box<dyn VectorEngine>, String> {
    match choice {
        EngineChoice::Interp => Ok(Box::new(Bench::new(Interp::default())?)),
        EngineChoice::Ir => Ok(Box::new(Bench::new(IrEngine::default())?)),
        EngineChoice::Jit => Ok(Box::new(Bench::new(JitEngine::foreground().map_err(|e| e.to_string())?)?)),
    }
}
