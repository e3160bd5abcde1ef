//! A program for the oracle, and what becomes of it.

use super::slot::{CODE, CODE_ONE, CODE_TWO, HIGH_SP, PAGE, PAGES, Slot, WINDOW, XSAVE, status};
use crate::conform::regs::RegFile;
use egret_isa::insn::Mode;
use iced_x86::Code;

/// The memory of a program, page by page in the order of [`PAGES`].
pub type Memory = [[u8; PAGE as usize]; PAGES.len()];

/// A few instructions with everything they start from.
#[derive(Clone, Debug)]
pub struct Program {
    /// The encoding that it is about.
    pub code: Code,
    /// The size of code.
    pub mode: Mode,
    /// Linear address of the first instruction.
    pub at: u64,
    /// The instructions; INT3 follows the last.
    pub insns: Vec<Vec<u8>>,
    /// Initial registers.
    pub regs: RegFile,
    /// Initial memory where it is not zero: linear address and bytes.
    pub memory: Vec<(u64, Vec<u8>)>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an exception: vector, error code (0 where there is none), CR2 of a page fault.
    Fault(u8, u32, u64),
    /// It did not.
    Runaway,
    /// Not run, or not to an end that counts.
    Nothing,
}

/// The state in which a program ended.
#[derive(Clone)]
pub struct Outcome {
    /// How.
    pub end: End,
    /// Registers.
    pub regs: RegFile,
    /// The pointers of the x87: FOP, FIP, FDP.
    pub pointers: (u16, u64, u64),
    /// Memory.
    pub memory: Box<Memory>,
}

impl Default for Outcome {
    fn default() -> Outcome {
        Outcome { end: End::Nothing, regs: RegFile::default(), pointers: (0, 0, 0), memory: Box::new([[0; PAGE as usize]; PAGES.len()]) }
    }
}

/// INT3s behind the last instruction: short jumps land on them.
const ENDS: usize = 4;
const INT3: u8 = 0xcc;

impl Program {
    /// All of the code; bytes behind the end of the code pages do not exist.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut code = self.insns.concat();
        code.resize(code.len() + ENDS, INT3);
        let end = if self.at >= CODE_TWO { CODE_TWO + 2 * PAGE } else { CODE_ONE + PAGE };
        code.truncate(end.saturating_sub(self.at) as usize);
        code.truncate(CODE);
        code
    }

    /// Where the page of a linear address is in [`Memory`], if it is there.
    fn page(at: u64) -> Option<usize> {
        let offset = at.wrapping_sub(WINDOW) & !(PAGE - 1);
        PAGES.iter().position(|p| p.0 == offset)
    }

    /// Fills the initial memory in.
    pub fn fill(&self, memory: &mut Memory) {
        for page in memory.iter_mut() {
            page.fill(0);
        }
        for (at, bytes) in &self.memory {
            for (n, byte) in bytes.iter().enumerate() {
                let at = at.wrapping_add(n as u64);
                if let Some(page) = Self::page(at) {
                    memory[page][(at & (PAGE - 1)) as usize] = *byte;
                }
            }
        }
    }

    /// Writes the program into a slot.
    pub fn store(&self, slot: &mut Slot) {
        self.fill(&mut slot.memory);
        let code = self.bytes();
        slot.code[..code.len()].copy_from_slice(&code);
        (slot.code_at, slot.code_len) = (self.at, code.len() as u64);
        let r = &self.regs;
        slot.gpr = r.gpr;
        (slot.rip, slot.rflags, slot.rsp) = (r.rip, r.rflags, r.gpr[4]);
        (slot.cs, slot.ss) = (r.sel[1].into(), r.sel[2].into());
        slot.sel = [r.sel[0], r.sel[3], r.sel[4], r.sel[5]].map(u64::from);
        slot.base = if self.mode == Mode::M64 { [r.base[4], r.base[5]] } else { [base(r.sel[4]), base(r.sel[5])] };
        slot.xsave = [0; 1024];
        let x = &mut slot.xsave;
        let mut put = |at: usize, bytes: &[u8]| x[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &r.fcw.to_le_bytes());
        put(2, &r.fsw.to_le_bytes());
        put(4, &[r.x87_used]);
        put(24, &r.mxcsr.to_le_bytes());
        put(28, &0xffffu32.to_le_bytes());
        for n in 0..8 {
            let (low, high) = r.x87[(usize::from(r.fsw >> 11) + n) & 7];
            put(32 + 16 * n, &low.to_le_bytes());
            put(40 + 16 * n, &high.to_le_bytes());
        }
        for (n, v) in r.vec.iter().enumerate() {
            for half in 0..2 {
                put(160 + 16 * n + 8 * half, &v[half].to_le_bytes());
                put(576 + 16 * n + 8 * half, &v[2 + half].to_le_bytes());
            }
        }
        put(512, &7u64.to_le_bytes());
    }

    /// Reads the outcome out of a slot.
    pub fn outcome(&self, slot: &Slot, out: &mut Outcome) {
        out.end = match slot.status {
            status::DONE => End::Fault(slot.vector as u8, slot.error as u32, if slot.vector == 14 { slot.cr2 } else { 0 }),
            status::RUNAWAY => End::Runaway,
            _ => End::Nothing,
        };
        let r = &mut out.regs;
        *r = RegFile::default();
        r.gpr = slot.gpr;
        r.gpr[4] = slot.rsp;
        (r.rip, r.rflags) = (slot.rip, slot.rflags);
        r.sel = [slot.sel[0], slot.cs, slot.ss, slot.sel[1], slot.sel[2], slot.sel[3]].map(|s| s as u16);
        (r.base[4], r.base[5]) = (slot.base[0], slot.base[1]);
        extended(&slot.xsave, r, &mut out.pointers);
        *out.memory = slot.memory;
    }
}

/// The extended state out of an XSAVE image; components in their initial state may not have been written.
fn extended(image: &[u8; 1024], r: &mut RegFile, pointers: &mut (u16, u64, u64)) {
    const { assert!(XSAVE <= 1024) };
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| image[at + n]));
    let present = word(512);
    r.mxcsr = word(24) as u32;
    *pointers = (0, 0, 0);
    if present & 1 != 0 {
        (r.fcw, r.fsw, r.x87_used) = (word(0) as u16, word(2) as u16, word(4) as u8);
        *pointers = (word(6) as u16, word(8), word(16));
        for n in 0..8 {
            r.x87[(usize::from(r.fsw >> 11) + n) & 7] = (word(32 + 16 * n), word(40 + 16 * n) as u16);
        }
    }
    for (n, v) in r.vec.iter_mut().enumerate() {
        for half in 0..2 {
            if present & 2 != 0 {
                v[half] = word(160 + 16 * n + 8 * half);
            }
            if present & 4 != 0 {
                v[2 + half] = word(576 + 16 * n + 8 * half);
            }
        }
    }
}

/// What a mode's programs start with: CS, and the other segments.
#[must_use]
pub fn selectors(mode: Mode) -> (u16, u16) {
    match mode {
        Mode::M64 => (0x33, 0x2b),
        Mode::M32 => (0x23, 0x2b),
        Mode::M16 => (0x0f, 0x17),
    }
}

/// The base of segment `n` with selector `selector`, but for FS and GS in 64-bit mode.
#[must_use]
pub fn base(selector: u16) -> u64 {
    if selector & 4 != 0 { WINDOW } else { 0 }
}

/// What the upper half of ESP is where IRET leaves it.
#[must_use]
pub fn high_sp(mode: Mode) -> u64 {
    if mode == Mode::M16 { HIGH_SP << 16 } else { 0 }
}
