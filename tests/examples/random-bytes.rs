//! Runs many programs of random bytes and reports every failure with its seed.

use clap::Parser;
use egret_tests::random::{Failure, Pair, Program};
use egret_tests::{CHECKED, COMPARED, ENGINES};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
struct Options {
    /// Bytes to run.
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,
    /// The first program's seed; the next ones follow.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The engine.
    #[arg(long, default_value = "interp")]
    engine: String,
    /// Compare with the interpreter.
    #[arg(long)]
    compare: bool,
    /// Bytes between two entries into a program.
    #[arg(long, default_value_t = 4)]
    stride: usize,
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Failures of each kind to show.
    #[arg(long, default_value_t = 3)]
    show: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Some((_, make)) = ENGINES.iter().chain(COMPARED).chain([&CHECKED]).find(|(name, _)| *name == options.engine) else {
        eprintln!("no engine {:?}", options.engine);
        return ExitCode::from(2);
    };
    let mut pair = if options.compare { Pair::compared(*make) } else { Pair::alone(*make) };
    pair.stride = options.stride;
    let started = Instant::now();
    let mut kinds: BTreeMap<String, Vec<Failure>> = BTreeMap::new();
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    for n in 0..options.count.div_ceil(Program::MAX as u64) {
        if options.seconds.is_some_and(|limit| started.elapsed().as_secs() >= limit) {
            break;
        }
        if let Err(failure) = pair.run(&Program::new(options.seed.wrapping_add(n))) {
            // Numbers aside, the same words are the same kind.
            let kind = failure.what.split(|c: char| c.is_ascii_digit()).collect::<Vec<_>>().join("#");
            kinds.entry(kind).or_default().push(failure);
        }
    }
    println!("{:#?}\n{:?}\n{:?}", pair.totals, pair.engine().stats(), started.elapsed());
    for failures in kinds.values() {
        println!("\n{} times:", failures.len());
        failures.iter().take(options.show).for_each(|failure| println!("{failure}"));
    }
    if kinds.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
