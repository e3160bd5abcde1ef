//! What the fuzzer's bytes mean, and what must hold of them.
//!
//! Eight bytes of setting: the mode, the place (bit 0: a real board; bit 1: at the end of the page), the seed of registers and memory
//! (u32), where in the page the code starts (u16). A byte with the code's length and the code. Then registers that replace the
//! seed's, nine bytes each: which (general registers, halves of XMM registers) and the value.

use super::check::{Failure, Pair};
use super::program::{Program, Start};
use crate::COMPARED;
use std::cell::RefCell;

const SETTING: usize = 8;
const REGISTER: usize = 9;
const PAGE: u64 = 0x1000;

/// The program that `data` describes; `None` when there is no code in it.
#[must_use]
pub fn program(data: &[u8]) -> Option<Program> {
    let (setting, rest) = data.split_first_chunk::<SETTING>()?;
    let [mode, place, a, b, c, d, e, f] = *setting;
    let (len, rest) = rest.split_first()?;
    let (code, registers) = rest.split_at_checked((1 + usize::from(*len) % Program::MAX).min(rest.len()))?;
    if code.is_empty() {
        return None;
    }
    let within = u64::from(u16::from_le_bytes([e, f]));
    let offset = if place & 2 == 0 { within % 64 } else { PAGE - 1 - within % Program::MAX as u64 };
    let registers = registers.chunks_exact(REGISTER).map(|r| (r[0], u64::from_le_bytes([r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8]])));
    Some(Program {
        seed: u32::from_le_bytes([a, b, c, d]).into(),
        start: Start::ALL[usize::from(mode) % Start::ALL.len()],
        code: code.to_vec(),
        offset,
        board: place & 1 != 0,
        registers: registers.collect(),
    })
}

/// The bytes that describe a program, as far as they can.
#[must_use]
pub fn bytes(program: &Program) -> Vec<u8> {
    let mode = Start::ALL.iter().position(|s| *s == program.start).unwrap_or(0) as u8;
    let end = program.offset >= PAGE - Program::MAX as u64;
    let within = if end { PAGE - 1 - program.offset } else { program.offset };
    let mut data = vec![mode, u8::from(program.board) | u8::from(end) << 1];
    data.extend((program.seed as u32).to_le_bytes());
    data.extend((within as u16).to_le_bytes());
    data.push((program.code.len() - 1) as u8);
    data.extend(&program.code);
    for (register, value) in &program.registers {
        data.push(*register);
        data.extend(value.to_le_bytes());
    }
    data
}

thread_local! {
    static PAIR: RefCell<Option<Pair>> = const { RefCell::new(None) };
}

/// Runs what `data` describes on the interpreter and on a JIT that compiles everything before it first runs.
pub fn check(data: &[u8]) -> Result<(), Failure> {
    let Some(program) = program(data) else { return Ok(()) };
    PAIR.with_borrow_mut(|pair| {
        let pair = pair.get_or_insert_with(|| {
            let jit = COMPARED.iter().find(|(name, _)| *name == "eager-jit").map_or(COMPARED[0].1, |(_, make)| *make);
            let mut pair = Pair::compared(jit);
            // One entry: the fuzzer makes programs of its own where another one is worth it.
            pair.stride = usize::MAX;
            pair
        });
        pair.run(&program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_programs() {
        let mut data = vec![6, 2, 1, 0, 0, 0, 3, 0, 1, 0x90, 0xf4];
        data.extend([0x10, 1, 2, 3, 4, 5, 6, 7, 8]);
        let program = program(&data).unwrap();
        assert_eq!((program.start, program.offset, program.code.as_slice()), (Start::L64, 0xffc, &[0x90, 0xf4][..]));
        assert_eq!(program.registers, [(0x10, 0x0807_0605_0403_0201)]);
        assert_eq!(bytes(&program), data);
        assert!(super::program(&data[..9]).is_none() && super::program(&[]).is_none());
    }
}
