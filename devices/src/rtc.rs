//! MC146818 real-time clock with CMOS RAM (Motorola datasheet), as a PC has it: index and data port, NMI mask in the
//! index port's bit 7, the century in byte 32h, and a second bank of 128 bytes.
//!
//! Region 0: 4 ports (70h to 73h; 72h and 73h are the second bank). The clock starts at a given Unix time and runs with
//! guest time; the battery keeps it and the RAM through a reset.

mod calendar;

#[cfg(test)]
mod tests;

use crate::{Chip, wide};
use bitflags::bitflags;
use calendar::{Alarm, Field, Fields, Format};
use egret_bus::{Access, Device, IrqLine, Ticks};

/// Registers; the others are RAM.
mod reg {
    pub const SECONDS: u8 = 0x00;
    pub const SECONDS_ALARM: u8 = 0x01;
    pub const MINUTES: u8 = 0x02;
    pub const MINUTES_ALARM: u8 = 0x03;
    pub const HOURS: u8 = 0x04;
    pub const HOURS_ALARM: u8 = 0x05;
    pub const DAY_OF_WEEK: u8 = 0x06;
    pub const DATE: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const A: u8 = 0x0a;
    pub const B: u8 = 0x0b;
    pub const C: u8 = 0x0c;
    pub const D: u8 = 0x0d;
    pub const CENTURY: u8 = 0x32;
}

bitflags! {
    /// Register A without UIP.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct RegisterA: u8 {
        const RS = 0x0f;
        const DV = 0x70;
        const UIP = 0x80;
    }

    /// Register B.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct RegisterB: u8 {
        const DSE = 1 << 0;
        const HOURS_24 = 1 << 1;
        const BINARY = 1 << 2;
        const SQWE = 1 << 3;
        const UIE = 1 << 4;
        const AIE = 1 << 5;
        const PIE = 1 << 6;
        const SET = 1 << 7;
    }

    /// Register C.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct RegisterC: u8 {
        const UF = 1 << 4;
        const AF = 1 << 5;
        const PF = 1 << 6;
        const IRQF = 1 << 7;
    }
}

/// Register D: the RAM and time are valid.
const VRT: u8 = 0x80;
/// Divider setting for the 32,768 Hz crystal; any other stops the clock.
const DV_RUN: RegisterA = RegisterA::from_bits_retain(0x20);
/// Nanoseconds for which UIP warns and stays set before a second ends: tBUC 244 µs and tUC 1984 µs.
const UPDATE: u64 = 2_228_000;
const SECOND: u64 = Ticks::SECOND.0;

/// What the clock holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    index: [u8; 2],
    ram: [u8; 256],
    a: RegisterA,
    b: RegisterB,
    c: RegisterC,
    /// Unix time at `since`, while the clock runs and is not being set.
    seconds: i64,
    /// The start of a second, as the divider counts it.
    since: Ticks,
    /// How far the day of the week is from what the date says.
    weekday_shift: u8,
    /// The time registers while the guest sets them or the divider is stopped.
    frozen: Option<Fields>,
    /// Time up to which the flags of register C are right.
    seen: Ticks,
}

/// A real-time clock.
pub struct Rtc {
    state: State,
    irq: IrqLine,
}

impl Rtc {
    /// A clock that shows `unix_seconds` at power-on and drives `irq`.
    #[must_use]
    pub fn new(unix_seconds: i64, irq: IrqLine) -> Rtc {
        let state = State {
            index: [0; 2],
            ram: [0; 256],
            a: DV_RUN | RegisterA::from_bits_retain(6),
            b: RegisterB::HOURS_24,
            c: RegisterC::empty(),
            // The calendar has four digits of year.
            seconds: unix_seconds.clamp(calendar::FIRST, calendar::LAST),
            since: Ticks(0),
            weekday_shift: 0,
            frozen: None,
            seen: Ticks(0),
        };
        Rtc { state, irq }
    }

    /// Writes a byte of RAM, as firmware would; 0 to 0dh and 32h belong to the clock and are left alone.
    pub fn set_ram(&mut self, index: u8, value: u8) {
        if index > reg::D && index != reg::CENTURY {
            self.state.ram[usize::from(index)] = value;
        }
    }

