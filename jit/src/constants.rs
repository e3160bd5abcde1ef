//! Constants where they are used.
//!
//! Cranelift's optimizer makes each constant once for a tree of blocks and again in every block below that uses it, but loses sight of
//! what it has made twice: such a constant stays in a register, or on the stack, from the beginning of a region to its end.

use cranelift_codegen::ir::{Block, Function, Inst, Opcode, Value};
use rustc_hash::FxHashMap;

/// Gives every block its own constants.
pub fn localize(func: &mut Function) {
    let mut here = FxHashMap::default();
    let mut next_block = func.layout.entry_block();
    while let Some(block) = next_block {
        here.clear();
        let mut next = func.layout.first_inst(block);
        while let Some(inst) = next {
            localize_operands(func, block, inst, &mut here);
            next = func.layout.next_inst(inst);
        }
        next_block = func.layout.next_block(block);
    }
}

/// The same for one instruction; `here` are the block's own constants by those of others.
fn localize_operands(func: &mut Function, block: Block, inst: Inst, here: &mut FxHashMap<Value, Value>) {
    for v in func.dfg.inst_values(inst).collect::<Vec<_>>() {
        let Some(made) = func.dfg.value_def(v).inst() else { continue };
        let constant = matches!(func.dfg.insts[made].opcode(), Opcode::Iconst | Opcode::F32const | Opcode::F64const);
        if constant && func.layout.inst_block(made) != Some(block) {
            here.entry(v).or_insert_with(|| {
                let own = func.dfg.clone_inst(made);
                func.layout.insert_inst(own, inst);
                func.dfg.first_result(own)
            });
        }
    }
    func.dfg.map_inst_values(inst, |v| here.get(&v).copied().unwrap_or(v));
}
