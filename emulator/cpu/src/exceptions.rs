//! Exceptions and interrupts: which one is taken, what becomes of faults on the way, and delivery in real and long mode.
//! Delivery in protected mode is in `delivery.rs`.

use crate::Cpu;
use crate::cpu::Intercept;
use crate::fault::{Fault, vector};
use crate::segments::{Descriptor, is_null, kind};
use crate::state::{SegReg, attention, rflags};
use egret_isa::insn::Seg;

/// What holds back events for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inhibit {
    /// An NMI is being handled: the next waits for IRET.
    pub nmi: bool,
    /// The last instruction loaded SS: no debug exception comes before the next one is done
    /// (SDM Vol. 3, "Masking Exceptions and Interrupts When Switching Stacks").
    pub(crate) stack_switch: bool,
    /// The instruction under way takes no single-step trap after it: it has entered a handler that runs with TF clear.
    pub(crate) no_trap: bool,
    /// MWAIT was told to let masked interrupts end its wait.
    pub(crate) masked_wake: bool,
}

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// INTR or NMI.
    External,
    /// An exception that reports a faulting instruction.
    Fault,
    /// An exception after an instruction, and INT1.
    Trap,
    /// INT n, INT3, INTO.
    Software,
}

/// An event on its way to its handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub vector: u8,
    pub error: Option<u32>,
    pub source: Source,
}

impl Event {
    pub const fn external(vector: u8) -> Event {
        Event { vector, error: None, source: Source::External }
    }

    pub const fn trap(vector: u8) -> Event {
        Event { vector, error: None, source: Source::Trap }
    }

    pub const fn software(vector: u8) -> Event {
        Event { vector, error: None, source: Source::Software }
    }

    pub const fn fault(fault: Fault) -> Event {
        Event { vector: fault.vector(), error: fault.error(), source: Source::Fault }
    }

    fn is_exception(&self) -> bool {
        matches!(self.source, Source::Fault | Source::Trap)
    }

    /// Error code for trouble with the event's IDT entry; the EXT bit comes later.
    pub fn idt_error(&self) -> u32 {
        u32::from(self.vector) << 3 | 2
    }

    /// RFLAGS for the handler's stack: faults other than an instruction breakpoint set RF (SDM Vol. 3,
    /// "Instruction-Breakpoint Exception Condition").
    pub fn saved_flags(&self, flags: u64) -> u64 {
        let fault = self.source == Source::Fault && !matches!(self.vector, vector::DB | vector::DF);
        if fault { flags | rflags::RF } else { flags }
    }

    /// SDM Vol. 3, "Interrupt 8—Double Fault Exception", table of classes.
    fn class(&self) -> Class {
        match self.vector {
            _ if !self.is_exception() => Class::Benign,
            vector::DF => Class::DoubleFault,
            vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => Class::Contributory,
            vector::PF => Class::PageFault,
            _ => Class::Benign,
        }
    }

