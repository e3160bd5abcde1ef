//! Single-stepping, the debug registers, and the breakpoint instructions.
//!
//! Intel SDM Vol. 3, "Debug Registers", "Debug Exceptions" and "Breakpoint Exception (#BP)—Interrupt Vector 3".

use iced_x86::code_asm::*;

use super::kit::*;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

/// After this many events the hook clears TF in the frame.
const LIMIT: i32 = var::TEST;
/// Whether the hook sets RF in the frame, so that an instruction breakpoint does not come again.
const SET_RF: i32 = var::TEST + 8;
/// Events: RIP, DR6, vector, RFLAGS.
const LOG: i32 = 0x70_0000;
const LOG_BYTES: i32 = 32;
/// What data breakpoints watch.
const DATA: i32 = 0x71_0000;

const TF: i32 = 1 << 8;
const RF: i32 = 1 << 16;
/// DR6: a breakpoint's condition was met; access to debug registers; single step. And the bits that are always 1.
const B0: i64 = 1 << 0;
const B1: i64 = 1 << 1;
const B2: i64 = 1 << 2;
const B3: i64 = 1 << 3;
const BD: i64 = 1 << 13;
const BS: i64 = 1 << 14;
const DR6_ONES: i64 = 0xFFFF_0FF0;
/// DR7: general detect, and bit 10, which is always 1.
const GD: i32 = 1 << 13;
const DR7_ONE: i32 = 1 << 10;

/// DR7's R/W field.
#[derive(Clone, Copy)]
enum Kind {
    Execute,
    Write,
    Port,
    ReadWrite,
}

/// DR7 with breakpoint `n` enabled; `len` is 1, 2, 4 or 8.
fn dr7(n: u32, kind: Kind, len: u32) -> i32 {
    let length = [0, 0, 1, 0, 3, 0, 0, 0, 2][len as usize];
    ((kind as u32 | length << 2) << (16 + 4 * n) | 1 << (2 * n)) as i32 | DR7_ONE
}

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    hook(a, Some("log"))?;
    fixed_bits(a)?;
    single_step(a)?;
    step_over_ss(a)?;
    step_strings(a)?;
    step_interrupt(a)?;
    step_until_cleared(a)?;
    breakpoint_instructions(a)?;
    execution(a)?;
    data_writes(a)?;
    data_reads(a)?;
    several_at_once(a)?;
    ports(a)?;
    general_detect(a)?;
    hook(a, None)?;
    aliases(a)?;
    code! { a =>
        jmp "finish";
    }
    log(a)
}

/// The hook for vectors 1, 3 and 80h: writes an event and clears DR6.
fn log(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "log":
        xor eax, eax;
        cmp qword_ptr(rdi + frame::VECTOR), USER_CALL;
        je ".handled";
        cmp qword_ptr(rdi + frame::VECTOR), 3;
        ja ".return";
        mov rdx, qword_ptr(var::COUNT);
        shl edx, 5;
        add edx, LOG - LOG_BYTES;
        mov rax, qword_ptr(rdi + frame::RIP);
        mov qword_ptr(rdx), rax;
        mov rax, dr6;
        mov qword_ptr(rdx + 8), rax;
        mov rax, qword_ptr(rdi + frame::VECTOR);
        mov qword_ptr(rdx + 16), rax;
        mov rax, qword_ptr(rdi + frame::RFLAGS);
        mov qword_ptr(rdx + 24), rax;
        mov eax, DR6_ONES as u32;
        mov dr6, rax;
        mov rax, qword_ptr(var::COUNT);
        cmp rax, qword_ptr(LIMIT);
        jb ".more";
        and qword_ptr(rdi + frame::RFLAGS), !TF;
    ".more":
        cmp qword_ptr(SET_RF), 0;
        je ".handled";
        or qword_ptr(rdi + frame::RFLAGS), RF;
    ".handled":
        cmp qword_ptr(rdi + frame::VECTOR), USER_CALL;
        jne ".counted";
        dec qword_ptr(var::COUNT); // not an event of ours
    ".counted":
        mov eax, 1;
    ".return":
        ret;
    }
    Ok(())
}

/// Forgets all events; `limit` is how many steps to take.
fn begin(a: &mut Asm, limit: i32) -> Result<(), AsmError> {
    code! { a =>
        mov qword_ptr(var::COUNT), 0;
        mov qword_ptr(LIMIT), limit;
        mov qword_ptr(SET_RF), 0;
        mov qword_ptr(LOG), 0;
        mov qword_ptr(LOG + LOG_BYTES), 0;
        mov eax, DR6_ONES as u32;
        mov dr6, rax;
    }
    Ok(())
}

/// Sets TF: the first step ends after the instruction that follows.
fn start_stepping(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        pushfq;
        or qword_ptr(rsp), TF;
        popfq;
    }
    Ok(())
}

