//! The x87 FPU as a pure state machine: registers in, registers out, no memory and no faults of its own.
//!
//! A CPU decodes an instruction once with [`decode`], then for each execution:
//! 1. if [`X87Insn::waits`] and [`X87::pending_exception`]: #MF (or IGNNE#/IRQ13), instead of executing;
//! 2. if [`X87Insn::records`]: [`X87::record`] the pointers;
//! 3. reads the memory operand of [`Memory::bytes`] bytes and calls [`X87::execute`];
//! 4. writes [`Outcome::store`] if there is one. Should that write fault, [`X87::restore`] of a [`X87::checkpoint`] taken before
//!    `execute` undoes the instruction;
//! 5. sets ZF, PF, CF from [`Outcome::eflags`].
//!
//! FLDENV, FNSTENV, FRSTOR and FNSAVE ([`Memory::Env`], [`Memory::State`]) go through the images in this module instead of `execute`.

mod execute;
mod image;
mod insn;
#[cfg(test)]
mod tests;

pub use image::EnvFormat;
pub use insn::{Arith, Constant, Dest, Memory, Transcendental, X87Insn, X87Op, decode};

use crate::fp::f80::{Class, F80};

/// Executes a transcendental function on an FPU without a pending exception, all of it but the pointers.
pub type Accelerator = fn(Transcendental, &mut X87);

/// What transcendental functions run on instead of [`crate::fp`], once for the whole process: the host's own x87, if it has one, so
/// that results are those of its silicon to the last bit. Without it they are within one unit in the last place.
pub static ACCELERATOR: std::sync::OnceLock<Accelerator> = std::sync::OnceLock::new();

const IE: u16 = 1;
const SF: u16 = 1 << 6;
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;
const TOP_SHIFT: u32 = 11;
/// ES and B follow from the flags and masks; they are not kept in `sw`.
const ES_B: u16 = 1 << 7 | 1 << 15;
const EXCEPTIONS: u16 = 0x3f;

/// The state of the x87 FPU, and with it of the MMX registers, in a layout that compiled code knows.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X87 {
    /// The physical registers R0 to R7; MMn is `regs[n].frac`.
    pub regs: [F80; 8],
    /// Control word.
    pub cw: u16,
    /// Status word without ES and B, which [`X87::status_word`] adds.
    pub sw: u16,
    /// Abridged tag word as in FXSAVE: bit n is set if Rn is not empty.
    pub tag: u8,
    /// Offset of the last non-control instruction.
    pub fip: u64,
    /// Its code segment selector.
    pub fcs: u16,
    /// Offset of the last memory operand.
    pub fdp: u64,
    /// Its segment selector.
    pub fds: u16,
    /// Opcode of the last non-control instruction: the low three bits of its first byte, then its second byte.
    pub fop: u16,
}

impl Default for X87 {
    /// The state after FNINIT, with registers zero.
    fn default() -> X87 {
        X87 { regs: [F80::ZERO; 8], cw: 0x37f, sw: 0, tag: 0, fip: 0, fcs: 0, fdp: 0, fds: 0, fop: 0 }
    }
}

/// What an instruction did besides changing the FPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Bits to be stored to the memory operand, or to AX.
    pub store: Option<u128>,
    /// (ZF, PF, CF) to be set.
    pub eflags: Option<(bool, bool, bool)>,
}

/// What a store instruction changes in the FPU.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint {
    sw: u16,
    tag: u8,
}

impl X87 {
    /// The state after a power-up or RESET (SDM Vol. 3, table "IA-32 Processor States Following Power-up, Reset, or INIT"), which
    /// differs from FNINIT's.
    pub fn reset() -> X87 {
        X87 { cw: 0x40, tag: 0xff, ..X87::default() }
    }

    /// FNINIT: registers keep their contents.
    pub fn init(&mut self) {
        *self = X87 { regs: self.regs, ..X87::default() };
    }

    /// The status word with ES and B.
    #[inline]
    pub fn status_word(&self) -> u16 {
        if self.pending_exception() { self.sw | ES_B } else { self.sw }
    }

