//! The Linux boot protocol. Source: the kernel's "The Linux/x86 Boot Protocol" (boot.rst) and "Zero Page" (zero-page.rst).

use super::elf::{Elf, LoadError, PREFIX, is_elf};
use super::entry::gpr;
use super::unpack::{Format, Metered, drain};
use super::{BootError, EntryState, Fields, Job, Loaded, Protocol, Reason, Unpack, initrd, layout};
use std::io::Read;

/// Offsets of setup header fields, in the file as in the zero page.
mod field {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const SYSSIZE: usize = 0x1f4;
    pub const BOOT_FLAG: usize = 0x1fe;
    pub const JUMP: usize = 0x201;
    pub const HEADER: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const KERNEL_VERSION: usize = 0x20e;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const CODE32_START: usize = 0x214;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const RELOCATABLE: usize = 0x234;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PAYLOAD_OFFSET: usize = 0x248;
    pub const PAYLOAD_LENGTH: usize = 0x24c;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    pub const END: usize = 0x290;
}

/// Offsets of zero page fields outside of the setup header.
mod zero_page {
    pub const EXT_MEM_K: usize = 0x002;
    pub const ACPI_RSDP: usize = 0x070;
    pub const ALT_MEM_K: usize = 0x1e0;
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const E820_TABLE: usize = 0x2d0;
    pub const LEN: usize = 0x1000;
}

const LOADED_HIGH: u8 = 1 << 0;
const XLF_KERNEL_64: u16 = 1 << 0;
const ENTRY_64: u64 = 0x200;

/// A checked bzImage.
pub(super) struct Header<'a> {
    file: &'a [u8],
    version: u16,
    /// The protected-mode part.
    code: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header of `file`, if it looks like a Linux image.
    pub(super) fn find(file: &'a [u8]) -> Option<Result<Header<'a>, Reason>> {
        let have = file.len() as u64;
        if file.len() < field::VERSION + 2 {
            let end = field::END as u64;
            return file.starts_with(b"MZ").then_some(Err(Reason::Truncated { what: "the setup header", end, have }));
        }
        let linux = file.u16_at(field::BOOT_FLAG) == Some(0xaa55) && file.get(field::HEADER..)?.starts_with(b"HdrS");
        linux.then(|| Self::parse(file))
    }

    fn parse(file: &'a [u8]) -> Result<Header<'a>, Reason> {
        let have = file.len() as u64;
        let cut = |what, end| Reason::Truncated { what, end, have };
        let need = |v: Option<u64>| v.ok_or(cut("the setup header", field::END as u64));
        let version = need(file.u16_at(field::VERSION).map(u64::from))? as u16;
        if version < 0x200 {
            return Err(Reason::Unsupported("a Linux image older than boot protocol 2.00"));
        }
        if need(file.u8_at(field::LOADFLAGS).map(u64::from))? as u8 & LOADED_HIGH == 0 {
            return Err(Reason::Unsupported("a zImage, which is loaded below 640 KB"));
        }
        let sectors = match need(file.u8_at(field::SETUP_SECTS).map(u64::from))? {
            0 => 4,
            n => n,
        };
        let paragraphs =
            if version < 0x204 { file.u16_at(field::SYSSIZE).map(u64::from) } else { file.u32_at(field::SYSSIZE).map(u64::from) };
        let start = (sectors + 1) * 512;
        let end = start + need(paragraphs)? * 16;
        // The size is rounded up to 16 bytes, the file need not be.
        if have <= start || have + 15 < end || end <= start {
            return Err(cut("the kernel", end));
        }
        Ok(Header { file, version, code: &file[start as usize..end.min(have) as usize] })
    }

    /// A 32-bit field of the setup header that exists since protocol `since`.
    fn u32(&self, at: usize, since: u16) -> Option<u32> {
        if self.version >= since { self.file.u32_at(at) } else { None }
    }

    fn kernel_version(&self) -> Option<String> {
        let at = 0x200 + usize::from(self.file.u16_at(field::KERNEL_VERSION).filter(|&at| at != 0)?);
        let text = self.file.get(at..)?.iter().take(128).take_while(|&&b| b != 0);
        Some(text.map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '?' }).collect())
    }

    /// The packed kernel, and what it says it unpacks to. None when the header does not tell.
    fn payload(&self) -> Result<Option<(&'a [u8], u64)>, Reason> {
        let offset = self.u32(field::PAYLOAD_OFFSET, 0x208).unwrap_or(0) as usize;
        let len = self.u32(field::PAYLOAD_LENGTH, 0x208).unwrap_or(0) as usize;
        if offset == 0 || len == 0 {
            return Ok(None);
        }
        let payload =
            self.code.get(offset..).and_then(|c| c.get(..len)).ok_or(Reason::Damaged("the payload lies outside of the kernel"))?;
        let size_at = len.checked_sub(4).ok_or(Reason::Damaged("the payload is too short"))?;
        Ok(payload.u32_at(size_at).map(|size| (payload, size.into())))
    }
}

