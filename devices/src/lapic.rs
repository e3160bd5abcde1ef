//! Local APIC. SDM Vol. 3, "Advanced Programmable Interrupt Controller (APIC)".
//!
//! One state serves both views: the xAPIC page ([`Device`], region 0, 4 KiB) and the x2APIC MSRs
//! ([`LocalApic::read_msr`], [`LocalApic::write_msr`]). The machine delivers what [`LocalApic::take_ipis`] and
//! [`LocalApic::take_eois`] hand out. The timer's input clock is 1 GHz.

mod msr;
mod registers;
mod timer;
mod vectors;

pub use msr::BadMsr;

#[cfg(test)]
mod tests;

use crate::Chip;
use crate::message::{Delivery, Destination, Message, Trigger};
use egret_bus::{Access, Device, Ticks};
use registers::*;
use timer::Timer;
use vectors::Vectors;

/// The two local interrupt pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lint {
    /// LINT0: the 8259A's INTR in a PC.
    Lint0,
    /// LINT1: NMI in a PC.
    Lint1,
}

/// What a local APIC holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    base: ApicBase,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: Svr,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    esr: Esr,
    errors: Esr,
    icr: u64,
    lvt: [Lvt; 6],
    timer: Timer,
    tsc_offset: i64,
    lint: [bool; 2],
    smi: bool,
    nmi: bool,
    init: bool,
    startup: Option<u8>,
    extint: bool,
    ipis: Vec<Message>,
    eois: Vec<u8>,
}

impl State {
    fn power_on(bootstrap: bool) -> State {
        let bsp = if bootstrap { ApicBase::BSP } else { ApicBase::empty() };
        State {
            base: ApicBase::from_bits_retain(0xfee0_0000) | ApicBase::EN | bsp,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: Svr::VECTOR,
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            esr: Esr::empty(),
            errors: Esr::empty(),
            icr: 0,
            lvt: [Lvt::MASKED; 6],
            timer: Timer::default(),
            tsc_offset: 0,
            lint: [false; 2],
            smi: false,
            nmi: false,
            init: false,
            startup: None,
            extint: false,
            ipis: Vec::new(),
            eois: Vec::new(),
        }
    }
}

/// A local APIC.
pub struct LocalApic {
    state: State,
    id: u32,
    bootstrap: bool,
    tsc_hz: u64,
}

impl LocalApic {
    /// Most messages and EOIs kept for the machine. One access makes at most one of each, and the machine takes them
    /// after each access.
    const LIMIT: usize = 64;

    /// The local APIC with `id`; `bootstrap` on the processor that starts the machine. The time-stamp counter reads
    /// `now.periods(tsc_hz)` plus the offset set with [`LocalApic::set_tsc_offset`].
    #[must_use]
    pub fn new(id: u32, bootstrap: bool, tsc_hz: u64) -> LocalApic {
        LocalApic { state: State::power_on(bootstrap), id, bootstrap, tsc_hz }
    }

