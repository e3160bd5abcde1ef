//! `egret run`.

pub mod image;
mod kernels;
pub mod output;
pub mod session;
mod words;

use crate::cli::RunArgs;
use crate::console::terminal::say;
use crate::progress::Progress;
use egret_cpu::{Engine, Interp};
use egret_hypervisor::exit::ExitCode;
use egret_hypervisor::options::{ClockKind, CodeCache, EngineKind, MachineOptions, Serial};
use egret_jit::{JitEngine, Options, StoreSettings};
use egret_machine::{ClockSource, Config, Image, Lockstep, Machine, MachineError, Stop, pc::Parts};
use kernels::Kernels;
use output::Output;
use session::{Session, Stopper};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use words::Words;

/// Power-on time under the clock by instructions, when every run must be the same: 1 January 2024, 00:00 UTC.
const FIXED_START: i64 = 1_704_067_200;

/// A machine that cannot be made: the exit code and one line that says why.
struct Refused(ExitCode, String);

impl Refused {
    fn input(why: impl ToString) -> Refused {
        Refused(ExitCode::Usage, why.to_string())
    }
}

impl From<MachineError> for Refused {
    fn from(e: MachineError) -> Refused {
        let code = if matches!(e, MachineError::Map(_)) { ExitCode::Internal } else { ExitCode::Usage };
        Refused(code, e.to_string())
    }
}

/// Runs the command.
pub fn run(args: &RunArgs) -> ExitCode {
    match start(args) {
        Ok(code) => code,
        Err(Refused(code, why)) => {
            say(&why);
            code
        }
    }
}

/// The engine of the first CPU, and those of the others.
type Engines = (Box<dyn Engine>, Vec<Box<dyn Engine>>);

/// The engines of a machine's CPUs.
fn engines(options: &MachineOptions, words: &mut Words) -> Result<Engines, Refused> {
    let cpus = options.cpus.unwrap_or(1);
    if cpus > 1 && options.engine == Some(EngineKind::Lockstep) {
        return Err(Refused::input("--engine lockstep runs one CPU: leave --cpus out, or give it 1"));
    }
    // What is compiled when must not depend on the host's speed if every run is to be the same.
    let foreground = options.clock == Some(ClockKind::Instructions);
    let first = engine(options, foreground, words)?;
    let others = (1..cpus).map(|_| engine(options, foreground, words)).collect::<Result<_, _>>()?;
    Ok((first, others))
}

/// The environment variable that replaces the user's cache directory for Egret.
const CACHE_DIR_VARIABLE: &str = "EGRET_CACHE_DIR";
/// Most bytes of code that are kept between runs.
const CODE_CACHE_LIMIT: u64 = 256 << 20;

/// Where compiled code and unpacked kernels are kept between runs.
fn cache_dir(options: &MachineOptions) -> Option<PathBuf> {
    match &options.code_cache {
        Some(CodeCache::Off) => None,
        Some(CodeCache::Dir(dir)) => Some(dir.clone()),
        None => {
            let own = std::env::var_os(CACHE_DIR_VARIABLE).filter(|d| !d.is_empty()).map(PathBuf::from);
            own.or_else(|| dirs::cache_dir().map(|d| d.join("egret"))).map(|d| d.join("code"))
        }
    }
}

fn code_cache(options: &MachineOptions) -> Option<StoreSettings> {
    cache_dir(options).map(|dir| StoreSettings { dir, limit: CODE_CACHE_LIMIT })
}

/// The engine of a name; without one the JIT, or the interpreter where there is no compiler for the host.
fn engine(options: &MachineOptions, foreground: bool, words: &mut Words) -> Result<Box<dyn Engine>, Refused> {
    let threshold = options.jit_threshold.unwrap_or(Options::default().threshold);
    let foreground = foreground || threshold == 1;
    let jit = || JitEngine::with(Options { threshold, foreground, store: code_cache(options), ..Options::default() }).map(Box::new);
    Ok(match options.engine {
        Some(EngineKind::Interp) => Box::new(Interp::default()),
        Some(EngineKind::Jit) => jit().map_err(Refused::input)?,
        Some(EngineKind::Lockstep) => Box::new(Lockstep::new(jit().map_err(Refused::input)?)),
        None => match jit() {
            Ok(jit) => jit,
            Err(e) => {
                words.say(&format!("the interpreter runs this machine: {e}"));
                Box::new(Interp::default())
            }
        },
    })
}

