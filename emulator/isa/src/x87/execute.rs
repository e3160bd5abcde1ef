//! The operations. Stack faults come first, then exceptions of the operation; an unmasked one of IE, DE, ZE leaves registers, TOP and
//! memory as they were (SDM Vol. 1, 8.5).

use super::insn::{Arith, Constant, Dest, Memory, Transcendental, X87Insn, X87Op};
use super::{C0, C1, C2, C3, EXCEPTIONS, IE, Outcome, SF, X87};
use crate::fp::f80::{self, Class, Env80, F80};
use crate::fp::{Flags, Relation, Rounding};

const NOTHING: Outcome = Outcome { store: None, eflags: None };

impl X87 {
    /// Executes one instruction. `i` is the number of its ST(i) operand; `source` has the bits of its memory operand in the low end, or
    /// for FCMOVcc 1 if the condition holds.
    pub fn execute(&mut self, insn: X87Insn, i: u8, source: u128) -> Outcome {
        match insn.op {
            X87Op::Arith(op, dest) => self.arithmetic(op, dest, insn.memory, i, source),
            X87Op::Load => self.load(insn.memory, i, source),
            X87Op::Store { pop } => return self.store(insn.memory, i, pop),
            X87Op::StoreInt { pop, truncate } => return self.store_int(insn.memory, pop, truncate),
            X87Op::LoadConstant(constant) => self.load_constant(constant),
            X87Op::Exchange => self.exchange(i),
            X87Op::Compare { quiet, pops } => self.compare(insn.memory, if pops == 2 { 1 } else { i }, source, quiet, pops),
            X87Op::CompareFlags { quiet, pop } => return self.compare_flags(i, quiet, pop),
            X87Op::ConditionalMove => self.conditional_move(i, source != 0),
            X87Op::Test => self.test(),
            X87Op::Examine => self.examine(),
            X87Op::Negate => self.unary(|_, a| a.negate()),
            X87Op::Absolute => self.unary(|_, a| a.with_sign(false)),
            X87Op::SquareRoot => self.unary(f80::sqrt),
            X87Op::RoundToInteger => self.unary(f80::round_integral),
            X87Op::Scale => self.binary(f80::scale),
            X87Op::Extract => self.extract(),
            X87Op::Remainder { nearest } => self.remainder(nearest),
            X87Op::Transcendental(function) => self.transcendental(function),
            X87Op::StoreNoUnderflow => {
                self.sw &= !C1;
                if !self.is_empty(0) {
                    self.set_st(i, self.st(0));
                }
                self.pop();
            }
            _ => return self.control(insn.op, i, source),
        }
        NOTHING
    }

    /// Instructions that compute nothing.
    fn control(&mut self, op: X87Op, i: u8, source: u128) -> Outcome {
        match op {
            X87Op::Init { .. } => self.init(),
            X87Op::LoadControl => self.set_control_word(source as u16),
            X87Op::StoreControl { .. } => return Outcome { store: Some(self.cw.into()), eflags: None },
            X87Op::StoreStatus { .. } => return Outcome { store: Some(self.status_word().into()), eflags: None },
            X87Op::ClearExceptions { .. } => self.sw &= !(EXCEPTIONS | SF),
            X87Op::IncrementTop => {
                self.sw &= !C1;
                self.set_top(self.top() + 1);
            }
            X87Op::DecrementTop => {
                self.sw &= !C1;
                self.set_top(self.top() + 7);
            }
            X87Op::Free { pop } => {
                self.sw &= !C1;
                self.free(i);
                if pop {
                    self.pop();
                }
            }
            _ => {}
        }
        NOTHING
    }

    /// Clears C1 and makes the environment of an operation.
    #[inline]
    fn begin(&mut self) -> Env80 {
        self.sw &= !C1;
        Env80::from_control_word(self.cw)
    }

    /// Records exceptions and C1; true if results are to be stored.
    #[inline]
    fn finish(&mut self, e: &Env80) -> bool {
        self.sw |= (e.env.mxcsr() as u16 & EXCEPTIONS) | if e.up { C1 } else { 0 };
        !e.pre_fault()
    }

    /// Stack underflow: an empty source. True if masked: indefinites are to be stored.
    #[cold]
    fn underflow(&mut self) -> bool {
        self.sw = (self.sw & !C1) | IE | SF;
        self.cw & IE != 0
    }

    /// Stack overflow: a push onto a register that is not empty. True if masked.
    #[cold]
    fn overflow(&mut self) -> bool {
        self.sw |= IE | SF | C1;
        self.cw & IE != 0
    }

