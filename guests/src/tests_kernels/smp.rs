//! Two CPUs: start-up, memory order, locked operations, interprocessor interrupts, cross-modifying code, TLB shootdowns.
//!
//! Intel SDM Vol. 3, "Memory Ordering in P6 and More Recent Processor Families" (what may be seen in which order), "Locked Atomic
//! Operations", "Handling Self- and Cross-Modifying Code", "MP Initialization". Both CPUs run the same list of phases, between
//! barriers; the first one checks what came out.

use iced_x86::code_asm::*;

use super::kit::{
    DESCRIPTORS, GDT, KERNEL_CODE, KERNEL_DATA, PML4, WINDOW, WINDOW_FRAMES, WINDOW_PT, build_kernel, check, check_at, hook, place, var,
};
use crate::os::asm::{Asm, AsmError, code};

type Emit = fn(&mut Asm) -> Result<(), AsmError>;

/// Where the second CPU starts, in real mode: page 90h.
const START: i32 = 0x9_0000;
const START_VECTOR: i32 = 0x90;
const START_GDTR: i32 = START + 0xe0;
const START_FAR: i32 = START + 0xf0;
const SECOND_STACK_TOP: i32 = 0x17_0000;

/// Variables, on cache lines of their own.
const SHARED: i32 = 0x20_0000;
const X: i32 = SHARED;
const Y: i32 = SHARED + 0x80;
const BARRIER: i32 = SHARED + 0x100;
const BAD: i32 = SHARED + 0x180;
const FIRST_SAW: i32 = SHARED + 0x200;
const SECOND_SAW: i32 = SHARED + 0x280;
const LOCK: i32 = SHARED + 0x300;
const NEXT: i32 = SHARED + 0x380;
const SERVED: i32 = SHARED + 0x400;
const COUNT: i32 = SHARED + 0x480;
const FLAG: i32 = SHARED + 0x500;
const ANSWER: i32 = SHARED + 0x580;
const INTERRUPTS: i32 = SHARED + 0x600;
/// Sixteen bytes for CMPXCHG16B, and room for counters at odd places.
const PAIR: i32 = SHARED + 0x680;
const COUNTERS: i32 = SHARED + 0x1000;
/// Code that one CPU changes and the other runs.
const CODE: i32 = SHARED + 0x4000;

const APIC: i32 = 0xfee0_0000u32 as i32;
const VECTOR: i32 = 0x30;

/// What both CPUs do in a phase, and what is checked then.
struct Phase {
    name: &'static str,
    first: Emit,
    second: Emit,
    check: Emit,
}

const PHASES: &[Phase] = &[
    Phase { name: "passing", first: write_in_order, second: read_in_order, check: passing_held },
    Phase {
        name: "buffering mfence",
        first: |a| buffer(a, 0, "mfence"),
        second: |a| buffer(a, 1, "mfence"),
        check: |a| buffering_held(a, "MFENCE"),
    },
    Phase {
        name: "buffering xchg",
        first: |a| buffer(a, 0, "xchg"),
        second: |a| buffer(a, 1, "xchg"),
        check: |a| buffering_held(a, "XCHG"),
    },
    Phase {
        name: "buffering lock",
        first: |a| buffer(a, 0, "lock"),
        second: |a| buffer(a, 1, "lock"),
        check: |a| buffering_held(a, "LOCK OR"),
    },
    Phase { name: "spin", first: spin_lock, second: spin_lock, check: |a| counted(a, "lock by XCHG", SPINS) },
    Phase { name: "ticket", first: ticket_lock, second: ticket_lock, check: |a| counted(a, "ticket lock by XADD", TICKETS) },
    Phase { name: "cmpxchg", first: exchange_loop, second: exchange_loop, check: |a| counted(a, "LOCK CMPXCHG", EXCHANGES) },
    Phase { name: "pair", first: pair_loop, second: pair_loop, check: pair_counted },
    Phase { name: "counters", first: counters, second: counters, check: counters_counted },
    Phase { name: "interrupts", first: |a| send(a, "fixed"), second: take_interrupts, check: |a| taken(a, "fixed interrupts") },
    Phase { name: "broadcast", first: |a| send(a, "others"), second: take_interrupts, check: |a| taken(a, "interrupts to all others") },
    Phase { name: "nmi", first: |a| send(a, "nmi"), second: take_nmis, check: |a| taken(a, "NMIs") },
    Phase { name: "modify", first: change_code, second: run_changed, check: |a| check_at(a, "cross-modified code that was stale", BAD, 0) },
    Phase {
        name: "shootdown",
        first: change_page,
        second: read_changed,
        check: |a| check_at(a, "stale translations after INVLPG", BAD, 0),
    },
];

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    start_second(a)?;
    for phase in PHASES {
        a.label(&format!("first {}", phase.name))?;
        code! { a =>
            mov qword_ptr(BAD), 0;
            mov qword_ptr(COUNT), 0;
            mov qword_ptr(FLAG), 0;
            mov qword_ptr(ANSWER), 0;
            mov qword_ptr(INTERRUPTS), 0;
            call "barrier";
        }
        (phase.first)(a)?;
        code! { a =>
            call "barrier";
        }
        (phase.check)(a)?;
    }
    code! { a =>
        jmp "finish";
    }
    second_cpu(a)?;
    barrier(a)
}

