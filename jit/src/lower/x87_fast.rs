//! x87 instructions that compiled code does itself, under the conditions that [`super::x87`] has checked: moves as integers,
//! arithmetic through a [leaf](crate::leaf).

use super::mem::Access;
use super::x87::Stack;
use super::{Fl, Lower, Lv, from_state, ty};
use crate::leaf::{ALL_EXCEPTIONS, Fpu, Source, What};
use crate::vm::Vm;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I16, I32, I64, I64X2};
use cranelift_codegen::ir::{Block as ClifBlock, InstBuilder, Value};
use egret_cpu::functions::stack_operand;
use egret_cpu::{SegReg, State};
use egret_isa::fp::f80::F80;
use egret_isa::insn::{Ctx, Insn, Mode, Seg};
use egret_isa::ir::Val;
use egret_isa::ops::{FlagsOp, Width};
use egret_isa::x87::{self, Arith, Constant, Dest, Memory, X87, X87Op};
use std::mem::offset_of;

/// C1 of the status word.
const C1: u16 = 1 << 9;
/// C0 to C3.
const CONDITIONS: u16 = 0x4700;

/// The second operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Register(u8),
    Memory(Memory),
}

/// What to do; stack registers by number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fast {
    LoadReal(Memory),
    LoadInt(Memory),
    Load(u8),
    LoadConstant(F80),
    Store { to: u8, pop: bool },
    StoreReal { memory: Memory, pop: bool },
    StoreInt { what: What, memory: Memory, pop: bool },
    Exchange(u8),
    Negate,
    Absolute,
    Arith { op: Arith, to: u8, from: From, pop: bool },
    Unary(What),
    Compare { quiet: bool, from: From, pops: u8 },
    CompareFlags { quiet: bool, with: u8, pop: bool },
    Test,
    StatusToAx,
    StoreStatus,
    StoreControl,
    LoadControl,
}

/// What an instruction is, if it is done here.
pub(super) fn fast(i: &Insn) -> Option<Fast> {
    let p = x87::decode(i.code)?;
    let (memory, n) = (p.memory, stack_operand(i));
    let from = if memory == Memory::None { From::Register(n) } else { From::Memory(memory) };
    Some(match p.op {
        X87Op::Load => match memory {
            Memory::None => Fast::Load(n),
            Memory::M32Real | Memory::M64Real | Memory::M80Real => Fast::LoadReal(memory),
            Memory::M16Int | Memory::M32Int | Memory::M64Int => Fast::LoadInt(memory),
            _ => return None,
        },
        X87Op::LoadConstant(Constant::One) => Fast::LoadConstant(F80::ONE),
        X87Op::LoadConstant(Constant::Zero) => Fast::LoadConstant(F80::ZERO),
        X87Op::Store { pop } => match memory {
            Memory::None => Fast::Store { to: n, pop },
            Memory::M80Bcd => return None,
            // It is written in two parts, and the second one's offset wraps: within limits that takes the CPU's function.
            Memory::M80Real if i.ctx.mode() != Mode::M64 && !i.ctx.has(Ctx::FLAT) => return None,
            _ => Fast::StoreReal { memory, pop },
        },
        X87Op::StoreInt { pop, truncate } => {
            let bytes = memory.bytes() as u8;
            Fast::StoreInt { what: if truncate { What::Truncate(bytes) } else { What::StoreInt(bytes) }, memory, pop }
        }
        X87Op::Exchange => Fast::Exchange(n),
        X87Op::Negate => Fast::Negate,
        X87Op::Absolute => Fast::Absolute,
        X87Op::Arith(op, Dest::St0) => Fast::Arith { op, to: 0, from, pop: false },
        X87Op::Arith(op, Dest::Sti { pop }) => Fast::Arith { op, to: n, from: From::Register(0), pop },
        X87Op::SquareRoot => Fast::Unary(What::SquareRoot),
        X87Op::RoundToInteger => Fast::Unary(What::Round),
        X87Op::Compare { quiet, pops: 2 } => Fast::Compare { quiet, from: From::Register(1), pops: 2 },
        X87Op::Compare { quiet, pops } => Fast::Compare { quiet, from, pops },
        X87Op::CompareFlags { quiet, pop } => Fast::CompareFlags { quiet, with: n, pop },
        X87Op::Test => Fast::Test,
        X87Op::StoreStatus { .. } if memory == Memory::Ax => Fast::StatusToAx,
        X87Op::StoreStatus { .. } => Fast::StoreStatus,
        X87Op::StoreControl { .. } => Fast::StoreControl,
        X87Op::LoadControl => Fast::LoadControl,
        _ => return None,
    })
}

