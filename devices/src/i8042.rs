//! 8042 keyboard controller with a PS/2 keyboard and a PS/2 mouse. IBM PS/2 Hardware Interface Technical Reference,
//! "Keyboard and Auxiliary Device Controller".
//!
//! Regions: 0 the data port (60h), 1 the command and status port (64h). The chip comes up as firmware leaves it: keyboard on, translating, mouse off.

mod keyboard;
mod mouse;
mod queue;

#[cfg(test)]
mod tests;

use crate::Chip;
use crate::a20::A20;
use bitflags::bitflags;
use egret_bus::{Access, Device, Event, Events, IrqLine, Ticks};
use keyboard::Keyboard;
use mouse::Mouse;
use std::collections::VecDeque;

pub use keyboard::Key;
pub use mouse::Buttons;

/// A device understood.
const ACK: u8 = 0xfa;
/// A device did not understand.
const RESEND: u8 = 0xfe;

/// Controller commands.
mod command {
    pub const READ_RAM: u8 = 0x20;
    pub const READ_RAM_LAST: u8 = 0x3f;
    pub const WRITE_RAM: u8 = 0x60;
    pub const WRITE_RAM_LAST: u8 = 0x7f;
    pub const PASSWORD_TEST: u8 = 0xa4;
    pub const AUX_DISABLE: u8 = 0xa7;
    pub const AUX_ENABLE: u8 = 0xa8;
    pub const AUX_TEST: u8 = 0xa9;
    pub const SELF_TEST: u8 = 0xaa;
    pub const KEYBOARD_TEST: u8 = 0xab;
    pub const KEYBOARD_DISABLE: u8 = 0xad;
    pub const KEYBOARD_ENABLE: u8 = 0xae;
    pub const READ_INPUT_PORT: u8 = 0xc0;
    pub const READ_OUTPUT_PORT: u8 = 0xd0;
    pub const WRITE_OUTPUT_PORT: u8 = 0xd1;
    pub const WRITE_KEYBOARD_BUFFER: u8 = 0xd2;
    pub const WRITE_AUX_BUFFER: u8 = 0xd3;
    pub const WRITE_AUX: u8 = 0xd4;
    pub const A20_CLOSE: u8 = 0xdd;
    pub const A20_OPEN: u8 = 0xdf;
    pub const READ_TEST_INPUTS: u8 = 0xe0;
    pub const PULSE: u8 = 0xf0;
}

bitflags! {
    /// Status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Status: u8 {
        const OBF = 1 << 0;
        const SYS = 1 << 2;
        /// The last write was a command.
        const A2 = 1 << 3;
        const NOT_LOCKED = 1 << 4;
        const AUX_OBF = 1 << 5;
    }

    /// Command byte, RAM byte 0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct CommandByte: u8 {
        const INT = 1 << 0;
        const INT2 = 1 << 1;
        const SYS = 1 << 2;
        const KEYBOARD_OFF = 1 << 4;
        const AUX_OFF = 1 << 5;
        const TRANSLATE = 1 << 6;
    }

    /// Output port.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct OutputPort: u8 {
        /// Low resets the machine.
        const NOT_RESET = 1 << 0;
        const A20 = 1 << 1;
        const IRQ1 = 1 << 4;
        const IRQ12 = 1 << 5;
    }
}

/// Input port: manufacturing jumper open, keyboard not locked.
const INPUT_PORT: u8 = 0xa0;
/// The time a byte from a device takes on its wire.
const BYTE_TIME: u64 = 500_000;

/// Whose byte is in the output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The keyboard's or the controller's.
    Keyboard,
    Aux,
}

/// What controller, keyboard and mouse hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    ram: [u8; 32],
    port: OutputPort,
    after_command: bool,
    /// The controller command whose parameter comes next.
    expects: Option<u8>,
    /// The output buffer, while it is full.
    output: Option<(u8, Source)>,
    /// What port 60h reads when it is empty: the last byte.
    last: u8,
    /// Bytes that the controller itself puts into the output buffer next.
    replies: VecDeque<(u8, Source)>,
    /// A device's next byte arrives no earlier.
    ready: Ticks,
    /// The translator has seen a release prefix.
    releasing: bool,
    keyboard: Keyboard,
    mouse: Mouse,
}

impl State {
    fn power_on() -> State {
        let mut ram = [0; 32];
        ram[0] = (CommandByte::INT | CommandByte::SYS | CommandByte::AUX_OFF | CommandByte::TRANSLATE).bits();
        State {
            ram,
            port: OutputPort::NOT_RESET | OutputPort::A20,
            after_command: false,
            expects: None,
            output: None,
            last: 0,
            replies: VecDeque::new(),
            ready: Ticks(0),
            releasing: false,
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
        }
    }

