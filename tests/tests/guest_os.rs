//! The embedded guest in the whole machine: its shell's commands, typed input, power-off, reset, time limits, several at once.

use egret_guests::os;
use egret_machine::{ClockSource, Stop};
use egret_tests::ENGINES;
use egret_tests::machine::{Guest, wait_for};
use std::time::{Duration, Instant};

fn each(cmdline: &str, clock: ClockSource, test: impl Fn(&str, Guest)) {
    for (name, engine) in ENGINES {
        test(name, Guest::new(os::image(), cmdline, engine(), clock).expect("boots"));
    }
}

#[test]
fn commands_from_the_command_line() {
    each("help;mem;tasks;prime;mandel;fault;off", ClockSource::Host, |engine, mut guest| {
        let stop = guest.run(60);
        let text = guest.console.text();
        for expected in [
            os::BANNER,
            "egret> help",
            "  mandel",
            "usable 6", // 64 MiB, less a little
            "running         ",
            os::EXPECT_PRIME,
            &os::mandel_drawing(),
            "#PF: cr2=0000000040000000 error=0000000000000002",
            os::EXPECT_FAULT,
            os::EXPECT_OFF,
        ] {
            assert!(text.contains(expected), "{engine}: no {expected:?} in\n{text}");
        }
        assert_eq!(stop, Stop::PowerOff, "{engine}: {text}");
    });
}

/// The clock by instructions: the same run twice, to the byte.
#[test]
fn runs_are_reproducible() {
    each("tasks;prime 20000;tasks;mem;off", ClockSource::Instructions, |engine, mut first| {
        assert_eq!(first.run(60), Stop::PowerOff, "{engine}");
        each("tasks;prime 20000;tasks;mem;off", ClockSource::Instructions, |_, mut second| {
            assert_eq!(second.run(60), Stop::PowerOff);
            assert_eq!(first.console.text(), second.console.text(), "{engine}");
            assert_eq!(first.machine.stats().instructions, second.machine.stats().instructions, "{engine}");
        });
    });
}

#[test]
fn typed_input() {
    each("", ClockSource::Host, |engine, mut guest| {
        let (control, console) = (guest.control(), guest.console.clone());
        let typist = std::thread::spawn(move || {
            let at = wait_for(&console, 0, os::PROMPT, 30);
            control.push_input(b"prime 100x\x08\r");
            let at = wait_for(&console, at, "25 primes below 100 in ", 30);
            let at = wait_for(&console, at, os::PROMPT, 30);
            control.push_input(b"nonsense\x15prime 1000\n");
            let at = wait_for(&console, at, "168 primes below 1000 in ", 30);
            let at = wait_for(&console, at, os::PROMPT, 30);
            control.push_input(b"frobnicate\n");
            wait_for(&console, at, "unknown command: frobnicate", 30);
            control.push_input(b"off\n");
        });
        let stop = guest.run(60);
        typist.join().expect("the typist sees what it waits for");
        assert_eq!(stop, Stop::PowerOff, "{engine}");
    });
}

/// More than the UART's FIFO and the guest's ring hold at once.
#[test]
fn pasted_input() {
    each("", ClockSource::Host, |engine, mut guest| {
        let paste: String = (1..=40).map(|n| format!("prime {n}00\n")).collect();
        let control = guest.control();
        let console = guest.console.clone();
        let typist = std::thread::spawn(move || {
            let mut at = wait_for(&console, 0, os::PROMPT, 30);
            for line in paste.lines() {
                control.push_input(format!("{line}\n").as_bytes());
                at = wait_for(&console, at, &format!("primes below {} in", &line[6..]), 30);
            }
            control.push_input(b"off\n");
        });
        assert_eq!(guest.run(60), Stop::PowerOff, "{engine}");
        typist.join().expect("every line is answered");
    });
}

#[test]
fn reboot_boots_again() {
    each("reboot", ClockSource::Host, |engine, mut guest| {
        for round in 1..=3 {
            assert_eq!(guest.run(30), Stop::Reset, "{engine}, round {round}");
            assert_eq!(guest.console.text().matches(os::BANNER).count(), round, "{engine}");
            guest.machine.reset().expect("boots again");
        }
    });
}

#[test]
fn time_limit_and_stop() {
    each("", ClockSource::Host, |engine, mut guest| {
        let started = Instant::now();
        assert_eq!(guest.run(1), Stop::Timeout, "{engine}");
        assert!(started.elapsed() < Duration::from_secs(3), "{engine}: {:?}", started.elapsed());
        assert!(guest.console.text().ends_with(os::PROMPT), "{engine}: {}", guest.console.text());
        // It goes on where it was.
        guest.control().push_input(b"prime 100\n");
        assert_eq!(guest.run(1), Stop::Timeout, "{engine}");
        assert!(guest.console.text().contains("25 primes below 100"), "{engine}: {}", guest.console.text());
        let control = guest.control();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            control.stop();
            Instant::now()
        });
        assert_eq!(guest.run(30), Stop::Stopped, "{engine}");
        let asked = stopper.join().expect("stops it");
        assert!(asked.elapsed() < Duration::from_secs(1), "{engine}: stopped {:?} after it was told to", asked.elapsed());
    });
}

/// A machine that computes without end stops as quickly.
#[test]
fn stops_while_busy() {
    each("prime 4000000;prime 4000000;prime 4000000;prime 4000000", ClockSource::Host, |engine, mut guest| {
        let control = guest.control();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            control.stop();
            Instant::now()
        });
        assert_eq!(guest.run(30), Stop::Stopped, "{engine}");
        let asked = stopper.join().expect("stops it");
        assert!(asked.elapsed() < Duration::from_secs(1), "{engine}: stopped {:?} after it was told to", asked.elapsed());
    });
}

#[test]
fn two_machines_in_two_threads() {
    for (name, engine) in ENGINES {
        let threads = ["prime;mandel;off", "mandel;fault;prime;off"].map(|cmdline| {
            std::thread::spawn(move || {
                let mut guest = Guest::new(os::image(), cmdline, engine(), ClockSource::Host).expect("boots");
                (guest.run(60), guest.console.text())
            })
        });
        for thread in threads {
            let (stop, text) = thread.join().expect("no panic");
            assert_eq!(stop, Stop::PowerOff, "{name}: {text}");
            assert!(text.contains(os::EXPECT_PRIME) && text.contains(&os::mandel_drawing()), "{name}: {text}");
        }
    }
}

#[test]
fn every_memory_size_from_the_smallest() {
    // The guest says that it needs 12 MiB; here only the machine's memory map is looked at.
    each("mem;off", ClockSource::Host, |engine, mut guest| {
        assert_eq!(guest.run(30), Stop::PowerOff, "{engine}");
        let text = guest.console.text();
        let usable = text.lines().find(|line| line.starts_with("usable ")).and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
        assert!(usable.is_some_and(|kib| (63 * 1024..=64 * 1024).contains(&kib)), "{engine}: {text}");
    });
}
