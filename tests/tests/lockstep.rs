//! Lockstep: engines against the interpreter on the embedded guest.

use egret_cpu::{Cpu, Engine, Exit, Interp};
use egret_guests::os;
use egret_machine::{ClockSource, Lockstep, Stop};
use egret_tests::machine::Guest;
use egret_tests::{COMPARED, ENGINES, Make};

fn run(make: &Make, cmdline: &str, at_least: u64) {
    let (name, make) = make;
    let mut guest = Guest::new(os::image(), cmdline, Box::new(Lockstep::new(make())), ClockSource::Instructions).expect("boots");
    let stop = guest.run(300);
    let text = guest.console.text();
    assert_eq!(stop, Stop::PowerOff, "{name}: {text}");
    let compared = guest.machine.engine().stats().into_iter().find(|(counter, _)| *counter == "lockstep.compared");
    assert!(compared.is_some_and(|(_, n)| n > at_least), "{name}: {compared:?}");
}

#[test]
fn embedded_guest() {
    for make in ENGINES {
        run(make, "help;mem;tasks;prime 100000;mandel;fault;tasks;off", 1_000_000);
    }
    for make in COMPARED {
        run(make, "mem;prime 10000;fault;off", 100_000);
    }
}

/// The guest waits at its prompt, by host time, with interrupts coming as they come.
#[test]
fn to_the_prompt_by_host_time() {
    for (name, make) in ENGINES {
        let mut guest = Guest::new(os::image(), "", Box::new(Lockstep::new(make())), ClockSource::Host).expect("boots");
        guest.control().push_input(b"prime 10000\nfault\n");
        assert_eq!(guest.run(3), Stop::Timeout, "{name}: {}", guest.console.text());
        assert!(guest.console.text().contains(os::EXPECT_FAULT), "{name}: {}", guest.console.text());
    }
}

/// An engine that is wrong once, late, in one register.
struct Wrong {
    interp: Interp,
    runs: u32,
}

impl Engine for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn run(&mut self, cpu: &mut Cpu) -> Exit {
        let exit = self.interp.run(cpu);
        self.runs += 1;
        if self.runs == 100 {
            cpu.state.gpr[13] ^= 1 << 40;
        }
        exit
    }

    fn flush(&mut self, cpu: &mut Cpu) {
        self.interp.flush(cpu);
    }
}

#[test]
fn a_wrong_engine_is_caught() {
    let engine = Lockstep::new(Box::new(Wrong { interp: Interp::default(), runs: 0 }));
    let mut guest = Guest::new(os::image(), "prime;off", Box::new(engine), ClockSource::Instructions).expect("boots");
    match guest.run(60) {
        Stop::Diverged(report) => assert!(report.contains("r13 ") && report.contains("rip") | report.contains("slice"), "{report}"),
        other => panic!("{other:?}"),
    }
}
