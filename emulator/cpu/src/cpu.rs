//! The CPU as a whole.

use crate::cluster::{Cluster, Member};
use crate::mmu::Contexts;
use crate::state::{SegReg, State, attention, cr0, cr4, efer, rflags};
use crate::system::System;
use egret_bus::{GuestRam, Phys};
use egret_isa::CpuModel;
use egret_isa::flags::ARITH;
use egret_isa::insn::{Ctx, Seg};
use egret_isa::x87::X87;
use std::collections::BTreeMap;
use std::sync::Arc;

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableReg {
    /// Linear base address.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}

/// Model-specific registers that are plain storage for the CPU.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_aux: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// What is added to the system's time-stamp counter (IA32_TSC_ADJUST and writes to IA32_TSC).
    pub tsc_offset: u64,
    /// MTRRs and whatever else is kept as written, by number.
    pub plain: BTreeMap<u32, u64>,
}

impl Default for Msrs {
    fn default() -> Self {
        Msrs {
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: 0x0007_0406_0007_0406,
            tsc_aux: 0,
            debugctl: 0,
            misc_enable: 1 | 1 << 11 | 1 << 12,
            tsc_offset: 0,
            plain: BTreeMap::new(),
        }
    }
}

/// A virtual CPU with its connections to RAM and the machine.
pub struct Cpu {
    /// Before `state`, which it has the address of a word of: fields are dropped in this order.
    pub(crate) member: crate::cluster::Member,
    /// What compiled code works on.
    pub state: Box<State>,
    /// The machine.
    pub system: Box<dyn System>,
    /// Guest RAM.
    pub ram: GuestRam,
    /// CR0. Change it with [`Cpu::update_context`] after.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// The x87 FPU and the MMX registers.
    pub x87: X87,
    /// Rights of the protection keys of user pages. Change it with [`Cpu::set_pkru`].
    pub pkru: u32,
    /// Current privilege level.
    pub cpl: u8,
    /// DR0-DR7.
    pub dr: [u64; 8],
    /// GDTR.
    pub gdtr: TableReg,
    /// IDTR.
    pub idtr: TableReg,
    /// LDTR with its hidden part.
    pub ldtr: SegReg,
    /// TR with its hidden part.
    pub tr: SegReg,
    /// MSRs.
    pub msr: Msrs,
    /// The linear address of the last page fault, for CR2 when it is delivered.
    pub fault_address: u64,
    /// The PAE page-directory-pointer entries, loaded with CR3 (SDM Vol. 3, "PDPTE Registers").
    pub pdpte: [u64; 4],
    /// Instructions and MSRs that Egret does not know, by name: how often the guest tried.
    pub unknown: BTreeMap<String, u64>,
    pub(crate) contexts: Contexts,
    pub(crate) reach: crate::reach::Reach,
    pub(crate) code_writes: Vec<(Phys, u64)>,
    pub(crate) ip_mask: u64,
    /// The bits of a physical address that leave the chip: all, but for line 20 while A20M# is asserted.
    pub(crate) address_mask: u64,
    /// A data breakpoint was hit by the instruction under way.
    pub(crate) pending_debug: bool,
    /// FERR# is asserted.
    pub(crate) ferr: bool,
    pub(crate) monitor: Option<crate::functions::system::Monitor>,
    /// An interrupt may be pending that IF holds back: it has to be looked at when IF is set.
    pub(crate) held: bool,
    /// The instruction that an STI let run before interrupts: its instruction pointer, and the budget when it is the next.
    pub(crate) after_sti: Option<(u64, i64)>,
    /// What holds events back.
    pub inhibit: crate::exceptions::Inhibit,
    /// What CPUID says beside the model's features.
    pub identity: crate::functions::cpuid::Identity,
    pub(crate) model: CpuModel,
    /// For test benches: exceptions and software interrupts are caught here and end the run instead of being delivered.
    pub intercept: Option<Intercept>,
}

