//! REP string instructions that meet the end of the mapped pages, interrupts, and odd counts.
//!
//! Intel SDM Vol. 2, "REP/REPE/REPZ/REPNE/REPNZ—Repeat String Operation Prefix": an exception or interrupt leaves the registers
//! at the last finished iteration, so that the instruction goes on when it is executed again. Of EFLAGS at a fault in a repeated
//! CMPS or SCAS that section says that they are restored to what they were before the instruction; processors do not: on an AMD
//! EPYC (seen from user space, in a signal handler) as in Bochs and QEMU they are those of the last finished iteration.

use iced_x86::code_asm::*;

use super::kit::*;
use super::page_faults::FRAME;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

/// Pages 0–3 of the second window are frames `FRAME + i * 4096`. Page 1 is absent at the start of each test.
const PAGE: i32 = WINDOW2;
const ABSENT: i32 = PAGE + 0x1000;
/// What the hook saw at the first fault.
const SEEN: i32 = var::TEST;
const SEEN_RCX: i32 = SEEN;
const SEEN_RSI: i32 = SEEN + 8;
const SEEN_RDI: i32 = SEEN + 16;
const SEEN_RFLAGS: i32 = SEEN + 24;
/// Source bytes: the low bytes of their addresses, times 7.
const SOURCE: i32 = 0x70_0000;

fn main(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "main":
        mov edi, SOURCE;
        mov ecx, 0x10_0000;
    ".fill":
        imul_3 eax, edi, 7;
        mov byte_ptr(rdi), al;
        inc edi;
        dec ecx;
        jnz ".fill";
    }
    hook(a, Some("map_it"))?;
    faults_in_destination(a)?;
    faults_in_source(a)?;
    element_across_pages(a)?;
    compare_and_scan(a)?;
    hook(a, None)?;
    counts(a)?;
    overlaps(a)?;
    address_size(a)?;
    port_to_memory(a)?;
    under_interrupts(a)?;
    code! { a =>
        jmp "finish";
    }
    map_it(a)?;
    timer_hook(a)
}

fn map_it(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "map_it":
        cmp qword_ptr(rdi + frame::VECTOR), 14;
        jne ".other";
        mov rax, qword_ptr(var::CR2);
        shr eax, 12;
        cmp eax, ABSENT >> 12;
        jne ".other";
    }
    for (from, to) in [(frame::RCX, SEEN_RCX), (frame::RSI, SEEN_RSI), (frame::RDI, SEEN_RDI), (frame::RFLAGS, SEEN_RFLAGS)] {
        code! { a =>
            mov rax, qword_ptr(rdi + from);
            mov qword_ptr(to), rax;
        }
    }
    code! { a =>
        mov qword_ptr(WINDOW2_PT + 8), (FRAME + 0x1000) | 3;
        mov eax, 1;
        ret;
    ".other":
        xor eax, eax;
        ret;
    }
    Ok(())
}

/// Page 0, 2 and 3 are there, page 1 is not; frames are filled with AAh.
fn fresh(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov edi, FRAME;
        mov ecx, 0x4000 / 8;
        mov rax, 0xAAAA_AAAA_AAAA_AAAAu64;
        rep stosq;
        mov qword_ptr(WINDOW2_PT), FRAME | 3;
        mov qword_ptr(WINDOW2_PT + 8), 0;
        mov qword_ptr(WINDOW2_PT + 16), (FRAME + 0x2000) | 3;
        mov qword_ptr(WINDOW2_PT + 24), (FRAME + 0x3000) | 3;
        invlpg ptr(ABSENT);
        mov qword_ptr(var::COUNT), 0;
        mov qword_ptr(SEEN_RCX), -1;
    }
    Ok(())
}

/// R14 = whether RCX bytes at RSI and RDI are the same.
fn same_bytes(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        cld;
        repe cmpsb;
        sete r14b;
        movzx r14d, r14b;
    }
    Ok(())
}

type Emit = fn(&mut Asm) -> Result<(), iced_x86::IcedError>;

struct Row {
    name: &'static str,
    emit: Emit,
    size: i32,
    /// Elements before the page that is absent, and all of them.
    before: i32,
    count: i32,
    backward: bool,
}