    fn load(&mut self, memory: Memory, i: u8, source: u128) {
        let mut e = self.begin();
        let underflow = memory == Memory::None && self.is_empty(i);
        if underflow || !self.is_empty(7) {
            if if underflow { self.underflow() } else { self.overflow() } {
                self.push(F80::INDEFINITE);
            }
            return;
        }
        let value = match memory {
            Memory::M32Real => f80::from_f32(&mut e, source as u32),
            Memory::M64Real => f80::from_f64(&mut e, source as u64),
            Memory::M80Real => F80::from_bits(source),
            Memory::M16Int => f80::from_int((source as i16).into()),
            Memory::M32Int => f80::from_int((source as i32).into()),
            Memory::M64Int => f80::from_int(source as i64),
            Memory::M80Bcd => f80::from_bcd(source),
            _ => self.st(i),
        };
        // A denormal is pushed even if DE is unmasked, an SNaN is not if IE is: seen on processors, against SDM Vol. 1, 8.5.2.
        if self.finish(&e) || !e.env.raised().contains(Flags::IE) {
            self.push(value);
        }
    }

    /// The constants have 66 bits inside and are rounded by RC, which raises nothing.
    fn load_constant(&mut self, constant: Constant) {
        let e = self.begin();
        if !self.is_empty(7) {
            if self.overflow() {
                self.push(F80::INDEFINITE);
            }
            return;
        }
        // Truncated significand, and whether the nearest one is the next.
        let (sign_exp, frac, round_up) = match constant {
            Constant::One => (0x3fff, 1 << 63, None),
            Constant::Zero => (0, 0, None),
            Constant::Log2Of10 => (0x4000, 0xd49a_784b_cd1b_8afe, Some(false)),
            Constant::Log2OfE => (0x3fff, 0xb8aa_3b29_5c17_f0bb, Some(true)),
            Constant::Pi => (0x4000, 0xc90f_daa2_2168_c234, Some(true)),
            Constant::Log10Of2 => (0x3ffd, 0x9a20_9a84_fbcf_f798, Some(true)),
            Constant::LnOf2 => (0x3ffe, 0xb172_17f7_d1cf_79ab, Some(true)),
        };
        let up = match (round_up, e.rounding()) {
            (Some(nearest_up), Rounding::Nearest) => nearest_up,
            (Some(_), Rounding::Up) => true,
            _ => false,
        };
        self.push(F80 { sign_exp, frac: frac + u64::from(up) });
    }

    fn store(&mut self, memory: Memory, i: u8, pop: bool) -> Outcome {
        let mut e = self.begin();
        let mut value = self.st(0);
        if self.is_empty(0) {
            if !self.underflow() {
                return NOTHING;
            }
            value = F80::INDEFINITE;
        }
        let bits = match memory {
            Memory::M32Real => f80::to_f32(&mut e, value).map(u128::from),
            Memory::M64Real => f80::to_f64(&mut e, value).map(u128::from),
            Memory::M80Real => Some(value.to_bits()),
            Memory::M80Bcd => Some(f80::to_bcd(&mut e, value)),
            _ => {
                self.set_st(i, value);
                None
            }
        };
        let stored = self.finish(&e) && (bits.is_some() || memory == Memory::None);
        if stored && pop {
            self.pop();
        }
        Outcome { store: bits.filter(|_| stored), eflags: None }
    }

    fn store_int(&mut self, memory: Memory, pop: bool, truncate: bool) -> Outcome {
        let mut e = self.begin();
        let mut value = self.st(0);
        if self.is_empty(0) {
            if !self.underflow() {
                return NOTHING;
            }
            value = F80::INDEFINITE;
        }
        let bits = memory.bytes() as u32 * 8;
        let int = f80::to_int(&mut e, value, bits.clamp(16, 64), truncate);
        if !self.finish(&e) {
            return NOTHING;
        }
        if pop {
            self.pop();
        }
        Outcome { store: Some(u128::from(int as u64)), eflags: None }
    }

    fn exchange(&mut self, i: u8) {
        self.sw &= !C1;
        if self.is_empty(0) || self.is_empty(i) {
            if !self.underflow() {
                return;
            }
            for n in [0, i] {
                if self.is_empty(n) {
                    self.set_st(n, F80::INDEFINITE);
                }
            }
        }
        let (a, b) = (self.index(0), self.index(i));
        self.regs.swap(a, b);
    }

