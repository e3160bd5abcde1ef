//! ACPI fixed hardware: PM1a event and control blocks, the power-management timer, GPE block 0 and the SMI command port.
//! ACPI Specification 6.5, "ACPI Hardware Specification".

use crate::Chip;
use bitflags::bitflags;
use egret_bus::{Access, Device, Event, Events, IrqLine, Ticks};

bitflags! {
    /// PM1 status and enable bits (the same positions).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Pm1: u16 {
        /// The timer's top bit changed.
        const TMR = 1;
        /// The bus master asked for the bus (status only).
        const BM = 1 << 4;
        /// The global lock was released.
        const GBL = 1 << 5;
        /// The power button was pressed.
        const PWRBTN = 1 << 8;
        /// The sleep button was pressed.
        const SLPBTN = 1 << 9;
        /// The real-time clock's alarm.
        const RTC = 1 << 10;
        /// The system woke (status only).
        const WAK = 1 << 15;
    }
}

bitflags! {
    /// PM1 control.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Pm1Control: u16 {
        /// Power events raise SCI instead of SMI: ACPI is on.
        const SCI_EN = 1;
        /// Bus master requests wake from C3.
        const BM_RLD = 1 << 1;
        /// Release the global lock (write-only).
        const GBL_RLS = 1 << 2;
        /// Enter the sleep state in SLP_TYP (write-only).
        const SLP_EN = 1 << 13;
        /// Sleep state, bits 10 to 12.
        const SLP_TYP = 7 << 10;
    }
}

/// Region numbers, as the machine maps them.
pub mod region {
    /// PM1a event block: status, then enable.
    pub const EVENT: u8 = 0;
    /// PM1a control block.
    pub const CONTROL: u8 = 1;
    /// The timer.
    pub const TIMER: u8 = 2;
    /// GPE block 0: status, then enable; two bytes each.
    pub const GPE0: u8 = 3;
    /// SMI command.
    pub const SMI: u8 = 4;
}

/// The timer's frequency in Hz.
pub const TIMER_HZ: u64 = 3_579_545;
/// Bits that the timer counts in.
const TIMER_BITS: u32 = 24;
/// The status bits that can raise SCI.
const ENABLEABLE: Pm1 = Pm1::TMR.union(Pm1::GBL).union(Pm1::PWRBTN).union(Pm1::SLPBTN).union(Pm1::RTC);

/// What the ACPI tables promise; given by the machine.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// SLP_TYP of S5.
    pub slp_typ_s5: u8,
    /// The value for the SMI command port that turns ACPI on.
    pub acpi_enable: u8,
    /// The value that turns it off.
    pub acpi_disable: u8,
}

/// What the hardware holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    status: Pm1,
    enable: Pm1,
    control: Pm1Control,
    gpe_status: u16,
    gpe_enable: u16,
    smi: u8,
    /// When the timer was last looked at, and its top bit then.
    seen: Ticks,
    timer_top: bool,
}

/// The fixed hardware.
pub struct AcpiPm {
    state: State,
    config: Config,
    sci: IrqLine,
    events: Events,
}

impl AcpiPm {
    /// The hardware after power-on, ACPI off.
    #[must_use]
    pub fn new(config: Config, sci: IrqLine, events: Events) -> AcpiPm {
        AcpiPm { state: State::default(), config, sci, events }
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.state.status |= Pm1::PWRBTN;
        self.update();
    }

    fn timer(now: Ticks) -> u64 {
        now.periods(TIMER_HZ) & ((1 << TIMER_BITS) - 1)
    }

    /// Notices a change of the timer's top bit.
    fn watch_timer(&mut self, now: Ticks) {
        self.state.seen = now;
        let top = Self::timer(now) >> (TIMER_BITS - 1) != 0;
        if top != self.state.timer_top {
            self.state.timer_top = top;
            self.state.status |= Pm1::TMR;
        }
    }

    fn update(&mut self) {
        let s = &self.state;
        let due = !(s.status & s.enable & ENABLEABLE).is_empty() || s.gpe_status & s.gpe_enable != 0;
        self.sci.set(due && s.control.contains(Pm1Control::SCI_EN));
    }

    fn write_control(&mut self, value: u16) {
        let new = Pm1Control::from_bits_truncate(value);
        if new.contains(Pm1Control::SLP_EN) && (value >> 10 & 7) as u8 == self.config.slp_typ_s5 {
            self.events.raise(Event::PowerOff);
        }
        let kept = Pm1Control::BM_RLD | Pm1Control::SLP_TYP;
        self.state.control = new & kept | self.state.control & Pm1Control::SCI_EN;
    }
}

/// Puts `value` of an access into the word whose bytes it covers; `None` when it covers none of the word at `base`.
fn merge(old: u16, base: u64, at: Access, value: u64) -> Option<u16> {
    let (mut bytes, mut any) = (old.to_le_bytes(), false);
    for n in 0..u64::from(at.size) {
        if let Some(b) = (at.offset + n).checked_sub(base).and_then(|i| bytes.get_mut(i as usize)) {
            *b = (value >> (8 * n)) as u8;
            any = true;
        }
    }
    any.then(|| u16::from_le_bytes(bytes))
}

