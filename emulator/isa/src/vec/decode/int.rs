//! Integer and bitwise instructions.

use iced_x86::Code;

use super::{load, mm, pairs, plan, rows, xx};
use crate::vec::Shape::*;
use crate::vec::VecOp::{self, *};
use crate::vec::{Mem, Op, Operand, VecInsn};

pub(super) fn decode(code: Code) -> Option<VecInsn> {
    mmx_and_sse(code).or_else(|| sse(code)).or_else(|| shift_imm(code)).or_else(|| lane_access(code))
}

fn mmx_and_sse(code: Code) -> Option<VecInsn> {
    pairs! { code;
        Paddb_mm_mmm64, Paddb_xmm_xmmm128 => Add(I8);
        Paddw_mm_mmm64, Paddw_xmm_xmmm128 => Add(I16);
        Paddd_mm_mmm64, Paddd_xmm_xmmm128 => Add(I32);
        Paddq_mm_mmm64, Paddq_xmm_xmmm128 => Add(I64);
        Psubb_mm_mmm64, Psubb_xmm_xmmm128 => Sub(I8);
        Psubw_mm_mmm64, Psubw_xmm_xmmm128 => Sub(I16);
        Psubd_mm_mmm64, Psubd_xmm_xmmm128 => Sub(I32);
        Psubq_mm_mmm64, Psubq_xmm_xmmm128 => Sub(I64);
        Paddsb_mm_mmm64, Paddsb_xmm_xmmm128 => AddSatS(I8);
        Paddsw_mm_mmm64, Paddsw_xmm_xmmm128 => AddSatS(I16);
        Paddusb_mm_mmm64, Paddusb_xmm_xmmm128 => AddSatU(I8);
        Paddusw_mm_mmm64, Paddusw_xmm_xmmm128 => AddSatU(I16);
        Psubsb_mm_mmm64, Psubsb_xmm_xmmm128 => SubSatS(I8);
        Psubsw_mm_mmm64, Psubsw_xmm_xmmm128 => SubSatS(I16);
        Psubusb_mm_mmm64, Psubusb_xmm_xmmm128 => SubSatU(I8);
        Psubusw_mm_mmm64, Psubusw_xmm_xmmm128 => SubSatU(I16);
        Pmullw_mm_mmm64, Pmullw_xmm_xmmm128 => MulLow(I16);
        Pmulhw_mm_mmm64, Pmulhw_xmm_xmmm128 => MulHighS16;
        Pmulhuw_mm_mmm64, Pmulhuw_xmm_xmmm128 => MulHighU16;
        Pmuludq_mm_mmm64, Pmuludq_xmm_xmmm128 => MulWideU32;
        Pmaddwd_mm_mmm64, Pmaddwd_xmm_xmmm128 => MulAdd16;
        Psadbw_mm_mmm64, Psadbw_xmm_xmmm128 => SumAbsDiff;
        Pavgb_mm_mmm64, Pavgb_xmm_xmmm128 => AvgU(I8);
        Pavgw_mm_mmm64, Pavgw_xmm_xmmm128 => AvgU(I16);
        Pminub_mm_mmm64, Pminub_xmm_xmmm128 => MinU(I8);
        Pminsw_mm_mmm64, Pminsw_xmm_xmmm128 => MinS(I16);
        Pmaxub_mm_mmm64, Pmaxub_xmm_xmmm128 => MaxU(I8);
        Pmaxsw_mm_mmm64, Pmaxsw_xmm_xmmm128 => MaxS(I16);
        Pcmpeqb_mm_mmm64, Pcmpeqb_xmm_xmmm128 => CmpEq(I8);
        Pcmpeqw_mm_mmm64, Pcmpeqw_xmm_xmmm128 => CmpEq(I16);
        Pcmpeqd_mm_mmm64, Pcmpeqd_xmm_xmmm128 => CmpEq(I32);
        Pcmpgtb_mm_mmm64, Pcmpgtb_xmm_xmmm128 => CmpGt(I8);
        Pcmpgtw_mm_mmm64, Pcmpgtw_xmm_xmmm128 => CmpGt(I16);
        Pcmpgtd_mm_mmm64, Pcmpgtd_xmm_xmmm128 => CmpGt(I32);
        Pand_mm_mmm64, Pand_xmm_xmmm128 => And;
        Pandn_mm_mmm64, Pandn_xmm_xmmm128 => AndNot;
        Por_mm_mmm64, Por_xmm_xmmm128 => Or;
        Pxor_mm_mmm64, Pxor_xmm_xmmm128 => Xor;
        Psllw_mm_mmm64, Psllw_xmm_xmmm128 => ShiftLeft(I16);
        Pslld_mm_mmm64, Pslld_xmm_xmmm128 => ShiftLeft(I32);
        Psllq_mm_mmm64, Psllq_xmm_xmmm128 => ShiftLeft(I64);
        Psrlw_mm_mmm64, Psrlw_xmm_xmmm128 => ShiftRight(I16);
        Psrld_mm_mmm64, Psrld_xmm_xmmm128 => ShiftRight(I32);
        Psrlq_mm_mmm64, Psrlq_xmm_xmmm128 => ShiftRight(I64);
        Psraw_mm_mmm64, Psraw_xmm_xmmm128 => ShiftRightArith(I16);
        Psrad_mm_mmm64, Psrad_xmm_xmmm128 => ShiftRightArith(I32);
        Punpckhbw_mm_mmm64, Punpckhbw_xmm_xmmm128 => UnpackHigh(I8);
        Punpckhwd_mm_mmm64, Punpckhwd_xmm_xmmm128 => UnpackHigh(I16);
        Punpckhdq_mm_mmm64, Punpckhdq_xmm_xmmm128 => UnpackHigh(I32);
        Packsswb_mm_mmm64, Packsswb_xmm_xmmm128 => PackS(I16);
        Packssdw_mm_mmm64, Packssdw_xmm_xmmm128 => PackS(I32);
        Packuswb_mm_mmm64, Packuswb_xmm_xmmm128 => PackU(I16);
    }
}

