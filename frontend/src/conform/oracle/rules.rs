//! Which encodings the oracle can judge, and what of their results is undefined.

use egret_isa::flags::{AF, ARITH, CF, OF, PF, SF, ZF};
use egret_isa::insn::Mode;
use egret_isa::model::{CpuModel, Feature, Features};
use iced_x86::{Code, CpuidFeature as F, FlowControl, Instruction, Mnemonic as M, OpKind, Register, RflagsBits as B};

/// Whether the host has what an encoding needs.
#[must_use]
pub fn host_has(features: &[F]) -> bool {
    features.iter().all(|f| host_feature(*f))
}

#[cfg(target_arch = "x86_64")]
fn host_feature(f: F) -> bool {
    use std::arch::is_x86_feature_detected as has;
    match f {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 => true,
        F::FPU | F::FPU287 | F::FPU387 | F::CX8 | F::CMOV | F::FXSR | F::MMX | F::SSE | F::SSE2 | F::SEP | F::CLFSH | F::MULTIBYTENOP => {
            true
        }
        F::PAUSE | F::SYSCALL | F::TSC | F::CPUID | F::CET_IBT | F::PREFETCHW => true,
        F::SSE3 => has!("sse3"),
        F::SSSE3 => has!("ssse3"),
        F::SSE4_1 => has!("sse4.1"),
        F::SSE4_2 => has!("sse4.2"),
        F::POPCNT => has!("popcnt"),
        F::LZCNT => has!("lzcnt"),
        F::BMI1 => has!("bmi1"),
        F::BMI2 => has!("bmi2"),
        F::MOVBE => has!("movbe"),
        F::ADX => has!("adx"),
        F::AES => has!("aes"),
        F::PCLMULQDQ => has!("pclmulqdq"),
        F::SHA => has!("sha"),
        F::AVX => has!("avx"),
        F::AVX2 => has!("avx2"),
        F::FMA => has!("fma"),
        F::F16C => has!("f16c"),
        F::VAES => has!("vaes"),
        F::VPCLMULQDQ => has!("vpclmulqdq"),
        F::CMPXCHG16B => has!("cmpxchg16b"),
        F::FSGSBASE => true,
        F::CLFLUSHOPT | F::CLWB => cpuid_bit(f),
        F::INVPCID | F::MSR | F::SMAP | F::WBNOINVD => true,
        // Hints: whoever does not know them does nothing.
        F::CET_SS | F::CLDEMOTE | F::PREFETCHITI | F::PREFETCHWT1 => true,
        _ => false,
    }
}

#[cfg(target_arch = "x86_64")]
fn cpuid_bit(f: F) -> bool {
    let leaf = |n, sub| std::arch::x86_64::__cpuid_count(n, sub);
    match f {
        F::CLFLUSHOPT => leaf(7, 0).ebx >> 23 & 1 == 1,
        F::CLWB => leaf(7, 0).ebx >> 24 & 1 == 1,
        _ => leaf(0x8000_0001, 0).ecx & 1 == 1,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_feature(_: F) -> bool {
    false
}

/// The CPU that programs run on: the default model, and what has semantics though CPUID does not claim it yet.
#[must_use]
pub fn model() -> CpuModel {
    const WITH: Features =
        Features::of(&[Feature::Avx, Feature::Avx2, Feature::Fma, Feature::F16c, Feature::Vaes, Feature::Vpclmulqdq, Feature::Sse42]);
    let model = CpuModel::default();
    model.with_features(model.features().and(WITH))
}

/// Why an encoding is not judged, though the host runs it.
#[must_use]
pub fn excluded(code: Code) -> Option<&'static str> {
    let name = format!("{code:?}");
    if ["Lss_r64", "Lfs_r64", "Lgs_r64", "Jmp_m1664", "Call_m1664"].iter().any(|n| name.starts_with(n)) {
        return Some("makers differ: AMD has no 64-bit far pointers");
    }
    if name.starts_with("Pushd_") && name.ends_with('S') {
        return Some("makers differ: some write only 16 bits");
    }
    if name.ends_with("_0F0D") {
        return Some("makers differ: AMD knows no PREFETCH of a register");
    }
    if code == Code::Bswap_r16 {
        return Some("the result is undefined");
    }
    Some(match code.mnemonic() {
        M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdrand | M::Rdseed | M::Rdpid => "the result is another each time",
        M::Cpuid | M::Xgetbv | M::Rdpkru | M::Wrpkru => "it shows or changes the host's configuration",
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => "the kernel emulates it for user code",
        M::Int1 => "hypervisors get between",
        M::Syscall | M::Sysenter => "it calls the host's kernel",
        M::Sysexit | M::Sysexitq | M::Sysret | M::Sysretq => "makers differ in the exception outside CPL 0",
        M::Ud0 => "makers differ in its length",
        M::Xsave
        | M::Xsave64
        | M::Xsaveopt
        | M::Xsaveopt64
        | M::Xsavec
        | M::Xsavec64
        | M::Xrstor
        | M::Xrstor64
        | M::Xsaves
        | M::Xsaves64
        | M::Xrstors
        | M::Xrstors64
        | M::Xsetbv => "the image follows the host's XCR0",
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss | M::Vrcpps | M::Vrcpss | M::Vrsqrtps | M::Vrsqrtss => {
            "each maker has its own approximation"
        }
        _ => return None,
    })
}

/// Whether a program may contain this instruction: what the same encoding does with other bytes can differ.
#[must_use]
pub fn acceptable(insn: &Instruction, bytes: &[u8], mode: Mode) -> bool {
    let near = matches!(
        insn.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::ConditionalBranch
            | FlowControl::Return
            | FlowControl::Call
            | FlowControl::IndirectCall
    );
    let far = matches!(insn.mnemonic(), M::Iret | M::Iretd | M::Iretq | M::Retf)
        || insn.is_jmp_far_indirect()
        || insn.is_call_far_indirect()
        || matches!(insn.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32);
    // With an operand-size prefix AMD's near branches are 16-bit ones, Intel's are not.
    let prefixed = bytes
        .iter()
        .take_while(|b| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3))
        .any(|b| *b == 0x66);
    if mode == Mode::M64 && near && !far && prefixed {
        return false;
    }
    // AMD does not check the alignment of their operands.
    let sha = insn.cpuid_features() == [F::SHA] && insn.op1_kind() == OpKind::Memory;
    // AMD reads four bytes.
    let movsxd = insn.code() == Code::Movsxd_r16_rm16 && insn.op1_kind() == OpKind::Memory;
    // INT 80h calls the kernel.
    !(sha || movsxd || insn.mnemonic() == M::Int && insn.immediate8() == 0x80)
}

