//! The arithmetic flags. They are pending operations on values; conditions come straight from the operands.

use super::{Lower, Lv};
use crate::vm::Stubs;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use egret_cpu::State;
use egret_cpu::state::LazyFlags;
use egret_isa::flags::{ARITH, CF, OF, PF, SF, ZF};
use egret_isa::ir::Op;
use egret_isa::ops::{Bin, Cond, FlagsOp, Width};
use std::mem::offset_of;

/// What the flags were set by.
pub(super) type Kind = (FlagsOp, Width);

/// Where the flags are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fl {
    /// In [`State`], of a kind that may be known.
    Memory(Option<Kind>),
    /// An operation's operands and result; also in [`State`] when `synced`.
    Live { kind: Kind, a: Lv, b: Lv, r: Lv, synced: bool },
    /// The same with a kind known at run time.
    Chosen { kind: Value, a: Value, b: Value, r: Value },
    /// The bits `mask` of `v`, the others from number `base` of [`Lower::merged`].
    Merged { base: usize, mask: u32, v: Lv },
}

/// The flags a condition depends on.
fn needed(cond: Cond) -> u32 {
    match cond {
        Cond::O | Cond::No => OF,
        Cond::B | Cond::Ae => CF,
        Cond::E | Cond::Ne => ZF,
        Cond::Be | Cond::A => CF | ZF,
        Cond::S | Cond::Ns => SF,
        Cond::P | Cond::Np => PF,
        Cond::L | Cond::Ge => SF | OF,
        Cond::Le | Cond::G => ZF | SF | OF,
    }
}

/// A pending operation with CLIF values of its width.
struct Pending {
    kind: Kind,
    a: Lv,
    b: Lv,
    r: Lv,
}

impl Lower<'_, '_> {
    pub(super) fn flags_op(&mut self, op: Op) -> Lv {
        match op {
            Op::Flags { op, w, a, b, r } => {
                let new = Fl::Live { kind: (op, w), a: self.val(a), b: self.val(b), r: self.val(r), synced: false };
                self.flags = match self.predicate {
                    Some(c) => self.choose(c, new),
                    None => new,
                };
                Lv::None
            }
            Op::FlagsWord => {
                let v = self.flags_word(self.flags);
                Lv::Int(v, Width::Q)
            }
            Op::SetFlagsWord(mask, v) => {
                let v = self.val(v);
                self.set_flags_word(mask & ARITH, v);
                Lv::None
            }
            Op::Cond(c) => self.cond(self.flags, c),
            _ => Lv::None,
        }
    }

    fn set_flags_word(&mut self, mask: u32, v: Lv) {
        let word = (FlagsOp::Word, Width::Q);
        if mask == ARITH {
            let r = self.masked(v, ARITH);
            self.flags = Fl::Live { kind: word, a: Lv::Const(0), b: Lv::Const(0), r, synced: false };
            return;
        }
        match self.flags {
            Fl::Merged { base, mask: old, v: under } => {
                let (new, under) = (self.masked(v, mask), self.masked(under, old & !mask));
                let (new, under) = (self.typed(new, Width::Q), self.typed(under, Width::Q));
                let both = self.b.ins().bor(new, under);
                self.flags = Fl::Merged { base, mask: mask | old, v: Lv::Int(both, Width::Q) };
            }
            base => {
                self.merged.push(base);
                self.flags = Fl::Merged { base: self.merged.len() - 1, mask, v };
            }
        }
    }

    fn masked(&mut self, v: Lv, mask: u32) -> Lv {
        if let Lv::Const(c) = v {
            return Lv::Const(c & u64::from(mask));
        }
        let v = self.typed(v, Width::Q);
        Lv::Int(self.b.ins().band_imm_u(v, i64::from(mask)), Width::Q)
    }

    /// The flags when `c` holds are `new`, else as they were.
    fn choose(&mut self, c: Value, new: Fl) -> Fl {
        let old = match self.flags {
            Fl::Merged { .. } => {
                self.settle_flags();
                self.flags
            }
            other => other,
        };
        let (k1, a1, b1, r1) = self.parts(new);
        let (k0, a0, b0, r0) = self.parts(old);
        let ins = |l: &mut Self, x, y| l.b.ins().select(c, x, y);
        Fl::Chosen { kind: ins(self, k1, k0), a: ins(self, a1, a0), b: ins(self, b1, b0), r: ins(self, r1, r0) }
    }

