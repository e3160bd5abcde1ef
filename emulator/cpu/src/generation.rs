//! Older processors, as far as they differ from the manual of today.

use crate::Cpu;
use crate::exceptions::{Event, Source};
use crate::fault::{Fault, vector};
use crate::state::{cr4, rflags};
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Rep};
use egret_isa::ops::Width;
use egret_isa::{CpuModel, Feature, Generation};
use iced_x86::Mnemonic as M;

const CX: u8 = 1;
const SI: u8 = 6;
const DI: u8 = 7;

impl Cpu {
    /// The CPU's model.
    #[inline]
    #[must_use]
    pub fn model(&self) -> CpuModel {
        self.model
    }

    /// Makes it another model. An engine that has run it must be flushed.
    pub fn set_model(&mut self, model: CpuModel) {
        self.model = model;
        self.update_context();
    }

    /// The CPU's generation.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.model.generation()
    }

    /// RFLAGS bits above the arithmetic ones that the model has.
    pub(crate) fn existing_flags(&self) -> u64 {
        use rflags::{AC, DF, ID, IF, IOPL, NT, RF, TF, VIF, VIP, VM};
        match self.generation() {
            Generation::I8086 => TF | IF | DF,
            Generation::I286 if self.real_mode() => TF | IF | DF,
            Generation::I286 => TF | IF | DF | IOPL | NT,
            Generation::I386 => TF | IF | DF | IOPL | NT | RF | VM,
            _ => {
                let id = if self.model.has(Feature::Cpuid) { ID } else { 0 };
                let virtual_if = if self.model.has(Feature::Vme) { VIF | VIP } else { 0 };
                TF | IF | DF | IOPL | NT | RF | VM | AC | id | virtual_if
            }
        }
    }

    /// CR4 bits that go with what CPUID claims.
    pub(crate) fn cr4_known(&self) -> u64 {
        use Feature as F;
        const BITS: [(Feature, u64); 18] = [
            (F::Vme, cr4::VME | cr4::PVI),
            (F::Tsc, cr4::TSD),
            (F::De, cr4::DE),
            (F::Pse, cr4::PSE),
            (F::Pae, cr4::PAE),
            (F::Mce, cr4::MCE),
            (F::Pge, cr4::PGE),
            (F::Nopl, cr4::PCE),
            (F::Fxsr, cr4::OSFXSR),
            (F::Sse, cr4::OSXMMEXCPT),
            (F::Umip, cr4::UMIP),
            (F::La57, cr4::LA57),
            (F::Fsgsbase, cr4::FSGSBASE),
            (F::Pcid, cr4::PCIDE),
            (F::Xsave, cr4::OSXSAVE),
            (F::Smep, cr4::SMEP),
            (F::Smap, cr4::SMAP),
            (F::Pku, cr4::PKE),
        ];
        BITS.iter().filter(|(f, _)| self.model.has(*f)).fold(0, |bits, (_, bit)| bits | bit)
    }

    /// The vector that the generation reports in real mode: iAPX 286 Programmer's Reference, "Interrupt 13—Segment
    /// Overrun Exception"; there is no stack exception of its own.
    pub(crate) fn real_mode_vector(&self, event: &Event) -> u8 {
        let overrun = event.vector == vector::SS && event.source == Source::Fault;
        if self.generation() == Generation::I286 && overrun { vector::GP } else { event.vector }
    }

    /// What a string instruction that faulted has done to its registers: nothing, but on an 80286, which moves SI and DI
    /// and counts before it accesses memory, and has begun the next element of a pipelined write (captured from a Harris
    /// 80C286: the word at offset FFFFh).
    #[cold]
    pub(crate) fn string_fault(&mut self, i: &Insn, fault: Fault) -> Fault {
        if self.generation() != Generation::I286 {
            return fault;
        }
        let destination_overruns = self.gpr_w(DI, Width::W) == 0xffff;
        let (source, destination, counted) = match i.mnemonic {
            M::Lodsw | M::Outsw => (true, false, 1),
            M::Scasw => (false, true, 1),
            M::Stosw | M::Insw => (false, true, 2),
            M::Movsw if self.gpr_w(SI, Width::W) == 0xffff => (true, false, 1),
            M::Movsw => (true, true, 2),
            M::Cmpsw => (!destination_overruns, true, 1),
            _ => (false, false, 0),
        };
        let step = if self.flag(rflags::DF) { 0xfffe } else { 2 };
        for (register, moves) in [(SI, source), (DI, destination)] {
            if moves {
                let to = self.gpr_w(register, Width::W).wrapping_add(step);
                self.set_gpr(register, Width::W, to & 0xffff);
            }
        }
        if i.rep != Rep::None {
            let left = self.gpr_w(CX, Width::W).wrapping_sub(counted);
            self.set_gpr(CX, Width::W, left & 0xffff);
        }
        fault
    }
}
