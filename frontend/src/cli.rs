//! The command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use egret_hypervisor::exit::ExitCode;
use egret_hypervisor::options::{ClockKind, CodeCache, EngineKind, MachineOptions, Serial, Stats, Unpack};
use egret_hypervisor::units;
use egret_machine::model::CpuModel;
use std::path::PathBuf;
use std::time::Duration;

use crate::conform::runner::EngineChoice;

/// Runs unmodified x86 and x86-64 operating systems in software.
///
/// Egret gives a guest a whole PC without VT-x or AMD-V, without a kernel module, without administrator rights. Without a command
/// it starts its own small guest OS; type `help` there.
#[derive(Parser, Debug)]
#[command(name = "egret", version, max_term_width = 120, after_long_help = after_help())]
pub struct Cli {
    /// What to do; without it, `run`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run one machine
    Run(Box<RunArgs>),
    /// List and fetch guests that `egret run` knows by name
    Guests(GuestsArgs),
    /// Run several machines at once, each in a process of its own
    Up(UpArgs),
    /// List the CPU models and features that --cpu knows
    Cpus,
    /// Run instruction test suites against the engines
    Conform(Box<ConformArgs>),
    /// Run embedded workloads on the engines and print a table of their speed
    Bench(BenchArgs),
}

fn after_help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in ExitCode::TABLE {
        text += &format!("  {:>3}  {meaning}\n", code as u8);
    }
    text += "\nExamples:\n  egret                                  start the embedded guest\n  \
             egret guests get debian && egret run debian\n  \
             egret run --kernel vmlinuz --initrd root.cpio.gz --append \"console=ttyS0\" --memory 1G\n  \
             egret up fleet.toml\n  egret conform suite/80286.tar.xz --engine all";
    text
}

const RUN_EXAMPLES: &str = "\
On a terminal the guest has the keyboard: Ctrl-A X quits, Ctrl-A H lists the other keys.
The guest's serial output goes to standard output, Egret's own words go to standard error.

Examples:
  egret run                                 the embedded guest: type help at its prompt
  egret run debian                          a guest of the catalogue (egret guests list)
  egret run --kernel vmlinuz --initrd initrd.img --append \"console=ttyS0\" --memory 1G
  egret run --kernel test.elf --serial file:out.log --timeout 30 --no-reboot
  echo mem | egret run --timeout 5          input from a pipe goes to the serial port";

/// A parser for one of the word-lists of [`MachineOptions`].
fn words<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: std::str::FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

