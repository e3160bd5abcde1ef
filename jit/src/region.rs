//! What is compiled together: the reachable blocks of one guest page from given entries.

use crate::lower::kept_loops;
use crate::vm::CallSite;
use egret_isa::Features;
use egret_isa::decode::{self, Decoded};
use egret_isa::insn::{Ctx, Insn, Mode, Operand};
use egret_isa::ops::Width;
use egret_isa::sem;
use iced_x86::Mnemonic as M;
use rustc_hash::FxHashMap;

/// Bytes in a page.
pub const PAGE: usize = 4096;
/// Most instructions in a region.
pub const MAX_INSNS: usize = 1000;
/// Most targets of indirect jumps that are guessed.
const MAX_GUESSED: usize = 24;
/// Most entries that a region takes over from others.
pub const MAX_ENTRIES: usize = 48;
/// Most blocks in a region.
pub const MAX_BLOCKS: usize = Blocks::BITS as usize;

/// A set of a region's blocks, by number.
pub(crate) type Blocks = u128;

/// What to compile.
pub struct Request {
    /// Physical address of the page.
    pub page: u64,
    /// Context.
    pub ctx: Ctx,
    /// What the CPU decodes.
    pub features: Features,
    /// The instruction pointer that goes with the page's first byte, when code may depend on it: 16-bit code wraps around.
    pub base: Option<u64>,
    /// The page's contents.
    pub bytes: Box<[u8; PAGE]>,
    /// Offsets to enter at, the hottest first.
    pub entries: Vec<u16>,
    /// Those of them that got hot before there was a region: when the other ones lead there, they are no entries. If control
    /// comes from elsewhere as well, they get hot again.
    pub soft: Vec<u16>,
    /// Offsets of blocks that have run: what was never reached is not compiled.
    pub known: Vec<u16>,
    /// The regions that the page has already: where they can be entered, code goes over to them.
    pub covered: Vec<Covered>,
    /// Those of them that lead here and are led to from here are made one with what is asked for, which is so many instructions now.
    pub merge: Option<usize>,
    /// What follows the page, for the instructions that reach into it. Without it they are left out.
    pub beyond: Option<Beyond>,
}

/// A region that there is already, as offsets in the page.
#[derive(Clone, Debug)]
pub struct Covered {
    /// Where it is entered.
    pub entries: Vec<u16>,
    /// Where it leads to outside itself.
    pub outs: Vec<u16>,
}

/// The first bytes of the page that follows a region's page in linear addresses.
#[derive(Clone, Debug)]
pub struct Beyond {
    /// Its physical address; `None`: not known yet.
    pub page: Option<u64>,
    /// The bytes, fewer than the longest instruction has.
    pub bytes: Vec<u8>,
}

/// Where control goes from the end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Block number `.0` of the region.
    Block(usize),
    /// An offset in this page or (wrapping) beyond, relative to the page's first byte, outside the region.
    Out(i64),
}

/// How a block ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It runs into the next instruction.
    Fall(Target),
    /// Its last instruction is a direct near branch: where to when taken, and when not (unless it is unconditional).
    Branch(Target, Option<Target>),
    /// The last instruction decides.
    Dynamic,
}

/// A straight run of instructions.
pub struct Block {
    /// Offset in the page.
    pub start: u16,
    /// Instructions with their offsets.
    pub insns: Vec<(u16, Insn)>,
    /// What follows.
    pub end: End,
    /// Blocks of the region that lead here, region entries not counted.
    pub preds: usize,
    /// Which entry of the region this is.
    pub entry: Option<usize>,
}

impl Block {
    /// Where control may go from its end, as far as that is known.
    pub fn targets(&self) -> impl Iterator<Item = Target> + use<> {
        let (a, b) = match self.end {
            End::Fall(t) => (Some(t), None),
            End::Branch(t, f) => (Some(t), f),
            End::Dynamic => (None, None),
        };
        [a, b].into_iter().flatten()
    }

    /// Whether control may leave the region at its end.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.end == End::Dynamic || self.targets().any(|t| matches!(t, Target::Out(_)))
    }

    /// The blocks that may follow.
    pub fn successors(&self) -> impl Iterator<Item = usize> + use<> {
        self.targets().filter_map(|t| match t {
            Target::Block(n) => Some(n),
            Target::Out(_) => None,
        })
    }

    /// The offset after the last instruction.
    #[must_use]
    pub fn end_offset(&self) -> i64 {
        self.insns.last().map_or(i64::from(self.start), |(at, i)| i64::from(*at) + i64::from(i.len))
    }
}

