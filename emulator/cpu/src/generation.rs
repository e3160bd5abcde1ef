//! Older processors, as far as they differ from the manual of today. For conformance to captures of real chips; a machine
//! runs [`Generation::Current`].

use crate::Cpu;
use crate::exceptions::{Event, Source};
use crate::fault::{Fault, vector};
use crate::state::rflags;
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Rep};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// A processor generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Generation {
    /// Intel 80286 in real-address mode: decodes as [`egret_isa::decode`] says, FLAGS has no IOPL and NT, every segment
    /// overrun is exception 13, and string instructions leave their registers changed when they fault.
    I80286,
    /// What the manual says.
    #[default]
    Current,
}

const CX: u8 = 1;
const SI: u8 = 6;
const DI: u8 = 7;

impl Cpu {
    /// RFLAGS bits above the arithmetic ones that the generation has.
    pub(crate) fn existing_flags(&self) -> u64 {
        match self.generation {
            Generation::I80286 if self.real_mode() => rflags::TF | rflags::IF | rflags::DF,
            Generation::I80286 => rflags::TF | rflags::IF | rflags::DF | rflags::IOPL | rflags::NT,
            Generation::Current => u64::MAX,
        }
    }

    /// The vector that the generation reports in real mode: iAPX 286 Programmer's Reference, "Interrupt 13—Segment
    /// Overrun Exception"; there is no stack exception of its own.
    pub(crate) fn real_mode_vector(&self, event: &Event) -> u8 {
        let overrun = event.vector == vector::SS && event.source == Source::Fault;
        if self.generation == Generation::I80286 && overrun { vector::GP } else { event.vector }
    }

    /// What a string instruction that faulted has done to its registers: nothing, but on an 80286, which moves SI and DI
    /// and counts before it accesses memory, and has begun the next element of a pipelined write (captured from a Harris
    /// 80C286: the word at offset FFFFh).
    #[cold]
    pub(crate) fn string_fault(&mut self, i: &Insn, fault: Fault) -> Fault {
        if self.generation != Generation::I80286 {
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
