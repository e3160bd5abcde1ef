//! `prime`: the sieve of Eratosthenes over a map of bytes, which exercises string stores, loops and the data TLB.

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};
use crate::os::interrupts::HZ;
use crate::os::layout::*;

/// KiB above 1 MiB that the largest sieve needs.
const NEEDS_KIB: i32 = (SIEVE + SIEVE_MAX - 0x10_0000) / 1024 + 1;

pub(super) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push rbx;
        push r12;
        mov eax, 1_000_000;
        call "parse_number";
        mov rbx, rax;
        sub rax, 2;
        cmp rax, SIEVE_MAX - 2;
        ja ".bad_number";
        cmp dword_ptr(var::MEM_UPPER), NEEDS_KIB;
        jb ".no_memory";
        mov r12, qword_ptr(var::TICKS);
        call "sieve";
        mov rdi, rax;
        call "print_number";
        print " primes below ";
        mov rdi, rbx;
        call "print_number";
        print " in ";
        mov rax, qword_ptr(var::TICKS);
        sub rax, r12;
        imul_3 rdi, rax, 1000 / HZ;
        call "print_number";
        print " ms\n";
        jmp ".done";
    ".bad_number":
        print "prime: give a number from 2 to 4000000\n";
        jmp ".done";
    ".no_memory":
        print "prime: needs a machine with 12 MiB\n";
    ".done":
        pop r12;
        pop rbx;
        ret;
    }
    sieve(a)
}

fn sieve(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "sieve": // RBX = limit; returns in RAX the number of primes below it
        mov edi, SIEVE;
        mov rcx, rbx;
        mov al, 1;
        rep stosb;
        mov esi, 2; // the candidate
        xor eax, eax;
    ".candidate":
        cmp rsi, rbx;
        jae ".done";
        cmp byte_ptr(rsi + SIEVE), 0;
        je ".composite";
        inc rax;
        mov rcx, rsi;
        imul_2 rcx, rcx; // smaller multiples have a smaller factor
    ".multiple":
        cmp rcx, rbx;
        jae ".composite";
        mov byte_ptr(rcx + SIEVE), 0;
        add rcx, rsi;
        jmp ".multiple";
    ".composite":
        inc rsi;
        jmp ".candidate";
    ".done":
        ret;
    }
    Ok(())
}
