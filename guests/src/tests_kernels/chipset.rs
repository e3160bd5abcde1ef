//! What a PC's chips do to the processor: the gate in address line 20, and machine-check banks to go with CPUID's bits.
//!
//! IBM PS/2 Hardware Interface Technical Reference, "System Control Port A", "Keyboard and Auxiliary Device Controller"; Intel SDM
//! Vol. 3, "Machine-Check Architecture".

use iced_x86::code_asm::*;

use super::kit::*;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

/// Two addresses that differ in bit 20 alone.
const EVEN: i32 = 0x60_0000;
const ODD: i32 = 0x70_0000;
/// All of the kernel, its stacks and page tables, and the same with bit 20 clear.
const OWN: i32 = 0x10_0000;
const OWN_ALIAS: i32 = 0;
const OWN_LEN: i32 = 0x8_0000;

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    open(a)?;
    fast_gate(a)?;
    gate(a, "port 92h", |a| port_92(a, 0), |a| port_92(a, 2))?;
    gate(a, "8042 output port", |a| output_port(a, 0xDD), |a| output_port(a, 0xDF))?;
    gate(a, "8042 command", |a| controller(a, 0xDD), |a| controller(a, 0xDF))?;
    gate(a, "8042, then port 92h", |a| output_port(a, 0xDD), |a| port_92(a, 2))?;
    machine_check(a)?;
    code! { a =>
        jmp "finish";
    }
    Ok(())
}

/// As firmware leaves it.
fn open(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        cli;
        mov dword_ptr(EVEN), 0x1111;
        mov dword_ptr(ODD), 0x2222;
        mov ebx, dword_ptr(EVEN);
    }
    check(a, "A20 open, addresses are different", rbx, 0x1111)
}

fn fast_gate(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        xor eax, eax;
        in_ al, 0x92;
        mov ebx, eax;
        and ebx, 2;
    }
    check(a, "port 92h says that A20 is open", rbx, 2)
}

fn port_92(a: &mut Asm, value: i32) -> Result<(), AsmError> {
    code! { a =>
        mov al, value;
        out 0x92, al;
    }
    Ok(())
}

fn controller(a: &mut Asm, command: i32) -> Result<(), AsmError> {
    code! { a =>
        mov al, command;
        out 0x64, al;
    }
    Ok(())
}

fn output_port(a: &mut Asm, value: i32) -> Result<(), AsmError> {
    code! { a =>
        mov al, 0xD1;
        out 0x64, al;
        mov al, value;
        out 0x60, al;
    }
    Ok(())
}

type Emit = fn(&mut Asm) -> Result<(), AsmError>;

/// Closes the gate and opens it again. While it is closed the kernel runs in a copy of itself, where its addresses then lead; what
/// it finds stays in registers.
fn gate(a: &mut Asm, name: &str, close: Emit, open: Emit) -> Result<(), AsmError> {
    code! { a =>
        mov dword_ptr(EVEN), 0x1111;
        mov dword_ptr(ODD), 0x2222;
        mov esi, OWN;
        mov edi, OWN_ALIAS;
        mov ecx, OWN_LEN;
        rep movsb;
        mov ebx, dword_ptr(ODD); // into the TLB
    }
    close(a)?;
    code! { a =>
        mov ebx, dword_ptr(ODD);
        mov dword_ptr(ODD), 0x3333;
    }
    open(a)?;
    code! { a =>
        mov ecx, dword_ptr(EVEN);
        mov edx, dword_ptr(ODD);
    }
    check(a, &format!("A20 closed by {name}, a read"), rbx, 0x1111)?;
    check(a, &format!("A20 closed by {name}, a write"), rcx, 0x3333)?;
    check(a, &format!("A20 closed by {name}, nothing else changed"), rdx, 0x2222)
}

fn machine_check(a: &mut Asm) -> Result<(), AsmError> {
    a.label("machine_check")?;
    code! { a =>
        mov eax, 1;
        cpuid;
        mov ebx, edx;
        and ebx, 0x4080;
    }
    check(a, "CPUID has MCE and MCA", rbx, 0x4080)?;
    code! { a =>
        mov ecx, 0x179;
        rdmsr;
        movzx ebx, al;
        mov esi, ebx;
        dec ebx;
        shr ebx, 5;
    }
    check(a, "1 to 32 machine-check banks", rbx, 0)?;
    // Every bank takes all ones for its control register and zero for its status.
    code! { a =>
        xor ebx, ebx;
        mov ecx, 0x400;
    ".bank":
        mov eax, -1;
        mov edx, -1;
        wrmsr;
        rdmsr;
        and eax, edx;
        inc eax;
        or ebx, eax;
        inc ecx;
        xor eax, eax;
        xor edx, edx;
        wrmsr;
        rdmsr;
        or ebx, eax;
        add ecx, 3;
        dec esi;
        jnz ".bank";
    }
    check(a, "machine-check banks hold what is written", rbx, 0)?;
    code! { a =>
        mov edi, ecx;
    }
    expect(a, "no_bank")?;
    code! { a =>
        mov ecx, edi;
        rdmsr;
    "no_bank":
    }
    check_at(a, "behind the last bank", var::VECTOR, 13)
}
