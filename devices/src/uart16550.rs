//! The 16550A UART. National Semiconductor PC16550D data sheet.
//!
//! Characters leave the transmitter at once: guest time does not wait for a baud rate, so the transmitter holding
//! register is always empty again when the guest looks.

use bitflags::bitflags;
use egret_bus::{Access, Device, IrqLine};
use std::collections::VecDeque;

bitflags! {
    /// Interrupt enable register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Ier: u8 {
        /// Received data available.
        const ERBFI = 1;
        /// Transmitter holding register empty.
        const ETBEI = 1 << 1;
        /// Receiver line status.
        const ELSI = 1 << 2;
        /// Modem status.
        const EDSSI = 1 << 3;
    }

    /// FIFO control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Fcr: u8 {
        /// FIFOs on.
        const ENABLE = 1;
        /// Clear the receiver FIFO.
        const RX_RESET = 1 << 1;
        /// Clear the transmitter FIFO.
        const TX_RESET = 1 << 2;
        /// DMA mode.
        const DMA = 1 << 3;
        /// Receiver trigger level: 1, 4, 8, 14.
        const TRIGGER = 3 << 6;
    }

    /// Line control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Lcr: u8 {
        /// Word length: 5 to 8 bits.
        const WLS = 3;
        /// Two stop bits.
        const STB = 1 << 2;
        /// Parity.
        const PEN = 1 << 3;
        /// Even parity.
        const EPS = 1 << 4;
        /// Stick parity.
        const STICK = 1 << 5;
        /// Send a break.
        const BREAK = 1 << 6;
        /// Divisor latch access.
        const DLAB = 1 << 7;
    }

    /// Modem control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Mcr: u8 {
        /// Data terminal ready.
        const DTR = 1;
        /// Request to send.
        const RTS = 1 << 1;
        /// Output 1.
        const OUT1 = 1 << 2;
        /// Output 2: on a PC, connects the interrupt.
        const OUT2 = 1 << 3;
        /// Loopback.
        const LOOP = 1 << 4;
    }

    /// Line status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Lsr: u8 {
        /// Data ready.
        const DR = 1;
        /// Overrun.
        const OE = 1 << 1;
        /// Parity error.
        const PE = 1 << 2;
        /// Framing error.
        const FE = 1 << 3;
        /// Break.
        const BI = 1 << 4;
        /// Transmitter holding register empty.
        const THRE = 1 << 5;
        /// Transmitter empty.
        const TEMT = 1 << 6;
        /// An error is in the receiver FIFO.
        const FIFO_ERROR = 1 << 7;
    }

    /// Modem status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Msr: u8 {
        /// CTS changed.
        const DCTS = 1;
        /// DSR changed.
        const DDSR = 1 << 1;
        /// RI went away.
        const TERI = 1 << 2;
        /// DCD changed.
        const DDCD = 1 << 3;
        /// Clear to send.
        const CTS = 1 << 4;
        /// Data set ready.
        const DSR = 1 << 5;
        /// Ring indicator.
        const RI = 1 << 6;
        /// Data carrier detect.
        const DCD = 1 << 7;
    }
}

/// Register offsets.
mod reg {
    pub const DATA: u64 = 0;
    pub const IER: u64 = 1;
    pub const IIR_FCR: u64 = 2;
    pub const LCR: u64 = 3;
    pub const MCR: u64 = 4;
    pub const LSR: u64 = 5;
    pub const MSR: u64 = 6;
}

/// Interrupt identification: the codes of IIR bits 0-3.
mod iir {
    pub const NONE: u8 = 1;
    pub const LINE_STATUS: u8 = 6;
    pub const DATA: u8 = 4;
    pub const TIMEOUT: u8 = 12;
    pub const THRE: u8 = 2;
    pub const MODEM: u8 = 0;
    pub const FIFOS: u8 = 0xc0;
}

/// Depth of the FIFOs.
const FIFO: usize = 16;
/// What the other end, a terminal that is always ready, drives.
const CONNECTED: Msr = Msr::CTS.union(Msr::DSR).union(Msr::DCD);

