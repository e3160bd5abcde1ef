//! The same memory mapped twice: writable at one address, executable at another.

use memmap2::{Mmap, MmapMut, MmapOptions};
use std::fs::File;
use std::io;

pub(crate) struct Mapping {
    write: MmapMut,
    run: Mmap,
}

impl Mapping {
    pub(crate) fn new(len: usize) -> io::Result<Mapping> {
        let file = backing()?;
        file.set_len(len as u64)?;
        let options = MmapOptions::new();
        // SAFETY: the file is anonymous or deleted and known to this process alone, so nobody else changes or cuts it.
        let (write, run) = unsafe { (options.map_mut(&file)?, options.map_exec(&file)?) };
        Ok(Mapping { write, run })
    }

    pub(crate) fn write(&mut self, offset: usize, code: &[u8]) -> io::Result<()> {
        let to = self.write.get_mut(offset..offset + code.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        to.copy_from_slice(code);
        crate::memory::flush(self.run.as_ptr().wrapping_add(offset), code.len());
        Ok(())
    }

    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.run.as_ptr().wrapping_add(offset) as u64
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn backing() -> io::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a terminated string; the descriptor is new and owned by nobody else.
    unsafe {
        let fd = libc::memfd_create(c"egret-code".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

#[cfg(windows)]
fn backing() -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    const GENERIC_READ_WRITE_EXECUTE: u32 = 0xe000_0000;
    const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
    const FILE_ATTRIBUTE_TEMPORARY: u32 = 0x100;
    File::options()
        .create_new(true)
        .write(true)
        .access_mode(GENERIC_READ_WRITE_EXECUTE)
        .attributes(FILE_ATTRIBUTE_TEMPORARY)
        .custom_flags(FILE_FLAG_DELETE_ON_CLOSE)
        .open(unique_path())
}

#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
fn backing() -> io::Result<File> {
    let path = unique_path();
    let file = File::options().create_new(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unique_path() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("egret-code-{}-{n}", std::process::id()))
}
