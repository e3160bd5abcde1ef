//! The XSAVE feature set (SDM Vol. 1, "Managing State Using the XSAVE Feature Set"): x87, SSE, AVX and PKRU state, in the
//! standard and the compacted format, with the init optimization.

use super::Function;
use super::fpu::{MXCSR_MASK, read_bytes, write_bytes};
use crate::Cpu;
use crate::fault::Fault;
use crate::state::{cr0, cr4};
use egret_isa::Feature;
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Mode, Seg};
use egret_isa::ops::Width;
use egret_isa::x87::X87;
use iced_x86::Mnemonic as M;

/// State components: bits of XCR0, RFBM, XSTATE_BV and XCOMP_BV.
pub mod component {
    #![allow(missing_docs)]
    pub const X87: u64 = 1;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
    pub const PKRU: u64 = 1 << 9;
}

use component::{AVX, PKRU, SSE, X87 as FPU};

/// Every component that Egret knows.
pub const KNOWN: u64 = FPU | SSE | AVX | PKRU;
/// XCOMP_BV: the compacted format.
const COMPACTED: u64 = 1 << 63;
const MXCSR_INIT: u32 = 0x1f80;
/// Bytes of the legacy region, and of it with the header behind it.
const LEGACY: u64 = 512;
const EXTENDED: u64 = 576;
const XMM_AT: u64 = 160;
const MXCSR_AT: u64 = 24;

/// A component beyond the legacy region.
struct Part {
    bit: u64,
    size: u32,
    /// Where the standard format has it.
    offset: u32,
}

const PARTS: [Part; 2] = [Part { bit: AVX, size: 256, offset: 576 }, Part { bit: PKRU, size: 8, offset: 832 }];

/// Bytes of a standard-format area that holds `components`.
fn standard_size(components: u64) -> u32 {
    PARTS.iter().filter(|p| components & p.bit != 0).map(|p| p.offset + p.size).max().unwrap_or(EXTENDED as u32)
}

/// Bytes of a compacted area that holds `components`.
fn compacted_size(components: u64) -> u32 {
    PARTS.iter().filter(|p| components & p.bit != 0).map(|p| p.size).sum::<u32>() + EXTENDED as u32
}

/// CPUID leaf 0Dh (SDM Vol. 2, "CPUID", "Processor Extended State Enumeration") of a processor with the components
/// `supported`, of which XCR0 has `xcr0` on. `features` is subleaf 1's EAX: XSAVEOPT, XSAVEC, XGETBV(1), XSAVES.
#[must_use]
pub fn leaf(supported: u64, xcr0: u64, features: u32, subleaf: u32) -> [u32; 4] {
    match subleaf {
        0 => [supported as u32, standard_size(xcr0), standard_size(supported), (supported >> 32) as u32],
        1 => [features, compacted_size(xcr0), 0, 0],
        _ => {
            let part = PARTS.iter().find(|p| supported & p.bit != 0 && p.bit.trailing_zeros() == subleaf);
            part.map_or([0; 4], |p| [p.size, p.offset, 0, 0])
        }
    }
}

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Xsave | M::Xsave64 => xsave,
        M::Xsaveopt | M::Xsaveopt64 => xsaveopt,
        M::Xsavec | M::Xsavec64 => xsavec,
        M::Xsaves | M::Xsaves64 => xsaves,
        M::Xrstor | M::Xrstor64 => xrstor,
        M::Xrstors | M::Xrstors64 => xrstors,
        M::Xgetbv => xgetbv,
        M::Xsetbv => xsetbv,
        M::Rdpkru => rdpkru,
        M::Wrpkru => wrpkru,
        _ => return None,
    })
}

fn wide(i: &Insn) -> bool {
    matches!(i.mnemonic, M::Xsave64 | M::Xsaveopt64 | M::Xsavec64 | M::Xsaves64 | M::Xrstor64 | M::Xrstors64)
}