    /// Writes the memory size where firmware leaves it: `low` bytes of RAM below 4 GiB, `high` above.
    pub fn set_memory_size(&mut self, low: u64, high: u64) {
        let base = (low / 1024).min(640) as u16;
        let extended = (low.saturating_sub(1 << 20) / 1024).min(0xffff) as u16;
        let above_16m = (low.saturating_sub(16 << 20) / 0x1_0000).min(0xffff) as u16;
        for (index, value) in [(0x15, base), (0x17, extended), (0x30, extended), (0x34, above_16m)] {
            let [first, second] = value.to_le_bytes();
            self.set_ram(index, first);
            self.set_ram(index + 1, second);
        }
        let above_4g = (high / 0x1_0000).min(0xff_ffff).to_le_bytes();
        for (index, byte) in (0x5b..).zip(above_4g).take(3) {
            self.set_ram(index, byte);
        }
        let sum = self.state.ram.iter().take(0x2e).skip(0x10).fold(0u16, |sum, &byte| sum.wrapping_add(byte.into()));
        self.set_ram(0x2e, (sum >> 8) as u8);
        self.set_ram(0x2f, sum as u8);
    }

    /// Whether the index port lets NMIs through.
    #[must_use]
    pub fn nmi_enabled(&self) -> bool {
        self.state.index[0] & 0x80 == 0
    }

    /// Unix time at `now`, as the guest has set the clock.
    #[must_use]
    pub fn unix_seconds(&self, now: Ticks) -> i64 {
        match &self.state.frozen {
            Some(fields) => fields.to_unix(),
            None => self.state.seconds_at(now),
        }
    }

    /// Sets register C's flags for what happened up to `now`, and drives the line.
    fn sync(&mut self, now: Ticks) {
        let s = &mut self.state;
        let now = now.max(s.seen);
        for (flag, at) in [(RegisterC::PF, s.next_periodic()), (RegisterC::UF, s.next_second()), (RegisterC::AF, s.next_alarm())] {
            s.c.set(flag, s.c.contains(flag) || at.is_some_and(|at| at <= now));
        }
        s.seen = now;
        self.drive();
    }

    fn drive(&mut self) {
        let s = &mut self.state;
        let enabled = (s.b & (RegisterB::PIE | RegisterB::AIE | RegisterB::UIE)).bits();
        let asserted = s.c.bits() & enabled != 0;
        s.c.set(RegisterC::IRQF, asserted);
        self.irq.set(asserted);
    }

    fn read_data(&mut self, index: u8) -> u8 {
        let s = &mut self.state;
        match index {
            reg::A => {
                let mut a = s.a;
                a.set(RegisterA::UIP, s.updating());
                a.bits()
            }
            reg::B => s.b.bits(),
            reg::C => {
                let c = std::mem::replace(&mut s.c, RegisterC::empty());
                self.drive();
                c.bits()
            }
            reg::D => VRT,
            _ => match field(index) {
                Some(field) => s.format().encode(field, s.fields().part(field)),
                None => s.ram[usize::from(index)],
            },
        }
    }

    fn write_data(&mut self, index: u8, value: u8) {
        let s = &mut self.state;
        match index {
            reg::A => s.set_a(RegisterA::from_bits_retain(value & 0x7f)),
            reg::B => {
                s.b = RegisterB::from_bits_retain(value);
                if s.b.contains(RegisterB::SET) {
                    s.b -= RegisterB::UIE;
                }
                s.freeze_or_run(None);
            }
            reg::C | reg::D => {}
            _ => match field(index) {
                Some(field) => {
                    let mut fields = s.fields();
                    *fields.part_mut(field) = s.format().decode(field, value);
                    s.set_fields(fields);
                }
                None => s.ram[usize::from(index)] = value,
            },
        }
        self.drive();
    }
}

fn field(index: u8) -> Option<Field> {
    Some(match index {
        reg::SECONDS => Field::Second,
        reg::MINUTES => Field::Minute,
        reg::HOURS => Field::Hour,
        reg::DAY_OF_WEEK => Field::Weekday,
        reg::DATE => Field::Date,
        reg::MONTH => Field::Month,
        reg::YEAR => Field::Year,
        reg::CENTURY => Field::Century,
        _ => return None,
    })
}

impl State {
    fn format(&self) -> Format {
        Format { binary: self.b.contains(RegisterB::BINARY), hours_24: self.b.contains(RegisterB::HOURS_24) }
    }

    fn seconds_at(&self, now: Ticks) -> i64 {
        let seconds = self.seconds.saturating_add((now.since(self.since) / SECOND) as i64);
        seconds.min(calendar::LAST)
    }

    /// The time registers now.
    fn fields(&self) -> Fields {
        match &self.frozen {
            Some(fields) => fields.clone(),
            None => Fields::from_unix(self.seconds_at(self.seen), self.weekday_shift),
        }
    }

    /// Puts new values into the time registers.
    fn set_fields(&mut self, fields: Fields) {
        self.weekday_shift = fields.weekday_shift();
        if self.frozen.is_some() {
            self.frozen = Some(fields);
        } else {
            let now = self.seconds_at(self.seen);
            self.seconds = self.seconds.saturating_add(fields.to_unix().saturating_sub(now));
        }
    }

    fn divider_runs(&self) -> bool {
        self.a & RegisterA::DV == DV_RUN
    }

