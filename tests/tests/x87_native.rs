//! The x87 state machine against the host's x87: every encoding of D8 to DF runs on both from random states, masked and unmasked, and
//! the whole state afterwards (registers, tags, status and control word), the memory operand and EFLAGS are compared.
#![cfg(target_arch = "x86_64")]

use egret_isa::fp::f80::F80;
use egret_isa::x87::{EnvFormat, Memory, X87, X87Insn, X87Op, decode};
use iced_x86::{Code, Decoder, DecoderOptions, OpKind};
use std::arch::asm;
use std::collections::BTreeMap;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn fraction(&mut self, bits: u32) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let sparse = 1u64 << self.below(bits.into());
        mask & match self.below(6) {
            0 => 0,
            1 => mask,
            2 => sparse,
            3 => sparse.wrapping_neg(),
            4 => self.next() << self.below(bits.into()),
            _ => self.next(),
        }
    }

    /// A biased exponent, biased toward edges.
    fn exponent(&mut self, bits: u32) -> u64 {
        let ones = (1u64 << bits) - 1;
        let bias = ones / 2;
        match self.below(12) {
            0 => 0,
            1 => ones,
            2 => 1 + self.below(3),
            3 => ones - 1 - self.below(3),
            4 => bias / 2 + self.below(8),
            5 => bias + bias / 2 + self.below(8),
            6..=9 => bias - 4 + self.below(8),
            10 => bias + self.below(80).min(bias),
            _ => self.below(ones),
        }
    }

    fn float(&mut self, frac: u32, exp: u32) -> u64 {
        (self.next() & 1) << (frac + exp) | self.exponent(exp) << frac | self.fraction(frac)
    }

    fn f80(&mut self) -> F80 {
        let exp = match self.below(8) {
            // The exponents of the narrower formats' edges.
            0 => 16383 + [127, 128, 1023, 1024][self.below(4) as usize] - self.below(3),
            1 => 16383 - [126, 127, 149, 150, 1022, 1023, 1074, 1075][self.below(8) as usize] + self.below(3),
            _ => self.exponent(15),
        };
        let integer = match (exp, self.below(20)) {
            (_, 0) => self.next() & 1,
            (0, _) => 0,
            _ => 1,
        };
        F80 { sign_exp: exp as u16 | (self.next() as u16 & 0x8000), frac: integer << 63 | self.fraction(63) }
    }

    fn memory(&mut self, memory: Memory) -> u128 {
        match memory {
            Memory::M32Real => self.float(23, 8).into(),
            Memory::M64Real => self.float(52, 11).into(),
            Memory::M80Real => self.f80().to_bits(),
            Memory::M80Bcd => (0..18).fold(u128::from(self.next() & 0x80) << 72, |bcd, n| bcd | u128::from(self.below(10)) << (4 * n)),
            Memory::M16 => (self.next() as u16).into(),
            _ => u128::from((self.fraction(64) >> self.below(64)) ^ (self.next() & 1).wrapping_neg()),
        }
    }

    fn state(&mut self) -> X87 {
        let mut x87 = X87::default();
        for reg in &mut x87.regs {
            *reg = self.f80();
        }
        // Related operands: equal, nearly equal, an exact multiple.
        let a = self.below(8) as usize;
        match self.below(6) {
            0 => x87.regs[(a + 1) & 7] = x87.regs[a],
            1 => x87.regs[(a + 1) & 7] = F80 { frac: x87.regs[a].frac ^ 1 << self.below(4), ..x87.regs[a] },
            2 => x87.regs[(a + 1) & 7] = F80 { sign_exp: x87.regs[a].sign_exp.wrapping_sub(self.below(66) as u16), ..x87.regs[a] },
            _ => {}
        }
        x87.tag = match self.below(8) {
            0 => self.next() as u8,
            1 => 0xff,
            _ => 0,
        };
        x87.sw = (self.next() as u16) & 0x7f40;
        let top = x87.top();
        for n in 0..8 {
            // Usually the upper half of the stack is filled.
            if x87.tag == 0 || n < 6 {
                let index = (top + n) & 7;
                if n < 6 && self.below(40) != 0 {
                    x87.tag |= 1 << index;
                }
            }
        }
        let cw = self.next() as u16;
        x87.set_control_word(match self.below(4) {
            0 => 0x37f,
            1 => cw & 0xc3f | 0x340,
            _ => cw | 0x3f,
        });
        if self.below(2) == 0 {
            // Flags whose exceptions are masked: none is pending.
            x87.sw |= self.next() as u16 & x87.cw & 0x3f;
        }
        x87
    }
}

