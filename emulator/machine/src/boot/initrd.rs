//! Finds damage in an initrd before Linux does: the kernel's own message comes late and does not name the file.
//! Format: Linux "initramfs buffer format".

use super::unpack::{self, Format, Metered};
use super::{Fields, Reason};

/// Checks that `data` is an initrd that Linux can use and that it is whole. `memory` bounds what it may unpack to.
pub(super) fn check(data: &[u8], memory: u64) -> Result<(), Reason> {
    let mut rest = data;
    let mut archives = 0;
    loop {
        let zeros = rest.iter().take_while(|&&b| b == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return if archives > 0 { Ok(()) } else { Err(Reason::NoInitrd) };
        }
        if let Some(len) = cpio_len(rest, data.len() - rest.len())? {
            rest = &rest[len..];
            archives += 1;
        } else if let Some(format) = Format::detect(rest) {
            // What follows a compressed stream is left to the kernel.
            return check_stream(rest, format, memory);
        } else if archives == 0 && is_file_system(data) {
            return Ok(());
        } else if archives > 0 {
            return Err(Reason::Damaged("what follows the cpio archive is neither a cpio archive nor packed"));
        } else {
            return Err(Reason::NoInitrd);
        }
    }
}

/// The length of the "newc" archive at the start of `rest`, which lies `before` bytes into the file; None when there is none.
fn cpio_len(rest: &[u8], before: usize) -> Result<Option<usize>, Reason> {
    const HEADER: usize = 110;
    if !is_newc(rest) {
        return Ok(None);
    }
    let have = (before + rest.len()) as u64;
    let cut = |end: usize| Reason::Truncated { what: "a cpio entry", end: before.saturating_add(end) as u64, have };
    let mut at = 0usize;
    loop {
        let header = rest.get(at..).and_then(|r| r.get(..HEADER)).ok_or_else(|| cut(at.saturating_add(HEADER)))?;
        if !is_newc(header) {
            return Err(Reason::Damaged("a cpio entry does not start with its magic number"));
        }
        let field = |i: usize| std::str::from_utf8(&header[6 + 8 * i..14 + 8 * i]).ok().and_then(|s| u32::from_str_radix(s, 16).ok());
        let (Some(file_len), Some(name_len)) = (field(6), field(11)) else {
            return Err(Reason::Damaged("a cpio entry's header is not in hexadecimal"));
        };
        let name_end = at + HEADER + name_len as usize;
        let name = rest.get(at + HEADER..name_end).ok_or_else(|| cut(name_end))?;
        let next = name_end.next_multiple_of(4) + (file_len as usize).next_multiple_of(4);
        if name == b"TRAILER!!!\0" {
            return Ok(Some(next.min(rest.len())));
        }
        at = next;
    }
}

fn is_newc(data: &[u8]) -> bool {
    data.starts_with(b"070701") || data.starts_with(b"070702")
}

fn check_stream(data: &[u8], format: Format, memory: u64) -> Result<(), Reason> {
    if format == Format::Lzo {
        return Ok(());
    }
    let what = "the initrd";
    let inner = format.reader(data).map_err(|e| Reason::unpack(what, format.name(), &e))?;
    let mut stream = Metered { inner, done: 0, total: memory, copy: None, progress: &mut |_| {} };
    unpack::drain(&mut stream, what, format.name()).map(|_| ())
}

/// The file system images that Linux takes for a RAM disk: minix, ext2, romfs, cramfs, squashfs.
fn is_file_system(data: &[u8]) -> bool {
    let minix_or_ext2 = matches!(data.u16_at(1024 + 16), Some(0x137f | 0x138f | 0x2468 | 0x2478)) || data.u16_at(1024 + 56) == Some(0xef53);
    let cramfs = [0, 512].iter().any(|&at| data.u32_at(at) == Some(0x28cd_3d45));
    minix_or_ext2 || cramfs || data.starts_with(b"-rom1fs-") || data.starts_with(b"hsqs")
}
