//! Code that is written shortly before it is executed.
//!
//! Intel SDM Vol. 3, "Self-Modifying Code": a write to code through the same linear address is seen by the instructions after it,
//! even those prefetched; through another linear address, after a serializing instruction.

use iced_x86::code_asm::*;

use super::kit::{WINDOW, WINDOW_FRAMES, WINDOW_PT, build_kernel, check, place, snippet, var};
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    same_page(a)?;
    same_block(a)?;
    own_immediate(a)?;
    next_page(a)?;
    across_pages(a)?;
    hot_loop(a)?;
    many_versions(a)?;
    string_stores(a)?;
    wide_and_locked_stores(a)?;
    code_on_the_stack(a)?;
    other_address(a)?;
    other_frame(a)?;
    data_beside_code(a)?;
    code! { a =>
        jmp "finish";
    }
    Ok(())
}

/// `mov eax, imm32` at `at`, whose immediate starts one byte later, then `ret`.
fn load_and_return(value: i32) -> Result<Vec<u8>, AsmError> {
    snippet(0, |a| {
        code! { a =>
            mov eax, value;
            ret;
        }
        Ok(())
    })
}

fn same_page(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "same_page":
        lea rdi, ".patched";
        mov byte_ptr(rdi + 1), 2;
        jmp ".patched";
        nop;
    ".patched":
        mov eax, 1;
    }
    check(a, "same page, after a jump", rax, 2)
}

fn same_block(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "same_block":
        lea rdi, ".next";
        mov byte_ptr(rdi + 1), 3;
    ".next":
        mov eax, 1;
    }
    check(a, "the next instruction", rax, 3)?;
    code! { a =>
    "same_block_later":
        lea rdi, ".later";
        xor ebx, ebx;
        mov dword_ptr(rdi), 0x90C3_FF90u32 as i32; // NOP, INC EBX, NOP
        inc ecx;
        inc edx;
    ".later":
        nop;
        nop;
        nop;
        nop;
    }
    check(a, "an instruction later in the block", rbx, 1)?;
    code! { a =>
    "same_block_jump": // makes a jump out of what was straight code
        lea rdi, ".patched";
        mov eax, 1;
        mov word_ptr(rdi), 0x05EBu32; // JMP over the next instruction
    ".patched":
        nop;
        nop;
        mov eax, 2;
    }
    check(a, "a jump that was not there", rax, 1)
}

/// `add byte [rdi], imm8` with RDI at its own immediate: 1, 2, 4, 8.
fn own_immediate(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "own_immediate":
        lea rdi, ".self";
        add rdi, 2;
        mov ecx, 3;
    ".self":
        add byte_ptr(rdi), 1;
        dec ecx;
        jnz ".self";
        movzx eax, byte_ptr(rdi);
    }
    check(a, "an instruction that doubles its own immediate", rax, 8)
}

fn next_page(a: &mut Asm) -> Result<(), AsmError> {
    // The store is the last instruction of one page, what it changes the first of the next.
    let store = snippet(0, |a| {
        code! { a =>
            mov byte_ptr(rdi + 1), 5;
        }
        Ok(())
    })?;
    place(a, &[store.as_slice(), &load_and_return(1)?].concat(), WINDOW + 0x1000 - store.len() as i32)?;
    for (name, reset, want) in [("first instruction of the next page", 1, 5), ("the same again", 7, 5)] {
        code! { a =>
            mov edi, WINDOW + 0x1000;
            mov byte_ptr(rdi + 1), reset;
            mov eax, WINDOW + 0x1000 - store.len() as i32;
            call rax;
        }
        check(a, name, rax, want)?;
    }
    Ok(())
}

fn across_pages(a: &mut Asm) -> Result<(), AsmError> {
    let at = WINDOW + 0x3000 - 2; // two bytes of the instruction in the first page, three in the second
    place(a, &load_and_return(0x0101_0101)?, at)?;
    code! { a =>
        mov ebx, at;
        call rbx;
        mov byte_ptr(WINDOW + 0x3000), 0x02;
        call rbx;
    }
    check(a, "second page of an instruction across two", rax, 0x0101_0201)?;
    code! { a =>
        mov byte_ptr(at + 1), 0x03;
        call rbx;
    }
    check(a, "first page of an instruction across two", rax, 0x0101_0203)?;
    code! { a =>
        mov byte_ptr(at), 0xB9; // MOV ECX instead
        xor ecx, ecx;
        call rbx;
    }
    check(a, "opcode of an instruction across two", rcx, 0x0101_0203)?;
    code! { a =>
        mov dword_ptr(at), 0xC301_01B8u32 as i32; // one store to both pages: other code follows from the same bytes
        mov byte_ptr(at), 0xB8;
        mov dword_ptr(at + 1), 0x0404_0404;
        call rbx;
    }
    check(a, "a store across two pages into an instruction across them", rax, 0x0404_0404)
}

/// Runs long enough to be compiled, is changed, and runs again.
fn hot_loop(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "hot_loop":
        xor ebx, ebx;
        mov r12d, 3;
    ".pass":
        mov ecx, 200_000;
    ".body":
        add rbx, 1; // 48 83 C3 ib
        dec ecx;
        jnz ".body";
        lea rdi, ".body";
        inc byte_ptr(rdi + 3);
        dec r12d;
        jnz ".pass";
    }
    check(a, "a hot loop changed between its runs", rbx, 200_000 * (1 + 2 + 3))?;
    code! { a =>
    "hot_loop_inside": // changed from inside, in the middle of a run
        xor ebx, ebx;
        mov ecx, 200_000;
        lea rdi, ".body";
    ".body":
        add rbx, 1;
        cmp ecx, 100_001;
        jne ".same";
        mov byte_ptr(rdi + 3), 2;
    ".same":
        dec ecx;
        jnz ".body";
    }
    check(a, "a hot loop that changes itself", rbx, 100_000 + 200_000)
}

