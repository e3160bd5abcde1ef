//! The compile queue: requests by heat, worker threads, results.

use crate::compile::{CompileError, Compiled, Compiler, Tuning};
use crate::region::Request;
use crossbeam::channel::{Receiver, Sender, unbounded};
use egret_isa::insn::Ctx;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a request was for: physical address of its first entry, and context.
pub type Key = (u64, Ctx);

struct Job {
    key: Key,
    since: Instant,
    request: Request,
}

/// What a waiting job is looked for by.
#[derive(Clone, Copy)]
struct Place {
    page: u64,
    ctx: Ctx,
    heat: u32,
    /// How many jobs came before: the older of two that are as hot goes first.
    number: u64,
}

/// The jobs that wait, with their places beside them.
#[derive(Default)]
struct Shared {
    jobs: Vec<Job>,
    places: Vec<Place>,
    pushed: u64,
    closed: bool,
}

impl Shared {
    fn push(&mut self, heat: u32, job: Job) {
        let (page, ctx) = (job.request.page, job.request.ctx);
        self.pushed += 1;
        self.places.push(Place { page, ctx, heat, number: self.pushed });
        self.jobs.push(job);
    }

    fn take(&mut self, n: usize) -> Job {
        self.places.swap_remove(n);
        self.jobs.swap_remove(n)
    }

    fn pop_hottest(&mut self) -> Option<Job> {
        let (n, _) = self.places.iter().enumerate().max_by_key(|(_, p)| (p.heat, std::cmp::Reverse(p.number)))?;
        Some(self.take(n))
    }

    /// Removes jobs; their keys.
    fn drop_if(&mut self, stale: impl Fn(&Place) -> bool) -> Vec<Key> {
        let mut dropped = Vec::new();
        for n in (0..self.places.len()).rev() {
            if stale(&self.places[n]) {
                dropped.push(self.take(n).key);
            }
        }
        dropped
    }

    /// Removes the colder half.
    fn drop_cold(&mut self) -> Vec<Key> {
        let mut heats: Vec<u32> = self.places.iter().map(|p| p.heat).collect();
        let middle = heats.len() / 2;
        let (_, median, _) = heats.select_nth_unstable(middle);
        let median = *median;
        let mut dropped = self.drop_if(|p| p.heat < median);
        while self.jobs.len() > middle.max(1) {
            dropped.push(self.take(0).key);
        }
        dropped
    }
}

/// A finished request.
pub struct Done {
    /// What it was for.
    pub key: Key,
    /// The code.
    pub result: Result<Compiled, CompileError>,
    /// Time between request and start.
    pub waited: Duration,
}

/// Worker threads and what they have to do.
pub struct Queue {
    shared: Arc<(Mutex<Shared>, Condvar)>,
    done: Receiver<Done>,
    finished: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<()>>,
}

/// Most requests that wait; the coldest are dropped beyond that, for a block that stays hot asks again.
const MOST: usize = 1024;

/// When so many wait, getting done with them is worth more than what the optimizer finds.
const HURRY: usize = 128;

/// Most entries that one request collects.
const MOST_ENTRIES: usize = 24;

impl Queue {
    /// Starts `threads` workers.
    pub fn new(threads: usize, tuning: Tuning) -> Result<Queue, CompileError> {
        let shared: Arc<(Mutex<Shared>, Condvar)> = Arc::default();
        let (send, done) = unbounded();
        let finished: Arc<AtomicUsize> = Arc::default();
        let mut workers = Vec::new();
        for n in 0..threads {
            let (shared, send, finished) = (shared.clone(), send.clone(), finished.clone());
            let compiler = Compiler::new(tuning)?;
            let thread = std::thread::Builder::new().name(format!("egret-jit-{n}"));
            let worker = thread.spawn(move || work(&shared, &send, &finished, compiler)).map_err(|e| CompileError::Host(e.to_string()))?;
            workers.push(worker);
        }
        Ok(Queue { shared, done, finished, workers })
    }

    /// Adds a request. What was dropped to make room comes back.
    pub fn push(&self, heat: u32, key: Key, request: Request) -> Vec<Key> {
        let (lock, wake) = &*self.shared;
        let mut shared = lock.lock();
        shared.push(heat, Job { key, since: Instant::now(), request });
        let dropped = if shared.jobs.len() > MOST { shared.drop_cold() } else { Vec::new() };
        drop(shared);
        wake.notify_one();
        dropped
    }

