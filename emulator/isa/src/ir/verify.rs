//! The verifier: what every block must obey, whoever made it. A violation is a bug in semantics or in a pass.

use super::{Block, Op, Val};
use crate::flags::ARITH;
use crate::ops::{Bin, Width};

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("op {op}: {what}")]
pub struct Violation {
    /// Number of the op.
    pub op: usize,
    /// What it does wrong.
    pub what: String,
}

/// Checks a block:
/// - instructions are numbered from 0 on, and begin outside brackets;
/// - values are defined before they are used, and used inside the bracket they were made in;
/// - integers and vectors are not confused, and an operand is no wider than the op where bits above the width matter;
/// - [`Op::When`] and [`Op::RmwLoad`] are closed in the instruction, in order; nothing in a read-modify-write faults or
///   touches memory;
/// - [`Op::Remainder`] follows its division, [`Op::Upper`] its load;
/// - nothing can fault after a register, flag or memory was written (the stack pointer is put back by the engines);
/// - [`Op::Jump`] and [`Op::Branch`] end their instruction.
pub fn verify(block: &Block) -> Result<(), Violation> {
    let kinds = vec![Kind::Nothing; block.ops.len()];
    let mut v = Verifier { block, kinds, open: Vec::new(), insns: 0, committed: false, checked: false, ended: false };
    for at in 0..block.ops.len() {
        v.op(at).map_err(|what| Violation { op: at, what })?;
    }
    let end = |what: &str| Violation { op: block.ops.len(), what: what.into() };
    if !v.open.is_empty() {
        return Err(end("a bracket is still open"));
    }
    if v.insns != block.insns.len() {
        return Err(end("not every instruction has ops"));
    }
    Ok(())
}

/// What an op makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Nothing,
    /// An integer of at most this many bits.
    Int(u32),
    Vector,
    /// A value of a bracket that is closed.
    Gone,
}

impl Kind {
    fn of(w: Width) -> Kind {
        Kind::Int(w.bits())
    }
}

struct Verifier<'a> {
    block: &'a Block,
    kinds: Vec<Kind>,
    /// Ops that opened the brackets we are in.
    open: Vec<usize>,
    /// Instructions begun.
    insns: usize,
    /// The instruction has written a register, flags or memory.
    committed: bool,
    /// It has checked where it goes.
    checked: bool,
    /// It has jumped.
    ended: bool,
}

type Check<T = ()> = Result<T, String>;

fn ensure(ok: bool, what: &str) -> Check {
    if ok { Ok(()) } else { Err(what.into()) }
}

/// The stack pointer: engines restore it when an instruction faults.
const SP: u8 = 4;

