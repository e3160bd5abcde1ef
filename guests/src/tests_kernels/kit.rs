//! What all test kernels share: entry into 64-bit mode, the console, the checks, and a recorder of exceptions.
//!
//! A kernel is a `main` in 64-bit code that ends with `jmp "finish"`. `check` compares and prints `PASS name` or `FAIL name got want`;
//! `finish` also compares the number of checks that ran with the number that were emitted, so that none is skipped in silence.
//!
//! Every vector below 64, and 80h, which user code may call, goes to one recorder. It stores what the CPU pushed and CR2, then
//! asks the hook, if there is one (RDI = frame; RAX not 0 means: return to the frame as it is now). Otherwise it goes on at
//! `RESUME` in ring 0 with the general registers as they were; without that the kernel fails.

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code, join, link};
use crate::os::elf::{MULTIBOOT_LOADER_MAGIC, executable, multiboot_header};
use crate::os::serial;

pub(crate) const IMAGE: i32 = 0x10_0000;
pub(crate) const KERNEL: i32 = 0x10_8000;
pub(crate) const IDT: i32 = 0x15_1000;
pub(crate) const GDT: i32 = 0x15_2000;
pub(crate) const TSS: i32 = 0x15_2100;
pub(crate) const BOOT_STACK_TOP: i32 = 0x15_8000;
/// Stack of `main`, and the one that the CPU switches to when it comes from ring 3.
pub(crate) const STACK_TOP: i32 = 0x16_0000;
pub(crate) const RING_0_STACK_TOP: i32 = 0x16_4000;
/// A stack of its own for a recorder that must not touch the interrupted one (IST1).
pub(crate) const IST_STACK_TOP: i32 = 0x16_8000;

pub(crate) const PML4: i32 = 0x17_0000;
const PDPT: i32 = 0x17_1000;
const PD: i32 = 0x17_2000;
/// Page directory of the GiB at `WINDOW`, and the page tables of its first two entries.
pub(crate) const WINDOW_PD: i32 = 0x17_3000;
pub(crate) const WINDOW_PT: i32 = 0x17_4000;
pub(crate) const WINDOW2_PT: i32 = 0x17_5000;
/// Page directory of the fourth GiB, for the local APIC.
pub(crate) const HIGH_PD: i32 = 0x17_6000;
const BSS: i32 = 0x15_0000;
const BSS_END: i32 = 0x18_0000;

/// 512 pages for tests, present, writable, user, executable; page `i` is the frame `WINDOW_FRAMES + i * 4096`.
pub(crate) const WINDOW: i32 = 0x4000_0000;
pub(crate) const WINDOW_FRAMES: i32 = 0x40_0000;
/// 512 more behind them under a page-directory entry of their own, none present.
pub(crate) const WINDOW2: i32 = 0x4020_0000;

pub(crate) const KERNEL_CODE: i32 = 0x08;
pub(crate) const KERNEL_DATA: i32 = 0x10;
pub(crate) const USER_DATA: i32 = 0x18 | 3;
pub(crate) const USER_CODE: i32 = 0x20 | 3;
const TSS_SELECTOR: i32 = 0x28;
/// 32-bit code segment, for tests that run before 64-bit mode.
pub(crate) const CODE_32: i32 = 0x38;
/// 16-bit code and data segments with base 0.
pub(crate) const CODE_16: i32 = 0x40;
pub(crate) const DATA_16: i32 = 0x48;
pub(crate) const DESCRIPTORS: [u64; 10] = [
    0,
    0x00AF_9A00_0000_FFFF,
    0x00CF_9200_0000_FFFF,
    0x00CF_F200_0000_FFFF,
    0x00AF_FA00_0000_FFFF,
    0x0000_8900_0000_0067 | ((TSS as u64 & 0xFF_FFFF) << 16),
    0,
    0x00CF_9A00_0000_FFFF,
    0x0000_9A00_0000_FFFF,
    0x0000_9200_0000_FFFF,
];

/// The software interrupt that user code may call.
pub(crate) const USER_CALL: i32 = 0x80;
const VECTORS: i32 = 64;
const WITH_ERROR_CODE: [i32; 7] = [8, 10, 11, 12, 13, 14, 17];

