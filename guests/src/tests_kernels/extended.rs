//! What processors have gained since the first 64-bit ones: XSAVE, protection keys, UMIP, x2APIC, TSC_ADJUST, PCIDs, single steps over
//! fast system calls. What CPUID does not claim is left out, and then the number of checks is wrong.
//!
//! Intel SDM Vol. 1, "Managing State Using the XSAVE Feature Set"; Vol. 3, "Protection Keys", "Extended XAPIC (x2APIC)",
//! "Time-Stamp Counter Adjustment", "Process-Context Identifiers (PCIDs)"; Vol. 2, "SYSCALL".

use iced_x86::code_asm::*;

use super::kit::*;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

const AREA: i32 = 0x70_0000;
const COPY: i32 = 0x70_2000;
const USER_CODE_AT: i32 = WINDOW;
const USER_STACK: i32 = WINDOW + 0x2000;
/// A page of the window with a protection key of its own.
const KEYED: i32 = WINDOW + 0x5000;
const KEYED_PTE: i32 = WINDOW_PT + 5 * 8;
const KEY: u64 = 5;
const STEPS: i32 = var::TEST;
const FIRST_STEP: i32 = var::TEST + 8;

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    xsave(a)?;
    keys(a)?;
    user_mode_prevention(a)?;
    x2apic(a)?;
    tsc_adjust(a)?;
    pcid(a)?;
    step_over_syscall(a)?;
    code! { a =>
        jmp "finish";
    }
    Ok(())
}

/// Jumps to `skip` unless CPUID's `leaf` has `bit` in a register (1: EBX, 2: ECX, 3: EDX).
fn need(a: &mut Asm, leaf: u32, register: u32, bit: i32, skip: &str) -> Result<(), AsmError> {
    code! { a =>
        mov eax, leaf;
        xor ecx, ecx;
        cpuid;
    }
    match register {
        1 => a.code.bt(ebx, bit)?,
        2 => a.code.bt(ecx, bit)?,
        _ => a.code.bt(edx, bit)?,
    }
    let skip = a.to(skip);
    Ok(a.code.jnc(skip)?)
}

fn set_cr4(a: &mut Asm, bit: i32, on: bool) -> Result<(), AsmError> {
    a.code.mov(rax, cr4)?;
    if on {
        a.code.bts(rax, bit)?
    } else {
        a.code.btr(rax, bit)?
    };
    Ok(a.code.mov(cr4, rax)?)
}

fn xsave(a: &mut Asm) -> Result<(), AsmError> {
    a.label("xsave")?;
    need(a, 1, 2, 26, "xsave_done")?;
    expect(a, ".off")?;
    code! { a =>
        xor ecx, ecx;
        xgetbv;
    ".off":
    }
    check_at(a, "XGETBV with CR4.OSXSAVE clear, vector", var::VECTOR, 6)?;
    set_cr4(a, 18, true)?;
    code! { a =>
        mov eax, 1;
        cpuid;
        shr ecx, 27;
        and ecx, 1;
    }
    check(a, "CPUID.OSXSAVE", rcx, 1)?;
    // All that CPUID allows.
    code! { a =>
        mov eax, 0xD;
        xor ecx, ecx;
        cpuid;
        mov r12d, eax;
        mov r13d, edx;
        xor ecx, ecx;
        xsetbv;
        mov eax, 0xD;
        xor ecx, ecx;
        cpuid;
        sub ebx, ecx;
        mov r14d, ebx;
        xor ecx, ecx;
        xgetbv;
        sub rax, r12;
    }
    check(a, "XCR0 is what was written", rax, 0)?;
    check(a, "CPUID: with everything on the current size is the largest", r14, 0)?;
    round_trip(a)?;
    // XCR0 without bit 0, and AVX without SSE.
    for (name, value) in [("x87", 2), ("SSE", 5)] {
        let label = format!(".without_{name}");
        expect(a, &label)?;
        code! { a =>
            xor ecx, ecx;
            xor edx, edx;
            mov eax, value;
            xsetbv;
        }
        a.label(&label)?;
        check_at(a, &format!("XCR0 without {name}, vector"), var::VECTOR, 13)?;
    }
    a.label("xsave_done")
}

