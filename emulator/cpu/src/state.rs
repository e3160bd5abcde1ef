//! The part of the CPU that compiled code reads and writes, in a fixed layout.

use crate::tlb::{StackPage, Tlb};
use egret_isa::flags::{self, Lazy};
use egret_isa::insn::{Ctx, Seg};
use egret_isa::ops::{FlagsOp, Width};
use std::sync::atomic::AtomicI64;

/// Bits of RFLAGS other than the arithmetic ones.
pub mod rflags {
    #![allow(missing_docs)]
    pub const FIXED: u64 = 1 << 1;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
}

/// Bits of CR0.
pub mod cr0 {
    #![allow(missing_docs)]
    pub const PE: u64 = 1;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4.
pub mod cr4 {
    #![allow(missing_docs)]
    pub const VME: u64 = 1;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
}

/// Bits of IA32_EFER.
pub mod efer {
    #![allow(missing_docs)]
    pub const SCE: u64 = 1;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// A segment register with its hidden part.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegReg {
    /// Base address.
    pub base: u64,
    /// First offset that reads may not touch; 0 when reads need the full check (not readable, expand-down).
    pub read_end: u64,
    /// The same for writes.
    pub write_end: u64,
    /// Limit in bytes, granularity applied: the last valid offset (for expand-down: the last invalid one).
    pub limit: u32,
    /// The selector.
    pub selector: u16,
    /// Descriptor bits 40-47 in bits 0-7 (type, S, DPL, P) and 52-55 in bits 12-15 (AVL, L, D/B, G).
    pub attr: u16,
}

impl SegReg {
    /// Descriptor is code or data, not system.
    pub const S: u16 = 1 << 4;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// 32-bit code, stack, or upper bound.
    pub const DB: u16 = 1 << 14;
    /// Limit in 4 KiB units.
    pub const G: u16 = 1 << 15;
    /// Type bit: code.
    pub const CODE: u16 = 1 << 3;
    /// Type bit: expand-down (data) or conforming (code).
    pub const DOWN: u16 = 1 << 2;
    /// Type bit: writable (data) or readable (code).
    pub const WRITABLE: u16 = 1 << 1;
    /// Type bit: accessed.
    pub const ACCESSED: u16 = 1;

    /// A segment with its derived fields filled in. `attr` with P clear makes an unusable (null) segment.
    #[must_use]
    pub fn new(selector: u16, base: u64, limit: u32, attr: u16) -> SegReg {
        let mut s = SegReg { base, read_end: 0, write_end: 0, limit, selector, attr };
        let plain = attr & (Self::P | Self::S) == Self::P | Self::S && (s.is_code() || attr & Self::DOWN == 0);
        let end = u64::from(limit) + 1;
        if plain && (!s.is_code() || attr & Self::WRITABLE != 0) {
            s.read_end = end;
        }
        if plain && !s.is_code() && attr & Self::WRITABLE != 0 {
            s.write_end = end;
        }
        s
    }

    /// A segment as real mode and V86 load it: base 16 × selector, limit as it was.
    #[must_use]
    pub fn real(selector: u16, limit: u32, attr: u16) -> SegReg {
        SegReg::new(selector, u64::from(selector) << 4, limit, attr)
    }

    /// Whether it is a code segment.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.attr & Self::CODE != 0
    }

    /// Descriptor privilege level.
    #[must_use]
    pub fn dpl(&self) -> u8 {
        (self.attr >> 5 & 3) as u8
    }

    /// Whether it is usable: present.
    #[must_use]
    pub fn present(&self) -> bool {
        self.attr & Self::P != 0
    }

    fn is_flat(&self, writable: bool) -> bool {
        self.base == 0 && self.read_end == 1 << 32 && (!writable || self.write_end == 1 << 32)
    }
}

/// The lazily computed arithmetic flags: see [`Lazy`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LazyFlags {
    /// Result, or the flags themselves. Of additions and subtractions nobody reads it: compiled code does not store it.
    pub r: u64,
    /// First operand.
    pub a: u64,
    /// Second operand.
    pub b: u64,
    /// Kind: [`FlagsOp`] in bits 0-7, [`Width`] in bits 8-15.
    pub kind: u32,
}

impl LazyFlags {
    /// The kind word of an operation.
    #[inline]
    #[must_use]
    pub const fn kind(op: FlagsOp, w: Width) -> u32 {
        op as u32 | (w as u32) << 8
    }

    /// As the computation it stands for.
    #[inline]
    #[must_use]
    pub fn lazy(&self) -> Lazy {
        let op = FlagsOp::ALL.get((self.kind & 0xff) as usize).copied().unwrap_or(FlagsOp::Word);
        let w = match self.kind >> 8 & 3 {
            0 => Width::B,
            1 => Width::W,
            2 => Width::D,
            _ => Width::Q,
        };
        let r = match op {
            FlagsOp::Add => self.a.wrapping_add(self.b) & w.mask(),
            FlagsOp::Sub => self.a.wrapping_sub(self.b) & w.mask(),
            _ => self.r,
        };
        Lazy { op, w, a: self.a, b: self.b, r }
    }

