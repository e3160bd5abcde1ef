//! Every vector instruction that `egret_isa::vec` plans, against the host CPU: registers, memory, flags, MXCSR and x87 tags.
#![cfg(target_arch = "x86_64")]

mod host;
mod model;
mod values;

use egret_isa::vec::{Op, Operand, VecInsn, decode};
use host::{State, Stubs, encode, forms};
use iced_x86::{Code, CpuidFeature};
use values::Rng;

/// Cases per form and immediate.
const CASES: u32 = 2000;

/// All planned instructions that the host has.
fn planned() -> Vec<(Code, VecInsn)> {
    let host_has = |feature: &CpuidFeature| match feature {
        CpuidFeature::SSE3 => is_x86_feature_detected!("sse3"),
        CpuidFeature::SSSE3 => is_x86_feature_detected!("ssse3"),
        CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        CpuidFeature::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        CpuidFeature::AES => is_x86_feature_detected!("aes"),
        CpuidFeature::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        CpuidFeature::SHA => is_x86_feature_detected!("sha"),
        _ => true,
    };
    Code::values().filter(|code| code.cpuid_features().iter().all(host_has)).filter_map(|code| Some((code, decode(code)?))).collect()
}

/// Runs one code in all its forms; `operand` makes values, `mxcsr` control words.
fn compare(code: Code, plan: VecInsn, rng: &mut Rng, operand: fn(&mut Rng) -> u128, mxcsr: fn(&mut Rng) -> u32) {
    for form in forms(code) {
        let immediates: Vec<u8> = if plan.reads_imm() { (0..=255).collect() } else { vec![0] };
        let encoded: Vec<Vec<u8>> = immediates.iter().map(|&imm| encode(code, form, imm)).collect();
        let stubs = Stubs::new(&encoded);
        for (n, bytes) in encoded.iter().enumerate() {
            let insn = model::Insn::new(bytes, plan, form);
            assert_eq!(insn.insn.code(), code, "{bytes:02x?}");
            for _ in 0..CASES.div_ceil(immediates.len() as u32).max(20) {
                let mut before = State { mxcsr: mxcsr(rng), ..State::ZERO };
                before.xmm = core::array::from_fn(|_| operand(rng));
                before.memory = core::array::from_fn(|_| operand(rng));
                before.mm = core::array::from_fn(|_| operand(rng) as u64);
                before.gpr = core::array::from_fn(|_| operand(rng) as u64);
                if plan.dst == Operand::Mxcsr {
                    before.memory[0] = (before.memory[0] & !0xffff_ffff) | u128::from(mxcsr(rng));
                }
                let (mut ours, mut theirs) = (before, before);
                stubs.run(n, &mut theirs);
                insn.run(&mut ours);
                // The tags of the registers that were entered depend on their values; only "all empty" matters.
                theirs.tags = if theirs.tags == 0xffff { 0xffff } else { 0 };
                assert_eq!(ours, theirs, "{} ({bytes:02x?}, {code:?})\nbefore {before:#x?}\nours {ours:#x?}\nhost {theirs:#x?}", insn.insn);
            }
        }
    }
}

/// Everything masked; the rounding mode, FTZ, DAZ and the sticky flags at random.
fn any_mxcsr(rng: &mut Rng) -> u32 {
    0x1f80 | (rng.next() as u32 & 0xe07f) & if rng.below(2) == 0 { !0x3f } else { !0 }
}

#[test]
fn integer_and_moves() {
    let mut rng = Rng(0x5eed_0001);
    let mut count = 0;
    for (code, plan) in planned() {
        if matches!(plan.op, Op::Vec(_) | Op::MaskedStore | Op::Emms) {
            compare(code, plan, &mut rng, |r| if r.below(4) == 0 { r.float() } else { r.integer() }, any_mxcsr);
            count += 1;
        }
    }
    assert!(count > 150, "{count} instructions compared");
}
