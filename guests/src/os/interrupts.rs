//! Interrupts: the IDT, the 8259 interrupt controllers, the 8254 timer, and one common entry for every vector.
//!
//! Intel SDM Vol. 3, "64-Bit Mode Stack Frame" and "IDT Descriptors"; Intel 8259A datasheet, "Initialization Command
//! Words"; Intel 8254 datasheet, "Control Word Format".
//!
//! Handlers take the interrupted frame in RDI and return in RAX the frame to resume: the same one, or another task's.

use iced_x86::code_asm::*;

use super::asm::{Asm, AsmError, code};
use super::layout::*;
use super::long_mode::CODE_SELECTOR;

/// Vector of page faults, and of the general exceptions.
const PAGE_FAULT: i32 = 14;
const DOUBLE_FAULT: i32 = 8;
/// IRQ 0–15 are remapped to these vectors, since 0–31 belong to the CPU.
const IRQ_BASE: i32 = 32;
const IRQ_TIMER: i32 = IRQ_BASE;
const IRQ_SERIAL: i32 = IRQ_BASE + 4;
const IRQ_SPURIOUS: [i32; 2] = [IRQ_BASE + 7, IRQ_BASE + 15];
/// The software interrupt by which a task gives up the CPU.
pub(crate) const YIELD: i32 = 48;
const VECTORS: i32 = 49;
/// Exceptions for which the CPU pushes an error code.
const WITH_ERROR_CODE: [i32; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];

/// The frame: fifteen registers that we push, vector and error code, then what the CPU pushes.
pub(crate) mod frame {
    pub(crate) const VECTOR: i32 = 15 * 8;
    pub(crate) const ERROR: i32 = 16 * 8;
    pub(crate) const RIP: i32 = 17 * 8;
    pub(crate) const CS: i32 = 18 * 8;
    pub(crate) const RFLAGS: i32 = 19 * 8;
    pub(crate) const RSP: i32 = 20 * 8;
    pub(crate) const SS: i32 = 21 * 8;
    pub(crate) const BYTES: i32 = 22 * 8;
}

const PIC1: i32 = 0x20;
const PIC2: i32 = 0xA0;
const END_OF_INTERRUPT: i32 = 0x20;
/// Masked: all but timer, cascade and serial port 1.
const PIC1_MASK: i32 = !(1 << 0 | 1 << 2 | 1 << 4) & 0xFF;

const PIT_CHANNEL_0: i32 = 0x40;
const PIT_CONTROL: i32 = 0x43;
/// Ticks per second.
pub(crate) const HZ: i32 = 100;
const PIT_DIVISOR: i32 = (1_193_182 + HZ / 2) / HZ;

/// All of this file's code.
pub(crate) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    stubs(a)?;
    common_entry(a)?;
    dispatch(a)?;
    init_idt(a)?;
    init_chips(a)?;
    page_fault(a)?;
    panic(a)
}

/// One entry per vector, which makes all frames alike, and the table of their addresses.
fn stubs(a: &mut Asm) -> Result<(), AsmError> {
    for vector in 0..VECTORS {
        a.label(&format!("vector {vector}"))?;
        if !WITH_ERROR_CODE.contains(&vector) {
            a.code.push(0)?;
        }
        code! { a =>
            push vector;
            jmp "interrupt";
        }
    }
    a.label("vectors")?;
    (0..VECTORS).try_for_each(|vector| a.pointer(&format!("vector {vector}")))
}

/// Order in which the general registers are pushed.
const SAVED: [AsmRegister64; 15] = [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

fn common_entry(a: &mut Asm) -> Result<(), AsmError> {
    a.label("interrupt")?;
    SAVED.iter().try_for_each(|&register| a.code.push(register))?;
    code! { a =>
        cld;
        mov rdi, rsp;
        call "dispatch";
    "resume":
        mov rsp, rax;
    }
    SAVED.iter().rev().try_for_each(|&register| a.code.pop(register))?;
    code! { a =>
        add rsp, 16; // vector and error code
        iretq;
    }
    Ok(())
}

fn dispatch(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "dispatch":
        mov rax, rdi;
        mov rcx, qword_ptr(rdi + frame::VECTOR);
        cmp ecx, IRQ_TIMER;
        je "timer_interrupt";
        cmp ecx, IRQ_SERIAL;
        je "serial_interrupt";
        cmp ecx, YIELD;
        je "schedule";
        cmp ecx, PAGE_FAULT;
        je "page_fault";
        cmp ecx, IRQ_BASE;
        jb "panic";
        cmp ecx, IRQ_SPURIOUS[0]; // a spurious interrupt is not in service: no end of interrupt,
        je ".done";
        cmp ecx, IRQ_SPURIOUS[1]; // except for the cascade, when the second chip raised it
        je ".first_chip";
        cmp ecx, IRQ_BASE + 8;
        mov al, END_OF_INTERRUPT;
        jb ".first_chip";
        out PIC2, al;
    ".first_chip":
        mov al, END_OF_INTERRUPT;
        out PIC1, al;
        mov rax, rdi;
    ".done":
        ret;
    }
    Ok(())
}

