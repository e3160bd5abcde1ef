//! The reference engine: the interpreter's loop, but every instruction is recorded as IR, and that is evaluated on the
//! CPU. Slow; it shows that the IR says the same as the semantics it was recorded from.

use crate::Cpu;
use crate::fault::Fault;
use crate::interp::{Blocks, Execute};
use egret_isa::insn::Insn;
use egret_isa::ir;

/// `--engine ir`.
pub type IrEngine = Blocks<Recorded>;

/// Runs an instruction by evaluating its IR.
pub struct Recorded;

impl Execute for Recorded {
    const NAME: &'static str = "ir";
    type Code = ir::Block;

    fn prepare(i: &Insn) -> ir::Block {
        ir::record(std::slice::from_ref(i))
    }

    fn execute(code: &ir::Block, cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
        ir::eval(code, 0, cpu)
    }
}
