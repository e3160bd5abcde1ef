//! 32-bit protected mode, virtual-8086 mode and real mode, and the ways between them; 64-bit code checks the results at the end.
//!
//! Intel SDM Vol. 3, "Limit Checking", "Type Checking", "Privilege Levels", "Stack Switching", "8086 Emulation", "Virtual-8086 Mode" and
//! "Mode Switching"; Vol. 2, the instruction pages.

use iced_x86::code_asm::*;

use super::kit::*;
use super::modes_real;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    super::kit::build(main, Some(prelude))
}

type Emit = fn(&mut Asm) -> Result<(), AsmError>;

/// What a probe must report: `error code << 8 | vector` (FFh: no exception), with `VM` if EFLAGS.VM was set, and EBX.
pub(super) struct Probe {
    pub(super) name: &'static str,
    pub(super) emit: Emit,
    pub(super) outcome: u32,
    pub(super) result: u32,
}

const NO_EXCEPTION: u32 = 0xFF;
pub(super) const VM: u32 = 1 << 31;
/// The gate that any ring may call.
pub(super) const CALL: u32 = 0x22;
const GP: u32 = 13;
const NP: u32 = 11;
const SS_FAULT: u32 = 12;

/// Flat memory that the odd segments below lie in.
const SEGMENT_BASE: i32 = 0x70_0000;
const IDT_32: i32 = 0x15_3000;
const TSS_32: i32 = 0x15_4000;
const ESP_0: i32 = 0x15_6000;
const USER_ESP: i32 = 0x72_0000;
/// Where 16-bit code is copied to, for virtual-8086 mode and for real mode.
pub(super) const CODE_AT: i32 = 0x7000;

/// Selectors behind those of the kit.
const SMALL: i32 = 0x50; // data, limit FFFh
const EXPAND_DOWN: i32 = 0x58; // data, offsets above FFFh
const ABSENT: i32 = 0x60;
const READ_ONLY: i32 = 0x68;
const TSS_SELECTOR: i32 = 0x70;
const USER_CODE_32: i32 = 0x78 | 3;
const CALL_GATE: i32 = 0x80;
const EXECUTE_ONLY: i32 = 0x88;
const PAST_LIMIT: i32 = 0x1F8;
const GDT_LIMIT: i32 = 0xFF;
const IDT_GATES: i32 = 64;

/// What the recorder leaves: the outcome, EIP, DS as pushed on leaving virtual-8086 mode, and DS at its start.
const OUTCOME: i32 = var::TEST;
const EIP_PUSHED: i32 = var::TEST + 8;
const DS_PUSHED: i32 = var::TEST + 16;
const DS_INSIDE: i32 = var::TEST + 24;

/// SDM Vol. 3, "Segment Descriptors": `access` is the byte with P, DPL, S and type; `flags` the nibble with G and D/B.
const fn descriptor(base: i32, limit: u64, access: u64, flags: u64) -> u64 {
    let base = base as u64;
    limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52 | (base >> 24) << 56
}

/// Byte offset of the I/O map in the TSS, and the last port it covers.
const IO_MAP: i32 = 104;
const IO_PORTS: i32 = 0x400;

fn more_descriptors() -> [(i32, u64); 7] {
    [
        (SMALL, descriptor(SEGMENT_BASE, 0xFFF, 0x92, 4)),
        (EXPAND_DOWN, descriptor(SEGMENT_BASE, 0xFFF, 0x96, 4)),
        (ABSENT, descriptor(SEGMENT_BASE, 0xFFF, 0x12, 4)),
        (READ_ONLY, descriptor(SEGMENT_BASE, 0xFFF, 0x90, 4)),
        (TSS_SELECTOR, descriptor(TSS_32, (IO_MAP + IO_PORTS / 8) as u64, 0x89, 0)),
        (USER_CODE_32 & !3, descriptor(0, 0xF_FFFF, 0xFA, 0xC)),
        (EXECUTE_ONLY, descriptor(0, 0xF_FFFF, 0x98, 0xC)),
    ]
}

