//! External interrupts: 8259s, 8254, the UART, the local APIC, HLT, the shadows of STI and MOV SS, nesting, privilege changes.
//!
//! Intel SDM Vol. 3, "Masking Maskable Hardware Interrupts", "Masking Exceptions and Interrupts When Switching Stacks", "Local APIC",
//! "64-Bit Mode Stack Frame", "Protection of Exception- and Interrupt-Handler Procedures"; Intel 8259A datasheet, "Operation
//! Command Words"; Intel 8254 datasheet, "Mode Definitions". Nothing here depends on how fast the machine or its timers are.

use iced_x86::code_asm::*;

use super::interrupts_user;
use super::kit::*;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

/// Vectors: IRQ 0 and IRQ 4, then ours for the local APIC.
pub(super) const TIMER: i32 = 0x20;
const UART: i32 = 0x24;
pub(super) const APIC: i32 = 0x30;
const SPURIOUS: i32 = 0x3F;

/// What the hook logs: vectors in order of arrival, in bytes; and the address of the last frame.
pub(super) const LOG: i32 = 0x70_0000;
pub(super) const FRAME_AT: i32 = var::TEST;
/// RFLAGS inside the handler.
const INSIDE: i32 = var::TEST + 8;
/// Code that the hook calls before the end of interrupt, once.
const ACTION: i32 = var::TEST + 16;
/// What actions leave behind.
const SEEN: i32 = var::TEST + 24;
/// What the CPU pushed for the first interrupt since `begin`.
pub(super) const FIRST_RIP: i32 = var::TEST + 32;
pub(super) const FIRST_CS: i32 = var::TEST + 40;
pub(super) const FIRST_RSP: i32 = var::TEST + 48;
pub(super) const FIRST_SS: i32 = var::TEST + 56;

/// Local APIC registers.
const LAPIC: u32 = 0xFEE0_0000;
const TPR: u32 = LAPIC + 0x80;
const EOI: u32 = LAPIC + 0xB0;
const SVR: u32 = LAPIC + 0xF0;
const IRR_32_63: u32 = LAPIC + 0x210;
const ICR: u32 = LAPIC + 0x300;
const LVT_TIMER: u32 = LAPIC + 0x320;
const LVT_LINT0: u32 = LAPIC + 0x350;
const INITIAL_COUNT: u32 = LAPIC + 0x380;
const CURRENT_COUNT: u32 = LAPIC + 0x390;
const DIVIDE: u32 = LAPIC + 0x3E0;
/// ICR: fixed delivery to self.
const TO_SELF: i32 = 1 << 18 | 1 << 14;
const MASKED: i32 = 1 << 16;
const PERIODIC: i32 = 1 << 17;

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    set_up(a)?;
    hook(a, Some("interrupt"))?;
    pending(a)?;
    shadows(a)?;
    masked(a)?;
    halt(a)?;
    nested(a)?;
    not_nested(a)?;
    apic_timer(a)?;
    apic_halt(a)?;
    apic_priority(a)?;
    gates(a)?;
    interrupts_user::from_user(a)?;
    hook(a, None)?;
    interrupts_user::gate_protection(a)?;
    interrupts_user::user_privilege(a)?;
    code! { a =>
        jmp "finish";
    }
    interrupt(a)?;
    helpers(a)?;
    actions(a)
}

fn outputs(a: &mut Asm, list: &[(i32, i32)]) -> Result<(), AsmError> {
    for &(port, value) in list {
        code! { a =>
            mov al, value;
            mov edx, port;
            out dx, al;
        }
    }
    Ok(())
}

fn store(a: &mut Asm, register: u32, value: i32) -> Result<(), AsmError> {
    code! { a =>
        mov ebx, register;
        mov dword_ptr(rbx), value;
    }
    Ok(())
}