    /// Kind, operands and result as words.
    fn parts(&mut self, fl: Fl) -> (Value, Value, Value, Value) {
        match fl {
            Fl::Live { kind: (op, w), a, b, r, .. } => {
                let kind = self.b.ins().iconst(I32, i64::from(LazyFlags::kind(op, w)));
                (kind, self.typed(a, Width::Q), self.typed(b, Width::Q), self.typed(r, Width::Q))
            }
            Fl::Chosen { kind, a, b, r } => (kind, a, b, r),
            Fl::Memory(_) | Fl::Merged { .. } => {
                let at = offset_of!(State, flags);
                let kind = self.load_state(I32, at + offset_of!(LazyFlags, kind));
                let mut load = |o: usize| self.load_state(I64, at + o);
                let (a, b) = (load(offset_of!(LazyFlags, a)), load(offset_of!(LazyFlags, b)));
                if let Fl::Memory(Some((op, w))) = fl
                    && let Some(result) = result(op)
                {
                    let r = if result == Bin::Add { self.b.ins().iadd(a, b) } else { self.b.ins().isub(a, b) };
                    let r = if w == Width::Q { r } else { self.b.ins().band_imm_u(r, w.mask() as i64) };
                    return (kind, a, b, r);
                }
                let r = load(offset_of!(LazyFlags, r));
                (kind, a, b, r)
            }
        }
    }

    /// Stores the flags to [`State`] if they are not there; [`Lower::flags`] stays as it is.
    pub(super) fn sync_flags(&mut self) {
        self.sync(self.flags);
    }

    /// Stores the flags to [`State`], and remembers that they are there.
    pub(super) fn settle_flags(&mut self) {
        self.sync(self.flags);
        self.flags = match self.flags {
            Fl::Live { kind, a, b, r, .. } => Fl::Live { kind, a, b, r, synced: true },
            Fl::Memory(kind) => Fl::Memory(kind),
            Fl::Chosen { .. } => Fl::Memory(None),
            Fl::Merged { .. } => Fl::Memory(Some((FlagsOp::Word, Width::Q))),
        };
    }

    fn sync(&mut self, fl: Fl) {
        match fl {
            Fl::Memory(_) | Fl::Live { synced: true, .. } => {}
            Fl::Live { kind: (op, w), a, b, r, .. } => {
                let (uses_a, uses_b) = operands(op);
                if result(op).is_none() {
                    self.store_flags(offset_of!(LazyFlags, r), r);
                }
                if uses_a {
                    self.store_flags(offset_of!(LazyFlags, a), a);
                }
                if uses_b {
                    self.store_flags(offset_of!(LazyFlags, b), b);
                }
                let kind = self.b.ins().iconst(I32, i64::from(LazyFlags::kind(op, w)));
                self.store_state(kind, offset_of!(State, flags) + offset_of!(LazyFlags, kind));
            }
            Fl::Chosen { kind, a, b, r } => {
                let at = offset_of!(State, flags);
                self.store_state(r, at + offset_of!(LazyFlags, r));
                self.store_state(a, at + offset_of!(LazyFlags, a));
                self.store_state(b, at + offset_of!(LazyFlags, b));
                self.store_state(kind, at + offset_of!(LazyFlags, kind));
            }
            Fl::Merged { base, mask, v } => {
                if let Some(word) = self.merged_word(base, mask, v) {
                    let kind = (FlagsOp::Word, Width::Q);
                    self.sync(Fl::Live { kind, a: Lv::None, b: Lv::None, r: Lv::Int(word, Width::Q), synced: false });
                    return;
                }
                self.sync(self.merged[base]);
                let v = self.typed(v, Width::Q);
                let mask = self.iconst(mask.into());
                self.call_stub(offset_of!(Stubs, merge_flags), [mask, v, v]);
            }
        }
    }

    /// Merged flags as a word, if those below are known here.
    fn merged_word(&mut self, base: usize, mask: u32, v: Lv) -> Option<Value> {
        let Fl::Live { kind, a, b, r, .. } = self.merged[base] else { return None };
        let below = self.word(&Pending { kind, a, b, r });
        let below = self.b.ins().band_imm_u(below, i64::from(ARITH & !mask));
        let new = self.masked(v, mask);
        let new = self.typed(new, Width::Q);
        Some(self.b.ins().bor(below, new))
    }

    fn store_flags(&mut self, field: usize, v: Lv) {
        let v = self.typed(v, Width::Q);
        self.store_state(v, offset_of!(State, flags) + field);
    }

