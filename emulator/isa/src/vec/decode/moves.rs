//! Moves, the masked stores, EMMS and the MXCSR instructions.

use iced_x86::Code;

use super::{ALIGNED, load, plan, rows, store};
use crate::vec::Operand::{self, Gpr32, Gpr64, Mm, Mxcsr, Xmm};
use crate::vec::Shape::*;
use crate::vec::VecOp::{self, *};
use crate::vec::{Check, Mem, MmxState, Op, VecInsn};

const ALIGNED_STORE: Mem = Mem::Store { bytes: 16, aligned: true };

fn mov(op: VecOp, dst: Operand, src: Operand, mem: Mem) -> VecInsn {
    plan(Op::Vec(op), dst, src, mem)
}

pub(super) fn decode(code: Code) -> Option<VecInsn> {
    whole(code).or_else(|| partial(code)).or_else(|| narrow(code)).or_else(|| special(code))
}

/// Whole registers.
fn whole(code: Code) -> Option<VecInsn> {
    let nt = |mem, src| mov(Copy, Operand::Mem, src, mem).non_temporal();
    rows! { code;
        Movaps_xmm_xmmm128 => mov(Copy, Xmm, Xmm, ALIGNED);
        Movapd_xmm_xmmm128 => mov(Copy, Xmm, Xmm, ALIGNED);
        Movdqa_xmm_xmmm128 => mov(Copy, Xmm, Xmm, ALIGNED);
        Movups_xmm_xmmm128 => mov(Copy, Xmm, Xmm, load(16));
        Movupd_xmm_xmmm128 => mov(Copy, Xmm, Xmm, load(16));
        Movdqu_xmm_xmmm128 => mov(Copy, Xmm, Xmm, load(16));
        Movaps_xmmm128_xmm => mov(Copy, Xmm, Xmm, ALIGNED_STORE);
        Movapd_xmmm128_xmm => mov(Copy, Xmm, Xmm, ALIGNED_STORE);
        Movdqa_xmmm128_xmm => mov(Copy, Xmm, Xmm, ALIGNED_STORE);
        Movups_xmmm128_xmm => mov(Copy, Xmm, Xmm, store(16));
        Movupd_xmmm128_xmm => mov(Copy, Xmm, Xmm, store(16));
        Movdqu_xmmm128_xmm => mov(Copy, Xmm, Xmm, store(16));
        Movntps_m128_xmm => nt(ALIGNED_STORE, Xmm);
        Movntpd_m128_xmm => nt(ALIGNED_STORE, Xmm);
        Movntdq_m128_xmm => nt(ALIGNED_STORE, Xmm);
        Movntq_m64_mm => nt(store(8), Mm);
        Movnti_m32_r32 => nt(store(4), Gpr32);
        Movnti_m64_r64 => nt(store(8), Gpr64);
        Movq_mm_mmm64 => mov(Copy, Mm, Mm, load(8));
        Movq_mmm64_mm => mov(Copy, Mm, Mm, store(8));
        Movq2dq_xmm_mm => mov(Copy, Xmm, Mm, Mem::None);
        Movdq2q_mm_xmm => mov(Copy, Mm, Xmm, Mem::None);
    }
}

/// A half or the lowest lane of an XMM register, the rest kept.
fn partial(code: Code) -> Option<VecInsn> {
    // Between registers the upper part is kept; a load clears it; a store writes the low lane.
    let low = |s: VecOp, mem, mem_op| mov(s, Xmm, Xmm, mem).mem_op(mem_op);
    rows! { code;
        Movss_xmm_xmmm32 => low(MergeLow(F32), load(4), ZextLow(F32));
        Movsd_xmm_xmmm64 => low(MergeLow(F64), load(8), ZextLow(F64));
        Movss_xmmm32_xmm => low(MergeLow(F32), store(4), Copy);
        Movsd_xmmm64_xmm => low(MergeLow(F64), store(8), Copy);
        Movhlps_xmm_xmm => mov(MoveHighToLow, Xmm, Xmm, Mem::None);
        Movlhps_xmm_xmm => mov(UnpackLow(I64), Xmm, Xmm, Mem::None);
        Movlps_xmm_m64 => mov(MergeLow(F64), Xmm, Operand::Mem, load(8));
        Movlpd_xmm_m64 => mov(MergeLow(F64), Xmm, Operand::Mem, load(8));
        Movhps_xmm_m64 => mov(UnpackLow(F64), Xmm, Operand::Mem, load(8));
        Movhpd_xmm_m64 => mov(UnpackLow(F64), Xmm, Operand::Mem, load(8));
        Movlps_m64_xmm => mov(Copy, Operand::Mem, Xmm, store(8));
        Movlpd_m64_xmm => mov(Copy, Operand::Mem, Xmm, store(8));
        Movhps_m64_xmm => mov(High64, Operand::Mem, Xmm, store(8));
        Movhpd_m64_xmm => mov(High64, Operand::Mem, Xmm, store(8));
    }
}

/// MOVD and MOVQ: the rest is cleared.
fn narrow(code: Code) -> Option<VecInsn> {
    rows! { code;
        Movd_mm_rm32 => mov(ZextLow(I32), Mm, Gpr32, load(4));
        Movq_mm_rm64 => mov(Copy, Mm, Gpr64, load(8));
        Movd_xmm_rm32 => mov(ZextLow(I32), Xmm, Gpr32, load(4));
        Movq_xmm_rm64 => mov(ZextLow(I64), Xmm, Gpr64, load(8));
        Movq_xmm_xmmm64 => mov(ZextLow(I64), Xmm, Xmm, load(8));
        Movd_rm32_mm => mov(ZextLow(I32), Gpr32, Mm, store(4));
        Movq_rm64_mm => mov(Copy, Gpr64, Mm, store(8));
        Movd_rm32_xmm => mov(ZextLow(I32), Gpr32, Xmm, store(4));
        Movq_rm64_xmm => mov(ZextLow(I64), Gpr64, Xmm, store(8));
        Movq_xmmm64_xmm => mov(ZextLow(I64), Xmm, Xmm, store(8));
    }
}

fn special(code: Code) -> Option<VecInsn> {
    let masked = |src, bytes| plan(Op::MaskedStore, Operand::Mem, src, store(bytes)).non_temporal();
    let emms = plan(Op::Emms, Operand::None, Operand::None, Mem::None);
    rows! { code;
        Maskmovq_rDI_mm_mm => masked(Mm, 8);
        Maskmovdqu_rDI_xmm_xmm => masked(Xmm, 16);
        Emms => VecInsn { check: Check::Mmx, mmx: MmxState::Untouched, ..emms };
        Ldmxcsr_m32 => mov(Copy, Mxcsr, Operand::Mem, load(4));
        Stmxcsr_m32 => mov(Copy, Operand::Mem, Mxcsr, store(4));
    }
}
