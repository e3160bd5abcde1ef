//! The implementor of [`Emit`] that writes ops down.

use super::{Block, Op, Val};
use crate::emit::{Emit, Raise, Unit};
use crate::insn::{Insn, Seg};
use crate::ops::{Bin, Cond, FlagsOp, Rel, Un, Width};
use crate::sem;
use crate::vec::{FmaOp, Fmt, FpOp, Vec3Op, VecOp};
use std::convert::Infallible;

/// Writes down the ops of instructions. Nothing faults while recording.
#[derive(Default)]
pub struct Recorder {
    block: Block,
}

/// Records a straight run of instructions.
#[must_use]
pub fn record(insns: &[Insn]) -> Block {
    let mut recorder = Recorder::default();
    for i in insns {
        recorder.insn(i);
    }
    recorder.finish()
}

impl Recorder {
    /// Appends an instruction.
    pub fn insn(&mut self, i: &Insn) {
        self.begin(i);
        let result = match sem::lookup::<Recorder>(i) {
            Some(semantics) => semantics(self, i),
            None => self.call(i),
        };
        match result {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// Begins an instruction whose ops the caller will give.
    pub fn begin(&mut self, i: &Insn) {
        let number = self.block.insns.len() as u32;
        self.block.insns.push(*i);
        self.push(Op::Insn(number));
    }

    /// Appends an instruction as a call of the CPU's function for it, whatever ops it has.
    pub fn call_insn(&mut self, i: &Insn) {
        let number = self.block.insns.len() as u32;
        self.block.insns.push(*i);
        self.push(Op::Insn(number));
        self.push(Op::Call(number));
    }

    /// The block so far.
    #[must_use]
    pub fn finish(self) -> Block {
        self.block
    }

    fn push(&mut self, op: Op) -> Val {
        self.block.ops.push(op);
        Val(self.block.ops.len() as u32 - 1)
    }

    fn number(&self) -> u32 {
        (self.block.insns.len() as u32).saturating_sub(1)
    }
}

type Done = Result<(), Infallible>;

impl Emit for Recorder {
    type V = Val;
    type X = Val;
    type Fault = Infallible;

    fn imm(&mut self, value: u64) -> Val {
        self.push(Op::Imm(value))
    }

    fn gpr(&mut self, r: u8, w: Width) -> Val {
        self.push(Op::Gpr(r, w))
    }

    fn set_gpr(&mut self, r: u8, w: Width, v: Val) {
        self.push(Op::SetGpr(r, w, v));
    }

    fn selector(&mut self, seg: Seg) -> Val {
        self.push(Op::Selector(seg))
    }

    fn bin(&mut self, op: Bin, w: Width, a: Val, b: Val) -> Val {
        self.push(Op::Bin(op, w, a, b))
    }

    fn un(&mut self, op: Un, w: Width, a: Val) -> Val {
        self.push(Op::Un(op, w, a))
    }

    fn rel(&mut self, op: Rel, w: Width, a: Val, b: Val) -> Val {
        self.push(Op::Rel(op, w, a, b))
    }

    fn sext(&mut self, from: Width, to: Width, a: Val) -> Val {
        self.push(Op::Sext(from, to, a))
    }

    fn trunc(&mut self, w: Width, a: Val) -> Val {
        self.push(Op::Trunc(w, a))
    }

    fn select(&mut self, c: Val, a: Val, b: Val) -> Val {
        self.push(Op::Select(c, a, b))
    }

    fn when<F>(&mut self, c: Val, f: F) -> Done
    where
        F: FnOnce(&mut Self) -> Done,
    {
        self.push(Op::When(c));
        f(self)?;
        self.push(Op::EndWhen);
        Ok(())
    }

    fn raise_if(&mut self, c: Val, what: Raise) -> Done {
        self.push(Op::RaiseIf(c, what));
        Ok(())
    }

    fn div(&mut self, w: Width, signed: bool, hi: Val, lo: Val, d: Val) -> Result<(Val, Val), Infallible> {
        let quotient = self.push(Op::Div { w, signed, hi, lo, d });
        let remainder = self.push(Op::Remainder(quotient));
        Ok((quotient, remainder))
    }

    fn load(&mut self, seg: Seg, offset: Val, w: Width) -> Result<Val, Infallible> {
        Ok(self.push(Op::Load { seg, offset, w }))
    }

    fn store(&mut self, seg: Seg, offset: Val, w: Width, v: Val) -> Done {
        self.push(Op::Store { seg, offset, w, v });
        Ok(())
    }

    fn rmw<F>(&mut self, seg: Seg, offset: Val, w: Width, lock: bool, mut f: F) -> Done
    where
        F: FnMut(&mut Self, Val) -> Val,
    {
        let load = self.push(Op::RmwLoad { seg, offset, w, lock });
        let v = f(self, load);
        self.push(Op::RmwStore { load, v });
        Ok(())
    }

    fn load_x(&mut self, seg: Seg, offset: Val, bytes: u8, aligned: bool) -> Result<Val, Infallible> {
        Ok(self.push(Op::LoadX { seg, offset, bytes, aligned }))
    }

    fn store_x(&mut self, seg: Seg, offset: Val, bytes: u8, aligned: bool, v: Val) -> Done {
        self.push(Op::StoreX { seg, offset, bytes, aligned, v });
        Ok(())
    }

    fn load_y(&mut self, seg: Seg, offset: Val, aligned: bool) -> Result<(Val, Val), Infallible> {
        let low = self.push(Op::LoadY { seg, offset, aligned });
        let high = self.push(Op::Upper(low));
        Ok((low, high))
    }

    fn store_y(&mut self, seg: Seg, offset: Val, aligned: bool, low: Val, high: Val) -> Done {
        self.push(Op::StoreY { seg, offset, aligned, low, high });
        Ok(())
    }

    fn flags(&mut self, op: FlagsOp, w: Width, a: Val, b: Val, r: Val) {
        self.push(Op::Flags { op, w, a, b, r });
    }

    fn flags_word(&mut self) -> Val {
        self.push(Op::FlagsWord)
    }

    fn set_flags_word(&mut self, mask: u32, v: Val) {
        self.push(Op::SetFlagsWord(mask, v));
    }

    fn cond(&mut self, cond: Cond) -> Val {
        self.push(Op::Cond(cond))
    }

    fn next_ip(&mut self, _i: &Insn) -> Val {
        let number = self.number();
        self.push(Op::NextIp(number))
    }

    fn check_ip(&mut self, target: Val) -> Done {
        self.push(Op::CheckIp(target));
        Ok(())
    }

    fn jump(&mut self, target: Val) {
        self.push(Op::Jump(target));
    }

    fn branch(&mut self, c: Option<Val>, _i: &Insn) -> Done {
        let insn = self.number();
        self.push(Op::Branch { c, insn });
        Ok(())
    }

    fn xmm(&mut self, r: u8) -> Val {
        self.push(Op::Xmm(r))
    }

    fn set_xmm(&mut self, r: u8, v: Val) {
        self.push(Op::SetXmm(r, v));
    }

    fn ymm_hi(&mut self, r: u8) -> Val {
        self.push(Op::YmmHi(r))
    }

    fn set_ymm_hi(&mut self, r: u8, v: Val) {
        self.push(Op::SetYmmHi(r, v));
    }

    fn x_of(&mut self, v: Val) -> Val {
        self.push(Op::XOf(v))
    }

    fn v_of(&mut self, w: Width, x: Val) -> Val {
        self.push(Op::VOf(w, x))
    }

    fn vec(&mut self, op: VecOp, a: Val, b: Val, imm: u8) -> Val {
        self.push(Op::Vec { op, a, b, imm })
    }

    fn vec3(&mut self, op: Vec3Op, a: Val, b: Val, c: Val) -> Val {
        self.push(Op::Vec3 { op, a, b, c })
    }

    fn fma(&mut self, op: FmaOp, a: Val, b: Val, c: Val) -> Result<Val, Infallible> {
        Ok(self.push(Op::Fma { op, a, b, c }))
    }

    fn fp(&mut self, op: FpOp, a: Val, b: Val, imm: u8) -> Result<Val, Infallible> {
        Ok(self.push(Op::Fp { op, a, b, imm }))
    }

    fn fp_compare(&mut self, fmt: Fmt, signaling: bool, a: Val, b: Val) -> Result<Val, Infallible> {
        Ok(self.push(Op::FpCompare { fmt, signaling, a, b }))
    }

    fn require(&mut self, unit: Unit) -> Done {
        self.push(Op::Require(unit));
        Ok(())
    }

    fn call(&mut self, _i: &Insn) -> Done {
        let number = self.number();
        self.push(Op::Call(number));
        Ok(())
    }
}