fn sse(code: Code) -> Option<VecInsn> {
    rows! { code;
        Andps_xmm_xmmm128 => xx(And);
        Andpd_xmm_xmmm128 => xx(And);
        Andnps_xmm_xmmm128 => xx(AndNot);
        Andnpd_xmm_xmmm128 => xx(AndNot);
        Orps_xmm_xmmm128 => xx(Or);
        Orpd_xmm_xmmm128 => xx(Or);
        Xorps_xmm_xmmm128 => xx(Xor);
        Xorpd_xmm_xmmm128 => xx(Xor);
        Unpcklps_xmm_xmmm128 => xx(UnpackLow(F32));
        Unpcklpd_xmm_xmmm128 => xx(UnpackLow(F64));
        Unpckhps_xmm_xmmm128 => xx(UnpackHigh(F32));
        Unpckhpd_xmm_xmmm128 => xx(UnpackHigh(F64));
        Shufps_xmm_xmmm128_imm8 => xx(ShufflePs);
        Shufpd_xmm_xmmm128_imm8 => xx(ShufflePd);
        // The MMX forms read 32 bits of memory.
        Punpcklbw_mm_mmm32 => plan(Op::Vec(UnpackLow(I8)), Operand::Mm, Operand::Mm, load(4));
        Punpcklwd_mm_mmm32 => plan(Op::Vec(UnpackLow(I16)), Operand::Mm, Operand::Mm, load(4));
        Punpckldq_mm_mmm32 => plan(Op::Vec(UnpackLow(I32)), Operand::Mm, Operand::Mm, load(4));
        Punpcklbw_xmm_xmmm128 => xx(UnpackLow(I8));
        Punpcklwd_xmm_xmmm128 => xx(UnpackLow(I16));
        Punpckldq_xmm_xmmm128 => xx(UnpackLow(I32));
        Punpcklqdq_xmm_xmmm128 => xx(UnpackLow(I64));
        Punpckhqdq_xmm_xmmm128 => xx(UnpackHigh(I64));
        // PSHUFW is PSHUFLW on 64 bits.
        Pshufw_mm_mmm64_imm8 => mm(ShuffleLow16);
        Pshuflw_xmm_xmmm128_imm8 => xx(ShuffleLow16);
        Pshufhw_xmm_xmmm128_imm8 => xx(ShuffleHigh16);
        Pshufd_xmm_xmmm128_imm8 => xx(Shuffle32);
    }
}