    fn set_a(&mut self, new: RegisterA) {
        let ran = self.divider_runs();
        let phase = self.seen;
        self.a = new;
        // The first update comes half a second after the divider is let go.
        self.freeze_or_run((!ran && self.divider_runs()).then_some(phase));
    }

    /// Stops the time registers while SET is set or the divider stopped, and starts them with what they hold after
    /// that; `released` is when the divider was let go.
    fn freeze_or_run(&mut self, released: Option<Ticks>) {
        let frozen = self.b.contains(RegisterB::SET) || !self.divider_runs();
        if frozen && self.frozen.is_none() {
            self.frozen = Some(self.fields());
        }
        if let Some(at) = released {
            // Half a second has gone; before the first half second of guest time there is nothing to go back to.
            self.since = Ticks(at.0.saturating_sub(SECOND / 2));
        } else if self.divider_runs() {
            let gone = self.seen.since(self.since) / SECOND;
            if self.frozen.is_none() {
                self.seconds = self.seconds_at(self.seen);
            }
            self.since = self.since.after(gone * SECOND);
        }
        if !frozen && let Some(fields) = self.frozen.take() {
            self.seconds = fields.to_unix();
            self.weekday_shift = fields.weekday_shift();
        }
    }

    fn updating(&self) -> bool {
        self.frozen.is_none() && SECOND - self.seen.since(self.since) % SECOND <= UPDATE
    }

    /// The next multiple of `period` after `seen`, counted from `since`.
    fn next(&self, period: u64) -> Ticks {
        self.since.after((self.seen.since(self.since) / period + 1).saturating_mul(period))
    }

    fn next_second(&self) -> Option<Ticks> {
        self.frozen.is_none().then(|| self.next(SECOND))
    }

    fn next_periodic(&self) -> Option<Ticks> {
        let hertz = match (self.a & RegisterA::RS).bits() {
            0 => return None,
            rs @ 1..=2 => 512u64 >> rs,
            rs => 65_536 >> rs,
        };
        self.divider_runs().then(|| {
            let n = Ticks(self.seen.since(self.since)).periods(hertz).saturating_add(1);
            self.since.after(Ticks::from_periods(n, hertz).0)
        })
    }

    fn next_alarm(&self) -> Option<Ticks> {
        if self.frozen.is_some() {
            return None;
        }
        let (ram, format) = (|index: u8| self.ram[usize::from(index)], self.format());
        let alarm = Alarm::new(format, ram(reg::HOURS_ALARM), ram(reg::MINUTES_ALARM), ram(reg::SECONDS_ALARM));
        let ahead = alarm.seconds_until(self.seconds_at(self.seen))?;
        Some(self.next(SECOND).after((ahead - 1).saturating_mul(SECOND)))
    }
}

impl Device for Rtc {
    fn name(&self) -> &'static str {
        "MC146818 RTC"
    }

    fn read(&mut self, at: Access) -> u64 {
        self.sync(at.now);
        wide::read(at, |offset| match offset {
            0 => self.state.index[0],
            1 => self.read_data(self.state.index[0] & 0x7f),
            2 => self.state.index[1],
            _ => self.state.ram[usize::from(self.state.index[1] | 0x80)],
        })
    }

    fn write(&mut self, at: Access, value: u64) {
        self.sync(at.now);
        wide::write(at, value, |offset, byte| match offset {
            0 => self.state.index[0] = byte,
            1 => self.write_data(self.state.index[0] & 0x7f, byte),
            2 => self.state.index[1] = byte,
            _ => self.state.ram[usize::from(self.state.index[1] | 0x80)] = byte,
        });
    }

    /// The RESET pin: interrupts off, flags clear. Time and RAM are on the battery.
    fn reset(&mut self) {
        self.state.b -= RegisterB::PIE | RegisterB::AIE | RegisterB::UIE | RegisterB::SQWE;
        self.state.c = RegisterC::empty();
        self.state.index = [0; 2];
        self.drive();
    }

    fn tick(&mut self, now: Ticks) {
        self.sync(now);
    }

    /// Only flags that would interrupt need a tick; the others are set when register C is read.
    fn deadline(&self) -> Option<Ticks> {
        let s = &self.state;
        let source = |enable, flag, at: Option<Ticks>| at.filter(|_| s.b.contains(enable) && !s.c.contains(flag));
        let periodic = source(RegisterB::PIE, RegisterC::PF, s.next_periodic());
        let update = source(RegisterB::UIE, RegisterC::UF, s.next_second());
        let alarm = if s.b.contains(RegisterB::AIE) { source(RegisterB::AIE, RegisterC::AF, s.next_alarm()) } else { None };
        [periodic, update, alarm].into_iter().flatten().min()
    }
}

impl Chip for Rtc {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
        self.drive();
    }
}