    /// The APIC ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether IA32_APIC_BASE has the APIC on. When it is off, LINT0 is the processor's INTR and LINT1 its NMI.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.state.base.contains(ApicBase::EN)
    }

    /// Whether the APIC is in x2APIC mode: MSRs instead of the page.
    #[must_use]
    pub fn x2apic(&self) -> bool {
        self.state.base.contains(ApicBase::EXTD)
    }

    /// Whether the spurious-vector register has the APIC on.
    #[must_use]
    pub fn software_enabled(&self) -> bool {
        self.enabled() && self.state.svr.contains(Svr::ENABLE)
    }

    /// Task-priority register; CR8 is its upper four bits.
    #[must_use]
    pub fn tpr(&self) -> u8 {
        self.state.tpr
    }

    /// Writes the task-priority register.
    pub fn set_tpr(&mut self, tpr: u8) {
        self.state.tpr = tpr;
    }

    /// Processor-priority register.
    #[must_use]
    pub fn ppr(&self) -> u8 {
        let service = self.state.isr.highest().unwrap_or(0);
        if self.state.tpr >> 4 >= service >> 4 { self.state.tpr } else { service & 0xf0 }
    }

    /// The vector that would interrupt the processor now.
    #[must_use]
    pub fn intr(&self) -> Option<u8> {
        self.state.irr.highest().filter(|vector| self.enabled() && vector >> 4 > self.ppr() >> 4)
    }

    /// The processor takes the interrupt of [`LocalApic::intr`]: it goes from IRR to ISR.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.intr()?;
        self.state.irr.put(vector, false);
        self.state.isr.put(vector, true);
        Some(vector)
    }

    /// An interrupt with `vector` arrives from outside or from the APIC's own sources.
    pub fn deliver(&mut self, vector: u8, level_triggered: bool) {
        if !self.software_enabled() {
            return;
        }
        if vector < 16 {
            self.error(Esr::RECEIVE_VECTOR);
            return;
        }
        self.state.irr.put(vector, true);
        self.state.tmr.put(vector, level_triggered);
    }

    /// Takes a message that [`LocalApic::matches`].
    pub fn accept(&mut self, message: &Message) {
        if !self.enabled() {
            return;
        }
        match message.delivery {
            Delivery::Fixed | Delivery::LowestPriority => self.deliver(message.vector, message.trigger == Trigger::Level),
            Delivery::Smi => self.state.smi = true,
            Delivery::Nmi => self.state.nmi = true,
            Delivery::Init => self.state.init = true,
            Delivery::Startup => self.state.startup = Some(message.vector),
            Delivery::ExtInt => self.state.extint = true,
        }
    }

    /// Whether a message to `destination` is for this APIC. The shorthands that depend on the sender are not decided here.
    #[must_use]
    pub fn matches(&self, destination: Destination) -> bool {
        if !self.enabled() {
            return false;
        }
        let (ldr, cluster_model) = (self.logical_id(), self.state.dfr >> 28 == 0);
        match destination {
            Destination::Physical(id) => id == self.id,
            Destination::Logical(to) if self.x2apic() => to >> 16 == ldr >> 16 && to & ldr & 0xffff != 0,
            Destination::Logical(to) if to > 0xff => false,
            Destination::Logical(to) if cluster_model => (to >> 4 == 0xf || to >> 4 == ldr >> 28) && to & (ldr >> 24) & 0xf != 0,
            Destination::Logical(to) => to & (ldr >> 24) != 0,
            Destination::All => true,
            Destination::Own | Destination::AllButSelf => false,
        }
    }

    /// Takes the interprocessor interrupts to be routed, in the order in which they were sent.
    pub fn take_ipis(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.state.ipis)
    }

    /// Takes the vectors of level-triggered interrupts that were ended: the I/O APICs want to know.
    pub fn take_eois(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.eois)
    }

    /// Whether interprocessor interrupts or EOIs wait to be taken.
    #[must_use]
    pub fn outgoing(&self) -> bool {
        !self.state.ipis.is_empty() || !self.state.eois.is_empty()
    }

    /// Whether the processor, halted or waiting for a start-up message, has a reason to look: an interrupt, NMI, SMI, INIT or start-up.
    #[must_use]
    pub fn rouses(&self) -> bool {
        self.intr().is_some() || self.state.extint || self.event_pending()
    }

    /// Takes a pending NMI.
    pub fn take_nmi(&mut self) -> bool {
        std::mem::take(&mut self.state.nmi)
    }

    /// Takes a pending SMI.
    pub fn take_smi(&mut self) -> bool {
        std::mem::take(&mut self.state.smi)
    }

    /// Takes a pending INIT; the APIC goes into its INIT state with it.
    pub fn take_init(&mut self) -> bool {
        let init = self.state.init;
        if init {
            self.init_reset();
        }
        init
    }

    /// Takes a pending start-up message: the page number at which the processor starts.
    pub fn take_startup(&mut self) -> Option<u8> {
        self.state.startup.take()
    }

    /// Whether an NMI, SMI, INIT or start-up message waits to be taken.
    #[must_use]
    pub fn event_pending(&self) -> bool {
        self.state.nmi || self.state.smi || self.state.init || self.state.startup.is_some()
    }

    /// Whether the 8259A asks the processor for an interrupt, through LINT0 or by an ExtINT message: the processor
    /// then gets the vector from the 8259A and calls [`LocalApic::acknowledge_extint`].
    #[must_use]
    pub fn extint(&self) -> bool {
        self.state.extint || self.state.lint[0] && self.accepts_extint()
    }

    /// Whether LINT0 passes the 8259A's INTR on: the APIC is off, or LINT0 is unmasked with ExtINT delivery.
    #[must_use]
    pub fn accepts_extint(&self) -> bool {
        let lint0 = self.lvt(Entry::Lint0);
        !self.enabled() || !lint0.contains(Lvt::MASKED) && delivery_of(lint0) == Some(Delivery::ExtInt)
    }

    /// The processor took the vector from the 8259A.
    pub fn acknowledge_extint(&mut self) {
        self.state.extint = false;
    }

    /// Drives a local interrupt pin.
    pub fn set_lint(&mut self, pin: Lint, level: bool) {
        let changed = level != std::mem::replace(&mut self.state.lint[pin as usize], level);
        if self.enabled() {
            self.lint_changed(pin, changed);
        } else if changed && level && pin == Lint::Lint1 {
            self.state.nmi = true;
        }
    }

    /// What the processor adds to the time-stamp counter (IA32_TSC_ADJUST and writes to the counter).
    /// [`Device::deadline`] changes.
    pub fn set_tsc_offset(&mut self, offset: i64) {
        self.state.tsc_offset = offset;
    }

    /// The registers as INIT leaves them: as at power-on, but IA32_APIC_BASE, the pins and what waits for the machine stay.
    fn init_reset(&mut self) {
        let old = std::mem::replace(&mut self.state, State::power_on(self.bootstrap));
        let State { base, lint, tsc_offset, ipis, eois, startup, .. } = old;
        self.state = State { base, lint, tsc_offset, ipis, eois, startup, ..State::power_on(self.bootstrap) };
    }

    fn lvt(&self, entry: Entry) -> Lvt {
        self.state.lvt[entry as usize]
    }

    /// In x2APIC mode the logical ID follows from the APIC ID.
    fn logical_id(&self) -> u32 {
        if self.x2apic() { (self.id >> 4) << 16 | 1 << (self.id & 0xf) } else { self.state.ldr }
    }

    fn error(&mut self, error: Esr) {
        let first = self.state.errors.is_empty();
        self.state.errors |= error;
        let lvt = self.lvt(Entry::Error);
        let vector = (lvt & Lvt::VECTOR).bits() as u8;
        // An illegal vector here would be an error again, for ever.
        if first && !lvt.contains(Lvt::MASKED) && vector >= 16 {
            self.deliver(vector, false);
        }
    }

    /// An edge from one of the APIC's own sources.
    fn signal(&mut self, entry: Entry) {
        let lvt = self.lvt(entry);
        if lvt.contains(Lvt::MASKED) {
            return;
        }
        let vector = (lvt & Lvt::VECTOR).bits() as u8;
        match delivery_of(lvt) {
            Some(Delivery::Fixed) => self.deliver(vector, false),
            Some(Delivery::Smi) => self.state.smi = true,
            Some(Delivery::Nmi) => self.state.nmi = true,
            Some(Delivery::Init) => self.state.init = true,
            _ => {}
        }
    }

    /// A pin or its LVT entry changed; an edge counts only when it was the pin.
    fn lint_changed(&mut self, pin: Lint, edge: bool) {
        let entry = if pin == Lint::Lint0 { Entry::Lint0 } else { Entry::Lint1 };
        let lvt = self.lvt(entry);
        let level = self.state.lint[pin as usize] != lvt.contains(Lvt::LOW);
        if delivery_of(lvt) != Some(Delivery::Fixed) || !lvt.contains(Lvt::LEVEL) {
            if edge && level {
                self.signal(entry);
            }
        } else if level && !lvt.intersects(Lvt::MASKED | Lvt::REMOTE_IRR) && self.software_enabled() {
            self.state.lvt[entry as usize] |= Lvt::REMOTE_IRR;
            self.deliver((lvt & Lvt::VECTOR).bits() as u8, true);
        }
    }

    fn end_of_interrupt(&mut self) {
        let Some(vector) = self.state.isr.highest() else { return };
        self.state.isr.put(vector, false);
        if !self.state.tmr.has(vector) {
            return;
        }
        for (pin, entry) in [(Lint::Lint0, Entry::Lint0), (Lint::Lint1, Entry::Lint1)] {
            let lvt = &mut self.state.lvt[entry as usize];
            if lvt.contains(Lvt::REMOTE_IRR) && (*lvt & Lvt::VECTOR).bits() == vector.into() {
                lvt.remove(Lvt::REMOTE_IRR);
                self.lint_changed(pin, false);
            }
        }
        if !self.state.svr.contains(Svr::EOI_SUPPRESS) && self.state.eois.len() < Self::LIMIT {
            self.state.eois.push(vector);
        }
    }

    fn self_ipi(&mut self, vector: u8) {
        if vector < 16 { self.error(Esr::SEND_VECTOR) } else { self.deliver(vector, false) }
    }

    /// Sends what the ICR says. SDM Vol. 3, "Issuing Interprocessor Interrupts".
    fn send(&mut self) {
        let icr = self.state.icr;
        let (low, vector, x2) = (icr as u32, icr as u8, self.x2apic());
        let Some(delivery) = Delivery::from_field(low >> 8) else { return };
        let deassert = low >> 14 & 3 == 0b10;
        if delivery == Delivery::ExtInt || delivery == Delivery::Init && deassert {
            return;
        }
        if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) && vector < 16 {
            self.error(Esr::SEND_VECTOR);
            return;
        }
        let logical = low >> 11 & 1 != 0;
        let destination = match low >> 18 & 3 {
            1 => Destination::Own,
            2 => Destination::All,
            3 => Destination::AllButSelf,
            _ if !x2 => Destination::from_byte(logical, (icr >> 56) as u8),
            _ if icr >> 32 == u64::from(u32::MAX) => Destination::All,
            _ if logical => Destination::Logical((icr >> 32) as u32),
            _ => Destination::Physical((icr >> 32) as u32),
        };
        if destination == Destination::Own {
            // Only fixed delivery goes with the self shorthand.
            if delivery == Delivery::Fixed {
                self.deliver(vector, false);
            }
        } else if self.state.ipis.len() < Self::LIMIT {
            self.state.ipis.push(Message { destination, delivery, vector, trigger: Trigger::Edge });
        }
    }

    fn register(&self, register: u32, now: Ticks) -> Option<u32> {
        let s = &self.state;
        Some(match register {
            reg::ID => {
                if self.x2apic() {
                    self.id
                } else {
                    self.id << 24
                }
            }
            reg::VERSION => VERSION,
            reg::TPR => s.tpr.into(),
            reg::APR | reg::RRD | reg::EOI => 0,
            reg::PPR => self.ppr().into(),
            reg::LDR => self.logical_id(),
            reg::DFR => s.dfr,
            reg::SVR => s.svr.bits(),
            reg::ISR..=reg::ISR_LAST => s.isr.word(register - reg::ISR),
            reg::TMR..=reg::TMR_LAST => s.tmr.word(register - reg::TMR),
            reg::IRR..=reg::IRR_LAST => s.irr.word(register - reg::IRR),
            reg::ESR => s.esr.bits(),
            reg::ICR_LOW => s.icr as u32,
            reg::ICR_HIGH => (s.icr >> 32) as u32,
            reg::LVT_FIRST..=reg::LVT_LAST => self.lvt(Entry::of(register)).bits(),
            reg::INITIAL_COUNT => s.timer.initial,
            reg::CURRENT_COUNT => s.timer.current(now),
            reg::DIVIDE => s.timer.divide,
            _ => return None,
        })
    }

    /// Writes a register; `value` holds only bits of [`writable`] or is cut down to them.
    fn set_register(&mut self, register: u32, value: u32, now: Ticks) {
        let Some(mask) = writable(register) else { return };
        let value = value & mask;
        match register {
            reg::TPR => self.state.tpr = value as u8,
            reg::EOI => self.end_of_interrupt(),
            reg::LDR => self.state.ldr = value,
            reg::DFR => self.state.dfr = value | 0x0fff_ffff,
            reg::SVR => self.set_svr(Svr::from_bits_retain(value)),
            reg::ESR => self.state.esr = std::mem::replace(&mut self.state.errors, Esr::empty()),
            reg::ICR_LOW => {
                self.state.icr = self.state.icr >> 32 << 32 | u64::from(value);
                self.send();
            }
            reg::ICR_HIGH => self.state.icr = u64::from(value) << 32 | self.state.icr & 0xffff_ffff,
            reg::LVT_FIRST..=reg::LVT_LAST => self.set_lvt(Entry::of(register), Lvt::from_bits_retain(value)),
            reg::INITIAL_COUNT if !self.lvt(Entry::Timer).contains(Lvt::TSC_DEADLINE) => self.state.timer.start(value, now),
            reg::DIVIDE => self.state.timer.set_divide(value, now),
            _ => {}
        }
    }

    fn set_svr(&mut self, svr: Svr) {
        self.state.svr = svr;
        if !svr.contains(Svr::ENABLE) {
            self.state.lvt.iter_mut().for_each(|lvt| lvt.insert(Lvt::MASKED));
        }
    }

    fn set_lvt(&mut self, entry: Entry, mut new: Lvt) {
        let old = self.lvt(entry);
        if !self.state.svr.contains(Svr::ENABLE) {
            new |= Lvt::MASKED;
        }
        if (old ^ new).contains(Lvt::TSC_DEADLINE) {
            self.state.timer.disarm();
        }
        self.state.lvt[entry as usize] = new | old & Lvt::REMOTE_IRR & if new.contains(Lvt::LEVEL) { Lvt::all() } else { Lvt::empty() };
        match entry {
            Entry::Lint0 => self.lint_changed(Lint::Lint0, false),
            Entry::Lint1 => self.lint_changed(Lint::Lint1, false),
            _ => {}
        }
    }

    /// The time at which the time-stamp counter reaches IA32_TSC_DEADLINE.
    fn tsc_expiry(&self) -> Option<Ticks> {
        let deadline = Some(self.state.timer.tsc_deadline).filter(|&d| d != 0)?;
        let unadjusted = i128::from(deadline) - i128::from(self.state.tsc_offset);
        if unadjusted <= 0 {
            return Some(Ticks(0));
        }
        u64::try_from(unadjusted).ok().map(|n| Ticks::from_periods(n, self.tsc_hz))
    }
}