/// INIT, twice start-up, and the wait for the other's sign of life.
fn start_second(a: &mut Asm) -> Result<(), AsmError> {
    let pml4 = PML4.to_le_bytes();
    #[rustfmt::skip]
    let real_mode = [
        &[0xfa,                                          // cli
        0x2e, 0x66, 0x0f, 0x01, 0x16, 0xe0, 0x00,        // lgdt cs:[E0h]
        0x66, 0xb8, 0x20, 0x06, 0x00, 0x00,              // mov eax, PAE | OSFXSR | OSXMMEXCPT
        0x0f, 0x22, 0xe0,                                // mov cr4, eax
        0x66, 0xb8][..], &pml4,                          // mov eax, PML4
        &[0x0f, 0x22, 0xd8,                              // mov cr3, eax
        0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0,              // mov ecx, EFER
        0x0f, 0x32,                                      // rdmsr
        0x66, 0x0d, 0x01, 0x09, 0x00, 0x00,              // or eax, SCE | LME | NXE
        0x0f, 0x30,                                      // wrmsr
        0x66, 0xb8, 0x33, 0x00, 0x01, 0x80,              // mov eax, PG | WP | NE | ET | MP | PE
        0x0f, 0x22, 0xc0,                                // mov cr0, eax
        0x2e, 0x66, 0xff, 0x2e, 0xf0, 0x00],             // jmp far cs:[F0h]
    ].concat();
    place(a, &real_mode, START)?;
    hook(a, Some("on_interrupt"))?;
    code! { a =>
        xor r14d, r14d;
        lea rax, "second";
        mov dword_ptr(START_FAR), eax;
        mov dword_ptr(START_FAR + 4), KERNEL_CODE;
        mov word_ptr(START_GDTR), (8 * DESCRIPTORS.len() - 1) as u32;
        mov dword_ptr(START_GDTR + 2), GDT;
        mov qword_ptr(BARRIER), 0;
        mov qword_ptr(SECOND_SAW), 0;
        mov ebx, APIC as u32;
        mov dword_ptr(rbx + 0xf0), 0x1ff;
        mov dword_ptr(rbx + 0x310), 1 << 24;
        mov dword_ptr(rbx + 0x300), 0x4500;
        mov ecx, 100_000;
    ".rest":
        pause;
        dec ecx;
        jnz ".rest";
        mov dword_ptr(rbx + 0x300), 0x4600 | START_VECTOR;
        mov dword_ptr(rbx + 0x300), 0x4600 | START_VECTOR;
    ".silent":
        pause;
        cmp qword_ptr(SECOND_SAW), 1;
        jne ".silent";
        mov eax, dword_ptr(FIRST_SAW);
    }
    check(a, "APIC id of the second CPU", rax, 1)?;
    check_at(a, "the second CPU is no bootstrap processor", FIRST_SAW + 8, 0)
}

