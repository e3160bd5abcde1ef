//! The op vocabulary that instruction semantics are written in.
//!
//! Two implementors: the CPU, for which calling a semantics function *is* interpreting the instruction, and
//! [`crate::ir::Recorder`], which writes the ops down. Integer values are 64 bits wide and zero-extended from the
//! width of the op that made them.

use crate::insn::{Insn, Mem, Seg};
use crate::ops::{Bin, Cond, FlagsOp, Rel, Un, Width};
use crate::vec::{FmaOp, Fmt, FpOp, Vec3Op, VecOp};

/// Execution units that can be switched off by control registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Unit {
    /// The x87 FPU.
    X87,
    /// MMX.
    Mmx,
    /// SSE and later, in legacy encodings.
    Sse,
    /// Vector instructions in VEX encodings.
    Avx,
}

/// Exceptions that semantics raise by themselves; all others come out of memory accesses and helpers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Raise {
    /// #DE.
    DivideError,
    /// #UD.
    InvalidOpcode,
    /// #GP(0).
    GeneralProtection,
}

/// What instruction semantics are made of. `?` on a fallible op is the architectural fault: nothing after it happens.
pub trait Emit: Sized {
    /// A 64-bit integer value.
    type V: Copy;
    /// A 128-bit vector value.
    type X: Copy;
    /// What a fault is.
    type Fault;

    /// A constant.
    fn imm(&mut self, value: u64) -> Self::V;
    /// General register `r`, low `w` bits.
    fn gpr(&mut self, r: u8, w: Width) -> Self::V;
    /// Writes general register `r`: 32-bit writes clear the upper half, 8- and 16-bit ones keep the rest.
    fn set_gpr(&mut self, r: u8, w: Width, v: Self::V);
    /// A segment register's selector.
    fn selector(&mut self, seg: Seg) -> Self::V;

