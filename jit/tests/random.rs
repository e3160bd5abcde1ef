//! Random programs in the interpreter and in compiled code: every register, flag, fault, byte of memory and count must agree.

#[path = "../../emulator/cpu/tests/harness/mod.rs"]
mod harness;

use egret_bus::Phys;
use egret_cpu::{Engine, Exit};
use egret_jit::compile::Tuning;
use egret_jit::{JitEngine, Options};
use harness::*;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// Where data is: 4 KiB pages, some missing, some read-only, some for the supervisor only.
const AREA: u64 = 4 << 20;
const PAGES: u64 = 16;
const TABLE: u64 = TABLES + 0x4000;

struct Program {
    bits: u32,
    bytes: Vec<u8>,
}

struct Maker {
    rng: SmallRng,
    bits: u32,
}

impl Maker {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// A register to work in: pointers are mostly spared. 16 and up never come.
    fn data_reg(&mut self) -> u8 {
        if self.chance(4) {
            return self.pick(&[3, 5, 6, 7]);
        }
        if self.bits == 64 { self.pick(&[0, 1, 2, 8, 9, 10, 11]) } else { self.pick(&[0, 1, 2]) }
    }

    /// Prefixes, opcode, ModRM with everything that belongs to it.
    fn encode(&mut self, prefixes: &[u8], opcode: &[u8], reg: u8, memory: bool, imm: usize) -> Vec<u8> {
        let mut out = prefixes.to_vec();
        let rm = if memory { self.pick(&[3u8, 5, 6, 7]) } else { self.data_reg() };
        if self.bits == 64 {
            let w = u8::from(self.chance(40)) << 3;
            let rex = 0x40 | w | (reg >> 3) << 2 | rm >> 3;
            if rex != 0x40 || self.chance(20) {
                out.push(rex);
            }
        }
        out.extend(opcode);
        let (reg, rm) = (reg & 7, rm & 7);
        if !memory {
            out.push(0xc0 | reg << 3 | rm);
        } else if self.bits == 16 {
            let rm = self.pick(&[4u8, 5, 6, 7]);
            out.push(0x40 | reg << 3 | rm);
            out.push(self.rng.random());
        } else if self.chance(20) {
            // base + index * scale + disp8; the index is rax, which may lead anywhere.
            out.extend([0x44 | reg << 3, self.rng.random_range(0..4u8) << 6 | rm, self.rng.random()]);
        } else {
            out.extend([0x40 | reg << 3 | rm, self.rng.random()]);
        }
        for _ in 0..imm {
            out.push(self.rng.random());
        }
        out
    }

    fn size_prefix(&mut self) -> Vec<u8> {
        if self.chance(20) { vec![0x66] } else { vec![] }
    }

    /// Bytes of an immediate of operand size, given the prefixes; REX.W cannot be foreseen, so it is a dword then.
    fn imm(&self, prefixes: &[u8]) -> usize {
        if (self.bits == 16) != prefixes.contains(&0x66) { 2 } else { 4 }
    }

