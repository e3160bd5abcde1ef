//! One region as bytes.

use crate::compile::Compiled;
use crate::region::{Beyond, Bytes, MAX_INSNS, PAGE, call_sites};
use egret_isa::Features;
use egret_isa::decode::{self, Decoded};
use egret_isa::insn::Ctx;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Bytes at an entry that it is looked for by: as many of these as the region was made from.
const KEY_LENGTHS: [usize; 3] = [LONGEST_KEY, 8, 4];
/// The most of them.
pub(super) const LONGEST_KEY: usize = 16;
/// Most entries a region may claim, with its return points.
const MOST_ENTRIES: usize = 256;
/// Most bytes of machine code a region may claim.
const MOST_CODE: usize = 1 << 20;

/// A name for what generates code and what that code relies on; `settings` are those of the code generator.
#[must_use]
pub fn fingerprint(settings: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    hash.write(env!("EGRET_CODE_ID").as_bytes());
    hash.write(settings.as_bytes());
    for size in [size_of::<egret_cpu::State>(), size_of::<crate::vm::Vm>(), size_of::<crate::vm::CallSite>()] {
        hash.write_usize(size);
    }
    hash.write_u8(cfg!(debug_assertions).into());
    hash.finish()
}

/// The checksum of bytes.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    hash.write(bytes);
    hash.finish()
}

fn key((ctx, features): (Ctx, Features), offset: u16, start: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    features.hash(&mut hash);
    hash.write_u32(ctx.0);
    hash.write_u16(offset);
    hash.write(start);
    hash.finish()
}

/// The keys that code for an entry with these first bytes may be stored under, the most telling first.
pub(super) fn keys_at(what: (Ctx, Features), offset: u16, start: &[u8]) -> impl Iterator<Item = u64> {
    KEY_LENGTHS.into_iter().filter_map(move |len| start.get(..len).map(|s| key(what, offset, s)))
}

/// The keys of a region's entries. An entry with too few bytes has none.
pub(super) fn keys(c: &Compiled) -> Vec<u64> {
    let own = |offset: u16, len: usize| {
        let from = usize::from(offset);
        let all = from + len <= PAGE && (from..from + len).all(|at| c.bytes.any(at, 1));
        all.then(|| key((c.ctx, c.features), offset, &c.source[from..from + len]))
    };
    c.entries.iter().filter_map(|offset| KEY_LENGTHS.iter().find_map(|len| own(*offset, *len))).collect()
}

fn features_sum(features: Features) -> u64 {
    let mut hash = DefaultHasher::new();
    features.hash(&mut hash);
    hash.finish()
}

/// A region as bytes. The page it lies in is not in it, but for the offsets: it may turn up elsewhere.
pub(super) fn encode(c: &Compiled) -> Vec<u8> {
    let mut out = Vec::with_capacity(c.code.len() + 2048);
    out.extend(c.ctx.0.to_le_bytes());
    out.extend(features_sum(c.features).to_le_bytes());
    out.extend((c.insns as u32).to_le_bytes());
    out.extend((c.entries.len() as u16).to_le_bytes());
    out.extend((c.outs.len() as u16).to_le_bytes());
    out.extend((c.call_offsets.len() as u16).to_le_bytes());
    out.extend((c.code.len() as u32).to_le_bytes());
    let beyond = c.beyond.as_ref().map(|b| b.bytes.as_slice()).unwrap_or_default();
    out.extend((beyond.len() as u16).to_le_bytes());
    out.extend(beyond);
    for offset in c.entries.iter().chain(&c.outs).chain(&c.call_offsets) {
        out.extend(offset.to_le_bytes());
    }
    for start in &c.starts {
        out.extend(start.to_le_bytes());
    }
    for word in c.bytes.0 {
        out.extend(word.to_le_bytes());
    }
    out.extend(c.bytes.iter().map(|at| c.source[at]));
    out.extend(&c.code);
    out
}

