//! Installed regions: found by physical address, killed by writes and eviction.

use crate::compile::Compiled;
use crate::memory::Placed;
use crate::region::{Beyond, Bytes, Covered, PAGE};
use crate::vm::{CallSite, Entry};
use egret_isa::insn::Ctx;
use rustc_hash::{FxHashMap, FxHashSet};

/// A region whose code can run.
pub struct Installed {
    page: u64,
    ctx: Ctx,
    base: Option<u64>,
    offsets: Vec<u16>,
    outs: Vec<u16>,
    entries: Box<[Entry]>,
    bytes: Bytes,
    beyond: Option<Beyond>,
    code: u64,
    code_len: usize,
    segment: usize,
    insns: usize,
    /// Compiled code has the address of its call sites.
    _calls: Box<[CallSite]>,
}

impl Installed {
    /// Whether it was made from any of these bytes of a page.
    fn made_from(&self, page: u64, from: usize, len: usize) -> bool {
        let beyond = |b: &Beyond| b.page == Some(page) && from < b.bytes.len();
        self.page == page && self.bytes.any(from, len) || self.beyond.as_ref().is_some_and(beyond)
    }

    /// Whether it has the instruction at a physical address, as an entry or not.
    fn has(&self, phys: u64, ctx: Ctx) -> bool {
        self.page == phys & !0xfff && self.ctx == ctx && self.bytes.any((phys & 0xfff) as usize, 1)
    }

    fn covered(&self) -> Covered {
        Covered { entries: self.offsets.clone(), outs: self.outs.clone() }
    }

    /// The pages it was made from.
    fn pages(&self) -> impl Iterator<Item = u64> {
        let beyond = self.beyond.as_ref().and_then(|b| b.page).filter(|p| *p != self.page);
        std::iter::once(self.page).chain(beyond)
    }
}

/// Where to enter compiled code.
#[derive(Clone, Copy)]
pub struct Found {
    /// Address of the code.
    pub code: u64,
    /// Its second argument, the address of an [`Entry`].
    pub entry: u64,
    /// The instruction pointer it demands, if any.
    pub rip: Option<u64>,
}

#[derive(Clone, Copy)]
struct Fast {
    phys: u64,
    ctx: Ctx,
    /// `None`: there is no code, and no need to look for it again.
    found: Option<Found>,
}

const NOWHERE: Fast = Fast { phys: u64::MAX, ctx: Ctx(0), found: None };

/// What happened to a block: its physical address, its context, and whether there is code for it now.
pub type Change = (u64, Ctx, bool);
const FAST: usize = 1 << 14;

/// All installed regions.
pub struct Cache {
    regions: FxHashMap<u32, Installed>,
    next: u32,
    map: FxHashMap<(u64, Ctx), (u32, u32)>,
    pages: FxHashMap<u64, Vec<u32>>,
    fast: Box<[Fast]>,
    /// Blocks that have got or lost their code. The engine takes them away.
    pub changes: Vec<Change>,
    /// Entries that are no more: no jump may lead to them. The engine takes them away.
    pub gone: Vec<u64>,
    /// Guest instructions in installed code.
    pub insns: usize,
    /// Bytes of installed code.
    pub code_bytes: usize,
}

fn fast_index(phys: u64) -> usize {
    ((phys ^ phys >> 12) as usize) & (FAST - 1)
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            regions: FxHashMap::default(),
            next: 0,
            map: FxHashMap::default(),
            pages: FxHashMap::default(),
            fast: vec![NOWHERE; FAST].into(),
            changes: Vec::new(),
            gone: Vec::new(),
            insns: 0,
            code_bytes: 0,
        }
    }
}

impl Cache {
    /// Code for a physical address.
    #[inline]
    pub fn find(&mut self, phys: u64, ctx: Ctx) -> Option<Found> {
        self.recent(phys, ctx).unwrap_or_else(|| self.look_up(phys, ctx))
    }

    /// What is known about a physical address without looking far.
    #[inline]
    pub fn recent(&mut self, phys: u64, ctx: Ctx) -> Option<Option<Found>> {
        let slot = &self.fast[fast_index(phys)];
        (slot.phys == phys && slot.ctx == ctx).then_some(slot.found)
    }

