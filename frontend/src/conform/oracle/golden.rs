//! The golden vectors: some for each encoding, made on the host and kept in `tests/vectors/golden`.

use super::encode::{Recipe, decoded};
use super::generate::Generator;
use super::host::BATCH;
use super::judge;
use super::program::{End, Outcome, Program};
use super::slot::{PAGE, PAGES, WINDOW};
use super::worker::Worker;
use super::write::{line, whole};
use crate::conform::compare::differences;
use crate::conform::engine::{Outcome as Ran, make};
use crate::conform::jsonl::Reader;
use crate::conform::regs::RegFile;
use crate::conform::runner::EngineChoice;
use anyhow::Context;
use egret_isa::insn::Mode;
use iced_x86::{EncodingKind, InstructionInfoFactory, Mnemonic, Register};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

/// Vectors of an encoding, over all modes.
const EACH: usize = 21;
/// More, for those that cannot be vectors because they depend on what only the host has.
const SPARE: usize = 6;
/// Programs tried for each vector, and if these are not enough.
const TRIES: [usize; 2] = [4, 24];

/// Writes the vectors of all recipes into `folder`; says how many, and what is missing.
pub fn write(worker: &mut Worker, recipes: &[Vec<Recipe>; 3], seed: u64, folder: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut modes_of: BTreeMap<u32, usize> = BTreeMap::new();
    for recipe in recipes.iter().flatten() {
        *modes_of.entry(recipe.code as u32).or_default() += 1;
    }
    let mut written: BTreeMap<u32, usize> = BTreeMap::new();
    let mut dropped = BTreeSet::new();
    let mut bench = make(EngineChoice::Interp).map_err(anyhow::Error::msg)?;
    for (mode, name) in [(Mode::M64, "64"), (Mode::M32, "32"), (Mode::M16, "16")] {
        let path = folder.join(format!("{name}.jsonl.xz"));
        let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = liblzma::write::XzEncoder::new(std::io::BufWriter::new(file), 9);
        for recipe in &recipes[mode as usize] {
            let count = EACH.div_ceil(modes_of.get(&(recipe.code as u32)).copied().unwrap_or(1));
            let lines = encoding(worker, recipe, seed, count + SPARE)?;
            let mut left = count;
            for text in lines {
                if left == 0 {
                    break;
                }
                let passes = Reader::new(text.as_bytes(), &"golden".into(), 0).all(|vector| {
                    vector.is_ok_and(|v| match bench.run(&v) {
                        Ran::Ran(end) => differences(&v, &end).is_empty(),
                        Ran::Skipped(_) => false,
                    })
                });
                if !passes {
                    dropped.insert(format!("{:?} in {name}-bit mode", recipe.code));
                    continue;
                }
                left -= 1;
                *written.entry(recipe.code as u32).or_default() += 1;
                writeln!(out, "{text}")?;
            }
        }
        out.finish()?.flush()?;
    }
    let few: Vec<String> = recipes
        .iter()
        .flatten()
        .filter(|r| written.get(&(r.code as u32)).copied().unwrap_or(0) < 20)
        .map(|r| format!("{:?} ({})", r.code, written.get(&(r.code as u32)).copied().unwrap_or(0)))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut text = format!("{} vectors of {} encodings\n", written.values().sum::<usize>(), written.len());
    for name in &dropped {
        text += &format!("left out, the interpreter does not do what the host does: {name}\n");
    }
    for name in few {
        text += &format!("fewer than 20: {name}\n");
    }
    Ok(text)
}

/// The vectors of one encoding in one mode.
fn encoding(worker: &mut Worker, recipe: &Recipe, seed: u64, count: usize) -> anyhow::Result<Vec<String>> {
    let (mut good, mut faults) = (Vec::new(), Vec::new());
    for tries in TRIES {
        (good, faults) = run(worker, recipe, seed, count, tries)?;
        if good.len() + faults.len() >= count {
            break;
        }
    }
    // A quarter are faults, if there are as many others.
    let rest = (count - count / 4).min(good.len());
    faults.truncate(count - rest);
    good.truncate(count - faults.len());
    good.extend(faults);
    Ok(good)
}

