//! A machine: CPU, RAM and board, and the loop that runs them.

use crate::boot::{self, Blob, BootError, BootImage, BootOptions, EntryState, Loaded, Progress, Segment, Unpack, Unpacked, layout};
use crate::clock::ClockSource;
use crate::control::Control;
use crate::mp_table;
use crate::pc::{Board, BoardSystem, Parts};
use crate::system::Common;
use crate::vcpu::{Vcpu, nanos};
use egret_bus::{Event, GuestRam, MapError, RamError, Shared, Ticks, shared};
use egret_cpu::cpu::TableReg;
use egret_cpu::{Cluster, Cpu, Engine, Exit, SegReg};
use egret_devices::fw_cfg;
use egret_isa::{CpuModel, Seg};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
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
    /// Unpacked kernels of earlier runs.
    pub unpacked: Option<Box<dyn Unpacked>>,
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
    /// Too many CPUs.
    #[error("a machine has 1 to {max} CPUs, not {0}", max = layout::MAX_CPUS)]
    Cpus(usize),
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
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) board: Shared<Board>,
    pub(crate) common: Arc<Common>,
    cluster: Arc<Cluster>,
    ram: GuestRam,
    image: Image,
}

/// Instructions between two looks at timers and console.
const SLICE: i64 = 50_000;
/// Instructions of a turn, when CPUs take turns.
const TURN: i64 = 20_000;
/// Longest sleep of an idle machine without a timer.
/// How often an idle machine looks whether the line that MWAIT watches was written.
pub(crate) const LOOK: Duration = Duration::from_micros(500);
pub(crate) const NAP: Duration = Duration::from_millis(100);

/// What happens outside the CPUs.
pub(crate) struct Outside {
    started: Instant,
    limit: Option<Duration>,
}

impl Outside {
    /// Time left.
    pub(crate) fn left(&self) -> Duration {
        self.limit.map_or(NAP, |l| l.saturating_sub(self.started.elapsed()))
    }

    /// Timers, console input, events, the wish to stop.
    pub(crate) fn look(&self, board: &Shared<Board>, control: &Control) -> Option<Stop> {
        let mut board = board.lock();
        board.tick();
        control.deliver(|bytes| board.serial_input(bytes));
        if let Some(event) = board.take_event() {
            return Some(match event {
                Event::PowerOff => Stop::PowerOff,
                Event::Reset => Stop::Reset,
                Event::DebugExit(value) => Stop::DebugExit(value),
            });
        }
        if control.stopped() {
            return Some(Stop::Stopped);
        }
        self.limit.filter(|l| self.started.elapsed() >= *l).map(|_| Stop::Timeout)
    }
}

impl Machine {
    /// Builds a machine with one CPU and loads its image; `progress` hears of long unpacking.
    pub fn new(config: Config, progress: Option<&mut dyn FnMut(Progress)>) -> Result<(Machine, Loaded), MachineError> {
        Machine::with_cpus(config, Vec::new(), progress)
    }

    /// The same with a further CPU for each engine of `others`.
    pub fn with_cpus(
        config: Config,
        others: Vec<Box<dyn Engine>>,
        progress: Option<&mut dyn FnMut(Progress)>,
    ) -> Result<(Machine, Loaded), MachineError> {
        let cpus = u8::try_from(others.len() + 1).ok().filter(|n| *n <= layout::MAX_CPUS);
        let cpus = cpus.ok_or(MachineError::Cpus(others.len() + 1))?;
        let ram = GuestRam::new(&layout::ram_regions(config.memory))?.prepare_ahead();
        let cluster = Cluster::new(&ram, cpus.into());
        let kicks = (0..cpus.into()).map(|n| cluster.kick(n)).collect();
        let board = Board::with_cpus(config.parts, cpus, kicks)?;
        let common = board.common().clone();
        let board = shared(board);
        board.lock().set_configuration(&configuration(config.memory, cpus, &config.image));
        let make = |(n, engine): (usize, Box<dyn Engine>)| {
            let mut cpu = Cpu::member(ram.clone(), Box::new(BoardSystem::new(&board, n)), &cluster, n);
            cpu.set_model(config.cpu);
            (cpu.identity.apic_id, cpu.identity.cpus) = (n as u32, cpus.into());
            Vcpu::new(n, cpu, engine)
        };
        let vcpus = std::iter::once(config.engine).chain(others).enumerate().map(make).collect();
        let mut machine = Machine { vcpus, board, common, cluster, ram, image: config.image };
        let loaded = machine.load(progress)?;
        Ok((machine, loaded))
    }

    /// The outside's handle.
    #[must_use]
    pub fn control(&self) -> Control {
        self.common.control.clone()
    }

    /// The board.
    #[must_use]
    pub fn board(&self) -> &Shared<Board> {
        &self.board
    }

