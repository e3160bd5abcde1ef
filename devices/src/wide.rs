//! Wide accesses to 8-bit chips: a PC's bridge makes bytes of them, lowest first.

use egret_bus::Access;

/// Reads `at.size` bytes, each from its own offset.
pub fn read(at: Access, mut byte: impl FnMut(u64) -> u8) -> u64 {
    (0..u64::from(at.size.min(8))).fold(0, |value, i| value | u64::from(byte(at.offset.wrapping_add(i))) << (8 * i))
}

/// Writes `at.size` bytes, each to its own offset.
pub fn write(at: Access, value: u64, mut byte: impl FnMut(u64, u8)) {
    for i in 0..u64::from(at.size.min(8)) {
        byte(at.offset.wrapping_add(i), (value >> (8 * i)) as u8);
    }
}
