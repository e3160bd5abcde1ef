//! Random bytes as code, in all modes, with random registers: the CPU may fault as it likes but must not panic, and
//! must use up its budget or stop for a reason. `EGRET_RANDOM_ROUNDS` makes it longer.

mod harness;

use egret_cpu::Exit;
use egret_cpu::state::attention;
use harness::*;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Bytes with the rarer opcodes and prefixes more often than chance has them.
fn code(r: &mut Random, out: &mut [u8]) {
    const RARE: [u8; 24] = [
        0x0f, 0x0f, 0x0f, 0x66, 0x67, 0xf0, 0xf3, 0xf2, 0x48, 0x9a, 0xea, 0xcf, 0xcb, 0xca, 0xcd, 0x8e, 0xff, 0x9d, 0xfb, 0xc4, 0x01, 0x00,
        0x22, 0x30,
    ];
    for byte in out {
        *byte = if r.below(3) == 0 { RARE[r.below(24) as usize] } else { r.next() as u8 };
    }
}

/// A number that is likely to mean something: a selector, an address, a register's index, or noise.
fn value(r: &mut Random) -> u64 {
    match r.below(8) {
        0 => r.below(0x100) & !7 | r.below(4),
        1 => DATA + r.below(0x2000),
        2 => STACK - r.below(0x100),
        3 => [0xc000_0080u64, 0xc000_0102, 0x10, 0x1b, 0x277, 0x200, 0x6e0, 0x174][r.below(8) as usize],
        4 => r.below(32),
        5 => u64::MAX - r.below(16),
        6 => 1 << r.below(64),
        _ => r.next(),
    }
}

fn round(b: &mut Bench, r: &mut Random) {
    let mut bytes = [0u8; 64];
    code(r, &mut bytes);
    b.bytes(CODE, &bytes);
    // Tables are in play too: a random descriptor, gate or TSS field now and then.
    if r.below(4) == 0 {
        let at = [GDT, IDT, TSS, TSS2, LDT, TABLES][r.below(6) as usize] + r.below(0x20) * 8;
        let v = value(r);
        b.put(at, 8, v);
    }
    for n in 0..16 {
        b.cpu.state.gpr[n] = value(r);
    }
    if r.below(2) == 0 {
        b.cpu.state.gpr[4] = STACK;
    }
    let flags = r.next() & 0x0034_7fd5 | b.cpu.rflags() & 0x2_0000;
    b.cpu.set_rflags(flags | 2);
    if r.below(8) == 0 {
        b.world.borrow_mut().interrupts.push_back(r.next() as u8);
        b.cpu.state.attention |= attention::INTERRUPT;
    }
    b.cpu.state.budget = 100;
    for _ in 0..200 {
        match b.interp.run(&mut b.cpu) {
            Exit::Halt => b.cpu.state.attention &= !attention::HALTED,
            Exit::Yield => {}
            _ => return,
        }
    }
    panic!("{:?}: {bytes:02x?} uses no budget", b.start);
}

#[test]
fn random_code_is_contained() {
    let rounds: u64 = std::env::var("EGRET_RANDOM_ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(150);
    let seed: u64 = std::env::var("EGRET_RANDOM_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let starts = [Start::Real, Start::P16, Start::P32, Start::U32, Start::V86, Start::L64, Start::U64, Start::C32];
    for (n, start) in starts.into_iter().enumerate() {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n as u64 + 1));
        for at in 0..rounds {
            let mut b = Bench::new(start);
            // A few rounds on the wreckage of the last.
            for _ in 0..8 {
                if std::env::var("EGRET_RANDOM_TRACE").is_ok() {
                    println!("{start:?} round {at}");
                }
                round(&mut b, &mut r);
                if b.cpu.state.attention & attention::SHUTDOWN != 0 {
                    break;
                }
            }
        }
    }
}