fn second_cpu(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "second":
        mov eax, KERNEL_DATA;
        mov ds, eax;
        mov es, eax;
        mov ss, eax;
        mov esp, SECOND_STACK_TOP;
        lidt ptr(var::DESCRIPTOR_TABLE);
        xor r14d, r14d;
        mov ebx, APIC as u32;
        mov dword_ptr(rbx + 0xf0), 0x1ff;
        mov eax, dword_ptr(rbx + 0x20);
        shr eax, 24;
        mov qword_ptr(FIRST_SAW), rax;
        mov ecx, 0x1b;
        rdmsr;
        and eax, 0x100;
        mov qword_ptr(FIRST_SAW + 8), rax;
        mov qword_ptr(SECOND_SAW), 1;
    }
    for phase in PHASES {
        a.label(&format!("second {}", phase.name))?;
        code! { a =>
            call "barrier";
        }
        (phase.second)(a)?;
        code! { a =>
            call "barrier";
        }
    }
    code! { a =>
    ".end":
        cli;
        hlt;
        jmp ".end";
    "on_interrupt": // RDI = frame
        inc qword_ptr(INTERRUPTS);
        mov eax, APIC as u32;
        mov dword_ptr(rax + 0xb0), 0;
        mov eax, 1;
        ret;
    }
    Ok(())
}

/// Waits until both CPUs are here. R14 is where the counter will be then.
fn barrier(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "barrier":
        add r14, 2;
    }
    a.code.lock().inc(qword_ptr(BARRIER))?;
    code! { a =>
    ".wait":
        pause;
        cmp qword_ptr(BARRIER), r14;
        jb ".wait";
        ret;
    }
    Ok(())
}

const MESSAGES: i32 = 300_000;

/// X, then Y, both counting up.
fn write_in_order(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov edi, X;
        mov esi, Y;
        xor eax, eax;
    ".write":
        inc rax;
        mov qword_ptr(rdi), rax;
        mov qword_ptr(rsi), rax;
        cmp rax, MESSAGES;
        jb ".write";
    }
    Ok(())
}

/// Reads X, Y, X: stores are seen in order, loads are done in order. The last X is at least Y, and at least the first X.
fn read_in_order(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov edi, X;
        mov esi, Y;
        xor ebx, ebx;
    ".read":
        mov rcx, qword_ptr(rdi);
        mov rax, qword_ptr(rsi);
        mov rdx, qword_ptr(rdi);
        cmp rdx, rax;
        jae ".not_before";
        inc rbx;
    ".not_before":
        cmp rdx, rcx;
        jae ".not_back";
        inc rbx;
    ".not_back":
        cmp rax, MESSAGES;
        jb ".read";
        mov qword_ptr(BAD), rbx;
    }
    Ok(())
}

fn passing_held(a: &mut Asm) -> Result<(), AsmError> {
    check_at(a, "messages out of order", BAD, 0)?;
    code! { a =>
        mov qword_ptr(X), 0;
        mov qword_ptr(Y), 0;
    }
    Ok(())
}

const ROUNDS: i32 = 2_000;

/// Each CPU writes its word, and then reads the other's: with a fence between, one of them sees the other's store.
fn buffer(a: &mut Asm, cpu: usize, how: &str) -> Result<(), AsmError> {
    let (mine, other) = [(X, Y), (Y, X)][cpu];
    let saw = [FIRST_SAW, SECOND_SAW][cpu];
    code! { a =>
        mov ebx, 1;
    ".round":
        call "barrier";
        mov rax, rbx;
    }
    match how {
        "xchg" => a.code.xchg(qword_ptr(mine), rax)?,
        _ => a.code.mov(qword_ptr(mine), rax)?,
    }
    match how {
        "mfence" => a.code.mfence()?,
        "lock" => a.code.lock().or(qword_ptr(rsp), 0)?,
        _ => {}
    }
    code! { a =>
        mov rax, qword_ptr(other);
        mov qword_ptr(saw), rax;
        call "barrier";
    }
    if cpu == 0 {
        code! { a =>
            cmp qword_ptr(FIRST_SAW), rbx;
            je ".seen";
            cmp qword_ptr(SECOND_SAW), rbx;
            je ".seen";
            inc qword_ptr(BAD);
        ".seen":
            nop;
        }
    }
    code! { a =>
        inc ebx;
        cmp ebx, ROUNDS;
        jbe ".round";
    }
    Ok(())
}

fn buffering_held(a: &mut Asm, how: &str) -> Result<(), AsmError> {
    check_at(a, &format!("rounds in which neither saw the other's store, with {how}"), BAD, 0)?;
    code! { a =>
        mov qword_ptr(X), 0;
        mov qword_ptr(Y), 0;
    }
    Ok(())
}

