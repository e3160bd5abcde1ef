//! The ways to start a machine: the Linux boot protocol (bzImage), PVH and multiboot 1.
//!
//! [`load`] looks at the kernel's bytes, puts kernel, initrd, command line, memory map and ACPI tables into guest RAM and returns
//! the state in which the processor enters the kernel. It knows no CPU: [`EntryState`] is plain data.
//!
//! Images come from anywhere. Every length in them is checked against the image and against guest memory, unpacking is bounded by
//! guest memory, and what is wrong comes back as a [`BootError`] of one line that names the file.

mod elf;
mod entry;
mod error;
mod initrd;
pub mod layout;
mod linux;
mod multiboot;
mod pvh;
mod space;
#[cfg(test)]
mod tests;
mod unpack;

pub use entry::{EntryState, Mode, Segment, gpr};
pub use error::{BootError, Reason};

use crate::acpi;
use egret_bus::GuestRam;
use std::io::Read;

/// A file's content, and its name for messages.
#[derive(Clone, Copy)]
pub struct Blob<'a> {
    /// The name to print.
    pub name: &'a str,
    /// The content.
    pub data: &'a [u8],
}

/// What to boot.
#[derive(Clone, Copy)]
pub struct BootImage<'a> {
    /// A bzImage, a PVH ELF file or a multiboot kernel.
    pub kernel: Blob<'a>,
    /// Initial RAM disk, or the one multiboot module.
    pub initrd: Option<Blob<'a>>,
    /// Command line.
    pub cmdline: &'a str,
}

/// Who unpacks a bzImage's payload.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Unpack {
    /// The host, natively: the kernel proper is entered at its linked address. Its own unpacker does not run, so the kernel is not
    /// moved to a random address (no KASLR). Images that carry no payload that the host can find take the [`Unpack::Guest`] path.
    #[default]
    Host,
    /// The guest, by the code in the image, as on a real PC.
    Guest,
}

/// How far long work has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes unpacked.
    pub done: u64,
    /// Bytes there will be, as the image claims.
    pub total: u64,
}

/// A place where unpacked kernels are kept from one run to the next.
pub trait Unpacked: Send + Sync {
    /// The `len` bytes that `packed` unpacks to, if they are there and undamaged.
    fn find(&self, packed: &[u8], len: u64) -> Option<Box<dyn Read>>;
    /// Keeps what `packed` has unpacked to.
    fn keep(&self, packed: &[u8], unpacked: Vec<u8>);
}

/// Options of [`load`].
pub struct BootOptions<'a, 'k> {
    /// Who unpacks a bzImage.
    pub unpack: Unpack,
    /// Unpacked kernels of earlier runs.
    pub unpacked: Option<&'k dyn Unpacked>,
    /// Processors to describe in the ACPI tables.
    pub cpus: u8,
    /// Called about once per MiB unpacked.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl Default for BootOptions<'_, '_> {
    fn default() -> Self {
        BootOptions { unpack: Unpack::Host, unpacked: None, cpus: 1, progress: None }
    }
}

/// The way a kernel was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Linux boot protocol, payload unpacked by the host, 64-bit entry.
    Linux64,
    /// Linux boot protocol, payload unpacked by the host, 32-bit entry.
    Linux32,
    /// Linux boot protocol, the image unpacks itself, 64-bit entry.
    LinuxSelfUnpack64,
    /// Linux boot protocol, the image unpacks itself, 32-bit entry.
    LinuxSelfUnpack32,
    /// Xen's PVH entry.
    Pvh,
    /// Multiboot 1.
    Multiboot,
}

/// A kernel in guest RAM, ready to run.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The state in which the first processor starts.
    pub entry: EntryState,
    /// How it was loaded.
    pub protocol: Protocol,
    /// The version string of a Linux kernel.
    pub version: Option<String>,
}