/// `egret run`.
#[derive(Args, Debug, Default)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    /// A guest of the catalogue, or `os`, the embedded one [default: os]
    #[arg(conflicts_with = "kernel")]
    pub guest: Option<String>,
    /// Kernel to boot: a bzImage, or an ELF file with a PVH note or a multiboot header
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk, or the multiboot module
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line; with GUEST it is added to the guest's own
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// RAM, like 512M or 2G [default: 512M]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub memory: Option<u64>,
    /// CPUs, each on a thread of its own; under `--clock instructions` they take turns on one [default: 1]
    #[arg(long, value_name = "N", value_parser = units::parse_cpus)]
    pub cpus: Option<u8>,
    /// What executes the guest's instructions [default: jit]
    #[arg(long, value_parser = words::<EngineKind>(EngineKind::WORDS))]
    pub engine: Option<EngineKind>,
    /// The CPU's model, with features added or taken away: x86-64-v2,+aes,-popcnt; `egret cpus` lists both [default: x86-64-v3]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<CpuModel>,
    /// Who unpacks a bzImage: the host, which is faster, or the guest's own code [default: host]
    #[arg(long, value_parser = words::<Unpack>(Unpack::WORDS))]
    pub unpack: Option<Unpack>,
    /// Where the serial port leads: stdio, file:PATH or none [default: stdio]
    #[arg(long, value_name = "WHERE")]
    pub serial: Option<Serial>,
    /// Where the debug console, port E9h, leads: stdio, file:PATH or none [default: none]
    #[arg(long, value_name = "WHERE")]
    pub debugcon: Option<Serial>,
    /// Stop after this many seconds, with exit code 4
    #[arg(long, value_name = "SECONDS", value_parser = units::parse_seconds)]
    pub timeout: Option<Duration>,
    /// Print statistics at the end, on standard error
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "text", value_parser = words::<Stats>(Stats::WORDS))]
    pub stats: Option<Stats>,
    /// What guest time follows: the host's clock, or the instructions executed, so that the same inputs give the same run
    /// [default: host]
    #[arg(long, value_parser = words::<ClockKind>(ClockKind::WORDS))]
    pub clock: Option<ClockKind>,
    /// Keep compiled code and unpacked kernels in a directory for later runs, or do not: a directory, or off
    /// [default: in the user's cache directory]
    #[arg(long, value_name = "DIR")]
    pub code_cache: Option<CodeCache>,
    /// How often a block of guest code runs in the interpreter before it is compiled; with 1 all code is compiled before it
    /// first runs, on the CPU's own thread [default: 200]
    #[arg(long, value_name = "COUNT", value_parser = units::parse_threshold)]
    pub jit_threshold: Option<u32>,
    /// Write Egret's own messages about the machine to a file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// End with exit code 0 where the guest resets the machine
    #[arg(long)]
    pub no_reboot: bool,
    /// Stop the machine when standard input ends; `egret up` stops its machines in this way
    #[arg(long, hide_short_help = true)]
    pub stop_on_eof: bool,
}

impl RunArgs {
    /// The options of the machine.
    #[must_use]
    pub fn options(&self) -> MachineOptions {
        MachineOptions {
            guest: self.guest.clone(),
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            append: self.append.clone(),
            memory: self.memory,
            cpus: self.cpus,
            engine: self.engine,
            cpu: self.cpu,
            unpack: self.unpack,
            serial: self.serial.clone(),
            debugcon: self.debugcon.clone(),
            timeout: self.timeout,
            stats: self.stats,
            clock: self.clock,
            code_cache: self.code_cache.clone(),
            jit_threshold: self.jit_threshold,
            log: self.log.clone(),
            no_reboot: self.no_reboot,
        }
    }
}

/// `egret guests`.
#[derive(Args, Debug)]
pub struct GuestsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: GuestsCommand,
}

/// The commands of `egret guests`.
#[derive(Subcommand, Debug)]
pub enum GuestsCommand {
    /// List the guests and say which are there
    List,
    /// Fetch a guest, check its hashes and prepare it for `egret run NAME`
    #[command(after_help = "Examples:\n  egret guests get debian\n  egret guests get debian --mirror URL-OF-A-DEBIAN-MIRROR")]
    Get {
        /// The guest's name in `egret guests list`
        name: String,
        /// Fetch from this mirror instead of through the host's package manager
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
    },
}

const UP_EXAMPLES: &str = "\
FILE holds one [[machine]] table for each machine: its name, and the options of `egret run` as keys (guest, kernel, initrd,
append, memory, cpus, engine, cpu, unpack, serial, debugcon, timeout, stats, clock, code-cache, jit-threshold, log, no-reboot). Paths are relative to FILE's folder.
Ctrl-C stops all machines; a second Ctrl-C kills them. Exit code 0 when every machine ended with 0, else 1.

Example of a FILE:
  [[machine]]
  name = \"web\"
  guest = \"debian\"
  memory = \"1G\"

  [[machine]]
  name = \"test\"
  kernel = \"build/test.elf\"
  engine = \"interp\"
  timeout = 30";

/// `egret up`.
#[derive(Args, Debug)]
#[command(after_help = UP_EXAMPLES)]
pub struct UpArgs {
    /// The file that describes the machines
    pub file: PathBuf,
}

/// Which engines `egret conform` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ConformEngines {
    /// The interpreter
    Interp,
    /// The evaluator of the IR
    Ir,
    /// Translated code
    Jit,
    /// All three
    All,
}