/// What a test bench catches: see [`Cpu::intercept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intercept {
    /// Nothing yet.
    Armed,
    /// An event: the vector and the error code it would have been delivered with. RIP is the one it would have saved.
    Caught(u8, Option<u32>),
}

impl Cpu {
    /// Most distinct names kept in [`Cpu::unknown`].
    const UNKNOWN_LIMIT: usize = 1000;

    /// A CPU in its reset state (SDM Vol. 3, "Processor State After Reset").
    #[must_use]
    pub fn new(ram: GuestRam, system: Box<dyn System>) -> Cpu {
        let alone = Cluster::new(&ram, 1);
        Cpu::member(ram, system, &alone, 0)
    }

    /// CPU `index` of a cluster, in its reset state.
    #[must_use]
    pub fn member(ram: GuestRam, system: Box<dyn System>, cluster: &Arc<Cluster>, index: usize) -> Cpu {
        let state: Box<State> = Box::default();
        let mut cpu = Cpu {
            member: Member::new(cluster, index, &state.limit),
            state,
            system,
            ram,
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            x87: X87::reset(),
            pkru: 0,
            cpl: 0,
            dr: [0; 8],
            gdtr: TableReg::default(),
            idtr: TableReg::default(),
            ldtr: SegReg::new(0, 0, 0xffff, 0x82),
            tr: SegReg::new(0, 0, 0xffff, 0x8b),
            msr: Msrs::default(),
            fault_address: 0,
            pdpte: [0; 4],
            unknown: BTreeMap::new(),
            contexts: Contexts::default(),
            reach: crate::reach::Reach::default(),
            code_writes: Vec::new(),
            ip_mask: 0xffff_ffff,
            address_mask: u64::MAX,
            pending_debug: false,
            ferr: false,
            monitor: None,
            held: true,
            after_sti: None,
            inhibit: crate::exceptions::Inhibit::default(),
            identity: crate::functions::cpuid::Identity::default(),
            model: CpuModel::default(),
            intercept: None,
        };
        cpu.reset();
        cpu
    }

