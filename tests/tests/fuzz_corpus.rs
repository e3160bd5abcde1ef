//! The corpus of `tests/fuzz`: inputs that reached something new, or once found a bug. The engines agree on all of them.

use egret_tests::random::fuzz;
use std::path::Path;

#[test]
fn engines_agree_on_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/engines");
    let mut programs = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is in the repository") {
        let path = entry.expect("readable").path();
        let data = std::fs::read(&path).expect("readable");
        if let Err(failure) = fuzz::check(&data) {
            panic!("{}: {failure}", path.display());
        }
        programs += usize::from(fuzz::program(&data).is_some());
    }
    assert!(programs >= 50, "only {programs} programs in the corpus");
}
