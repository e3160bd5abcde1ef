//! The board as a CPU sees it, and what a CPU reaches of it without the board's lock: its own local APIC, the clock, and the
//! means to wake the others.

use crate::clock::Clock;
use crate::control::Control;
use crate::pc::Board;
use crate::random::Random;
use egret_bus::{Access, Device, Phys, Shared, Ticks};
use egret_cpu::{Kick, System};
use egret_devices::a20::A20;
use egret_devices::{LocalApic, Pic};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Base address and mode of the local APIC.
const IA32_APIC_BASE: u32 = 0x1b;
/// The local APIC timer's deadline.
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What the board and the CPUs share.
pub(crate) struct Common {
    pub(crate) clock: Clock,
    pub(crate) control: Control,
    /// The local APICs by CPU.
    pub(crate) apics: Vec<Shared<LocalApic>>,
    pub(crate) pic: Shared<Pic>,
    pub(crate) kicks: Vec<Kick>,
    /// The gate in address line 20, which all CPUs have.
    pub(crate) a20: A20,
    /// When each local APIC wants to be advanced.
    timers: Box<[AtomicU64]>,
    /// When a chip on the bus does.
    bus: AtomicU64,
    /// A chip raised an event that nobody has taken yet.
    pub(crate) stopping: AtomicBool,
    random: Random,
}

impl Common {
    pub(crate) fn new(clock: Clock, apics: Vec<Shared<LocalApic>>, pic: Shared<Pic>, kicks: Vec<Kick>, a20: A20) -> Arc<Common> {
        let timers = apics.iter().map(|_| AtomicU64::new(NEVER)).collect();
        let (bus, stopping) = (AtomicU64::new(NEVER), AtomicBool::new(false));
        let random = Random::new(clock.source());
        Arc::new(Common { random, clock, control: Control::default(), apics, pic, kicks, a20, timers, bus, stopping })
    }

    /// The earliest deadline of all.
    pub(crate) fn deadline(&self) -> Option<Ticks> {
        let timers = self.timers.iter().map(|t| t.load(SeqCst));
        let first = timers.fold(self.bus.load(SeqCst), u64::min);
        (first != NEVER).then_some(Ticks(first))
    }

    /// Notes when the chips on the bus want to be advanced.
    pub(crate) fn set_bus_deadline(&self, at: Option<Ticks>) {
        self.set_deadline(&self.bus, at);
    }

    fn set_deadline(&self, slot: &AtomicU64, at: Option<Ticks>) {
        let at = at.map_or(NEVER, |t| t.0);
        slot.store(at, SeqCst);
        self.control.hurry(at);
    }

    /// Advances the local APICs whose time has come, and wakes their CPUs.
    pub(crate) fn tick(&self, now: Ticks) {
        for (n, timer) in self.timers.iter().enumerate() {
            if timer.load(SeqCst) <= now.0 {
                let rouses = {
                    let mut apic = self.apics[n].lock();
                    apic.tick(now);
                    self.set_deadline(timer, apic.deadline());
                    apic.rouses()
                };
                if rouses {
                    self.wake(n);
                }
            }
        }
    }

    /// Asks all local APICs for their deadlines anew.
    pub(crate) fn refresh(&self) {
        for (n, timer) in self.timers.iter().enumerate() {
            let deadline = self.apics[n].lock().deadline();
            self.set_deadline(timer, deadline);
        }
    }

    /// Wakes a CPU, or gets its attention.
    pub(crate) fn wake(&self, n: usize) {
        if let Some(kick) = self.kicks.get(n) {
            kick.kick();
        }
    }

    /// Whether INTR is asserted at a CPU. The 8259A's output is wired to the first.
    pub(crate) fn interrupt_pending(&self, n: usize) -> bool {
        let apic = self.apics[n].lock();
        apic.intr().is_some() || apic.extint() || (n == 0 && apic.accepts_extint() && self.pic.lock().intr())
    }
}

/// The board as a CPU sees it.
pub struct BoardSystem {
    board: Shared<Board>,
    common: Arc<Common>,
    n: usize,
}