fn faults_in_destination(a: &mut Asm) -> Result<(), AsmError> {
    let rows = [
        Row { name: "MOVSB", emit: |a| a.code.rep().movsb(), size: 1, before: 100, count: 300, backward: false },
        Row { name: "MOVSW", emit: |a| a.code.rep().movsw(), size: 2, before: 50, count: 300, backward: false },
        Row { name: "MOVSD", emit: |a| a.code.rep().movsd(), size: 4, before: 1, count: 1500, backward: false },
        Row { name: "MOVSQ", emit: |a| a.code.rep().movsq(), size: 8, before: 512, count: 1200, backward: false },
        Row { name: "MOVSB backward", emit: |a| a.code.rep().movsb(), size: 1, before: 100, count: 300, backward: true },
        Row { name: "MOVSQ backward", emit: |a| a.code.rep().movsq(), size: 8, before: 3, count: 100, backward: true },
        Row { name: "STOSB", emit: |a| a.code.rep().stosb(), size: 1, before: 10, count: 20, backward: false },
        Row { name: "STOSQ", emit: |a| a.code.rep().stosq(), size: 8, before: 10, count: 600, backward: false },
        Row { name: "STOSD backward", emit: |a| a.code.rep().stosd(), size: 4, before: 10, count: 600, backward: true },
    ];
    for Row { name, emit, size, before, count, backward } in rows {
        fresh(a)?;
        let step = if backward { -size } else { size };
        // Where the element would be that faults first.
        let edge = if backward { ABSENT + 0x1000 - size } else { ABSENT };
        let (from, to) = (SOURCE + 0x8000, edge - step * before);
        let stores = name.starts_with("STOS");
        code! { a =>
            mov esi, from;
            mov edi, to;
            mov ecx, count;
            mov rax, 0x7171_7171_7171_7171u64;
        }
        if backward {
            a.code.std()?;
        }
        emit(a)?;
        a.code.cld()?;
        check(a, &format!("REP {name} into an absent page, RCX"), rcx, 0)?;
        check(a, &format!("REP {name} into an absent page, RDI"), rdi, i64::from(to + step * count))?;
        check(a, &format!("REP {name} into an absent page, RSI"), rsi, i64::from(if stores { from } else { from + step * count }))?;
        check_at(a, &format!("REP {name}, RCX at the fault"), SEEN_RCX, i64::from(count - before))?;
        check_at(a, &format!("REP {name}, RDI at the fault"), SEEN_RDI, i64::from(edge))?;
        check_at(a, &format!("REP {name}, faults"), var::COUNT, 1)?;
        let lowest = |first: i32| if backward { first - size * (count - 1) } else { first };
        code! { a =>
            mov edi, lowest(to);
            mov ecx, size * count;
        }
        if stores {
            code! { a =>
                mov al, 0x71;
                repe scasb;
                sete r14b;
                movzx r14d, r14b;
            }
        } else {
            a.code.mov(esi, lowest(from))?;
            same_bytes(a)?;
        }
        check(a, &format!("REP {name} into an absent page, bytes"), r14, 1)?;
    }
    Ok(())
}

fn faults_in_source(a: &mut Asm) -> Result<(), AsmError> {
    fresh(a)?;
    code! { a =>
        mov esi, ABSENT - 64;
        mov edi, PAGE + 0x2100;
        mov ecx, 100;
        rep movsb;
    }
    check(a, "REP MOVSB from an absent page, RCX", rcx, 0)?;
    check_at(a, "REP MOVSB from an absent page, RCX at the fault", SEEN_RCX, 36)?;
    check_at(a, "REP MOVSB from an absent page, RSI at the fault", SEEN_RSI, i64::from(ABSENT))?;
    check_at(a, "REP MOVSB from an absent page, RDI at the fault", SEEN_RDI, i64::from(PAGE + 0x2100 + 64))?;
    check_at(a, "REP MOVSB from an absent page, error", var::ERROR, 0)?;
    fresh(a)?;
    code! { a =>
        mov esi, ABSENT - 8;
        mov ecx, 3;
        xor eax, eax;
        rep lodsd;
    }
    check(a, "REP LODSD from an absent page, RAX", rax, 0xAAAA_AAAA)?;
    check_at(a, "REP LODSD from an absent page, RCX at the fault", SEEN_RCX, 1)?;
    check_at(a, "REP LODSD from an absent page, RSI at the fault", SEEN_RSI, i64::from(ABSENT))
}

/// An element of which one half is in an absent page: it is done whole or not at all.
fn element_across_pages(a: &mut Asm) -> Result<(), AsmError> {
    fresh(a)?;
    let to = ABSENT - 8 * 4 - 3; // four whole elements, then three bytes of the fifth
    code! { a =>
        mov esi, SOURCE;
        mov edi, to;
        mov ecx, 20;
        rep movsq;
    }
    check_at(a, "REP MOVSQ, element across pages, RCX at the fault", SEEN_RCX, 16)?;
    check_at(a, "REP MOVSQ, element across pages, RDI at the fault", SEEN_RDI, i64::from(to + 32))?;
    check_at(a, "REP MOVSQ, element across pages, CR2", var::CR2, i64::from(ABSENT))?;
    code! { a =>
        mov esi, SOURCE;
        mov edi, to;
        mov ecx, 160;
    }
    same_bytes(a)?;
    check(a, "REP MOVSQ, element across pages, bytes", r14, 1)?;
    fresh(a)?;
    code! { a =>
        mov esi, SOURCE;
        mov edi, ABSENT - 3;
    }
    hook(a, None)?;
    expect(a, "half_element")?;
    code! { a =>
        mov ecx, 1;
        rep movsq;
    "half_element":
        mov ebx, dword_ptr(ABSENT - 4);
    }
    check(a, "an element that faults writes nothing", rbx, 0xAAAA_AAAA)?;
    check(a, "an element that faults counts nothing", rcx, 1)?;
    hook(a, Some("map_it"))
}