const SPINS: i32 = 20_000;
const TICKETS: i32 = 2_000;
const EXCHANGES: i32 = 50_000;

fn counted(a: &mut Asm, name: &str, each: i32) -> Result<(), AsmError> {
    check_at(a, name, COUNT, 2 * i64::from(each))
}

/// Taken with XCHG, let go with a plain store.
fn spin_lock(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov ecx, SPINS;
        mov edi, LOCK;
        mov esi, COUNT;
    ".again":
        mov eax, 1;
        xchg dword_ptr(rdi), eax;
        test eax, eax;
        jz ".mine";
    ".spin":
        pause;
        cmp dword_ptr(rdi), 0;
        jne ".spin";
        jmp ".again";
    ".mine":
        mov rax, qword_ptr(rsi);
        inc rax;
        mov qword_ptr(rsi), rax;
        mov dword_ptr(rdi), 0;
        dec ecx;
        jnz ".again";
    }
    Ok(())
}

fn ticket_lock(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov ecx, TICKETS;
    ".again":
        mov eax, 1;
    }
    a.code.lock().xadd(dword_ptr(NEXT), eax)?;
    code! { a =>
    ".spin":
        pause;
        cmp dword_ptr(SERVED), eax;
        jne ".spin";
        inc qword_ptr(COUNT);
        inc eax;
        mov dword_ptr(SERVED), eax;
        dec ecx;
        jnz ".again";
    }
    Ok(())
}

fn exchange_loop(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov ecx, EXCHANGES;
        mov edi, COUNT;
    ".again":
        mov rax, qword_ptr(rdi);
    ".retry":
        lea rdx, ptr(rax + 1);
    }
    a.code.lock().cmpxchg(qword_ptr(rdi), rdx)?;
    code! { a =>
        jne ".retry";
        dec ecx;
        jnz ".again";
    }
    Ok(())
}

/// Both halves count up together.
fn pair_loop(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov r8d, EXCHANGES;
        mov edi, PAIR;
    ".again":
        mov rax, qword_ptr(rdi);
        mov rdx, qword_ptr(rdi + 8);
    ".retry":
        lea rbx, ptr(rax + 1);
        lea rcx, ptr(rdx + 3);
    }
    a.code.lock().cmpxchg16b(xmmword_ptr(rdi))?;
    code! { a =>
        jne ".retry";
        dec r8d;
        jnz ".again";
    }
    Ok(())
}

fn pair_counted(a: &mut Asm) -> Result<(), AsmError> {
    check_at(a, "LOCK CMPXCHG16B, low half", PAIR, 2 * i64::from(EXCHANGES))?;
    check_at(a, "LOCK CMPXCHG16B, high half", PAIR + 8, 6 * i64::from(EXCHANGES))
}

/// Doublewords inside an aligned quadword, across two, across cache lines, across pages.
const PLACES: [i32; 4] = [0x102, 0x206, 0x33e, 0xffe];
const INCREMENTS: i32 = 10_000;

fn counters(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov ecx, INCREMENTS;
        mov edi, COUNTERS;
    ".again":
        nop;
    }
    a.code.lock().inc(byte_ptr(rdi))?;
    a.code.lock().inc(word_ptr(rdi + 8))?;
    a.code.lock().inc(dword_ptr(rdi + 16))?;
    a.code.lock().inc(qword_ptr(rdi + 24))?;
    a.code.lock().add(qword_ptr(rdi + 32), 3)?;
    a.code.lock().neg(qword_ptr(rdi + 40))?;
    for place in PLACES {
        a.code.lock().inc(dword_ptr(rdi + place))?;
    }
    code! { a =>
        dec ecx;
        jnz ".again";
    }
    Ok(())
}

fn counters_counted(a: &mut Asm) -> Result<(), AsmError> {
    let total = 2 * i64::from(INCREMENTS);
    check_at(a, "LOCK INC of a byte", COUNTERS, total & 0xff)?;
    check_at(a, "LOCK INC of a word", COUNTERS + 8, total & 0xffff)?;
    check_at(a, "LOCK INC of a doubleword", COUNTERS + 16, total)?;
    check_at(a, "LOCK INC of a quadword", COUNTERS + 24, total)?;
    check_at(a, "LOCK ADD of a quadword", COUNTERS + 32, 3 * total)?;
    check_at(a, "LOCK NEG of zero", COUNTERS + 40, 0)?;
    for place in PLACES {
        a.code.mov(eax, dword_ptr(COUNTERS + place))?;
        check(a, &format!("LOCK INC of a doubleword at {place:#x} of a page"), rax, total)?;
    }
    Ok(())
}

