//! The diagnostic port (80h): keeps the last code written. Guests also write it to wait a microsecond.

use crate::Chip;
use egret_bus::{Access, Device};

/// The diagnostic port.
#[derive(Default)]
pub struct Post {
    code: u8,
}

impl Post {
    /// The last code written.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl Device for Post {
    fn name(&self) -> &'static str {
        "POST"
    }

    fn read(&mut self, _at: Access) -> u64 {
        self.code.into()
    }

    fn write(&mut self, _at: Access, value: u64) {
        self.code = value as u8;
    }

    fn reset(&mut self) {
        self.code = 0;
    }
}

impl Chip for Post {
    type State = u8;

    fn state(&self) -> &u8 {
        &self.code
    }

    fn restore(&mut self, state: u8) {
        self.code = state;
    }
}
