//! Tier 0: runs cached decoded blocks. Also the precise fallback of the other tiers.

use crate::Cpu;
use crate::engine::{Engine, Exit};
use crate::fault::Fault;
use crate::functions::{self, Function};
use crate::state::attention;
use egret_bus::Phys;
use egret_isa::decode::{self, Decoded};
use egret_isa::insn::{Ctx, Insn};
use egret_isa::sem;
use rustc_hash::FxHashMap;

/// How an interpreter runs one instruction.
pub trait Execute: 'static {
    /// The engine's name on the command line.
    const NAME: &'static str;
    /// What is kept with a cached instruction.
    type Code: Send;
    /// Prepares an instruction for [`Execute::execute`].
    fn prepare(i: &Insn) -> Self::Code;
    /// Runs a prepared instruction, the instruction pointer being the next one's already.
    fn execute(code: &Self::Code, cpu: &mut Cpu, i: &Insn) -> Result<(), Fault>;
}

/// Runs an instruction by calling its semantics on the CPU.
pub struct Direct;

impl Execute for Direct {
    const NAME: &'static str = "interp";
    type Code = Function;

    fn prepare(i: &Insn) -> Function {
        functions::handler(i)
    }

    #[inline(always)]
    fn execute(code: &Function, cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
        code(cpu, i)
    }
}

/// An instruction with what runs it.
pub struct Step<X: Execute = Direct> {
    code: X::Code,
    /// The instruction.
    pub insn: Insn,
}

/// A decoded straight run of instructions within a page; only its last may reach into the next page. In one cache line.
#[repr(align(64))]
pub struct Block<X: Execute = Direct> {
    /// Physical address of the first byte.
    pub phys: u64,
    /// Its instructions.
    pub steps: Box<[Step<X>]>,
    /// When the last instruction crosses into the next page: that page's physical address.
    pub second: Option<u64>,
    /// The context it was decoded in.
    pub ctx: Ctx,
    /// How often it was entered.
    pub hits: u32,
    /// The value of `hits` at which an engine above is asked.
    ask: u32,
    /// The blocks that were last found to follow; a guess.
    next: [u32; 2],
    /// Bytes in all.
    pub bytes: u16,
    alive: bool,
    /// An engine above has code for it.
    compiled: bool,
}

/// Most instructions in a block.
const MAX_STEPS: usize = 64;
const FAST: usize = 1 << 14;
/// When this many blocks exist all are dropped; bounds memory on guests that generate code for ever.
const MAX_BLOCKS: usize = 1 << 18;

#[derive(Clone, Copy)]
struct FastEntry {
    phys: u64,
    ctx: Ctx,
    block: u32,
}

const NOWHERE: FastEntry = FastEntry { phys: u64::MAX, ctx: Ctx(u32::MAX), block: 0 };

/// Why [`Blocks::run_cold`] stopped.
pub enum Cold {
    /// The budget, [`crate::State::attention`], an exception, or code that was not decoded yet.
    Look,
    /// An engine above has code for this block, the next one.
    Compiled(u32),
    /// This block, the next one, has run as often as the threshold says, or a multiple of that.
    Hot(u32),
}

/// The interpreter.
pub type Interp = Blocks<Direct>;

/// A cache of decoded blocks and the loop over it.
pub struct Blocks<X: Execute> {
    blocks: Vec<Block<X>>,
    map: FxHashMap<(u64, Ctx), u32>,
    by_page: FxHashMap<u64, Vec<u32>>,
    fast: Vec<FastEntry>,
    /// Numbers of blocks that died.
    free: Vec<u32>,
    /// A block that was made for one run only.
    lost: Option<u32>,
    /// How often a block runs before an engine above hears of it.
    threshold: u32,
    /// Instructions run, by this interpreter.
    pub retired: u64,
    /// Writes to translated code that were dealt with, for an engine above that must deal with them too. It takes them away.
    pub written: Vec<(Phys, u64)>,
    /// An engine above has code of its own: it takes [`Blocks::left`] and says which pages are no longer marked as code.
    owned: bool,
    /// Pages left without blocks, when `owned`.
    pub left: Vec<u64>,
}

/// Writes kept for an engine above; when there is none the list must not grow.
const MAX_WRITTEN: usize = 4096;

