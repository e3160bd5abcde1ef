//! Egret's own small operating system: the guest that `egret run` starts when none is named.
//!
//! It is meant to be read in an evening. All of it is x86 assembly, written in Rust with iced-x86's code assembler, so that it
//! builds on any host and its parts can be commented, looped over and tested like other Rust code. It needs a PC with long mode,
//! a 16550 UART, two 8259 interrupt controllers, an 8254 timer, and 12 MiB of memory.
//!
//! ```text
//! Egret's small OS: 64-bit mode, paging, preemptive tasks. Type help.
//! egret> prime 1000;tasks
//! 168 primes below 1000 in 0 ms
//!   state       ticks  name
//!   ready         312  idle
//!   running         0  shell
//!   sleeping        0  clock
//!   sleeping        7  pi
//! up 3 s, 24 switches; pi times 1000000 is 3141592 so far
//! egret> fault
//! writing 42 to 0000000040000000, where no page is mapped
//!   #PF: cr2=0000000040000000 error=0000000000000002 rip=000000000010222B
//!   a write by the kernel, no page present
//!   mapping a zeroed frame at 0000000000400000 and resuming
//! resumed: read back 42
//! ```
//!
//! # Where to read
//!
//! In the order in which the machine meets them:
//!
//! | File | What happens | What the PC expects |
//! |---|---|---|
//! | `elf.rs` | the image: an ELF file with a multiboot header | the loader reads both |
//! | `boot.rs` | 32-bit entry; copies the loader's information; asks CPUID for long mode | EAX = magic, EBX = information |
//! | `long_mode.rs` | page tables, GDT, TSS; CR4, CR3, EFER, CR0; far jump to 64-bit code | that order |
//! | `interrupts.rs` | IDT, one entry for all vectors, 8259s, 8254, page faults, panic | vectors 0–31 are the CPU's |
//! | `tasks.rs` | control blocks, round robin, FXSAVE, sleeping, `clock` and `pi` | a frame on the stack per task |
//! | `serial.rs` | polled output, interrupt-driven input, numbers | UART registers, OUT2 |
//! | `shell.rs` | line editing, the command line, the table of commands | |
//! | `commands/` | one file per command | |
//! | `layout.rs` | every address in use | |
//! | `asm.rs` | the notation: labels by name, strings, `code!` | |
//!
//! # Things to try
//!
//! - Type `prime 4000000` and then `tasks`: the timer took the CPU from the shell while it computed, and idle did not run.
//! - Type `mandel` while `pi` works: both use the SSE registers, and neither notices, since each switch saves and restores them.
//! - Type `fault` twice: the second page gets the next frame. The faulting instruction ran twice, the second time with success.
//! - Start it with a command line: `--append "mem;prime 1000;off"` runs these before the first prompt. (A first word that names no
//!   command is passed over, since some loaders put the name of the image in front.)
//! - Add a command: a file in `commands/` with an `emit` function, and a line in its table.
//!
//! # Elsewhere
//!
//! `cargo run -p egret-guests --example write-os -- FILE` writes the image for `qemu-system-x86_64 -nographic -kernel FILE`;
//! with `--disk` it writes a disk that a BIOS boots.

pub(crate) mod asm;
mod boot;
mod boot_disk;
mod commands;
pub(crate) mod elf;
mod interrupts;
mod layout;
mod long_mode;
pub(crate) mod serial;
mod shell;
mod tasks;

use asm::{Asm, AsmError};

/// What the shell prints when it waits for a line.
pub const PROMPT: &str = "egret> ";
/// The first line on the serial console.
pub const BANNER: &str = "\nEgret's small OS: 64-bit mode, paging, preemptive tasks. Type help.\n";
/// What `prime` prints before the time it took.
pub const EXPECT_PRIME: &str = "78498 primes below 1000000 in ";
/// The last line of `fault`.
pub const EXPECT_FAULT: &str = "resumed: read back 42";
/// What `off` prints.
pub const EXPECT_OFF: &str = "powering off";

/// What `mandel` prints, with LF line ends (the serial port sends CR LF).
pub fn mandel_drawing() -> String {
    commands::mandel::drawing()
}

/// The OS as a multiboot-1 ELF file for 32-bit x86.
pub fn image() -> Vec<u8> {
    build().expect("the guest OS is a constant, and its unit test assembles it")
}

