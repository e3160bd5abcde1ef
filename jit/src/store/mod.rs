//! Code that outlives its region: found again by the guest bytes it was made from, in this run or, from files, in a later one.
//!
//! A compiled region is position-independent and reaches everything outside through tables, so that copying it back is all it takes.
//! Files hold code that is run: they are the user's alone, see [`files`].

mod files;
mod record;

pub use files::{create_private, make_private_dir};
pub use record::fingerprint;

use crate::compile::Compiled;
use crate::region::PAGE;
use egret_isa::Features;
use egret_isa::insn::{Ctx, Mode};
use files::{Pack, Place};
use rustc_hash::{FxHashMap, FxHashSet};
use std::path::PathBuf;

/// Where code is stored between runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory.
    pub dir: PathBuf,
    /// Most bytes that all its files may have.
    pub limit: u64,
}

/// Most bytes of code that is kept in memory for want of a file, or until it is written to one.
const MOST_FRESH: usize = 64 << 20;
/// How often a record may turn out not to be the one looked for before it is no longer looked at.
const PATIENCE: u32 = 64;
/// Most candidates that are compared at one place.
const MOST_CANDIDATES: usize = 8;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Regions that were found again.
    pub revived: u64,
    /// Guest instructions in them.
    pub insns: u64,
    /// Files that were not used because they are damaged or not the user's alone.
    pub refused: u64,
    /// Records in the files that were found.
    pub stored: u64,
    /// Bytes written to files.
    pub written: u64,
}

/// One record, in a file or in memory.
struct Known {
    place: Place,
    misses: u32,
}

/// Code to be found again.
pub struct Store {
    settings: Option<Settings>,
    fingerprint: u64,
    packs: Vec<Pack>,
    records: Vec<Known>,
    by_entry: FxHashMap<u64, Vec<u32>>,
    ids: FxHashSet<u64>,
    /// Records that are in no file yet, with their keys.
    fresh: Vec<(Vec<u8>, Vec<u64>)>,
    fresh_bytes: usize,
    saved: usize,
    /// What was done.
    pub counters: Counters,
}

impl Store {
    /// A store; with settings, together with what earlier runs have left there. Files that cannot be used are left alone.
    #[must_use]
    pub fn new(settings: Option<Settings>, fingerprint: u64) -> Store {
        let mut store = Store {
            settings,
            fingerprint,
            packs: Vec::new(),
            records: Vec::new(),
            by_entry: FxHashMap::default(),
            ids: FxHashSet::default(),
            fresh: Vec::new(),
            fresh_bytes: 0,
            saved: 0,
            counters: Counters::default(),
        };
        if let Some(settings) = &store.settings {
            let (packs, refused) = files::open_all(&settings.dir, fingerprint);
            store.counters.refused = refused;
            // The newest last: it is looked at first.
            for (n, (pack, index)) in packs.into_iter().enumerate() {
                store.packs.push(pack);
                for entry in index {
                    store.counters.stored += 1;
                    store.index(Place::File { pack: n as u32, at: entry.at, len: entry.len, sum: entry.sum }, entry.id, &entry.keys);
                }
            }
        }
        store
    }

    fn index(&mut self, place: Place, id: u64, keys: &[u64]) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        let n = self.records.len() as u32;
        self.records.push(Known { place, misses: 0 });
        for key in keys {
            self.by_entry.entry(*key).or_default().push(n);
        }
        true
    }

    /// Keeps a region's code.
    pub fn add(&mut self, compiled: &Compiled) {
        // 16-bit code depends on where it lies in its segment.
        if compiled.base.is_some() || self.fresh_bytes >= MOST_FRESH {
            return;
        }
        let blob = record::encode(compiled);
        let keys = record::keys(compiled);
        let place = Place::Memory { number: self.fresh.len() as u32 };
        if self.index(place, record::sum(&blob), &keys) {
            self.fresh_bytes += blob.len();
            self.fresh.push((blob, keys));
        }
    }

    /// Code that may be entered at a physical address and was made from what is in memory there now, as `read` says: it fills
    /// the buffer from a physical address on, or says that it cannot.
    pub fn find(&mut self, phys: u64, ctx: Ctx, features: Features, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<Compiled> {
        if self.records.is_empty() || ctx.mode() == Mode::M16 {
            return None;
        }
        let page = phys & !0xfff;
        let offset = (phys & 0xfff) as usize;
        let mut start = [0u8; record::LONGEST_KEY];
        let len = start.len().min(PAGE - offset);
        if !read(phys, &mut start[..len]) {
            return None;
        }
        let mut now = None;
        for key in record::keys_at((ctx, features), offset as u16, &start[..len]) {
            let Some(candidates) = self.by_entry.get(&key).cloned() else { continue };
            // The newest ones, the largest first: what is hot was made one.
            let mut newest: Vec<u32> = candidates.into_iter().rev().take(MOST_CANDIDATES).collect();
            newest.sort_by_key(|n| std::cmp::Reverse(self.size(*n)));
            for n in newest {
                let now = match &now {
                    Some(now) => now,
                    None => {
                        let mut bytes = Box::new([0u8; PAGE]);
                        if !read(page, &mut bytes[..]) {
                            return None;
                        }
                        now.insert(bytes)
                    }
                };
                if let Some(found) = self.fits(n, page, (ctx, features), now) {
                    self.counters.revived += 1;
                    self.counters.insns += found.insns as u64;
                    return Some(found);
                }
            }
        }
        None
    }

    /// Bytes in a record.
    fn size(&self, n: u32) -> usize {
        match self.records.get(n as usize).map(|k| &k.place) {
            Some(Place::File { len, .. }) => *len as usize,
            Some(Place::Memory { number }) => self.fresh.get(*number as usize).map_or(0, |(blob, _)| blob.len()),
            None => 0,
        }
    }

    /// A record's region if it was made from these bytes.
    fn fits(&mut self, n: u32, page: u64, what: (Ctx, Features), now: &[u8; PAGE]) -> Option<Compiled> {
        let known = self.records.get_mut(n as usize).filter(|k| k.misses < PATIENCE)?;
        let loaded;
        let blob = match known.place {
            Place::Memory { number } => &self.fresh.get(number as usize)?.0,
            Place::File { pack, .. } => {
                let Some(blob) = self.packs.get_mut(pack as usize).and_then(|p| p.read(&known.place)) else {
                    // Damaged: it does not get better.
                    known.misses = PATIENCE;
                    self.counters.refused += 1;
                    return None;
                };
                loaded = blob;
                &loaded
            }
        };
        let found = record::decode(blob, page, what, now);
        if found.is_none() {
            known.misses += 1;
        }
        found
    }

    /// Writes what is new to a file. What cannot be written is not: the next run compiles it again.
    pub fn save(&mut self) {
        let Some(settings) = &self.settings else { return };
        let new = &self.fresh[self.saved..];
        if new.is_empty() {
            files::touch(&mut self.packs);
            return;
        }
        let entries: Vec<(&[u8], Vec<u64>)> = new.iter().map(|(b, keys)| (b.as_slice(), keys.clone())).collect();
        if let Ok(bytes) = files::write(settings, self.fingerprint, &entries, &mut self.packs) {
            self.counters.written += bytes;
            self.saved = self.fresh.len();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.save();
    }
}

#[cfg(test)]
mod tests;