/// 8259s remapped, all masked; the local APIC on, passing the 8259s' interrupts through LINT0.
fn set_up(a: &mut Asm) -> Result<(), AsmError> {
    let first = [(0x20, 0x11), (0x21, TIMER), (0x21, 4), (0x21, 1), (0x21, 0xFF)];
    let second = [(0xA0, 0x11), (0xA1, TIMER + 8), (0xA1, 2), (0xA1, 1), (0xA1, 0xFF)];
    outputs(a, &first)?;
    outputs(a, &second)?;
    store(a, LVT_LINT0, 0x700)?;
    store(a, SVR, 0x100 | SPURIOUS)?;
    store(a, TPR, 0)
}

/// The hook. Vectors 20h–2Fh end at the 8259, 30h–3Eh at the APIC; 80h comes from user code and is left to the recorder.
fn interrupt(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "interrupt":
        pushfq;
        pop qword_ptr(INSIDE);
        mov qword_ptr(FRAME_AT), rdi;
        mov rcx, qword_ptr(rdi + frame::VECTOR);
        xor eax, eax;
        cmp ecx, TIMER;
        jb ".done";
        cmp ecx, SPURIOUS;
        jae ".done";
        mov rdx, qword_ptr(var::COUNT);
        mov byte_ptr(LOG - 1 + rdx), cl;
        cmp edx, 1;
        jne ".not_first";
        mov rax, qword_ptr(rdi + frame::RIP);
        mov qword_ptr(FIRST_RIP), rax;
        mov rax, qword_ptr(rdi + frame::CS);
        mov qword_ptr(FIRST_CS), rax;
        mov rax, qword_ptr(rdi + frame::RSP);
        mov qword_ptr(FIRST_RSP), rax;
        mov rax, qword_ptr(rdi + frame::SS);
        mov qword_ptr(FIRST_SS), rax;
    ".not_first":
        mov rdx, qword_ptr(ACTION);
        test rdx, rdx;
        jz ".end";
        mov qword_ptr(ACTION), 0;
        push rcx;
        call rdx;
        pop rcx;
    ".end":
        mov eax, 1;
        cmp ecx, APIC;
        jae ".apic";
        mov al, 0x20;
        out 0x20, al;
        ret;
    ".apic":
        mov edx, EOI;
        mov dword_ptr(rdx), 0;
    ".done":
        ret;
    }
    Ok(())
}

fn helpers(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "begin": // forgets what was logged
        mov qword_ptr(var::COUNT), 0;
        mov qword_ptr(LOG), 0;
        mov qword_ptr(SEEN), 0;
        mov qword_ptr(FIRST_RIP), 0;
        ret;
    "one_shot": // 8254 channel 0 in mode 0: its output goes high once, soon, and stays high
        mov al, 0x30;
        out 0x43, al;
        mov al, 100;
        out 0x40, al;
        xor eax, eax;
        out 0x40, al;
        ret;
    "wait_pending": // until IRQ 0 is requested at the 8259; EAX = its request bit
        mov ecx, 100_000_000;
    ".look":
        mov al, 0x0A; // OCW3: read the request register
        out 0x20, al;
        in_ al, 0x20;
        and eax, 1;
        jnz ".is";
        dec ecx;
        jnz ".look";
    ".is":
        ret;
    "wait_count": // until RDI interrupts came; gives up after a while
        mov ecx, 400_000_000;
    ".wait":
        cmp rdi, qword_ptr(var::COUNT);
        jbe ".enough";
        dec ecx;
        jnz ".wait";
    ".enough":
        ret;
    "self_ipi": // EDI = vector
        mov edx, ICR;
        or edi, TO_SELF;
        mov dword_ptr(rdx), edi;
        ret;
    }
    Ok(())
}

/// IRQ 0 requested and unmasked, with IF clear.
pub(super) fn make_pending(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        cli;
        call "begin";
    }
    outputs(a, &[(0x21, 0xFE)])?;
    code! { a =>
        call "one_shot";
        call "wait_pending";
    }
    Ok(())
}

