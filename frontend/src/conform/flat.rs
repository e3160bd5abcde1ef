//! The bench that vectors run on: one CPU with a little RAM, no devices, and an engine.

use super::engine::{End, Final, Outcome, VectorEngine};
use super::regs::{Reg, RegFile};
use super::vector::{Mode, Model, PAGE, STACK_PAGE, Stop, Vector};
use egret_bus::{GuestRam, Phys};
use egret_cpu::cpu::Intercept;
use egret_cpu::interp::{Blocks, Execute};
use egret_cpu::state::{attention, cr0, cr4, efer};
use egret_cpu::{Cpu, Engine, Exit, SegReg, System};
use egret_isa::CpuModel;
use egret_isa::fp::f80::F80;
use egret_jit::JitEngine;
use egret_jit::vm::exit;
use iced_x86::{Decoder, DecoderOptions};
use std::collections::BTreeMap;

/// Real mode reaches to FFFF:FFFF. Bytes that no vector sets hold HLT, so that a stray jump ends at once.
const REAL_END: u64 = 0x11_0000;
/// Frames of vectors with paging: they map at most 16 MiB beside tables, code and stack. The first is the root table.
pub(super) const FRAMES: u64 = 2 << 20;
const RAM: u64 = 24 << 20;
/// Longest run of a vector, in instructions.
const LIMIT: i64 = 1_000_000;
const HLT: u8 = 0xf4;
const PAGE_FAULT: u8 = 14;
const GENERAL_PROTECTION: u8 = 13;
/// The x87, SSE and AVX states of XCR0.
const XCR0: u64 = 7;
/// ES and B of the x87 status word, which follow from the rest.
const STATUS_SUMMARY: u16 = 1 << 7 | 1 << 15;

/// A machine without devices, but with a source of numbers that differ.
#[derive(Default)]
struct NoDevices {
    drawn: u64,
}

impl System for NoDevices {
    fn port_read(&mut self, _port: u16, size: u8) -> u32 {
        // The pull-ups of an open bus.
        u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
    }
    fn port_write(&mut self, _port: u16, _size: u8, _value: u32) {}
    fn mmio_read(&mut self, _addr: Phys, _size: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _addr: Phys, _size: u8, _value: u64) {}
    fn interrupt_pending(&mut self) -> bool {
        false
    }
    fn acknowledge(&mut self) -> Option<u8> {
        None
    }
    fn tsc(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> Option<u64> {
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Some(self.drawn)
    }
}

/// The descriptors of the bench: (selector without RPL, attributes as in [`SegReg`]).
const DESCRIPTORS: [(u16, u16); 10] = [
    (0x08, 0xa09b),
    (0x10, 0xc093),
    (0x18, 0xc09b),
    (0x20, 0xc0fb),
    (0x28, 0xc0f3),
    (0x30, 0xa0fb),
    (0x38, 0x009b),
    (0x40, 0x00fb),
    (0x48, 0x0093),
    (0x50, 0x00f3),
];

/// The local descriptors of user code: (selector without RPL, attributes, limit). 16-bit code and data, 32-bit data, and data that
/// expands down; all start at [`LOCAL_BASE`].
const LOCAL: [(u16, u16, u32); 4] = [(0x0c, 0x00fb, 0xffff), (0x14, 0x00f3, 0xffff), (0x1c, 0x40f3, 0x97ff), (0x24, 0x40f7, 0x8fff)];
const LOCAL_BASE: u64 = 0x1000_0000;
/// Where in the page of the GDT the LDT is.
const LDT: u64 = 0x800;

pub(super) fn segment(selector: u16) -> Option<SegReg> {
    if selector & !3 == 0 {
        return Some(SegReg::new(selector, 0, 0, 0));
    }
    if let Some((_, attr, limit)) = LOCAL.iter().find(|d| d.0 == selector & !3) {
        return Some(SegReg::new(selector, LOCAL_BASE, *limit, *attr));
    }
    let attr = DESCRIPTORS.iter().find(|d| d.0 == selector & !3)?.1;
    let limit = if attr & SegReg::G != 0 { u32::MAX } else { 0xffff };
    Some(SegReg::new(selector, 0, limit, attr))
}

/// CS, and the data segments, of a mode and privilege level.
fn default_selectors(mode: Mode, cpl: u8) -> (u16, u16) {
    match (mode, cpl) {
        (Mode::Long64, 3) => (0x33, 0x2b),
        (Mode::Long64, _) => (0x08, 0x10),
        (Mode::Protected32, 3) => (0x23, 0x2b),
        (Mode::Protected32, _) => (0x18, 0x10),
        (_, 3) => (0x43, 0x53),
        _ => (0x38, 0x48),
    }
}

/// Where the vector's linear pages are in RAM.
#[derive(Default)]
pub(super) struct Pages {
    frames: BTreeMap<u64, u64>,
    next: u64,
}

impl Pages {
    fn frame(&mut self) -> u64 {
        self.next += PAGE;
        self.next
    }

