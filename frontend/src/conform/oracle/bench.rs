//! An engine on the oracle's memory: mapped once for each mode, so that a program costs little more than its instructions.

use super::program::{End, Outcome, Program};
use super::slot::{CODE_ONE, CODE_TWO, FILL, PAGE, PAGES, WINDOW};
use crate::conform::flat::{Bench, Core, FRAMES, segment};
use crate::conform::runner::EngineChoice;
use crate::conform::vector::{Access, Mode as VectorMode, Model, Place, Region, STACK_PAGE, Stop, Vector, Want};
use egret_bus::Phys;
use egret_cpu::cpu::Intercept;
use egret_cpu::{Exit, Interp, IrEngine, SegReg};
use egret_isa::insn::Mode;
use egret_jit::JitEngine;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest run of a program, in instructions.
const LIMIT: i64 = 200_000;

/// An engine that runs programs.
pub trait Engine {
    /// Runs a program; an error is a panic's message.
    fn run(&mut self, program: &Program, out: &mut Outcome) -> Result<(), String>;

    /// Whether compiled code executed in the last run.
    fn compiled(&self) -> bool;
}

/// Makes the engine of a name.
pub fn make(choice: EngineChoice) -> Result<Box<dyn Engine>, String> {
    Ok(match choice {
        EngineChoice::Interp => Box::new(Modes::new(|| Ok(Interp::default()))?),
        EngineChoice::Ir => Box::new(Modes::new(|| Ok(IrEngine::default()))?),
        EngineChoice::Jit => Box::new(Modes::new(|| JitEngine::foreground().map_err(|e| e.to_string()))?),
    })
}

/// One bench for each mode.
struct Modes<C: Core, F> {
    benches: [Option<One<C>>; 3],
    make: F,
    compiled: bool,
}

/// A bench with the oracle's window mapped.
struct One<C: Core> {
    bench: Bench<C>,
    /// RAM addresses of the pages: of `PAGES`, then of the code.
    pages: [u64; PAGES.len()],
    code: [u64; 3],
    segments: [SegReg; 6],
    /// The code that is in place.
    at: u64,
    bytes: Vec<u8>,
}

fn template(mode: Mode) -> Vector {
    let region = |at, len, write, execute, fill: u8| Region { at, len, access: Access { write, execute }, data: vec![fill; len as usize] };
    let mut regions = vec![region(CODE_ONE, PAGE, false, true, FILL), region(CODE_TWO, 2 * PAGE, false, true, FILL)];
    regions.extend(PAGES.iter().map(|(offset, write)| region(WINDOW + offset, PAGE, *write, false, 0)));
    Vector {
        name: String::new(),
        mnemonic: String::new(),
        place: Place { file: "oracle".into(), offset: 0 },
        model: Model::X8664V3,
        mode: match mode {
            Mode::M64 => VectorMode::Long64,
            Mode::M32 => VectorMode::Protected32,
            Mode::M16 => VectorMode::Protected16,
        },
        cpl: 3,
        code: vec![FILL],
        at: CODE_ONE,
        regions,
        bytes: Vec::new(),
        init: Vec::new(),
        stop: Stop::Hlt,
        want: Want::default(),
        delivers: false,
    }
}

impl<C: Core> One<C> {
    fn new(engine: C, mode: Mode) -> Result<One<C>, String> {
        let mut bench = Bench::new(engine)?;
        let found = bench.load(&template(mode))?;
        bench.cpu.set_model(super::rules::model());
        bench.engine.flush(&mut bench.cpu);
        let phys = |at: u64| found.phys(at).unwrap_or(0);
        let pages = PAGES.map(|(offset, _)| phys(WINDOW + offset));
        let code = [CODE_ONE, CODE_TWO, CODE_TWO + PAGE].map(phys);
        // The host has no page where other vectors have their stack.
        let mut table = FRAMES;
        let shifts: &[u32] = if mode == Mode::M64 { &[39, 30, 21, 12] } else { &[30, 21, 12] };
        for shift in shifts {
            let slot = table + (STACK_PAGE >> shift & 0x1ff) * 8;
            table = bench.cpu.read_phys(slot, 8) & 0xf_ffff_ffff_f000;
            if *shift == 12 {
                bench.cpu.write_phys(slot, 8, 0);
            }
        }
        // Nor has it the descriptors of user code at selectors 40h and 50h.
        for selector in [0x40, 0x50] {
            let at = bench.cpu.gdtr.base.wrapping_add(selector);
            bench.cpu.write_system(at, 8, 0).map_err(|f| format!("{f:?}"))?;
        }
        // But for Linux's per-CPU segment, whose limit is the CPU's number.
        let at = bench.cpu.gdtr.base.wrapping_add(0x78);
        bench.cpu.write_system(at, 8, 0x0040_f500_0000_0000).map_err(|f| format!("{f:?}"))?;
        bench.cpu.flush_tlb();
        let segments = bench.cpu.state.seg;
        Ok(One { bench, pages, code, segments, at: 0, bytes: Vec::new() })
    }

