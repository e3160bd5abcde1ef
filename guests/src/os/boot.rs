//! The first instructions, in 32-bit protected mode.
//!
//! A multiboot loader has put the image at its address, has set flat 32-bit segments with paging and interrupts off, and
//! passes a magic number in EAX and the address of an information structure in EBX (Multiboot Specification,
//! "Machine state" and "Boot information format"). The structure and what it points to may lie anywhere, so the
//! parts we need are copied before memory gets other uses.

use iced_x86::code_asm::*;

use super::asm::{Asm, AsmError, code};
use super::elf::{MULTIBOOT_LOADER_MAGIC, multiboot_header};
use super::layout::*;
use super::{long_mode, serial};

/// Bits of the information structure's flags.
const INFO_MEMORY: i32 = 1 << 0;
const INFO_CMDLINE: i32 = 1 << 2;
const INFO_MMAP: i32 = 1 << 6;

/// CPUID leaf 80000001h, EDX: long mode, and the no-execute page bit.
const CPUID_LM: i32 = 1 << 29;
const CPUID_NX: i32 = 1 << 20;

/// The 32-bit section.
pub(crate) fn section() -> Result<Asm, AsmError> {
    let mut asm = Asm::new(32, IMAGE)?;
    let a = &mut asm;
    a.code.dd(&multiboot_header())?;
    entry(a)?;
    copy_loader_info(a)?;
    check_cpu(a)?;
    long_mode::enter(a)?;
    serial::early(a)?;
    Ok(asm)
}

fn entry(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "start":
        cli;
        cld;
        mov esp, STACKS + STACK_BYTES; // slot 0: the boot code becomes the idle task
        mov ebp, eax;
        mov edi, IMAGE_END;
        mov ecx, (BSS_END - IMAGE_END) / 4;
        xor eax, eax;
        rep stosd;
        call "early_serial";
        addr esi, "not_multiboot";
        cmp ebp, MULTIBOOT_LOADER_MAGIC;
        jne "die";
        call "copy_loader_info";
        call "check_cpu";
        jmp "enter_long_mode";
    "die":
        call "early_print";
    ".halt":
        cli;
        hlt;
        jmp ".halt";
    "not_multiboot":
    }
    a.code.db(b"egret os: not entered by a multiboot loader\n\0")?;
    Ok(())
}

/// EBX = the information structure: flags at 0, mem_upper at 8, cmdline at 16, mmap_length at 44, mmap_addr at 48.
fn copy_loader_info(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "copy_loader_info":
        test dword_ptr(ebx), INFO_MEMORY;
        jz ".cmdline";
        mov eax, dword_ptr(ebx + 8);
        mov dword_ptr(var::MEM_UPPER), eax;
    ".cmdline":
        test dword_ptr(ebx), INFO_CMDLINE;
        jz ".mmap";
        mov esi, dword_ptr(ebx + 16);
        mov edi, CMDLINE;
        mov ecx, CMDLINE_MAX;
    ".character":
        lodsb;
        test al, al;
        jz ".mmap";
        stosb;
        dec ecx;
        jnz ".character";
    ".mmap":
        test dword_ptr(ebx), INFO_MMAP;
        jz ".done";
        mov ecx, dword_ptr(ebx + 44);
        cmp ecx, MMAP_MAX;
        jbe ".fits";
        mov ecx, MMAP_MAX;
    ".fits":
        mov dword_ptr(var::MMAP_BYTES), ecx;
        mov esi, dword_ptr(ebx + 48);
        mov edi, MMAP;
        rep movsb;
    ".done":
        ret;
    }
    Ok(())
}

/// Long mode is not on every x86: ask CPUID before using it.
fn check_cpu(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "check_cpu":
        addr esi, "not_64_bit";
        mov eax, 0x8000_0000u32;
        cpuid;
        cmp eax, 0x8000_0001u32;
        jb "die";
        mov eax, 0x8000_0001u32;
        cpuid;
        and edx, CPUID_LM | CPUID_NX;
        cmp edx, CPUID_LM | CPUID_NX;
        jne "die";
        ret;
    "not_64_bit":
    }
    a.code.db(b"egret os: this CPU has no long mode or no NX bit\n\0")?;
    Ok(())
}
