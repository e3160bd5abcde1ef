//! Integer instructions against the host CPU: results and defined flags of the interpreter and of the IR must be the host's.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod cases;
mod host;

use egret_bus::{GuestRam, Phys};
use egret_cpu::state::{cr0, efer};
use egret_cpu::{Cpu, SegReg, System, functions};
use egret_isa::decode::{Decoded, decode};
use egret_isa::flags::{AF, ARITH, CF, OF, PF, SF, ZF};
use egret_isa::insn::{Insn, Operand, Seg};
use egret_isa::ir;
use egret_isa::ops::Width;
use egret_isa::{CpuModel, Features};
use host::{MEMORY, MIDDLE, State, Stubs};
use iced_x86::Mnemonic as M;
use std::collections::BTreeMap;

/// Operand sets tried for each instruction.
const ROUNDS: u32 = 300;
const AT: u64 = 0x1000;

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

/// A CPU in 64-bit mode. Nothing is fetched, so there is no need of page tables.
fn cpu() -> Cpu {
    let ram = GuestRam::new(&[(Phys(0), 1 << 20)]).expect("RAM");
    let mut cpu = Cpu::new(ram, Box::new(Nothing));
    cpu.cr0 = cr0::PE | cr0::ET;
    cpu.set_model(CpuModel::default().with_features(Features::ALL));
    cpu.efer = efer::LME | efer::LMA;
    cpu.state.seg[Seg::Cs as usize] = SegReg::new(8, 0, u32::MAX, 0xa09b);
    cpu.update_context();
    assert!(cpu.code64());
    cpu
}

/// Runs the instruction on the CPU, by its semantics or by its IR.
fn run(cpu: &mut Cpu, i: &Insn, recorded: Option<&ir::Block>, state: &mut State) {
    cpu.state.gpr[..4].copy_from_slice(&state.gpr);
    cpu.state.gpr[7] = AT + MIDDLE as u64;
    cpu.state.rip = i.len.into();
    cpu.set_rflags(state.flags);
    assert!(cpu.ram.write(Phys(AT), &state.memory));
    let result = match recorded {
        Some(block) => ir::eval(block, 0, cpu),
        None => functions::handler(i)(cpu, i),
    };
    state.gpr.copy_from_slice(&cpu.state.gpr[..4]);
    state.flags = cpu.rflags();
    state.divide_error = u64::from(result.is_err_and(|f| f == egret_cpu::Fault::DE));
    assert!(state.divide_error != 0 || result.is_ok(), "{result:?}");
    assert!(cpu.ram.read(Phys(AT), &mut state.memory));
}

/// SplitMix64, with a liking for the ends of the ranges.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn value(&mut self) -> u64 {
        const EDGES: [u64; 8] = [0, 1, 2, 0x7f, 0x80, 0xff, 0x0f, 0x10];
        let r = self.next();
        let edge = EDGES[(r >> 8) as usize & 7];
        match r & 7 {
            0 | 1 => self.next(),
            2 => edge,
            3 => edge.wrapping_neg(),
            // The same at another width.
            4 => (0x8000 + edge).wrapping_sub(2),
            5 => (0x8000_0000 + edge).wrapping_sub(2),
            6 => (0x8000_0000_0000_0000 + edge).wrapping_sub(2),
            _ => self.next() >> (r >> 16 & 63),
        }
    }

    fn state(&mut self, i: &Insn) -> State {
        let mut s = State { gpr: [0; 4], flags: self.next() & u64::from(ARITH) | 0x202, divide_error: 0, memory: [0; MEMORY] };
        for r in &mut s.gpr {
            *r = self.value();
        }
        let operand = self.value().to_le_bytes();
        for (n, b) in s.memory.iter_mut().enumerate() {
            *b = if (MIDDLE..MIDDLE + 8).contains(&n) { operand[n - MIDDLE] } else { self.next() as u8 };
        }
        if matches!(i.mnemonic, M::Bt | M::Bts | M::Btr | M::Btc) && i.has_mem() {
            // The bit must be in the buffer, whose start RDI is 32 bytes behind.
            s.gpr[2] = (self.next() % 192).wrapping_sub(128);
        }
        if matches!(i.mnemonic, M::Cmpxchg8b | M::Cmpxchg16b) && self.next() & 1 == 0 {
            let high = MIDDLE + 4 * (1 + usize::from(i.mnemonic == M::Cmpxchg16b));
            let word = |at: usize| u64::from_le_bytes(s.memory[at..at + 8].try_into().expect("8 bytes"));
            (s.gpr[0], s.gpr[2]) = (word(MIDDLE), word(high));
        }
        if i.mnemonic == M::Cmpxchg && self.next() & 1 == 0 {
            s.gpr[0] = if i.has_mem() { self.0 } else { s.gpr[3] };
            s.memory[MIDDLE..MIDDLE + 8].copy_from_slice(&s.gpr[0].to_le_bytes());
        }
        s
    }
}

