//! The vectors captured from real chips that stand beside a checkout, on the engines.

use egret::conform::engine::make;
use egret::conform::report::Report;
use egret::conform::runner::{EngineChoice, Settings, run};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// The report on a file of the samples; `None` when they are not there.
fn report(file: &str, engines: &[EngineChoice]) -> Option<Report> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors").join(file);
    if !path.exists() {
        eprintln!("no {}: nothing to run", path.display());
        return None;
    }
    let settings = Settings { engines: engines.to_vec(), jobs: 2, filter: None, shard: None, fail_fast: false, keep: 5 };
    let report = run(&[path], &settings, &make, &AtomicU64::new(0)).expect("the sample can be read");
    assert_eq!(report.errors, []);
    Some(report)
}

const ENGINES: [EngineChoice; 3] = EngineChoice::ALL;

#[test]
fn the_80386_sample_passes_whole() {
    let Some(report) = report("80386-00.MOO", &ENGINES) else { return };
    let totals = report.totals();
    assert_eq!((totals.ran, totals.failed, totals.skipped), (1500, 0, 0), "{}", report.text(5));
}

/// One failure an engine is known: the flags that the #DE of AAM 0 pushes.
#[test]
fn the_80286_sample_passes() {
    let Some(report) = report("80286.tar.xz", &ENGINES) else { return };
    let totals = report.totals();
    assert_eq!((totals.ran, totals.skipped), (176_760, 0));
    assert!(totals.failed <= 3, "{}", report.text(20));
}