    fn insn(&mut self) -> Vec<u8> {
        let p = self.size_prefix();
        let (reg, memory) = (self.data_reg(), self.chance(35));
        match self.rng.random_range(0..24) {
            0..5 => {
                let op = self.rng.random_range(0..8u8) * 8 + self.rng.random_range(0..4u8);
                let lock = memory && op & 2 == 0 && op & 0x38 != 0x38 && self.chance(20);
                let p = if lock { [p, vec![0xf0]].concat() } else { p };
                self.encode(&p, &[op], reg, memory, 0)
            }
            5 => {
                let digit = self.rng.random_range(0..8);
                let op = self.pick(&[0x80u8, 0x81, 0x83]);
                let imm = if op == 0x81 { self.imm(&p) } else { 1 };
                self.encode_digit(&p, &[op], digit, memory, imm)
            }
            6 => {
                let op = self.pick(&[0x84u8, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b]);
                self.encode(&p, &[op], reg, memory, 0)
            }
            7 => {
                let op = self.pick(&[0xc0u8, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3]);
                let digit = self.rng.random_range(0..8);
                self.encode_digit(&p, &[op], digit, memory, usize::from(op < 0xd0))
            }
            8 => {
                let op = self.pick(&[0xf6u8, 0xf7]);
                let digit = self.rng.random_range(0..8u8);
                let imm = if digit >= 2 {
                    0
                } else if op == 0xf6 {
                    1
                } else {
                    self.imm(&p)
                };
                self.encode_digit(&p, &[op], digit, memory, imm)
            }
            9 => {
                let op = self.pick(&[0xfeu8, 0xff]);
                let digit = self.rng.random_range(0..2);
                self.encode_digit(&p, &[op], digit, memory, 0)
            }
            10 => {
                let op = 0x40 + self.rng.random_range(0..16u8);
                self.encode(&p, &[0x0f, op], reg, memory, 0)
            }
            11 => {
                let op = 0x90 + self.rng.random_range(0..16u8);
                self.encode(&p, &[0x0f, op], reg, memory, 0)
            }
            12 => {
                let op =
                    self.pick(&[0xa3u8, 0xab, 0xb3, 0xbb, 0xa5, 0xad, 0xaf, 0xb0, 0xb1, 0xb6, 0xb7, 0xbe, 0xbf, 0xbc, 0xbd, 0xc0, 0xc1]);
                // Bit strings reach far from memory operands: registers only, mostly.
                let far = matches!(op, 0xa3 | 0xab | 0xb3 | 0xbb);
                let memory = memory && !(far && self.chance(90));
                let lock = memory && matches!(op, 0xab | 0xb3 | 0xbb | 0xb0 | 0xb1 | 0xc0 | 0xc1) && self.chance(40);
                let p = if lock { [p, vec![0xf0]].concat() } else { p };
                self.encode(&p, &[0x0f, op], reg, memory, 0)
            }
            13 => {
                let op = self.pick(&[0xa4u8, 0xac]);
                self.encode(&p, &[0x0f, op], reg, memory, 1)
            }
            14 => {
                let digit = self.rng.random_range(4..8);
                self.encode_digit(&p, &[0x0f, 0xba], digit, memory, 1)
            }
            15 => self.encode(&[p, vec![0xf3]].concat(), &[0x0f, 0xb8], reg, memory, 0),
            16 => self.encode(&p, &[0x6b], reg, memory, 1),
            17 => self.encode(&p, &[0x8d], reg, true, 0),
            18 => {
                let r = self.data_reg() & 7;
                let op = self.pick(&[0x50u8, 0x58]) + r;
                [p, vec![op]].concat()
            }
            19 => {
                let op = self.pick(&[0x98u8, 0x99, 0x9e, 0x9f, 0xf5, 0xf8, 0xf9, 0x9c, 0x90, 0xfc]);
                [p, vec![op]].concat()
            }
            20 => {
                let r = self.data_reg() & 7;
                let imm: [u8; 4] = if self.chance(50) { self.rng.random() } else { [self.rng.random_range(0..3), 0, 0, 0] };
                let n = self.imm(&p);
                [p, vec![0xb8 + r], imm[..n].to_vec()].concat()
            }
            21 => {
                let count: u8 = self.rng.random_range(0..40);
                let n = self.imm(&[]);
                let op = self.pick(&[0xa4u8, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xa6, 0xa7]);
                let rep = if self.chance(70) { vec![self.pick(&[0xf3u8, 0xf2])] } else { vec![] };
                [vec![0xb9, count], vec![0; n - 1], p, rep, vec![op]].concat()
            }
            22 => {
                let r = self.data_reg();
                if self.bits == 64 { vec![0x48 | r >> 3, 0x0f, 0xc8 | r & 7] } else { vec![0x0f, 0xc8 | r & 7] }
            }
            _ => {
                let op = self.pick(&[0x86u8, 0x87, 0x31, 0x33, 0x39, 0x85]);
                self.encode(&p, &[op], reg, memory, 0)
            }
        }
    }

    fn encode_digit(&mut self, prefixes: &[u8], opcode: &[u8], digit: u8, memory: bool, imm: usize) -> Vec<u8> {
        self.encode(prefixes, opcode, digit, memory, imm)
    }

