//! Memory accesses: the TLB's fast path, and the slow path behind it that walks page tables, splits accesses that cross
//! pages, reaches MMIO and notices writes to translated code.
//!
//! The one place of this crate with `unsafe` code: a TLB hit yields a host address.
#![allow(unsafe_code)]

use crate::Cpu;
use crate::fault::{Fault, vector};
use crate::mmu::Access;
use crate::state::attention;
use crate::tlb::{self, Entry};
use egret_bus::{Phys, host_compare_exchange, host_compare_exchange_16, host_load, host_store};
use egret_isa::insn::{Mode, Seg};

/// What compiled code is told about an access that missed the TLB's fast path: see [`Cpu::host_for`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// All of it is at this host address.
    At(u64),
    /// It crosses into another page; all of it is plain RAM.
    Crosses,
    /// A device, translated code, or something else that only [`Cpu::read`] and [`Cpu::write`] deal with.
    Special,
}

/// Where the bytes of an access are: one piece, or two when it crosses a page. `len` bytes are in the first.
#[derive(Clone, Copy)]
struct Pieces {
    first: u64,
    second: u64,
    len: u8,
}

/// The rest of a page of plain RAM.
struct Bulk {
    host: *mut u8,
    room: u64,
    /// It has translated code: its physical address. Whoever writes has to say so.
    code: Option<u64>,
}

