//! Cipher and digest instructions for compiled code: by the host's own where it has them, else by [`eval2`]; both are here to be held
//! against each other.

#![allow(unsafe_code)]

use egret_isa::vec::{VecOp, eval2};

/// A leaf: the result of an operation with an immediate takes the place of its first operand.
///
/// # Safety
/// The vectors are alive and nobody else's.
pub type Leaf = unsafe extern "C" fn(vectors: *mut [u128; 3], imm: u64, unused: u64) -> u64;

/// How many leaves there are.
pub const COUNT: usize = 12;

/// What the leaves do.
pub const OPS: [VecOp; COUNT] = {
    use VecOp::*;
    [AesEnc, AesEncLast, AesDec, AesDecLast, AesImc, CarrylessMul, Sha1Rounds4, Sha1NextE, Sha1Msg1, Sha1Msg2, Sha256Msg1, Sha256Msg2]
};

/// The portable leaf number `N`.
unsafe extern "C" fn portable<const N: usize>(vectors: *mut [u128; 3], imm: u64, _: u64) -> u64 {
    // SAFETY: as the caller says.
    let v = unsafe { &mut *vectors };
    v[0] = eval2(OPS[N], v[0], v[1], imm as u8);
    0
}

const PORTABLE: [Leaf; COUNT] = [
    portable::<0>,
    portable::<1>,
    portable::<2>,
    portable::<3>,
    portable::<4>,
    portable::<5>,
    portable::<6>,
    portable::<7>,
    portable::<8>,
    portable::<9>,
    portable::<10>,
    portable::<11>,
];

#[cfg(target_arch = "x86_64")]
mod imp {
    use super::{COUNT, Leaf, PORTABLE};
    use core::arch::x86_64::*;
    use std::arch::is_x86_feature_detected;

    /// A leaf that is an instruction of the host's.
    macro_rules! leaf {
        ($name:ident, $feature:literal, |$a:ident, $b:ident, $imm:pat_param| $result:expr) => {
            #[target_feature(enable = $feature)]
            unsafe extern "C" fn $name(vectors: *mut [u128; 3], $imm: u64, _: u64) -> u64 {
                let v: *mut __m128i = vectors.cast();
                // SAFETY: as the caller says; the host has the feature.
                unsafe {
                    let $a = _mm_loadu_si128(v);
                    let $b = _mm_loadu_si128(v.add(1));
                    _mm_storeu_si128(v, $result);
                }
                0
            }
        };
    }

    leaf!(aes_enc, "aes", |a, b, _| _mm_aesenc_si128(a, b));
    leaf!(aes_enc_last, "aes", |a, b, _| _mm_aesenclast_si128(a, b));
    leaf!(aes_dec, "aes", |a, b, _| _mm_aesdec_si128(a, b));
    leaf!(aes_dec_last, "aes", |a, b, _| _mm_aesdeclast_si128(a, b));
    leaf!(aes_imc, "aes", |_a, b, _| _mm_aesimc_si128(b));
    leaf!(carryless_mul, "pclmulqdq", |a, b, imm| match imm & 0x11 {
        0 => _mm_clmulepi64_si128::<0>(a, b),
        1 => _mm_clmulepi64_si128::<1>(a, b),
        0x10 => _mm_clmulepi64_si128::<0x10>(a, b),
        _ => _mm_clmulepi64_si128::<0x11>(a, b),
    });
    leaf!(sha1_rounds4, "sha", |a, b, imm| match imm & 3 {
        0 => _mm_sha1rnds4_epu32::<0>(a, b),
        1 => _mm_sha1rnds4_epu32::<1>(a, b),
        2 => _mm_sha1rnds4_epu32::<2>(a, b),
        _ => _mm_sha1rnds4_epu32::<3>(a, b),
    });
    leaf!(sha1_next_e, "sha", |a, b, _| _mm_sha1nexte_epu32(a, b));
    leaf!(sha1_msg1, "sha", |a, b, _| _mm_sha1msg1_epu32(a, b));
    leaf!(sha1_msg2, "sha", |a, b, _| _mm_sha1msg2_epu32(a, b));
    leaf!(sha256_msg1, "sha", |a, b, _| _mm_sha256msg1_epu32(a, b));
    leaf!(sha256_msg2, "sha", |a, b, _| _mm_sha256msg2_epu32(a, b));

    pub fn leaves() -> [Leaf; COUNT] {
        let mut leaves = PORTABLE;
        let mut replace = |at: usize, has: bool, own: &[Leaf]| {
            if has {
                leaves[at..at + own.len()].copy_from_slice(own);
            }
        };
        replace(0, is_x86_feature_detected!("aes"), &[aes_enc, aes_enc_last, aes_dec, aes_dec_last, aes_imc]);
        replace(5, is_x86_feature_detected!("pclmulqdq"), &[carryless_mul]);
        let sha: &[Leaf] = &[sha1_rounds4, sha1_next_e, sha1_msg1, sha1_msg2, sha256_msg1, sha256_msg2];
        replace(6, is_x86_feature_detected!("sha"), sha);
        leaves
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    pub fn leaves() -> [super::Leaf; super::COUNT] {
        super::PORTABLE
    }
}

/// The leaves in the order of [`OPS`].
#[must_use]
pub fn leaves() -> [Leaf; COUNT] {
    imp::leaves()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn the_host_does_what_we_do() {
        let mut random = SmallRng::seed_from_u64(1);
        for (n, (host, portable)) in leaves().iter().zip(PORTABLE).enumerate() {
            for imm in 0..=255 {
                let (a, b) = (random.random(), random.random());
                let (mut x, mut y) = ([a, b, b], [a, b, b]);
                // SAFETY: both are ours.
                unsafe {
                    host(&mut x, imm, 0);
                    portable(&mut y, imm, 0);
                }
                assert_eq!(x, y, "{:?} {imm:#x}", OPS[n]);
            }
        }
    }
}
