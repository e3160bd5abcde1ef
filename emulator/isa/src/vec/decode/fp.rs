//! Floating-point instructions.

use iced_x86::Code;

use super::{load, packed, plan, rows, scalar};
use crate::vec::Fmt::{self, *};
use crate::vec::FpOp::*;
use crate::vec::Lanes::*;
use crate::vec::Operand::{Flags, Gpr32, Gpr64, Mm, Xmm};
use crate::vec::ToInt::*;
use crate::vec::{Arith as A, FpOp, MmxState, Op, VecInsn};

pub(super) fn decode(code: Code) -> Option<VecInsn> {
    arithmetic(code).or_else(|| compare(code)).or_else(|| convert_packed(code)).or_else(|| convert_scalar(code))
}

/// A scalar single-precision operation on `xmm, xmm/m32`.
fn ss(op: FpOp) -> VecInsn {
    scalar(op, Xmm, Xmm, 4)
}

/// A scalar double-precision operation on `xmm, xmm/m64`.
fn sd(op: FpOp) -> VecInsn {
    scalar(op, Xmm, Xmm, 8)
}

fn arithmetic(code: Code) -> Option<VecInsn> {
    rows! { code;
        Addps_xmm_xmmm128 => packed(Arith(A::Add, F32, Packed));
        Addpd_xmm_xmmm128 => packed(Arith(A::Add, F64, Packed));
        Addss_xmm_xmmm32 => ss(Arith(A::Add, F32, Scalar));
        Addsd_xmm_xmmm64 => sd(Arith(A::Add, F64, Scalar));
        Subps_xmm_xmmm128 => packed(Arith(A::Sub, F32, Packed));
        Subpd_xmm_xmmm128 => packed(Arith(A::Sub, F64, Packed));
        Subss_xmm_xmmm32 => ss(Arith(A::Sub, F32, Scalar));
        Subsd_xmm_xmmm64 => sd(Arith(A::Sub, F64, Scalar));
        Mulps_xmm_xmmm128 => packed(Arith(A::Mul, F32, Packed));
        Mulpd_xmm_xmmm128 => packed(Arith(A::Mul, F64, Packed));
        Mulss_xmm_xmmm32 => ss(Arith(A::Mul, F32, Scalar));
        Mulsd_xmm_xmmm64 => sd(Arith(A::Mul, F64, Scalar));
        Divps_xmm_xmmm128 => packed(Arith(A::Div, F32, Packed));
        Divpd_xmm_xmmm128 => packed(Arith(A::Div, F64, Packed));
        Divss_xmm_xmmm32 => ss(Arith(A::Div, F32, Scalar));
        Divsd_xmm_xmmm64 => sd(Arith(A::Div, F64, Scalar));
        Minps_xmm_xmmm128 => packed(Arith(A::Min, F32, Packed));
        Minpd_xmm_xmmm128 => packed(Arith(A::Min, F64, Packed));
        Minss_xmm_xmmm32 => ss(Arith(A::Min, F32, Scalar));
        Minsd_xmm_xmmm64 => sd(Arith(A::Min, F64, Scalar));
        Maxps_xmm_xmmm128 => packed(Arith(A::Max, F32, Packed));
        Maxpd_xmm_xmmm128 => packed(Arith(A::Max, F64, Packed));
        Maxss_xmm_xmmm32 => ss(Arith(A::Max, F32, Scalar));
        Maxsd_xmm_xmmm64 => sd(Arith(A::Max, F64, Scalar));
        Sqrtps_xmm_xmmm128 => packed(Arith(A::Sqrt, F32, Packed));
        Sqrtpd_xmm_xmmm128 => packed(Arith(A::Sqrt, F64, Packed));
        Sqrtss_xmm_xmmm32 => ss(Arith(A::Sqrt, F32, Scalar));
        Sqrtsd_xmm_xmmm64 => sd(Arith(A::Sqrt, F64, Scalar));
        Rcpps_xmm_xmmm128 => packed(Rcp(Packed));
        Rcpss_xmm_xmmm32 => ss(Rcp(Scalar));
        Rsqrtps_xmm_xmmm128 => packed(Rsqrt(Packed));
        Rsqrtss_xmm_xmmm32 => ss(Rsqrt(Scalar));
    }
}