impl ConformEngines {
    /// The engines meant.
    #[must_use]
    pub fn list(self) -> Vec<EngineChoice> {
        match self {
            ConformEngines::Interp => vec![EngineChoice::Interp],
            ConformEngines::Ir => vec![EngineChoice::Ir],
            ConformEngines::Jit => vec![EngineChoice::Jit],
            ConformEngines::All => EngineChoice::ALL.to_vec(),
        }
    }
}

fn parse_shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(k, n)| (1..=*n).contains(k)).ok_or_else(|| format!("'{text}' is no part like 2/5"))
}

const CONFORM_EXAMPLES: &str = "\
A PATH is a file, a folder or an archive of tests: MOO (.MOO) as the SingleStepTests suites have them, or Egret's own JSON lines
(.jsonl); packed (.gz, .xz) or in archives (.tar, .tar.gz, .tar.xz). Flag masks come from metadata.json, in the archive or beside it.
Exit code 0 when no vector failed, 1 when one did, 2 when a file could not be read to its end or nothing was found.

Examples:
  egret conform 80286.tar.xz
  egret conform tests/vectors --engine all --json
  egret conform 80386/ --filter shld --fail-fast
  egret conform 80386/ --engine all --html board.html --junit board.xml
  egret conform --coverage                  what of the instruction set is implemented, tested, passing
  egret conform --oracle host --count 1000000 --engine all --out mismatches";

/// A seed: decimal, or hexadecimal after 0x.
fn parse_seed(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16))
}

/// `egret conform`.
#[derive(Args, Debug)]
#[command(after_help = CONFORM_EXAMPLES)]
pub struct ConformArgs {
    /// Files, folders and archives of tests
    #[arg(required_unless_present_any = ["coverage", "oracle"], value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Make random programs, run them on this oracle, and compare: `host` is the host's CPU in user mode (x86-64 Linux)
    #[arg(long, value_parser = ["host"], conflicts_with = "paths", value_name = "ORACLE", help_heading = "Oracle")]
    pub oracle: Option<String>,
    /// Seed of the oracle's programs; the report names it [default: the time]
    #[arg(long, requires = "oracle", value_parser = parse_seed, help_heading = "Oracle")]
    pub seed: Option<u64>,
    /// Number of the oracle's programs
    #[arg(long, default_value_t = 100_000, help_heading = "Oracle")]
    pub count: u64,
    /// Only programs about this mnemonic
    #[arg(long, requires = "oracle", value_name = "MNEMONIC", help_heading = "Oracle")]
    pub mnemonic: Option<String>,
    /// Only programs of this mode
    #[arg(long, requires = "oracle", value_parser = ["64", "32", "16"], help_heading = "Oracle")]
    pub mode: Option<String>,
    /// Write the vectors of mismatches into this folder
    #[arg(long, requires = "oracle", value_name = "DIR", help_heading = "Oracle")]
    pub out: Option<PathBuf>,
    /// Write golden vectors of every encoding into this folder instead
    #[arg(long, requires = "oracle", value_name = "DIR", help_heading = "Oracle")]
    pub golden: Option<PathBuf>,
    /// The engines to test
    #[arg(long, value_enum, default_value_t = ConformEngines::Interp)]
    pub engine: ConformEngines,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// Show every encoding of the CPU model: implemented, tested by the vectors of PATH [default: tests/vectors], passing
    #[arg(long)]
    pub coverage: bool,
    /// The CPU model whose encodings --coverage and --html show; tests name their own [default: x86-64-v3]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<CpuModel>,
    /// Write the score as a JUnit file
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the score as one self-contained page, with coverage and failures
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Run only tests of this mnemonic, or whose name has this text in it or matches it as a regular expression
    #[arg(long, value_name = "TEXT|REGEX")]
    pub filter: Option<String>,
    /// Run only part K of N equal parts of the tests
    #[arg(long, value_name = "K/N", value_parser = parse_shard)]
    pub shard: Option<(u64, u64)>,
    /// Stop at the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// Vectors that fail on purpose, each with its reason: a Markdown table of file, test and reason [default: tests/KNOWN.md]
    #[arg(long, value_name = "FILE")]
    pub known: Option<PathBuf>,
    /// Worker threads [default: one for each host CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Failures to show for each engine
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub failures: usize,
}

