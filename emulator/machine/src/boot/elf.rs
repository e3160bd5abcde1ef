//! ELF files: their loadable segments, taken from a slice or from a stream.

use super::Reason;
use super::space::Space;
use object::elf::{ELFCLASS64, ELFMAG, EM_386, EM_X86_64, FileHeader32, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};
use std::io::Read;

/// The headers must lie in this many bytes from the start of the file.
pub(super) const PREFIX: usize = 64 << 10;
/// More loadable segments than any kernel has.
const MAX_SEGMENTS: usize = 64;

/// A loadable segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    offset: u64,
    file_len: u64,
    virt: u64,
    phys: u64,
    len: u64,
}

/// What an ELF file says about loading it.
#[derive(Clone, Debug)]
pub(super) struct Elf {
    /// 64-bit container.
    pub(super) is64: bool,
    entry: u64,
    /// In file order.
    segments: Vec<Segment>,
}

/// Whether `data` starts like an ELF file.
pub(super) fn is_elf(data: &[u8]) -> bool {
    data.starts_with(&ELFMAG)
}

/// Whether `data` is a 64-bit container.
pub(super) fn is_64(data: &[u8]) -> bool {
    data.get(4) == Some(&ELFCLASS64.0)
}

pub(super) fn elf_error(e: object::read::Error) -> Reason {
    Reason::Elf(e.to_string().to_lowercase())
}

impl Elf {
    /// Reads the headers from `prefix`, the start of the file.
    pub(super) fn parse(prefix: &[u8]) -> Result<Elf, Reason> {
        if is_64(prefix) { Self::parse_as::<FileHeader64<Endianness>>(prefix) } else { Self::parse_as::<FileHeader32<Endianness>>(prefix) }
    }

    fn parse_as<H: FileHeader<Endian = Endianness>>(prefix: &[u8]) -> Result<Elf, Reason> {
        let header = H::parse(prefix).map_err(elf_error)?;
        let endian = header.endian().map_err(elf_error)?;
        let machine = header.e_machine(endian);
        if endian != Endianness::Little || (machine != EM_X86_64 && machine != EM_386) {
            return Err(Reason::Unsupported("an ELF file for another processor than x86"));
        }
        let mut segments = Vec::new();
        for p in header.program_headers(endian, prefix).map_err(elf_error)?.iter().filter(|p| p.p_type(endian) == PT_LOAD) {
            let s = Segment {
                offset: p.p_offset(endian).into(),
                file_len: p.p_filesz(endian).into(),
                virt: p.p_vaddr(endian).into(),
                phys: p.p_paddr(endian).into(),
                len: p.p_memsz(endian).into(),
            };
            if s.file_len > s.len || s.offset.checked_add(s.file_len).is_none() {
                return Err(Reason::Elf("a segment is longer in the file than in memory".into()));
            }
            if s.len > 0 {
                segments.push(s);
            }
        }
        if segments.is_empty() || segments.len() > MAX_SEGMENTS {
            return Err(Reason::Elf(format!("{} loadable segments", segments.len())));
        }
        segments.sort_by_key(|s| s.offset);
        Ok(Elf { is64: header.is_class_64(), entry: header.e_entry(endian).into(), segments })
    }

    /// The physical address of the entry point. Kernels give it either as such or as a virtual address.
    pub(super) fn entry(&self) -> Result<u64, Reason> {
        let inside = |base: u64, len: u64| self.entry.checked_sub(base).filter(|&at| at < len);
        let phys = self.segments.iter().find_map(|s| inside(s.phys, s.len).map(|at| s.phys.wrapping_add(at)));
        let virt = || self.segments.iter().find_map(|s| inside(s.virt, s.len).map(|at| s.phys.wrapping_add(at)));
        phys.or_else(virt).ok_or_else(|| Reason::Elf(format!("the entry point {:#x} is in no segment", self.entry)))
    }