    /// A program: straight pieces, forward branches, loops that count a stack slot down, and a HLT.
    fn program(&mut self) -> Program {
        let n = self.rng.random_range(2..40);
        let mut parts: Vec<Vec<u8>> = (0..n).map(|_| self.insn()).collect();
        // Forward branches: from the back, so that distances are known.
        for at in (0..n).rev() {
            if !self.chance(15) {
                continue;
            }
            let upto = self.rng.random_range(at..n.min(at + 6));
            let distance: usize = parts[at..upto].iter().map(Vec::len).sum();
            if distance < 128 {
                let op = 0x70 + self.rng.random_range(0..16u8);
                parts[at].splice(0..0, [op, distance as u8]);
            }
        }
        let mut bytes = parts.concat();
        if self.chance(50) && bytes.len() < 100 {
            // A counted loop round it all: the counter is at a fixed address.
            let word: &[u8] = match self.bits {
                64 => &[0xff, 0x0c, 0x25, 0x00, 0x00, 0x04, 0x00],
                32 => &[0xff, 0x0d, 0x00, 0x00, 0x04, 0x00],
                _ => &[0xff, 0x0e, 0x00, 0x0e],
            };
            bytes.extend(word);
            let back = -(bytes.len() as i64) - 2;
            bytes.extend([self.pick(&[0x75u8, 0x7f]), back as u8]);
        }
        bytes.push(0xf4);
        Program { bits: self.bits, bytes }
    }
}

fn prepare(start: Start, program: &Program, seed: u64) -> Bench {
    let mut b = Bench::new(start);
    assert_eq!(b.bits(), program.bits);
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
    b.bytes(CODE, &program.bytes);
    let real = b.bits() == 16;
    let area = if real { 0x8000 } else { AREA };
    if b.long() {
        // Page by page: 1 in 8 missing, 1 in 8 read-only, 1 in 8 for the supervisor.
        b.put(TABLES + 0x2000 + 8 * 2, 8, TABLE | 7);
        for n in 0..512 {
            let bits = if n >= PAGES { 7 } else { *[7, 7, 7, 7, 7, 6, 5, 3].get(rng.random_range(0..8)).unwrap_or(&7) };
            b.put(TABLE + 8 * n, 8, (AREA + n * 0x1000) | bits);
        }
    }
    let mut data = vec![0u8; (PAGES * 0x1000) as usize / if real { 2 } else { 1 }];
    rng.fill_bytes(&mut data);
    b.bytes(area, &data);
    b.put(if real { 0xe00 } else { 0x4_0000 }, 4, rng.random_range(1..20));
    let regs = if b.bits() == 64 { 16 } else { 8 };
    for r in 0..regs {
        let pointer = matches!(r, 3 | 5 | 6 | 7);
        let value: u64 = if pointer {
            let near = rng.random_range(0..PAGES / 2) * 0x1000;
            area + near + if rng.random_range(0..3) == 0 { 0xff0 + rng.random_range(0..16) } else { rng.random_range(0..0x1000) }
        } else {
            let interesting = [
                0,
                1,
                2,
                31,
                32,
                0x7f,
                0x80,
                0xff,
                0x7fff,
                0x8000,
                0x7fff_ffff,
                0x8000_0000,
                u64::MAX,
                1 << 63,
                rng.random(),
                rng.random(),
            ];
            interesting[rng.random_range(0..interesting.len())]
        };
        if r != 4 {
            b.cpu.state.gpr[r] = if b.bits() == 64 { value } else { value & 0xffff_ffff };
        }
    }
    let flags = rng.random::<u64>() & 0x8d5;
    let old = b.cpu.rflags();
    b.cpu.set_rflags(old & !0x8d5 | flags);
    b
}

struct Seen {
    exit: Exit,
    retired: i64,
}

const BUDGET: i64 = 20_000;

fn run(b: &mut Bench, engine: &mut dyn Engine, slices: Option<&mut SmallRng>) -> Seen {
    let mut retired = 0;
    let mut slices = slices;
    loop {
        let slice = slices.as_mut().map_or(BUDGET, |r| r.random_range(1..60));
        b.cpu.state.budget = slice;
        let exit = engine.run(&mut b.cpu);
        retired += slice - b.cpu.state.budget;
        if exit != Exit::Budget || retired >= BUDGET {
            return Seen { exit, retired };
        }
    }
}

