//! The clock's calendar: fields, their encodings, and Unix time.

/// Unix time of 0000-01-01 and 9999-12-31 23:59:59: what four digits of year can show.
pub const FIRST: i64 = -62_167_219_200;
pub const LAST: i64 = 253_402_300_799;

const DAY: i64 = 86_400;

/// A time register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Second,
    Minute,
    Hour,
    Weekday,
    Date,
    Month,
    Year,
    Century,
}

/// The time registers as numbers: hour 0 to 23, weekday 1 (Sunday) to 7. The guest can set any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields([u8; 8]);

/// How register B wants the registers encoded.
#[derive(Clone, Copy)]
pub struct Format {
    pub binary: bool,
    pub hours_24: bool,
}

/// Bit 7 of the hours register: afternoon, in 12-hour mode.
const PM: u8 = 0x80;

impl Format {
    fn number(self, value: u8) -> u8 {
        if self.binary { value } else { ((value / 10 % 10) << 4) | (value % 10) }
    }

    /// The register's byte.
    pub fn encode(self, field: Field, value: u8) -> u8 {
        if field != Field::Hour || self.hours_24 {
            return self.number(value);
        }
        let hour = if value.is_multiple_of(12) { 12 } else { value % 12 };
        self.number(hour) | if value >= 12 { PM } else { 0 }
    }

    /// The number in a register's byte. Digits beyond 9 are taken for what they weigh.
    pub fn decode(self, field: Field, byte: u8) -> u8 {
        let number = |byte: u8| if self.binary { byte } else { (byte >> 4) * 10 + (byte & 0xf) };
        if field != Field::Hour || self.hours_24 {
            return number(byte);
        }
        number(byte & !PM) % 12 + if byte & PM != 0 { 12 } else { 0 }
    }
}

impl Fields {
    /// The register of `field`.
    pub fn part(&self, field: Field) -> u8 {
        self.0[field as usize]
    }

    /// The register of `field`.
    pub fn part_mut(&mut self, field: Field) -> &mut u8 {
        &mut self.0[field as usize]
    }

    /// The fields of a Unix time between [`FIRST`] and [`LAST`].
    pub fn from_unix(seconds: i64, weekday_shift: u8) -> Fields {
        let seconds = seconds.clamp(FIRST, LAST);
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, date) = civil(days);
        let weekday = (days + 4 + i64::from(weekday_shift)).rem_euclid(7) + 1;
        let numbers = [second % 60, second / 60 % 60, second / 3600, weekday, date, month, year % 100, year / 100];
        Fields(numbers.map(|n| n as u8))
    }

    /// The Unix time; values out of range count as the nearest that is possible.
    pub fn to_unix(&self) -> i64 {
        let [second, minute, hour, _, date, month, year, century] = self.0.map(i64::from);
        let year = century.min(99) * 100 + year.min(99);
        let days = days(year, month.clamp(1, 12), date.clamp(1, 31));
        (days * DAY + hour.min(23) * 3600 + minute.min(59) * 60 + second.min(59)).min(LAST)
    }

    /// How far the weekday register is ahead of what the date says.
    pub fn weekday_shift(&self) -> u8 {
        let days = self.to_unix().div_euclid(DAY);
        (i64::from(self.part(Field::Weekday)) - 1 - (days + 4)).rem_euclid(7) as u8
    }
}

/// Days from 1970-01-01 to a date. Years begin in March here, so that the leap day is the last of them.
fn days(year: i64, month: i64, date: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + date - 1 - 719_468
}

/// The inverse of [`days`].
fn civil(day: i64) -> (i64, i64, i64) {
    let mut year = (day + 719_468).div_euclid(366);
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) <= day {
        month += 1;
    }
    (year, month, day - days(year, month, 1) + 1)
}

/// The alarm registers as numbers; `None` matches always.
pub struct Alarm {
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
}

impl Alarm {
    /// An alarm from its registers' bytes.
    pub fn new(format: Format, hour: u8, minute: u8, second: u8) -> Alarm {
        // Bytes from C0h are "don't care".
        let decode = |field, byte| (byte < 0xc0).then(|| i64::from(format.decode(field, byte)));
        Alarm { hour: decode(Field::Hour, hour), minute: decode(Field::Minute, minute), second: decode(Field::Second, second) }
    }

    /// Seconds from `now` until the alarm next matches, at least 1; `None` when no time of day matches.
    pub fn seconds_until(&self, now: i64) -> Option<u64> {
        let mut at = now + 1;
        // Each turn skips to the next hour, minute or second: at most a day's hours, an hour's minutes, a minute's seconds.
        for _ in 0..25 + 60 + 60 {
            let (hour, minute, second) = (at.rem_euclid(DAY) / 3600, at.rem_euclid(3600) / 60, at.rem_euclid(60));
            if self.hour.is_some_and(|h| h != hour) {
                at += 3600 - at.rem_euclid(3600);
            } else if self.minute.is_some_and(|m| m != minute) {
                at += 60 - second;
            } else if self.second.is_some_and(|s| s != second) {
                at += 1;
            } else {
                return u64::try_from(at - now).ok();
            }
        }
        None
    }
}
