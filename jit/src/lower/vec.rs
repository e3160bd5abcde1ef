//! Integer operations on vectors, through CLIF's vector types. What these cannot say is computed by a helper.
//!
//! The upper halves of YMM registers are values and places of their own. That one is known to be zero is remembered, so that a
//! run of VEX.128 instructions clears it once.

use super::live::Reg;
use super::{Lower, Lv};
use crate::helpers::SHA256_ROUNDS2;
use crate::host_crypto;
use crate::vm::{Stubs, Vm};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I8X16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value};
use cranelift_frontend::Variable;
use egret_cpu::State;
use egret_isa::ir::{Op, Val};
use egret_isa::ops::Width;
use egret_isa::sem::vector::vec_ops;
use egret_isa::vec::{Shape, Vec3Op, VecOp};
use std::mem::offset_of;

/// The type that vectors are kept in.
pub(super) const X: Type = I8X16;

/// The vector type of a shape.
pub(super) fn lanes(s: Shape) -> Type {
    match s {
        Shape::I8 => I8X16,
        Shape::I16 => I16X8,
        Shape::I32 | Shape::F32 => I32X4,
        Shape::I64 | Shape::F64 => I64X2,
    }
}

/// Whether a vector operation is lowered to CLIF; the others are computed by [`crate::helpers::vector`].
fn inline(op: VecOp) -> bool {
    use VecOp::*;
    match op {
        Copy | ZextLow(_) | MergeLow(_) | MoveHighToLow | High64 | And | AndNot | Or | Xor => true,
        Add(_) | Sub(_) | UnpackLow(_) | UnpackHigh(_) | CmpEq(_) | CmpGt(_) => true,
        AddSatS(s) | AddSatU(s) | SubSatS(s) | SubSatU(s) | AvgU(s) => matches!(s, Shape::I8 | Shape::I16),
        MinS(s) | MinU(s) | MaxS(s) | MaxU(s) => matches!(s, Shape::I8 | Shape::I16 | Shape::I32),
        MulLow(s) => matches!(s, Shape::I16 | Shape::I32),
        ShiftLeft(s) | ShiftRight(s) => s != Shape::I8,
        ShiftRightArith(s) => matches!(s, Shape::I16 | Shape::I32),
        MulWideU32 | MulAdd16 | ByteShiftLeft | ByteShiftRight => true,
        PackS(_) | PackU(_) => true,
        Shuffle32 | ShuffleLow16 | ShuffleHigh16 | ShufflePs | ShufflePd | DupEven32 | DupOdd32 | DupLow64 | AlignRight => true,
        Insert(_) | Extract(_) | MoveMask(_) | Blend(_) | InsertPs | InsertPsMem | Splat(_) => true,
        ExtendS(..) | ExtendU(..) | MulHighS16 | MulHighU16 | MulWideS32 | SumAbsDiff | Permute32 | Permute64 => true,
        Abs(s) => s != Shape::I64,
        AddPairs(_) => true,
        ShuffleBytes | MulHighRound16 | MulAddU8S8 => cfg!(target_arch = "x86_64"),
        _ => false,
    }
}

impl Lower<'_, '_> {
    pub(super) fn vec(&mut self, v: Val) -> Value {
        match self.val(v) {
            Lv::Vec(v) => v,
            _ => self.zero_x(),
        }
    }

    pub(super) fn zero_x(&mut self) -> Value {
        let zero = self.b.ins().iconst(I8, 0);
        self.b.ins().splat(X, zero)
    }

    pub(super) fn set_xmm(&mut self, r: u8, v: Val) {
        let n = usize::from(r & 15);
        let v = self.vec(v);
        self.set_vector(Reg::Xmm(n), self.xmm[n], v);
    }

    /// What floating point computes is stored at once: see [`super::sticky`].
    fn set_vector(&mut self, reg: Reg, var: Variable, v: Value) {
        self.note_old(reg);
        self.have.add(reg);
        self.b.def_var(var, v);
        if self.floats {
            self.store_reg(reg, v);
            self.dirty.remove(reg);
        } else {
            self.dirty.add(reg);
        }
    }

