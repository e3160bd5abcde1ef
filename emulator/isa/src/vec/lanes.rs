//! A 128-bit register as an array of lanes and back. Lane 0 is the least significant.

/// Defines split, join and the lane-wise maps of one element type.
macro_rules! lanes {
    ($t:ty, $n:literal, $split:ident, $join:ident, $map:ident, $map1:ident) => {
        #[inline(always)]
        pub(super) fn $split(v: u128) -> [$t; $n] {
            core::array::from_fn(|i| (v >> (i * (128 / $n))) as $t)
        }

        #[inline(always)]
        pub(super) fn $join(lanes: [$t; $n]) -> u128 {
            let mut bytes = [0u8; 16];
            for (chunk, lane) in bytes.chunks_exact_mut(16 / $n).zip(lanes) {
                chunk.copy_from_slice(&lane.to_le_bytes());
            }
            u128::from_le_bytes(bytes)
        }

        #[inline(always)]
        #[allow(dead_code, reason = "the family is defined as a whole")]
        pub(super) fn $map(a: u128, b: u128, f: impl Fn($t, $t) -> $t) -> u128 {
            let (a, b) = ($split(a), $split(b));
            $join(core::array::from_fn(|i| f(a[i], b[i])))
        }

        #[inline(always)]
        #[allow(dead_code, reason = "the family is defined as a whole")]
        pub(super) fn $map1(a: u128, f: impl Fn($t) -> $t) -> u128 {
            $join($split(a).map(f))
        }
    };
}

lanes!(u8, 16, split_u8, join_u8, map_u8, map1_u8);
lanes!(u16, 8, split_u16, join_u16, map_u16, map1_u16);
lanes!(u32, 4, split_u32, join_u32, map_u32, map1_u32);
lanes!(u64, 2, split_u64, join_u64, map_u64, map1_u64);
lanes!(i8, 16, split_i8, join_i8, map_i8, map1_i8);
lanes!(i16, 8, split_i16, join_i16, map_i16, map1_i16);
lanes!(i32, 4, split_i32, join_i32, map_i32, map1_i32);
lanes!(i64, 2, split_i64, join_i64, map_i64, map1_i64);

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
