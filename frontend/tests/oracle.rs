//! The oracle: what it makes, what it notices, and a short run of it where the host can; the golden vectors on every engine.

use egret::conform::engine::make;
use egret::conform::jsonl::Reader;
use egret::conform::known::Known;
use egret::conform::oracle::command::choose;
use egret::conform::oracle::generate::Generator;
use egret::conform::oracle::host::Host;
use egret::conform::oracle::judge;
use egret::conform::oracle::program::{End, Outcome, Program};
use egret::conform::oracle::worker::Worker;
use egret::conform::oracle::write::line;
use egret::conform::runner::{EngineChoice, Settings, run};
use egret_isa::insn::Mode;
use std::path::Path;
use std::sync::atomic::AtomicU64;

const MODES: [Mode; 3] = [Mode::M64, Mode::M32, Mode::M16];

/// The golden vectors, which `egret conform --oracle host --golden tests/vectors/golden` makes.
#[test]
fn golden_vectors_pass_on_every_engine() {
    egret_jit::host_x87::install();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/golden");
    let settings = Settings {
        engines: EngineChoice::ALL.to_vec(),
        jobs: 2,
        filter: None,
        shard: None,
        fail_fast: false,
        keep: 5,
        known: Known::default(),
    };
    let report = run(&[folder], &settings, &make, &AtomicU64::new(0)).expect("the golden vectors are there");
    assert_eq!(report.errors, []);
    let totals = report.totals();
    assert!(totals.ran > 3 * 20_000, "only {} ran", totals.ran);
    assert_eq!((totals.failed, totals.skipped), (0, 0), "{}", report.text(5));
}

fn programs(seed: u64, count: u64) -> Vec<Program> {
    let generator = Generator::new(choose(&|_| true).recipes, &MODES, seed);
    (0..count).filter_map(|n| generator.program(n)).collect()
}

/// A line of a program starts from the program's own state.
#[test]
#[cfg(target_arch = "x86_64")]
fn lines_keep_the_state() {
    for program in programs(3, 2000) {
        let mut outcome = Outcome { end: End::Fault(3, 0, 0), ..Outcome::default() };
        program.fill(&mut outcome.memory);
        outcome.regs = program.regs.clone();
        let text = line(&program, "a/b/c", &outcome, &outcome);
        let vector = Reader::new(text.as_bytes(), &"t".into(), 0).next().expect("a line").unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut start = vector.initial();
        start.base = program.regs.base;
        if program.mode != Mode::M16 {
            // Segments that are not named are the bench's.
            start.sel = program.regs.sel;
        }
        // An empty register may lose its content only if it is zero anyway.
        assert_eq!(start, program.regs, "{text}");
    }
}

/// Whatever an engine gets wrong is noticed.
#[test]
#[cfg(target_arch = "x86_64")]
fn every_difference_is_noticed() {
    let program = programs(5, 64).into_iter().find(|p| p.mode == Mode::M64 && p.insns.len() == 1).expect("a 64-bit program");
    let mut host = Outcome { end: End::Fault(14, 4, 0x1000), regs: program.regs.clone(), ..Outcome::default() };
    host.regs.rip = 0x77;
    assert!(judge::same(&program, &host, &host.clone()));
    let wrong: [fn(&mut Outcome); 12] = [
        |o| o.end = End::Fault(14, 6, 0x1000),
        |o| o.end = End::Fault(14, 4, 0x1001),
        |o| o.end = End::Fault(13, 4, 0),
        |o| o.regs.rip ^= 1,
        |o| o.regs.rflags ^= 1 << 10,
        |o| o.regs.gpr[15] ^= 1 << 63,
        |o| o.regs.vec[15][3] ^= 1,
        |o| o.regs.x87[7].1 ^= 1,
        |o| o.regs.mxcsr ^= 1,
        |o| o.regs.fcw ^= 1,
        |o| o.regs.sel[3] ^= 8,
        |o| o.memory[4][4095] ^= 1,
    ];
    for (n, change) in wrong.iter().enumerate() {
        let mut got = host.clone();
        change(&mut got);
        assert!(!judge::same(&program, &host, &got), "change {n}");
        assert!(!judge::differences(&program, &host, &got).is_empty(), "change {n}");
    }
}

/// Encodings that a short run is made of: not those with several accesses, of which makers report one or another when more than one
/// faults, and not the extensions that have tests of their own.
fn plain(code: iced_x86::Code) -> bool {
    const MORE: [&str; 11] =
        ["Iret", "Retf", "Fnsave", "Fnstenv", "Fldenv", "Frstor", "Call_m16", "Call_ptr16", "Jmp_m16", "Jmp_ptr16", "Crc32"];
    let name = format!("{code:?}");
    let extension = |f: &iced_x86::CpuidFeature| ["BMI1", "LZCNT", "MOVBE", "ADX"].contains(&format!("{f:?}").as_str());
    code.op_code().encoding() == iced_x86::EncodingKind::Legacy
        && !MORE.iter().any(|n| name.starts_with(n))
        && !code.cpuid_features().iter().any(extension)
}

/// The host and the engines agree on fresh programs. The seed is fixed: the command line is for new ones.
#[test]
fn engines_do_what_the_host_does() {
    if let Err(e) = Host::new() {
        eprintln!("not run: {e}");
        return;
    }
    egret_jit::host_x87::install();
    for (engines, count) in [(vec![EngineChoice::Interp], 60_000), (vec![EngineChoice::Ir, EngineChoice::Jit], 6_000)] {
        let generator = Generator::new(choose(&plain).recipes, &MODES, 0x0e97e7);
        let mut worker = Worker::new(&engines, 1).expect("a worker");
        worker.numbers(&generator, 0..count).expect("the host runs them");
        assert!(worker.tally.programs > count * 9 / 10, "{} programs", worker.tally.programs);
        let failures = std::mem::take(&mut worker.tally.failures);
        let mut text = String::new();
        for (engine, program) in failures {
            let n = engines.iter().position(|e| *e == engine).unwrap_or(0);
            let differences = worker.differences(n, &program);
            text += &format!("{engine:?} {:?} {:02x?} {differences:?}\n", program.code, program.insns);
        }
        assert!(text.is_empty(), "{text}");
    }
}
