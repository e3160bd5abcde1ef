//! Egret's own words about a machine: to standard error or to the log file.

use crate::console::terminal;
use egret_hypervisor::exit::ExitCode;
use egret_hypervisor::options::Stats;
use egret_machine::Machine;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Most unknown instructions named without `--stats`.
const SHOWN: usize = 10;
/// Most pages named as those where a CPU spends its time.
const HOT_PAGES: usize = 8;

/// Where the words go.
pub struct Words(Option<File>);

impl Words {
    /// Opens the log file, if there is one.
    pub fn open(log: Option<&Path>) -> Result<Words, String> {
        let create = |path: &Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
        log.map(create).transpose().map(Words)
    }

    /// Says it.
    pub fn say(&mut self, text: &str) {
        match &mut self.0 {
            None => terminal::say(text),
            Some(file) => {
                if let Err(e) = writeln!(file, "{text}") {
                    terminal::say(&format!("the log cannot be written: {e}"));
                    self.0 = None;
                    terminal::say(text);
                }
            }
        }
    }

    /// What the guest asked for in vain, and the statistics when wanted.
    pub fn report(&mut self, machine: &Machine, stats: Option<Stats>, code: ExitCode, seconds: f64) {
        if stats == Some(Stats::Json) {
            let json = json(machine, code, seconds).to_string();
            return if self.0.is_some() { self.say(&json) } else { terminal::line(&json) };
        }
        let all = stats.is_some() || self.0.is_some();
        let unknown = &machine.cpu().unknown;
        for (name, n) in unknown.iter().take(if all { usize::MAX } else { SHOWN }) {
            self.say(&format!("not implemented: {name} ({})", times(*n)));
        }
        if !all && unknown.len() > SHOWN {
            self.say(&format!("not implemented: {} more (--stats lists them)", unknown.len() - SHOWN));
        }
        if all {
            for (what, reads, writes) in unclaimed(machine) {
                self.say(&format!("no device at {what} (read {}, written {})", times(reads), times(writes)));
            }
        }
        if stats.is_some() {
            for (name, value) in counters(machine, seconds) {
                self.say(&format!("{name:28} {value}"));
            }
        }
    }
}

fn times(n: u64) -> String {
    if n == 1 { "once".into() } else { format!("{n} times") }
}

/// Ports and pages that nothing claimed, with reads and writes.
fn unclaimed(machine: &Machine) -> Vec<(String, u64, u64)> {
    let board = machine.board().lock();
    let unclaimed = board.bus().unclaimed();
    let ports = unclaimed.ports.iter().map(|(port, (r, w))| (format!("port {port:#x}"), *r, *w));
    let pages = unclaimed.pages.iter().map(|(page, (r, w))| (format!("address {page:#x}"), *r, *w));
    ports.chain(pages).collect()
}

/// Counters by name.
fn counters(machine: &Machine, seconds: f64) -> Vec<(String, String)> {
    let s = machine.stats();
    let busy = s.busy as f64 / 1e9;
    let mut rows = vec![
        ("seconds".to_owned(), format!("{seconds:.3}")),
        ("seconds executing".to_owned(), format!("{busy:.3}")),
        ("seconds idle".to_owned(), format!("{:.3}", s.idle as f64 / 1e9)),
        ("instructions".to_owned(), s.instructions.to_string()),
        ("million instructions/second".to_owned(), format!("{:.1}", s.instructions as f64 / 1e6 / busy.max(1e-9))),
        ("slices".to_owned(), s.slices.to_string()),
    ];
    rows.extend(engines(machine).into_iter().map(|(name, value)| (name.to_owned(), value.to_string())));
    let (found, walked) = tlb_misses(machine);
    rows.push(("tlb.misses.second_level".to_owned(), found.to_string()));
    rows.push(("tlb.misses.walked".to_owned(), walked.to_string()));
    for (n, v) in machine.vcpus().iter().enumerate() {
        for (page, share) in v.profile().top(HOT_PAGES) {
            rows.push((format!("cpu {n} in page {page:#x}"), format!("{:.1} % of its time", share * 100.0)));
        }
    }
    if machine.vcpus().len() > 1 {
        for v in machine.vcpus() {
            let s = v.stats();
            let text =
                format!("{:.3} s executing, {:.3} s idle, {} instructions", s.busy as f64 / 1e9, s.idle as f64 / 1e9, s.instructions);
            rows.push((format!("cpu {}", v.cpu.index()), text));
        }
    }
    rows
}

/// Translations that missed the TLBs of all CPUs: those the second level had, and those that were walked for.
fn tlb_misses(machine: &Machine) -> (u64, u64) {
    machine.vcpus().iter().map(|v| v.cpu.tlb_misses()).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
}

/// What the engines of all CPUs counted, summed up by name.
fn engines(machine: &Machine) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    for (name, value) in machine.vcpus().iter().flat_map(|v| v.engine.stats()) {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(value),
            None => sums.push((name, value)),
        }
    }
    sums
}

fn json(machine: &Machine, code: ExitCode, seconds: f64) -> serde_json::Value {
    let s = machine.stats();
    let engine: serde_json::Map<String, serde_json::Value> =
        engines(machine).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let cpus: Vec<_> = machine.vcpus().iter().map(|v| v.stats()).collect();
    let cpus: Vec<_> = cpus
        .iter()
        .map(|s| serde_json::json!({"busy_seconds": s.busy as f64 / 1e9, "idle_seconds": s.idle as f64 / 1e9, "instructions": s.instructions}))
        .collect();
    let hot: Vec<_> = machine
        .vcpus()
        .iter()
        .enumerate()
        .flat_map(|(n, v)| v.profile().top(HOT_PAGES).into_iter().map(move |(page, share)| (n, page, share)))
        .map(|(n, page, share)| serde_json::json!({"cpu": n, "page": page, "share": share}))
        .collect();
    let (found, walked) = tlb_misses(machine);
    let unclaimed: Vec<_> =
        unclaimed(machine).into_iter().map(|(at, reads, writes)| serde_json::json!({"at": at, "reads": reads, "writes": writes})).collect();
    serde_json::json!({
        "end": code.short(), "exit_code": code as u8, "seconds": seconds, "busy_seconds": s.busy as f64 / 1e9,
        "idle_seconds": s.idle as f64 / 1e9, "instructions": s.instructions, "slices": s.slices, "engine": machine.engine().name(),
        "cpus": cpus, "hot": hot, "tlb_misses": {"second_level": found, "walked": walked}, "counters": engine, "unknown": machine.cpu().unknown, "unclaimed": unclaimed,
    })
}

/// Where the CPU is.
pub fn place(machine: &Machine) -> String {
    let s = &machine.cpu().state;
    format!("cs {:04x} rip {:#x} rsp {:#x} cr0 {:#x} cr3 {:#x}", s.seg[1].selector, s.rip, s.gpr[4], machine.cpu().cr0, machine.cpu().cr3)
}