impl<X: Execute> Default for Blocks<X> {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            map: FxHashMap::default(),
            by_page: FxHashMap::default(),
            fast: vec![NOWHERE; FAST],
            free: Vec::new(),
            lost: None,
            threshold: u32::MAX,
            retired: 0,
            written: Vec::new(),
            owned: false,
            left: Vec::new(),
        }
    }
}

/// What the block loop should do next.
pub enum Next {
    /// Go on with the next block.
    Go,
    /// Leave the engine.
    Leave(Exit),
}

impl<X: Execute> Blocks<X> {
    /// For an engine with code of its own (see [`Blocks::left`]): with [`Cold::Hot`] for every block each time it has run
    /// `threshold` times.
    #[must_use]
    pub fn owned(threshold: u32) -> Self {
        Self { owned: true, threshold, ..Self::default() }
    }

    /// Runs blocks until the budget is used up or the machine is needed.
    pub fn run(&mut self, cpu: &mut Cpu) -> Exit {
        loop {
            if cpu.spent() {
                cpu.keep_sti_shadow();
                return Exit::Budget;
            }
            if cpu.state.attention == 0 {
                match self.find(cpu) {
                    Ok(n) => {
                        if let Cold::Compiled(n) | Cold::Hot(n) = self.run_cold(cpu, n) {
                            self.execute(cpu, n);
                        }
                    }
                    Err(fault) => {
                        cpu.state.budget -= 1;
                        cpu.raise(fault);
                    }
                }
            } else if let Next::Leave(exit) = self.attend(cpu) {
                return exit;
            }
        }
    }

    /// Deals with [`attention`] bits at an instruction boundary: interrupts, halts, single steps, code writes. What it does
    /// may leave or raise others, so no block may run before they are looked at again.
    pub fn attend(&mut self, cpu: &mut Cpu) -> Next {
        let bits = cpu.state.attention;
        if bits & attention::CODE_WRITE != 0 {
            self.drop_written(cpu);
        }
        if bits & attention::SHUTDOWN != 0 {
            return Next::Leave(Exit::Shutdown);
        }
        if bits & attention::YIELD != 0 {
            cpu.state.attention &= !attention::YIELD;
            return Next::Leave(Exit::Yield);
        }
        if bits & attention::INTERRUPT != 0 && cpu.in_sti_shadow() {
            self.step(cpu);
            return Next::Go;
        }
        if bits & attention::SHADOW != 0 {
            cpu.state.attention &= !attention::SHADOW;
            self.step(cpu);
            return Next::Go;
        }
        if bits & attention::INTERRUPT != 0 {
            cpu.state.attention &= !attention::INTERRUPT;
            cpu.take_interrupt();
        }
        if cpu.state.attention & attention::HALTED != 0 {
            return Next::Leave(Exit::Halt);
        }
        if cpu.state.attention & attention::STEP != 0 {
            self.step(cpu);
        }
        Next::Go
    }

    /// Runs the block at the instruction pointer.
    pub fn run_block(&mut self, cpu: &mut Cpu) {
        match self.find(cpu) {
            Ok(n) => self.execute(cpu, n),
            Err(fault) => {
                cpu.state.budget -= 1;
                cpu.raise(fault);
            }
        }
    }

    /// Runs exactly one instruction (one iteration of a REP), with single-step and breakpoint semantics.
    pub fn step(&mut self, cpu: &mut Cpu) {
        cpu.state.budget -= 1;
        self.retired += 1;
        if cpu.instruction_breakpoint() {
            return;
        }
        let trap = cpu.flag(crate::state::rflags::TF);
        let before = cpu.state.rip;
        let result = self.decode_one(cpu).and_then(|insn| run_insn::<X>(cpu, &X::prepare(&insn), &insn).map(|()| insn));
        match result {
            Ok(insn) => cpu.after_step(trap, branched(cpu, &insn, before)),
            Err(fault) => cpu.raise(fault),
        }
        if cpu.state.attention & attention::CODE_WRITE != 0 {
            self.drop_written(cpu);
        }
    }

    /// Runs a block that [`Blocks::find`] found at the instruction pointer.
    pub fn execute(&mut self, cpu: &mut Cpu, n: u32) {
        let Some(block) = self.blocks.get_mut(n as usize) else { return };
        block.hits = block.hits.saturating_add(1);
        run_steps(cpu, &block.steps, &mut self.retired);
    }

