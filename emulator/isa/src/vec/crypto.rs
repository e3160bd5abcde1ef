//! AES, carry-less multiplication and SHA.

use super::VecOp;
use super::lanes::*;

/// Multiplication by x in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4.2).
const fn xtime(v: u8) -> u8 {
    (v << 1) ^ (if v & 0x80 != 0 { 0x1b } else { 0 })
}

/// Product in the same field.
const fn gf_mul(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = xtime(a);
        b >>= 1;
    }
    product
}

/// FIPS 197, 5.1.1: the inverse in the field, then an affine map.
const fn sub_byte(v: u8) -> u8 {
    // v^254 is the inverse; 254 = 2 + 4 + ... + 128.
    let (mut power, mut inverse, mut n) = (v, 1, 0);
    while n < 7 {
        power = gf_mul(power, power);
        inverse = gf_mul(inverse, power);
        n += 1;
    }
    let i = inverse;
    i ^ i.rotate_left(1) ^ i.rotate_left(2) ^ i.rotate_left(3) ^ i.rotate_left(4) ^ 0x63
}

/// The S-box and its inverse.
const S_BOXES: ([u8; 256], [u8; 256]) = {
    let (mut forward, mut inverse) = ([0; 256], [0; 256]);
    let mut n = 0;
    while n < 256 {
        let s = sub_byte(n as u8);
        forward[n] = s;
        inverse[s as usize] = n as u8;
        n += 1;
    }
    (forward, inverse)
};

static S_BOX: [u8; 256] = S_BOXES.0;
static INV_S_BOX: [u8; 256] = S_BOXES.1;

#[inline]
fn substitute(v: u128, table: &[u8; 256]) -> u128 {
    map1_u8(v, |b| table[usize::from(b)])
}

/// Byte `row + 4 * column` of the state; row n moves left by n columns.
#[inline]
fn shift_rows(v: u128) -> u128 {
    let s = split_u8(v);
    join_u8(core::array::from_fn(|i| s[(i + 4 * (i % 4)) % 16]))
}

#[inline]
fn inv_shift_rows(v: u128) -> u128 {
    let s = split_u8(v);
    join_u8(core::array::from_fn(|i| s[(i + 12 * (i % 4)) % 16]))
}

/// `xtime` of the four bytes of a column.
#[inline]
fn xtime4(v: u32) -> u32 {
    let high = v & 0x8080_8080;
    ((v & 0x7f7f_7f7f) << 1) ^ (high >> 7).wrapping_mul(0x1b)
}

/// FIPS 197, 5.1.3: each byte is 2·self + 3·next + the two after it.
#[inline]
fn mix_column(v: u32) -> u32 {
    let double = xtime4(v);
    double ^ (v ^ double).rotate_right(8) ^ v.rotate_right(16) ^ v.rotate_right(24)
}

/// The inverse matrix is the matrix times (05, 00, 04, 00).
#[inline]
fn inv_mix_column(v: u32) -> u32 {
    let four = xtime4(xtime4(v ^ v.rotate_right(16)));
    mix_column(v ^ four)
}

/// SDM Vol. 1, 12.12 "AESNI": the state's bytes are in memory order, as the register's.
#[inline]
pub(super) fn aes(op: VecOp, a: u128, b: u128, imm: u8) -> u128 {
    match op {
        VecOp::AesEnc => map1_u32(substitute(shift_rows(a), &S_BOX), mix_column) ^ b,
        VecOp::AesEncLast => substitute(shift_rows(a), &S_BOX) ^ b,
        VecOp::AesDec => map1_u32(substitute(inv_shift_rows(a), &INV_S_BOX), inv_mix_column) ^ b,
        VecOp::AesDecLast => substitute(inv_shift_rows(a), &INV_S_BOX) ^ b,
        VecOp::AesImc => map1_u32(b, inv_mix_column),
        _ => {
            // AESKEYGENASSIST: SubWord of doublewords 1 and 3, and their rotations with the round constant.
            let v = split_u32(substitute(b, &S_BOX));
            let rotated = |v: u32| v.rotate_right(8) ^ u32::from(imm);
            join_u32([v[1], rotated(v[1]), v[3], rotated(v[3])])
        }
    }
}