/// The number of vector registers that the mode has.
fn registers(cpu: &Cpu) -> usize {
    if cpu.mode() == Mode::M64 { 16 } else { 8 }
}

/// An XSAVE area in memory.
struct Area {
    seg: Seg,
    at: u64,
    width: Width,
}

impl Area {
    /// #UD, then #NM, then the alignment.
    fn new(cpu: &mut Cpu, i: &Insn) -> Result<Area, Fault> {
        enabled(cpu)?;
        if cpu.cr0 & cr0::TS != 0 {
            return Err(Fault::NM);
        }
        let at = cpu.offset(i, &i.mem);
        let linear = cpu.linear(i.mem.seg, at, 1, false)?;
        if linear & 63 != 0 {
            return Err(Fault::GP0);
        }
        Ok(Area { seg: i.mem.seg, at, width: i.mem.width })
    }

    fn offset(&self, n: u64) -> u64 {
        self.at.wrapping_add(n) & self.width.mask()
    }

    fn read(&self, cpu: &mut Cpu, n: u64, out: &mut [u8]) -> Result<(), Fault> {
        read_bytes(cpu, self.seg, self.offset(n), self.width, out)
    }

    fn read_u64(&self, cpu: &mut Cpu, n: u64) -> Result<u64, Fault> {
        cpu.read(self.seg, self.offset(n), 8)
    }

    fn write(&self, cpu: &mut Cpu, n: u64, data: &[u8]) -> Result<(), Fault> {
        write_bytes(cpu, self.seg, self.offset(n), self.width, data)
    }

    /// Checks that the first `len` bytes can be written: they lie in two pages at most.
    fn probe(&self, cpu: &mut Cpu, len: u32) -> Result<(), Fault> {
        cpu.probe_write(self.seg, self.offset(0), 1)?;
        cpu.probe_write(self.seg, self.offset(u64::from(len) - 1), 1)
    }
}

fn enabled(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cr4 & cr4::OSXSAVE != 0 { Ok(()) } else { Err(Fault::UD) }
}

/// EDX:EAX and what is enabled.
fn requested(cpu: &Cpu) -> u64 {
    (cpu.reg(0) & 0xffff_ffff | cpu.reg(2) << 32) & cpu.state.xcr0
}

/// XSAVE: SDM Vol. 2, "XSAVE—Save Processor Extended States".
fn xsave(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let wanted = requested(cpu);
    save_standard(cpu, i, wanted, wanted)
}

/// XSAVEOPT: SDM Vol. 2. Of its two optimizations it makes the one for components in their initial configuration.
fn xsaveopt(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let wanted = requested(cpu);
    save_standard(cpu, i, wanted, wanted & cpu.in_use())
}

/// Stores the components `saved` of `wanted`, and merges XSTATE_BV.
fn save_standard(cpu: &mut Cpu, i: &Insn, wanted: u64, saved: u64) -> Result<(), Fault> {
    let area = Area::new(cpu, i)?;
    area.probe(cpu, standard_size(wanted))?;
    let old = area.read_u64(cpu, LEGACY)?;
    let in_use = cpu.in_use();
    save_legacy(cpu, &area, wide(i), saved)?;
    if wanted & (SSE | AVX) != 0 {
        save_mxcsr(cpu, &area)?;
    }
    for part in PARTS.iter().filter(|p| saved & p.bit != 0) {
        save_part(cpu, &area, part, part.offset.into())?;
    }
    area.write(cpu, LEGACY, &(old & !wanted | in_use & wanted).to_le_bytes())
}

/// XSAVEC: SDM Vol. 2, "XSAVEC—Save Processor Extended States With Compaction".
fn xsavec(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    save_compacted(cpu, i)
}

/// XSAVES: SDM Vol. 2, "XSAVES—Save Processor Extended States Supervisor". There are no supervisor components.
fn xsaves(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    enabled(cpu)?;
    cpu.privileged()?;
    save_compacted(cpu, i)
}

