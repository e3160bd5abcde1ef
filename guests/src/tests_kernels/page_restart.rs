//! Instructions that fault, are repaired, and run again: nothing may have happened before.
//!
//! Intel SDM Vol. 3, "Program or Task Restart", "Accessed and Dirty Flags", "Interrupt 14—Page-Fault Exception (#PF)"; Vol. 1, "Canonical
//! Addressing".

use iced_x86::code_asm::*;

use super::kit::*;
use super::page_faults::FRAME;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

/// The pages under test: page `i` of the second window is frame `FRAME + i * 4096`, which is also mapped at its own address.
const PAGE: i32 = WINDOW2;
/// What the hook saw: RSP, RCX, a quadword of memory named by `WATCH`.
const SEEN_RSP: i32 = var::TEST;
const WATCH: i32 = var::TEST + 8;
const SEEN_WATCH: i32 = var::TEST + 16;
const FIRST_CR2: i32 = var::TEST + 24;

fn main(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "main":
        mov byte_ptr(IDT + 14 * 16 + 4), 1; // on a stack of their own: RSP will be broken
        mov byte_ptr(IDT + 13 * 16 + 4), 1;
        mov byte_ptr(IDT + 12 * 16 + 4), 1;
        mov dword_ptr(WATCH), FRAME;
    }
    hook(a, Some("map_it"))?;
    read_modify_write(a)?;
    stack(a)?;
    across_pages(a)?;
    across_absent_pages(a)?;
    fetch_across(a)?;
    hook(a, None)?;
    read_only(a)?;
    accessed_dirty(a)?;
    large_page(a)?;
    not_canonical(a)?;
    code! { a =>
        jmp "finish";
    }
    map_it(a)
}

/// The hook: maps the page of CR2, without INVLPG, since nothing was cached for an entry that was not present.
fn map_it(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "map_it":
        mov rax, qword_ptr(var::CR2);
        cmp qword_ptr(var::COUNT), 1;
        jne ".not_first";
        mov qword_ptr(FIRST_CR2), rax;
    ".not_first":
        sub rax, PAGE;
        cmp rax, 0x20_0000;
        jae ".other";
        mov rcx, qword_ptr(rdi + frame::RSP);
        mov qword_ptr(SEEN_RSP), rcx;
        mov rcx, qword_ptr(WATCH);
        mov rcx, qword_ptr(rcx);
        mov qword_ptr(SEEN_WATCH), rcx;
        shr eax, 12;
        mov ecx, eax;
        shl ecx, 12;
        add ecx, FRAME | 3;
        mov qword_ptr(WINDOW2_PT + rax * 8), rcx;
        mov eax, 1;
        ret;
    ".other":
        xor eax, eax;
        ret;
    }
    Ok(())
}

/// Before each test: page `i` is not there, its frame's first quadword is `value`.
fn fresh(a: &mut Asm, page: i32, value: i32) -> Result<(), AsmError> {
    code! { a =>
        mov qword_ptr(WINDOW2_PT + page * 8), 0;
        invlpg ptr(PAGE + page * 0x1000);
        mov qword_ptr(FRAME + page * 0x1000), value;
        mov qword_ptr(var::COUNT), 0;
    }
    Ok(())
}

fn read_modify_write(a: &mut Asm) -> Result<(), AsmError> {
    let at = qword_ptr(PAGE);
    type Emit = fn(&mut Asm, AsmMemoryOperand) -> Result<(), iced_x86::IcedError>;
    let rows: [(&str, i32, i64, Emit); 8] = [
        ("ADD", 41, 42, |a, m| a.code.add(m, 1)),
        ("LOCK INC", 41, 42, |a, m| a.code.lock().inc(m)),
        ("XCHG", 7, 0x55, |a, m| a.code.xchg(m, rbx)),
        ("LOCK XADD", 1, 0x56, |a, m| a.code.lock().xadd(m, rbx)),
        ("CMPXCHG", 3, 0x55, |a, m| a.code.cmpxchg(m, rbx)),
        ("SHL", 3, 12, |a, m| a.code.shl(m, 2)),
        ("BTS", 1, 9, |a, m| a.code.bts(m, 3)),
        ("SETC", 0x100, 0x101, |a, m| a.code.setc(m)),
    ];
    for (name, before, after, emit) in rows {
        fresh(a, 0, before)?;
        code! { a =>
            mov ebx, 0x55;
            mov eax, 3;
            stc;
        }
        emit(a, at)?;
        check_at(a, &format!("{name} of an absent page, result"), FRAME, after)?;
        check_at(a, &format!("{name} of an absent page, faults"), var::COUNT, 1)?;
    }
    Ok(())
}

