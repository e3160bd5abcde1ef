//! Programs and what the host made of them, as lines of our vector format.

use super::judge::defined;
use super::program::{End, Outcome, Program, selectors};
use super::slot::{CODE_ONE, CODE_TWO, PAGE, PAGES, WINDOW};
use crate::conform::regs::{Reg, RegFile};
use egret_isa::insn::Mode;
use serde_json::{Map, Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The registers that are worth a name: all that a program can change.
fn registers(mode: Mode) -> Vec<Reg> {
    let count = if mode == Mode::M64 { 16 } else { 8 };
    let mut list = vec![Reg::Fsw, Reg::Ftw, Reg::Fcw, Reg::Mxcsr];
    list.extend((0..count).map(Reg::Gpr));
    list.extend((0..6).map(Reg::Sel));
    if mode == Mode::M64 {
        list.extend([Reg::Base(4), Reg::Base(5)]);
    }
    list.extend((0..count).map(Reg::Vec));
    list.extend((0..8).map(Reg::St));
    list
}

/// Name and text of a value in full.
fn text(reg: Reg, value: [u64; 4]) -> (String, Value) {
    match reg {
        Reg::Vec(_) => {
            let quads = if value[2] | value[3] == 0 { 2 } else { 4 };
            let name = reg.name([u64::MAX, u64::MAX, if quads == 4 { u64::MAX } else { 0 }, 0]);
            (name, value[..quads].iter().map(|v| format!("{v:#x}")).collect())
        }
        Reg::St(_) => (reg.name([u64::MAX; 4]), format!("{:#x}", u128::from(value[0]) | u128::from(value[1]) << 64).into()),
        _ => (reg.name([u64::MAX; 4]), format!("{:#x}", value[0]).into()),
    }
}

/// What the vector reader would start from where nothing is named.
fn unnamed(program: &Program) -> RegFile {
    let (code, data) = selectors(program.mode);
    let mut file = RegFile { fsw: program.regs.fsw, ..RegFile::default() };
    // The reader knows 16-bit segments of its own.
    file.sel = if program.mode == Mode::M16 { [0; 6] } else { [data, code, data, data, data, data] };
    file
}

fn init(program: &Program) -> Map<String, Value> {
    let mut map = Map::new();
    let (want, plain) = (&program.regs, unnamed(program));
    for reg in registers(program.mode) {
        let status = reg == Reg::Fsw && want.fsw != 0;
        // A register that is named counts as used, unless the tags are named.
        let tags = reg == Reg::Ftw && want.x87_used != named_tags(want);
        if status || reg != Reg::Ftw && want.get(reg) != plain.get(reg) || reg == Reg::Gpr(4) || tags {
            let (name, value) = text(reg, want.get(reg));
            map.insert(name, value);
        }
    }
    map.insert("rflags".into(), format!("{:#x}", want.rflags).into());
    if program.mode == Mode::M16 {
        map.insert("rip".into(), format!("{:#x}", want.rip).into());
    }
    map
}

/// The tags that follow from naming all x87 registers that are not zero.
fn named_tags(file: &RegFile) -> u8 {
    (0..8).filter(|n| file.x87[*n as usize] != (0, 0)).fold(0, |tags, n| tags | 1 << n)
}

/// The mask of the bits that count in a mode.
fn width(program: &Program, reg: Reg, host: &RegFile) -> u64 {
    match reg {
        Reg::Gpr(_) if program.mode != Mode::M64 || host.sel[1] != program.regs.sel[1] => 0xffff_ffff,
        _ => u64::MAX,
    }
}

fn want(program: &Program, host: &Outcome, got: &RegFile) -> Map<String, Value> {
    let mut map = Map::new();
    let before = &program.regs;
    let changed = |reg: Reg| host.regs.get(reg) != before.get(reg) || host.regs.get(reg) != got.get(reg);
    for reg in registers(program.mode) {
        let base = matches!(reg, Reg::Base(n) if host.regs.sel[usize::from(n)] != before.sel[usize::from(n)]);
        if base || !changed(reg) {
            continue;
        }
        let mut value = host.regs.get(reg);
        let mask = width(program, reg, &host.regs);
        if mask != u64::MAX {
            value[0] &= mask;
            map.insert(reg.name([mask, 0, 0, 0]), format!("{:#x}", value[0]).into());
            continue;
        }
        if let Reg::Vec(_) = reg {
            map.insert(reg.name([u64::MAX; 4]), value.iter().map(|v| format!("{v:#x}")).collect());
            continue;
        }
        let (name, value) = text(reg, value);
        map.insert(name, value);
    }
    let flags = defined(program, host.regs.rip).flags;
    map.insert("rflags".into(), json!({"value": format!("{:#x}", host.regs.rflags & flags), "mask": format!("{flags:#x}")}));
    if let End::Fault(vector, error, cr2) = host.end {
        let mut fault = json!({"vector": vector, "rip": format!("{:#x}", host.regs.rip)});
        // Linux hides which of its own pages are present.
        if matches!(vector, 8 | 10..=14 | 17) && !(vector == 14 && cr2 >> 47 != 0) {
            fault["error"] = format!("{error:#x}").into();
        }
        if vector == 14 {
            fault["cr2"] = format!("{cr2:#x}").into();
        }
        map.insert("fault".into(), fault);
    }
    map
}

/// Runs of bytes that the program changed, on the host or in the engine.
fn changes(program: &Program, host: &Outcome, got: &Outcome) -> Vec<Value> {
    let mut before = Outcome::default();
    program.fill(&mut before.memory);
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (n, (offset, _)) in PAGES.iter().enumerate() {
        for i in 0..PAGE as usize {
            let byte = host.memory[n][i];
            if byte == before.memory[n][i] && byte == got.memory[n][i] {
                continue;
            }
            let at = WINDOW + offset + i as u64;
            match runs.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.push(byte),
                _ => runs.push((at, vec![byte])),
            }
        }
    }
    runs.iter().map(|(at, bytes)| json!([format!("{at:#x}"), hex(bytes)])).collect()
}