    fn command_byte(&self) -> CommandByte {
        CommandByte::from_bits_retain(self.ram[0])
    }

    fn set_command_byte(&mut self, flag: CommandByte, on: bool) {
        let mut byte = self.command_byte();
        byte.set(flag, on);
        self.ram[0] = byte.bits();
    }

    fn status(&self) -> Status {
        let mut status = Status::NOT_LOCKED;
        status.set(Status::OBF, self.output.is_some());
        status.set(Status::AUX_OBF, matches!(self.output, Some((_, Source::Aux))));
        status.set(Status::SYS, self.command_byte().contains(CommandByte::SYS));
        status.set(Status::A2, self.after_command);
        status
    }

    fn output_port(&self) -> u8 {
        let mut port = self.port;
        port.set(OutputPort::IRQ1, matches!(self.output, Some((_, Source::Keyboard))));
        port.set(OutputPort::IRQ12, matches!(self.output, Some((_, Source::Aux))));
        port.bits()
    }

    /// Most replies kept; one command makes one.
    const REPLIES: usize = 4;

    fn reply(&mut self, byte: u8, source: Source) {
        if self.replies.len() < Self::REPLIES {
            self.replies.push_back((byte, source));
        }
    }

    fn keyboard_waits(&self) -> bool {
        !self.command_byte().contains(CommandByte::KEYBOARD_OFF) && !self.keyboard.queue.is_empty()
    }

    fn mouse_waits(&self) -> bool {
        !self.command_byte().contains(CommandByte::AUX_OFF) && !self.mouse.queue.is_empty()
    }

    /// Fills the output buffer, if it is empty and something has arrived.
    fn fill(&mut self, now: Ticks) {
        if self.output.is_some() {
            return;
        }
        self.output = self.replies.pop_front();
        if self.output.is_none() && now >= self.ready && self.keyboard_waits() {
            self.output = self.keyboard_byte().map(|byte| (byte, Source::Keyboard));
        }
        if self.output.is_none() && now >= self.ready && self.mouse_waits() {
            self.output = self.mouse.queue.take().map(|byte| (byte, Source::Aux));
            self.mouse.report();
        }
        if let Some((byte, _)) = self.output {
            self.last = byte;
        }
    }

    /// The keyboard's next byte, translated if the command byte says so: a release prefix goes into the code after it.
    fn keyboard_byte(&mut self) -> Option<u8> {
        let translate = self.command_byte().contains(CommandByte::TRANSLATE);
        loop {
            let byte = self.keyboard.queue.take()?;
            if !translate {
                self.releasing = false;
                return Some(byte);
            }
            if byte == keyboard::BREAK {
                self.releasing = true;
                continue;
            }
            let release = if std::mem::take(&mut self.releasing) { 0x80 } else { 0 };
            return Some(keyboard::to_set_1(byte) | release);
        }
    }

    fn read_data(&mut self, now: Ticks) -> u8 {
        if self.output.take().is_some() {
            self.ready = now.after(BYTE_TIME);
        }
        self.last
    }
}

/// The keyboard controller and what is plugged into it.
pub struct I8042 {
    state: State,
    keyboard_irq: IrqLine,
    mouse_irq: IrqLine,
    a20: A20,
    events: Events,
}

impl I8042 {
    /// A controller whose keyboard drives one line (IRQ1), its mouse another (IRQ12).
    #[must_use]
    pub fn new(keyboard_irq: IrqLine, mouse_irq: IrqLine, events: Events) -> I8042 {
        I8042 { state: State::power_on(), keyboard_irq, mouse_irq, a20: A20::default(), events }
    }

    /// The same with its output port wired to `a20`.
    #[must_use]
    pub fn with_a20(self, a20: A20) -> I8042 {
        I8042 { a20, ..self }
    }

    /// A key goes down or up. [`Device::deadline`] changes.
    pub fn key(&mut self, key: Key, pressed: bool, now: Ticks) {
        self.state.keyboard.key(key, pressed);
        self.update(now);
    }

    /// Sends the scan codes (set 2 unless the guest chose set 1) of a key that has a sequence of its own: Pause, Print
    /// Screen. [`Device::deadline`] changes.
    pub fn scan_codes(&mut self, codes: &[u8], now: Ticks) {
        self.state.keyboard.codes(codes);
        self.update(now);
    }

    /// The mouse moves; y is up. [`Device::deadline`] changes.
    pub fn mouse(&mut self, x: i32, y: i32, buttons: Buttons, now: Ticks) {
        self.state.mouse.move_by(x, y, buttons);
        self.update(now);
    }

    /// Scroll, num and caps lock lights, bits 0 to 2.
    #[must_use]
    pub fn leds(&self) -> u8 {
        self.state.keyboard.leds
    }

