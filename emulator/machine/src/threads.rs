//! Several CPUs under the host's clock: a thread each, and the caller's thread for timers, console and the end.

use crate::clock::ClockSource;
use crate::run::{LOOK, Machine, NAP, Outside, Stop};
use crate::system::Common;
use crate::vcpu::{Vcpu, nanos};
use egret_bus::Shared;
use egret_cpu::Exit;
use parking_lot::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Instructions between two looks at messages; kicks make it sooner.
const SLICE: i64 = 1 << 20;

/// What the threads of a run share.
struct Run<'a> {
    common: &'a Common,
    quit: AtomicBool,
    /// Why a CPU ended the run.
    stop: Mutex<Option<Stop>>,
}

impl Run<'_> {
    fn end(&self, stop: Option<Stop>) {
        if let Some(stop) = stop {
            self.stop.lock().get_or_insert(stop);
        }
        self.quit.store(true, SeqCst);
        self.common.control.wake();
        for kick in &self.common.kicks {
            kick.kick();
        }
    }
}

/// Ends the run when a CPU's thread ends, even by a panic: the others would run on for ever.
struct Last<'a, 'b>(&'a Run<'b>, usize);

impl Drop for Last<'_, '_> {
    fn drop(&mut self) {
        self.0.common.kicks[self.1].gone();
        self.0.end(None);
    }
}

impl Machine {
    /// Whether the CPUs get threads of their own.
    pub(crate) fn threaded(&self) -> bool {
        self.vcpus.len() > 1 && self.common.clock.source() == ClockSource::Host
    }

    /// Runs the CPUs on threads of their own; `None` when the host gives no threads.
    pub(crate) fn run_threads(&mut self, outside: &Outside) -> Option<Stop> {
        let common = self.common.clone();
        let run = Run { common: &common, quit: AtomicBool::new(false), stop: Mutex::new(None) };
        let (board, vcpus) = (&self.board, &mut self.vcpus);
        std::thread::scope(|scope| {
            for vcpu in vcpus {
                let run = &run;
                let thread = std::thread::Builder::new().name(format!("egret-cpu-{}", vcpu.n));
                if thread.spawn_scoped(scope, || work(vcpu, run)).is_err() {
                    run.end(None);
                    return None;
                }
            }
            let stop = loop {
                if let Some(stop) = outside.look(board, &common.control) {
                    break Some(stop);
                }
                if run.quit.load(SeqCst) {
                    break None;
                }
                wait(board, &common, outside);
            };
            run.end(stop);
            run.stop.lock().clone()
        })
        .or_else(|| run.stop.lock().take())
    }
}

/// Sleeps until a timer is due or something happens outside.
fn wait(board: &Shared<crate::pc::Board>, common: &Common, outside: &Outside) {
    let now = board.lock().clock().now();
    common.control.wait(now, || common.deadline(), NAP.min(outside.left()));
}

/// A CPU's thread.
fn work(vcpu: &mut Vcpu, run: &Run) {
    let _last = Last(run, vcpu.n);
    let common = run.common;
    while !run.quit.load(SeqCst) {
        if vcpu.take_messages(common).is_err() {
            return run.end(Some(Stop::Reset));
        }
        if vcpu.waits {
            vcpu.cpu.enter();
            vcpu.cpu.leave();
            nap(vcpu, run);
            continue;
        }
        match vcpu.slice(SLICE).0 {
            Exit::Budget => {}
            Exit::Yield => {
                while common.stopping.load(SeqCst) && !run.quit.load(SeqCst) {
                    common.control.wake();
                    common.kicks[vcpu.n].sleep(Duration::from_millis(1));
                    vcpu.cpu.enter();
                    vcpu.cpu.leave();
                }
            }
            Exit::Halt => nap(vcpu, run),
            Exit::Shutdown => return run.end(Some(Stop::TripleFault)),
            Exit::Diverged => return run.end(Some(Stop::Diverged(vcpu.engine.report().unwrap_or_default()))),
        }
    }
}

/// Sleeps until a kick, unless there is a reason to look already.
fn nap(vcpu: &mut Vcpu, run: &Run) {
    if vcpu.roused(run.common) || run.quit.load(SeqCst) {
        return;
    }
    let before = Instant::now();
    // Another CPU's write to the line that MWAIT watches wakes nobody by itself.
    run.common.kicks[vcpu.n].sleep(if vcpu.cpu.monitoring() { LOOK } else { NAP });
    vcpu.stats.idle += nanos(before);
}
