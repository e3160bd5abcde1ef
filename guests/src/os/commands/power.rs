//! `reboot` and `off`.
//!
//! A real system finds the ports in the ACPI tables (ACPI Specification, "Fixed Hardware Programming Model" and "Sleeping
//! States"). Ours is short, and knows the machines that it runs on: Egret, whose \_S5 object says sleep type 5, and QEMU.

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};

const KEYBOARD_COMMAND: i32 = 0x64;
/// Keyboard controller status: our last byte has not been taken yet.
const INPUT_BUFFER_FULL: i32 = 1 << 1;
/// Pulses output line 0, which is wired to the CPU's reset.
const PULSE_RESET: i32 = 0xFE;
/// Reset control register of the PCI host bridge: bit 1 hard reset, bit 2 do it.
const RESET_CONTROL: i32 = 0xCF9;

/// ACPI's PM1a control register, its sleep type field and its sleep enable bit.
const PM1A_CONTROL: i32 = 0x604;
const fn sleep_type(value: i32) -> i32 {
    value << 10
}
const SLEEP_ENABLE: i32 = 1 << 13;
const DEBUG_EXIT: i32 = 0xF4;

pub(super) fn emit_reboot(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        print "resetting\n";
        call "flush";
        cli;
        mov ecx, 0x10000;
    ".busy":
        dec ecx;
        jz ".pulse";
        in_ al, KEYBOARD_COMMAND;
        test al, INPUT_BUFFER_FULL;
        jnz ".busy";
    ".pulse":
        mov al, PULSE_RESET;
        out KEYBOARD_COMMAND, al;
        mov edx, RESET_CONTROL;
        mov al, 0x02;
        out dx, al;
        mov al, 0x06;
        out dx, al;
        push 0; // an IDT of length 0: the next exception cannot be delivered, nor can its double fault
        push 0;
        lidt ptr(rsp);
        int3;
    ".halt":
        hlt;
        jmp ".halt";
    }
    Ok(())
}

pub(super) fn emit_off(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        print "powering off\n";
        call "flush";
        cli;
        mov edx, PM1A_CONTROL;
        mov eax, SLEEP_ENABLE | sleep_type(5);
        out dx, ax;
        mov eax, SLEEP_ENABLE | sleep_type(0); // QEMU's \_S5 says 0
        out dx, ax;
        mov ecx, 1 << 20; // it may take effect a little later
    ".wait":
        pause;
        dec ecx;
        jnz ".wait";
        xor eax, eax;
        out DEBUG_EXIT, al;
    ".halt":
        hlt;
        jmp ".halt";
    }
    Ok(())
}
