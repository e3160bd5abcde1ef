//! The plans of `egret_isa::vec` for legacy encodings, against the host CPU: registers, memory, flags, MXCSR and x87 tags. The engines that
//! execute plans, and VEX encodings, have their own test: `vector_engines`.
#![cfg(target_arch = "x86_64")]

mod host;
mod model;
mod values;

use egret_isa::vec::{Fmt, FpOp, Op, Operand, VecInsn, decode};
use host::{Fault, Form, State, Stubs, encode, forms};
use iced_x86::{Code, CpuidFeature, EncodingKind};
use values::Rng;

/// Cases per form and immediate.
const CASES: u32 = 5000;

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
    let legacy = |code: &Code| code.op_code().encoding() == EncodingKind::Legacy && code.cpuid_features() != [CpuidFeature::SSE4A];
    Code::values()
        .filter(legacy)
        .filter(|code| code.cpuid_features().iter().all(host_has))
        .filter_map(|code| Some((code, decode(code)?)))
        .collect()
}

/// Runs one code in all its forms; `operand` makes values, `mxcsr` control words. Returns how often the host faulted.
fn compare(code: Code, plan: VecInsn, rng: &mut Rng, operand: fn(&mut Rng) -> u128, mxcsr: fn(&mut Rng) -> u32) -> u32 {
    let mut faults = 0;
    for form in forms(code) {
        let immediates: Vec<u8> = if plan.reads_imm() { (0..=255).collect() } else { vec![0] };
        let encoded: Vec<Vec<u8>> = immediates.iter().map(|&imm| encode(code, form, imm)).collect();
        let stubs = Stubs::new(&encoded);
        for (n, bytes) in encoded.iter().enumerate() {
            let insn = model::Insn::new(bytes, plan, form);
            assert_eq!(insn.insn.code(), code, "{bytes:02x?}");
            for _ in 0..CASES.div_ceil(immediates.len() as u32).max(20) {
                // Misaligned now and then, where the host's faults can be caught.
                let offset = if cfg!(target_os = "linux") && rng.below(8) == 0 { rng.below(17) } else { 0 };
                let mut before = State { mxcsr: mxcsr(rng), offset, ..State::ZERO };
                if code.cpuid_features() == [CpuidFeature::SHA] {
                    before.offset = 0; // SDM: checked; an AMD EPYC does not check SHA1NEXTE's
                }
                before.xmm = core::array::from_fn(|_| operand(rng));
                before.memory = core::array::from_fn(|_| operand(rng));
                before.mm = core::array::from_fn(|_| operand(rng) as u64);
                before.gpr = core::array::from_fn(|_| operand(rng) as u64);
                if plan.dst == Operand::Mxcsr {
                    before.memory = [u128::from(mxcsr(rng)), 0];
                    before.offset = 0;
                }
                let (mut ours, mut theirs) = (before, before);
                stubs.run(n, &mut theirs);
                insn.run(&mut ours);
                // The tags of the registers that were entered depend on their values; only "all empty" matters.
                theirs.tags = if theirs.tags == 0xffff { 0xffff } else { 0 };
                if code == Code::Cvtpi2ps_xmm_mmm64 && form == Form::Memory {
                    theirs.tags = ours.tags; // makers differ
                }
                faults += u32::from(theirs.fault != Fault::None);
                assert_eq!(ours, theirs, "{} ({bytes:02x?}, {code:?})\nbefore {before:#x?}\nours {ours:#x?}\nhost {theirs:#x?}", insn.insn);
            }
        }
    }
    faults
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
        if !matches!(plan.op, Op::Fp(_) | Op::Compare { .. } | Op::Strings(_)) {
            compare(code, plan, &mut rng, |r| if r.below(4) == 0 { r.float() } else { r.integer() }, any_mxcsr);
            count += 1;
        }
    }
    assert!(count > 240, "{count} instructions compared");
}

#[test]
fn strings() {
    let mut rng = Rng(0x5eed_0005);
    for (code, plan) in planned() {
        if matches!(plan.op, Op::Strings(_)) {
            compare(code, plan, &mut rng, Rng::text, any_mxcsr);
        }
    }
}

/// The same with masks at random.
#[cfg(target_os = "linux")]
fn unmasked_mxcsr(rng: &mut Rng) -> u32 {
    any_mxcsr(rng) & !(rng.next() as u32 & rng.next() as u32 & 0x1f80)
}

/// RCPPS and RSQRTPS, whose bits are each maker's own.
fn approximate(plan: &VecInsn) -> bool {
    matches!(plan.op, Op::Fp(FpOp::Rcp(_) | FpOp::Rsqrt(_)))
}

#[test]
fn floating_point() {
    let mut rng = Rng(0x5eed_0002);
    let mut count = 0;
    for (code, plan) in planned() {
        if matches!(plan.op, Op::Fp(_) | Op::Compare { .. }) && !approximate(&plan) {
            compare(code, plan, &mut rng, Rng::float, any_mxcsr);
            count += 1;
        }
    }
    assert!(count >= 76, "{count} instructions compared");
}

/// #XM: nothing is written but flags in MXCSR.
#[cfg(target_os = "linux")]
#[test]
fn unmasked_exceptions() {
    let mut rng = Rng(0x5eed_0004);
    for (code, plan) in planned() {
        if plan.reads_mxcsr() && !matches!(plan.op, Op::Fp(FpOp::CvtDq2Pd | FpOp::CvtSi32(Fmt::F64))) {
            let faults = compare(code, plan, &mut rng, Rng::float, unmasked_mxcsr);
            assert!(faults > 100, "{code:?}: {faults} faults");
        }
    }
}

/// SDM Vol. 2, "RCPPS", "RSQRTPS": the relative error is at most 1.5 * 2^-12, against the exact value and so, here, also of the host.
#[test]
fn approximations() {
    let mut rng = Rng(0x5eed_0003);
    for (code, plan) in planned().into_iter().filter(|(_, plan)| approximate(plan)) {
        for form in forms(code) {
            let bytes = encode(code, form, 0);
            let stubs = Stubs::new(std::slice::from_ref(&bytes));
            let insn = model::Insn::new(&bytes, plan, form);
            for _ in 0..50_000 {
                let mut before = State { mxcsr: any_mxcsr(&mut rng), ..State::ZERO };
                before.xmm = core::array::from_fn(|_| rng.float());
                before.memory[0] = rng.float();
                let (mut ours, mut theirs) = (before, before);
                stubs.run(0, &mut theirs);
                insn.run(&mut ours);
                let (a, b) = (ours.xmm[1], theirs.xmm[1]);
                for n in 0..4 {
                    assert!(close((a >> (32 * n)) as u32, (b >> (32 * n)) as u32), "{}: {before:x?}\n{a:032x}\n{b:032x}", insn.insn);
                }
                (ours.xmm[1], theirs.xmm[1]) = (0, 0);
                assert_eq!(ours, theirs, "{}", insn.insn);
            }
        }
    }
}

/// Equal bits, or finite and within twice the bound of each other. A result near the least normal number may be flushed by one side.
fn close(a: u32, b: u32) -> bool {
    let (x, y) = (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)));
    let least = f64::from(f32::MIN_POSITIVE) * 1.001;
    a == b || (x.abs() < least && y.abs() < least && (a ^ b) >> 31 == 0) || ((x - y) / y).abs() <= 3.0 / 4096.0
}
