//! A PS/2 keyboard: scan code set 2 (its default) and set 1. IBM PS/2 Hardware Interface Technical Reference, "Keyboard".

use super::ACK;
use super::queue::Queue;

/// Commands from the host.
mod command {
    pub const SET_LEDS: u8 = 0xed;
    pub const ECHO: u8 = 0xee;
    pub const SCAN_CODE_SET: u8 = 0xf0;
    pub const IDENTIFY: u8 = 0xf2;
    pub const TYPEMATIC: u8 = 0xf3;
    pub const ENABLE: u8 = 0xf4;
    pub const DISABLE: u8 = 0xf5;
    pub const DEFAULTS: u8 = 0xf6;
    pub const RESEND: u8 = 0xfe;
    pub const RESET: u8 = 0xff;
}

/// The self test passed.
const BAT_OK: u8 = 0xaa;
/// Identification of an MF II keyboard.
const ID: [u8; 2] = [0xab, 0x83];

/// Set 2 to set 1, as the 8042 translates; codes from 85h on stay as they are.
const TRANSLATION: [u8; 0x85] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, //
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, //
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, //
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, //
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, //
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, //
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, //
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, //
    0x80, 0x81, 0x82, 0x41, 0x54,
];

/// Set 2: the next code is a release.
pub const BREAK: u8 = 0xf0;

/// A set 2 code in set 1.
pub fn to_set_1(code: u8) -> u8 {
    TRANSLATION.get(usize::from(code)).copied().unwrap_or(code)
}

/// A key, by its scan code in set 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The code: 1ch is A.
    pub code: u8,
    /// The code comes after E0h, as for the grey arrow keys.
    pub extended: bool,
}

/// What the keyboard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyboard {
    pub queue: Queue,
    set: u8,
    scanning: bool,
    /// Scroll, num and caps lock lights, bits 0 to 2.
    pub leds: u8,
    /// The command whose parameter comes next.
    expects: Option<u8>,
}

impl Default for Keyboard {
    fn default() -> Keyboard {
        Keyboard { queue: Queue::default(), set: 2, scanning: true, leds: 0, expects: None }
    }
}

impl Keyboard {
    /// Codes that the keyboard keeps until they are taken.
    const BUFFER: usize = 16;

    /// A key goes down or up. When the buffer is full the host gets an overrun code instead.
    pub fn key(&mut self, key: Key, pressed: bool) {
        let mut codes = Vec::with_capacity(3);
        if key.extended {
            codes.push(0xe0);
        }
        match (self.set, pressed) {
            (1, true) => codes.push(to_set_1(key.code)),
            (1, false) => codes.push(to_set_1(key.code) | 0x80),
            (_, true) => codes.push(key.code),
            (_, false) => codes.extend([BREAK, key.code]),
        }
        self.codes(&codes);
    }

    /// Sends scan codes of the set in use, all or none.
    pub fn codes(&mut self, codes: &[u8]) {
        if !self.scanning {
            return;
        }
        let overrun = if self.set == 1 { 0xff } else { 0x00 };
        // The last place is the overrun code's.
        let data = &mut self.queue.data;
        if data.len() + codes.len() < Self::BUFFER {
            data.extend(codes);
        } else if data.len() < Self::BUFFER && data.back() != Some(&overrun) {
            data.push_back(overrun);
        }
    }

    fn defaults(&mut self) {
        self.set = 2;
        self.queue.data.clear();
    }

    /// A byte from the host.
    pub fn receive(&mut self, byte: u8) {
        // A command where a parameter was expected takes the place of the one before.
        let response: &[u8] = match self.expects.take().filter(|_| byte < command::SET_LEDS) {
            Some(command) => self.parameter(command, byte),
            None => self.command(byte),
        };
        self.queue.respond(response);
    }

    fn parameter(&mut self, command: u8, byte: u8) -> &'static [u8] {
        match (command, byte) {
            (command::SCAN_CODE_SET, 0) if self.set == 1 => return &[ACK, 1],
            (command::SCAN_CODE_SET, 0) => return &[ACK, 2],
            (command::SCAN_CODE_SET, 1 | 2) => {
                self.set = byte;
                self.queue.data.clear();
            }
            // Set 3 is not there.
            (command::SCAN_CODE_SET, _) => return &[super::RESEND],
            (command::SET_LEDS, _) => self.leds = byte & 7,
            // The typematic rate: the host's own keyboard repeats.
            _ => {}
        }
        &[ACK]
    }

    fn command(&mut self, byte: u8) -> &'static [u8] {
        match byte {
            command::SET_LEDS | command::SCAN_CODE_SET | command::TYPEMATIC => self.expects = Some(byte),
            command::ECHO => return &[command::ECHO],
            command::IDENTIFY => return &[ACK, ID[0], ID[1]],
            command::ENABLE => {
                self.queue.data.clear();
                self.scanning = true;
            }
            command::DISABLE => {
                self.defaults();
                self.scanning = false;
            }
            command::DEFAULTS => self.defaults(),
            command::RESEND => {
                self.queue.resend();
                return &[];
            }
            command::RESET => {
                *self = Keyboard { queue: self.queue.clone(), ..Keyboard::default() };
                self.queue.data.clear();
                return &[ACK, BAT_OK];
            }
            _ => return &[super::RESEND],
        }
        &[ACK]
    }
}