/// Variables, eight bytes each.
pub(crate) mod var {
    use super::BSS;
    pub(crate) const DESCRIPTOR_TABLE: i32 = BSS;
    pub(crate) const CHECKS: i32 = BSS + 0x10;
    pub(crate) const FAILED: i32 = BSS + 0x18;
    pub(crate) const HOOK: i32 = BSS + 0x20;
    pub(crate) const RESUME: i32 = BSS + 0x28;
    pub(crate) const RESUME_RSP: i32 = BSS + 0x30;
    /// The last exception, and how many there were.
    pub(crate) const VECTOR: i32 = BSS + 0x38;
    pub(crate) const ERROR: i32 = BSS + 0x40;
    pub(crate) const RIP: i32 = BSS + 0x48;
    pub(crate) const RFLAGS: i32 = BSS + 0x50;
    pub(crate) const CR2: i32 = BSS + 0x58;
    pub(crate) const COUNT: i32 = BSS + 0x60;
    /// Free for the tests.
    pub(crate) const TEST: i32 = BSS + 0x100;
    /// Results that 32-bit code leaves for `main` to check.
    pub(crate) const RESULTS: i32 = BSS + 0x400;
}

/// The recorder's frame.
pub(crate) mod frame {
    pub(crate) const RCX: i32 = 13 * 8;
    pub(crate) const RSI: i32 = 9 * 8;
    pub(crate) const RDI: i32 = 8 * 8;
    pub(crate) const VECTOR: i32 = 15 * 8;
    pub(crate) const ERROR: i32 = 16 * 8;
    pub(crate) const RIP: i32 = 17 * 8;
    pub(crate) const CS: i32 = 18 * 8;
    pub(crate) const RFLAGS: i32 = 19 * 8;
    pub(crate) const RSP: i32 = 20 * 8;
    pub(crate) const SS: i32 = 21 * 8;
}

const SAVED: [AsmRegister64; 15] = [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

type Emit = fn(&mut Asm) -> Result<(), AsmError>;

/// A kernel of 64-bit code only.
pub(crate) fn build_kernel(main: Emit) -> Result<Vec<u8>, AsmError> {
    build(main, None)
}

/// A kernel of 64-bit code that a closure emits.
pub(crate) fn build_kernel_from(main: &dyn Fn(&mut Asm) -> Result<(), AsmError>) -> Result<Vec<u8>, AsmError> {
    assemble(main, None)
}

/// A kernel from its 64-bit `main` and what runs before 64-bit mode: `prelude`, called with a flat 32-bit GDT loaded.
pub(crate) fn build(main: Emit, prelude: Option<Emit>) -> Result<Vec<u8>, AsmError> {
    assemble(&main, prelude)
}

fn assemble(main: &dyn Fn(&mut Asm) -> Result<(), AsmError>, prelude: Option<Emit>) -> Result<Vec<u8>, AsmError> {
    let mut low = Asm::new(32, IMAGE)?;
    boot(&mut low, prelude.is_some())?;
    if let Some(prelude) = prelude {
        prelude(&mut low)?;
    }
    let mut high = Asm::new(64, KERNEL)?;
    kernel(&mut high)?;
    main(&mut high)?;
    finish(&mut high)?;
    let image = join(&link(vec![low, high])?)?;
    if image.base + image.bytes.len() as u64 > BSS as u64 {
        return Err(AsmError::Overlap(image.base));
    }
    Ok(executable(IMAGE as u32 + 12, &image, BSS_END as u32))
}

fn boot(a: &mut Asm, with_prelude: bool) -> Result<(), AsmError> {
    a.code.dd(&multiboot_header())?;
    code! { a =>
    "start":
        cli;
        cld;
        mov esp, BOOT_STACK_TOP;
        mov ebp, eax;
        mov edi, BSS;
        mov ecx, (BSS_END - BSS) / 4;
        xor eax, eax;
        rep stosd;
        call "early_serial";
        cmp ebp, MULTIBOOT_LOADER_MAGIC;
        jne "die";
        call "build_tables";
    }
    for (at, descriptor) in (GDT..).step_by(8).zip(DESCRIPTORS) {
        code! { a =>
            mov dword_ptr(at), descriptor as u32;
            mov dword_ptr(at + 4), (descriptor >> 32) as u32;
        }
    }
    code! { a =>
        mov word_ptr(var::DESCRIPTOR_TABLE), (8 * DESCRIPTORS.len() - 1) as u32;
        mov dword_ptr(var::DESCRIPTOR_TABLE + 2), GDT;
        lgdt ptr(var::DESCRIPTOR_TABLE);
        mov eax, KERNEL_DATA;
        mov ds, eax;
        mov es, eax;
        mov ss, eax;
    }
    a.far_jump(CODE_32 as u16, "in_own_segments", true)?;
    a.label("in_own_segments")?;
    if with_prelude {
        code! { a =>
            call "prelude";
        }
    }
    enter_long_mode(a)?;
    serial::early(a)?;
    build_tables(a)
}

fn enter_long_mode(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, 0x620; // PAE, OSFXSR, OSXMMEXCPT
        mov cr4, eax;
        mov eax, PML4;
        mov cr3, eax;
        mov ecx, 0xC000_0080u32; // EFER: SCE, LME, NXE
        rdmsr;
        or eax, 0x901;
        wrmsr;
        mov eax, 0x8001_0033u32; // PG, WP, NE, ET, MP, PE
        mov cr0, eax;
    }
    a.far_jump(KERNEL_CODE as u16, "kernel", true)?;
    code! { a =>
    "die": // ESI = text
        call "early_print";
        mov al, 1;
        out 0xF4, al;
        hlt;
        jmp "die";
    }
    Ok(())
}