/// `egret bench`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  egret bench\n  egret bench --engine jit --filter memory --scale 200 --json")]
pub struct BenchArgs {
    /// The engine: interp or jit [default: both]
    #[arg(long, value_parser = words::<EngineKind>(&["interp", "jit"]))]
    pub engine: Option<EngineKind>,
    /// Run only workloads with this text in their name
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// How many times to do each workload's work
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub scale: u16,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::ffi::OsString;

    fn run(args: &[&str]) -> Result<MachineOptions, String> {
        let all: Vec<OsString> = ["egret", "run"].iter().chain(args).map(Into::into).collect();
        parse(all)
    }

    fn parse(all: Vec<OsString>) -> Result<MachineOptions, String> {
        match Cli::try_parse_from(all).map_err(|e| e.to_string())?.command {
            Some(Command::Run(args)) => Ok(args.options()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_survive_the_way_through_a_command_line() {
        let full = MachineOptions {
            guest: None,
            kernel: Some("-odd name".into()),
            initrd: Some("i".into()),
            append: Some("--console=ttyS0 \"a b\"".into()),
            memory: Some(3 << 30),
            cpus: Some(7),
            engine: Some(EngineKind::Lockstep),
            cpu: Some("x86-64-v2,-popcnt".parse().unwrap()),
            unpack: Some(Unpack::Guest),
            serial: Some(Serial::File("x y".into())),
            debugcon: Some(Serial::Stdio),
            timeout: Some(Duration::from_millis(1500)),
            stats: Some(Stats::Json),
            clock: Some(ClockKind::Instructions),
            code_cache: Some(CodeCache::Dir("-c".into())),
            jit_threshold: Some(3),
            log: Some("l".into()),
            no_reboot: true,
        };
        let guest = MachineOptions { guest: Some("debian".into()), append: Some("quiet".into()), ..Default::default() };
        for options in [full, guest, MachineOptions::default()] {
            let mut args = vec![OsString::from("egret")];
            args.extend(options.to_args());
            assert_eq!(parse(args), Ok(options));
        }
    }

    #[test]
    fn mistakes() {
        for (args, want) in [
            (&["--memory", "512"][..], "'512' has no unit: write 512M for mebibytes or 512G"),
            (&["--memory", "much"], "'much' is not a size"),
            (&["--cpus", "255"], "'255' is not a number of CPUs from 1 to 254"),
            (&["--engine", "turbo"], "possible values: interp, jit, lockstep"),
            (&["--serial", "tcp:1"], "use stdio, none or file:PATH"),
            (&["--debugcon", "file:"], "use stdio, none or file:PATH"),
            (&["--timeout", "0"], "'0' is not a time"),
            (&["--initrd", "x"], "--kernel <FILE>"),
            (&["debian", "--kernel", "x"], "cannot be used with"),
            (&["--cpu", "i7"], "'i7' is no CPU model: there are 8086, 286, 386"),
            (&["--cpu", "486,+turbo"], "'turbo' is no CPU feature"),
            (&["--stats=xml"], "possible values: text, json"),
            (&["--kernal", "x"], "unexpected argument '--kernal'"),
        ] {
            let error = run(args).expect_err(want);
            assert!(error.contains(want), "{args:?}\n got {error}\nwant {want}");
        }
        assert_eq!(run(&["--stats"]).unwrap().stats, Some(Stats::Text));
        assert_eq!(run(&["--append", "-v"]).unwrap().append.as_deref(), Some("-v"));
    }
}
