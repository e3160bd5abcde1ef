//! Which registers are kept in values from block to block: in loops, what is live and used there.
//!
//! What is not live where control comes together is not kept: on every way it is overwritten first, or the region is left, for
//! which memory has it.

use super::paged::{self, Loop};
use super::plan;
use super::x87;
use crate::region::{Block, Blocks, MAX_BLOCKS, Region};
use egret_isa::ir::Op;
use egret_isa::ops::Width;

/// Sets of registers, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Regs {
    pub(super) gpr: u16,
    pub(super) xmm: u16,
    /// Upper halves of YMM registers.
    pub(super) ymm: u16,
    /// The budget too.
    pub(super) budget: bool,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Gpr(usize),
    Xmm(usize),
    /// The upper half of a YMM register.
    Ymm(usize),
}

impl Regs {
    /// The registers, without the budget.
    pub(super) fn iter(self) -> impl Iterator<Item = Reg> {
        let of = |set: u16, reg: fn(usize) -> Reg| (0..16).filter(move |r| set >> r & 1 != 0).map(reg);
        of(self.gpr, Reg::Gpr).chain(of(self.xmm, Reg::Xmm)).chain(of(self.ymm, Reg::Ymm))
    }

    fn of(&mut self, reg: Reg) -> (&mut u16, u16) {
        match reg {
            Reg::Gpr(r) => (&mut self.gpr, 1 << r),
            Reg::Xmm(r) => (&mut self.xmm, 1 << r),
            Reg::Ymm(r) => (&mut self.ymm, 1 << r),
        }
    }

    pub(super) fn has(mut self, reg: Reg) -> bool {
        let (set, bit) = self.of(reg);
        *set & bit != 0
    }

    pub(super) fn add(&mut self, reg: Reg) {
        let (set, bit) = self.of(reg);
        *set |= bit;
    }

    pub(super) fn remove(&mut self, reg: Reg) {
        let (set, bit) = self.of(reg);
        *set &= !bit;
    }

    pub(super) fn or(self, other: Regs) -> Regs {
        Regs { gpr: self.gpr | other.gpr, xmm: self.xmm | other.xmm, ymm: self.ymm | other.ymm, budget: self.budget | other.budget }
    }

    pub(super) fn and(self, other: Regs) -> Regs {
        Regs { gpr: self.gpr & other.gpr, xmm: self.xmm & other.xmm, ymm: self.ymm & other.ymm, budget: self.budget & other.budget }
    }

    pub(super) fn without(self, other: Regs) -> Regs {
        Regs { gpr: self.gpr & !other.gpr, xmm: self.xmm & !other.xmm, ymm: self.ymm & !other.ymm, budget: self.budget & !other.budget }
    }
}

/// Instructions of the largest loop that keeps its registers where control comes together in it: longer ones lose little when
/// they take them from memory, and everything else only has more values alive than the host has registers.
const LARGEST: usize = 64;

/// The blocks of the loops that keep registers in values, each as a set.
pub(crate) fn kept_loops(region: &Region) -> Vec<Blocks> {
    paged::up_to(&paged::loops(region), LARGEST)
}

/// The same of a region's loops.
pub(super) fn keeping(loops: &[Loop]) -> Vec<Blocks> {
    paged::up_to(loops, LARGEST)
}

/// For each block the registers that are values where control comes together at it, given the region's loops and the blocks' IR: in
/// loops those that the loop uses. Elsewhere memory has all.
pub(super) fn kept<'a>(region: &Region, loops: &[Loop], ops: impl Fn(usize) -> &'a [Op]) -> Vec<Regs> {
    let mut kept = vec![Regs::default(); region.blocks.len()];
    if loops.is_empty() {
        return kept;
    }
    let live = live(region, &ops);
    let used: Vec<Regs> = (0..kept.len()).map(|n| used(ops(n))).collect();
    // From small to large: the outermost decides.
    for body in keeping(loops) {
        let blocks = || (0..kept.len()).filter(|n| body >> n & 1 != 0);
        let all = blocks().fold(Regs::default(), |all, n| all.or(used[n]));
        for n in blocks() {
            kept[n] = Regs { budget: true, ..live[n].and(all) };
        }
    }
    kept
}

