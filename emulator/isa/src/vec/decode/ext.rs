//! SSE3 to SSE4.2, AES, PCLMULQDQ, SHA and AMD's SSE4A.

use iced_x86::Code;

use super::{ALIGNED, load, packed, pairs, plan, rows, scalar, store, xx};
use crate::vec::FpOp::{self, AddSub, Dot, Round};
use crate::vec::Operand::{self, Gpr32, Gpr64, Xmm};
use crate::vec::Shape::*;
use crate::vec::VecOp::{self, *};
use crate::vec::{Fmt, Lanes, Op, StringOp, Vec3Op, VecInsn};

pub(super) fn decode(code: Code) -> Option<VecInsn> {
    sse3(code)
        .or_else(|| ssse3(code))
        .or_else(|| sse4_int(code))
        .or_else(|| sse4_lanes(code))
        .or_else(|| sse4_other(code))
        .or_else(|| crypto(code))
        .or_else(|| sse4a(code))
}

/// `op xmm, xmm/m` with a load of `bytes`.
fn narrow(op: VecOp, bytes: u8) -> VecInsn {
    plan(Op::Vec(op), Xmm, Xmm, if bytes == 16 { ALIGNED } else { load(bytes) })
}

fn sse3(code: Code) -> Option<VecInsn> {
    rows! { code;
        Movsldup_xmm_xmmm128 => xx(DupEven32);
        Movshdup_xmm_xmmm128 => xx(DupOdd32);
        Movddup_xmm_xmmm64 => narrow(DupLow64, 8);
        Lddqu_xmm_m128 => plan(Op::Vec(Copy), Xmm, Operand::Mem, load(16));
        Addsubps_xmm_xmmm128 => packed(AddSub(Fmt::F32));
        Addsubpd_xmm_xmmm128 => packed(AddSub(Fmt::F64));
        Haddps_xmm_xmmm128 => packed(FpOp::AddPairs(Fmt::F32));
        Haddpd_xmm_xmmm128 => packed(FpOp::AddPairs(Fmt::F64));
        Hsubps_xmm_xmmm128 => packed(FpOp::SubPairs(Fmt::F32));
        Hsubpd_xmm_xmmm128 => packed(FpOp::SubPairs(Fmt::F64));
    }
}

fn ssse3(code: Code) -> Option<VecInsn> {
    pairs! { code;
        Pshufb_mm_mmm64, Pshufb_xmm_xmmm128 => ShuffleBytes;
        Phaddw_mm_mmm64, Phaddw_xmm_xmmm128 => AddPairs(I16);
        Phaddd_mm_mmm64, Phaddd_xmm_xmmm128 => AddPairs(I32);
        Phaddsw_mm_mmm64, Phaddsw_xmm_xmmm128 => AddPairsSat16;
        Phsubw_mm_mmm64, Phsubw_xmm_xmmm128 => SubPairs(I16);
        Phsubd_mm_mmm64, Phsubd_xmm_xmmm128 => SubPairs(I32);
        Phsubsw_mm_mmm64, Phsubsw_xmm_xmmm128 => SubPairsSat16;
        Pmaddubsw_mm_mmm64, Pmaddubsw_xmm_xmmm128 => MulAddU8S8;
        Psignb_mm_mmm64, Psignb_xmm_xmmm128 => Sign(I8);
        Psignw_mm_mmm64, Psignw_xmm_xmmm128 => Sign(I16);
        Psignd_mm_mmm64, Psignd_xmm_xmmm128 => Sign(I32);
        Pmulhrsw_mm_mmm64, Pmulhrsw_xmm_xmmm128 => MulHighRound16;
        Pabsb_mm_mmm64, Pabsb_xmm_xmmm128 => Abs(I8);
        Pabsw_mm_mmm64, Pabsw_xmm_xmmm128 => Abs(I16);
        Pabsd_mm_mmm64, Pabsd_xmm_xmmm128 => Abs(I32);
        Palignr_mm_mmm64_imm8, Palignr_xmm_xmmm128_imm8 => AlignRight;
    }
}

