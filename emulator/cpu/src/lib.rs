//! The CPU: architectural state, memory management, exceptions, the CPU's own functions, and the interpreter.
//!
//! `unsafe` is used in two places: `memory.rs`, to reach guest RAM through addresses that the TLB keeps, and `cluster.rs`, to
//! get the attention of a CPU on another thread.

mod cluster;
pub mod cpu;
mod delivery;
mod direct;
pub mod engine;
pub mod exceptions;
pub mod fault;
pub mod functions;
mod generation;
pub mod interp;
pub mod ir_engine;
mod memory;
mod mmu;
mod reach;
mod segments;
pub mod state;
pub mod system;
mod task;
pub mod tlb;

pub use cluster::{Cluster, Kick};
pub use cpu::Cpu;
pub use egret_bus::{GuestRam, Phys};
pub use engine::{Engine, Exit};
pub use fault::Fault;
pub use interp::Interp;
pub use ir_engine::IrEngine;
pub use memory::Host;
pub use state::{SegReg, State};
pub use system::System;