/// The flags that are undefined after the instruction, and whether its result is too (SDM Vol. 2).
fn undefined(i: &Insn, before: &State) -> (u32, bool) {
    let bits = u64::from(i.width.bits());
    let count = |n: usize| {
        let raw = match i.ops[n] {
            Operand::None => 1,
            Operand::Imm => i.imm,
            _ => before.gpr[1],
        };
        raw & if i.width == Width::Q { 63 } else { 31 }
    };
    let shifted = |n: u64| if n == 1 { 0 } else { OF };
    match i.mnemonic {
        M::And | M::Or | M::Xor | M::Test => (AF, false),
        M::Mul | M::Imul => (SF | ZF | AF | PF, false),
        M::Div | M::Idiv => (ARITH, false),
        M::Bt | M::Bts | M::Btr | M::Btc => (OF | SF | AF | PF, false),
        M::Andn | M::Bzhi | M::Blsi | M::Blsr | M::Blsmsk => (AF | PF, false),
        M::Bextr => (AF | SF | PF, false),
        M::Tzcnt | M::Lzcnt => (OF | SF | PF | AF, false),
        M::Bsf | M::Bsr => (CF | OF | SF | AF | PF, false),
        M::Shl | M::Sal | M::Shr | M::Sar => match count(1) {
            0 => (0, false),
            n if n >= bits && i.mnemonic != M::Sar => (AF | OF | CF, false),
            n => (AF | shifted(n), false),
        },
        M::Rol | M::Ror | M::Rcl | M::Rcr => match count(1) {
            0 => (0, false),
            n => (shifted(n), false),
        },
        M::Shld | M::Shrd => match count(2) {
            0 => (0, false),
            n if n > bits => (ARITH, true),
            n => (AF | shifted(n), false),
        },
        _ => (0, false),
    }
}

/// What of `got` differs from the host, as text.
fn differences(host: &State, got: &State, undefined_flags: u32, undefined_result: bool) -> String {
    let mut text = String::new();
    if host.divide_error != got.divide_error {
        return format!(" #DE: host {} got {}", host.divide_error, got.divide_error);
    }
    if host.divide_error != 0 {
        return text;
    }
    let flags = (host.flags ^ got.flags) as u32 & ARITH & !undefined_flags;
    if flags != 0 {
        text += &format!(" flags: host {:#x} got {:#x}, differ {}", host.flags, got.flags, flag_names(flags));
    }
    for (n, name) in ["rax", "rcx", "rdx", "rbx"].iter().enumerate() {
        if host.gpr[n] != got.gpr[n] && !undefined_result {
            text += &format!(" {name}: host {:#x} got {:#x}", host.gpr[n], got.gpr[n]);
        }
    }
    if host.memory != got.memory && !undefined_result {
        text += &format!(" memory: host {:02x?} got {:02x?}", &host.memory[MIDDLE..][..16], &got.memory[MIDDLE..][..16]);
    }
    text
}

fn flag_names(flags: u32) -> String {
    let all = [(CF, "cf"), (PF, "pf"), (AF, "af"), (ZF, "zf"), (SF, "sf"), (OF, "of")];
    all.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

fn decoded(bytes: &[u8]) -> Insn {
    let mut padded = bytes.to_vec();
    padded.resize(15, 0x90);
    match decode(&padded, cpu().state.ctx, Features::ALL) {
        Decoded::Insn(i) if usize::from(i.len) == bytes.len() => i,
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

#[test]
fn integer_instructions_do_what_the_host_does() {
    let list = cases::all();
    let stubs = Stubs::new(&list);
    let mut cpu = cpu();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut wrong = Vec::new();
    // What the host does with undefined flags and we do not, for information.
    let mut loose: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for (n, bytes) in list.iter().enumerate() {
        let i = decoded(bytes);
        let block = ir::record(&[i]);
        for _ in 0..ROUNDS {
            let before = random.state(&i);
            let mut host = before;
            stubs.run(n, &mut host);
            let (flags, result) = undefined(&i, &before);
            let mut direct = before;
            run(&mut cpu, &i, None, &mut direct);
            let mut evaluated = before;
            run(&mut cpu, &i, Some(&block), &mut evaluated);
            assert_eq!(direct, evaluated, "{i}: interpreter and IR differ after {before:x?}\n{block}");
            let text = differences(&host, &direct, flags, result);
            if !text.is_empty() {
                wrong.push(format!("{i}:{text}\n  before {before:x?}"));
            }
            let free = (host.flags ^ direct.flags) as u32 & flags;
            if free != 0 && host.divide_error == 0 {
                let entry = loose.entry(format!("{:?} {:?}", i.mnemonic, i.width)).or_default();
                *entry = (entry.0 | free, entry.1 + 1);
            }
            if result && (host.gpr != direct.gpr || host.memory != direct.memory) {
                loose.entry(format!("{:?} {:?} result", i.mnemonic, i.width)).or_default().1 += 1;
            }
        }
    }
    for (what, (flags, times)) in loose {
        println!("undefined, and not as the host does it: {what} {} ({times} times)", flag_names(flags));
    }
    assert!(wrong.is_empty(), "{} differences, among them\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