fn pending(a: &mut Asm) -> Result<(), AsmError> {
    make_pending(a)?;
    a.code.movzx(ebx, al)?;
    check(a, "8259 shows the timer's request", rbx, 1)?;
    check_at(a, "no interrupt while IF is clear", var::COUNT, 0)?;
    code! { a =>
        sti;
        nop;
    ".one_later":
        nop;
        nop;
        cli;
    }
    check_at(a, "one interrupt after STI", var::COUNT, 1)?;
    check_at(a, "its vector", LOG, i64::from(TIMER))?;
    check_address(a, "it comes one instruction after STI", FIRST_RIP, ".one_later")?;
    code! { a =>
        mov rbx, qword_ptr(var::RFLAGS);
        and ebx, 0x200;
    }
    check(a, "IF in the saved flags", rbx, 0x200)?;
    code! { a =>
        mov rbx, qword_ptr(INSIDE);
        and ebx, 0x200;
    }
    check(a, "IF inside an interrupt gate", rbx, 0)
}

fn shadows(a: &mut Asm) -> Result<(), AsmError> {
    a.label("shadows")?;
    make_pending(a)?;
    code! { a =>
        sti;
        cli;
        nop;
        nop;
    }
    check_at(a, "STI, CLI lets nothing in", var::COUNT, 0)?;
    code! { a =>
        pushfq;
        or qword_ptr(rsp), 0x200;
        popfq;
    ".after_popf":
        nop;
        cli;
    }
    check_at(a, "POPFQ that sets IF lets it in", var::COUNT, 1)?;
    check_address(a, "at once, without a shadow", FIRST_RIP, ".after_popf")?;
    make_pending(a)?;
    code! { a =>
        mov ecx, KERNEL_DATA;
        lea rax, ".in_iret";
        mov rbx, rsp;
        push KERNEL_DATA;
        push rbx;
        push 0x202;
        push KERNEL_CODE;
        push rax;
        iretq;
    ".in_iret":
        nop;
        cli;
    }
    check_at(a, "IRETQ that sets IF lets it in", var::COUNT, 1)?;
    check_address(a, "before the instruction it returns to", FIRST_RIP, ".in_iret")
}

fn masked(a: &mut Asm) -> Result<(), AsmError> {
    a.label("masked")?;
    make_pending(a)?;
    outputs(a, &[(0x21, 0xFF)])?;
    code! { a =>
        sti;
        nop;
        nop;
        nop;
    }
    check_at(a, "no interrupt while the 8259 masks it", var::COUNT, 0)?;
    outputs(a, &[(0x21, 0xFE)])?;
    code! { a =>
        mov edi, 1;
        call "wait_count";
        cli;
    }
    check_at(a, "it comes when it is unmasked", var::COUNT, 1)
}

fn halt(a: &mut Asm) -> Result<(), AsmError> {
    a.label("halt")?;
    code! { a =>
        cli;
        call "begin";
        call "one_shot";
        sti;
        hlt;
    ".woken":
        nop;
        cli;
    }
    check_at(a, "HLT ends with the timer's interrupt", var::COUNT, 1)?;
    check_address(a, "and RIP is after it", FIRST_RIP, ".woken")?;
    code! { a =>
        call "begin";
        mov al, 0x34; // mode 2, periodic
        out 0x43, al;
        mov al, 0xA9; // 1 ms
        out 0x40, al;
        mov al, 4;
        out 0x40, al;
    ".next":
        sti;
        hlt;
        cli;
        cmp qword_ptr(var::COUNT), 10;
        jb ".next";
        mov al, 0x30; // stop it: mode 0, no count
        out 0x43, al;
    }
    outputs(a, &[(0x21, 0xFF)])?;
    check_at(a, "ten HLTs, ten periodic interrupts", var::COUNT, 10)
}

