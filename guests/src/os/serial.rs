//! The console: a 16550 UART at 3F8h. Output waits for the chip, input comes by interrupt through a ring buffer.
//!
//! National Semiconductor PC16550D datasheet, "Registers". On a PC the UART's interrupt reaches IRQ 4 only while
//! modem-control output OUT2 is set.

use iced_x86::code_asm::*;

use super::asm::{Asm, AsmError, code};
use super::layout::*;
use super::tasks::{READY, TASKS_END, WAITING, task};

const COM1: i32 = 0x3F8;
/// Interrupt enable register, and its bit for received data.
const IER: i32 = COM1 + 1;
const IER_RECEIVED: i32 = 1 << 0;
const FCR: i32 = COM1 + 2;
const LCR: i32 = COM1 + 3;
const MCR: i32 = COM1 + 4;
/// Line status register: a byte was received; the transmitter takes another; the transmitter is empty.
const LSR: i32 = COM1 + 5;
const LSR_DR: i32 = 1 << 0;
const LSR_THRE: i32 = 1 << 5;
const LSR_TEMT: i32 = 1 << 6;

/// 32-bit code: `early_serial`, and `early_print` of the text at ESI.
pub(crate) fn early(a: &mut Asm) -> Result<(), AsmError> {
    a.label("early_serial")?;
    // 115200 baud (divisor 1 while DLAB is set), 8 data bits, no parity, FIFOs on and cleared, DTR + RTS + OUT2, no interrupts yet.
    for (port, value) in [(LCR, 0x80), (COM1, 1), (IER, 0), (LCR, 0x03), (FCR, 0x07), (MCR, 0x0B)] {
        code! { a =>
            mov edx, port;
            mov al, value;
            out dx, al;
        }
    }
    code! { a =>
        ret;
    "early_print":
        mov edx, LSR;
        in_ al, dx;
        test al, LSR_THRE;
        jz "early_print";
        lodsb;
        test al, al;
        jz ".done";
        mov edx, COM1;
        out dx, al;
        jmp "early_print";
    ".done":
        ret;
    }
    Ok(())
}

/// The 64-bit code. Routines take arguments in RDI and RSI and keep RBX, RBP and R12–R15.
pub(crate) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    output(a)?;
    numbers(a)?;
    input(a)?;
    serial_interrupt(a)
}

fn output(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "putc": // DIL = character; a line feed gets a carriage return before it
        cmp dil, i32::from(b'\n');
        jne ".raw";
        mov edi, i32::from(b'\r');
        call ".raw";
        mov edi, i32::from(b'\n');
    ".raw":
        mov edx, LSR;
    ".busy":
        in_ al, dx;
        test al, LSR_THRE;
        jz ".busy";
        mov edx, COM1;
        mov eax, edi;
        out dx, al;
        ret;
    "print": // RDI = zero-terminated text
        push rbx;
        mov rbx, rdi;
    ".next":
        movzx edi, byte_ptr(rbx);
        test edi, edi;
        jz ".done";
        call "putc";
        inc rbx;
        jmp ".next";
    ".done":
        pop rbx;
        ret;
    "flush": // waits until the last bit is on the wire
        mov edx, LSR;
    ".busy":
        in_ al, dx;
        test al, LSR_TEMT;
        jz ".busy";
        ret;
    }
    Ok(())
}

fn numbers(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "print_number": // RDI = number, in decimal
        xor esi, esi;
    "print_padded": // RDI = number, ESI = width of the field, at most 30
        push rbx;
        push rbp;
        mov rbp, rsp;
        sub rsp, 32;
        mov rbx, rbp; // digits are made from the last to the first
        mov rax, rdi;
        mov ecx, 10;
    ".digit":
        xor edx, edx;
        div rcx;
        add dl, i32::from(b'0');
        dec rbx;
        mov byte_ptr(rbx), dl;
        dec esi;
        test rax, rax;
        jnz ".digit";
    ".pad":
        test esi, esi;
        jle ".out";
        dec rbx;
        mov byte_ptr(rbx), i32::from(b' ');
        dec esi;
        jmp ".pad";
    ".out":
        movzx edi, byte_ptr(rbx);
        call "putc";
        inc rbx;
        cmp rbx, rbp;
        jne ".out";
        mov rsp, rbp;
        pop rbp;
        pop rbx;
        ret;
    "print_hex": // RDI = number, sixteen digits
        push rbx;
        push r12;
        mov rbx, rdi;
        mov r12d, 16;
    ".digit":
        rol rbx, 4;
        mov edi, ebx;
        and edi, 0xF;
        add edi, i32::from(b'0');
        cmp edi, i32::from(b'9');
        jbe ".decimal";
        add edi, i32::from(b'A' - b'9' - 1);
    ".decimal":
        call "putc";
        dec r12d;
        jnz ".digit";
        pop r12;
        pop rbx;
        ret;
    }
    Ok(())
}

/// `getc` sleeps until a byte is there. Interrupts are off between looking and sleeping, else the byte could come in between
/// and nobody would wake us; giving up the CPU turns them on again through the next task's flags.
fn input(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "init_serial":
        mov edx, IER;
        mov al, IER_RECEIVED;
        out dx, al;
        ret;
    "getc": // returns the byte in EAX
        cli;
    ".look":
        mov rcx, qword_ptr(var::RING_HEAD);
        cmp rcx, qword_ptr(var::RING_TAIL);
        jne ".take";
        mov rax, qword_ptr(var::CURRENT);
        mov qword_ptr(rax + task::STATE), WAITING;
        int super::interrupts::YIELD;
        jmp ".look";
    ".take":
        inc qword_ptr(var::RING_HEAD);
        and ecx, RING_BYTES - 1;
        movzx eax, byte_ptr(RING + rcx);
        sti;
        ret;
    }
    Ok(())
}

/// RDI = frame. Takes all that the chip has, wakes the tasks that wait for it, and lets them run at once.
fn serial_interrupt(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "serial_interrupt":
        mov edx, LSR;
        in_ al, dx;
        test al, LSR_DR;
        jz ".wake";
        mov edx, COM1;
        in_ al, dx;
        mov rcx, qword_ptr(var::RING_TAIL);
        mov rsi, rcx;
        sub rsi, qword_ptr(var::RING_HEAD);
        cmp rsi, RING_BYTES;
        jae "serial_interrupt"; // full: the byte is lost
        inc qword_ptr(var::RING_TAIL);
        and ecx, RING_BYTES - 1;
        mov byte_ptr(RING + rcx), al;
        jmp "serial_interrupt";
    ".wake":
        mov ecx, TASK_BLOCKS;
    ".task":
        cmp qword_ptr(rcx + task::STATE), WAITING;
        jne ".next";
        mov qword_ptr(rcx + task::STATE), READY;
    ".next":
        add ecx, task::BYTES;
        cmp ecx, TASKS_END;
        jb ".task";
        mov al, 0x20; // end of interrupt
        out 0x20, al;
        jmp "schedule";
    }
    Ok(())
}
