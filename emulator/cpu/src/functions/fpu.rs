//! x87 instructions: the CPU's side of [`egret_isa::x87`], which has the arithmetic. Also FXSAVE and FXRSTOR.

use super::Function;
use crate::fault::{Fault, vector};
use crate::state::{attention, cr0, cr4};
use crate::{Cpu, Host};
use egret_isa::Feature;
use egret_isa::emit::{Emit, Unit};
use egret_isa::flags::{ARITH, CF, PF, ZF};
use egret_isa::insn::{Insn, Mode, Operand, Seg};
use egret_isa::ops::{Cond, Width};
use egret_isa::x87::{self, EnvFormat, Memory, X87Insn, X87Op};
use iced_x86::{Code, Mnemonic as M};
use std::sync::OnceLock;

/// The plan of an x87 instruction by its code.
fn plan(code: Code) -> Option<X87Insn> {
    static PLANS: OnceLock<Vec<Option<X87Insn>>> = OnceLock::new();
    PLANS.get_or_init(|| Code::values().map(x87::decode).collect()).get(code as usize).copied().flatten()
}

pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Fxsave | M::Fxsave64 => fxsave,
        M::Fxrstor | M::Fxrstor64 => fxrstor,
        _ if plan(i.code).is_some() => execute,
        _ => return None,
    })
}

/// Any x87 instruction, by its plan. SDM Vol. 1, "Programming with the x87 FPU".
fn execute(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Some(p) = plan(i.code) else { return Err(Fault::UD) };
    if p.op == X87Op::Wait {
        // WAIT heeds TS only together with MP, and ignores EM.
        if cpu.cr0 & (cr0::MP | cr0::TS) == cr0::MP | cr0::TS {
            return Err(Fault::NM);
        }
    } else {
        cpu.require(Unit::X87)?;
    }
    if !cpu.model().has(Feature::Fpu) {
        // Nobody answers: an ESC does nothing, but its operand is checked.
        if i.has_mem() {
            let at = cpu.offset(i, &i.mem);
            cpu.read(i.mem.seg, at, 2)?;
        }
        return Ok(());
    }
    if p.waits() && cpu.x87.pending_exception() && cpu.x87_exception(i)? {
        return Ok(());
    }
    let address = if i.has_mem() { Some(cpu.offset(i, &i.mem)) } else { None };
    if matches!(p.memory, Memory::Env | Memory::State) {
        image(cpu, i, p, address.unwrap_or(0))?;
        cpu.release_ferr();
        return Ok(());
    }
    let source = read_source(cpu, i, p, address)?;
    let check = cpu.x87.checkpoint();
    if p.records() {
        // Newer processors keep no selectors: CPUID leaf 7, EBX bit 13.
        let keeps = !cpu.model().has(Feature::FcsFds);
        let cs = if keeps { cpu.selector(Seg::Cs) as u16 } else { 0 };
        let ip = cpu.state.rip.wrapping_sub(i.len.into());
        let data = address.map(|a| (if keeps { cpu.state.seg[i.mem.seg as usize].selector } else { 0 }, a));
        cpu.x87.record(cpu.x87.fop, cs, ip, data);
    }
    let out = cpu.x87.execute(p, stack_operand(i), source);
    if p.records() && cpu.x87.pending_exception() {
        cpu.record_opcode(i);
    }
    cpu.release_ferr();
    if let Some(v) = out.store {
        match address {
            None => cpu.set_gpr(0, Width::W, v as u64),
            Some(at) => {
                if let Err(fault) = write_bytes(cpu, i.mem.seg, at, i.mem.width, &v.to_le_bytes()[..p.memory.bytes()]) {
                    cpu.x87.restore(check);
                    return Err(fault);
                }
            }
        }
    }
    if let Some((zf, pf, cf)) = out.eflags {
        let bit = |on: bool, mask: u32| if on { u64::from(mask) } else { 0 };
        cpu.set_flags_word(ARITH, bit(zf, ZF) | bit(pf, PF) | bit(cf, CF));
    }
    Ok(())
}