    fn phys(&self, at: u64) -> Option<u64> {
        let page = if at >= CODE_TWO { at.wrapping_sub(CODE_TWO) / PAGE + 1 } else { at.wrapping_sub(CODE_ONE) / PAGE };
        Some(self.code.get(usize::try_from(page).ok()?)? + at % PAGE)
    }

    fn put_code(&mut self, program: &Program) {
        let code = program.bytes();
        if self.at == program.at && self.bytes == code {
            return;
        }
        for n in 0..self.bytes.len() as u64 {
            if let Some(at) = self.phys(self.at + n) {
                self.bench.cpu.write_phys(at, 1, FILL.into());
            }
        }
        for (n, byte) in code.iter().enumerate() {
            if let Some(at) = self.phys(program.at + n as u64) {
                self.bench.cpu.write_phys(at, 1, (*byte).into());
            }
        }
        (self.at, self.bytes) = (program.at, code);
    }

    fn run(&mut self, program: &Program, out: &mut Outcome) {
        program.fill(&mut out.memory);
        for (page, at) in out.memory.iter().zip(self.pages) {
            let _ = self.bench.cpu.ram.write(Phys(at), page);
        }
        let cpu = &mut self.bench.cpu;
        cpu.state.attention = 0;
        cpu.inhibit = Default::default();
        cpu.cr2 = 0;
        cpu.cpl = 3;
        cpu.intercept = Some(Intercept::Armed);
        for (n, selector) in program.regs.sel.iter().enumerate() {
            cpu.state.seg[n] = segment(*selector).unwrap_or(self.segments[n]);
            if n >= 4 && program.mode == Mode::M64 {
                cpu.state.seg[n].base = program.regs.base[n];
            }
        }
        cpu.x87 = Default::default();
        self.put_code(program);
        self.bench.set_registers(&program.regs);
        self.bench.cpu.state.budget = LIMIT;
        let exit = self.bench.engine.run(&mut self.bench.cpu);
        let cpu = &mut self.bench.cpu;
        out.end = match (cpu.intercept, exit) {
            (Some(Intercept::Caught(vector, error)), _) => End::Fault(vector, error.unwrap_or(0), if vector == 14 { cpu.cr2 } else { 0 }),
            (_, Exit::Budget) => End::Runaway,
            _ => End::Nothing,
        };
        for (page, at) in out.memory.iter_mut().zip(self.pages) {
            let _ = cpu.ram.read(Phys(at), page);
        }
        out.pointers = (cpu.x87.fop, cpu.x87.fip, cpu.x87.fdp);
        out.regs = self.bench.registers();
    }
}

impl<C: Core, F: Fn() -> Result<C, String>> Modes<C, F> {
    fn new(make: F) -> Result<Modes<C, F>, String> {
        drop(make()?);
        Ok(Modes { benches: [None, None, None], make, compiled: false })
    }
}

impl<C: Core, F: Fn() -> Result<C, String>> Engine for Modes<C, F> {
    fn run(&mut self, program: &Program, out: &mut Outcome) -> Result<(), String> {
        let place = &mut self.benches[program.mode as usize];
        let one = match place {
            Some(one) => one,
            None => place.insert(One::new((self.make)()?, program.mode)?),
        };
        let before = one.bench.engine.compiled();
        let result = catch_unwind(AssertUnwindSafe(|| one.run(program, out)));
        self.compiled = before.is_some() && one.bench.engine.compiled() != before;
        result.map_err(|payload| {
            *place = None;
            let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
            format!("a panic: {}", text.unwrap_or("without a message"))
        })
    }

    fn compiled(&self) -> bool {
        self.compiled
    }
}