    /// Replaces the status word; ES and B are derived.
    #[inline]
    pub fn set_status_word(&mut self, sw: u16) {
        self.sw = sw & !ES_B;
    }

    /// FLDCW: bit 6 is always set, bits 7 and 13 to 15 always clear.
    #[inline]
    pub fn set_control_word(&mut self, cw: u16) {
        self.cw = (cw & 0x1f3f) | 0x40;
    }

    /// An unmasked exception waits for the next waiting x87, MMX or WAIT instruction.
    #[inline]
    pub fn pending_exception(&self) -> bool {
        self.sw & !self.cw & EXCEPTIONS != 0
    }

    /// Records the pointers of a non-control instruction; `data` is (selector, offset) of its memory operand.
    #[inline]
    pub fn record(&mut self, fop: u16, fcs: u16, fip: u64, data: Option<(u16, u64)>) {
        (self.fop, self.fcs, self.fip) = (fop & 0x7ff, fcs, fip);
        if let Some((fds, fdp)) = data {
            (self.fds, self.fdp) = (fds, fdp);
        }
    }

    /// What [`X87::restore`] needs to undo a store instruction.
    #[inline]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { sw: self.sw, tag: self.tag }
    }

    /// Undoes a store instruction.
    #[inline]
    pub fn restore(&mut self, checkpoint: Checkpoint) {
        (self.sw, self.tag) = (checkpoint.sw, checkpoint.tag);
    }

    /// TOP.
    #[inline]
    pub fn top(&self) -> usize {
        (self.sw >> TOP_SHIFT) as usize & 7
    }

    #[inline]
    fn set_top(&mut self, top: usize) {
        self.sw = (self.sw & !(7 << TOP_SHIFT)) | ((top as u16 & 7) << TOP_SHIFT);
    }

    #[inline]
    fn index(&self, i: u8) -> usize {
        (self.top() + i as usize) & 7
    }

    /// ST(i), whether empty or not.
    #[inline]
    pub fn st(&self, i: u8) -> F80 {
        self.regs[self.index(i)]
    }

    /// Is ST(i) empty?
    #[inline]
    pub fn is_empty(&self, i: u8) -> bool {
        self.tag & 1 << self.index(i) == 0
    }

    /// Writes ST(i), which becomes valid.
    #[inline]
    fn set_st(&mut self, i: u8, value: F80) {
        let index = self.index(i);
        self.regs[index] = value;
        self.tag |= 1 << index;
    }

    #[inline]
    fn free(&mut self, i: u8) {
        self.tag &= !(1 << self.index(i));
    }

    #[inline]
    fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top() + 1);
    }

    /// Pushes without a check.
    #[inline]
    fn push(&mut self, value: F80) {
        self.set_top(self.top() + 7);
        self.set_st(0, value);
    }

    /// The two-bit tags of all registers: 0 valid, 1 zero, 2 special, 3 empty.
    pub fn full_tag_word(&self) -> u16 {
        (0..8).fold(0, |word, n| {
            let tag = match self.regs[n].class() {
                _ if self.tag & 1 << n == 0 => 3,
                Class::Zero => 1,
                Class::Normal => 0,
                _ => 2,
            };
            word | tag << (2 * n)
        })
    }

    /// Only empty or not is taken from a full tag word.
    pub fn set_full_tag_word(&mut self, word: u16) {
        self.tag = (0..8).fold(0, |tag, n| tag | u8::from(word >> (2 * n) & 3 != 3) << n);
    }

    /// What every MMX instruction but EMMS does first: TOP is zero and no register is empty.
    #[inline]
    pub fn enter_mmx(&mut self) {
        self.set_top(0);
        self.tag = 0xff;
    }

    /// EMMS.
    #[inline]
    pub fn emms(&mut self) {
        self.set_top(0);
        self.tag = 0;
    }

    /// Reads MMn.
    #[inline]
    pub fn mm(&self, n: u8) -> u64 {
        self.regs[n as usize & 7].frac
    }

    /// Writes MMn; sign and exponent become all ones.
    #[inline]
    pub fn set_mm(&mut self, n: u8, value: u64) {
        self.regs[n as usize & 7] = F80 { sign_exp: 0xffff, frac: value };
    }
}
