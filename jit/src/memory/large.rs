//! Linux: anonymous memory, for which the host gives large pages, as it does not for memory that is mapped twice. Compiled code
//! is big, and misses the host's instruction TLB. Most of the time the memory is executable; what is written to is not, while it is.
//!
//! Where the host forbids that, the same memory is mapped twice after all.

#[path = "twice.rs"]
mod twice;

use std::io;

/// Memory changes its protection in pieces of this many bytes, so that large pages stay whole.
const PIECE: usize = 2 << 20;

pub(super) enum Mapping {
    Large(Large),
    Twice(twice::Mapping),
}

impl Mapping {
    pub(super) fn new(len: usize) -> io::Result<Mapping> {
        match Large::new(len) {
            Ok(large) => Ok(Mapping::Large(large)),
            Err(_) => twice::Mapping::new(len).map(Mapping::Twice),
        }
    }

    pub(super) fn write(&mut self, offset: usize, code: &[u8]) -> io::Result<()> {
        match self {
            Mapping::Large(large) => large.write(offset, code),
            Mapping::Twice(twice) => twice.write(offset, code),
        }
    }

    pub(super) fn address(&self, offset: usize) -> u64 {
        match self {
            Mapping::Large(large) => large.start.wrapping_add(offset) as u64,
            Mapping::Twice(twice) => twice.address(offset),
        }
    }
}

pub(super) struct Large {
    /// What was mapped: a piece more than is used.
    mapped: *mut u8,
    mapped_len: usize,
    /// The first address in it that a piece can begin at.
    start: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone; the pointers are only addresses.
unsafe impl Send for Large {}

impl Large {
    fn new(len: usize) -> io::Result<Large> {
        let len = len.next_multiple_of(PIECE);
        let mapped_len = len + PIECE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the host's choice.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), mapped_len, libc::PROT_READ, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped: *mut u8 = mapped.cast();
        let start = mapped.wrapping_add(mapped.align_offset(PIECE));
        let mut large = Large { mapped, mapped_len, start, len };
        if len > PIECE {
            // SAFETY: the range is inside the mapping. Without large pages it only runs slower.
            unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
        }
        // A host that forbids code in memory that was written forbids it here.
        large.protect(0, len, libc::PROT_READ | libc::PROT_EXEC)?;
        large.open(0, 1)?;
        // SAFETY: the first byte is inside the mapping and writable.
        unsafe { large.start.write(0) };
        large.close(0, 1)?;
        Ok(large)
    }

    fn protect(&mut self, offset: usize, len: usize, protection: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is inside the mapping, as the callers see to.
        let failed = unsafe { libc::mprotect(self.start.add(offset).cast(), len, protection) } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes the pieces that a range lies in writable, and not executable.
    fn open(&mut self, offset: usize, len: usize) -> io::Result<()> {
        let (from, to) = (offset / PIECE * PIECE, (offset + len).next_multiple_of(PIECE));
        self.protect(from, to - from, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Makes them executable again.
    fn close(&mut self, offset: usize, len: usize) -> io::Result<()> {
        let (from, to) = (offset / PIECE * PIECE, (offset + len).next_multiple_of(PIECE));
        self.protect(from, to - from, libc::PROT_READ | libc::PROT_EXEC)
    }

    fn write(&mut self, offset: usize, code: &[u8]) -> io::Result<()> {
        if offset.checked_add(code.len()).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.open(offset, code.len())?;
        // SAFETY: the range is inside the mapping and writable, and nobody else reads or runs it: code memory belongs to one engine,
        // which runs no code while it has it written.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.start.add(offset), code.len()) };
        super::flush(self.start.wrapping_add(offset), code.len());
        // This undoes what `open` did, so the host needs nothing for it. Without it there is nothing to go on with.
        self.close(offset, code.len()).expect("code memory that can be executed");
        Ok(())
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; code in it is not running when its engine is dropped.
        unsafe { libc::munmap(self.mapped.cast(), self.mapped_len) };
    }
}
