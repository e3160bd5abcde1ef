//! Floating point leaves sticky flags in MXCSR, but Cranelift takes it for pure: an operation whose result nobody sees is dropped,
//! and one whose operands do not change in a loop moves in front of it. Instructions that this could happen to are found here and
//! left to the CPU's function. Compilers make next to none: they are the operations that they would have dropped or moved themselves.
//!
//! A result is seen when the store of its register to [`egret_cpu::State`] stays. Cranelift removes a store only if on every way on
//! another one overwrites it before anything could look: a call, a read, or a way out of the region.

use super::fp::COMPARES;
use super::plan::{Recorded, floats};
use crate::region::{Block, End, Region};
use egret_isa::ir::{Op, Val};
use egret_isa::ops::{Bin, Width};
use egret_isa::vec::{Arith, FpOp, Shape, VecOp};

/// Sets of registers by number: general ones from 0, XMM from 16, upper halves of YMM from 32; then the arithmetic flags.
type Set = u64;
const FLAGS: Set = 1 << 48;
const ALL: Set = (1 << 49) - 1;

fn gpr(r: u8) -> Set {
    1 << (r & 15)
}

fn xmm(r: u8) -> Set {
    1 << (16 + (r & 15))
}

fn ymm(r: u8) -> Set {
    1 << (32 + (r & 15))
}

/// Marks the instructions that must be calls.
pub(super) fn keep(region: &Region, blocks: &mut [Vec<Recorded>]) {
    if !blocks.iter().flatten().any(|r| !r.call && r.floats()) {
        return;
    }
    for r in blocks.iter_mut().flatten() {
        r.call |= r.keeps_operand();
    }
    dropped(region, blocks);
    moved(region, blocks);
}

impl Recorded {
    fn floats(&self) -> bool {
        self.ops.iter().any(floats)
    }

    fn reads(&self) -> Set {
        self.ops.iter().fold(0, |all, op| {
            all | match op {
                Op::Gpr(r, _) => gpr(*r),
                Op::Xmm(r) => xmm(*r),
                Op::YmmHi(r) => ymm(*r),
                Op::FlagsWord | Op::Cond(_) => FLAGS,
                _ => 0,
            }
        })
    }

    /// The registers that its results depend on: not those it makes a constant of, nor those that its immediate leaves out.
    fn looks_at(&self) -> Set {
        if self.with_itself() {
            return 0;
        }
        let register = |v: Val| match self.ops.get(v.0 as usize) {
            Some(Op::Xmm(r)) => xmm(*r),
            Some(Op::YmmHi(r)) => ymm(*r),
            _ => 0,
        };
        let left_out = self.ops.iter().fold(0, |all, op| {
            let Op::Vec { op, a, b, imm } = *op else { return all };
            let (first, second) = leaves_out(op, imm, self.constant(b));
            // What is both operands is left out when both are.
            let first = first && (second || a != b);
            let second = second && (first || a != b);
            all | if first { register(a) } else { 0 } | if second { register(b) } else { 0 }
        });
        self.reads() & !left_out
    }

    /// The low half of a vector that is known.
    fn constant(&self, v: Val) -> Option<u64> {
        let Some(Op::XOf(v)) = self.ops.get(v.0 as usize) else { return None };
        match self.ops.get(v.0 as usize) {
            Some(Op::Imm(c)) => Some(*c),
            _ => None,
        }
    }

    fn writes(&self) -> Set {
        self.ops.iter().fold(0, |all, op| {
            all | match op {
                Op::SetGpr(r, ..) => gpr(*r),
                Op::SetXmm(r, _) => xmm(*r),
                Op::SetYmmHi(r, _) => ymm(*r),
                Op::Flags { .. } | Op::SetFlagsWord(..) => FLAGS,
                _ => 0,
            }
        })
    }

    /// The registers that it computes.
    fn results(&self) -> Set {
        let cleared = |all: Set, op: &Op| match op {
            Op::SetYmmHi(r, v) if self.constant(*v).is_some() => all | ymm(*r),
            _ => all,
        };
        self.writes() & !self.ops.iter().fold(0, cleared)
    }