    /// C1 keeps its value unless there is a stack fault.
    fn conditional_move(&mut self, i: u8, condition: bool) {
        if self.is_empty(0) || self.is_empty(i) {
            if self.underflow() {
                self.set_st(0, F80::INDEFINITE);
            }
        } else if condition {
            self.set_st(0, self.st(i));
        }
    }

    /// A memory operand of arithmetic or comparison.
    #[inline]
    fn operand(e: &mut Env80, memory: Memory, source: u128) -> F80 {
        match memory {
            Memory::M32Real => f80::widen32(e, source as u32),
            Memory::M64Real => f80::widen64(e, source as u64),
            Memory::M16Int => f80::from_int((source as i16).into()),
            _ => f80::from_int((source as i32).into()),
        }
    }

    #[inline]
    fn arithmetic(&mut self, op: Arith, dest: Dest, memory: Memory, i: u8, source: u128) {
        let mut e = self.begin();
        let (target, other, pop) = match dest {
            Dest::St0 => (0, i, false),
            Dest::Sti { pop } => (i, 0, pop),
        };
        let register = memory == Memory::None;
        if self.is_empty(target) || (register && self.is_empty(other)) {
            if self.underflow() {
                self.set_st(target, F80::INDEFINITE);
                if pop {
                    self.pop();
                }
            }
            return;
        }
        let a = self.st(target);
        let b = if register { self.st(other) } else { Self::operand(&mut e, memory, source) };
        let result = match op {
            Arith::Add => f80::add(&mut e, a, b),
            Arith::Mul => f80::mul(&mut e, a, b),
            Arith::Sub => f80::sub(&mut e, a, b),
            Arith::SubR => f80::sub(&mut e, b, a),
            Arith::Div => f80::div(&mut e, a, b),
            Arith::DivR => f80::div(&mut e, b, a),
        };
        if self.finish(&e) {
            self.set_st(target, result);
            if pop {
                self.pop();
            }
        }
    }