fn stack(a: &mut Asm) -> Result<(), AsmError> {
    let top = PAGE + 0x800;
    type Emit = fn(&mut Asm) -> Result<(), AsmError>;
    let rows: [(&str, i32, Emit); 6] = [
        ("PUSH", -8, |a| Ok(a.code.push(rbx)?)),
        ("PUSHFQ", -8, |a| Ok(a.code.pushfq()?)),
        ("POP", 8, |a| Ok(a.code.pop(rbx)?)),
        ("CALL", -8, |a| {
            code! { a =>
                call ".pushes_target";
                ".pushes_target":
            }
            Ok(())
        }),
        ("ENTER", -0x18, |a| Ok(a.code.enter(0x10, 0)?)),
        ("POP to memory", 8, |a| Ok(a.code.pop(qword_ptr(PAGE + 0x1000))?)),
    ];
    for (name, moved, emit) in rows {
        fresh(a, 0, 0)?;
        fresh(a, 1, 0)?;
        a.label(&format!("stack {name}"))?;
        code! { a =>
            mov r12, rsp;
            mov r13, rbp;
            mov esp, top;
        }
        emit(a)?;
        code! { a =>
            mov r14, rsp;
            mov rsp, r12;
            mov rbp, r13;
        }
        check(a, &format!("{name} on an absent stack page, RSP after"), r14, i64::from(top + moved))?;
        check_at(a, &format!("{name} on an absent stack page, RSP at the fault"), SEEN_RSP, i64::from(top))?;
    }
    Ok(())
}

/// The first page is there, the second is not: one access, one fault, nothing done before it.
fn across_pages(a: &mut Asm) -> Result<(), AsmError> {
    fresh(a, 0, 0)?;
    fresh(a, 1, 0)?;
    code! { a =>
    "across_pages":
        mov dword_ptr(WATCH), FRAME + 0xFF8;
        mov rax, 0x1111_2222_3333_4444u64;
        mov qword_ptr(FRAME + 0xFF8), rax;
        mov qword_ptr(WINDOW2_PT), FRAME | 3;
        mov rax, 0x5555_6666_7777_8888u64;
        mov qword_ptr(PAGE + 0xFFC), rax;
    }
    check_at(a, "store across pages, first page at the fault", SEEN_WATCH, 0x1111_2222_3333_4444)?;
    check_at(a, "store across pages, CR2", var::CR2, i64::from(PAGE + 0x1000))?;
    check_at(a, "store across pages, error", var::ERROR, 2)?;
    check_at(a, "store across pages, first part", FRAME + 0xFF8, 0x7777_8888_3333_4444)?;
    check_at(a, "store across pages, second part", FRAME + 0x1000, 0x5555_6666)?;
    code! { a =>
        mov qword_ptr(WINDOW2_PT + 8), 0;
        invlpg ptr(PAGE + 0x1000);
        mov rbx, qword_ptr(PAGE + 0xFFC);
    }
    check(a, "load across pages", rbx, 0x5555_6666_7777_8888)?;
    check_at(a, "load across pages, error", var::ERROR, 0)?;
    code! { a =>
        mov qword_ptr(WINDOW2_PT + 8), 0;
        invlpg ptr(PAGE + 0x1000);
        movups xmm0, xmmword_ptr(PAGE + 0xFF4);
        movq rbx, xmm0;
    }
    check(a, "16-byte load across pages, low half", rbx, 0x3333_4444_0000_0000)?;
    check_at(a, "16-byte load across pages, CR2", var::CR2, i64::from(PAGE + 0x1000))
}