fn compare(code: Code) -> Option<VecInsn> {
    let flags = |fmt, signaling| {
        let bytes = if fmt == Fmt::F32 { 4 } else { 8 };
        plan(Op::Compare { fmt, signaling }, Flags, Xmm, load(bytes))
    };
    rows! { code;
        Cmpps_xmm_xmmm128_imm8 => packed(Cmp(F32, Packed));
        Cmppd_xmm_xmmm128_imm8 => packed(Cmp(F64, Packed));
        Cmpss_xmm_xmmm32_imm8 => ss(Cmp(F32, Scalar));
        Cmpsd_xmm_xmmm64_imm8 => sd(Cmp(F64, Scalar));
        Comiss_xmm_xmmm32 => flags(F32, true);
        Comisd_xmm_xmmm64 => flags(F64, true);
        Ucomiss_xmm_xmmm32 => flags(F32, false);
        Ucomisd_xmm_xmmm64 => flags(F64, false);
    }
}

fn convert_packed(code: Code) -> Option<VecInsn> {
    rows! { code;
        Cvtps2pd_xmm_xmmm64 => scalar(CvtPs2Pd, Xmm, Xmm, 8);
        Cvtpd2ps_xmm_xmmm128 => packed(CvtPd2Ps);
        Cvtdq2ps_xmm_xmmm128 => packed(CvtDq2Ps);
        Cvtdq2pd_xmm_xmmm64 => scalar(CvtDq2Pd, Xmm, Xmm, 8);
        Cvtps2dq_xmm_xmmm128 => packed(CvtPs2Dq(Mxcsr));
        Cvttps2dq_xmm_xmmm128 => packed(CvtPs2Dq(Truncate));
        Cvtpd2dq_xmm_xmmm128 => packed(CvtPd2Dq(Mxcsr));
        Cvttpd2dq_xmm_xmmm128 => packed(CvtPd2Dq(Truncate));
        // With a memory operand the x87 state is left alone: SDM Vol. 2 says so of CVTPI2PD only, but an AMD EPYC does it for both.
        Cvtpi2ps_xmm_mmm64 => VecInsn { mmx: MmxState::EnteredByRegister, ..scalar(CvtPi2Ps, Xmm, Mm, 8) };
        Cvtpi2pd_xmm_mmm64 => VecInsn { mmx: MmxState::EnteredByRegister, ..scalar(CvtDq2Pd, Xmm, Mm, 8) };
        Cvtps2pi_mm_xmmm64 => scalar(CvtPs2Pi(Mxcsr), Mm, Xmm, 8);
        Cvttps2pi_mm_xmmm64 => scalar(CvtPs2Pi(Truncate), Mm, Xmm, 8);
        Cvtpd2pi_mm_xmmm128 => plan(Op::Fp(CvtPd2Dq(Mxcsr)), Mm, Xmm, super::ALIGNED);
        Cvttpd2pi_mm_xmmm128 => plan(Op::Fp(CvtPd2Dq(Truncate)), Mm, Xmm, super::ALIGNED);
    }
}

fn convert_scalar(code: Code) -> Option<VecInsn> {
    rows! { code;
        Cvtss2sd_xmm_xmmm32 => ss(CvtSs2Sd);
        Cvtsd2ss_xmm_xmmm64 => sd(CvtSd2Ss);
        Cvtsi2ss_xmm_rm32 => scalar(CvtSi32(F32), Xmm, Gpr32, 4);
        Cvtsi2ss_xmm_rm64 => scalar(CvtSi64(F32), Xmm, Gpr64, 8);
        Cvtsi2sd_xmm_rm32 => scalar(CvtSi32(F64), Xmm, Gpr32, 4);
        Cvtsi2sd_xmm_rm64 => scalar(CvtSi64(F64), Xmm, Gpr64, 8);
        Cvtss2si_r32_xmmm32 => scalar(CvtToSi32(F32, Mxcsr), Gpr32, Xmm, 4);
        Cvtss2si_r64_xmmm32 => scalar(CvtToSi64(F32, Mxcsr), Gpr64, Xmm, 4);
        Cvtsd2si_r32_xmmm64 => scalar(CvtToSi32(F64, Mxcsr), Gpr32, Xmm, 8);
        Cvtsd2si_r64_xmmm64 => scalar(CvtToSi64(F64, Mxcsr), Gpr64, Xmm, 8);
        Cvttss2si_r32_xmmm32 => scalar(CvtToSi32(F32, Truncate), Gpr32, Xmm, 4);
        Cvttss2si_r64_xmmm32 => scalar(CvtToSi64(F32, Truncate), Gpr64, Xmm, 4);
        Cvttsd2si_r32_xmmm64 => scalar(CvtToSi32(F64, Truncate), Gpr32, Xmm, 8);
        Cvttsd2si_r64_xmmm64 => scalar(CvtToSi64(F64, Truncate), Gpr64, Xmm, 8);
    }
}