/// Interrupt gates (type 14): they clear IF, so that handlers do not nest.
fn init_idt(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "init_interrupts":
        lea rsi, "vectors";
        mov edi, IDT;
        mov ecx, VECTORS;
    ".gate":
        lodsq;
        mov word_ptr(rdi), ax;
        mov word_ptr(rdi + 2), u32::from(CODE_SELECTOR);
        mov word_ptr(rdi + 4), 0x8E00u32;
        shr rax, 16;
        mov word_ptr(rdi + 6), ax;
        shr rax, 16;
        mov dword_ptr(rdi + 8), eax;
        add edi, 16;
        dec ecx;
        jnz ".gate";
        mov byte_ptr(IDT + DOUBLE_FAULT * 16 + 4), 1; // IST1: the stack may be what is broken
        mov word_ptr(var::DESCRIPTOR_TABLE), (VECTORS * 16 - 1) as u32;
        mov qword_ptr(var::DESCRIPTOR_TABLE + 2), IDT;
        lidt ptr(var::DESCRIPTOR_TABLE);
        jmp "init_chips";
    }
    Ok(())
}

fn init_chips(a: &mut Asm) -> Result<(), AsmError> {
    a.label("init_chips")?;
    let first = [(PIC1, 0x11), (PIC1 + 1, IRQ_BASE), (PIC1 + 1, 1 << 2), (PIC1 + 1, 1), (PIC1 + 1, PIC1_MASK)];
    let second = [(PIC2, 0x11), (PIC2 + 1, IRQ_BASE + 8), (PIC2 + 1, 2), (PIC2 + 1, 1), (PIC2 + 1, 0xFF)];
    // Channel 0, low then high byte, mode 2 (rate generator), binary.
    let timer = [(PIT_CONTROL, 0x34), (PIT_CHANNEL_0, PIT_DIVISOR & 0xFF), (PIT_CHANNEL_0, PIT_DIVISOR >> 8)];
    for (port, value) in first.into_iter().chain(second).chain(timer) {
        code! { a =>
            mov al, value;
            out port, al;
        }
    }
    code! { a =>
        ret;
    }
    Ok(())
}

/// SDM Vol. 3, "Page-Fault Exceptions": CR2 is the address; the error code's bit 0 says that a page is there, bit 1 that it
/// was a write, bit 2 user mode. We map a zeroed frame when the address is in the demand range and nothing is there.
fn page_fault(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "page_fault":
        mov rax, cr2;
        mov rcx, rax;
        sub rcx, DEMAND;
        cmp rcx, DEMAND_END - DEMAND;
        jae "panic";
        test byte_ptr(rdi + frame::ERROR), 1;
        jnz "panic";
        mov rbx, rdi; // any register will do, all are in the frame
        shr rcx, 12; // index of the page-table entry, and of the frame that we use for it
        mov r12, rcx;
        call "describe_fault";
        print "  mapping a zeroed frame at ";
        mov rdi, r12;
        shl rdi, 12;
        add rdi, FRAMES;
        call "print_hex";
        print " and resuming\n";
        mov rdi, r12;
        shl rdi, 12;
        add rdi, FRAMES;
        lea rdx, qword_ptr(rdi + 3); // present, writable
        bts rdx, 63; // no-execute
        mov qword_ptr(DEMAND_PT + r12 * 8), rdx; // not present before, so no TLB entry to invalidate
        mov ecx, 0x1000 / 8;
        xor eax, eax;
        rep stosq;
        inc qword_ptr(var::DEMAND_PAGES);
        mov rax, rbx;
        ret;
    "describe_fault": // RBX = frame
        print "  #PF: cr2=";
        mov rdi, cr2;
        call "print_hex";
        print " error=";
        mov rdi, qword_ptr(rbx + frame::ERROR);
        call "print_hex";
        print " rip=";
        mov rdi, qword_ptr(rbx + frame::RIP);
        call "print_hex";
        print "\n  a ";
        text rdi, "read";
        text rax, "write";
        test byte_ptr(rbx + frame::ERROR), 2;
        cmovnz rdi, rax;
        call "print";
        print " by the kernel, no page present\n";
        ret;
    }
    Ok(())
}

/// An exception that nobody handles: say what we know, report failure to the debug-exit port, stop.
fn panic(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "panic":
        mov rbx, rdi;
        print "\nkernel panic: vector ";
        mov rdi, qword_ptr(rbx + frame::VECTOR);
        call "print_hex";
        print "\n  error=";
        mov rdi, qword_ptr(rbx + frame::ERROR);
        call "print_hex";
        print " cr2=";
        mov rdi, cr2;
        call "print_hex";
        print "\n  rip=";
        mov rdi, qword_ptr(rbx + frame::RIP);
        call "print_hex";
        print " rsp=";
        mov rdi, qword_ptr(rbx + frame::RSP);
        call "print_hex";
        print "\n";
        mov eax, 1;
        out 0xF4, al;
    ".halt":
        cli;
        hlt;
        jmp ".halt";
    }
    Ok(())
}
