//! The PVH entry: an ELF file whose XEN_ELFNOTE_PHYS32_ENTRY note names a 32-bit entry point.
//! Source: Xen's "x86/HVM direct boot ABI" and `hvm_start_info`.

use super::elf::{self, Elf};
use super::entry::gpr;
use super::{BootError, EntryState, Fields, Job, Loaded, Protocol, Reason, layout};

const PHYS32_ENTRY: u32 = 18;
const START_MAGIC: u32 = 0x336e_c578;
const START_INFO_LEN: u64 = 56;
const MODULE_LEN: u64 = 32;

/// A kernel with a PVH entry.
pub(super) struct Pvh {
    elf: Elf,
    entry: u64,
}

/// The PVH entry of `file`, if it is an ELF file that has one.
pub(super) fn find(file: &[u8]) -> Option<Result<Pvh, Reason>> {
    if !elf::is_elf(file) {
        return None;
    }
    let parse = || {
        let elf = Elf::parse(file)?;
        elf.check_len(file)?;
        Ok(elf::note(file, b"Xen", PHYS32_ENTRY)?.map(|desc| (elf, desc)))
    };
    parse().and_then(|found| found.map(|(elf, desc)| with_entry(elf, desc)).transpose()).transpose()
}

fn with_entry(elf: Elf, desc: &[u8]) -> Result<Pvh, Reason> {
    let entry = desc.u64_at(0).or_else(|| desc.u32_at(0).map(u64::from)).ok_or(Reason::Damaged("the PVH note holds no address"))?;
    if !elf.contains(entry) || u32::try_from(entry).is_err() {
        return Err(Reason::Damaged("the PVH entry point is in no segment"));
    }
    Ok(Pvh { elf, entry })
}

pub(super) fn load(job: &mut Job, pvh: Pvh) -> Result<Loaded, BootError> {
    pvh.elf.load_slice(job.image.kernel.data, &mut job.space).map_err(|r| job.fail(r))?;
    let mut entry = EntryState::protected32(job, pvh.entry)?;
    let cmdline = job.place_cmdline(0xffff)?;
    let initrd = job.place_initrd(layout::LOW_MEMORY_END)?;
    entry.gpr[gpr::RBX] = start_info(job, cmdline, initrd).map_err(|r| job.fail(r))?;
    Ok(Loaded { entry, protocol: Protocol::Pvh, version: None })
}

fn start_info(job: &mut Job, cmdline: u64, (initrd, initrd_len): (u64, u64)) -> Result<u64, Reason> {
    let map = layout::memory_map(job.space.ram.regions());
    let map_len = map.len() as u64 * 24;
    let what = "start information";
    let at = job.space.place_low(START_INFO_LEN + MODULE_LEN + map_len, 16, what)?;
    let (modules, map_at) = (at + START_INFO_LEN, at + START_INFO_LEN + MODULE_LEN);
    let mut out = Vec::new();
    let mut u32s = |v: &[u32]| out.extend(v.iter().flat_map(|x| x.to_le_bytes()));
    u32s(&[START_MAGIC, 1, 0, u32::from(initrd_len > 0)]);
    let u64s = |out: &mut Vec<u8>, v: &[u64]| out.extend(v.iter().flat_map(|x| x.to_le_bytes()));
    u64s(&mut out, &[modules, cmdline, job.rsdp, map_at, map.len() as u64]);
    u64s(&mut out, &[initrd, initrd_len, 0, 0]);
    for e in map {
        u64s(&mut out, &[e.start, e.len, e.kind as u64]);
    }
    job.space.write(at, &out, what)?;
    Ok(at)
}
