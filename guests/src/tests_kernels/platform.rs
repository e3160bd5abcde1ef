//! The board as unit tests for virtual machines use it: firmware configuration, debug console, test device, I/O APIC, NMI by
//! interprocessor interrupt, x87 exceptions through interrupt line 13.
//!
//! Intel SDM Vol. 3, "Local APIC", "Nonmaskable Interrupt (NMI)", "Handling Multiple NMIs"; Vol. 1, "MS-DOS Compatibility
//! Sub-mode"; Intel 82093AA datasheet, "I/O Redirection Table Registers"; QEMU documentation, "QEMU Firmware Configuration
//! (fw_cfg) Device".

use iced_x86::code_asm::*;

use super::kit::*;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

const LAPIC: u32 = 0xFEE0_0000;
const LAPIC_ID: u32 = LAPIC + 0x20;
const TPR: u32 = LAPIC + 0x80;
const EOI: u32 = LAPIC + 0xB0;
const SVR: u32 = LAPIC + 0xF0;
const ICR: u32 = LAPIC + 0x300;
const ICR_HIGH: u32 = LAPIC + 0x310;
const LVT_LINT0: u32 = LAPIC + 0x350;
const IOREGSEL: u32 = 0xFEC0_0000;
const IOWIN: u32 = 0xFEC0_0010;
/// The test device: memory, and the port of interrupt line 0.
const TEST_MEMORY: u32 = 0xFF00_0000;
const TEST_LINES: i32 = 0x2000;
/// Lines that nothing else drives.
const EDGE_LINE: i32 = 11;
const LEVEL_LINE: i32 = 10;
const EDGE_VECTOR: i32 = 0x35;
const LEVEL_VECTOR: i32 = 0x36;
/// The 8259s' first vector, and IRQ 13's.
const PIC_VECTOR: i32 = 0x20;
const FPU_VECTOR: i32 = PIC_VECTOR + 13;
/// Redirection entry: level-triggered.
const LEVEL: i32 = 1 << 15;

/// How many NMIs, how many at once now, and at most.
const NMIS: i32 = var::TEST;
const DEPTH: i32 = var::TEST + 8;
const DEEPEST: i32 = var::TEST + 16;
/// How many of the I/O APIC's and of line 13's interrupts came.
const EDGES: i32 = var::TEST + 24;
const LEVELS: i32 = var::TEST + 32;
const FPU_ERRORS: i32 = var::TEST + 40;
/// After how many level-triggered interrupts the handler lowers the line.
const LOWER_AT: i32 = var::TEST + 48;
/// What x87 exceptions the handler saw.
const STATUS: i32 = var::TEST + 56;
const SCRATCH: i32 = var::TEST + 64;

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    hook(a, Some("interrupt"))?;
    map_devices(a)?;
    configuration(a)?;
    test_device(a)?;
    apics(a)?;
    edge(a)?;
    level(a)?;
    nmi(a)?;
    coprocessor(a)?;
    hook(a, None)?;
    code! { a =>
        jmp "finish";
    }
    interrupt(a)
}

