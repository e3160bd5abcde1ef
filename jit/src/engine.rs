//! The engine: cold code runs in the interpreter, hot code compiled.

#![allow(unsafe_code)]

mod requests;

use crate::cache::{Cache, Found};
use crate::compile::{CompileError, Compiler, Tuning};
use crate::dump::Dump;
use crate::frame;
use crate::host_fp;
use crate::memory::{CodeError, CodeMemory};
use crate::queue::{Key, Queue};
use crate::region::PAGE;
use crate::store::{Settings as StoreSettings, Store, fingerprint};
use crate::vm::{Stubs, Vm, canonical, exit};
use egret_cpu::Phys;
use egret_cpu::interp::{Cold, Next};
use egret_cpu::state::attention;
use egret_cpu::{Cpu, Engine, Exit, Interp, State};
use egret_isa::Feature;
use egret_isa::decode::MAX_LEN;
use egret_isa::insn::Ctx;
use requests::page_of;
use rustc_hash::{FxHashMap, FxHashSet};
use std::time::Duration;

/// Why there is no JIT.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// No compiler for this host.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// No memory for code.
    #[error(transparent)]
    Memory(#[from] CodeError),
    /// No memory for the jump cache.
    #[error("the host gave no memory for the jump cache: {0}")]
    Jumps(#[source] std::io::Error),
}

/// How the engine works.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often a block runs before it is compiled, at least 1.
    pub threshold: u32,
    /// Compile at once, on the engine's own thread, before the block runs: for tests.
    pub foreground: bool,
    /// Compile also what was never reached: for tests.
    pub unreached: bool,
    /// Compiler threads.
    pub threads: usize,
    /// Bytes of code memory.
    pub code_memory: usize,
    /// For Cranelift.
    pub tuning: Tuning,
    /// Where code is kept for the next run; without it, only for this one.
    pub store: Option<StoreSettings>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            threshold: 200,
            foreground: false,
            unreached: false,
            threads: compile_threads(),
            code_memory: 256 << 20,
            tuning: Tuning::default(),
            store: None,
        }
    }
}

/// One host thread is the guest's; what the host has beside it compiles, up to a few.
fn compile_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).clamp(1, 3))
}

/// Segments that code memory is evicted by.
const SEGMENTS: usize = 4;
/// Pages with changing code that are remembered.
const MAX_RESTLESS: usize = 1 << 16;
/// Kills of a page's code before it has to get hotter.
const PATIENCE: u32 = 3;
/// So many of its samples in a region make a loop that it is a part of worth being one, and every further four times as many; a power of
/// four.
const HOT_REGION: u32 = 16;
/// Regions that samples are counted for.
const MAX_SAMPLES: usize = 1 << 14;

/// Blocks entered less than this fraction of the threshold are left out of regions.
const WARM: u32 = 16;

// SAFETY: the one pointer in it, to the CPU, is set by the thread that enters compiled code and not used after that has returned.
unsafe impl Send for Vm {}

type Enter = unsafe extern "C" fn(*mut State, u64, u64) -> u64;

/// What the engine has counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Times compiled code was entered from the dispatcher.
    pub enters: u64,
    /// Instructions that compiled code executed.
    pub compiled_insns: u64,
    /// Exits by code.
    pub exits: [u64; 6],
    /// Regions compiled.
    pub regions: u64,
    /// Guest instructions compiled, each time counted.
    pub insns: u64,
    /// Bytes of code made.
    pub code_bytes: u64,
    /// Time compilers took.
    pub compile_time: Duration,
    /// Time requests waited.
    pub wait_time: Duration,
    /// Results that came too late: the code had changed.
    pub stale: u64,
    /// Requests that could not be compiled.
    pub failed: u64,
    /// Regions dropped because their code was written.
    pub killed: u64,
    /// Regions dropped to make room.
    pub evicted: u64,
    /// Times the jump cache was cleared.
    pub jump_clears: u64,
}

/// The JIT engine.
pub struct JitEngine {
    /// The interpreter for everything cold.
    pub interp: Interp,
    options: Options,
    vm: Box<Vm>,
    enter: Enter,
    memory: CodeMemory,
    cache: Cache,
    queue: Option<Queue>,
    /// What was compiled before, by what it was compiled from.
    store: Option<Store>,
    compiler: Option<Compiler>,
    /// Pages that something is compiled for, or waits to be: one request at a time.
    pending: FxHashSet<Key>,
    refused: FxHashSet<Key>,
    /// How often regions of a page were killed by writes: code that keeps changing has to get hotter each time.
    restless: FxHashMap<u64, u32>,
    /// How often a region, by number, was where the CPU was when its time was up.
    samples: FxHashMap<u32, u32>,
    link: bool,
    counters: Counters,
    dump: Option<Dump>,
}

