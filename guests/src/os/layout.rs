//! Where everything lives. All addresses are below 2 GiB and identity-mapped, so `i32` (which iced takes as a
//! sign-extended immediate or displacement) holds any of them.

/// The image: multiboot header and 32-bit boot code. Mapped read-only and executable once paging is on.
pub(crate) const IMAGE: i32 = 0x10_0000;
/// The 64-bit kernel's first instruction.
pub(crate) const KERNEL: i32 = 0x10_1000;
/// End of the read-only, executable range.
pub(crate) const IMAGE_END: i32 = 0x11_0000;

/// Kernel variables, below.
const VARS: i32 = 0x11_0000;
/// The interrupt descriptor table: 256 gates of 16 bytes.
pub(crate) const IDT: i32 = 0x11_1000;
/// The global descriptor table.
pub(crate) const GDT: i32 = 0x11_2000;
/// The 64-bit task-state segment: 104 bytes.
pub(crate) const TSS: i32 = 0x11_2100;
/// Task control blocks, see `tasks.rs`.
pub(crate) const TASK_BLOCKS: i32 = 0x11_3000;
/// A copy of the loader's command line, zero-terminated.
pub(crate) const CMDLINE: i32 = 0x11_5000;
/// Longest command line we keep.
pub(crate) const CMDLINE_MAX: i32 = 1023;
/// The line that the user is typing.
pub(crate) const LINE: i32 = 0x11_5400;
/// Longest line.
pub(crate) const LINE_MAX: i32 = 127;
/// The command that is being executed, cut out of a line at the semicolons.
pub(crate) const COMMAND: i32 = 0x11_5600;
/// Received bytes that nobody has read yet.
pub(crate) const RING: i32 = 0x11_5800;
/// Size of the ring, a power of two.
pub(crate) const RING_BYTES: i32 = 256;
/// A copy of the loader's memory map.
pub(crate) const MMAP: i32 = 0x11_6000;
/// Longest memory map we keep.
pub(crate) const MMAP_MAX: i32 = 0x1000;

/// Stacks grow down from the end of each slot; the lowest page of a slot is a guard that is not mapped.
pub(crate) const STACKS: i32 = 0x12_0000;
/// Bytes per slot.
pub(crate) const STACK_BYTES: i32 = 0x4000;
/// One per task, and one for double faults.
pub(crate) const STACK_SLOTS: i32 = 5;
/// Top of the stack that a double fault switches to.
pub(crate) const DOUBLE_FAULT_STACK: i32 = STACKS + STACK_SLOTS * STACK_BYTES;

/// Page tables, one page each: the root, …
pub(crate) const PML4: i32 = 0x14_0000;
/// … the table of 1 GiB entries, …
pub(crate) const PDPT: i32 = 0x14_1000;
/// … the first GiB in 2 MiB pages, …
pub(crate) const PD: i32 = 0x14_2000;
/// … except the first 2 MiB, in 4 KiB pages, …
pub(crate) const PT: i32 = 0x14_3000;
/// … and the range that is mapped on demand.
pub(crate) const DEMAND_PD: i32 = 0x14_4000;
/// Its 512 page-table entries, all not present at first.
pub(crate) const DEMAND_PT: i32 = 0x14_5000;
/// End of the memory that boot code clears.
pub(crate) const BSS_END: i32 = 0x14_6000;

/// Linear addresses that the page-fault handler maps when they are touched.
pub(crate) const DEMAND: i32 = 0x4000_0000;
/// End of that range: one page table's worth.
pub(crate) const DEMAND_END: i32 = DEMAND + 512 * 0x1000;
/// Physical frames it uses for that.
pub(crate) const FRAMES: i32 = 0x40_0000;
/// The byte map of the prime sieve, and how long it may be.
pub(crate) const SIEVE: i32 = 0x80_0000;
/// Largest argument of `prime`.
pub(crate) const SIEVE_MAX: i32 = 4_000_000;

/// Kernel variables, eight bytes each.
pub(crate) mod var {
    use super::VARS;
    /// Operand of LGDT and LIDT: limit, then base.
    pub(crate) const DESCRIPTOR_TABLE: i32 = VARS;
    /// Timer interrupts since boot.
    pub(crate) const TICKS: i32 = VARS + 0x10;
    /// Task control block of the running task.
    pub(crate) const CURRENT: i32 = VARS + 0x18;
    /// How often the scheduler changed the running task.
    pub(crate) const SWITCHES: i32 = VARS + 0x20;
    /// Index of the next byte to read from the ring; counts on, masked when used.
    pub(crate) const RING_HEAD: i32 = VARS + 0x28;
    /// Index of the next byte to write to the ring.
    pub(crate) const RING_TAIL: i32 = VARS + 0x30;
    /// KiB above 1 MiB, from the loader.
    pub(crate) const MEM_UPPER: i32 = VARS + 0x38;
    /// Bytes in the copy of the memory map.
    pub(crate) const MMAP_BYTES: i32 = VARS + 0x40;
    /// First demand page that `fault` has not touched yet.
    pub(crate) const DEMAND_NEXT: i32 = VARS + 0x48;
    /// Pages mapped on demand.
    pub(crate) const DEMAND_PAGES: i32 = VARS + 0x50;
    /// Seconds that the clock task has counted.
    pub(crate) const SECONDS: i32 = VARS + 0x58;
    /// The pi task's result, a double.
    pub(crate) const PI: i32 = VARS + 0x60;
}
