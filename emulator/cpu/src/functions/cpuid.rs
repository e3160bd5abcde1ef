//! CPUID, and the model it describes: it claims what is implemented and nothing else.
//!
//! The model is an in-order Intel Atom (family 6, model 1Ch). Intel, because only there do operating systems take the
//! frequencies of the time-stamp counter and of the APIC timer from CPUID instead of measuring them, because the
//! vectors from real chips that define the flags the manual leaves open are Intel's, and because its rule for fast
//! system calls is the simpler one: SYSCALL in 64-bit code, SYSENTER everywhere. An in-order Atom, because nothing here
//! is executed speculatively, and kernels know that these need no defences against it.

use super::Function;
use crate::Cpu;
use crate::fault::Fault;
use crate::mmu::PHYS_BITS;
use egret_isa::emit::Emit;
use egret_isa::insn::Insn;
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    (i.mnemonic == M::Cpuid).then_some(cpuid as Function)
}

/// Feature bits by leaf, under the manual's names.
pub mod features {
    #![allow(missing_docs)]
    use bitflags::bitflags;

    bitflags! {
        /// Leaf 1, EDX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Basic: u32 {
            const FPU = 1;
            const DE = 1 << 2;
            const PSE = 1 << 3;
            const TSC = 1 << 4;
            const MSR = 1 << 5;
            const PAE = 1 << 6;
            const CX8 = 1 << 8;
            const APIC = 1 << 9;
            const SEP = 1 << 11;
            const MTRR = 1 << 12;
            const PGE = 1 << 13;
            const CMOV = 1 << 15;
            const PAT = 1 << 16;
            const PSE36 = 1 << 17;
            const CLFSH = 1 << 19;
            const MMX = 1 << 23;
            const FXSR = 1 << 24;
            const SSE = 1 << 25;
            const SSE2 = 1 << 26;
        }

        /// Leaf 1, ECX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct More: u32 {
            const CX16 = 1 << 13;
            const PCID = 1 << 17;
            const X2APIC = 1 << 21;
            const POPCNT = 1 << 23;
            const TSC_DEADLINE = 1 << 24;
            const HYPERVISOR = 1 << 31;
        }

        /// Leaf 6, EAX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Power: u32 {
            const ARAT = 1 << 2;
        }

        /// Leaf 7, EBX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Structured: u32 {
            const FSGSBASE = 1;
            const TSC_ADJUST = 1 << 1;
            const SMEP = 1 << 7;
            const ERMS = 1 << 9;
            const INVPCID = 1 << 10;
            const SMAP = 1 << 20;
        }

        /// Leaf 7, ECX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct StructuredC: u32 {
            const UMIP = 1 << 2;
        }

        /// Leaf 7, EDX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct StructuredD: u32 {
            const ARCH_CAPABILITIES = 1 << 29;
        }

        /// Leaf 80000001h, EDX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Extended: u32 {
            const SYSCALL = 1 << 11;
            const NX = 1 << 20;
            const PAGE1GB = 1 << 26;
            const RDTSCP = 1 << 27;
            const LM = 1 << 29;
        }

        /// Leaf 80000001h, ECX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct ExtendedC: u32 {
            const LAHF64 = 1;
            const PREFETCHW = 1 << 8;
        }

        /// Leaf 80000007h, EDX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Advanced: u32 {
            const INVARIANT_TSC = 1 << 8;
        }
    }
}

use features::*;

/// A CPU model as CPUID describes it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Vendor, 12 characters.
    pub vendor: [u8; 12],
    /// Brand, up to 48 characters.
    pub brand: [u8; 48],
    /// Leaf 1, EAX: family, model, stepping.
    pub signature: u32,
    /// Leaf 1, EDX.
    pub basic: Basic,
    /// Leaf 1, ECX.
    pub more: More,
    /// Leaf 6, EAX.
    pub power: Power,
    /// Leaf 7, EBX.
    pub structured: Structured,
    /// Leaf 7, ECX.
    pub structured_c: StructuredC,
    /// Leaf 7, EDX.
    pub structured_d: StructuredD,
    /// Leaf 80000001h, EDX.
    pub extended: Extended,
    /// Leaf 80000001h, ECX.
    pub extended_c: ExtendedC,
    /// Leaf 80000007h, EDX.
    pub advanced: Advanced,
    /// Frequency of the time-stamp counter in Hz.
    pub tsc_hz: u64,
    /// Initial APIC ID.
    pub apic_id: u32,
}

/// Input clock of the local APIC's timer in Hz, reported as the core crystal's.
pub const CRYSTAL_HZ: u64 = 1_000_000_000;

impl Default for Model {
    fn default() -> Self {
        let mut brand = [0; 48];
        let name = b"Egret Virtual CPU";
        brand[..name.len()].copy_from_slice(name);
        Model {
            vendor: *b"GenuineIntel",
            brand,
            // Family 6, model 1Ch, stepping 10.
            signature: 0x0001_06ca,
            basic: Basic::all(),
            more: More::all(),
            power: Power::all(),
            structured: Structured::all(),
            structured_c: StructuredC::all(),
            structured_d: StructuredD::all(),
            extended: Extended::all(),
            extended_c: ExtendedC::all(),
            advanced: Advanced::all(),
            tsc_hz: 1_000_000_000,
            apic_id: 0,
        }
    }
}

