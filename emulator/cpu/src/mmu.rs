//! Paging: from linear to physical addresses (SDM Vol. 3, "Paging").

use crate::Cpu;
use crate::fault::{Fault, vector};
use crate::state::{cr0, cr4, efer, rflags};
use egret_bus::Phys;

/// What an access wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Fetch an instruction.
    Fetch,
}

/// Page-fault error code bits.
mod error {
    pub const P: u32 = 1;
    pub const W: u32 = 1 << 1;
    pub const U: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const I: u32 = 1 << 4;
    pub const PK: u32 = 1 << 5;
}

/// Page-table entry bits.
mod pte {
    pub const P: u64 = 1;
    pub const W: u64 = 1 << 1;
    pub const U: u64 = 1 << 2;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PS: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const NX: u64 = 1 << 63;
}

/// Physical address width that CPUID reports.
pub const PHYS_BITS: u32 = 40;
const PHYS_MASK: u64 = (1 << PHYS_BITS) - 1;

/// A translation: where a page is and what may be done there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// Physical address of the byte asked for.
    pub phys: u64,
    /// log2 of the page size.
    pub bits: u32,
    /// A global page of supervisors: loads of CR3 leave its translation alone.
    pub global: bool,
}

/// TLB contexts: which 10-bit number stands for which address space. Switching back to an address space whose number is
/// still known finds its translations where they were.
pub(crate) struct Contexts {
    current: u64,
    next: u64,
    /// PCID to context number, for a few recent ones.
    by_pcid: [(u16, u64); Self::REMEMBERED],
    victim: usize,
    /// Hashed 2 MiB regions that translations of large pages were taken from.
    large: [u64; 64],
    /// Whether a translation of a 1 GiB page was taken.
    huge: bool,
    /// Protection keys of the user pages that translations were taken from, as PKRU has them: two bits a key.
    keys: u32,
    /// How often translations were forgotten under a context number that lives on.
    flushes: u64,
    /// The last of them: linear pages, or [`Contexts::ALL`], by `flushes` modulo its size.
    flushed: [u64; Contexts::LOG],
}

impl Contexts {
    const REMEMBERED: usize = 16;
    const LAST: u64 = 1023;
    const NO_PCID: u16 = 0xffff;
    const LOG: usize = 32;
    /// In the log: everything.
    const ALL: u64 = 1;

    fn log(&mut self, what: u64) {
        self.flushed[(self.flushes % Contexts::LOG as u64) as usize] = what;
        self.flushes = self.flushes.wrapping_add(1);
    }
}

impl Default for Contexts {
    fn default() -> Self {
        Contexts {
            current: 1,
            next: 2,
            by_pcid: [(Self::NO_PCID, 0); Self::REMEMBERED],
            victim: 0,
            large: [0; 64],
            huge: false,
            keys: 0,
            flushes: 0,
            flushed: [Self::ALL; Self::LOG],
        }
    }
}

impl Cpu {
    /// Forgets all translations of all contexts.
    pub fn flush_tlb(&mut self) {
        self.state.forget_translations();
        self.reach.clear();
        let (flushes, flushed) = (self.contexts.flushes, self.contexts.flushed);
        self.contexts = Contexts { flushes, flushed, ..Contexts::default() };
        self.contexts.log(Contexts::ALL);
        self.update_tlb_key();
    }

    /// Forgets the translations of the current context; those of global pages may stay.
    pub fn flush_context(&mut self) {
        if self.contexts.next > Contexts::LAST {
            self.flush_tlb();
            return;
        }
        self.contexts.current = self.contexts.next;
        self.contexts.next += 1;
        let pcid = self.pcid();
        self.remember(pcid);
        self.update_tlb_key();
    }

    /// Takes over what the machine says of address line 20. Translations of both kinds cannot live side by side.
    pub fn sync_a20(&mut self) {
        const LINE_20: u64 = 1 << 20;
        let mask = if self.system.a20() { u64::MAX } else { !LINE_20 };
        if mask != self.address_mask {
            self.address_mask = mask;
            self.flush_tlb();
        }
    }

