//! The 16-bit parts of the `modes` kernel: probes in virtual-8086 mode, and a trip to real mode.

use iced_x86::code_asm::*;

use super::kit::*;
use super::modes::{CALL, CODE_AT, Probe, VM};
use crate::os::asm::{Asm, AsmError, code};

const GP: u32 = VM | 13;
const SS_FAULT: u32 = VM | 12;
const UD: u32 = VM | 6;
const DONE: u32 = VM | CALL;

/// Probes and the I/O privilege level they run at; all segments but CS and SS (0) are as `enter_v86` sets them. The result is in BX, and
/// INT `CALL` follows each.
pub(super) fn v86_probes() -> Vec<(Probe, i32)> {
    let probe = |iopl, name, emit, outcome, result| (Probe { name, emit, outcome, result }, iopl);
    vec![
        probe(3, "V86, INT at IOPL 3", |a| Ok(a.code.mov(bx, 7)?), DONE, 7),
        probe(0, "V86, INT at IOPL 0", |a| Ok(a.code.mov(bx, 7)?), GP, 7),
        probe(0, "V86, CLI at IOPL 0", |a| Ok(a.code.cli()?), GP, 0),
        probe(0, "V86, STI at IOPL 0", |a| Ok(a.code.sti()?), GP, 0),
        probe(0, "V86, PUSHF at IOPL 0", |a| Ok(a.code.pushf()?), GP, 0),
        probe(0, "V86, POPF at IOPL 0", |a| Ok(a.code.popf()?), GP, 0),
        probe(0, "V86, IRET at IOPL 0", |a| Ok(a.code.iret()?), GP, 0),
        probe(3, "V86, CLI, STI, PUSHF at IOPL 3", interrupt_flag, DONE, 0x02),
        probe(3, "V86, HLT", |a| Ok(a.code.hlt()?), GP, 0),
        probe(3, "V86, MOV from CR0", |a| Ok(a.code.mov(eax, cr0)?), GP, 0),
        probe(3, "V86, LGDT", |a| Ok(a.code.lgdt(ptr(0x100))?), GP, 0),
        probe(3, "V86, STR", |a| Ok(a.code.str(ax)?), UD, 0),
        probe(3, "V86, LAR", |a| Ok(a.code.lar(ax, ax)?), UD, 0),
        probe(3, "V86, IN of a port the map allows", |a| port_in(a, 0x3FF), DONE, 0),
        probe(3, "V86, IN of a port the map denies", |a| port_in(a, 0x80), GP, 0),
        probe(3, "V86, word at FFFFh", |a| word_at(a, bx), GP, 0xFFFF),
        probe(3, "V86, stack word at FFFFh", |a| word_at(a, bp), SS_FAULT, 0),
        probe(3, "V86, 32-bit offset past 64 KiB", far_offset, GP, 0),
        probe(3, "V86, UD2", |a| Ok(a.code.ud2()?), UD, 0),
        probe(3, "V86, segments from the IRET", segments, DONE, 0x2000 + 0x3000 + 0x4000 + 0x5000),
        probe(3, "V86, IRET at IOPL 3", iret_inside, DONE, 0x55),
        probe(3, "V86, far call and return", far_call, DONE, 0x66),
        // The last one, since `main` looks at what its INT pushed.
        probe(3, "V86, address = segment * 16 + offset", segment_address, DONE, 0xBEEF),
    ]
}

/// IF after STI and after CLI, in bits 1 and 0.
fn interrupt_flag(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        sti;
        pushf;
        cli;
        pushf;
        pop ax;
        shr ax, 9;
        and ax, 1;
        pop bx;
        shr bx, 8;
        and bx, 2;
        or bx, ax;
    }
    Ok(())
}

fn port_in(a: &mut Asm, port: i32) -> Result<(), AsmError> {
    code! { a =>
        mov dx, port;
        in_ al, dx;
    }
    Ok(())
}

fn word_at(a: &mut Asm, base: AsmRegister16) -> Result<(), AsmError> {
    a.code.mov(base, 0xFFFF)?;
    Ok(a.code.mov(ax, word_ptr(base + 0))?)
}

fn far_offset(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov ecx, 0x1_0000;
        mov al, byte_ptr(ecx);
    }
    Ok(())
}

fn segments(a: &mut Asm) -> Result<(), AsmError> {
    a.code.xor(bx, bx)?;
    for segment in [es, ds, fs, gs] {
        a.code.mov(ax, segment)?;
        a.code.add(bx, ax)?;
    }
    Ok(())
}

fn iret_inside(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        pushf;
        push cs;
        addr eax, ".target";
        push ax;
        iret;
        hlt;
    ".target":
        mov bx, 0x55;
    }
    Ok(())
}