fn check_event(a: &mut Asm, name: &str, index: i32, rip_label: &str, dr6_bits: i64) -> Result<(), AsmError> {
    check_address(a, &format!("{name}, RIP of event {index}"), LOG + index * LOG_BYTES, rip_label)?;
    check_at(a, &format!("{name}, DR6 of event {index}"), LOG + index * LOG_BYTES + 8, DR6_ONES | dr6_bits)
}

fn check_count(a: &mut Asm, name: &str, count: i64) -> Result<(), AsmError> {
    check_at(a, &format!("{name}, events"), var::COUNT, count)
}

/// The register DR7, whose name `code_asm` shares with our function above.
fn control() -> AsmRegisterDr {
    iced_x86::code_asm::dr7
}

fn set_dr7(a: &mut Asm, value: i32) -> Result<(), AsmError> {
    a.code.mov(eax, value)?;
    Ok(a.code.mov(control(), rax)?)
}

fn fixed_bits(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        xor eax, eax;
        mov dr6, rax;
        mov rbx, dr6;
    }
    check(a, "DR6 after writing 0", rbx, DR6_ONES)?;
    a.code.xor(eax, eax)?;
    a.code.mov(control(), rax)?;
    a.code.mov(rbx, control())?;
    check(a, "DR7 after writing 0", rbx, i64::from(DR7_ONE))?;
    code! { a =>
        mov rax, 0x1234_5678_9ABC_DEF0u64;
        mov dr2, rax;
        mov rbx, dr2;
    }
    check(a, "DR2 holds 64 bits", rbx, 0x1234_5678_9ABC_DEF0)?;
    expect(a, "dr7_high")?;
    code! { a =>
        mov rax, 0x1_0000_0400u64;
    }
    a.code.mov(control(), rax)?;
    a.label("dr7_high")?;
    check_at(a, "bit 32 of DR7, vector", var::VECTOR, 13)?;
    expect(a, "dr6_high")?;
    code! { a =>
        mov dr6, rax;
    "dr6_high":
    }
    check_at(a, "bit 32 of DR6, vector", var::VECTOR, 13)
}

fn single_step(a: &mut Asm) -> Result<(), AsmError> {
    a.label("single_step")?;
    begin(a, 3)?;
    start_stepping(a)?;
    code! { a =>
        nop;
    ".one":
        mov ecx, 5;
    ".two":
        jmp ".three";
        ud2;
    ".three":
        nop;
        nop;
    }
    check_count(a, "steps", 3)?;
    check_event(a, "steps", 0, ".one", BS)?;
    check_event(a, "steps", 1, ".two", BS)?;
    check_event(a, "steps", 2, ".three", BS)?;
    code! { a =>
        mov rbx, qword_ptr(LOG + 24);
        and ebx, TF;
    }
    check(a, "steps, TF in the saved flags", rbx, i64::from(TF))
}

/// A load of SS holds debug traps back until after the next instruction.
fn step_over_ss(a: &mut Asm) -> Result<(), AsmError> {
    a.label("step_over_ss")?;
    begin(a, 2)?;
    a.code.mov(ecx, KERNEL_DATA)?;
    start_stepping(a)?;
    code! { a =>
        mov ss, ecx;
        nop;
    ".after_next":
        nop;
    ".two":
        nop;
    }
    check_count(a, "step over MOV SS", 2)?;
    check_event(a, "step over MOV SS", 0, ".after_next", BS)?;
    check_event(a, "step over MOV SS", 1, ".two", BS)
}

fn step_strings(a: &mut Asm) -> Result<(), AsmError> {
    a.label("step_strings")?;
    begin(a, 4)?;
    code! { a =>
        mov esi, DATA;
        mov edi, DATA + 16;
        mov ecx, 3;
    }
    start_stepping(a)?;
    code! { a =>
    ".string":
        rep movsb;
    ".after":
        nop;
    ".end":
        nop;
    }
    check_count(a, "steps of REP MOVSB", 4)?;
    check_event(a, "steps of REP MOVSB", 0, ".string", BS)?;
    check_event(a, "steps of REP MOVSB", 1, ".string", BS)?;
    check_event(a, "steps of REP MOVSB", 2, ".after", BS)?;
    check_event(a, "steps of REP MOVSB", 3, ".end", BS)
}

/// INT clears TF before its own step would trap; IRET sets it again, and one more instruction runs.
fn step_interrupt(a: &mut Asm) -> Result<(), AsmError> {
    a.label("step_interrupt")?;
    begin(a, 1)?;
    start_stepping(a)?;
    code! { a =>
        int USER_CALL;
        nop;
    ".after":
        nop;
    }
    check_count(a, "step over INT", 1)?;
    check_event(a, "step over INT", 0, ".after", BS)
}