    /// After CR3 was loaded: `keep` when its bit 63 asked to keep the new PCID's translations.
    pub fn switch_context(&mut self, keep: bool) {
        let pcid = self.pcid();
        let known = self.contexts.by_pcid.iter().find(|(p, _)| *p == pcid).map(|(_, n)| *n);
        match known {
            Some(n) if keep && self.cr4 & cr4::PCIDE != 0 => {
                self.contexts.current = n;
                self.update_tlb_key();
            }
            _ => self.flush_context(),
        }
    }

    /// Replaces PKRU. Translations whose key has other rights now are forgotten.
    pub fn set_pkru(&mut self, value: u32) {
        let changed = self.pkru ^ value;
        self.pkru = value;
        if changed & self.contexts.keys != 0 {
            self.flush_tlb();
        }
    }

    /// Forgets the translations of one PCID.
    pub fn flush_pcid(&mut self, pcid: u16) {
        if pcid == self.pcid() {
            self.flush_context();
        } else {
            for entry in &mut self.contexts.by_pcid {
                if entry.0 == pcid {
                    entry.0 = Contexts::NO_PCID;
                }
            }
        }
    }

    /// INVLPG: forgets the page of a linear address.
    pub fn flush_page(&mut self, linear: u64) {
        let region = linear >> 21;
        let large = self.contexts.large[(region >> 6) as usize & 63] >> (region & 63) & 1 != 0;
        if large || self.contexts.huge {
            self.flush_tlb();
        } else {
            self.state.forget_page(linear);
            let c = &self.contexts;
            let known = c.by_pcid.iter().filter(|(p, _)| *p != Contexts::NO_PCID).map(|(_, n)| *n);
            self.reach.clear_page(linear, known.chain([c.current]));
            self.contexts.log(linear & !0xfff);
        }
    }

