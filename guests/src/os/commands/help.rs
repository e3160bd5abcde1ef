//! `help`: walks the table of commands.

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};

/// Column of the help texts.
const COLUMN: i32 = 10;

pub(super) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push rbx;
        push r12;
        lea rbx, "commands";
    ".command":
        mov r12, qword_ptr(rbx);
        test r12, r12;
        jz ".done";
        print "  ";
        mov rdi, r12;
        call "print";
    ".length":
        inc r12;
        cmp byte_ptr(r12), 0;
        jne ".length";
        sub r12, qword_ptr(rbx);
    ".pad":
        mov edi, i32::from(b' ');
        call "putc";
        inc r12;
        cmp r12, COLUMN;
        jb ".pad";
        mov rdi, qword_ptr(rbx + 16);
        call "print";
        mov edi, i32::from(b'\n');
        call "putc";
        add rbx, 24;
        jmp ".command";
    ".done":
        pop r12;
        pop rbx;
        ret;
    }
    Ok(())
}
