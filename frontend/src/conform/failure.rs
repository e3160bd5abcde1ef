//! A failed vector with all that a person needs to look into it.

use super::compare::{Diff, number};
use super::regs::{Reg, Value};
use super::vector::{Mode, Model, Vector};
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::fmt::Write;

/// A failed vector.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// Its name.
    pub name: String,
    /// Its mnemonic.
    pub mnemonic: String,
    /// File of the vector.
    pub file: String,
    /// Byte offset in the (unpacked) file.
    pub offset: u64,
    /// Its code in hex.
    pub code: String,
    /// The code disassembled.
    pub text: String,
    /// Processor, mode and address of the code.
    pub setting: String,
    /// The initial state: registers, memory.
    pub input: Vec<(String, String)>,
    /// What differs.
    pub diffs: Vec<Diff>,
}

/// Most bytes of memory shown in one piece.
const SHOWN: usize = 64;
/// Most instructions disassembled.
const INSTRUCTIONS: usize = 16;

impl Failure {
    /// The failure of `vector` by `diffs`.
    #[must_use]
    pub fn new(vector: &Vector, diffs: Vec<Diff>) -> Failure {
        Failure {
            name: printable(&vector.name),
            mnemonic: vector.mnemonic.clone(),
            file: vector.place.file.to_string(),
            offset: vector.place.offset,
            code: hex(&vector.code, usize::MAX),
            text: disassembly(vector),
            setting: format!("cpu {}, mode {}, cpl {}, code at {:#x}", vector.model, vector.mode, vector.cpl, vector.at),
            input: input(vector),
            diffs,
        }
    }

    /// The differences, a line each.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for d in &self.diffs {
            let note = if d.note.is_empty() { String::new() } else { format!("  ({})", d.note) };
            let _ = writeln!(text, "  {:8} want {}  got {}{note}", d.what, d.want, d.got);
        }
        text
    }

    /// The initial state, a line each.
    #[must_use]
    pub fn input_lines(&self) -> String {
        self.input.iter().fold(String::new(), |text, (what, value)| text + what + " = " + value + "\n")
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn hex(bytes: &[u8], limit: usize) -> String {
    let mut text: String = bytes.iter().take(limit).map(|b| format!("{b:02x}")).collect();
    if bytes.len() > limit {
        let _ = write!(text, "… {} bytes", bytes.len());
    }
    text
}

fn disassembly(vector: &Vector) -> String {
    let mut decoder = Decoder::with_ip(vector.mode.bits(), &vector.code, vector.initial().rip, DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    let mut lines = Vec::new();
    while decoder.can_decode() && lines.len() < INSTRUCTIONS {
        let insn = decoder.decode();
        let mut line = String::new();
        formatter.format(&insn, &mut line);
        lines.push(line);
        if insn.is_invalid() {
            break;
        }
    }
    if decoder.can_decode() {
        lines.push("…".into());
    }
    lines.join("; ")
}

/// The width that a register's name shall have.
fn width(vector: &Vector, reg: Reg) -> Value {
    let word = match (vector.mode, &vector.model) {
        (Mode::Long64, _) => u64::MAX,
        (_, Model::I8086 | Model::V30 | Model::I80286) => 0xffff,
        _ => 0xffff_ffff,
    };
    match reg {
        Reg::Gpr(_) | Reg::Rip | Reg::Rflags => [word, 0, 0, 0],
        _ => [u64::MAX; 4],
    }
}

fn input(vector: &Vector) -> Vec<(String, String)> {
    let mut input: Vec<(String, String)> = Vec::new();
    for (reg, v) in &vector.init {
        let mask = width(vector, *reg);
        let wide = v[2] | v[3] != 0;
        let name = if let (Reg::Vec(n), false) = (reg, wide) { format!("xmm{n}") } else { reg.name(mask) };
        input.push((name, number(*v)));
    }
    for r in &vector.regions {
        let prot = format!("r{}{}", if r.access.write { "w" } else { "" }, if r.access.execute { "x" } else { "" });
        input.push((format!("[{:#x}] {prot} {:#x} bytes", r.at, r.len), hex(&r.data, SHOWN)));
    }
    // Bytes in runs of neighbours. What regions gave is there already.
    let mut bytes: Vec<(u64, u8)> = if vector.regions.is_empty() { vector.bytes.clone() } else { Vec::new() };
    bytes.sort_by_key(|b| b.0);
    for run in bytes.chunk_by(|a, b| a.0.wrapping_add(1) == b.0) {
        let data: Vec<u8> = run.iter().map(|b| b.1).collect();
        input.push((format!("[{:#x}]", run[0].0), hex(&data, SHOWN)));
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::jsonl;

    #[test]
    fn all_of_the_input_is_named() {
        let line = concat!(
            r#"{"name": "add/\u0007x", "mode": "64", "code": "4801d8f4", "stop": "hlt", "want": {},"#,
            r#" "map": [{"at": "0xe0000000", "len": "0x1000", "prot": "rw", "data": "0102"}],"#,
            r#" "init": {"rax": "0x5", "xmm1": ["0x1", "0x2"], "ymm2": ["0x1", "0x0", "0x3"]}}"#
        );
        let vector = jsonl::Reader::new(line.as_bytes(), &"t".into(), 0).next().unwrap().unwrap();
        let failure = Failure::new(&vector, Vec::new());
        assert_eq!((failure.name.as_str(), failure.text.as_str()), ("add/?x", "add rax,rbx; hlt"));
        assert_eq!(
            failure.input_lines(),
            "rax = 0x5\nxmm1 = 0x20000000000000001\nymm2 = 0x300000000000000000000000000000001\n[0xe0000000] rw 0x1000 bytes = 0102\n"
        );
        assert_eq!(failure.setting, "cpu x86-64-v3, mode 64, cpl 0, code at 0x10000");
    }
}
