//! x87 arithmetic for compiled code: operands in, result and status out, nothing else touched. Each is done by the host's own x87
//! where it has one, else by [`X87::execute`]; both are here to be held against each other.
//!
//! All exceptions are masked, no operand is empty: the caller has looked.

#![allow(unsafe_code)]

use crate::host_x87;
use egret_isa::fp::f80::F80;
use egret_isa::x87::{Arith, Dest, Memory, X87, X87Insn, X87Op};

/// What leaves know besides their operands.
#[repr(C)]
pub struct Fpu {
    /// The guest's FPU.
    pub x87: *mut X87,
    /// Exceptions that the host's status word may hold from before: all, when nobody knows.
    pub stale: u16,
    /// What CS and DS selectors are masked with when they are recorded: newer processors keep none.
    pub selectors: u16,
}

impl Default for Fpu {
    fn default() -> Fpu {
        Fpu { x87: std::ptr::null_mut(), stale: ALL_EXCEPTIONS, selectors: 0 }
    }
}

impl Fpu {
    /// Compiled code is about to run for a CPU; nobody knows what the host's FPU was used for.
    pub(crate) fn enter(&mut self, x87: *mut X87) {
        self.x87 = x87;
        self.stale = ALL_EXCEPTIONS;
    }
}

/// The exception flags of the status word.
pub const ALL_EXCEPTIONS: u16 = 0x3f;
/// What of the status word comes back: exceptions, C1, and of comparisons C0, C2 and C3.
pub const STATUS: u16 = 0x473f;

/// A leaf: `a` is the first operand, `b` a pointer to the second or its bits; the result goes to `out`, for `a` or `b` may be the
/// same. The status comes back.
///
/// # Safety
/// `a`, `out`, and `b` if it is a pointer, are good for 16 bytes, and `fpu` and what it points to are alive and nobody else's.
pub type Leaf = unsafe extern "C" fn(fpu: *mut Fpu, a: *const F80, b: u64, out: *mut u8) -> u64;

/// Where the second operand comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A register, or nowhere: a pointer.
    Register,
    /// The bits of a single.
    Single,
    /// The bits of a double.
    Double,
    /// A signed integer of 32 bits.
    Int,
}

/// What a leaf does. The number of stores is of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum What {
    Arith(Arith, Source),
    Compare(Source),
    CompareQuiet,
    Test,
    SquareRoot,
    Round,
    Store(u8),
    StoreInt(u8),
    Truncate(u8),
}

/// Leaves in the order of [`LEAVES`].
pub const WHATS: [What; COUNT] = {
    use Source::{Double, Int, Register, Single};
    use What::{Compare, CompareQuiet, Round, SquareRoot, Store, StoreInt, Test, Truncate};
    const fn arith(op: Arith, n: usize) -> What {
        What::Arith(op, [Register, Single, Double, Int][n])
    }
    let mut all = [Test; COUNT];
    let ops = [Arith::Add, Arith::Mul, Arith::Sub, Arith::SubR, Arith::Div, Arith::DivR];
    let mut n = 0;
    while n < 24 {
        all[n] = arith(ops[n / 4], n % 4);
        n += 1;
    }
    let rest = [
        Compare(Register),
        Compare(Single),
        Compare(Double),
        Compare(Int),
        CompareQuiet,
        Test,
        SquareRoot,
        Round,
        Store(4),
        Store(8),
        StoreInt(2),
        StoreInt(4),
        StoreInt(8),
        Truncate(2),
        Truncate(4),
        Truncate(8),
    ];
    while n < COUNT {
        all[n] = rest[n - 24];
        n += 1;
    }
    all
};

/// How many leaves there are.
pub const COUNT: usize = 40;

impl What {
    /// Its place in [`LEAVES`].
    #[must_use]
    pub fn index(self) -> usize {
        WHATS.iter().position(|w| *w == self).unwrap_or(0)
    }

    fn insn(self) -> X87Insn {
        let of = |source| match source {
            Source::Register => Memory::None,
            Source::Single => Memory::M32Real,
            Source::Double => Memory::M64Real,
            Source::Int => Memory::M32Int,
        };
        let int = |bytes, truncate| {
            let memory = match bytes {
                2 => Memory::M16Int,
                4 => Memory::M32Int,
                _ => Memory::M64Int,
            };
            (X87Op::StoreInt { pop: false, truncate }, memory)
        };
        let (op, memory) = match self {
            What::Arith(op, source) => (X87Op::Arith(op, Dest::St0), of(source)),
            What::Compare(source) => (X87Op::Compare { quiet: false, pops: 0 }, of(source)),
            What::CompareQuiet => (X87Op::Compare { quiet: true, pops: 0 }, Memory::None),
            What::Test => (X87Op::Test, Memory::None),
            What::SquareRoot => (X87Op::SquareRoot, Memory::None),
            What::Round => (X87Op::RoundToInteger, Memory::None),
            What::Store(4) => (X87Op::Store { pop: false }, Memory::M32Real),
            What::Store(_) => (X87Op::Store { pop: false }, Memory::M64Real),
            What::StoreInt(bytes) => int(bytes, false),
            What::Truncate(bytes) => int(bytes, true),
        };
        X87Insn { op, memory }
    }

