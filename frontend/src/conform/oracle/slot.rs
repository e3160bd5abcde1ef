//! One program on its way to the host CPU and back: the layout that the two processes share.

/// First linear address of the 64 KiB window that holds all memory of programs. 16-bit segments start here.
pub const WINDOW: u64 = 0x1000_0000;
/// Code that lies in one page; the pages around it are not present.
pub const CODE_ONE: u64 = WINDOW + 0x1000;
/// Code that lies in two pages; the pages around them are not present.
pub const CODE_TWO: u64 = WINDOW + 0x3000;
/// Bytes of a page.
pub const PAGE: u64 = 0x1000;
/// Pages of memory in the order of [`Slot::memory`]: offset in the window, and whether it can be written.
pub const PAGES: [(u64, bool); 5] = [(0x6000, true), (0x8000, true), (0x9000, true), (0xa000, false), (0xf000, true)];
/// What code pages hold where the program does not: HLT, which user code may not execute.
pub const FILL: u8 = 0xf4;
/// Longest code of a program.
pub const CODE: usize = 160;
/// Bytes of the extended state: the standard format with x87, SSE and AVX.
pub const XSAVE: usize = 832;
/// Bits 16 to 31 of ESP at the start of a program on a 16-bit stack, where IRET loads only SP.
pub const HIGH_SP: u64 = 0x2345;

/// What [`Slot::status`] says.
pub mod status {
    /// Not run yet.
    pub const NEW: u64 = 0;
    /// Ran to an exception.
    pub const DONE: u64 = 1;
    /// Ran too long.
    pub const RUNAWAY: u64 = 2;
    /// The host refused to enter it.
    pub const REFUSED: u64 = 3;
    /// The process that ran it died.
    pub const DIED: u64 = 4;
}

/// A program: its state before it runs, overwritten by the state after.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct Slot {
    /// Extended state as XSAVE and XRSTOR have it.
    pub xsave: [u8; 1024],
    /// General registers in encoding order; RSP is in `rsp`.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
    /// ES, DS, FS, GS.
    pub sel: [u64; 4],
    /// Bases of FS and GS.
    pub base: [u64; 2],
    /// The exception it ended with.
    pub vector: u64,
    /// The error code.
    pub error: u64,
    /// CR2.
    pub cr2: u64,
    /// One of [`status`].
    pub status: u64,
    /// Linear address of the code.
    pub code_at: u64,
    /// Bytes of the code.
    pub code_len: u64,
    /// The code.
    pub code: [u8; CODE],
    /// The pages of [`PAGES`].
    pub memory: [[u8; PAGE as usize]; PAGES.len()],
}