/// Where transmitted bytes go.
pub type Sink = Box<dyn FnMut(u8) + Send>;

struct State {
    ier: Ier,
    fcr: Fcr,
    lcr: Lcr,
    mcr: Mcr,
    msr: Msr,
    scratch: u8,
    divisor: u16,
    overrun: bool,
    /// The THRE interrupt is due: the register became empty (or the interrupt was enabled) and nobody has seen it yet.
    thre_due: bool,
    rx: VecDeque<u8>,
}

impl State {
    fn reset() -> State {
        State {
            ier: Ier::empty(),
            fcr: Fcr::empty(),
            lcr: Lcr::empty(),
            mcr: Mcr::empty(),
            msr: CONNECTED,
            scratch: 0,
            divisor: 12,
            overrun: false,
            thre_due: false,
            rx: VecDeque::with_capacity(FIFO),
        }
    }

    fn depth(&self) -> usize {
        if self.fcr.contains(Fcr::ENABLE) { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        match self.fcr.bits() >> 6 {
            _ if !self.fcr.contains(Fcr::ENABLE) => 1,
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }

    /// Takes a received byte; one too many is lost and reported.
    fn receive(&mut self, byte: u8) {
        if self.rx.len() < self.depth() {
            self.rx.push_back(byte);
        } else {
            self.overrun = true;
        }
    }

    /// The highest-priority interrupt that is due and enabled. Below the trigger level received data is reported as the
    /// character timeout: no more characters follow at once.
    fn interrupt(&self) -> u8 {
        if self.ier.contains(Ier::ELSI) && self.overrun {
            iir::LINE_STATUS
        } else if self.ier.contains(Ier::ERBFI) && self.rx.len() >= self.trigger() {
            iir::DATA
        } else if self.ier.contains(Ier::ERBFI) && !self.rx.is_empty() {
            iir::TIMEOUT
        } else if self.ier.contains(Ier::ETBEI) && self.thre_due {
            iir::THRE
        } else if self.ier.contains(Ier::EDSSI) && self.msr.intersects(Msr::DCTS | Msr::DDSR | Msr::TERI | Msr::DDCD) {
            iir::MODEM
        } else {
            iir::NONE
        }
    }

    fn lsr(&self) -> Lsr {
        let mut lsr = Lsr::THRE | Lsr::TEMT;
        lsr.set(Lsr::DR, !self.rx.is_empty());
        lsr.set(Lsr::OE, self.overrun);
        lsr
    }

    /// The modem inputs: the terminal's, or in loopback the outputs.
    fn update_modem(&mut self) {
        let mut lines = CONNECTED;
        if self.mcr.contains(Mcr::LOOP) {
            lines = Msr::empty();
            lines.set(Msr::CTS, self.mcr.contains(Mcr::RTS));
            lines.set(Msr::DSR, self.mcr.contains(Mcr::DTR));
            lines.set(Msr::RI, self.mcr.contains(Mcr::OUT1));
            lines.set(Msr::DCD, self.mcr.contains(Mcr::OUT2));
        }
        let changed = lines ^ self.msr;
        let mut deltas = self.msr & (Msr::DCTS | Msr::DDSR | Msr::TERI | Msr::DDCD);
        deltas.set(Msr::DCTS, deltas.contains(Msr::DCTS) || changed.contains(Msr::CTS));
        deltas.set(Msr::DDSR, deltas.contains(Msr::DDSR) || changed.contains(Msr::DSR));
        deltas.set(Msr::TERI, deltas.contains(Msr::TERI) || (changed.contains(Msr::RI) && !lines.contains(Msr::RI)));
        deltas.set(Msr::DDCD, deltas.contains(Msr::DDCD) || changed.contains(Msr::DCD));
        self.msr = lines | deltas;
    }
}

/// A 16550A.
pub struct Uart16550 {
    state: State,
    irq: IrqLine,
    sink: Sink,
}

impl Uart16550 {
    /// A UART whose transmitted bytes go to `sink`.
    #[must_use]
    pub fn new(irq: IrqLine, sink: Sink) -> Uart16550 {
        Uart16550 { state: State::reset(), irq, sink }
    }

    /// Receives bytes as far as there is room; how many were taken. In loopback the line is cut off: none.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        if self.state.mcr.contains(Mcr::LOOP) {
            return 0;
        }
        let room = self.state.depth().saturating_sub(self.state.rx.len()).min(bytes.len());
        self.state.rx.extend(&bytes[..room]);
        self.update();
        room
    }

