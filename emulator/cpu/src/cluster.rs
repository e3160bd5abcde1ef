//! What the CPUs of one machine share: where translated code is, who may write to it, and how one CPU gets the attention of
//! another that runs on another thread.
//!
//! **Attention.** [`Kick::kick`] raises [`crate::State::limit`]: engines compare the budget with it where they look at the
//! budget, and come back. [`Cpu::enter`] takes the kick.
//!
//! **Code pages.** A page with code of some CPU is in no CPU's write entries of the TLB. [`Cpu::mark_code`] returns only when
//! every CPU that runs has dropped its own, and a write to such a page returns only when every CPU with code there that
//! runs knows of it: a CPU never executes what another had overwritten before its last instruction. Who waits for another
//! goes on answering those who wait for it.

#![allow(unsafe_code)]

use crate::Cpu;
use crate::state::attention;
use egret_bus::{GuestRam, Phys};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU64, fence};
use std::time::Duration;

/// What one CPU tells another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mail {
    /// A page has code now: its write entries must go.
    Protect(u64),
    /// Bytes of a page with code were written: address, length.
    Written(u64, u64),
}

/// Mail that waits. A CPU that sleeps must not let it grow without bound.
#[derive(Default)]
struct Letters {
    list: Vec<Mail>,
    limit: usize,
}

impl Letters {
    const FEW: usize = 1024;

    fn push(&mut self, mail: Mail) {
        if self.list.len() >= self.limit.max(Self::FEW) {
            for m in &mut self.list {
                if let Mail::Written(at, _) = *m {
                    *m = Mail::Written(at & !0xfff, 0x1000);
                }
            }
            self.list.sort_unstable();
            self.list.dedup();
            self.limit = self.list.len() * 2;
        }
        self.list.push(mail);
    }
}

/// The address of a CPU's [`crate::State::limit`], while the CPU is there.
#[derive(Default)]
struct Limit(Mutex<Option<NonNull<AtomicI64>>>);

// SAFETY: the word is atomic and any thread may use it; the address is taken away, under the lock, before the state goes.
unsafe impl Send for Limit {}
// SAFETY: as for `Send`.
unsafe impl Sync for Limit {}

impl Limit {
    fn raise(&self) {
        let guard = self.0.lock();
        if let Some(word) = *guard {
            // SAFETY: the state is boxed and does not move, and `Member` takes the address away under this lock before
            // the box is freed.
            unsafe { word.as_ref() }.store(i64::MAX, SeqCst);
        }
    }
}

/// One CPU as the others see it.
#[derive(Default)]
struct Peer {
    limit: Limit,
    /// Somebody wants attention.
    wanted: AtomicBool,
    /// It may be executing guest code.
    running: AtomicBool,
    mail: Mutex<Letters>,
    /// Letters posted and dealt with.
    posted: AtomicU64,
    handled: AtomicU64,
    /// The pages it has code in, a bit each.
    marks: Box<[AtomicU64]>,
    asleep: AtomicBool,
    bed: Mutex<()>,
    wake: Condvar,
}

/// The CPUs of a machine.
pub struct Cluster {
    peers: Box<[Peer]>,
    /// How many CPUs have code in each page.
    counts: Box<[AtomicU16]>,
    /// Who ever had a write entry for a page: 0 nobody, n + 1 CPU n alone, [`MANY`] several.
    writers: Box<[AtomicU8]>,
    /// One page is marked at a time.
    order: Mutex<()>,
    /// Held for locked accesses that the host cannot do atomically.
    bus_lock: Mutex<()>,
    /// All CPUs take turns on one thread.
    turns: AtomicBool,
}

const MANY: u8 = u8::MAX;

/// How often one looks again before giving the host's processor away.
const SPINS: u32 = 64;

impl Cluster {
    /// Most CPUs of a machine.
    pub const MOST: usize = 254;