/// The UART's interrupt is in service when the timer's, of higher priority, comes.
fn nested(a: &mut Asm) -> Result<(), AsmError> {
    a.label("nested")?;
    code! { a =>
        cli;
        call "begin";
        lea rax, "timer_inside_uart";
        mov qword_ptr(ACTION), rax;
    }
    outputs(a, &[(0x21, 0xEE), (0x3FC, 0x0B), (0x3F9, 0x02)])?; // transmitter empty: a request at once
    code! { a =>
        sti;
        mov edi, 2;
        call "wait_count";
        cli;
    }
    outputs(a, &[(0x3F9, 0), (0x21, 0xFF)])?;
    check_at(a, "UART, then timer", LOG, i64::from(UART | TIMER << 8))?;
    check_at(a, "the timer interrupted the UART's handler", SEEN, 2)
}

/// The timer's is in service, so that the UART's has to wait for the end of interrupt.
fn not_nested(a: &mut Asm) -> Result<(), AsmError> {
    a.label("not_nested")?;
    make_pending(a)?;
    outputs(a, &[(0x21, 0xEE)])?;
    code! { a =>
        lea rax, "uart_inside_timer";
        mov qword_ptr(ACTION), rax;
        sti;
        mov edi, 2;
        call "wait_count";
        cli;
    }
    outputs(a, &[(0x3F9, 0), (0x21, 0xFF)])?;
    check_at(a, "timer, then UART", LOG, i64::from(TIMER | UART << 8))?;
    check_at(a, "the UART waited for the end of interrupt", SEEN, 1)
}

fn actions(a: &mut Asm) -> Result<(), AsmError> {
    a.label("timer_inside_uart")?;
    outputs(a, &[(0x3F9, 0)])?;
    code! { a =>
        call "one_shot";
        sti;
        mov edi, 2;
        call "wait_count";
        cli;
        mov rax, qword_ptr(var::COUNT);
        mov qword_ptr(SEEN), rax;
        ret;
    "uart_inside_timer":
    }
    outputs(a, &[(0x3F9, 2)])?;
    code! { a =>
        sti;
        mov ecx, 100_000;
    ".wait":
        dec ecx;
        jnz ".wait";
        cli;
        mov rax, qword_ptr(var::COUNT);
        mov qword_ptr(SEEN), rax;
        ret;
    }
    Ok(())
}

fn apic_timer(a: &mut Asm) -> Result<(), AsmError> {
    a.label("apic_timer")?;
    code! { a =>
        call "begin";
        sti;
    }
    store(a, DIVIDE, 0xB)?; // by 1
    store(a, LVT_TIMER, APIC)?;
    store(a, INITIAL_COUNT, 10_000)?;
    code! { a =>
        mov edi, 1;
        call "wait_count";
        mov edi, 2;
        mov ecx, 100_000;
        call "wait_count.wait";
        mov ebx, CURRENT_COUNT;
        mov r12d, dword_ptr(rbx);
    }
    check_at(a, "APIC timer, one shot", var::COUNT, 1)?;
    check_at(a, "APIC timer, vector", LOG, i64::from(APIC))?;
    check(a, "APIC timer, the count stays 0", r12, 0)?;
    code! { a =>
        call "begin";
    }
    store(a, LVT_TIMER, PERIODIC | (APIC + 1))?;
    store(a, INITIAL_COUNT, 20_000)?;
    code! { a =>
        mov edi, 5;
        call "wait_count";
    }
    store(a, INITIAL_COUNT, 0)?;
    code! { a =>
        xor r12d, r12d;
        cmp qword_ptr(var::COUNT), 5;
        setae r12b;
    }
    check(a, "APIC timer, periodic", r12, 1)?;
    code! { a =>
        call "begin";
    }
    store(a, LVT_TIMER, MASKED | APIC)?;
    store(a, INITIAL_COUNT, 10_000)?;
    code! { a =>
        mov ecx, 400_000_000;
        mov ebx, CURRENT_COUNT;
        mov r12d, dword_ptr(rbx);
    ".counting":
        mov r13d, dword_ptr(rbx);
        test r13d, r13d;
        jz ".down";
        dec ecx;
        jnz ".counting";
    ".down":
        cmp r12d, 10_000;
        seta r12b;
        movzx r12d, r12b;
    }
    check(a, "APIC timer, the count starts at most at its initial value", r12, 0)?;
    check(a, "APIC timer, masked, counts down", r13, 0)?;
    check_at(a, "APIC timer, masked, does not interrupt", var::COUNT, 0)
}