    /// Flags known outright.
    #[must_use]
    pub fn word(flags: u32) -> LazyFlags {
        LazyFlags { r: u64::from(flags & flags::ARITH), a: 0, b: 0, kind: LazyFlags::kind(FlagsOp::Word, Width::Q) }
    }
}

/// Reasons to look up from the block loop, in [`State::attention`].
pub mod attention {
    /// Interrupt lines or IF may have changed: ask the system.
    pub const INTERRUPT: u32 = 1;
    /// Writes hit translated code: see [`crate::Cpu::take_code_writes`].
    pub const CODE_WRITE: u32 = 1 << 1;
    /// Interrupts are held off for one instruction (after STI, MOV SS, POP SS).
    pub const SHADOW: u32 = 1 << 2;
    /// Single-step or breakpoints are on: run one instruction at a time in the interpreter.
    pub const STEP: u32 = 1 << 3;
    /// The CPU waits in HLT.
    pub const HALTED: u32 = 1 << 4;
    /// Triple fault.
    pub const SHUTDOWN: u32 = 1 << 5;
    /// The machine wants the run loop back (an event was raised by a device).
    pub const YIELD: u32 = 1 << 6;
}

/// State in a layout that compiled code knows. One per virtual CPU, boxed: it never moves.
#[repr(C, align(64))]
pub struct State {
    /// General registers in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8-R15.
    pub gpr: [u64; 16],
    /// Instruction pointer, relative to CS.
    pub rip: u64,
    /// Arithmetic flags.
    pub flags: LazyFlags,
    /// Instructions left before the run loop must be entered; negative asks for it.
    pub budget: i64,
    /// Engines come back when the budget is not above this: 0, and more when another thread wants attention.
    pub limit: AtomicI64,
    /// [`attention`] bits; not zero stops at the next block boundary.
    pub attention: u32,
    /// What decoding and translation depend on.
    pub ctx: Ctx,
    /// Low 12 bits of TLB tags in the current context, never 0.
    pub tlb_key: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// Scratch for compiled code: a slow path's status.
    pub status: u32,
    /// Where the stack is.
    pub stack: StackPage,
    /// For the engine that compiles: the address of its own data, 0 when there is none.
    pub engine: u64,
    /// Scratch for compiled code: the instruction pointer that goes with the first byte of the page it runs in.
    pub page: u64,
    /// Scratch for compiled code: a slow path's result.
    pub result: [u64; 2],
    /// Segment registers by number.
    pub seg: [SegReg; 6],
    /// RFLAGS without the arithmetic flags.
    pub system_flags: u64,
    /// XMM registers (low halves of YMM).
    pub xmm: [u128; 16],
    /// High halves of the YMM registers.
    pub ymm_hi: [u128; 16],
    /// XCR0: the state components that XSAVE manages and AVX needs.
    pub xcr0: u64,
    /// Address translations.
    pub tlb: Tlb,
}

impl Default for State {
    fn default() -> Self {
        State {
            gpr: [0; 16],
            rip: 0,
            flags: LazyFlags::word(0),
            budget: 0,
            limit: AtomicI64::new(0),
            attention: 0,
            ctx: Ctx(0),
            tlb_key: 1,
            mxcsr: 0x1f80,
            status: 0,
            stack: StackPage::default(),
            engine: 0,
            page: 0,
            result: [0; 2],
            seg: [SegReg::real(0, 0xffff, 0x93); 6],
            system_flags: rflags::FIXED,
            xmm: [0; 16],
            ymm_hi: [0; 16],
            xcr0: 1,
            tlb: Tlb::default(),
        }
    }
}

impl State {
    /// RFLAGS.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.system_flags | u64::from(self.flags.lazy().flags())
    }

    /// Forgets all translations.
    pub(crate) fn forget_translations(&mut self) {
        self.tlb.clear();
        self.stack = StackPage::default();
    }

    /// Forgets the translations of the page of a linear address, in all contexts.
    pub(crate) fn forget_page(&mut self, linear: u64) {
        self.tlb.clear_page(linear);
        self.stack = StackPage::default();
    }

    /// Forgets every write translation to the host page at `host` (page-aligned).
    pub(crate) fn forget_writes_to(&mut self, host: u64) {
        self.tlb.clear_writes_to(host);
        self.stack = StackPage::default();
    }

    /// Changes [`Self::tlb_key`].
    pub(crate) fn set_tlb_key(&mut self, key: u64) {
        if key != self.tlb_key {
            self.tlb_key = key;
            self.stack = StackPage::default();
        }
    }

    /// Whether the four everyday segments are flat.
    pub(crate) fn flat(&self) -> bool {
        [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds].iter().all(|s| self.seg[*s as usize].is_flat(*s != Seg::Cs))
    }
}