impl Cpu {
    /// The linear address of `size` bytes at `seg:offset`, checked against the segment.
    #[inline(always)]
    pub(crate) fn linear(&mut self, seg: Seg, offset: u64, size: u64, write: bool) -> Result<u64, Fault> {
        if self.code64() {
            return Ok(if (seg as u8) >= Seg::Fs as u8 { self.state.seg[seg as usize].base.wrapping_add(offset) } else { offset });
        }
        let s = &self.state.seg[seg as usize];
        let end = if write { s.write_end } else { s.read_end };
        if offset.wrapping_add(size) > end || offset > 0xffff_ffff {
            self.check_segment(seg, offset, size, write)?;
        }
        Ok(self.state.seg[seg as usize].base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// The full segment check (SDM Vol. 3, "Limit Checking", "Type Checking").
    #[cold]
    #[inline(never)]
    fn check_segment(&mut self, seg: Seg, offset: u64, size: u64, write: bool) -> Result<(), Fault> {
        use crate::state::SegReg as S;
        let s = &self.state.seg[seg as usize];
        let fault = if seg == Seg::Ss { Fault::SS0 } else { Fault::GP0 };
        let typed = if s.is_code() { !write && s.attr & S::WRITABLE != 0 } else { !write || s.attr & S::WRITABLE != 0 };
        if !s.present() {
            return Err(fault);
        }
        if !typed && !self.real_mode() && !self.v86() {
            return Err(Fault::GP0);
        }
        let last = offset + (size - 1);
        let inside = if !s.is_code() && s.attr & S::DOWN != 0 {
            let top = if s.attr & S::DB != 0 { 0xffff_ffff } else { 0xffff };
            offset > u64::from(s.limit) && last <= top
        } else {
            last <= u64::from(s.limit)
        };
        if inside { Ok(()) } else { Err(fault) }
    }

    /// Reads `size` (1, 2, 4, 8) bytes at `seg:offset`.
    #[inline(always)]
    pub fn read(&mut self, seg: Seg, offset: u64, size: u8) -> Result<u64, Fault> {
        match self.linear(seg, offset, size.into(), false) {
            Ok(linear) => self.read_linear(seg, linear, size),
            Err(fault) => self.read_wrapped(seg, offset, size, fault),
        }
    }

    /// Writes `size` bytes at `seg:offset`.
    #[inline(always)]
    pub fn write(&mut self, seg: Seg, offset: u64, size: u8, value: u64) -> Result<(), Fault> {
        match self.linear(seg, offset, size.into(), true) {
            Ok(linear) => self.write_linear(seg, linear, size, value),
            Err(fault) => self.write_wrapped(seg, offset, size, value, fault),
        }
    }

    /// A read beyond the end of a segment: a fault, but on an 8086, which goes on at the start.
    #[cold]
    #[inline(never)]
    fn read_wrapped(&mut self, seg: Seg, offset: u64, size: u8, fault: Fault) -> Result<u64, Fault> {
        if !self.wraps() {
            return Err(fault);
        }
        let mut value = 0;
        for n in 0..size.min(8) {
            let at = self.state.seg[seg as usize].base.wrapping_add(offset.wrapping_add(n.into()) & 0xffff);
            value |= self.read_linear(seg, at, 1)? << (8 * n);
        }
        Ok(value)
    }

    /// A write beyond the end of a segment likewise.
    #[cold]
    #[inline(never)]
    pub(crate) fn write_wrapped(&mut self, seg: Seg, offset: u64, size: u8, value: u64, fault: Fault) -> Result<(), Fault> {
        if !self.wraps() {
            return Err(fault);
        }
        for n in 0..size.min(8) {
            let at = self.state.seg[seg as usize].base.wrapping_add(offset.wrapping_add(n.into()) & 0xffff);
            self.write_linear(seg, at, 1, value >> (8 * n) & 0xff)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn hit(&self, entry: &Entry, linear: u64, size: u8) -> Option<*mut u8> {
        // The tag of the last byte's page must match the entry of the first's: an access that crosses a page misses.
        let last = linear.wrapping_add(u64::from(size) - 1);
        (entry.tag == last & !0xfff | self.state.tlb_key).then(|| linear.wrapping_add(entry.addend) as *mut u8)
    }

    /// Reads at a linear address with the current privilege; `seg` decides between #GP and #SS for a non-canonical one.
    #[inline(always)]
    pub fn read_linear(&mut self, seg: Seg, linear: u64, size: u8) -> Result<u64, Fault> {
        match self.hit(&self.state.tlb.read[tlb::index(linear)], linear, size) {
            // SAFETY: a matching entry was made by `fill` from `GuestRam::host` for the whole page, the access lies in
            // that page, and the RAM lives as long as the CPU.
            Some(host) => Ok(unsafe { host_load(host, size) }),
            None => self.read_slow(seg, linear, size),
        }
    }

    /// Writes at a linear address with the current privilege.
    #[inline(always)]
    pub fn write_linear(&mut self, seg: Seg, linear: u64, size: u8, value: u64) -> Result<(), Fault> {
        match self.hit(&self.state.tlb.write[tlb::index(linear)], linear, size) {
            Some(host) => {
                // SAFETY: as in `read_linear`; write entries exist only for pages the guest may write.
                unsafe { host_store(host, size, value) };
                Ok(())
            }
            None => self.write_slow(seg, linear, size, value),
        }
    }

    pub(crate) fn canonical(&self, seg: Seg, linear: u64, size: u8) -> Result<(), Fault> {
        if !self.long_mode() {
            return Ok(());
        }
        let last = linear.wrapping_add(u64::from(size) - 1);
        if self.is_canonical(linear) && self.is_canonical(last) {
            Ok(())
        } else {
            Err(if seg == Seg::Ss { Fault::SS0 } else { Fault::GP0 })
        }
    }

    /// Whether an operand that must be aligned is not. Zen 4 looks at this before limits and canonical form.
    pub(crate) fn misaligned(&self, seg: Seg, offset: u64, bytes: u8) -> bool {
        let flat = self.code64() && (seg as u8) < Seg::Fs as u8;
        let base = if flat { 0 } else { self.state.seg[seg as usize].base };
        base.wrapping_add(offset) & u64::from(bytes).wrapping_sub(1) != 0
    }

    /// Translates all pages of an access before any byte moves.
    fn pieces(&mut self, seg: Seg, linear: u64, size: u8, access: Access) -> Result<Pieces, Fault> {
        self.canonical(seg, linear, size)?;
        // The manual leaves to processors what they demand of vectors that may be misaligned: Zen 4, 16 bytes.
        // An 80-bit number's, to 8.
        let aligned = size.clamp(1, 16).ilog2();
        if self.checks_alignment() && access != Access::Fetch && linear & ((1 << aligned) - 1) != 0 {
            return Err(Fault::with_error(vector::AC, 0));
        }
        let room = 0x1000 - (linear & 0xfff);
        let first = self.translate_again(linear, access)?;
        self.fill(linear, first, access);
        if u64::from(size) <= room {
            return Ok(Pieces { first, second: 0, len: size });
        }
        let next = self.wrap_linear(linear.wrapping_add(room));
        let second = self.translate_again(next, access)?;
        Ok(Pieces { first, second, len: room as u8 })
    }

    pub(crate) fn wrap_linear(&self, linear: u64) -> u64 {
        if self.long_mode() && self.code64() { linear } else { linear & 0xffff_ffff }
    }

    /// Enters a translation into the array of its access, unless the page must keep taking the slow path.
    fn fill(&mut self, linear: u64, phys: u64, access: Access) {
        let page = phys & !0xfff;
        let tag = linear & !0xfff | self.state.tlb_key;
        let at = tlb::index(linear);
        if access == Access::Fetch {
            self.state.tlb.fetch[at] = Entry { tag, addend: page.wrapping_sub(linear & !0xfff) };
            return;
        }
        if self.data_breakpoints() || self.checks_alignment() || (access == Access::Write && !self.may_write_fast(page)) {
            return;
        }
        if let Some(host) = self.ram.host(Phys(page), 0x1000) {
            let entry = Entry { tag, addend: (host as u64).wrapping_sub(linear & !0xfff) };
            match access {
                Access::Write => {
                    self.ram.will_write(Phys(page));
                    self.state.tlb.write[at] = entry;
                }
                _ => self.state.tlb.read[at] = entry,
            }
        }
    }

    /// A read that missed the TLB: page walk, page crossing, MMIO.
    #[cold]
    #[inline(never)]
    pub fn read_slow(&mut self, seg: Seg, linear: u64, size: u8) -> Result<u64, Fault> {
        let p = self.pieces(seg, linear, size, Access::Read)?;
        self.watch(linear, size, false);
        if p.len == size {
            return Ok(self.read_phys(p.first, size));
        }
        let low = (0..p.len).fold(0, |v, n| v | self.read_phys(p.first + u64::from(n), 1) << (8 * n));
        Ok((p.len..size).fold(low, |v, n| v | self.read_phys(p.second + u64::from(n - p.len), 1) << (8 * n)))
    }

    /// A write that missed the TLB.
    #[cold]
    #[inline(never)]
    pub fn write_slow(&mut self, seg: Seg, linear: u64, size: u8, value: u64) -> Result<(), Fault> {
        let p = self.pieces(seg, linear, size, Access::Write)?;
        self.watch(linear, size, true);
        if p.len == size {
            self.write_phys(p.first, size, value);
            return Ok(());
        }
        for n in 0..p.len {
            self.write_phys(p.first + u64::from(n), 1, value >> (8 * n));
        }
        for n in p.len..size {
            self.write_phys(p.second + u64::from(n - p.len), 1, value >> (8 * n));
        }
        Ok(())
    }

    /// Where `size` bytes at `seg:offset` are in host memory. Nothing but the translation happens: a fault is the fault of
    /// the access.
    pub fn host_for(&mut self, seg: Seg, offset: u64, size: u8, write: bool) -> Result<Host, Fault> {
        let linear = match self.linear(seg, offset, size.into(), write) {
            Err(_) if self.wraps() => return Ok(Host::Special),
            other => other?,
        };
        let at = tlb::index(linear);
        let entry = |c: &Cpu| if write { c.state.tlb.write[at] } else { c.state.tlb.read[at] };
        if let Some(host) = self.hit(&entry(self), linear, size) {
            return Ok(Host::At(host as u64));
        }
        let p = self.pieces(seg, linear, size, if write { Access::Write } else { Access::Read })?;
        if p.len == size {
            let host = self.hit(&entry(self), linear, size);
            return Ok(host.map_or(Host::Special, |h| Host::At(h as u64)));
        }
        let plain = |c: &Cpu, at: u64| c.ram.host(Phys(at), 1).is_some() && !(write && c.has_code(at));
        let simple = plain(self, p.first) && plain(self, p.second) && !self.data_breakpoints();
        Ok(if simple { Host::Crosses } else { Host::Special })
    }

    /// Checks that `size` bytes at `seg:offset` can be written, without writing.
    pub fn probe_write(&mut self, seg: Seg, offset: u64, size: u8) -> Result<(), Fault> {
        let linear = match self.linear(seg, offset, size.into(), true) {
            Err(_) if self.wraps() => return Ok(()),
            other => other?,
        };
        if self.hit(&self.state.tlb.write[tlb::index(linear)], linear, size).is_none() {
            self.pieces(seg, linear, size, Access::Write)?;
        }
        Ok(())
    }

    /// The physical address of one byte at a linear address for data, with the current privilege.
    pub fn translate_data(&mut self, seg: Seg, linear: u64, write: bool) -> Result<u64, Fault> {
        let access = if write { Access::Write } else { Access::Read };
        Ok(self.pieces(seg, linear, 1, access)?.first)
    }

    /// The host address of the rest of the page from a linear address on, when it is plain RAM and has room for an element, and how
    /// many bytes that is.
    fn bulk(&mut self, seg: Seg, linear: u64, size: u8, write: bool) -> Result<Option<Bulk>, Fault> {
        let at = tlb::index(linear);
        let entry = |c: &Cpu| if write { c.state.tlb.write[at] } else { c.state.tlb.read[at] };
        let room = 0x1000 - (linear & 0xfff);
        if room < u64::from(size) {
            // Its faults are those of the whole element.
            return Ok(None);
        }
        if let Some(host) = self.hit(&entry(self), linear, 1) {
            return Ok(Some(Bulk { host, room, code: None }));
        }
        let phys = self.translate_data(seg, linear, write)?;
        if let Some(host) = self.hit(&entry(self), linear, 1) {
            return Ok(Some(Bulk { host, room, code: None }));
        }
        let simple = write && self.has_code(phys) && !self.data_breakpoints() && !self.checks_alignment();
        let host = self.ram.host(Phys(phys), room).filter(|_| simple);
        Ok(host.map(|host| Bulk { host, room, code: Some(phys) }))
    }

    /// How many elements of `size` bytes from `seg:offset` up, `most` at the most, pass the segment check as one range
    /// and do not wrap at `mask`; 0 when not even that is simple. With the linear address.
    fn simple_range(&mut self, seg: Seg, offset: u64, size: u8, most: u64, mask: u64) -> (u64, u64) {
        let bytes = most.min(0x1000) * u64::from(size);
        if mask - offset < bytes || self.checks_alignment() {
            return (0, 0);
        }
        if self.code64() {
            let base = if (seg as u8) >= Seg::Fs as u8 { self.state.seg[seg as usize].base } else { 0 };
            return (base.wrapping_add(offset), most);
        }
        let s = &self.state.seg[seg as usize];
        let end = s.read_end.min(if s.write_end == 0 { s.read_end } else { s.write_end });
        if offset + bytes > end { (0, 0) } else { (s.base.wrapping_add(offset) & 0xffff_ffff, most) }
    }

    /// Moves elements upwards within one page on each side; how many it moved. 0 leaves it to the caller to move one.
    pub(crate) fn move_elements(&mut self, from: (Seg, u64), to: (Seg, u64), size: u8, most: u64, mask: u64) -> Result<u64, Fault> {
        let (source, n) = self.simple_range(from.0, from.1, size, most, mask);
        let (target, m) = self.simple_range(to.0, to.1, size, most, mask);
        if n == 0 || m == 0 || (!self.code64() && self.state.seg[to.0 as usize].write_end == 0) {
            return Ok(0);
        }
        let Some(Bulk { host: src, room: src_room, .. }) = self.bulk(from.0, source, size, false)? else { return Ok(0) };
        let Some(Bulk { host: dst, room: dst_room, code }) = self.bulk(to.0, target, size, true)? else { return Ok(0) };
        let count = most.min(src_room / u64::from(size)).min(dst_room / u64::from(size));
        let bytes = count as usize * usize::from(size);
        let ahead = (dst as usize).wrapping_sub(src as usize);
        if ahead != 0 && ahead < bytes {
            // The destination overlaps what is still to be read: elements written are read again further on.
            return Ok(0);
        }
        // SAFETY: both ranges lie inside one page of guest RAM each, as `bulk` says; they may overlap.
        unsafe { std::ptr::copy(src, dst, bytes) };
        if let Some(phys) = code.filter(|_| bytes > 0) {
            self.note_write(phys, bytes as u64);
        }
        Ok(count)
    }

    /// Stores an element repeatedly upwards within one page; how many times it did.
    pub(crate) fn fill_elements(&mut self, to: (Seg, u64), size: u8, value: u64, most: u64, mask: u64) -> Result<u64, Fault> {
        let (target, n) = self.simple_range(to.0, to.1, size, most, mask);
        if n == 0 || (!self.code64() && self.state.seg[to.0 as usize].write_end == 0) {
            return Ok(0);
        }
        let Some(Bulk { host: dst, room, code }) = self.bulk(to.0, target, size, true)? else { return Ok(0) };
        let count = most.min(room / u64::from(size));
        if let Some(phys) = code.filter(|_| count > 0) {
            self.note_write(phys, count * u64::from(size));
        }
        let bytes = value.to_le_bytes();
        let uniform = bytes[..usize::from(size)].iter().all(|b| *b == bytes[0]);
        // SAFETY: `count * size` bytes from `dst` lie inside one page of guest RAM, as `bulk` says.
        unsafe {
            if uniform {
                std::ptr::write_bytes(dst, bytes[0], count as usize * usize::from(size));
            } else {
                for n in 0..count as usize {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), dst.add(n * usize::from(size)), size.into());
                }
            }
        }
        Ok(count)
    }

    /// Reads physical memory: RAM or a device.
    pub fn read_phys(&mut self, phys: u64, size: u8) -> u64 {
        match self.ram.load(Phys(phys), size) {
            Some(v) => v,
            None => {
                let v = self.system.mmio_read(Phys(phys), size);
                self.after_io();
                v
            }
        }
    }

    /// Writes physical memory: RAM (noticing translated code) or a device.
    pub fn write_phys(&mut self, phys: u64, size: u8, value: u64) {
        if self.ram.store(Phys(phys), size, value) {
            self.note_write(phys, size.into());
        } else {
            self.system.mmio_write(Phys(phys), size, value);
            self.after_io();
        }
    }

    /// Writes RAM, as a loader does; false when not all of the range is RAM.
    pub fn write_ram(&mut self, phys: u64, data: &[u8]) -> bool {
        let there = self.ram.write(Phys(phys), data);
        let len = data.len() as u64;
        if there && len > 0 {
            for page in (phys & !0xfff..=phys + (len - 1)).step_by(0x1000) {
                let from = page.max(phys);
                self.note_write(from, (page + 0x1000).min(phys + len) - from);
            }
        }
        there
    }

    /// After a device was touched: lines may have changed, and it may want the run loop.
    pub fn after_io(&mut self) {
        self.state.attention |= attention::INTERRUPT;
        self.sync_a20();
        if self.system.wants_attention() {
            self.state.attention |= attention::YIELD;
        }
    }

    /// Reads memory with supervisor rights whatever the CPL: descriptor tables, TSS.
    pub fn read_system(&mut self, linear: u64, size: u8) -> Result<u64, Fault> {
        self.system_access(linear, size, |cpu, l| cpu.read_linear(Seg::Ds, l, size))
    }

    /// Writes memory with supervisor rights whatever the CPL.
    pub fn write_system(&mut self, linear: u64, size: u8, value: u64) -> Result<(), Fault> {
        self.system_access(linear, size, |cpu, l| cpu.write_linear(Seg::Ds, l, size, value))
    }

    fn system_access<T>(&mut self, linear: u64, _size: u8, f: impl FnOnce(&mut Cpu, u64) -> Result<T, Fault>) -> Result<T, Fault> {
        let linear = if self.long_mode() { linear } else { linear & 0xffff_ffff };
        if self.cpl != 3 {
            return f(self, linear);
        }
        let (cpl, key) = (self.cpl, self.state.tlb_key);
        // Implicit supervisor accesses never pass SMAP; `cpl` 2 has supervisor rights and AC must not count.
        let ac = self.state.system_flags & crate::state::rflags::AC;
        self.state.system_flags &= !crate::state::rflags::AC;
        self.cpl = 0;
        self.update_tlb_key();
        let result = f(self, linear);
        self.cpl = cpl;
        self.state.system_flags |= ac;
        self.state.set_tlb_key(key);
        result
    }

    /// The physical address of the instruction byte at a linear address.
    #[inline(always)]
    pub fn fetch_address(&mut self, linear: u64) -> Result<u64, Fault> {
        match self.fetch_known(linear) {
            Some(phys) => Ok(phys),
            None => Ok(self.pieces(Seg::Cs, linear, 1, Access::Fetch)?.first),
        }
    }

    /// The same, if it is known without a walk through the page tables.
    #[inline(always)]
    #[must_use]
    pub fn fetch_known(&self, linear: u64) -> Option<u64> {
        let entry = &self.state.tlb.fetch[tlb::index(linear)];
        (entry.tag == linear & !0xfff | self.state.tlb_key).then(|| linear.wrapping_add(entry.addend))
    }

    /// The writes that hit pages with translated code since the last call: (address, length in bytes).
    pub fn take_code_writes(&mut self) -> Vec<(Phys, u64)> {
        self.state.attention &= !attention::CODE_WRITE;
        std::mem::take(&mut self.code_writes)
    }

    /// Whether a write at a linear address would hit translated code; only asked on the slow path.
    pub fn would_write_code(&mut self, seg: Seg, linear: u64, size: u8) -> Result<bool, Fault> {
        let p = self.pieces(seg, linear, size, Access::Write)?;
        Ok(self.has_code(p.first) || (p.len != size && self.has_code(p.second)))
    }

    /// Reports a data breakpoint hit in DR6; the #DB comes after the instruction.
    fn watch(&mut self, linear: u64, size: u8, write: bool) {
        if !self.data_breakpoints() {
            return;
        }
        for n in 0..4 {
            let control = self.dr[7] >> (16 + 4 * n) & 15;
            let len = [1, 2, 8, 4][(control >> 2) as usize];
            let wanted = match control & 3 {
                1 => write,
                3 => true,
                _ => false,
            };
            let at = self.dr[n as usize] & !(len - 1);
            if wanted && self.dr[7] >> (2 * n) & 3 != 0 && linear < at.wrapping_add(len) && at < linear.wrapping_add(size.into()) {
                self.dr[6] |= 1 << n;
                self.pending_debug = true;
            }
        }
    }

    /// Size of code, for callers that need it often.
    #[inline]
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.state.ctx.mode()
    }
}

impl Cpu {
    /// Reads what a read-modify-write will write back: faults as a write does.
    #[inline(always)]
    pub(crate) fn read_for_write(&mut self, seg: Seg, linear: u64, size: u8) -> Result<u64, Fault> {
        match self.hit(&self.state.tlb.write[tlb::index(linear)], linear, size) {
            // SAFETY: as in `read_linear`; the write array's pages are readable too.
            Some(host) => Ok(unsafe { host_load(host, size) }),
            None => self.read_for_write_slow(seg, linear, size),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_for_write_slow(&mut self, seg: Seg, linear: u64, size: u8) -> Result<u64, Fault> {
        self.pieces(seg, linear, size, Access::Write)?;
        self.read_linear(seg, linear, size)
    }

    /// Reads 16 bytes as one access: both pages are checked before anything is read.
    #[inline]
    pub fn read_16(&mut self, seg: Seg, linear: u64) -> Result<u128, Fault> {
        if self.hit(&self.state.tlb.read[tlb::index(linear)], linear, 16).is_none() {
            self.pieces(seg, linear, 16, Access::Read)?;
        }
        let low = self.read_linear(seg, linear, 8)?;
        let high = self.read_linear(seg, self.wrap_linear(linear.wrapping_add(8)), 8)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes 16 bytes as one access: both pages are checked before anything is written.
    #[inline]
    pub fn write_16(&mut self, seg: Seg, linear: u64, v: u128) -> Result<(), Fault> {
        if self.hit(&self.state.tlb.write[tlb::index(linear)], linear, 16).is_none() {
            self.pieces(seg, linear, 16, Access::Write)?;
        }
        self.write_linear(seg, linear, 8, v as u64)?;
        self.write_linear(seg, self.wrap_linear(linear.wrapping_add(8)), 8, (v >> 64) as u64)
    }

    /// Reads 32 bytes as one access: the lower half, then the upper one.
    #[inline]
    pub fn read_32(&mut self, seg: Seg, linear: u64) -> Result<(u128, u128), Fault> {
        if self.hit(&self.state.tlb.read[tlb::index(linear)], linear, 32).is_none() {
            self.pieces(seg, linear, 32, Access::Read)?;
        }
        let low = self.read_16(seg, linear)?;
        let high = self.read_16(seg, self.wrap_linear(linear.wrapping_add(16)))?;
        Ok((low, high))
    }

    /// Writes 32 bytes as one access.
    #[inline]
    pub fn write_32(&mut self, seg: Seg, linear: u64, low: u128, high: u128) -> Result<(), Fault> {
        if self.hit(&self.state.tlb.write[tlb::index(linear)], linear, 32).is_none() {
            self.pieces(seg, linear, 32, Access::Write)?;
        }
        self.write_16(seg, linear, low)?;
        self.write_16(seg, self.wrap_linear(linear.wrapping_add(16)), high)
    }
}

impl Cpu {
    /// A read-modify-write that no other CPU sees half done. `f` runs again, from the same registers and flags, when another
    /// was faster.
    pub(crate) fn rmw_locked(&mut self, seg: Seg, linear: u64, size: u8, mut f: impl FnMut(&mut Cpu, u64) -> u64) -> Result<(), Fault> {
        let Some((host, phys)) = self.locked_place(seg, linear, size)? else {
            return self.rmw_bus_locked(seg, linear, size, f);
        };
        loop {
            // SAFETY: `locked_place` gave the host address of `size` bytes of guest RAM, which lives as long as the CPU.
            let old = unsafe { host_load(host, size) };
            let (gpr, flags) = (self.state.gpr, self.state.flags);
            let new = f(self, old);
            // SAFETY: as above.
            match unsafe { host_compare_exchange(host, size, old, new) } {
                Some(Ok(_)) => break,
                Some(Err(_)) => (self.state.gpr, self.state.flags) = (gpr, flags),
                None => {
                    (self.state.gpr, self.state.flags) = (gpr, flags);
                    return self.rmw_bus_locked(seg, linear, size, f);
                }
            }
        }
        if let Some(phys) = phys {
            self.note_write(phys, size.into());
        }
        Ok(())
    }

    /// Split over words or pages, or a device: under the bus lock, which holds off the other locked accesses of this kind.
    #[cold]
    fn rmw_bus_locked(&mut self, seg: Seg, linear: u64, size: u8, mut f: impl FnMut(&mut Cpu, u64) -> u64) -> Result<(), Fault> {
        self.with_bus_lock(|cpu| {
            let old = cpu.read_for_write(seg, linear, size)?;
            let new = f(cpu, old);
            cpu.write_linear(seg, linear, size, new)
        })
    }

    /// Where a locked access is in host memory, with its physical address when its page may have code in it; `None` when it is
    /// not in one page of RAM.
    #[inline(always)]
    fn locked_place(&mut self, seg: Seg, linear: u64, size: u8) -> Result<Option<(*mut u8, Option<u64>)>, Fault> {
        match self.hit(&self.state.tlb.write[tlb::index(linear)], linear, size) {
            Some(host) => Ok(Some((host, None))),
            None => self.locked_place_slow(seg, linear, size),
        }
    }

    #[cold]
    #[inline(never)]
    fn locked_place_slow(&mut self, seg: Seg, linear: u64, size: u8) -> Result<Option<(*mut u8, Option<u64>)>, Fault> {
        let p = self.pieces(seg, linear, size, Access::Write)?;
        let host = self.ram.host(Phys(p.first), size.into()).filter(|_| p.len == size);
        if host.is_some() {
            self.watch(linear, size, true);
        }
        Ok(host.map(|h| (h, Some(p.first))))
    }

    /// Compares 16 aligned bytes with `old` and replaces them by `new` if they are equal, as one: what was there.
    pub(crate) fn compare_exchange_16(&mut self, seg: Seg, linear: u64, old: u128, new: u128) -> Result<u128, Fault> {
        if let Some((host, phys)) = self.locked_place(seg, linear, 16)? {
            // SAFETY: `locked_place` gave the host address of 16 bytes of guest RAM, aligned as the linear address is.
            if let Some(found) = unsafe { host_compare_exchange_16(host, old, new) } {
                if let Some(phys) = phys {
                    self.note_write(phys, 16);
                }
                return Ok(found.unwrap_or_else(|other| other));
            }
        }
        self.with_bus_lock(|cpu| {
            let found = cpu.read_16(seg, linear)?;
            cpu.write_16(seg, linear, if found == old { new } else { found })?;
            Ok(found)
        })
    }
}
