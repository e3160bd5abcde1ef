//! One counter of the 8254, as a function of the clock: nothing is counted, the state says when the count was loaded.

use bitflags::bitflags;

bitflags! {
    /// The control word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Control: u8 {
        const BCD = 1 << 0;
        const MODE = 7 << 1;
        /// The count's low byte is accessed.
        const LSB = 1 << 4;
        /// The count's high byte is accessed, after the low one if that is too.
        const MSB = 1 << 5;
    }
}

/// The status byte's own bits; the others are those of the control word.
mod status {
    pub const NULL_COUNT: u8 = 1 << 6;
    pub const OUT: u8 = 1 << 7;
}

/// A new count in modes 2 and 3, to be loaded when the current period or half period ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reload {
    at: i64,
    /// It ends the high half of mode 3.
    goes_low: bool,
}

/// A counter. Times are whole clocks since power-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    control: Control,
    gate: bool,
    /// Count register: 1 to 65,536; zero before the first write.
    register: u32,
    /// The count in use; zero when nothing counts.
    count: u32,
    /// When `count` was loaded into the counting element.
    origin: i64,
    /// Clocks counted so far, while the gate holds the counter.
    held: Option<i64>,
    reload: Option<Reload>,
    /// A count waits for a trigger.
    waits: bool,
    low_byte: Option<u8>,
    latch: Option<u16>,
    latched_status: Option<u8>,
    read_high: bool,
}

impl Counter {
    pub fn new(gate: bool) -> Counter {
        Counter {
            control: Control::LSB | Control::MSB,
            gate,
            register: 0,
            count: 0,
            origin: 0,
            held: None,
            reload: None,
            waits: false,
            low_byte: None,
            latch: None,
            latched_status: None,
            read_high: false,
        }
    }

    pub fn mode(&self) -> u8 {
        let mode = (self.control & Control::MODE).bits() >> 1;
        // Modes 6 and 7 are 2 and 3.
        if mode > 5 { mode & 3 } else { mode }
    }

    fn period(&self) -> i64 {
        self.count.into()
    }

    /// Mode 3: clocks for which OUT is high.
    fn high_half(&self) -> i64 {
        (self.period() + 1) / 2
    }

    /// Clocks since the load.
    fn elapsed(&self, now: i64) -> i64 {
        self.held.unwrap_or(now.saturating_sub(self.origin)).max(0)
    }

    /// Loads the count register into the counting element with the next clock.
    fn load(&mut self, now: i64) {
        self.count = self.register;
        self.origin = now.saturating_add(1);
        self.held = (!self.gate && !matches!(self.mode(), 1 | 5)).then_some(0);
        self.reload = None;
        self.waits = false;
    }

    /// When a count that was written during a period takes over.
    pub fn reload_at(&self) -> Option<i64> {
        self.reload.map(|r| r.at)
    }

    /// Brings the counter to `now`.
    pub fn advance(&mut self, now: i64) {
        let Some(reload) = self.reload.filter(|r| r.at <= now) else { return };
        self.count = self.register;
        self.origin = reload.at - if reload.goes_low { self.high_half() } else { 0 };
        self.reload = None;
    }

    /// The OUT pin.
    pub fn out(&self, now: i64) -> bool {
        if self.count == 0 {
            return self.mode() != 0;
        }
        let (elapsed, period) = (self.elapsed(now), self.period());
        let loaded = now >= self.origin;
        match self.mode() {
            0 => elapsed >= period,
            1 => !loaded || elapsed >= period,
            2 => !self.gate || !loaded || elapsed % period != period - 1,
            3 => !self.gate || elapsed % period < self.high_half(),
            _ => elapsed != period,
        }
    }

    /// The next clock after `now` with which OUT rises, if the gate stays and nothing is written.
    pub fn next_rise(&self, now: i64) -> Option<i64> {
        if self.count == 0 || self.held.is_some() {
            return None;
        }
        let period = self.period();
        let at = match self.mode() {
            0 | 1 => self.origin + period,
            2 | 3 if period == 1 => return None,
            2 | 3 => self.origin + ((now - self.origin).max(0) / period + 1) * period,
            _ => self.origin + period + 1,
        };
        (at > now).then_some(at)
    }

    /// Mode 3: the next clock after `now` with which OUT falls.
    pub fn next_fall(&self, now: i64) -> Option<i64> {
        if self.mode() != 3 || self.count < 2 || self.held.is_some() {
            return None;
        }
        let (period, first) = (self.period(), self.origin + self.high_half());
        Some(if now < first { first } else { first + ((now - first) / period + 1) * period })
    }