fn across_absent_pages(a: &mut Asm) -> Result<(), AsmError> {
    fresh(a, 1, 0)?;
    fresh(a, 0, 0)?;
    code! { a =>
    "across_absent_pages":
        mov rax, 0x0102_0304_0506_0708u64;
        mov qword_ptr(PAGE + 0xFFD), rax;
    }
    check_at(a, "store across two absent pages, faults", var::COUNT, 2)?;
    code! { a =>
        mov rbx, qword_ptr(PAGE + 0xFFD);
    }
    check(a, "store across two absent pages, result", rbx, 0x0102_0304_0506_0708)
}

fn fetch_across(a: &mut Asm) -> Result<(), AsmError> {
    fresh(a, 2, 0)?;
    fresh(a, 3, 0)?;
    let bytes = snippet(0, |a| {
        code! { a =>
            mov eax, 0x1234_5678;
            ret;
        }
        Ok(())
    })?;
    place(a, &bytes, FRAME + 0x3000 - 3)?;
    code! { a =>
    "fetch_across":
        mov ebx, PAGE + 0x3000 - 3;
        call rbx;
    }
    check(a, "fetch across two absent pages, result", rax, 0x1234_5678)?;
    check_at(a, "fetch across two absent pages, faults", var::COUNT, 2)?;
    check_at(a, "fetch across two absent pages, first CR2", FIRST_CR2, i64::from(PAGE + 0x3000 - 3))?;
    check_at(a, "fetch across two absent pages, last CR2", var::CR2, i64::from(PAGE + 0x3000))?;
    check_at(a, "fetch across two absent pages, last RIP", var::RIP, i64::from(PAGE + 0x3000 - 3))?;
    check_at(a, "fetch across two absent pages, error", var::ERROR, 0x10)
}

/// A page that can be read: writes fault with P and W and change neither memory nor registers.
fn read_only(a: &mut Asm) -> Result<(), AsmError> {
    type Emit = fn(&mut Asm) -> Result<(), iced_x86::IcedError>;
    let rows: [(&str, Emit); 6] = [
        ("MOV", |a| a.code.mov(qword_ptr(PAGE), rbx)),
        ("XCHG", |a| a.code.xchg(qword_ptr(PAGE), rbx)),
        ("XADD", |a| a.code.xadd(qword_ptr(PAGE), rbx)),
        ("CMPXCHG that differs", |a| a.code.cmpxchg(qword_ptr(PAGE), rbx)),
        ("ADD", |a| a.code.add(qword_ptr(PAGE), rbx)),
        ("CMPXCHG16B that differs", |a| a.code.lock().cmpxchg16b(xmmword_ptr(PAGE))),
    ];
    for (name, emit) in rows {
        fresh(a, 0, 0x77)?;
        let label = format!("read_only {name}");
        code! { a =>
            mov qword_ptr(WINDOW2_PT), FRAME | 1;
            mov rbx, qword_ptr(PAGE); // the translation is cached for reading
            mov ebx, 0x55;
            mov eax, 0x66;
            mov edx, 0x67;
        }
        expect(a, &label)?;
        emit(a)?;
        a.label(&label)?;
        check(a, &format!("{name} to a read-only page, RBX"), rbx, 0x55)?;
        check(a, &format!("{name} to a read-only page, RAX"), rax, 0x66)?;
        check_at(a, &format!("{name} to a read-only page, memory"), FRAME, 0x77)?;
        check_at(a, &format!("{name} to a read-only page, error"), var::ERROR, 3)?;
    }
    Ok(())
}

