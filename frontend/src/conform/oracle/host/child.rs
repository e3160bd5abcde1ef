//! The child process: enters each program by IRETQ and gets it back in a signal handler, which goes straight on to the next.
//!
//! Nothing here allocates, locks, or uses thread-local data: FS and GS belong to the program. Strict seccomp lets the process read,
//! write, and exit, so that a program that gets to a system call does no harm.
#![allow(unsafe_code)]

use super::super::slot::{CODE, CODE_ONE, CODE_TWO, FILL, HIGH_SP, PAGE, PAGES, Slot, WINDOW, XSAVE, status};
use super::linux::{CODE_PAGES, Shared};
use std::arch::{asm, naked_asm};
use std::mem::offset_of;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// The last step of the setup.
pub const READY: u64 = 100;

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
/// The memory file, mapped where it can be written whole.
static ALIAS: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
/// The slot that runs.
static CURRENT: AtomicU64 = AtomicU64::new(u64::MAX);
/// The slot that ran at the last tick of the watchdog, and how many ticks it has.
static WATCHED: AtomicU64 = AtomicU64::new(u64::MAX);
static TICKS: AtomicU64 = AtomicU64::new(0);
/// Ticks a program may take: two seconds of a busy host.
const PATIENCE: u64 = 20;
const TICK_MICROS: i64 = 10_000;
/// Where `run_batch` was called from.
static STACK: AtomicU64 = AtomicU64::new(0);
/// The FS base of our own.
static OWN_FS: AtomicU64 = AtomicU64::new(0);

/// The stack from which IRETQ enters programs.
const ENTRY: u64 = HIGH_SP << 16;
const SIGNAL_STACK: usize = 1 << 18;

/// The child's whole life.
pub fn main(shared: *mut Shared, file: i32, commands: i32, answers: i32) -> ! {
    SHARED.store(shared, Relaxed);
    // SAFETY: see the steps; any failure ends the process, and the parent sees how far it came.
    unsafe {
        let ready = setup(shared, file);
        let header = &(*shared).header;
        if ready {
            header.step.store(READY, Relaxed);
            let mut byte = 0u8;
            libc::write(answers, (&raw const byte).cast(), 1);
            // Strict mode: read, write, exit and sigreturn.
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) == 0 {
                loop {
                    let n = libc::read(commands, (&raw mut byte).cast(), 1);
                    if n == 1 {
                        batch(shared);
                        libc::write(answers, (&raw const byte).cast(), 1);
                    } else if n == 0 || *libc::__errno_location() != libc::EINTR {
                        break;
                    }
                }
            }
        }
        loop {
            libc::syscall(libc::SYS_exit, 0);
        }
    }
}

/// Maps `pages` pages of the memory file at a fixed address.
unsafe fn map(at: u64, pages: u64, protection: i32, file: i32, page: u64) -> bool {
    // Populated: what is present must not depend on what ran before.
    let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
    // SAFETY: nothing is replaced.
    unsafe { libc::mmap(at as *mut _, (pages * PAGE) as usize, protection, flags, file, (page * PAGE) as i64) as u64 == at }
}

unsafe fn setup(shared: *mut Shared, file: i32) -> bool {
    use libc::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};
    const SIGNALS: [i32; 6] = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS, libc::SIGALRM];
    // SAFETY: system calls on memory that is new here; the header is atomic.
    unsafe {
        let step = &(*shared).header.step;
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        step.store(1, Relaxed);
        if !map(CODE_ONE, 1, PROT_READ | PROT_EXEC, file, 0) || !map(CODE_TWO, 2, PROT_READ | PROT_EXEC, file, 1) {
            return false;
        }
        step.store(2, Relaxed);
        for (n, (offset, write)) in PAGES.into_iter().enumerate() {
            let protection = PROT_READ | if write { PROT_WRITE } else { 0 };
            if !map(WINDOW + offset, 1, protection, file, CODE_PAGES + n as u64) {
                return false;
            }
        }
        step.store(3, Relaxed);
        let whole = ((CODE_PAGES + PAGES.len() as u64) * PAGE) as usize;
        let alias = libc::mmap(std::ptr::null_mut(), whole, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        let flags = MAP_PRIVATE | MAP_ANONYMOUS;
        let entry = libc::mmap(ENTRY as *mut _, PAGE as usize, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, -1, 0);
        let stack = libc::mmap(std::ptr::null_mut(), SIGNAL_STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
        if alias == libc::MAP_FAILED || entry as u64 != ENTRY || stack == libc::MAP_FAILED {
            return false;
        }
        ALIAS.store(alias.cast(), Relaxed);
        step.store(4, Relaxed);
        (*shared).header.ldt.store(descriptors().into(), Relaxed);
        let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: SIGNAL_STACK };
        if libc::sigaltstack(&stack, std::ptr::null_mut()) != 0 {
            return false;
        }
        for signal in SIGNALS {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = trap as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            if libc::sigaction(signal, &action, std::ptr::null_mut()) != 0 {
                return false;
            }
        }
        step.store(5, Relaxed);
        let mut own: u64;
        asm!("rdfsbase {}", out(reg) own);
        OWN_FS.store(own, Relaxed);
        let tick = libc::timeval { tv_sec: 0, tv_usec: TICK_MICROS };
        let timer = libc::itimerval { it_interval: tick, it_value: tick };
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, 0) == 0
    }
}

