//! 8259A pair as PIIX has it: two Intel 8259A (datasheet 231468), the slave on IR2, and the ELCR.
//!
//! Regions: 0 master (2 ports), 1 slave (2 ports), 2 ELCR (2 ports). ICW1.LTIM does nothing: the ELCR decides.
//! As the datasheet has it, an edge-triggered request must stay high until it is acknowledged: a line that falls
//! earlier takes its request back.

use crate::{Chip, wide};
use bitflags::bitflags;
use egret_bus::{Access, Device};

bitflags! {
    /// Initialization command word 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Icw1: u8 {
        const IC4 = 1 << 0;
        const SNGL = 1 << 1;
        /// Marks the word.
        const INIT = 1 << 4;
    }

    /// Initialization command word 4.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Icw4: u8 {
        const AEOI = 1 << 1;
        const SFNM = 1 << 4;
    }

    /// Operation command word 2.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Ocw2: u8 {
        const LEVEL = 7;
        const EOI = 1 << 5;
        const SL = 1 << 6;
        const R = 1 << 7;
    }

    /// Operation command word 3.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Ocw3: u8 {
        const RIS = 1 << 0;
        const RR = 1 << 1;
        const P = 1 << 2;
        /// Marks the word.
        const OCW3 = 1 << 3;
        const SMM = 1 << 5;
        const ESMM = 1 << 6;
    }
}

/// Which word the odd port takes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Icw2,
    Icw3,
    Icw4,
    Ocw1,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq, Eq)]
struct I8259 {
    irr: u8,
    imr: u8,
    isr: u8,
    lines: u8,
    elcr: u8,
    base: u8,
    /// ICW3: the inputs with slaves, or the slave's number.
    cascade: u8,
    icw1: Icw1,
    icw4: Icw4,
    expects: Expects,
    /// The level of lowest priority; the next one up has the highest.
    lowest: u8,
    special_mask: bool,
    rotate_on_aeoi: bool,
    read_isr: bool,
    poll: bool,
}

impl I8259 {
    const POWER_ON: I8259 = I8259 {
        irr: 0,
        imr: 0xff,
        isr: 0,
        lines: 0,
        elcr: 0,
        base: 0,
        cascade: 0,
        icw1: Icw1::empty(),
        icw4: Icw4::empty(),
        expects: Expects::Ocw1,
        lowest: 7,
        special_mask: false,
        rotate_on_aeoi: false,
        read_isr: false,
        poll: false,
    };

    fn set_line(&mut self, level: u8, high: bool) {
        let bit = 1 << (level & 7);
        let rose = high && self.lines & bit == 0;
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
        if !high {
            self.irr &= !bit;
        } else if rose || self.elcr & bit != 0 {
            self.irr |= bit;
        }
    }

