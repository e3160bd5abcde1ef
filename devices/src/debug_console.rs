//! The debug console: bytes written to port E9h go to the host, as Bochs had it first; a read gives E9h, by which a guest
//! knows that it is there.

use crate::uart16550::Sink;
use egret_bus::{Access, Device};

/// The debug console.
pub struct DebugConsole {
    sink: Sink,
}

impl DebugConsole {
    /// A console that writes to `sink`.
    #[must_use]
    pub fn new(sink: Sink) -> DebugConsole {
        DebugConsole { sink }
    }
}

impl Default for DebugConsole {
    /// A console that nobody listens to.
    fn default() -> DebugConsole {
        DebugConsole::new(Box::new(|_| {}))
    }
}

impl Device for DebugConsole {
    fn name(&self) -> &'static str {
        "debug console"
    }

    fn read(&mut self, _at: Access) -> u64 {
        0xe9
    }

    fn write(&mut self, at: Access, value: u64) {
        crate::wide::write(at, value, |_, byte| (self.sink)(byte));
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::Ticks;
    use std::sync::mpsc::channel;

    #[test]
    fn bytes_reach_the_host() {
        let (send, receive) = channel();
        let mut console = DebugConsole::new(Box::new(move |byte| send.send(byte).expect("open")));
        console.write(Access { region: 0, offset: 0, size: 1, now: Ticks(0) }, 0x141);
        console.write(Access { region: 0, offset: 0, size: 2, now: Ticks(0) }, 0x4342);
        assert_eq!(receive.try_iter().collect::<Vec<_>>(), b"ABC");
        assert_eq!(console.read(Access { region: 0, offset: 0, size: 1, now: Ticks(0) }), 0xe9);
    }
}
