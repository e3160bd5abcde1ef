//! Page tables, descriptors, and the switch from 32-bit protected mode to 64-bit mode.
//!
//! Intel SDM Vol. 3, "4-Level Paging and 5-Level Paging" for the tables and "Initializing IA-32e Mode" for the order: CR4.PAE,
//! CR3, EFER.LME, CR0.PG, then a far jump to a code segment with the L bit. Paging turns on while a 32-bit segment is
//! still loaded, so the boot code must be mapped at its own address.

use iced_x86::code_asm::*;

use super::asm::{Asm, AsmError, code};
use super::layout::*;

/// Selectors in our GDT.
pub(crate) const CODE_SELECTOR: u16 = 0x08;
pub(crate) const DATA_SELECTOR: i32 = 0x10;
pub(crate) const TSS_SELECTOR: i32 = 0x18;

/// Page-table entry bits.
pub(crate) const PRESENT: i32 = 1 << 0;
pub(crate) const WRITABLE: i32 = 1 << 1;
const PAGE_SIZE: i32 = 1 << 7;
/// No-execute, as bit 31 of an entry's high half.
const NX_HIGH: u32 = 1 << 31;

const CR0_PE_MP_ET_NE: i32 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5;
const CR0_WP: i32 = 1 << 16;
const CR0_PG: u32 = 1 << 31;
const CR4_PAE: i32 = 1 << 5;
const CR4_OSFXSR_OSXMMEXCPT: i32 = 1 << 9 | 1 << 10;
const MSR_EFER: u32 = 0xC000_0080;
const EFER_LME_NXE: i32 = 1 << 8 | 1 << 11;

/// SDM Vol. 3, "Segment Descriptors" and "TSS Descriptor in 64-bit mode". Bases and limits of the flat ones are ignored in 64-bit mode.
const DESCRIPTORS: [u64; 5] = [
    0,
    0x00AF_9A00_0000_FFFF,                                    // code: present, ring 0, execute/read, L
    0x00CF_9200_0000_FFFF,                                    // data: present, ring 0, read/write
    0x0000_8900_0000_0067 | ((TSS as u64 & 0xFF_FFFF) << 16), // TSS, available, 104 bytes long
    0,                                                        // its base's high half
];
/// Offset in the TSS of IST1, the stack that gates with IST = 1 switch to.
const TSS_IST1: i32 = 36;

/// 32-bit code: `enter_long_mode`, which ends at `KERNEL`.
pub(crate) fn enter(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "enter_long_mode":
        call "build_page_tables";
    }
    write_descriptors(a)?;
    code! { a =>
        mov eax, CR4_PAE | CR4_OSFXSR_OSXMMEXCPT;
        mov cr4, eax;
        mov eax, PML4;
        mov cr3, eax;
        mov ecx, MSR_EFER;
        rdmsr;
        or eax, EFER_LME_NXE;
        wrmsr;
        mov eax, CR0_PG | (CR0_WP | CR0_PE_MP_ET_NE) as u32;
        mov cr0, eax; // now in compatibility mode, until the far jump loads a 64-bit code segment
    }
    a.far_jump(CODE_SELECTOR, "kernel", true)?;
    build_page_tables(a)?;
    map_first_pages(a)
}

fn write_descriptors(a: &mut Asm) -> Result<(), AsmError> {
    for (index, descriptor) in (0..).step_by(8).zip(DESCRIPTORS) {
        code! { a =>
            mov dword_ptr(GDT + index), descriptor as u32;
            mov dword_ptr(GDT + index + 4), (descriptor >> 32) as u32;
        }
    }
    code! { a =>
        mov dword_ptr(TSS + TSS_IST1), DOUBLE_FAULT_STACK;
        mov word_ptr(TSS + 102), 104; // no I/O permission map: its offset is past the limit
        mov word_ptr(var::DESCRIPTOR_TABLE), (8 * DESCRIPTORS.len() - 1) as u32;
        mov dword_ptr(var::DESCRIPTOR_TABLE + 2), GDT;
        lgdt ptr(var::DESCRIPTOR_TABLE);
    }
    Ok(())
}

/// The upper levels, and the first GiB in pages of 2 MiB.
fn build_page_tables(a: &mut Asm) -> Result<(), AsmError> {
    let table = PRESENT | WRITABLE;
    code! { a =>
    "build_page_tables":
        mov dword_ptr(PML4), PDPT | table;
        mov dword_ptr(PDPT), PD | table;
        mov dword_ptr(PDPT + 8), DEMAND_PD | table;
        mov dword_ptr(DEMAND_PD), DEMAND_PT | table;
        mov edi, PD;
        mov eax, PRESENT | WRITABLE | PAGE_SIZE;
        mov ecx, 512;
    ".large_page":
        mov dword_ptr(edi), eax;
        mov dword_ptr(edi + 4), NX_HIGH;
        add edi, 8;
        add eax, 0x20_0000;
        dec ecx;
        jnz ".large_page";
        mov dword_ptr(PD), PT | table; // the first 2 MiB need finer rules
        mov dword_ptr(PD + 4), 0;
        jmp "map_first_pages";
    }
    Ok(())
}

/// The first 2 MiB in pages of 4 KiB: data is never executed, code is never written, and address 0 and the ends of the
/// stacks are not there at all.
fn map_first_pages(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "map_first_pages":
        mov edi, PT;
        mov eax, PRESENT | WRITABLE;
        mov ecx, 512;
    ".page":
        mov dword_ptr(edi), eax;
        mov dword_ptr(edi + 4), NX_HIGH;
        add edi, 8;
        add eax, 0x1000;
        dec ecx;
        jnz ".page";
        mov edi, PT + (IMAGE >> 12) * 8;
        mov ecx, (IMAGE_END - IMAGE) >> 12;
    ".code_page":
        and dword_ptr(edi), !WRITABLE;
        mov dword_ptr(edi + 4), 0;
        add edi, 8;
        dec ecx;
        jnz ".code_page";
        mov dword_ptr(PT), 0;
        mov edi, PT + (STACKS >> 12) * 8;
        mov ecx, STACK_SLOTS;
    ".guard_page":
        mov dword_ptr(edi), 0;
        add edi, (STACK_BYTES >> 12) * 8;
        dec ecx;
        jnz ".guard_page";
        ret;
    }
    Ok(())
}

/// The kernel's first 64-bit instructions: load the segment registers and the task register.
pub(crate) fn kernel_entry(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "kernel":
        mov eax, DATA_SELECTOR;
        mov ds, eax;
        mov es, eax;
        mov ss, eax;
        xor eax, eax;
        mov fs, eax;
        mov gs, eax;
        mov esp, STACKS + STACK_BYTES;
        mov eax, TSS_SELECTOR;
        ltr ax;
        call "init_interrupts";
        call "init_tasks";
        call "init_serial";
        mov qword_ptr(var::DEMAND_NEXT), DEMAND;
        jmp "idle";
    }
    Ok(())
}
