//! The test kernels of `egret_guests::tests_kernels`, each on each engine: they check the CPU and the chips from the inside.

use egret_guests::tests_kernels::{self, TestKernel};
use egret_machine::{ClockSource, Stop};
use egret_tests::machine::Guest;
use egret_tests::{COMPARED, ENGINES};

fn run(kernel: TestKernel, clock: ClockSource) {
    for (engine, make) in ENGINES.iter().chain(COMPARED) {
        let mut guest = Guest::new(kernel.image.clone(), "", make(), clock).expect("boots");
        let stop = guest.run(120);
        let text = guest.console.text();
        let failed: Vec<&str> = text.lines().filter(|line| !line.starts_with("PASS ")).take(40).collect();
        let name = kernel.name;
        assert!(text.contains(kernel.expect), "{name} on {engine}: {stop:?}, last {:?}\n{failed:#?}", text.lines().last());
        assert_eq!(stop, Stop::DebugExit(0), "{name} on {engine}");
    }
}

fn kernel(name: &str) -> TestKernel {
    tests_kernels::all().into_iter().find(|kernel| kernel.name == name).unwrap_or_else(|| panic!("no kernel {name}"))
}

/// One test per kernel, so that they run side by side; `all_are_run` says when one is missing here.
macro_rules! kernels {
    ($($test:ident $name:literal;)*) => {
        $(
            #[test]
            fn $test() {
                run(kernel($name), ClockSource::Host);
            }
        )*

        #[test]
        fn all_are_run() {
            let names: Vec<&str> = tests_kernels::all().iter().map(|kernel| kernel.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

kernels! {
    self_modifying "self-modifying";
    page_faults "page-faults";
    page_restart "page-restart";
    repeat_strings "repeat-strings";
    debugging "debugging";
    interrupts "interrupts";
    modes "modes";
    platform "platform";
    extended "extended";
    chipset "chipset";
}