    /// The counting element, as it is read.
    fn value(&self, now: i64) -> u16 {
        let (elapsed, period) = (self.elapsed(now), self.period());
        let value = match self.mode() {
            _ if self.count == 0 => self.register.into(),
            2 => period - elapsed % period,
            3 => {
                let at = elapsed % period;
                let in_half = if at < self.high_half() { at } else { at - self.high_half() };
                (period & !1) - 2 * in_half
            }
            _ => period - elapsed,
        };
        if self.control.contains(Control::BCD) {
            let value = value.rem_euclid(10_000) as u16;
            (0..4).fold(0, |bcd, digit| bcd | ((value / 10u16.pow(digit) % 10) << (4 * digit)))
        } else {
            value as u16
        }
    }

    fn status(&self, now: i64) -> u8 {
        let null = self.waits || self.reload.is_some() || self.count == 0 || now < self.origin;
        self.control.bits() | if null { status::NULL_COUNT } else { 0 } | if self.out(now) { status::OUT } else { 0 }
    }

    /// A control word for this counter: it stops and waits for a count.
    pub fn set_control(&mut self, control: Control) {
        *self = Counter { control, ..Counter::new(self.gate) };
    }

    /// Latches the count until it is read; a second latch does nothing.
    pub fn latch_count(&mut self, now: i64) {
        self.latch = self.latch.or(Some(self.value(now)));
    }

    /// Latches the status until it is read.
    pub fn latch_status(&mut self, now: i64) {
        self.latched_status = self.latched_status.or(Some(self.status(now)));
    }

    pub fn read(&mut self, now: i64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latch.unwrap_or_else(|| self.value(now)).to_le_bytes();
        let both = self.control.contains(Control::LSB | Control::MSB);
        let take_high = if both { self.read_high } else { self.control.contains(Control::MSB) };
        if both {
            self.read_high = !self.read_high;
        }
        if !both || take_high {
            self.latch = None;
        }
        if take_high { high } else { low }
    }

    pub fn write(&mut self, byte: u8, now: i64) {
        let count = match (self.control.contains(Control::LSB), self.control.contains(Control::MSB)) {
            (true, true) => match self.low_byte.take() {
                None => {
                    self.low_byte = Some(byte);
                    // In mode 0 the first byte stops the count.
                    if self.mode() == 0 {
                        self.count = 0;
                    }
                    return;
                }
                Some(low) => u16::from_le_bytes([low, byte]),
            },
            (false, true) => u16::from(byte) << 8,
            _ => byte.into(),
        };
        self.register = match (count, self.control.contains(Control::BCD)) {
            (0, true) => 10_000,
            (0, false) => 0x1_0000,
            (bcd, true) => [12, 8, 4, 0].iter().fold(0, |n, shift| n * 10 + u32::from(bcd >> shift & 0xf)),
            (n, false) => n.into(),
        };
        match self.mode() {
            1 | 5 => self.waits = true,
            2 | 3 if self.count != 0 => self.reload_later(now),
            _ => self.load(now),
        }
    }

    /// Modes 2 and 3: the new count takes over when the period, or the half of it, ends.
    fn reload_later(&mut self, now: i64) {
        if self.held.is_some() {
            self.waits = true;
            return;
        }
        let rise = self.next_rise(now).unwrap_or(now.saturating_add(1));
        self.reload = Some(match self.next_fall(now) {
            Some(fall) if fall < rise => Reload { at: fall, goes_low: true },
            _ => Reload { at: rise, goes_low: false },
        });
    }

    pub fn set_gate(&mut self, gate: bool, now: i64) {
        let was = std::mem::replace(&mut self.gate, gate);
        match (self.mode(), was, gate) {
            (1 | 5, false, true) if self.register != 0 => self.load(now),
            (2 | 3, false, true) if self.count != 0 => self.load(now),
            (0 | 4, false, true) => {
                if let Some(counted) = self.held.take() {
                    self.origin = now.saturating_sub(counted);
                }
            }
            (0 | 2 | 3 | 4, true, false) if self.count != 0 => {
                self.held = Some(self.elapsed(now));
                // The gate's rise loads the count register anyway.
                self.waits |= self.reload.take().is_some();
            }
            _ => {}
        }
    }
}
