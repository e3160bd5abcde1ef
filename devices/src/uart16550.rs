//! 16550A UART (National Semiconductor PC16550D datasheet). Region 0: 8 ports.
//!
//! Characters take no guest time. A byte goes to the sink when it is written, and the transmitter is empty again. Input
//! comes through [`Uart16550::push_input`], as much as there is room for; when it leaves the FIFO below its trigger level,
//! nothing more follows at once, and the character timeout is reported without a wait.

use crate::{Chip, wide};
use bitflags::bitflags;
use egret_bus::{Access, Device, IrqLine};
use std::collections::VecDeque;

/// Where sent bytes go.
pub type Sink = Box<dyn FnMut(u8) + Send>;

/// Register offsets.
mod reg {
    /// RBR and THR; DLL while LCR.DLAB is set.
    pub const DATA: u64 = 0;
    /// IER; DLM while LCR.DLAB is set.
    pub const IER: u64 = 1;
    /// IIR when read, FCR when written.
    pub const IIR_FCR: u64 = 2;
    pub const LCR: u64 = 3;
    pub const MCR: u64 = 4;
    pub const LSR: u64 = 5;
    pub const MSR: u64 = 6;
}

bitflags! {
    /// Interrupt Enable Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Ier: u8 {
        const ERBFI = 1 << 0;
        const ETBEI = 1 << 1;
        const ELSI = 1 << 2;
        const EDSSI = 1 << 3;
    }

    /// FIFO Control Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Fcr: u8 {
        const ENABLE = 1 << 0;
        const CLEAR_RX = 1 << 1;
        const CLEAR_TX = 1 << 2;
        const DMA_MODE = 1 << 3;
        const TRIGGER = 3 << 6;
    }

    /// Line Control Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Lcr: u8 {
        const WLS = 3;
        const STB = 1 << 2;
        const PEN = 1 << 3;
        const EPS = 1 << 4;
        const STICK = 1 << 5;
        const BREAK = 1 << 6;
        const DLAB = 1 << 7;
    }

    /// Modem Control Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Mcr: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        /// In a PC, the gate of the interrupt line.
        const OUT2 = 1 << 3;
        const LOOP = 1 << 4;
    }

    /// Line Status Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Lsr: u8 {
        const DR = 1 << 0;
        const OE = 1 << 1;
        const PE = 1 << 2;
        const FE = 1 << 3;
        const BI = 1 << 4;
        const THRE = 1 << 5;
        const TEMT = 1 << 6;
        const FIFO_ERROR = 1 << 7;
    }

    /// Modem Status Register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Msr: u8 {
        const DCTS = 1 << 0;
        const DDSR = 1 << 1;
        const TERI = 1 << 2;
        const DDCD = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RI = 1 << 6;
        const DCD = 1 << 7;
    }
}

/// Interrupt identification, highest priority first.
mod iir {
    pub const LINE_STATUS: u8 = 0x06;
    pub const DATA: u8 = 0x04;
    pub const TIMEOUT: u8 = 0x0c;
    pub const THRE: u8 = 0x02;
    pub const MODEM_STATUS: u8 = 0x00;
    pub const NONE: u8 = 0x01;
    pub const FIFOS: u8 = 0xc0;
}

const FIFO: usize = 16;

/// What the UART holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    ier: Ier,
    fcr: Fcr,
    lcr: Lcr,
    mcr: Mcr,
    msr: Msr,
    scratch: u8,
    divisor: u16,
    /// Received characters with the errors that came with each.
    received: VecDeque<(u8, Lsr)>,
    /// Overrun; stays until LSR is read.
    overrun: bool,
    /// An interrupt for line status that LSR has not been read for.
    line_status: bool,
    /// The transmitter became empty, and neither IIR nor THR was touched since.
    thre: bool,
    /// The last character read, which RBR repeats when nothing is there.
    last: u8,
}

impl State {
    fn power_on() -> State {
        State {
            ier: Ier::empty(),
            fcr: Fcr::empty(),
            lcr: Lcr::empty(),
            mcr: Mcr::empty(),
            msr: Msr::CTS | Msr::DSR | Msr::DCD,
            scratch: 0,
            divisor: 12,
            received: VecDeque::with_capacity(FIFO),
            overrun: false,
            line_status: false,
            thre: false,
            last: 0,
        }
    }