    /// An operation on ST(0).
    fn unary(&mut self, f: impl FnOnce(&mut Env80, F80) -> F80) {
        let mut e = self.begin();
        if self.is_empty(0) {
            if self.underflow() {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        let result = f(&mut e, self.st(0));
        if self.finish(&e) {
            self.set_st(0, result);
        }
    }

    /// An operation on ST(0) and ST(1) that replaces ST(0).
    fn binary(&mut self, f: impl FnOnce(&mut Env80, F80, F80) -> F80) {
        if self.is_empty(1) {
            if self.underflow() {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        let other = self.st(1);
        self.unary(|e, a| f(e, a, other));
    }

    fn set_condition(&mut self, relation: Relation) {
        let bits = match relation {
            Relation::Greater => 0,
            Relation::Less => C0,
            Relation::Equal => C3,
            Relation::Unordered => C0 | C2 | C3,
        };
        self.sw = (self.sw & !(C0 | C1 | C2 | C3)) | bits;
    }

    /// The condition is set also if an unmasked exception keeps the stack from being popped.
    fn compare(&mut self, memory: Memory, i: u8, source: u128, quiet: bool, pops: u8) {
        let mut e = self.begin();
        let register = memory == Memory::None;
        let (relation, proceed) = if self.is_empty(0) || (register && self.is_empty(i)) {
            (Relation::Unordered, self.underflow())
        } else {
            let b = if register { self.st(i) } else { Self::operand(&mut e, memory, source) };
            (f80::compare(&mut e, self.st(0), b, !quiet), self.finish(&e))
        };
        self.set_condition(relation);
        if proceed {
            for _ in 0..pops {
                self.pop();
            }
        }
    }

    /// EFLAGS are set also if an unmasked exception keeps the stack from being popped.
    fn compare_flags(&mut self, i: u8, quiet: bool, pop: bool) -> Outcome {
        let mut e = self.begin();
        let (relation, proceed) = if self.is_empty(0) || self.is_empty(i) {
            (Relation::Unordered, self.underflow())
        } else {
            (f80::compare(&mut e, self.st(0), self.st(i), !quiet), self.finish(&e))
        };
        if proceed && pop {
            self.pop();
        }
        Outcome { store: None, eflags: Some(relation.zf_pf_cf()) }
    }

    fn test(&mut self) {
        let mut e = self.begin();
        let relation = if self.is_empty(0) {
            self.underflow();
            Relation::Unordered
        } else {
            f80::compare(&mut e, self.st(0), F80::ZERO, true)
        };
        self.finish(&e);
        self.set_condition(relation);
    }

    fn examine(&mut self) {
        let value = self.st(0);
        let class = match value.class() {
            _ if self.is_empty(0) => C3 | C0,
            Class::Unsupported => 0,
            Class::Quiet | Class::Signaling => C0,
            Class::Normal => C2,
            Class::Infinity => C2 | C0,
            Class::Zero => C3,
            Class::Denormal => C3 | C2,
        };
        self.sw = (self.sw & !(C0 | C1 | C2 | C3)) | class | if value.sign() { C1 } else { 0 };
    }

    /// Replaces ST(0) by `first`, then pushes `second`.
    fn replace_and_push(&mut self, first: F80, second: F80) {
        self.set_st(0, first);
        self.push(second);
    }

    fn extract(&mut self) {
        let mut e = self.begin();
        let underflow = self.is_empty(0);
        if underflow || !self.is_empty(7) {
            if if underflow { self.underflow() } else { self.overflow() } {
                self.replace_and_push(F80::INDEFINITE, F80::INDEFINITE);
            }
            return;
        }
        let (significand, exponent) = f80::extract(&mut e, self.st(0));
        if self.finish(&e) {
            self.replace_and_push(exponent, significand);
        }
    }

    /// C0, C3 and C1 get the quotient, C2 tells that the reduction is incomplete.
    fn remainder(&mut self, nearest: bool) {
        let mut e = self.begin();
        self.sw &= !C2;
        if self.is_empty(0) || self.is_empty(1) {
            if self.underflow() {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        let r = f80::rem(&mut e, self.st(0), self.st(1), nearest);
        if !self.finish(&e) {
            return;
        }
        self.set_st(0, r.value);
        let Some(quotient) = r.quotient else { return };
        self.sw &= !(C0 | C1 | C3);
        for (bit, flag) in [(1, C1), (2, C3), (4, C0)] {
            if quotient & bit != 0 {
                self.sw |= flag;
            }
        }
        if r.partial {
            self.sw |= C2;
        }
    }

    fn transcendental(&mut self, function: Transcendental) {
        if let (Some(accelerated), false) = (super::ACCELERATOR.get(), self.pending_exception()) {
            return accelerated(function, self);
        }
        match function {
            Transcendental::Exp2Minus1 => self.unary(f80::exp2_minus_1),
            Transcendental::YLog2X => self.binary_pop(f80::y_log2_x),
            Transcendental::YLog2XPlus1 => self.binary_pop(f80::y_log2_x_plus_1),
            Transcendental::ArcTangent => self.binary_pop(f80::atan2),
            Transcendental::Sine => self.reduced_unary(f80::sin),
            Transcendental::Cosine => self.reduced_unary(f80::cos),
            Transcendental::Tangent => self.reduced_push(f80::tan),
            Transcendental::SineCosine => self.reduced_push(f80::sin_cos),
        }
    }

    /// An operation on ST(1) and ST(0) that replaces both by its result.
    fn binary_pop(&mut self, f: impl FnOnce(&mut Env80, F80, F80) -> F80) {
        let mut e = self.begin();
        let result = if self.is_empty(0) || self.is_empty(1) {
            self.underflow().then_some(F80::INDEFINITE)
        } else {
            let result = f(&mut e, self.st(1), self.st(0));
            self.finish(&e).then_some(result)
        };
        if let Some(result) = result {
            self.set_st(1, result);
            self.pop();
        }
    }

    /// FSIN, FCOS: C2 tells that the operand is out of range.
    fn reduced_unary(&mut self, f: impl FnOnce(&mut Env80, F80) -> Option<F80>) {
        let mut e = self.begin();
        self.sw &= !C2;
        if self.is_empty(0) {
            if self.underflow() {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        match f(&mut e, self.st(0)) {
            Some(result) => {
                if self.finish(&e) {
                    self.set_st(0, result);
                }
            }
            None => self.sw |= C2,
        }
    }

    /// FPTAN, FSINCOS: ST(0) is replaced by the first result, and the second is pushed.
    fn reduced_push(&mut self, f: impl FnOnce(&mut Env80, F80) -> Option<(F80, F80)>) {
        let mut e = self.begin();
        self.sw &= !C2;
        let underflow = self.is_empty(0);
        if underflow || !self.is_empty(7) {
            if if underflow { self.underflow() } else { self.overflow() } {
                self.replace_and_push(F80::INDEFINITE, F80::INDEFINITE);
            }
            return;
        }
        match f(&mut e, self.st(0)) {
            Some((first, second)) => {
                if self.finish(&e) {
                    self.replace_and_push(first, second);
                }
            }
            None => self.sw |= C2,
        }
    }
}