    /// All six flags in their places.
    fn flags_word(&mut self, fl: Fl) -> Value {
        match fl {
            Fl::Live { kind, a, b, r, .. } => self.word(&Pending { kind, a, b, r }),
            Fl::Memory(_) | Fl::Chosen { .. } => {
                self.sync(fl);
                let none = self.iconst(0);
                self.call_stub(offset_of!(Stubs, merge_flags), [none, none, none]);
                if matches!(self.flags, Fl::Memory(_) | Fl::Chosen { .. }) {
                    self.flags = Fl::Memory(Some((FlagsOp::Word, Width::Q)));
                }
                self.load_state(I64, offset_of!(State, result))
            }
            Fl::Merged { base, mask, v } => match self.merged_word(base, mask, v) {
                Some(word) => {
                    let kind = (FlagsOp::Word, Width::Q);
                    self.flags = Fl::Live { kind, a: Lv::None, b: Lv::None, r: Lv::Int(word, Width::Q), synced: false };
                    word
                }
                None => {
                    self.settle_flags();
                    self.load_state(I64, offset_of!(State, result))
                }
            },
        }
    }

    fn word(&mut self, p: &Pending) -> Value {
        if p.kind.0 == FlagsOp::Word {
            return self.typed(p.r, Width::Q);
        }
        let bits =
            [(self.carry(p), 0), (self.parity(p), 2), (self.adjust(p), 4), (self.zero(p), 6), (self.sign(p), 7), (self.overflow(p), 11)];
        let mut word = self.iconst(0);
        for (bit, place) in bits {
            if let Some(bit) = bit {
                let bit = self.b.ins().uextend(I64, bit);
                let bit = self.b.ins().ishl_imm_u(bit, place);
                word = self.b.ins().bor(word, bit);
            }
        }
        word
    }

    /// Whether a condition holds, as 0 or 1.
    pub(super) fn cond(&mut self, fl: Fl, cond: Cond) -> Lv {
        match fl {
            Fl::Live { kind, a, b, r, .. } => self.cond_pending(&Pending { kind, a, b, r }, cond),
            Fl::Memory(Some(kind)) => {
                let (_, a, b, r) = self.parts(fl);
                let [a, b, r] = [a, b, r].map(|v| Lv::Int(v, Width::Q));
                self.cond_pending(&Pending { kind, a, b, r }, cond)
            }
            Fl::Merged { base, mask, v } => {
                let needed = needed(cond);
                if needed & mask == needed {
                    let p = Pending { kind: (FlagsOp::Word, Width::Q), a: Lv::None, b: Lv::None, r: v };
                    self.cond_pending(&p, cond)
                } else if needed & mask == 0 && !matches!(self.merged[base], Fl::Memory(None) | Fl::Chosen { .. }) {
                    self.cond(self.merged[base], cond)
                } else {
                    self.settle_flags();
                    self.cond(self.flags, cond)
                }
            }
            Fl::Memory(None) | Fl::Chosen { .. } => {
                self.sync(fl);
                let number = self.iconst(cond as u64);
                self.call_stub(offset_of!(Stubs, cond), [number, number, number]);
                let v = self.load_state(I8, offset_of!(State, result));
                Lv::Int(v, Width::B)
            }
        }
    }

    fn cond_pending(&mut self, p: &Pending, cond: Cond) -> Lv {
        let number = cond as u8;
        let positive = Cond::ALL[usize::from(number & !1)];
        if p.kind.0 == FlagsOp::Sub
            && let Some(cc) = compare_code(cond)
        {
            let (a, b) = (self.typed(p.a, p.kind.1), self.typed(p.b, p.kind.1));
            return Lv::Int(self.b.ins().icmp(cc, a, b), Width::B);
        }
        let negate = number & 1 != 0;
        if negate && p.kind.0 != FlagsOp::Word {
            // One comparison instead of one and its inverse.
            let cc = match positive {
                Cond::E => Some(IntCC::NotEqual),
                Cond::S => Some(IntCC::SignedGreaterThanOrEqual),
                _ => None,
            };
            if let Some(cc) = cc {
                return Lv::Int(self.compare(cc, p.r, Lv::Const(0), p.kind.1), Width::B);
            }
        }
        let v = match positive {
            Cond::O => self.overflow(p),
            Cond::B => self.carry(p),
            Cond::E => self.zero(p),
            Cond::Be => {
                let (c, z) = (self.carry(p), self.zero(p));
                self.either(c, z, false)
            }
            Cond::S => self.sign(p),
            Cond::P => self.parity(p),
            Cond::L => {
                let (s, o) = (self.sign(p), self.overflow(p));
                self.either(s, o, true)
            }
            _ => {
                let (s, o, z) = (self.sign(p), self.overflow(p), self.zero(p));
                let less = self.either(s, o, true);
                self.either(less, z, false)
            }
        };
        match v {
            None => Lv::Const(negate.into()),
            Some(v) if negate => Lv::Int(self.b.ins().bxor_imm_u(v, 1), Width::B),
            Some(v) => Lv::Int(v, Width::B),
        }
    }

