//! What instructions do, by rows: the state before and after, as text, on the semantics and on the IR recorded from them.
//!
//! A state names registers (`al=ff rax=1 ip=1002`), flags (`cf=1`), memory (`b[2000]=1`, also `w`, `d`, `q`) and the fault
//! (`fault=#13(0x0)`). After the instruction, registers and memory that are not named must be as before; so must the
//! flags when none is named.

mod rows;

use egret_bus::{GuestRam, Phys};
use egret_cpu::interp::{Direct, Execute};
use egret_cpu::ir_engine::Recorded;
use egret_cpu::state::{cr0, cr4, efer, rflags};
use egret_cpu::{Cpu, SegReg, System};
use egret_isa::Features;
use egret_isa::decode::{Decoded, decode};
use egret_isa::flags::{AF, ARITH, CF, OF, PF, SF, ZF};
use egret_isa::insn::Insn;
use rows::{ROWS, Row};
use std::collections::BTreeSet;

/// Where the instruction is.
const CODE: u64 = 0x1000;
/// The memory that rows use: two pages.
const DATA: u64 = 0x2000;
const LEN: usize = 0x2000;

struct Nothing;

impl System for Nothing {
    fn port_read(&mut self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_write(&mut self, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: Phys, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: Phys, _: u8, _: u64) {}
    fn interrupt_pending(&mut self) -> bool {
        false
    }
    fn acknowledge(&mut self) -> Option<u8> {
        None
    }
    fn tsc(&mut self) -> u64 {
        0
    }
}

/// A CPU without paging. Nothing is fetched, so long mode does without tables, too.
fn cpu(bits: u32) -> Cpu {
    let ram = GuestRam::new(&[(Phys(0), 1 << 20)]).expect("RAM");
    let mut cpu = Cpu::new(ram, Box::new(Nothing));
    cpu.cr4 = cr4::OSFXSR;
    if bits == 16 {
        cpu.state.seg = [SegReg::real(0, 0xffff, 0x93); 6];
    } else {
        cpu.cr0 = cr0::PE | cr0::ET;
        cpu.state.seg = [SegReg::new(0x10, 0, u32::MAX, 0xc093); 6];
        cpu.state.seg[1] = SegReg::new(8, 0, u32::MAX, if bits == 64 { 0xa09b } else { 0xc09b });
        cpu.efer = if bits == 64 { efer::LME | efer::LMA } else { 0 };
    }
    cpu.update_context();
    cpu
}

/// A state in a form that is easy to compare.
#[derive(Clone, PartialEq, Eq)]
struct State {
    gpr: [u64; 16],
    ip: u64,
    flags: u64,
    memory: Vec<u8>,
    fault: String,
}

const FLAGS: [(&str, u64); 7] =
    [("cf", CF as u64), ("pf", PF as u64), ("af", AF as u64), ("zf", ZF as u64), ("sf", SF as u64), ("of", OF as u64), ("df", rflags::DF)];

/// Register number, lowest bit and width of a name.
fn register(name: &str) -> Option<(usize, u32, u32)> {
    const STEMS: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    let stem = |s: &str| STEMS.iter().position(|x| *x == s);
    if let Some(n) = name.strip_prefix('r').and_then(|d| d.parse::<usize>().ok()) {
        return (8..16).contains(&n).then_some((n, 0, 64));
    }
    match name.as_bytes() {
        [b'r', ..] => stem(&name[1..]).map(|n| (n, 0, 64)),
        [b'e', ..] => stem(&name[1..]).map(|n| (n, 0, 32)),
        [x, b'l'] => Some((stem(&format!("{}x", char::from(*x)))?, 0, 8)),
        [x, b'h'] => Some((stem(&format!("{}x", char::from(*x)))?, 8, 8)),
        _ => stem(name).map(|n| (n, 0, 16)),
    }
}

impl State {
    /// Changes the state by a row's text; the flags that it names.
    fn apply(&mut self, text: &str) -> u64 {
        let mut named = 0;
        for item in text.split_whitespace() {
            let (name, value) = item.split_once('=').unwrap_or_else(|| panic!("{item}: no '='"));
            if name == "fault" {
                self.fault = value.into();
                continue;
            }
            let v = u64::from_str_radix(value, 16).unwrap_or_else(|_| panic!("{item}: no number"));
            if let Some((_, bit)) = FLAGS.iter().find(|f| f.0 == name) {
                named |= bit;
                self.flags = self.flags & !bit | if v != 0 { *bit } else { 0 };
            } else if let Some((size, at)) = name.strip_suffix(']').and_then(|n| n.split_once('[')) {
                let bytes = match size {
                    "b" => 1,
                    "w" => 2,
                    "d" => 4,
                    _ => 8,
                };
                let at = (u64::from_str_radix(at, 16).expect("an address") - DATA) as usize;
                let place = (at..at + bytes).zip(v.to_le_bytes());
                place.for_each(|(at, b)| {
                    if at < LEN {
                        self.memory[at] = b
                    }
                });
            } else if name == "ip" {
                self.ip = v;
            } else {
                let (n, shift, bits) = register(name).unwrap_or_else(|| panic!("{item}: no such register"));
                let mask = (u64::MAX >> (64 - bits)) << shift;
                self.gpr[n] = self.gpr[n] & !mask | v << shift & mask;
            }
        }
        named
    }