/// Identity 2 MiB pages for the first GiB, the windows, and the local APIC.
fn build_tables(a: &mut Asm) -> Result<(), AsmError> {
    let fill = [(PD, 0x83, 0x20_0000, "pd"), (WINDOW_PT, WINDOW_FRAMES | 7, 0x1000, "pt")];
    a.label("build_tables")?;
    for (table, first, step, name) in fill {
        let label = format!(".{name}");
        code! { a =>
            mov edi, table;
            mov eax, first;
            mov ecx, 512;
        }
        a.label(&label)?;
        let again = a.to(&label);
        code! { a =>
            mov dword_ptr(edi), eax;
            add edi, 8;
            add eax, step;
            dec ecx;
        }
        a.code.jnz(again)?;
    }
    code! { a =>
        mov dword_ptr(PML4), PDPT | 7;
        mov dword_ptr(PDPT), PD | 3;
        mov dword_ptr(PDPT + 8), WINDOW_PD | 7;
        mov dword_ptr(PDPT + 24), HIGH_PD | 3;
        mov dword_ptr(WINDOW_PD), WINDOW_PT | 7;
        mov dword_ptr(WINDOW_PD + 8), WINDOW2_PT | 7;
        mov dword_ptr(HIGH_PD + 0x1F7 * 8), 0xFEE0_009Bu32; // present, writable, uncached, large
        ret;
    }
    Ok(())
}

fn kernel(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "kernel":
        mov eax, KERNEL_DATA;
        mov ds, eax;
        mov es, eax;
        mov ss, eax;
        mov fs, eax;
        mov gs, eax;
        mov esp, STACK_TOP;
        mov dword_ptr(TSS + 4), RING_0_STACK_TOP;
        mov dword_ptr(TSS + 8), 0;
        mov dword_ptr(TSS + 36), IST_STACK_TOP;
        mov word_ptr(TSS + 102), 104;
        mov byte_ptr(GDT + TSS_SELECTOR + 5), 0x89; // available, whatever the prelude did with it
        mov eax, TSS_SELECTOR;
        ltr ax;
        call "init_idt";
        jmp "main";
    }
    idt(a)?;
    recorder(a)?;
    record(a)?;
    console(a)?;
    check_routine(a)
}

fn idt(a: &mut Asm) -> Result<(), AsmError> {
    for vector in (0..VECTORS).chain([USER_CALL]) {
        a.label(&format!("vector {vector}"))?;
        if !WITH_ERROR_CODE.contains(&vector) {
            a.code.push(0)?;
        }
        a.code.push(vector)?;
        let target = a.to("recorder");
        a.code.jmp(target)?;
    }
    a.label("vectors")?;
    for vector in 0..=USER_CALL {
        let vector = if vector < VECTORS { vector } else { USER_CALL };
        a.pointer(&format!("vector {vector}"))?;
    }
    code! { a =>
    "init_idt":
        lea rsi, "vectors";
        mov edi, IDT;
        mov ecx, USER_CALL + 1;
    ".gate":
        lodsq;
        mov word_ptr(rdi), ax;
        mov word_ptr(rdi + 2), KERNEL_CODE;
        mov word_ptr(rdi + 4), 0x8E00u32;
        shr rax, 16;
        mov word_ptr(rdi + 6), ax;
        shr rax, 16;
        mov qword_ptr(rdi + 8), rax;
        add edi, 16;
        dec ecx;
        jnz ".gate";
        mov byte_ptr(IDT + USER_CALL * 16 + 5), 0xEE; // DPL 3
        mov byte_ptr(IDT + 8 * 16 + 4), 1; // double faults use IST1
        mov word_ptr(var::DESCRIPTOR_TABLE), (USER_CALL + 1) * 16 - 1;
        mov qword_ptr(var::DESCRIPTOR_TABLE + 2), IDT;
        lidt ptr(var::DESCRIPTOR_TABLE);
        ret;
    }
    Ok(())
}

