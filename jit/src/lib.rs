//! The JIT engine: regions of hot guest code become host code, by way of the IR and Cranelift.
//!
//! [`engine::JitEngine`] runs cold code in the interpreter and asks for what gets hot; [`region`] finds the blocks that go
//! together, [`compile`] makes code of them (through the lowering of IR to CLIF), on a thread of [`queue`]; [`cache`] holds what
//! is installed, [`store`] what was or will be again, [`memory`] the machine code itself. [`vm`] and [`helpers`] are what compiled code sees of us.

pub mod cache;
pub mod compile;
mod constants;
mod dump;
pub mod engine;
mod frame;
pub mod helpers;
pub mod host_crypto;
mod host_fp;
pub mod host_x87;
mod jumps;
pub mod leaf;
mod lower;
pub mod memory;
pub mod queue;
pub mod region;
pub mod store;
pub mod vm;

pub use engine::{JitEngine, JitError, Options};
pub use store::{Settings as StoreSettings, create_private, make_private_dir};