    /// The CPUs with their engines; the first started the machine.
    #[must_use]
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }

    /// The first CPU.
    #[must_use]
    pub fn cpu(&self) -> &Cpu {
        &self.vcpus[0].cpu
    }

    /// The first CPU's engine.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.vcpus[0].engine
    }

    /// Guest RAM.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Counters so far, of all CPUs together.
    #[must_use]
    pub fn stats(&self) -> RunStats {
        self.vcpus.iter().fold(RunStats::default(), |sum, v| RunStats {
            instructions: sum.instructions + v.stats.instructions,
            busy: sum.busy + v.stats.busy,
            idle: sum.idle + v.stats.idle,
            slices: sum.slices + v.stats.slices,
        })
    }

    /// Resets every chip and the CPUs, clears RAM's contents as far as the kernel expects it, and boots the image again.
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
        let cpus = self.vcpus.len() as u8;
        let options = BootOptions { unpack: self.image.unpack, unpacked: self.image.unpacked.as_deref(), cpus, progress };
        let loaded = boot::load(&self.ram, &image, options)?;
        let model = self.vcpus[0].cpu.model();
        // There is room: `boot::load` has put the ACPI tables beside it.
        let _ = mp_table::install(&self.ram, cpus, model.base().signature, FEATURES);
        for vcpu in &mut self.vcpus {
            vcpu.reset();
        }
        let first = &mut self.vcpus[0];
        enter(&mut first.cpu, &loaded.entry);
        first.engine.flush(&mut first.cpu);
        Ok(loaded)
    }

    /// Runs until the machine stops or `limit` of host time has passed.
    pub fn run(&mut self, limit: Option<Duration>) -> Stop {
        let outside = Outside { started: Instant::now(), limit };
        let stop = if self.threaded() { self.run_threads(&outside) } else { None };
        stop.unwrap_or_else(|| self.run_turns(&outside))
    }

    /// Runs the CPUs on this thread, one after the other. Under the clock by instructions a turn of all takes as long as the
    /// longest of its slices.
    fn run_turns(&mut self, outside: &Outside) -> Stop {
        let many = self.vcpus.len() > 1;
        self.cluster.take_turns(many);
        loop {
            if let Some(stop) = outside.look(&self.board, &self.common.control) {
                return stop;
            }
            let (mut longest, mut idle) = (0, true);
            for vcpu in &mut self.vcpus {
                if vcpu.take_messages(&self.common).is_err() {
                    return Stop::Reset;
                }
                if vcpu.waits {
                    continue;
                }
                let (exit, ran) = vcpu.slice(if many { TURN } else { SLICE });
                longest = longest.max(ran);
                idle &= exit == Exit::Halt;
                match exit {
                    Exit::Budget | Exit::Yield | Exit::Halt => {}
                    Exit::Shutdown => return Stop::TripleFault,
                    Exit::Diverged => return Stop::Diverged(vcpu.engine.report().unwrap_or_default()),
                }
                if exit == Exit::Yield && self.common.stopping.load(SeqCst) {
                    idle = false;
                    break;
                }
            }
            self.common.clock.retire(longest);
            if idle {
                self.idle(outside);
            }
        }
    }

    /// Waits for the next timer or for input; with the clock by instructions the time is skipped.
    fn idle(&mut self, outside: &Outside) {
        let common = &self.common;
        if self.vcpus.iter().any(|v| v.roused(common)) {
            return;
        }
        let now = common.clock.now();
        if common.clock.source() == ClockSource::Instructions
            && let Some(at) = common.deadline()
        {
            common.clock.skip_to(at.max(Ticks(now.0.saturating_add(1))));
            return;
        }
        let before = Instant::now();
        // Another processor's or a chip's write to the line that MWAIT watches ends the wait too.
        let longest = if self.vcpus.iter().any(|v| v.cpu.monitoring()) { LOOK } else { NAP };
        common.control.wait(now, || common.deadline(), longest.min(outside.left()));
        self.vcpus[0].stats.idle += nanos(before);
    }
}

/// What the firmware configuration device tells. A RAM disk beyond 16 MiB is not kept a second time for it.
fn configuration(memory: u64, cpus: u8, image: &Image) -> fw_cfg::Machine {
    const LARGEST: usize = 16 << 20;
    let initrd = image.initrd.as_ref().filter(|(_, data)| data.len() <= LARGEST);
    let initrd = initrd.map(|(_, data)| Arc::from(data.as_slice()));
    fw_cfg::Machine { memory, cpus: cpus.into(), cmdline: image.cmdline.clone(), initrd }
}

/// What the MultiProcessor tables say of the CPUs: FPU, CX8, APIC, which is all they are good for.
const FEATURES: u32 = 1 | 1 << 8 | 1 << 9;

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
    cpu.firmware_mtrrs(layout::HIGH_MEMORY - layout::LOW_MEMORY_END);
    cpu.flush_tlb();
    cpu.update_context();
    cpu.set_rflags(entry.rflags);
}
