//! The part of the `interrupts` kernel that leaves ring 3.

use iced_x86::code_asm::*;

use super::interrupts::{APIC, FIRST_CS, FIRST_RIP, FIRST_RSP, FIRST_SS, FRAME_AT, LOG, TIMER, make_pending};
use super::kit::*;
use crate::os::asm::{Asm, AsmError, code};

/// Runs `code` in ring 3, at the window's first page, with ECX = 1000, until it faults or executes INT 80h.
fn run_user(a: &mut Asm, code: &[u8], flags: i32, resume: &str) -> Result<(), AsmError> {
    place(a, code, WINDOW)?;
    expect(a, resume)?;
    code! { a =>
        mov ecx, 1000;
        push USER_DATA;
        push WINDOW + 0x2000;
        push flags;
        push USER_CODE;
        push WINDOW;
        iretq;
    }
    a.label(resume)
}

/// Bytes of a few instructions followed by INT 80h.
fn user_code(emit: fn(&mut Asm) -> Result<(), AsmError>) -> Result<Vec<u8>, AsmError> {
    snippet(WINDOW, |a| {
        emit(a)?;
        Ok(a.code.int(USER_CALL)?)
    })
}

/// An interrupt is pending when ring 3 is entered with IF set: the CPU switches to the stack that the TSS names for ring 0.
pub(super) fn from_user(a: &mut Asm) -> Result<(), AsmError> {
    let spin = user_code(|a| {
        code! { a =>
        "spin":
            dec ecx;
            jnz "spin";
        }
        Ok(())
    })?;
    a.label("from_user")?;
    make_pending(a)?;
    run_user(a, &spin, 0x202, "from_user_done")?;
    check_at(a, "user code ran to its end, vector", var::VECTOR, i64::from(USER_CALL))?;
    check_at(a, "one interrupt and one call from user code", var::COUNT, 2)?;
    check_at(a, "the interrupt came first", LOG, i64::from(TIMER))?;
    check_at(a, "at the first user instruction", FIRST_RIP, i64::from(WINDOW))?;
    check_at(a, "frame on the ring 0 stack", FRAME_AT, i64::from(RING_0_STACK_TOP - 22 * 8))?;
    check_at(a, "user SS in the frame", FIRST_SS, i64::from(USER_DATA))?;
    check_at(a, "user RSP in the frame", FIRST_RSP, i64::from(WINDOW + 0x2000))?;
    check_at(a, "user CS in the frame", FIRST_CS, i64::from(USER_CODE))
}

/// Gates that user code may not use, or that are not there.
pub(super) fn gate_protection(a: &mut Asm) -> Result<(), AsmError> {
    let call = user_code(|a| Ok(a.code.int(APIC + 1)?))?;
    run_user(a, &call, 2, "user_int")?;
    check_at(a, "INT through a ring 0 gate from ring 3, vector", var::VECTOR, 13)?;
    check_at(a, "INT through a ring 0 gate from ring 3, error", var::ERROR, i64::from((APIC + 1) * 8 + 2))?;
    check_at(a, "INT through a ring 0 gate from ring 3, RIP", var::RIP, i64::from(WINDOW))?;
    let breakpoint = user_code(|a| Ok(a.code.int3()?))?;
    run_user(a, &breakpoint, 2, "user_int3")?;
    check_at(a, "INT3 through a ring 0 gate from ring 3, vector", var::VECTOR, 13)?;
    check_at(a, "INT3 through a ring 0 gate from ring 3, error", var::ERROR, 3 * 8 + 2)?;
    let divide = user_code(|a| {
        code! { a =>
            xor ecx, ecx;
            div ecx;
        }
        Ok(())
    })?;
    run_user(a, &divide, 2, "user_divide")?;
    check_at(a, "an exception does not ask for the gate's privilege, vector", var::VECTOR, 0)?;
    code! { a =>
        mov byte_ptr(IDT + (APIC + 1) * 16 + 5), 0x0E; // not present
    }
    expect(a, "absent_gate")?;
    code! { a =>
        int APIC + 1;
    "absent_gate":
        mov byte_ptr(IDT + (APIC + 1) * 16 + 5), 0x8E;
    }
    check_at(a, "INT through an absent gate, vector", var::VECTOR, 11)?;
    check_at(a, "INT through an absent gate, error", var::ERROR, i64::from((APIC + 1) * 8 + 2))?;
    expect(a, "past_limit")?;
    code! { a =>
        int 0x90;
    "past_limit":
    }
    check_at(a, "INT past the IDT's limit, vector", var::VECTOR, 13)?;
    check_at(a, "INT past the IDT's limit, error", var::ERROR, 0x90 * 8 + 2)
}

/// Instructions that ring 3 may not execute.
pub(super) fn user_privilege(a: &mut Asm) -> Result<(), AsmError> {
    type Emit = fn(&mut Asm) -> Result<(), AsmError>;
    let rows: [(&str, Emit); 9] = [
        ("HLT", |a| Ok(a.code.hlt()?)),
        ("CLI", |a| Ok(a.code.cli()?)),
        ("STI", |a| Ok(a.code.sti()?)),
        ("MOV from CR0", |a| Ok(a.code.mov(rax, cr0)?)),
        ("MOV from DR7", |a| Ok(a.code.mov(rax, dr7)?)),
        ("RDMSR", |a| Ok(a.code.rdmsr()?)),
        ("INVLPG", |a| Ok(a.code.invlpg(ptr(rcx))?)),
        ("OUT", |a| Ok(a.code.out(0x80, al)?)),
        ("SWAPGS", |a| Ok(a.code.swapgs()?)),
    ];
    for (name, emit) in rows {
        let code = user_code(emit)?;
        run_user(a, &code, 2, &format!("user {name}"))?;
        check_at(a, &format!("{name} in ring 3, vector"), var::VECTOR, 13)?;
        check_at(a, &format!("{name} in ring 3, error"), var::ERROR, 0)?;
    }
    let popf = user_code(|a| {
        code! { a =>
            push 0x3202; // IF and IOPL 3
            popfq;
            pushfq;
            pop rbx;
        }
        Ok(())
    })?;
    run_user(a, &popf, 2, "user_popf")?;
    a.code.and(ebx, 0x3200)?;
    check(a, "POPFQ in ring 3 changes neither IF nor IOPL", rbx, 0)
}