fn output(a: &mut Asm, port: i32, value: i32) -> Result<(), AsmError> {
    code! { a =>
        mov al, value;
        mov edx, port;
        out dx, al;
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

/// Large uncached pages for the I/O APIC and the test device, beside the kit's for the local APIC.
fn map_devices(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, 0xFEC0_009Bu32;
        mov qword_ptr(HIGH_PD + 0x1F6 * 8), rax;
        mov eax, 0xFF00_009Bu32;
        mov qword_ptr(HIGH_PD + 0x1F8 * 8), rax;
        mov rax, cr3;
        mov cr3, rax;
    }
    Ok(())
}

fn configuration(a: &mut Asm) -> Result<(), AsmError> {
    a.label("configuration")?;
    for (name, key, mask, want) in [("signature", 0, -1, 0x554D_4551), ("the port interface is there", 1, 1, 1)] {
        code! { a =>
            mov eax, key;
            mov edx, 0x510;
            out dx, ax;
            inc edx;
            mov edi, SCRATCH;
            mov qword_ptr(rdi), 0;
            mov ecx, 4;
            rep insb;
            and qword_ptr(SCRATCH), mask;
        }
        check_at(a, &format!("fw_cfg, {name}"), SCRATCH, want)?;
    }
    code! { a =>
        mov eax, 5;
        mov edx, 0x510;
        out dx, ax;
        inc edx;
        in_ al, dx;
        movzx ebx, al;
        dec ebx;
        shr ebx, 8;
    }
    check(a, "fw_cfg, 1 to 255 processors", rbx, 0)?;
    code! { a =>
        xor eax, eax;
        in_ al, 0xE9;
        mov ebx, eax;
        mov al, i32::from(b'!');
        out 0xE9, al;
    }
    check(a, "debug console", rbx, 0xE9)
}

fn test_device(a: &mut Asm) -> Result<(), AsmError> {
    a.label("test_device")?;
    code! { a =>
        mov eax, 0x1234_5678;
        out 0xE0, eax;
        xor eax, eax;
        in_ eax, 0xE0;
        mov ebx, eax;
        xor eax, eax;
        in_ al, 0xE0;
        mov ecx, eax;
    }
    check(a, "test device, doubleword", rbx, 0x1234_5678)?;
    check(a, "test device, its low byte", rcx, 0x78)?;
    code! { a =>
        mov edi, TEST_MEMORY;
        mov rax, 0x0102_0304_0506_0708u64;
        mov qword_ptr(rdi + 8), rax;
        mov rbx, qword_ptr(rdi + 8);
        inc byte_ptr(rdi + 8);
        movzx ecx, word_ptr(rdi + 10);
        movups xmm0, xmmword_ptr(rdi);
        movhlps xmm1, xmm0;
        movq rdx, xmm1;
    }
    check(a, "test device, memory", rbx, 0x0102_0304_0506_0708)?;
    check(a, "test device, a word of it", rcx, 0x0506)?;
    check(a, "test device, sixteen bytes of it", rdx, 0x0102_0304_0506_0709)
}

fn apics(a: &mut Asm) -> Result<(), AsmError> {
    for (port, value) in [(0x20, 0x11), (0x21, PIC_VECTOR), (0x21, 4), (0x21, 1), (0x21, 0xFB)] {
        output(a, port, value)?;
    }
    // IRQ 13 alone is let through.
    for (port, value) in [(0xA0, 0x11), (0xA1, PIC_VECTOR + 8), (0xA1, 2), (0xA1, 1), (0xA1, 0xDF)] {
        output(a, port, value)?;
    }
    store(a, LVT_LINT0, 0x700)?;
    store(a, SVR, 0x13F)?;
    store(a, TPR, 0)?;
    // The version register: entries less one, version.
    code! { a =>
        mov ebx, IOREGSEL;
        mov dword_ptr(rbx), 1;
        mov ecx, IOWIN;
        mov edi, dword_ptr(rcx);
        shr edi, 16;
        and edi, 0xFF;
    }
    check(a, "I/O APIC, last entry", rdi, 23)?;
    // Line 13 comes through the 8259: its entry stays masked. The destination is this processor.
    for (line, low) in [(EDGE_LINE, EDGE_VECTOR), (LEVEL_LINE, LEVEL_VECTOR | LEVEL)] {
        code! { a =>
            mov edx, LAPIC_ID;
            mov eax, dword_ptr(rdx);
            mov ebx, IOREGSEL;
            mov ecx, IOWIN;
            mov dword_ptr(rbx), 0x11 + 2 * line;
            mov dword_ptr(rcx), eax;
            mov dword_ptr(rbx), 0x10 + 2 * line;
            mov dword_ptr(rcx), low;
        }
    }
    Ok(())
}

fn drive(a: &mut Asm, line: i32, level: i32) -> Result<(), AsmError> {
    output(a, TEST_LINES + line, level)
}

fn edge(a: &mut Asm) -> Result<(), AsmError> {
    a.label("edge")?;
    a.code.sti()?;
    for (name, levels, want) in [("rises", &[1][..], 1), ("stays high", &[1], 1), ("falls and rises", &[0, 1], 2)] {
        for level in levels {
            drive(a, EDGE_LINE, *level)?;
        }
        code! { a =>
            nop;
        }
        check_at(a, &format!("edge-triggered line {name}, interrupts"), EDGES, want)?;
    }
    drive(a, EDGE_LINE, 0)?;
    // While masked by IF one edge is kept.
    a.code.cli()?;
    for level in [1, 0, 1, 0] {
        drive(a, EDGE_LINE, level)?;
    }
    code! { a =>
        sti;
        nop;
        nop;
    }
    check_at(a, "edge-triggered line, edges while IF is clear are one", EDGES, 3)
}

fn level(a: &mut Asm) -> Result<(), AsmError> {
    a.label("level")?;
    code! { a =>
        mov qword_ptr(LOWER_AT), 3;
    }
    drive(a, LEVEL_LINE, 1)?;
    code! { a =>
        nop;
        nop;
    }
    check_at(a, "level-triggered line comes again until it falls", LEVELS, 3)
}

/// Sends an NMI to this processor.
fn send_nmi(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov edx, LAPIC_ID;
        mov eax, dword_ptr(rdx);
        mov edx, ICR_HIGH;
        mov dword_ptr(rdx), eax;
        mov edx, ICR;
        mov dword_ptr(rdx), 0x4400;
    }
    Ok(())
}

