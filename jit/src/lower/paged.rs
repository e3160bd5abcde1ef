//! Accesses in loops that mostly stay in one page: the page is kept in values of the loop, so that the TLB is asked only when
//! another page begins.
//!
//! Which accesses these are is a guess from how their addresses change around the loop; a wrong one costs time, nothing else.
//! The translations are as good as the TLB's: calls to the CPU, which alone can change those, forget them.

use super::{Lower, Plan};
use crate::region::{Blocks, MAX_BLOCKS, Region};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{Block as ClifBlock, InstBuilder, Value};
use cranelift_frontend::Variable;
use egret_isa::ir::{Op, Val};
use egret_isa::ops::{Bin, Width};
use rustc_hash::FxHashMap;

/// Most pages that a loop keeps, and a region: every one is three values more at each place where ways join.
const MOST: usize = 2;
const MOST_IN_ALL: usize = 4;
/// Instructions of the largest loop that is worth it: longer ones need the host's registers for their own.
const LARGEST: usize = 16;
/// Table indices below this are taken to stay in a page.
const SMALL: u64 = 256;

/// The page of one access: its first linear address, what leads from there to host memory, and how many linear addresses from the
/// first on are good, 0 for none.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    page: Variable,
    addend: Variable,
    limit: Variable,
}

/// The accesses to be treated so in a region with these loops, as numbers of blocks and ops.
pub(super) fn sites(loops: &[Loop], plans: &[Plan]) -> FxHashMap<(usize, usize), usize> {
    let mut sites = FxHashMap::default();
    let loops = small(loops);
    for (number, body) in loops.iter().enumerate() {
        let blocks: Vec<usize> = (0..plans.len()).filter(|n| body >> n & 1 != 0).collect();
        let steady = steady(&blocks, plans);
        let mut count = 0;
        for n in blocks {
            // The smallest loop around a block is its own.
            let own = (0..loops.len()).filter(|l| loops[*l] >> n & 1 != 0).min_by_key(|l| (loops[*l].count_ones(), *l));
            if own != Some(number) {
                continue;
            }
            for at in smooth_accesses(&plans[n].ir.ops, steady) {
                if count < MOST && sites.len() < MOST_IN_ALL {
                    let next = sites.len();
                    sites.insert((n, at), next);
                    count += 1;
                }
            }
        }
    }
    sites
}

/// A natural loop.
pub(super) struct Loop {
    /// Its blocks, as a set.
    pub(super) body: Blocks,
    pub(super) insns: usize,
}

/// The blocks of the loops that are worth it, as sets.
pub(super) fn small(loops: &[Loop]) -> Vec<Blocks> {
    up_to(loops, LARGEST)
}

/// The blocks of the loops of so many instructions at most, as sets.
pub(super) fn up_to(loops: &[Loop], insns: usize) -> Vec<Blocks> {
    loops.iter().filter(|l| l.insns <= insns).map(|l| l.body).collect()
}

/// The loops of a region, those of few blocks first.
pub(super) fn loops(region: &Region) -> Vec<Loop> {
    let count = region.blocks.len().min(MAX_BLOCKS);
    let mut preds: Vec<Blocks> = vec![0; count];
    for n in 0..count {
        for s in region.blocks[n].successors().filter(|s| *s < count) {
            preds[s] |= 1 << n;
        }
    }
    let mut found: FxHashMap<usize, Blocks> = FxHashMap::default();
    for head in 0..count {
        // Blocks are in reverse postorder: what leads back comes later.
        let back = preds[head] & !((1 << head) - 1);
        if back == 0 {
            continue;
        }
        let (mut body, mut todo) = (1 << head | back, back & !(1 << head));
        while todo != 0 {
            let n = todo.trailing_zeros() as usize;
            todo &= todo - 1;
            let new = preds[n] & !body;
            body |= new;
            todo |= new;
        }
        found.insert(head, body);
    }
    let mut loops: Vec<Loop> = found.into_values().map(|body| Loop { body, insns: insns(region, body) }).collect();
    loops.sort_unstable_by_key(|l| (l.body.count_ones(), l.body));
    loops
}

fn insns(region: &Region, body: Blocks) -> usize {
    region.blocks.iter().take(MAX_BLOCKS).enumerate().filter(|(n, _)| body >> n & 1 != 0).map(|(_, b)| b.insns.len()).sum()
}