/// The longest unpacked kernel that is worth keeping.
const MOST_KEPT: u64 = 256 << 20;

/// Where a kernel is entered.
struct Kernel {
    protocol: Protocol,
    entry: u64,
    code32_start: u32,
}

pub(super) fn load(job: &mut Job, header: Header) -> Result<Loaded, BootError> {
    if let Some(initrd) = job.image.initrd.filter(|i| !i.data.is_empty()) {
        initrd::check(initrd.data, job.space.memory()).map_err(|r| r.in_file(initrd.name))?;
    }
    let by_host = if job.unpack == Unpack::Host { unpack(job, &header).map_err(|r| job.fail(r))? } else { None };
    let kernel = match by_host {
        Some(kernel) => kernel,
        None => load_packed(job, &header).map_err(|r| job.fail(r))?,
    };
    let long = matches!(kernel.protocol, Protocol::Linux64 | Protocol::LinuxSelfUnpack64);
    let mut entry = if long { EntryState::long64(job, kernel.entry)? } else { EntryState::protected32(job, kernel.entry)? };
    let max = header.u32(field::CMDLINE_SIZE, 0x206).filter(|&n| n > 0).unwrap_or(255);
    let cmdline = job.place_cmdline(max.into())?;
    let initrd_max = header.u32(field::INITRD_ADDR_MAX, 0x203).unwrap_or(0x37ff_ffff);
    let initrd = job.place_initrd((u64::from(initrd_max) + 1).min(layout::LOW_MEMORY_END))?;
    entry.gpr[gpr::RSI] = write_zero_page(job, &header, &kernel, cmdline, initrd).map_err(|r| job.fail(r))?;
    Ok(Loaded { entry, protocol: kernel.protocol, version: header.kernel_version() })
}

/// Unpacks the payload, an ELF file, straight to where its segments belong. None when the header names no payload.
fn unpack(job: &mut Job, header: &Header) -> Result<Option<Kernel>, Reason> {
    let Some((payload, total)) = header.payload()? else { return Ok(None) };
    let memory = job.space.memory();
    if total > memory {
        return Err(Reason::NoRoom { what: "the unpacked kernel", len: total, memory });
    }
    // Where it goes is only known once its header is unpacked; most likely there.
    if let Some(at) = header.file.u64_at(field::PREF_ADDRESS).filter(|_| header.version >= 0x20a) {
        job.space.prepare(at, total.min(memory.saturating_sub(at)));
    }
    // All formats but gzip, which ends with it anyway, have the size appended to the stream.
    let bare = &payload[..payload.len() - 4];
    let kept = job.unpacked.and_then(|u| u.find(payload, total));
    let mut copy = None;
    let (name, inner): (_, Box<dyn Read>) = match (Format::detect(payload), kept) {
        (None, _) if is_elf(payload) => ("plain", Box::new(bare)),
        (None, _) => return Err(Reason::Packing(unknown(payload))),
        (Some(Format::Lzo), _) => return Err(Reason::Packing("lzo".into())),
        (Some(format), Some(kept)) => (format.name(), kept),
        (Some(format), None) => {
            let data = if format == Format::Gzip { payload } else { bare };
            copy = job.unpacked.filter(|_| total <= MOST_KEPT).map(|_| Vec::new());
            (format.name(), format.reader(data).map_err(|e| Reason::unpack("the kernel payload", format.name(), &e))?)
        }
    };
    let fail = |e: std::io::Error| Reason::unpack("the kernel payload", name, &e);
    let mut stream = Metered { inner, done: 0, total, copy, progress: &mut *job.progress };
    let mut prefix = Vec::new();
    stream.by_ref().take(PREFIX as u64).read_to_end(&mut prefix).map_err(fail)?;
    if !is_elf(&prefix) {
        return Err(Reason::Damaged("the unpacked payload is not an ELF file"));
    }
    let elf = Elf::parse(&prefix)?;
    let entry = elf.entry()?;
    elf.load(&mut prefix.as_slice().chain(&mut stream), &mut job.space).map_err(|e| match e {
        LoadError::Reason(r) => r,
        LoadError::Read(e) => fail(e),
    })?;
    drain(&mut stream, "the kernel payload", name)?;
    if stream.done != total {
        return Err(Reason::Damaged("the payload does not unpack to the size it claims"));
    }
    if let (Some(unpacked), Some(copy)) = (job.unpacked, stream.copy.take()) {
        unpacked.keep(payload, copy);
    }
    let code32_start = u32::try_from(entry).map_err(|_| Reason::Damaged("the entry point lies above 4 GiB"))?;
    Ok(Some(Kernel { protocol: if elf.is64 { Protocol::Linux64 } else { Protocol::Linux32 }, entry, code32_start }))
}

