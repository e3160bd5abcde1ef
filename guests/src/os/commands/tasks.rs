//! `tasks`: one line per task control block.

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};
use crate::os::layout::*;
use crate::os::tasks::{SLEEPING, TASKS_END, WAITING, task};

pub(super) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push rbx;
        mov ebx, TASK_BLOCKS;
        print "  state       ticks  name\n";
    ".task":
        text rdi, "  ready    ";
        text rax, "  sleeping ";
        cmp qword_ptr(rbx + task::STATE), SLEEPING;
        cmove rdi, rax;
        text rax, "  waiting  ";
        cmp qword_ptr(rbx + task::STATE), WAITING;
        cmove rdi, rax;
        text rax, "  running  ";
        cmp rbx, qword_ptr(var::CURRENT);
        cmove rdi, rax;
        call "print";
        mov rdi, qword_ptr(rbx + task::TICKS);
        mov esi, 8;
        call "print_padded";
        print "  ";
        mov rdi, qword_ptr(rbx + task::NAME);
        call "print";
        mov edi, i32::from(b'\n');
        call "putc";
        add ebx, task::BYTES;
        cmp ebx, TASKS_END;
        jb ".task";
        pop rbx;
        jmp "summary";
    }
    summary(a)
}

fn summary(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "summary":
        print "up ";
        mov rdi, qword_ptr(var::SECONDS);
        call "print_number";
        print " s, ";
        mov rdi, qword_ptr(var::SWITCHES);
        call "print_number";
        print " switches; pi times 1000000 is ";
        mov eax, 1_000_000;
        cvtsi2sd xmm0, eax;
        mulsd xmm0, qword_ptr(var::PI);
        cvttsd2si rdi, xmm0;
        call "print_number";
        print " so far\n";
        ret;
    }
    Ok(())
}