    /// A two-operand integer op.
    fn bin(&mut self, op: Bin, w: Width, a: Self::V, b: Self::V) -> Self::V;
    /// A one-operand integer op.
    fn un(&mut self, op: Un, w: Width, a: Self::V) -> Self::V;
    /// 1 when the relation holds, else 0.
    fn rel(&mut self, op: Rel, w: Width, a: Self::V, b: Self::V) -> Self::V;
    /// Sign-extends from `from` to `to`.
    fn sext(&mut self, from: Width, to: Width, a: Self::V) -> Self::V;
    /// Cuts to `w`.
    fn trunc(&mut self, w: Width, a: Self::V) -> Self::V;
    /// `a` when `c` is not zero, else `b`.
    fn select(&mut self, c: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Runs `f` when `c` is not zero. Values made inside are not visible outside; register and flag writes are.
    fn when<F>(&mut self, c: Self::V, f: F) -> Result<(), Self::Fault>
    where
        F: FnOnce(&mut Self) -> Result<(), Self::Fault>;
    /// Raises the exception when `c` is not zero. Nothing has been committed before it.
    fn raise_if(&mut self, c: Self::V, what: Raise) -> Result<(), Self::Fault>;
    /// Unsigned (or signed) division of the double-width `hi:lo` by `d`: (quotient, remainder), #DE on zero or overflow.
    fn div(&mut self, w: Width, signed: bool, hi: Self::V, lo: Self::V, d: Self::V) -> Result<(Self::V, Self::V), Self::Fault>;

    /// Reads memory at `seg:offset`.
    fn load(&mut self, seg: Seg, offset: Self::V, w: Width) -> Result<Self::V, Self::Fault>;
    /// Writes memory at `seg:offset`.
    fn store(&mut self, seg: Seg, offset: Self::V, w: Width, v: Self::V) -> Result<(), Self::Fault>;
    /// Reads, modifies and writes memory; faults as a write before `f` runs. Atomic when `lock`: then `f` may run
    /// several times, each time from the registers and flags as they were. `f` must neither fault nor touch memory.
    fn rmw<F>(&mut self, seg: Seg, offset: Self::V, w: Width, lock: bool, f: F) -> Result<(), Self::Fault>
    where
        F: FnMut(&mut Self, Self::V) -> Self::V;
    /// Reads 4, 8 or 16 bytes as a vector, zero-extended; `aligned` demands alignment to the size (#GP).
    fn load_x(&mut self, seg: Seg, offset: Self::V, bytes: u8, aligned: bool) -> Result<Self::X, Self::Fault>;
    /// Writes the low 4, 8 or 16 bytes of a vector.
    fn store_x(&mut self, seg: Seg, offset: Self::V, bytes: u8, aligned: bool, v: Self::X) -> Result<(), Self::Fault>;

    /// Reads 32 bytes as one access: the lower half, then the upper one.
    fn load_y(&mut self, seg: Seg, offset: Self::V, aligned: bool) -> Result<(Self::X, Self::X), Self::Fault>;
    /// Writes 32 bytes as one access.
    fn store_y(&mut self, seg: Seg, offset: Self::V, aligned: bool, low: Self::X, high: Self::X) -> Result<(), Self::Fault>;

    /// Sets the six arithmetic flags from an operation. See [`FlagsOp`] for what `a` and `b` mean.
    fn flags(&mut self, op: FlagsOp, w: Width, a: Self::V, b: Self::V, r: Self::V);
    /// The six arithmetic flags in their EFLAGS positions.
    fn flags_word(&mut self) -> Self::V;
    /// Replaces the arithmetic flags in `mask` by those of `v`.
    fn set_flags_word(&mut self, mask: u32, v: Self::V);
    /// 1 when the condition holds, else 0.
    fn cond(&mut self, cond: Cond) -> Self::V;

    /// The address of the next instruction, as the instruction pointer holds it.
    fn next_ip(&mut self, i: &Insn) -> Self::V;
    /// #GP(0) when `target` cannot be a near branch's: beyond the code segment's limit, or not canonical.
    fn check_ip(&mut self, target: Self::V) -> Result<(), Self::Fault>;
    /// Goes on at `target`, which [`Emit::check_ip`] has passed. Nothing comes after it.
    fn jump(&mut self, target: Self::V);
    /// The direct near branch of `i` (displacement `i.imm`, width `i.opsize`), taken when `c` is not zero (always for `None`);
    /// checked like [`Emit::check_ip`] when taken. Nothing comes after it.
    fn branch(&mut self, c: Option<Self::V>, i: &Insn) -> Result<(), Self::Fault>;

    /// An XMM register.
    fn xmm(&mut self, r: u8) -> Self::X;
    /// Writes an XMM register (bits above 127 of the YMM register are kept).
    fn set_xmm(&mut self, r: u8, v: Self::X);
    /// The upper half of a YMM register.
    fn ymm_hi(&mut self, r: u8) -> Self::X;
    /// Writes the upper half of a YMM register.
    fn set_ymm_hi(&mut self, r: u8, v: Self::X);
    /// An integer as a vector, zero-extended.
    fn x_of(&mut self, v: Self::V) -> Self::X;
    /// The low `w` bits of a vector.
    fn v_of(&mut self, w: Width, x: Self::X) -> Self::V;
    /// A vector operation: [`crate::vec::eval2`].
    fn vec(&mut self, op: VecOp, a: Self::X, b: Self::X, imm: u8) -> Self::X;
    /// A vector operation of three operands: [`crate::vec::eval3`].
    fn vec3(&mut self, op: Vec3Op, a: Self::X, b: Self::X, c: Self::X) -> Self::X;
    /// A fused multiply-add under MXCSR: [`crate::vec::eval_fma`]. Faults as [`Emit::fp`] does.
    fn fma(&mut self, op: FmaOp, a: Self::X, b: Self::X, c: Self::X) -> Result<Self::X, Self::Fault>;
    /// A floating-point operation under MXCSR: [`crate::vec::eval_fp`]. #XM (or #UD) for an unmasked exception.
    fn fp(&mut self, op: FpOp, a: Self::X, b: Self::X, imm: u8) -> Result<Self::X, Self::Fault>;
    /// Compares the lowest lanes under MXCSR: ZF, PF and CF as COMISD sets them, as a flags word.
    fn fp_compare(&mut self, fmt: Fmt, signaling: bool, a: Self::X, b: Self::X) -> Result<Self::V, Self::Fault>;
    /// Raises #UD or #NM when the unit is switched off.
    fn require(&mut self, unit: Unit) -> Result<(), Self::Fault>;

    /// Runs the CPU's function for `i`'s mnemonic: for what is too rare or too stateful for ops.
    fn call(&mut self, i: &Insn) -> Result<(), Self::Fault>;

    /// The offset of a memory operand.
    #[inline(always)]
    fn offset(&mut self, i: &Insn, m: &Mem) -> Self::V {
        let w = m.width;
        let mut at = if m.base == Mem::RIP {
            let ip = self.next_ip(i);
            let disp = self.imm(m.disp);
            return self.bin(Bin::Add, w, ip, disp);
        } else if m.base == Mem::NONE {
            self.imm(m.disp & w.mask())
        } else {
            let base = self.gpr(m.base, w);
            if m.disp == 0 {
                base
            } else {
                let disp = self.imm(m.disp & w.mask());
                self.bin(Bin::Add, w, base, disp)
            }
        };
        if m.index != Mem::NONE {
            let mut index = self.gpr(m.index, w);
            if m.scale != 0 {
                let n = self.imm(m.scale.into());
                index = self.bin(Bin::Shl, w, index, n);
            }
            at = self.bin(Bin::Add, w, at, index);
        }
        at
    }
}
