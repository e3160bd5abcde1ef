//! The state in which a processor enters a kernel.

use super::space::Space;
use super::{BootError, Job, Reason};

/// The processor's mode at entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Protected mode with flat 32-bit segments, paging off.
    Protected32,
    /// 64-bit mode, the first 4 GiB mapped to themselves with 2 MiB pages.
    Long64,
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes (already scaled by the granularity).
    pub limit: u32,
    /// Bits 40 to 55 of the descriptor, without the limit: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15. Zero: not usable.
    pub attributes: u16,
}

/// Indices into [`EntryState::gpr`]: the registers' numbers in instruction encodings.
pub mod gpr {
    /// RAX.
    pub const RAX: usize = 0;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RSI.
    pub const RSI: usize = 6;
}

/// Everything that differs from a reset processor when the kernel is entered. Debug registers, MSRs other than EFER and the FPU are
/// as after reset; interrupts are off; the IDT is empty (limit 0). The boot processor's local APIC is in virtual wire mode
/// ([`super::layout::VIRTUAL_WIRE`]), which is the machine's to do.
#[derive(Clone, PartialEq, Debug)]
pub struct EntryState {
    /// Mode, for convenience: it follows from `cr0`, `efer` and `cs`.
    pub mode: Mode,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// RIP; segment bases are 0, so this is the linear and the physical address.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// CS.
    pub cs: Segment,
    /// DS, ES, SS, FS and GS alike.
    pub data: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Address of the global descriptor table.
    pub gdt_base: u64,
    /// Its limit.
    pub gdt_limit: u16,
}

/// Linux boot protocol: __BOOT_CS, __BOOT_DS. PVH and multiboot leave the selectors open.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;
const CODE32: u16 = 0xc09b;
const CODE64: u16 = 0xa09b;
const DATA: u16 = 0xc093;
const BUSY_TSS: u16 = 0x008b;
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const STACK_LEN: u64 = 0x1000;

impl EntryState {
    /// The state for entering `rip` in 64-bit mode, with GDT, identity page tables and a small stack placed in `job`'s memory.
    pub(super) fn long64(job: &mut Job, rip: u64) -> Result<EntryState, BootError> {
        let base = Self::protected32(job, rip)?;
        let code = Segment { attributes: CODE64, ..base.cs };
        write_gdt(&job.space, base.gdt_base, code).map_err(|r| job.fail(r))?;
        let cr3 = identity_map(&mut job.space).map_err(|r| job.fail(r))?;
        Ok(EntryState { mode: Mode::Long64, cr0: CR0_PG | CR0_ET | CR0_PE, cr3, cr4: CR4_PAE, efer: EFER_LME | EFER_LMA, cs: code, ..base })
    }

    /// The state for entering `rip` in flat protected mode, with GDT and a small stack placed in `job`'s memory.
    pub(super) fn protected32(job: &mut Job, rip: u64) -> Result<EntryState, BootError> {
        let cs = Segment { selector: BOOT_CS, base: 0, limit: u32::MAX, attributes: CODE32 };
        let place = |space: &mut Space| -> Result<(u64, u64), Reason> {
            let gdt = space.place_low(GDT_LEN, 16, "descriptor table")?;
            write_gdt(space, gdt, cs)?;
            Ok((gdt, space.place_low(STACK_LEN, 16, "boot stack")?))
        };
        let (gdt_base, stack) = place(&mut job.space).map_err(|r| job.fail(r))?;
        let mut gpr = [0; 16];
        gpr[gpr::RSP] = stack + STACK_LEN;
        Ok(EntryState {
            mode: Mode::Protected32,
            gpr,
            rip,
            rflags: 1 << 1,
            cr0: CR0_ET | CR0_PE,
            cr3: 0,
            cr4: 0,
            efer: 0,
            cs,
            data: Segment { selector: BOOT_DS, base: 0, limit: u32::MAX, attributes: DATA },
            tr: Segment { selector: BOOT_TSS, base: 0, limit: 0x67, attributes: BUSY_TSS },
            ldtr: Segment::default(),
            gdt_base,
            gdt_limit: GDT_LEN as u16 - 1,
        })
    }
}

/// Two unused entries, code, data, and the TSS in the 16-byte form of 64-bit mode.
const GDT_LEN: u64 = 6 * 8;

fn write_gdt(space: &Space, at: u64, code: Segment) -> Result<(), Reason> {
    let flat = |attributes: u16| 0x000f_0000_0000_ffff | u64::from(attributes) << 40;
    let table = [0, 0, flat(code.attributes), flat(DATA), 0x67 | u64::from(BUSY_TSS) << 40, 0];
    let bytes: Vec<u8> = table.iter().flat_map(|d: &u64| d.to_le_bytes()).collect();
    space.write(at, &bytes, "descriptor table")
}

/// Maps the first 4 GiB to themselves with 2 MiB pages: one PML4, one PDPT, four page directories. Returns the PML4's address.
fn identity_map(space: &mut Space) -> Result<u64, Reason> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const PAGE_SIZE: u64 = 1 << 7;
    let what = "page tables";
    let pml4 = space.place_low(6 * 0x1000, 0x1000, what)?;
    let (pdpt, directories) = (pml4 + 0x1000, pml4 + 0x2000);
    space.clear(pml4, 0x2000, what)?;
    space.write(pml4, &(pdpt | PRESENT_WRITABLE).to_le_bytes(), what)?;
    for i in 0..4 {
        space.write(pdpt + 8 * i, &((directories + 0x1000 * i) | PRESENT_WRITABLE).to_le_bytes(), what)?;
    }
    let entries: Vec<u8> = (0..4 * 512u64).flat_map(|i| (i << 21 | PAGE_SIZE | PRESENT_WRITABLE).to_le_bytes()).collect();
    space.write(directories, &entries, what)?;
    Ok(pml4)
}