/// Saves, spoils, restores and saves again: both images are the same where state is.
fn round_trip(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov edi, AREA;
        mov ecx, 0x3000 / 8;
        xor eax, eax;
        rep stosq;
        fninit;
        fldpi;
        mov rax, 0x1122_3344_5566_7788u64;
        movq xmm3, rax;
        movq xmm15, rax;
        mov eax, -1;
        mov edx, -1;
        mov ebx, AREA;
        xsave64 ptr(rbx);
        fninit;
        pxor xmm3, xmm3;
        pxor xmm15, xmm15;
        mov eax, -1;
        mov edx, -1;
        xrstor64 ptr(rbx);
        mov ebx, COPY;
        xsave64 ptr(rbx);
        mov esi, AREA;
        mov edi, COPY;
        mov ecx, 576 / 8;
        repe cmpsq;
        mov rbx, rcx;
        mov rcx, qword_ptr(AREA + 512);
        and ecx, 3;
    }
    check(a, "XSAVE, XRSTOR, XSAVE: quadwords left to compare", rbx, 0)?;
    check(a, "XSAVE, x87 and SSE are in use", rcx, 3)?;
    check_at(a, "XSAVE, XMM15 in the image", AREA + 160 + 240, 0x1122_3344_5566_7788)?;
    a.code.mov(word_ptr(AREA + 512 + 8), 1)?;
    expect(a, ".bad_header")?;
    code! { a =>
        mov ebx, AREA;
        mov eax, -1;
        mov edx, -1;
        xrstor64 ptr(rbx);
    ".bad_header":
    }
    check_at(a, "XRSTOR of a bad header, vector", var::VECTOR, 13)
}

/// One access to the keyed page under a value of PKRU: write or read, as supervisor.
fn keyed_access(a: &mut Asm, name: &str, pkru: u32, write: bool, error: i64) -> Result<(), AsmError> {
    let label = format!(".{}", name.replace([' ', ','], "_"));
    code! { a =>
        xor ecx, ecx;
        xor edx, edx;
        mov eax, pkru;
        wrpkru;
    }
    expect(a, &label)?;
    code! { a =>
        mov qword_ptr(var::ERROR), 0;
        mov ebx, KEYED;
    }
    if write {
        a.code.mov(byte_ptr(rbx), 1)?
    } else {
        a.code.mov(al, byte_ptr(rbx))?
    };
    a.label(&label)?;
    check_at(a, &format!("protection key, {name}, vector"), var::VECTOR, if error == 0 { -1 } else { 14 })?;
    check_at(a, &format!("protection key, {name}, error code"), var::ERROR, error)
}

fn keys(a: &mut Asm) -> Result<(), AsmError> {
    a.label("keys")?;
    need(a, 7, 2, 3, "keys_done")?;
    set_cr4(a, 22, true)?;
    code! { a =>
        mov rax, qword_ptr(KEYED_PTE);
        mov rcx, KEY << 59;
        or rax, rcx;
        mov qword_ptr(KEYED_PTE), rax;
        mov rax, cr3;
        mov cr3, rax;
    }
    let (ad, wd) = (1 << (2 * KEY), 2 << (2 * KEY));
    keyed_access(a, "open, write", 0, true, 0)?;
    keyed_access(a, "no access, read", ad, false, 0x21)?;
    keyed_access(a, "no access, write", ad, true, 0x23)?;
    keyed_access(a, "no writes, read", wd, false, 0)?;
    keyed_access(a, "no writes, write", wd, true, 0x23)?;
    keyed_access(a, "other keys closed, write", !(ad | wd), true, 0)?;
    code! { a =>
        mov rax, cr0;
        btr eax, 16;
        mov cr0, rax;
    }
    keyed_access(a, "no writes but WP clear, write", wd, true, 0)?;
    code! { a =>
        mov rax, cr0;
        bts eax, 16;
        mov cr0, rax;
        mov eax, 1;
        xor ecx, ecx;
        cpuid;
        xor eax, eax;
        xor ecx, ecx;
        xor edx, edx;
        wrpkru;
    }
    set_cr4(a, 22, false)?;
    a.label("keys_done")
}

/// Runs user code, which ends with an exception or `int 80h`.
fn run_user(a: &mut Asm, label: &str, code: &[u8]) -> Result<(), AsmError> {
    place(a, code, USER_CODE_AT)?;
    expect(a, label)?;
    code! { a =>
        push USER_DATA;
        push USER_STACK;
        push 2;
        push USER_CODE;
        push USER_CODE_AT;
        iretq;
    }
    a.label(label)
}

