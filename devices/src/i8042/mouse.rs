//! A PS/2 mouse with three buttons. IBM PS/2 Hardware Interface Technical Reference, "Mouse".

use super::ACK;
use super::queue::Queue;
use bitflags::bitflags;

/// Commands from the host.
mod command {
    pub const SCALING_1_1: u8 = 0xe6;
    pub const SCALING_2_1: u8 = 0xe7;
    pub const RESOLUTION: u8 = 0xe8;
    pub const STATUS: u8 = 0xe9;
    pub const STREAM: u8 = 0xea;
    pub const READ_DATA: u8 = 0xeb;
    pub const RESET_WRAP: u8 = 0xec;
    pub const WRAP: u8 = 0xee;
    pub const REMOTE: u8 = 0xf0;
    pub const IDENTIFY: u8 = 0xf2;
    pub const RATE: u8 = 0xf3;
    pub const ENABLE: u8 = 0xf4;
    pub const DISABLE: u8 = 0xf5;
    pub const DEFAULTS: u8 = 0xf6;
    pub const RESEND: u8 = 0xfe;
    pub const RESET: u8 = 0xff;
}

bitflags! {
    /// Buttons, as the first byte of a packet has them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Buttons: u8 {
        /// Left.
        const LEFT = 1 << 0;
        /// Right.
        const RIGHT = 1 << 1;
        /// Middle.
        const MIDDLE = 1 << 2;
    }
}

/// What the mouse holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mouse {
    pub queue: Queue,
    reporting: bool,
    remote: bool,
    wrap: bool,
    scaling_2_1: bool,
    resolution: u8,
    rate: u8,
    expects: Option<u8>,
    buttons: Buttons,
    /// Movement not yet sent; y is up.
    moved: [i32; 2],
    changed: bool,
}

impl Default for Mouse {
    fn default() -> Mouse {
        Mouse {
            queue: Queue::default(),
            reporting: false,
            remote: false,
            wrap: false,
            scaling_2_1: false,
            resolution: 2,
            rate: 100,
            expects: None,
            buttons: Buttons::empty(),
            moved: [0; 2],
            changed: false,
        }
    }
}

/// Scaling 2:1 of one axis.
fn scale(counts: i32) -> i32 {
    let scaled = match counts.abs() {
        n @ (0 | 1 | 3) => n,
        2 => 1,
        4 => 6,
        5 => 9,
        n => n.saturating_mul(2),
    };
    scaled * counts.signum()
}

impl Mouse {
    /// The mouse moves (y is up), with these buttons down from now on.
    pub fn move_by(&mut self, x: i32, y: i32, buttons: Buttons) {
        let limit = |n: i32| n.clamp(-0x10_0000, 0x10_0000);
        self.moved = [limit(self.moved[0].saturating_add(x)), limit(self.moved[1].saturating_add(y))];
        self.changed |= x != 0 || y != 0 || buttons != self.buttons;
        self.buttons = buttons;
        self.report();
    }

    /// In stream mode, makes a packet of what has changed once the one before is gone.
    pub fn report(&mut self) {
        if self.reporting && !self.remote && !self.wrap && self.changed && self.queue.data.is_empty() {
            let packet = self.packet(self.scaling_2_1);
            self.queue.data.extend(packet);
        }
    }

    /// Nine bits of movement an axis; what does not fit stays for the next packet.
    fn packet(&mut self, scaled: bool) -> [u8; 3] {
        let sent = self.moved.map(|n| if scaled { n.clamp(-127, 127) } else { n.clamp(-255, 255) });
        self.moved = [self.moved[0] - sent[0], self.moved[1] - sent[1]];
        self.changed = self.moved != [0; 2];
        let [x, y] = if scaled { sent.map(scale) } else { sent };
        let signs = u8::from(x < 0) << 4 | u8::from(y < 0) << 5;
        [0x08 | self.buttons.bits() | signs, x as u8, y as u8]
    }

    fn status(&self) -> [u8; 3] {
        let mut buttons = u8::from(self.buttons.contains(Buttons::RIGHT));
        buttons |= u8::from(self.buttons.contains(Buttons::MIDDLE)) << 1 | u8::from(self.buttons.contains(Buttons::LEFT)) << 2;
        let modes = u8::from(self.scaling_2_1) << 4 | u8::from(self.reporting) << 5 | u8::from(self.remote) << 6;
        [buttons | modes, self.resolution, self.rate]
    }

    /// Forgets movement, as most commands do.
    fn settle(&mut self) {
        self.moved = [0; 2];
        self.changed = false;
        self.queue.data.clear();
    }

    fn defaults(&mut self) {
        let Mouse { queue, buttons, .. } = std::mem::take(self);
        *self = Mouse { queue, buttons, ..Mouse::default() };
        self.settle();
    }

    /// A byte from the host.
    pub fn receive(&mut self, byte: u8) {
        if self.wrap && byte != command::RESET && byte != command::RESET_WRAP {
            self.queue.respond(&[byte]);
        } else if let Some(command) = self.expects.take() {
            let response = self.parameter(command, byte);
            self.queue.respond(&[response]);
        } else {
            self.command(byte);
        }
    }

    fn parameter(&mut self, command: u8, byte: u8) -> u8 {
        match (command, byte) {
            (command::RESOLUTION, 0..=3) => self.resolution = byte,
            (command::RATE, 10 | 20 | 40 | 60 | 80 | 100 | 200) => self.rate = byte,
            _ => return super::RESEND,
        }
        ACK
    }

    fn command(&mut self, byte: u8) {
        match byte {
            command::SCALING_1_1 => self.scaling_2_1 = false,
            command::SCALING_2_1 => self.scaling_2_1 = true,
            command::RESOLUTION | command::RATE => self.expects = Some(byte),
            command::STATUS => {
                let [modes, resolution, rate] = self.status();
                return self.queue.respond(&[ACK, modes, resolution, rate]);
            }
            command::STREAM => self.remote = false,
            command::READ_DATA => {
                let [head, x, y] = self.packet(false);
                return self.queue.respond(&[ACK, head, x, y]);
            }
            command::RESET_WRAP => self.wrap = false,
            command::WRAP => self.wrap = true,
            command::REMOTE => {
                self.remote = true;
                self.settle();
            }
            command::IDENTIFY => return self.queue.respond(&[ACK, 0]),
            command::ENABLE => {
                self.settle();
                self.reporting = true;
            }
            command::DISABLE => {
                self.reporting = false;
                self.settle();
            }
            command::DEFAULTS => self.defaults(),
            command::RESEND => return self.queue.resend(),
            command::RESET => {
                self.defaults();
                return self.queue.respond(&[ACK, 0xaa, 0]);
            }
            _ => return self.queue.respond(&[super::RESEND]),
        }
        self.queue.respond(&[ACK]);
    }
}