impl Device for LocalApic {
    fn name(&self) -> &'static str {
        "local APIC"
    }

    /// Registers are 32 bits at multiples of 16; the bytes between them read as zero.
    fn read(&mut self, at: Access) -> u64 {
        if !self.enabled() || self.x2apic() {
            return u64::MAX;
        }
        self.tick(at.now);
        match self.register((at.offset >> 4) as u32, at.now) {
            Some(value) if at.offset & 0xf < 4 => u64::from(value) >> (8 * (at.offset & 3)),
            Some(_) => 0,
            None => {
                self.error(Esr::REGISTER);
                0
            }
        }
    }

    fn write(&mut self, at: Access, value: u64) {
        if !self.enabled() || self.x2apic() || at.offset & 0xf != 0 || at.size < 4 {
            return;
        }
        self.tick(at.now);
        let register = (at.offset >> 4) as u32;
        if writable(register).is_some() {
            self.set_register(register, value as u32, at.now);
        } else if self.register(register, at.now).is_none() {
            self.error(Esr::REGISTER);
        }
    }

    fn reset(&mut self) {
        self.state = State::power_on(self.bootstrap);
    }

    fn tick(&mut self, now: Ticks) {
        let lvt = self.lvt(Entry::Timer);
        let expired = if lvt.contains(Lvt::TSC_DEADLINE) {
            let expired = self.tsc_expiry().is_some_and(|at| at <= now);
            if expired {
                self.state.timer.tsc_deadline = 0;
            }
            expired
        } else {
            self.state.timer.expire(lvt.contains(Lvt::PERIODIC), now)
        };
        if expired {
            self.signal(Entry::Timer);
        }
    }

    /// A masked timer needs no tick: its count is brought up to date when it is looked at.
    fn deadline(&self) -> Option<Ticks> {
        let lvt = self.lvt(Entry::Timer);
        if lvt.contains(Lvt::MASKED) {
            return None;
        }
        if lvt.contains(Lvt::TSC_DEADLINE) { self.tsc_expiry() } else { self.state.timer.expiry() }
    }
}

impl Chip for LocalApic {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
    }
}