/// PCLMULQDQ: imm\[0\] picks the quadword of `a`, imm\[4\] that of `b`.
#[inline]
pub(super) fn carryless_mul(a: u128, b: u128, imm: u8) -> u128 {
    let a = split_u64(a)[usize::from(imm & 1)];
    let b = split_u64(b)[usize::from(imm >> 4 & 1)];
    // The multiples of `a` by all polynomials of four bits, then Horner's scheme.
    let mut multiples = [0u128; 16];
    for n in 1..16 {
        multiples[n] = (multiples[n / 2] << 1) ^ if n % 2 != 0 { u128::from(a) } else { 0 };
    }
    (0..16).rev().fold(0, |product, n| (product << 4) ^ multiples[(b >> (4 * n) & 15) as usize])
}

/// Doublewords with the most significant first, the order in which the SHA instructions name them.
#[inline]
fn words(v: u128) -> [u32; 4] {
    let [d, c, b, a] = split_u32(v);
    [a, b, c, d]
}

#[inline]
fn from_words(v: [u32; 4]) -> u128 {
    join_u32([v[3], v[2], v[1], v[0]])
}

/// FIPS 180-4, 4.1.2.
fn small_sigma0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3)
}

fn small_sigma1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10)
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    (x & y) ^ (!x & z)
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    (x & y) ^ (x & z) ^ (y & z)
}

pub(super) fn sha(op: VecOp, a: u128, b: u128, imm: u8) -> u128 {
    let (x, y) = (words(a), words(b));
    match op {
        VecOp::Sha1Rounds4 => sha1_rounds4(x, y, imm),
        VecOp::Sha1NextE => from_words([y[0].wrapping_add(x[0].rotate_left(30)), y[1], y[2], y[3]]),
        VecOp::Sha1Msg1 => from_words([x[2] ^ x[0], x[3] ^ x[1], y[0] ^ x[2], y[1] ^ x[3]]),
        VecOp::Sha1Msg2 => {
            let w16 = (x[0] ^ y[1]).rotate_left(1);
            from_words([w16, (x[1] ^ y[2]).rotate_left(1), (x[2] ^ y[3]).rotate_left(1), (x[3] ^ w16).rotate_left(1)])
        }
        VecOp::Sha256Msg1 => {
            let next = [y[3], x[0], x[1], x[2]];
            from_words(core::array::from_fn(|i| x[i].wrapping_add(small_sigma0(next[i]))))
        }
        _ => {
            let w16 = x[3].wrapping_add(small_sigma1(y[1]));
            let w17 = x[2].wrapping_add(small_sigma1(y[0]));
            let w18 = x[1].wrapping_add(small_sigma1(w16));
            let w19 = x[0].wrapping_add(small_sigma1(w17));
            from_words([w19, w18, w17, w16])
        }
    }
}