    /// Puts the CPU into its power-on state.
    pub fn reset(&mut self) {
        let flags = self.fixed_flags();
        let s = &mut *self.state;
        s.gpr = [0; 16];
        s.rip = 0xfff0;
        s.system_flags = flags;
        s.flags = crate::state::LazyFlags::word(0);
        s.attention = 0;
        s.mxcsr = 0x1f80;
        s.xmm = [0; 16];
        s.ymm_hi = [0; 16];
        s.xcr0 = 1;
        s.seg = [SegReg::real(0, 0xffff, 0x93); 6];
        s.seg[Seg::Cs as usize] = SegReg::new(0xf000, 0xffff_0000, 0xffff, 0x9b);
        self.cr0 = cr0::ET | cr0::NW | cr0::CD;
        (self.cr2, self.cr3, self.cr4, self.efer, self.cpl) = (0, 0, 0, 0, 0);
        self.dr = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400];
        self.gdtr = TableReg { base: 0, limit: 0xffff };
        self.idtr = TableReg { base: 0, limit: 0xffff };
        self.ldtr = SegReg::new(0, 0, 0xffff, 0x82);
        self.tr = SegReg::new(0, 0, 0xffff, 0x8b);
        self.msr = Msrs::default();
        self.inhibit = crate::exceptions::Inhibit::default();
        (self.held, self.after_sti) = (true, None);
        self.pending_debug = false;
        self.monitor = None;
        self.ferr = false;
        self.x87 = X87::reset();
        self.pkru = 0;
        self.flush_tlb();
        self.update_context();
    }

    /// RFLAGS.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.state.rflags()
    }

    /// Replaces RFLAGS; reserved bits take their fixed values. Re-derives what depends on it.
    pub fn set_rflags(&mut self, value: u64) {
        const SYSTEM: u64 = rflags::TF
            | rflags::IF
            | rflags::DF
            | rflags::IOPL
            | rflags::NT
            | rflags::RF
            | rflags::VM
            | rflags::AC
            | rflags::VIF
            | rflags::VIP
            | rflags::ID;
        let old = self.state.system_flags;
        self.state.flags = crate::state::LazyFlags::word(value as u32 & ARITH);
        self.state.system_flags = value & SYSTEM & self.existing_flags() | self.fixed_flags();
        let changed = old ^ self.state.system_flags;
        if changed & (rflags::VM | rflags::AC) != 0 {
            self.update_context();
        }
        if changed & (rflags::TF | rflags::RF) != 0 {
            self.update_step_attention();
        }
        if changed & self.state.system_flags & rflags::IF != 0 {
            self.let_interrupts_in();
        }
    }

    /// A flag of the system part of RFLAGS.
    #[inline]
    #[must_use]
    pub fn flag(&self, bit: u64) -> bool {
        self.state.system_flags & bit != 0
    }

    /// Whether the CPU is in long mode (64-bit or compatibility).
    #[must_use]
    pub fn long_mode(&self) -> bool {
        self.efer & efer::LMA != 0
    }

    /// Whether the CPU runs 64-bit code.
    #[must_use]
    pub fn code64(&self) -> bool {
        self.state.ctx.mode() == egret_isa::Mode::M64
    }

    /// Real mode: no protection at all.
    #[must_use]
    pub fn real_mode(&self) -> bool {
        self.cr0 & cr0::PE == 0
    }

    /// Virtual-8086 mode.
    #[must_use]
    pub fn v86(&self) -> bool {
        self.flag(rflags::VM)
    }

    /// Recomputes [`State::ctx`], the TLB key and the instruction pointer's width. To be called after any change of CS, SS
    /// or another everyday segment, CR0, CR4, EFER, MXCSR's masks, CPL, RFLAGS.VM or RFLAGS.AC.
    pub fn update_context(&mut self) {
        let s = &*self.state;
        let cs = &s.seg[Seg::Cs as usize];
        let mode = if self.long_mode() && cs.attr & SegReg::L != 0 { 2 } else { u32::from(cs.attr & SegReg::DB != 0) };
        let mut ctx = mode | if mode == 2 { Ctx::FLAT } else { 0 };
        let mut set = |on: bool, bit: u32| ctx |= if on { bit } else { 0 };
        let off = self.cr0 & (cr0::EM | cr0::TS) != 0;
        // Nothing in 64-bit mode, where SYSCALL and interrupts leave it different.
        set(mode != 2 && s.seg[Seg::Ss as usize].attr & SegReg::DB != 0, Ctx::SS32);
        set(s.flat(), Ctx::FLAT);
        set(!off, Ctx::X87 | Ctx::MMX);
        set(!off && self.cr4 & cr4::OSFXSR != 0, Ctx::SSE);
        let avx = self.cr4 & cr4::OSXSAVE != 0 && s.xcr0 & 6 == 6 && self.cr0 & cr0::TS == 0;
        set(avx && self.cr0 & cr0::PE != 0 && !self.v86(), Ctx::AVX);
        set(s.mxcsr & 0x1f80 == 0x1f80, Ctx::FP_MASKED);
        set(self.cr0 & cr0::PE != 0, Ctx::PE);
        set(self.v86(), Ctx::V86);
        set(true, Ctx::of_generation(self.model.generation()));
        set(self.cpl == 3, Ctx::USER);
        self.state.ctx = Ctx(ctx);
        self.ip_mask = match ctx & 3 {
            2 => u64::MAX,
            _ if self.wraps() => 0xffff,
            // Also for 16-bit code: a 32-bit operand size branches beyond 64 KiB, and faults there by the limit.
            _ => 0xffff_ffff,
        };
        self.update_tlb_key();
    }

    /// Recomputes [`attention::STEP`] from TF and DR7.
    pub fn update_step_attention(&mut self) {
        let step = self.flag(rflags::TF) || self.dr[7] & 0xff != 0;
        if step {
            self.state.attention |= attention::STEP;
        } else {
            self.state.attention &= !attention::STEP;
        }
        self.update_tlb_key();
    }

    /// Whether data breakpoints are armed: then no data access may take the TLB's fast path.
    pub(crate) fn data_breakpoints(&self) -> bool {
        (0..4).any(|n| self.dr[7] >> (2 * n) & 3 != 0 && self.dr[7] >> (16 + 4 * n) & 3 != 0)
    }

    /// Counts an instruction, register or MSR that Egret does not know.
    pub fn count_unknown(&mut self, what: &str) {
        if let Some(n) = self.unknown.get_mut(what) {
            *n = n.saturating_add(1);
        } else if self.unknown.len() < Self::UNKNOWN_LIMIT {
            self.unknown.insert(what.to_owned(), 1);
        }
    }

    /// General register `r`, all 64 bits.
    #[inline]
    #[must_use]
    pub fn gpr(&self, r: usize) -> u64 {
        self.state.gpr[r & 15]
    }

    /// Takes over the architectural state of another CPU; translations and caches are flushed.
    pub fn copy_from(&mut self, other: &Cpu) {
        let (to, from) = (&mut *self.state, &*other.state);
        to.gpr = from.gpr;
        to.rip = from.rip;
        to.flags = from.flags;
        to.budget = from.budget;
        to.attention = from.attention;
        to.seg = from.seg;
        to.mxcsr = from.mxcsr;
        to.system_flags = from.system_flags;
        to.xmm = from.xmm;
        to.ymm_hi = from.ymm_hi;
        to.xcr0 = from.xcr0;
        (self.cr0, self.cr2, self.cr3, self.cr4, self.efer) = (other.cr0, other.cr2, other.cr3, other.cr4, other.efer);
        (self.cpl, self.dr, self.gdtr, self.idtr) = (other.cpl, other.dr, other.gdtr, other.idtr);
        (self.ldtr, self.tr, self.pdpte) = (other.ldtr, other.tr, other.pdpte);
        self.fault_address = other.fault_address;
        self.msr = other.msr.clone();
        self.x87 = other.x87.clone();
        self.pkru = other.pkru;
        self.model = other.model;
        self.identity = other.identity.clone();
        (self.held, self.after_sti) = (true, other.after_sti);
        self.address_mask = other.address_mask;
        self.flush_tlb();
        self.update_context();
    }

    /// Up to `n` instructions at a linear address as text, without disturbing the guest: it stops at the first unmapped byte.
    pub fn disassemble(&mut self, linear: u64, n: usize) -> Vec<String> {
        use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
        let bits = match self.mode() {
            egret_isa::Mode::M16 => 16,
            egret_isa::Mode::M32 => 32,
            egret_isa::Mode::M64 => 64,
        };
        let address = self.fault_address;
        let mut bytes = Vec::new();
        for at in 0..15 * n as u64 {
            let Ok(phys) = self.fetch_address(linear.wrapping_add(at)) else { break };
            let Some(byte) = self.ram.load(Phys(phys), 1) else { break };
            bytes.push(byte as u8);
        }
        self.fault_address = address;
        let mut decoder = Decoder::with_ip(bits, &bytes, linear, DecoderOptions::NONE);
        let mut formatter = NasmFormatter::new();
        let mut lines = Vec::new();
        while decoder.can_decode() && lines.len() < n {
            let insn = decoder.decode();
            let mut text = String::new();
            formatter.format(&insn, &mut text);
            lines.push(format!("{:016x}  {text}", insn.ip()));
        }
        lines
    }

    /// The linear address of the next instruction.
    #[inline]
    #[must_use]
    pub fn linear_ip(&self) -> u64 {
        if self.code64() {
            self.state.rip
        } else {
            self.state.seg[Seg::Cs as usize].base.wrapping_add(self.state.rip & self.ip_mask) & 0xffff_ffff
        }
    }
}