/// The blocks that hold registers back from memory, as a set: those of loops, and long ones.
pub(super) fn holding(region: &Region, loops: &[Loop]) -> Blocks {
    /// Instructions of a long block.
    const LONG: usize = 24;
    let long = region.blocks.iter().take(MAX_BLOCKS).enumerate().filter(|(_, b)| b.insns.len() >= LONG);
    let looping = keeping(loops).iter().fold(0, |all, body| all | body);
    long.fold(looping, |all, (n, _)| all | 1 << n)
}

/// For each block the registers that memory need not have where control comes together at it: those that a loop around it writes and
/// keeps. Small loops keep all that they write, so that they store nothing; but what floating point writes is stored at once.
pub(super) fn held<'a>(loops: &[Loop], kept: &mut [Regs], ops: impl Fn(usize) -> &'a [Op]) -> Vec<Regs> {
    let mut held = vec![Regs::default(); kept.len()];
    let small = paged::small(loops);
    for body in keeping(loops) {
        let blocks: Vec<usize> = (0..held.len()).filter(|n| body >> n & 1 != 0).collect();
        let [written, stored] = [false, true].map(|floats| blocks.iter().fold(Regs::default(), |all, n| all.or(set_by(ops(*n), floats))));
        let written = written.without(Regs { gpr: 0, ..stored });
        for n in blocks {
            if small.contains(&body) {
                kept[n] = kept[n].or(written);
            }
            held[n] = held[n].or(written.and(kept[n]));
        }
    }
    held
}

/// The registers that ops read or write.
fn used(ops: &[Op]) -> Regs {
    let mut regs = Regs::default();
    for op in ops {
        match *op {
            Op::Gpr(r, _) | Op::SetGpr(r, ..) => regs.gpr |= 1 << (r & 15),
            Op::Xmm(r) | Op::SetXmm(r, _) => regs.xmm |= 1 << (r & 15),
            Op::YmmHi(r) | Op::SetYmmHi(r, _) => regs.ymm |= 1 << (r & 15),
            _ => {}
        }
    }
    regs
}

/// The registers that instructions which do floating point, or do not, write.
fn set_by(ops: &[Op], floats: bool) -> Regs {
    let insns = ops.chunk_by(|_, next| !matches!(next, Op::Insn(_)));
    insns.filter(|own| own.iter().any(plan::floats) == floats).fold(Regs::default(), |all, own| all.or(set(own)))
}

/// The registers that ops write.
pub(super) fn set(ops: &[Op]) -> Regs {
    let writes = |op: &&Op| matches!(op, Op::SetGpr(..) | Op::SetXmm(..) | Op::SetYmmHi(..));
    ops.iter().filter(writes).fold(Regs::default(), |all, op| all.or(used(std::slice::from_ref(op))))
}

/// Computes from the blocks' IR what is live at their starts.
fn live<'a>(region: &Region, ops: &impl Fn(usize) -> &'a [Op]) -> Vec<Regs> {
    let count = region.blocks.len();
    // With nothing live at the end: what a block needs. With everything live: what it lets through.
    let needs: Vec<Regs> = (0..count).map(|n| backward(&region.blocks[n], ops(n), Regs::default())).collect();
    let all = Regs { gpr: u16::MAX, xmm: u16::MAX, ymm: u16::MAX, budget: false };
    let passes: Vec<Regs> = (0..count).map(|n| backward(&region.blocks[n], ops(n), all)).collect();
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
    start
}

fn at_end(region: &Region, n: usize, start: &[Regs]) -> Regs {
    region.blocks[n].successors().fold(Regs::default(), |all, s| all.or(start[s]))
}

/// What is live before ops, given what is live after them.
fn backward(block: &Block, ops: &[Op], end: Regs) -> Regs {
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