/// 32-bit protected mode, flat, ring 0 at the start of each.
fn protected_probes() -> Vec<Probe> {
    let probe = |name, emit, outcome| Probe { name, emit, outcome, result: 0 };
    let value = |name, emit, outcome, result| Probe { name, emit, outcome, result };
    vec![
        probe("byte at the limit", |a| load_from(a, SMALL, 0xFFF, 1), NO_EXCEPTION),
        probe("byte past the limit", |a| load_from(a, SMALL, 0x1000, 1), GP),
        probe("dword across the limit", |a| load_from(a, SMALL, 0xFFD, 4), GP),
        probe("dword up to the limit", |a| load_from(a, SMALL, 0xFFC, 4), NO_EXCEPTION),
        probe("expand-down, at its limit", |a| load_from(a, EXPAND_DOWN, 0xFFF, 1), GP),
        probe("expand-down, above its limit", |a| load_from(a, EXPAND_DOWN, 0x1000, 1), NO_EXCEPTION),
        probe("past the limit of SS", past_stack_limit, SS_FAULT),
        probe("ES = a segment that is not present", |a| load_selector(a, ABSENT), NP | 0x60 << 8),
        probe("SS = a segment that is not present", stack_absent, SS_FAULT | 0x60 << 8),
        probe("SS = a read-only segment", stack_read_only, GP | 0x68 << 8),
        probe("SS = null", stack_null, GP),
        probe("ES = null", |a| load_selector(a, 0), NO_EXCEPTION),
        probe("load through null", |a| load_from(a, 0, 0, 1), GP),
        probe("ES = past the table", |a| load_selector(a, PAST_LIMIT | 3), GP | (PAST_LIMIT as u32) << 8),
        probe("ES = execute-only code", |a| load_selector(a, EXECUTE_ONLY), GP | 0x88 << 8),
        probe("ES = local table that is not there", |a| load_selector(a, 0x0C), GP | 0x0C << 8),
        probe("store to a read-only segment", store_read_only, GP),
        probe("store through CS", store_through_code, GP),
        probe("far jump to data", |a| a.far_jump(KERNEL_DATA as u16, ".none", true), GP | 0x10 << 8),
        probe("LTR of a busy TSS", |a| load_task(a, TSS_SELECTOR), GP | 0x70 << 8),
        probe("LTR of data", |a| load_task(a, KERNEL_DATA), GP | 0x10 << 8),
        probe("UD2", |a| Ok(a.code.ud2()?), 6),
        probe("BOUND", bound, 5),
        probe("INTO", overflow, 4),
        probe("DIV by zero", divide, 0),
        value("LAR of data", access_rights, NO_EXCEPTION, 0x00C0_9300),
        value("LSL of a small segment", segment_limit, NO_EXCEPTION, 0xFFF),
        value("VERW of a read-only segment", verify_write, NO_EXCEPTION, 0),
        value("ring 3 and a gate it may call", user_call, CALL, 0x33),
        value("ring 3, call gate with a parameter, and back", call_gate, CALL, 0x1234 + USER_ESP as u32),
        probe("ring 3, IN of a port the map allows", |a| user_in(a, 0x3FF), CALL),
        probe("ring 3, IN of a port the map denies", |a| user_in(a, 0x80), GP),
        probe("ring 3, DS = ring 0 data", user_kernel_data, GP | 0x10 << 8),
    ]
}

fn load_selector(a: &mut Asm, selector: i32) -> Result<(), AsmError> {
    code! { a =>
        mov eax, selector;
        mov es, eax;
    }
    Ok(())
}

fn load_from(a: &mut Asm, selector: i32, offset: i32, bytes: i32) -> Result<(), AsmError> {
    load_selector(a, selector)?;
    match bytes {
        1 => a.code.mov(cl, byte_ptr(offset).es())?,
        _ => a.code.mov(ecx, dword_ptr(offset).es())?,
    }
    Ok(())
}