fn start(args: &RunArgs) -> Result<ExitCode, Refused> {
    let options = args.options();
    // First of all: a mistyped kernel must not cost the files of the last run.
    let mut image = image::open(&options).map_err(Refused::input)?;
    image.unpacked = cache_dir(&options).map(|dir| Box::new(Kernels::new(dir)) as _);
    let mut words = Words::open(options.log.as_deref()).map_err(Refused::input)?;
    let serial = options.serial.clone().unwrap_or_default();
    let stopper = Stopper::new();
    let output = Output::open(&serial, &stopper).map_err(|e| Refused::input(format!("--serial: {e}")))?;
    let debugcon = debug_console(&options, &serial, &stopper)?;
    let mut machine = build(&options, image, &output, &mut words)?;
    machine.board().lock().set_debug_console(debugcon.as_ref().unwrap_or(&output).sink());
    stopper.attach(machine.control());
    let session = Session::start(&stopper, &serial, options.timeout, args.stop_on_eof)
        .map_err(|e| Refused(ExitCode::Internal, format!("the console cannot be set up: {e}")))?;
    let began = Instant::now();
    let ended = go(&mut machine, options.no_reboot);
    output.finish();
    debugcon.into_iter().for_each(Output::finish);
    drop(session);
    let seconds = began.elapsed().as_secs_f64();
    let code = match ended {
        Ok(Stop::PowerOff | Stop::Reset | Stop::DebugExit(0)) => ExitCode::Ok,
        Ok(Stop::DebugExit(value)) => {
            words.say(&format!("the guest wrote {value:#x} to the debug-exit port"));
            ExitCode::DebugExit
        }
        Ok(Stop::TripleFault) => {
            words.say(&format!("triple fault at {}", words::place(&machine)));
            ExitCode::TripleFault
        }
        Ok(Stop::Diverged(report)) => {
            words.say(&format!("the engines differ\n{report}"));
            ExitCode::Failed
        }
        Ok(Stop::Timeout) => ExitCode::Timeout,
        Ok(Stop::Stopped) => stopper.cause().code(),
        Err(Refused(code, why)) => {
            words.say(&why);
            code
        }
    };
    if code == ExitCode::Timeout {
        words.say(&format!("timeout after {seconds:.1} seconds"));
    }
    words.report(&machine, options.stats, code, seconds);
    Ok(code)
}

/// The debug console's output; `None` when it goes where the serial port's goes.
fn debug_console(options: &MachineOptions, serial: &Serial, stopper: &Stopper) -> Result<Option<Output>, Refused> {
    let place = options.debugcon.clone().unwrap_or(Serial::None);
    if place == *serial {
        return Ok(None);
    }
    Output::open(&place, stopper).map(Some).map_err(|e| Refused::input(format!("--debugcon: {e}")))
}

/// Runs the machine, through resets, to its end.
fn go(machine: &mut Machine, no_reboot: bool) -> Result<Stop, Refused> {
    loop {
        match machine.run(None) {
            Stop::Reset if !no_reboot => {
                machine.reset()?;
            }
            stop => return Ok(stop),
        }
    }
}

fn build(options: &MachineOptions, image: Image, output: &Output, words: &mut Words) -> Result<Machine, Refused> {
    let kernel_name = image.kernel_name.clone();
    let memory = options.memory.unwrap_or(MachineOptions::DEFAULT_MEMORY);
    let (clock, start_time) = match options.clock {
        Some(ClockKind::Instructions) => (ClockSource::Instructions, FIXED_START),
        Some(ClockKind::Host) | None => {
            (ClockSource::Host, SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX)))
        }
    };
    let parts = Parts { serial: output.sink(), start_time, clock, memory };
    let (engine, others) = engines(options, words)?;
    let config = Config { memory, parts, image, engine, cpu: options.cpu.unwrap_or_default() };
    let mut bar = None;
    let mut progress = |p: egret_machine::boot::Progress| {
        bar.get_or_insert_with(|| Progress::bytes(&format!("unpacking {kernel_name}"))).set(p.done, p.total);
    };
    let watched = std::io::stderr().is_terminal();
    let (machine, _) = Machine::with_cpus(config, others, if watched { Some(&mut progress) } else { None })?;
    Ok(machine)
}