/// A raw disk image that boots one of this crate's kernels, the OS or a test kernel, on a PC with a BIOS.
///
/// # Panics
/// If `kernel` was not made by this crate.
pub fn boot_disk(kernel: &[u8]) -> Vec<u8> {
    let (entry, base, segment) = elf::parts(kernel).expect("an image made by this crate");
    boot_disk::disk(segment, base, entry).expect("the boot sector is a constant, and its unit test assembles it")
}

fn build() -> Result<Vec<u8>, AsmError> {
    let sections = asm::link(vec![boot::section()?, kernel()?])?;
    let image = asm::join(&sections)?;
    if image.base + image.bytes.len() as u64 > layout::IMAGE_END as u64 {
        return Err(AsmError::Overlap(image.base));
    }
    // The multiboot header comes first, the entry point right after it.
    let entry = layout::IMAGE as u32 + std::mem::size_of_val(&elf::multiboot_header()) as u32;
    Ok(elf::executable(entry, &image, layout::BSS_END as u32))
}

/// The 64-bit section.
fn kernel() -> Result<Asm, AsmError> {
    let mut asm = Asm::new(64, layout::KERNEL)?;
    let a = &mut asm;
    long_mode::kernel_entry(a)?;
    interrupts::emit(a)?;
    tasks::emit(a)?;
    serial::emit(a)?;
    shell::emit(a)?;
    commands::emit(a)?;
    Ok(asm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn assembles_with_all_labels_defined() {
        build().unwrap();
    }

    #[test]
    fn undefined_duplicate_and_far_labels_are_errors() {
        let mut a = Asm::new(64, 0x1000).unwrap();
        let missing = a.to("missing");
        a.code.jmp(missing).unwrap();
        assert!(matches!(asm::link(vec![a]), Err(AsmError::Undefined(name)) if name == "missing"));
        let mut a = Asm::new(64, 0x1000).unwrap();
        a.label("twice").unwrap();
        assert!(matches!(a.label("twice"), Err(AsmError::Duplicate(_))));
        let mut a = Asm::new(16, 0x20_0000).unwrap();
        a.label("high").unwrap();
        a.far_jump(8, "high", false).unwrap();
        assert!(matches!(asm::link(vec![a]), Err(AsmError::TooFar(..))));
    }

    #[test]
    fn is_a_multiboot_kernel() {
        let file = image();
        assert!(file.len() < 64 * 1024, "{} bytes", file.len());
        let at = (0..8192 - 12).step_by(4).find(|&at| word(&file, at) == elf::MULTIBOOT_HEADER_MAGIC).unwrap();
        let sum = word(&file, at).wrapping_add(word(&file, at + 4)).wrapping_add(word(&file, at + 8));
        assert_eq!(sum, 0, "checksum");
        assert_eq!(word(&file, at + 4) & (1 << 16), 0, "the loader is to use the ELF headers");
    }

    #[test]
    fn elf_header_describes_one_segment_inside_the_file() {
        let file = image();
        assert_eq!(&file[..8], b"\x7FELF\x01\x01\x01\0");
        assert_eq!((word(&file, 16), word(&file, 20)), (0x0003_0002, 1), "ET_EXEC, EM_386, version 1");
        let header = word(&file, 28) as usize;
        let [kind, offset, linear, physical, in_file, in_memory] = std::array::from_fn(|i| word(&file, header + 4 * i));
        assert_eq!(kind, 1, "PT_LOAD");
        assert_eq!((linear, physical), (layout::IMAGE as u32, layout::IMAGE as u32));
        assert_eq!((offset + in_file) as usize, file.len());
        assert_eq!(linear + in_memory, layout::BSS_END as u32);
        let entry = word(&file, 24);
        assert_eq!(file[(entry - linear + offset) as usize], 0xFA, "the first instruction is CLI");
    }

    #[test]
    fn boot_disk_has_a_boot_sector_and_the_segment() {
        let (kernel, disk) = (image(), boot_disk(&image()));
        assert_eq!(&disk[510..512], &[0x55, 0xAA]);
        assert_eq!(disk.len() % (512 * 16 * 63), 0, "whole cylinders");
        let segment = elf::parts(&kernel).unwrap().2;
        assert_eq!(&disk[512..512 + segment.len()], segment);
        assert!(elf::parts(&kernel[..40]).is_none());
    }

    #[test]
    fn building_twice_gives_the_same_bytes() {
        assert_eq!(image(), image());
    }

    #[test]
    fn the_drawing_has_points_inside_and_outside_the_set() {
        let drawing = mandel_drawing();
        assert_eq!(drawing.lines().count(), 24);
        assert!(drawing.lines().all(|line| line.len() == 76));
        assert!(drawing.contains("       ") && drawing.contains(":::::"));
    }
}
