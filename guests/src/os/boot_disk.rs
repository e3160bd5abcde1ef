//! A disk image that boots a kernel of ours on any PC with a BIOS, for comparison with machines that have no multiboot loader.
//!
//! The boot sector reads the kernel with BIOS INT 13h, function 42h ("Extended Read"), moves it above 1 MiB, and enters it as a multiboot
//! loader would, with the least information: 639 KiB below and 31 MiB above 1 MiB.

use iced_x86::code_asm::*;

use super::asm::{Asm, AsmError, code, link};
use super::elf::MULTIBOOT_LOADER_MAGIC;

/// The BIOS loads the boot sector here.
const SECTOR_AT: i32 = 0x7C00;
const SECTOR_BYTES: usize = 512;
/// Where sectors are read to before they are moved: a segment, and how many at a time.
const BUFFER_SEGMENT: i32 = 0x1000;
const CHUNK_SECTORS: i32 = 64;
/// The disk address packet and the multiboot information structure.
const PACKET: i32 = 0x600;
const INFO: i32 = 0x700;
/// Flat 32-bit code and data.
const DESCRIPTORS: [u64; 3] = [0, 0x00CF_9A00_0000_FFFF, 0x00CF_9200_0000_FFFF];
const FLAT_CODE: u16 = 8;
const FLAT_DATA: i32 = 16;

/// A disk of 16 heads and 63 sectors per track whose boot sector starts `segment`, the bytes that belong at `base`, at `entry`.
pub(crate) fn disk(segment: &[u8], base: u32, entry: u32) -> Result<Vec<u8>, AsmError> {
    let chunks = segment.len().div_ceil(SECTOR_BYTES * CHUNK_SECTORS as usize);
    let mut asm = Asm::new(16, SECTOR_AT)?;
    read(&mut asm, base, chunks as i32)?;
    start(&mut asm, entry)?;
    let mut image = link(vec![asm])?.remove(0).bytes;
    if image.len() > SECTOR_BYTES - 2 {
        return Err(AsmError::Overlap(SECTOR_AT as u64));
    }
    image.resize(SECTOR_BYTES - 2, 0);
    image.extend_from_slice(&[0x55, 0xAA]);
    image.extend_from_slice(segment);
    let cylinder = SECTOR_BYTES * 16 * 63;
    let whole = (SECTOR_BYTES + chunks * CHUNK_SECTORS as usize * SECTOR_BYTES).div_ceil(cylinder) * cylinder;
    image.resize(whole, 0);
    Ok(image)
}

/// Sectors 1, … to `base`, through the buffer. DS and ES get a 4 GiB limit in protected mode and keep it back in real mode.
fn read(a: &mut Asm, base: u32, chunks: i32) -> Result<(), AsmError> {
    code! { a =>
    "boot_sector":
        cli;
        cld;
        xor ax, ax;
        mov ds, ax;
        mov es, ax;
        mov ss, ax;
        mov sp, SECTOR_AT;
        mov byte_ptr(PACKET + 16), dl; // the BIOS's number of the disk
        in_ al, 0x92; // A20 on, in the "fast" way
        or al, 2;
        out 0x92, al;
        mov dword_ptr(PACKET), CHUNK_SECTORS << 16 | 16;
        mov dword_ptr(PACKET + 4), BUFFER_SEGMENT << 16;
        mov dword_ptr(PACKET + 8), 1; // the first sector
        mov dword_ptr(PACKET + 12), 0;
        mov edi, base;
        mov cx, chunks;
    ".chunk":
        push cx;
        push edi;
        mov ah, 0x42;
        mov dl, byte_ptr(PACKET + 16);
        mov si, PACKET;
        int 0x13;
        cli;
        jc ".failed";
        call "big_segments";
        pop edi;
        mov esi, BUFFER_SEGMENT << 4;
        mov ecx, CHUNK_SECTORS * 128;
    }
    a.code.db(&[0xF3, 0x67, 0x66, 0xA5])?; // REP MOVSD with 32-bit addresses
    code! { a =>
        add dword_ptr(PACKET + 8), CHUNK_SECTORS;
        pop cx;
        dec cx;
        jnz ".chunk";
        jmp "start_kernel";
    ".failed":
        hlt;
        jmp ".failed";
    "big_segments":
        mov word_ptr(PACKET + 24), 23;
        addr eax, "descriptors";
        mov dword_ptr(PACKET + 26), eax;
        lgdt ptr(PACKET + 24);
        mov eax, cr0;
        or al, 1;
        mov cr0, eax;
        mov bx, FLAT_DATA;
        mov ds, bx;
        mov es, bx;
        and al, 0xFE;
        mov cr0, eax;
        xor bx, bx;
        mov ds, bx;
        mov es, bx;
        ret;
    "descriptors":
    }
    Ok(a.code.dq(&DESCRIPTORS)?)
}

fn start(a: &mut Asm, entry: u32) -> Result<(), AsmError> {
    code! { a =>
    "start_kernel":
        mov di, INFO;
        mov cx, 64;
        xor ax, ax;
        rep stosw;
        mov byte_ptr(INFO), 1; // flags: memory sizes
        mov dword_ptr(INFO + 4), 639;
        mov dword_ptr(INFO + 8), 31 * 1024;
        mov dword_ptr(PACKET + 32), entry;
        mov word_ptr(PACKET + 36), i32::from(FLAT_CODE);
        mov eax, cr0;
        or al, 1;
        mov cr0, eax;
        mov bx, FLAT_DATA;
        mov ds, bx;
        mov es, bx;
        mov ss, bx;
        mov fs, bx;
        mov gs, bx;
        mov eax, MULTIBOOT_LOADER_MAGIC;
        mov ebx, INFO;
        jmp fword_ptr(PACKET + 32);
    }
    Ok(())
}
