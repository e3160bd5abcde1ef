//! What is run: bytes, a mode, a seed for the registers.

use crate::rng::Rng;
use egret_isa::insn::Mode;
use egret_isa::rows::rows;
use std::sync::OnceLock;

/// Modes that a program is entered in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Start {
    /// Real mode.
    Real,
    /// Protected mode, 16-bit code, CPL 0.
    P16,
    /// 16-bit code, CPL 3.
    U16,
    /// 32-bit code, CPL 0.
    P32,
    /// 32-bit code, CPL 3.
    U32,
    /// Virtual 8086.
    V86,
    /// 64-bit code, CPL 0.
    L64,
    /// 64-bit code, CPL 3.
    U64,
    /// Compatibility mode, 32-bit code, CPL 0.
    C32,
    /// Compatibility mode, 32-bit code, CPL 3.
    Cu32,
    /// Compatibility mode, 16-bit code, CPL 3.
    Cu16,
}

impl Start {
    /// All.
    pub const ALL: [Start; 11] = [
        Start::Real,
        Start::P16,
        Start::U16,
        Start::P32,
        Start::U32,
        Start::V86,
        Start::L64,
        Start::U64,
        Start::C32,
        Start::Cu32,
        Start::Cu16,
    ];

    /// In long mode.
    #[must_use]
    pub fn long(self) -> bool {
        matches!(self, Start::L64 | Start::U64 | Start::C32 | Start::Cu32 | Start::Cu16)
    }

    /// At CPL 3.
    #[must_use]
    pub fn user(self) -> bool {
        matches!(self, Start::U16 | Start::U32 | Start::V86 | Start::U64 | Start::Cu32 | Start::Cu16)
    }

    /// Code size in bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Start::Real | Start::P16 | Start::U16 | Start::V86 | Start::Cu16 => 16,
            Start::P32 | Start::U32 | Start::C32 | Start::Cu32 => 32,
            Start::L64 | Start::U64 => 64,
        }
    }
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it was made from, and what the registers are made from.
    pub seed: u64,
    /// The mode it is entered in.
    pub start: Start,
    /// Its bytes.
    pub code: Vec<u8>,
    /// Offset in its page; it may reach into the next one.
    pub offset: u64,
    /// Whether it talks to a real board.
    pub board: bool,
    /// Registers that replace the seed's: 0 to 15 the general ones, from 16 on the halves of the XMM registers.
    pub registers: Vec<(u8, u64)>,
}

impl Program {
    /// Most bytes in a program.
    pub const MAX: usize = 64;

    /// The program of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Program {
        let mut rng = Rng::new(seed);
        let start = *rng.pick(&Start::ALL);
        let code = match rng.below(4) {
            0 => (0..Self::MAX).map(|_| rng.next() as u8).collect(),
            1 => Self::loops(&mut rng, start),
            _ => Self::mutated(&mut rng, start),
        };
        let offset = if rng.one_in(8) { 0x1000 - 1 - rng.below(Self::MAX as u64) } else { rng.below(16) };
        Program { seed, start, code, offset, board: rng.one_in(8), registers: Vec::new() }
    }

    /// Where it is entered.
    pub fn entries(&self, stride: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.code.len()).step_by(stride.max(1))
    }

    /// Loops of valid instructions, one behind the other, with a way out of or across most of them.
    fn loops(rng: &mut Rng, start: Start) -> Vec<u8> {
        const LOOP: u8 = 0xe2;
        const JCC: u8 = 0x70;
        let all = examples(start.bits());
        let mut code = Vec::new();
        while code.len() < Self::MAX {
            let first = code.len();
            for _ in 0..1 + rng.below(5) {
                code.extend_from_slice(rng.pick(all).as_slice());
                if rng.one_in(2) {
                    code.extend_from_slice(&[JCC | rng.below(16) as u8, rng.below(6) as u8]);
                }
            }
            let back = (first as i64 - code.len() as i64 - 2).max(-128) as u8;
            let end = if rng.one_in(2) { LOOP } else { JCC | rng.below(16) as u8 };
            code.extend_from_slice(&[end, back]);
        }
        code.truncate(Self::MAX);
        code
    }

    /// Valid instructions one after the other, some with a bit flipped or a byte replaced, some with prefixes.
    fn mutated(rng: &mut Rng, start: Start) -> Vec<u8> {
        const PREFIXES: [u8; 15] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x48, 0x4f, 0x41, 0x44];
        let all = examples(start.bits());
        let mut code = Vec::new();
        while code.len() < Self::MAX {
            if rng.one_in(6) {
                code.push(*rng.pick(&PREFIXES));
            }
            let first = code.len();
            code.extend_from_slice(rng.pick(all).as_slice());
            let len = (code.len() - first) as u64;
            // The last bytes are displacement, immediate or ModR/M: something else every time.
            for byte in &mut code[first + 1..] {
                if rng.one_in(2) {
                    *byte = if rng.one_in(3) { rng.next() as u8 } else { *byte ^ (1 << rng.below(8)) };
                }
            }
            if rng.one_in(8) {
                code[first + rng.below(len) as usize] ^= 1 << rng.below(8);
            }
        }
        code.truncate(Self::MAX);
        code
    }
}

/// One instruction per encoding and operand form, for a code size. Common ones are there several times over.
fn examples(bits: u32) -> &'static [Vec<u8>] {
    static TABLES: [OnceLock<Vec<Vec<u8>>>; 3] = [const { OnceLock::new() }; 3];
    let (at, mode) = match bits {
        16 => (0, Mode::M16),
        32 => (1, Mode::M32),
        _ => (2, Mode::M64),
    };
    TABLES[at].get_or_init(|| {
        let both = rows().flat_map(|row| [false, true].map(|memory| (row, memory)));
        both.filter_map(|(row, memory)| row.example(mode, memory).map(|(bytes, _)| bytes)).collect()
    })
}