    fn differences(&self, got: &State, flags: u64) -> String {
        let mut text = String::new();
        if self.fault != got.fault {
            text += &format!(" fault: want {:?} got {:?}", self.fault, got.fault);
        }
        for (n, (want, got)) in self.gpr.iter().zip(&got.gpr).enumerate() {
            if want != got {
                text += &format!(" r{n}: want {want:x} got {got:x}");
            }
        }
        if self.ip != got.ip {
            text += &format!(" ip: want {:x} got {:x}", self.ip, got.ip);
        }
        for (name, _) in FLAGS.iter().filter(|(_, bit)| (self.flags ^ got.flags) & flags & bit != 0) {
            text += &format!(" {name} is wrong");
        }
        for (n, (want, got)) in self.memory.iter().zip(&got.memory).enumerate() {
            if want != got {
                text += &format!(" [{:x}]: want {want:02x} got {got:02x}", n as u64 + DATA);
            }
        }
        text
    }
}

fn instruction(cpu: &Cpu, row: &Row) -> Insn {
    let mut bytes: Vec<u8> = (0..row.1.len()).step_by(2).map(|n| u8::from_str_radix(&row.1[n..n + 2], 16).expect("hex")).collect();
    let len = bytes.len();
    bytes.resize(15, 0x90);
    match decode(&bytes, cpu.state.ctx, Features::ALL) {
        Decoded::Insn(i) if usize::from(i.len) == len => i,
        other => panic!("{row:?}: {other:?}"),
    }
}

fn run<X: Execute>(row: &Row, before: &State) -> State {
    let mut cpu = cpu(row.0);
    cpu.state.gpr = before.gpr;
    cpu.set_rflags(before.flags);
    assert!(cpu.ram.write(Phys(DATA), &before.memory));
    let i = instruction(&cpu, row);
    cpu.state.rip = CODE + u64::from(i.len);
    let result = X::execute(&X::prepare(&i), &mut cpu, &i);
    let mut memory = vec![0; LEN];
    assert!(cpu.ram.read(Phys(DATA), &mut memory));
    let (mut gpr, mut ip) = (cpu.state.gpr, cpu.state.rip);
    if result.is_err() {
        // The block loop puts these back.
        (gpr[4], ip) = (before.gpr[4], CODE);
    }
    State { gpr, ip, flags: cpu.rflags(), memory, fault: result.err().map_or_else(String::new, |f| format!("{f:?}")) }
}

/// What is wrong with a row on an engine.
fn check<X: Execute>(row: &Row) -> Option<String> {
    let i = instruction(&cpu(row.0), row);
    if i.to_string() != row.2 {
        return Some(format!("{row:?}: the text is {i}"));
    }
    let mut before = State { gpr: [0; 16], ip: CODE, flags: rflags::FIXED, memory: vec![0; LEN], fault: String::new() };
    before.apply(row.3);
    let mut want = before.clone();
    want.ip = CODE + u64::from(i.len);
    let named = want.apply(row.4);
    if !want.fault.is_empty() {
        want.ip = CODE;
    }
    let flags = if named == 0 { u64::from(ARITH) | rflags::DF } else { named };
    let wrong = want.differences(&run::<X>(row, &before), flags);
    (!wrong.is_empty()).then(|| format!("{row:?}:{wrong}"))
}

#[test]
fn interpreter() {
    let wrong: Vec<String> = ROWS.iter().filter_map(check::<Direct>).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn evaluator() {
    let wrong: Vec<String> = ROWS.iter().filter_map(check::<Recorded>).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Rows exist for every scalar mnemonic that has semantics by ops.
#[test]
fn every_mnemonic_has_a_row() {
    use iced_x86::{Code, CpuidFeature as F};
    let have: BTreeSet<String> = ROWS.iter().map(|row| format!("{:?}", instruction(&cpu(row.0), row).mnemonic)).collect();
    let scalar = |c: &Code| {
        c.cpuid_features()
            .iter()
            .all(|f| matches!(f, F::INTEL8086 | F::INTEL186 | F::INTEL386 | F::INTEL486 | F::X64 | F::CX8 | F::CMPXCHG16B | F::POPCNT))
    };
    let families = ["J", "Set", "Cmov"];
    let mut missing = BTreeSet::new();
    for row in egret_isa::rows::rows().filter(|r| scalar(&r.code)) {
        let name = format!("{:?}", row.mnemonic);
        let mode = [egret_isa::Mode::M64, egret_isa::Mode::M32, egret_isa::Mode::M16]
            .into_iter()
            .find_map(|m| row.example(m, false).or(row.example(m, true)));
        let Some((_, i)) = mode else { continue };
        let by_ops = egret_isa::sem::lookup::<egret_isa::ir::Recorder>(&i).is_some();
        if by_ops && !have.contains(&name) && !families.iter().any(|f| name.starts_with(f)) {
            missing.insert(name);
        }
    }
    // Hints do nothing; FEMMS and the like are not scalar.
    missing.retain(|m| !["Reservednop", "Endbr32", "Endbr64"].contains(&m.as_str()));
    assert!(missing.is_empty(), "{missing:?}");
}