fn recorder(a: &mut Asm) -> Result<(), AsmError> {
    a.label("recorder")?;
    SAVED.iter().try_for_each(|&register| a.code.push(register))?;
    code! { a =>
        cld;
        mov rdi, rsp;
        call "record";
    }
    SAVED.iter().rev().try_for_each(|&register| a.code.pop(register))?;
    code! { a =>
        add rsp, 16;
        iretq;
    }
    Ok(())
}

fn record(a: &mut Asm) -> Result<(), AsmError> {
    a.label("record")?;
    for (from, to) in [(frame::VECTOR, var::VECTOR), (frame::ERROR, var::ERROR), (frame::RIP, var::RIP), (frame::RFLAGS, var::RFLAGS)] {
        code! { a =>
            mov rax, qword_ptr(rdi + from);
            mov qword_ptr(to), rax;
        }
    }
    code! { a =>
        mov rax, cr2;
        mov qword_ptr(var::CR2), rax;
        inc qword_ptr(var::COUNT);
        mov rax, qword_ptr(var::HOOK);
        test rax, rax;
        jz ".no_hook";
        push rdi;
        call rax;
        pop rdi;
        test rax, rax;
        jnz ".return";
    ".no_hook":
        mov rax, qword_ptr(var::RESUME);
        test rax, rax;
        jz "unexpected";
        mov qword_ptr(var::RESUME), 0;
        mov qword_ptr(rdi + frame::RIP), rax;
        mov qword_ptr(rdi + frame::CS), KERNEL_CODE;
        mov qword_ptr(rdi + frame::SS), KERNEL_DATA;
        mov qword_ptr(rdi + frame::RFLAGS), 2;
        mov rax, qword_ptr(var::RESUME_RSP);
        mov qword_ptr(rdi + frame::RSP), rax;
    ".return":
        ret;
    "unexpected":
        print "FAIL unexpected exception: vector, error, rip, cr2 ";
    }
    for value in [var::VECTOR, var::ERROR, var::RIP, var::CR2] {
        code! { a =>
            mov rdi, qword_ptr(value);
            call "print_hex";
            mov edi, i32::from(b' ');
            call "putc";
        }
    }
    code! { a =>
        inc qword_ptr(var::FAILED);
        jmp "finish";
    }
    Ok(())
}

fn console(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "putc": // DIL
        mov edx, 0x3FD;
    ".busy":
        in_ al, dx;
        test al, 0x20;
        jz ".busy";
        mov edx, 0x3F8;
        mov eax, edi;
        out dx, al;
        ret;
    "print": // RDI
        push rbx;
        mov rbx, rdi;
    ".next":
        movzx edi, byte_ptr(rbx);
        inc rbx;
        test edi, edi;
        jz ".done";
        call "putc";
        jmp ".next";
    ".done":
        pop rbx;
        ret;
    "print_hex": // RDI, without leading zeros
        push rbx;
        push r12;
        mov rbx, rdi;
        mov r12d, 16;
    ".skip":
        cmp r12d, 1;
        je ".digit";
        mov rax, rbx;
        shr rax, 60;
        jnz ".digit";
        rol rbx, 4;
        dec r12d;
        jmp ".skip";
    ".digit":
        rol rbx, 4;
        mov edi, ebx;
        and edi, 0xF;
        add edi, i32::from(b'0');
        cmp edi, i32::from(b'9');
        jbe ".decimal";
        add edi, i32::from(b'A' - b'9' - 1);
    ".decimal":
        call "putc";
        dec r12d;
        jnz ".digit";
        pop r12;
        pop rbx;
        ret;
    }
    Ok(())
}

/// `check`: RDI = name, RSI = got, RDX = want. Keeps all registers and flags.
fn check_routine(a: &mut Asm) -> Result<(), AsmError> {
    a.label("check")?;
    a.code.pushfq()?;
    SAVED.iter().try_for_each(|&register| a.code.push(register))?;
    code! { a =>
        mov rbx, rdi;
        mov r12, rsi;
        mov r13, rdx;
        cld;
        inc qword_ptr(var::CHECKS);
        cmp r12, r13;
        jne ".differs";
        print "PASS ";
        mov rdi, rbx;
        call "print";
        jmp ".end";
    ".differs":
        inc qword_ptr(var::FAILED);
        print "FAIL ";
        mov rdi, rbx;
        call "print";
        print " got ";
        mov rdi, r12;
        call "print_hex";
        print " want ";
        mov rdi, r13;
        call "print_hex";
    ".end":
        print "\n";
    }
    SAVED.iter().rev().try_for_each(|&register| a.code.pop(register))?;
    code! { a =>
        popfq;
        ret;
    }
    Ok(())
}