/// The blocks of a region in reverse postorder.
pub struct Region {
    /// Context.
    pub ctx: Ctx,
    /// See [`Request::base`].
    pub base: Option<u64>,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Offset of each entry.
    pub entries: Vec<u16>,
}

/// Which bytes of a page instructions were made from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub [u64; PAGE / 64]);

impl Default for Bytes {
    fn default() -> Self {
        Bytes([0; PAGE / 64])
    }
}

impl Bytes {
    /// Adds a range; what is beyond the page is left out.
    pub fn add(&mut self, from: usize, len: usize) {
        for at in from..(from + len).min(PAGE) {
            self.0[at / 64] |= 1 << (at % 64);
        }
    }

    /// Whether any byte of a range is in.
    #[must_use]
    pub fn any(&self, from: usize, len: usize) -> bool {
        (from..from.saturating_add(len).min(PAGE)).any(|at| self.0[at / 64] >> (at % 64) & 1 != 0)
    }

    /// The bytes, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..PAGE).filter(|at| self.0[at / 64] >> (at % 64) & 1 != 0)
    }
}

struct Finder<'a> {
    request: &'a Request,
    from: &'a [u16],
    insns: FxHashMap<u16, Option<Insn>>,
    known: [bool; PAGE],
    covered: [bool; PAGE],
}

impl Finder<'_> {
    /// The instruction at an offset; `None` when it crosses into the next page and that is not known.
    fn insn(&mut self, at: u16) -> Option<Insn> {
        if let Some(known) = self.insns.get(&at) {
            return *known;
        }
        let from = usize::from(at);
        let bytes = &self.request.bytes[from..PAGE.min(from + decode::MAX_LEN)];
        let insn = match decode::decode(bytes, self.request.ctx, self.request.features) {
            Decoded::Insn(i) => Some(i),
            Decoded::NeedMore => self.crossing(bytes),
            Decoded::TooLong => None,
        };
        self.insns.insert(at, insn);
        insn
    }

    /// The instruction that begins with these bytes, the last of the page, and reaches into the next one.
    fn crossing(&self, start: &[u8]) -> Option<Insn> {
        let beyond = self.request.beyond.as_ref().filter(|_| self.request.base.is_none())?;
        let rest = beyond.bytes.iter().take(decode::MAX_LEN - start.len());
        let bytes: Vec<u8> = start.iter().chain(rest).copied().collect();
        match decode::decode(&bytes, self.request.ctx, self.request.features) {
            Decoded::Insn(i) => Some(i),
            Decoded::NeedMore | Decoded::TooLong => None,
        }
    }

    /// The offset that a direct near branch at `at` goes to, relative to the page; `None` when that is only known at run time.
    fn target(&self, at: u16, i: &Insn) -> Option<i64> {
        let next = i64::from(at) + i64::from(i.len);
        let to = next.wrapping_add(i.imm as i64);
        let mode = self.request.ctx.mode();
        match self.request.base {
            None if mode == Mode::M64 && i.opsize == Width::Q => Some(to),
            None if mode == Mode::M32 && i.opsize == Width::D => Some(i64::from(to as i32)),
            None => None,
            Some(base) => Some((base.wrapping_add(to as u64) & i.opsize.mask()).wrapping_sub(base) as i64),
        }
    }

    /// The offsets control may go to after the instruction, when it is a direct near branch.
    fn branch(&self, at: u16, i: &Insn) -> Option<(i64, Option<i64>)> {
        if i.ops[0] != Operand::Rel || sem::lookup::<egret_isa::ir::Recorder>(i).is_none() {
            return None;
        }
        let next = i64::from(at) + i64::from(i.len);
        let always = matches!(i.mnemonic, M::Jmp | M::Call);
        self.target(at, i).map(|to| (to, (!always).then_some(next)))
    }

    fn wanted(&self, offset: i64) -> Option<u16> {
        let at = usize::try_from(offset).ok().filter(|at| *at < PAGE)?;
        (self.known[at] && !self.covered[at]).then_some(at as u16)
    }

    /// All places where blocks begin, reachable from the entries.
    ///
    /// The targets of an indirect jump are not known: all warm blocks of the page may be among them, and are made entries.
    fn leaders(&mut self) -> (Vec<u16>, Vec<u16>) {
        let mut found: Vec<u16> = Vec::new();
        let mut todo: std::collections::VecDeque<u16> = self.from.iter().copied().collect();
        let mut count = 0;
        let mut seen = FxHashMap::default();
        let (mut indirect, mut guessed) = (false, Vec::new());
        loop {
            let Some(at) = todo.pop_front() else {
                if std::mem::take(&mut indirect) && guessed.is_empty() {
                    guessed = (0..PAGE as u16).filter(|at| self.guess(*at) && !seen.contains_key(at)).take(MAX_GUESSED).collect();
                    todo.extend(&guessed);
                    continue;
                }
                break;
            };
            if found.len() >= MAX_BLOCKS || count >= MAX_INSNS || self.insn(at).is_none() {
                continue;
            }
            if seen.insert(at, ()).is_some() {
                continue;
            }
            found.push(at);
            let mut here = at;
            while let Some(i) = self.insn(here) {
                count += 1;
                let next = i64::from(here) + i64::from(i.len);
                if sem::ends_block(&i) {
                    indirect |= jumps_by_table(&i);
                    let (taken, not) = self.branch(here, &i).map_or((None, Some(next)), |(t, f)| (Some(t), f));
                    // After a call its return comes back to the next instruction.
                    let after = (i.mnemonic == M::Call).then_some(next);
                    todo.extend([taken, not, after].into_iter().flatten().filter_map(|t| self.wanted(t)));
                    break;
                }
                match u16::try_from(next) {
                    Ok(n) if usize::from(n) < PAGE && !seen.contains_key(&n) && !self.covered[usize::from(n)] && count < MAX_INSNS => {
                        here = n
                    }
                    _ => break,
                }
            }
        }
        guessed.retain(|at| seen.contains_key(at));
        (found, guessed)
    }

    /// Whether a block of the page that was not reached may be the target of an indirect jump. When everything counts as
    /// known, that says nothing; nor when regions are made one, for then every byte that they were made from does, and the targets are
    /// among their entries.
    fn guess(&self, at: u16) -> bool {
        let blocks = self.request.known.len() < PAGE && self.request.merge.is_none();
        blocks && self.known[usize::from(at)] && !self.covered[usize::from(at)]
    }
}