/// Executes an x87 instruction if it can neither fault nor touch anything but memory; false when it was left alone. The caller has
/// made sure that the x87 FPU can be used.
pub fn x87_quick(cpu: &mut Cpu, i: &Insn) -> bool {
    let Some(p) = plan(i.code) else { return false };
    if cpu.x87.pending_exception() || matches!(p.memory, Memory::Env | Memory::State) {
        return false;
    }
    if i.has_mem() {
        let at = cpu.offset(i, &i.mem);
        if !matches!(cpu.host_for(i.mem.seg, at, p.memory.bytes() as u8, p.stores()), Ok(Host::At(_))) {
            return false;
        }
    }
    execute(cpu, i).is_ok()
}

/// The number of the ST(i) operand that is not the implied ST(0).
#[must_use]
pub fn stack_operand(i: &Insn) -> u8 {
    match (i.ops[0], i.ops[1]) {
        (Operand::St(0), Operand::St(n)) | (Operand::St(n), _) => n,
        _ => 1,
    }
}

/// The condition of FCMOVcc, which iced does not tell.
fn condition(mnemonic: M) -> Cond {
    match mnemonic {
        M::Fcmovb => Cond::B,
        M::Fcmovnb => Cond::Ae,
        M::Fcmove => Cond::E,
        M::Fcmovne => Cond::Ne,
        M::Fcmovbe => Cond::Be,
        M::Fcmovnbe => Cond::A,
        M::Fcmovu => Cond::P,
        _ => Cond::Np,
    }
}

fn read_source(cpu: &mut Cpu, i: &Insn, p: X87Insn, address: Option<u64>) -> Result<u128, Fault> {
    if p.op == X87Op::ConditionalMove {
        return Ok(cpu.cond(condition(i.mnemonic)).into());
    }
    let Some(at) = address else { return Ok(0) };
    if p.stores() {
        // The operand is checked before the stack is touched.
        let size = p.memory.bytes() as u8;
        cpu.probe_write(i.mem.seg, at, size.min(8))?;
        if size > 8 {
            cpu.probe_write(i.mem.seg, at.wrapping_add(8) & i.mem.width.mask(), size - 8)?;
        }
        return Ok(0);
    }
    let mut bytes = [0; 16];
    read_bytes(cpu, i.mem.seg, at, i.mem.width, &mut bytes[..p.memory.bytes()])?;
    Ok(u128::from_le_bytes(bytes))
}

