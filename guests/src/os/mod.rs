//! Egret's own small operating system, the guest that `egret run` starts when none is named.

mod asm;
mod boot;
mod commands;
mod elf;
mod interrupts;
mod layout;
mod long_mode;
mod serial;
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