/// SDM Vol. 2, "SHA1RNDS4": E of the first round is already in the first message word.
fn sha1_rounds4(state: [u32; 4], message: [u32; 4], imm: u8) -> u128 {
    let [mut a, mut b, mut c, mut d] = state;
    let mut e = 0u32;
    for w in message {
        let (f, k) = match imm & 3 {
            0 => (choose(b, c, d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => (majority(b, c, d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        let next = f.wrapping_add(a.rotate_left(5)).wrapping_add(w).wrapping_add(e).wrapping_add(k);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    from_words([a, b, c, d])
}

/// SDM Vol. 2, "SHA256RNDS2": `state1` holds C, D, G, H and `state0` A, B, E, F; the low quadword of `wk` two words with constants.
pub(super) fn sha256_rounds2(state1: u128, state0: u128, wk: u128) -> u128 {
    let [mut a, mut b, mut e, mut f] = words(state0);
    let [mut c, mut d, mut g, mut h] = words(state1);
    for w in [wk as u32, (wk >> 32) as u32] {
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t1 = choose(e, f, g).wrapping_add(sigma1).wrapping_add(w).wrapping_add(h);
        let t2 = majority(a, b, c).wrapping_add(sigma0);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    let _ = (c, d, g, h);
    from_words([a, b, e, f])
}

/// Known answers, for hosts that have no such instructions to compare with.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::vec::{Vec3Op, eval2, eval3};

    fn aes128_keys(key: u128) -> [u128; 11] {
        let constants = [1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36];
        let mut keys = [key; 11];
        for (n, &constant) in constants.iter().enumerate() {
            let word = eval2(VecOp::AesKeygenAssist, 0, keys[n], constant) >> 96;
            let k = keys[n];
            let spread = k ^ (k << 32) ^ (k << 64) ^ (k << 96);
            keys[n + 1] = spread ^ (word | word << 32 | word << 64 | word << 96);
        }
        keys
    }

    /// FIPS 197, appendix C.1.
    #[test]
    fn aes128() {
        let keys = aes128_keys(u128::from_be_bytes(core::array::from_fn(|i| i as u8)).swap_bytes());
        let plain = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.swap_bytes();
        let mut state = plain ^ keys[0];
        for &key in &keys[1..10] {
            state = eval2(VecOp::AesEnc, state, key, 0);
        }
        state = eval2(VecOp::AesEncLast, state, keys[10], 0);
        assert_eq!(state.swap_bytes(), 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a);
        state ^= keys[10];
        for &key in keys[1..10].iter().rev() {
            state = eval2(VecOp::AesDec, state, eval2(VecOp::AesImc, 0, key, 0), 0);
        }
        assert_eq!(eval2(VecOp::AesDecLast, state, keys[0], 0), plain);
    }

    /// The block of "abc": 16 words, padded.
    const ABC: [u32; 16] = [0x6162_6380, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24];

    /// The first two rounds of the SHA-256 example "abc" of NIST's example values: A to H after t = 1.
    #[test]
    fn sha256_two_rounds() {
        let abef = from_words([0x6a09_e667, 0xbb67_ae85, 0x510e_527f, 0x9b05_688c]);
        let cdgh = from_words([0x3c6e_f372, 0xa54f_f53a, 0x1f83_d9ab, 0x5be0_cd19]);
        let wk = u128::from(ABC[0].wrapping_add(0x428a_2f98)) | u128::from(ABC[1].wrapping_add(0x7137_4491)) << 32;
        let after = eval3(Vec3Op::Sha256Rounds2, cdgh, abef, wk);
        assert_eq!(words(after), [0x5a6a_d9ad, 0x5d6a_ebcd, 0x78ce_7989, 0xfa2a_4622]);
    }

    /// The first four rounds of the SHA-1 example "abc" of FIPS 180: A to D after t = 3.
    #[test]
    fn sha1_four_rounds() {
        let abcd = from_words([0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]);
        let message = from_words([ABC[0].wrapping_add(0xc3d2_e1f0), ABC[1], ABC[2], ABC[3]]);
        let after = words(eval2(VecOp::Sha1Rounds4, abcd, message, 0));
        assert_eq!(after, [0xcdd8_e11b, 0xa139_0f08, 0x6264_14db, 0xc045_bf0c]);
    }

    #[test]
    fn carryless() {
        let all = u128::from(u64::MAX);
        assert_eq!(eval2(VecOp::CarrylessMul, all, all << 64, 0x10), 0x5555_5555_5555_5555_5555_5555_5555_5555);
        assert_eq!(eval2(VecOp::CarrylessMul, 3 << 64, 3, 0x01), 5);
    }
}
