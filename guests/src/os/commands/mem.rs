//! `mem`: the loader's memory map (Multiboot Specification, "Boot information format": each entry has its size, which does not
//! count itself, then base, length and type).

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};
use crate::os::layout::*;

const USABLE: i32 = 1;

pub(super) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push rbx;
        push r12;
        push r13;
        mov ebx, MMAP;
        mov r12, qword_ptr(var::MMAP_BYTES);
        add r12, rbx; // end of the map
        xor r13d, r13d; // usable bytes
    ".entry":
        lea rax, qword_ptr(rbx + 24);
        cmp rax, r12;
        ja ".total";
        cmp dword_ptr(rbx + 20), USABLE;
        jne ".show";
        add r13, qword_ptr(rbx + 12);
    ".show":
        call "show_entry";
        mov eax, dword_ptr(rbx);
        lea rbx, qword_ptr(rbx + rax + 4);
        jmp ".entry";
    ".total":
        print "usable ";
        mov rdi, r13;
        shr rdi, 10;
        call "print_number";
        print " KiB; mapped on demand so far ";
        mov rdi, qword_ptr(var::DEMAND_PAGES);
        shl rdi, 2;
        call "print_number";
        print " KiB\n";
        pop r13;
        pop r12;
        pop rbx;
        ret;
    }
    show_entry(a)
}

fn show_entry(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "show_entry": // RBX = entry
        print "  ";
        mov rdi, qword_ptr(rbx + 4);
        call "print_hex";
        print " - ";
        mov rdi, qword_ptr(rbx + 4);
        add rdi, qword_ptr(rbx + 12);
        dec rdi;
        call "print_hex";
        mov rdi, qword_ptr(rbx + 12);
        shr rdi, 10;
        mov esi, 12;
        call "print_padded";
        print " KiB  ";
        mov eax, dword_ptr(rbx + 20);
        text rdi, "reserved\n";
        text rcx, "usable\n";
        cmp eax, USABLE;
        cmove rdi, rcx;
        text rcx, "ACPI tables\n";
        cmp eax, 3;
        cmove rdi, rcx;
        text rcx, "ACPI, keep\n";
        cmp eax, 4;
        cmove rdi, rcx;
        jmp "print";
    }
    Ok(())
}