fn compare(x: &Bench, y: &Bench, a: &Seen, b: &Seen) -> Result<(), String> {
    let mut bad = String::new();
    let mut check = |what: String, p: u64, q: u64| {
        if p != q {
            bad += &format!("{what}: interp {p:#x}, jit {q:#x}\n");
        }
    };
    for r in 0..16 {
        check(format!("r{r}"), x.cpu.gpr(r), y.cpu.gpr(r));
    }
    check("rip".into(), x.cpu.state.rip, y.cpu.state.rip);
    check("rflags".into(), x.cpu.rflags(), y.cpu.rflags());
    check("cr2".into(), x.cpu.cr2, y.cpu.cr2);
    check("exit".into(), a.exit as u64, b.exit as u64);
    check("retired".into(), a.retired as u64, b.retired as u64);
    // Everything that a program or an exception can write, and some around it.
    for (from, len) in [(0, 0x5_0000), (AREA - 0x1000, (PAGES + 4) << 12)] {
        let (mut p, mut q) = (vec![0u8; len as usize], vec![0u8; len as usize]);
        assert!(x.cpu.ram.read(Phys(from), &mut p) && y.cpu.ram.read(Phys(from), &mut q));
        if let Some(at) = p.iter().zip(&q).position(|(a, b)| a != b) {
            check(format!("[{:x}]", from + at as u64), p[at].into(), q[at].into());
        }
    }
    for n in 0..16 {
        check(format!("xmm{n}"), x.cpu.state.xmm[n] as u64, y.cpu.state.xmm[n] as u64);
    }
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

fn listing(p: &Program) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
    let mut decoder = Decoder::with_ip(p.bits, &p.bytes, CODE, DecoderOptions::NONE);
    let mut out = String::new();
    let mut formatter = NasmFormatter::new();
    while decoder.can_decode() {
        let i = decoder.decode();
        out += &format!("{:x} ", i.ip());
        formatter.format(&i, &mut out);
        out.push('\n');
    }
    out
}

fn round(start: Start, bits: u32, seed: u64, jits: &mut [JitEngine]) {
    let mut maker = Maker { rng: SmallRng::seed_from_u64(seed), bits };
    let program = maker.program();
    let (mut x, mut y) = (prepare(start, &program, seed), prepare(start, &program, seed));
    let mut interp = egret_cpu::Interp::default();
    let a = run(&mut x, &mut interp, None);
    if a.exit == Exit::Budget {
        // An endless loop stops at different places.
        return;
    }
    let jit = &mut jits[(seed % 4) as usize];
    jit.flush(&mut y.cpu);
    let mut slices = SmallRng::seed_from_u64(seed);
    let b = run(&mut y, jit, seed.is_multiple_of(5).then_some(&mut slices));
    assert_eq!(jit.counters().failed, 0, "seed {seed} {start:?}");
    if let Err(bad) = compare(&x, &y, &a, &b) {
        panic!("seed {seed} {start:?}\n{bad}{}", listing(&program));
    }
}

/// Optimized or not, with or without code that was not reached, and one as on hosts where regions have frames of their own.
/// Cranelift's own checkers see a quarter of the programs: they take most of the time.
fn jit(n: u64) -> JitEngine {
    let tuning = Tuning { optimize: n & 1 != 0, verify: n == 1, share_frame: n != 3 };
    JitEngine::with(Options { threshold: 1, foreground: true, unreached: n & 2 != 0, code_memory: 1 << 20, tuning, ..Options::default() })
        .expect("a JIT for this host")
}

/// `EGRET_ROUNDS=N` makes it N times as many programs.
fn rounds(start: Start, bits: u32, count: u64) {
    let count = count * std::env::var("EGRET_ROUNDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let first = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let mut jits: Vec<JitEngine> = (0..4).map(jit).collect();
    for seed in first.map_or(0..count, |s: u64| s..s + 1) {
        round(start, bits, seed, &mut jits);
    }
    let compiled: u64 = jits.iter().map(|j| j.counters().compiled_insns).sum();
    let interpreted: u64 = jits.iter().map(|j| j.interp.retired).sum();
    eprintln!("{start:?}: {compiled} instructions ran compiled, {interpreted} interpreted");
    assert!(first.is_some() || compiled > count * 8 && compiled > interpreted * 4);
}

#[test]
fn programs_64_bit_kernel() {
    rounds(Start::L64, 64, 240);
}

#[test]
fn programs_64_bit_user() {
    rounds(Start::U64, 64, 160);
}

#[test]
fn programs_32_bit() {
    rounds(Start::P32, 32, 100);
}

#[test]
fn programs_compatibility_mode() {
    rounds(Start::C32, 32, 100);
}

#[test]
fn programs_real_mode() {
    rounds(Start::Real, 16, 100);
}