fn many_versions(a: &mut Asm) -> Result<(), AsmError> {
    place(a, &load_and_return(0)?, WINDOW + 0x4010)?;
    code! { a =>
    "many_versions":
        mov ebp, WINDOW + 0x4010;
        xor ebx, ebx;
        mov r12d, 1000;
    ".version":
        mov dword_ptr(rbp + 1), r12d;
        call rbp;
        add rbx, rax;
        dec r12d;
        jnz ".version";
    }
    check(a, "a thousand versions of a function", rbx, 500_500)
}

fn string_stores(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "string_stores":
        lea rdi, ".overwritten";
        mov ecx, 6;
        mov al, 0x90;
        xor ebx, ebx;
        rep stosb; // over the instructions that follow it at once
    ".overwritten":
        inc ebx;
        inc ebx;
        inc ebx;
    }
    check(a, "REP STOSB over the next instructions", rbx, 0)?;
    place(a, &load_and_return(1)?, WINDOW + 0x5000)?;
    place(a, &load_and_return(0x77)?, WINDOW + 0x6000)?;
    code! { a =>
        mov ebx, WINDOW + 0x5000;
        call rbx;
        mov esi, WINDOW + 0x6000;
        mov edi, WINDOW + 0x5000;
        mov ecx, 6;
        rep movsb;
        call rbx;
    }
    check(a, "REP MOVSB over a function", rax, 0x77)
}

fn wide_and_locked_stores(a: &mut Asm) -> Result<(), AsmError> {
    let new = load_and_return(0x1234)?;
    place(a, &load_and_return(1)?, WINDOW + 0x7000)?;
    place(a, &[new.as_slice(), &[0x90; 10]].concat(), WINDOW + 0x8000)?;
    code! { a =>
        mov ebx, WINDOW + 0x7000;
        call rbx;
        movups xmm0, xmmword_ptr(WINDOW + 0x8000);
        movups xmmword_ptr(WINDOW + 0x7000), xmm0;
        call rbx;
    }
    check(a, "MOVUPS over a function", rax, 0x1234)?;
    code! { a =>
        mov ecx, 0x5678;
        xchg dword_ptr(rbx + 1), ecx;
        call rbx;
    }
    check(a, "XCHG into a function", rax, 0x5678)?;
    code! { a =>
        mov ecx, 0x10;
    }
    a.code.lock().xadd(dword_ptr(rbx + 1), ecx)?;
    a.code.call(rbx)?;
    check(a, "LOCK XADD into a function", rax, 0x5688)?;
    code! { a =>
        push 0x42;
        pop qword_ptr(rbx + 1); // its high bytes overwrite the RET with 0, so put that back
        mov byte_ptr(rbx + 5), 0xC3u32;
        call rbx;
    }
    check(a, "POP into a function", rax, 0x42)
}

fn code_on_the_stack(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "code_on_the_stack":
        mov rcx, 0x90C3_0000_0042_B890u64; // NOP, MOV EAX 42h, RET, NOP
        xor ebx, ebx;
        mov r12d, 10;
    ".again":
        push rcx;
        call rsp;
        add ebx, eax;
        pop rdx;
        mov edx, 0x1_0000;
        add rcx, rdx; // MOV EAX 43h, …
        dec r12d;
        jnz ".again";
    }
    check(a, "code pushed on the stack", rbx, 10 * 0x42 + 45)
}

/// The window's page 9 and the identity mapping of its frame are the same memory.
fn other_address(a: &mut Asm) -> Result<(), AsmError> {
    place(a, &load_and_return(1)?, WINDOW + 0x9000)?;
    code! { a =>
    "other_address":
        mov r12d, 3;
        mov r13d, WINDOW + 0x9000;
        xor r14d, r14d;
    ".again":
        call r13;
        add r14, rax;
        inc byte_ptr(WINDOW_FRAMES + 0x9000 + 1);
        xor eax, eax;
        cpuid; // serializes
        dec r12d;
        jnz ".again";
    }
    check(a, "a write through another linear address", r14, 1 + 2 + 3)
}

/// The same linear address gets another frame with other code.
fn other_frame(a: &mut Asm) -> Result<(), AsmError> {
    place(a, &load_and_return(10)?, WINDOW + 0xA000)?;
    place(a, &load_and_return(20)?, WINDOW + 0xB000)?;
    code! { a =>
    "other_frame":
        mov r13d, WINDOW + 0xA000;
        mov r12d, 4;
        xor r14d, r14d;
    ".again":
        call r13;
        add r14, rax;
        xor qword_ptr(WINDOW_PT + 0xA * 8), 0x1000; // frame A is at …A000, frame B at …B000
        invlpg ptr(r13);
        dec r12d;
        jnz ".again";
    }
    check(a, "another frame at the same address", r14, 10 + 20 + 10 + 20)
}

fn data_beside_code(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "data_beside_code":
        jmp ".start";
    ".counter":
    }
    a.code.dq(&[0])?;
    code! { a =>
    ".start":
        lea rdi, ".counter";
        mov ecx, 50_000;
    ".again":
        inc qword_ptr(rdi);
        dec ecx;
        jnz ".again";
        mov rax, qword_ptr(rdi);
        mov qword_ptr(var::TEST), rax;
    }
    check(a, "a counter in the page of the loop", rax, 50_000)
}
