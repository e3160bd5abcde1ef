//! SSE4.2 string comparison: SDM Vol. 2, 4.1 "Imm8 Control Byte Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI / PCMPISTRM".

use super::StringOp;
use super::lanes::*;

/// What a string comparison gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringResult {
    /// The index for ECX, or the mask for XMM0.
    pub value: u128,
    /// CF: something matched.
    pub cf: bool,
    /// ZF: string `b` ends within the register.
    pub zf: bool,
    /// SF: string `a` ends within the register.
    pub sf: bool,
    /// OF: bit 0 of the match mask.
    pub of: bool,
}

/// The elements of a register, widened, and how many of them belong to the string.
struct Text {
    at: [i32; 16],
    len: u32,
}

impl Text {
    fn new(v: u128, imm: u8, length: Option<u64>) -> Text {
        let mut at = [0i32; 16];
        let count = elements(imm);
        match imm & 3 {
            0 => at.iter_mut().zip(split_u8(v)).for_each(|(to, from)| *to = from.into()),
            1 => at.iter_mut().zip(split_u16(v)).for_each(|(to, from)| *to = from.into()),
            2 => at.iter_mut().zip(split_i8(v)).for_each(|(to, from)| *to = from.into()),
            _ => at.iter_mut().zip(split_i16(v)).for_each(|(to, from)| *to = from.into()),
        }
        let len = match length {
            Some(n) => n.min(count.into()) as u32,
            None => at.iter().take(count as usize).position(|&c| c == 0).map_or(count, |n| n as u32),
        };
        Text { at, len }
    }
}

/// Elements in a register.
fn elements(imm: u8) -> u32 {
    if imm & 1 != 0 { 8 } else { 16 }
}

/// The result of PCMPxSTRx: `a` is the first operand, `b` the second. `rax` and `rdx` are the lengths of the explicit forms, of which
/// the absolute value counts.
pub fn compare_strings(op: StringOp, a: u128, b: u128, rax: u64, rdx: u64, imm: u8) -> StringResult {
    let length = |register: u64| {
        let signed = if op.wide { register as i64 } else { i64::from(register as i32) };
        op.explicit.then(|| signed.unsigned_abs())
    };
    let (a, b) = (Text::new(a, imm, length(rax)), Text::new(b, imm, length(rdx)));
    let count = elements(imm);
    let matches = match imm >> 2 & 3 {
        0 => equal_any(&a, &b),
        1 => ranges(&a, &b),
        2 => equal_each(&a, &b, count),
        _ => equal_ordered(&a, &b, count),
    };
    let all = (1u32 << count) - 1;
    let result = match imm >> 4 & 3 {
        1 => !matches & all,
        // Only elements of the string are negated.
        3 => matches ^ ((1u32 << b.len) - 1),
        _ => matches,
    };
    let value = if op.mask { mask(result, count, imm & 0x40 != 0) } else { index(result, count, imm & 0x40 != 0).into() };
    StringResult { value, cf: result != 0, zf: b.len < count, sf: a.len < count, of: result & 1 != 0 }
}

fn valid(t: &Text) -> &[i32] {
    t.at.get(..t.len as usize).unwrap_or(&t.at)
}

/// A bit for each element for which `f` holds.
fn collect(n: usize, f: impl Fn(usize) -> bool) -> u32 {
    (0..n).fold(0, |bits, i| bits | (u32::from(f(i)) << i))
}

/// Elements of `b` that are in the set `a`.
fn equal_any(a: &Text, b: &Text) -> u32 {
    let (set, text) = (valid(a), valid(b));
    collect(text.len(), |j| set.contains(&text[j]))
}

/// Elements of `b` within one of the ranges of `a`.
fn ranges(a: &Text, b: &Text) -> u32 {
    let (set, text) = (valid(a), valid(b));
    collect(text.len(), |j| set.chunks_exact(2).any(|pair| (pair[0]..=pair[1]).contains(&text[j])))
}

/// Positions where both are equal; both having ended counts as equal.
fn equal_each(a: &Text, b: &Text, count: u32) -> u32 {
    collect(count as usize, |i| match ((i as u32) < a.len, (i as u32) < b.len) {
        (true, true) => a.at[i] == b.at[i],
        (in_a, in_b) => in_a == in_b,
    })
}

/// Positions of `b` where `a`, or as much of it as fits into the register, begins.
fn equal_ordered(a: &Text, b: &Text, count: u32) -> u32 {
    let (needle, text, count) = (valid(a), valid(b), count as usize);
    collect(count, |j| (0..needle.len().min(count - j)).all(|i| text.get(j + i) == needle.get(i)))
}

fn index(result: u32, count: u32, most_significant: bool) -> u32 {
    match result {
        0 => count,
        _ if most_significant => result.ilog2(),
        _ => result.trailing_zeros(),
    }
}

fn mask(result: u32, count: u32, expand: bool) -> u128 {
    if !expand {
        return result.into();
    }
    let ones = |i: usize| result >> i & 1 != 0;
    match count {
        8 => join_u16(core::array::from_fn(|i| if ones(i) { u16::MAX } else { 0 })),
        _ => join_u8(core::array::from_fn(|i| if ones(i) { u8::MAX } else { 0 })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> u128 {
        let mut bytes = [0; 16];
        bytes[..s.len()].copy_from_slice(s.as_bytes());
        u128::from_le_bytes(bytes)
    }

    fn check(a: &str, b: &str, imm: u8, value: u128, cf: bool) {
        let op = StringOp { explicit: false, wide: false, mask: false };
        let r = compare_strings(op, text(a), text(b), 0, 0, imm);
        assert_eq!((r.value, r.cf), (value, cf), "{a:?} {b:?} {imm:#x}: {r:?}");
    }

    #[test]
    fn indexes() {
        check("aeiou", "rhythm and", 0x00, 7, true);
        check("az", "ABCdef", 0x04, 3, true);
        check("hello", "help", 0x18, 3, true);
        check("needle", "a needle", 0x0c, 2, true);
        check("xyz", "abc", 0x00, 16, false);
        check("abcabc", "abcabc", 0x58, 16, false);
        check("az", "abc1x", 0x44, 4, true);
    }

    #[test]
    fn lengths_count_by_absolute_value() {
        let op = StringOp { explicit: true, wide: false, mask: true };
        let r = compare_strings(op, text("aaaa"), text("aaaa"), -2i64 as u64, 0x1_0000_0003, 0x08);
        assert_eq!((r.value, r.zf, r.sf), (0xfffb, true, true));
    }
}