fn sse4_int(code: Code) -> Option<VecInsn> {
    rows! { code;
        Pmovsxbw_xmm_xmmm64 => narrow(ExtendS(I8, I16), 8);
        Pmovsxbd_xmm_xmmm32 => narrow(ExtendS(I8, I32), 4);
        Pmovsxbq_xmm_xmmm16 => narrow(ExtendS(I8, I64), 2);
        Pmovsxwd_xmm_xmmm64 => narrow(ExtendS(I16, I32), 8);
        Pmovsxwq_xmm_xmmm32 => narrow(ExtendS(I16, I64), 4);
        Pmovsxdq_xmm_xmmm64 => narrow(ExtendS(I32, I64), 8);
        Pmovzxbw_xmm_xmmm64 => narrow(ExtendU(I8, I16), 8);
        Pmovzxbd_xmm_xmmm32 => narrow(ExtendU(I8, I32), 4);
        Pmovzxbq_xmm_xmmm16 => narrow(ExtendU(I8, I64), 2);
        Pmovzxwd_xmm_xmmm64 => narrow(ExtendU(I16, I32), 8);
        Pmovzxwq_xmm_xmmm32 => narrow(ExtendU(I16, I64), 4);
        Pmovzxdq_xmm_xmmm64 => narrow(ExtendU(I32, I64), 8);
        Pmuldq_xmm_xmmm128 => xx(MulWideS32);
        Pmulld_xmm_xmmm128 => xx(MulLow(I32));
        Pcmpeqq_xmm_xmmm128 => xx(CmpEq(I64));
        Pcmpgtq_xmm_xmmm128 => xx(CmpGt(I64));
        Packusdw_xmm_xmmm128 => xx(PackU(I32));
        Pminsb_xmm_xmmm128 => xx(MinS(I8));
        Pminsd_xmm_xmmm128 => xx(MinS(I32));
        Pminuw_xmm_xmmm128 => xx(MinU(I16));
        Pminud_xmm_xmmm128 => xx(MinU(I32));
        Pmaxsb_xmm_xmmm128 => xx(MaxS(I8));
        Pmaxsd_xmm_xmmm128 => xx(MaxS(I32));
        Pmaxuw_xmm_xmmm128 => xx(MaxU(I16));
        Pmaxud_xmm_xmmm128 => xx(MaxU(I32));
        Phminposuw_xmm_xmmm128 => xx(MinPosU16);
        Mpsadbw_xmm_xmmm128_imm8 => xx(SlidingAbsDiff);
        Blendps_xmm_xmmm128_imm8 => xx(Blend(F32));
        Blendpd_xmm_xmmm128_imm8 => xx(Blend(F64));
        Pblendw_xmm_xmmm128_imm8 => xx(Blend(I16));
        Movntdqa_xmm_m128 => plan(Op::Vec(Copy), Xmm, Operand::Mem, ALIGNED).non_temporal();
    }
}

/// Single lanes.
fn sse4_lanes(code: Code) -> Option<VecInsn> {
    let insert = |shape, src, bytes| plan(Op::Vec(Insert(shape)), Xmm, src, load(bytes));
    let extract = |shape, dst, bytes| plan(Op::Vec(Extract(shape)), dst, Xmm, store(bytes));
    rows! { code;
        Pinsrb_xmm_r32m8_imm8 => insert(I8, Gpr32, 1);
        Pinsrb_xmm_r64m8_imm8 => insert(I8, Gpr64, 1);
        Pinsrd_xmm_rm32_imm8 => insert(I32, Gpr32, 4);
        Pinsrq_xmm_rm64_imm8 => insert(I64, Gpr64, 8);
        Insertps_xmm_xmmm32_imm8 => narrow(InsertPs, 4).mem_op(InsertPsMem);
        Pextrb_r32m8_xmm_imm8 => extract(I8, Gpr32, 1);
        Pextrb_r64m8_xmm_imm8 => extract(I8, Gpr64, 1);
        Pextrw_r32m16_xmm_imm8 => extract(I16, Gpr32, 2);
        Pextrw_r64m16_xmm_imm8 => extract(I16, Gpr64, 2);
        Pextrd_rm32_xmm_imm8 => extract(I32, Gpr32, 4);
        Pextrq_rm64_xmm_imm8 => extract(I64, Gpr64, 8);
        Extractps_rm32_xmm_imm8 => extract(F32, Gpr32, 4);
        Extractps_r64m32_xmm_imm8 => extract(F32, Gpr64, 4);
    }
}

