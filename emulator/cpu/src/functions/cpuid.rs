//! CPUID: the model's features, of which each has its bit in the table of [`egret_isa::model`], and the leaves of another kind.
//!
//! The x86-64 models are an in-order Intel Atom (family 6, model 1Ch). Intel, because only there do operating systems take the
//! frequencies of the time-stamp counter and of the APIC timer from CPUID instead of measuring them, because the
//! vectors from real chips that define the flags the manual leaves open are Intel's, and because its rule for fast
//! system calls is the simpler one: SYSCALL in 64-bit code, SYSENTER everywhere. An in-order Atom, because nothing here
//! is executed speculatively, and kernels know that these need no defences against it.

use super::{Function, xsave};
use crate::Cpu;
use crate::fault::Fault;
use crate::mmu::PHYS_BITS;
use crate::state::cr4;
use egret_isa::emit::Emit;
use egret_isa::insn::Insn;
use egret_isa::model::{CpuModel, Feature, Generation, ROWS};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    (i.mnemonic == M::Cpuid).then_some(cpuid as Function)
}

/// What CPUID shows beside the model: names, frequencies, and the CPU's place among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor, 12 characters.
    pub vendor: [u8; 12],
    /// Brand, up to 48 characters.
    pub brand: [u8; 48],
    /// Frequency of the time-stamp counter in Hz.
    pub tsc_hz: u64,
    /// Initial APIC ID.
    pub apic_id: u32,
    /// CPUs of the machine: cores of one package.
    pub cpus: u32,
}

/// Input clock of the local APIC's timer in Hz, reported as the core crystal's.
pub const CRYSTAL_HZ: u64 = 1_000_000_000;

impl Default for Identity {
    fn default() -> Self {
        let mut brand = [0; 48];
        let name = b"Egret Virtual CPU";
        brand[..name.len()].copy_from_slice(name);
        Identity { vendor: *b"GenuineIntel", brand, tsc_hz: 1_000_000_000, apic_id: 0, cpus: 1 }
    }
}

/// What CPUID shows of the CPU's present state.
struct Now {
    /// There is a local APIC and it is on.
    apic: bool,
    /// 64-bit code asks: SYSCALL is reported only there.
    code64: bool,
    cr4: u64,
    xcr0: u64,
    xcr0_supported: u64,
}

/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
const HYPERVISOR: u32 = 0x4000_0000;
/// Leaf 1, EBX: CLFLUSH works on 64 bytes.
const CLFLUSH_LINE: u32 = 8 << 8;
/// Leaf 1, ECX: what CR4.OSXSAVE says.
const OSXSAVE: u32 = 1 << 27;
/// Leaf 7, ECX: what CR4.PKE says.
const OSPKE: u32 = 1 << 4;

/// A model with its identity.
struct Described<'a> {
    model: CpuModel,
    id: &'a Identity,
    now: Now,
}