/// Registers that the blocks leave alone or move by constants, as a set.
fn steady(blocks: &[usize], plans: &[Plan]) -> u16 {
    let mut steady = u16::MAX;
    for n in blocks {
        let ops = &plans[*n].ir.ops;
        // For each value the register that it is, plus a constant.
        let mut from: Vec<Option<u8>> = Vec::with_capacity(ops.len());
        let mut now: [Option<u8>; 16] = std::array::from_fn(|r| Some(r as u8));
        for op in ops {
            let of = |v: Val| from.get(v.0 as usize).copied().flatten();
            let constant = |v: Val| matches!(ops.get(v.0 as usize), Some(Op::Imm(_)));
            from.push(match *op {
                Op::Gpr(r, w) if w >= Width::D => now[usize::from(r & 15)],
                Op::Bin(Bin::Add | Bin::Sub, w, a, b) if w >= Width::D && constant(b) => of(a),
                Op::SetGpr(r, _, v) => {
                    now[usize::from(r & 15)] = of(v);
                    if of(v) != Some(r & 15) {
                        steady &= !(1 << (r & 15));
                    }
                    None
                }
                _ => None,
            });
        }
    }
    steady
}

/// The memory accesses whose addresses change little from one time to the next, given registers that do.
fn smooth_accesses(ops: &[Op], steady: u16) -> Vec<usize> {
    let mut smooth: Vec<bool> = Vec::with_capacity(ops.len());
    let mut now = steady;
    let mut found = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        let is = |v: Val| smooth.get(v.0 as usize).copied().unwrap_or(false);
        let small = |v: Val| matches!(ops.get(v.0 as usize), Some(Op::Imm(c)) if *c < SMALL);
        let constant = |v: Val| matches!(ops.get(v.0 as usize), Some(Op::Imm(_)));
        let value = match *op {
            Op::Imm(_) | Op::NextIp(_) => true,
            Op::Gpr(r, w) => w == Width::B || now >> (r & 15) & 1 != 0,
            Op::Load { w, offset, .. } => {
                if is(offset) {
                    found.push(at);
                }
                w == Width::B
            }
            Op::LoadX { offset, .. } | Op::Store { offset, .. } | Op::StoreX { offset, .. } | Op::RmwLoad { offset, .. } => {
                if is(offset) {
                    found.push(at);
                }
                false
            }
            Op::Bin(Bin::Add | Bin::Sub, _, a, b) => is(a) && is(b),
            Op::Bin(Bin::And, _, a, b) => small(a) || small(b) || is(a) && constant(b),
            Op::Bin(Bin::Shl, _, a, b) => is(a) && constant(b),
            Op::Sext(_, _, a) | Op::Trunc(_, a) => is(a),
            Op::SetGpr(r, w, v) => {
                let bit = 1 << (r & 15);
                now = if w >= Width::D && is(v) { now | bit } else { now & !bit };
                false
            }
            _ => false,
        };
        smooth.push(value);
    }
    found
}

impl Lower<'_, '_> {
    /// Makes the slots; they begin empty.
    pub(super) fn make_slots(&mut self) {
        let zero = self.iconst(0);
        for _ in 0..self.sites.len() {
            let slot = Slot { page: self.b.declare_var(I64), addend: self.b.declare_var(I64), limit: self.b.declare_var(I64) };
            for v in [slot.page, slot.addend, slot.limit] {
                self.b.def_var(v, zero);
            }
            self.slots.push(slot);
        }
    }

    /// Forgets the pages.
    pub(super) fn empty_slots(&mut self) {
        if !self.slots.is_empty() {
            let zero = self.iconst(0);
            for slot in self.slots.clone() {
                self.b.def_var(slot.limit, zero);
            }
        }
    }

    /// The slot of the op being lowered.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.sites.get(&(self.block, self.op_at)).and_then(|n| self.slots.get(*n)).copied()
    }

    /// Goes to `ok` with the slot's addend if the access lies in its page, or the TLB has its page, which is the slot's then; else
    /// to `cold`.
    pub(super) fn look_in(&mut self, slot: Slot, linear: Value, size: u8, write: bool, cold: ClifBlock, ok: ClifBlock) {
        let (page, limit) = (self.b.use_var(slot.page), self.b.use_var(slot.limit));
        let (probe, found) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(probe);
        self.b.set_cold_block(found);
        let new = self.b.append_block_param(found, I64);
        let at = self.b.ins().isub(linear, page);
        let beyond = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, at, limit);
        self.b.ins().brif(beyond, probe, &[], ok, &[]);
        self.b.seal_block(probe);
        self.b.switch_to_block(probe);
        self.look_up(linear, size, write, cold, found);
        self.b.seal_block(found);
        self.b.switch_to_block(found);
        let page = self.b.ins().band_imm_s(linear, !0xfff);
        self.b.def_var(slot.page, page);
        self.b.def_var(slot.addend, new);
        let limit = self.iconst(4097 - u64::from(size));
        self.b.def_var(slot.limit, limit);
        self.b.ins().jump(ok, &[]);
    }

    /// Goes to `ok` with an addend that is good only once.
    pub(super) fn use_once(&mut self, slot: Slot, addend: Value) {
        self.b.def_var(slot.addend, addend);
        let zero = self.iconst(0);
        self.b.def_var(slot.limit, zero);
    }

    /// The addend of a slot.
    pub(super) fn slot_addend(&mut self, slot: Slot) -> Value {
        self.b.use_var(slot.addend)
    }
}