fn unknown(payload: &[u8]) -> String {
    let magic: Vec<String> = payload.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("something unknown (it starts with {})", magic.join(" "))
}

/// Loads the protected-mode part as it is; it unpacks itself in the guest.
fn load_packed(job: &mut Job, header: &Header) -> Result<Kernel, Reason> {
    let relocatable = header.version >= 0x205 && header.file.u8_at(field::RELOCATABLE) == Some(1);
    let preferred = header.file.u64_at(field::PREF_ADDRESS).filter(|_| header.version >= 0x20a && relocatable);
    let at = match preferred {
        Some(at) => at,
        None => header.u32(field::CODE32_START, 0x200).unwrap_or(0).into(),
    };
    let code32_start = u32::try_from(at).map_err(|_| Reason::Damaged("the preferred address lies above 4 GiB"))?;
    let len = header.code.len() as u64;
    let room = len.max(header.u32(field::INIT_SIZE, 0x20a).unwrap_or(0).into());
    job.space.claim(at, room, "the kernel with room to unpack itself")?;
    job.space.write(at, header.code, "kernel")?;
    let is64 = header.version >= 0x20c && header.file.u16_at(field::XLOADFLAGS).is_some_and(|x| x & XLF_KERNEL_64 != 0);
    let (protocol, offset) = if is64 { (Protocol::LinuxSelfUnpack64, ENTRY_64) } else { (Protocol::LinuxSelfUnpack32, 0) };
    if offset >= len {
        return Err(Reason::Damaged("the kernel ends before its entry point"));
    }
    Ok(Kernel { protocol, entry: at + offset, code32_start })
}

/// Writes the zero page (struct boot_params) and returns its address.
fn write_zero_page(job: &mut Job, header: &Header, kernel: &Kernel, cmdline: u64, initrd: (u64, u64)) -> Result<u64, Reason> {
    /// "Undefined" in the protocol's list of loaders.
    const LOADER: u8 = 0xff;
    let mut page = vec![0u8; zero_page::LEN];
    // The header's length is in the jump over it.
    let end = field::HEADER + usize::from(header.file.u8_at(field::JUMP).unwrap_or(0));
    let end = end.min(field::END).min(header.file.len());
    page[field::SETUP_SECTS..end].copy_from_slice(&header.file[field::SETUP_SECTS..end]);
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(field::TYPE_OF_LOADER, &[LOADER]);
    put(field::CODE32_START, &kernel.code32_start.to_le_bytes());
    // Everything is placed below 4 GiB: `place_low` and `place_high` keep under LOW_MEMORY_END.
    put(field::RAMDISK_IMAGE, &(initrd.0 as u32).to_le_bytes());
    put(field::RAMDISK_SIZE, &(initrd.1 as u32).to_le_bytes());
    put(field::CMD_LINE_PTR, &(cmdline as u32).to_le_bytes());
    put(zero_page::ACPI_RSDP, &job.rsdp.to_le_bytes());
    let map = layout::memory_map(job.space.ram.regions());
    let extended = map.iter().find(|e| e.start == layout::EXTENDED_MEMORY).map_or(0, |e| (e.len >> 10) as u32);
    put(zero_page::EXT_MEM_K, &(extended.min(0xfc00) as u16).to_le_bytes());
    put(zero_page::ALT_MEM_K, &extended.to_le_bytes());
    put(zero_page::E820_ENTRIES, &[map.len() as u8]);
    for (i, e) in map.iter().enumerate() {
        let at = zero_page::E820_TABLE + 20 * i;
        put(at, &e.start.to_le_bytes());
        put(at + 8, &e.len.to_le_bytes());
        put(at + 16, &(e.kind as u32).to_le_bytes());
    }
    let at = job.space.place_low(zero_page::LEN as u64, 0x1000, "zero page")?;
    job.space.write(at, &page, "zero page")?;
    Ok(at)
}
