use super::*;
use egret_bus::Lines;

/// Runs a script on a clock that starts at `unix`: `R=V` and `R?` access a register (hex), `xR=V` and `xR?` the second
/// bank, `@T` goes to T microseconds, ticking at deadlines; `irq` shows the line's changes since last asked and the
/// time of the last one, `at` the Unix time.
fn run(unix: i64, script: &str) -> String {
    let lines = Lines::default();
    let mut rtc = Rtc::new(unix, lines.line(8));
    let (mut out, mut now, mut changes, mut changed): (Vec<String>, Ticks, String, u64) = (vec![], Ticks(0), String::new(), 0);
    let hex = |s: &str| u64::from_str_radix(s, 16).unwrap();
    for step in script.split_whitespace() {
        let (bank, op) = step.strip_prefix('x').map_or((0, step), |op| (2, op));
        let port = |offset: u64| Access { region: 0, offset: bank + offset, size: 1, now };
        if let Some((index, value)) = op.split_once('=') {
            rtc.write(port(0), hex(index));
            rtc.write(port(1), hex(value));
        } else if let Some(index) = op.strip_suffix('?') {
            rtc.write(port(0), hex(index));
            out.push(format!("{:02x}", rtc.read(port(1))));
        } else if let Some(us) = op.strip_prefix('@') {
            let end = Ticks(us.parse::<u64>().unwrap() * 1000);
            while let Some(at) = rtc.deadline().filter(|&at| at <= end) {
                rtc.tick(at);
                for change in std::iter::from_fn(|| lines.take()) {
                    changes.push(if change.level { '+' } else { '-' });
                    changed = at.0 / 1000;
                }
                assert!(rtc.deadline().is_none_or(|next| next > at), "no progress");
            }
            now = end;
        } else if op == "irq" {
            changes.extend(std::iter::from_fn(|| lines.take()).map(|c| if c.level { '+' } else { '-' }));
            out.push(format!("{}{changed}", std::mem::take(&mut changes)));
        } else {
            assert_eq!(op, "at");
            out.push(rtc.unix_seconds(now).to_string());
        }
    }
    out.join(" ")
}

/// 2024-02-28 23:59:58, a Wednesday.
const LEAP: i64 = 1_709_164_798;

