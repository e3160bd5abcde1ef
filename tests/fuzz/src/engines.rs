//! The interpreter against the JIT on code and state of libFuzzer's choice; `egret_tests::random::fuzz` says what the bytes mean.
//!
//! With cargo-fuzz: `cd tests && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none engines fuzz/corpus/engines`.
//! Without it: `tests/fuzz/run SECONDS`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(failure) = egret_tests::random::fuzz::check(data) {
        panic!("{failure}");
    }
});
