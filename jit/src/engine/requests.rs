//! What the engine asks its compilers for, and what it does with what they made.

use super::{HOT_REGION, JitEngine, MAX_SAMPLES, PATIENCE, WARM};
use crate::compile::{CompileError, Compiled};
use crate::queue::{Key, Queue};
use crate::region::{Beyond, MAX_ENTRIES, PAGE, Request, around};
use egret_cpu::{Cpu, GuestRam, Phys};
use egret_isa::decode::MAX_LEN;
use egret_isa::insn::{Ctx, Mode};

impl JitEngine {
    /// Asks for a block that got hot to be compiled.
    pub(super) fn ask(&mut self, cpu: &mut Cpu, n: u32) {
        if let Some(block) = self.interp.block(n)
            && !(block.second.is_some() && block.steps.len() == 1 && self.beyond(cpu, block.phys).is_none())
        {
            let (phys, heat) = (block.phys, block.hits.saturating_add(1));
            self.request(cpu, phys, heat);
        }
    }

    /// After an instruction near a page's end was interpreted: compiled code that has it hears where the next page is.
    #[cold]
    pub(super) fn bind(&mut self, cpu: &mut Cpu, linear: u64, ctx: Ctx) {
        let next = (linear | 0xfff).wrapping_add(1);
        if let (Some(here), Some(next)) = (cpu.fetch_known(linear), cpu.fetch_known(next))
            && self.cache.covers(here, ctx)
            && cpu.ram.host(Phys(next), PAGE as u64).is_some()
        {
            cpu.mark_code(next);
            let ram = &cpu.ram;
            self.cache.bind(here, ctx, next, |bytes| starts_with(ram, next, bytes));
        }
    }

    /// Asks for the block at the instruction pointer to be compiled.
    pub(super) fn request(&mut self, cpu: &mut Cpu, phys: u64, heat: u32) {
        let key = (phys, cpu.state.ctx);
        let page = phys & !0xfff;
        if self.refused.contains(&key) {
            return;
        }
        if self.pending.contains(&(page, cpu.state.ctx)) {
            // Blocks of one page are compiled together, and what waits gets hotter now and then. While the page is compiled, the
            // block has to wait: what it needs may be there then.
            if (heat / self.options.threshold).is_power_of_two()
                && let Some(queue) = &self.queue
            {
                let soft = !self.cache.covers(phys, cpu.state.ctx);
                queue.join(heat, page, cpu.state.ctx, (phys & 0xfff) as u16, soft);
            }
            return;
        }
        // Who compiles everything at once wants compiled code, whatever it costs.
        let kills = self
            .restless
            .get(&page)
            .filter(|_| !(self.options.foreground && self.options.threshold == 1))
            .map_or(0, |n| n.saturating_sub(PATIENCE));
        if kills > 0 && heat < self.options.threshold.saturating_mul(8).saturating_mul(1 << kills.min(20)) {
            return;
        }
        let ctx = cpu.state.ctx;
        // Blocks that hardly ever run are not worth compiling along.
        let warm = self.options.threshold / WARM;
        let known = if self.options.unreached {
            (0..PAGE as u16).collect()
        } else {
            self.interp.starts(page, ctx).filter(|(_, hits)| *hits >= warm).map(|(o, _)| o).collect()
        };
        if let Some(request) = self.request_at(cpu, phys) {
            // Code goes over to what there is already.
            let covered = self.cache.covered(page, ctx);
            self.submit(cpu, (phys, ctx), heat, Request { known, covered, ..request });
        }
    }

    /// A request for the block at a physical address, the instruction pointer's; `None` when it does not lie in RAM.
    fn request_at(&self, cpu: &Cpu, phys: u64) -> Option<Request> {
        let (page, offset, ctx) = (phys & !0xfff, (phys & 0xfff) as u16, cpu.state.ctx);
        let mut bytes = Box::new([0u8; PAGE]);
        cpu.ram.read(Phys(page), &mut bytes[..]).then_some(())?;
        Some(Request {
            page,
            ctx,
            features: cpu.model().features(),
            base: (ctx.mode() == Mode::M16).then(|| cpu.state.rip.wrapping_sub(offset.into()) & 0xffff_ffff),
            bytes,
            entries: vec![offset],
            soft: Vec::new(),
            known: Vec::new(),
            covered: Vec::new(),
            merge: None,
            beyond: self.beyond(cpu, phys),
        })
    }

    /// Has a request compiled, now or later.
    fn submit(&mut self, cpu: &mut Cpu, key: Key, heat: u32, request: Request) {
        if let Some(compiler) = &mut self.compiler {
            let result = compiler.compile(request);
            self.finished(cpu, key, result);
        } else if let Some(queue) = &self.queue {
            self.pending.insert(page_of(key));
            for dropped in queue.push(heat, key, request) {
                self.pending.remove(&page_of(dropped));
            }
        }
    }