fn far_call(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push cs;
        call ".routine"; // near, after a pushed CS: as good as a far one
        jmp ".back";
    ".routine":
        mov bx, 0x66;
        retf;
        hlt;
    ".back":
    }
    Ok(())
}

fn segment_address(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov ax, 0x1234;
        mov ds, ax;
        mov word_ptr(5), 0xBEEFu32; // 12345h
        mov ax, 0x1000;
        mov es, ax;
        mov bx, word_ptr(0x2345).es();
    }
    Ok(())
}

/// Where real-mode code leaves words for `check_real_mode`, and how it returns to 32-bit code.
const RESULT: i32 = 0x6000;
const RETURN_TO: i32 = 0x6100;
/// Operands of LIDT: the usual interrupt vector table, another one, and the 32-bit IDT.
const USUAL_IVT: i32 = 0x6110;
const OTHER_IVT: i32 = 0x6118;
const SAVED_IDT: i32 = 0x6120;
const OTHER_IVT_AT: i32 = 0x6200;

/// 32-bit code: into a 16-bit segment, PE off, and back. FS keeps a 4 GiB limit on the way.
pub(super) fn visit_real_mode(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "visit_real_mode":
        addr eax, ".back";
        mov dword_ptr(RETURN_TO), eax;
        mov word_ptr(RETURN_TO + 4), CODE_32;
        mov dword_ptr(RESUME_ESP), esp;
        sidt ptr(SAVED_IDT);
        mov word_ptr(USUAL_IVT), 0x3FF;
        mov dword_ptr(USUAL_IVT + 2), 0;
        mov word_ptr(OTHER_IVT), 0x3FF;
        mov dword_ptr(OTHER_IVT + 2), OTHER_IVT_AT;
        mov dword_ptr(0x70_0000), 0x0BAD_CAFE;
        mov eax, KERNEL_DATA;
        mov fs, eax;
        mov eax, DATA_16;
        mov ds, eax;
        mov es, eax;
        mov ss, eax;
        mov esp, 0x6FF0;
    }
    a.code.jmp_far(CODE_16 as u16, CODE_AT as u32)?;
    code! { a =>
    ".back":
        mov eax, KERNEL_DATA;
        mov ds, eax;
        mov es, eax;
        mov ss, eax;
        mov fs, eax;
        mov esp, dword_ptr(RESUME_ESP);
        lidt ptr(SAVED_IDT);
    }
    Ok(())
}

/// Where the 32-bit stack pointer waits.
const RESUME_ESP: i32 = 0x6130;

/// 16-bit code, entered in protected mode.
pub(super) fn real_mode(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "protected_16":
        mov eax, cr0;
        and eax, !1;
        mov cr0, eax;
    }
    a.far_jump(0, "real", false)?;
    code! { a =>
    "real":
        xor ax, ax;
        mov ds, ax;
        mov es, ax;
        mov ss, ax;
        lidt ptr(USUAL_IVT);
        mov eax, dword_ptr(0).fs(); // FS was not loaded here: big limit, base 0
        mov ecx, 0x70_0000;
        mov eax, dword_ptr(ecx).fs();
        mov dword_ptr(RESULT), eax;
        smsw ax;
        and ax, 1;
        mov word_ptr(RESULT + 4), ax;
    }
    real_interrupts(a)?;
    real_exceptions(a)?;
    real_segments(a)?;
    code! { a =>
        smsw ax; // back: LMSW can set PE
        or ax, 1;
        lmsw ax;
        jmp fword_ptr(RETURN_TO);
    }
    real_handlers(a)
}

/// Puts a handler in the interrupt vector table at `table`.
fn set_vector(a: &mut Asm, table: i32, vector: i32, label: &str) -> Result<(), AsmError> {
    a.address(eax, label)?;
    a.code.mov(dword_ptr(table + vector * 4), eax)?; // segment 0
    Ok(())
}

fn real_interrupts(a: &mut Asm) -> Result<(), AsmError> {
    set_vector(a, 0, 0x60, "on_int_60")?;
    set_vector(a, OTHER_IVT_AT, 0x60, "on_other_60")?;
    code! { a =>
        mov bx, sp;
        sti;
        stc;
        int 0x60;
    "after_int":
        pushf;
        cli;
        pop word_ptr(RESULT + 8); // flags after: IF and CF
        sub bx, sp;
        mov word_ptr(RESULT + 10), bx;
        addr eax, "after_int";
        sub word_ptr(RESULT + 12), ax; // IP in the frame
        lidt ptr(OTHER_IVT);
        int 0x60;
        lidt ptr(USUAL_IVT);
        mov word_ptr(RESULT + 18), dx;
    }
    Ok(())
}