    /// Levels from the highest priority down.
    fn levels(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |i| lowest.wrapping_add(i) & 7)
    }

    /// The level that interrupts now.
    fn pending(&self) -> Option<u8> {
        let requests = self.irr & !self.imr;
        if requests == 0 || self.expects != Expects::Ocw1 {
            return None;
        }
        let blocking = if self.special_mask { self.isr & !self.imr } else { self.isr };
        for level in self.levels() {
            let bit = 1 << level;
            // In special fully nested mode a slave may interrupt itself.
            let nests = self.icw4.contains(Icw4::SFNM) && self.cascade & bit != 0;
            if requests & bit != 0 && (blocking & bit == 0 || nests) {
                return Some(level);
            }
            if blocking & bit != 0 {
                return None;
            }
        }
        None
    }

    /// The interrupt acknowledge cycle: the vector; IR7's, and no service, when the request has gone.
    fn acknowledge(&mut self) -> (u8, Option<u8>) {
        let pending = self.pending();
        if let Some(level) = pending {
            let bit = 1 << level;
            if self.elcr & bit == 0 {
                self.irr &= !bit;
            }
            if !self.icw4.contains(Icw4::AEOI) {
                self.isr |= bit;
            } else if self.rotate_on_aeoi {
                self.lowest = level;
            }
        }
        (self.base | pending.unwrap_or(7), pending)
    }

    fn read(&mut self, odd: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return match self.acknowledge().1 {
                Some(level) => 0x80 | level,
                None => 0,
            };
        }
        match (odd, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }

    fn write_even(&mut self, value: u8) {
        if Icw1::from_bits_truncate(value).contains(Icw1::INIT) {
            let I8259 { lines, elcr, base, .. } = *self;
            *self = I8259 { imr: 0, lines, elcr, base, expects: Expects::Icw2, icw1: Icw1::from_bits_truncate(value), ..Self::POWER_ON };
            self.irr = lines & elcr;
        } else if value & Ocw3::OCW3.bits() != 0 {
            self.write_ocw3(Ocw3::from_bits_truncate(value));
        } else {
            self.write_ocw2(Ocw2::from_bits_truncate(value));
        }
    }

    fn write_odd(&mut self, value: u8) {
        let ic4 = self.icw1.contains(Icw1::IC4);
        let last = if ic4 { Expects::Icw4 } else { Expects::Ocw1 };
        self.expects = match self.expects {
            Expects::Icw2 => {
                self.base = value & !7;
                if self.icw1.contains(Icw1::SNGL) { last } else { Expects::Icw3 }
            }
            Expects::Icw3 => {
                self.cascade = value;
                last
            }
            Expects::Icw4 => {
                self.icw4 = Icw4::from_bits_truncate(value);
                Expects::Ocw1
            }
            Expects::Ocw1 => {
                self.imr = value;
                Expects::Ocw1
            }
        };
    }

    fn write_ocw2(&mut self, word: Ocw2) {
        let (rotate, specific) = (word.contains(Ocw2::R), word.contains(Ocw2::SL));
        if !word.contains(Ocw2::EOI) {
            match (rotate, specific) {
                (true, true) => self.lowest = (word & Ocw2::LEVEL).bits(),
                (rotate, false) => self.rotate_on_aeoi = rotate,
                (false, true) => {}
            }
            return;
        }
        // A level masked in special mask mode is not cleared by a non-specific EOI.
        let in_service = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let level = if specific { Some((word & Ocw2::LEVEL).bits()) } else { self.levels().find(|level| in_service >> level & 1 != 0) };
        let Some(level) = level else { return };
        self.isr &= !(1 << level);
        if rotate {
            self.lowest = level;
        }
    }

    fn write_ocw3(&mut self, word: Ocw3) {
        if word.contains(Ocw3::ESMM) {
            self.special_mask = word.contains(Ocw3::SMM);
        }
        self.poll = word.contains(Ocw3::P);
        if word.contains(Ocw3::RR) {
            self.read_isr = word.contains(Ocw3::RIS);
        }
    }

    fn set_elcr(&mut self, elcr: u8) {
        self.irr = self.irr & !elcr | self.lines & elcr;
        self.elcr = elcr;
    }
}

/// What the pair holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    master: I8259,
    slave: I8259,
}

/// The master's input on which the slave is.
const CASCADE: u8 = 2;
/// Lines that can be level-triggered: not the timer, the keyboard, the cascade, the clock and the FPU.
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

/// The 8259A pair.
pub struct Pic {
    state: State,
}

impl Default for Pic {
    fn default() -> Pic {
        Pic { state: State { master: I8259::POWER_ON, slave: I8259::POWER_ON } }
    }
}

impl Pic {
    /// Drives interrupt line 0 to 15. Line 2 is the cascade: it goes nowhere, nor do higher ones.
    pub fn set_line(&mut self, irq: u8, level: bool) {
        match irq {
            CASCADE => {}
            0..8 => self.state.master.set_line(irq, level),
            8..16 => self.state.slave.set_line(irq - 8, level),
            _ => {}
        }
        self.cascade();
    }

