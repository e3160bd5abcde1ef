//! RCPPS and RSQRTPS: approximations with a relative error of at most 1.5 × 2^-12.
//!
//! The SDM leaves the bits to the implementation. Here they are the exact result, rounded to the nearest number of 13 significant
//! bits (relative error at most 2^-13), by integer arithmetic: the same on every host. Neither raises flags nor looks at MXCSR.

const SIGN: u32 = 0x8000_0000;
const INF: u32 = 0x7f80_0000;
const INDEFINITE: u32 = 0xffc0_0000;

/// `sig × 2^exp` with `sig` of 14 bits, the last of which rounds, to an `f32`.
fn pack13(sign: u32, exp: i32, sig14: u32) -> u32 {
    // Rounding may carry into 2^13: adding the fraction to the exponent field takes care of it.
    let rounded = (sig14 + 1) >> 1;
    let field = exp + 127;
    let magnitude = ((field as u32) << 23).wrapping_add((rounded - (1 << 12)) << 11);
    if field < 1 && magnitude & INF == 0 || field < 0 { sign } else { sign | magnitude }
}

/// RCPSS: 1/x. Denormals count as zeros and give an infinity; tiny results are flushed to zero.
pub fn rcp32(a: u32) -> u32 {
    let sign = a & SIGN;
    let magnitude = a & !SIGN;
    match magnitude {
        0..0x0080_0000 => sign | INF,
        INF => sign,
        0x7f80_0001.. => a | 0x0040_0000,
        _ => {
            let sig = (magnitude & 0x007f_ffff) | 0x0080_0000;
            let exp = (magnitude >> 23) as i32 - 127;
            if sig == 0x0080_0000 {
                return pack13(sign, -exp, 1 << 13);
            }
            // 1/m for m in (1, 2) is 2^-1 × q/2^13 with q of 14 bits.
            let q = (1u64 << 37) / sig as u64;
            pack13(sign, -exp - 1, q as u32)
        }
    }
}

/// RSQRTSS: 1/√x. Denormals count as zeros and give an infinity; other negative operands give the default NaN.
pub fn rsqrt32(a: u32) -> u32 {
    let sign = a & SIGN;
    let magnitude = a & !SIGN;
    match magnitude {
        0..0x0080_0000 => sign | INF,
        0x7f80_0001.. => a | 0x0040_0000,
        _ if sign != 0 => INDEFINITE,
        INF => 0,
        _ => {
            let exp = (magnitude >> 23) as i32 - 127;
            let sig = ((magnitude & 0x007f_ffff) | 0x0080_0000) as u64;
            let odd = exp & 1;
            let half = (exp - odd) >> 1;
            // m in [1, 4) is sig / 2^(23 - odd); 2^14/√m = √(2^28 / m).
            let q = ((1u64 << (51 - odd)) / sig).isqrt() as u32;
            if q == 1 << 14 {
                return pack13(0, -half, 1 << 13);
            }
            pack13(0, -half - 1, q)
        }
    }
}
