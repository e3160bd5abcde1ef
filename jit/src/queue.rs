//! The compile queue: requests by heat, worker threads, results.

use crate::compile::{CompileError, Compiled, Compiler, Tuning};
use crate::region::Request;
use crossbeam::channel::{Receiver, Sender, unbounded};
use egret_isa::insn::Ctx;
use parking_lot::{Condvar, Mutex};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a request was for: physical address of its first entry, and context.
pub type Key = (u64, Ctx);

struct Job {
    heat: u32,
    key: Key,
    since: Instant,
    request: Request,
}

impl PartialEq for Job {
    fn eq(&self, other: &Job) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Job) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    /// The hottest first, then the oldest.
    fn cmp(&self, other: &Job) -> Ordering {
        self.heat.cmp(&other.heat).then_with(|| other.since.cmp(&self.since))
    }
}

#[derive(Default)]
struct Shared {
    jobs: BinaryHeap<Job>,
    closed: bool,
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
        shared.jobs.push(Job { heat, key, since: Instant::now(), request });
        let mut dropped = Vec::new();
        if shared.jobs.len() > MOST {
            let mut jobs = std::mem::take(&mut shared.jobs).into_sorted_vec();
            dropped.extend(jobs.drain(..MOST / 2).map(|j| j.key));
            shared.jobs = jobs.into();
        }
        drop(shared);
        wake.notify_one();
        dropped
    }

    /// Adds an entry to a request that waits for the same page and context, and makes it as hot as this entry if it is
    /// colder. False when there is none, or it has entries enough.
    pub fn join(&self, heat: u32, page: u64, ctx: Ctx, entry: u16) -> bool {
        let mut shared = self.shared.0.lock();
        let same = |j: &Job| j.request.page == page && j.request.ctx == ctx && j.request.base.is_none();
        let Some(found) = shared.jobs.iter().find(|j| same(j)) else { return false };
        let known = found.request.entries.contains(&entry);
        if !known && found.request.entries.len() >= MOST_ENTRIES {
            return false;
        }
        if known && found.heat >= heat {
            return true;
        }
        let mut jobs = std::mem::take(&mut shared.jobs).into_vec();
        if let Some(job) = jobs.iter_mut().find(|j| same(j)) {
            job.heat = job.heat.max(heat);
            if !known {
                job.request.entries.push(entry);
            }
        }
        shared.jobs = jobs.into();
        true
    }

    /// Drops the requests for a page. Their keys come back.
    pub fn drop_page(&self, page: u64) -> Vec<Key> {
        self.drop_if(|j| j.request.page == page)
    }

    /// Drops all requests. Their keys come back.
    pub fn clear(&self) -> Vec<Key> {
        self.drop_if(|_| true)
    }

    fn drop_if(&self, stale: impl Fn(&Job) -> bool) -> Vec<Key> {
        let mut dropped = Vec::new();
        self.shared.0.lock().jobs.retain(|j| {
            let drop = stale(j);
            if drop {
                dropped.push(j.key);
            }
            !drop
        });
        dropped
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
        shared.jobs.clear();
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
            match guard.jobs.pop() {
                Some(job) => break job,
                None => wake.wait(&mut guard),
            }
        };
        drop(guard);
        let waited = job.since.elapsed();
        let result = compiler.compile(job.request);
        if send.send(Done { key: job.key, result, waited }).is_err() {
            return;
        }
        finished.fetch_add(1, Release);
    }
}