impl Verifier<'_> {
    fn op(&mut self, at: usize) -> Check {
        let op = self.block.ops[at];
        if let Op::Insn(n) = op {
            return self.begin(n as usize);
        }
        ensure(self.insns != 0, "it belongs to no instruction")?;
        ensure(!self.ended, "it comes after a jump")?;
        self.order(op)?;
        self.kinds[at] = match op {
            Op::When(c) => {
                self.int(c)?;
                self.open.push(at);
                Kind::Nothing
            }
            Op::EndWhen => self.close_when(at)?,
            Op::RmwLoad { offset, w, .. } => {
                self.int(offset)?;
                self.open.push(at);
                Kind::of(w)
            }
            Op::RmwStore { load, v } => self.close_rmw(at, load, v)?,
            _ => self.plain(at, op)?,
        };
        Ok(())
    }

    fn begin(&mut self, n: usize) -> Check {
        ensure(self.open.is_empty(), "an instruction begins inside a bracket")?;
        ensure(n == self.insns && n < self.block.insns.len(), "instructions are not numbered in order")?;
        self.insns += 1;
        (self.committed, self.checked, self.ended) = (false, false, false);
        Ok(())
    }

    /// What may come when: faults before commits, jumps at the end.
    fn order(&mut self, op: Op) -> Check {
        let faults = op.can_fault() && !(matches!(op, Op::Branch { .. }) && self.checked);
        ensure(!(faults && self.committed), "it can fault after something was written")?;
        let in_rmw = self.open.iter().any(|o| matches!(self.block.ops[*o], Op::RmwLoad { .. }));
        ensure(!(in_rmw && op.can_fault()), "it can fault inside a read-modify-write")?;
        match op {
            Op::SetGpr(r, ..) => self.committed |= r != SP,
            Op::SetYmmHi(..) | Op::StoreY { .. } => self.committed = true,
            Op::SetXmm(..) | Op::Flags { .. } | Op::SetFlagsWord(..) | Op::Store { .. } | Op::StoreX { .. } | Op::RmwStore { .. } => {
                self.committed = true;
            }
            Op::CheckIp(_) => self.checked = true,
            Op::Jump(_) | Op::Branch { .. } => {
                ensure(self.open.is_empty(), "a jump inside a bracket")?;
                self.ended = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn close_when(&mut self, at: usize) -> Check<Kind> {
        let Some(start) = self.open.pop().filter(|o| matches!(self.block.ops[*o], Op::When(_))) else {
            return Err("it closes no When".into());
        };
        self.kinds[start..at].fill(Kind::Gone);
        Ok(Kind::Nothing)
    }

    fn close_rmw(&mut self, at: usize, load: Val, v: Val) -> Check<Kind> {
        let start = load.0 as usize;
        ensure(self.open.pop() == Some(start), "it stores for another load than the last")?;
        let Op::RmwLoad { .. } = self.block.ops[start] else { return Err("its load is none".into()) };
        self.int(v)?;
        self.kinds[start..at].fill(Kind::Gone);
        Ok(Kind::Nothing)
    }

    fn plain(&self, at: usize, op: Op) -> Check<Kind> {
        match op {
            Op::Imm(v) => Ok(Kind::Int(64 - v.leading_zeros())),
            Op::Gpr(r, w) => register(r, w),
            Op::SetGpr(r, w, v) => register(r, w).and_then(|_| self.uses(&[v], &[])),
            Op::Selector(_) => Ok(Kind::Int(16)),
            Op::Bin(op, w, a, b) => self.bin(op, w, a, b),
            Op::Un(_, w, a) => self.fits(w, &[a]).map(|()| Kind::of(w)),
            Op::Rel(_, w, a, b) => self.fits(w, &[a, b]).map(|()| Kind::Int(1)),
            Op::Sext(from, to, a) => {
                ensure(from <= to, "it extends to a lesser width")?;
                self.int(a).map(|_| Kind::of(to))
            }
            Op::Trunc(w, a) => self.int(a).map(|_| Kind::of(w)),
            Op::Select(c, a, b) => {
                self.int(c)?;
                Ok(Kind::Int(self.int(a)?.max(self.int(b)?)))
            }
            Op::Flags { w, a, b, r, .. } => self.fits(w, &[a, b, r]).map(|()| Kind::Nothing),
            Op::FlagsWord => Ok(Kind::Int(ARITH.ilog2() + 1)),
            Op::SetFlagsWord(mask, v) => {
                ensure(mask != 0 && mask & !ARITH == 0, "it sets other flags than the arithmetic ones")?;
                self.uses(&[v], &[])
            }
            Op::Cond(_) => Ok(Kind::Int(1)),
            Op::RaiseIf(c, _) => self.uses(&[c], &[]),
            Op::Div { w, hi, lo, d, .. } => self.fits(w, &[hi, lo, d]).map(|()| Kind::of(w)),
            Op::Remainder(q) => match self.block.ops.get(at.wrapping_sub(1)) {
                Some(Op::Div { w, .. }) if q.0 as usize + 1 == at => Ok(Kind::of(*w)),
                _ => Err("it does not follow its division".into()),
            },
            Op::Load { offset, w, .. } => self.int(offset).map(|_| Kind::of(w)),
            Op::Store { offset, v, .. } => self.uses(&[offset, v], &[]),
            _ => self.control_or_vector(at, op),
        }
    }

    fn control_or_vector(&self, at: usize, op: Op) -> Check<Kind> {
        match op {
            Op::NextIp(n) => self.own(n).map(|()| Kind::Int(64)),
            Op::CheckIp(t) | Op::Jump(t) => self.uses(&[t], &[]),
            Op::Branch { c, insn } => self.own(insn).and_then(|()| self.uses(c.as_slice(), &[])),
            Op::Call(insn) => self.own(insn).map(|()| Kind::Nothing),
            Op::Require(_) => Ok(Kind::Nothing),
            Op::Xmm(r) => xmm(r).map(|()| Kind::Vector),
            Op::SetXmm(r, v) => xmm(r).and_then(|()| self.uses(&[], &[v])),
            Op::YmmHi(r) => xmm(r).map(|()| Kind::Vector),
            Op::SetYmmHi(r, v) => xmm(r).and_then(|()| self.uses(&[], &[v])),
            Op::Vec3 { a, b, c, .. } | Op::Fma { a, b, c, .. } => self.uses(&[], &[a, b, c]).map(|_| Kind::Vector),
            Op::LoadY { offset, .. } => self.uses(&[offset], &[]).map(|_| Kind::Vector),
            Op::Upper(low) => match self.block.ops.get(at.wrapping_sub(1)) {
                Some(Op::LoadY { .. }) if low.0 as usize + 1 == at => Ok(Kind::Vector),
                _ => Err("it does not follow its load".into()),
            },
            Op::StoreY { offset, low, high, .. } => self.uses(&[offset], &[low, high]),
            Op::XOf(v) => self.uses(&[v], &[]).map(|_| Kind::Vector),
            Op::VOf(w, x) => self.uses(&[], &[x]).map(|_| Kind::of(w)),
            Op::Vec { a, b, .. } | Op::Fp { a, b, .. } => self.uses(&[], &[a, b]).map(|_| Kind::Vector),
            Op::FpCompare { a, b, .. } => self.uses(&[], &[a, b]).map(|_| Kind::Int(8)),
            Op::LoadX { offset, bytes, .. } => vector_size(bytes).and_then(|()| self.uses(&[offset], &[])).map(|_| Kind::Vector),
            Op::StoreX { offset, bytes, v, .. } => vector_size(bytes).and_then(|()| self.uses(&[offset], &[v])),
            _ => Err("it is out of its place".into()),
        }
    }

    /// Bits above the width matter to some ops. Of a result no more is known than the ops need.
    fn bin(&self, op: Bin, w: Width, a: Val, b: Val) -> Check<Kind> {
        let (left, right) = (self.int(a)?, self.int(b)?);
        match op {
            Bin::MulHiU | Bin::MulHiS => self.fits(w, &[a, b])?,
            Bin::Shr | Bin::Sar | Bin::Rol | Bin::Ror => self.fits(w, &[a])?,
            Bin::Add | Bin::Sub | Bin::And | Bin::Or | Bin::Xor | Bin::Mul | Bin::Shl => {}
        }
        let bits = match op {
            Bin::And => left.min(right),
            Bin::Or | Bin::Xor => left.max(right),
            Bin::Shr => match self.block.ops.get(b.0 as usize) {
                Some(Op::Imm(n)) => left.saturating_sub(*n as u32 & 63),
                _ => left,
            },
            _ => w.bits(),
        };
        Ok(Kind::Int(bits.min(w.bits())))
    }

    fn own(&self, insn: u32) -> Check {
        ensure(insn as usize + 1 == self.insns, "it names another instruction")
    }

    fn int(&self, v: Val) -> Check<u32> {
        match self.kind(v)? {
            Kind::Int(w) => Ok(w),
            kind => Err(format!("v{} is no integer but {kind:?}", v.0)),
        }
    }

    fn kind(&self, v: Val) -> Check<Kind> {
        match self.kinds.get(v.0 as usize) {
            Some(Kind::Gone) => Err(format!("v{} belongs to a bracket that is closed", v.0)),
            Some(Kind::Nothing) | None => Err(format!("v{} is not defined", v.0)),
            Some(kind) => Ok(*kind),
        }
    }

    fn fits(&self, w: Width, values: &[Val]) -> Check {
        for v in values {
            let have = self.int(*v)?;
            ensure(have <= w.bits(), &format!("v{} of {have} bits is too wide for {} bits", v.0, w.bits()))?;
        }
        Ok(())
    }

    fn uses(&self, ints: &[Val], vectors: &[Val]) -> Check<Kind> {
        for v in ints {
            self.int(*v)?;
        }
        for v in vectors {
            let kind = self.kind(*v)?;
            ensure(kind == Kind::Vector, &format!("v{} is no vector", v.0))?;
        }
        Ok(Kind::Nothing)
    }
}

fn register(r: u8, w: Width) -> Check<Kind> {
    ensure(r < 16, "there is no such register").map(|()| Kind::of(w))
}

fn xmm(r: u8) -> Check {
    ensure(r < 16, "there is no such register")
}

fn vector_size(bytes: u8) -> Check {
    ensure(matches!(bytes, 4 | 8 | 16), "vectors of 4, 8 or 16 bytes are moved")
}

impl Op {
    /// Whether the op can fault.
    #[must_use]
    pub fn can_fault(&self) -> bool {
        matches!(
            self,
            Op::RaiseIf(..)
                | Op::Div { .. }
                | Op::Load { .. }
                | Op::Store { .. }
                | Op::RmwLoad { .. }
                | Op::LoadX { .. }
                | Op::StoreX { .. }
                | Op::LoadY { .. }
                | Op::StoreY { .. }
                | Op::Fma { .. }
                | Op::CheckIp(_)
                | Op::Branch { .. }
                | Op::Fp { .. }
                | Op::FpCompare { .. }
                | Op::Require(_)
                | Op::Call(_)
        )
    }

    /// Whether the op makes a value.
    #[must_use]
    pub fn has_value(&self) -> bool {
        !matches!(
            self,
            Op::Insn(_)
                | Op::SetGpr(..)
                | Op::When(_)
                | Op::EndWhen
                | Op::RaiseIf(..)
                | Op::Store { .. }
                | Op::RmwStore { .. }
                | Op::StoreX { .. }
                | Op::StoreY { .. }
                | Op::SetYmmHi(..)
                | Op::Flags { .. }
                | Op::SetFlagsWord(..)
                | Op::CheckIp(_)
                | Op::Jump(_)
                | Op::Branch { .. }
                | Op::SetXmm(..)
                | Op::Require(_)
                | Op::Call(_)
        )
    }
}