    /// Or, or exclusive or, of flags that may be known to be 0.
    fn either(&mut self, a: Option<Value>, b: Option<Value>, exclusive: bool) -> Option<Value> {
        match (a, b) {
            (Some(a), Some(b)) if exclusive => Some(self.b.ins().bxor(a, b)),
            (Some(a), Some(b)) => Some(self.b.ins().bor(a, b)),
            (one, None) | (None, one) => one,
        }
    }

    /// Bit `n` of a word.
    fn bit(&mut self, v: Lv, n: u32) -> Option<Value> {
        let v = self.typed(v, Width::Q);
        let v = if n == 0 { v } else { self.b.ins().ushr_imm_u(v, i64::from(n)) };
        let v = self.b.ins().ireduce(I8, v);
        Some(self.b.ins().band_imm_u(v, 1))
    }

    fn is_negative(&mut self, v: Value) -> Option<Value> {
        Some(self.b.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0))
    }

    fn carry(&mut self, p: &Pending) -> Option<Value> {
        let (op, w) = p.kind;
        match op {
            FlagsOp::Word => self.bit(p.r, 0),
            FlagsOp::Add => Some(self.compare(IntCC::UnsignedLessThan, p.r, p.a, w)),
            FlagsOp::Sub => Some(self.compare(IntCC::UnsignedLessThan, p.a, p.b, w)),
            FlagsOp::Adc | FlagsOp::Sbb => {
                let (a, b, r) = (self.typed(p.a, w), self.typed(p.b, w), self.typed(p.r, w));
                // Adc: a&b | (a|b)&!r. Sbb: the same with !a for a and r for !r.
                let a = if op == FlagsOp::Sbb { self.b.ins().bnot(a) } else { a };
                let r = if op == FlagsOp::Sbb { r } else { self.b.ins().bnot(r) };
                let (both, any) = (self.b.ins().band(a, b), self.b.ins().bor(a, b));
                let any = self.b.ins().band(any, r);
                let v = self.b.ins().bor(both, any);
                self.is_negative(v)
            }
            FlagsOp::Logic => None,
            FlagsOp::Inc | FlagsOp::Dec | FlagsOp::Mul => {
                let b = match p.b {
                    Lv::Int(b, _) => b,
                    other => self.typed(other, w),
                };
                Some(self.b.ins().icmp_imm_s(IntCC::NotEqual, b, 0))
            }
            FlagsOp::Shl | FlagsOp::Shr | FlagsOp::Sar => self.shifted_out(op, w, p),
        }
    }

    /// The last bit shifted out of `a`.
    fn shifted_out(&mut self, op: FlagsOp, w: Width, p: &Pending) -> Option<Value> {
        let (a, n) = (self.typed(p.a, Width::Q), self.typed(p.b, Width::Q));
        let v = match op {
            // A left shift by more than the width leaves 0: shifting up the 64-bit value puts the bit beyond the width.
            FlagsOp::Shl if w == Width::Q => {
                let bits = self.iconst(64);
                let n = self.b.ins().isub(bits, n);
                self.b.ins().ushr(a, n)
            }
            FlagsOp::Shl => {
                let up = self.b.ins().ishl(a, n);
                self.b.ins().ushr_imm_u(up, i64::from(w.bits()))
            }
            FlagsOp::Shr => {
                let n = self.b.ins().iadd_imm_s(n, -1);
                self.b.ins().ushr(a, n)
            }
            _ => {
                let a = self.typed(p.a, w);
                let a = if w == Width::Q { a } else { self.b.ins().sextend(I64, a) };
                let n = self.b.ins().iadd_imm_s(n, -1);
                self.b.ins().sshr(a, n)
            }
        };
        self.bit(Lv::Int(v, Width::Q), 0)
    }

    fn compare(&mut self, cc: IntCC, x: Lv, y: Lv, w: Width) -> Value {
        let (x, y) = (self.typed(x, w), self.typed(y, w));
        self.b.ins().icmp(cc, x, y)
    }

    fn overflow(&mut self, p: &Pending) -> Option<Value> {
        let (op, w) = p.kind;
        match op {
            FlagsOp::Word => self.bit(p.r, OF.trailing_zeros()),
            FlagsOp::Add | FlagsOp::Adc | FlagsOp::Sub | FlagsOp::Sbb => {
                let (a, b, r) = (self.typed(p.a, w), self.typed(p.b, w), self.typed(p.r, w));
                let adding = matches!(op, FlagsOp::Add | FlagsOp::Adc);
                let (x, y) = (self.b.ins().bxor(a, r), if adding { self.b.ins().bxor(b, r) } else { self.b.ins().bxor(a, b) });
                let v = self.b.ins().band(x, y);
                self.is_negative(v)
            }
            FlagsOp::Logic | FlagsOp::Sar => None,
            FlagsOp::Inc | FlagsOp::Dec => {
                let limit = if op == FlagsOp::Inc { w.sign() } else { w.sign() - 1 };
                Some(self.compare(IntCC::Equal, p.r, Lv::Const(limit), w))
            }
            FlagsOp::Shl => {
                let (s, c) = (self.sign(p), self.carry(p));
                self.either(s, c, true)
            }
            FlagsOp::Shr => {
                let r = self.typed(p.r, w);
                let up = self.b.ins().ishl_imm_u(r, 1);
                let v = self.b.ins().bxor(r, up);
                self.is_negative(v)
            }
            FlagsOp::Mul => self.carry(p),
        }
    }

    fn zero(&mut self, p: &Pending) -> Option<Value> {
        if p.kind.0 == FlagsOp::Word {
            return self.bit(p.r, ZF.trailing_zeros());
        }
        Some(self.compare(IntCC::Equal, p.r, Lv::Const(0), p.kind.1))
    }

    fn sign(&mut self, p: &Pending) -> Option<Value> {
        if p.kind.0 == FlagsOp::Word {
            return self.bit(p.r, SF.trailing_zeros());
        }
        let r = self.typed(p.r, p.kind.1);
        self.is_negative(r)
    }

    fn parity(&mut self, p: &Pending) -> Option<Value> {
        if p.kind.0 == FlagsOp::Word {
            return self.bit(p.r, PF.trailing_zeros());
        }
        let r = self.typed(p.r, Width::B);
        let ones = self.b.ins().popcnt(r);
        let odd = self.b.ins().band_imm_u(ones, 1);
        Some(self.b.ins().bxor_imm_u(odd, 1))
    }

    fn adjust(&mut self, p: &Pending) -> Option<Value> {
        match p.kind.0 {
            FlagsOp::Word => self.bit(p.r, 4),
            FlagsOp::Inc | FlagsOp::Dec => {
                let r = self.typed(p.r, Width::B);
                let low = self.b.ins().band_imm_u(r, 15);
                let limit = if p.kind.0 == FlagsOp::Inc { 0 } else { 15 };
                Some(self.b.ins().icmp_imm_s(IntCC::Equal, low, limit))
            }
            FlagsOp::Add | FlagsOp::Adc | FlagsOp::Sub | FlagsOp::Sbb => {
                let (a, b, r) = (self.typed(p.a, Width::B), self.typed(p.b, Width::B), self.typed(p.r, Width::B));
                let v = self.b.ins().bxor(a, b);
                let v = self.b.ins().bxor(v, r);
                self.bit(Lv::Int(v, Width::B), 4)
            }
            _ => None,
        }
    }
}

