//! `egret_isa::vec::decode` knows every instruction of the features it is for, and its plans agree with iced's description.

use egret_isa::vec::{Mem, Op, Operand, decode};
use iced_x86::{Code, CpuidFeature, EncodingKind, OpCodeOperandKind};

/// Fences, hints and what belongs to other units.
fn elsewhere(code: Code) -> bool {
    let name = format!("{code:?}");
    ["Lfence", "Mfence", "Sfence", "Prefetch", "Fisttp", "Crc32"].iter().any(|prefix| name.starts_with(prefix))
}

fn features(code: Code) -> bool {
    use CpuidFeature::*;
    let legacy = [MMX, SSE, SSE2, SSE3, SSSE3, SSE4_1, SSE4_2, SSE4A, AES, PCLMULQDQ, SHA];
    let vex = [AVX, AVX2, FMA, F16C, AES, PCLMULQDQ, VAES, VPCLMULQDQ];
    let op = code.op_code();
    op.is_instruction()
        && match op.encoding() {
            EncodingKind::Legacy => code.cpuid_features().iter().any(|f| legacy.contains(f)),
            EncodingKind::VEX => code.cpuid_features().iter().all(|f| vex.contains(f)),
            _ => false,
        }
}

#[test]
fn every_instruction_has_a_plan() {
    let missing: Vec<Code> = Code::values().filter(|&c| features(c) && !elsewhere(c) && decode(c).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let wrong: Vec<Code> = Code::values().filter(|&c| (!features(c) || elsewhere(c)) && decode(c).is_some()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn operand(kind: OpCodeOperandKind) -> Operand {
    use OpCodeOperandKind as K;
    match kind {
        K::xmm_reg | K::xmm_rm | K::xmm_or_mem => Operand::Xmm,
        K::mm_reg | K::mm_rm | K::mm_or_mem => Operand::Mm,
        K::r32_reg | K::r32_or_mem => Operand::Gpr32,
        K::r64_reg | K::r64_or_mem => Operand::Gpr64,
        K::imm8 => Operand::Imm8,
        K::mem | K::seg_rDI => Operand::Mem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn operands_and_sizes_are_those_of_the_encoding() {
    use OpCodeOperandKind as K;
    for code in Code::values() {
        let (Some(plan), info) = (decode(code), code.op_code()) else { continue };
        if matches!(plan.op, Op::Gather { .. }) {
            continue;
        }
        let kinds: Vec<K> = (0..info.op_count()).map(|n| info.op_kind(n)).collect();
        let memory = kinds
            .iter()
            .position(|k| matches!(k, K::mem | K::seg_rDI | K::xmm_or_mem | K::ymm_or_mem | K::mm_or_mem | K::r32_or_mem | K::r64_or_mem));
        match (plan.mem, memory) {
            (Mem::None, None) => {}
            (Mem::Load { bytes, .. }, Some(_)) => assert_eq!(usize::from(bytes), info.memory_size().size(), "{code:?}"),
            (Mem::Store { bytes, .. }, Some(0)) => assert_eq!(usize::from(bytes), info.memory_size().size(), "{code:?}"),
            (mem, at) => panic!("{code:?}: {mem:?}, operand {at:?}"),
        }
        if plan.vex.is_some() || plan.op == Op::Emms || plan.dst == Operand::Mxcsr || plan.b == Operand::Mxcsr {
            continue;
        }
        if !matches!(plan.dst, Operand::Flags | Operand::Ecx | Operand::Xmm0) {
            assert_eq!(plan.dst, operand(kinds[0]), "{code:?}");
        }
        match plan.b {
            Operand::Field => assert_eq!(kinds[1..], [K::imm8; 2], "{code:?}"),
            Operand::XmmField => assert_eq!(kinds[1..], [K::xmm_rm, K::imm8, K::imm8], "{code:?}"),
            b => assert_eq!(b, operand(kinds[1]), "{code:?}"),
        }
        if matches!(plan.b, Operand::Field | Operand::XmmField) {
            continue;
        }
        let explicit = kinds.last() == Some(&K::imm8);
        assert_eq!(plan.reads_imm(), explicit, "{code:?}");
    }
}

/// SDM Vol. 1 10.4.1.1 and 11.4.1.1: 128-bit memory operands are aligned, but for the moves that say "unaligned". Those of VEX
/// encodings need not be, but for the moves that say "aligned" or "non-temporal" (14.9, "Memory Alignment").
#[test]
fn alignment() {
    for code in Code::values() {
        let Some(plan) = decode(code) else { continue };
        let unaligned = ["Movups", "Movupd", "Movdqu", "Lddqu", "Maskmov", "Pcmpestr", "Pcmpistr"];
        let exempt = unaligned.iter().any(|name| format!("{code:?}").starts_with(name));
        let demands = ["VEX_Vmovaps", "VEX_Vmovapd", "VEX_Vmovdqa", "VEX_Vmovntps", "VEX_Vmovntpd", "VEX_Vmovntdq"];
        if let Mem::Load { bytes, aligned } | Mem::Store { bytes, aligned } = plan.mem {
            if plan.vex.is_some() {
                assert_eq!(aligned, demands.iter().any(|name| format!("{code:?}").starts_with(name)), "{code:?}");
                continue;
            }
            assert_eq!(aligned, bytes == 16 && !exempt, "{code:?}");
        }
    }
}