impl Fast {
    /// Moves the stack; false if that makes a stack fault.
    pub(super) fn moves(self, s: &mut Stack) -> bool {
        let register = |from| if let From::Register(n) = from { Some(n) } else { None };
        match self {
            Fast::LoadReal(_) | Fast::LoadInt(_) | Fast::LoadConstant(_) => s.push(),
            Fast::Load(n) => s.want(n) && s.push(),
            Fast::Store { to, pop } => s.want(0) && s.write(to) && (!pop || s.pop()),
            Fast::StoreReal { pop, .. } | Fast::StoreInt { pop, .. } => s.want(0) && (!pop || s.pop()),
            Fast::Exchange(n) => s.want(0) && s.want(n),
            Fast::Negate | Fast::Absolute | Fast::Unary(_) | Fast::Test => s.want(0),
            Fast::Arith { to, from, pop, .. } => s.want(to) && register(from).is_none_or(|n| s.want(n)) && (!pop || s.pop()),
            Fast::Compare { from, pops, .. } => s.want(0) && register(from).is_none_or(|n| s.want(n)) && (0..pops).all(|_| s.pop()),
            Fast::CompareFlags { with, pop, .. } => s.want(0) && s.want(with) && (!pop || s.pop()),
            Fast::StatusToAx | Fast::StoreStatus | Fast::StoreControl | Fast::LoadControl => true,
        }
    }

    /// Whether the arithmetic flags come from it.
    pub(super) fn sets_flags(self) -> bool {
        matches!(self, Fast::CompareFlags { .. })
    }
}

impl Fl {
    /// Flags known as a word.
    pub(super) fn word(word: Value) -> Fl {
        let kind = (FlagsOp::Word, Width::Q);
        Fl::Live { kind, a: Lv::Const(0), b: Lv::Const(0), r: Lv::Int(word, Width::Q), synced: false }
    }
}

const FRAC: i32 = offset_of!(F80, frac) as i32;
const SIGN_EXP: i32 = offset_of!(F80, sign_exp) as i32;

impl Lower<'_, '_> {
    /// Does an instruction; goes to `slow`, with nothing done, if it turns out to be none of the everyday kind. The flags it makes
    /// come back as a word.
    pub(super) fn fast(&mut self, f: Fast, i: &Insn, at: Option<Lv>, next: Stack, slow: ClifBlock) -> Option<Value> {
        match f {
            Fast::LoadReal(memory) => self.load_real(i, at, memory, next, slow),
            Fast::LoadInt(memory) => {
                let v = self.load_operand(i, at, memory);
                let (frac, sign_exp) = self.of_int(v);
                self.push_value(frac, sign_exp, next);
            }
            Fast::Load(n) => {
                let (frac, sign_exp) = self.load_st(n);
                self.push_value(frac, sign_exp, next);
            }
            Fast::LoadConstant(v) => {
                let (frac, sign_exp) = (self.iconst(v.frac), self.b.ins().iconst(I32, i64::from(v.sign_exp)));
                self.push_value(frac, sign_exp, next);
            }
            Fast::Store { to, .. } => {
                let (frac, sign_exp) = self.load_st(0);
                self.store_st(to, frac, sign_exp);
                self.commit(C1, None, next);
            }
            Fast::StoreReal { memory: Memory::M80Real, .. } => {
                let host = self.operand(i, at, 10, Access::Write(None));
                let (frac, sign_exp) = self.load_st(0);
                self.b.ins().store(self.places.ram, frac, host, 0);
                self.b.ins().istore16(self.places.ram, sign_exp, host, 8);
                self.commit(C1, None, next);
            }
            Fast::StoreReal { memory, .. } => self.store_by(What::Store(memory.bytes() as u8), i, at, memory, next),
            Fast::StoreInt { what, memory, .. } => self.store_by(what, i, at, memory, next),
            Fast::Exchange(n) => {
                let ((f0, s0), (fi, si)) = (self.load_st(0), self.load_st(n));
                self.store_st(0, fi, si);
                self.store_st(n, f0, s0);
                self.commit(C1, None, next);
            }
            Fast::Negate | Fast::Absolute => {
                let st = self.st(0);
                let v = self.b.ins().uload16(I32, self.places.vm, st, SIGN_EXP);
                let v = if f == Fast::Negate { self.b.ins().bxor_imm_u(v, 0x8000) } else { self.b.ins().band_imm_u(v, 0x7fff) };
                self.b.ins().istore16(self.places.vm, v, st, SIGN_EXP);
                self.commit(C1, None, next);
            }
            Fast::StatusToAx | Fast::StoreStatus | Fast::StoreControl | Fast::LoadControl => self.control_word(f, i, at),
            _ => return self.compute(f, i, at, next),
        }
        None
    }