/// Two words side by side, read at an offset.
fn pair(low: u16, high: u16, at: Access) -> u64 {
    (u64::from(high) << 16 | u64::from(low)) >> (8 * (at.offset & 3))
}

impl Device for AcpiPm {
    fn name(&self) -> &'static str {
        "ACPI power management"
    }

    fn read(&mut self, at: Access) -> u64 {
        self.watch_timer(at.now);
        self.update();
        let s = &self.state;
        match at.region {
            region::EVENT => pair(s.status.bits(), s.enable.bits(), at),
            region::CONTROL => u64::from(s.control.bits()) >> (8 * (at.offset & 1)),
            region::TIMER => Self::timer(at.now) >> (8 * (at.offset & 3)),
            region::GPE0 => pair(s.gpe_status, s.gpe_enable, at),
            _ => s.smi.into(),
        }
    }

    fn write(&mut self, at: Access, value: u64) {
        self.watch_timer(at.now);
        let s = &mut self.state;
        match at.region {
            region::EVENT => {
                if let Some(clear) = merge(0, 0, at, value) {
                    s.status -= Pm1::from_bits_truncate(clear);
                }
                if let Some(enable) = merge(s.enable.bits(), 2, at, value) {
                    s.enable = Pm1::from_bits_truncate(enable) & ENABLEABLE;
                }
            }
            region::CONTROL => {
                if let Some(word) = merge(s.control.bits(), 0, at, value) {
                    self.write_control(word);
                }
            }
            region::GPE0 => {
                if let Some(clear) = merge(0, 0, at, value) {
                    s.gpe_status &= !clear;
                }
                if let Some(enable) = merge(s.gpe_enable, 2, at, value) {
                    s.gpe_enable = enable;
                }
            }
            region::SMI => {
                s.smi = value as u8;
                if s.smi == self.config.acpi_enable {
                    s.control |= Pm1Control::SCI_EN;
                } else if s.smi == self.config.acpi_disable {
                    s.control -= Pm1Control::SCI_EN;
                }
            }
            _ => {}
        }
        self.update();
    }

    fn reset(&mut self) {
        self.state = State::default();
        self.update();
    }

    fn tick(&mut self, now: Ticks) {
        self.watch_timer(now);
        self.update();
    }

    /// The next change of the timer's top bit, when somebody wants to know.
    fn deadline(&self) -> Option<Ticks> {
        let s = &self.state;
        if !s.enable.contains(Pm1::TMR) || s.status.contains(Pm1::TMR) {
            return None;
        }
        let half_turn = (1 << (TIMER_BITS - 1)) - 1;
        Some(Ticks::from_periods((s.seen.periods(TIMER_HZ) | half_turn) + 1, TIMER_HZ))
    }
}

impl Chip for AcpiPm {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::Lines;

    const CONFIG: Config = Config { slp_typ_s5: 5, acpi_enable: 0xa0, acpi_disable: 0xa1 };

    fn at(region: u8, offset: u64, size: u8, now: u64) -> Access {
        Access { region, offset, size, now: Ticks(now) }
    }

    #[test]
    fn s5_powers_off() {
        let (lines, events) = (Lines::default(), Events::default());
        let mut pm = AcpiPm::new(CONFIG, lines.line(9), events.clone());
        pm.write(at(region::CONTROL, 0, 2, 0), 0x2000);
        assert_eq!(events.take(), None, "S0");
        pm.write(at(region::CONTROL, 0, 2, 0), 0x2000 | 5 << 10);
        assert_eq!(events.take(), Some(Event::PowerOff));
    }

    #[test]
    fn the_timer_counts_3_58_mhz_in_24_bits() {
        let mut pm = AcpiPm::new(CONFIG, Lines::default().line(9), Events::default());
        assert_eq!(pm.read(at(region::TIMER, 0, 4, 1_000_000_000)), 3_579_545);
        assert_eq!(pm.read(at(region::TIMER, 0, 4, 5_000_000_000)), (5 * 3_579_545) & 0xff_ffff);
    }

    #[test]
    fn sci_follows_enabled_status_once_acpi_is_on() {
        let lines = Lines::default();
        let mut pm = AcpiPm::new(CONFIG, lines.line(9), Events::default());
        pm.write(at(region::EVENT, 2, 2, 0), Pm1::PWRBTN.bits().into());
        pm.press_power_button();
        assert_eq!(lines.take(), None, "ACPI is off");
        pm.write(at(region::SMI, 0, 1, 0), 0xa0);
        assert!(lines.take().is_some_and(|c| c.level));
        assert_eq!(pm.read(at(region::CONTROL, 0, 2, 0)) & 1, 1);
        pm.write(at(region::EVENT, 0, 2, 0), Pm1::PWRBTN.bits().into());
        assert!(lines.take().is_some_and(|c| !c.level), "write 1 to clear");
    }
}