#[test]
fn behaviour() {
    let rows = [
        ("BCD", LEAP, "0? 2? 4? 6? 7? 8? 9? 32?", "58 59 23 04 28 02 24 20"),
        ("binary", LEAP, "b=06 0? 2? 4? 6? 7? 8? 9? 32?", "3a 3b 17 04 1c 02 18 14"),
        ("12 hours, BCD", LEAP, "b=00 4? @2000001 4?", "91 12"),
        ("12 hours, binary", LEAP, "b=04 4? @2000001 4?", "8b 0c"),
        ("leap day", LEAP, "@2000001 0? 2? 4? 6? 7? 8?", "00 00 00 05 29 02"),
        ("after the leap day", LEAP, "@86402000000 7? 8? 6? at", "01 03 06 1709251200"),
        ("end of the century", 4_102_444_799, "7? 8? 9? 32? @1000000 7? 8? 9? 32?", "31 12 99 20 01 01 00 21"),
        ("before 1970", -1, "0? 4? 7? 8? 9? 32? 6?", "59 23 31 12 69 19 04"),
        ("the calendar's ends", i64::MIN, "9? 32? 7? 8?", "00 00 01 01"),
        ("the calendar's ends", i64::MAX, "9? 32? @5000000 9? 7?", "99 99 99 31"),
        ("reset values", LEAP, "a? b? c? d?", "26 02 00 80"),
        ("RAM", LEAP, "10=12 7f=34 10? 7f? 32? x10=56 x10? 10? xff?", "12 34 20 56 12 00"),
        ("alarm bytes are RAM", LEAP, "1=ff 3=12 5=34 1? 3? 5?", "ff 12 34"),
        ("D and C are read-only", LEAP, "d=00 d? c=ff c?", "80 00"),
        ("update in progress", LEAP, "@997700 a? @997780 a? 0? @999999 a? 0? @1000000 a? 0?", "26 a6 58 a6 58 26 59"),
        (
            "SET stops the clock",
            LEAP,
            "b=82 @5000000 0? a? 4=10 2=20 0=30 7=15 8=06 9=99 b=02 @5500000 0? 4? 9? @6000000 0?",
            "58 26 30 10 99 31",
        ),
        ("SET keeps the weekday that was set", LEAP, "b=82 6=02 b=02 6? @2000000 6?", "02 03"),
        ("time set while running", LEAP, "4=05 4? 0? 7? @1000000 0?", "05 58 28 59"),
        ("nonsense is made possible", LEAP, "b=82 0=ff 2=7a 4=99 7=00 8=99 b=02 0? 2? 4? 7? 8?", "59 59 23 01 12"),
        ("divider reset: first update after half a second", LEAP, "a=76 @3000000 0? a=26 @3499999 0? @3500000 0?", "58 58 59"),
        ("divider reset stops the periodic interrupt", LEAP, "a=76 b=42 @3000000 irq c?", "0 00"),
        ("update interrupt", LEAP, "b=12 @1500000 irq c? irq @2500000 irq", "+1000000 d0 -1000000 +2000000"),
        ("UF without interrupt", LEAP, "@1500000 c? c?", "50 00"),
        ("SET clears UIE", LEAP, "b=92 b?", "82"),
        ("periodic, 1024 Hz", LEAP, "b=42 @976 irq @978 irq c? irq @1954 irq", "0 +976 c0 -976 +1953"),
        ("periodic, 2 Hz", LEAP, "a=2f b=42 @499999 irq @500000 irq c?", "0 +500000 c0"),
        ("periodic, 256 Hz", LEAP, "a=21 b=42 @3906 irq @3907 irq", "0 +3906"),
        ("no periodic rate", LEAP, "a=20 b=42 @5000000 irq c?", "0 30"),
        ("PF without interrupt", LEAP, "@1000 c?", "40"),
        ("the flag stays: no second edge", LEAP, "b=42 @100000 irq", "+976"),
        ("enabling a flag that is set", LEAP, "@1500000 b=12 irq", "+0"),
        ("alarm", LEAP, "5=00 3=00 1=01 b=22 @5000000 irq c?", "+3000000 f0"),
        ("alarm every second", LEAP, "5=ff 3=c0 1=ff b=22 @1500000 irq c?", "+1000000 f0"),
        ("alarm, 12 hours", LEAP, "b=20 5=12 3=00 1=00 @5000000 irq", "+2000000"),
        ("alarm tomorrow", LEAP, "5=23 3=59 1=58 b=22 @86399999999 irq @86400000000 irq", "0 +86400000000"),
        ("alarm that never comes", LEAP, "5=24 3=99 1=61 b=22 @200000000000 irq c?", "0 50"),
        ("alarm without interrupt", LEAP, "5=00 3=00 1=01 @2900000 c? @3100000 c?", "50 70"),
    ];
    let got = rows.iter().map(|(name, unix, script, expect)| (name, run(*unix, script), *expect));
    let wrong: Vec<_> = got.filter(|(_, got, expect)| got != expect).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn memory_size_and_nmi_mask() {
    let mut rtc = Rtc::new(0, Lines::default().line(8));
    rtc.set_memory_size(3 << 30, 5 << 30);
    let ram = |rtc: &Rtc, at: usize, n: usize| rtc.state.ram[at..at + n].iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b));
    let rows = [(0x15, 2, 640), (0x17, 2, 0xffff), (0x30, 2, 0xffff), (0x34, 2, (3 << 14) - 256), (0x5b, 3, 5 << 14)];
    for (at, n, expect) in rows {
        assert_eq!(ram(&rtc, at, n), expect, "{at:#x}");
    }
    let sum: u16 = rtc.state.ram[0x10..0x2e].iter().map(|&b| u16::from(b)).sum();
    assert_eq!(u16::from_be_bytes([rtc.state.ram[0x2e], rtc.state.ram[0x2f]]), sum);
    rtc.set_memory_size(8 << 20, 0);
    assert_eq!((ram(&rtc, 0x17, 2), ram(&rtc, 0x34, 2)), (7 << 10, 0));

    assert!(rtc.nmi_enabled());
    rtc.write(Access { region: 0, offset: 0, size: 2, now: Ticks(0) }, 0x5590);
    assert!(!rtc.nmi_enabled());
    assert_eq!(rtc.read(Access { region: 0, offset: 1, size: 1, now: Ticks(0) }), 0x55, "bit 7 is no part of the index");
}

#[test]
fn reset_keeps_time_and_ram() {
    let mut rtc = Rtc::new(LEAP, Lines::default().line(8));
    rtc.set_ram(0x40, 7);
    rtc.write(Access { region: 0, offset: 0, size: 2, now: Ticks(0) }, 0x720b);
    rtc.reset();
    assert_eq!((rtc.state.ram[0x40], rtc.state.b), (7, RegisterB::HOURS_24));
    assert_eq!(rtc.unix_seconds(Ticks(1_500_000_000)), LEAP + 1);
}