    /// Runs block `n`, which [`Blocks::find`] found at the instruction pointer, and what follows it, as long as that is
    /// known, cold, and nothing else is to be done.
    pub fn run_cold(&mut self, cpu: &mut Cpu, mut n: u32) -> Cold {
        loop {
            let Some(block) = self.blocks.get_mut(n as usize) else { return Cold::Look };
            if block.compiled {
                return Cold::Compiled(n);
            }
            if block.hits >= block.ask {
                block.ask = block.ask.saturating_add(self.threshold);
                return Cold::Hot(n);
            }
            block.hits += 1;
            if !run_steps(cpu, &block.steps, &mut self.retired) || cpu.spent() {
                return Cold::Look;
            }
            match self.follow(cpu, n) {
                Some(next) => n = next,
                None => return Cold::Look,
            }
        }
    }

    /// The block at the instruction pointer after `n` has run, if it is known.
    #[inline]
    fn follow(&mut self, cpu: &mut Cpu, n: u32) -> Option<u32> {
        // A fault is found again and raised where blocks are looked for.
        let phys = cpu.fetch_address(cpu.linear_ip()).ok()?;
        let ctx = cpu.state.ctx;
        let guesses = self.blocks.get(n as usize)?.next;
        for guess in guesses {
            let right = |b: &Block<X>| b.phys == phys && b.ctx == ctx && b.alive && b.second.is_none();
            if self.blocks.get(guess as usize).is_some_and(right) {
                return Some(guess);
            }
        }
        let found = self.known(phys, ctx)?;
        if let Some(block) = self.blocks.get_mut(n as usize) {
            block.next = [found, block.next[0]];
        }
        Some(found)
    }

    /// The block at a physical address, if there is one that lies in one page.
    fn known(&mut self, phys: u64, ctx: Ctx) -> Option<u32> {
        let slot = &mut self.fast[fast_index(phys)];
        if slot.phys == phys && slot.ctx == ctx {
            return Some(slot.block);
        }
        let n = *self.map.get(&(phys, ctx))?;
        let block = self.blocks.get(n as usize).filter(|b| b.alive && b.second.is_none())?;
        *slot = FastEntry { phys, ctx, block: n };
        debug_assert_eq!(block.phys, phys);
        Some(n)
    }

    /// Notes that an engine above has code for the block at a physical address, or has it no more.
    pub fn set_compiled(&mut self, phys: u64, ctx: Ctx, compiled: bool) {
        if let Some(n) = self.map.get(&(phys, ctx))
            && let Some(block) = self.blocks.get_mut(*n as usize)
        {
            block.compiled = compiled;
        }
    }

    /// The block at the instruction pointer, decoded if need be.
    pub fn find(&mut self, cpu: &mut Cpu) -> Result<u32, Fault> {
        let linear = cpu.linear_ip();
        let phys = cpu.fetch_address(linear)?;
        let ctx = cpu.state.ctx;
        let slot = &self.fast[fast_index(phys)];
        if slot.phys == phys && slot.ctx == ctx {
            return Ok(slot.block);
        }
        self.find_slow(cpu, linear, phys, ctx)
    }

    /// A block by number.
    #[must_use]
    pub fn block(&self, n: u32) -> Option<&Block<X>> {
        self.blocks.get(n as usize)
    }