/// Vectors of programs that ended well and of others, `count` of each at the most.
fn run(worker: &mut Worker, recipe: &Recipe, seed: u64, count: usize, tries: usize) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut programs = Vec::new();
    for n in 0..count * tries {
        let salt = seed.wrapping_mul(0x9e37_79b9).wrapping_add(n as u64);
        programs.extend(Generator::single(recipe, salt).map(plain).filter(whole));
    }
    let (mut good, mut faults) = (Vec::new(), Vec::new());
    for batch in programs.chunks(BATCH) {
        for (program, slot) in batch.iter().zip(worker.host.slots()) {
            program.store(slot);
        }
        worker.host.run(batch.len())?;
        for (n, program) in batch.iter().enumerate() {
            let mut host = Outcome::default();
            program.outcome(&worker.host.slots()[n], &mut host);
            let End::Fault(vector, _, cr2) = host.end else { continue };
            // A page that only the vectors have, and results that nobody knows.
            let defined = judge::defined(program, host.regs.rip);
            if cr2 >> 12 == 7 || !defined.results || program.regs.fsw & !defined.status & 0x4700 != 0 {
                continue;
            }
            as_intel(program, &mut host);
            let name = format!("{}/{:?}/", format!("{:?}", recipe.code.mnemonic()).to_lowercase(), recipe.code);
            let list = if vector == 3 { &mut good } else { &mut faults };
            if list.len() < count {
                let name = format!("{name}{}{}", if vector == 3 { "" } else { "fault-" }, list.len());
                list.push(line(program, &name, &host, &host));
            }
        }
    }
    Ok((good, faults))
}

/// MXCSR_MASK in an image of FXSAVE without the bit that only AMD's have.
fn as_intel(program: &Program, host: &mut Outcome) {
    let insn = decoded(&program.insns[0], program.mode);
    if !matches!(host.end, End::Fault(3, ..)) || !matches!(insn.mnemonic(), Mnemonic::Fxsave | Mnemonic::Fxsave64) {
        return;
    }
    let start = Outcome { regs: program.regs.clone(), ..Outcome::default() };
    let Some(at) = judge::address(program, &start, &insn) else { return };
    let at = at.wrapping_add(30).wrapping_sub(WINDOW);
    if let Some(page) = PAGES.iter().position(|p| p.0 == at & !(PAGE - 1)) {
        host.memory[page][(at % PAGE) as usize] = 0;
    }
}

/// Registers that the instruction does not name, and memory, start as they do by themselves, which keeps vectors short.
fn plain(mut program: Program) -> Program {
    let mut factory = InstructionInfoFactory::new();
    let (mut gpr, mut vec, mut fpu, mut simd) = (1_u16 << 4, 0_u16, false, false);
    let (mut memory, mut stack) = (false, false);
    for bytes in &program.insns {
        let insn = decoded(bytes, program.mode);
        fpu |= insn
            .cpuid_features()
            .iter()
            .any(|f| format!("{f:?}").contains("FPU") || format!("{f:?}").contains("MMX") || format!("{f:?}") == "FXSR");
        simd |= insn.encoding() == EncodingKind::VEX;
        let info = factory.info(&insn);
        memory |= !info.used_memory().is_empty();
        stack |= info.used_memory().iter().any(|m| m.base().full_register() == Register::RSP) || insn.mnemonic() == Mnemonic::Enter;
        for used in info.used_registers() {
            let r = used.register();
            if r.is_gpr() {
                gpr |= 1 << (r.full_register() as u32 - Register::RAX as u32);
            }
            simd |= r.is_vector_register();
            fpu |= r.is_mm() || r.is_st();
            if r.is_vector_register() && r.number() < 16 {
                vec |= 1 << r.number();
            }
        }
    }
    if !memory {
        program.memory.clear();
    } else if !stack {
        // The first is the stack's.
        program.memory.remove(0);
    }
    let clean = RegFile::default();
    let r = &mut program.regs;
    for n in 0..16 {
        if gpr >> n & 1 == 0 {
            r.gpr[n] = 0;
        }
        if vec >> n & 1 == 0 {
            r.vec[n] = clean.vec[n];
        }
    }
    if !fpu {
        (r.x87, r.x87_used, r.fsw, r.fcw) = (clean.x87, 0, 0, 0x37f);
    }
    if !simd && !fpu {
        r.mxcsr = clean.mxcsr;
    }
    program
}