fn apic_halt(a: &mut Asm) -> Result<(), AsmError> {
    a.label("apic_halt")?;
    code! { a =>
        cli;
        call "begin";
    }
    store(a, LVT_TIMER, APIC)?;
    store(a, INITIAL_COUNT, 1_000_000)?;
    code! { a =>
        sti;
        hlt;
    ".woken":
        cli;
    }
    check_at(a, "HLT ends with the APIC timer's interrupt", var::COUNT, 1)?;
    check_address(a, "HLT and APIC timer, RIP", FIRST_RIP, ".woken")
}

/// Interrupts to self: order by vector, and the task priority holds back.
fn apic_priority(a: &mut Asm) -> Result<(), AsmError> {
    a.label("apic_priority")?;
    code! { a =>
        call "begin";
        mov edi, APIC + 3;
        call "self_ipi";
        mov edi, APIC + 7;
        call "self_ipi";
        mov edi, APIC + 5;
        call "self_ipi";
        mov ebx, IRR_32_63;
        mov r12d, dword_ptr(rbx);
        sti;
        mov edi, 3;
        call "wait_count";
        cli;
    }
    let bits = 1 << (APIC + 3 - 32) | 1 << (APIC + 5 - 32) | 1 << (APIC + 7 - 32);
    check(a, "APIC request register", r12, bits)?;
    let order = (APIC + 7) | (APIC + 5) << 8 | (APIC + 3) << 16;
    check_at(a, "the highest vector comes first", LOG, i64::from(order))?;
    code! { a =>
        call "begin";
        mov eax, 3;
        mov cr8, rax; // the same as TPR 30h
        mov ebx, TPR;
        mov r12d, dword_ptr(rbx);
        sti;
        mov edi, APIC + 1;
        call "self_ipi";
        mov ecx, 1000;
    ".wait":
        dec ecx;
        jnz ".wait";
    }
    check(a, "CR8 is the task priority", r12, 0x30)?;
    check_at(a, "a task priority of the same class holds back", var::COUNT, 0)?;
    store(a, TPR, 0x2F)?;
    code! { a =>
        mov edi, 1;
        call "wait_count";
        cli;
        mov rbx, cr8;
    }
    check_at(a, "a lower one does not", var::COUNT, 1)?;
    check(a, "CR8 after writing TPR", rbx, 2)?;
    store(a, TPR, 0)
}

/// Trap gates leave IF; the stack is aligned before the frame is pushed.
fn gates(a: &mut Asm) -> Result<(), AsmError> {
    a.label("gates")?;
    let attributes = IDT + (APIC + 2) * 16 + 5;
    code! { a =>
        cli;
        call "begin";
        mov byte_ptr(attributes), 0x8F; // trap gate
        sti;
        int APIC + 2;
        cli;
        mov rbx, qword_ptr(INSIDE);
        and ebx, 0x200;
        mov byte_ptr(attributes), 0x8E;
    }
    check(a, "IF inside a trap gate", rbx, 0x200)?;
    code! { a =>
        mov r12, rsp;
        sub rsp, 4;
        mov r13, rsp;
        int APIC + 2;
        mov r14, rsp;
        mov rsp, r12;
        sub r14, r13;
        mov rbx, qword_ptr(FRAME_AT);
        and ebx, 15;
    }
    check(a, "the frame is aligned to 16 bytes", rbx, 0)?;
    check(a, "IRETQ gives back the stack pointer that was not", r14, 0)
}