    /// Code for a physical address, to be found faster the next time.
    pub fn look_up(&mut self, phys: u64, ctx: Ctx) -> Option<Found> {
        let found = self.look_far(phys, ctx);
        self.fast[fast_index(phys)] = Fast { phys, ctx, found };
        found
    }

    fn look_far(&self, phys: u64, ctx: Ctx) -> Option<Found> {
        let (number, entry) = *self.map.get(&(phys, ctx))?;
        let region = self.regions.get(&number)?;
        let entry = region.entries.get(entry as usize)?;
        let rip = region.base.map(|b| b.wrapping_add(phys & 0xfff) & 0xffff_ffff);
        Some(Found { code: entry.code, entry: &raw const *entry as u64, rip })
    }

    /// Adds a region whose code was placed. With `over`, entries that others had go to it, and regions left without any are dropped.
    /// Otherwise it gets those that nobody has.
    pub fn insert(&mut self, compiled: Compiled, placed: Placed, over: bool) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let calls = compiled.calls.as_ptr() as u64;
        let beyond = compiled.beyond.as_ref().and_then(|b| b.page).unwrap_or(Entry::NO_PAGE);
        let entry = |(index, start): (u64, &u32)| Entry { index, calls, code: placed.address + u64::from(*start), beyond };
        let entries: Box<[Entry]> = (0..).zip(&compiled.starts).map(entry).collect();
        let mut losers = FxHashSet::default();
        for (n, offset) in compiled.entries.iter().enumerate() {
            let phys = compiled.page + u64::from(*offset);
            if !over && self.map.contains_key(&(phys, compiled.ctx)) {
                continue;
            }
            let before = self.map.insert((phys, compiled.ctx), (number, n as u32));
            self.changed(phys, compiled.ctx, true);
            let Some((old, at)) = before else { continue };
            losers.insert(old);
            if let Some(old) = self.regions.get(&old).and_then(|r| r.entries.get(at as usize)) {
                self.gone.push(&raw const *old as u64);
            }
        }
        self.insns += compiled.insns;
        self.code_bytes += compiled.code.len();
        let region = Installed {
            page: compiled.page,
            ctx: compiled.ctx,
            base: compiled.base,
            offsets: compiled.entries,
            outs: compiled.outs,
            entries,
            bytes: compiled.bytes,
            beyond: compiled.beyond,
            code: placed.address,
            code_len: compiled.code.len(),
            segment: placed.segment,
            insns: compiled.insns,
            _calls: compiled.calls,
        };
        for page in region.pages() {
            self.pages.entry(page).or_default().push(number);
        }
        self.regions.insert(number, region);
        for loser in losers {
            let entered = self.regions.get(&loser).is_some_and(|r| {
                r.offsets.iter().any(|o| self.map.get(&(r.page + u64::from(*o), r.ctx)).is_some_and(|(owner, _)| *owner == loser))
            });
            if !entered {
                self.kill(loser);
            }
        }
    }

    /// The regions of a page.
    fn regions_of(&self, page: u64, ctx: Ctx) -> impl Iterator<Item = &Installed> {
        let list = self.pages.get(&page).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|n| self.regions.get(n)).filter(move |r| r.page == page && r.ctx == ctx)
    }

    /// The offsets at which a page's code is entered, and the ways in.
    pub fn entries_of(&self, page: u64, ctx: Ctx) -> impl Iterator<Item = (u16, Found)> {
        let offsets = self.regions_of(page, ctx).flat_map(|r| r.offsets.iter().copied());
        offsets.filter_map(move |o| Some((o, self.look_far(page + u64::from(o), ctx).filter(|f| f.rip.is_none())?)))
    }

    /// What regions a page has.
    pub fn covered(&self, page: u64, ctx: Ctx) -> Vec<Covered> {
        self.regions_of(page, ctx).map(Installed::covered).collect()
    }

    /// The number of the region that has the instruction at a physical address.
    pub fn number_at(&self, phys: u64, ctx: Ctx) -> Option<u32> {
        if let Some((number, _)) = self.map.get(&(phys, ctx)) {
            return Some(*number);
        }
        self.pages.get(&(phys & !0xfff))?.iter().copied().find(|n| self.regions.get(n).is_some_and(|r| r.has(phys, ctx)))
    }

    /// A region, how many instructions it is, and its page's others.
    pub fn parted(&self, number: u32) -> Option<(Covered, usize, Vec<Covered>)> {
        let own = self.regions.get(&number)?;
        let others = self.regions_of(own.page, own.ctx).filter(|r| r.code != own.code).map(Installed::covered).collect();
        Some((own.covered(), own.insns, others))
    }

    /// The offsets of all bytes that a page's regions were made from.
    pub fn compiled_offsets(&self, page: u64, ctx: Ctx) -> Vec<u16> {
        self.regions_of(page, ctx).flat_map(|r| r.bytes.iter()).map(|at| at as u16).collect()
    }

    /// Whether a region has the instruction at a physical address, as an entry or not.
    pub fn covers(&self, phys: u64, ctx: Ctx) -> bool {
        self.regions_of(phys & !0xfff, ctx).any(|r| r.has(phys, ctx))
    }

    /// Tells the regions that have the instruction at `phys`, which reaches into the next page, where that page is now. `same` says
    /// whether it begins with given bytes.
    pub fn bind(&mut self, phys: u64, ctx: Ctx, next: u64, same: impl Fn(&[u8]) -> bool) {
        let list = self.pages.get(&(phys & !0xfff)).cloned().unwrap_or_default();
        for number in list {
            let Some(r) = self.regions.get_mut(&number) else { continue };
            let here = r.has(phys, ctx);
            let Some(beyond) = r.beyond.as_mut().filter(|b| here && b.page != Some(next) && same(&b.bytes)) else { continue };
            let old = beyond.page.replace(next).filter(|p| *p != r.page);
            for entry in &mut r.entries {
                entry.beyond = next;
            }
            if let Some(old) = old {
                self.unlist(old, number);
            }
            if next != phys & !0xfff {
                self.pages.entry(next).or_default().push(number);
            }
        }
    }

    fn unlist(&mut self, page: u64, number: u32) {
        if let Some(list) = self.pages.get_mut(&page) {
            list.retain(|n| *n != number);
            if list.is_empty() {
                self.pages.remove(&page);
            }
        }
    }

    fn kill(&mut self, number: u32) {
        let Some(r) = self.regions.remove(&number) else { return };
        for o in &r.offsets {
            let key = (r.page + u64::from(*o), r.ctx);
            if self.map.get(&key).is_some_and(|(owner, _)| *owner == number) {
                self.map.remove(&key);
                self.changed(key.0, key.1, false);
            }
        }
        for page in r.pages() {
            self.unlist(page, number);
        }
        self.insns -= r.insns;
        self.code_bytes -= r.code_len;
        self.gone.extend(r.entries.iter().map(|e| &raw const *e as u64));
    }

    fn changed(&mut self, phys: u64, ctx: Ctx, compiled: bool) {
        self.changes.push((phys, ctx, compiled));
        let slot = &mut self.fast[fast_index(phys)];
        if slot.phys == phys {
            *slot = NOWHERE;
        }
    }

    fn kill_if(&mut self, candidates: Vec<u32>, dead: impl Fn(&Installed) -> bool) -> usize {
        let dead: Vec<u32> = candidates.into_iter().filter(|n| self.regions.get(n).is_some_and(&dead)).collect();
        for n in &dead {
            self.kill(*n);
        }
        dead.len()
    }

    /// Drops the regions made from bytes that were written: how many.
    pub fn kill_written(&mut self, phys: u64, len: u64) -> usize {
        let mut killed = 0;
        let (mut at, end) = (phys, phys.saturating_add(len));
        while at < end {
            let page = at & !0xfff;
            let upto = end.min(page.saturating_add(PAGE as u64));
            let list = self.pages.get(&page).cloned().unwrap_or_default();
            killed += self.kill_if(list, |r| r.made_from(page, (at - page) as usize, (upto - at) as usize));
            at = upto;
        }
        killed
    }

    /// Drops the regions whose code lies in a segment of code memory.
    pub fn kill_segment(&mut self, segment: usize) -> usize {
        let all = self.regions.keys().copied().collect();
        self.kill_if(all, |r| r.segment == segment)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        let all = self.regions.keys().copied().collect();
        self.kill_if(all, |_| true);
    }

    /// Whether a page has regions.
    #[must_use]
    pub fn has_page(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// All pages with regions.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.keys().copied()
    }

    /// Number of regions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }
}
