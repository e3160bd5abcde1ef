//! Delivery of exceptions and interrupts in protected mode and V86 (SDM Vol. 2, "INT n", PROTECTED-MODE).

use crate::Cpu;
use crate::exceptions::{Event, Source};
use crate::fault::{Fault, vector};
use crate::segments::{Descriptor, kind};
use crate::state::SegReg;
use crate::task::Reason;
use egret_isa::insn::Seg;

/// What the old context pushes before EFLAGS, CS and EIP when the stack changes.
struct Outer {
    ss: u16,
    esp: u64,
    /// ES, DS, FS, GS, in this order, when it was V86.
    data: Option<[u16; 4]>,
}

impl Cpu {
    /// Delivers one event through the IDT of protected mode.
    pub(crate) fn deliver_protected(&mut self, event: &Event) -> Result<(), Fault> {
        let gate = self.attempt(|cpu| cpu.idt_gate(event, 8))?;
        if gate.kind() == kind::TASK {
            return self.deliver_task(event, &gate);
        }
        self.attempt(|cpu| cpu.deliver_through(event, &gate))
    }

    fn deliver_through(&mut self, event: &Event, gate: &Descriptor) -> Result<(), Fault> {
        let target = self.gate_target(gate)?;
        let stay = target.conforming() || target.dpl() == self.cpl;
        if self.v86() && (target.conforming() || target.dpl() != 0) {
            return Err(Fault::gp(gate.gate_selector()));
        }
        let flags = self.rflags();
        let (cs, eip) = (self.state.seg[Seg::Cs as usize].selector, self.state.rip);
        let size = if gate.wide_gate() { 4 } else { 2 };
        let cpl = if stay { self.cpl } else { target.dpl() };
        let new_cs = target.segment(gate.gate_selector() & !3 | u16::from(cpl));
        let mut outer = None;
        let mut new_ss = 0;
        if !stay {
            let (ss, esp) = self.tss_stack(cpl)?;
            new_ss = ss;
            let stack = self.stack_segment(ss, cpl, Fault::ts)?;
            outer = Some(self.switch_stack(stack, esp, cpl));
        }
        let rip = self.target(&new_cs, gate.gate_offset())?;
        self.mark_accessed(&target)?;
        // SDM: a new stack that is too small is reported with its selector.
        self.push_frame(size, outer.as_ref(), [event.saved_flags(flags), cs.into(), eip], event.error)
            .map_err(|f| if f == Fault::SS0 { Fault::ss(new_ss) } else { f })?;
        if outer.is_some_and(|o| o.data.is_some()) {
            for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
                self.state.seg[seg as usize] = SegReg::null(0);
            }
        }
        self.enter_code(new_cs, rip, cpl);
        self.enter_handler(gate.kind());
        Ok(())
    }

    /// Goes to an inner stack; what is to be pushed of the old context there.
    fn switch_stack(&mut self, stack: SegReg, esp: u64, cpl: u8) -> Outer {
        let selector = |seg: Seg| self.state.seg[seg as usize].selector;
        let data = self.v86().then(|| [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs].map(selector));
        let outer = Outer { ss: selector(Seg::Ss), esp: self.state.gpr[4], data };
        self.enter_stack(stack, esp, cpl);
        outer
    }

    fn push_frame(&mut self, size: u8, outer: Option<&Outer>, frame: [u64; 3], error: Option<u32>) -> Result<(), Fault> {
        if let Some(outer) = outer {
            for data in outer.data.into_iter().flatten().rev() {
                self.push(size, data.into())?;
            }
            self.push(size, outer.ss.into())?;
            self.push(size, outer.esp)?;
        }
        for value in frame.into_iter().chain(error.map(u64::from)) {
            self.push(size, value)?;
        }
        Ok(())
    }

    /// Makes the stack of an inner level current. CS follows; until then accesses have the new level's rights.
    pub(crate) fn enter_stack(&mut self, stack: SegReg, esp: u64, cpl: u8) {
        self.cpl = cpl;
        // Leaving V86: its segment rules end here, and the flag is in the frame already.
        self.state.system_flags &= !crate::state::rflags::VM;
        self.set_segment(Seg::Ss, stack);
        self.set_sp(esp);
    }

    /// An event through a task gate.
    fn deliver_task(&mut self, event: &Event, gate: &Descriptor) -> Result<(), Fault> {
        let tss = self.attempt(|cpu| cpu.task_target(gate.gate_selector(), Fault::gp))?;
        let flags = event.saved_flags(self.rflags());
        let entered = self.task_switch(&tss, Reason::Nest, flags)?;
        let entered = entered.and_then(|trap| {
            if let Some(error) = event.error {
                self.push(if tss.wide_gate() { 4 } else { 2 }, error.into())?;
            }
            Ok(trap)
        });
        match entered {
            Ok(true) => self.take(Event::trap(vector::DB)),
            Ok(false) => {}
            // The fault belongs to the new task. INT n must not put the old one's registers back.
            Err(fault) if event.source == Source::Software => self.raise(fault),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}
