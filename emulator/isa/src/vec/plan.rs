//! The plan of an instruction: what it computes and where the values come from and go to.

use super::{Fmt, FpOp, StringOp, Vec3Op, VecOp};

/// What an instruction computes from `a`, `b` and the immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`eval2`](super::eval2), or [`eval2_mmx`](super::eval2_mmx) when [`VecInsn::mmx_lanes`] says so.
    Vec(VecOp),
    /// [`eval3`](super::eval3), with XMM0 as the third source.
    Vec3(Vec3Op),
    /// [`eval_fp`](super::eval_fp). An unmasked exception is #XM and nothing is written.
    Fp(FpOp),
    /// COMISS and the like: [`compare`](super::compare) sets ZF, PF and CF, clears OF, SF and AF. `signaling`: a quiet NaN is invalid too.
    Compare {
        /// Format of the operands.
        fmt: Fmt,
        /// COMISS, COMISD; false for UCOMISS, UCOMISD.
        signaling: bool,
    },
    /// PTEST: [`test`](super::test) sets ZF and CF, the others are cleared.
    Test,
    /// [`compare_strings`](super::compare_strings): the lengths come from RAX and RDX, CF, ZF, SF and OF are set, PF and AF cleared.
    Strings(StringOp),
    /// MASKMOVQ, MASKMOVDQU: bytes of `a` go to DS:rDI (DS can be overridden) where bit 7 of the byte of `b` is set.
    MaskedStore,
    /// EMMS: the x87 tag word becomes all ones.
    Emms,
}

/// Where a value comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Nothing; a value of zero.
    None,
    /// A 128-bit register.
    Xmm,
    /// A 64-bit MMX register, zero-extended.
    Mm,
    /// A general register, its low 32 bits. Writing zero-extends.
    Gpr32,
    /// A general register of 64 bits.
    Gpr64,
    /// The immediate byte, zero-extended: the count of a shift.
    Imm8,
    /// Always memory; [`VecInsn::mem`] has the size.
    Mem,
    /// ZF, PF and CF; OF, SF and AF are cleared.
    Flags,
    /// ECX, written without being named (PCMPESTRI, PCMPISTRI).
    Ecx,
    /// XMM0, written without being named (PCMPESTRM, PCMPISTRM).
    Xmm0,
    /// MXCSR. Writing a reserved bit is #GP(0).
    Mxcsr,
}

/// The memory operand of the memory form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mem {
    /// There is no memory form.
    None,
    /// Memory takes the place of `b`, zero-extended.
    Load {
        /// Bytes read.
        bytes: u8,
        /// #GP(0) unless the linear address is a multiple of 16.
        aligned: bool,
    },
    /// Memory takes the place of `dst`; the low bytes of the result are written.
    Store {
        /// Bytes written.
        bytes: u8,
        /// #GP(0) unless the linear address is a multiple of 16.
        aligned: bool,
    },
}

/// What is checked before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// Nothing (MOVNTI).
    None,
    /// CR0.EM #UD, CR0.TS #NM, pending x87 exception #MF.
    Mmx,
    /// CR0.EM or clear CR4.OSFXSR #UD, CR0.TS #NM.
    Sse,
    /// Both: the instruction has an operand of each kind.
    SseMmx,
}

/// Whether the x87 unit goes to the MMX state (TOP = 0, all tags valid).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MmxState {
    /// No.
    Untouched,
    /// Yes.
    Entered,
    /// Only when the operand is a register (CVTPI2PD).
    EnteredByRegister,
}

/// The plan of one vector instruction.
///
/// To execute: check; read [`VecInsn::a`] (operand 0, or operand 1 of a [`Op::MaskedStore`]) and `b` (the operand after it), or for a
/// memory form of [`Mem::Load`] read `b` from memory; evaluate `op` (`mem_op` for memory forms); write the result to `dst`
/// (operand 0), or for a memory form of [`Mem::Store`] to memory. For stores and moves `a` is [`Operand::None`] and `b` is operand 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VecInsn {
    /// What is computed when all operands are registers.
    pub op: Op,
    /// What is computed when one is memory; differs from `op` only for MOVSS, MOVSD and INSERTPS.
    pub mem_op: Op,
    /// Where the result goes.
    pub dst: Operand,
    /// The first source; [`Operand::None`] if the result does not depend on it. See [`VecInsn::a`].
    pub(super) a: Operand,
    /// The second source.
    pub b: Operand,
    /// The memory operand, if the instruction's form has one.
    pub mem: Mem,
    /// Checks before execution.
    pub check: Check,
    /// Effect on the x87 state.
    pub mmx: MmxState,
    /// The lanes are those of 64 bits: evaluate with [`eval2_mmx`](super::eval2_mmx).
    pub mmx_lanes: bool,
    /// The store bypasses the caches: no effect here besides weaker ordering.
    pub non_temporal: bool,
}

impl VecInsn {
    /// The operation of the register or the memory form.
    pub const fn op(&self, memory: bool) -> Op {
        if memory { self.mem_op } else { self.op }
    }

    /// The first source of the register or the memory form; [`Operand::None`] if the result does not depend on it.
    pub const fn a(&self, memory: bool) -> Operand {
        match self.op(memory) {
            Op::Vec(op) if !op.reads_a() => Operand::None,
            _ => self.a,
        }
    }

    /// Whether the immediate byte is used.
    pub const fn reads_imm(&self) -> bool {
        match self.op {
            Op::Vec(op) => op.reads_imm() || matches!(self.b, Operand::Imm8),
            Op::Fp(op) => op.reads_imm(),
            Op::Strings(_) => true,
            Op::Vec3(_) | Op::Compare { .. } | Op::Test | Op::MaskedStore | Op::Emms => false,
        }
    }

    /// Whether execution can raise #XM, and so reads MXCSR and sets its flags.
    pub const fn reads_mxcsr(&self) -> bool {
        match self.op {
            Op::Fp(FpOp::Rcp(_) | FpOp::Rsqrt(_)) => false,
            Op::Fp(_) | Op::Compare { .. } => true,
            Op::Vec(_) | Op::Vec3(_) | Op::Test | Op::Strings(_) | Op::MaskedStore | Op::Emms => false,
        }
    }
}