/// Loads `image` into `ram`. Memory that the kernel expects to be zero is cleared, other memory is left as it is.
pub fn load(ram: &GuestRam, image: &BootImage, opts: BootOptions) -> Result<Loaded, BootError> {
    let BootOptions { unpack, unpacked, cpus, progress } = opts;
    let mut silent = |_| {};
    let mut job = Job { space: space::Space::new(ram), image, unpack, unpacked, rsdp: 0, progress: progress.unwrap_or(&mut silent) };
    let kernel = image.kernel;
    let in_kernel = |reason: Reason| reason.in_file(kernel.name);
    if ram.size() < layout::MIN_MEMORY - (layout::VGA_HOLE_END - layout::VGA_HOLE) {
        return Err(in_kernel(Reason::Memory { bytes: ram.size() }));
    }
    job.rsdp = acpi::install(ram, cpus).map_err(|e| in_kernel(e.into()))?.0;
    space::write_bios_data(ram);
    if kernel.data.is_empty() {
        return Err(in_kernel(Reason::Empty));
    }
    if let Some(header) = linux::Header::find(kernel.data) {
        return linux::load(&mut job, header.map_err(in_kernel)?);
    }
    if let Some(pvh) = pvh::find(kernel.data) {
        return pvh::load(&mut job, pvh.map_err(in_kernel)?);
    }
    if let Some(header) = multiboot::Header::find(kernel.data) {
        return multiboot::load(&mut job, header.map_err(in_kernel)?);
    }
    Err(in_kernel(if elf::is_elf(kernel.data) { Reason::PlainElf } else { Reason::NoKernel }))
}

/// One call of [`load`].
struct Job<'a> {
    space: space::Space<'a>,
    image: &'a BootImage<'a>,
    unpack: Unpack,
    unpacked: Option<&'a dyn Unpacked>,
    rsdp: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl Job<'_> {
    /// Places the command line, NUL-terminated, and returns its address.
    fn place_cmdline(&mut self, max: u64) -> Result<u64, BootError> {
        let line = self.image.cmdline.as_bytes();
        let fail = |r: Reason| r.in_file(self.image.kernel.name);
        if line.len() as u64 > max {
            return Err(fail(Reason::CommandLine { len: line.len() as u64, max }));
        }
        if line.contains(&0) {
            return Err(fail(Reason::CommandLineNul));
        }
        let at = self.space.place_low(line.len() as u64 + 1, 16, "command line").map_err(fail)?;
        self.space.write(at, line, "command line").map_err(fail)?;
        self.space.write(at + line.len() as u64, &[0], "command line").map_err(fail)?;
        Ok(at)
    }

    /// Places the initrd as high as it goes below `limit`, and returns (address, length); (0, 0) when there is none.
    fn place_initrd(&mut self, limit: u64) -> Result<(u64, u64), BootError> {
        let Some(initrd) = self.image.initrd else { return Ok((0, 0)) };
        let fail = |r: Reason| r.in_file(initrd.name);
        if initrd.data.is_empty() {
            return Err(fail(Reason::Empty));
        }
        let len = initrd.data.len() as u64;
        let at = self.space.place_high(len, 0x1000, limit, "initrd").map_err(fail)?;
        self.space.write(at, initrd.data, "initrd").map_err(fail)?;
        Ok((at, len))
    }

    fn fail(&self, reason: Reason) -> BootError {
        reason.in_file(self.image.kernel.name)
    }
}

/// Little-endian fields of an untrusted byte slice.
trait Fields {
    fn u8_at(&self, at: usize) -> Option<u8>;
    fn u16_at(&self, at: usize) -> Option<u16>;
    fn u32_at(&self, at: usize) -> Option<u32>;
    fn u64_at(&self, at: usize) -> Option<u64>;
}

impl Fields for [u8] {
    fn u8_at(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }
    fn u16_at(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.get(at..)?.first_chunk()?))
    }
    fn u32_at(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.get(at..)?.first_chunk()?))
    }
    fn u64_at(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*self.get(at..)?.first_chunk()?))
    }
}