/// What passes between the test and the host.
#[repr(C, align(64))]
struct Frame {
    state: [u8; 108],
    memory: [u8; 128],
    eflags: u64,
}

/// Restores the FPU state, runs the instruction `OP MODRM` with \[rcx\] as its memory operand, saves the state.
fn host<const OP: u8, const MODRM: u8>(frame: &mut Frame) {
    let (state, memory) = (frame.state.as_mut_ptr(), frame.memory.as_mut_ptr());
    let mut flags = frame.eflags;
    // SAFETY: `state` and `memory` are large enough for FNSAVE's 108 bytes and any x87 operand. The instruction changes only the FPU,
    // AX, [rcx] and arithmetic flags; FNSAVE leaves an initialized, empty FPU with all exceptions masked, as Rust expects.
    unsafe {
        asm!(
            "mov eax, {flags:e}", "shl eax, 8", "sahf", "frstor [{state}]",
            ".byte {op}, {modrm}",
            "fnsave [{state}]", "mov [{memory} + 120], ax", "lahf", "movzx {flags:e}, ah",
            flags = inout(reg_abcd) flags, state = in(reg) state, memory = in(reg) memory,
            op = const OP, modrm = const MODRM,
            in("rcx") memory, out("rax") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    frame.eflags = flags;
}

type Host = fn(&mut Frame);

macro_rules! modrms {
    ($op:literal: $($modrm:literal)*) => { vec![$(($op as u8, $modrm as u8, host::<$op, $modrm> as Host)),*] };
}

macro_rules! opcodes {
    ($($op:literal)*) => {
        [$(modrms!($op:
            0x01 0x09 0x11 0x19 0x21 0x29 0x31 0x39
            0xc0 0xc1 0xc2 0xc3 0xc4 0xc5 0xc6 0xc7 0xc8 0xc9 0xca 0xcb 0xcc 0xcd 0xce 0xcf
            0xd0 0xd1 0xd2 0xd3 0xd4 0xd5 0xd6 0xd7 0xd8 0xd9 0xda 0xdb 0xdc 0xdd 0xde 0xdf
            0xe0 0xe1 0xe2 0xe3 0xe4 0xe5 0xe6 0xe7 0xe8 0xe9 0xea 0xeb 0xec 0xed 0xee 0xef
            0xf0 0xf1 0xf2 0xf3 0xf4 0xf5 0xf6 0xf7 0xf8 0xf9 0xfa 0xfb 0xfc 0xfd 0xfe 0xff
        )),*].concat()
    };
}

/// One decoded encoding.
struct Case {
    code: Code,
    insn: X87Insn,
    i: u8,
    host: Host,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (op, modrm, host) in opcodes!(0xd8 0xd9 0xda 0xdb 0xdc 0xdd 0xde 0xdf) {
        let bytes = [op, modrm];
        let instruction = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        let code = instruction.code();
        let Some(insn) = decode(code) else { continue };
        let sti = (0..instruction.op_count()).filter(|&n| instruction.op_kind(n) == OpKind::Register).map(|n| instruction.op_register(n));
        let i = sti.map(|r| r.number() as u8).max().unwrap_or(0);
        cases.push(Case { code, insn, i, host });
    }
    cases
}

/// The condition of an FCMOVcc for EFLAGS bits as LAHF gives them.
fn condition(code: Code, flags: u64) -> bool {
    let (cf, pf, zf) = (flags & 1 != 0, flags & 4 != 0, flags & 0x40 != 0);
    match code {
        Code::Fcmovb_st0_sti => cf,
        Code::Fcmove_st0_sti => zf,
        Code::Fcmovbe_st0_sti => cf || zf,
        Code::Fcmovu_st0_sti => pf,
        Code::Fcmovnb_st0_sti => !cf,
        Code::Fcmovne_st0_sti => !zf,
        Code::Fcmovnbe_st0_sti => !(cf || zf),
        Code::Fcmovnu_st0_sti => !pf,
        _ => false,
    }
}

/// Ours, on the same frame.
fn ours(case: &Case, x87: &mut X87, frame: &mut Frame) {
    const FORMAT: EnvFormat = EnvFormat::Protected32;
    let mut source = u128::from_le_bytes(frame.memory[..16].try_into().expect("16 bytes"));
    match case.insn.op {
        X87Op::LoadEnv => return x87.load_env(FORMAT, &frame.memory),
        X87Op::LoadState => return x87.load_state(FORMAT, &frame.memory),
        X87Op::StoreEnv { .. } => {
            frame.memory[..28].copy_from_slice(&x87.env_image(FORMAT));
            return x87.mask_all();
        }
        X87Op::StoreState { .. } => {
            frame.memory[..108].copy_from_slice(&x87.state_image(FORMAT));
            return x87.init();
        }
        X87Op::ConditionalMove => source = condition(case.code, frame.eflags).into(),
        _ => {}
    }
    let outcome = x87.execute(case.insn, case.i, source);
    if let Some(bits) = outcome.store {
        let at = if case.insn.memory == Memory::Ax { 120 } else { 0 };
        let len = case.insn.memory.bytes().max(2);
        frame.memory[at..at + len].copy_from_slice(&bits.to_le_bytes()[..len]);
    }
    if let Some((zf, pf, cf)) = outcome.eflags {
        frame.eflags = 2 | u64::from(zf) << 6 | u64::from(pf) << 2 | u64::from(cf);
    }
}

/// Blanks what is not compared: instruction and data pointers.
fn normalize(image: &mut [u8]) {
    image[12..28].fill(0);
}

fn one(case: &Case, rng: &mut Rng) -> Option<String> {
    let before = rng.state();
    let mut theirs = Frame { state: before.state_image(EnvFormat::Protected32), memory: [0; 128], eflags: 2 | rng.next() & 0xd5 };
    match case.insn.memory {
        Memory::Env | Memory::State => {
            let mut image = rng.state();
            image.sw &= !(0x3f & !image.cw);
            theirs.memory[..108].copy_from_slice(&image.state_image(EnvFormat::Protected32));
        }
        memory => theirs.memory[..16].copy_from_slice(&rng.memory(memory).to_le_bytes()),
    }
    let mut mine = Frame { memory: theirs.memory, eflags: theirs.eflags, ..theirs };
    let source = theirs.memory;
    let flags = theirs.eflags;
    (case.host)(&mut theirs);
    let mut x87 = before.clone();
    ours(case, &mut x87, &mut mine);
    mine.state = x87.state_image(EnvFormat::Protected32);
    if case.insn.memory != Memory::Ax {
        theirs.memory[120..].fill(0);
    } else {
        theirs.memory[122..].fill(0);
    }
    normalize(&mut mine.state);
    normalize(&mut theirs.state);
    if matches!(case.insn.op, X87Op::StoreEnv { .. } | X87Op::StoreState { .. }) {
        normalize(&mut mine.memory);
        normalize(&mut theirs.memory);
    }
    if matches!(case.insn.op, X87Op::CompareFlags { .. }) {
        // SDM: C1 is cleared. Zen 4 leaves it.
        theirs.state[5] = theirs.state[5] & !2 | mine.state[5] & 2;
    }
    if mine.state == theirs.state && mine.memory == theirs.memory && mine.eflags == theirs.eflags {
        return None;
    }
    let mut host = X87::default();
    host.load_state(EnvFormat::Protected32, &theirs.state);
    Some(describe(case, &before, &source, flags, (&x87, &mine), (&host, &theirs)))
}

fn describe(case: &Case, before: &X87, source: &[u8], flags: u64, mine: (&X87, &Frame), host: (&X87, &Frame)) -> String {
    let source = u128::from_le_bytes(source[..16].try_into().expect("16 bytes"));
    let mut text = format!(
        "{:?} st{} mem {source:x} eflags {flags:x} cw {:03x} sw {:04x} tag {:02x} top {}",
        case.code,
        case.i,
        before.cw,
        before.sw,
        before.tag,
        before.top()
    );
    for i in 0..8u8 {
        let values = [before.st(i), mine.0.st(i), host.0.st(i)].map(|v| format!("{:04x}:{:016x}", v.sign_exp, v.frac));
        if i < 2 || i == case.i || values[1] != values[2] {
            text += &format!("\n   st{i} {} got {} host {}", values[0], values[1], values[2]);
        }
    }
    let memory = |f: &Frame| u128::from_le_bytes(f.memory[..16].try_into().expect("16 bytes"));
    for (who, (x87, frame)) in [("got ", mine), ("host", host)] {
        text += &format!(
            "\n   {who} cw {:03x} sw {:04x} (image {:02x}{:02x}) tag {:02x} top {} mem {:x} eflags {:x}",
            x87.cw,
            x87.sw,
            frame.state[5],
            frame.state[4],
            x87.tag,
            x87.top(),
            memory(frame),
            frame.eflags
        );
    }
    text
}

fn compare(wanted: impl Fn(&Case) -> bool, count: u32, seed: u64) {
    let mut rng = Rng(seed);
    let mut failures: BTreeMap<String, (u32, String)> = BTreeMap::new();
    for case in cases().iter().filter(|case| wanted(case)) {
        for _ in 0..count {
            if let Some(text) = one(case, &mut rng) {
                failures.entry(format!("{:?}", case.code)).or_insert((0, text)).0 += 1;
            }
        }
    }
    let texts: Vec<_> = failures.values().map(|(n, text)| format!("{n}x {text}")).collect();
    assert!(texts.is_empty(), "{} instructions differ:\n{}", texts.len(), texts.join("\n"));
}

#[test]
fn arithmetic() {
    compare(|case| matches!(case.insn.op, X87Op::Arith(..)), 8_000, 1);
}

#[test]
fn everything_else() {
    compare(|case| !matches!(case.insn.op, X87Op::Arith(..) | X87Op::Transcendental(_)), 8_000, 2);
}

/// Distance in units of the last place; `None` if signs or classes differ.
fn ulps(a: F80, b: F80) -> Option<u64> {
    if a.class() != b.class() || a.sign() != b.sign() {
        return None;
    }
    let ordinal = |x: F80| (i128::from(x.sign_exp & 0x7fff) << 63) + i128::from(x.frac & !(1 << 63));
    u64::try_from((ordinal(a) - ordinal(b)).unsigned_abs()).ok()
}

/// Operands for which the SDM leaves the result undefined.
fn undefined(case: &Case, before: &X87) -> bool {
    let x = before.st(0);
    match case.code {
        Code::F2xm1 => x.sign_exp & 0x7fff >= 0x3fff && x != F80::ONE && x != F80::ONE.negate(),
        // |x| <= 1 - √½ = 0.29…
        Code::Fyl2xp1 => (x.sign_exp & 0x7fff, x.frac) > (0x3ffd, 0x95f6_1998_0c43_36f7),
        _ => false,
    }
}

/// Random operands of moderate size for transcendental functions.
fn moderate(rng: &mut Rng, before: &mut X87) {
    let range = [8, 16, 66, 200][rng.below(4) as usize];
    for reg in &mut before.regs {
        let exp = 16383 + 2 - rng.below(range) as u16;
        *reg = F80 { sign_exp: exp | (rng.next() as u16 & 0x8000), frac: 1 << 63 | rng.next() };
        if rng.below(4) == 0 {
            // Up to 2^63, for argument reduction.
            reg.sign_exp = reg.sign_exp & 0x8000 | (16383 + rng.below(64) as u16);
        }
    }
    if rng.below(2) == 0 {
        let top = before.top();
        before.regs[top].sign_exp &= 0x7fff;
    }
}

/// Results may differ by one ulp: both we and the host are within one of the exact value, but not equally rounded. C1, which tells how
/// the result was rounded, is not compared.
#[test]
fn transcendentals() {
    let mut rng = Rng(3);
    let mut worst: BTreeMap<String, (u64, u32, u32, u32)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases().iter().filter(|case| matches!(case.insn.op, X87Op::Transcendental(_))) {
        for round in 0..30_000 {
            let mut before = rng.state();
            if round % 2 == 0 {
                moderate(&mut rng, &mut before);
            }
            if undefined(case, &before) {
                continue;
            }
            let mut frame = Frame { state: before.state_image(EnvFormat::Protected32), memory: [0; 128], eflags: 2 };
            (case.host)(&mut frame);
            let (mut host, mut mine) = (X87::default(), before.clone());
            host.load_state(EnvFormat::Protected32, &frame.state);
            mine.execute(case.insn, 0, 0);
            let entry = worst.entry(format!("{:?}", case.code)).or_default();
            entry.2 += 1;
            for n in 0..8 {
                if let Some(distance @ 1..) = ulps(mine.regs[n], host.regs[n]) {
                    *entry = (entry.0.max(distance), entry.1 + 1, entry.2, entry.3);
                    if distance == 1 {
                        host.regs[n] = mine.regs[n];
                    }
                }
            }
            let power = before.st(0).frac.is_power_of_two() && matches!(case.code, Code::F2xm1 | Code::Fyl2x);
            if power {
                // 2^±1 - 1 and multiples of logarithms of powers of two may be exact; Zen 4 sets PE, and UE with it, nevertheless.
                host.sw = host.sw & !0x30 | mine.sw & 0x30;
            }
            let same = |x: &X87| (x.regs, x.sw & !0x200, x.cw, x.tag);
            if same(&mine) != same(&host) {
                entry.3 += 1;
                if entry.3 > 2 {
                    continue;
                }
                failures.push(describe(case, &before, &[0; 16], 0, (&mine, &frame), (&host, &frame)));
            }
        }
    }
    for (name, (max, differing, total, _)) in &worst {
        println!("{name:8} max difference from the host {max} ulp; {differing} of {total} results differ");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