    fn update(&mut self) {
        let due = self.state.interrupt() != iir::NONE;
        // OUT2 gates the line to the interrupt controller; loopback cuts the pin off.
        let gate = self.state.mcr.contains(Mcr::OUT2) && !self.state.mcr.contains(Mcr::LOOP);
        self.irq.set(due && gate);
    }

    fn transmit(&mut self, byte: u8) {
        if self.state.mcr.contains(Mcr::LOOP) {
            self.state.receive(byte);
        } else {
            (self.sink)(byte);
        }
        self.state.thre_due = true;
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        let s = &mut self.state;
        match offset {
            reg::DATA if s.lcr.contains(Lcr::DLAB) => s.divisor as u8,
            reg::IER if s.lcr.contains(Lcr::DLAB) => (s.divisor >> 8) as u8,
            reg::DATA => s.rx.pop_front().unwrap_or(0),
            reg::IER => s.ier.bits(),
            reg::IIR_FCR => {
                let id = s.interrupt();
                if id == iir::THRE {
                    s.thre_due = false;
                }
                id | if s.fcr.contains(Fcr::ENABLE) { iir::FIFOS } else { 0 }
            }
            reg::LCR => s.lcr.bits(),
            reg::MCR => s.mcr.bits(),
            reg::LSR => {
                let lsr = s.lsr();
                s.overrun = false;
                lsr.bits()
            }
            reg::MSR => {
                let msr = s.msr;
                s.msr -= Msr::DCTS | Msr::DDSR | Msr::TERI | Msr::DDCD;
                msr.bits()
            }
            _ => s.scratch,
        }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        let s = &mut self.state;
        match offset {
            reg::DATA if s.lcr.contains(Lcr::DLAB) => s.divisor = s.divisor & 0xff00 | u16::from(value),
            reg::IER if s.lcr.contains(Lcr::DLAB) => s.divisor = s.divisor & 0xff | u16::from(value) << 8,
            reg::DATA => self.transmit(value),
            reg::IER => {
                let new = Ier::from_bits_truncate(value);
                if new.contains(Ier::ETBEI) && !s.ier.contains(Ier::ETBEI) {
                    s.thre_due = true;
                }
                s.ier = new;
            }
            reg::IIR_FCR => {
                let new = Fcr::from_bits_truncate(value);
                if new.contains(Fcr::RX_RESET) || new.contains(Fcr::ENABLE) != s.fcr.contains(Fcr::ENABLE) {
                    s.rx.clear();
                }
                s.fcr = new - Fcr::RX_RESET - Fcr::TX_RESET;
            }
            reg::LCR => s.lcr = Lcr::from_bits_truncate(value),
            reg::MCR => {
                s.mcr = Mcr::from_bits_truncate(value);
                s.update_modem();
            }
            reg::LSR | reg::MSR => {}
            _ => s.scratch = value,
        }
    }
}

