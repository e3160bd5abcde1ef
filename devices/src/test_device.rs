//! The test device of unit tests for virtual machines: ports that give back what was written, a line of memory-mapped I/O
//! that does the same, and ports that drive interrupt lines. Its places are those that such tests expect: E0h (4 bytes), E4h
//! (flush, nothing here), E8h, 2000h (one port a line), FF000000h (64 KiB).

use crate::Chip;
use egret_bus::{Access, Device, IrqLine};

/// Regions.
pub mod region {
    /// A doubleword that is kept.
    pub const WORD: u8 = 0;
    /// Accepts anything.
    pub const FLUSH: u8 = 1;
    /// Bytes that are kept.
    pub const BYTES: u8 = 2;
    /// One port for each interrupt line: its level is bit 0.
    pub const LINES: u8 = 3;
    /// Memory-mapped I/O that is kept.
    pub const MEMORY: u8 = 4;
}

/// Bytes of [`region::MEMORY`].
pub const MEMORY_LEN: usize = 0x1_0000;

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// [`region::WORD`].
    pub word: [u8; 4],
    /// [`region::BYTES`].
    pub bytes: [u8; 4],
    /// [`region::MEMORY`].
    pub memory: Vec<u8>,
}

/// The device.
pub struct TestDevice {
    state: State,
    lines: Vec<IrqLine>,
}

impl TestDevice {
    /// A device that drives `lines`.
    #[must_use]
    pub fn new(lines: Vec<IrqLine>) -> TestDevice {
        TestDevice { state: State { word: [0; 4], bytes: [0; 4], memory: vec![0; MEMORY_LEN] }, lines }
    }

    fn kept(&mut self, region: u8) -> &mut [u8] {
        match region {
            region::WORD => &mut self.state.word,
            region::BYTES => &mut self.state.bytes,
            region::MEMORY => &mut self.state.memory,
            _ => &mut [],
        }
    }
}

impl Device for TestDevice {
    fn name(&self) -> &'static str {
        "test device"
    }

    fn read(&mut self, at: Access) -> u64 {
        let kept = self.kept(at.region);
        crate::wide::read(at, |n| usize::try_from(n).ok().and_then(|n| kept.get(n)).copied().unwrap_or(0))
    }

    fn write(&mut self, at: Access, value: u64) {
        if at.region == region::LINES {
            if let Some(line) = usize::try_from(at.offset).ok().and_then(|n| self.lines.get_mut(n)) {
                line.set(value & 1 != 0);
            }
            return;
        }
        let kept = self.kept(at.region);
        crate::wide::write(at, value, |n, byte| {
            if let Some(slot) = usize::try_from(n).ok().and_then(|n| kept.get_mut(n)) {
                *slot = byte;
            }
        });
    }

    fn reset(&mut self) {
        self.state = State { word: [0; 4], bytes: [0; 4], memory: vec![0; MEMORY_LEN] };
        self.lines.iter_mut().for_each(|l| l.set(false));
    }
}

impl Chip for TestDevice {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::{LineChange, Lines, Ticks};

    #[test]
    fn it_keeps_what_is_written_and_drives_lines() {
        let lines = Lines::default();
        let mut d = TestDevice::new((0..24).map(|n| lines.line(n)).collect());
        let at = |region, offset, size| Access { region, offset, size, now: Ticks(0) };
        d.write(at(region::WORD, 0, 4), 0x1234_5678);
        assert_eq!(
            (d.read(at(region::WORD, 0, 4)), d.read(at(region::WORD, 0, 1)), d.read(at(region::WORD, 2, 2))),
            (0x1234_5678, 0x78, 0x1234)
        );
        d.write(at(region::MEMORY, 0xfff8, 8), 0x0102_0304_0506_0708);
        assert_eq!(d.read(at(region::MEMORY, 0xffff, 8)), 1, "nothing behind the end");
        d.write(at(region::LINES, 14, 1), 1);
        d.write(at(region::LINES, 14, 1), 1);
        d.write(at(region::LINES, 99, 1), 1);
        d.write(at(region::LINES, 14, 1), 0);
        let change = |level| Some(LineChange { line: 14, level });
        assert_eq!((lines.take(), lines.take(), lines.take()), (change(true), change(false), None));
    }
}
