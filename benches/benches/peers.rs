//! Our workloads on Egret and on the emulators that are on PATH, in the same run: seconds for the same work, start-up taken off.
//!
//! `cargo bench -p egret-benches --bench peers -- [SCALE]`

use egret_benches::peers::Peer;
use egret_benches::{finish, machine};
use egret_cpu::{Engine, Interp};
use egret_guests::workloads::{self, Workload};
use egret_jit::JitEngine;
use std::time::Instant;

/// Work that is taken off as start-up, and work that is measured.
const SCALES: (u16, u16) = (1, 41);

type Seconds = Box<dyn Fn(&Workload) -> Result<f64, String>>;

fn egret(make: fn() -> Box<dyn Engine>) -> Seconds {
    Box::new(move |workload| {
        let began = Instant::now();
        finish(&mut machine(workload, make()));
        Ok(began.elapsed().as_secs_f64())
    })
}

fn contenders() -> Vec<(&'static str, Seconds)> {
    let mut all: Vec<(&'static str, Seconds)> = vec![
        ("jit", egret(|| Box::new(JitEngine::new().expect("a compiler for this host")))),
        ("interp", egret(|| Box::<Interp>::default())),
    ];
    for peer in Peer::ALL {
        match peer.missing() {
            None => all.push((peer.program(), Box::new(move |workload| peer.run(workload).map_err(|e| e.to_string())))),
            Some(why) => println!("left out: {why}"),
        }
    }
    all
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quick = args.iter().any(|a| a == "--test");
    let scale = args.iter().find_map(|a| a.parse().ok()).unwrap_or(SCALES.1).max(SCALES.0 + 1);
    let contenders = contenders();
    print!("{:10}", "workload");
    contenders.iter().for_each(|(name, _)| print!("{name:>20}"));
    println!();
    let (short, long) = (workloads::all(SCALES.0), workloads::all(if quick { SCALES.0 + 1 } else { scale }));
    for (short, long) in short.iter().zip(&long) {
        print!("{:10}", short.name);
        for (name, seconds) in &contenders {
            match (seconds(short), seconds(long)) {
                (Ok(short), Ok(long)) => print!("{:>18.3} s", (long - short).max(0.0)),
                (Err(e), _) | (_, Err(e)) => {
                    println!();
                    eprintln!("{} on {name}: {e}", short.name);
                    std::process::exit(1);
                }
            }
        }
        println!();
    }
}