/// CF, PF, ZF, SF.
const FLAGS: i32 = 0xC5;
/// Of these, what a comparison of equal bytes leaves: ZF, PF; and 11h less AAh: CF.
const FLAGS_EQUAL: i32 = 0x44;
const FLAGS_BELOW: i32 = 0x01;

fn compare_and_scan(a: &mut Asm) -> Result<(), AsmError> {
    // While bytes are equal: all AAh but one. While they differ: AAh against 11h or AL = 11h, but one.
    let rows: [(&str, Emit, bool); 4] = [
        ("REPE CMPSB", |a| a.code.repe().cmpsb(), true),
        ("REPE SCASB", |a| a.code.repe().scasb(), true),
        ("REPNE CMPSB", |a| a.code.repne().cmpsb(), false),
        ("REPNE SCASB", |a| a.code.repne().scasb(), false),
    ];
    for (name, emit, while_equal) in rows {
        fresh(a)?;
        let usual = if while_equal { 0xAA } else { 0x11 };
        let odd = if while_equal { 0x33 } else { 0x11 };
        code! { a =>
            mov edi, PAGE + 0x2000;
            mov ecx, 100;
            mov al, usual;
            rep stosb;
            mov byte_ptr(FRAME + 0x1000 + 39), odd; // element 49: ten are before the absent page
            mov esi, PAGE + 0x2000;
            mov edi, ABSENT - 10;
            mov ecx, 100;
            push FLAGS | 2; // flags that no comparison leaves
            popfq;
        }
        emit(a)?;
        a.code.sete(r14b)?;
        check(a, &format!("{name} over an absent page, RCX"), rcx, 50)?;
        check(a, &format!("{name} over an absent page, RDI"), rdi, i64::from(ABSENT + 40))?;
        a.code.movzx(r14d, r14b)?;
        check(a, &format!("{name} over an absent page, ZF"), r14, i64::from(!while_equal))?;
        check_at(a, &format!("{name}, RCX at the fault"), SEEN_RCX, 90)?;
        code! { a =>
            mov rbx, qword_ptr(SEEN_RFLAGS);
            and ebx, FLAGS;
        }
        let last = if while_equal { FLAGS_EQUAL } else { FLAGS_BELOW };
        check(a, &format!("{name}, flags at the fault are the last iteration's"), rbx, i64::from(last))?;
    }
    Ok(())
}

fn counts(a: &mut Asm) -> Result<(), AsmError> {
    let rows: [(&str, Emit); 4] = [
        ("MOVSB", |a| a.code.rep().movsb()),
        ("STOSQ", |a| a.code.rep().stosq()),
        ("CMPSB", |a| a.code.repe().cmpsb()),
        ("LODSD", |a| a.code.rep().lodsd()),
    ];
    for (name, emit) in rows {
        code! { a =>
            xor ecx, ecx;
            mov esi, WINDOW2 + 0x10_0000; // not mapped, nor touched
            mov edi, WINDOW2 + 0x10_0000;
            mov eax, 5;
            push FLAGS | 2;
            popfq;
        }
        emit(a)?;
        code! { a =>
            pushfq;
            pop rbx;
            and ebx, FLAGS;
        }
        check(a, &format!("REP {name} of nothing, flags"), rbx, i64::from(FLAGS))?;
        check(a, &format!("REP {name} of nothing, RDI"), rdi, i64::from(WINDOW2 + 0x10_0000))?;
        check(a, &format!("REP {name} of nothing, RAX"), rax, 5)?;
    }
    Ok(())
}

fn overlaps(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "overlaps":
        mov edi, FRAME;
        mov qword_ptr(rdi), 0x0003_0201;
        mov esi, FRAME;
        mov edi, FRAME + 3;
        mov ecx, 13;
        rep movsb; // repeats the first three bytes
        mov rbx, qword_ptr(FRAME + 8);
    }
    check(a, "REP MOVSB to three bytes further repeats", rbx, pattern())?;
    code! { a =>
        mov rax, 0x0807_0605_0403_0201u64;
        mov qword_ptr(FRAME), rax;
        mov esi, FRAME + 7;
        mov edi, FRAME + 10;
        mov ecx, 8;
        std;
        rep movsb;
        cld;
        mov rbx, qword_ptr(FRAME + 3);
    }
    check(a, "REP MOVSB backward to three bytes further moves", rbx, 0x0807_0605_0403_0201)
}

