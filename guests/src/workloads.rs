//! Small kernels that do one kind of work a known number of times: for `egret bench` and the benches.
//!
//! Each is a multiboot kernel in 64-bit mode that ends by printing DONE and writing 0 to the debug-exit port F4h. They need no devices and take no
//! interrupts, so any PC emulator with a multiboot loader can run them.

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};
use crate::tests_kernels::kit::*;

/// A workload.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Multiboot-1 ELF file.
    pub image: Vec<u8>,
}

type Emit = fn(&mut Asm) -> Result<(), AsmError>;
const WORKLOADS: [(&str, &str, Emit); 6] = [
    ("integer", "adds, shifts, multiplications and branches in registers", integer),
    ("memory", "loads and stores all over 16 MiB", memory),
    ("calls", "a recursive function", calls),
    ("float", "scalar and packed SSE2 arithmetic", float),
    ("syscalls", "SYSCALL and SYSRET between rings", syscalls),
    ("faults", "page faults that map a page", faults),
];

/// All workloads, each `scale` times as long as its shortest run.
///
/// # Panics
/// Never: the kernels are built in the unit tests.
#[must_use]
pub fn all(scale: u16) -> Vec<Workload> {
    WORKLOADS
        .iter()
        .map(|(name, about, emit)| Workload { name, about, image: build_kernel_with(*emit, scale).expect("workloads assemble") })
        .collect()
}

/// `main` repeats the work, a routine called `work` that may use every register but R15, `scale` times.
fn build_kernel_with(emit: Emit, scale: u16) -> Result<Vec<u8>, AsmError> {
    build_kernel_from(&|a| {
        code! { a =>
        "main":
            mov r15d, u32::from(scale.max(1));
        ".again":
            call "work";
            dec r15d;
            jnz ".again";
            print "DONE\n";
            xor eax, eax;
            out 0xF4, al;
            hlt;
        }
        emit(a)
    })
}

fn integer(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "work":
        mov ecx, 200_000;
        mov eax, 1;
        xor ebx, ebx;
        mov esi, 0x9E37_79B9u32;
    ".loop":
        add rbx, rax;
        imul_2 rax, rsi;
        mov rdx, rax;
        shr rdx, 29;
        xor rax, rdx;
        test al, 3;
        jz ".skip";
        lea rbx, qword_ptr(rbx + rax * 2);
        rol rbx, 7;
    ".skip":
        sub ecx, 1;
        jnz ".loop";
        ret;
    }
    Ok(())
}

/// 16 MiB behind everything the kit uses.
const BUFFER: i32 = 0x80_0000;
const BUFFER_QUADS: i32 = 0x20_0000;

fn memory(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "work":
        mov ecx, 200_000;
        mov edi, BUFFER;
        mov eax, 12345;
    ".loop":
        imul_3 eax, eax, 1_103_515_245;
        add eax, 12345;
        mov edx, eax;
        shr edx, 3;
        and edx, BUFFER_QUADS - 1;
        mov rbx, qword_ptr(rdi + rdx * 8);
        add rbx, rax;
        mov qword_ptr(rdi + rdx * 8), rbx;
        add qword_ptr(rdi), 1;
        dec ecx;
        jnz ".loop";
        ret;
    }
    Ok(())
}

/// The number of calls is that of the naive Fibonacci function of this.
const DEPTH: i32 = 20;

fn calls(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "work":
        mov edi, DEPTH;
        call "fib";
        ret;
    "fib":
        cmp edi, 2;
        jl ".leaf";
        push rbx;
        push rdi;
        dec edi;
        call "fib";
        mov rbx, rax;
        pop rdi;
        sub edi, 2;
        call "fib";
        add rax, rbx;
        pop rbx;
        ret;
    ".leaf":
        mov eax, edi;
        ret;
    }
    Ok(())
}

fn float(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "work":
        mov ecx, 100_000;
        mov eax, 3;
        cvtsi2sd xmm0, eax;
        mov eax, 7;
        cvtsi2sd xmm1, eax;
        movapd xmm2, xmm0;
        unpcklpd xmm2, xmm1;
        movapd xmm3, xmm2;
    ".loop":
        movapd xmm4, xmm0;
        mulsd xmm4, xmm1;
        addsd xmm4, xmm0;
        divsd xmm4, xmm1;
        sqrtsd xmm0, xmm4;
        addpd xmm3, xmm2;
        mulpd xmm3, xmm2;
        subpd xmm3, xmm2;
        minpd xmm3, xmm2;
        ucomisd xmm0, xmm1;
        ja ".big";
        addsd xmm0, xmm1;
    ".big":
        dec ecx;
        jnz ".loop";
        ret;
    }
    Ok(())
}

/// `syscall` in a loop, at the first page of the kit's window, which user code may execute.
const USER_LOOP: [u8; 4] = [0x0f, 0x05, 0xeb, 0xfc];

fn syscalls(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "work":
        mov dword_ptr(WINDOW), u32::from_le_bytes(USER_LOOP);
        mov ecx, 0xC000_0081u32; // STAR: kernel selectors 08h and 10h, user selectors 18h and 20h
        xor eax, eax;
        mov edx, 0x0013_0008;
        wrmsr;
        mov ecx, 0xC000_0082u32; // LSTAR
        lea rax, "entry";
        mov rdx, rax;
        shr rdx, 32;
        wrmsr;
        mov ecx, 0xC000_0084u32; // SFMASK
        xor eax, eax;
        xor edx, edx;
        wrmsr;
        mov ebx, 20_000;
        mov ecx, WINDOW;
        mov r11d, 2;
        sysretq;
    "entry":
        dec ebx;
        jz ".enough";
        sysretq;
    ".enough":
        mov eax, KERNEL_DATA;
        mov ss, eax;
        ret;
    }
    Ok(())
}

/// Frames that the faults map.
const FRAMES: i32 = 0x80_0000;
const PAGES: i32 = 512;

fn faults(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "work":
        lea rax, "fault";
        mov word_ptr(IDT + 14 * 16), ax;
        shr rax, 16;
        mov word_ptr(IDT + 14 * 16 + 6), ax;
        mov ebx, 8;
    ".pass":
        mov ecx, PAGES;
        mov edi, WINDOW2;
    ".touch":
        mov qword_ptr(rdi), rcx;
        add edi, 0x1000;
        dec ecx;
        jnz ".touch";
        mov edi, WINDOW2_PT;
        mov ecx, PAGES;
        xor eax, eax;
        rep stosq;
        mov rax, cr3;
        mov cr3, rax;
        dec ebx;
        jnz ".pass";
        ret;
    "fault":
        push rax;
        push rdx;
        mov rax, cr2;
        sub eax, WINDOW2;
        shr eax, 12;
        mov edx, eax;
        shl edx, 12;
        add edx, FRAMES | 3;
        mov qword_ptr(WINDOW2_PT + rax * 8), rdx;
        pop rdx;
        pop rax;
        add rsp, 8;
        iretq;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_are_built() {
        let all = super::all(3);
        assert_eq!(all.len(), 6);
        assert!(all.iter().all(|w| w.image.starts_with(b"\x7fELF")));
    }
}