    /// Called now and then with the CPU where its time goes: when that is in a loop that lies in several regions, it is made one.
    pub(super) fn sample(&mut self, cpu: &mut Cpu) {
        let Some(phys) = cpu.fetch_known(cpu.linear_ip()) else { return };
        let key = (phys, cpu.state.ctx);
        let Some(number) = self.cache.number_at(key.0, key.1) else { return };
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.clear();
        }
        let count = self.samples.entry(number).or_default();
        *count += 1;
        if *count >= HOT_REGION
            && count.is_power_of_two()
            && count.trailing_zeros().is_multiple_of(2)
            && key.1.mode() != Mode::M16
            && !self.pending.contains(&page_of(key))
        {
            self.merge(cpu, key, number);
        }
    }

    #[cold]
    fn merge(&mut self, cpu: &mut Cpu, (phys, ctx): Key, number: u32) {
        let Some((own, insns, covered)) = self.cache.parted(number) else { return };
        if around(&covered, &own.entries, &own.outs).contains(&true)
            && let Some(request) = self.request_at(cpu, phys)
        {
            let entries = own.entries.into_iter().take(MAX_ENTRIES).collect();
            let known = self.cache.compiled_offsets(phys & !0xfff, ctx);
            self.submit(cpu, (phys, ctx), 0, Request { entries, known, covered, merge: Some(insns), ..request });
        }
    }

    /// The beginning of the page that follows the one at the instruction pointer, `phys`.
    pub(super) fn beyond(&self, cpu: &Cpu, phys: u64) -> Option<Beyond> {
        let linear = cpu.linear_ip();
        let flat = cpu.code64() || cpu.state.ctx.mode() == Mode::M32 && cpu.state.ctx.has(Ctx::FLAT);
        if !flat || cpu.fetch_known(linear) != Some(phys) {
            return None;
        }
        let page = cpu.fetch_known((linear | 0xfff).wrapping_add(1))?;
        let mut bytes = vec![0; MAX_LEN - 1];
        cpu.ram.read(Phys(page), &mut bytes).then_some(Beyond { page: Some(page), bytes })
    }

    pub(super) fn install_finished(&mut self, cpu: &mut Cpu) {
        while let Some(done) = self.queue.as_ref().and_then(Queue::done) {
            self.pending.remove(&page_of(done.key));
            self.counters.wait_time += done.waited;
            self.finished(cpu, done.key, done.result);
        }
    }

    pub(super) fn finished(&mut self, cpu: &mut Cpu, key: Key, result: Result<Compiled, CompileError>) {
        match result {
            Ok(compiled) => {
                self.counters.regions += 1;
                self.counters.insns += compiled.insns as u64;
                self.counters.code_bytes += compiled.code.len() as u64;
                self.counters.compile_time += compiled.time;
                if let Some(store) = &mut self.store {
                    store.add(&compiled);
                }
                self.install(cpu, compiled, true);
            }
            Err(CompileError::Pointless) => {}
            Err(_) => {
                self.counters.failed += 1;
                if self.refused.len() > 4096 {
                    self.refused.clear();
                }
                self.refused.insert(key);
            }
        }
    }

    /// Installs code unless the guest has changed what it was made from. Code that is not `new` but from an earlier run may be older
    /// than what the page has: that keeps its entries.
    pub(super) fn install(&mut self, cpu: &mut Cpu, compiled: Compiled, new: bool) {
        // Before the code is read: what is written from now on is heard of.
        cpu.mark_code(compiled.page);
        let mut now = [0u8; PAGE];
        let same = cpu.ram.read(Phys(compiled.page), &mut now) && compiled.bytes.iter().all(|at| now[at] == compiled.source[at]);
        let same_beyond = |b: &Beyond| {
            b.page.is_none_or(|page| {
                cpu.mark_code(page);
                starts_with(&cpu.ram, page, &b.bytes)
            })
        };
        if !same || !compiled.beyond.as_ref().is_none_or(same_beyond) {
            self.counters.stale += 1;
            return;
        }
        let Ok(placed) = self.memory.place(&compiled.code) else {
            self.counters.failed += 1;
            return;
        };
        if let Some(segment) = placed.evicted {
            self.counters.evicted += self.cache.kill_segment(segment) as u64;
        }
        if let Some(dump) = &self.dump {
            dump.installed(&compiled, placed.address);
        }
        self.cache.insert(compiled, placed, new);
        self.follow_cache();
    }
}

/// The page and context of a request.
pub(super) fn page_of((phys, ctx): Key) -> Key {
    (phys & !0xfff, ctx)
}

/// Whether a page begins with these bytes.
fn starts_with(ram: &GuestRam, page: u64, bytes: &[u8]) -> bool {
    let mut now = [0; MAX_LEN];
    let now = &mut now[..bytes.len().min(MAX_LEN)];
    ram.read(Phys(page), now) && now == bytes
}