impl Region {
    /// Finds the blocks that a request reaches. `None` when its first entry cannot be compiled.
    #[must_use]
    pub fn find(request: &Request) -> Option<Region> {
        let region = Region::reached(request, &request.entries, &request.covered)?;
        if request.merge.is_none() {
            return Some(region);
        }
        let round = around(&request.covered, &region.entries, &region.outs());
        let pick = |wanted: bool| {
            let all = request.covered.iter().zip(&round);
            all.filter(|(_, r)| **r == wanted).map(|(c, _)| c.clone()).collect::<Vec<Covered>>()
        };
        let (parts, covered) = (pick(true), pick(false));
        if parts.is_empty() {
            return Some(region);
        }
        let mut entries = request.entries.clone();
        for at in parts.iter().flat_map(|p| &p.entries) {
            if !entries.contains(at) && entries.len() < MAX_ENTRIES {
                entries.push(*at);
            }
        }
        Region::reached(request, &entries, &covered)
    }

    /// The blocks reached from some entries.
    fn reached(request: &Request, from: &[u16], covered_by: &[Covered]) -> Option<Region> {
        let mut known = [false; PAGE];
        for at in request.known.iter().chain(from) {
            *known.get_mut(usize::from(*at))? = true;
        }
        let mut covered = [false; PAGE];
        for at in covered_by.iter().flat_map(|c| &c.entries).filter(|at| !from.contains(at)) {
            *covered.get_mut(usize::from(*at))? = true;
        }
        let mut finder = Finder { request, from, insns: FxHashMap::default(), known, covered };
        finder.insn(*from.first()?)?;
        let (leaders, guessed) = finder.leaders();
        let number: FxHashMap<u16, usize> = leaders.iter().enumerate().map(|(n, at)| (*at, n)).collect();
        let blocks: Vec<Block> = leaders.iter().map(|at| block(&mut finder, *at, &number)).collect();
        let mut region = Region { ctx: request.ctx, base: request.base, blocks, entries: Vec::new() };
        let returns = region.return_points();
        let soft = region.led_to(&request.soft, &number);
        let asked = from.iter().copied().filter(|at| !soft.contains(at));
        let wanted = asked.chain(returns).chain(guessed);
        let mut entries: Vec<u16> = Vec::new();
        for at in wanted {
            if number.contains_key(&at) && !entries.contains(&at) {
                entries.push(at);
            }
        }
        for (n, at) in entries.iter().enumerate() {
            region.blocks[number[at]].entry = Some(n);
        }
        region.entries = entries;
        region.order();
        region.enter_at_joins();
        Some(region)
    }