const SENT: i32 = 300;

/// Sends interrupts, each after the one before was taken.
fn send(a: &mut Asm, how: &str) -> Result<(), AsmError> {
    let command = match how {
        "fixed" => 0x4000 | VECTOR,
        "others" => 0xc4000 | VECTOR,
        _ => 0x4400,
    };
    code! { a =>
        mov ebx, 1;
        mov esi, APIC as u32;
    ".send":
        mov dword_ptr(rsi + 0x310), 1 << 24;
        mov dword_ptr(rsi + 0x300), command;
    ".wait":
        pause;
        cmp qword_ptr(INTERRUPTS), rbx;
        jb ".wait";
        inc ebx;
        cmp ebx, SENT;
        jbe ".send";
    }
    Ok(())
}

/// Half of the time halted.
fn take_interrupts(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    ".next":
        sti;
        hlt;
        mov ecx, 500;
    ".busy":
        dec ecx;
        jnz ".busy";
        cli;
        cmp qword_ptr(INTERRUPTS), SENT;
        jb ".next";
    }
    Ok(())
}

fn take_nmis(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    ".spin":
        cmp qword_ptr(INTERRUPTS), SENT;
        jb ".spin";
    }
    Ok(())
}

fn taken(a: &mut Asm, name: &str) -> Result<(), AsmError> {
    check_at(a, name, INTERRUPTS, i64::from(SENT))
}

const VERSIONS: i32 = 1_000;

/// Writes the immediate of `mov eax, imm32; ret` and says so.
fn change_code(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov byte_ptr(CODE), 0xb8u32;
        mov byte_ptr(CODE + 5), 0xc3u32;
        mov ebx, 1;
    ".change":
        mov dword_ptr(CODE + 1), ebx;
        mov qword_ptr(FLAG), rbx;
    ".wait":
        pause;
        cmp qword_ptr(ANSWER), rbx;
        jne ".wait";
        inc ebx;
        cmp ebx, VERSIONS;
        jbe ".change";
    }
    Ok(())
}

fn run_changed(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov r12d, 1;
    ".wait":
        cmp qword_ptr(FLAG), r12;
        jne ".wait";
        xor eax, eax;
        cpuid; // serializes
        mov r13d, 20;
    ".run":
        mov ecx, CODE;
        call rcx;
        cmp eax, r12d;
        je ".fresh";
        inc qword_ptr(BAD);
    ".fresh":
        dec r13d;
        jnz ".run";
        mov qword_ptr(ANSWER), r12;
        inc r12d;
        cmp r12d, VERSIONS;
        jbe ".wait";
    }
    Ok(())
}

/// Lets the window's first page be one frame and another in turn, with a number of its own in each.
fn change_page(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov qword_ptr(WINDOW_FRAMES), 0;
        mov qword_ptr(WINDOW_FRAMES + 0x1000), 1;
        mov ebx, 1;
    ".change":
        mov eax, ebx;
        and eax, 1;
        shl eax, 12;
        add eax, WINDOW_FRAMES | 7;
        mov qword_ptr(WINDOW_PT), rax;
        mov qword_ptr(FLAG), rbx;
    ".wait":
        pause;
        cmp qword_ptr(ANSWER), rbx;
        jne ".wait";
        inc ebx;
        cmp ebx, VERSIONS;
        jbe ".change";
    }
    Ok(())
}

fn read_changed(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov r12d, 1;
    ".wait":
        cmp qword_ptr(FLAG), r12;
        jne ".wait";
        invlpg ptr(WINDOW);
        mov rax, qword_ptr(WINDOW);
        mov rdx, r12;
        and edx, 1;
        cmp rax, rdx;
        je ".fresh";
        inc qword_ptr(BAD);
    ".fresh":
        mov qword_ptr(ANSWER), r12;
        inc r12d;
        cmp r12d, VERSIONS;
        jbe ".wait";
    }
    Ok(())
}
