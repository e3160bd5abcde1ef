//! Random bytes in all modes and rings: no panic, bounded time, documented exits only, engines agree.
//!
//! `EGRET_RANDOM_BYTES=10000000 cargo test -p egret-tests --test random_bytes` runs more; the example `random-bytes` runs them
//! with a seed of choice and reports every failure.

use egret_cpu::{Engine, Interp};
use egret_tests::COMPARED;
use egret_tests::random::{Pair, Program, Start};
use std::collections::HashSet;

const BYTES: u64 = 200_000;
const SEED: u64 = 0xe612_e700;

fn programs() -> u64 {
    let bytes = std::env::var("EGRET_RANDOM_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(BYTES);
    bytes / Program::MAX as u64
}

fn run(name: &str, mut pair: Pair, programs: u64) {
    let mut starts = HashSet::new();
    for n in 0..programs {
        let program = Program::new(SEED + n);
        starts.insert(program.start);
        if let Err(failure) = pair.run(&program) {
            panic!("{name}: {failure}");
        }
    }
    let failed = pair.engine().stats().into_iter().find(|(counter, n)| *counter == "jit.failed" && *n > 0);
    assert_eq!(failed, None, "{name}: code that could not be compiled");
    let totals = pair.totals;
    if programs < 500 {
        return;
    }
    assert_eq!(starts.len(), Start::ALL.len(), "every mode had its turn");
    // Otherwise the programs would not be trying what they are for.
    assert!(totals.instructions > totals.entries, "{totals:?}");
    assert!(totals.halts > totals.entries / 4 && totals.budgets > 0 && totals.shutdowns > 0, "{totals:?}");
}

fn interp() -> Box<dyn Engine> {
    Box::<Interp>::default()
}

#[test]
fn interpreter_takes_all_bytes() {
    run("interp", Pair::alone(interp), programs());
}

/// Two interpreters, to see that the comparison itself is deterministic; then the other engines.
#[test]
fn engines_agree() {
    run("interp twice", Pair::compared(interp), programs() / 8);
    for (name, make) in COMPARED {
        // Compiling takes its time.
        let (share, stride) = if *name == "ir" { (2, 4) } else { (16, 16) };
        let mut pair = Pair::compared(*make);
        pair.stride = stride;
        run(name, pair, programs() / share);
    }
}

/// A comparison that cannot find a difference would be worth nothing.
#[test]
fn differences_are_found() {
    /// Runs the interpreter, then changes RBX.
    struct Wrong(Interp);
    impl Engine for Wrong {
        fn name(&self) -> &'static str {
            "wrong"
        }
        fn run(&mut self, cpu: &mut egret_cpu::Cpu) -> egret_cpu::Exit {
            let exit = self.0.run(cpu);
            cpu.state.gpr[3] ^= 1;
            exit
        }
        fn flush(&mut self, cpu: &mut egret_cpu::Cpu) {
            self.0.flush(cpu);
        }
    }
    let mut pair = Pair::compared(|| Box::new(Wrong(Interp::default())));
    let failure = pair.run(&Program::new(SEED)).expect_err("RBX differs");
    assert!(failure.what.contains("rbx"), "{failure}");
}