    /// Makes entries of the blocks where ways join, so that other code can go there instead of having a copy. Registers are in memory
    /// there, but for small loops: those are entered where they begin.
    fn enter_at_joins(&mut self) {
        let loops = kept_loops(self);
        let inside = |n: usize| loops.iter().any(|body| body >> n & 1 != 0 && body.trailing_zeros() as usize != n);
        for n in 0..self.blocks.len() {
            if self.blocks[n].preds > 1 && self.blocks[n].entry.is_none() && !inside(n) {
                self.blocks[n].entry = Some(self.entries.len());
                self.entries.push(self.blocks[n].start);
            }
        }
    }

    /// Those of some entries that blocks before them lead to, directly and within the region. Where loops begin is left out:
    /// who is in the loop already comes in there.
    fn led_to(&self, entries: &[u16], number: &FxHashMap<u16, usize>) -> Vec<u16> {
        let (mut before, mut behind) = (vec![false; self.blocks.len()], vec![false; self.blocks.len()]);
        for b in &self.blocks {
            for s in b.successors() {
                let loops = self.blocks[s].start <= b.start;
                if loops { behind[s] = true } else { before[s] = true }
            }
        }
        let led = |at: &u16| number.get(at).is_some_and(|n| before[*n] && !behind[*n]);
        entries.iter().copied().filter(led).collect()
    }

    /// Blocks after calls: returns enter there.
    fn return_points(&self) -> Vec<u16> {
        let calls = self.blocks.iter().filter(|b| b.insns.last().is_some_and(|(_, i)| i.mnemonic == M::Call));
        let after = calls.map(Block::end_offset);
        let mut points: Vec<u16> = after.filter_map(|at| u16::try_from(at).ok()).collect();
        points.sort_unstable();
        points
    }

    /// Puts the blocks into reverse postorder, drops those that no entry reaches, and counts predecessors.
    fn order(&mut self) {
        let mut state = vec![0u8; self.blocks.len()];
        let mut post: Vec<usize> = Vec::new();
        let mut roots: Vec<usize> = (0..self.blocks.len()).filter(|n| self.blocks[*n].entry.is_some()).collect();
        roots.sort_by_key(|n| std::cmp::Reverse(self.blocks[*n].entry));
        for root in roots {
            let mut stack = vec![(root, false)];
            while let Some((n, done)) = stack.pop() {
                if done {
                    post.push(n);
                } else if state[n] == 0 {
                    state[n] = 1;
                    stack.push((n, true));
                    stack.extend(self.blocks[n].successors().map(|s| (s, false)));
                }
            }
        }
        post.reverse();
        let mut place = vec![usize::MAX; self.blocks.len()];
        for (new, old) in post.iter().enumerate() {
            place[*old] = new;
        }
        let mut old: Vec<Option<Block>> = std::mem::take(&mut self.blocks).into_iter().map(Some).collect();
        self.blocks = post.iter().filter_map(|n| old[*n].take()).collect();
        let renumber = |t: Target| match t {
            Target::Block(n) => Target::Block(place[n]),
            out => out,
        };
        for b in &mut self.blocks {
            b.end = match b.end {
                End::Fall(t) => End::Fall(renumber(t)),
                End::Branch(t, f) => End::Branch(renumber(t), f.map(renumber)),
                End::Dynamic => End::Dynamic,
            };
        }
        for n in 0..self.blocks.len() {
            let successors: Vec<usize> = self.blocks[n].successors().collect();
            for s in successors {
                self.blocks[s].preds += 1;
            }
        }
    }

    /// Instructions in all.
    #[must_use]
    pub fn insns(&self) -> usize {
        self.blocks.iter().map(|b| b.insns.len()).sum()
    }

    /// Where in its page it leads to outside itself, as far as that is known.
    #[must_use]
    pub fn outs(&self) -> Vec<u16> {
        let mut outs: Vec<u16> = Vec::new();
        for t in self.blocks.iter().flat_map(Block::targets) {
            if let Target::Out(at) = t
                && let Ok(at) = u16::try_from(at)
                && usize::from(at) < PAGE
                && !outs.contains(&at)
            {
                outs.push(at);
            }
        }
        outs
    }

    /// How many bytes of the next page it was made from.
    #[must_use]
    pub fn bytes_beyond(&self) -> usize {
        let last = self.blocks.iter().filter_map(|b| b.insns.last());
        last.map(|(at, i)| beyond(*at, i)).max().unwrap_or(0)
    }