fn accessed_dirty(a: &mut Asm) -> Result<(), AsmError> {
    fresh(a, 0, 0)?;
    let entry = |a: &mut Asm, name: &str, want: i64| {
        a.code.mov(rbx, qword_ptr(WINDOW2_PT))?;
        a.code.and(rbx, 0x63)?;
        check(a, name, rbx, want)
    };
    code! { a =>
        mov qword_ptr(WINDOW2_PT), FRAME | 3;
    }
    entry(a, "A and D before any access", 0x03)?;
    code! { a =>
        mov rax, qword_ptr(PAGE);
    }
    entry(a, "A and D after a read", 0x23)?;
    code! { a =>
        mov qword_ptr(PAGE + 8), rax;
    }
    entry(a, "A and D after a write to a page read before", 0x63)?;
    code! { a =>
        and dword_ptr(WINDOW2_PT), !0x60;
        invlpg ptr(PAGE);
        mov rax, qword_ptr(PAGE);
    }
    entry(a, "A and D after clearing, INVLPG and a read", 0x23)?;
    code! { a =>
        and dword_ptr(WINDOW2_PT), !0x62; // read-only now
        invlpg ptr(PAGE);
    }
    expect(a, "write_refused")?;
    code! { a =>
        mov qword_ptr(PAGE), rax;
    "write_refused":
    }
    check_at(a, "a write after the page was made read-only, error", var::ERROR, 3)?;
    code! { a =>
        or dword_ptr(WINDOW2_PT), 2; // giving rights needs no INVLPG after the fault
        mov qword_ptr(PAGE), rax;
    }
    entry(a, "A and D after the page was made writable again", 0x63)
}

fn large_page(a: &mut Asm) -> Result<(), AsmError> {
    let at = WINDOW + 0x40_0000;
    let entry = |a: &mut Asm, name: &str, want: i64| {
        a.code.mov(rbx, qword_ptr(WINDOW_PD + 16))?;
        check(a, name, rbx, want)
    };
    code! { a =>
    "large_page":
        mov qword_ptr(WINDOW_PD + 16), 0x80_0083; // the 2 MiB at 8 MiB
        mov dword_ptr(0x80_0000 + 0x12_3456), 0x99;
        mov ecx, dword_ptr(at + 0x12_3456);
    }
    check(a, "load through a 2 MiB page", rcx, 0x99)?;
    entry(a, "A and D of a 2 MiB page after a read", 0x80_00A3)?;
    code! { a =>
        inc dword_ptr(at + 0x12_3456);
        mov ecx, dword_ptr(0x80_0000 + 0x12_3456);
    }
    check(a, "store through a 2 MiB page", rcx, 0x9A)?;
    entry(a, "A and D of a 2 MiB page after a write", 0x80_00E3)?;
    code! { a =>
        mov qword_ptr(WINDOW_PD + 16), 0x80_2083; // address bit 13 is reserved in a large entry
        invlpg ptr(at);
    }
    expect(a, "large_reserved")?;
    code! { a =>
        mov ecx, dword_ptr(at);
    "large_reserved":
    }
    check_at(a, "a reserved bit in a 2 MiB entry, error", var::ERROR, 9)
}

fn not_canonical(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "not_canonical":
        mov rbx, 0x0000_8000_0000_0000u64;
    }
    expect(a, "not_canonical_load")?;
    code! { a =>
        mov rax, qword_ptr(rbx);
    "not_canonical_load":
    }
    check_at(a, "load from an address that is not canonical, vector", var::VECTOR, 13)?;
    check_at(a, "load from an address that is not canonical, error", var::ERROR, 0)?;
    expect(a, "not_canonical_stack")?;
    code! { a =>
        mov rsp, 0x0000_8000_0000_1000u64;
        push rax;
    "not_canonical_stack":
    }
    check_at(a, "PUSH to an address that is not canonical, vector", var::VECTOR, 12)?;
    expect(a, "not_canonical_rbp")?;
    code! { a =>
        mov rbp, 0x0000_8000_0000_1000u64;
        mov rax, qword_ptr(rbp);
    "not_canonical_rbp":
    }
    check_at(a, "load through RBP, not canonical, vector", var::VECTOR, 12)?;
    expect(a, "not_canonical_jump")?;
    code! { a =>
    "not_canonical_source":
        jmp rbx;
    "not_canonical_jump":
    }
    check_at(a, "jump to an address that is not canonical, vector", var::VECTOR, 13)?;
    check_address(a, "jump to an address that is not canonical, RIP", var::RIP, "not_canonical_source")
}