    /// The blocks that start in a physical page, in a context: (offset in the page, how often entered).
    pub fn starts(&self, page: u64, ctx: Ctx) -> impl Iterator<Item = (u16, u32)> + '_ {
        let list = self.by_page.get(&(page >> 12)).map(Vec::as_slice).unwrap_or_default();
        let blocks = list.iter().filter_map(|n| self.blocks.get(*n as usize));
        blocks.filter(move |b| b.alive && b.ctx == ctx && b.phys >> 12 == page >> 12).map(|b| ((b.phys & 0xfff) as u16, b.hits))
    }

    #[cold]
    fn find_slow(&mut self, cpu: &mut Cpu, linear: u64, phys: u64, ctx: Ctx) -> Result<u32, Fault> {
        let known = self.map.get(&(phys, ctx)).copied();
        let block = match known.and_then(|n| self.blocks.get(n as usize).map(|b| (n, b.second))) {
            Some((n, None)) => n,
            Some((n, Some(second))) => {
                // The part in the next page may be mapped elsewhere by now; such blocks are checked every time.
                let next = (linear | 0xfff).wrapping_add(1);
                if cpu.fetch_address(next)? == second {
                    return Ok(n);
                }
                self.kill(n);
                self.unlist(n, phys);
                self.unlist(n, second);
                self.build(cpu, linear, phys, ctx)?
            }
            None => self.build(cpu, linear, phys, ctx)?,
        };
        if self.blocks[block as usize].alive && self.blocks[block as usize].second.is_none() {
            self.fast[fast_index(phys)] = FastEntry { phys, ctx, block };
        }
        Ok(block)
    }

    fn build(&mut self, cpu: &mut Cpu, linear: u64, phys: u64, ctx: Ctx) -> Result<u32, Fault> {
        if self.blocks.len() - self.free.len() >= MAX_BLOCKS {
            self.clear(cpu);
        }
        let mut steps: Vec<Step<X>> = Vec::new();
        let (mut bytes, mut second) = (0u64, None::<u64>);
        let room = 0x1000 - (phys & 0xfff);
        let cs = cpu.state.seg[1];
        let most = if device(cpu, phys) { 1 } else { MAX_STEPS };
        if most > 1 {
            // Before the code is read: what other CPUs write from now on is heard of.
            cpu.mark_code(phys);
        }
        while steps.len() < most && bytes < room {
            let (insn, crossed) = match fetch_insn(cpu, linear.wrapping_add(bytes), steps.is_empty()) {
                Ok(Some(x)) => x,
                Err(fault) if steps.is_empty() => return Err(fault),
                // It is a block of its own, whose fault comes when it is reached.
                Ok(None) | Err(_) => break,
            };
            let end_ip = cpu.state.rip.wrapping_add(bytes).wrapping_add(u64::from(insn.len) - 1);
            if !cpu.code64() && end_ip > u64::from(cs.limit) {
                if steps.is_empty() && cpu.wraps() {
                    let step = Step { code: X::prepare(&insn), insn };
                    return Ok(self.insert_passing(Block {
                        phys,
                        ctx,
                        bytes: 1,
                        second: None,
                        hits: 0,
                        ask: u32::MAX,
                        next: [u32::MAX; 2],
                        compiled: false,
                        steps: Box::new([step]),
                        alive: false,
                    }));
                }
                if steps.is_empty() {
                    return Err(Fault::GP0);
                }
                break;
            }
            second = crossed;
            bytes += u64::from(insn.len);
            let ends = sem::ends_block(&insn);
            steps.push(Step { code: X::prepare(&insn), insn });
            if ends || second.is_some() {
                break;
            }
        }
        let block = Block {
            phys,
            steps: steps.into(),
            second,
            ctx,
            hits: 0,
            ask: self.threshold.saturating_sub(1),
            next: [u32::MAX; 2],
            bytes: bytes as u16,
            alive: true,
            compiled: false,
        };
        Ok(self.insert(cpu, block))
    }

    /// A block that is good for this once.
    fn insert_passing(&mut self, mut block: Block<X>) -> u32 {
        block.alive = false;
        let n = self.place(block);
        self.lost = Some(n);
        n
    }

    /// Puts a block under a number: that of a dead one, if there is any.
    fn place(&mut self, block: Block<X>) -> u32 {
        self.free.extend(self.lost.take());
        if let Some(n) = self.free.pop()
            && let Some(slot) = self.blocks.get_mut(n as usize)
        {
            *slot = block;
            return n;
        }
        self.blocks.push(block);
        (self.blocks.len() - 1) as u32
    }

    fn insert(&mut self, cpu: &mut Cpu, block: Block<X>) -> u32 {
        let (phys, ctx, second) = (block.phys, block.ctx, block.second);
        // Nobody says when a device's bytes change: they are decoded every time.
        if device(cpu, phys) || second.is_some_and(|second| device(cpu, second)) {
            return self.insert_passing(block);
        }
        let n = self.place(block);
        for page in [Some(phys), second].into_iter().flatten() {
            cpu.mark_code(page);
            self.by_page.entry(page >> 12).or_default().push(n);
        }
        self.map.insert((phys, ctx), n);
        n
    }

    /// Forgets a block. Its page lists are the caller's: it may be at work on them.
    fn kill(&mut self, n: u32) {
        let Some(b) = self.blocks.get_mut(n as usize).filter(|b| b.alive) else { return };
        b.alive = false;
        b.steps = Box::default();
        let key = (b.phys, b.ctx);
        if self.map.get(&key) == Some(&n) {
            self.map.remove(&key);
        }
        let slot = &mut self.fast[fast_index(key.0)];
        if slot.block == n {
            *slot = NOWHERE;
        }
        self.free.push(n);
    }

    fn unlist(&mut self, n: u32, page: u64) {
        if let Some(list) = self.by_page.get_mut(&(page >> 12)) {
            list.retain(|m| *m != n);
        }
    }

    /// Drops the blocks that recorded writes touched; a page left without blocks takes fast writes again. The writes go to
    /// [`Interp::written`].
    pub fn drop_written(&mut self, cpu: &mut Cpu) {
        let writes = cpu.take_code_writes();
        for &(at, len) in &writes {
            self.drop_range(cpu, at.0, len);
        }
        if self.written.len() >= MAX_WRITTEN {
            self.written.clear();
        }
        self.written.extend(writes);
    }

    fn drop_range(&mut self, cpu: &mut Cpu, at: u64, len: u64) {
        let Some(list) = self.by_page.get(&(at >> 12)) else {
            self.leave_page(cpu, at & !0xfff);
            return;
        };
        let hit = |b: &Block<X>| {
            let end = b.phys + u64::from(b.bytes);
            let in_first = at < end && b.phys < at + len;
            let in_second = b.second.is_some_and(|s| at >> 12 == s >> 12 && at & 0xfff < end & 0xfff);
            in_first || in_second
        };
        let (dead, rest): (Vec<u32>, Vec<u32>) =
            list.iter().partition(|n| self.blocks.get(**n as usize).is_none_or(|b| !b.alive || hit(b)));
        for n in dead {
            let mut pages = self.blocks.get(n as usize).into_iter().flat_map(|b| [Some(b.phys), b.second]).flatten();
            let other = pages.find(|page| page >> 12 != at >> 12);
            self.kill(n);
            if let Some(page) = other {
                self.unlist(n, page);
            }
        }
        if rest.is_empty() {
            self.by_page.remove(&(at >> 12));
            self.leave_page(cpu, at & !0xfff);
        } else {
            self.by_page.insert(at >> 12, rest);
        }
    }

    /// Forgets every block.
    pub fn clear(&mut self, cpu: &mut Cpu) {
        for page in self.by_page.keys().map(|frame| frame << 12).collect::<Vec<_>>() {
            self.leave_page(cpu, page);
        }
        self.blocks.clear();
        self.free.clear();
        self.lost = None;
        self.map.clear();
        self.by_page.clear();
        self.fast.fill(NOWHERE);
    }

    /// Whether a physical page has blocks.
    #[must_use]
    pub fn has_page(&self, page: u64) -> bool {
        self.by_page.contains_key(&(page >> 12))
    }

    /// A page has no blocks any more. It may not be unmarked and marked again: another CPU could write in between.
    fn leave_page(&mut self, cpu: &mut Cpu, page: u64) {
        if self.owned {
            self.left.push(page);
        } else {
            cpu.unmark_code(page);
        }
    }

    fn decode_one(&mut self, cpu: &mut Cpu) -> Result<Insn, Fault> {
        let linear = cpu.linear_ip();
        let (insn, _) = fetch_insn(cpu, linear, true)?.ok_or(Fault::GP0)?;
        let end = cpu.state.rip.wrapping_add(u64::from(insn.len) - 1);
        if !cpu.code64() && end > u64::from(cpu.state.seg[1].limit) && !cpu.wraps() {
            return Err(Fault::GP0);
        }
        Ok(insn)
    }
}

