//! Older processors, as far as they differ from the manual of today.

use crate::Cpu;
use crate::exceptions::{Event, Source};
use crate::fault::{Fault, vector};
use crate::functions::misc::result_flags;
use crate::state::{cr4, rflags};
use egret_isa::decode::MAX_LEN;
use egret_isa::emit::Emit;
use egret_isa::flags::ARITH;
use egret_isa::insn::{Insn, Rep, Seg};
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

    /// RFLAGS bits that read as ones.
    pub(crate) fn fixed_flags(&self) -> u64 {
        let high = if self.generation() == Generation::I8086 { 0xf000 } else { 0 };
        rflags::FIXED | high
    }

    /// What shift counts are cut to.
    pub(crate) fn count_mask(&self, w: Width) -> u64 {
        match w {
            _ if self.generation() == Generation::I8086 => 0xff,
            Width::Q => 63,
            _ => 31,
        }
    }

    /// AAA and AAS on an 8086: AL and AH are adjusted one by one, without a carry between them.
    pub(crate) fn adjust_bytes(&self, ax: u16, step: u16) -> u16 {
        let [low, high] = ax.to_le_bytes();
        let up = step == 0x106;
        let (six, one) = if up { (6, 1) } else { (6u8.wrapping_neg(), 1u8.wrapping_neg()) };
        u16::from_le_bytes([low.wrapping_add(six), high.wrapping_add(one)])
    }

    /// AAM with a base of zero leaves the flags of the division's first step, as captured: on an 8086 a comparison of nothing with
    /// nothing, on an 80286 the dividend shifted once.
    #[cold]
    pub(crate) fn flags_of_aam_zero(&mut self, al: u8) {
        let step = match self.generation() {
            Generation::I8086 => 0,
            Generation::I286 => al << 1,
            _ => return,
        };
        self.set_flags_word(ARITH, result_flags(step).into());
    }

    /// DAA and DAS: above which AL the upper digit is adjusted. On an 8086 it depends on AF.
    pub(crate) fn decimal_limit(&self, adjusted: bool) -> u8 {
        if self.generation() == Generation::I8086 && adjusted { 0x9f } else { 0x99 }
    }

    /// Whether an access beyond the end of a segment goes on at its start instead of faulting: on an 8086.
    #[inline]
    pub(crate) fn wraps(&self) -> bool {
        self.generation() == Generation::I8086
    }

    /// The code bytes at a linear address on an 8086, when they may go on at the start of the segment.
    #[cold]
    pub(crate) fn wrapped_code(&mut self, linear: u64) -> Result<Option<[u8; MAX_LEN]>, Fault> {
        let base = self.state.seg[Seg::Cs as usize].base;
        let offset = linear.wrapping_sub(base) & 0xffff;
        if offset + MAX_LEN as u64 <= 0x1_0000 {
            return Ok(None);
        }
        let mut bytes = [0; MAX_LEN];
        for (n, byte) in bytes.iter_mut().enumerate() {
            let at = self.fetch_address(base.wrapping_add(offset.wrapping_add(n as u64) & 0xffff))?;
            *byte = self.read_phys(at, 1) as u8;
        }
        Ok(Some(bytes))
    }

    /// The bits of a physical address that leave the chip while there is no paging.
    pub(crate) fn address_lines(&self) -> u64 {
        match self.generation() {
            Generation::I8086 => 0xf_ffff,
            Generation::I286 => 0xff_ffff,
            _ => 0xffff_ffff,
        }
    }

    /// A divide error is taken at the instruction on later chips, but behind it on an 8086 (SDM Vol. 3, "Exceptions and/or
    /// Exception Conditions", divide-error).
    #[cold]
    pub(crate) fn step_over_divide_error(&mut self, fault: Fault) {
        if self.generation() != Generation::I8086 || fault != Fault::DE {
            return;
        }
        if let Ok(Some((i, _))) = crate::interp::fetch_insn(self, self.linear_ip(), true) {
            self.state.rip = self.state.rip.wrapping_add(i.len.into()) & self.ip_mask;
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