    /// The INTR pin.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.state.master.pending().is_some()
    }

    /// The processor's interrupt acknowledge cycle: the vector, a spurious one when the request has gone.
    pub fn acknowledge(&mut self) -> u8 {
        let State { master, slave } = &mut self.state;
        let (vector, level) = master.acknowledge();
        if level != Some(CASCADE) || master.icw1.contains(Icw1::SNGL) || master.cascade & 1 << CASCADE == 0 {
            return vector;
        }
        let (vector, _) = slave.acknowledge();
        self.slave_acknowledged();
        vector
    }

    /// The slave's INT falls after its acknowledge, even if it rises again at once: IR2 sees the edge.
    fn slave_acknowledged(&mut self) {
        self.state.master.set_line(CASCADE, false);
        self.cascade();
    }

    fn cascade(&mut self) {
        let int = self.state.slave.pending().is_some();
        self.state.master.set_line(CASCADE, int);
    }

    fn read_byte(&mut self, region: u8, offset: u64) -> u8 {
        let State { master, slave } = &mut self.state;
        let odd = offset & 1 != 0;
        match region {
            0 => master.read(odd),
            1 => {
                let polled = slave.poll;
                let value = slave.read(odd);
                if polled {
                    self.slave_acknowledged();
                }
                value
            }
            _ if odd => slave.elcr,
            _ => master.elcr,
        }
    }

    fn write_byte(&mut self, region: u8, offset: u64, value: u8) {
        let State { master, slave } = &mut self.state;
        let chip = if region == 0 || region == 2 && offset == 0 { master } else { slave };
        match (region, offset & 1) {
            (2, half) => chip.set_elcr(value & ELCR_WRITABLE[half as usize]),
            (_, 0) => chip.write_even(value),
            _ => chip.write_odd(value),
        }
        self.cascade();
    }
}

impl Device for Pic {
    fn name(&self) -> &'static str {
        "8259A PIC pair"
    }

    fn read(&mut self, at: Access) -> u64 {
        wide::read(at, |offset| self.read_byte(at.region, offset))
    }

    fn write(&mut self, at: Access, value: u64) {
        wide::write(at, value, |offset, byte| self.write_byte(at.region, offset, byte));
    }

    /// The lines are low too: the chips that drive them are reset with this one.
    fn reset(&mut self) {
        *self = Pic::default();
    }
}

impl Chip for Pic {
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

    fn access(port: u16) -> Access {
        let (region, offset) = match port {
            0x20 | 0x21 => (0, port - 0x20),
            0xa0 | 0xa1 => (1, port - 0xa0),
            _ => (2, port - 0x4d0),
        };
        Access { region, offset: offset.into(), size: 1, now: Ticks(0) }
    }

    fn init(pic: &mut Pic, icw4: u8) {
        let words = [(0x20, 0x11), (0x21, 0x23), (0x21, 4), (0x21, icw4), (0xa0, 0x11), (0xa1, 0x28), (0xa1, 2), (0xa1, icw4 & !0x10)];
        for (port, value) in words {
            pic.write(access(port), value.into());
        }
    }

    /// Runs a script on an initialized pair (bases 0x20 and 0x28): `+N`/`-N` drive a line, `PORT=V` writes, `PORT?`
    /// reads, `ack` acknowledges, `intr` looks at the pin. Returns what was read.
    fn run(icw4: u8, script: &str) -> String {
        let mut pic = Pic::default();
        init(&mut pic, icw4);
        let mut out: Vec<String> = Vec::new();
        let hex = |s: &str| u16::from_str_radix(s, 16).unwrap();
        for step in script.split_whitespace() {
            if let Some(irq) = step.strip_prefix('+') {
                pic.set_line(irq.parse().unwrap(), true);
            } else if let Some(irq) = step.strip_prefix('-') {
                pic.set_line(irq.parse().unwrap(), false);
            } else if let Some((port, value)) = step.split_once('=') {
                pic.write(access(hex(port)), hex(value).into());
            } else if let Some(port) = step.strip_suffix('?') {
                out.push(format!("{:02x}", pic.read(access(hex(port)))));
            } else if step == "ack" {
                out.push(format!("{:02x}", pic.acknowledge()));
            } else {
                assert_eq!(step, "intr");
                out.push(u8::from(pic.intr()).to_string());
            }
        }
        out.join(" ")
    }