impl Described<'_> {
    /// Highest basic leaf.
    fn max_basic(&self) -> u32 {
        match self.model.generation() {
            Generation::Current if self.model.has(Feature::Hypervisor) => 0x16,
            Generation::Current => 0xd,
            _ => 1,
        }
    }

    fn leaf(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let max = self.max_basic();
        let extended = self.model.has(Feature::Lm);
        match leaf {
            HYPERVISOR if self.model.has(Feature::Hypervisor) => named(HYPERVISOR, b"EgretEgretEg", [0, 1, 2]),
            0x8000_0000..=MAX_EXTENDED if extended => self.extended_leaf(leaf),
            _ if leaf <= max => self.basic_leaf(leaf, subleaf),
            // Intel answers a leaf beyond the last with the highest basic one.
            _ => self.basic_leaf(max, subleaf),
        }
    }

    /// The feature bits of a leaf.
    fn features(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let mut out = [0; 4];
        for row in ROWS.iter().filter(|r| self.model.has(r.feature) && self.shown(r.feature)) {
            if let Some(place) = row.place.filter(|p| p.leaf == leaf && p.subleaf == subleaf) {
                out[usize::from(place.register & 3)] |= 1 << (place.bit & 31);
            }
        }
        out
    }

    /// Whether a feature of the model shows at present.
    fn shown(&self, feature: Feature) -> bool {
        match feature {
            Feature::Apic | Feature::X2apic | Feature::TscDeadline => self.now.apic,
            Feature::Syscall => self.now.code64,
            Feature::Htt => self.id.cpus > 1,
            _ => true,
        }
    }

    fn basic_leaf(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            0 => named(self.max_basic(), &self.id.vendor, [0, 2, 1]),
            1 => self.version(),
            // "Ask leaf 4".
            2 => [0x0000_ff01, 0, 0, 0],
            4 => self.cache(subleaf),
            // Lines of 64 bytes; hints in ECX are taken, interrupts end MWAIT also with IF clear; one kind of C1.
            5 if self.model.has(Feature::Monitor) => [64, 64, 3, 0x10],
            7 if subleaf == 0 => {
                let mut out = self.features(7, 0);
                out[2] |= if self.now.cr4 & cr4::PKE != 0 { OSPKE } else { 0 };
                out
            }
            0xd if self.model.has(Feature::Xsave) => xsave::leaf(self.now.xcr0_supported, self.now.xcr0, self.features(0xd, 1)[0], subleaf),
            0xb if self.model.has(Feature::X2apic) => self.topology(subleaf),
            0x15 => {
                let common = gcd(self.id.tsc_hz, CRYSTAL_HZ);
                [(CRYSTAL_HZ / common) as u32, (self.id.tsc_hz / common) as u32, CRYSTAL_HZ as u32, 0]
            }
            0x16 => {
                let mhz = (self.id.tsc_hz / 1_000_000) as u32 & 0xffff;
                [mhz, mhz, 100, 0]
            }
            _ => self.features(leaf, subleaf),
        }
    }

    fn version(&self) -> [u32; 4] {
        let mut out = self.features(1, 0);
        out[0] = self.model.base().signature;
        if self.model.has(Feature::Clflush) {
            out[1] |= CLFLUSH_LINE;
        }
        if self.model.generation() == Generation::Current {
            out[1] |= self.id.cpus.clamp(1, 255) << 16 | self.id.apic_id << 24;
        }
        if self.now.cr4 & cr4::OSXSAVE != 0 && self.model.has(Feature::Xsave) {
            out[2] |= OSXSAVE;
        }
        out
    }

    /// Bits of an APIC ID that number the CPUs of the package.
    fn id_bits(&self) -> u32 {
        self.id.cpus.max(1).next_power_of_two().trailing_zeros()
    }

    /// One package of cores of one thread.
    fn topology(&self, subleaf: u32) -> [u32; 4] {
        match subleaf {
            0 => [0, 1, 1 << 8, self.id.apic_id],
            1 => [self.id_bits(), self.id.cpus.max(1), 2 << 8 | 1, self.id.apic_id],
            n => [0, 0, n & 0xff, self.id.apic_id],
        }
    }

    /// Leaf 4: level 1 data and instruction caches of 32 KiB, level 2 of 512 KiB, all of a core's own, 8-way with 64-byte lines.
    fn cache(&self, subleaf: u32) -> [u32; 4] {
        let cores = ((1u32 << self.id_bits()) - 1).min(63) << 26;
        let describe = |kind: u32, level: u32, sets: u32| [kind | level << 5 | 1 << 8 | cores, 7 << 22 | 63, sets - 1, 0];
        match subleaf {
            0 => describe(1, 1, 64),
            1 => describe(2, 1, 64),
            2 => describe(3, 2, 1024),
            _ => [0; 4],
        }
    }

    fn extended_leaf(&self, leaf: u32) -> [u32; 4] {
        match leaf {
            0x8000_0000 => [MAX_EXTENDED, 0, 0, 0],
            0x8000_0002..=0x8000_0004 => {
                let at = (leaf - 0x8000_0002) as usize * 16;
                std::array::from_fn(|n| word(&self.id.brand, at + 4 * n))
            }
            // 512 KiB, 8-way, 64-byte lines.
            0x8000_0006 => [0, 0, 512 << 16 | 6 << 12 | 64, 0],
            0x8000_0008 => {
                let mut out = self.features(leaf, 0);
                out[0] = PHYS_BITS | if self.model.has(Feature::La57) { 57 } else { 48 } << 8;
                out
            }
            _ => self.features(leaf, 0),
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

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

impl Cpu {
    /// What CPUID answers, EAX to EDX.
    #[must_use]
    pub fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        const APIC_BASE: u32 = 0x1b;
        const APIC_ENABLE: u64 = 1 << 11;
        let apic = self.system.apic_read(APIC_BASE).is_some_and(|base| base & APIC_ENABLE != 0);
        let now = Now { apic, code64: self.code64(), cr4: self.cr4, xcr0: self.state.xcr0, xcr0_supported: self.xcr0_supported() };
        Described { model: self.model, id: &self.identity, now }.leaf(leaf, subleaf)
    }
}

/// CPUID: SDM Vol. 2, "CPUID—CPU Identification".
fn cpuid(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    let [eax, ebx, ecx, edx] = cpu.cpuid(cpu.reg(0) as u32, cpu.reg(1) as u32);
    for (r, value) in [(0, eax), (3, ebx), (1, ecx), (2, edx)] {
        cpu.set_gpr(r, Width::D, value.into());
    }
    Ok(())
}