    /// Room for `cpus` CPUs (at least one, [`Cluster::MOST`] at the most) around `ram`.
    #[must_use]
    pub fn new(ram: &GuestRam, cpus: usize) -> Arc<Cluster> {
        let top = ram.regions().map(|(base, len)| base.0.saturating_add(len)).max().unwrap_or(0);
        let pages = usize::try_from(top.div_ceil(4096)).unwrap_or(0);
        let marks = || (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let peer = |_| Peer { marks: marks(), ..Peer::default() };
        Arc::new(Cluster {
            peers: (0..cpus.clamp(1, Cluster::MOST)).map(peer).collect(),
            counts: (0..pages).map(|_| AtomicU16::new(0)).collect(),
            writers: (0..pages).map(|_| AtomicU8::new(0)).collect(),
            order: Mutex::new(()),
            bus_lock: Mutex::new(()),
            turns: AtomicBool::new(false),
        })
    }

    /// How many CPUs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The means to wake CPU `n`.
    #[must_use]
    pub fn kick(self: &Arc<Cluster>, n: usize) -> Kick {
        Kick { cluster: self.clone(), n: n.min(self.peers.len() - 1) }
    }

    /// Says whether the CPUs take turns on one thread; then PAUSE ends a turn.
    pub fn take_turns(&self, turns: bool) {
        self.turns.store(turns, Relaxed);
    }

    fn has_code(&self, frame: usize) -> bool {
        self.counts.get(frame).is_some_and(|n| n.load(SeqCst) != 0)
    }

    fn marked(&self, n: usize, frame: usize) -> bool {
        self.peers[n].marks.get(frame >> 6).is_some_and(|w| w.load(SeqCst) >> (frame & 63) & 1 != 0)
    }

    fn rouse(&self, n: usize) {
        let peer = &self.peers[n];
        if !peer.wanted.swap(true, SeqCst) {
            peer.limit.raise();
            if peer.asleep.load(SeqCst) {
                drop(peer.bed.lock());
                peer.wake.notify_all();
            }
        }
    }

    /// Posts a letter: the number that [`Peer::handled`] reaches when it was dealt with.
    fn post(&self, n: usize, mail: Mail) -> u64 {
        let peer = &self.peers[n];
        let mut letters = peer.mail.lock();
        letters.push(mail);
        let ticket = peer.posted.load(SeqCst) + 1;
        peer.posted.store(ticket, SeqCst);
        drop(letters);
        ticket
    }
}

/// A CPU's place in its cluster.
pub(crate) struct Member {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) index: usize,
    pauses: u32,
    /// The page that others wrote to last, and how often in a row.
    last: (u64, u32),
}

impl Member {
    pub(crate) fn new(cluster: &Arc<Cluster>, index: usize, limit: &AtomicI64) -> Member {
        let index = index.min(cluster.peers.len() - 1);
        *cluster.peers[index].limit.0.lock() = Some(NonNull::from(limit));
        Member { cluster: cluster.clone(), index, pauses: 0, last: (0, 0) }
    }

    /// What is to be dropped for a write of another CPU: the bytes or, when it goes on and on, the page, so that it need not be
    /// told of every write.
    fn remote_write(&mut self, at: u64, len: u64) -> (Phys, u64) {
        const FEW: u32 = 4;
        let page = at & !0xfff;
        self.last = if self.last.0 == page { (page, self.last.1.saturating_add(1)) } else { (page, 0) };
        if self.last.1 < FEW { (Phys(at), len) } else { (Phys(page), 0x1000) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let peer = &self.cluster.peers[self.index];
        *peer.limit.0.lock() = None;
        peer.running.store(false, SeqCst);
    }
}

/// Gets the attention of a CPU, from any thread.
#[derive(Clone)]
pub struct Kick {
    cluster: Arc<Cluster>,
    n: usize,
}

impl Kick {
    /// Makes the CPU leave its engine soon, or wakes it.
    pub fn kick(&self) {
        self.cluster.rouse(self.n);
    }

    /// The CPU's thread is at its end: nobody waits for it any more.
    pub fn gone(&self) {
        self.cluster.peers[self.n].running.store(false, SeqCst);
    }

    /// For the CPU's own thread: sleeps until there is a kick, or for the time given.
    pub fn sleep(&self, at_most: Duration) {
        let peer = &self.cluster.peers[self.n];
        let mut bed = peer.bed.lock();
        peer.asleep.store(true, SeqCst);
        if !peer.wanted.load(SeqCst) {
            peer.wake.wait_for(&mut bed, at_most);
        }
        peer.asleep.store(false, SeqCst);
    }
}

impl Cpu {
    /// Takes kicks and says that guest code may run from now on; to be called before an engine that others may want to stop.
    pub fn enter(&mut self) {
        let peer = &self.member.cluster.peers[self.member.index];
        peer.running.store(true, SeqCst);
        self.state.limit.store(0, SeqCst);
        peer.wanted.store(false, SeqCst);
        self.read_mail();
    }