impl Device for Uart16550 {
    fn name(&self) -> &'static str {
        "16550A"
    }

    fn read(&mut self, at: Access) -> u64 {
        let value = (0..u64::from(at.size)).fold(0, |v, n| v | u64::from(self.read_register((at.offset + n) & 7)) << (8 * n));
        self.update();
        value
    }

    fn write(&mut self, at: Access, value: u64) {
        for n in 0..u64::from(at.size) {
            self.write_register((at.offset + n) & 7, (value >> (8 * n)) as u8);
        }
        self.update();
    }

    fn reset(&mut self) {
        self.state = State::reset();
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::{Lines, Ticks};
    use std::sync::{Arc, Mutex};

    struct Bench {
        uart: Uart16550,
        lines: Lines,
        out: Arc<Mutex<Vec<u8>>>,
    }

    impl Bench {
        fn new() -> Bench {
            let (lines, out) = (Lines::default(), Arc::new(Mutex::new(Vec::new())));
            let sink = out.clone();
            let uart = Uart16550::new(lines.line(4), Box::new(move |b| sink.lock().unwrap().push(b)));
            let mut bench = Bench { uart, lines, out };
            bench.write(reg::MCR, Mcr::OUT2.bits());
            bench
        }

        fn read(&mut self, offset: u64) -> u8 {
            self.uart.read(Access { region: 0, offset, size: 1, now: Ticks(0) }) as u8
        }

        fn write(&mut self, offset: u64, value: u8) {
            self.uart.write(Access { region: 0, offset, size: 1, now: Ticks(0) }, value.into());
        }

        fn level(&mut self) -> Option<bool> {
            let mut last = None;
            while let Some(change) = self.lines.take() {
                last = Some(change.level);
            }
            last
        }
    }

    #[test]
    fn transmits_and_interrupts_when_empty() {
        let mut b = Bench::new();
        b.write(reg::IER, Ier::ETBEI.bits());
        assert_eq!(b.level(), Some(true), "enabling while empty interrupts");
        assert_eq!(b.read(reg::IIR_FCR), iir::THRE);
        assert_eq!(b.level(), Some(false), "reading IIR acknowledges");
        b.write(reg::DATA, b'A');
        assert_eq!(*b.out.lock().unwrap(), b"A");
        assert_eq!((b.level(), b.read(reg::IIR_FCR)), (Some(true), iir::THRE));
    }

    #[test]
    fn receives_with_trigger_level_and_timeout() {
        let mut b = Bench::new();
        b.write(reg::IIR_FCR, 0x41);
        b.write(reg::IER, Ier::ERBFI.bits());
        assert_eq!(b.uart.push_input(b"abc"), 3);
        assert_eq!(b.read(reg::IIR_FCR), iir::TIMEOUT | iir::FIFOS);
        assert_eq!(b.uart.push_input(b"d"), 1);
        assert_eq!(b.read(reg::IIR_FCR), iir::DATA | iir::FIFOS);
        let got: Vec<u8> = (0..4).map(|_| b.read(reg::DATA)).collect();
        assert_eq!(got, b"abcd");
        assert_eq!((b.level(), b.read(reg::LSR) & Lsr::DR.bits()), (Some(false), 0));
        assert_eq!(b.uart.push_input(&[7; 40]), FIFO, "no more than the FIFO holds");
    }

    #[test]
    fn loopback_returns_bytes_and_modem_lines() {
        let mut b = Bench::new();
        b.write(reg::MCR, (Mcr::LOOP | Mcr::RTS | Mcr::OUT2).bits());
        b.write(reg::DATA, 0x5a);
        assert_eq!(b.read(reg::DATA), 0x5a);
        assert!(b.out.lock().unwrap().is_empty());
        let msr = Msr::from_bits_truncate(b.read(reg::MSR));
        assert!(msr.contains(Msr::CTS | Msr::DCD) && !msr.intersects(Msr::DSR | Msr::RI));
    }

    #[test]
    fn divisor_latch_and_scratch() {
        let mut b = Bench::new();
        b.write(reg::LCR, Lcr::DLAB.bits() | 3);
        b.write(reg::DATA, 0x34);
        b.write(reg::IER, 0x12);
        assert_eq!((b.read(reg::DATA), b.read(reg::IER)), (0x34, 0x12));
        b.write(reg::LCR, 3);
        assert_eq!(b.read(reg::IER), 0);
        b.write(7, 0xa5);
        assert_eq!(b.read(7), 0xa5);
    }
}