    #[test]
    fn behaviour() {
        let rows: &[(&str, u8, &str, &str)] = &[
            ("fixed priority", 1, "+3 +1 intr ack intr 20=20 intr ack", "1 21 0 1 23"),
            ("higher interrupts lower", 1, "+3 ack +1 intr ack", "23 1 21"),
            ("mask", 1, "21=08 +3 intr 20? 21=00 intr ack", "0 08 1 23"),
            ("read IRR and ISR", 1, "+4 20? ack 20=0b 20? 20=0a 20? 21?", "10 24 10 00 00"),
            ("one edge, one interrupt", 1, "+3 ack 20=20 intr -3 +3 intr", "23 0 1"),
            ("an edge must stay until the acknowledge", 1, "+3 intr -3 intr ack 20=0b 20?", "1 0 27 00"),
            ("spurious slave: IR2 stays in service", 1, "+12 ack -12 20=0b 20? a0=0b a0?", "2c 04 10"),
            ("cascade", 1, "+14 +9 intr ack intr a0=20 intr 20=20 intr ack", "1 29 0 0 1 2e"),
            ("slave masked", 1, "a1=ff +14 intr a1=bf intr ack", "0 1 2e"),
            ("cascade is above IRQ3", 1, "+3 +8 ack 20=20 ack", "28 23"),
            ("a slave in service blocks its higher levels without SFNM", 1, "+12 ack +9 intr", "2c 0"),
            ("special fully nested", 0x11, "+12 ack +9 intr ack", "2c 1 29"),
            ("auto EOI", 3, "+3 ack 20=0b 20? +1 +4 ack ack", "23 00 21 24"),
            ("rotate on auto EOI", 3, "20=80 +3 ack -3 +3 +4 ack ack", "23 24 23"),
            ("rotate off again", 3, "20=80 20=00 +3 ack -3 +3 +4 ack", "23 23"),
            ("rotate on non-specific EOI", 1, "+3 ack 20=a0 -3 +3 +4 ack", "23 24"),
            ("specific EOI", 1, "+3 ack +1 ack 20=63 20=0b 20?", "23 21 02"),
            ("rotate on specific EOI", 1, "+3 ack 20=e3 -3 +3 +4 ack", "23 24"),
            ("set priority", 1, "20=c4 +4 +5 ack", "25"),
            ("special mask", 1, "+1 ack +4 intr 21=02 intr 20=68 intr ack 20=48 20=20 20=0b 20?", "21 0 0 1 24 10"),
            ("poll", 1, "+5 20=0c 20? 20=0b 20? 20=0c 20?", "85 20 00"),
            ("poll the slave", 1, "+13 20=0c 20? a0=0c a0? intr", "82 85 0"),
            ("level by the ELCR", 1, "4d1=02 4d1? +9 ack a0=20 20=20 ack a0=20 20=20 -9 intr", "02 29 29 0"),
            ("ELCR keeps system lines on edge", 1, "4d0=ff 4d0? 4d1=ff 4d1?", "f8 de"),
            ("ICW1 takes all back", 1, "21=ff +3 20=11 21=40 21=04 21=01 21? 20? intr -3 +3 ack", "00 00 0 43"),
            ("no interrupt while being initialized", 1, "20=11 +3 intr 21=20 21=04 intr 21=01 intr", "0 0 1"),
            ("single, no ICW4", 1, "20=12 21=30 +2 +5 ack", "35"),
            ("lines that are not there", 1, "+2 +16 +255 intr", "0"),
        ];
        for (name, icw4, script, expect) in rows {
            assert_eq!(run(*icw4, script), *expect, "{name}");
        }
    }
}
