//! Multiboot 1 kernels, as ELF files of either class or with the load addresses in the header.
//! Source: GNU "Multiboot Specification version 0.6.96".

use super::elf::{self, Elf};
use super::entry::gpr;
use super::{BootError, EntryState, Fields, Job, Loaded, Protocol, Reason, layout};

const HEADER_MAGIC: u32 = 0x1bad_b002;
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// The header must lie in this many bytes from the start of the file.
const SEARCH: usize = 8192;
/// Header flags: what the kernel requires.
const PAGE_ALIGN: u32 = 1 << 0;
const MEMORY_INFO: u32 = 1 << 1;
const VIDEO_MODE: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;
/// Flags in the low half that a loader must refuse when it does not know them.
const REQUIRED: u32 = 0xffff;
/// Information flags: what the loader provides.
const HAS_MEMORY: u32 = 1 << 0;
const HAS_CMDLINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MAP: u32 = 1 << 6;
const HAS_NAME: u32 = 1 << 9;
const INFO_LEN: u64 = 120;
const LOADER_NAME: &[u8] = b"Egret\0";

/// The multiboot header of a kernel.
pub(super) struct Header {
    /// Its place in the file.
    at: usize,
    /// The address fields, when the header has them.
    addresses: Option<Addresses>,
}

struct Addresses {
    header: u32,
    load: u32,
    load_end: u32,
    bss_end: u32,
    entry: u32,
}

impl Header {
    /// The header of `file`, if it has one.
    pub(super) fn find(file: &[u8]) -> Option<Result<Header, Reason>> {
        let end = file.len().min(SEARCH);
        let at = (0..end.checked_sub(11)?).step_by(4).find(|&at| {
            let word = |n: usize| file.u32_at(at + 4 * n).unwrap_or(0);
            word(0) == HEADER_MAGIC && word(0).wrapping_add(word(1)).wrapping_add(word(2)) == 0
        })?;
        Some(Self::parse(file, at))
    }

    fn parse(file: &[u8], at: usize) -> Result<Header, Reason> {
        let word = |n: usize| {
            let end = (at + 4 * n + 4) as u64;
            file.u32_at(at + 4 * n).ok_or(Reason::Truncated { what: "the multiboot header", end, have: file.len() as u64 })
        };
        let flags = word(1)?;
        if flags & VIDEO_MODE != 0 {
            return Err(Reason::Unsupported("the multiboot header asks for a video mode"));
        }
        if flags & REQUIRED & !(PAGE_ALIGN | MEMORY_INFO) != 0 {
            return Err(Reason::Unsupported("the multiboot header requires a feature that version 1 does not define"));
        }
        let addresses = if flags & ADDRESSES == 0 {
            None
        } else {
            Some(Addresses { header: word(3)?, load: word(4)?, load_end: word(5)?, bss_end: word(6)?, entry: word(7)? })
        };
        Ok(Header { at, addresses })
    }
}

pub(super) fn load(job: &mut Job, header: Header) -> Result<Loaded, BootError> {
    let file = job.image.kernel.data;
    let entry = match &header.addresses {
        Some(a) => load_flat(job, header.at, a),
        None if elf::is_elf(file) => load_elf(job, file),
        None => Err(Reason::Damaged("the multiboot header gives no addresses and the file is not ELF")),
    };
    let entry = entry.map_err(|r| job.fail(r))?;
    let mut state = EntryState::protected32(job, entry)?;
    let cmdline = job.place_cmdline(0xffff)?;
    let module = job.place_initrd(layout::LOW_MEMORY_END)?;
    state.gpr[gpr::RAX] = LOADER_MAGIC;
    state.gpr[gpr::RBX] = info(job, cmdline, module).map_err(|r| job.fail(r))?;
    Ok(Loaded { entry: state, protocol: Protocol::Multiboot, version: None })
}