    /// No guest code runs until [`Cpu::enter`]: nobody needs to wait for this CPU.
    pub fn leave(&mut self) {
        self.member.cluster.peers[self.member.index].running.store(false, SeqCst);
    }

    /// Whether the budget is used up, or somebody wants attention.
    #[inline]
    #[must_use]
    pub fn spent(&self) -> bool {
        self.state.budget <= self.state.limit.load(Relaxed)
    }

    /// This CPU's number.
    #[must_use]
    pub fn index(&self) -> usize {
        self.member.index
    }

    /// Whether there are other CPUs.
    pub(crate) fn has_peers(&self) -> bool {
        self.member.cluster.peers.len() > 1
    }

    /// Deals with what other CPUs have told this one.
    fn read_mail(&mut self) {
        let cluster = self.member.cluster.clone();
        let peer = &cluster.peers[self.member.index];
        if peer.posted.load(SeqCst) == peer.handled.load(SeqCst) {
            return;
        }
        let mut letters = peer.mail.lock();
        for mail in letters.list.drain(..) {
            match mail {
                Mail::Protect(page) => {
                    if let Some(host) = self.ram.host(Phys(page), 0x1000) {
                        self.state.forget_writes_to(host as u64);
                    }
                }
                Mail::Written(at, len) => {
                    self.code_writes.push(self.member.remote_write(at, len));
                    self.state.attention |= attention::CODE_WRITE;
                }
            }
        }
        peer.handled.store(peer.posted.load(SeqCst), SeqCst);
    }

    /// Tells other CPUs and waits until all that run have taken note.
    fn tell(&mut self, to: impl Fn(usize) -> bool, mail: Mail) {
        let cluster = self.member.cluster.clone();
        let others = (0..cluster.peers.len()).filter(|n| *n != self.member.index && to(*n));
        let tickets: Vec<(usize, u64)> = others.map(|n| (n, cluster.post(n, mail))).collect();
        let open = |n: usize, ticket: u64| {
            let peer = &cluster.peers[n];
            peer.running.load(SeqCst) && peer.handled.load(SeqCst) < ticket
        };
        for (n, ticket) in &tickets {
            if open(*n, *ticket) {
                cluster.rouse(*n);
            }
        }
        for (n, ticket) in tickets {
            let mut spins = 0u32;
            while open(n, ticket) {
                self.read_mail();
                back_off(&mut spins);
                // Its own taking of an earlier kick may have swallowed this one.
                cluster.rouse(n);
            }
        }
    }

