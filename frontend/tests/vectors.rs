//! The vectors captured from real chips: the sample in the repository on every engine, and the larger ones that may stand beside a
//! checkout on the interpreter (`.ci/run` has the other engines run them).

use egret::conform::coverage::{Coverage, Entry};
use egret::conform::engine::make;
use egret::conform::known::Known;
use egret::conform::report::Report;
use egret::conform::runner::{EngineChoice, Settings, run};
use egret_isa::CpuModel;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// The report on a path relative to this crate; `None` when it is not there.
fn report(path: &str, engines: &[EngineChoice]) -> Option<Report> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if !path.exists() {
        eprintln!("no {}: nothing to run", path.display());
        return None;
    }
    let settings =
        Settings { engines: engines.to_vec(), jobs: 2, filter: None, shard: None, fail_fast: false, keep: 5, known: Known::default() };
    let report = run(&[path], &settings, &make, &AtomicU64::new(0)).expect("the sample can be read");
    assert_eq!(report.errors, []);
    Some(report)
}

/// What is in the file passes, all of it; `tests/KNOWN.md` has no exceptions.
fn passes(path: &str, engines: &[EngineChoice], vectors: u64) {
    let Some(report) = report(path, engines) else { return };
    let totals = report.totals();
    assert_eq!((totals.ran, totals.failed, totals.skipped), (vectors * engines.len() as u64, 0, 0), "{path}\n{}", report.text(20));
}

#[test]
fn the_sample_of_the_8086_passes_on_every_engine() {
    assert!(report("../tests/vectors/silicon/8086.tar.xz", &[EngineChoice::Interp]).is_some());
    passes("../tests/vectors/silicon/8086.tar.xz", &EngineChoice::ALL, 1932);
}

#[test]
fn the_sample_of_the_80286_passes_on_every_engine() {
    passes("../tests/vectors/silicon/80286.tar.xz", &EngineChoice::ALL, 1950);
}

#[test]
fn the_sample_of_the_80386_passes_on_every_engine() {
    passes("../tests/vectors/silicon/80386-00.MOO.xz", &EngineChoice::ALL, 60);
}

#[test]
fn the_larger_samples_pass() {
    let interp = [EngineChoice::Interp];
    passes("../../shared/vectors/8086.tar.xz", &interp, 64_400);
    passes("../../shared/vectors/80286.tar.xz", &interp, 58_920);
    passes("../../shared/vectors/80386-00.MOO", &EngineChoice::ALL, 500);
}

/// `egret conform --coverage` has nothing left over: each encoding of the default model is implemented, and named by vectors of
/// this repository that pass.
#[test]
fn every_encoding_of_the_default_model_is_tested() {
    // The last bit of x87 functions is the chip's that made the vectors; hosts without an x87 have their own, which other tests bound.
    egret_jit::host_x87::install();
    let report = report("../tests/vectors", &[EngineChoice::Interp]).expect("the repository's vectors");
    let page = Coverage::new(&CpuModel::default(), Some(&report));
    let left = |entries: &mut dyn Iterator<Item = &Entry>| entries.map(|e| e.row.text).collect::<Vec<_>>();
    assert_eq!(left(&mut page.missing()), [""; 0]);
    assert_eq!(left(&mut page.untested()), [""; 0]);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(left(&mut page.entries.iter().filter(|e| e.scores[0].failed > 0)), [""; 0]);
    }
}
