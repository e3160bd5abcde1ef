//! The plan of an instruction: what it computes and where the values come from and go to.

use super::{FmaOp, Fmt, FpOp, Shape, StringOp, Vec3Op, VecOp};

/// What an instruction computes from `a`, `b` and the immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`eval2`](super::eval2), or [`eval2_mmx`](super::eval2_mmx) when [`VecInsn::mmx_lanes`] says so.
    Vec(VecOp),
    /// [`eval3`](super::eval3); the third source is XMM0, or operand 3 of a VEX encoding.
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
    /// [`eval_fma`](super::eval_fma) of operands 0, 1 and 2.
    Fma(FmaOp),
    /// ZF is set if no bit of `a & b` is, CF if none of `!a & b` is, the others are cleared: of all bits (PTEST, `None`), or of
    /// the sign bits of lanes (VTESTPS, VTESTPD).
    Test(Option<Shape>),
    /// What moves 128-bit halves of 256 bits, or lanes between them.
    Halves(HalvesOp),
    /// VZEROUPPER (false): bits 128 and up of all registers are cleared; VZEROALL (true): all bits.
    Zero(bool),
    /// VMASKMOVPS and the like: lanes whose sign bit in the mask is clear are neither read nor written. Operands: destination, mask, source.
    MaskedMove(Shape),
    /// VPGATHERDD and the like. Operands: destination, memory with a vector index, mask.
    Gather {
        /// Lanes of the indices.
        index: Shape,
        /// Lanes of the data.
        data: Shape,
    },
    /// [`compare_strings`](super::compare_strings): the lengths come from RAX and RDX, CF, ZF, SF and OF are set, PF and AF cleared.
    Strings(StringOp),
    /// MASKMOVQ, MASKMOVDQU: bytes of `a` go to DS:rDI (DS can be overridden) where bit 7 of the byte of `b` is set.
    MaskedStore,
    /// EMMS: the x87 tag word becomes all ones.
    Emms,
}

/// Operations of VEX.256 encodings that cross the halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HalvesOp {
    /// `a` with the half named by imm\[0\] replaced by the 128 bits of `b` (VINSERTF128).
    Insert,
    /// The half of `b` named by imm\[0\], of 128 bits (VEXTRACTF128).
    Extract,
    /// Each half is one of the four of `a` and `b`, or zero (VPERM2F128).
    Permute128,
    /// Quadwords of `b` picked by the immediate (VPERMQ).
    Permute64,
    /// Doublewords of `b` picked by those of `a` (VPERMD).
    Permute32,
}

/// What a VEX.256 encoding does to the upper 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wide {
    /// It is VEX.128 or scalar: they are cleared.
    No,
    /// The same as to the lower ones, with the upper halves of the operands; the immediate is shifted right by so much.
    Each(u8),
    /// The same with the upper half of `a` and the whole `b`: shift counts, broadcasts.
    Shared,
    /// The results are twice as wide as the source, which is one of 128 bits: the upper ones come from so many bytes on.
    Widen(u8),
    /// The results are half as wide as the source: the two results are joined in the low 128 bits.
    Narrow,
    /// The results are masks in a general register: that of the upper half goes above that of the lower.
    Masks,
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
    /// Two immediate bytes as a word: a [`BitField`](super::BitField).
    Field,
    /// The low half of a 128-bit register, and two immediate bytes as a word above it.
    XmmField,
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
    /// AVX: real mode, virtual-8086 mode, clear CR4.OSXSAVE or XCR0\[2:1\] not 11b #UD, CR0.TS #NM.
    Avx,
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
/// Of a VEX encoding `a` is operand 1, and `b` the one after it.
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
    /// VEX-encoded: registers in the place of [`Operand::Xmm`] may be YMM registers, and this is what happens to the upper bits.
    pub vex: Option<Wide>,
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

    /// The immediate byte as the operation takes it: of a predicate CMPPS has three bits, VCMPPS five.
    pub const fn immediate(&self, imm: u64) -> u8 {
        match (self.op, self.vex) {
            (Op::Fp(FpOp::Cmp(..)), None) => imm as u8 & 7,
            (Op::Fp(FpOp::Cmp(..)), Some(_)) => imm as u8 & 31,
            _ if self.reads_imm() => imm as u8,
            _ => 0,
        }
    }

    /// Whether the immediate byte is used.
    pub const fn reads_imm(&self) -> bool {
        match self.op {
            Op::Vec(op) => op.reads_imm() || matches!(self.b, Operand::Imm8),
            Op::Fp(op) => op.reads_imm(),
            Op::Strings(_) => true,
            Op::Halves(op) => !matches!(op, HalvesOp::Permute32),
            Op::Vec3(_) | Op::Fma(_) | Op::Compare { .. } | Op::Test(_) | Op::MaskedStore | Op::Emms => false,
            Op::Zero(_) | Op::MaskedMove(_) | Op::Gather { .. } => false,
        }
    }

    /// Whether execution can raise #XM, and so reads MXCSR and sets its flags.
    pub const fn reads_mxcsr(&self) -> bool {
        match self.op {
            Op::Fp(FpOp::Rcp(_) | FpOp::Rsqrt(_)) => false,
            Op::Fp(_) | Op::Fma(_) | Op::Compare { .. } => true,
            Op::Vec(_) | Op::Vec3(_) | Op::Test(_) | Op::Strings(_) | Op::MaskedStore | Op::Emms => false,
            Op::Halves(_) | Op::Zero(_) | Op::MaskedMove(_) | Op::Gather { .. } => false,
        }
    }
}