impl JitEngine {
    /// An engine with default options.
    pub fn new() -> Result<JitEngine, JitError> {
        JitEngine::with(Options::default())
    }

    /// An engine that compiles every block before it first runs: for tests.
    pub fn foreground() -> Result<JitEngine, JitError> {
        JitEngine::with(Options { threshold: 1, foreground: true, code_memory: 16 << 20, ..Options::default() })
    }

    /// An engine.
    pub fn with(options: Options) -> Result<JitEngine, JitError> {
        let mut compiler = Compiler::new(options.tuning)?;
        let mut memory = CodeMemory::new((options.code_memory / SEGMENTS).max(64 << 10), SEGMENTS)?;
        // Stubs have a memory of their own, which is never evicted.
        let mut fixed = CodeMemory::new(64 << 10, 1)?;
        let mut addresses = Vec::new();
        for code in compiler.stubs()? {
            addresses.push(fixed.place(&code)?.address);
        }
        let [read, write, modify, call, cond, merge_flags, divide, float] = addresses[..] else {
            return Err(CompileError::Codegen("stubs are missing".to_owned()).into());
        };
        let stubs = Stubs { read, write, modify, call, cond, merge_flags, divide, float };
        let frame = fixed.place(&frame::ENTER)?.address;
        let enter = fixed.place(&compiler.trampoline(frame)?)?.address;
        memory.keep(fixed);
        let mut vm = Box::new(Vm::new().map_err(JitError::Jumps)?);
        vm.stubs = stubs;
        let store = (!options.foreground).then(|| Store::new(options.store.clone(), fingerprint(&compiler.settings())));
        let queue = if options.foreground { None } else { Some(Queue::new(options.threads.max(1), options.tuning)?) };
        Ok(JitEngine {
            interp: Interp::owned(options.threshold.max(1)),
            vm,
            // SAFETY: the code at this address was compiled with exactly this signature, and `memory` keeps it.
            enter: unsafe { std::mem::transmute::<usize, Enter>(enter as usize) },
            memory,
            cache: Cache::default(),
            queue,
            store,
            compiler: options.foreground.then_some(compiler),
            options: Options { threshold: options.threshold.max(1), ..options },
            pending: FxHashSet::default(),
            refused: FxHashSet::default(),
            restless: FxHashMap::default(),
            samples: FxHashMap::default(),
            link: false,
            counters: Counters::default(),
            dump: Dump::from_env(),
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Installed regions.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.cache.len()
    }

    /// Waits until the compiler has nothing left to do, and installs what it made: for tests and benchmarks.
    pub fn settle(&mut self, cpu: &mut Cpu) {
        while !self.pending.is_empty() {
            self.install_finished(cpu);
            std::thread::yield_now();
        }
    }

    fn run_loop(&mut self, cpu: &mut Cpu) -> Exit {
        loop {
            if cpu.spent() {
                cpu.keep_sti_shadow();
                return Exit::Budget;
            }
            if cpu.state.attention != 0 {
                if cpu.state.attention & attention::CODE_WRITE != 0 {
                    self.interp.drop_written(cpu);
                    self.follow_interp(cpu);
                }
                let next = self.interp.attend(cpu);
                self.follow_interp(cpu);
                if let Next::Leave(exit) = next {
                    return exit;
                }
                self.link = false;
                continue;
            }
            if !self.pending.is_empty() {
                self.install_finished(cpu);
            }
            self.next(cpu);
        }
    }

    /// Runs some code from the instruction pointer on.
    fn next(&mut self, cpu: &mut Cpu) {
        let link = std::mem::take(&mut self.link);
        let phys = match cpu.fetch_address(cpu.linear_ip()) {
            Ok(phys) => phys,
            Err(fault) => {
                cpu.state.budget -= 1;
                cpu.raise(fault);
                return;
            }
        };
        let ctx = cpu.state.ctx;
        if let Some(found) = self.look(cpu, phys, ctx).filter(|f| enterable(cpu, f)) {
            if link {
                self.remember(cpu, phys, found);
            }
            self.run_compiled(cpu, found);
            return;
        }
        let Ok(n) = self.interp.find(cpu) else {
            // The fault is found again and raised where blocks are run.
            self.interp.run_block(cpu);
            return;
        };
        match self.interp.run_cold(cpu, n) {
            Cold::Look => {}
            Cold::Compiled(n) => self.run_block(cpu, n),
            Cold::Hot(n) => {
                self.ask(cpu, n);
                self.run_block(cpu, n);
            }
        }
        self.follow_interp(cpu);
    }

    /// Code for a physical address: what is installed, or what was once compiled from the same bytes.
    #[inline]
    fn look(&mut self, cpu: &mut Cpu, phys: u64, ctx: Ctx) -> Option<Found> {
        match self.cache.recent(phys, ctx) {
            Some(found) => found,
            None => self.look_far(cpu, phys, ctx),
        }
    }

    #[cold]
    fn look_far(&mut self, cpu: &mut Cpu, phys: u64, ctx: Ctx) -> Option<Found> {
        if let Some(found) = self.cache.look_up(phys, ctx) {
            return Some(found);
        }
        let ram = &cpu.ram;
        // Where the page that follows is turns out when it is needed.
        let compiled = self.store.as_mut()?.find(phys, ctx, cpu.model().features(), |at, out| ram.read(Phys(at), out))?;
        self.install(cpu, compiled, false);
        self.cache.look_up(phys, ctx)
    }

    /// Runs the interpreter's block at the instruction pointer, compiled if it can be.
    fn run_block(&mut self, cpu: &mut Cpu, n: u32) {
        let Some(block) = self.interp.block(n) else { return };
        match self.cache.find(block.phys, block.ctx).filter(|f| enterable(cpu, f)) {
            Some(found) => self.run_compiled(cpu, found),
            None => self.interp.execute(cpu, n),
        }
    }

    fn run_compiled(&mut self, cpu: &mut Cpu, found: Found) {
        if self.vm.flushes != cpu.flushes() {
            self.forget_flushed(cpu);
        }
        let before = cpu.state.budget;
        let code = self.enter(cpu, found);
        self.counters.enters += 1;
        self.counters.compiled_insns = self.counters.compiled_insns.wrapping_add(before.wrapping_sub(cpu.state.budget) as u64);
        if let Some(n) = self.counters.exits.get_mut(code as usize) {
            *n += 1;
        }
        match code {
            exit::LINK => self.link = true,
            exit::INTERPRET => {
                let (at, ctx) = (cpu.linear_ip(), cpu.state.ctx);
                self.interp.step(cpu);
                self.follow_interp(cpu);
                if at & 0xfff > (PAGE - MAX_LEN) as u64 {
                    self.bind(cpu, at, ctx);
                }
            }
            exit::FAULT | exit::FAULT_COUNTED => {
                if code == exit::FAULT {
                    cpu.state.budget -= 1;
                }
                if let Some(fault) = self.vm.fault.take() {
                    cpu.raise(fault);
                }
            }
            _ => {}
        }
    }

    /// Enters compiled code: the exit code it comes back with.
    fn enter(&mut self, cpu: &mut Cpu, found: Found) -> u64 {
        self.vm.follow_key(cpu);
        let cpu: *mut Cpu = cpu;
        self.vm.cpu = cpu;
        // SAFETY: `found` is from the cache: its code was made by our compiler for this context from what the guest has
        // there, and code, entry and call sites live until the cache drops them, which only this thread does, later. The
        // code reaches the CPU through `vm` alone (the helpers), and both outlive the call, in which nobody else uses them.
        unsafe {
            let state: *mut State = &raw mut *(*cpu).state;
            (*state).engine = &raw mut *self.vm as u64;
            (*state).page = (*state).rip & !(PAGE as u64 - 1);
            self.vm.fpu.enter(&raw mut (*cpu).x87);
            host_fp::enter((*state).mxcsr);
            let code = (self.enter)(state, found.entry, found.code);
            host_fp::leave(&mut (*state).mxcsr);
            self.vm.cpu = std::ptr::null_mut();
            code
        }
    }

    /// Enters where the instruction pointer leads into the jump cache.
    fn remember(&mut self, cpu: &Cpu, phys: u64, found: Found) {
        if found.rip.is_some() {
            return;
        }
        let rip = cpu.state.rip;
        // Elsewhere the same instruction pointer may be another address tomorrow, and flushes are of addresses.
        if cpu.linear_ip() == rip && (cpu.code64() || cpu.state.ctx.has(Ctx::FLAT)) {
            self.vm.follow_key(cpu);
            let global = cpu.is_global_code(rip);
            if self.vm.add_jump(rip, (found.entry, found.code), global) {
                // Mostly the first of many into a page that is new to this address space.
                for (offset, found) in self.cache.entries_of(phys & !0xfff, cpu.state.ctx) {
                    self.vm.offer_jump(rip & !0xfff | u64::from(offset), (found.entry, found.code), global);
                }
            }
        }
    }

    /// Forgets the jumps to pages whose translation was flushed.
    fn forget_flushed(&mut self, cpu: &Cpu) {
        match cpu.flushed_since(self.vm.flushes) {
            Some(pages) => pages.for_each(|page| self.vm.forget_page(page)),
            None => self.clear_jumps(),
        }
        self.vm.flushes = cpu.flushes();
    }

    fn clear_jumps(&mut self) {
        self.vm.forget_jumps();
        self.link = false;
        self.counters.jump_clears += 1;
    }

    /// Takes over what became of regions, and tells the interpreter and the jump cache. Compiled code runs only after this.
    fn follow_cache(&mut self) {
        for (phys, ctx, compiled) in self.cache.changes.drain(..) {
            self.interp.set_compiled(phys, ctx, compiled);
        }
        for entry in self.cache.gone.drain(..) {
            self.vm.forget_entry(entry);
        }
    }

    /// Does to compiled code what the interpreter has just done to its blocks.
    fn follow_interp(&mut self, cpu: &mut Cpu) {
        if !self.interp.written.is_empty() {
            self.drop_written();
        }
        for page in std::mem::take(&mut self.interp.left) {
            if !self.cache.has_page(page) && !self.interp.has_page(page) {
                cpu.unmark_code(page);
            }
        }
    }

    #[cold]
    fn drop_written(&mut self) {
        let writes = std::mem::take(&mut self.interp.written);
        let mut killed = 0;
        for (at, len) in writes {
            let page = at.0 & !0xfff;
            let here = self.cache.kill_written(at.0, len);
            if here > 0 {
                if self.restless.len() >= MAX_RESTLESS {
                    self.restless.clear();
                }
                let n = self.restless.entry(page).or_default();
                *n = n.saturating_add(1);
            }
            killed += here;
            if let Some(queue) = &self.queue
                && !self.pending.is_empty()
            {
                for key in queue.drop_page(page) {
                    self.pending.remove(&page_of(key));
                }
            }
        }
        if killed > 0 {
            self.counters.killed += killed as u64;
            self.follow_cache();
        }
    }
}

/// Whether code may be entered here. Direct branches are compiled without a check that their target is canonical, so code
/// within reach of the hole in the address space is left to the interpreter.
fn enterable(cpu: &Cpu, found: &Found) -> bool {
    const REACH: u64 = (1 << 31) + 2 * PAGE as u64;
    let rip = cpu.state.rip;
    let clear = !cpu.code64() || [rip.wrapping_add(REACH), rip.wrapping_sub(REACH)].into_iter().all(|a| canonical(a) == a);
    clear && found.rip.is_none_or(|wanted| wanted == rip)
}

impl Engine for JitEngine {
    fn name(&self) -> &'static str {
        "jit"
    }

    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        self.link = false;
        self.vm.fpu.selectors = if cpu.model().has(Feature::FcsFds) { 0 } else { u16::MAX };
        let exit = self.run_loop(cpu);
        cpu.state.engine = 0;
        if exit == Exit::Budget {
            self.sample(cpu);
        }
        exit
    }

