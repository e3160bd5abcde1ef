//! Two engines side by side: a leader that runs the machine, and the interpreter, which repeats every step on a copy of
//! CPU and RAM with the leader's device answers. They are compared after every slice; the first difference stops the run.

use egret_bus::{GuestRam, Phys, RamError};
use egret_cpu::state::attention;
use egret_cpu::{Cpu, Engine, Exit, Interp, System};
use egret_isa::x87::X87;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

/// What passed between the CPU and the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    PortRead(u16, u8, u32),
    PortWrite(u16, u8, u32),
    MmioRead(u64, u8, u64),
    MmioWrite(u64, u8, u64),
    /// An interrupt or NMI was taken with this much budget left.
    Interrupt(i64, Option<u8>),
    Nmi(i64),
    Tsc(u64),
    Random(Option<u64>),
    /// IGNNE#.
    Ignne(bool),
    /// Address line 20 changed to this.
    A20(bool),
    ApicRead(u32, Option<u64>),
    ApicWrite(u32, u64, bool),
    Priority(u8),
    SetPriority(u8),
}

#[derive(Default)]
struct Log {
    events: VecDeque<Event>,
    /// Budget left at the last interrupt check.
    at: i64,
    error: Option<String>,
}

type SharedLog = Arc<Mutex<Log>>;

/// The leader's view: the real machine, written down.
struct Recording {
    inner: Box<dyn System>,
    log: SharedLog,
    a20: bool,
}

impl Recording {
    fn note(&self, event: Event) {
        self.log.lock().events.push_back(event);
    }
}

impl System for Recording {
    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        let v = self.inner.port_read(port, size);
        self.note(Event::PortRead(port, size, v));
        v
    }

    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.note(Event::PortWrite(port, size, value));
        self.inner.port_write(port, size, value);
    }

    fn mmio_read(&mut self, addr: Phys, size: u8) -> u64 {
        let v = self.inner.mmio_read(addr, size);
        self.note(Event::MmioRead(addr.0, size, v));
        v
    }

    fn mmio_write(&mut self, addr: Phys, size: u8, value: u64) {
        self.note(Event::MmioWrite(addr.0, size, value));
        self.inner.mmio_write(addr, size, value);
    }

    fn interrupt_pending(&mut self) -> bool {
        self.inner.interrupt_pending()
    }

    fn acknowledge(&mut self) -> Option<u8> {
        let v = self.inner.acknowledge();
        let mut log = self.log.lock();
        let at = log.at;
        log.events.push_back(Event::Interrupt(at, v));
        v
    }

    fn take_nmi(&mut self) -> bool {
        let taken = self.inner.take_nmi();
        if taken {
            let mut log = self.log.lock();
            let at = log.at;
            log.events.push_back(Event::Nmi(at));
        }
        taken
    }

    fn position(&mut self, budget: i64) {
        self.log.lock().at = budget;
    }

    fn tsc(&mut self) -> u64 {
        let v = self.inner.tsc();
        self.note(Event::Tsc(v));
        v
    }

    fn random(&mut self) -> Option<u64> {
        let v = self.inner.random();
        self.note(Event::Random(v));
        v
    }

    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        let v = self.inner.apic_read(msr);
        self.note(Event::ApicRead(msr, v));
        v
    }

    fn apic_write(&mut self, msr: u32, value: u64) -> bool {
        let ok = self.inner.apic_write(msr, value);
        self.note(Event::ApicWrite(msr, value, ok));
        ok
    }

    fn ignne(&mut self) -> bool {
        let v = self.inner.ignne();
        self.note(Event::Ignne(v));
        v
    }

    fn a20(&mut self) -> bool {
        let v = self.inner.a20();
        if v != self.a20 {
            self.a20 = v;
            self.note(Event::A20(v));
        }
        v
    }

    fn task_priority(&mut self) -> u8 {
        let v = self.inner.task_priority();
        self.note(Event::Priority(v));
        v
    }

    fn set_task_priority(&mut self, value: u8) {
        self.note(Event::SetPriority(value));
        self.inner.set_task_priority(value);
    }

    fn set_ferr(&mut self, level: bool) {
        self.inner.set_ferr(level);
    }

    fn wants_attention(&mut self) -> bool {
        self.inner.wants_attention()
    }
}

/// The follower's view: what the leader saw, in the same order.
struct Replay {
    log: SharedLog,
    at: i64,
    a20: bool,
}

impl Replay {
    fn next(&self) -> Option<Event> {
        self.log.lock().events.pop_front()
    }

    fn complain(&self, wanted: impl std::fmt::Debug, found: Option<Event>) {
        let mut log = self.log.lock();
        log.error.get_or_insert_with(|| format!("the interpreter did {wanted:?} where the leader did {found:?}"));
    }