/// The program as a vector named `name`, which wants what the host did; `got` is what an engine did otherwise, or the same again.
#[must_use]
pub fn line(program: &Program, name: &str, host: &Outcome, got: &Outcome) -> String {
    let mode = match program.mode {
        Mode::M64 => "64",
        Mode::M32 => "32",
        Mode::M16 => "16",
    };
    let map: Vec<Value> = [(0x6000, 0x1000, "rw"), (0x8000, 0x2000, "rw"), (0xa000, 0x1000, "r"), (0xf000, 0x1000, "rw")]
        .iter()
        .map(|(at, len, prot)| json!({"at": format!("{:#x}", WINDOW + at), "len": format!("{len:#x}"), "prot": prot}))
        .collect();
    let there = |at: u64| PAGES.iter().any(|p| WINDOW + p.0 == at & !(PAGE - 1));
    let memory: Vec<Value> = program
        .memory
        .iter()
        .filter(|(at, bytes)| there(*at) || there(at.wrapping_add(bytes.len() as u64)))
        .map(|(at, bytes)| json!([format!("{at:#x}"), hex(bytes)]))
        .collect();
    let mut wanted = want(program, host, &got.regs);
    let changed = changes(program, host, got);
    if !changed.is_empty() {
        wanted.insert("mem".into(), changed.into());
    }
    let mut line = json!({
        "name": name, "mode": mode, "cpl": 3, "code": hex(&program.bytes()), "at": format!("{:#x}", program.at),
        "map": map, "init": init(program), "stop": "hlt", "want": wanted,
    });
    if !memory.is_empty() {
        line["mem"] = memory.into();
    }
    line.to_string()
}

/// Whether all code pages that the program can see are in its vector: those that its bytes touch.
#[must_use]
pub fn whole(program: &Program) -> bool {
    let end = program.at + program.bytes().len() as u64;
    if program.at >= CODE_TWO { end > CODE_TWO + PAGE && program.at < CODE_TWO + PAGE } else { end <= CODE_ONE + PAGE }
}