/// Runs the instructions of a block. False when one faulted or asked for attention: then the rest was not run.
#[inline(always)]
fn run_steps<X: Execute>(cpu: &mut Cpu, steps: &[Step<X>], retired: &mut u64) -> bool {
    let count = steps.len();
    cpu.state.budget -= count as i64;
    for (at, step) in steps.iter().enumerate() {
        let result = run_insn::<X>(cpu, &step.code, &step.insn);
        // What an instruction asks for is looked at before the next one, in every engine.
        if result.is_err() || cpu.state.attention != 0 {
            let left = count - 1 - at;
            cpu.state.budget += left as i64;
            *retired += (count - left) as u64;
            if let Err(fault) = result {
                cpu.raise(fault);
            }
            return false;
        }
    }
    *retired += count as u64;
    true
}

/// Runs one instruction; on a fault the instruction pointer and the stack pointer are what they were before it.
#[inline(always)]
fn run_insn<X: Execute>(cpu: &mut Cpu, code: &X::Code, insn: &Insn) -> Result<(), Fault> {
    let (rip, rsp) = (cpu.state.rip, cpu.state.gpr[4]);
    cpu.state.rip = rip.wrapping_add(insn.len.into()) & cpu.ip_mask;
    let result = X::execute(code, cpu, insn);
    if result.is_err() {
        cpu.state.rip = rip;
        cpu.state.gpr[4] = rsp;
    }
    result
}