    pub(super) fn phys(&self, linear: u64) -> Option<u64> {
        Some(self.frames.get(&(linear & !(PAGE - 1)))? + (linear & (PAGE - 1)))
    }
}

/// Gates that user code may use: INT3 and INTO.
const USER_GATES: [u64; 2] = [3, 4];

/// Linear address of the bench's own pages, the GDT and behind it the IDT. Supervisor only.
fn table_page(mode: Mode) -> u64 {
    if mode == Mode::Long64 { 0xffff_8000_0000_0000 } else { 0xb7ff_e000 }
}

/// The IDT: present interrupt gates. Nothing goes through them: exceptions are caught on the way.
fn gates(mode: Mode) -> Vec<u8> {
    let size = if mode == Mode::Long64 { 16 } else { 8 };
    let mut table = vec![0; 256 * size];
    for (vector, gate) in (0..).zip(table.chunks_exact_mut(size)) {
        let user = if USER_GATES.contains(&vector) { 3 << 45 } else { 0_u64 };
        gate[..8].copy_from_slice(&(0x8e00_0008_0000_u64 | user).to_le_bytes());
    }
    table
}

/// The bits of CR4 that let the vector use vector instructions.
fn features(v: &Vector) -> u64 {
    let modern = matches!(v.model, Model::X8664V3 | Model::Other(_));
    cr4::OSFXSR | cr4::OSXMMEXCPT | if modern { cr4::OSXSAVE | cr4::FSGSBASE } else { 0 }
}

/// How many instructions the code has, read from its start to its end.
fn instructions(v: &Vector) -> u64 {
    let mut decoder = Decoder::with_ip(v.mode.bits(), &v.code, 0, DecoderOptions::NONE);
    decoder.iter().take(64).count() as u64
}

/// What the bench asks of an engine.
pub trait Core {
    /// Runs until the budget is used up or something ends it.
    fn run(&mut self, cpu: &mut Cpu) -> Exit;

    /// Runs exactly one instruction (one pass of a repeated string instruction).
    fn step(&mut self, cpu: &mut Cpu);

    /// Runs the `n` instructions before the sentinel, a HLT at instruction pointer `sentinel`, in one go. False: something else
    /// ran, too, and the state is spoilt. `None` for an engine that does not stop at the ends of blocks alone.
    fn run_count(&mut self, _cpu: &mut Cpu, _n: Option<i64>, _sentinel: u64) -> Option<bool> {
        None
    }

    /// Forgets decoded and compiled code.
    fn flush(&mut self, cpu: &mut Cpu);

    /// Instructions that compiled code has executed, for an engine that compiles.
    fn compiled(&self) -> Option<u64> {
        None
    }
}

impl<X: Execute> Core for Blocks<X> {
    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        Blocks::run(self, cpu)
    }

    fn step(&mut self, cpu: &mut Cpu) {
        Blocks::step(self, cpu);
    }

    fn flush(&mut self, cpu: &mut Cpu) {
        self.clear(cpu);
    }
}