/// The exception needs the stack too, so ESP must be inside.
fn past_stack_limit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, SMALL;
        mov ss, eax;
        mov esp, 0xF00;
        mov ecx, dword_ptr(0x1000).ss();
    }
    Ok(())
}

fn stack_absent(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, ABSENT;
        mov ss, eax;
    }
    Ok(())
}

fn stack_read_only(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, READ_ONLY;
        mov ss, eax;
    }
    Ok(())
}

fn stack_null(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        xor eax, eax;
        mov ss, eax;
    }
    Ok(())
}

fn store_read_only(a: &mut Asm) -> Result<(), AsmError> {
    load_selector(a, READ_ONLY)?;
    Ok(a.code.mov(byte_ptr(0).es(), al)?)
}

fn store_through_code(a: &mut Asm) -> Result<(), AsmError> {
    Ok(a.code.mov(byte_ptr(SEGMENT_BASE).cs(), al)?)
}

fn load_task(a: &mut Asm, selector: i32) -> Result<(), AsmError> {
    code! { a =>
        mov eax, selector;
        ltr ax;
    }
    Ok(())
}

fn bound(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov dword_ptr(SEGMENT_BASE), -1;
        mov dword_ptr(SEGMENT_BASE + 4), 5;
        mov eax, -1; // signed: inside
        bound eax, qword_ptr(SEGMENT_BASE);
        mov eax, 6;
        bound eax, qword_ptr(SEGMENT_BASE);
        mov ebx, 1;
    }
    Ok(())
}

fn overflow(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        xor eax, eax;
    }
    a.code.db(&[0xCE])?; // INTO, not yet; `into` is another method in Rust
    code! { a =>
        mov eax, 0x7FFF_FFFF;
        inc eax;
    }
    a.code.db(&[0xCE])?;
    Ok(a.code.mov(ebx, 1)?)
}

fn divide(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        xor ecx, ecx;
        div ecx;
    }
    Ok(())
}

fn access_rights(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, KERNEL_DATA;
        lar ebx, eax;
        and ebx, 0x00F0_FF00; // the others are undefined
    }
    Ok(())
}

fn segment_limit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, SMALL;
        lsl ebx, eax;
    }
    Ok(())
}

fn verify_write(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, READ_ONLY;
        verw ax;
        setz bl;
        movzx ebx, bl;
    }
    Ok(())
}

/// IRET to ring 3, to the label `.user`.
fn go_to_user(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push USER_DATA;
        push USER_ESP;
        push 2;
        push USER_CODE_32;
        addr eax, ".user";
        push eax;
        mov eax, USER_DATA;
        mov ds, eax;
        iretd;
    ".user":
    }
    Ok(())
}

fn user_call(a: &mut Asm) -> Result<(), AsmError> {
    go_to_user(a)?;
    code! { a =>
        mov bx, cs;
        and ebx, 3;
        mov ecx, ebx;
        shl ebx, 4;
        or ebx, ecx;
        int CALL;
    }
    Ok(())
}

/// The gate copies one dword from the caller's stack; `RETF 4` releases it on both.
fn call_gate(a: &mut Asm) -> Result<(), AsmError> {
    go_to_user(a)?;
    a.code.push(0x1234)?;
    a.code.call_far(CALL_GATE as u16, 0)?;
    code! { a =>
        add ebx, esp;
        int CALL;
    }
    Ok(())
}

fn user_in(a: &mut Asm, port: i32) -> Result<(), AsmError> {
    go_to_user(a)?;
    code! { a =>
        mov edx, port;
        in_ al, dx;
        int CALL;
    }
    Ok(())
}

fn user_kernel_data(a: &mut Asm) -> Result<(), AsmError> {
    go_to_user(a)?;
    load_selector(a, KERNEL_DATA)?;
    Ok(a.code.int(CALL)?)
}

