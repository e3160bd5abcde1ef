//! macOS on Apple silicon: one `MAP_JIT` mapping, which each thread sees either writable or executable.

use std::io;

pub(super) struct Mapping {
    at: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone; the pointer is only an address.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(super) fn new(len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_JIT;
        // SAFETY: a new anonymous mapping at an address of the host's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Mapping { at: at.cast(), len }) }
    }

    pub(super) fn write(&mut self, offset: usize, code: &[u8]) -> io::Result<()> {
        if offset.checked_add(code.len()).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: the range is inside the mapping, and this thread executes none of it while it is writable for it.
        unsafe {
            writable(true);
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.at.add(offset), code.len());
            writable(false);
        }
        super::flush(self.at.wrapping_add(offset), code.len());
        Ok(())
    }

    pub(super) fn address(&self, offset: usize) -> u64 {
        self.at.wrapping_add(offset) as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; code in it is not running when its engine is dropped.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// # Safety
/// Code of the mapping must not run on this thread while it is writable.
unsafe fn writable(on: bool) {
    // SAFETY: see above.
    unsafe { libc::pthread_jit_write_protect_np(i32::from(on) ^ 1) };
}
