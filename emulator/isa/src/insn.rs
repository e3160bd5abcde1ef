//! A decoded instruction, compact and free of the decoder's types but for the code and mnemonic.

use crate::model::Generation;
use crate::ops::{Cond, Width};
use iced_x86::{Code, Mnemonic};

/// Segment registers, numbered as in the ModRM encoding of MOV Sreg.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Seg {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl Seg {
    /// By number.
    pub const ALL: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];
}

/// Size of code: what CS.D and CS.L select.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Real mode, V86, and 16-bit segments.
    M16 = 0,
    /// 32-bit segments, also in compatibility mode.
    M32 = 1,
    /// 64-bit mode.
    M64 = 2,
}

/// What of the CPU's state decoding and translation depend on. Cached blocks and compiled code are keyed by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ctx(pub u32);

impl Ctx {
    /// Bits 0-1: [`Mode`].
    pub const MODE: u32 = 3;
    /// The stack segment is 32-bit (SS.B).
    pub const SS32: u32 = 1 << 2;
    /// ES, CS, SS and DS have base 0, limit 4 GiB and allow reads and writes (always so in 64-bit mode).
    pub const FLAT: u32 = 1 << 3;
    /// x87 instructions raise no #NM or #UD (CR0.EM = CR0.TS = 0).
    pub const X87: u32 = 1 << 4;
    /// MMX instructions raise no #NM or #UD (CR0.EM = CR0.TS = 0).
    pub const MMX: u32 = 1 << 5;
    /// SSE instructions raise no #NM or #UD (CR4.OSFXSR = 1, CR0.EM = CR0.TS = 0).
    pub const SSE: u32 = 1 << 6;
    /// Every SSE floating-point exception is masked in MXCSR.
    pub const FP_MASKED: u32 = 1 << 7;
    /// Protected mode (CR0.PE).
    pub const PE: u32 = 1 << 8;
    /// Virtual-8086 mode.
    pub const V86: u32 = 1 << 9;
    /// CPL is 3.
    pub const USER: u32 = 1 << 10;

    /// VEX-encoded instructions raise no #NM or #UD (CR4.OSXSAVE = 1, XCR0[2:1] = 11b, CR0.TS = 0, protected mode, not V86).
    pub const AVX: u32 = 1 << 12;

    /// Bits 24-26: how many generations before [`Generation::Current`] the CPU is.
    const AGE: u32 = 24;

    /// The bits of a generation.
    #[must_use]
    pub fn of_generation(generation: Generation) -> u32 {
        (Generation::Current as u32 - generation as u32) << Self::AGE
    }

    /// The CPU's generation.
    #[inline]
    #[must_use]
    pub fn generation(self) -> Generation {
        let age = (self.0 >> Self::AGE & 7) as usize;
        Generation::ALL.get(Generation::Current as usize - age.min(Generation::Current as usize)).copied().unwrap_or_default()
    }

    /// The size of code.
    #[inline]
    #[must_use]
    pub fn mode(self) -> Mode {
        match self.0 & Self::MODE {
            0 => Mode::M16,
            1 => Mode::M32,
            _ => Mode::M64,
        }
    }

    /// Whether all bits of `bits` are set.
    #[inline]
    #[must_use]
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Width of the stack pointer.
    #[inline]
    #[must_use]
    pub fn stack(self) -> Width {
        match self.mode() {
            Mode::M64 => Width::Q,
            _ if self.has(Self::SS32) => Width::D,
            _ => Width::W,
        }
    }
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}:{:x}", self.mode(), self.0 >> 2)
    }
}

/// An explicit operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Operand {
    /// No operand.
    None,
    /// The low part of a general register, of the operand's width.
    Reg(u8, Width),
    /// AH, CH, DH or BH: bits 8-15 of general register 0-3.
    High(u8),
    /// The memory operand [`Insn::mem`], of this many bytes (0 for LEA and the like).
    Mem(u16),
    /// [`Insn::imm`], already extended to the operand size.
    Imm,
    /// [`Insn::imm2`].
    Imm2,
    /// A near branch target: [`Insn::imm`] is the displacement from the next instruction.
    Rel,
    /// A far pointer: offset in [`Insn::imm`], selector in [`Insn::imm2`].
    Far,
    /// A segment register.
    Seg(Seg),
    /// A control register.
    Cr(u8),
    /// A debug register.
    Dr(u8),
    /// An XMM register.
    Xmm(u8),
    /// A YMM register.
    Ymm(u8),
    /// An MMX register.
    Mm(u8),
    /// An x87 register, relative to the top of stack.
    St(u8),
    /// A register Egret has no name for here (masks, ZMM, test registers).
    Other,
}

/// A memory operand. `base` and `index` are general register numbers or [`Mem::NONE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Mem {
    /// Segment, with overrides applied.
    pub seg: Seg,
    /// Base register, [`Mem::NONE`] or [`Mem::RIP`].
    pub base: u8,
    /// Index register or [`Mem::NONE`].
    pub index: u8,
    /// Left shift of the index: 0 to 3.
    pub scale: u8,
    /// Width of the address computation.
    pub width: Width,
    /// Displacement, sign-extended. For [`Mem::RIP`] relative to the next instruction.
    pub disp: u64,
}

impl Mem {
    /// No register.
    pub const NONE: u8 = 0xff;
    /// The instruction pointer.
    pub const RIP: u8 = 0x10;
}

/// REP prefixes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs)]
pub enum Rep {
    None,
    Rep,
    Repne,
}

/// A decoded instruction. Position-independent: branch targets and RIP-relative operands are displacements.
#[derive(Clone, Copy, Debug)]
pub struct Insn {
    /// Encoding, as iced numbers them. `Code::INVALID` raises #UD.
    pub code: Code,
    /// Mnemonic.
    pub mnemonic: Mnemonic,
    /// Length in bytes, 1 to 15.
    pub len: u8,
    /// Operand width: of the first operand that has one, else the effective operand size.
    pub width: Width,
    /// Effective operand size (16, 32 or 64).
    pub opsize: Width,
    /// Effective address size.
    pub addrsize: Width,
    /// The context it was decoded in.
    pub ctx: Ctx,
    /// LOCK prefix.
    pub lock: bool,
    /// REP or REPNE prefix.
    pub rep: Rep,
    /// Condition of Jcc, SETcc, CMOVcc.
    pub cond: Cond,
    /// Explicit operands.
    pub ops: [Operand; 4],
    /// The memory operand, if `ops` has one; for string instructions the (overridable) source segment is `mem.seg`.
    pub mem: Mem,
    /// First immediate, branch displacement or far offset.
    pub imm: u64,
    /// Second immediate or far selector.
    pub imm2: u64,
}

impl Insn {
    /// The size of code.
    #[inline]
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.ctx.mode()
    }

    /// Width of the stack pointer.
    #[inline]
    #[must_use]
    pub fn stack(&self) -> Width {
        self.ctx.stack()
    }

    /// Whether an operand is in memory.
    #[must_use]
    pub fn has_mem(&self) -> bool {
        self.ops.iter().any(|o| matches!(o, Operand::Mem(_)))
    }
}