impl BoardSystem {
    /// The view of CPU `n`; the last one's when there are fewer.
    #[must_use]
    pub fn new(board: &Shared<Board>, n: usize) -> BoardSystem {
        let common = board.lock().common().clone();
        let n = n.min(common.apics.len() - 1);
        BoardSystem { board: board.clone(), common, n }
    }

    /// Does something with the CPU's local APIC; what that sends is routed.
    fn apic<T>(&self, f: impl FnOnce(&mut LocalApic, Ticks) -> T) -> T {
        let common = &self.common;
        let now = common.clock.now();
        let (value, outgoing) = {
            let mut apic = common.apics[self.n].lock();
            let value = f(&mut apic, now);
            let deadline = apic.deadline();
            common.set_deadline(&common.timers[self.n], deadline);
            (value, apic.outgoing())
        };
        if outgoing {
            self.board.lock().collect(self.n);
        }
        value
    }

    /// Where in the local APIC's page an address is.
    fn apic_offset(&self, addr: Phys) -> Option<u64> {
        const PAGE_BITS: u64 = (1 << 52) - 0x1000;
        let apic = self.common.apics[self.n].lock();
        (apic.enabled() && !apic.x2apic() && addr.0 & !0xfff == apic.base() & PAGE_BITS).then_some(addr.0 & 0xfff)
    }
}

impl System for BoardSystem {
    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        self.board.lock().port_read(port, size, self.n)
    }

    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.board.lock().port_write(port, size, value, self.n);
    }

    fn mmio_read(&mut self, addr: Phys, size: u8) -> u64 {
        match self.apic_offset(addr) {
            Some(offset) => self.apic(|apic, now| apic.read(Access { region: 0, offset, size, now })),
            None => self.board.lock().mmio_read(addr, size, self.n),
        }
    }

    fn mmio_write(&mut self, addr: Phys, size: u8, value: u64) {
        match self.apic_offset(addr) {
            Some(offset) => self.apic(|apic, now| apic.write(Access { region: 0, offset, size, now }, value)),
            None => self.board.lock().mmio_write(addr, size, value, self.n),
        }
    }

    fn interrupt_pending(&mut self) -> bool {
        self.common.interrupt_pending(self.n)
    }

    fn acknowledge(&mut self) -> Option<u8> {
        let mut apic = self.common.apics[self.n].lock();
        let vector = apic.acknowledge();
        if vector.is_some() {
            return vector;
        }
        if apic.extint() || (self.n == 0 && apic.accepts_extint()) {
            apic.acknowledge_extint();
            drop(apic);
            return Some(self.board.lock().acknowledge_pic(self.n));
        }
        None
    }

    fn take_nmi(&mut self) -> bool {
        self.common.apics[self.n].lock().take_nmi()
    }

    fn tsc(&mut self) -> u64 {
        // One count a nanosecond: see `TSC_HZ`.
        self.common.clock.now().0
    }

    fn random(&mut self) -> Option<u64> {
        Some(self.common.random.draw())
    }

    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        let mut apic = self.common.apics[self.n].lock();
        match msr {
            IA32_APIC_BASE => Some(apic.base()),
            IA32_TSC_DEADLINE => Some(apic.tsc_deadline()),
            _ => apic.read_msr(msr, self.common.clock.now()).ok(),
        }
    }

    fn apic_write(&mut self, msr: u32, value: u64) -> bool {
        self.apic(|apic, now| match msr {
            IA32_APIC_BASE => apic.set_base(value).is_ok(),
            IA32_TSC_DEADLINE => {
                apic.set_tsc_deadline(value);
                true
            }
            _ => apic.write_msr(msr, value, now).is_ok(),
        })
    }

    fn task_priority(&mut self) -> u8 {
        self.common.apics[self.n].lock().tpr() >> 4
    }

    fn set_task_priority(&mut self, value: u8) {
        self.common.apics[self.n].lock().set_tpr(value << 4);
    }

    fn set_ferr(&mut self, level: bool) {
        self.board.lock().set_ferr(level, self.n);
    }

    fn ignne(&mut self) -> bool {
        self.board.lock().ignne()
    }

    fn a20(&mut self) -> bool {
        self.common.a20.passes()
    }

    fn wants_attention(&mut self) -> bool {
        self.common.stopping.load(SeqCst)
    }
}