fn load_elf(job: &mut Job, file: &[u8]) -> Result<u64, Reason> {
    let elf = Elf::parse(file)?;
    let entry = elf.entry()?;
    elf.load_slice(file, &mut job.space)?;
    if u32::try_from(entry).is_err() {
        return Err(Reason::Damaged("the entry point lies above 4 GiB"));
    }
    Ok(entry)
}

/// Multiboot 3.1.3, "The address fields of Multiboot header".
fn load_flat(job: &mut Job, header_at: usize, a: &Addresses) -> Result<u64, Reason> {
    let file = job.image.kernel.data;
    let before = a.header.checked_sub(a.load).ok_or(Reason::Damaged("header_addr is below load_addr"))?;
    let start = header_at.checked_sub(before as usize).ok_or(Reason::Damaged("load_addr lies before the file's first byte"))?;
    let data = file.get(start..).unwrap_or_default();
    let len = match a.load_end {
        0 => data.len() as u64,
        end => u64::from(end.checked_sub(a.load).ok_or(Reason::Damaged("load_end_addr is below load_addr"))?),
    };
    let have = file.len() as u64;
    let data = data.get(..len as usize).ok_or(Reason::Truncated { what: "the kernel", end: start as u64 + len, have })?;
    let load = u64::from(a.load);
    let bss = match a.bss_end {
        0 => 0,
        end => u64::from(end).checked_sub(load + len).ok_or(Reason::Damaged("bss_end_addr is below the end of the data"))?,
    };
    if u64::from(a.entry).checked_sub(load).is_none_or(|at| at >= len) {
        return Err(Reason::Damaged("entry_addr is outside the kernel"));
    }
    job.space.claim(load, len + bss, "kernel")?;
    job.space.write(load, data, "kernel")?;
    job.space.clear(load + len, bss, "kernel")?;
    Ok(a.entry.into())
}

/// Writes the information structure (3.3, "Boot information format") with what it points to; returns its address.
fn info(job: &mut Job, cmdline: u64, (module, module_len): (u64, u64)) -> Result<u64, Reason> {
    const MODULE_LEN: u64 = 16;
    let map = layout::memory_map(job.space.ram.regions());
    let name = job.image.initrd.map(|i| i.name.as_bytes()).unwrap_or_default();
    let map_len = map.len() as u64 * 24;
    let what = "multiboot information";
    let at = job.space.place_low(INFO_LEN + MODULE_LEN + map_len + LOADER_NAME.len() as u64 + name.len() as u64 + 1, 16, what)?;
    let modules_at = at + INFO_LEN;
    let map_at = modules_at + MODULE_LEN;
    let loader_at = map_at + map_len;
    let name_at = loader_at + LOADER_NAME.len() as u64;
    let upper = map.iter().find(|e| e.start == layout::EXTENDED_MEMORY).map_or(0, |e| e.len);
    let flags = HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MAP | HAS_NAME;

    let mut words = [0u32; INFO_LEN as usize / 4];
    words[0] = flags;
    words[1] = (layout::EBDA >> 10) as u32;
    words[2] = (upper >> 10) as u32;
    words[4] = cmdline as u32;
    words[5] = u32::from(module_len > 0);
    words[6] = modules_at as u32;
    words[11] = map_len as u32;
    words[12] = map_at as u32;
    words[16] = loader_at as u32;
    let module_words = [module as u32, module.wrapping_add(module_len) as u32, name_at as u32, 0];
    let mut out: Vec<u8> = words.iter().chain(&module_words).flat_map(|w| w.to_le_bytes()).collect();
    for e in map {
        out.extend(20u32.to_le_bytes());
        out.extend(e.start.to_le_bytes());
        out.extend(e.len.to_le_bytes());
        out.extend((e.kind as u32).to_le_bytes());
    }
    out.extend(LOADER_NAME);
    out.extend(name.iter().map(|&b| if b == 0 { b'?' } else { b }));
    out.push(0);
    job.space.write(at, &out, what)?;
    Ok(at)
}