/// The operation that gives the result from the operands, which is not stored then.
fn result(op: FlagsOp) -> Option<Bin> {
    match op {
        FlagsOp::Add => Some(Bin::Add),
        FlagsOp::Sub => Some(Bin::Sub),
        _ => None,
    }
}

/// Which operands the flags of an operation depend on.
fn operands(op: FlagsOp) -> (bool, bool) {
    match op {
        FlagsOp::Word | FlagsOp::Logic => (false, false),
        FlagsOp::Inc | FlagsOp::Dec | FlagsOp::Mul => (false, true),
        _ => (true, true),
    }
}

/// The comparison of the operands of a subtraction that a condition is.
fn compare_code(cond: Cond) -> Option<IntCC> {
    Some(match cond {
        Cond::B => IntCC::UnsignedLessThan,
        Cond::Ae => IntCC::UnsignedGreaterThanOrEqual,
        Cond::E => IntCC::Equal,
        Cond::Ne => IntCC::NotEqual,
        Cond::Be => IntCC::UnsignedLessThanOrEqual,
        Cond::A => IntCC::UnsignedGreaterThan,
        Cond::L => IntCC::SignedLessThan,
        Cond::Ge => IntCC::SignedGreaterThanOrEqual,
        Cond::Le => IntCC::SignedLessThanOrEqual,
        Cond::G => IntCC::SignedGreaterThan,
        _ => return None,
    })
}