fn real_exceptions(a: &mut Asm) -> Result<(), AsmError> {
    for (vector, label) in [(0, "on_divide"), (4, "on_overflow"), (6, "on_undefined"), (13, "on_protection")] {
        set_vector(a, 0, vector, label)?;
    }
    code! { a =>
        xor cx, cx;
        mov dx, sp;
        mov ax, 5;
        div cl; // a fault: IP is that of the DIV
        sub dx, sp;
        mov word_ptr(RESULT + 20), dx;
        mov al, 0x7F;
        inc al;
    }
    a.code.db(&[0xCE])?; // INTO: a trap
    code! { a =>
        ud2;
        mov bx, 0xFFFF;
        mov ax, word_ptr(bx); // no error code in real mode
        mov word_ptr(RESULT + 28), cx;
    }
    Ok(())
}

fn real_segments(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov ax, 0x0601; // 6010h
        mov es, ax;
        mov bx, RESULT + 32 - 0x6010;
        mov word_ptr(bx).es(), 0xABCDu32;
        mov ax, 0xFFFF; // a megabyte and a bit, with the A20 line on
        mov es, ax;
        mov eax, dword_ptr(0x10).es();
        mov dword_ptr(RESULT + 36), eax;
        push 0x1122; // SP wraps within its 64 KiB
        pop dx;
        mov cx, sp;
        xor sp, sp;
        push 0x3344;
        mov bx, sp;
        mov sp, cx;
        mov word_ptr(RESULT + 40), bx;
        mov word_ptr(RESULT + 42), dx;
        mov cx, 3;
        xor bx, bx;
    "loop_top":
        inc bx;
        loop_ "loop_top";
        mov word_ptr(RESULT + 44), bx;
        push 0;
        push 0x60; // segment 6, offset …
        add sp, 4;
    }
    Ok(())
}

fn real_handlers(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "on_int_60":
        pushf;
        pop word_ptr(RESULT + 16); // IF is clear here
        mov bp, sp;
        mov ax, word_ptr(bp);
        mov word_ptr(RESULT + 12), ax;
        mov ax, word_ptr(bp + 2);
        mov word_ptr(RESULT + 14), ax; // CS in the frame
        iret;
    "on_other_60":
        mov dx, 0x4242;
        iret;
    "on_divide":
        mov bp, sp;
        add word_ptr(bp), 2; // over the DIV
        mov word_ptr(RESULT + 22), 0x1000u32;
        iret;
    "on_overflow":
        mov word_ptr(RESULT + 24), 0x2000u32;
        iret;
    "on_undefined":
        mov bp, sp;
        add word_ptr(bp), 2;
        mov word_ptr(RESULT + 26), 0x3000u32;
        iret;
    "on_protection":
        mov bp, sp;
        add word_ptr(bp), 2;
        mov cx, 0x4000;
        iret;
    }
    Ok(())
}

/// 64-bit code.
pub(super) fn check_real_mode(a: &mut Asm) -> Result<(), AsmError> {
    let rows = [
        ("real mode, FS with a 4 GiB limit", 0, 4, 0x0BAD_CAFE),
        ("real mode, PE is clear", 4, 2, 0),
        ("real mode, flags after IRET", 8, 2, 0x201),
        ("real mode, SP after INT and IRET", 10, 2, 0),
        ("real mode, IP in the frame", 12, 2, 0),
        ("real mode, CS in the frame", 14, 2, 0),
        ("real mode, IF in the handler", 16, 2, 0),
        ("real mode, LIDT moves the vector table", 18, 2, 0x4242),
        ("real mode, SP after a fault", 20, 2, 0),
        ("real mode, #DE is a fault", 22, 2, 0x1000),
        ("real mode, #OF is a trap", 24, 2, 0x2000),
        ("real mode, #UD", 26, 2, 0x3000),
        ("real mode, #GP for a word at FFFFh", 28, 2, 0x4000),
        ("real mode, segment * 16", 32, 2, 0xABCD),
        ("real mode, FFFF:0010 is 1 MiB", 36, 4, 0x1BAD_B002),
        ("real mode, SP wraps", 40, 2, 0xFFFE),
        ("real mode, PUSH imm, POP", 42, 2, 0x1122),
        ("real mode, LOOP", 44, 2, 3),
    ];
    for (name, offset, bytes, want) in rows {
        match bytes {
            2 => a.code.movzx(ebx, word_ptr(RESULT + offset))?,
            _ => a.code.mov(ebx, dword_ptr(RESULT + offset))?,
        }
        if offset == 8 || offset == 16 {
            a.code.and(ebx, 0x201)?;
        }
        if offset == 16 {
            a.code.and(ebx, 0x200)?;
        }
        check(a, name, rbx, want)?;
    }
    Ok(())
}