impl Core for JitEngine {
    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        Engine::run(self, cpu)
    }

    fn step(&mut self, cpu: &mut Cpu) {
        self.interp.step(cpu);
    }

    fn flush(&mut self, cpu: &mut Cpu) {
        Engine::flush(self, cpu);
    }

    /// Compiled code stops at the ends of blocks. Behind the code of a vector stands HLT: one instruction too many can be taken
    /// back when it is that, whether it has halted or, in user mode, has faulted.
    fn run_count(&mut self, cpu: &mut Cpu, n: Option<i64>, sentinel: u64) -> Option<bool> {
        cpu.state.budget = n.unwrap_or(LIMIT);
        Core::run(self, cpu);
        if n.is_some() && cpu.state.budget >= 0 || n.is_none() && cpu.state.attention & attention::SHUTDOWN != 0 {
            return Some(true);
        }
        if cpu.state.attention & attention::HALTED != 0 && cpu.state.rip == sentinel.wrapping_add(1) {
            cpu.state.attention &= !attention::HALTED;
            cpu.state.rip = sentinel;
        } else if matches!(cpu.intercept, Some(Intercept::Caught(GENERAL_PROTECTION, _))) && cpu.state.rip == sentinel {
            cpu.intercept = Some(Intercept::Armed);
        } else {
            let fault = matches!(cpu.intercept, Some(Intercept::Caught(..)));
            return Some(n.is_none() && fault);
        }
        Some(n.is_none() || cpu.state.budget == -1)
    }

    /// An instruction that faults in compiled code counts, too; one that is left to the interpreter does not.
    fn compiled(&self) -> Option<u64> {
        let c = self.counters();
        let faults = [exit::FAULT, exit::FAULT_COUNTED].iter().filter_map(|n| c.exits.get(*n as usize));
        Some(faults.fold(c.compiled_insns, |all, n| all.wrapping_add(*n)))
    }
}

/// The CPU that a vector speaks of; `None` when there is none here.
fn cpu_model(model: &Model) -> Option<CpuModel> {
    match model {
        Model::I8086 => CpuModel::named("8086"),
        Model::I80286 => CpuModel::named("286"),
        Model::I80386 => CpuModel::named("386"),
        Model::X8664V3 => Some(CpuModel::default()),
        Model::V30 => None,
        Model::Other(text) => text.parse().ok(),
    }
}

/// A bench with an engine.
pub struct Bench<C: Core> {
    pub(super) cpu: Cpu,
    pub(super) engine: C,
    /// Bytes that the last real-mode vector set or looked at; they are HLT again for the next.
    dirty: Vec<u64>,
}

impl<C: Core> Bench<C> {
    /// A new bench; an error says what the host refused.
    pub fn new(engine: C) -> Result<Bench<C>, String> {
        let ram = GuestRam::new(&[(Phys(0), RAM)]).map_err(|e| e.to_string())?;
        if !ram.write(Phys(0), &vec![HLT; REAL_END as usize]) {
            return Err("the bench's RAM is not there".into());
        }
        Ok(Bench { cpu: Cpu::new(ram, Box::<NoDevices>::default()), engine, dirty: Vec::new() })
    }

    /// Loads a vector; an error is why it cannot run here.
    pub(super) fn load(&mut self, v: &Vector) -> Result<Pages, String> {
        let start = v.initial();
        let model = cpu_model(&v.model).ok_or_else(|| format!("model {} not implemented", v.model))?;
        if model != self.cpu.model() {
            self.cpu.set_model(model);
            self.engine.flush(&mut self.cpu);
        }
        self.cpu.reset();
        self.cpu.unknown.clear();
        // Behind the reset, which forgets that code was written.
        for at in self.dirty.drain(..) {
            self.cpu.write_phys(at, 1, HLT.into());
        }
        self.cpu.intercept = (!v.delivers).then_some(Intercept::Armed);
        let pages = match v.mode {
            Mode::Real => self.load_real(v, &start)?,
            Mode::Unknown(n) => return Err(format!("CPU mode {n} is unknown")),
            Mode::Protected16 | Mode::Protected32 | Mode::Long64 => self.load_paged(v, &start)?,
        };
        self.set_registers(&start);
        Ok(pages)
    }