    /// Arithmetic and comparisons.
    fn compute(&mut self, f: Fast, i: &Insn, at: Option<Lv>, next: Stack) -> Option<Value> {
        match f {
            Fast::Arith { op, to, from, .. } => {
                let (b, source) = self.second(i, at, from);
                let a = self.st(to);
                let status = self.leaf(What::Arith(op, source), a, b, a);
                self.commit_status(C1, C1 | ALL_EXCEPTIONS, status, next);
            }
            Fast::Unary(what) => {
                let a = self.st(0);
                let status = self.leaf(what, a, a, a);
                self.commit_status(C1, C1 | ALL_EXCEPTIONS, status, next);
            }
            Fast::Test => {
                let a = self.st(0);
                let status = self.leaf(What::Test, a, a, a);
                self.commit_status(CONDITIONS, CONDITIONS | ALL_EXCEPTIONS, status, next);
            }
            Fast::Compare { quiet, from, .. } => {
                let (b, source) = self.second(i, at, from);
                let a = self.st(0);
                let status = self.leaf(if quiet { What::CompareQuiet } else { What::Compare(source) }, a, b, a);
                self.commit_status(CONDITIONS, CONDITIONS | ALL_EXCEPTIONS, status, next);
            }
            Fast::CompareFlags { quiet, with, .. } => {
                let (a, b) = (self.st(0), self.st(with));
                let status = self.leaf(if quiet { What::CompareQuiet } else { What::Compare(Source::Register) }, a, b, a);
                self.commit_status(C1, ALL_EXCEPTIONS, status, next);
                // C0, C2 and C3 are where CF, PF and ZF are, eight bits further up.
                let word = self.b.ins().ushr_imm_u(status, 8);
                return Some(self.b.ins().band_imm_u(word, 0x45));
            }
            _ => {}
        }
        None
    }

    fn control_word(&mut self, f: Fast, i: &Insn, at: Option<Lv>) {
        let fpu = self.b.use_var(self.x87.at);
        let cw_at = offset_of!(X87, cw) as i32;
        match f {
            Fast::StatusToAx => {
                let sw = self.b.use_var(self.x87.sw);
                let sw = self.b.ins().uextend(I64, sw);
                let old = self.gpr_value(0);
                let keep = self.b.ins().band_imm_s(old, !0xffff);
                let new = self.b.ins().bor(keep, sw);
                self.b.def_var(self.gpr[0], new);
            }
            Fast::LoadControl => {
                let host = self.operand(i, at, 2, Access::Read);
                let v = self.b.ins().uload16(I32, self.places.ram, host, 0);
                let cw = self.b.ins().band_imm_u(v, 0x1f3f);
                let cw = self.b.ins().bor_imm_u(cw, 0x40);
                self.b.ins().istore16(self.places.vm, cw, fpu, cw_at);
                let masks = self.b.ins().band_imm_u(v, 0x3f);
                let ok = self.b.ins().icmp_imm_u(IntCC::Equal, masks, 0x3f);
                self.b.def_var(self.x87.ok, ok);
            }
            _ => {
                let v = if f == Fast::StoreStatus {
                    self.b.use_var(self.x87.sw)
                } else {
                    self.b.ins().uload16(I32, self.places.vm, fpu, cw_at)
                };
                let wide = self.b.ins().uextend(I64, v);
                let host = self.operand(i, at, 2, Access::Write(Some(wide)));
                self.b.ins().istore16(self.places.ram, v, host, 0);
            }
        }
    }

    /// The host address of bytes of the memory operand.
    fn operand(&mut self, i: &Insn, at: Option<Lv>, bytes: u8, access: Access) -> Value {
        let val = Val(self.vals.len() as u32);
        self.push(at.unwrap_or(Lv::None));
        let host = self.host(i.mem.seg, val, bytes, access, false);
        self.vals.pop();
        self.limits.pop();
        host
    }