    /// Takes a lock that other CPUs hold while they wait for answers of this one.
    fn patiently<'a>(&mut self, lock: &'a Mutex<()>) -> MutexGuard<'a, ()> {
        let mut spins = 0u32;
        loop {
            if let Some(guard) = lock.try_lock() {
                return guard;
            }
            self.read_mail();
            back_off(&mut spins);
        }
    }

    /// Runs `f` while no other CPU does the same: for locked accesses that the host has no atomic operation for.
    pub(crate) fn with_bus_lock<T>(&mut self, f: impl FnOnce(&mut Cpu) -> T) -> T {
        let cluster = self.member.cluster.clone();
        let _guard = self.patiently(&cluster.bus_lock);
        f(self)
    }

    /// Whether a physical page has translated code in it, of this CPU or another.
    #[inline]
    pub(crate) fn has_code(&self, phys: u64) -> bool {
        self.member.cluster.has_code((phys >> 12) as usize)
    }

    /// Marks a physical page as holding translated code of this CPU: writes to it take the slow path from now on. To be
    /// called before the code is read.
    pub fn mark_code(&mut self, phys: u64) {
        let (frame, me) = ((phys >> 12) as usize, self.member.index);
        let cluster = self.member.cluster.clone();
        if cluster.marked(me, frame) {
            return;
        }
        let (Some(word), Some(count)) = (cluster.peers[me].marks.get(frame >> 6), cluster.counts.get(frame)) else { return };
        let _order = self.patiently(&cluster.order);
        word.fetch_or(1 << (frame & 63), SeqCst);
        if count.fetch_add(1, SeqCst) != 0 {
            return;
        }
        if let Some(host) = self.ram.host(Phys(phys & !0xfff), 0x1000) {
            self.state.forget_writes_to(host as u64);
        }
        let writer = cluster.writers[frame].load(SeqCst);
        if writer != 0 && usize::from(writer) != me + 1 {
            self.tell(|n| writer == MANY || usize::from(writer) == n + 1, Mail::Protect(phys & !0xfff));
        }
    }

    /// Forgets that a physical page holds translated code of this CPU.
    pub fn unmark_code(&mut self, phys: u64) {
        let frame = (phys >> 12) as usize;
        let cluster = &self.member.cluster;
        let Some(word) = cluster.peers[self.member.index].marks.get(frame >> 6) else { return };
        if word.fetch_and(!(1 << (frame & 63)), SeqCst) >> (frame & 63) & 1 != 0
            && let Some(count) = cluster.counts.get(frame)
        {
            count.fetch_sub(1, SeqCst);
        }
    }

    /// Whether a page may get a write entry; notes that this CPU has one.
    pub(crate) fn may_write_fast(&self, page: u64) -> bool {
        let (frame, cluster) = ((page >> 12) as usize, &self.member.cluster);
        if cluster.peers.len() > 1
            && let Some(writer) = cluster.writers.get(frame)
        {
            let me = self.member.index as u8 + 1;
            let was = writer.load(Relaxed);
            if was != me && was != MANY {
                let other = writer.compare_exchange(0, me, SeqCst, SeqCst).is_err();
                if other {
                    writer.store(MANY, SeqCst);
                }
                // Against `mark_code`, which counts and then asks for writers.
                fence(SeqCst);
            }
        }
        !cluster.has_code(frame)
    }

    /// After a slow write to RAM: whoever has code there hears of it before this instruction is over.
    pub(crate) fn note_write(&mut self, phys: u64, len: u64) {
        if self.has_peers() {
            // Against a CPU that marks the page and then reads the code.
            fence(SeqCst);
        }
        if !self.has_code(phys) {
            return;
        }
        let (frame, me) = ((phys >> 12) as usize, self.member.index);
        let cluster = self.member.cluster.clone();
        if cluster.marked(me, frame) {
            match self.code_writes.last_mut() {
                // In the same page: how a write was split makes no difference.
                Some((at, before)) if at.0 + *before == phys && phys & 0xfff != 0 => *before += len,
                _ => self.code_writes.push((Phys(phys), len)),
            }
            self.state.attention |= attention::CODE_WRITE;
        }
        if cluster.peers.len() > 1 {
            self.tell(|n| cluster.marked(n, frame), Mail::Written(phys, len));
        }
    }

    /// PAUSE: a guest that spins for another CPU lets it run.
    pub(crate) fn pause(&mut self) {
        const PATIENCE: u32 = 32;
        let member = &mut self.member;
        if member.cluster.peers.len() == 1 {
            return;
        }
        member.pauses = member.pauses.wrapping_add(1);
        if member.pauses.is_multiple_of(PATIENCE) {
            if member.cluster.turns.load(Relaxed) {
                self.state.attention |= attention::YIELD;
            } else {
                std::thread::yield_now();
            }
        }
    }
}

fn back_off(spins: &mut u32) {
    *spins = spins.saturating_add(1);
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl Cpu {
    /// INIT (SDM Vol. 3, "Processor State After Reset", the column for INIT): as power-on, but caches, MSRs, the x87 FPU and the
    /// vector registers stay. EFER is cleared: with paging off nothing of it could be in force.
    pub fn init(&mut self) {
        use crate::state::cr0;
        let cache = self.cr0 & (cr0::CD | cr0::NW);
        let (x87, msr) = (self.x87.clone(), self.msr.clone());
        let s = &self.state;
        let (xmm, ymm_hi, mxcsr, xcr0, pkru) = (s.xmm, s.ymm_hi, s.mxcsr, s.xcr0, self.pkru);
        self.reset();
        self.cr0 = self.cr0 & !(cr0::CD | cr0::NW) | cache;
        (self.x87, self.msr) = (x87, msr);
        self.pkru = pkru;
        let s = &mut *self.state;
        (s.xmm, s.ymm_hi, s.mxcsr, s.xcr0) = (xmm, ymm_hi, mxcsr, xcr0);
        s.gpr[2] = self.model.base().signature.into();
        self.update_context();
    }

    /// A start-up message after INIT: execution begins in real mode at the page `vector` (SDM Vol. 3, "MP Initialization").
    pub fn start_up(&mut self, vector: u8) {
        use crate::state::SegReg;
        use egret_isa::insn::Seg;
        self.state.seg[Seg::Cs as usize] = SegReg::new(u16::from(vector) << 8, u64::from(vector) << 12, 0xffff, 0x9b);
        self.state.rip = 0;
        self.update_context();
    }
}