/// POPFQ that clears TF is itself still stepped.
fn step_until_cleared(a: &mut Asm) -> Result<(), AsmError> {
    a.label("step_until_cleared")?;
    begin(a, 100)?;
    start_stepping(a)?;
    code! { a =>
        pushfq;
        and qword_ptr(rsp), !TF;
        popfq;
    ".cleared":
        nop;
        nop;
    }
    check_count(a, "steps until POPFQ clears TF", 3)?;
    check_event(a, "steps until POPFQ clears TF", 2, ".cleared", BS)
}

fn breakpoint_instructions(a: &mut Asm) -> Result<(), AsmError> {
    for (name, bytes, vector) in [("INT3", &[0xCC][..], 3), ("INT 3", &[0xCD, 3], 3), ("INT1", &[0xF1], 1)] {
        a.label(name)?;
        begin(a, 1)?;
        expect(a, ".after")?; // for a CPU that does not know it
        a.code.db(bytes)?;
        a.label(".after")?;
        check_count(a, name, 1)?;
        check_event(a, name, 0, ".after", 0)?;
        check_at(a, &format!("{name}, vector"), LOG + 16, vector)?;
    }
    Ok(())
}

fn execution(a: &mut Asm) -> Result<(), AsmError> {
    a.label("execution")?;
    begin(a, 0)?;
    code! { a =>
        mov qword_ptr(SET_RF), 1;
        lea rax, ".watched";
        mov dr0, rax;
    }
    set_dr7(a, dr7(0, Kind::Execute, 1))?;
    code! { a =>
        mov ebx, 3;
        xor r12d, r12d;
    ".again":
        nop;
    ".watched":
        inc r12d;
        dec ebx;
        jnz ".again";
    }
    set_dr7(a, DR7_ONE)?;
    check(a, "instruction breakpoint, the instruction ran", r12, 3)?;
    check_count(a, "instruction breakpoint", 3)?;
    check_event(a, "instruction breakpoint", 0, ".watched", B0)?;
    check_event(a, "instruction breakpoint", 2, ".watched", B0)?;
    code! { a =>
        mov rbx, qword_ptr(LOG + 24);
        and ebx, RF;
    }
    check(a, "instruction breakpoint, RF in the saved flags", rbx, 0)?;
    begin(a, 0)?;
    code! { a =>
        mov ebx, 1;
        jmp ".disabled";
    ".disabled":
        lea rax, ".watched_2";
        mov dr0, rax;
    ".watched_2":
        nop;
    }
    check_count(a, "disabled instruction breakpoint", 0)
}

type Store = fn(&mut Asm) -> Result<(), iced_x86::IcedError>;

/// Breakpoint 1 on the four bytes at DATA + 8.
fn data_writes(a: &mut Asm) -> Result<(), AsmError> {
    let rows: [(&str, Store, i64); 10] = [
        ("dword", |a| a.code.mov(dword_ptr(DATA + 8), 1), 1),
        ("its last byte", |a| a.code.mov(byte_ptr(DATA + 11), 1), 1),
        ("a dword that overlaps its start", |a| a.code.mov(dword_ptr(DATA + 6), 1), 1),
        ("a qword that overlaps its end", |a| a.code.mov(qword_ptr(DATA + 11), 1), 1),
        ("the bytes before", |a| a.code.mov(qword_ptr(DATA), 1), 0),
        ("the bytes behind", |a| a.code.mov(qword_ptr(DATA + 12), 1), 0),
        ("read only", |a| a.code.mov(ebx, dword_ptr(DATA + 8)), 0),
        ("read and write", |a| a.code.inc(dword_ptr(DATA + 8)), 1),
        ("16 bytes around it", |a| a.code.movups(xmmword_ptr(DATA), xmm0), 1),
        ("pop", |a| a.code.pop(qword_ptr(DATA + 8)), 1),
    ];
    for (name, emit, events) in rows {
        let name = &format!("write breakpoint, {name}");
        a.label(name)?;
        begin(a, 0)?;
        code! { a =>
            push 0x77;
            mov eax, DATA + 8;
            mov dr1, rax;
        }
        set_dr7(a, dr7(1, Kind::Write, 4))?;
        emit(a)?;
        a.label(".after")?;
        set_dr7(a, DR7_ONE)?;
        if !name.ends_with("pop") {
            a.code.pop(rbx)?;
        }
        check_count(a, name, events)?;
        if events > 0 {
            check_event(a, name, 0, ".after", B1)?;
        }
    }
    a.label("write_string")?;
    begin(a, 0)?;
    code! { a =>
        mov eax, DATA + 8;
        mov dr1, rax;
    }
    set_dr7(a, dr7(1, Kind::Write, 1))?;
    code! { a =>
        mov edi, DATA;
        mov ecx, 16;
        mov al, 0x99;
        rep stosb;
    }
    set_dr7(a, DR7_ONE)?;
    check_count(a, "write breakpoint inside REP STOSB", 1)?;
    code! { a =>
        movzx ebx, byte_ptr(DATA + 15);
    }
    check(a, "write breakpoint inside REP STOSB, last byte", rbx, 0x99)
}