    /// A number in memory as a word: integers sign-extended, others as their bits.
    fn load_operand(&mut self, i: &Insn, at: Option<Lv>, memory: Memory) -> Value {
        let host = self.operand(i, at, memory.bytes() as u8, Access::Read);
        let flags = self.places.ram;
        match memory {
            Memory::M16Int => self.b.ins().sload16(I64, flags, host, 0),
            Memory::M32Int => self.b.ins().sload32(flags, host, 0),
            Memory::M32Real => self.b.ins().uload32(flags, host, 0),
            _ => self.b.ins().load(I64, flags, host, 0),
        }
    }

    /// The second operand as a leaf takes it.
    fn second(&mut self, i: &Insn, at: Option<Lv>, from: From) -> (Value, Source) {
        match from {
            From::Register(n) => (self.st(n), Source::Register),
            From::Memory(memory) => {
                let source = match memory {
                    Memory::M32Real => Source::Single,
                    Memory::M64Real => Source::Double,
                    _ => Source::Int,
                };
                (self.load_operand(i, at, memory), source)
            }
        }
    }

    fn load_st(&mut self, n: u8) -> (Value, Value) {
        let st = self.st(n);
        let frac = self.b.ins().load(I64, self.places.vm, st, FRAC);
        (frac, self.b.ins().uload16(I32, self.places.vm, st, SIGN_EXP))
    }

    /// At once, so that the host can forward it to a load of ten bytes.
    fn store_st(&mut self, n: u8, frac: Value, sign_exp: Value) {
        let st = self.st(n);
        let high = self.b.ins().uextend(I64, sign_exp);
        let both = self.b.ins().scalar_to_vector(I64X2, frac);
        let both = self.b.ins().insertlane(both, high, 1);
        self.b.ins().store(self.places.vm, both, st, 0);
    }

    fn push_value(&mut self, frac: Value, sign_exp: Value, next: Stack) {
        self.store_st(7, frac, sign_exp);
        self.commit(C1, None, next);
    }