/// What CPUID shows of the CPU's present state.
struct Now {
    /// There is a local APIC and it is on.
    apic: bool,
    /// 64-bit code asks: SYSCALL is reported only there.
    code64: bool,
}

/// Highest basic leaf.
const MAX_BASIC: u32 = 0x16;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
const HYPERVISOR: u32 = 0x4000_0000;

impl Model {
    fn leaf(&self, leaf: u32, subleaf: u32, now: &Now) -> [u32; 4] {
        match leaf {
            0..=MAX_BASIC => self.basic_leaf(leaf, subleaf, now),
            HYPERVISOR => named(HYPERVISOR, b"EgretEgretEg", [0, 1, 2]),
            0x8000_0000..=MAX_EXTENDED => self.extended_leaf(leaf, now),
            // Intel answers a leaf beyond the last with the highest basic one.
            _ => self.basic_leaf(MAX_BASIC, subleaf, now),
        }
    }

    fn basic_leaf(&self, leaf: u32, subleaf: u32, now: &Now) -> [u32; 4] {
        match leaf {
            0 => named(MAX_BASIC, &self.vendor, [0, 2, 1]),
            1 => self.features(now),
            // "Ask leaf 4".
            2 => [0x0000_ff01, 0, 0, 0],
            4 => cache(subleaf),
            6 => [self.power.bits(), 0, 0, 0],
            7 if subleaf == 0 => [0, self.structured.bits(), self.structured_c.bits(), self.structured_d.bits()],
            0xb => self.topology(subleaf),
            0x15 => {
                let common = gcd(self.tsc_hz, CRYSTAL_HZ);
                [(CRYSTAL_HZ / common) as u32, (self.tsc_hz / common) as u32, CRYSTAL_HZ as u32, 0]
            }
            0x16 => {
                let mhz = (self.tsc_hz / 1_000_000) as u32 & 0xffff;
                [mhz, mhz, 100, 0]
            }
            _ => [0; 4],
        }
    }

    fn features(&self, now: &Now) -> [u32; 4] {
        const CLFLUSH_LINE: u32 = 8 << 8;
        let (mut basic, mut more) = (self.basic, self.more);
        if !now.apic {
            basic.remove(Basic::APIC);
            more.remove(More::X2APIC | More::TSC_DEADLINE);
        }
        [self.signature, CLFLUSH_LINE | 1 << 16 | self.apic_id << 24, more.bits(), basic.bits()]
    }

    /// One package of one core of one thread.
    fn topology(&self, subleaf: u32) -> [u32; 4] {
        match subleaf {
            0 => [0, 1, 1 << 8, self.apic_id],
            1 => [0, 1, 2 << 8 | 1, self.apic_id],
            n => [0, 0, n & 0xff, self.apic_id],
        }
    }

    fn extended_leaf(&self, leaf: u32, now: &Now) -> [u32; 4] {
        match leaf {
            0x8000_0000 => [MAX_EXTENDED, 0, 0, 0],
            0x8000_0001 => {
                let mut extended = self.extended;
                extended.set(Extended::SYSCALL, extended.contains(Extended::SYSCALL) && now.code64);
                [0, 0, self.extended_c.bits(), extended.bits()]
            }
            0x8000_0002..=0x8000_0004 => {
                let at = (leaf - 0x8000_0002) as usize * 16;
                std::array::from_fn(|n| word(&self.brand, at + 4 * n))
            }
            // 512 KiB, 8-way, 64-byte lines.
            0x8000_0006 => [0, 0, 512 << 16 | 6 << 12 | 64, 0],
            0x8000_0007 => [0, 0, 0, self.advanced.bits()],
            0x8000_0008 => [PHYS_BITS | 48 << 8, 0, 0, 0],
            _ => [0; 4],
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// A leaf of a number and twelve characters; `order` says which four go to EBX, ECX and EDX.
fn named(max: u32, name: &[u8; 12], order: [usize; 3]) -> [u32; 4] {
    [max, word(name, 4 * order[0]), word(name, 4 * order[1]), word(name, 4 * order[2])]
}

/// Leaf 4: level 1 data and instruction caches of 32 KiB, level 2 of 512 KiB, all 8-way with 64-byte lines.
fn cache(subleaf: u32) -> [u32; 4] {
    let describe = |kind: u32, level: u32, sets: u32| [kind | level << 5 | 1 << 8, 7 << 22 | 63, sets - 1, 0];
    match subleaf {
        0 => describe(1, 1, 64),
        1 => describe(2, 1, 64),
        2 => describe(3, 2, 1024),
        _ => [0; 4],
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// CPUID: SDM Vol. 2, "CPUID—CPU Identification".
fn cpuid(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    const APIC_BASE: u32 = 0x1b;
    const APIC_ENABLE: u64 = 1 << 11;
    let apic = cpu.system.apic_read(APIC_BASE).is_some_and(|base| base & APIC_ENABLE != 0);
    let now = Now { apic, code64: cpu.code64() };
    let [eax, ebx, ecx, edx] = cpu.model.leaf(cpu.reg(0) as u32, cpu.reg(1) as u32, &now);
    for (r, value) in [(0, eax), (3, ebx), (1, ecx), (2, edx)] {
        cpu.set_gpr(r, Width::D, value.into());
    }
    Ok(())
}