    /// Takes the next event if `pick` accepts it.
    fn expect<T>(&self, wanted: impl std::fmt::Debug, pick: impl FnOnce(Event) -> Option<T>) -> Option<T> {
        let event = self.next();
        let picked = event.and_then(pick);
        if picked.is_none() {
            self.complain(wanted, event);
        }
        picked
    }
}

impl System for Replay {
    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        self.expect(("port_read", port, size), |e| match e {
            Event::PortRead(p, s, v) if (p, s) == (port, size) => Some(v),
            _ => None,
        })
        .unwrap_or(0)
    }

    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        let wanted = Event::PortWrite(port, size, value);
        self.expect(wanted, |e| (e == wanted).then_some(()));
    }

    fn mmio_read(&mut self, addr: Phys, size: u8) -> u64 {
        self.expect(("mmio_read", addr, size), |e| match e {
            Event::MmioRead(a, s, v) if (a, s) == (addr.0, size) => Some(v),
            _ => None,
        })
        .unwrap_or(0)
    }

    fn mmio_write(&mut self, addr: Phys, size: u8, value: u64) {
        let wanted = Event::MmioWrite(addr.0, size, value);
        self.expect(wanted, |e| (e == wanted).then_some(()));
    }

    fn position(&mut self, budget: i64) {
        self.at = budget;
    }

    fn interrupt_pending(&mut self) -> bool {
        matches!(self.log.lock().events.front(), Some(Event::Interrupt(at, _)) if *at == self.at)
    }

    fn acknowledge(&mut self) -> Option<u8> {
        self.expect("acknowledge", |e| match e {
            Event::Interrupt(_, v) => Some(v),
            _ => None,
        })
        .flatten()
    }

    fn ignne(&mut self) -> bool {
        self.expect("ignne", |e| match e {
            Event::Ignne(v) => Some(v),
            _ => None,
        })
        .unwrap_or(false)
    }

    fn a20(&mut self) -> bool {
        let mut log = self.log.lock();
        if let Some(Event::A20(v)) = log.events.front() {
            self.a20 = *v;
            log.events.pop_front();
        }
        self.a20
    }

    fn take_nmi(&mut self) -> bool {
        let mut log = self.log.lock();
        let due = matches!(log.events.front(), Some(Event::Nmi(at)) if *at == self.at);
        if due {
            log.events.pop_front();
        }
        due
    }

    fn tsc(&mut self) -> u64 {
        self.expect("tsc", |e| match e {
            Event::Tsc(v) => Some(v),
            _ => None,
        })
        .unwrap_or(0)
    }

    fn random(&mut self) -> Option<u64> {
        self.expect("random", |e| match e {
            Event::Random(v) => Some(v),
            _ => None,
        })
        .flatten()
    }

    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        self.expect(("apic_read", msr), |e| match e {
            Event::ApicRead(m, v) if m == msr => Some(v),
            _ => None,
        })
        .flatten()
    }

    fn apic_write(&mut self, msr: u32, value: u64) -> bool {
        self.expect(("apic_write", msr, value), |e| match e {
            Event::ApicWrite(m, v, ok) if (m, v) == (msr, value) => Some(ok),
            _ => None,
        })
        .unwrap_or(false)
    }

    fn task_priority(&mut self) -> u8 {
        self.expect("task_priority", |e| match e {
            Event::Priority(v) => Some(v),
            _ => None,
        })
        .unwrap_or(0)
    }

    fn set_task_priority(&mut self, value: u8) {
        let wanted = Event::SetPriority(value);
        self.expect(wanted, |e| (e == wanted).then_some(()));
    }
}

/// An engine that runs `leader` and checks it against the interpreter.
pub struct Lockstep {
    leader: Box<dyn Engine>,
    follower: Option<Follower>,
    slice: i64,
    compared: u64,
    since_memory: u64,
    report: Option<String>,
}

struct Follower {
    interp: Interp,
    cpu: Cpu,
    log: SharedLog,
}

/// Instructions between two comparisons of registers.
const SLICE: i64 = 2_000;
/// Instructions between two comparisons of all memory.
const MEMORY_EVERY: u64 = 50_000_000;

impl Lockstep {
    /// Checks `leader`.
    #[must_use]
    pub fn new(leader: Box<dyn Engine>) -> Lockstep {
        Lockstep { leader, follower: None, slice: SLICE, compared: 0, since_memory: 0, report: None }
    }

    /// The first difference found, as text for a person.
    #[must_use]
    pub fn difference(&self) -> Option<&str> {
        self.report.as_deref()
    }