fn save_compacted(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let wanted = requested(cpu);
    let area = Area::new(cpu, i)?;
    area.probe(cpu, compacted_size(wanted))?;
    let saved = wanted & cpu.in_use_with_mxcsr();
    save_legacy(cpu, &area, wide(i), saved)?;
    if saved & SSE != 0 {
        save_mxcsr(cpu, &area)?;
    }
    let mut at = EXTENDED;
    for part in PARTS.iter().filter(|p| wanted & p.bit != 0) {
        if saved & part.bit != 0 {
            save_part(cpu, &area, part, at)?;
        }
        at += u64::from(part.size);
    }
    area.write(cpu, LEGACY, &saved.to_le_bytes())?;
    area.write(cpu, LEGACY + 8, &(wanted | COMPACTED).to_le_bytes())
}

fn save_legacy(cpu: &mut Cpu, area: &Area, wide: bool, saved: u64) -> Result<(), Fault> {
    if saved & FPU != 0 {
        let mut image = [0; 160];
        cpu.x87.fxsave(wide, &mut image);
        let (head, rest) = image.split_at(32);
        area.write(cpu, 0, head.get(..24).unwrap_or_default())?;
        area.write(cpu, 32, rest)?;
    }
    if saved & SSE != 0 {
        for n in 0..registers(cpu) {
            let value = cpu.state.xmm[n].to_le_bytes();
            area.write(cpu, XMM_AT + 16 * n as u64, &value)?;
        }
    }
    Ok(())
}

fn save_mxcsr(cpu: &mut Cpu, area: &Area) -> Result<(), Fault> {
    area.write(cpu, MXCSR_AT, &cpu.state.mxcsr.to_le_bytes())?;
    area.write(cpu, MXCSR_AT + 4, &MXCSR_MASK.to_le_bytes())
}

fn save_part(cpu: &mut Cpu, area: &Area, part: &Part, at: u64) -> Result<(), Fault> {
    if part.bit == PKRU {
        return area.write(cpu, at, &u64::from(cpu.pkru).to_le_bytes());
    }
    for n in 0..registers(cpu) {
        let value = cpu.state.ymm_hi[n].to_le_bytes();
        area.write(cpu, at + 16 * n as u64, &value)?;
    }
    Ok(())
}

/// XRSTOR: SDM Vol. 2, "XRSTOR—Restore Processor Extended States".
fn xrstor(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let area = Area::new(cpu, i)?;
    let header = Header::read(cpu, &area)?;
    if header.compacted() { restore_compacted(cpu, i, &area, &header) } else { restore_standard(cpu, i, &area, &header) }
}

/// XRSTORS: SDM Vol. 2, "XRSTORS—Restore Processor Extended States Supervisor". It takes the compacted format only.
fn xrstors(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    enabled(cpu)?;
    cpu.privileged()?;
    let area = Area::new(cpu, i)?;
    let header = Header::read(cpu, &area)?;
    if !header.compacted() {
        return Err(Fault::GP0);
    }
    restore_compacted(cpu, i, &area, &header)
}

/// The XSAVE header.
struct Header {
    xstate_bv: u64,
    xcomp_bv: u64,
    /// Bytes 16 to 63.
    rest: [u8; 48],
}

impl Header {
    fn read(cpu: &mut Cpu, area: &Area) -> Result<Header, Fault> {
        let mut header = Header { xstate_bv: area.read_u64(cpu, LEGACY)?, xcomp_bv: area.read_u64(cpu, LEGACY + 8)?, rest: [0; 48] };
        area.read(cpu, LEGACY + 16, &mut header.rest)?;
        Ok(header)
    }

    fn compacted(&self) -> bool {
        self.xcomp_bv & COMPACTED != 0
    }
}