/// Makes the segments of [`super::super::program::DESCRIPTORS`]; false if the kernel has no LDT.
unsafe fn descriptors() -> bool {
    /// `struct user_desc` of the kernel.
    #[repr(C)]
    struct Descriptor {
        number: u32,
        base: u32,
        limit: u32,
        flags: u32,
    }
    const BIG: u32 = 1;
    const DOWN: u32 = 1 << 1;
    const CODE: u32 = 2 << 1;

    [(1, CODE, 0xffff), (2, 0, 0xffff), (3, BIG, 0x97ff), (4, BIG | DOWN, 0x8fff)].into_iter().all(|(number, flags, limit)| {
        let descriptor = Descriptor { number, base: WINDOW as u32, limit, flags };
        // SAFETY: the kernel reads the structure.
        unsafe { libc::syscall(libc::SYS_modify_ldt, 0x11, &raw const descriptor, size_of::<Descriptor>()) == 0 }
    })
}

/// Runs all new slots.
unsafe fn batch(shared: *mut Shared) {
    // SAFETY: the parent waits; the slots are ours.
    unsafe {
        let first = next(shared, 0);
        if !first.is_null() {
            run_batch(first);
        }
        CURRENT.store(u64::MAX, Relaxed);
    }
}

/// Prepares the first new slot from `from` on.
unsafe fn next(shared: *mut Shared, from: u64) -> *mut Slot {
    // SAFETY: the count is checked against the array.
    unsafe {
        let slots = &raw mut (*shared).slots;
        let count = (*shared).header.count.load(Relaxed).min((*slots).len() as u64);
        for n in from..count {
            let slot = &raw mut (*slots)[n as usize];
            if (*slot).status == status::NEW {
                CURRENT.store(n, Relaxed);
                code(&*slot, true);
                for (n, page) in (*slot).memory.iter().enumerate() {
                    let to = ALIAS.load(Relaxed).add((CODE_PAGES as usize + n) * PAGE as usize);
                    std::ptr::copy_nonoverlapping(page.as_ptr(), to, page.len());
                }
                return slot;
            }
        }
    }
    std::ptr::null_mut()
}

/// Puts the code of a slot into the code pages, or takes it out.
unsafe fn code(slot: &Slot, put: bool) {
    let at = slot.code_at;
    let page = if at >= CODE_TWO { at.wrapping_sub(CODE_TWO) + PAGE } else { at.wrapping_sub(CODE_ONE) };
    let end = if at >= CODE_TWO { CODE_PAGES * PAGE } else { PAGE };
    for (n, byte) in slot.code.iter().enumerate().take((slot.code_len as usize).min(CODE)) {
        let to = page.wrapping_add(n as u64);
        if to < end {
            // SAFETY: inside the code pages of the memory file.
            unsafe { ALIAS.load(Relaxed).add(to as usize).write(if put { *byte } else { FILL }) };
        }
    }
}

/// The signal handler. What `caught` returns says how to go on: 0 back to where the signal came, 1 back to `batch`, else the next slot.
#[unsafe(naked)]
unsafe extern "C" fn trap() {
    naked_asm!(
        "push 2",
        "popfq",
        "sub rsp, 8",
        "call {caught}",
        "add rsp, 8",
        "cmp rax, 1",
        "mov rdi, rax",
        "ja {enter}",
        "je 2f",
        "ret",
        "2:",
        "mov rsp, [rip + {stack}]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        caught = sym caught,
        enter = sym enter,
        stack = sym STACK,
    )
}

/// Remembers where to come back to, and enters the first slot.
#[unsafe(naked)]
unsafe extern "C" fn run_batch(slot: *mut Slot) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "mov [rip + {stack}], rsp",
        "jmp {enter}",
        stack = sym STACK,
        enter = sym enter,
    )
}

