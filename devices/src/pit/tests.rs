use super::*;
use egret_bus::Lines;

/// A PIT whose time is set in clocks.
struct Bench {
    pit: Pit,
    lines: Lines,
    now: Ticks,
}

impl Bench {
    fn new() -> Bench {
        let lines = Lines::default();
        Bench { pit: Pit::new(lines.line(0)), lines, now: Ticks(0) }
    }

    fn access(&self, port: u16) -> Access {
        let (region, offset) = if port == 0x61 { (1, 0) } else { (0, port & 3) };
        Access { region, offset: offset.into(), size: 1, now: self.now }
    }

    /// Runs the machine to clock `clock`, ticking at deadlines; returns the clocks at which IRQ0 rose.
    fn run_to(&mut self, clock: u64) -> Vec<u64> {
        let (mut rises, end) = (vec![], PIT.time(clock));
        while let Some(at) = self.pit.deadline().filter(|&at| at <= end) {
            self.now = at;
            self.pit.tick(at);
            assert!(self.pit.deadline().is_none_or(|next| next > at), "no progress");
            rises.extend(std::iter::from_fn(|| self.lines.take()).filter(|c| c.level).map(|_| PIT.count(at)));
        }
        self.now = end;
        rises
    }
}

/// Runs a script: `@N` runs to clock N, `PORT=V` writes, `PORT?` reads, `irqs` gives the clocks at which IRQ0 rose
/// during the last run.
fn run(script: &str) -> String {
    let mut bench = Bench::new();
    let (mut out, mut irqs): (Vec<String>, Vec<u64>) = (vec![], vec![]);
    let hex = |s: &str| u16::from_str_radix(s, 16).unwrap();
    for step in script.split_whitespace() {
        if let Some(clock) = step.strip_prefix('@') {
            while bench.lines.take().is_some() {}
            irqs = bench.run_to(clock.parse().unwrap());
        } else if let Some((port, value)) = step.split_once('=') {
            bench.pit.write(bench.access(hex(port)), hex(value).into());
        } else if let Some(port) = step.strip_suffix('?') {
            out.push(format!("{:02x}", bench.pit.read(bench.access(hex(port)))));
        } else {
            assert_eq!(step, "irqs");
            out.push(format!("{irqs:?}"));
        }
    }
    out.join(" ")
}