    /// The bytes of its page that it was made from.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let mut bytes = Bytes::default();
        for (at, i) in self.blocks.iter().flat_map(|b| &b.insns) {
            bytes.add((*at).into(), i.len.into());
        }
        bytes
    }
}

/// Which regions one with these entries and ways out leads to and is led to from, by way of each other or not: parts of a loop.
pub(crate) fn around(covered: &[Covered], entries: &[u16], outs: &[u16]) -> Vec<bool> {
    let meets = |outs: &[u16], entries: &[u16]| outs.iter().any(|at| entries.contains(at));
    let closure = |near: &dyn Fn(&Covered) -> bool, step: &dyn Fn(&Covered, &Covered) -> bool| {
        let mut set: Vec<bool> = covered.iter().map(near).collect();
        loop {
            let new = (0..set.len()).find(|n| !set[*n] && (0..set.len()).any(|m| set[m] && step(&covered[m], &covered[*n])));
            match new {
                Some(n) => set[n] = true,
                None => return set,
            }
        }
    };
    let after = closure(&|c| meets(outs, &c.entries), &|from, to| meets(&from.outs, &to.entries));
    let before = closure(&|c| meets(&c.outs, entries), &|to, from| meets(&from.outs, &to.entries));
    after.iter().zip(before).map(|(a, b)| *a && b).collect()
}

/// How many bytes of an instruction lie in the next page.
pub(crate) fn beyond(at: u16, i: &Insn) -> usize {
    (usize::from(at) + usize::from(i.len)).saturating_sub(PAGE)
}

fn block(finder: &mut Finder<'_>, start: u16, number: &FxHashMap<u16, usize>) -> Block {
    let mut insns = Vec::new();
    let mut at = start;
    let resolve = |t: i64| u16::try_from(t).ok().and_then(|t| number.get(&t)).map_or(Target::Out(t), |n| Target::Block(*n));
    let end = loop {
        let Some(i) = finder.insn(at) else { break End::Fall(Target::Out(at.into())) };
        insns.push((at, i));
        let next = i64::from(at) + i64::from(i.len);
        if sem::ends_block(&i) {
            break match finder.branch(at, &i) {
                Some((taken, not)) => End::Branch(resolve(taken), not.map(resolve)),
                None if continues(&i) => End::Fall(resolve(next)),
                None => End::Dynamic,
            };
        }
        match resolve(next) {
            Target::Out(_) if insns.len() < MAX_INSNS && (next as usize) < PAGE && !finder.covered[next as usize] => at = next as u16,
            target => break End::Fall(target),
        }
    };
    Block { start, insns, end, preds: 0, entry: None }
}

/// An indirect jump that is not one through a fixed pointer, as to a library's function.
pub(crate) fn jumps_by_table(i: &Insn) -> bool {
    i.mnemonic == M::Jmp && (matches!(i.ops[0], Operand::Reg(..)) || i.has_mem() && i.mem.index < 16)
}

/// Instructions that end a block in the interpreter but mostly go on to the next instruction.
fn continues(i: &Insn) -> bool {
    use M::*;
    let string = matches!(
        i.mnemonic,
        Movsb
            | Movsw
            | Movsd
            | Movsq
            | Stosb
            | Stosw
            | Stosd
            | Stosq
            | Lodsb
            | Lodsw
            | Lodsd
            | Lodsq
            | Scasb
            | Scasw
            | Scasd
            | Scasq
            | Cmpsb
            | Cmpsw
            | Cmpsd
            | Cmpsq
    );
    let io = matches!(i.mnemonic, In | Out | Insb | Insw | Insd | Outsb | Outsw | Outsd);
    let flags = matches!(i.mnemonic, Cli | Sti | Popf | Popfd | Popfq | Stac | Clac);
    let system = matches!(i.mnemonic, Rdmsr | Wrmsr | Swapgs | Invlpg | Pause | Ldmxcsr);
    string || io || flags || system
}

/// The call sites of a region: one for every instruction that its code leaves to the CPU's functions.
#[must_use]
pub fn call_sites(insns: &[Insn]) -> Box<[CallSite]> {
    let site = |i: &Insn| CallSite { run: egret_cpu::functions::handler(i), insn: *i, integer: egret_cpu::functions::is_integer(i) };
    insns.iter().map(site).collect()
}

#[cfg(test)]
pub(crate) mod tests;
