//! Tasks: control blocks, the scheduler, sleeping, and the background tasks.
//!
//! All tasks run in ring 0 and share one address space; each has a stack. A switch happens only at the end of an interrupt: the timer's, the
//! serial port's, or the software interrupt `YIELD`. The interrupted registers are then on the task's stack, so
//! switching is storing one stack pointer and loading another, plus FXSAVE and FXRSTOR for the SSE registers
//! (SDM Vol. 3, "Saving and Restoring the State of the x87 FPU and SSE").

use iced_x86::code_asm::*;

use super::asm::{Asm, AsmError, code};
use super::interrupts::{HZ, YIELD, frame};
use super::layout::*;
use super::long_mode::{CODE_SELECTOR, DATA_SELECTOR};

/// A task control block. The FXSAVE area must be 16-byte aligned.
pub(crate) mod task {
    /// Address of the saved frame.
    pub(crate) const FRAME: i32 = 0;
    /// `READY`, `SLEEPING` or `WAITING`.
    pub(crate) const STATE: i32 = 8;
    /// Timer interrupts that hit this task.
    pub(crate) const TICKS: i32 = 16;
    /// Address of the name.
    pub(crate) const NAME: i32 = 24;
    /// Tick at which a sleeping task becomes ready.
    pub(crate) const WAKE: i32 = 32;
    /// SSE and x87 registers.
    pub(crate) const FXSAVE: i32 = 512;
    /// Size of a control block.
    pub(crate) const BYTES: i32 = 1024;
}

pub(crate) const READY: i32 = 0;
pub(crate) const SLEEPING: i32 = 1;
/// Waiting for a byte from the serial port.
pub(crate) const WAITING: i32 = 2;

/// Names and entry points; the first is the boot code, which becomes the idle task.
const TASKS: [(&str, &str); 4] = [("idle", "idle"), ("shell", "shell"), ("clock", "clock"), ("pi", "pi")];
const FIRST: i32 = TASK_BLOCKS + task::BYTES;
/// End of the control blocks.
pub(crate) const TASKS_END: i32 = TASK_BLOCKS + TASKS.len() as i32 * task::BYTES;

/// All of this file's code.
pub(crate) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    init(a)?;
    timer_interrupt(a)?;
    schedule(a)?;
    sleep(a)?;
    background_tasks(a)?;
    constants(a)
}

/// Gives every task but the first a frame that looks as if it had been interrupted before its first instruction.
fn init(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "init_tasks":
        fninit;
        ldmxcsr dword_ptr(a.to("mxcsr_default"));
        mov qword_ptr(var::CURRENT), TASK_BLOCKS;
    }
    for (index, (name, entry)) in (0..).zip(TASKS) {
        let block = TASK_BLOCKS + index * task::BYTES;
        let stack = STACKS + (index + 1) * STACK_BYTES;
        let saved = stack - frame::BYTES;
        a.load_string(rax, name)?;
        let entry = a.to(entry);
        code! { a =>
            mov qword_ptr(block + task::NAME), rax;
            fxsave ptr(block + task::FXSAVE);
        }
        if index > 0 {
            a.code.lea(rax, ptr(entry))?;
            code! { a =>
                mov qword_ptr(block + task::FRAME), saved;
                mov qword_ptr(saved + frame::RIP), rax;
                mov qword_ptr(saved + frame::CS), i32::from(CODE_SELECTOR);
                mov qword_ptr(saved + frame::RFLAGS), 1 << 9 | 1 << 1; // IF, and the bit that is always set
                mov qword_ptr(saved + frame::RSP), stack;
                mov qword_ptr(saved + frame::SS), DATA_SELECTOR;
            }
        }
    }
    code! { a =>
        ret;
    "idle":
        sti;
        hlt; // sleeps until an interrupt, whose end may switch to a task that it made ready
        jmp "idle";
    }
    Ok(())
}