/// Takes values off the front of bytes that may be anything.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn offsets(&mut self, n: usize) -> Option<Vec<u16>> {
        (0..n).map(|_| self.u16().filter(|o| usize::from(*o) < PAGE)).collect()
    }
}

/// A record's parts.
struct Parsed<'a> {
    ctx: Ctx,
    features: u64,
    insns: usize,
    entries: Vec<u16>,
    outs: Vec<u16>,
    call_offsets: Vec<u16>,
    starts: Vec<u32>,
    bytes: Bytes,
    source: Box<[u8; PAGE]>,
    beyond: &'a [u8],
    code: &'a [u8],
}

fn parse(blob: &[u8]) -> Option<Parsed<'_>> {
    let mut r = Reader(blob);
    let ctx = Ctx(r.u32()?);
    let features = r.u64()?;
    let insns = r.u32()? as usize;
    let (entries, outs, calls) = (usize::from(r.u16()?), usize::from(r.u16()?), usize::from(r.u16()?));
    let code_len = r.u32()? as usize;
    let beyond = usize::from(r.u16()?);
    let beyond = r.take(beyond).filter(|b| b.len() < decode::MAX_LEN)?;
    if entries == 0
        || entries > MOST_ENTRIES
        || outs > 2 * MAX_INSNS
        || calls > 2 * MAX_INSNS
        || insns > 2 * MAX_INSNS
        || code_len == 0
        || code_len > MOST_CODE
    {
        return None;
    }
    let entries = r.offsets(entries)?;
    let outs = r.offsets(outs)?;
    let call_offsets = r.offsets(calls)?;
    let starts = (0..entries.len()).map(|_| r.u32().filter(|s| (*s as usize) < code_len)).collect::<Option<Vec<u32>>>()?;
    let mut bytes = Bytes::default();
    for word in &mut bytes.0 {
        *word = r.u64()?;
    }
    let mut source = Box::new([0u8; PAGE]);
    let count = bytes.0.iter().map(|w| w.count_ones() as usize).sum();
    for (at, byte) in bytes.iter().zip(r.take(count)?) {
        source[at] = *byte;
    }
    let code = r.take(code_len)?;
    r.0.is_empty().then_some(Parsed { ctx, features, insns, entries, outs, call_offsets, starts, bytes, source, beyond, code })
}

impl Parsed<'_> {
    /// The region, without its call sites.
    fn into_compiled(self, page: u64, features: Features) -> Compiled {
        Compiled {
            page,
            ctx: self.ctx,
            features,
            base: None,
            entries: self.entries,
            outs: self.outs,
            code: self.code.to_vec(),
            starts: self.starts,
            calls: Box::default(),
            call_offsets: self.call_offsets,
            bytes: self.bytes,
            source: self.source,
            // Where it is turns out when it is needed.
            beyond: (!self.beyond.is_empty()).then(|| Beyond { page: None, bytes: self.beyond.to_vec() }),
            insns: self.insns,
            time: Duration::ZERO,
        }
    }
}

/// The region of a record, for a page with these contents, a context and what the CPU has; `None` when it was made for others,
/// or is no record.
pub(super) fn decode(blob: &[u8], page: u64, (ctx, features): (Ctx, Features), now: &[u8; PAGE]) -> Option<Compiled> {
    let parsed = parse(blob).filter(|p| p.ctx == ctx && p.features == features_sum(features))?;
    if !parsed.bytes.iter().all(|at| parsed.source[at] == now[at]) {
        return None;
    }
    let insn = |at: &u16| {
        let from = usize::from(*at);
        let here = parsed.source[from..].iter().chain(parsed.beyond);
        let bytes: Vec<u8> = here.take(decode::MAX_LEN).copied().collect();
        match decode::decode(&bytes, ctx, features) {
            Decoded::Insn(i) => Some(i),
            Decoded::NeedMore | Decoded::TooLong => None,
        }
    };
    let insns = parsed.call_offsets.iter().map(insn).collect::<Option<Vec<_>>>()?;
    let calls = call_sites(&insns);
    Some(Compiled { calls, ..parsed.into_compiled(page, features) })
}