    /// Loads all registers but segment, control and system ones.
    pub(super) fn set_registers(&mut self, start: &RegFile) {
        let cpu = &mut self.cpu;
        cpu.state.gpr = start.gpr;
        cpu.state.rip = start.rip;
        cpu.dr = start.dr;
        cpu.state.mxcsr = start.mxcsr;
        if cpu.cr4 & cr4::OSXSAVE != 0 {
            cpu.state.xcr0 = XCR0;
        }
        for (n, from) in start.vec.iter().enumerate() {
            cpu.state.xmm[n] = u128::from(from[0]) | u128::from(from[1]) << 64;
            cpu.state.ymm_hi[n] = u128::from(from[2]) | u128::from(from[3]) << 64;
        }
        cpu.x87.cw = start.fcw;
        cpu.x87.sw = start.fsw & !STATUS_SUMMARY;
        cpu.x87.tag = start.x87_used;
        cpu.x87.regs = start.x87.map(|(frac, sign_exp)| F80 { sign_exp, frac });
        cpu.set_rflags(start.rflags);
        cpu.update_step_attention();
        cpu.update_context();
    }

    fn load_real(&mut self, v: &Vector, start: &RegFile) -> Result<Pages, String> {
        let cpu = &mut self.cpu;
        cpu.cr0 = if start.cr[0] == 0 { cr0::ET } else { start.cr[0] };
        if cpu.cr0 & (cr0::PE | cr0::PG) != 0 {
            return Err("CR0.PE or CR0.PG is set in real mode".into());
        }
        cpu.cr4 = features(v);
        for (n, seg) in cpu.state.seg.iter_mut().enumerate() {
            *seg = SegReg::real(start.sel[n], 0xffff, if n == 1 { 0x9b } else { 0x93 });
        }
        cpu.idtr.base = 0;
        cpu.idtr.limit = 0x3ff;
        for &(at, byte) in &v.bytes {
            if at >= REAL_END {
                return Err(format!("no memory at {at:#x}"));
            }
            cpu.write_phys(at, 1, byte.into());
            self.dirty.push(at);
        }
        self.dirty.extend(v.want.mem.iter().map(|m| m.at).filter(|at| *at < REAL_END));
        Ok(Pages::default())
    }

    fn load_paged(&mut self, v: &Vector, start: &RegFile) -> Result<Pages, String> {
        let named = |reg: Reg| v.init.iter().any(|(r, _)| *r == reg);
        let (code, data) = default_selectors(v.mode, v.cpl);
        for n in 0..6u8 {
            let selector = if named(Reg::Sel(n)) {
                start.sel[usize::from(n)]
            } else if n == 1 {
                code
            } else {
                data
            };
            let mut seg = segment(selector).ok_or_else(|| format!("selector {selector:#x} is not in the runner's GDT"))?;
            if named(Reg::Base(n)) {
                seg.base = start.base[usize::from(n)];
            }
            self.cpu.state.seg[usize::from(n)] = seg;
        }
        let pages = self.map(v)?;
        let cpu = &mut self.cpu;
        let long = v.mode == Mode::Long64;
        cpu.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::PG;
        cpu.cr3 = FRAMES;
        cpu.cr4 = cr4::PAE | features(v);
        cpu.efer = efer::NXE | if long { efer::LME | efer::LMA } else { 0 };
        if named(Reg::Cr(0)) {
            cpu.cr0 = start.cr[0] | cr0::PE | cr0::PG;
        }
        if named(Reg::Cr(4)) {
            cpu.cr4 = start.cr[4] | cr4::PAE;
        }
        cpu.cr2 = start.cr[2];
        cpu.cpl = v.cpl;
        // No TSS: ports are a matter of IOPL alone.
        cpu.tr = SegReg::null(0);
        cpu.gdtr.base = table_page(v.mode);
        cpu.gdtr.limit = LDT as u16 - 1;
        // A TSS too short for an I/O permission bitmap.
        cpu.tr = SegReg::new(0x68, table_page(v.mode) + PAGE - 0x60, 0x5f, 0x8b);
        cpu.ldtr = SegReg::new(0x60, table_page(v.mode) + LDT, 0x2f, 0x82);
        cpu.idtr.base = table_page(v.mode) + PAGE;
        cpu.idtr.limit = 0xfff;
        if !long {
            cpu.load_pdptes().map_err(|_| "the page tables were refused".to_owned())?;
        }
        Ok(pages)
    }