    /// FLD of a number in memory. What is neither normal nor zero goes the other way.
    fn load_real(&mut self, i: &Insn, at: Option<Lv>, memory: Memory, next: Stack, slow: ClifBlock) {
        if memory == Memory::M80Real {
            let host = self.operand(i, at, 8, Access::Read);
            let frac = self.b.ins().load(I64, self.places.ram, host, 0);
            let at = at.map(|at| self.beyond(at, 8));
            let host = self.operand(i, at, 2, Access::Read);
            let sign_exp = self.b.ins().uload16(I32, self.places.ram, host, 0);
            return self.push_value(frac, sign_exp, next);
        }
        let v = self.load_operand(i, at, memory);
        // Bits of the significand, the largest exponent, what the exponent grows by, and where the sign is from bit 15 on.
        let (bits, most, more, sign) = if memory == Memory::M32Real { (23, 0xff, 16383 - 127, 16) } else { (52, 0x7ff, 16383 - 1023, 48) };
        let exp = self.b.ins().ushr_imm_u(v, bits);
        let exp = self.b.ins().band_imm_u(exp, most);
        let from_least = self.b.ins().iadd_imm_s(exp, -1);
        let normal = self.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, from_least, most - 1);
        let magnitude = self.b.ins().ishl_imm_u(v, 48 - sign + 1);
        let zero = self.b.ins().icmp_imm_u(IntCC::Equal, magnitude, 0);
        let everyday = self.b.ins().bor(normal, zero);
        let on = self.b.create_block();
        self.b.ins().brif(everyday, on, &[], slow, &[]);
        self.b.seal_block(on);
        self.b.switch_to_block(on);
        let frac = self.b.ins().ishl_imm_u(v, 63 - bits);
        let one = self.iconst(1 << 63);
        let frac = self.b.ins().bor(frac, one);
        let exp = self.b.ins().iadd_imm_s(exp, more);
        let nothing = self.iconst(0);
        let frac = self.b.ins().select(zero, nothing, frac);
        let exp = self.b.ins().select(zero, nothing, exp);
        let sign = self.b.ins().ushr_imm_u(v, sign);
        let sign = self.b.ins().band_imm_u(sign, 0x8000);
        let sign_exp = self.b.ins().bor(sign, exp);
        let sign_exp = self.b.ins().ireduce(I32, sign_exp);
        self.push_value(frac, sign_exp, next);
    }

    /// An offset in the segment and some bytes more.
    fn beyond(&mut self, at: Lv, bytes: u64) -> Lv {
        match at {
            Lv::Rip(at) => Lv::Rip(at.wrapping_add(bytes as i64)),
            Lv::Const(c) => Lv::Const(c.wrapping_add(bytes) & if self.code64() { u64::MAX } else { 0xffff_ffff }),
            Lv::Int(v, w) => {
                let sum = Lv::Int(self.b.ins().iadd_imm_s(v, bytes as i64), w);
                self.note_sum(sum, at, bytes);
                sum
            }
            other => other,
        }
    }

    /// Significand, sign and exponent of an integer.
    fn of_int(&mut self, v: Value) -> (Value, Value) {
        let sign = self.b.ins().sshr_imm_u(v, 63);
        let flipped = self.b.ins().bxor(v, sign);
        let magnitude = self.b.ins().isub(flipped, sign);
        let zeros = self.b.ins().clz(magnitude);
        let frac = self.b.ins().ishl(magnitude, zeros);
        let most = self.iconst(16383 + 63);
        let exp = self.b.ins().isub(most, zeros);
        let nothing = self.iconst(0);
        let exp = self.b.ins().select(v, exp, nothing);
        let sign = self.b.ins().band_imm_u(sign, 0x8000);
        let sign_exp = self.b.ins().bor(exp, sign);
        (frac, self.b.ins().ireduce(I32, sign_exp))
    }

    /// A store that rounds.
    fn store_by(&mut self, what: What, i: &Insn, at: Option<Lv>, memory: Memory, next: Stack) {
        let a = self.st(0);
        let out = self.b.ins().iadd_imm_s(self.state, i64::from(from_state(offset_of!(State, result))));
        let status = self.leaf(what, a, a, out);
        let bytes = memory.bytes() as u8;
        let w = Width::from_bytes(bytes).unwrap_or(Width::Q);
        let v = self.load_state(ty(w), offset_of!(State, result));
        let wide = self.resize(v, w, Width::Q);
        let host = self.operand(i, at, bytes, Access::Write(Some(wide)));
        self.b.ins().store(self.places.ram, v, host, 0);
        self.commit_status(C1, C1 | ALL_EXCEPTIONS, status, next);
    }

    /// Calls a leaf; its status.
    fn leaf(&mut self, what: What, a: Value, b: Value, out: Value) -> Value {
        let vm = self.load_state(I64, offset_of!(State, engine));
        let target = offset_of!(Vm, leaves) + 8 * what.index();
        let target = self.b.ins().load(I64, self.places.vm, vm, target as i32);
        let fpu = self.b.ins().iadd_imm_s(vm, offset_of!(Vm, fpu) as i64);
        let call = self.b.ins().call_indirect(self.leaf, target, &[fpu, a, b, out]);
        self.b.inst_results(call)[0]
    }

    fn commit_status(&mut self, clear: u16, take: u16, status: Value, next: Stack) {
        let status = self.b.ins().ireduce(I32, status);
        let set = self.b.ins().band_imm_u(status, i64::from(take));
        self.commit(clear, Some(set), next);
    }

    /// Notes where the instruction and its operand are, if the next one does not do it anyway.
    pub(super) fn record(&mut self, n: u32, i: &Insn, address: Option<Lv>) {
        if !x87::decode(i.code).is_some_and(|p| p.records()) {
            return;
        }
        let fpu = self.b.use_var(self.x87.at);
        let vm = self.load_state(I64, offset_of!(State, engine));
        let mask = offset_of!(Vm, fpu) + offset_of!(Fpu, selectors);
        let mask = self.b.ins().load(I16, self.places.vm, vm, mask as i32);
        let selector = |l: &mut Self, seg: Seg, to: usize| {
            let at = offset_of!(State, seg) + seg as usize * size_of::<SegReg>() + offset_of!(SegReg, selector);
            let v = l.load_state(I16, at);
            let v = l.b.ins().band(v, mask);
            l.b.ins().store(l.places.vm, v, fpu, to as i32);
        };
        if !self.recorded_next(n) {
            selector(self, Seg::Cs, offset_of!(X87, fcs));
            let next = self.rip_value(self.next_offset());
            let ip = self.b.ins().iadd_imm_s(next, -i64::from(i.len));
            self.b.ins().store(self.places.vm, ip, fpu, offset_of!(X87, fip) as i32);
        }
        if let Some(at) = address {
            selector(self, i.mem.seg, offset_of!(X87, fds));
            let at = self.typed(at, Width::Q);
            self.b.ins().store(self.places.vm, at, fpu, offset_of!(X87, fdp) as i32);
        }
    }
}