#[test]
fn behaviour() {
    // A count written at clock c is loaded at c + 1.
    let rows = [
        ("mode 0", "43=30 40=64 40=00 @50 40? 40? @200 irqs", "33 00 [101]"),
        ("mode 0 wraps on", "43=30 40=64 40=00 @102 43=00 40? 40?", "ff ff"),
        ("mode 0, first byte stops", "43=30 40=64 40=00 @50 40=10 @200 irqs 40=00 @300 irqs", "[] [217]"),
        ("mode 0, OUT by read-back", "43=30 43=e2 40? 40=02 40=00 @2 43=e2 40? @3 43=e2 40?", "70 30 b0"),
        ("mode 2", "43=34 40=64 40=00 @350 irqs 40? 40?", "[101, 201, 301] 33 00"),
        ("mode 2, new count at the period's end", "43=34 40=64 40=00 @50 40=32 40=00 @210 irqs", "[101, 151, 201]"),
        ("mode 2, null count until then", "43=34 40=64 40=00 @50 40=32 40=00 43=e2 40? @101 43=e2 40?", "f4 b4"),
        ("mode 2, count 1 is illegal: no edge", "43=14 40=01 @50 irqs", "[]"),
        ("mode 2, count 0 is 65536", "43=34 40=00 40=00 @131073 irqs", "[65537, 131073]"),
        ("mode 6 is 2", "43=3c 40=64 40=00 @101 irqs 43=e2 40?", "[101] bc"),
        ("mode 3, even", "43=36 40=64 40=00 @11 40? 40? @61 40? 40? @201 irqs", "50 00 50 00 [101, 201]"),
        ("mode 3, even, OUT", "43=16 40=04 @1 43=e2 40? @3 43=e2 40? @5 43=e2 40?", "96 16 96"),
        ("mode 3, odd, OUT", "43=16 40=05 @3 43=e2 40? @4 43=e2 40? @5 43=e2 40? @6 43=e2 40?", "96 16 16 96"),
        ("mode 3, odd, count", "43=16 40=05 @1 40? @2 40? @3 40? @4 40? @5 40? @6 40?", "04 02 00 04 02 04"),
        ("mode 3, new count after the half", "43=36 40=64 40=00 @20 40=0a 40=00 @77 irqs", "[56, 66, 76]"),
        ("mode 4", "43=18 40=64 @300 irqs", "[102]"),
        ("mode 4, rewritten", "43=18 40=64 @50 40=64 @300 irqs", "[152]"),
        ("mode 1 waits for a gate that never comes on counter 0", "43=12 40=64 @300 irqs 43=e2 40?", "[] d2"),
        ("mode 1 on counter 2", "43=92 42=64 @10 61=01 @11 61? @110 61? @111 61?", "01 01 21"),
        ("mode 1, retriggered", "43=92 42=64 61=01 @50 61=00 61=01 @149 61? @151 61?", "01 21"),
        ("mode 5 on counter 2", "43=9a 42=14 61=01 @21 61? @22 61?", "11 31"),
        ("gate holds mode 0", "43=b0 42=64 42=00 @50 42? 42? 61=01 @60 42? 42? 61=00 @90 42? 42?", "64 00 5a 00 5a 00"),
        ("gate reloads mode 2", "61=01 43=94 42=64 @50 61=00 61=01 @61 42?", "5a"),
        ("gate low: mode 2's OUT is high", "61=01 43=94 42=02 @2 61? 61=00 61?", "01 20"),
        ("LSB only", "43=14 40=20 @5 40? 40?", "1c 1c"),
        ("MSB only", "43=24 40=02 @2 40? @257 40? @258 40?", "01 01 00"),
        ("latch holds until read", "43=34 40=00 40=10 @17 43=00 @500 40? 40? 40? 40?", "f0 0f 0d 0e"),
        ("a second latch does nothing", "43=34 40=00 40=10 @17 43=00 @500 43=00 40? 40?", "f0 0f"),
        ("read-back of count and status", "43=34 40=00 40=10 @17 43=c2 40? 40? 40?", "b4 f0 0f"),
        ("read-back picks counters", "43=34 40=00 40=10 43=74 41=00 41=10 @17 43=dc @33 40? 40? 41? 41?", "e0 0f f0 0f"),
        ("BCD", "43=35 40=00 40=10 @2 40? 40? @901 40? 40?", "99 09 00 01"),
        ("BCD wraps to 9999", "43=31 40=05 40=00 @7 40? 40?", "99 99"),
        ("BCD, count 0 is 10000", "43=35 40=00 40=00 @10001 irqs", "[10001]"),
        ("control word reads float", "43?", "ff"),
        ("port 61h", "61=ff 61? @17 61? @18 61? @36 61?", "0f 0f 1f 0f"),
    ];
    for (name, script, expect) in rows {
        assert_eq!(run(script), expect, "{name}");
    }
}

#[test]
fn late_ticks_lose_no_state() {
    let mut bench = Bench::new();
    for (port, value) in [(0x43, 0x34), (0x40, 0x64), (0x40, 0)] {
        bench.pit.write(bench.access(port), value);
    }
    while bench.lines.take().is_some() {}
    bench.pit.tick(PIT.time(1050));
    let edges: Vec<bool> = std::iter::from_fn(|| bench.lines.take()).map(|c| c.level).collect();
    assert_eq!(edges, [false, true], "ten periods late: one edge");
    assert_eq!(bench.pit.deadline(), Some(PIT.time(1101)));
    bench.pit.tick(Ticks(u64::MAX));
    assert!(bench.pit.deadline().is_some());
}

/// What Linux does to calibrate the time-stamp counter: gate on, mode 0, and wait for counter 2's output in port 61h.
#[test]
fn counter_2_measures_50_milliseconds() {
    let mut bench = Bench::new();
    let latch = 1_193_182 / 20;
    for (port, value) in [(0x61, 1), (0x43, 0xb0), (0x42, latch & 0xff), (0x42, latch >> 8)] {
        bench.pit.write(bench.access(port), value);
    }
    let mut low = |at: u64| bench.pit.read(Access { region: 1, offset: 0, size: 1, now: Ticks(at) }) & 0x20 == 0;
    // 59,659 clocks and the one of the load, at 838.095 ns.
    assert!(low(50_000_000));
    assert!(low(50_000_761));
    assert!(!low(50_000_763));
}

#[test]
fn clocks_and_times_agree() {
    for n in [0, 1, 2, 21, 22, 1_193_182, 105_000_000, u64::from(u32::MAX) << 20] {
        let at = PIT.time(n);
        assert_eq!(PIT.count(at), n);
        assert!(n == 0 || PIT.count(Ticks(at.0 - 1)) == n - 1);
    }
    assert_eq!(PIT.count(Ticks(88_000_000_000)), 105_000_000);
}
