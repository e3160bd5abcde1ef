//! `egret bench`: the embedded workloads on the engines, as a table.

use crate::cli::BenchArgs;
use crate::console::terminal::say;
use egret_cpu::{Engine, Interp};
use egret_guests::workloads::{self, Workload};
use egret_hypervisor::exit::ExitCode;
use egret_hypervisor::options::EngineKind;
use egret_isa::CpuModel;
use egret_jit::JitEngine;
use egret_machine::boot::Unpack;
use egret_machine::{ClockSource, Config, Image, Machine, Stop, pc::Parts};
use std::fmt::Write;
use std::io::{self, Write as _};
use std::time::Duration;

const MEMORY: u64 = 64 << 20;
/// Power-on time: 1 January 2024, 00:00 UTC.
const START: i64 = 1_704_067_200;
/// Longest run of one workload.
const LIMIT: Duration = Duration::from_secs(600);

/// A workload's run on an engine.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Run {
    /// The workload.
    pub workload: &'static str,
    /// The engine.
    pub engine: &'static str,
    /// Instructions executed.
    pub instructions: u64,
    /// Seconds of host time in the engine.
    pub seconds: f64,
    /// Million instructions a second.
    pub mips: f64,
    /// Instructions that ran as compiled code.
    pub compiled: u64,
}

/// Runs the command.
#[must_use]
pub fn bench(args: &BenchArgs) -> ExitCode {
    let kinds: &[EngineKind] = match args.engine {
        Some(EngineKind::Interp) => &[EngineKind::Interp],
        Some(_) => &[EngineKind::Jit],
        None => &[EngineKind::Interp, EngineKind::Jit],
    };
    let wanted = |w: &Workload| args.filter.as_ref().is_none_or(|f| w.name.contains(f.as_str()));
    let workloads: Vec<Workload> = workloads::all(args.scale).into_iter().filter(wanted).collect();
    if workloads.is_empty() {
        say("no workload has this name");
        return ExitCode::Usage;
    }
    let mut runs = Vec::new();
    for workload in &workloads {
        for kind in kinds {
            match run(workload, *kind) {
                Ok(run) => runs.push(run),
                Err(why) => {
                    say(&format!("{} on {}: {why}", workload.name, kind.word()));
                    return ExitCode::Failed;
                }
            }
        }
    }
    let text = if args.json { format!("{}\n", serde_json::json!({ "runs": runs })) } else { table(&workloads, &runs) };
    if io::stdout().write_all(text.as_bytes()).is_err() { ExitCode::Interrupted } else { ExitCode::Ok }
}

/// Runs a workload to its end.
pub fn run(workload: &Workload, kind: EngineKind) -> Result<Run, String> {
    let engine: Box<dyn Engine> =
        if kind == EngineKind::Interp { Box::new(Interp::default()) } else { Box::new(JitEngine::new().map_err(|e| e.to_string())?) };
    let parts = Parts { serial: Box::new(|_| {}), start_time: START, clock: ClockSource::Host, memory: MEMORY };
    let name = workload.name.to_owned();
    let image = Image {
        kernel_name: name,
        kernel: workload.image.clone(),
        initrd: None,
        cmdline: String::new(),
        unpack: Unpack::Host,
        unpacked: None,
    };
    let config = Config { memory: MEMORY, parts, image, engine, cpu: CpuModel::default() };
    let (mut machine, _) = Machine::new(config, None).map_err(|e| e.to_string())?;
    match machine.run(Some(LIMIT)) {
        Stop::DebugExit(0) => {}
        other => return Err(format!("it ended with {other:?}")),
    }
    let stats = machine.stats();
    let seconds = stats.busy as f64 / 1e9;
    let compiled = machine.engine().stats().into_iter().find(|(name, _)| *name == "jit.instructions").map_or(0, |(_, n)| n);
    let mips = stats.instructions as f64 / 1e6 / seconds.max(1e-9);
    Ok(Run { workload: workload.name, engine: kind.word(), instructions: stats.instructions, seconds, mips, compiled })
}

fn table(workloads: &[Workload], runs: &[Run]) -> String {
    let mut text =
        format!("{:10}{:8}{:>14}{:>10}{:>10}{:>10}  what\n", "workload", "engine", "instructions", "seconds", "MIPS", "compiled");
    for run in runs {
        let about = workloads.iter().find(|w| w.name == run.workload).map_or("", |w| w.about);
        let share = 100.0 * run.compiled as f64 / run.instructions.max(1) as f64;
        let _ = writeln!(
            text,
            "{:10}{:8}{:>14}{:>10.3}{:>10.1}{share:>9.1}%  {about}",
            run.workload, run.engine, run.instructions, run.seconds, run.mips
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_ends_on_every_engine() {
        let workloads = workloads::all(1);
        let mut runs = Vec::new();
        for workload in &workloads {
            for kind in [EngineKind::Interp, EngineKind::Jit] {
                runs.push(run(workload, kind).unwrap_or_else(|e| panic!("{} on {}: {e}", workload.name, kind.word())));
            }
        }
        for pair in runs.chunks_exact(2) {
            let [interp, jit] = pair else { continue };
            assert_eq!(interp.instructions, jit.instructions, "{}", interp.workload);
            assert!(interp.instructions > 10_000 && interp.compiled == 0, "{interp:?}");
        }
        let text = table(&workloads, &runs);
        assert_eq!(text.lines().count(), 13, "{text}");
    }
}