    /// Adds an entry to a request that waits for the same page and context, and makes it as hot as this entry if it is
    /// colder; see [`Request::soft`]. False when there is none, or it has entries enough.
    pub fn join(&self, heat: u32, page: u64, ctx: Ctx, entry: u16, soft: bool) -> bool {
        let mut guard = self.shared.0.lock();
        let shared = &mut *guard;
        let same = |p: &Place, j: &Job| p.page == page && p.ctx == ctx && j.request.base.is_none();
        let found = shared.places.iter_mut().zip(&mut shared.jobs).find(|(p, j)| same(p, j));
        let Some((place, job)) = found else { return false };
        if !job.request.entries.contains(&entry) {
            if job.request.entries.len() >= MOST_ENTRIES {
                return false;
            }
            job.request.entries.push(entry);
            if soft {
                job.request.soft.push(entry);
            }
        }
        place.heat = place.heat.max(heat);
        true
    }

    /// Drops the requests for a page. Their keys come back.
    pub fn drop_page(&self, page: u64) -> Vec<Key> {
        self.shared.0.lock().drop_if(|p| p.page == page)
    }

    /// Drops all requests. Their keys come back.
    pub fn clear(&self) -> Vec<Key> {
        self.shared.0.lock().drop_if(|_| true)
    }

    /// A finished request, if there is one.
    pub fn done(&self) -> Option<Done> {
        if self.finished.load(Acquire) == 0 {
            return None;
        }
        let done = self.done.try_recv().ok()?;
        self.finished.fetch_sub(1, AcqRel);
        Some(done)
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.0.lock().jobs.len()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut shared = self.shared.0.lock();
        shared.closed = true;
        shared.drop_if(|_| true);
        drop(shared);
        self.shared.1.notify_all();
        for w in self.workers.drain(..) {
            // A worker that panicked has compiled nothing more; nothing of it is needed.
            let _ = w.join();
        }
    }
}

fn work(shared: &(Mutex<Shared>, Condvar), send: &Sender<Done>, finished: &AtomicUsize, mut compiler: Compiler) {
    let (lock, wake) = shared;
    loop {
        let mut guard = lock.lock();
        let job = loop {
            if guard.closed {
                return;
            }
            match guard.pop_hottest() {
                Some(job) => break job,
                None => wake.wait(&mut guard),
            }
        };
        let hurry = guard.jobs.len() >= HURRY;
        drop(guard);
        let waited = job.since.elapsed();
        let result = if hurry { compiler.compile_quickly(job.request) } else { compiler.compile(job.request) };
        if send.send(Done { key: job.key, result, waited }).is_err() {
            return;
        }
        finished.fetch_add(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::PAGE;
    use crate::region::tests::request;

    fn job(n: u64) -> Job {
        let request = Request { page: n << 12, ..request(Ctx(2), Box::new([0; PAGE]), vec![0]) };
        Job { key: (n << 12, Ctx(2)), since: Instant::now(), request }
    }

    #[test]
    fn the_hottest_comes_first_and_then_the_oldest() {
        let mut s = Shared::default();
        for (n, heat) in [(1, 5), (2, 9), (3, 9), (4, 1)] {
            s.push(heat, job(n));
        }
        let order: Vec<u64> = std::iter::from_fn(|| s.pop_hottest()).map(|j| j.key.0 >> 12).collect();
        assert_eq!(order, [2, 3, 1, 4]);
    }

    #[test]
    fn the_colder_half_goes_when_there_are_too_many() {
        let mut s = Shared::default();
        for n in 0..10 {
            s.push(n as u32, job(n));
        }
        let mut gone: Vec<u64> = s.drop_cold().iter().map(|k| k.0 >> 12).collect();
        gone.sort_unstable();
        assert_eq!(gone, [0, 1, 2, 3, 4]);
        let mut even = Shared::default();
        for n in 0..10 {
            even.push(7, job(n));
        }
        assert_eq!((even.drop_cold().len(), even.jobs.len()), (5, 5));
    }
}