fn sse4_other(code: Code) -> Option<VecInsn> {
    let blend = |shape| plan(Op::Vec3(Vec3Op::BlendVar(shape)), Xmm, Xmm, ALIGNED);
    let round = |fmt, bytes| scalar(Round(fmt, Lanes::Scalar), Xmm, Xmm, bytes);
    // Their memory operand need not be aligned.
    let strings = |explicit, wide, mask| {
        let dst = if mask { Operand::Xmm0 } else { Operand::Ecx };
        plan(Op::Strings(StringOp { explicit, wide, mask }), dst, Xmm, load(16))
    };
    rows! { code;
        Pblendvb_xmm_xmmm128 => blend(I8);
        Blendvps_xmm_xmmm128 => blend(F32);
        Blendvpd_xmm_xmmm128 => blend(F64);
        Ptest_xmm_xmmm128 => plan(Op::Test(None), Operand::Flags, Xmm, ALIGNED);
        Roundps_xmm_xmmm128_imm8 => packed(Round(Fmt::F32, Lanes::Packed));
        Roundpd_xmm_xmmm128_imm8 => packed(Round(Fmt::F64, Lanes::Packed));
        Roundss_xmm_xmmm32_imm8 => round(Fmt::F32, 4);
        Roundsd_xmm_xmmm64_imm8 => round(Fmt::F64, 8);
        Dpps_xmm_xmmm128_imm8 => packed(Dot(Fmt::F32));
        Dppd_xmm_xmmm128_imm8 => packed(Dot(Fmt::F64));
        Pcmpestrm_xmm_xmmm128_imm8 => strings(true, false, true);
        Pcmpestrm64_xmm_xmmm128_imm8 => strings(true, true, true);
        Pcmpestri_xmm_xmmm128_imm8 => strings(true, false, false);
        Pcmpestri64_xmm_xmmm128_imm8 => strings(true, true, false);
        Pcmpistrm_xmm_xmmm128_imm8 => strings(false, false, true);
        Pcmpistri_xmm_xmmm128_imm8 => strings(false, false, false);
    }
}

fn sse4a(code: Code) -> Option<VecInsn> {
    let field = |op, b| plan(Op::Vec(op), Xmm, b, super::Mem::None);
    let nt = |bytes| plan(Op::Vec(Copy), Operand::Mem, Xmm, store(bytes)).non_temporal();
    rows! { code;
        Extrq_xmm_imm8_imm8 => field(ExtractBits, Operand::Field);
        Extrq_xmm_xmm => field(ExtractBits, Xmm);
        Insertq_xmm_xmm_imm8_imm8 => field(InsertBits, Operand::XmmField);
        Insertq_xmm_xmm => field(InsertBits, Xmm);
        Movntss_m32_xmm => nt(4);
        Movntsd_m64_xmm => nt(8);
    }
}

fn crypto(code: Code) -> Option<VecInsn> {
    rows! { code;
        Pclmulqdq_xmm_xmmm128_imm8 => xx(CarrylessMul);
        Aesenc_xmm_xmmm128 => xx(AesEnc);
        Aesenclast_xmm_xmmm128 => xx(AesEncLast);
        Aesdec_xmm_xmmm128 => xx(AesDec);
        Aesdeclast_xmm_xmmm128 => xx(AesDecLast);
        Aesimc_xmm_xmmm128 => xx(AesImc);
        Aeskeygenassist_xmm_xmmm128_imm8 => xx(AesKeygenAssist);
        Sha1rnds4_xmm_xmmm128_imm8 => xx(Sha1Rounds4);
        Sha1nexte_xmm_xmmm128 => xx(Sha1NextE);
        Sha1msg1_xmm_xmmm128 => xx(Sha1Msg1);
        Sha1msg2_xmm_xmmm128 => xx(Sha1Msg2);
        Sha256msg1_xmm_xmmm128 => xx(Sha256Msg1);
        Sha256msg2_xmm_xmmm128 => xx(Sha256Msg2);
        Sha256rnds2_xmm_xmmm128 => plan(Op::Vec3(Vec3Op::Sha256Rounds2), Xmm, Xmm, ALIGNED);
    }
}