    /// Whether all that it does is to compute values for registers: it neither leaves nor touches memory.
    fn pure(&self) -> bool {
        !self.call && !self.ops.iter().any(|op| op.can_fault() && !harmless(op) || matches!(op, Op::Jump(_) | Op::When(_)))
    }

    /// The least or greatest of a register and itself: Cranelift sees that the result is the operand, and neither flushes a denormal
    /// nor raises flags.
    fn keeps_operand(&self) -> bool {
        let register = |v: Val| self.ops.get(v.0 as usize).filter(|op| matches!(op, Op::Xmm(_) | Op::YmmHi(_)));
        self.ops.iter().any(|op| match op {
            Op::Fp { op: FpOp::Arith(Arith::Min | Arith::Max, ..), a, b, .. } => {
                a == b || register(*a).is_some() && register(*a) == register(*b)
            }
            _ => false,
        })
    }

    /// Whether its result goes to memory, where it is always seen.
    fn stores(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Store { .. } | Op::StoreX { .. } | Op::StoreY { .. }))
    }

    /// Whether what it writes may be the same every time, if registers in `fixed` are. A call's results come from memory.
    fn repeats(&self, fixed: Set) -> bool {
        let other = self.call || self.floats() || self.ops.iter().any(loads);
        !other && (self.reads() & !fixed == 0 || self.with_itself())
    }

    /// The registers that may be the same every time after it, if those in `fixed` are before it.
    fn fixed_after(&self, fixed: Set) -> Set {
        if self.repeats(fixed) { fixed | self.writes() } else { fixed & !self.writes() }
    }

    /// Whether it may make a constant of what it reads: of a register and itself, as XOR, SUB and PCMPEQ do, or with AND 0, OR -1.
    fn with_itself(&self) -> bool {
        let of = |v: Val| match self.ops.get(v.0 as usize) {
            Some(Op::Gpr(r, _)) => gpr(*r),
            Some(Op::Xmm(r)) => xmm(*r),
            _ => 0,
        };
        let extreme =
            |v: Val, w: Width| matches!(self.ops.get(v.0 as usize), Some(Op::Imm(c)) if *c & w.mask() == 0 || *c & w.mask() == w.mask());
        self.ops.iter().any(|op| match *op {
            Op::Bin(Bin::And | Bin::Or | Bin::Mul, w, a, b) if extreme(a, w) || extreme(b, w) => true,
            Op::Bin(Bin::Sub | Bin::Xor, _, a, b) => of(a) != 0 && of(a) == of(b),
            Op::Vec { op, a, b, .. } => cancels(op) && of(a) != 0 && of(a) == of(b),
            _ => false,
        })
    }

    fn compares(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::FpCompare { .. }))
    }
}

/// These may fault, but what is lowered has everything masked, [`Op::Require`] was settled by the context, and where a
/// branch goes is a matter of the block's end.
fn harmless(op: &Op) -> bool {
    matches!(op, Op::Fp { .. } | Op::Fma { .. } | Op::FpCompare { .. } | Op::Require(_) | Op::Branch { .. })
}

/// Calls instead of what may have no result that anybody sees.
fn dropped(region: &Region, blocks: &mut [Vec<Recorded>]) {
    let mut seen: Vec<Set> = vec![0; blocks.len()];
    loop {
        let mut changed = false;
        for n in (0..blocks.len()).rev() {
            let end = at_end(region, n, &seen);
            let start = backward(&mut blocks[n], end);
            changed |= start != seen[n];
            seen[n] = start;
        }
        if !changed {
            return;
        }
    }
}

/// What is looked at after a block's end. Ways back leave when the budget is used up.
fn at_end(region: &Region, n: usize, seen: &[Set]) -> Set {
    let b = &region.blocks[n];
    if b.leaves() || b.successors().any(|s| s <= n) {
        return ALL;
    }
    b.successors().fold(0, |all, s| all | seen[s])
}