fn user_mode_prevention(a: &mut Asm) -> Result<(), AsmError> {
    a.label("umip")?;
    need(a, 7, 2, 2, "umip_done")?;
    type Emit = fn(&mut Asm) -> Result<(), AsmError>;
    let rows: [(&str, Emit); 5] = [
        ("SGDT", |a| Ok(a.code.sgdt(ptr(WINDOW + 0x1000))?)),
        ("SIDT", |a| Ok(a.code.sidt(ptr(WINDOW + 0x1000))?)),
        ("SLDT", |a| Ok(a.code.sldt(eax)?)),
        ("STR", |a| Ok(a.code.str(eax)?)),
        ("SMSW", |a| Ok(a.code.smsw(eax)?)),
    ];
    for (name, emit) in rows {
        let code = snippet(USER_CODE_AT, |a| {
            emit(a)?;
            Ok(a.code.int(USER_CALL)?)
        })?;
        for (on, want) in [(true, 13), (false, i64::from(USER_CALL))] {
            set_cr4(a, 11, on)?;
            run_user(a, &format!(".{name}_{on}"), &code)?;
            check_at(a, &format!("{name} in user code, UMIP {on}, vector"), var::VECTOR, want)?;
        }
    }
    a.label("umip_done")
}

fn read_msr(a: &mut Asm, msr: u32) -> Result<(), AsmError> {
    code! { a =>
        mov ecx, msr;
        rdmsr;
        shl rdx, 32;
        or rax, rdx;
    }
    Ok(())
}

fn write_msr(a: &mut Asm, msr: u32) -> Result<(), AsmError> {
    code! { a =>
        mov rdx, rax;
        shr rdx, 32;
        mov ecx, msr;
        wrmsr;
    }
    Ok(())
}

fn x2apic(a: &mut Asm) -> Result<(), AsmError> {
    const APIC_BASE: u32 = 0x1B;
    a.label("x2apic")?;
    need(a, 1, 2, 21, "x2apic_done")?;
    expect(a, ".not_yet")?;
    read_msr(a, 0x802)?;
    a.label(".not_yet")?;
    check_at(a, "x2APIC register in xAPIC mode, vector", var::VECTOR, 13)?;
    // The ID as the page has it.
    code! { a =>
        mov ebx, 0xFEE0_0020u32;
        mov r12d, dword_ptr(rbx);
        shr r12d, 24;
    }
    read_msr(a, APIC_BASE)?;
    a.code.or(eax, 0xC00)?;
    write_msr(a, APIC_BASE)?;
    read_msr(a, 0x802)?;
    a.code.sub(rax, r12)?;
    check(a, "x2APIC, the same ID", rax, 0)?;
    read_msr(a, 0x803)?;
    a.code.and(eax, 0xF0)?;
    check(a, "x2APIC, an integrated APIC", rax, 0x10)?;
    for (name, msr, value) in [("DFR", 0x80E, 0), ("a reserved bit of TPR", 0x808, 1u64 << 8), ("the ID", 0x802, 0), ("EOI of 1", 0x80B, 1)]
    {
        let label = format!(".bad_{msr:x}");
        expect(a, &label)?;
        a.code.mov(rax, value)?;
        write_msr(a, msr)?;
        a.label(&label)?;
        check_at(a, &format!("x2APIC, write of {name}, vector"), var::VECTOR, 13)?;
    }
    // Back to xAPIC mode only through disabled.
    expect(a, ".back")?;
    read_msr(a, APIC_BASE)?;
    a.code.btr(eax, 10)?;
    write_msr(a, APIC_BASE)?;
    a.label(".back")?;
    check_at(a, "x2APIC to xAPIC at once, vector", var::VECTOR, 13)?;
    read_msr(a, APIC_BASE)?;
    a.code.and(eax, !0xC00)?;
    write_msr(a, APIC_BASE)?;
    read_msr(a, APIC_BASE)?;
    a.code.or(eax, 0x800)?;
    write_msr(a, APIC_BASE)?;
    a.label("x2apic_done")
}

fn tsc_adjust(a: &mut Asm) -> Result<(), AsmError> {
    const TSC: u32 = 0x10;
    const TSC_ADJUST: u32 = 0x3B;
    a.label("tsc")?;
    need(a, 7, 1, 1, "tsc_done")?;
    code! { a =>
        mov rax, 1u64 << 40;
    }
    write_msr(a, TSC_ADJUST)?;
    read_msr(a, TSC)?;
    code! { a =>
        shr rax, 40;
        mov rbx, rax;
    }
    check(a, "TSC_ADJUST moves the counter", rbx, 1)?;
    a.code.xor(eax, eax)?;
    write_msr(a, TSC)?;
    read_msr(a, TSC_ADJUST)?;
    code! { a =>
        shr rax, 63; // the counter had run past 2^40: less than that was taken off
        mov rbx, rax;
    }
    check(a, "a write to the counter shows in TSC_ADJUST: negative", rbx, 1)?;
    a.code.xor(eax, eax)?;
    write_msr(a, TSC_ADJUST)?;
    a.label("tsc_done")
}