fn nmi(a: &mut Asm) -> Result<(), AsmError> {
    a.label("nmi")?;
    a.code.cli()?;
    // The handler sends a second one to itself, which waits for its IRET.
    send_nmi(a)?;
    code! { a =>
        nop;
        nop;
        nop;
    }
    check_at(a, "NMIs with IF clear", NMIS, 2)?;
    check_at(a, "NMIs at once", DEEPEST, 1)
}

/// 1 / 0 with the exception unmasked and CR0.NE clear: the next waiting instruction raises line 13.
fn coprocessor(a: &mut Asm) -> Result<(), AsmError> {
    a.label("coprocessor")?;
    code! { a =>
        mov rax, cr0;
        and eax, !0x20;
        mov cr0, rax;
        fninit;
        mov word_ptr(SCRATCH), 0x37B;
        fldcw word_ptr(SCRATCH);
        fld1;
        fldz;
        sti;
        nop;
        fdivp st1, st0;
        fnop; // waits
        cli;
        fninit;
    }
    check_at(a, "x87 exception without CR0.NE, interrupts", FPU_ERRORS, 1)?;
    check_at(a, "x87 exception without CR0.NE, status", STATUS, 4)?;
    code! { a =>
        mov rax, cr0;
        or eax, 0x20;
        mov cr0, rax;
    }
    Ok(())
}

fn interrupt(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "interrupt":
        mov rcx, qword_ptr(rdi + frame::VECTOR);
        cmp ecx, 2;
        je ".nmi";
        cmp ecx, FPU_VECTOR;
        je ".fpu";
        cmp ecx, EDGE_VECTOR;
        je ".edge";
        cmp ecx, LEVEL_VECTOR;
        je ".level";
        xor eax, eax;
        ret;
    ".edge":
        inc qword_ptr(EDGES);
        jmp ".eoi";
    ".level":
        inc qword_ptr(LEVELS);
        mov rax, qword_ptr(LEVELS);
        cmp rax, qword_ptr(LOWER_AT);
        jb ".eoi";
    }
    drive(a, LEVEL_LINE, 0)?;
    code! { a =>
    ".eoi":
        mov edx, EOI;
        mov dword_ptr(rdx), 0;
        mov eax, 1;
        ret;
    ".nmi":
        inc qword_ptr(NMIS);
        inc qword_ptr(DEPTH);
        mov rax, qword_ptr(DEPTH);
        cmp rax, qword_ptr(DEEPEST);
        jbe ".not_deeper";
        mov qword_ptr(DEEPEST), rax;
    ".not_deeper":
        cmp qword_ptr(NMIS), 1;
        jne ".last";
    }
    send_nmi(a)?;
    code! { a =>
        nop;
    ".last":
        dec qword_ptr(DEPTH);
        mov eax, 1;
        ret;
    ".fpu":
        inc qword_ptr(FPU_ERRORS);
        xor eax, eax;
        out 0xF0, al;
        fstsw ax; // waits: IGNNE# lets it pass
        and eax, 0x3F;
        mov qword_ptr(STATUS), rax;
        fnclex;
        mov al, 0x20;
        out 0xA0, al;
        out 0x20, al;
        mov eax, 1;
        ret;
    }
    Ok(())
}
