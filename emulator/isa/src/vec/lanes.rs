//! A 128-bit register as an array of lanes and back. Lane 0 is the least significant.

/// Defines split, join and the lane-wise maps of one element type.
macro_rules! lanes {
    ($how:ident, $t:ty, $n:literal, $split:ident, $join:ident, $map:ident, $map1:ident) => {
        #[inline(always)]
        pub(super) fn $split(v: u128) -> [$t; $n] {
            let bytes = v.to_le_bytes();
            core::array::from_fn(|i| <$t>::from_le_bytes(core::array::from_fn(|j| bytes[i * (16 / $n) + j])))
        }

        #[inline(always)]
        pub(super) fn $join(lanes: [$t; $n]) -> u128 {
            let mut bytes = [0u8; 16];
            for (chunk, lane) in bytes.chunks_exact_mut(16 / $n).zip(lanes) {
                chunk.copy_from_slice(&lane.to_le_bytes());
            }
            u128::from_le_bytes(bytes)
        }

        $how! { $t, $n, $split, $join, $map }

        #[inline(always)]
        #[allow(dead_code, reason = "the family is defined as a whole")]
        pub(super) fn $map1(a: u128, f: impl Fn($t) -> $t) -> u128 {
            $map(a, a, |v, _| f(v))
        }
    };
}

/// A lane-wise map of few lanes, done in general registers.
macro_rules! few {
    ($t:ty, $n:literal, $split:ident, $join:ident, $map:ident) => {
        #[inline(always)]
        pub(super) fn $map(a: u128, b: u128, f: impl Fn($t, $t) -> $t) -> u128 {
            let (a, b) = ($split(a), $split(b));
            $join(core::array::from_fn(|i| f(a[i], b[i])))
        }
    };
}

/// A lane-wise map of many lanes. Out of line with its operands in memory, LLVM makes one SIMD operation of it; inlined, it takes
/// registers apart by shifts, which takes three times as long for bytes.
macro_rules! many {
    ($t:ty, $n:literal, $split:ident, $join:ident, $map:ident) => {
        #[inline(always)]
        pub(super) fn $map(a: u128, b: u128, f: impl Fn($t, $t) -> $t) -> u128 {
            #[inline(never)]
            fn apply(a: &[u8; 16], b: &[u8; 16], out: &mut [u8; 16], f: impl Fn($t, $t) -> $t) {
                let (a, b) = (a.as_chunks().0, b.as_chunks().0);
                for ((out, &a), &b) in out.as_chunks_mut().0.iter_mut().zip(a).zip(b) {
                    *out = f(<$t>::from_le_bytes(a), <$t>::from_le_bytes(b)).to_le_bytes();
                }
            }
            let mut out = [0; 16];
            apply(&a.to_le_bytes(), &b.to_le_bytes(), &mut out, f);
            u128::from_le_bytes(out)
        }
    };
}

lanes!(many, u8, 16, split_u8, join_u8, map_u8, map1_u8);
lanes!(many, u16, 8, split_u16, join_u16, map_u16, map1_u16);
lanes!(few, u32, 4, split_u32, join_u32, map_u32, map1_u32);
lanes!(few, u64, 2, split_u64, join_u64, map_u64, map1_u64);
lanes!(many, i8, 16, split_i8, join_i8, map_i8, map1_i8);
lanes!(many, i16, 8, split_i16, join_i16, map_i16, map1_i16);
lanes!(few, i32, 4, split_i32, join_i32, map_i32, map1_i32);
lanes!(few, i64, 2, split_i64, join_i64, map_i64, map1_i64);

/// Applies one lane function at the width of a [`Shape`](super::Shape), on unsigned lanes.
macro_rules! unsigned {
    ($shape:expr, $a:expr, $b:expr, |$x:ident, $y:ident| $e:expr) => {
        match $shape {
            Shape::I8 => map_u8($a, $b, |$x, $y| $e),
            Shape::I16 => map_u16($a, $b, |$x, $y| $e),
            Shape::I32 | Shape::F32 => map_u32($a, $b, |$x, $y| $e),
            Shape::I64 | Shape::F64 => map_u64($a, $b, |$x, $y| $e),
        }
    };
}

/// The same on signed lanes.
macro_rules! signed {
    ($shape:expr, $a:expr, $b:expr, |$x:ident, $y:ident| $e:expr) => {
        match $shape {
            Shape::I8 => map_i8($a, $b, |$x, $y| $e),
            Shape::I16 => map_i16($a, $b, |$x, $y| $e),
            Shape::I32 | Shape::F32 => map_i32($a, $b, |$x, $y| $e),
            Shape::I64 | Shape::F64 => map_i64($a, $b, |$x, $y| $e),
        }
    };
}

pub(super) use {signed, unsigned};