/// Whether an instruction that was at `before` took a branch.
fn branched(cpu: &Cpu, insn: &Insn, before: u64) -> bool {
    match insn.code.flow_control() {
        iced_x86::FlowControl::Next => false,
        iced_x86::FlowControl::ConditionalBranch => cpu.state.rip != before.wrapping_add(insn.len.into()) & cpu.ip_mask,
        _ => true,
    }
}

fn device(cpu: &Cpu, phys: u64) -> bool {
    cpu.ram.host(Phys(phys), 1).is_none()
}

fn fast_index(phys: u64) -> usize {
    ((phys ^ phys >> 14) as usize) & (FAST - 1)
}

/// Decodes the instruction at a linear address; also the physical address of the next page when it reaches into it. Without
/// `cross` that page is left alone, accessed bit and all, and there is no such instruction.
pub(crate) fn fetch_insn(cpu: &mut Cpu, linear: u64, cross: bool) -> Result<Option<(Insn, Option<u64>)>, Fault> {
    let ctx = cpu.state.ctx;
    if cpu.wraps()
        && let Some(bytes) = cpu.wrapped_code(linear)?
    {
        let Decoded::Insn(i) = decode::decode(&bytes, ctx, cpu.model().features()) else { return Err(Fault::GP0) };
        return Ok(Some((i, None)));
    }
    let phys = cpu.fetch_address(linear)?;
    let room = (0x1000 - (phys & 0xfff)).min(decode::MAX_LEN as u64) as usize;
    let mut bytes = [0u8; decode::MAX_LEN];
    read_code(cpu, phys, &mut bytes[..room]);
    match decode::decode(&bytes[..room], ctx, cpu.model().features()) {
        Decoded::Insn(i) => return Ok(Some((i, None))),
        Decoded::TooLong => return Err(Fault::GP0),
        Decoded::NeedMore if !cross => return Ok(None),
        Decoded::NeedMore => {}
    }
    let mut next = linear.wrapping_add(room as u64);
    if !cpu.code64() {
        next &= 0xffff_ffff;
    }
    let second = cpu.fetch_address(next)?;
    if !device(cpu, second) {
        cpu.mark_code(second);
    }
    read_code(cpu, second, &mut bytes[room..]);
    match decode::decode(&bytes, ctx, cpu.model().features()) {
        Decoded::Insn(i) => Ok(Some((i, Some(second)))),
        Decoded::TooLong | Decoded::NeedMore => Err(Fault::GP0),
    }
}

/// Code bytes from RAM, or byte by byte from a device.
fn read_code(cpu: &mut Cpu, phys: u64, out: &mut [u8]) {
    if !cpu.ram.read(Phys(phys), out) {
        for (n, b) in out.iter_mut().enumerate() {
            *b = cpu.read_phys(phys + n as u64, 1) as u8;
        }
    }
}

impl<X: Execute> Engine for Blocks<X> {
    fn name(&self) -> &'static str {
        X::NAME
    }

    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        Blocks::run(self, cpu)
    }

    fn flush(&mut self, cpu: &mut Cpu) {
        self.clear(cpu);
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        vec![("interp.instructions", self.retired), ("interp.blocks", self.blocks.len() as u64)]
    }
}