    /// How many bytes it writes.
    fn writes(self) -> usize {
        match self {
            What::Arith(..) | What::SquareRoot | What::Round => 10,
            What::Compare(_) | What::CompareQuiet | What::Test => 0,
            What::Store(n) | What::StoreInt(n) | What::Truncate(n) => n.into(),
        }
    }
}

/// Leaf number `N` by [`X87::execute`].
///
/// # Safety
/// As [`Leaf`] says.
pub unsafe extern "C" fn soft<const N: usize>(fpu: *mut Fpu, a: *const F80, b: u64, out: *mut u8) -> u64 {
    let what = WHATS[N];
    let by_pointer = matches!(what, What::Arith(_, Source::Register) | What::Compare(Source::Register) | What::CompareQuiet);
    let mut x87 = X87 { tag: 3, ..X87::default() };
    // SAFETY: the caller's pointers are good.
    unsafe {
        x87.cw = (*(*fpu).x87).cw;
        x87.regs[0] = *a;
        if by_pointer {
            x87.regs[1] = *(b as *const F80);
        }
    }
    let stored = x87.execute(what.insn(), 1, b.into()).store;
    let bytes = stored.unwrap_or(x87.regs[0].to_bits()).to_le_bytes();
    // SAFETY: `out` is good for 16 bytes, and no more than 10 are written.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out, what.writes()) };
    u64::from(x87.sw & STATUS)
}

macro_rules! softly {
    ($($n:literal)*) => { [$(soft::<$n>),*] };
}

/// All leaves without the host's help.
pub const SOFT: [Leaf; COUNT] = softly!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
);

/// The leaves that compiled code calls.
pub const LEAVES: [Leaf; COUNT] = host_x87::LEAVES;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, RngExt, SeedableRng};

    fn value(rng: &mut SmallRng) -> F80 {
        let frac = match rng.random_range(0..6) {
            0 => 1 << 63,
            1 => rng.random::<u64>() << rng.random_range(0..64u32) | 1 << 63,
            2 => 3 << 62,
            3 => rng.random::<u64>() >> rng.random_range(0..64u32),
            _ => rng.random::<u64>() | 1 << 63,
        };
        let exp = match rng.random_range(0..6) {
            0 => 0,
            1 => 0x7fff,
            2 => rng.random_range(0x3fff - 70..0x3fff + 70),
            3 => rng.random_range(0x3fff - 1100..0x3fff + 1100),
            4 => rng.random_range(0x7ff0..0x7fff),
            _ => rng.random_range(0..0x7fff),
        };
        F80 { frac, sign_exp: exp | u16::from(rng.random_range(0..2u8) != 0) << 15 }
    }

    fn bits(rng: &mut SmallRng, what: What) -> u64 {
        match what {
            What::Arith(_, Source::Int) | What::Compare(Source::Int) => rng.random::<i32>() as i64 as u64,
            What::Arith(_, Source::Single) | What::Compare(Source::Single) => {
                let exp = [0, 0xff, 127, rng.random_range(0..256)][rng.random_range(0..4)];
                u64::from(rng.random::<u32>() & 0x807f_ffff | exp << 23)
            }
            _ => {
                let exp = [0, 0x7ff, 1023, rng.random_range(0..2048)][rng.random_range(0..4)];
                rng.random::<u64>() & !(0x7ff << 52) | exp << 52
            }
        }
    }

    /// Every leaf, by the host and by soft float, under every rounding and precision.
    #[test]
    fn host_and_soft_float_agree() {
        let mut rng = SmallRng::seed_from_u64(87);
        for round in 0..40_000 {
            let n = round % COUNT;
            let cw = 0x7f | (rng.next_u32() as u16 & 0xf00);
            let mut x87 = X87 { cw: if round & 1 == 0 { 0x37f } else { cw }, sw: rng.next_u32() as u16 & 0x3f, ..X87::default() };
            let (a, b) = (value(&mut rng), value(&mut rng));
            let b = if rng.random_range(0..8) == 0 { a } else { b };
            let pointer = matches!(WHATS[n], What::Arith(_, Source::Register) | What::Compare(Source::Register) | What::CompareQuiet);
            let second = if pointer { &raw const b as u64 } else { bits(&mut rng, WHATS[n]) };
            let mut fpu = Fpu { x87: &raw mut x87, ..Fpu::default() };
            let mut run = |leaf: Leaf| {
                let mut out = [0xa5u8; 16];
                // SAFETY: all pointers are to local variables.
                let status = unsafe { leaf(&raw mut fpu, &raw const a, second, out.as_mut_ptr()) };
                (out, status)
            };
            let (mut host, mut soft) = (run(LEAVES[n]), run(SOFT[n]));
            // C0, C2 and C3 of others than comparisons are what they were.
            let (before, counts) = (u64::from(x87.sw), if WHATS[n].writes() == 0 { STATUS } else { 0x23f });
            for status in [&mut host.1, &mut soft.1] {
                *status = (*status | before) & u64::from(counts);
            }
            assert!(host == soft, "{:?} cw {:x} {a:x?} {b:x?} {second:x}: {host:x?} and {soft:x?}", WHATS[n], x87.cw);
        }
    }
}
