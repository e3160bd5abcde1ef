//! A machine: CPU, RAM and board, and the loop that runs them.

use crate::boot::{self, Blob, BootError, BootImage, BootOptions, EntryState, Loaded, Progress, Segment, Unpack, layout};
use crate::clock::ClockSource;
use crate::control::Control;
use crate::pc::{Board, BoardSystem, Parts};
use egret_bus::{Event, GuestRam, MapError, RamError, Shared, Ticks, shared};
use egret_cpu::cpu::TableReg;
use egret_cpu::state::attention;
use egret_cpu::{Cpu, Engine, Exit, SegReg};
use egret_devices::fw_cfg;
use egret_isa::{CpuModel, Seg};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to boot, owned by the machine so that a reset can boot it again.
pub struct Image {
    /// File name, for messages.
    pub kernel_name: String,
    /// The kernel's bytes.
    pub kernel: Vec<u8>,
    /// The initial RAM disk: file name and bytes.
    pub initrd: Option<(String, Vec<u8>)>,
    /// Command line.
    pub cmdline: String,
    /// Who unpacks a compressed kernel.
    pub unpack: Unpack,
}

/// What a machine is made of.
pub struct Config {
    /// RAM in bytes, a multiple of 4 KiB.
    pub memory: u64,
    /// The board's parts.
    pub parts: Parts,
    /// What to boot.
    pub image: Image,
    /// What executes instructions.
    pub engine: Box<dyn Engine>,
    /// The CPU's model.
    pub cpu: CpuModel,
}

/// Why a machine could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The parts list contradicts itself.
    #[error("the parts list is wrong: {0}")]
    Map(#[from] MapError),
    /// The image cannot be booted.
    #[error(transparent)]
    Boot(#[from] BootError),
}

/// Why a machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest turned the power off.
    PowerOff,
    /// The guest asked for a reset; [`Machine::reset`] goes on from there.
    Reset,
    /// The guest wrote this value to the debug-exit port.
    DebugExit(u32),
    /// Triple fault.
    TripleFault,
    /// Somebody asked for it: [`Control::stop`].
    Stopped,
    /// The time limit of [`Machine::run`] was reached.
    Timeout,
    /// Lockstep found a difference; the report is for people.
    Diverged(String),
}

/// Counters of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunStats {
    /// Instructions executed.
    pub instructions: u64,
    /// Host time spent executing, in nanoseconds.
    pub busy: u64,
    /// Host time spent idle, in nanoseconds.
    pub idle: u64,
    /// Times the engine was entered.
    pub slices: u64,
}

/// A PC.
pub struct Machine {
    /// The processor.
    pub cpu: Cpu,
    board: Shared<Board>,
    engine: Box<dyn Engine>,
    image: Image,
    control: Control,
    stats: RunStats,
}

/// Instructions between two looks at timers and console.
const SLICE: i64 = 50_000;
/// Longest sleep of an idle machine without a timer.
const NAP: Duration = Duration::from_millis(100);
/// How often an idle machine looks whether the line that MWAIT watches was written.
const LOOK: Duration = Duration::from_micros(500);

impl Machine {
    /// Builds a machine and loads its image; `progress` hears of long unpacking.
    pub fn new(config: Config, progress: Option<&mut dyn FnMut(Progress)>) -> Result<(Machine, Loaded), MachineError> {
        let ram = GuestRam::new(&layout::ram_regions(config.memory))?;
        let board = shared(Board::new(config.parts)?);
        board.lock().set_configuration(&configuration(config.memory, &config.image));
        let mut cpu = Cpu::new(ram, Box::new(BoardSystem(board.clone())));
        cpu.set_model(config.cpu);
        let mut machine =
            Machine { cpu, board, engine: config.engine, image: config.image, control: Control::default(), stats: RunStats::default() };
        let loaded = machine.load(progress)?;
        Ok((machine, loaded))
    }