/// Loads a slot's state and jumps into it.
#[unsafe(naked)]
unsafe extern "C" fn enter(slot: *mut Slot) -> ! {
    naked_asm!(
        "mov rsp, {entry}",
        "mov eax, 7",
        "xor edx, edx",
        "xrstor64 [rdi]",
        "mov eax, [rdi + {sel}]", "mov es, eax",
        "mov eax, [rdi + {sel} + 8]", "mov ds, eax",
        "mov eax, [rdi + {sel} + 16]", "mov fs, eax",
        "mov eax, [rdi + {sel} + 24]", "mov gs, eax",
        "mov rax, [rdi + {base}]", "wrfsbase rax",
        "mov rax, [rdi + {base} + 8]", "wrgsbase rax",
        "push [rdi + {ss}]", "push [rdi + {rsp}]", "push [rdi + {rflags}]", "push [rdi + {cs}]", "push [rdi + {rip}]",
        "mov rax, [rdi + {gpr}]", "mov rcx, [rdi + {gpr} + 8]", "mov rdx, [rdi + {gpr} + 16]", "mov rbx, [rdi + {gpr} + 24]",
        "mov rbp, [rdi + {gpr} + 40]", "mov rsi, [rdi + {gpr} + 48]",
        "mov r8, [rdi + {gpr} + 64]", "mov r9, [rdi + {gpr} + 72]", "mov r10, [rdi + {gpr} + 80]", "mov r11, [rdi + {gpr} + 88]",
        "mov r12, [rdi + {gpr} + 96]", "mov r13, [rdi + {gpr} + 104]", "mov r14, [rdi + {gpr} + 112]", "mov r15, [rdi + {gpr} + 120]",
        "mov rdi, [rdi + {gpr} + 56]",
        "iretq",
        entry = const ENTRY + PAGE,
        gpr = const offset_of!(Slot, gpr),
        sel = const offset_of!(Slot, sel),
        base = const offset_of!(Slot, base),
        rip = const offset_of!(Slot, rip),
        cs = const offset_of!(Slot, cs),
        rflags = const offset_of!(Slot, rflags),
        rsp = const offset_of!(Slot, rsp),
        ss = const offset_of!(Slot, ss),
    )
}

/// General registers of a signal frame in encoding order.
const GREGS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Takes the state of the program out of the signal frame.
unsafe extern "C" fn caught(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) -> *mut Slot {
    let back = std::ptr::null_mut();
    let shared = SHARED.load(Relaxed);
    let current = CURRENT.load(Relaxed);
    // SAFETY: the kernel passes a valid frame; `current` is checked against the slots.
    unsafe {
        let Some(slot) = (*shared).slots.get_mut(current as usize) else { return back };
        let machine = &(*context).uc_mcontext;
        let greg = |n: i32| machine.gregs[n as usize] as u64;
        let selectors = greg(libc::REG_CSGSFS);
        let ours = greg(libc::REG_RIP).wrapping_sub(enter as *const () as u64) < 4096 && selectors as u16 == 0x33;
        let mut outcome = if ours { status::REFUSED } else { status::DONE };
        if signal == libc::SIGALRM {
            let same = WATCHED.swap(current, Relaxed) == current;
            if !same {
                TICKS.store(0, Relaxed);
            }
            if TICKS.fetch_add(1, Relaxed) < PATIENCE || ours {
                return back;
            }
            outcome = status::RUNAWAY;
        }
        store(slot, machine);
        slot.status = outcome;
        code(slot, false);
        let next = next(shared, current + 1);
        if next.is_null() {
            let own = OWN_FS.load(Relaxed);
            asm!("mov ds, {n:e}", "mov es, {n:e}", "mov fs, {n:e}", "wrfsbase {own}", n = in(reg) 0, own = in(reg) own);
            return std::ptr::without_provenance_mut(1);
        }
        next
    }
}

/// The state after the program, from the frame and from what the kernel leaves in place.
unsafe fn store(slot: &mut Slot, machine: &libc::mcontext_t) {
    let greg = |n: i32| machine.gregs[n as usize] as u64;
    for (to, from) in slot.gpr.iter_mut().zip(GREGS) {
        *to = greg(from);
    }
    let selectors = greg(libc::REG_CSGSFS);
    slot.rip = greg(libc::REG_RIP);
    slot.rflags = greg(libc::REG_EFL);
    slot.rsp = greg(libc::REG_RSP);
    slot.cs = selectors & 0xffff;
    slot.ss = selectors >> 48;
    slot.vector = greg(libc::REG_TRAPNO);
    slot.error = greg(libc::REG_ERR);
    slot.cr2 = greg(libc::REG_CR2);
    let (es, ds, fs, gs): (u64, u64, u64, u64);
    let (fs_base, gs_base): (u64, u64);
    // SAFETY: reads registers. The frame's extended state is at least as long as the standard format's first three components,
    // since the host has AVX; the memory pages are mapped.
    unsafe {
        asm!("mov {:e}, es", "mov {:e}, ds", "mov {:e}, fs", "mov {:e}, gs", out(reg) es, out(reg) ds, out(reg) fs, out(reg) gs);
        asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs_base, out(reg) gs_base);
        std::ptr::copy_nonoverlapping(machine.fpregs.cast::<u8>(), slot.xsave.as_mut_ptr(), XSAVE);
        for (n, page) in slot.memory.iter_mut().enumerate() {
            let from = ALIAS.load(Relaxed).add((CODE_PAGES as usize + n) * PAGE as usize);
            std::ptr::copy_nonoverlapping(from, page.as_mut_ptr(), page.len());
        }
    }
    slot.sel = [es, ds, fs, gs];
    slot.base = [fs_base, gs_base];
}
