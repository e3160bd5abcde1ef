//! What can be wrong with an image, in one line that names the file.

use crate::acpi::AcpiError;

/// An image that cannot be booted.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct BootError {
    /// The name of the file at fault, as the caller gave it, without control characters.
    pub file: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// None of the formats.
    #[error("not a kernel: neither a bzImage, nor an ELF file with a PVH note, nor a multiboot image")]
    NoKernel,
    /// An ELF file that says nothing about how to boot it.
    #[error("an ELF file with neither a PVH note nor a multiboot header: no way to boot it")]
    PlainElf,
    /// The file ends before something that its headers promise.
    #[error("truncated: {what} ends at byte {end}, the file has {have}")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Where it should end.
        end: u64,
        /// Bytes in the file.
        have: u64,
    },
    /// Something that contradicts itself.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// A damaged ELF structure.
    #[error("damaged ELF file: {0}")]
    Elf(String),
    /// A feature we do not have.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The payload is in a format that the host cannot unpack.
    #[error("the kernel payload is packed as {0}, which the host cannot unpack (--unpack guest may work)")]
    Packing(String),
    /// Unpacking failed.
    #[error("{what} ({format}) cannot be unpacked: {error}")]
    Unpack {
        /// The thing being unpacked.
        what: &'static str,
        /// Its compression format.
        format: &'static str,
        /// The decoder's words.
        error: String,
    },
    /// It needs memory that the machine does not have.
    #[error("{what} does not fit: {len} bytes at {at:#x} are not all free RAM in a machine of {} MB", memory >> 20)]
    Placement {
        /// What is to be placed.
        what: &'static str,
        /// Where.
        at: u64,
        /// How much.
        len: u64,
        /// Bytes of guest memory.
        memory: u64,
    },
    /// Nowhere is there room for it.
    #[error("{what} of {len} bytes does not fit in memory of {} MB", memory >> 20)]
    NoRoom {
        /// What is to be placed.
        what: &'static str,
        /// Its size.
        len: u64,
        /// Bytes of guest memory.
        memory: u64,
    },
    /// Too little memory for any kernel.
    #[error("{bytes} bytes of memory are too few for a machine")]
    Memory {
        /// Bytes of guest memory.
        bytes: u64,
    },
    /// The command line is too long for this kernel.
    #[error("the command line has {len} bytes, this kernel takes {max}")]
    CommandLine {
        /// Its length.
        len: u64,
        /// The kernel's limit.
        max: u64,
    },
    /// The command line has a NUL byte in it.
    #[error("the command line has a NUL byte in it")]
    CommandLineNul,
    /// An initrd that Linux cannot recognize.
    #[error("not an initrd: neither a cpio archive, nor packed in a way Linux knows, nor a file system image")]
    NoInitrd,
    /// The ACPI tables cannot be made.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
}

impl Reason {
    /// This reason, blamed on the file called `name`.
    pub(super) fn in_file(self, name: &str) -> BootError {
        BootError { file: name.chars().map(|c| if c.is_control() { '?' } else { c }).collect(), reason: self }
    }

    /// A [`Reason::Unpack`] whose text is one line.
    pub(super) fn unpack(what: &'static str, format: &'static str, error: &dyn std::fmt::Display) -> Reason {
        Reason::Unpack { what, format, error: error.to_string().replace(char::is_control, " ") }
    }
}