fn finish(a: &mut Asm) -> Result<(), AsmError> {
    let checks = i64::from(a.tally);
    code! { a =>
    "finish":
        cli;
        text rdi, "number of checks";
        mov rsi, qword_ptr(var::CHECKS);
        mov rdx, checks;
        call "check";
        mov al, 1;
        cmp qword_ptr(var::FAILED), 0;
        jne ".exit";
    }
    let done = format!("{}\n", super::ALL_PASSED);
    a.load_string(rdi, &done)?;
    code! { a =>
        call "print";
        xor eax, eax;
    ".exit":
        mov ebx, eax;
        mov edx, 0x3FD;
    ".busy":
        in_ al, dx;
        test al, 0x40;
        jz ".busy";
        mov eax, ebx;
        out 0xF4, al;
    ".halt":
        cli;
        hlt;
        jmp ".halt";
    }
    Ok(())
}

/// Emits a check of a register. Destroys nothing.
pub(crate) fn check(a: &mut Asm, name: &str, got: AsmRegister64, want: i64) -> Result<(), AsmError> {
    a.tally += 1;
    code! { a =>
        push rdi;
        push rsi;
        push rdx;
        push got;
        pop rsi;
        mov rdx, want;
    }
    a.load_string(rdi, name)?;
    code! { a =>
        call "check";
        pop rdx;
        pop rsi;
        pop rdi;
    }
    Ok(())
}

/// Emits a check of eight bytes in memory.
pub(crate) fn check_at(a: &mut Asm, name: &str, at: i32, want: i64) -> Result<(), AsmError> {
    a.code.push(r15)?;
    a.code.mov(r15, qword_ptr(at))?;
    check(a, name, r15, want)?;
    Ok(a.code.pop(r15)?)
}

/// Emits a check that the address in memory at `at` is that of a label.
pub(crate) fn check_address(a: &mut Asm, name: &str, at: i32, label: &str) -> Result<(), AsmError> {
    let label = a.to(label);
    a.code.push(r15)?;
    a.code.lea(r15, ptr(label))?;
    a.code.sub(r15, qword_ptr(at))?;
    check(a, name, r15, 0)?;
    Ok(a.code.pop(r15)?)
}

/// Goes on at `resume` when the next exception comes; `VECTOR` is −1 until then. Destroys R15.
pub(crate) fn expect(a: &mut Asm, resume: &str) -> Result<(), AsmError> {
    let label = a.to(resume);
    a.code.lea(r15, ptr(label))?;
    code! { a =>
        mov qword_ptr(var::RESUME), r15;
        mov qword_ptr(var::RESUME_RSP), rsp;
        mov qword_ptr(var::VECTOR), -1;
    }
    Ok(())
}

/// Sets the hook to a label, or removes it. Destroys R15.
pub(crate) fn hook(a: &mut Asm, label: Option<&str>) -> Result<(), AsmError> {
    match label {
        Some(label) => {
            let label = a.to(label);
            a.code.lea(r15, ptr(label))?;
        }
        None => a.code.xor(r15d, r15d)?,
    }
    Ok(a.code.mov(qword_ptr(var::HOOK), r15)?)
}

/// Copies `bytes` to `to` at run time. Destroys RSI, RDI, RCX.
pub(crate) fn place(a: &mut Asm, bytes: &[u8], to: i32) -> Result<(), AsmError> {
    let blob = a.blob(bytes);
    let from = a.to(&blob);
    a.code.lea(rsi, ptr(from))?;
    code! { a =>
        mov edi, to;
        mov ecx, bytes.len() as i32;
        rep movsb;
    }
    Ok(())
}

/// Assembles a few instructions of 64-bit code at `base`.
pub(crate) fn snippet(base: i32, emit: impl FnOnce(&mut Asm) -> Result<(), AsmError>) -> Result<Vec<u8>, AsmError> {
    snippet_of(64, base, emit)
}

/// Assembles a few instructions of 16-, 32- or 64-bit code at `base`.
pub(crate) fn snippet_of(bits: u32, base: i32, emit: impl FnOnce(&mut Asm) -> Result<(), AsmError>) -> Result<Vec<u8>, AsmError> {
    let mut asm = Asm::new(bits, base)?;
    emit(&mut asm)?;
    Ok(link(vec![asm])?.remove(0).bytes)
}