    /// Characters that fit: the FIFO, or the one holding register.
    fn capacity(&self) -> usize {
        if self.fcr.contains(Fcr::ENABLE) { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        if self.fcr.contains(Fcr::ENABLE) { [1, 4, 8, 14][usize::from((self.fcr & Fcr::TRIGGER).bits() >> 6)] } else { 1 }
    }

    /// The interrupt of highest priority.
    fn interrupt(&self) -> u8 {
        let enabled = |source| self.ier.contains(source);
        if enabled(Ier::ELSI) && self.line_status {
            iir::LINE_STATUS
        } else if enabled(Ier::ERBFI) && self.received.len() >= self.trigger() {
            iir::DATA
        } else if enabled(Ier::ERBFI) && !self.received.is_empty() {
            iir::TIMEOUT
        } else if enabled(Ier::ETBEI) && self.thre {
            iir::THRE
        } else if enabled(Ier::EDSSI) && self.msr.intersects(Msr::DCTS | Msr::DDSR | Msr::TERI | Msr::DDCD) {
            iir::MODEM_STATUS
        } else {
            iir::NONE
        }
    }

    fn receive(&mut self, byte: u8, errors: Lsr) {
        if self.received.len() >= self.capacity() {
            // The FIFO keeps what it has; the holding register is overwritten.
            self.overrun = true;
            self.line_status = true;
            if self.fcr.contains(Fcr::ENABLE) {
                return;
            }
            self.received.clear();
        }
        let first = self.received.is_empty();
        self.received.push_back((byte, errors));
        self.line_status |= first && !errors.is_empty();
    }

    fn read_data(&mut self) -> u8 {
        if let Some((byte, _)) = self.received.pop_front() {
            self.last = byte;
            // Errors are reported when their character comes to the top.
            self.line_status |= self.received.front().is_some_and(|(_, errors)| !errors.is_empty());
        }
        self.last
    }

    fn line_status(&self) -> Lsr {
        let mut lsr = Lsr::THRE | Lsr::TEMT;
        lsr.set(Lsr::OE, self.overrun);
        if let Some(&(_, errors)) = self.received.front() {
            lsr |= Lsr::DR | errors;
        }
        let fifo_error = self.fcr.contains(Fcr::ENABLE) && self.received.iter().any(|(_, errors)| !errors.is_empty());
        lsr.set(Lsr::FIFO_ERROR, fifo_error);
        lsr
    }

    /// Reading LSR takes its errors and their interrupt back.
    fn read_line_status(&mut self) -> u8 {
        let lsr = self.line_status();
        self.overrun = false;
        self.line_status = false;
        if let Some((_, errors)) = self.received.front_mut() {
            *errors = Lsr::empty();
        }
        lsr.bits()
    }

    /// The modem inputs: a terminal that is always there, or in loopback the modem outputs.
    fn update_modem_inputs(&mut self) {
        let mut inputs = Msr::CTS | Msr::DSR | Msr::DCD;
        if self.mcr.contains(Mcr::LOOP) {
            inputs = Msr::empty();
            inputs.set(Msr::CTS, self.mcr.contains(Mcr::RTS));
            inputs.set(Msr::DSR, self.mcr.contains(Mcr::DTR));
            inputs.set(Msr::RI, self.mcr.contains(Mcr::OUT1));
            inputs.set(Msr::DCD, self.mcr.contains(Mcr::OUT2));
        }
        let lines = Msr::CTS | Msr::DSR | Msr::RI | Msr::DCD;
        let was = self.msr & lines;
        let changed = was ^ inputs;
        let mut deltas = self.msr - lines;
        for (line, delta) in [(Msr::CTS, Msr::DCTS), (Msr::DSR, Msr::DDSR), (Msr::DCD, Msr::DDCD)] {
            deltas.set(delta, deltas.contains(delta) || changed.contains(line));
        }
        // TERI: the trailing edge only.
        deltas.set(Msr::TERI, deltas.contains(Msr::TERI) || was.contains(Msr::RI) && !inputs.contains(Msr::RI));
        self.msr = inputs | deltas;
    }

    fn write_fcr(&mut self, new: Fcr) {
        let enable_changed = (self.fcr ^ new).contains(Fcr::ENABLE);
        // The other bits are taken only together with the enable bit.
        self.fcr = if new.contains(Fcr::ENABLE) { new - Fcr::CLEAR_RX - Fcr::CLEAR_TX } else { Fcr::empty() };
        if enable_changed || new.contains(Fcr::ENABLE | Fcr::CLEAR_RX) {
            self.received.clear();
        }
    }
}

/// A 16550A.
pub struct Uart16550 {
    state: State,
    irq: IrqLine,
    sink: Sink,
}

impl Uart16550 {
    /// A UART that drives `irq` and sends to `sink`.
    #[must_use]
    pub fn new(irq: IrqLine, sink: Sink) -> Uart16550 {
        Uart16550 { state: State::power_on(), irq, sink }
    }