/// SDM Vol. 1, "Standard Form of XRSTOR".
fn restore_standard(cpu: &mut Cpu, i: &Insn, area: &Area, h: &Header) -> Result<(), Fault> {
    let reserved = h.rest.iter().take(8).any(|b| *b != 0);
    if h.xstate_bv & !cpu.state.xcr0 != 0 || h.xcomp_bv != 0 || reserved {
        return Err(Fault::GP0);
    }
    let wanted = requested(cpu);
    // MXCSR comes from memory even when the SSE component is to be initialized.
    let mxcsr = if wanted & (SSE | AVX) != 0 { Some(load_mxcsr(cpu, area)?) } else { None };
    let new = Image::load(cpu, area, wide(i), wanted & h.xstate_bv, |p| p.offset.into())?;
    new.apply(cpu, wanted, mxcsr);
    Ok(())
}

/// SDM Vol. 1, "Compacted Form of XRSTOR".
fn restore_compacted(cpu: &mut Cpu, i: &Insn, area: &Area, h: &Header) -> Result<(), Fault> {
    let present = h.xcomp_bv & !COMPACTED;
    if present & !cpu.state.xcr0 != 0 || h.xstate_bv & !present != 0 || h.rest.iter().any(|b| *b != 0) {
        return Err(Fault::GP0);
    }
    let wanted = requested(cpu);
    let loaded = wanted & h.xstate_bv;
    let mxcsr = match (wanted & SSE != 0, loaded & SSE != 0) {
        (true, true) => Some(load_mxcsr(cpu, area)?),
        (true, false) => Some(MXCSR_INIT),
        _ => None,
    };
    let place = |part: &Part| {
        let before = PARTS.iter().take_while(|p| p.bit != part.bit).filter(|p| present & p.bit != 0);
        EXTENDED + before.map(|p| u64::from(p.size)).sum::<u64>()
    };
    let new = Image::load(cpu, area, wide(i), loaded, place)?;
    new.apply(cpu, wanted, mxcsr);
    Ok(())
}

fn load_mxcsr(cpu: &mut Cpu, area: &Area) -> Result<u32, Fault> {
    let value = cpu.read(area.seg, area.offset(MXCSR_AT), 4)? as u32;
    if value & !MXCSR_MASK != 0 { Err(Fault::GP0) } else { Ok(value) }
}

/// What was read of an area, all of it before any of it counts. What was not is in its initial configuration.
struct Image {
    x87: X87,
    xmm: [u128; 16],
    ymm_hi: [u128; 16],
    pkru: u32,
}

impl Image {
    fn load(cpu: &mut Cpu, area: &Area, wide: bool, loaded: u64, place: impl Fn(&Part) -> u64) -> Result<Image, Fault> {
        let mut new = Image { x87: X87::default(), xmm: [0; 16], ymm_hi: [0; 16], pkru: 0 };
        if loaded & FPU != 0 {
            let mut image = [0; 160];
            area.read(cpu, 0, &mut image)?;
            new.x87.fxrstor(wide, &image);
        }
        if loaded & SSE != 0 {
            load_registers(cpu, area, XMM_AT, &mut new.xmm)?;
        }
        for part in PARTS.iter().filter(|p| loaded & p.bit != 0) {
            let at = place(part);
            if part.bit == PKRU {
                new.pkru = area.read_u64(cpu, at)? as u32;
            } else {
                load_registers(cpu, area, at, &mut new.ymm_hi)?;
            }
        }
        Ok(new)
    }

    /// Puts the components `wanted` in place. Outside 64-bit mode registers 8 to 15 stay as they are.
    fn apply(self, cpu: &mut Cpu, wanted: u64, mxcsr: Option<u32>) {
        let n = registers(cpu);
        if wanted & FPU != 0 {
            cpu.x87 = self.x87;
        }
        if wanted & SSE != 0 {
            cpu.state.xmm[..n].copy_from_slice(&self.xmm[..n]);
        }
        if wanted & AVX != 0 {
            cpu.state.ymm_hi[..n].copy_from_slice(&self.ymm_hi[..n]);
        }
        if wanted & PKRU != 0 {
            cpu.set_pkru(self.pkru);
        }
        if let Some(mxcsr) = mxcsr {
            cpu.set_mxcsr(mxcsr);
        }
    }
}