/// Translations of another PCID outlive a change of the tables until they are invalidated.
fn pcid(a: &mut Asm) -> Result<(), AsmError> {
    a.label("pcid")?;
    need(a, 1, 2, 17, "pcid_done")?;
    set_cr4(a, 17, true)?;
    expect(a, ".missing")?;
    code! { a =>
        mov rax, cr3;
        mov r12, rax;
        or rax, 7;
        bts rax, 63;
        mov cr3, rax;
        mov rbx, cr3;
        and ebx, 0xFFF;
    ".missing":
    }
    check(a, "the PCID is in CR3, bit 63 is not", rbx, 7)?;
    // INVPCID of each type; type 0 makes a change of an entry seen.
    need(a, 7, 1, 10, ".without_invpcid")?;
    for kind in 0..5 {
        let label = format!(".invpcid_{kind}");
        expect(a, &label)?;
        code! { a =>
            mov qword_ptr(AREA), 7;
            mov qword_ptr(AREA + 8), KEYED;
            mov edi, KEYED;
            mov r13, qword_ptr(KEYED_PTE);
            mov al, byte_ptr(rdi);
            mov r14, r13;
            xor r14, 0x1000;
            mov qword_ptr(KEYED_PTE), r14;
            mov eax, kind;
            mov ebx, AREA;
            invpcid rax, ptr(rbx);
            mov byte_ptr(rdi), kind + 1;
            mov rsi, WINDOW_FRAMES as i64;
            mov qword_ptr(KEYED_PTE), r13;
            movzx esi, byte_ptr(rsi + 0x4000);
        }
        a.label(&label)?;
        if kind < 4 {
            check(a, &format!("INVPCID type {kind}, the write went to the new frame"), rsi, i64::from(kind) + 1)?;
        } else {
            check_at(a, "INVPCID type 4, vector", var::VECTOR, 13)?;
            a.code.mov(qword_ptr(KEYED_PTE), r13)?;
        }
        code! { a =>
            invlpg ptr(rdi);
        }
    }
    a.label(".without_invpcid")?;
    expect(a, ".not_zero")?;
    set_cr4(a, 17, false)?;
    code! { a =>
        mov rax, r12;
        mov cr3, rax;
    }
    set_cr4(a, 17, true)?;
    set_cr4(a, 17, false)?;
    a.label(".not_zero")?;
    check_at(a, "PCIDs off and on again, vector", var::VECTOR, -1)?;
    a.label("pcid_done")
}

/// SYSCALL with TF masked by IA32_FMASK: no trap in the kernel. With TF left on the handler's first instruction traps.
fn step_over_syscall(a: &mut Asm) -> Result<(), AsmError> {
    a.label("steps")?;
    let code = snippet(USER_CODE_AT, |a| {
        code! { a =>
            pushfq;
            or qword_ptr(rsp), 0x100;
            popfq;
            syscall;
        }
        Ok(())
    })?;
    code! { a =>
        mov rax, (KERNEL_CODE as i64) << 32;
    }
    write_msr(a, 0xC000_0081)?;
    code! { a =>
        lea rax, "system_call";
    }
    write_msr(a, 0xC000_0082)?;
    for (name, mask, want) in [("masked", 0x100, 0), ("not masked", 0, 1)] {
        a.code.mov(rax, mask as u64)?;
        write_msr(a, 0xC000_0084)?;
        code! { a =>
            mov qword_ptr(STEPS), 0;
            mov qword_ptr(FIRST_STEP), 0;
        }
        hook(a, Some("step"))?;
        run_user(a, &format!(".{}", name.replace(' ', "_")), &code)?;
        hook(a, None)?;
        check_at(a, &format!("SYSCALL with TF {name}, steps"), STEPS, want)?;
    }
    check_address(a, "SYSCALL with TF not masked, the first step ends at", FIRST_STEP, "system_call")?;
    code! { a =>
        jmp "steps_over";
    "step": // counts steps, and ends them
        xor eax, eax;
        cmp qword_ptr(rdi + frame::VECTOR), 1;
        jne ".other";
        inc qword_ptr(STEPS);
        mov rax, qword_ptr(rdi + frame::RIP);
        mov qword_ptr(FIRST_STEP), rax;
        and qword_ptr(rdi + frame::RFLAGS), !0x100;
        mov eax, 1;
    ".other":
        ret;
    "system_call":
        nop;
        mov esp, STACK_TOP - 0x1000;
        int USER_CALL;
    }
    a.label("steps_over")?;
    Ok(())
}
