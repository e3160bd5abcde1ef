//! The reference evaluator: does the ops of a recorded instruction again, on any implementor of [`Emit`].
//!
//! On a CPU this executes the instruction; on a [`super::Recorder`] it must give the same ops again.

use super::{Block, Op, Val};
use crate::emit::Emit;
use std::ops::Range;

/// Evaluates instruction number `insn` of `block` on `e`. The block must be one that [`super::verify`] passes; on another
/// this panics.
pub fn eval<E: Emit>(block: &Block, insn: usize, e: &mut E) -> Result<(), E::Fault> {
    let ops = block.ops_of(insn);
    let values = ops.clone().map(|_| Value::None).collect();
    Evaluation { block, first: ops.start, values }.range(e, ops)
}

impl Block {
    /// The ops of instruction number `insn`, without its [`Op::Insn`]; empty when there is no such instruction.
    #[must_use]
    pub fn ops_of(&self, insn: usize) -> Range<usize> {
        let starts = |n: usize| self.ops.iter().position(|op| matches!(op, Op::Insn(at) if *at as usize == n));
        let end = self.ops.len();
        let start = starts(insn).map_or(end, |at| at + 1);
        start..starts(insn.wrapping_add(1)).unwrap_or(end).max(start)
    }

    /// Where the bracket that op `at` opens is closed: by [`Op::EndWhen`] or [`Op::RmwStore`].
    #[must_use]
    pub fn closing(&self, at: usize) -> Option<usize> {
        let rest = self.ops.get(at.wrapping_add(1)..)?;
        let offset = match self.ops.get(at)? {
            Op::RmwLoad { .. } => rest.iter().position(|op| matches!(op, Op::RmwStore { load, .. } if load.0 as usize == at)),
            Op::When(_) => {
                let mut depth = 1;
                rest.iter().position(|op| {
                    depth += match op {
                        Op::When(_) => 1,
                        Op::EndWhen => -1,
                        _ => 0,
                    };
                    depth == 0
                })
            }
            _ => None,
        };
        Some(at + 1 + offset?)
    }
}

enum Value<E: Emit> {
    None,
    Int(E::V),
    Vector(E::X),
}

struct Evaluation<'a, E: Emit> {
    block: &'a Block,
    /// Number of the op that `values[0]` belongs to.
    first: usize,
    values: Vec<Value<E>>,
}