    fn flush(&mut self, cpu: &mut Cpu) {
        self.interp.clear(cpu);
        self.cache.clear();
        self.follow_interp(cpu);
        self.follow_cache();
        self.clear_jumps();
        self.refused.clear();
        self.restless.clear();
        for key in self.queue.iter().flat_map(Queue::clear) {
            self.pending.remove(&page_of(key));
        }
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let c = &self.counters;
        let stored = self.store.as_ref().map(|s| s.counters).unwrap_or_default();
        let micros = |d: Duration| d.as_micros() as u64;
        vec![
            ("jit.instructions", c.compiled_insns),
            ("jit.enters", c.enters),
            ("jit.exits.next", c.exits[exit::NEXT as usize]),
            ("jit.exits.link", c.exits[exit::LINK as usize]),
            ("jit.exits.interpret", c.exits[exit::INTERPRET as usize]),
            ("jit.exits.fault", c.exits[exit::FAULT as usize] + c.exits[exit::FAULT_COUNTED as usize]),
            ("jit.regions", c.regions),
            ("jit.regions_live", self.cache.len() as u64),
            ("jit.regions_killed", c.killed),
            ("jit.regions_evicted", c.evicted),
            ("jit.compiled_instructions", c.insns),
            ("jit.code_bytes", c.code_bytes),
            ("jit.code_bytes_live", self.cache.code_bytes as u64),
            ("jit.compile_us", micros(c.compile_time)),
            ("jit.wait_us", micros(c.wait_time)),
            ("jit.queue", self.pending.len() as u64),
            ("jit.stale", c.stale),
            ("jit.failed", c.failed),
            ("jit.jump_clears", c.jump_clears),
            ("jit.store.revived", stored.revived),
            ("jit.store.revived_instructions", stored.insns),
            ("jit.store.found", stored.stored),
            ("jit.store.refused", stored.refused),
            ("interp.instructions", self.interp.retired),
        ]
    }
}