/// What is looked at before a block, given what is after it. Sets only grow from round to round, so calls stay calls for a reason.
fn backward(insns: &mut [Recorded], end: Set) -> Set {
    let mut seen = end;
    // Comparisons since something looked: their results are stored to a few places in turn.
    let mut compares = 0;
    for r in insns.iter_mut().rev() {
        let writes = r.writes();
        if r.floats() && !r.call && !r.stores() {
            // Both halves of a YMM register, unless the upper one is only cleared.
            r.call = r.results() & !seen != 0 || (r.compares() && compares >= COMPARES);
        }
        if !r.pure() {
            (seen, compares) = (ALL, 0);
            continue;
        }
        compares += usize::from(r.floats() && r.compares());
        // What only makes values that nobody sees is dropped, and does not look at its operands.
        let branches = r.ops.iter().any(|op| matches!(op, Op::Branch { .. }));
        if branches || seen & writes != 0 {
            seen = seen & !writes | r.looks_at();
        }
    }
    seen
}

/// Calls instead of operations in loops whose operands may be the same every time.
///
/// A loop over a jump to an address known at run time only goes through one of the region's entries, which takes all registers from
/// memory: there only what is computed from constants is the same.
fn moved(region: &Region, blocks: &mut [Vec<Recorded>]) {
    for (dynamic, kept) in [(false, ALL), (true, 0)] {
        moved_in(region, &reachable(region, dynamic), kept, blocks);
    }
}

/// The same for loops of certain ways, given the registers that keep their values over these unless they are written.
fn moved_in(region: &Region, reach: &[u128], kept: Set, blocks: &mut [Vec<Recorded>]) {
    for n in 0..blocks.len() {
        if reach[n] >> n & 1 == 0 {
            continue;
        }
        let cycle: Vec<usize> = (0..blocks.len()).filter(|m| reach[n] >> m & 1 != 0 && reach[*m] >> n & 1 != 0).collect();
        let mut fixed = unchanging(region, &cycle, kept, blocks)[n];
        for r in &mut blocks[n] {
            r.call |=
                r.ops.iter().enumerate().any(|(at, op)| operands(op).is_some_and(|o| o.iter().all(|v| same(&r.ops[..at], *v, fixed))));
            fixed = r.fixed_after(fixed);
        }
    }
}

/// For each block the blocks that control can reach from it; `dynamic` also by jumps to addresses known at run time only, which may
/// go to any entry.
fn reachable(region: &Region, dynamic: bool) -> Vec<u128> {
    let entries = region.blocks.iter().enumerate().filter(|(_, b)| b.entry.is_some()).fold(0, |all, (n, _)| all | bit(n));
    let direct = |b: &Block| b.successors().fold(0, |all, s| all | bit(s));
    let mut reach: Vec<u128> = region.blocks.iter().map(|b| if dynamic && b.end == End::Dynamic { entries } else { direct(b) }).collect();
    loop {
        let mut changed = false;
        for n in 0..reach.len() {
            let more = (0..reach.len()).filter(|m| reach[n] & bit(*m) != 0).fold(reach[n], |all, m| all | reach[m]);
            changed |= more != reach[n];
            reach[n] = more;
        }
        if !changed {
            return reach;
        }
    }
}

/// Regions have fewer blocks than this has bits.
fn bit(block: usize) -> u128 {
    1u128.checked_shl(block as u32).unwrap_or(0)
}

/// For each block of a cycle the registers that may hold the same value every time control gets there: on all ways round nothing
/// writes them, or something that computes it from such registers alone. Where one way brings another value, a choice between
/// values is made, which is not the same every time.
fn unchanging(region: &Region, cycle: &[usize], kept: Set, blocks: &[Vec<Recorded>]) -> Vec<Set> {
    let after = |n: usize, start: Set| blocks[n].iter().fold(start, |fixed, r| r.fixed_after(fixed));
    let mut starts: Vec<Set> = region.blocks.iter().map(|b| if b.entry.is_some() { kept } else { ALL }).collect();
    loop {
        let mut changed = false;
        for from in cycle {
            let end = after(*from, starts[*from]);
            for to in region.blocks[*from].successors().filter(|to| cycle.contains(to)) {
                changed |= starts[to] & !end != 0;
                starts[to] &= end;
            }
        }
        if !changed {
            return starts;
        }
    }
}

