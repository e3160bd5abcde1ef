//! The two 8237A DMA controllers and their page registers, as registers: guests program and read them back. No chip of
//! this machine asks for ISA DMA, so no transfer ever starts.

use crate::{Chip, wide};
use egret_bus::{Access, Device};

/// Region numbers, as the machine maps them.
pub mod region {
    /// First controller, ports 00h-0Fh, registers one byte apart.
    pub const FIRST: u8 = 0;
    /// Second controller, ports C0h-DFh, registers two bytes apart.
    pub const SECOND: u8 = 1;
    /// Page registers, ports 81h-8Fh.
    pub const PAGES: u8 = 2;
}

/// One 8237A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Controller {
    /// Base and current address and count of the four channels, in port order.
    base: [u16; 8],
    current: [u16; 8],
    /// The byte-pointer flip-flop: the next byte is the high one.
    high: bool,
    command: u8,
    mask: u8,
    mode: [u8; 4],
    request: u8,
}

/// Offsets of the control registers.
mod reg {
    pub const STATUS_COMMAND: u64 = 8;
    pub const REQUEST: u64 = 9;
    pub const SINGLE_MASK: u64 = 10;
    pub const MODE: u64 = 11;
    pub const CLEAR_FLIP_FLOP: u64 = 12;
    pub const MASTER_CLEAR: u64 = 13;
    pub const CLEAR_MASK: u64 = 14;
    pub const ALL_MASK: u64 = 15;
}

impl Controller {
    fn reset() -> Controller {
        Controller { mask: 0xf, ..Controller::default() }
    }

    fn read(&mut self, register: u64) -> u8 {
        if let Some(word) = self.current.get(register as usize) {
            let byte = if self.high { word >> 8 } else { *word } as u8;
            self.high = !self.high;
            return byte;
        }
        match register {
            reg::STATUS_COMMAND => self.request << 4,
            reg::ALL_MASK => self.mask | 0xf0,
            _ => 0,
        }
    }

    fn write(&mut self, register: u64, value: u8) {
        let bit = 1 << (value & 3);
        match register {
            0..8 => self.write_word(register as usize, value),
            reg::STATUS_COMMAND => self.command = value,
            reg::REQUEST => self.request = if value & 4 != 0 { self.request | bit } else { self.request & !bit },
            reg::SINGLE_MASK => self.mask = if value & 4 != 0 { self.mask | bit } else { self.mask & !bit },
            reg::MODE => self.mode[usize::from(value & 3)] = value,
            reg::CLEAR_FLIP_FLOP => self.high = false,
            reg::MASTER_CLEAR => *self = Controller::reset(),
            reg::CLEAR_MASK => self.mask = 0,
            _ => self.mask = value & 0xf,
        }
    }

    fn write_word(&mut self, n: usize, value: u8) {
        let Some(word) = self.base.get_mut(n) else { return };
        *word = if self.high { *word & 0xff | u16::from(value) << 8 } else { *word & 0xff00 | u16::from(value) };
        self.current[n] = *word;
        self.high = !self.high;
    }
}

/// What both controllers and the page registers hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    controllers: [Controller; 2],
    pages: [u8; 16],
}

/// Both controllers and the page registers.
pub struct Dma {
    state: State,
}

impl Default for Dma {
    fn default() -> Self {
        Dma { state: State { controllers: [Controller::reset(); 2], pages: [0; 16] } }
    }
}

impl Device for Dma {
    fn name(&self) -> &'static str {
        "8237A"
    }

    fn read(&mut self, at: Access) -> u64 {
        let State { controllers, pages } = &mut self.state;
        wide::read(at, |offset| match at.region {
            region::FIRST => controllers[0].read(offset & 15),
            region::SECOND => controllers[1].read(offset >> 1 & 15),
            _ => pages[offset as usize & 15],
        })
    }

    fn write(&mut self, at: Access, value: u64) {
        let State { controllers, pages } = &mut self.state;
        wide::write(at, value, |offset, byte| match at.region {
            region::FIRST => controllers[0].write(offset & 15, byte),
            region::SECOND => controllers[1].write(offset >> 1 & 15, byte),
            _ => pages[offset as usize & 15] = byte,
        });
    }

    fn reset(&mut self) {
        *self = Dma::default();
    }
}

impl Chip for Dma {
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
    use egret_bus::Ticks;

    #[test]
    fn words_go_through_the_flip_flop() {
        let mut dma = Dma::default();
        let at = |region, offset| Access { region, offset, size: 1, now: Ticks(0) };
        dma.write(at(region::FIRST, reg::CLEAR_FLIP_FLOP), 0);
        dma.write(at(region::FIRST, 2), 0x34);
        dma.write(at(region::FIRST, 2), 0x12);
        assert_eq!((dma.read(at(region::FIRST, 2)), dma.read(at(region::FIRST, 2))), (0x34, 0x12));
        assert_eq!(dma.read(at(region::SECOND, 2 * reg::ALL_MASK)), 0xff);
        dma.write(at(region::SECOND, 2 * reg::SINGLE_MASK), 2);
        assert_eq!(dma.read(at(region::SECOND, 2 * reg::ALL_MASK)), 0xfb);
        dma.write(at(region::PAGES, 3), 0x55);
        assert_eq!(dma.read(at(region::PAGES, 3)), 0x55);
    }
}
