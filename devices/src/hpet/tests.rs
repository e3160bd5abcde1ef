use super::*;
use egret_bus::Lines;

/// Runs a script: `@N` sets the time, `R=V` writes 8 bytes, `R.4=V` four, `R?` and `R.4?` read, `irq` shows the edges since the last
/// time, `next` the deadline.
fn run(script: &str) -> String {
    let lines = Lines::default();
    let mut chip = Hpet::new([20, 21, 22, 23].map(|n| lines.line(n)));
    let (mut now, mut out) = (Ticks(0), Vec::new());
    for word in script.split_whitespace() {
        let hex = |s: &str| u64::from_str_radix(s, 16).expect(s);
        let place = |s: &str| s.split_once('.').map_or_else(|| (hex(s), 8), |(at, _)| (hex(at), 4));
        if let Some(at) = word.strip_prefix('@') {
            now = Ticks(at.parse().expect(at));
            chip.tick(now);
        } else if word == "irq" {
            let edges: Vec<String> =
                std::iter::from_fn(|| lines.take()).map(|c| format!("{}{}", if c.level { '+' } else { '-' }, c.line)).collect();
            out.push(if edges.is_empty() { "none".into() } else { edges.join("") });
        } else if word == "next" {
            out.push(chip.deadline().map_or_else(|| "never".into(), |t| t.0.to_string()));
        } else if let Some(at) = word.strip_suffix('?') {
            let (offset, size) = place(at);
            let value = chip.read(Access { region: 0, offset, size, now });
            out.push(format!("{:x}", if size == 4 { value & 0xffff_ffff } else { value }));
        } else {
            let (at, value) = word.split_once('=').expect(word);
            let (offset, size) = place(at);
            chip.write(Access { region: 0, offset, size, now }, hex(value));
        }
    }
    out.join(" ")
}

#[test]
fn rows() {
    for (name, script, want) in [
        ("capabilities", "0? 0.4? 4.4? 100?", "98968080862201 80862201 989680 f0000000000030"),
        ("the counter stands until it is enabled", "@1000 f0? 10=1 @2000 f0? 10=0 @9000 f0?", "0 64 64"),
        ("it is written while it stands", "f0=100 10=1 f0=7 @10 f0?", "101"),
        ("halves of it", "f0.4=89abcdef f4.4=1234567 f0? f4.4?", "123456789abcdef 1234567"),
        ("one shot, edge", "100=2804 108=64 10=1 next @990 irq @1000 irq next @5000 irq", "1000 none +20-20 never none"),
        ("one shot, without its interrupt", "100=2800 108=64 10=1 @2000 irq 20? next", "none 0 never"),
        ("level, until its status is cleared", "120=2a06 128=64 10=1 @1000 irq 20? 20=1 irq 20=2 irq 20?", "+21 2 none -21 0"),
        ("a level without its interrupt has status only", "120=2a02 128=64 10=1 @1000 irq 20? 120=2a06 irq", "none 2 +21"),
        ("a line that is not there", "100=4 108=64 10=1 @1000 irq", "none"),
        ("periodic", "100=284c 108=64 10=1 next @1000 irq next 108? @2000 irq @5500 irq next", "1000 +20-20 2000 c8 +20-20 +20-20 6000"),
        ("periodic, first value and period", "100=284c 108=64 108=a 10=1 @1000 irq next", "+20-20 1100"),
        ("in the past waits for a round of 32 bits", "f0=200 100=2904 108=64 10=1 next", "42949668840"),
        ("32-bit comparator", "100=2904 108=123456789abcdef0 108?", "9abcdef0"),
        ("no legacy replacement", "10=3 10?", "1"),
        ("other timers and holes", "160=ffff 160? 30=5 30? 3f8?", "0 0 0"),
    ] {
        assert_eq!(run(script), want, "{name}");
    }
}

#[test]
fn a_reset_stops_it_and_drops_its_lines() {
    let lines = Lines::default();
    let mut chip = Hpet::new([20, 21, 22, 23].map(|n| lines.line(n)));
    let put = |chip: &mut Hpet, offset, value| chip.write(Access { region: 0, offset, size: 8, now: Ticks(0) }, value);
    put(&mut chip, 0x100, 0x2806);
    put(&mut chip, 0x108, 1);
    put(&mut chip, 0x10, 1);
    chip.tick(Ticks(50));
    let saved = chip.state().clone();
    chip.reset();
    assert_eq!((chip.deadline(), chip.state().counter), (None, 0));
    chip.restore(saved);
    let edges: Vec<bool> = std::iter::from_fn(|| lines.take()).map(|c| c.level).collect();
    assert_eq!(edges, [true, false, true]);
}