impl<E: Emit> Evaluation<'_, E> {
    fn int(&self, v: Val) -> E::V {
        match self.values.get((v.0 as usize).wrapping_sub(self.first)) {
            Some(Value::Int(v)) => *v,
            _ => unreachable!("v{} is no integer; the verifier would have said so", v.0),
        }
    }

    fn vector(&self, v: Val) -> E::X {
        match self.values.get((v.0 as usize).wrapping_sub(self.first)) {
            Some(Value::Vector(v)) => *v,
            _ => unreachable!("v{} is no vector; the verifier would have said so", v.0),
        }
    }

    fn set(&mut self, at: usize, v: Value<E>) {
        if let Some(slot) = at.checked_sub(self.first).and_then(|n| self.values.get_mut(n)) {
            *slot = v;
        }
    }

    fn range(&mut self, e: &mut E, ops: Range<usize>) -> Result<(), E::Fault> {
        let mut at = ops.start;
        while at < ops.end {
            at = match self.block.ops[at] {
                Op::When(c) => self.when(e, at, c)?,
                Op::RmwLoad { .. } => self.rmw(e, at)?,
                op => {
                    let v = match self.integer(e, op) {
                        Some(v) => Value::Int(v),
                        None => self.effect(e, at, op)?,
                    };
                    self.set(at, v);
                    at + 1
                }
            };
        }
        Ok(())
    }

    fn bracket(&self, at: usize) -> Range<usize> {
        match self.block.closing(at) {
            Some(end) => at + 1..end,
            None => unreachable!("op {at} opens a bracket that nothing closes; the verifier would have said so"),
        }
    }

    fn when(&mut self, e: &mut E, at: usize, c: Val) -> Result<usize, E::Fault> {
        let body = self.bracket(at);
        let (c, next) = (self.int(c), body.end + 1);
        e.when(c, |e| self.range(e, body))?;
        Ok(next)
    }

    fn rmw(&mut self, e: &mut E, at: usize) -> Result<usize, E::Fault> {
        let body = self.bracket(at);
        let end = body.end;
        let (Op::RmwLoad { seg, offset, w, lock }, Op::RmwStore { v, .. }) = (self.block.ops[at], self.block.ops[end]) else {
            unreachable!("a bracket of another kind");
        };
        let offset = self.int(offset);
        // Nothing in the bracket faults, but the types cannot say so.
        let mut inside = Ok(());
        e.rmw(seg, offset, w, lock, |e, old| {
            self.set(at, Value::Int(old));
            inside = self.range(e, body.clone());
            self.int(v)
        })?;
        inside.map(|()| end + 1)
    }

    /// Ops that only make an integer.
    fn integer(&mut self, e: &mut E, op: Op) -> Option<E::V> {
        let get = |v| self.int(v);
        Some(match op {
            Op::Imm(v) => e.imm(v),
            Op::Gpr(r, w) => e.gpr(r, w),
            Op::Selector(seg) => e.selector(seg),
            Op::Bin(op, w, a, b) => e.bin(op, w, get(a), get(b)),
            Op::Un(op, w, a) => e.un(op, w, get(a)),
            Op::Rel(op, w, a, b) => e.rel(op, w, get(a), get(b)),
            Op::Sext(from, to, a) => e.sext(from, to, get(a)),
            Op::Trunc(w, a) => e.trunc(w, get(a)),
            Op::Select(c, a, b) => e.select(get(c), get(a), get(b)),
            Op::FlagsWord => e.flags_word(),
            Op::Cond(cond) => e.cond(cond),
            Op::NextIp(insn) => e.next_ip(&self.block.insns[insn as usize]),
            Op::VOf(w, x) => {
                let x = self.vector(x);
                e.v_of(w, x)
            }
            _ => return None,
        })
    }

    fn effect(&mut self, e: &mut E, at: usize, op: Op) -> Result<Value<E>, E::Fault> {
        let get = |v| self.int(v);
        match op {
            Op::SetGpr(r, w, v) => e.set_gpr(r, w, get(v)),
            Op::RaiseIf(c, what) => e.raise_if(get(c), what)?,
            Op::Div { w, signed, hi, lo, d } => {
                let (quotient, remainder) = e.div(w, signed, get(hi), get(lo), get(d))?;
                self.set(at + 1, Value::Int(remainder));
                return Ok(Value::Int(quotient));
            }
            Op::LoadY { seg, offset, aligned } => {
                let (low, high) = e.load_y(seg, get(offset), aligned)?;
                self.set(at + 1, Value::Vector(high));
                return Ok(Value::Vector(low));
            }
            // Its value was set with the op before.
            Op::Remainder(_) | Op::Upper(_) => {
                return Ok(self.values.get_mut(at - self.first).map_or(Value::None, |v| std::mem::replace(v, Value::None)));
            }
            Op::Load { seg, offset, w } => return e.load(seg, get(offset), w).map(Value::Int),
            Op::Store { seg, offset, w, v } => e.store(seg, get(offset), w, get(v))?,
            Op::Flags { op, w, a, b, r } => e.flags(op, w, get(a), get(b), get(r)),
            Op::SetFlagsWord(mask, v) => e.set_flags_word(mask, get(v)),
            Op::CheckIp(target) => e.check_ip(get(target))?,
            Op::Jump(target) => e.jump(get(target)),
            Op::Branch { c, insn } => e.branch(c.map(get), &self.block.insns[insn as usize])?,
            Op::Require(unit) => e.require(unit)?,
            Op::Call(insn) => e.call(&self.block.insns[insn as usize])?,
            _ => return self.vector_op(e, op),
        }
        Ok(Value::None)
    }

    fn vector_op(&mut self, e: &mut E, op: Op) -> Result<Value<E>, E::Fault> {
        let (get, vector) = (|v| self.int(v), |v| self.vector(v));
        Ok(Value::Vector(match op {
            Op::Xmm(r) => e.xmm(r),
            Op::XOf(v) => e.x_of(get(v)),
            Op::YmmHi(r) => e.ymm_hi(r),
            Op::Vec3 { op, a, b, c } => e.vec3(op, vector(a), vector(b), vector(c)),
            Op::Fma { op, a, b, c } => e.fma(op, vector(a), vector(b), vector(c))?,
            Op::Vec { op, a, b, imm } => e.vec(op, vector(a), vector(b), imm),
            Op::Fp { op, a, b, imm } => e.fp(op, vector(a), vector(b), imm)?,
            Op::LoadX { seg, offset, bytes, aligned } => e.load_x(seg, get(offset), bytes, aligned)?,
            Op::FpCompare { fmt, signaling, a, b } => {
                return e.fp_compare(fmt, signaling, vector(a), vector(b)).map(Value::Int);
            }
            Op::SetXmm(r, v) => {
                e.set_xmm(r, vector(v));
                return Ok(Value::None);
            }
            Op::SetYmmHi(r, v) => {
                e.set_ymm_hi(r, vector(v));
                return Ok(Value::None);
            }
            Op::StoreY { seg, offset, aligned, low, high } => {
                e.store_y(seg, get(offset), aligned, vector(low), vector(high))?;
                return Ok(Value::None);
            }
            Op::StoreX { seg, offset, bytes, aligned, v } => {
                e.store_x(seg, get(offset), bytes, aligned, vector(v))?;
                return Ok(Value::None);
            }
            other => unreachable!("op {other:?} out of its place; the verifier would have said so"),
        }))
    }
}