    /// Whether the physical address `at` lies in a segment.
    pub(super) fn contains(&self, at: u64) -> bool {
        self.segments.iter().any(|s| at.checked_sub(s.phys).is_some_and(|o| o < s.len))
    }

    /// Claims the segments' memory, then copies them from `file`, which starts at the file's first byte.
    pub(super) fn load(&self, file: &mut dyn Read, space: &mut Space) -> Result<(), LoadError> {
        let what = "kernel";
        for s in &self.segments {
            space.claim(s.phys, s.len, what)?;
        }
        if let Some(s) = self.segments.iter().max_by_key(|s| s.file_len) {
            space.prepare(s.phys, s.file_len);
        }
        let mut chunk = vec![0; 64 << 10];
        let mut at = 0u64;
        for s in &self.segments {
            if s.file_len == 0 {
                space.clear(s.phys, s.len, what)?;
                continue;
            }
            let mut skip = s.offset.checked_sub(at).ok_or(Reason::Elf("segments overlap in the file".into()))?;
            while skip > 0 {
                let n = skip.min(chunk.len() as u64) as usize;
                file.read_exact(&mut chunk[..n])?;
                skip -= n as u64;
            }
            let mut done = 0;
            while done < s.file_len {
                let n = (s.file_len - done).min(chunk.len() as u64) as usize;
                file.read_exact(&mut chunk[..n])?;
                space.write(s.phys + done, &chunk[..n], what)?;
                done += n as u64;
            }
            at = s.offset + s.file_len;
            space.clear(s.phys + done, s.len - done, what)?;
        }
        Ok(())
    }

    /// Checks that all segments lie in `file`, which is whole.
    pub(super) fn check_len(&self, file: &[u8]) -> Result<(), Reason> {
        let have = file.len() as u64;
        let end = self.segments.iter().filter(|s| s.file_len > 0).map(|s| s.offset + s.file_len).max().unwrap_or(0);
        if end > have { Err(Reason::Truncated { what: "a segment", end, have }) } else { Ok(()) }
    }

    /// [`Self::load`] from a whole file in memory.
    pub(super) fn load_slice(&self, mut file: &[u8], space: &mut Space) -> Result<(), Reason> {
        self.check_len(file)?;
        self.load(&mut file, space).map_err(|e| match e {
            LoadError::Reason(r) => r,
            LoadError::Read(e) => Reason::Elf(e.to_string()),
        })
    }
}

/// Why a segment could not be loaded.
pub(super) enum LoadError {
    /// The ELF file or the memory is at fault.
    Reason(Reason),
    /// The stream is at fault.
    Read(std::io::Error),
}

impl From<Reason> for LoadError {
    fn from(r: Reason) -> Self {
        LoadError::Reason(r)
    }
}

impl From<std::io::Error> for LoadError {
    fn from(e: std::io::Error) -> Self {
        LoadError::Read(e)
    }
}

/// The descriptor of the note called `name` with type `n_type`, looked for in the note segments of `file`.
pub(super) fn note<'a>(file: &'a [u8], name: &[u8], n_type: u32) -> Result<Option<&'a [u8]>, Reason> {
    if is_64(file) {
        note_as::<FileHeader64<Endianness>>(file, name, n_type)
    } else {
        note_as::<FileHeader32<Endianness>>(file, name, n_type)
    }
}

fn note_as<'a, H: FileHeader<Endian = Endianness>>(file: &'a [u8], name: &[u8], n_type: u32) -> Result<Option<&'a [u8]>, Reason> {
    let header = H::parse(file).map_err(elf_error)?;
    let endian = header.endian().map_err(elf_error)?;
    for p in header.program_headers(endian, file).map_err(elf_error)? {
        let Some(mut notes) = p.notes(endian, file).map_err(elf_error)? else { continue };
        while let Some(n) = notes.next().map_err(elf_error)? {
            if n.name() == name && n.n_type(endian) == elf::NoteType(n_type) {
                return Ok(Some(n.desc()));
            }
        }
    }
    Ok(None)
}