fn shift_imm(code: Code) -> Option<VecInsn> {
    let m = |op: VecOp| plan(Op::Vec(op), Operand::Mm, Operand::Imm8, Mem::None);
    let x = |op: VecOp| plan(Op::Vec(op), Operand::Xmm, Operand::Imm8, Mem::None);
    rows! { code;
        Psllw_mm_imm8 => m(ShiftLeft(I16));
        Psllw_xmm_imm8 => x(ShiftLeft(I16));
        Pslld_mm_imm8 => m(ShiftLeft(I32));
        Pslld_xmm_imm8 => x(ShiftLeft(I32));
        Psllq_mm_imm8 => m(ShiftLeft(I64));
        Psllq_xmm_imm8 => x(ShiftLeft(I64));
        Psrlw_mm_imm8 => m(ShiftRight(I16));
        Psrlw_xmm_imm8 => x(ShiftRight(I16));
        Psrld_mm_imm8 => m(ShiftRight(I32));
        Psrld_xmm_imm8 => x(ShiftRight(I32));
        Psrlq_mm_imm8 => m(ShiftRight(I64));
        Psrlq_xmm_imm8 => x(ShiftRight(I64));
        Psraw_mm_imm8 => m(ShiftRightArith(I16));
        Psraw_xmm_imm8 => x(ShiftRightArith(I16));
        Psrad_mm_imm8 => m(ShiftRightArith(I32));
        Psrad_xmm_imm8 => x(ShiftRightArith(I32));
        Pslldq_xmm_imm8 => x(ByteShiftLeft);
        Psrldq_xmm_imm8 => x(ByteShiftRight);
    }
}

/// Single lanes and sign masks, to and from general registers.
fn lane_access(code: Code) -> Option<VecInsn> {
    use Operand::{Gpr32, Gpr64, Mm, Xmm};
    let insert = |dst, src| plan(Op::Vec(Insert(I16)), dst, src, load(2));
    let to_gpr = |op: VecOp, dst, src| plan(Op::Vec(op), dst, src, Mem::None);
    rows! { code;
        Pinsrw_mm_r32m16_imm8 => insert(Mm, Gpr32);
        Pinsrw_mm_r64m16_imm8 => insert(Mm, Gpr64);
        Pinsrw_xmm_r32m16_imm8 => insert(Xmm, Gpr32);
        Pinsrw_xmm_r64m16_imm8 => insert(Xmm, Gpr64);
        Pextrw_r32_mm_imm8 => to_gpr(Extract(I16), Gpr32, Mm);
        Pextrw_r64_mm_imm8 => to_gpr(Extract(I16), Gpr64, Mm);
        Pextrw_r32_xmm_imm8 => to_gpr(Extract(I16), Gpr32, Xmm);
        Pextrw_r64_xmm_imm8 => to_gpr(Extract(I16), Gpr64, Xmm);
        Pmovmskb_r32_mm => to_gpr(MoveMask(I8), Gpr32, Mm);
        Pmovmskb_r64_mm => to_gpr(MoveMask(I8), Gpr64, Mm);
        Pmovmskb_r32_xmm => to_gpr(MoveMask(I8), Gpr32, Xmm);
        Pmovmskb_r64_xmm => to_gpr(MoveMask(I8), Gpr64, Xmm);
        Movmskps_r32_xmm => to_gpr(MoveMask(F32), Gpr32, Xmm);
        Movmskps_r64_xmm => to_gpr(MoveMask(F32), Gpr64, Xmm);
        Movmskpd_r32_xmm => to_gpr(MoveMask(F64), Gpr32, Xmm);
        Movmskpd_r64_xmm => to_gpr(MoveMask(F64), Gpr64, Xmm);
    }
}
