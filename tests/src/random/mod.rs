//! Programs of random bytes, run in every mode on a small machine, and compared between engines.
//!
//! A program is a handful of bytes, random or made of valid instructions with some bits flipped. It is entered every few bytes,
//! each time with new registers and control registers, so that all of its bytes are tried. Memory has tables whose
//! handlers halt; the program may change them, and does.

mod bench;
mod check;
pub mod fuzz;
mod program;
mod world;

pub use bench::Bench;
pub use check::{Failure, Pair, Totals};
pub use program::{Program, Start};
