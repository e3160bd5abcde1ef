//! Running programs on one engine, and comparing it with the interpreter.

use super::bench::Bench;
use super::program::Program;
use egret_cpu::interp::Next;
use egret_cpu::state::attention;
use egret_cpu::{Cpu, Engine, Exit, Interp};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Instructions of one entry.
const BUDGET: i64 = 300;
/// Longest time of one entry. The promise is that a machine stops within a second; this is so long because other programs may
/// hold the host up.
const LIMIT: Duration = Duration::from_secs(60);

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Programs run.
    pub programs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries into them.
    pub entries: u64,
    /// Instructions executed.
    pub instructions: u64,
    /// Entries that halted: a handler, most of the time.
    pub halts: u64,
    /// Entries that ended in shutdown.
    pub shutdowns: u64,
    /// Entries that used their budget up.
    pub budgets: u64,
    /// Entries whose events the machine was to look at.
    pub yields: u64,
    /// Programs after which the engines differed, but which had written to the page tables they ran by.
    pub remapped: u64,
    /// The longest entry.
    pub longest: Duration,
}

/// What went wrong with a program.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The program.
    pub program: Program,
    /// Where it was entered.
    pub entry: usize,
    /// What happened.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Program { seed, start, code, offset, board, registers } = &self.program;
        writeln!(
            f,
            "seed {seed:#x}: {start:?} at {offset:#x}, board {board}, registers {registers:x?}, entered at {}: {}",
            self.entry, self.what
        )?;
        let mut decoder = iced_x86::Decoder::new(start.bits(), &code[self.entry..], iced_x86::DecoderOptions::NONE);
        let mut formatter = iced_x86::NasmFormatter::new();
        for insn in decoder.iter().take(8) {
            let mut text = String::new();
            iced_x86::Formatter::format(&mut formatter, &insn, &mut text);
            let at = self.entry + insn.ip() as usize;
            writeln!(f, "  {at:3}  {:02x?}  {text}", code.get(at..at + insn.len()).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// An engine, and the interpreter to compare it with.
pub struct Pair {
    make: fn() -> Box<dyn Engine>,
    engine: Box<dyn Engine>,
    bench: Bench,
    reference: Option<(Interp, Bench)>,
    /// Bytes between two entries into a program: more of them for an engine that is slow to start.
    pub stride: usize,
    /// Counts.
    pub totals: Totals,
}

impl Pair {
    /// Runs programs on the engine alone.
    #[must_use]
    pub fn alone(make: fn() -> Box<dyn Engine>) -> Pair {
        Pair { make, engine: make(), bench: Bench::default(), reference: None, stride: 4, totals: Totals::default() }
    }

    /// Runs programs on the engine and on the interpreter.
    #[must_use]
    pub fn compared(make: fn() -> Box<dyn Engine>) -> Pair {
        Pair { reference: Some(Default::default()), ..Pair::alone(make) }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Runs a program from all its entries. After a failure everything starts anew.
    pub fn run(&mut self, program: &Program) -> Result<(), Failure> {
        let mut at = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.entries(program, &mut at)));
        let what = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(what)) => what,
            Err(panic) => format!("panic: {}", message(&*panic)),
        };
        let (totals, stride) = (self.totals, self.stride);
        *self = if self.reference.is_some() { Pair::compared(self.make) } else { Pair::alone(self.make) };
        (self.totals, self.stride) = (totals, stride);
        Err(Failure { program: program.clone(), entry: at, what })
    }

    fn entries(&mut self, program: &Program, at: &mut usize) -> Result<(), String> {
        self.bench.load(program, &mut *self.engine);
        if let Some((interp, bench)) = &mut self.reference {
            bench.load(program, interp);
        }
        self.totals.programs += 1;
        self.totals.bytes += program.code.len() as u64;
        for entry in program.entries(self.stride) {
            *at = entry;
            if let Err(what) = self.entry(program, entry) {
                return self.unless_remapped(what);
            }
        }
        let Some((_, bench)) = &self.reference else { return Ok(()) };
        compare_memory(&self.bench.memory(), &bench.memory()).or_else(|what| self.unless_remapped(what))
    }

    /// A difference counts unless the program has written to page tables. Nothing says then when a translation changes (SDM Vol. 3,
    /// "Caching Translation Information"), and engines look translations up at different times.
    fn unless_remapped(&mut self, what: String) -> Result<(), String> {
        let Some((_, bench)) = &self.reference else { return Err(what) };
        if self.bench.page_tables_written() || bench.page_tables_written() {
            self.totals.remapped += 1;
            return Ok(());
        }
        Err(what)
    }

    fn entry(&mut self, program: &Program, entry: usize) -> Result<(), String> {
        self.bench.enter(program, entry);
        let cpu = &mut self.bench.cpu;
        cpu.state.budget = BUDGET;
        let before = Instant::now();
        let exit = self.engine.run(cpu);
        let took = before.elapsed();
        let totals = &mut self.totals;
        totals.entries += 1;
        totals.instructions += u64::try_from(BUDGET - cpu.state.budget).unwrap_or(0);
        totals.longest = totals.longest.max(took);
        match exit {
            Exit::Halt => totals.halts += 1,
            Exit::Shutdown => totals.shutdowns += 1,
            Exit::Budget => totals.budgets += 1,
            Exit::Yield if program.board => totals.yields += 1,
            other => return Err(format!("left with {other:?}")),
        }
        if took > LIMIT {
            return Err(format!("{BUDGET} instructions took {took:?}"));
        }
        let left = cpu.state.budget;
        match &mut self.reference {
            Some((interp, bench)) => {
                bench.enter(program, entry);
                follow(interp, &mut bench.cpu, left);
                compare(&self.bench, bench, exit)
            }
            None => Ok(()),
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

/// Runs the interpreter to where the other engine left: it may look at its budget at other places.
fn follow(interp: &mut Interp, cpu: &mut Cpu, to: i64) {
    cpu.state.budget = BUDGET;
    while cpu.state.budget > to {
        let before = cpu.state.budget;
        if cpu.state.attention != 0 {
            let next = interp.attend(cpu);
            if let Next::Leave(_) = next {
                return;
            }
            if cpu.state.budget != before || cpu.state.attention != 0 {
                continue;
            }
        }
        let left = cpu.state.budget - to;
        let fits = match interp.find(cpu) {
            Ok(n) => interp.block(n).is_some_and(|b| b.steps.len() as i64 <= left),
            Err(_) => true,
        };
        if fits {
            interp.run_block(cpu);
        } else {
            interp.step(cpu);
        }
    }
}

fn compare(engine: &Bench, reference: &Bench, exit: Exit) -> Result<(), String> {
    let mut out = String::new();
    for ((name, a), (_, b)) in registers(&engine.cpu).into_iter().zip(registers(&reference.cpu)) {
        if a != b {
            let _ = write!(out, "\n  {name}: engine {a:#x}, interpreter {b:#x}");
        }
    }
    let (a, b) = (&engine.cpu, &reference.cpu);
    let mut differs = |name: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug, same: bool| {
        if !same {
            let _ = write!(out, "\n  {name}: engine {a:x?}, interpreter {b:x?}");
        }
    };
    differs("segments", &a.state.seg, &b.state.seg, a.state.seg == b.state.seg);
    differs("ldtr", &a.ldtr, &b.ldtr, a.ldtr == b.ldtr);
    differs("tr", &a.tr, &b.tr, a.tr == b.tr);
    differs("gdtr", &a.gdtr, &b.gdtr, a.gdtr == b.gdtr);
    differs("idtr", &a.idtr, &b.idtr, a.idtr == b.idtr);
    differs("pdpte", &a.pdpte, &b.pdpte, a.pdpte == b.pdpte);
    differs("dr", &a.dr, &b.dr, a.dr == b.dr);
    differs("x87", &a.x87, &b.x87, a.x87 == b.x87);
    differs("NMI blocked", &a.inhibit.nmi, &b.inhibit.nmi, a.inhibit.nmi == b.inhibit.nmi);
    let (x, y) = (engine.outside.world.lock(), reference.outside.world.lock());
    differs("accesses", &x.accesses, &y.accesses, x.accesses == y.accesses);
    differs("digest of accesses", &x.digest, &y.digest, x.digest == y.digest);
    if out.is_empty() { Ok(()) } else { Err(format!("engines differ after {exit:?}{out}")) }
}

fn registers(cpu: &Cpu) -> Vec<(&'static str, u128)> {
    const GPR: [&str; 16] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    const XMM: [&str; 16] = [
        "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
        "xmm15",
    ];
    let s = &cpu.state;
    let m = &cpu.msr;
    let stopped = s.attention & (attention::HALTED | attention::SHUTDOWN);
    let mut all = vec![("rip", u128::from(s.rip)), ("rflags", s.rflags().into()), ("mxcsr", s.mxcsr.into()), ("cpl", cpu.cpl.into())];
    all.extend(GPR.iter().zip(s.gpr).map(|(name, v)| (*name, v.into())));
    all.extend(XMM.iter().zip(s.xmm).map(|(name, v)| (*name, v)));
    all.extend([("cr0", cpu.cr0), ("cr2", cpu.cr2), ("cr3", cpu.cr3), ("cr4", cpu.cr4), ("efer", cpu.efer)].map(|(n, v)| (n, v.into())));
    all.extend([("star", m.star), ("lstar", m.lstar), ("cstar", m.cstar), ("sfmask", m.sfmask)].map(|(n, v)| (n, v.into())));
    all.extend([("kernel gs", m.kernel_gs_base), ("pat", m.pat), ("tsc aux", m.tsc_aux)].map(|(n, v)| (n, v.into())));
    all.extend([("halted or shut down", u128::from(stopped)), ("budget left", s.budget as u128)]);
    all
}

fn compare_memory(a: &[u8], b: &[u8]) -> Result<(), String> {
    match a.iter().zip(b).position(|(x, y)| x != y) {
        Some(at) => Err(format!("memory differs at {at:#x}: engine {:02x}, interpreter {:02x}", a[at], b[at])),
        None => Ok(()),
    }
}