    /// Characters that [`Uart16550::push_input`] would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.state.mcr.contains(Mcr::LOOP) { 0 } else { self.state.capacity().saturating_sub(self.state.received.len()) }
    }

    /// Whether the guest has RTS asserted: with hardware flow control, the other side sends only then.
    #[must_use]
    pub fn request_to_send(&self) -> bool {
        self.state.mcr.contains(Mcr::RTS)
    }

    /// Receives as many of `bytes` as there is room for; returns their number.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        bytes.iter().take(taken).for_each(|&byte| self.state.receive(byte, Lsr::empty()));
        self.drive();
        taken
    }

    /// The other side sends a break.
    pub fn push_break(&mut self) {
        self.state.receive(0, Lsr::BI);
        self.drive();
    }

    /// Drives the interrupt line. In loopback the OUT2 pin is inactive, and with it the line.
    fn drive(&mut self) {
        let gate = self.state.mcr & (Mcr::OUT2 | Mcr::LOOP) == Mcr::OUT2;
        self.irq.set(gate && self.state.interrupt() != iir::NONE);
    }

    fn transmit(&mut self, byte: u8) {
        // Writing THR takes the interrupt back, and it comes anew when the byte has left, which is at once.
        self.state.thre = false;
        self.drive();
        if self.state.mcr.contains(Mcr::LOOP) {
            let mask = 0xff >> (3 - (self.state.lcr & Lcr::WLS).bits());
            self.state.receive(byte & mask, Lsr::empty());
        } else {
            (self.sink)(byte);
        }
        self.state.thre = true;
    }

    fn read_byte(&mut self, offset: u64) -> u8 {
        let s = &mut self.state;
        let dlab = s.lcr.contains(Lcr::DLAB);
        match offset {
            reg::DATA if dlab => s.divisor as u8,
            reg::DATA => s.read_data(),
            reg::IER if dlab => (s.divisor >> 8) as u8,
            reg::IER => s.ier.bits(),
            reg::IIR_FCR => {
                let id = s.interrupt();
                if id == iir::THRE {
                    s.thre = false;
                }
                id | if s.fcr.contains(Fcr::ENABLE) { iir::FIFOS } else { 0 }
            }
            reg::LCR => s.lcr.bits(),
            reg::MCR => s.mcr.bits(),
            reg::LSR => s.read_line_status(),
            reg::MSR => {
                let msr = s.msr.bits();
                s.msr -= Msr::DCTS | Msr::DDSR | Msr::TERI | Msr::DDCD;
                msr
            }
            _ => s.scratch,
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) {
        let s = &mut self.state;
        let dlab = s.lcr.contains(Lcr::DLAB);
        match offset {
            reg::DATA if dlab => s.divisor = s.divisor & 0xff00 | u16::from(value),
            reg::DATA => self.transmit(value),
            reg::IER if dlab => s.divisor = s.divisor & 0x00ff | u16::from(value) << 8,
            reg::IER => {
                let new = Ier::from_bits_truncate(value);
                // The transmitter is empty: enabling its interrupt raises it.
                s.thre |= (new - s.ier).contains(Ier::ETBEI);
                s.ier = new;
            }
            reg::IIR_FCR => s.write_fcr(Fcr::from_bits_truncate(value)),
            reg::LCR => {
                let new = Lcr::from_bits_truncate(value);
                let break_starts = (new - s.lcr).contains(Lcr::BREAK);
                s.lcr = new;
                if break_starts && s.mcr.contains(Mcr::LOOP) {
                    s.receive(0, Lsr::BI);
                }
            }
            reg::MCR => {
                s.mcr = Mcr::from_bits_truncate(value);
                s.update_modem_inputs();
            }
            // LSR and MSR are read-only.
            reg::LSR | reg::MSR => {}
            _ => s.scratch = value,
        }
    }
}

impl Device for Uart16550 {
    fn name(&self) -> &'static str {
        "16550A UART"
    }

    fn read(&mut self, at: Access) -> u64 {
        let value = wide::read(at, |offset| self.read_byte(offset));
        self.drive();
        value
    }

    fn write(&mut self, at: Access, value: u64) {
        wide::write(at, value, |offset, byte| {
            self.write_byte(offset, byte);
            self.drive();
        });
    }

    fn reset(&mut self) {
        self.state = State::power_on();
        self.drive();
    }
}

impl Chip for Uart16550 {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
        self.drive();
    }
}

#[cfg(test)]
mod tests;