fn load_registers(cpu: &mut Cpu, area: &Area, at: u64, out: &mut [u128; 16]) -> Result<(), Fault> {
    let n = registers(cpu);
    for (k, slot) in out.iter_mut().take(n).enumerate() {
        let mut bytes = [0; 16];
        area.read(cpu, at + 16 * k as u64, &mut bytes)?;
        *slot = u128::from_le_bytes(bytes);
    }
    Ok(())
}

/// XGETBV: SDM Vol. 2, "XGETBV—Get Value of Extended Control Register".
fn xgetbv(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    enabled(cpu)?;
    let value = match cpu.reg(1) as u32 {
        0 => cpu.state.xcr0,
        1 => cpu.state.xcr0 & cpu.in_use_with_mxcsr(),
        _ => return Err(Fault::GP0),
    };
    cpu.set_gpr(0, Width::D, value & 0xffff_ffff);
    cpu.set_gpr(2, Width::D, value >> 32);
    Ok(())
}

/// XSETBV: SDM Vol. 2, "XSETBV—Set Extended Control Register".
fn xsetbv(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    enabled(cpu)?;
    cpu.privileged()?;
    let value = cpu.reg(0) & 0xffff_ffff | cpu.reg(2) << 32;
    let lonely_avx = value & (SSE | AVX) == AVX;
    if cpu.reg(1) as u32 != 0 || value & FPU == 0 || lonely_avx || value & !cpu.xcr0_supported() != 0 {
        return Err(Fault::GP0);
    }
    cpu.state.xcr0 = value;
    cpu.update_context();
    Ok(())
}

fn keys_enabled(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cr4 & cr4::PKE == 0 {
        return Err(Fault::UD);
    }
    if cpu.reg(1) as u32 != 0 { Err(Fault::GP0) } else { Ok(()) }
}

/// RDPKRU: SDM Vol. 2, "RDPKRU—Read Protection Key Rights for User Pages".
fn rdpkru(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    keys_enabled(cpu)?;
    cpu.set_gpr(0, Width::D, cpu.pkru.into());
    cpu.set_gpr(2, Width::D, 0);
    Ok(())
}

/// WRPKRU: SDM Vol. 2, "WRPKRU—Write Data to User Page Key Register".
fn wrpkru(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    keys_enabled(cpu)?;
    if cpu.reg(2) as u32 != 0 {
        return Err(Fault::GP0);
    }
    cpu.set_pkru(cpu.reg(0) as u32);
    Ok(())
}

impl Cpu {
    /// The components that XCR0 may turn on.
    #[must_use]
    pub fn xcr0_supported(&self) -> u64 {
        let has = |f: Feature, bit: u64| if self.model().has(f) || !f.implemented() { bit } else { 0 };
        KNOWN & (FPU | SSE | has(Feature::Avx, AVX) | has(Feature::Pku, PKRU))
    }

    /// XINUSE: the components that are not in their initial configuration.
    fn in_use(&self) -> u64 {
        let s = &*self.state;
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        bit(self.x87 != X87::default(), FPU) | bit(s.xmm != [0; 16], SSE) | bit(s.ymm_hi != [0; 16], AVX) | bit(self.pkru != 0, PKRU)
    }

    /// XINUSE with MXCSR counted to the SSE component, as the compacting instructions and XGETBV do.
    fn in_use_with_mxcsr(&self) -> u64 {
        self.in_use() | if self.state.mxcsr == MXCSR_INIT { 0 } else { SSE }
    }
}