    fn update(&mut self, now: Ticks) {
        self.state.fill(now);
        self.drive();
    }

    fn drive(&mut self) {
        let (s, byte) = (&self.state, self.state.command_byte());
        self.keyboard_irq.set(byte.contains(CommandByte::INT) && matches!(s.output, Some((_, Source::Keyboard))));
        self.mouse_irq.set(byte.contains(CommandByte::INT2) && matches!(s.output, Some((_, Source::Aux))));
    }

    fn write_data(&mut self, byte: u8) {
        let s = &mut self.state;
        s.after_command = false;
        match s.expects.take() {
            Some(command @ command::WRITE_RAM..=command::WRITE_RAM_LAST) => s.ram[usize::from(command & 0x1f)] = byte,
            Some(command::WRITE_OUTPUT_PORT) => self.write_output_port(byte),
            Some(command::WRITE_KEYBOARD_BUFFER) => s.reply(byte, Source::Keyboard),
            Some(command::WRITE_AUX_BUFFER) => s.reply(byte, Source::Aux),
            Some(command::WRITE_AUX) => {
                s.set_command_byte(CommandByte::AUX_OFF, false);
                s.mouse.receive(byte);
            }
            _ => {
                // Sending to the keyboard turns its interface on.
                s.set_command_byte(CommandByte::KEYBOARD_OFF, false);
                s.keyboard.receive(byte);
            }
        }
    }

    fn write_output_port(&mut self, byte: u8) {
        self.state.port = OutputPort::from_bits_retain(byte);
        self.a20.set(self.state.port.contains(OutputPort::A20));
        if !self.state.port.contains(OutputPort::NOT_RESET) {
            self.events.raise(Event::Reset);
        }
    }

    fn write_command(&mut self, command: u8) {
        let s = &mut self.state;
        s.port.set(OutputPort::A20, self.a20.passes());
        s.after_command = true;
        s.expects = None;
        match command {
            command::READ_RAM..=command::READ_RAM_LAST => s.reply(s.ram[usize::from(command & 0x1f)], Source::Keyboard),
            command::WRITE_RAM..=command::WRITE_RAM_LAST
            | command::WRITE_OUTPUT_PORT
            | command::WRITE_KEYBOARD_BUFFER
            | command::WRITE_AUX_BUFFER
            | command::WRITE_AUX => s.expects = Some(command),
            // No password is installed.
            command::PASSWORD_TEST => s.reply(0xf1, Source::Keyboard),
            command::AUX_DISABLE => s.set_command_byte(CommandByte::AUX_OFF, true),
            command::AUX_ENABLE => s.set_command_byte(CommandByte::AUX_OFF, false),
            command::AUX_TEST | command::KEYBOARD_TEST | command::READ_TEST_INPUTS => s.reply(0, Source::Keyboard),
            command::SELF_TEST => {
                s.set_command_byte(CommandByte::SYS, true);
                s.reply(0x55, Source::Keyboard);
            }
            command::KEYBOARD_DISABLE => s.set_command_byte(CommandByte::KEYBOARD_OFF, true),
            command::KEYBOARD_ENABLE => s.set_command_byte(CommandByte::KEYBOARD_OFF, false),
            command::READ_INPUT_PORT => s.reply(INPUT_PORT, Source::Keyboard),
            command::READ_OUTPUT_PORT => s.reply(s.output_port(), Source::Keyboard),
            command::A20_CLOSE | command::A20_OPEN => self.a20.set(command == command::A20_OPEN),
            // The low nibble's zero bits are pulsed low; bit 0 is the reset line.
            command::PULSE.. if command & 1 == 0 => self.events.raise(Event::Reset),
            _ => {}
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "8042 keyboard controller"
    }

    fn read(&mut self, at: Access) -> u64 {
        self.update(at.now);
        if at.region == 1 {
            return self.state.status().bits().into();
        }
        let byte = self.state.read_data(at.now);
        // The lines fall before they rise for the next byte.
        self.drive();
        self.update(at.now);
        byte.into()
    }

    fn write(&mut self, at: Access, value: u64) {
        if at.region == 1 {
            self.write_command(value as u8);
        } else {
            self.write_data(value as u8);
        }
        self.update(at.now);
    }

    fn reset(&mut self) {
        self.state = State::power_on();
        self.a20.set(true);
        self.drive();
    }

    fn tick(&mut self, now: Ticks) {
        self.update(now);
    }

    fn deadline(&self) -> Option<Ticks> {
        let s = &self.state;
        (s.output.is_none() && (s.keyboard_waits() || s.mouse_waits())).then_some(s.ready)
    }
}

impl Chip for I8042 {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
        self.drive();
    }
}
