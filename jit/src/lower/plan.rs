//! What is known about blocks before they are lowered: their IR, where ways join, and what the flags are there.

use super::flags::Kind;
use super::sticky;
use crate::region::{Block, Region, beyond};
use egret_isa::flags::ARITH;
use egret_isa::insn::{Ctx, Insn, Mode};
use egret_isa::ir::{self, Op, Recorder};
use egret_isa::ops::{FlagsOp, Width};

/// Everything that is static about a block.
pub(super) struct Plan {
    pub(super) ir: ir::Block,
    /// More than one way leads in.
    pub(super) join: bool,
    /// The flags at the start may be read before they are replaced.
    pub(super) flags_live: bool,
    /// The kind of the flags in memory at the start, for joins.
    pub(super) kind: Option<Kind>,
}

/// Plans the blocks: their IR, joins, and which flags get where.
pub(super) fn plan(region: &Region) -> Vec<Plan> {
    let mut plans: Vec<Plan> = region
        .blocks
        .iter()
        .zip(record(region))
        .map(|(b, ir)| Plan { ir, join: b.preds + usize::from(b.entry.is_some()) > 1, flags_live: false, kind: None })
        .collect();
    let checked = region.ctx.mode() != Mode::M64 && !region.ctx.has(Ctx::FLAT);
    let uses: Vec<Use> = plans.iter().zip(&region.blocks).map(|(p, b)| block_use(b, &p.ir.ops, checked)).collect();
    loop {
        let mut changed = false;
        for n in (0..plans.len()).rev() {
            let live = match uses[n] {
                Use::Read => true,
                Use::Replaced => false,
                Use::None => {
                    // The way back in a loop may leave because the budget is used up.
                    region.blocks[n].leaves() || region.blocks[n].successors().any(|s| s <= n || plans[s].flags_live)
                }
            };
            changed |= live != plans[n].flags_live;
            plans[n].flags_live = live;
        }
        if !changed {
            break;
        }
    }
    kinds(region, &mut plans);
    plans
}

/// The IR of blocks. An instruction with an op that has no lowering is left to the CPU, and so is one whose floating point
/// Cranelift might drop or move.
fn record(region: &Region) -> Vec<ir::Block> {
    let mut blocks: Vec<Vec<Recorded>> = region.blocks.iter().map(|b| b.insns.iter().map(|(_, i)| Recorded::new(i)).collect()).collect();
    sticky::keep(region, &mut blocks);
    let join = |(b, recorded): (&Block, &Vec<Recorded>)| {
        let mut whole = Recorder::default();
        for ((_, i), r) in b.insns.iter().zip(recorded) {
            if r.call { whole.call_insn(i) } else { whole.insn(i) }
        }
        whole.finish()
    };
    region.blocks.iter().zip(&blocks).map(join).collect()
}

/// An instruction by itself.
pub(super) struct Recorded {
    /// It is left to the CPU's function.
    pub(super) call: bool,
    /// Its ops.
    pub(super) ops: Vec<Op>,
}

impl Recorded {
    fn new(i: &Insn) -> Recorded {
        let ops = ir::record(std::slice::from_ref(i)).ops;
        Recorded { call: !ops.iter().all(|op| super::lowerable(op, i.ctx)), ops }
    }
}

/// Whether an op does floating point, which may leave sticky flags.
pub(super) fn floats(op: &Op) -> bool {
    matches!(op, Op::Fp { .. } | Op::Fma { .. } | Op::FpCompare { .. })
}

/// What a block does to the flags first.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    None,
    Read,
    Replaced,
}

fn block_use(block: &Block, ops: &[Op], checked: bool) -> Use {
    if block.insns.last().is_none_or(|(at, i)| beyond(*at, i) == 0) {
        return first_use(ops, checked);
    }
    // The last instruction may be left to the interpreter, with the flags from before it.
    let last = ops.iter().rposition(|op| matches!(op, Op::Insn(_))).unwrap_or(0);
    match first_use(&ops[..last], checked) {
        Use::Replaced => Use::Replaced,
        Use::None | Use::Read => Use::Read,
    }
}

fn first_use(ops: &[Op], checked: bool) -> Use {
    let mut depth = 0;
    for op in ops {
        match op {
            Op::When(_) => depth += 1,
            Op::EndWhen => depth -= 1,
            Op::Flags { .. } if depth == 0 => return Use::Replaced,
            Op::SetFlagsWord(ARITH, _) if depth == 0 => return Use::Replaced,
            Op::Imm(_)
            | Op::Insn(_)
            | Op::Gpr(..)
            | Op::SetGpr(..)
            | Op::Selector(_)
            | Op::Bin(..)
            | Op::Un(..)
            | Op::Rel(..)
            | Op::Sext(..)
            | Op::Trunc(..)
            | Op::Select(..)
            | Op::Remainder(_)
            | Op::RmwStore { .. }
            | Op::NextIp(_)
            | Op::Xmm(_)
            | Op::SetXmm(..)
            | Op::YmmHi(_)
            | Op::SetYmmHi(..)
            | Op::Upper(_)
            | Op::Vec3 { .. }
            | Op::XOf(_)
            | Op::VOf(..)
            | Op::Vec { .. } => {}
            Op::Branch { .. } | Op::Jump(_) if !checked => {}
            // Reads them, or may leave and have to say what they are.
            _ => return Use::Read,
        }
    }
    Use::None
}

/// The kind of flags in memory at each join, where all ways in agree.
fn kinds(region: &Region, plans: &mut [Plan]) {
    /// What a block leaves behind: nothing new, something of unknown kind, or a kind.
    #[derive(Clone, Copy, PartialEq)]
    enum Out {
        Same,
        Unknown,
        Is(Kind),
    }
    let outs: Vec<Out> = plans
        .iter()
        .map(|p| {
            let (mut out, mut depth) = (Out::Same, 0);
            for op in &p.ir.ops {
                match op {
                    Op::When(_) => depth += 1,
                    Op::EndWhen => depth -= 1,
                    Op::Flags { op, w, .. } => out = if depth == 0 { Out::Is((*op, *w)) } else { Out::Unknown },
                    Op::SetFlagsWord(..) => out = if depth == 0 { Out::Is((FlagsOp::Word, Width::Q)) } else { Out::Unknown },
                    Op::Call(_) => out = Out::Unknown,
                    _ => {}
                }
            }
            out
        })
        .collect();
    // `Same` stands for "not reached yet" in the states at block starts.
    let mut starts = vec![Out::Same; plans.len()];
    for (n, b) in region.blocks.iter().enumerate() {
        if b.entry.is_some() {
            starts[n] = Out::Unknown;
        }
    }
    loop {
        let mut changed = false;
        for (n, b) in region.blocks.iter().enumerate() {
            let end = if outs[n] == Out::Same { starts[n] } else { outs[n] };
            for s in b.successors() {
                let meet = match (starts[s], end) {
                    (Out::Same, e) => e,
                    (old, Out::Same) => old,
                    (old, e) if old == e => old,
                    _ => Out::Unknown,
                };
                changed |= meet != starts[s];
                starts[s] = meet;
            }
        }
        if !changed {
            break;
        }
    }
    for (p, s) in plans.iter_mut().zip(starts) {
        p.kind = if let Out::Is(kind) = s { Some(kind) } else { None };
    }
}
