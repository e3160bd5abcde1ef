//! A PC with its serial console in a buffer.

use egret_cpu::Engine;
use egret_machine::boot::Unpack;
use egret_machine::pc::Parts;
use egret_machine::{ClockSource, Config, Control, Image, Machine, MachineError, Stop};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the serial port sent.
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<Vec<u8>>>);

impl Console {
    /// All of it so far, line ends as LF.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
    }

    fn push(&self, byte: u8) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(byte);
    }
}

/// A machine with its console.
pub struct Guest {
    /// The machine.
    pub machine: Machine,
    /// Its console.
    pub console: Console,
}

/// Memory of a test machine.
const MEMORY: u64 = 64 << 20;
/// Unix seconds on the clock at power-on: 2024-01-01.
const START: i64 = 1_704_067_200;

impl Guest {
    /// A machine that boots `kernel` with `cmdline` on `engine`.
    pub fn new(kernel: Vec<u8>, cmdline: &str, engine: Box<dyn Engine>, clock: ClockSource) -> Result<Guest, MachineError> {
        let console = Console::default();
        let out = console.clone();
        let parts = Parts { serial: Box::new(move |byte| out.push(byte)), start_time: START, clock, memory: MEMORY };
        let image =
            Image { kernel_name: "test".into(), kernel, initrd: None, cmdline: cmdline.into(), unpack: Unpack::Host, unpacked: None };
        let (machine, _) = Machine::new(Config { memory: MEMORY, parts, image, engine, cpu: egret_isa::CpuModel::default() }, None)?;
        Ok(Guest { machine, console })
    }

    /// A machine with a CPU for each engine, without a command line.
    pub fn with_cpus(kernel: Vec<u8>, mut engines: Vec<Box<dyn Engine>>, clock: ClockSource) -> Result<Guest, MachineError> {
        let console = Console::default();
        let out = console.clone();
        let parts = Parts { serial: Box::new(move |byte| out.push(byte)), start_time: START, clock, memory: MEMORY };
        let image =
            Image { kernel_name: "test".into(), kernel, initrd: None, cmdline: String::new(), unpack: Unpack::Host, unpacked: None };
        let others = engines.split_off(1);
        let engine = engines.remove(0);
        let (machine, _) =
            Machine::with_cpus(Config { memory: MEMORY, parts, image, engine, cpu: egret_isa::CpuModel::default() }, others, None)?;
        Ok(Guest { machine, console })
    }

    /// Runs at most `seconds` of host time.
    pub fn run(&mut self, seconds: u64) -> Stop {
        self.machine.run(Some(Duration::from_secs(seconds)))
    }

    /// The handle for typing and stopping.
    #[must_use]
    pub fn control(&self) -> Control {
        self.machine.control()
    }
}

/// Waits until `console` has `text` behind its first `from` bytes; how many bytes there are up to its end.
///
/// # Panics
/// When it does not come within `seconds`.
pub fn wait_for(console: &Console, from: usize, text: &str, seconds: u64) -> usize {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        let now = console.text();
        if let Some(at) = now.get(from..).and_then(|rest| rest.find(text)) {
            return from + at + text.len();
        }
        assert!(Instant::now() < until, "waited {seconds} s for {text:?} in:\n{now}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