    /// Changes whenever translations are forgotten without a new [`crate::State::tlb_key`]: for caches that remember
    /// where code at a linear address is.
    #[inline]
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.contexts.flushes
    }

    /// The linear pages whose translations were forgotten since [`Cpu::flushes`] was `since`; `None` when it was more than
    /// single pages, or too long ago to tell.
    #[must_use]
    pub fn flushed_since(&self, since: u64) -> Option<impl Iterator<Item = u64> + '_> {
        let c = &self.contexts;
        let count = c.flushes.wrapping_sub(since);
        let pages = move || (0..count).map(move |n| c.flushed[(since.wrapping_add(n) % Contexts::LOG as u64) as usize]);
        (count <= Contexts::LOG as u64 && pages().all(|p| p != Contexts::ALL)).then(pages)
    }

    fn pcid(&self) -> u16 {
        if self.cr4 & cr4::PCIDE != 0 { self.cr3 as u16 & 0xfff } else { 0 }
    }

    fn remember(&mut self, pcid: u16) {
        let c = &mut self.contexts;
        let slot = c.by_pcid.iter().position(|(p, _)| *p == pcid).unwrap_or_else(|| {
            c.victim = (c.victim + 1) % Contexts::REMEMBERED;
            c.victim
        });
        c.by_pcid[slot] = (pcid, c.current);
    }

    /// Recomputes [`crate::State::tlb_key`]: bit 0 user, bit 1 AC, the context above. For supervisors AC opens SMAP, for
    /// users (with CR0.AM) it checks alignment.
    pub(crate) fn update_tlb_key(&mut self) {
        let user = u64::from(self.cpl == 3);
        let ac = u64::from(self.flag(rflags::AC) && (user == 0 || self.cr0 & cr0::AM != 0));
        self.state.set_tlb_key(self.contexts.current << 2 | ac << 1 | user);
    }

    /// Whether data accesses must be aligned now. None of them is in the TLB then.
    #[inline]
    pub(crate) fn checks_alignment(&self) -> bool {
        self.state.tlb_key & 3 == 3
    }

    /// Runs an access of which alignment is not checked.
    pub(crate) fn without_alignment<T>(&mut self, access: impl FnOnce(&mut Cpu) -> T) -> T {
        let key = self.state.tlb_key;
        if self.checks_alignment() {
            self.state.tlb_key &= !2;
        }
        let result = access(self);
        self.state.tlb_key = key;
        result
    }

    /// Whether CPL 3 rules apply to ordinary accesses now.
    #[inline]
    pub(crate) fn user(&self) -> bool {
        self.cpl == 3
    }

    /// Translates as [`Cpu::translate`] does, for an access with the current rights: what an earlier walk found is not walked again.
    #[inline]
    pub(crate) fn translate_again(&mut self, linear: u64, access: Access) -> Result<u64, Fault> {
        let key = self.state.tlb_key;
        if let Some(frame) = self.reach.find(linear, key, access) {
            self.reach.found += 1;
            return Ok(frame | linear & 0xfff);
        }
        self.reach.walked += 1;
        let page = self.translate(linear, access, self.user())?;
        self.note_large(linear, page.bits);
        if self.cr0 & cr0::PG != 0 {
            self.reach.add(linear, key, access, page.phys, page.global);
        }
        Ok(page.phys)
    }

    /// How many translations that missed the TLB the second-level TLB had, and how many page tables were walked for.
    #[must_use]
    pub fn tlb_misses(&self) -> (u64, u64) {
        (self.reach.found, self.reach.walked)
    }

    /// Whether code at a linear address is known to be in a global page: see [`Page::global`].
    #[must_use]
    pub fn is_global_code(&self, linear: u64) -> bool {
        self.reach.is_global(linear, self.state.tlb_key, Access::Fetch)
    }

    /// Translates a linear address and checks the access. `user` says by whose rights; sets accessed and dirty bits.
    pub(crate) fn translate(&mut self, linear: u64, access: Access, user: bool) -> Result<Page, Fault> {
        let page = self.walk(linear, access, user)?;
        Ok(Page { phys: page.phys & self.address_mask, ..page })
    }

    fn walk(&mut self, linear: u64, access: Access, user: bool) -> Result<Page, Fault> {
        if self.cr0 & cr0::PG == 0 {
            return Ok(Page { phys: linear & self.address_lines(), bits: 12, global: false });
        }
        if self.cr4 & cr4::PAE == 0 {
            self.walk_32(linear as u32, access, user)
        } else if self.efer & efer::LMA == 0 {
            self.walk_pae(linear as u32, access, user)
        } else {
            let levels = if self.cr4 & cr4::LA57 != 0 { 5 } else { 4 };
            self.walk_levels(linear, self.cr3 & PHYS_MASK & !0xfff, levels, pte::W | pte::U, access, user)
        }
    }

    fn page_fault(&mut self, linear: u64, access: Access, user: bool, why: u32) -> Fault {
        self.fault_address = linear;
        let nx = self.efer & efer::NXE != 0 && self.cr4 & cr4::PAE != 0;
        let fetch = access == Access::Fetch && (nx || self.cr4 & cr4::SMEP != 0);
        let code =
            why | if access == Access::Write { error::W } else { 0 } | if user { error::U } else { 0 } | if fetch { error::I } else { 0 };
        Fault::with_error(vector::PF, code)
    }

    /// Checks rights collected over all levels (`rights` has W, U as the and, NX as the or of the entries).
    fn permitted(&self, rights: u64, access: Access, user: bool) -> bool {
        let user_page = rights & pte::U != 0;
        if user && !user_page {
            return false;
        }
        if !user && user_page {
            if access == Access::Fetch && self.cr4 & cr4::SMEP != 0 {
                return false;
            }
            if access != Access::Fetch && self.cr4 & cr4::SMAP != 0 && !self.smap_open() {
                return false;
            }
        }
        match access {
            Access::Read => true,
            Access::Write => rights & pte::W != 0 || (!user && self.cr0 & cr0::WP == 0),
            Access::Fetch => rights & pte::NX == 0,
        }
    }

    /// Explicit supervisor accesses pass SMAP with RFLAGS.AC set; implicit ones (from CPL 3) never do.
    fn smap_open(&self) -> bool {
        self.flag(rflags::AC) && self.cpl != 3
    }

    fn entry(&self, at: u64, size: u8) -> u64 {
        // An entry outside RAM reads as all ones or zeros on real buses; not present is the harmless one.
        self.ram.load(Phys(at & PHYS_MASK & self.address_mask), size).unwrap_or(0)
    }

    /// Sets bits in a page-table entry as the processor does: atomically, only if it still is what was read.
    fn mark(&self, at: u64, size: u8, old: u64, bits: u64) -> bool {
        old & bits == bits
            || matches!(self.ram.compare_exchange(Phys(at & PHYS_MASK & self.address_mask), size, old, old | bits), Some(Ok(_)))
    }

    /// Whether the page of an entry is global and for supervisors. Global pages of users are treated as others: their rights
    /// may depend on more than the entry.
    fn is_global(&self, entry: u64, rights: u64) -> bool {
        entry & pte::G != 0 && self.cr4 & cr4::PGE != 0 && rights & pte::U == 0
    }

    fn walk_32(&mut self, linear: u32, access: Access, user: bool) -> Result<Page, Fault> {
        let fail = |cpu: &mut Cpu, why| Err(cpu.page_fault(linear.into(), access, user, why));
        loop {
            let pde_at = (self.cr3 & 0xffff_f000) + u64::from(linear >> 22) * 4;
            let pde = self.entry(pde_at, 4);
            if pde & pte::P == 0 {
                return fail(self, 0);
            }
            let dirty = if access == Access::Write { pte::D } else { 0 };
            if pde & pte::PS != 0 && self.cr4 & cr4::PSE != 0 {
                // PSE-36: bits 13-20 are bits 32-39 of the address; bit 21 is reserved.
                if pde & 1 << 21 != 0 {
                    return fail(self, error::P | error::RSVD);
                }
                if !self.permitted(pde & (pte::W | pte::U), access, user) {
                    return fail(self, error::P);
                }
                if !self.mark(pde_at, 4, pde, pte::A | dirty) {
                    continue;
                }
                let base = pde & 0xffc0_0000 | (pde >> 13 & 0xff) << 32;
                let global = self.is_global(pde, pde);
                return Ok(Page { phys: base | u64::from(linear & 0x3f_ffff), bits: 22, global });
            }
            let pte_at = (pde & 0xffff_f000) + u64::from(linear >> 12 & 0x3ff) * 4;
            let entry = self.entry(pte_at, 4);
            if entry & pte::P == 0 {
                return fail(self, 0);
            }
            if !self.permitted(pde & entry & (pte::W | pte::U), access, user) {
                return fail(self, error::P);
            }
            if self.mark(pde_at, 4, pde, pte::A) && self.mark(pte_at, 4, entry, pte::A | dirty) {
                let global = self.is_global(entry, pde & entry);
                return Ok(Page { phys: entry & 0xffff_f000 | u64::from(linear & 0xfff), bits: 12, global });
            }
        }
    }

    fn walk_pae(&mut self, linear: u32, access: Access, user: bool) -> Result<Page, Fault> {
        let pdpte = self.pdpte[(linear >> 30) as usize];
        if pdpte & pte::P == 0 {
            return Err(self.page_fault(linear.into(), access, user, 0));
        }
        self.walk_levels(linear.into(), pdpte & PHYS_MASK & !0xfff, 2, pte::W | pte::U, access, user)
    }

    /// Whether the protection key of a user page forbids a data access (SDM Vol. 3, "Protection Keys"). Notes the key.
    fn key_forbids(&mut self, entry: u64, rights: u64, access: Access, user: bool) -> bool {
        const ACCESS_DISABLE: u32 = 1;
        const WRITE_DISABLE: u32 = 2;
        if self.cr4 & cr4::PKE == 0 || self.efer & efer::LMA == 0 || rights & pte::U == 0 || access == Access::Fetch {
            return false;
        }
        let shift = 2 * (entry >> 59 & 15) as u32;
        self.contexts.keys |= 3 << shift;
        let forbidden = self.pkru >> shift & 3;
        let writes = access == Access::Write && (user || self.cr0 & cr0::WP != 0);
        forbidden & ACCESS_DISABLE != 0 || (writes && forbidden & WRITE_DISABLE != 0)
    }

    /// Walks 8-byte entries from the table at `root` of `level` (5: PML5, 4: PML4, 2: page directory) down.
    fn walk_levels(&mut self, linear: u64, root: u64, level: u32, rights: u64, access: Access, user: bool) -> Result<Page, Fault> {
        'again: loop {
            let (mut table, mut rights, mut path) = (root, rights, [(0u64, 0u64); 5]);
            for n in (1..=level).rev() {
                let bits = 12 + 9 * (n - 1);
                let at = table + (linear >> bits & 0x1ff) * 8;
                let entry = self.entry(at, 8);
                if entry & pte::P == 0 {
                    return Err(self.page_fault(linear, access, user, 0));
                }
                let leaf = n == 1 || (entry & pte::PS != 0 && n <= 3);
                if entry & self.reserved(n, leaf) != 0 {
                    return Err(self.page_fault(linear, access, user, error::P | error::RSVD));
                }
                rights = rights & (entry | !(pte::W | pte::U)) | (entry & pte::NX);
                path[n as usize - 1] = (at, entry);
                if !leaf {
                    table = entry & PHYS_MASK & !0xfff;
                    continue;
                }
                let key = if self.key_forbids(entry, rights, access, user) { error::PK } else { 0 };
                if key != 0 || !self.permitted(rights, access, user) {
                    return Err(self.page_fault(linear, access, user, error::P | key));
                }
                for (up, &(at, entry)) in path.iter().enumerate().skip(n as usize - 1).take(level as usize + 1 - n as usize).rev() {
                    let dirty = if access == Access::Write && up == n as usize - 1 { pte::D } else { 0 };
                    if !self.mark(at, 8, entry, pte::A | dirty) {
                        continue 'again;
                    }
                }
                let offset = (1u64 << bits) - 1;
                let global = self.is_global(entry, rights);
                return Ok(Page { phys: entry & PHYS_MASK & !0xfff & !offset | linear & offset, bits, global });
            }
            return Err(self.page_fault(linear, access, user, 0));
        }
    }

    /// Reserved bits of an 8-byte entry at a level.
    fn reserved(&self, level: u32, leaf: bool) -> u64 {
        let mut bits = ((1u64 << 52) - 1) & !PHYS_MASK;
        if self.efer & efer::NXE == 0 {
            bits |= pte::NX;
        }
        if self.efer & efer::LMA == 0 {
            bits |= 0x7ff0_0000_0000_0000;
        }
        if level >= 4 {
            bits |= pte::PS;
        }
        if leaf && level > 1 {
            // The address bits below the page size, except PAT (bit 12).
            bits |= ((1u64 << (12 + 9 * (level - 1))) - 1) & !0x1fff;
        }
        bits
    }

    /// Notes that a translation came from a large page, so that INVLPG knows.
    pub(crate) fn note_large(&mut self, linear: u64, bits: u32) {
        if bits > 22 {
            self.contexts.huge = true;
        } else if bits > 12 {
            let first = linear >> bits << bits >> 21;
            for region in first..first + (1 << (bits - 21)) {
                self.contexts.large[(region >> 6) as usize & 63] |= 1 << (region & 63);
            }
        }
    }

    /// Loads the PAE page-directory-pointer registers from CR3; #GP(0) when a reserved bit is set in a present one.
    pub fn load_pdptes(&mut self) -> Result<(), Fault> {
        let base = self.cr3 & 0xffff_ffe0;
        let mut loaded = [0; 4];
        for (n, p) in loaded.iter_mut().enumerate() {
            *p = self.entry(base + 8 * n as u64, 8);
            // Reserved: bits 1-2, 5-8 and above the physical width.
            if *p & pte::P != 0 && *p & (0x1e6 | !PHYS_MASK) != 0 {
                return Err(Fault::GP0);
            }
        }
        self.pdpte = loaded;
        Ok(())
    }
}
