//! `fault`: a page fault on purpose. The handler in `interrupts.rs` tells what it sees and maps a page; the instruction is
//! then executed again and succeeds (SDM Vol. 3, "Exception Classifications": a fault leaves RIP at the faulting instruction).

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};
use crate::os::layout::*;

pub(super) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push rbx;
        mov rbx, qword_ptr(var::DEMAND_NEXT);
        cmp rbx, DEMAND_END;
        jae ".full";
        add qword_ptr(var::DEMAND_NEXT), 0x1000;
        print "writing 42 to ";
        mov rdi, rbx;
        call "print_hex";
        print ", where no page is mapped\n";
        mov dword_ptr(rbx), 42; // faults
        print "resumed: read back ";
        mov edi, dword_ptr(rbx);
        call "print_number";
        mov edi, i32::from(b'\n');
        call "putc";
        pop rbx;
        ret;
    ".full":
        print "fault: all pages of the range are mapped already\n";
        pop rbx;
        ret;
    }
    Ok(())
}