    /// Instructions compared so far.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Makes the copy at the first run.
    fn start(&mut self, cpu: &mut Cpu) -> Result<(), RamError> {
        let regions: Vec<(Phys, u64)> = cpu.ram.regions().collect();
        let ram = GuestRam::new(&regions)?;
        copy_ram(&cpu.ram, &ram);
        let log = SharedLog::default();
        cpu.sync_a20();
        let a20 = cpu.system.a20();
        let inner = std::mem::replace(&mut cpu.system, Box::new(Replay { log: log.clone(), at: 0, a20 }));
        cpu.system = Box::new(Recording { inner, log: log.clone(), a20 });
        let mut copy = Cpu::new(ram, Box::new(Replay { log: log.clone(), at: 0, a20 }));
        copy.copy_from(cpu);
        self.follower = Some(Follower { interp: Interp::default(), cpu: copy, log });
        Ok(())
    }

    fn one_slice(&mut self, cpu: &mut Cpu) -> Exit {
        let Some(f) = self.follower.as_mut() else { return Exit::Shutdown };
        let whole = cpu.state.budget;
        let slice = whole.min(self.slice);
        let before = Snapshot::of(cpu);
        f.cpu.state.attention |= cpu.state.attention & attention::INTERRUPT;
        f.cpu.sync_a20();
        cpu.state.budget = slice;
        let exit = self.leader.run(cpu);
        let left = cpu.state.budget;
        f.follow(slice, left);
        let done = (slice - left).max(0) as u64;
        self.compared += done;
        self.since_memory += done;
        let memory = self.since_memory >= MEMORY_EVERY || exit == Exit::Shutdown;
        if memory {
            self.since_memory = 0;
        }
        self.report = f.compare(cpu, &before, memory);
        cpu.state.budget = whole - (slice - left);
        exit
    }
}

impl Follower {
    /// Runs the copy until its budget, `from` at the start, is `to`, taking the interrupts that the leader took where it took them.
    fn follow(&mut self, from: i64, to: i64) {
        self.cpu.state.budget = from;
        loop {
            let stop = match self.log.lock().events.front() {
                Some(Event::Interrupt(at, _) | Event::Nmi(at)) => Some(*at),
                _ => None,
            };
            let due = stop == Some(self.cpu.state.budget);
            if due {
                self.cpu.state.attention |= attention::INTERRUPT;
            } else if self.cpu.state.budget <= to || self.log.lock().error.is_some() {
                return;
            }
            self.advance(to.max(stop.unwrap_or(to)));
        }
    }

    /// Runs one block or, where that would be too much, one instruction.
    fn advance(&mut self, to: i64) {
        if self.cpu.state.attention != 0 {
            let before = self.cpu.state.budget;
            let leave = matches!(self.interp.attend(&mut self.cpu), egret_cpu::interp::Next::Leave(_));
            if self.cpu.state.budget != before {
                return;
            }
            if leave && self.cpu.state.attention & (attention::HALTED | attention::SHUTDOWN) != 0 {
                // The leader stops here too; if it did not, the comparison shows it.
                self.cpu.state.budget = to.min(self.cpu.state.budget);
                return;
            }
        }
        let left = self.cpu.state.budget - to;
        if left <= 0 {
            return;
        }
        let fits = match self.interp.find(&mut self.cpu) {
            Ok(n) => self.interp.block(n).is_some_and(|b| b.steps.len() as i64 <= left),
            Err(_) => true,
        };
        if fits {
            self.interp.run_block(&mut self.cpu);
        } else {
            self.interp.step(&mut self.cpu);
        }
    }

    fn compare(&mut self, cpu: &Cpu, before: &Snapshot, memory: bool) -> Option<String> {
        let (a, b) = (Snapshot::of(cpu), Snapshot::of(&self.cpu));
        let log = self.log.lock();
        let mut out = String::new();
        if let Some(error) = &log.error {
            let _ = writeln!(out, "{error}");
        } else if let Some(event) = log.events.front() {
            let _ = writeln!(out, "the leader did {event:?}, the interpreter did not");
        }
        if a != b {
            a.diff(&b, &mut out);
        }
        if memory && out.is_empty() {
            compare_ram(&cpu.ram, &self.cpu.ram, &mut out);
        }
        if out.is_empty() {
            return None;
        }
        let mut report = format!("lockstep difference in the slice from {:04x}:{:016x}\n", before.selectors[1], before.rip);
        before.listing(&mut self.cpu, &mut report);
        report.push_str(&out);
        Some(report)
    }
}