fn piece(len: usize, most: usize) -> usize {
    match len.min(most) {
        8.. => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Reads a memory image in the largest pieces that fit; the alignment of an image is checked as a whole.
pub(super) fn read_bytes(cpu: &mut Cpu, seg: Seg, at: u64, aw: Width, out: &mut [u8]) -> Result<(), Fault> {
    read_pieces(cpu, seg, at, aw, 8, out)
}

/// Reads a memory image in pieces of `most` bytes or less, of which each must be aligned where alignment is checked.
fn read_pieces(cpu: &mut Cpu, seg: Seg, at: u64, aw: Width, most: usize, out: &mut [u8]) -> Result<(), Fault> {
    let mut done = 0;
    while done < out.len() {
        let n = if out.len() > 10 && cpu.checks_alignment() { 1 } else { piece(out.len() - done, most) };
        let v = cpu.read(seg, at.wrapping_add(done as u64) & aw.mask(), n as u8)?;
        out[done..done + n].copy_from_slice(&v.to_le_bytes()[..n]);
        done += n;
    }
    Ok(())
}

/// Writes a memory image; its first and last byte are checked before anything is written.
pub(super) fn write_bytes(cpu: &mut Cpu, seg: Seg, at: u64, aw: Width, data: &[u8]) -> Result<(), Fault> {
    write_pieces(cpu, seg, at, aw, 8, data)
}

fn write_pieces(cpu: &mut Cpu, seg: Seg, at: u64, aw: Width, most: usize, data: &[u8]) -> Result<(), Fault> {
    let last = at.wrapping_add(data.len().saturating_sub(1) as u64) & aw.mask();
    cpu.probe_write(seg, at, 1)?;
    cpu.probe_write(seg, last, 1)?;
    let mut done = 0;
    while done < data.len() {
        let n = if data.len() > 10 && cpu.checks_alignment() { 1 } else { piece(data.len() - done, most) };
        let mut v = [0; 8];
        v[..n].copy_from_slice(&data[done..done + n]);
        cpu.write(seg, at.wrapping_add(done as u64) & aw.mask(), n as u8, u64::from_le_bytes(v))?;
        done += n;
    }
    Ok(())
}

/// FLDENV, FNSTENV, FRSTOR, FNSAVE.
fn image(cpu: &mut Cpu, i: &Insn, p: X87Insn, at: u64) -> Result<(), Fault> {
    let format = EnvFormat::new(i.opsize != Width::W, cpu.real_mode() || cpu.v86());
    let (seg, aw) = (i.mem.seg, i.mem.width);
    let word = if i.opsize == Width::W { 2 } else { 4 };
    let mut bytes = [0; 108];
    let loads = matches!(p.op, X87Op::LoadEnv | X87Op::LoadState);
    let whole = matches!(p.op, X87Op::LoadState | X87Op::StoreState { .. });
    let length = if whole { format.state_len() } else { format.env_len() };
    // Zen 4 touches the first word, then the last byte.
    let last = at.wrapping_add(length as u64 - 1) & aw.mask();
    for (place, size) in [(at, word as u8), (last, 1)] {
        if loads {
            cpu.read(seg, place, size)?;
        } else {
            cpu.probe_write(seg, place, size)?;
        }
    }
    match p.op {
        X87Op::LoadEnv => {
            let bytes = &mut bytes[..format.env_len()];
            read_pieces(cpu, seg, at, aw, word, bytes)?;
            cpu.x87.load_env(format, bytes);
        }
        X87Op::LoadState => {
            let bytes = &mut bytes[..format.state_len()];
            read_pieces(cpu, seg, at, aw, word, bytes)?;
            cpu.x87.load_state(format, bytes);
        }
        X87Op::StoreEnv { .. } => {
            let bytes = cpu.x87.env_image(format);
            write_pieces(cpu, seg, at, aw, word, &bytes[..format.env_len()])?;
            cpu.x87.mask_all();
        }
        _ => {
            let bytes = cpu.x87.state_image(format);
            write_pieces(cpu, seg, at, aw, word, &bytes[..format.state_len()])?;
            cpu.x87.init();
        }
    }
    Ok(())
}

/// Where an FXSAVE image is: #UD or #NM first, then the limit for the first four bytes (Zen 4), then alignment.
fn fx_address(cpu: &mut Cpu, i: &Insn) -> Result<u64, Fault> {
    if cpu.cr0 & cr0::EM != 0 || cpu.cr0 & cr0::TS != 0 {
        return Err(Fault::NM);
    }
    let at = cpu.offset(i, &i.mem);
    let linear = cpu.linear(i.mem.seg, at, 4, false)?;
    cpu.canonical(i.mem.seg, linear, 1)?;
    if linear & 15 != 0 { Err(Fault::GP0) } else { Ok(at) }
}

/// How many XMM registers an FXSAVE image holds in this mode; none with CR4.OSFXSR clear.
fn fx_registers(cpu: &Cpu) -> usize {
    match (cpu.cr4 & cr4::OSFXSR != 0, cpu.mode()) {
        (false, _) => 0,
        (true, Mode::M64) => 16,
        (true, _) => 8,
    }
}

/// Bits that may be set in MXCSR.
pub(super) const MXCSR_MASK: u32 = 0xffff;
const FX_LEN: usize = 512;

/// FXSAVE: SDM Vol. 2, "FXSAVE—Save x87 FPU, MMX Technology, and SSE State".
fn fxsave(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let at = fx_address(cpu, i)?;
    let mut legacy = [0; 160];
    cpu.x87.fxsave(i.mnemonic == M::Fxsave64, &mut legacy);
    legacy[24..28].copy_from_slice(&cpu.state.mxcsr.to_le_bytes());
    legacy[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    // The whole image is checked before the first byte is written.
    cpu.probe_write(i.mem.seg, at.wrapping_add(FX_LEN as u64 - 1) & i.mem.width.mask(), 1)?;
    write_bytes(cpu, i.mem.seg, at, i.mem.width, &legacy)?;
    for n in 0..fx_registers(cpu) {
        let bytes = cpu.state.xmm[n].to_le_bytes();
        write_bytes(cpu, i.mem.seg, at.wrapping_add(160 + 16 * n as u64), i.mem.width, &bytes)?;
    }
    Ok(())
}

/// FXRSTOR: SDM Vol. 2, "FXRSTOR—Restore x87 FPU, MMX, XMM, and MXCSR State".
fn fxrstor(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let at = fx_address(cpu, i)?;
    let mut image = [0; FX_LEN];
    cpu.read(i.mem.seg, at.wrapping_add(FX_LEN as u64 - 1) & i.mem.width.mask(), 1)?;
    read_bytes(cpu, i.mem.seg, at, i.mem.width, &mut image)?;
    let (legacy, rest) = image.split_at(160);
    let mxcsr = legacy.get(24..28).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let sse = cpu.cr4 & cr4::OSFXSR != 0;
    if sse && mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    if let Ok(legacy) = legacy.try_into() {
        cpu.x87.fxrstor(i.mnemonic == M::Fxrstor64, legacy);
    }
    if sse {
        cpu.set_mxcsr(mxcsr);
    }
    for (n, bytes) in rest.chunks_exact(16).take(fx_registers(cpu)).enumerate() {
        cpu.state.xmm[n] = bytes.try_into().map_or(0, u128::from_le_bytes);
    }
    Ok(())
}

impl Cpu {
    /// A waiting instruction found an unmasked exception: #MF, or FERR# with CR0.NE clear, at which the processor stops
    /// until an interrupt comes (SDM Vol. 1, "MS-DOS Compatibility Sub-mode"). False when the board asserts IGNNE#: the
    /// instruction is to be executed all the same.
    pub(crate) fn x87_exception(&mut self, i: &Insn) -> Result<bool, Fault> {
        if self.cr0 & cr0::NE != 0 {
            return Err(Fault::new(vector::MF));
        }
        self.ferr = true;
        self.system.set_ferr(true);
        if self.system.ignne() {
            return Ok(false);
        }
        self.state.rip = self.state.rip.wrapping_sub(i.len.into()) & self.ip_mask;
        self.state.attention |= attention::INTERRUPT;
        Ok(true)
    }

    /// Ends FERR# when the exception is gone.
    #[inline]
    fn release_ferr(&mut self) {
        if self.ferr && !self.x87.pending_exception() {
            self.ferr = false;
            self.system.set_ferr(false);
        }
    }

    /// Notes the opcode of an instruction that raised an unmasked exception. Processors since the Pentium 4 note no others
    /// (SDM Vol. 1, "Fopcode Compatibility Sub-mode").
    #[cold]
    fn record_opcode(&mut self, i: &Insn) {
        let start = self.linear_ip().wrapping_sub(i.len.into());
        let address = self.fault_address;
        let mut bytes = [0u8; 15];
        for (n, byte) in bytes.iter_mut().take(i.len.into()).enumerate() {
            let Ok(phys) = self.fetch_address(self.wrap_linear(start.wrapping_add(n as u64))) else { break };
            *byte = self.ram.load(egret_bus::Phys(phys), 1).unwrap_or(0) as u8;
        }
        self.fault_address = address;
        // Behind the prefixes: ESC, then ModRM.
        if let Some(at) = bytes.iter().position(|b| b & 0xf8 == 0xd8)
            && let Some(second) = bytes.get(at + 1)
        {
            self.x87.fop = u16::from(bytes[at] & 7) << 8 | u16::from(*second);
        }
    }

    /// Replaces MXCSR, of which the caller has checked the reserved bits.
    pub(crate) fn set_mxcsr(&mut self, v: u32) {
        self.state.mxcsr = v;
        self.update_context();
    }
}