    /// What is delivered when `second` comes up while this one is delivered; `None` is a triple fault.
    fn then(&self, second: Fault) -> Option<Event> {
        let second = Event::fault(second);
        let bad = matches!(second.class(), Class::Contributory | Class::PageFault | Class::DoubleFault);
        match self.class() {
            Class::DoubleFault if bad => None,
            Class::PageFault if bad => Some(Event::fault(Fault::with_error(vector::DF, 0))),
            Class::Contributory if second.class() == Class::Contributory => Some(Event::fault(Fault::with_error(vector::DF, 0))),
            _ => Some(second),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

/// The EXT bit of an error code.
fn set_ext(fault: Fault) -> Fault {
    match (fault.vector(), fault.error()) {
        (vector::TS | vector::NP | vector::SS | vector::GP, Some(error)) => Fault::with_error(fault.vector(), error | 1),
        _ => fault,
    }
}

impl Cpu {
    /// Delivers an exception; double and triple faults come out of this.
    #[cold]
    #[inline(never)]
    pub fn raise(&mut self, fault: Fault) {
        self.step_over_divide_error(fault);
        self.take(Event::fault(fault));
    }

    /// Delivers an event with whatever faults come up on the way.
    pub(crate) fn take(&mut self, first: Event) {
        let mut event = first;
        loop {
            if event.vector == vector::PF && event.is_exception() {
                self.cr2 = self.fault_address;
            }
            match self.deliver(&event) {
                // A data breakpoint on the handler's stack, say. One on the debug handler's own stack is let go.
                Ok(()) if self.pending_debug && event.vector != vector::DB => event = Event::trap(vector::DB),
                Ok(()) => break,
                Err(fault) => match event.then(fault) {
                    Some(next) => event = next,
                    None => {
                        self.state.attention |= attention::SHUTDOWN;
                        break;
                    }
                },
            }
        }
        self.pending_debug = false;
    }

    /// Takes a pending NMI or, with IF set, a pending external interrupt; wakes a halted CPU.
    pub fn take_interrupt(&mut self) {
        self.system.position(self.state.budget);
        if !self.inhibit.nmi && self.system.take_nmi() {
            self.inhibit.nmi = true;
            self.state.budget -= 1;
            self.take(Event::external(vector::NMI));
            self.state.attention |= attention::INTERRUPT;
            return;
        }
        if self.monitoring() && self.monitor_hit() {
            self.wake();
        }
        self.held = self.system.interrupt_pending();
        if !self.flag(rflags::IF) {
            if self.inhibit.masked_wake && self.held {
                self.wake();
            }
            return;
        }
        if !self.held {
            return;
        }
        if let Some(vector) = self.system.acknowledge() {
            self.state.budget -= 1;
            self.take(Event::external(vector));
            if self.flag(rflags::IF) {
                self.state.attention |= attention::INTERRUPT;
            }
        }
    }

    /// After IF was set: looks for an interrupt if it may have held one back. While nothing is held back nothing can come up
    /// but with [`attention::INTERRUPT`].
    #[inline]
    pub(crate) fn let_interrupts_in(&mut self) {
        if self.held {
            self.state.attention |= attention::INTERRUPT;
        }
    }

    /// Whether the next instruction is the one that an STI lets run first.
    pub(crate) fn in_sti_shadow(&self) -> bool {
        self.after_sti == Some((self.state.rip, self.state.budget))
    }

    /// Before the budget is renewed, by which [`Cpu::in_sti_shadow`] knows.
    pub fn keep_sti_shadow(&mut self) {
        if self.in_sti_shadow() {
            self.state.attention |= attention::SHADOW;
        }
        self.after_sti = None;
    }

    /// Delivers one event, or says what came up.
    pub(crate) fn deliver(&mut self, event: &Event) -> Result<(), Fault> {
        if self.intercept.is_some() {
            return self.catch(event);
        }
        let result = if self.real_mode() {
            self.attempt(|cpu| cpu.deliver_real(event))
        } else if self.long_mode() {
            self.attempt(|cpu| cpu.deliver_long(event))
        } else {
            self.deliver_protected(event)
        };
        if event.vector == vector::DB && event.is_exception() {
            self.dr[7] &= !crate::functions::debug::dr7::GD;
            self.msr.debugctl &= !crate::functions::debug::debugctl::BTF;
        }
        if self.state.attention & attention::HALTED != 0 {
            self.wake();
        }
        self.inhibit.no_trap = true;
        result.map_err(|fault| if event.source == Source::Software { fault } else { set_ext(fault) })
    }

    /// Keeps an event for [`Cpu::intercept`]. The gate of a software interrupt is checked: it decides between the interrupt and #GP.
    #[cold]
    fn catch(&mut self, event: &Event) -> Result<(), Fault> {
        if event.source == Source::Software && !self.real_mode() {
            self.idt_gate(event, if self.long_mode() { 16 } else { 8 })?;
        }
        self.intercept = Some(Intercept::Caught(event.vector, event.error));
        self.state.attention = self.state.attention & !attention::HALTED | attention::YIELD;
        self.inhibit.no_trap = true;
        Ok(())
    }

    /// SDM Vol. 2, "INT n", REAL-ADDRESS-MODE.
    fn deliver_real(&mut self, event: &Event) -> Result<(), Fault> {
        let entry = u64::from(self.real_mode_vector(event)) * 4;
        if entry + 3 > self.idtr.limit.into() {
            return Err(Fault::with_error(vector::GP, event.idt_error()));
        }
        let far = self.read_system(self.idtr.base.wrapping_add(entry), 4)?;
        let flags = self.rflags();
        self.push(2, flags & 0xffff)?;
        self.push(2, self.state.seg[Seg::Cs as usize].selector.into())?;
        self.push(2, self.state.rip & 0xffff)?;
        self.set_rflags(flags & !(rflags::IF | rflags::TF | rflags::AC | rflags::RF));
        self.load_real(Seg::Cs, (far >> 16) as u16);
        self.state.rip = far & 0xffff;
        Ok(())
    }

    /// The gate of an event in the IDT, `size` bytes, with the checks that all modes share.
    pub(crate) fn idt_gate(&mut self, event: &Event, size: u64) -> Result<Descriptor, Fault> {
        let wrong = Fault::with_error(vector::GP, event.idt_error());
        let entry = u64::from(event.vector) * size;
        if entry + (size - 1) > self.idtr.limit.into() {
            return Err(wrong);
        }
        let at = self.idtr.base.wrapping_add(entry);
        let low = self.read_system(at, 8)?;
        let high = if size == 16 { self.read_system(at.wrapping_add(8), 8)? } else { 0 };
        let gate = Descriptor { low, high, at, selector: 0 };
        let known = match gate.kind() {
            kind::INT | kind::TRAP => true,
            kind::INT16 | kind::TRAP16 | kind::TASK => size == 8,
            _ => false,
        };
        if !gate.system() || !known || (size == 16 && high >> 40 & 0x1f != 0) {
            return Err(wrong);
        }
        if event.source == Source::Software && gate.dpl() < self.cpl {
            return Err(wrong);
        }
        if !gate.present() {
            return Err(Fault::with_error(vector::NP, event.idt_error()));
        }
        Ok(gate)
    }

    /// The code segment that a gate leads to: present code of the same or more privilege.
    pub(crate) fn gate_target(&mut self, gate: &Descriptor) -> Result<Descriptor, Fault> {
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        let d = self.descriptor(selector, Fault::gp)?;
        if !d.code() || d.dpl() > self.cpl {
            return Err(Fault::gp(selector));
        }
        if self.long_mode() && (!d.long() || d.reserved_size()) {
            return Err(Fault::gp(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        Ok(d)
    }

    /// SDM Vol. 2, "INT n", IA-32e mode; Vol. 3, "64-Bit Mode Stack Frame" and "Stack Switching in IA-32e Mode".
    fn deliver_long(&mut self, event: &Event) -> Result<(), Fault> {
        let gate = self.idt_gate(event, 16)?;
        let target = self.gate_target(&gate)?;
        let (old_cpl, old_rsp) = (self.cpl, self.state.gpr[4]);
        let cpl = if target.conforming() { old_cpl } else { target.dpl() };
        let ist = u64::from(gate.gate_count() & 7);
        let rsp = match ist {
            0 if cpl < old_cpl => self.tss_pointer(4 + 8 * u64::from(cpl))?,
            0 => old_rsp,
            n => self.tss_pointer(0x1c + 8 * n)?,
        } & !15;
        let rip = gate.gate_offset();
        if !self.is_canonical(rip) {
            return Err(Fault::GP0);
        }
        self.mark_accessed(&target)?;
        let flags = self.rflags();
        let (ss, cs) = (self.state.seg[Seg::Ss as usize].selector, self.state.seg[Seg::Cs as usize].selector);
        self.cpl = cpl;
        self.update_tlb_key();
        let frame = [ss.into(), old_rsp, event.saved_flags(flags), cs.into(), self.state.rip];
        let mut sp = rsp;
        for value in frame.into_iter().chain(event.error.map(u64::from)) {
            sp = sp.wrapping_sub(8);
            self.write_linear(Seg::Ss, sp, 8, value)?;
        }
        self.state.gpr[4] = sp;
        if cpl < old_cpl {
            self.state.seg[Seg::Ss as usize] = SegReg::null(cpl.into());
        }
        self.enter_code(target.segment(gate.gate_selector() & !3 | u16::from(cpl)), rip, cpl);
        self.enter_handler(gate.kind());
        Ok(())
    }

    /// Clears the flags that a handler starts without.
    pub(crate) fn enter_handler(&mut self, gate_kind: u8) {
        let held = self.state.system_flags;
        let interrupt = if gate_kind & 1 == 0 { rflags::IF } else { 0 };
        self.state.system_flags &= !(rflags::TF | rflags::NT | rflags::RF | rflags::VM | interrupt);
        if held & rflags::TF != 0 {
            self.update_step_attention();
        }
        if held & rflags::VM != 0 {
            self.update_context();
        }
    }

    /// A stack pointer out of a long-mode TSS.
    pub(crate) fn tss_pointer(&mut self, offset: u64) -> Result<u64, Fault> {
        if !self.tr.present() || offset + 7 > self.tr.limit.into() {
            return Err(Fault::ts(self.tr.selector));
        }
        let rsp = self.read_system(self.tr.base.wrapping_add(offset), 8)?;
        if self.is_canonical(rsp) { Ok(rsp) } else { Err(Fault::SS0) }
    }
}
