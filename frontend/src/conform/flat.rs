//! The bench that vectors run on: one CPU with a little RAM, no devices, and an engine.

use super::engine::{End, Final, Outcome, VectorEngine};
use super::regs::{Reg, RegFile};
use super::vector::{Mode, Model, PAGE, STACK_PAGE, Stop, Vector};
use egret_bus::{GuestRam, Phys};
use egret_cpu::cpu::Intercept;
use egret_cpu::interp::{Blocks, Execute};
use egret_cpu::state::{attention, cr0, cr4, efer};
use egret_cpu::{Cpu, Engine, Exit, Generation, SegReg, System};
use egret_isa::fp::f80::F80;
use egret_jit::JitEngine;
use std::collections::BTreeMap;

/// Real mode reaches to FFFF:FFFF. Bytes that no vector sets hold HLT, so that a stray jump ends at once.
const REAL_END: u64 = 0x11_0000;
/// Frames of vectors with paging: they map at most 16 MiB beside tables, code and stack. The first is the root table.
const FRAMES: u64 = 2 << 20;
const RAM: u64 = 24 << 20;
/// Longest run of a vector, in instructions.
const LIMIT: i64 = 1_000_000;
const HLT: u8 = 0xf4;
const PAGE_FAULT: u8 = 14;
/// ES and B of the x87 status word, which follow from the rest.
const STATUS_SUMMARY: u16 = 1 << 7 | 1 << 15;

/// A machine without devices.
struct NoDevices;

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

fn segment(selector: u16) -> Option<SegReg> {
    if selector & !3 == 0 {
        return Some(SegReg::new(selector, 0, 0, 0));
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
struct Pages {
    frames: BTreeMap<u64, u64>,
    next: u64,
}

impl Pages {
    fn frame(&mut self) -> u64 {
        self.next += PAGE;
        self.next
    }

    fn phys(&self, linear: u64) -> Option<u64> {
        Some(self.frames.get(&(linear & !(PAGE - 1)))? + (linear & (PAGE - 1)))
    }
}

/// Gates that user code may use: INT3 and INTO.
const USER_GATES: [u64; 2] = [3, 4];

/// Linear address of the bench's own pages, the GDT and behind it the IDT. Supervisor only.
fn table_page(mode: Mode) -> u64 {
    if mode == Mode::Long64 { 0xffff_8000_0000_0000 } else { 0xffff_e000 }
}

/// What the bench asks of an engine.
pub trait Core {
    /// Runs until the budget is used up or something ends it.
    fn run(&mut self, cpu: &mut Cpu) -> Exit;

    /// Runs exactly one instruction (one pass of a repeated string instruction); an error is why it cannot.
    fn step(&mut self, cpu: &mut Cpu) -> Result<(), &'static str>;

    /// Instructions that compiled code has executed, for an engine that compiles.
    fn compiled(&self) -> Option<u64> {
        None
    }
}

impl<X: Execute> Core for Blocks<X> {
    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        Blocks::run(self, cpu)
    }

    fn step(&mut self, cpu: &mut Cpu) -> Result<(), &'static str> {
        Blocks::step(self, cpu);
        Ok(())
    }
}

impl Core for JitEngine {
    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        Engine::run(self, cpu)
    }

    /// Compiled code stops at the ends of blocks. Behind the code of a vector stands HLT: one instruction too many can be taken
    /// back when it is that.
    fn step(&mut self, cpu: &mut Cpu) -> Result<(), &'static str> {
        cpu.state.budget = 1;
        Core::run(self, cpu);
        let halted = cpu.state.attention & attention::HALTED != 0;
        match cpu.state.budget {
            0.. => {}
            -1 if halted => {
                cpu.state.attention &= !attention::HALTED;
                cpu.state.rip = cpu.state.rip.wrapping_sub(1);
            }
            _ => return Err("the JIT cannot stop inside a block"),
        }
        Ok(())
    }

    fn compiled(&self) -> Option<u64> {
        Some(self.counters().compiled_insns)
    }
}