    /// The outside's handle.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The board.
    #[must_use]
    pub fn board(&self) -> &Shared<Board> {
        &self.board
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> RunStats {
        self.stats
    }

    /// Resets every chip and the CPU, clears RAM's contents as far as the kernel expects it, and boots the image again.
    pub fn reset(&mut self) -> Result<Loaded, MachineError> {
        self.board.lock().reset();
        self.load(None)
    }

    fn load(&mut self, progress: Option<&mut dyn FnMut(Progress)>) -> Result<Loaded, MachineError> {
        let image = BootImage {
            kernel: Blob { name: &self.image.kernel_name, data: &self.image.kernel },
            initrd: self.image.initrd.as_ref().map(|(name, data)| Blob { name, data }),
            cmdline: &self.image.cmdline,
        };
        let options = BootOptions { unpack: self.image.unpack, cpus: 1, progress };
        let loaded = boot::load(&self.cpu.ram, &image, options)?;
        enter(&mut self.cpu, &loaded.entry);
        self.engine.flush(&mut self.cpu);
        Ok(loaded)
    }

    /// Runs until the machine stops or `limit` of host time has passed.
    pub fn run(&mut self, limit: Option<Duration>) -> Stop {
        let started = Instant::now();
        loop {
            if let Some(stop) = self.outside(started, limit) {
                return stop;
            }
            let before = Instant::now();
            self.cpu.state.budget = SLICE;
            self.cpu.state.attention |= attention::INTERRUPT;
            let exit = self.engine.run(&mut self.cpu);
            let ran = u64::try_from(SLICE - self.cpu.state.budget).unwrap_or(0);
            self.board.lock().clock().retire(ran);
            self.stats.instructions += ran;
            self.stats.slices += 1;
            self.stats.busy += nanos(before.elapsed());
            match exit {
                Exit::Budget | Exit::Yield => {}
                Exit::Halt => self.idle(started, limit),
                Exit::Shutdown => return Stop::TripleFault,
                Exit::Diverged => return Stop::Diverged(self.engine.report().unwrap_or_default()),
            }
        }
    }

    /// What happened outside the CPU: timers, console input, events, the wish to stop.
    fn outside(&mut self, started: Instant, limit: Option<Duration>) -> Option<Stop> {
        let mut board = self.board.lock();
        board.tick();
        self.control.deliver(|bytes| board.serial_input(bytes));
        if let Some(event) = board.take_event() {
            return Some(match event {
                Event::PowerOff => Stop::PowerOff,
                Event::Reset => Stop::Reset,
                Event::DebugExit(value) => Stop::DebugExit(value),
            });
        }
        if self.control.stopped() {
            return Some(Stop::Stopped);
        }
        limit.filter(|l| started.elapsed() >= *l).map(|_| Stop::Timeout)
    }

    /// Waits for the next timer or for input; with the clock by instructions the time is skipped.
    fn idle(&mut self, started: Instant, limit: Option<Duration>) {
        let (next, now, source) = {
            let mut board = self.board.lock();
            if self.cpu.interruptible() && board.interrupt_pending() {
                return;
            }
            let now = board.clock().now();
            (board.deadline(), now, board.clock().source())
        };
        if source == ClockSource::Instructions
            && let Some(at) = next
        {
            self.board.lock().clock().skip_to(at.max(Ticks(now.0 + 1)));
            return;
        }
        let before = Instant::now();
        let until = next.map_or(NAP, |at| Duration::from_nanos(at.since(now)).min(NAP));
        // Another processor's or a chip's write to the line that MWAIT watches ends the wait too.
        let until = if self.cpu.monitoring() { until.min(LOOK) } else { until };
        let left = limit.map_or(NAP, |l| l.saturating_sub(started.elapsed()));
        self.control.wait(until.min(left));
        self.stats.idle += nanos(before.elapsed());
    }
}

/// What the firmware configuration device tells. A RAM disk beyond 16 MiB is not kept a second time for it.
fn configuration(memory: u64, image: &Image) -> fw_cfg::Machine {
    const LARGEST: usize = 16 << 20;
    let initrd = image.initrd.as_ref().filter(|(_, data)| data.len() <= LARGEST);
    let initrd = initrd.map(|(_, data)| Arc::from(data.as_slice()));
    fw_cfg::Machine { memory, cpus: 1, cmdline: image.cmdline.clone(), initrd }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Puts the CPU into the state in which a kernel is entered.
fn enter(cpu: &mut Cpu, entry: &EntryState) {
    cpu.reset();
    cpu.cr0 = entry.cr0;
    cpu.cr3 = entry.cr3;
    cpu.cr4 = entry.cr4;
    cpu.efer = entry.efer;
    let segment = |s: &Segment| SegReg::new(s.selector, s.base, s.limit, s.attributes);
    cpu.state.seg = [segment(&entry.data); 6];
    cpu.state.seg[Seg::Cs as usize] = segment(&entry.cs);
    cpu.tr = segment(&entry.tr);
    cpu.ldtr = segment(&entry.ldtr);
    cpu.gdtr = TableReg { base: entry.gdt_base, limit: entry.gdt_limit };
    cpu.idtr = TableReg { base: 0, limit: 0 };
    cpu.state.gpr = entry.gpr;
    cpu.state.rip = entry.rip;
    cpu.flush_tlb();
    cpu.update_context();
    cpu.set_rflags(entry.rflags);
}
