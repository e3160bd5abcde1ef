//! Which registers a region needs where: liveness of general and vector registers over its blocks.
//!
//! What is not live when control enters is not loaded: on every way it is overwritten first, or the region is left, for which
//! memory has it.

use super::x87;
use crate::region::{Block, Region};
use egret_isa::ir::Op;
use egret_isa::ops::Width;

/// Sets of registers, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Regs {
    pub(super) gpr: u16,
    pub(super) xmm: u16,
    /// Upper halves of YMM registers.
    pub(super) ymm: u16,
}

impl Regs {
    fn or(self, other: Regs) -> Regs {
        Regs { gpr: self.gpr | other.gpr, xmm: self.xmm | other.xmm, ymm: self.ymm | other.ymm }
    }

    fn without(self, other: Regs) -> Regs {
        Regs { gpr: self.gpr & !other.gpr, xmm: self.xmm & !other.xmm, ymm: self.ymm & !other.ymm }
    }
}

/// The result for one block.
#[derive(Clone, Default)]
pub(super) struct Live {
    /// Registers needed at its start.
    pub(super) start: Regs,
    /// Registers needed after each [`Op::Call`] in it, in order.
    pub(super) after_calls: Vec<Regs>,
}

/// Computes liveness from the blocks' IR.
pub(super) fn live<'a>(region: &Region, ops: impl Fn(usize) -> &'a [Op]) -> Vec<Live> {
    let count = region.blocks.len();
    // With nothing live at the end: what a block needs. With everything live: what it lets through.
    let needs: Vec<Regs> = (0..count).map(|n| backward(&region.blocks[n], ops(n), Regs::default(), &mut |_| ())).collect();
    let all = Regs { gpr: u16::MAX, xmm: u16::MAX, ymm: u16::MAX };
    let passes: Vec<Regs> = (0..count).map(|n| backward(&region.blocks[n], ops(n), all, &mut |_| ())).collect();
    let mut start = needs.clone();
    loop {
        let mut changed = false;
        for n in (0..count).rev() {
            let end = at_end(region, n, &start);
            let new = needs[n].or(end.without(all.without(passes[n])));
            changed |= new != start[n];
            start[n] = new;
        }
        if !changed {
            break;
        }
    }
    let mut result: Vec<Live> = start.iter().map(|s| Live { start: *s, after_calls: Vec::new() }).collect();
    for (n, l) in result.iter_mut().enumerate() {
        let mut after = Vec::new();
        backward(&region.blocks[n], ops(n), at_end(region, n, &start), &mut |regs| after.push(regs));
        after.reverse();
        l.after_calls = after;
    }
    result
}

fn at_end(region: &Region, n: usize, start: &[Regs]) -> Regs {
    region.blocks[n].successors().fold(Regs::default(), |all, s| all.or(start[s]))
}

/// What is live before ops, given what is live after them; `at_call` hears what is live after each call.
fn backward(block: &Block, ops: &[Op], end: Regs, at_call: &mut dyn FnMut(Regs)) -> Regs {
    let mut live = end;
    let mut depth = 0;
    for op in ops.iter().rev() {
        match *op {
            Op::EndWhen => depth += 1,
            Op::When(_) => depth -= 1,
            Op::Gpr(r, _) => live.gpr |= 1 << (r & 15),
            Op::Xmm(r) => live.xmm |= 1 << (r & 15),
            Op::YmmHi(r) => live.ymm |= 1 << (r & 15),
            Op::SetYmmHi(r, _) if depth > 0 => live.ymm |= 1 << (r & 15),
            Op::SetYmmHi(r, _) => live.ymm &= !(1 << (r & 15)),
            // A partial or conditional definition needs the rest.
            Op::SetGpr(r, w, _) if depth > 0 || w < Width::D => live.gpr |= 1 << (r & 15),
            Op::SetGpr(r, ..) => live.gpr &= !(1 << (r & 15)),
            Op::SetXmm(r, _) if depth > 0 => live.xmm |= 1 << (r & 15),
            Op::SetXmm(r, _) => live.xmm &= !(1 << (r & 15)),
            Op::Call(n) => {
                at_call(live);
                if x87::quick(block, n) {
                    live.gpr |= x87::registers(block, n);
                } else if depth == 0 {
                    live = Regs::default();
                }
            }
            _ => {}
        }
    }
    live
}