/// Breakpoint 3 on eight bytes.
fn data_reads(a: &mut Asm) -> Result<(), AsmError> {
    let rows: [(&str, Store, i64); 4] = [
        ("load", |a| a.code.mov(rbx, qword_ptr(DATA + 0x18)), 1),
        ("load of the last byte", |a| a.code.movzx(ebx, byte_ptr(DATA + 0x1F)), 1),
        ("store", |a| a.code.mov(byte_ptr(DATA + 0x1C), 1), 1),
        ("load of the byte behind", |a| a.code.movzx(ebx, byte_ptr(DATA + 0x20)), 0),
    ];
    for (name, emit, events) in rows {
        let name = &format!("access breakpoint, {name}");
        a.label(name)?;
        begin(a, 0)?;
        code! { a =>
            mov eax, DATA + 0x18;
            mov dr3, rax;
        }
        set_dr7(a, dr7(3, Kind::ReadWrite, 8))?;
        emit(a)?;
        a.label(".after")?;
        set_dr7(a, DR7_ONE)?;
        check_count(a, name, events)?;
        if events > 0 {
            check_event(a, name, 0, ".after", B3)?;
        }
    }
    Ok(())
}

fn several_at_once(a: &mut Asm) -> Result<(), AsmError> {
    a.label("several_at_once")?;
    begin(a, 2)?;
    code! { a =>
        mov eax, DATA + 8;
        mov dr1, rax;
        mov dr3, rax;
    }
    set_dr7(a, dr7(1, Kind::Write, 4) | dr7(3, Kind::ReadWrite, 8))?;
    start_stepping(a)?;
    code! { a =>
        mov dword_ptr(DATA + 8), 2;
    ".after":
        nop;
    ".end":
        nop;
    }
    set_dr7(a, DR7_ONE)?;
    check_count(a, "two breakpoints and a step", 2)?;
    check_event(a, "two breakpoints and a step", 0, ".after", B1 | B3 | BS)?;
    check_event(a, "two breakpoints and a step", 1, ".end", BS)
}

/// With CR4.DE set, R/W = 10b watches ports: here the UART's scratch register.
fn ports(a: &mut Asm) -> Result<(), AsmError> {
    a.label("ports")?;
    begin(a, 0)?;
    code! { a =>
        mov rax, cr4;
        or eax, 8;
        mov cr4, rax;
        mov eax, 0x3FF;
        mov dr2, rax;
    }
    set_dr7(a, dr7(2, Kind::Port, 1))?;
    code! { a =>
        mov edx, 0x3FF;
        out dx, al;
    ".after":
        in_ al, dx;
    ".after_in":
        mov edx, 0x3FD;
        in_ al, dx;
    }
    set_dr7(a, DR7_ONE)?;
    check_count(a, "port breakpoint", 2)?;
    check_event(a, "port breakpoint", 0, ".after", B2)?;
    check_event(a, "port breakpoint", 1, ".after_in", B2)
}

fn general_detect(a: &mut Asm) -> Result<(), AsmError> {
    a.label("general_detect")?;
    begin(a, 0)?;
    set_dr7(a, DR7_ONE | GD)?;
    code! { a =>
    ".access": // a fault; GD is clear then, so that the instruction works when it runs again
        mov rbx, dr0;
    }
    a.code.mov(rbx, control())?;
    check(a, "general detect, DR7 afterwards", rbx, i64::from(DR7_ONE))?;
    check_count(a, "general detect", 1)?;
    check_event(a, "general detect", 0, ".access", BD)?;
    set_dr7(a, DR7_ONE)
}

/// DR4 and DR5 mean DR6 and DR7 while CR4.DE is clear, and are undefined otherwise.
fn aliases(a: &mut Asm) -> Result<(), AsmError> {
    expect(a, "dr4_undefined")?;
    code! { a =>
        mov rbx, dr4; // ports() has set DE
    "dr4_undefined":
    }
    check_at(a, "DR4 with DE, vector", var::VECTOR, 6)?;
    code! { a =>
        mov rax, cr4;
        and eax, !8;
        mov cr4, rax;
        mov eax, DR6_ONES as u32 | 2;
        mov dr6, rax;
        mov rbx, dr4;
    }
    check(a, "DR4 without DE is DR6", rbx, DR6_ONES | 2)?;
    code! { a =>
        mov rbx, dr5;
    }
    check(a, "DR5 without DE is DR7", rbx, i64::from(DR7_ONE))
}