/// RDI = frame. Counts, wakes sleepers, and gives the next task its turn.
fn timer_interrupt(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "timer_interrupt":
        mov rax, qword_ptr(var::TICKS);
        inc rax;
        mov qword_ptr(var::TICKS), rax;
        mov rcx, qword_ptr(var::CURRENT);
        inc qword_ptr(rcx + task::TICKS);
        mov ecx, FIRST;
    ".task":
        cmp qword_ptr(rcx + task::STATE), SLEEPING;
        jne ".next";
        cmp qword_ptr(rcx + task::WAKE), rax;
        ja ".next";
        mov qword_ptr(rcx + task::STATE), READY;
    ".next":
        add ecx, task::BYTES;
        cmp ecx, TASKS_END;
        jb ".task";
        mov al, 0x20; // end of interrupt
        out 0x20, al;
        jmp "schedule";
    }
    Ok(())
}

/// RDI = frame of the running task; returns in RAX the frame of the next one. Round robin among the ready tasks, with
/// the idle task only when there is none.
fn schedule(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "schedule":
        mov rcx, qword_ptr(var::CURRENT);
        mov qword_ptr(rcx + task::FRAME), rdi;
        mov rdx, rcx;
        mov esi, TASKS.len() as i32 - 1;
    ".candidate":
        add rdx, task::BYTES;
        cmp rdx, TASKS_END;
        jb ".in_range";
        mov edx, FIRST;
    ".in_range":
        cmp qword_ptr(rdx + task::STATE), READY;
        je ".chosen";
        dec esi;
        jnz ".candidate";
        mov edx, TASK_BLOCKS;
    ".chosen":
        mov rax, qword_ptr(rdx + task::FRAME);
        cmp rcx, rdx;
        je ".same";
        fxsave ptr(rcx + task::FXSAVE);
        fxrstor ptr(rdx + task::FXSAVE);
        mov qword_ptr(var::CURRENT), rdx;
        inc qword_ptr(var::SWITCHES);
    ".same":
        ret;
    }
    Ok(())
}

/// RDI = ticks.
fn sleep(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "sleep":
        mov rax, qword_ptr(var::CURRENT);
        add rdi, qword_ptr(var::TICKS);
        mov qword_ptr(rax + task::WAKE), rdi;
        mov qword_ptr(rax + task::STATE), SLEEPING;
        int YIELD;
        ret;
    }
    Ok(())
}

/// `clock` counts seconds. `pi` works for two ticks of each second on Leibniz's series 4/1 − 4/3 + 4/5 − …, in SSE
/// registers that the other tasks must not disturb.
fn background_tasks(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "clock":
        mov edi, HZ;
        call "sleep";
        inc qword_ptr(var::SECONDS);
        jmp "clock";
    "pi":
        xorpd xmm0, xmm0; // the sum
        movsd_2 xmm1, qword_ptr(a.to("one")); // the denominator
        movsd_2 xmm2, qword_ptr(a.to("four")); // the numerator
        movsd_2 xmm3, qword_ptr(a.to("two"));
        mov eax, 1;
        shl rax, 63;
        movq xmm5, rax; // the sign bit
    ".slice":
        mov rbx, qword_ptr(var::TICKS);
        add rbx, 2;
    ".term":
        movapd xmm4, xmm2;
        divsd xmm4, xmm1;
        addsd xmm0, xmm4;
        addsd xmm1, xmm3;
        xorpd xmm2, xmm5;
        cmp qword_ptr(var::TICKS), rbx;
        jb ".term";
        movsd_2 qword_ptr(var::PI), xmm0;
        mov edi, HZ - 2;
        call "sleep";
        jmp ".slice";
    }
    Ok(())
}

fn constants(a: &mut Asm) -> Result<(), AsmError> {
    for (name, value) in [("one", 1.0_f64), ("two", 2.0), ("four", 4.0)] {
        a.label(name)?;
        a.code.dq(&[value.to_bits()])?;
    }
    a.label("mxcsr_default")?;
    a.code.dd(&[0x1F80])?; // all exceptions masked, round to nearest
    Ok(())
}