/// iced's flag bits in EFLAGS positions.
fn arithmetic(bits: u32) -> u32 {
    [(B::CF, CF), (B::PF, PF), (B::AF, AF), (B::ZF, ZF), (B::SF, SF), (B::OF, OF)]
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(0, |all, (_, flag)| all | flag)
}

/// What an instruction does to the flags, as far as defined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Flags that its result depends on.
    pub reads: u32,
    /// Flags that have a defined value after it, whatever the operands.
    pub writes: u32,
    /// Flags that may be undefined after it.
    pub undefined: u32,
}

/// The flags of an instruction. `cl` is CL before it, if that is known.
#[must_use]
pub fn flags(insn: &Instruction, cl: Option<u8>) -> Flags {
    let reads = arithmetic(insn.rflags_read());
    let reads = if matches!(insn.mnemonic(), M::Pushf | M::Pushfd | M::Pushfq | M::Lahf) { ARITH } else { reads };
    let mut undefined = arithmetic(insn.rflags_undefined());
    let mut writes = arithmetic(insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set());
    let bits = match insn.op0_kind() {
        OpKind::Register => insn.op0_register().size(),
        _ => insn.memory_size().size(),
    };
    let bits = bits.saturating_mul(8).min(64) as u8;
    let raw = |n: u32| match insn.op_kind(n) {
        OpKind::Immediate8 => Some(insn.immediate8()),
        OpKind::Register if insn.op_register(n) == Register::CL => cl,
        _ => None,
    };
    let count = |n: u32| raw(n).map(|c| c & if bits == 64 { 63 } else { 31 });
    match insn.mnemonic() {
        M::Shl | M::Sal | M::Shr | M::Sar => {
            (undefined, writes) = match count(1) {
                Some(0) => (0, 0),
                Some(1) => (AF, ARITH & !AF),
                Some(n) if n < bits || insn.mnemonic() == M::Sar => (AF | OF, ARITH & !AF & !OF),
                Some(_) => (AF | OF | CF, SF | ZF | PF),
                None => (AF | OF | CF, 0),
            };
        }
        M::Rol | M::Ror | M::Rcl | M::Rcr => {
            (undefined, writes) = match count(1) {
                Some(0) => (0, 0),
                Some(1) => (0, CF | OF),
                Some(_) => (OF, 0),
                None => (OF, 0),
            };
        }
        M::Shld | M::Shrd => {
            (undefined, writes) = match count(2) {
                Some(0) => (0, 0),
                Some(1) => (AF, ARITH & !AF),
                Some(n) if n <= bits => (AF | OF, ARITH & !AF & !OF),
                Some(_) | None => (ARITH, 0),
            };
        }
        M::Mul | M::Imul => (undefined, writes) = (SF | ZF | AF | PF, CF | OF),
        M::Div | M::Idiv => (undefined, writes) = (ARITH, 0),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq => writes = 0,
        _ => {}
    }
    Flags { reads, writes, undefined }
}

/// Whether an instruction notes its address in the pointers of the x87, or stores them: AMD notes only what raises an unmasked
/// exception, Intel also others, and newer processors of either no selectors. FXSAVE of AMD stores them only while one is pending.
#[must_use]
pub fn pointers(insn: &Instruction) -> (bool, bool) {
    let stores = matches!(insn.mnemonic(), M::Fnsave | M::Fnstenv | M::Fsave | M::Fstenv | M::Fxsave | M::Fxsave64);
    let x87 = insn.cpuid_features().iter().any(|f| matches!(f, F::FPU | F::FPU287 | F::FPU387));
    (x87 && !stores || matches!(insn.mnemonic(), M::Fxrstor | M::Fxrstor64), stores)
}

/// Whether an instruction leaves C1 as it was on Zen 4, where the manual says that it clears it, and whether it stores C1.
#[must_use]
pub fn condition_one(insn: &Instruction) -> (bool, bool) {
    let leaves = matches!(insn.mnemonic(), M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip);
    (leaves, pointers(insn).1 || matches!(insn.mnemonic(), M::Fnstsw | M::Fstsw))
}

/// Whether the value that an instruction leaves may be undefined.
#[must_use]
pub fn undefined_result(insn: &Instruction, cl: Option<u8>) -> bool {
    if !matches!(insn.mnemonic(), M::Shld | M::Shrd) || insn.op0_kind() == OpKind::Register && insn.op0_register().size() != 2 {
        return false;
    }
    if insn.op0_kind() != OpKind::Register && insn.memory_size().size() != 2 {
        return false;
    }
    let raw = if insn.op_kind(2) == OpKind::Immediate8 { Some(insn.immediate8()) } else { cl };
    raw.is_none_or(|c| c & 31 > 16)
}
