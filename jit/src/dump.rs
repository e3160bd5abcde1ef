//! Looking at generated code: when `EGRET_JIT_DUMP` names a directory, every region leaves a file there with its guest
//! instructions, its CLIF before and after the optimizer and its machine code, and `installed.txt` says at which addresses the code was
//! put, for a profiler.

use crate::compile::Compiled;
use crate::region::Region;
use egret_isa::insn::Insn;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// A directory to dump to.
pub struct Dump {
    dir: PathBuf,
}

impl Dump {
    /// The directory that the environment names, if it does.
    #[must_use]
    pub fn from_env() -> Option<Dump> {
        std::env::var_os("EGRET_JIT_DUMP").map(|dir| Dump { dir: dir.into() })
    }

    /// Writes a region's file.
    pub fn region(&self, page: u64, region: &Region, calls: &[(u16, Insn)], clif: &str, code: &str) {
        let mut text = String::new();
        for (_, i) in calls {
            let _ = writeln!(text, "left to the CPU: {:?}", i.code);
        }
        for (n, b) in region.blocks.iter().enumerate() {
            let _ = writeln!(text, "block {n}: entry {:?}, {} predecessors, ends {:?}", b.entry, b.preds, b.end);
            for (at, i) in &b.insns {
                let _ = writeln!(text, "  {at:03x}  {:?} {:?} {:?} imm {:#x}", i.mnemonic, i.ops, i.mem, i.imm);
            }
        }
        let _ = write!(text, "\n{clif}\n{code}");
        // Nothing depends on the file.
        let _ = std::fs::write(self.dir.join(name(page, region.entries.first().copied())), text);
    }

    /// Notes where a region's code is.
    pub fn installed(&self, compiled: &Compiled, address: u64) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("installed.txt"));
        if let Ok(mut file) = file {
            let name = name(compiled.page, compiled.entries.first().copied());
            let _ = writeln!(file, "{address:x} {:x} {name}", compiled.code.len());
        }
    }
}

fn name(page: u64, entry: Option<u16>) -> String {
    format!("{:x}.txt", page + u64::from(entry.unwrap_or(0)))
}
