//! One CPU of a machine with its engine.

use crate::run::RunStats;
use crate::system::Common;
use egret_cpu::state::attention;
use egret_cpu::{Cpu, Engine, Exit};
use std::collections::HashMap;
use std::time::Instant;

/// A CPU and what executes its instructions.
pub struct Vcpu {
    /// The CPU.
    pub cpu: Cpu,
    /// What executes it.
    pub engine: Box<dyn Engine>,
    /// Its number, which is its local APIC's id.
    pub(crate) n: usize,
    pub(crate) stats: RunStats,
    profile: Profile,
    /// It waits for a start-up message.
    pub(crate) waits: bool,
}

/// A sample of where a CPU's time goes: one for every slice that ran to its end, by page of the instruction pointer.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pages: HashMap<u64, u64>,
    samples: u64,
}

impl Profile {
    /// Most pages that are told apart.
    const MOST: usize = 1 << 14;

    fn note(&mut self, rip: u64) {
        self.samples += 1;
        let page = rip & !0xfff;
        if self.pages.len() < Self::MOST || self.pages.contains_key(&page) {
            *self.pages.entry(page).or_default() += 1;
        }
    }

    /// The pages seen most often, with their shares of all samples, the largest first.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<(u64, f64)> {
        let mut pages: Vec<(u64, u64)> = self.pages.iter().map(|(page, n)| (*page, *n)).collect();
        pages.sort_by_key(|(page, n)| (std::cmp::Reverse(*n), *page));
        pages.into_iter().take(most).map(|(page, n)| (page, n as f64 / self.samples.max(1) as f64)).collect()
    }
}

/// The first CPU got an INIT: there is no firmware to start it again.
pub(crate) struct Reset;

impl Vcpu {
    pub(crate) fn new(n: usize, cpu: Cpu, engine: Box<dyn Engine>) -> Vcpu {
        Vcpu { cpu, engine, n, stats: RunStats::default(), profile: Profile::default(), waits: n != 0 }
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> RunStats {
        self.stats
    }

    /// Where it was when its slices ended.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Puts it where it is after power-on, or firmware: all but the first wait to be started.
    pub(crate) fn reset(&mut self) {
        self.cpu.reset();
        self.engine.flush(&mut self.cpu);
        self.waits = self.n != 0;
    }

    /// Takes INIT and start-up messages (SDM Vol. 3, "MP Initialization Protocol Algorithm for MP Systems").
    pub(crate) fn take_messages(&mut self, common: &Common) -> Result<(), Reset> {
        let (init, start) = {
            let mut apic = common.apics[self.n].lock();
            if !apic.event_pending() {
                return Ok(());
            }
            // There is no system management mode, and who waits to be started takes no NMI.
            apic.take_smi();
            if self.waits {
                apic.take_nmi();
            }
            (apic.take_init(), apic.take_startup())
        };
        if init {
            if self.n == 0 {
                return Err(Reset);
            }
            self.cpu.init();
            self.waits = true;
        }
        if let Some(page) = start
            && self.waits
        {
            self.cpu.start_up(page);
            self.waits = false;
        }
        Ok(())
    }

    /// Whether it has a reason to go on when it waits.
    pub(crate) fn roused(&self, common: &Common) -> bool {
        let interrupt = !self.waits && self.cpu.interruptible() && common.interrupt_pending(self.n);
        interrupt || common.apics[self.n].lock().event_pending()
    }

    /// Runs at most `budget` instructions (a block more or less).
    pub(crate) fn slice(&mut self, budget: i64) -> (Exit, u64) {
        let before = Instant::now();
        self.cpu.enter();
        self.cpu.sync_a20();
        self.cpu.state.budget = budget;
        self.cpu.state.attention |= attention::INTERRUPT;
        let exit = self.engine.run(&mut self.cpu);
        self.cpu.leave();
        let ran = u64::try_from(budget - self.cpu.state.budget).unwrap_or(0);
        self.stats.instructions += ran;
        self.stats.slices += 1;
        self.stats.busy += nanos(before);
        if exit == Exit::Budget {
            self.profile.note(self.cpu.state.rip);
        }
        (exit, ran)
    }
}

/// Nanoseconds since `then`.
pub(crate) fn nanos(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Profile;

    #[test]
    fn a_profile_names_the_pages_with_most_samples() {
        let mut profile = Profile::default();
        for rip in [0x1000, 0x1ff0, 0x7000, 0x1008] {
            profile.note(rip);
        }
        assert_eq!(profile.top(8), [(0x1000, 0.75), (0x7000, 0.25)]);
        assert_eq!(profile.top(1), [(0x1000, 0.75)]);
        for n in 0..2 * Profile::MOST as u64 {
            profile.note(n << 12);
        }
        assert!(profile.pages.len() <= Profile::MOST);
    }
}