impl Engine for Lockstep {
    fn name(&self) -> &'static str {
        "lockstep"
    }

    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        if self.follower.is_none()
            && let Err(e) = self.start(cpu)
        {
            self.report = Some(e.to_string());
        }
        while self.report.is_none() {
            if cpu.state.budget <= 0 {
                return Exit::Budget;
            }
            let exit = self.one_slice(cpu);
            if exit != Exit::Budget {
                return if self.report.is_some() { Exit::Diverged } else { exit };
            }
        }
        Exit::Diverged
    }

    fn flush(&mut self, cpu: &mut Cpu) {
        self.leader.flush(cpu);
        if let Some(f) = self.follower.as_mut() {
            copy_ram(&cpu.ram, &f.cpu.ram);
            f.interp.flush(&mut f.cpu);
            f.cpu.copy_from(cpu);
        }
    }

    fn report(&self) -> Option<String> {
        self.report.clone()
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let mut stats = self.leader.stats();
        stats.push(("lockstep.compared", self.compared));
        stats
    }
}

/// The registers that are compared.
#[derive(PartialEq)]
struct Snapshot {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    xmm: [u128; 16],
    ymm_hi: [u128; 16],
    mxcsr: u32,
    selectors: [u16; 6],
    bases: [u64; 6],
    control: [u64; 5],
    cpl: u8,
    x87: X87,
}

const NAMES: [&str; 16] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

impl Snapshot {
    fn of(cpu: &Cpu) -> Snapshot {
        let s = &cpu.state;
        Snapshot {
            gpr: s.gpr,
            rip: s.rip,
            rflags: s.rflags(),
            xmm: s.xmm,
            ymm_hi: s.ymm_hi,
            mxcsr: s.mxcsr,
            selectors: s.seg.map(|s| s.selector),
            bases: s.seg.map(|s| s.base),
            control: [cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.efer],
            cpl: cpu.cpl,
            x87: cpu.x87.clone(),
        }
    }

    /// Lists what differs, the leader's value first.
    fn diff(&self, other: &Snapshot, out: &mut String) {
        let mut row = |name: &str, a: u128, b: u128| {
            if a != b {
                let _ = writeln!(out, "  {name:8} leader {a:#x}  interpreter {b:#x}");
            }
        };
        row("rip", self.rip.into(), other.rip.into());
        row("rflags", self.rflags.into(), other.rflags.into());
        row("mxcsr", self.mxcsr.into(), other.mxcsr.into());
        row("cpl", self.cpl.into(), other.cpl.into());
        for (n, name) in NAMES.iter().enumerate() {
            row(name, self.gpr[n].into(), other.gpr[n].into());
            row(&format!("xmm{n}"), self.xmm[n], other.xmm[n]);
            row(&format!("ymm{n} high"), self.ymm_hi[n], other.ymm_hi[n]);
        }
        for (n, name) in ["es", "cs", "ss", "ds", "fs", "gs"].iter().enumerate() {
            row(name, self.selectors[n].into(), other.selectors[n].into());
            row(&format!("{name}.base"), self.bases[n].into(), other.bases[n].into());
        }
        for (n, name) in ["cr0", "cr2", "cr3", "cr4", "efer"].iter().enumerate() {
            row(name, self.control[n].into(), other.control[n].into());
        }
        if self.x87 != other.x87 {
            let _ = writeln!(out, "  x87      leader {:x?}\n           interpreter {:x?}", self.x87, other.x87);
        }
    }

    /// The first instructions of the slice.
    fn listing(&self, cpu: &mut Cpu, out: &mut String) {
        for line in cpu.disassemble(self.bases[1].wrapping_add(self.rip), 16) {
            let _ = writeln!(out, "  {line}");
        }
    }
}

const CHUNK: usize = 1 << 20;

fn copy_ram(from: &GuestRam, to: &GuestRam) {
    let mut buffer = vec![0; CHUNK];
    each_chunk(from, |at, len| {
        if from.read(at, &mut buffer[..len]) && buffer[..len].iter().any(|b| *b != 0) {
            let _ = to.write(at, &buffer[..len]);
        }
    });
}

fn compare_ram(a: &GuestRam, b: &GuestRam, out: &mut String) {
    let (mut x, mut y) = (vec![0; CHUNK], vec![0; CHUNK]);
    each_chunk(a, |at, len| {
        let read = a.read(at, &mut x[..len]) && b.read(at, &mut y[..len]);
        if read
            && out.is_empty()
            && let Some(n) = (0..len).find(|n| x[*n] != y[*n])
        {
            let _ = writeln!(out, "  memory at {:#x}: leader {:02x}  interpreter {:02x}", at.0 + n as u64, x[n], y[n]);
        }
    });
}

fn each_chunk(ram: &GuestRam, mut f: impl FnMut(Phys, usize)) {
    for (base, len) in ram.regions() {
        let mut at = 0;
        while at < len {
            let n = (len - at).min(CHUNK as u64);
            f(base.offset(at), n as usize);
            at += n;
        }
    }
}