    /// Gives every page of the vector a frame and builds the page tables.
    fn map(&mut self, v: &Vector) -> Result<Pages, String> {
        let mut pages = Pages { frames: BTreeMap::new(), next: FRAMES };
        self.clear(FRAMES);
        let last = v.at.saturating_add(v.code.len() as u64 - 1);
        for page in (v.at & !(PAGE - 1)..=last).step_by(PAGE as usize) {
            // Whole programs at CPL 0 may keep data behind their code.
            self.page(&mut pages, v.mode, page, v.cpl == 0, true, true, HLT)?;
        }
        self.page(&mut pages, v.mode, STACK_PAGE, true, false, true, 0)?;
        let tables = table_page(v.mode);
        self.page(&mut pages, v.mode, tables, true, false, false, 0)?;
        self.page(&mut pages, v.mode, tables + PAGE, true, false, false, 0)?;
        for r in &v.regions {
            for page in (r.at..=r.at + (r.len - 1)).step_by(PAGE as usize) {
                self.page(&mut pages, v.mode, page, r.access.write, r.access.execute, true, 0)?;
            }
            self.put(&pages, r.at, &r.data);
        }
        for (at, byte) in &v.bytes {
            self.put(&pages, *at, &[*byte]);
        }
        self.put(&pages, v.at, &v.code);
        for (selector, attr) in DESCRIPTORS {
            let limit: u64 = if attr & SegReg::G != 0 { 0xf_ffff } else { 0xffff };
            let low = limit & 0xffff | u64::from(attr & 0xff) << 40 | (limit >> 16) << 48 | u64::from(attr >> 12) << 52;
            self.put(&pages, tables + u64::from(selector), &low.to_le_bytes());
        }
        for (selector, attr, limit) in LOCAL {
            let base = (LOCAL_BASE & 0xff_ffff) << 16 | (LOCAL_BASE >> 24) << 56;
            let low = base | u64::from(limit & 0xffff) | u64::from(attr & 0xff) << 40 | u64::from(attr >> 12) << 52;
            self.put(&pages, tables + LDT + u64::from(selector & !7), &low.to_le_bytes());
        }
        self.put(&pages, tables + PAGE, &gates(v.mode));
        Ok(pages)
    }

    fn clear(&mut self, frame: u64) {
        self.cpu.write_ram(frame, &[0; PAGE as usize]);
    }