/// Bytes 8–15 of 1 2 3 1 2 3 ….
fn pattern() -> i64 {
    i64::from_le_bytes(std::array::from_fn(|i| ((i + 8) % 3 + 1) as u8))
}

/// With the address-size prefix ECX, ESI and EDI count, and their upper halves become zero.
fn address_size(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "address_size":
        mov rcx, 0x5_0000_0004u64;
        mov rsi, (SOURCE as u64) | 7 << 32;
        mov rdi, (FRAME as u64) | 9 << 32;
    }
    a.code.db(&[0x67, 0xF3, 0xA4])?; // REP MOVSB
    check(a, "REP MOVSB with 32-bit addresses, RCX", rcx, 0)?;
    check(a, "REP MOVSB with 32-bit addresses, RSI", rsi, i64::from(SOURCE + 4))?;
    check(a, "REP MOVSB with 32-bit addresses, RDI", rdi, i64::from(FRAME + 4))
}

/// INS and OUTS, repeated: the UART's scratch register gives back what was written to it.
fn port_to_memory(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "port_to_memory":
        mov byte_ptr(FRAME), 0x11;
        mov byte_ptr(FRAME + 1), 0x22;
        mov byte_ptr(FRAME + 2), 0x5A;
        mov esi, FRAME;
        mov ecx, 3;
        mov edx, 0x3FF;
        rep outsb;
    }
    check(a, "REP OUTSB, RSI", rsi, i64::from(FRAME + 3))?;
    code! { a =>
        mov edi, FRAME + 8;
        mov qword_ptr(rdi), 0;
        mov ecx, 4;
        rep insb;
        mov rbx, qword_ptr(FRAME + 8);
    }
    check(a, "REP INSB of the UART's scratch register", rbx, 0x5A5A_5A5A)
}

/// A megabyte moved while the timer interrupts: RIP is then at the instruction or behind it, and nothing is lost.
fn under_interrupts(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "under_interrupts":
        mov qword_ptr(var::COUNT), 0;
        mov qword_ptr(SEEN), 0;
    }
    hook(a, Some("timer_hook"))?;
    let to = 0x90_0000;
    let pic_and_pit = [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xFE),
        (0xA0, 0x11),
        (0xA1, 0x28),
        (0xA1, 2),
        (0xA1, 1),
        (0xA1, 0xFF),
        (0x43, 0x34),
        (0x40, 0x00),
        (0x40, 0x02), // 2330 interrupts per second
    ];
    for (port, value) in pic_and_pit {
        code! { a =>
            mov al, value;
            out port, al;
        }
    }
    code! { a =>
        mov r12d, 200;
        sti;
    ".again":
        mov esi, SOURCE;
        mov edi, to;
        mov ecx, 0x10_0000;
        rep movsb;
        dec r12d;
        jnz ".again";
    ".wait": // so that at least one came, however fast the machine is
        cmp qword_ptr(var::COUNT), 0;
        je ".wait";
        cli;
        mov al, 0xFF;
        out 0x21, al;
    }
    check(a, "REP MOVSB under interrupts, RCX", rcx, 0)?;
    check(a, "REP MOVSB under interrupts, RDI", rdi, i64::from(to + 0x10_0000))?;
    code! { a =>
        mov esi, SOURCE;
        mov edi, to;
        mov ecx, 0x10_0000;
    }
    same_bytes(a)?;
    check(a, "REP MOVSB under interrupts, bytes", r14, 1)?;
    check_at(a, "REP MOVSB under interrupts, RSI - RDI was constant", SEEN, 0)?;
    hook(a, None)
}

/// Counts in SEEN the interrupts at which RCX, RSI and RDI did not belong together.
fn timer_hook(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "timer_hook":
        mov rax, qword_ptr(rdi + frame::RIP);
        cmp word_ptr(rax), 0xA4F3u32; // at the instruction, with some of it done or none
        jne ".elsewhere";
        mov rax, qword_ptr(rdi + frame::RSI);
        add rax, qword_ptr(rdi + frame::RCX);
        cmp rax, SOURCE + 0x10_0000;
        je ".elsewhere";
        inc qword_ptr(SEEN);
    ".elsewhere":
        mov al, 0x20;
        out 0x20, al;
        mov eax, 1;
        ret;
    }
    Ok(())
}