/// Runs before 64-bit mode: all probes, then a trip to real mode.
fn prelude(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "prelude":
        mov al, 0xFF; // no interrupts from the 8259s, whatever the IVT would do with them
        out 0x21, al;
        out 0xA1, al;
        call "set_up_tables";
    }
    let mut slot = var::RESULTS;
    for probe in protected_probes() {
        a.label(&format!("probe {}", probe.name))?;
        begin_probe(a)?;
        (probe.emit)(a)?;
        end_probe(a, slot)?;
        slot += 8;
    }
    for (probe, iopl) in modes_real::v86_probes() {
        a.label(&format!("probe {}", probe.name))?;
        let code = snippet_of(16, CODE_AT, |a| {
            (probe.emit)(a)?;
            Ok(a.code.int(CALL)?)
        })?;
        copy_16(a, &code)?;
        begin_probe(a)?;
        enter_v86(a, iopl)?;
        end_probe(a, slot)?;
        slot += 8;
    }
    copy_16(a, &snippet_of(16, CODE_AT, modes_real::real_mode)?)?;
    modes_real::visit_real_mode(a)?;
    a.code.ret()?;
    set_up_tables(a)?;
    recorder_32(a)
}

fn begin_probe(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        addr eax, ".end";
        mov dword_ptr(var::RESUME), eax;
        mov dword_ptr(var::RESUME_RSP), esp;
        mov dword_ptr(OUTCOME), NO_EXCEPTION;
        xor ebx, ebx;
    }
    Ok(())
}

fn end_probe(a: &mut Asm, slot: i32) -> Result<(), AsmError> {
    code! { a =>
    ".none":
        jmp "no_exception"; // which goes on at `.end`, as the recorder does
    ".end":
        mov eax, dword_ptr(OUTCOME);
        mov dword_ptr(slot), eax;
        mov dword_ptr(slot + 4), ebx;
    }
    Ok(())
}

/// IRETD with VM set in the image of EFLAGS: pops also ESP, SS, ES, DS, FS, GS.
fn enter_v86(a: &mut Asm, iopl: i32) -> Result<(), AsmError> {
    code! { a =>
        push 0x5000; // GS
        push 0x4000; // FS
        push 0x3000; // DS
        push 0x2000; // ES
        push 0x0000; // SS
        push 0x6FFE; // ESP
        push 1 << 17 | iopl << 12 | 2;
        push 0;
        push CODE_AT;
        iretd;
    }
    Ok(())
}

fn copy_16(a: &mut Asm, bytes: &[u8]) -> Result<(), AsmError> {
    let blob = a.blob(bytes);
    a.address(esi, &blob)?;
    code! { a =>
        mov edi, CODE_AT;
        mov ecx, bytes.len() as i32;
        rep movsb;
    }
    Ok(())
}