    fn put(&mut self, pages: &Pages, mut at: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let here = data.len().min((PAGE - at % PAGE) as usize);
            let (piece, rest) = data.split_at(here);
            if let Some(phys) = pages.phys(at) {
                self.cpu.write_ram(phys, piece);
            }
            at = at.wrapping_add(here as u64);
            data = rest;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn page(&mut self, pages: &mut Pages, mode: Mode, linear: u64, write: bool, execute: bool, user: bool, fill: u8) -> Result<(), String> {
        if mode != Mode::Long64 && linear > 0xffff_ffff {
            return Err(format!("{linear:#x} is out of reach in mode {mode}"));
        }
        if mode == Mode::Long64 && (linear as i64) << 16 >> 16 != linear as i64 {
            return Err(format!("{linear:#x} is not canonical"));
        }
        let shifts: &[u32] = if mode == Mode::Long64 { &[39, 30, 21] } else { &[30, 21] };
        let mut table = FRAMES;
        for shift in shifts {
            let slot = table + (linear >> shift & 0x1ff) * 8;
            let mut entry = self.cpu.read_phys(slot, 8);
            if entry == 0 {
                let frame = pages.frame();
                self.clear(frame);
                // PDPTEs of PAE paging have no R/W and U/S bits.
                entry = frame | if *shift == 30 && mode != Mode::Long64 { 1 } else { 7 };
                self.cpu.write_phys(slot, 8, entry);
            }
            table = entry & 0xf_ffff_ffff_f000;
        }
        let frame = match pages.frames.get(&linear) {
            Some(frame) => *frame,
            None => pages.frame(),
        };
        if frame >= RAM {
            return Err("it maps more memory than the runner has".into());
        }
        let bits = 1 | u64::from(write) << 1 | u64::from(user) << 2 | u64::from(!execute) << 63;
        self.cpu.write_phys(table + (linear >> 12 & 0x1ff) * 8, 8, frame | bits);
        if pages.frames.insert(linear, frame).is_none() {
            self.cpu.write_ram(frame, &[fill; PAGE as usize]);
        }
        Ok(())
    }

    fn execute(&mut self, v: &Vector) -> Result<End, String> {
        let end = match v.stop {
            Stop::Hlt => {
                self.cpu.state.budget = LIMIT;
                match self.engine.run(&mut self.cpu) {
                    Exit::Halt => End::Stopped,
                    Exit::Shutdown => End::Shutdown,
                    Exit::Budget | Exit::Yield | Exit::Diverged => End::Runaway,
                }
            }
            Stop::Count(n) => self.count(v, n)?,
        };
        Ok(match self.cpu.intercept {
            Some(Intercept::Caught(vector, error)) => End::Fault { vector, error, cr2: (vector == PAGE_FAULT).then_some(self.cpu.cr2) },
            _ => end,
        })
    }

    /// Runs `n` instructions. A repeated string instruction is one, however often it goes round.
    fn count(&mut self, v: &Vector, n: u64) -> Result<End, String> {
        let repeats = v.code.iter().any(|b| matches!(b, 0xf2 | 0xf3));
        let sentinel = v.initial().rip.wrapping_add(v.code.len() as u64);
        // With repeats the end of the code is known only when all of it runs.
        if !repeats || instructions(v) == n {
            let budget = if repeats { None } else { Some(n.min(LIMIT as u64) as i64) };
            match self.engine.run_count(&mut self.cpu, budget, sentinel) {
                None => {}
                Some(true) if self.cpu.state.attention & attention::SHUTDOWN != 0 => return Ok(End::Shutdown),
                Some(true) => return Ok(End::Stopped),
                Some(false) => drop(self.load(v)?),
            }
        }
        Ok(self.one_by_one(n, repeats))
    }

    fn one_by_one(&mut self, n: u64, repeats: bool) -> End {
        let (mut done, mut steps) = (0, 0);
        while done < n {
            let before = self.cpu.state.rip;
            self.engine.step(&mut self.cpu);
            let bits = self.cpu.state.attention;
            if bits & attention::SHUTDOWN != 0 {
                return End::Shutdown;
            }
            if bits & (attention::HALTED | attention::YIELD) != 0 {
                break;
            }
            steps += 1;
            if steps > LIMIT {
                return End::Runaway;
            }
            done += u64::from(!repeats || self.cpu.state.rip != before);
        }
        End::Stopped
    }

    pub(super) fn registers(&self) -> RegFile {
        let cpu = &self.cpu;
        let s = &cpu.state;
        let mut file = RegFile { gpr: s.gpr, rip: s.rip, rflags: cpu.rflags(), dr: cpu.dr, mxcsr: s.mxcsr, ..RegFile::default() };
        for (n, seg) in s.seg.iter().enumerate() {
            (file.sel[n], file.base[n]) = (seg.selector, seg.base);
        }
        (file.cr[0], file.cr[2], file.cr[3], file.cr[4]) = (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4);
        file.x87 = cpu.x87.regs.map(|r| (r.frac, r.sign_exp));
        (file.x87_used, file.fcw, file.fsw) = (cpu.x87.tag, cpu.x87.cw, cpu.x87.status_word());
        for (to, (low, high)) in file.vec.iter_mut().zip(s.xmm.iter().zip(&s.ymm_hi)) {
            *to = [*low as u64, (*low >> 64) as u64, *high as u64, (*high >> 64) as u64];
        }
        file
    }
}

impl<C: Core> VectorEngine for Bench<C> {
    fn run(&mut self, v: &Vector) -> Outcome {
        let pages = match self.load(v) {
            Ok(pages) => pages,
            Err(reason) => return Outcome::Skipped(reason),
        };
        let before = self.engine.compiled();
        let end = match self.execute(v) {
            Ok(end) => end,
            Err(reason) => return Outcome::Skipped(reason),
        };
        let phys = |at: u64| if v.mode == Mode::Real { (at < REAL_END).then_some(at) } else { pages.phys(at) };
        let mem = v.want.mem.iter().map(|m| phys(m.at).map(|at| self.cpu.read_phys(at, 1) as u8)).collect();
        let unknown = self.cpu.unknown.keys().cloned().collect();
        Outcome::Ran(Box::new(Final {
            end,
            regs: self.registers(),
            mem,
            unknown,
            compiled: before.map(|n| self.engine.compiled() != Some(n)),
        }))
    }
}
