//! Several CPUs: the `smp` kernel of `egret_guests::tests_kernels` on all engines, on threads and in turns, and the same run twice.

use egret_guests::tests_kernels;
use egret_jit::engine::{JitEngine, Options};
use egret_machine::{ClockSource, Stop};
use egret_tests::machine::Guest;
use egret_tests::{COMPARED, ENGINES, Make};
use std::hash::{DefaultHasher, Hash, Hasher};

fn guest(make: Make, cpus: usize, clock: ClockSource) -> Guest {
    let engines = (0..cpus).map(|_| make.1()).collect();
    Guest::with_cpus(tests_kernels::smp().image, engines, clock).expect("boots")
}

fn passes(make: Make, cpus: usize, clock: ClockSource) -> Guest {
    let mut guest = guest(make, cpus, clock);
    let stop = guest.run(200);
    let text = guest.console.text();
    let failed: Vec<&str> = text.lines().filter(|line| !line.starts_with("PASS ")).take(40).collect();
    let name = make.0;
    assert!(text.contains(tests_kernels::ALL_PASSED), "{name}: {stop:?}, last {:?}\n{failed:#?}", text.lines().last());
    assert_eq!(stop, Stop::DebugExit(0), "{name}");
    guest
}

/// Compiles soon, in the background.
const QUICK: Make =
    ("jit, threshold 2", || Box::new(JitEngine::with(Options { threshold: 2, ..Options::default() }).expect("a compiler for this host")));

/// In the foreground, as the clock by instructions wants it.
const FOREGROUND: Make = ("jit in the foreground", || {
    Box::new(JitEngine::with(Options { foreground: true, ..Options::default() }).expect("a compiler for this host"))
});

#[test]
fn on_threads() {
    for make in ENGINES.iter().chain([&QUICK]) {
        passes(*make, 2, ClockSource::Host);
    }
}

#[test]
fn on_threads_with_every_block_compiled() {
    let eager = COMPARED.iter().find(|make| make.0 == "eager-jit").expect("an eager JIT");
    passes(*eager, 2, ClockSource::Host);
}

#[test]
fn more_cpus_than_the_kernel_starts() {
    passes(ENGINES[0], 5, ClockSource::Host);
}

/// What must be the same in two runs: instructions of each CPU, RAM, output.
fn fingerprint(guest: &Guest) -> (Vec<u64>, u64, String) {
    let instructions = guest.machine.vcpus().iter().map(|v| v.stats().instructions).collect();
    let mut hasher = DefaultHasher::new();
    let mut page = [0u8; 4096];
    for (base, len) in guest.machine.ram().regions() {
        for at in (0..len).step_by(page.len()) {
            assert!(guest.machine.ram().read(base.offset(at), &mut page), "RAM is there");
            page.hash(&mut hasher);
        }
    }
    (instructions, hasher.finish(), guest.console.text())
}

#[test]
fn in_turns_every_run_is_the_same() {
    for make in [ENGINES[0], FOREGROUND] {
        let runs = [1, 2].map(|_| fingerprint(&passes(make, 2, ClockSource::Instructions)));
        assert_eq!(runs[0], runs[1], "{}", make.0);
    }
}

#[test]
fn with_one_cpu_every_run_is_the_same() {
    let kernel = || tests_kernels::all().into_iter().find(|k| k.name == "interrupts").expect("a kernel");
    for make in [ENGINES[0], FOREGROUND] {
        let runs = [1, 2].map(|_| {
            let mut guest = Guest::with_cpus(kernel().image, vec![make.1()], ClockSource::Instructions).expect("boots");
            assert_eq!(guest.run(100), Stop::DebugExit(0), "{}", make.0);
            fingerprint(&guest)
        });
        assert_eq!(runs[0], runs[1], "{}", make.0);
    }
}