/// Descriptors, the call gate, the TSS with its I/O map, and an IDT of 64 gates of which one is for all rings.
fn set_up_tables(a: &mut Asm) -> Result<(), AsmError> {
    a.label("set_up_tables")?;
    for (selector, value) in more_descriptors() {
        code! { a =>
            mov dword_ptr(GDT + selector), value as u32;
            mov dword_ptr(GDT + selector + 4), (value >> 32) as u32;
        }
    }
    let gate_attributes = |access: i32, low: i32| access << 8 | low;
    code! { a =>
        mov word_ptr(var::DESCRIPTOR_TABLE), GDT_LIMIT;
        mov dword_ptr(var::DESCRIPTOR_TABLE + 2), GDT;
        lgdt ptr(var::DESCRIPTOR_TABLE);
        addr eax, "call_gate_target";
        mov word_ptr(GDT + CALL_GATE), ax;
        mov word_ptr(GDT + CALL_GATE + 2), CODE_32;
        mov word_ptr(GDT + CALL_GATE + 4), gate_attributes(0xEC, 1) as u32;
        shr eax, 16;
        mov word_ptr(GDT + CALL_GATE + 6), ax;
        mov dword_ptr(TSS_32 + 4), ESP_0;
        mov dword_ptr(TSS_32 + 8), KERNEL_DATA;
        mov dword_ptr(TSS_32 + 100), IO_MAP << 16;
        mov edi, TSS_32 + IO_MAP;
        mov ecx, IO_PORTS / 8 + 1;
        mov al, 0xFF;
        rep stosb; // all ports denied,
        mov byte_ptr(TSS_32 + IO_MAP + 0x3FF / 8), 0x7F; // but 3FFh
        mov eax, TSS_SELECTOR;
        ltr ax;
        xor eax, eax;
        lldt ax;
        addr esi, "vectors_32";
        mov edi, IDT_32;
        mov ecx, IDT_GATES;
    ".gate":
        lodsd;
        mov word_ptr(edi), ax;
        mov word_ptr(edi + 2), CODE_32;
        mov word_ptr(edi + 4), 0x8E00u32;
        shr eax, 16;
        mov word_ptr(edi + 6), ax;
        add edi, 8;
        dec ecx;
        jnz ".gate";
        mov byte_ptr(IDT_32 + CALL as i32 * 8 + 5), 0xEE; // DPL 3
        mov word_ptr(var::DESCRIPTOR_TABLE), IDT_GATES * 8 - 1;
        mov dword_ptr(var::DESCRIPTOR_TABLE + 2), IDT_32;
        lidt ptr(var::DESCRIPTOR_TABLE);
        ret;
    "call_gate_target":
        mov ebx, dword_ptr(esp + 8); // the parameter, behind EIP and CS
        retf_1 4;
    }
    Ok(())
}

/// Every vector: writes `OUTCOME`, keeps EBX, drops the frame, and goes on at the end of the probe.
fn recorder_32(a: &mut Asm) -> Result<(), AsmError> {
    for vector in 0..IDT_GATES {
        a.label(&format!("vector_32 {vector}"))?;
        if ![8, 10, 11, 12, 13, 14, 17].contains(&vector) {
            a.code.push(0)?;
        }
        code! { a =>
            push vector;
            jmp "recorder_32";
        }
    }
    a.label("vectors_32")?;
    for vector in 0..IDT_GATES {
        a.pointer_32(&format!("vector_32 {vector}"))?;
    }
    code! { a =>
    "recorder_32":
        mov ecx, ds;
        mov eax, KERNEL_DATA;
        mov ds, eax;
        mov dword_ptr(DS_INSIDE), ecx;
        mov eax, dword_ptr(esp + 4); // the error code
        shl eax, 8;
        or eax, dword_ptr(esp);
        mov ecx, dword_ptr(esp + 16); // EFLAGS
        and ecx, 1 << 17;
        shl ecx, 14;
        or eax, ecx;
        mov dword_ptr(OUTCOME), eax;
        mov eax, dword_ptr(esp + 8);
        mov dword_ptr(EIP_PUSHED), eax;
        mov eax, dword_ptr(esp + 32); // of virtual-8086 mode
        mov dword_ptr(DS_PUSHED), eax;
    "no_exception":
        mov eax, KERNEL_DATA;
        mov ds, eax;
        mov es, eax;
        mov ss, eax;
        mov esp, dword_ptr(var::RESUME_RSP);
        cld;
        jmp dword_ptr(var::RESUME);
    }
    Ok(())
}

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    let probes = protected_probes().into_iter().chain(modes_real::v86_probes().into_iter().map(|(probe, _)| probe));
    for (slot, probe) in (var::RESULTS..).step_by(8).zip(probes) {
        let want = i64::from(probe.outcome) | i64::from(probe.result) << 32;
        check_at(a, probe.name, slot, want)?;
    }
    // The last virtual-8086 probe loads 1234h into DS.
    code! { a =>
        mov ebx, dword_ptr(DS_PUSHED);
        movzx ecx, word_ptr(DS_INSIDE);
    }
    check(a, "DS pushed when virtual-8086 mode is left", rbx, 0x1234)?;
    check(a, "DS inside the handler", rcx, 0)?;
    modes_real::check_real_mode(a)?;
    code! { a =>
        jmp "finish";
    }
    Ok(())
}