/// Cranelift moves no load out of a loop that may write memory, and does not know what is in guest memory.
fn loads(op: &Op) -> bool {
    matches!(op, Op::Load { .. } | Op::LoadX { .. } | Op::LoadY { .. } | Op::RmwLoad { .. })
}

/// Whether a vector operation makes a constant of a vector and itself. Moves and shuffles, which have both operands alike, do not.
fn cancels(op: VecOp) -> bool {
    use VecOp::*;
    matches!(op, Xor | AndNot | Sub(_) | SubSatS(_) | SubSatU(_) | CmpEq(_) | CmpGt(_) | SumAbsDiff)
}

/// Whether an operation's result does not depend on its first and on its second operand, given the immediate and the low half of the
/// second one if it is known.
fn leaves_out(op: VecOp, imm: u8, count: Option<u64>) -> (bool, bool) {
    use VecOp::*;
    let lanes = |s: Shape| 0xff >> (8 - s.lanes().min(8)) as u8;
    let beyond = |most: u64| (count.is_some_and(|c| c >= most), false);
    match op {
        ZextLow(_) | High64 | Shuffle32 | ShuffleLow16 | ShuffleHigh16 | DupEven32 | DupOdd32 | DupLow64 | Splat(_) | Extract(_)
        | MoveMask(_) => (true, false),
        AlignRight => (imm == 0 || imm >= 32, imm >= 16),
        Blend(s) => (imm & lanes(s) == lanes(s), imm & lanes(s) == 0),
        InsertPs | InsertPsMem => {
            let inserted = 1 << (imm >> 4 & 3);
            ((imm | inserted) & 0xf == 0xf, imm & inserted != 0)
        }
        ByteShiftLeft | ByteShiftRight => beyond(16),
        ShiftLeft(s) | ShiftRight(s) => beyond(s.bits().into()),
        _ => (false, false),
    }
}

fn two_operands(op: FpOp) -> bool {
    match op {
        FpOp::Arith(arith, ..) => arith != Arith::Sqrt,
        op => matches!(op, FpOp::Cmp(..) | FpOp::AddSub(_) | FpOp::AddPairs(_) | FpOp::SubPairs(_)),
    }
}

/// The vectors that a floating-point operation computes with.
fn operands(op: &Op) -> Option<Vec<Val>> {
    match *op {
        // Of the first operand of conversions and roots at most other lanes are taken.
        Op::Fp { op, b, .. } if !two_operands(op) => Some(vec![b]),
        Op::Fp { a, b, .. } | Op::FpCompare { a, b, .. } => Some(vec![a, b]),
        Op::Fma { a, b, c, .. } => Some(vec![a, b, c]),
        _ => None,
    }
}

/// Whether a value, made by one of an instruction's ops, may be the same every time round. Anything but a load or floating point
/// may be, if its operands are; all registers that the instruction reads stand for these.
fn same(ops: &[Op], v: Val, fixed: Set) -> bool {
    match ops.get(v.0 as usize) {
        Some(Op::Xmm(r)) => xmm(*r) & fixed != 0,
        Some(Op::YmmHi(r)) => ymm(*r) & fixed != 0,
        Some(Op::Gpr(r, _)) => gpr(*r) & fixed != 0,
        Some(Op::XOf(v)) => same(ops, *v, fixed),
        Some(Op::Vec { a, b, .. }) => same(ops, *a, fixed) && same(ops, *b, fixed),
        Some(op) if loads(op) || matches!(op, Op::Upper(_)) || operands(op).is_some() => false,
        _ => true,
    }
}
