//! The shell: reads a line, cuts it at semicolons, looks the first word of each part up in the table of commands.
//!
//! Before the first prompt it executes the loader's command line in the same way. Loaders may put the name of the image in front,
//! so a first word that names no command is passed over.

use iced_x86::code_asm::*;

use super::asm::{Asm, AsmError, code};
use super::commands::COMMANDS;
use super::layout::*;
use super::{BANNER, PROMPT};

const BACKSPACE: i32 = 0x08;
const DELETE: i32 = 0x7F;
const CTRL_C: i32 = 0x03;
const CTRL_U: i32 = 0x15;

/// All of this file's code.
pub(crate) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    table(a)?;
    task(a)?;
    read_line(a)?;
    erase(a)?;
    run_line(a)?;
    run_command(a)?;
    find_command(a)?;
    parse_number(a)
}

/// Three pointers per command: name, code, help text. A zero ends the table.
fn table(a: &mut Asm) -> Result<(), AsmError> {
    a.label("commands")?;
    for command in COMMANDS {
        let (name, help) = (a.string(command.name), a.string(command.help));
        a.pointer(&name)?;
        a.pointer(&format!("command {}", command.name))?;
        a.pointer(&help)?;
    }
    a.code.dq(&[0])?;
    Ok(())
}

fn task(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "shell":
        lea rdi, "banner";
        call "print";
        mov edi, CMDLINE;
        call "skip_image_name";
        mov rdi, rax;
        mov esi, 1; // show each command as if it had been typed
        call "run_line";
    ".prompt":
        lea rdi, "prompt";
        call "print";
        call "read_line";
        mov edi, LINE;
        xor esi, esi;
        call "run_line";
        jmp ".prompt";
    "skip_image_name": // RDI = text; returns in RAX where the commands start
        push rdi;
        call "find_command"; // RSI = end of the first word
        pop rdi;
        test rax, rax;
        jnz ".all";
        cmp byte_ptr(rsi), i32::from(b';');
        cmovne rdi, rsi;
    ".all":
        mov rax, rdi;
        ret;
    "banner":
    }
    a.code.db(&[BANNER.as_bytes(), b"\0"].concat())?;
    a.label("prompt")?;
    a.code.db(&[PROMPT.as_bytes(), b"\0"].concat())?;
    Ok(())
}

/// Reads into LINE, with echo: backspace or delete erases a character, Ctrl-U or Ctrl-C the line.
fn read_line(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "read_line":
        push rbx;
        mov ebx, LINE; // where the next character goes
    ".next":
        call "getc";
        cmp al, i32::from(b'\r');
        je ".end";
        cmp al, i32::from(b'\n');
        je ".end";
        cmp al, BACKSPACE;
        je ".backspace";
        cmp al, DELETE;
        je ".backspace";
        cmp al, CTRL_U;
        je ".clear";
        cmp al, CTRL_C;
        je ".clear";
        cmp al, i32::from(b' ');
        jb ".next";
        cmp al, DELETE;
        ja ".next";
        cmp ebx, LINE + LINE_MAX;
        jae ".next";
        mov byte_ptr(rbx), al;
        inc ebx;
        mov edi, eax;
        call "putc";
        jmp ".next";
    ".backspace":
        call "erase";
        jmp ".next";
    ".clear":
        cmp ebx, LINE;
        je ".next";
        call "erase";
        jmp ".clear";
    ".end":
        mov byte_ptr(rbx), 0;
        pop rbx;
        mov edi, i32::from(b'\n');
        jmp "putc";
    }
    Ok(())
}

fn erase(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "erase": // takes the last character off the line that ends at RBX, if there is one
        cmp ebx, LINE;
        je ".nothing";
        dec ebx;
        print "\x08 \x08";
    ".nothing":
        ret;
    }
    Ok(())
}

fn run_line(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "run_line": // RDI = text with commands between semicolons, ESI = whether to show them
        push rbx;
        push r12;
        mov rbx, rdi;
        mov r12d, esi;
    ".skip":
        mov al, byte_ptr(rbx);
        test al, al;
        jz ".done";
        inc rbx;
        cmp al, i32::from(b' ');
        je ".skip";
        cmp al, i32::from(b';');
        je ".skip";
        dec rbx;
        mov edi, COMMAND;
    ".copy": // as much of it as fits
        mov al, byte_ptr(rbx);
        test al, al;
        jz ".run";
        inc rbx;
        cmp al, i32::from(b';');
        je ".run";
        cmp edi, COMMAND + LINE_MAX;
        jae ".copy";
        stosb;
        jmp ".copy";
    ".run":
        mov byte_ptr(rdi), 0;
        test r12d, r12d;
        jz ".silent";
        lea rdi, "prompt";
        call "print";
        mov edi, COMMAND;
        call "print";
        mov edi, i32::from(b'\n');
        call "putc";
    ".silent":
        call "run_command";
        jmp ".skip";
    ".done":
        pop r12;
        pop rbx;
        ret;
    }
    Ok(())
}

fn run_command(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "run_command": // the text at COMMAND; a command finds its argument at RSI and may destroy any register but RSP, RBX, R12
        mov edi, COMMAND;
        call "find_command";
        test rax, rax;
        jz ".unknown";
        jmp rax;
    ".unknown":
        print "unknown command: ";
        mov edi, COMMAND;
        call "print";
        print " (try help)\n";
        ret;
    }
    Ok(())
}

fn find_command(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "find_command": // RDI = text; returns in RAX the code of the command that its first word names, or 0, and in RSI the word's end
        lea rdx, "commands";
    ".candidate":
        mov rcx, qword_ptr(rdx);
        test rcx, rcx;
        jz ".none";
        mov rsi, rdi;
    ".compare":
        mov al, byte_ptr(rcx);
        test al, al;
        jz ".name_ends";
        cmp al, byte_ptr(rsi);
        jne ".differs";
        inc rcx;
        inc rsi;
        jmp ".compare";
    ".name_ends":
        call "at_word_end";
        je ".found";
    ".differs":
        add rdx, 24;
        jmp ".candidate";
    ".found":
        mov rax, qword_ptr(rdx + 8);
        ret;
    ".none":
        mov rsi, rdi;
    ".word":
        call "at_word_end";
        je ".end";
        inc rsi;
        jmp ".word";
    ".end":
        xor eax, eax;
        ret;
    "at_word_end": // sets ZF if RSI points to what ends a word
        mov al, byte_ptr(rsi);
        test al, al;
        jz ".yes";
        cmp al, i32::from(b' ');
        je ".yes";
        cmp al, i32::from(b';');
    ".yes":
        ret;
    }
    Ok(())
}

fn parse_number(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "parse_number": // RSI = text, RAX = what to return if there is no number; returns -1 in RAX for one over nine digits
        cmp byte_ptr(rsi), i32::from(b' ');
        jne ".start";
        inc rsi;
        jmp "parse_number";
    ".start":
        mov ecx, 9;
        movzx edx, byte_ptr(rsi);
        sub edx, i32::from(b'0');
        cmp edx, 9;
        ja ".done";
        xor eax, eax;
    ".digit":
        imul_3 eax, eax, 10;
        add eax, edx;
        inc rsi;
        movzx edx, byte_ptr(rsi);
        sub edx, i32::from(b'0');
        cmp edx, 9;
        ja ".done";
        dec ecx;
        jnz ".digit";
        mov rax, -1i64;
    ".done":
        ret;
    }
    Ok(())
}