    /// Writes the upper half of a YMM register.
    pub(super) fn set_ymm_hi(&mut self, ops: &[Op], r: u8, v: Val) {
        let n = usize::from(r & 15);
        let zero = self.known_low(ops, v) == Some(0);
        if zero && self.clear_hi >> n & 1 != 0 {
            return;
        }
        self.clear_hi = if zero { self.clear_hi | 1 << n } else { self.clear_hi & !(1 << n) };
        let v = self.vec(v);
        self.set_vector(Reg::Ymm(n), self.ymm[n], v);
    }

    /// An integer in the low lane.
    pub(super) fn x_of(&mut self, v: Val) -> Lv {
        if let Lv::Const(0) = self.val(v) {
            return Lv::Vec(self.zero_x());
        }
        let v = self.int(v, Width::Q);
        let x = self.low_lane(I64X2, v);
        self.ints.insert(x, v);
        self.scalars.insert(x, 8);
        Lv::Vec(x)
    }

    /// A scalar in the low lane of `t`, zeros above.
    pub(super) fn low_lane(&mut self, t: Type, v: Value) -> Value {
        let v = self.b.ins().scalar_to_vector(t, v);
        self.bitcast(X, v)
    }

    /// The low bits of a vector.
    pub(super) fn v_of(&mut self, w: Width, x: Val) -> Lv {
        let x = self.vec(x);
        if let Some(v) = self.ints.get(&x).copied() {
            return Lv::Int(self.resize(v, Width::Q, w), w);
        }
        let t = match w {
            Width::B => I8X16,
            Width::W => I16X8,
            Width::D => I32X4,
            Width::Q => I64X2,
        };
        let x = self.bitcast(t, x);
        Lv::Int(self.b.ins().extractlane(x, 0), w)
    }