/// A bench with an engine.
pub struct Bench<C: Core> {
    cpu: Cpu,
    engine: C,
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
        Ok(Bench { cpu: Cpu::new(ram, Box::new(NoDevices)), engine, dirty: Vec::new() })
    }

    /// Loads a vector; an error is why it cannot run here.
    fn load(&mut self, v: &Vector) -> Result<Pages, String> {
        let start = v.initial();
        for at in self.dirty.drain(..) {
            self.cpu.write_phys(at, 1, HLT.into());
        }
        self.cpu.generation = if v.model == Model::I80286 { Generation::I80286 } else { Generation::Current };
        self.cpu.reset();
        self.cpu.unknown.clear();
        self.cpu.intercept = (!v.delivers).then_some(Intercept::Armed);
        let pages = match v.mode {
            Mode::Real => self.load_real(v, &start)?,
            Mode::Unknown(n) => return Err(format!("CPU mode {n} is unknown")),
            Mode::Protected16 | Mode::Protected32 | Mode::Long64 => self.load_paged(v, &start)?,
        };
        let cpu = &mut self.cpu;
        cpu.state.gpr = start.gpr;
        cpu.state.rip = start.rip;
        cpu.dr = start.dr;
        cpu.state.mxcsr = start.mxcsr;
        for (to, from) in cpu.state.xmm.iter_mut().zip(&start.vec) {
            *to = u128::from(from[0]) | u128::from(from[1]) << 64;
        }
        cpu.x87.cw = start.fcw;
        cpu.x87.sw = start.fsw & !STATUS_SUMMARY;
        cpu.x87.tag = start.x87_used;
        cpu.x87.regs = start.x87.map(|(frac, sign_exp)| F80 { sign_exp, frac });
        cpu.set_rflags(start.rflags);
        cpu.update_step_attention();
        cpu.update_context();
        Ok(pages)
    }

    fn load_real(&mut self, v: &Vector, start: &RegFile) -> Result<Pages, String> {
        let cpu = &mut self.cpu;
        cpu.cr0 = if start.cr[0] == 0 { cr0::ET } else { start.cr[0] };
        if cpu.cr0 & (cr0::PE | cr0::PG) != 0 {
            return Err("CR0.PE or CR0.PG is set in real mode".into());
        }
        cpu.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT;
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
        cpu.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG;
        cpu.cr3 = FRAMES;
        cpu.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT;
        cpu.efer = efer::NXE | if long { efer::LME | efer::LMA } else { 0 };
        cpu.cpl = v.cpl;
        cpu.gdtr.base = table_page(v.mode);
        cpu.gdtr.limit = 0xfff;
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
            self.page(&mut pages, v.mode, page, false, true, true, HLT)?;
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
        self.put(&pages, v.at, &v.code);
        for (selector, attr) in DESCRIPTORS {
            let limit: u64 = if attr & SegReg::G != 0 { 0xf_ffff } else { 0xffff };
            let low = limit & 0xffff | u64::from(attr & 0xff) << 40 | (limit >> 16) << 48 | u64::from(attr >> 12) << 52;
            self.put(&pages, tables + u64::from(selector), &low.to_le_bytes());
        }
        for vector in 0..256 {
            // A present interrupt gate. Nothing goes through it: exceptions are caught on the way.
            let user = if USER_GATES.contains(&vector) { 3 << 45 } else { 0_u64 };
            let size = if v.mode == Mode::Long64 { 16 } else { 8 };
            self.put(&pages, tables + PAGE + vector * size, &(0x8e00_0008_0000_u64 | user).to_le_bytes());
        }
        Ok(pages)
    }

    fn clear(&mut self, frame: u64) {
        for at in (frame..frame + PAGE).step_by(8) {
            self.cpu.write_phys(at, 8, 0);
        }
    }

    fn put(&mut self, pages: &Pages, at: u64, data: &[u8]) {
        for (n, byte) in data.iter().enumerate() {
            if let Some(phys) = pages.phys(at.wrapping_add(n as u64)) {
                self.cpu.write_phys(phys, 1, (*byte).into());
            }
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
            let word = u64::from_le_bytes([fill; 8]);
            for at in (frame..frame + PAGE).step_by(8) {
                self.cpu.write_phys(at, 8, word);
            }
        }
        Ok(())
    }

    fn execute(&mut self, v: &Vector) -> Result<End, &'static str> {
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

    /// Runs `n` instructions one by one. A repeated string instruction is one, however often it goes round.
    fn count(&mut self, v: &Vector, n: u64) -> Result<End, &'static str> {
        let repeats = v.code.iter().any(|b| matches!(b, 0xf2 | 0xf3));
        let (mut done, mut steps) = (0, 0);
        while done < n {
            let before = self.cpu.state.rip;
            self.engine.step(&mut self.cpu)?;
            let bits = self.cpu.state.attention;
            if bits & attention::SHUTDOWN != 0 {
                return Ok(End::Shutdown);
            }
            if bits & (attention::HALTED | attention::YIELD) != 0 {
                break;
            }
            steps += 1;
            if steps > LIMIT {
                return Ok(End::Runaway);
            }
            done += u64::from(!repeats || self.cpu.state.rip != before);
        }
        Ok(End::Stopped)
    }

    fn registers(&self) -> RegFile {
        let cpu = &self.cpu;
        let s = &cpu.state;
        let mut file = RegFile { gpr: s.gpr, rip: s.rip, rflags: cpu.rflags(), dr: cpu.dr, mxcsr: s.mxcsr, ..RegFile::default() };
        for (n, seg) in s.seg.iter().enumerate() {
            (file.sel[n], file.base[n]) = (seg.selector, seg.base);
        }
        (file.cr[0], file.cr[2], file.cr[3], file.cr[4]) = (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4);
        file.x87 = cpu.x87.regs.map(|r| (r.frac, r.sign_exp));
        (file.x87_used, file.fcw, file.fsw) = (cpu.x87.tag, cpu.x87.cw, cpu.x87.status_word());
        for (to, from) in file.vec.iter_mut().zip(&s.xmm) {
            *to = [*from as u64, (*from >> 64) as u64, 0, 0];
        }
        file
    }
}

impl<C: Core> VectorEngine for Bench<C> {
    fn run(&mut self, v: &Vector) -> Outcome {
        match v.model {
            Model::I80286 | Model::I80386 | Model::X8664V3 => {}
            ref model => return Outcome::Skipped(format!("model {model} not implemented")),
        }
        let pages = match self.load(v) {
            Ok(pages) => pages,
            Err(reason) => return Outcome::Skipped(reason),
        };
        let before = self.engine.compiled();
        let end = match self.execute(v) {
            Ok(end) => end,
            Err(reason) => return Outcome::Skipped(reason.into()),
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
