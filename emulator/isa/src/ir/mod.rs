//! The IR: the ops of [`crate::emit`] written down, one after the other, for a straight run of instructions.
//!
//! A value is the index of the op that made it. `when` bodies are bracketed by [`Op::When`] and [`Op::EndWhen`];
//! values made inside a bracket are used only inside it.

mod disassembly;
mod eval;
mod recorder;
mod text;
mod verify;

pub use eval::eval;
pub use recorder::{Recorder, record};
pub use verify::{Violation, verify};

use crate::emit::{Raise, Unit};
use crate::insn::{Insn, Seg};
use crate::ops::{Bin, Cond, FlagsOp, Rel, Un, Width};
use crate::vec::{FmaOp, Fmt, FpOp, Vec3Op, VecOp};

/// The result of op number `.0`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Val(pub u32);

/// A recorded op. See the method of the same name in [`crate::Emit`].
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Op {
    /// Instruction number `.0` of the block starts here.
    Insn(u32),
    Imm(u64),
    Gpr(u8, Width),
    SetGpr(u8, Width, Val),
    Selector(Seg),
    Bin(Bin, Width, Val, Val),
    Un(Un, Width, Val),
    Rel(Rel, Width, Val, Val),
    Sext(Width, Width, Val),
    Trunc(Width, Val),
    Select(Val, Val, Val),
    /// Up to the matching [`Op::EndWhen`] only when the value is not zero.
    When(Val),
    EndWhen,
    RaiseIf(Val, Raise),
    /// The quotient of `hi:lo / d`; [`Op::Remainder`] of it follows.
    Div {
        w: Width,
        signed: bool,
        hi: Val,
        lo: Val,
        d: Val,
    },
    /// The remainder of a [`Op::Div`].
    Remainder(Val),
    Load {
        seg: Seg,
        offset: Val,
        w: Width,
    },
    Store {
        seg: Seg,
        offset: Val,
        w: Width,
        v: Val,
    },
    /// The old value; faults as a write. [`Op::RmwStore`] of it follows, with no faulting op between.
    RmwLoad {
        seg: Seg,
        offset: Val,
        w: Width,
        lock: bool,
    },
    /// The new value for an [`Op::RmwLoad`].
    RmwStore {
        load: Val,
        v: Val,
    },
    LoadX {
        seg: Seg,
        offset: Val,
        bytes: u8,
        aligned: bool,
    },
    StoreX {
        seg: Seg,
        offset: Val,
        bytes: u8,
        aligned: bool,
        v: Val,
    },
    /// The lower half of 32 bytes; [`Op::Upper`] of it follows.
    LoadY {
        seg: Seg,
        offset: Val,
        aligned: bool,
    },
    /// The upper half of a [`Op::LoadY`].
    Upper(Val),
    StoreY {
        seg: Seg,
        offset: Val,
        aligned: bool,
        low: Val,
        high: Val,
    },
    Flags {
        op: FlagsOp,
        w: Width,
        a: Val,
        b: Val,
        r: Val,
    },
    FlagsWord,
    SetFlagsWord(u32, Val),
    Cond(Cond),
    /// The offset of the instruction after number `.0` from the block's first, plus the block's IP.
    NextIp(u32),
    CheckIp(Val),
    Jump(Val),
    /// The direct near branch of instruction `insn`.
    Branch {
        c: Option<Val>,
        insn: u32,
    },
    Xmm(u8),
    SetXmm(u8, Val),
    YmmHi(u8),
    SetYmmHi(u8, Val),
    XOf(Val),
    VOf(Width, Val),
    Vec {
        op: VecOp,
        a: Val,
        b: Val,
        imm: u8,
    },
    Vec3 {
        op: Vec3Op,
        a: Val,
        b: Val,
        c: Val,
    },
    Fma {
        op: FmaOp,
        a: Val,
        b: Val,
        c: Val,
    },
    Fp {
        op: FpOp,
        a: Val,
        b: Val,
        imm: u8,
    },
    FpCompare {
        fmt: Fmt,
        signaling: bool,
        a: Val,
        b: Val,
    },
    Require(Unit),
    /// The CPU's function for instruction `.0`.
    Call(u32),
}

/// A block of instructions as ops.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The instructions, in order.
    pub insns: Vec<Insn>,
    /// The ops.
    pub ops: Vec<Op>,
}