    /// A known integer behind a vector operand.
    pub(super) fn known_low(&self, ops: &[Op], v: Val) -> Option<u64> {
        match ops.get(v.0 as usize) {
            Some(Op::XOf(v)) => match self.val(*v) {
                Lv::Const(c) => Some(c),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes picked from `a` (0-15) and `b` (16-31).
    fn pick(&mut self, a: Value, b: Value, bytes: [u8; 16]) -> Value {
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        self.b.ins().shuffle(a, b, mask)
    }

    /// Lanes of `s` picked from `a` and, from the number of lanes on, from `b`.
    pub(super) fn pick_lanes(&mut self, s: Shape, a: Value, b: Value, which: impl Fn(u8) -> u8) -> Value {
        let size = (s.bits() / 8) as u8;
        let bytes = std::array::from_fn(|n| which(n as u8 / size) * size + n as u8 % size);
        self.pick(a, b, bytes)
    }

    /// A lane-wise operation.
    pub(super) fn each(&mut self, t: Type, a: Value, b: Value, f: impl FnOnce(&mut Self, Value, Value) -> Value) -> Value {
        let (a, b) = (self.bitcast(t, a), self.bitcast(t, b));
        let r = f(self, a, b);
        self.bitcast(X, r)
    }

    pub(super) fn vec_op(&mut self, ops: &[Op], op: VecOp, a: Val, b: Val, imm: u8) -> Lv {
        use VecOp::*;
        if let ShiftLeft(s) | ShiftRight(s) | ShiftRightArith(s) = op {
            return Lv::Vec(self.shift_lanes(ops, op, s, a, b));
        }
        if let ByteShiftLeft | ByteShiftRight = op {
            return Lv::Vec(self.shift_bytes(ops, op, a, b));
        }
        let (a, b) = (self.vec(a), self.vec(b));
        if !inline(op) {
            return Lv::Vec(self.by_helper(op, a, b, imm));
        }
        if let Some(v) = self.arithmetic(op, a, b).or_else(|| self.products(op, a, b)) {
            return Lv::Vec(v);
        }
        Lv::Vec(self.permute(op, a, b, imm))
    }

    /// Asks a helper for the result.
    fn by_helper(&mut self, op: VecOp, a: Value, b: Value, imm: u8) -> Value {
        if let Some(n) = host_crypto::OPS.iter().position(|o| *o == op) {
            return self.ask_leaf(offset_of!(Vm, crypto) + 8 * n, imm.into(), &[a, b]);
        }
        let number = vec_ops().iter().position(|o| *o == op).unwrap_or(0) as u64;
        self.ask_leaf(offset_of!(Vm, vector), number | u64::from(imm) << 16, &[a, b])
    }

    /// Puts vectors where helpers find them, and gives the [`Vm`]'s address.
    fn operands(&mut self, operands: &[Value]) -> Value {
        let vm = self.load_state(I64, offset_of!(State, engine));
        for (n, v) in (0..).zip(operands) {
            self.b.ins().store(self.places.vm, *v, vm, offset_of!(Vm, vectors) as i32 + 16 * n);
        }
        vm
    }

    /// Calls [`crate::helpers::vector`] or another such function, whose address is at an offset in the [`Vm`].
    fn ask_leaf(&mut self, function: usize, what: u64, operands: &[Value]) -> Value {
        let vm = self.operands(operands);
        let vectors = self.b.ins().iadd_imm_s(vm, offset_of!(Vm, vectors) as i64);
        let what = self.iconst(what);
        let target = self.b.ins().load(I64, self.places.vm, vm, function as i32);
        self.b.ins().call_indirect(self.native, target, &[vectors, what, what]);
        self.b.ins().load(X, self.places.vm, vm, offset_of!(Vm, vectors) as i32)
    }

    /// Calls [`crate::helpers::float`] on two vectors.
    pub(super) fn ask_float(&mut self, what: u64, a: Value, b: Value) -> Value {
        let vm = self.operands(&[a, b]);
        let what = self.iconst(what);
        self.call_stub(offset_of!(Stubs, float), [what; 3]);
        self.b.ins().load(X, self.places.vm, vm, offset_of!(Vm, vectors) as i32)
    }

    /// An operation of three operands.
    pub(super) fn vec3_op(&mut self, op: Vec3Op, a: Val, b: Val, c: Val) -> Lv {
        let (a, b, c) = (self.vec(a), self.vec(b), self.vec(c));
        Lv::Vec(match op {
            Vec3Op::BlendVar(s) => {
                let (t, zero) = (lanes(s), self.zero_x());
                let (c, zero) = (self.bitcast(t, c), self.bitcast(t, zero));
                let mask = self.b.ins().icmp(IntCC::SignedLessThan, c, zero);
                let mask = self.bitcast(X, mask);
                self.b.ins().bitselect(mask, b, a)
            }
            Vec3Op::Sha256Rounds2 => self.ask_leaf(offset_of!(Vm, vector), SHA256_ROUNDS2, &[a, b, c]),
        })
    }

    fn arithmetic(&mut self, op: VecOp, a: Value, b: Value) -> Option<Value> {
        use VecOp::*;
        let all = |s: Shape| lanes(s);
        Some(match op {
            And => self.b.ins().band(a, b),
            AndNot => {
                let not = self.b.ins().bnot(a);
                self.b.ins().band(not, b)
            }
            Or => self.b.ins().bor(a, b),
            Xor => self.b.ins().bxor(a, b),
            Add(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().iadd(a, b)),
            Sub(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().isub(a, b)),
            AddSatS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().sadd_sat(a, b)),
            AddSatU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().uadd_sat(a, b)),
            SubSatS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().ssub_sat(a, b)),
            SubSatU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().usub_sat(a, b)),
            AvgU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().avg_round(a, b)),
            MinS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().smin(a, b)),
            MinU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().umin(a, b)),
            MaxS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().smax(a, b)),
            MaxU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().umax(a, b)),
            MulLow(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().imul(a, b)),
            CmpEq(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().icmp(IntCC::Equal, a, b)),
            CmpGt(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().icmp(IntCC::SignedGreaterThan, a, b)),
            MulWideU32 => self.each(I64X2, a, b, |l, a, b| {
                let mask = l.b.ins().iconst(I64, 0xffff_ffff);
                let mask = l.b.ins().splat(I64X2, mask);
                let (a, b) = (l.b.ins().band(a, mask), l.b.ins().band(b, mask));
                l.b.ins().imul(a, b)
            }),
            MulAdd16 => {
                let (a, b) = (self.bitcast(I16X8, a), self.bitcast(I16X8, b));
                let (x, y) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
                let low = self.b.ins().imul(x, y);
                let (x, y) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
                let high = self.b.ins().imul(x, y);
                let r = self.b.ins().iadd_pairwise(low, high);
                self.bitcast(X, r)
            }
            Abs(s) => self.each(all(s), b, b, |l, _, b| l.b.ins().iabs(b)),
            AddPairs(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().iadd_pairwise(a, b)),
            ShuffleBytes => self.b.ins().x86_pshufb(a, b),
            MulHighRound16 => self.each(I16X8, a, b, |l, a, b| l.b.ins().x86_pmulhrsw(a, b)),
            // CLIF takes the signed bytes first.
            MulAddU8S8 => {
                let r = self.b.ins().x86_pmaddubsw(b, a);
                self.bitcast(X, r)
            }
            PackS(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().snarrow(a, b)),
            PackU(s) => self.each(all(s), a, b, |l, a, b| l.b.ins().unarrow(a, b)),
            _ => return None,
        })
    }

    /// Products and sums at twice the width, and lanes made wider.
    fn products(&mut self, op: VecOp, a: Value, b: Value) -> Option<Value> {
        use VecOp::*;
        Some(match op {
            ExtendS(from, to) => self.extend(true, from, to, b),
            ExtendU(from, to) => self.extend(false, from, to, b),
            MulHighS16 | MulHighU16 => {
                let signed = op == MulHighS16;
                let (a, b) = (self.bitcast(I16X8, a), self.bitcast(I16X8, b));
                let low = self.wide_product(signed, false, a, b);
                let high = self.wide_product(signed, true, a, b);
                // The upper words of the eight doublewords.
                let (low, high) = (self.bitcast(X, low), self.bitcast(X, high));
                self.pick_lanes(Shape::I16, low, high, |n| 2 * n + 1)
            }
            MulWideS32 => {
                let even = |l: &mut Self, v| {
                    let v = l.pick_lanes(Shape::I32, v, v, |n| [0, 2, 1, 3][usize::from(n & 3)]);
                    l.bitcast(I32X4, v)
                };
                let (a, b) = (even(self, a), even(self, b));
                let (a, b) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
                let r = self.b.ins().imul(a, b);
                self.bitcast(X, r)
            }
            SumAbsDiff => self.sum_abs_diff(a, b),
            _ => return None,
        })
    }

    fn wide_product(&mut self, signed: bool, high: bool, a: Value, b: Value) -> Value {
        let ins = |l: &mut Self, v| match (signed, high) {
            (true, false) => l.b.ins().swiden_low(v),
            (true, true) => l.b.ins().swiden_high(v),
            (false, false) => l.b.ins().uwiden_low(v),
            (false, true) => l.b.ins().uwiden_high(v),
        };
        let (a, b) = (ins(self, a), ins(self, b));
        self.b.ins().imul(a, b)
    }

    fn extend(&mut self, signed: bool, from: Shape, to: Shape, v: Value) -> Value {
        let mut v = self.bitcast(lanes(from), v);
        for _ in 0..(to.bits() / from.bits()).trailing_zeros() {
            v = if signed { self.b.ins().swiden_low(v) } else { self.b.ins().uwiden_low(v) };
        }
        self.bitcast(X, v)
    }

    /// PSADBW: differences of bytes, then sums of neighbours until eight are one.
    fn sum_abs_diff(&mut self, a: Value, b: Value) -> Value {
        let (most, least) = (self.b.ins().umax(a, b), self.b.ins().umin(a, b));
        let mut v = self.b.ins().isub(most, least);
        for _ in 0..2 {
            let (low, high) = (self.b.ins().uwiden_low(v), self.b.ins().uwiden_high(v));
            v = self.b.ins().iadd_pairwise(low, high);
        }
        let v = self.bitcast(I64X2, v);
        let n = self.b.ins().iconst(I32, 32);
        let (up, down) = (self.b.ins().ishl(v, n), self.b.ins().ushr(v, n));
        // The lower of two doublewords, and the upper brought down to it.
        let low = self.b.ins().ushr(up, n);
        let r = self.b.ins().iadd(low, down);
        self.bitcast(X, r)
    }

    fn permute(&mut self, op: VecOp, a: Value, b: Value, imm: u8) -> Value {
        use VecOp::*;
        let at = |n: u8| imm >> (2 * n) & 3;
        match op {
            ZextLow(s) => {
                let bytes = (s.bits() / 8) as u8;
                if self.scalars.get(&b).is_some_and(|n| *n <= bytes) {
                    return b;
                }
                let zero = self.zero_x();
                let x = self.pick_lanes(s, b, zero, |n| if n == 0 { 0 } else { s.lanes() as u8 + n });
                self.scalars.insert(x, bytes);
                x
            }
            MergeLow(s) => self.pick_lanes(s, a, b, |n| if n == 0 { s.lanes() as u8 } else { n }),
            MoveHighToLow => self.pick_lanes(Shape::I64, a, b, |n| [3, 1][usize::from(n & 1)]),
            High64 => {
                let zero = self.zero_x();
                self.pick_lanes(Shape::I64, b, zero, |n| [1, 2][usize::from(n & 1)])
            }
            UnpackLow(s) => self.pick_lanes(s, a, b, |n| n / 2 + if n & 1 != 0 { s.lanes() as u8 } else { 0 }),
            UnpackHigh(s) => {
                let half = s.lanes() as u8 / 2;
                self.pick_lanes(s, a, b, |n| half + n / 2 + if n & 1 != 0 { s.lanes() as u8 } else { 0 })
            }
            Shuffle32 => self.pick_lanes(Shape::I32, b, b, at),
            ShuffleLow16 => self.pick_lanes(Shape::I16, b, b, |n| if n < 4 { at(n) } else { n }),
            ShuffleHigh16 => self.pick_lanes(Shape::I16, b, b, |n| if n < 4 { n } else { 4 + at(n - 4) }),
            ShufflePs => self.pick_lanes(Shape::I32, a, b, |n| at(n) + if n < 2 { 0 } else { 4 }),
            ShufflePd => self.pick_lanes(Shape::I64, a, b, |n| (imm >> n & 1) + 2 * n),
            DupEven32 => self.pick_lanes(Shape::I32, b, b, |n| n & !1),
            DupOdd32 => self.pick_lanes(Shape::I32, b, b, |n| n | 1),
            DupLow64 => self.pick_lanes(Shape::I64, b, b, |_| 0),
            AlignRight => self.align_right(a, b, imm),
            Insert(s) => {
                let lane = imm & (s.lanes() as u8 - 1);
                self.pick_lanes(s, a, b, |n| if n == lane { s.lanes() as u8 } else { n })
            }
            Blend(s) => self.pick_lanes(s, a, b, |n| if imm >> n & 1 != 0 { s.lanes() as u8 + n } else { n }),
            Splat(s) => self.pick_lanes(s, b, b, |_| 0),
            InsertPs | InsertPsMem => self.insert_ps(op, a, b, imm),
            Permute32 | Permute64 => self.permute_by(op, a, b),
            Extract(s) => {
                let (zero, lane) = (self.zero_x(), imm & (s.lanes() as u8 - 1));
                self.pick_lanes(s, b, zero, |n| if n == 0 { lane } else { s.lanes() as u8 })
            }
            MoveMask(s) => {
                let v = self.bitcast(lanes(s), b);
                let bits = self.b.ins().vhigh_bits(I32, v);
                let wide = self.b.ins().uextend(I64, bits);
                let x = self.low_lane(I64X2, wide);
                self.ints.insert(x, wide);
                x
            }
            _ => b,
        }
    }

    fn insert_ps(&mut self, op: VecOp, a: Value, b: Value, imm: u8) -> Value {
        let (from, to) = (if op == VecOp::InsertPs { imm >> 6 } else { 0 }, imm >> 4 & 3);
        let r = self.pick_lanes(Shape::I32, a, b, |n| if n == to { 4 + from } else { n });
        let zero = self.zero_x();
        self.pick_lanes(Shape::I32, r, zero, |n| if imm >> n & 1 != 0 { 4 } else { n })
    }

    /// VPERMILPS and VPERMILPD by a register.
    fn permute_by(&mut self, op: VecOp, a: Value, b: Value) -> Value {
        if op == VecOp::Permute64 {
            let (low, high) = (self.pick_lanes(Shape::I64, a, a, |_| 0), self.pick_lanes(Shape::I64, a, a, |_| 1));
            let b = self.bitcast(I64X2, b);
            let n = self.b.ins().iconst(I32, 62);
            // Bit 1 becomes the sign.
            let b = self.b.ins().ishl(b, n);
            let zero = self.zero_x();
            let zero = self.bitcast(I64X2, zero);
            let mask = self.b.ins().icmp(IntCC::SignedLessThan, b, zero);
            let mask = self.bitcast(X, mask);
            return self.b.ins().bitselect(mask, high, low);
        }
        // Each doubleword's number times four, in each of its bytes, and the byte's own number.
        let b = self.bitcast(I32X4, b);
        let splat = |l: &mut Self, c: i64| {
            let c = l.b.ins().iconst(I32, c);
            l.b.ins().splat(I32X4, c)
        };
        let (three, fours, steps) = (splat(self, 3), splat(self, 0x0404_0404), splat(self, 0x0302_0100));
        let b = self.b.ins().band(b, three);
        let b = self.b.ins().imul(b, fours);
        let b = self.b.ins().iadd(b, steps);
        let b = self.bitcast(X, b);
        self.b.ins().swizzle(a, b)
    }

    /// `a:b` shifted right by bytes.
    fn align_right(&mut self, a: Value, b: Value, n: u8) -> Value {
        let zero = self.zero_x();
        match n {
            0..=16 => self.pick(b, a, std::array::from_fn(|i| i as u8 + n)),
            17..=31 => self.pick(a, zero, std::array::from_fn(|i| (i as u8 + n - 16).min(16))),
            _ => zero,
        }
    }

    /// PSLLDQ, PSRLDQ: the count is always an immediate.
    fn shift_bytes(&mut self, ops: &[Op], op: VecOp, a: Val, b: Val) -> Value {
        let n = self.known_low(ops, b).unwrap_or(16).min(16) as u8;
        let (a, zero) = (self.vec(a), self.zero_x());
        let right = op == VecOp::ByteShiftRight;
        let from = |i: u8| if right { (i + n).min(16) } else { i.checked_sub(n).unwrap_or(16) };
        self.pick(a, zero, std::array::from_fn(|i| from(i as u8)))
    }

    /// PSLLW and the like. CLIF takes counts modulo the lane's bits; x86 gives zero, or the sign, beyond.
    fn shift_lanes(&mut self, ops: &[Op], op: VecOp, s: Shape, a: Val, b: Val) -> Value {
        let (t, bits) = (lanes(s), u64::from(s.bits()));
        let arithmetic = matches!(op, VecOp::ShiftRightArith(_));
        let count = match self.known_low(ops, b) {
            Some(n) if n >= bits && !arithmetic => return self.zero_x(),
            Some(n) => Ok(n.min(bits - 1)),
            None => {
                let count = self.vec(b);
                let count = self.bitcast(I64X2, count);
                Err(self.b.ins().extractlane(count, 0))
            }
        };
        let a = self.vec(a);
        let a = self.bitcast(t, a);
        let (amount, beyond) = match count {
            Ok(n) => (self.b.ins().iconst(I32, n as i64), None),
            Err(count) => {
                let beyond = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, count, bits as i64);
                let last = self.b.ins().iconst(I64, bits as i64 - 1);
                let amount = self.b.ins().select(beyond, last, count);
                (self.b.ins().ireduce(I32, amount), Some(beyond))
            }
        };
        let r = match op {
            VecOp::ShiftLeft(_) => self.b.ins().ishl(a, amount),
            VecOp::ShiftRight(_) => self.b.ins().ushr(a, amount),
            _ => self.b.ins().sshr(a, amount),
        };
        let r = self.bitcast(X, r);
        match beyond {
            Some(beyond) if !arithmetic => {
                let zero = self.zero_x();
                self.b.ins().select(beyond, zero, r)
            }
            _ => r,
        }
    }
}
