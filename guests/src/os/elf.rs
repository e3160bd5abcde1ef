//! The file: ELF for 32-bit x86 with one loadable segment, as a multiboot loader wants it.
//! (System V ABI, "Object Files"; Multiboot Specification 0.6.96, "OS image format".)

use super::asm::Section;

/// Header magic that a multiboot loader searches the first 8 KiB of the file for.
pub(crate) const MULTIBOOT_HEADER_MAGIC: u32 = 0x1BAD_B002;
/// What EAX holds when a multiboot loader enters the kernel.
pub(crate) const MULTIBOOT_LOADER_MAGIC: u32 = 0x2BAD_B002;
/// Header flags: we want modules on page boundaries, and to be told about memory.
const MULTIBOOT_FLAGS: u32 = 1 << 0 | 1 << 1;

const ELF_HEADER_BYTES: u16 = 52;
const PROGRAM_HEADER_BYTES: u16 = 32;
/// The segment's place in the file, and its alignment there and in memory.
const SEGMENT_OFFSET: u32 = 0x60;
const SEGMENT_ALIGN: u32 = 16;

/// The three words of a multiboot header.
pub(crate) const fn multiboot_header() -> [u32; 3] {
    let sum = MULTIBOOT_HEADER_MAGIC.wrapping_add(MULTIBOOT_FLAGS);
    [MULTIBOOT_HEADER_MAGIC, MULTIBOOT_FLAGS, sum.wrapping_neg()]
}

/// An executable of one segment: `image` at its base, zeros behind it up to `memory_end`, entered at `entry`.
pub(crate) fn executable(entry: u32, image: &Section, memory_end: u32) -> Vec<u8> {
    let base = image.base as u32;
    let mut file = Vec::with_capacity(SEGMENT_OFFSET as usize + image.bytes.len());
    file.extend_from_slice(b"\x7FELF\x01\x01\x01"); // 32 bits, little endian, version 1
    file.resize(16, 0);
    let halves = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend_from_slice(&v.to_le_bytes()));
    let words = |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| file.extend_from_slice(&v.to_le_bytes()));
    halves(&mut file, &[2, 3]); // ET_EXEC, EM_386
    words(&mut file, &[1, entry, u32::from(ELF_HEADER_BYTES), 0, 0]); // version, entry, program headers, no sections, flags
    halves(&mut file, &[ELF_HEADER_BYTES, PROGRAM_HEADER_BYTES, 1, 0, 0, 0]);
    // PT_LOAD, offset, virtual and physical address, bytes in the file and in memory, RWX, alignment
    let size = image.bytes.len() as u32;
    words(&mut file, &[1, SEGMENT_OFFSET, base, base, size, memory_end - base, 7, SEGMENT_ALIGN]);
    file.resize(SEGMENT_OFFSET as usize, 0);
    file.extend_from_slice(&image.bytes);
    file
}

/// Entry point, base and bytes of the segment of a file that [`executable`] made.
pub(crate) fn parts(file: &[u8]) -> Option<(u32, u32, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
    let header = usize::from(ELF_HEADER_BYTES);
    Some((word(24)?, word(header + 8)?, file.get(SEGMENT_OFFSET as usize..)?))
}
