//! The parent's side: shared memory, the child process, and its restart after a crash.
#![allow(unsafe_code)]

use super::super::slot::{FILL, PAGE, PAGES, Slot, status};
use super::{BATCH, HostError, child};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// What both processes see, beside the slots.
#[repr(C, align(64))]
pub struct Header {
    /// Slots to run.
    pub count: AtomicU64,
    /// How far the child's setup came; [`child::READY`] at its end.
    pub step: AtomicU64,
    /// The LDT is there.
    pub ldt: AtomicU64,
}

/// The shared memory.
#[repr(C)]
pub struct Shared {
    pub header: Header,
    pub slots: [Slot; BATCH],
}

/// The oracle's process and what is shared with it.
pub struct Host {
    shared: *mut Shared,
    /// A memory file: the three code pages, then those of [`PAGES`].
    file: i32,
    child: Option<Child>,
}

struct Child {
    pid: i32,
    /// Our ends of the pipes.
    to: i32,
    from: i32,
}

// SAFETY: the pointer is to shared memory that this value owns; nothing of it is bound to a thread.
unsafe impl Send for Host {}

fn refused(what: &'static str) -> HostError {
    HostError::Refused { what, source: io::Error::last_os_error() }
}

/// Code pages in the memory file.
pub const CODE_PAGES: u64 = 3;

impl Host {
    /// Sets everything up and starts the child.
    pub fn new() -> Result<Host, HostError> {
        if !std::arch::is_x86_feature_detected!("avx") {
            return Err(HostError::Lacks("AVX"));
        }
        // SAFETY: reads the auxiliary vector. Bit 1: FSGSBASE instructions are on for programs.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & 2 == 0 {
            return Err(HostError::Lacks("FSGSBASE"));
        }
        let length = size_of::<Shared>();
        // SAFETY: a new anonymous mapping.
        let shared = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
        };
        if shared == libc::MAP_FAILED {
            return Err(refused("map shared memory"));
        }
        // SAFETY: a new file without a name; sizes are constants.
        let file = unsafe { libc::memfd_create(c"egret-oracle".as_ptr(), libc::MFD_CLOEXEC) };
        let mut host = Host { shared: shared.cast(), file, child: None };
        let size = (CODE_PAGES + PAGES.len() as u64) * PAGE;
        // SAFETY: plain system call on our file.
        if file < 0 || unsafe { libc::ftruncate(file, size as i64) } != 0 {
            return Err(refused("make a memory file"));
        }
        let fill = vec![FILL; (CODE_PAGES * PAGE) as usize];
        // SAFETY: the buffer is as long as said.
        if unsafe { libc::pwrite(file, fill.as_ptr().cast(), fill.len(), 0) } != fill.len() as isize {
            return Err(refused("fill a memory file"));
        }
        host.start()?;
        Ok(host)
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping lives as long as `self`; the header's fields are atomic.
        unsafe { &(*self.shared).header }
    }

    /// Programs to run.
    pub fn slots(&mut self) -> &mut [Slot] {
        // SAFETY: the child touches slots only while `run` waits for it, and any bytes are a valid Slot.
        unsafe { &mut (*self.shared).slots }
    }

    /// Whether 16-bit and other segments of our own are to be had.
    #[must_use]
    pub fn has_ldt(&self) -> bool {
        self.header().ldt.load(Ordering::Relaxed) != 0
    }

    fn start(&mut self) -> Result<(), HostError> {
        self.stop();
        let (mut to, mut from) = ([0; 2], [0; 2]);
        // SAFETY: both arrays take two descriptors.
        if unsafe { libc::pipe2(to.as_mut_ptr(), libc::O_CLOEXEC) != 0 || libc::pipe2(from.as_mut_ptr(), libc::O_CLOEXEC) != 0 } {
            return Err(refused("make pipes"));
        }
        self.header().step.store(0, Ordering::Relaxed);
        // SAFETY: the child calls nothing but `child::main`, which allocates nothing and takes no lock.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => return Err(refused("fork")),
            0 => child::main(self.shared, self.file, to[0], from[1]),
            _ => {}
        }
        // SAFETY: the child's ends.
        unsafe {
            libc::close(to[0]);
            libc::close(from[1]);
        }
        self.child = Some(Child { pid, to: to[1], from: from[0] });
        if !self.answered() {
            return Err(HostError::Setup(self.header().step.load(Ordering::Relaxed)));
        }
        Ok(())
    }

    /// Whether the child has memory at an address now, a program's or its own.
    pub fn has_at(&self, address: u64) -> bool {
        let Some(child) = &self.child else { return false };
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.pid)).unwrap_or_default();
        let inside = |line: &str| {
            let (from, to) = line.split_once(' ')?.0.split_once('-')?;
            let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
            Some((from..to).contains(&address))
        };
        maps.lines().any(|line| inside(line) == Some(true))
    }

    /// Waits for the child's byte; false if it died.
    fn answered(&self) -> bool {
        let Some(child) = &self.child else { return false };
        let mut byte = 0u8;
        loop {
            // SAFETY: reads one byte.
            let n = unsafe { libc::read(child.from, (&raw mut byte).cast(), 1) };
            if n >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return n == 1;
            }
        }
    }

    /// Runs the first `count` slots. One that kills the child is [`status::DIED`]; the rest run in a new one.
    pub fn run(&mut self, count: usize) -> Result<(), HostError> {
        let count = count.min(BATCH);
        for slot in &mut self.slots()[..count] {
            slot.status = status::NEW;
        }
        while self.slots()[..count].iter().any(|s| s.status == status::NEW) {
            self.header().count.store(count as u64, Ordering::Release);
            let sent = match &self.child {
                // SAFETY: writes one byte.
                Some(child) => unsafe { libc::write(child.to, [1u8].as_ptr().cast(), 1) == 1 },
                None => false,
            };
            if !sent || !self.answered() {
                if let Some(slot) = self.slots()[..count].iter_mut().find(|s| s.status == status::NEW) {
                    slot.status = status::DIED;
                }
                self.start()?;
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            // SAFETY: our own child and our own descriptors.
            unsafe {
                libc::kill(child.pid, libc::SIGKILL);
                libc::waitpid(child.pid, std::ptr::null_mut(), 0);
                libc::close(child.to);
                libc::close(child.from);
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
        // SAFETY: the mapping and the file are ours, and nobody uses them any more.
        unsafe {
            libc::munmap(self.shared.cast(), size_of::<Shared>());
            libc::close(self.file);
        }
    }
}
