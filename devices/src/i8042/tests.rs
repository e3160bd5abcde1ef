use super::*;
use egret_bus::Lines;

/// Runs a script: `64=V` writes a command, `60=V` data; `60?` and `64?` read; `+V`/`-V` press and release a
/// key, `+eV`/`-eV` an extended one; `mX,Y,B` moves the mouse; `wait` lets a byte time pass; `all` reads data while
/// there is any, and a byte time more; `irq` shows the lines' changes since last asked, `ev` the event raised.
fn run(script: &str) -> String {
    let (lines, events) = (Lines::default(), Events::default());
    let mut kbc = I8042::new(lines.line(1), lines.line(12), events.clone());
    let (mut out, mut now): (Vec<String>, Ticks) = (vec![], Ticks(0));
    let hex = |s: &str| u8::from_str_radix(s, 16).unwrap();
    for step in script.split_whitespace() {
        let at = |port: &str, now| Access { region: u8::from(port == "64"), offset: 0, size: 1, now };
        if let Some((port, value)) = step.split_once('=') {
            kbc.write(at(port, now), hex(value).into());
        } else if let Some(port) = step.strip_suffix('?') {
            out.push(format!("{:02x}", kbc.read(at(port, now))));
        } else if let Some(moved) = step.strip_prefix('m') {
            let [x, y, b] = moved.split(',').map(|n| n.parse::<i32>().unwrap()).collect::<Vec<_>>()[..] else { panic!() };
            kbc.mouse(x, y, Buttons::from_bits_truncate(b as u8), now);
        } else if step == "wait" {
            now = now.after(BYTE_TIME);
            if kbc.deadline().is_some_and(|at| at <= now) {
                kbc.tick(now);
            }
        } else if step == "all" {
            while kbc.read(at("64", now)) & 1 != 0 {
                out.push(format!("{:02x}", kbc.read(at("60", now))));
                now = kbc.deadline().unwrap_or(now).max(now);
                kbc.tick(now);
            }
            now = now.after(BYTE_TIME);
        } else if step == "irq" {
            let changes = std::iter::from_fn(|| lines.take());
            out.push(changes.map(|c| format!("{}{}", if c.level { '+' } else { '-' }, c.line)).collect());
        } else if step == "ev" {
            out.push(events.take().map_or("none".into(), |e| format!("{e:?}")));
        } else {
            let (key, pressed) = (step[1..].strip_prefix('e').unwrap_or(&step[1..]), step.starts_with('+'));
            kbc.key(Key { code: hex(key), extended: step[1..].starts_with('e') }, pressed, now);
        }
    }
    out.join(" ")
}

#[test]
fn behaviour() {
    let rows = [
        ("comes up as firmware leaves it", "64? 64=20 60? 64=d0 60?", "14 65 03"),
        ("self tests", "64=aa 64? 60? 64? 64=ab 60? 64=a9 60? 64=c0 60?", "1d 55 1c 00 00 a0"),
        ("command byte and RAM", "64=60 60=34 64=20 60? 64=65 60=99 64=25 60?", "34 99"),
        ("interfaces on and off", "64=ad 64=20 60? 64=ae 64=a8 64=20 60? 64=a7 64=20 60?", "75 45 65"),
        ("a key, translated", "+1c irq 64? 60? irq 64? -1c wait irq 60?", "+1 15 1e -1 14 +1 9e"),
        ("extended keys", "+e75 -e75 all", "e0 48 e0 c8"),
        ("untranslated", "64=60 60=25 +1c -1c all", "1c f0 1c"),
        ("the next byte takes time, and the old one can be read again", "+1c +32 60? 60? 64? wait 64? 60?", "1e 1e 14 15 30"),
        ("no interrupt without INT", "64=60 60=64 +1c irq 64?", " 15"),
        ("interrupt when INT comes", "64=60 60=64 +1c 64=60 60=65 irq", "+1"),
        ("keyboard interface off holds its data", "64=ad +1c 64? 64=ae 64? 60?", "1c 1d 1e"),
        ("reset of the keyboard", "60=ff all", "fa aa"),
        ("identify, translated", "60=f2 all", "fa ab 41"),
        ("identify, untranslated", "64=60 60=25 60=f2 all", "fa ab 83"),
        ("echo, lights, rate", "60=ee all 60=ed 60? wait 60=07 60? 60=f3 wait 60? 60=20 wait 60?", "ee fa fa fa fa"),
        ("unknown command", "60=e8 60?", "fe"),
        ("disabled scanning", "60=f5 60? +1c wait 64? 60=f4 60? +1c wait 60?", "fa 14 fa 1e"),
        ("set 1", "64=60 60=25 60=f0 60? wait 60=01 60? +1c -1c +e75 wait all 60=f0 60? wait 60=00 all", "fa fa 1e 9e e0 48 fa fa 01"),
        ("set 3 is refused", "64=60 60=25 60=f0 60? 60=03 wait 60?", "fa fe"),
        ("a command instead of a parameter", "60=ed 60? wait 60=f4 60? wait +1c 60?", "fa fa 1e"),
        ("resend", "+1c 60? wait 60=fe 60?", "1e 1e"),
        (
            "overrun",
            "+1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c +1c all",
            "1e 1e 1e 1e 1e 1e 1e 1e 1e 1e 1e 1e 1e 1e 1e 1e ff",
        ),
        ("sending to the keyboard turns it on", "64=ad 60=ee 64=20 60? wait 60?", "ee 65"),
        ("mouse reset and identity", "64=d4 60=ff all 64=d4 60=f2 all", "fa aa 00 fa 00"),
        ("mouse bytes are marked and have their own line", "64=60 60=47 64=d4 60=f4 irq 64? 60? irq", "+12 35 fa -12"),
        ("mouse movement", "64=d4 60=f4 60? wait m5,-3,1 wait all m0,0,0 wait all", "fa 29 05 fd 08 00 00"),
        ("mouse movement in several packets", "64=d4 60=f4 60? wait m300,0,0 wait all", "fa 08 ff 00 08 2d 00"),
        ("mouse is quiet until enabled", "64=a8 m5,5,0 wait 64?", "1c"),
        (
            "mouse status",
            "64=d4 60=e8 all 64=d4 60=03 all 64=d4 60=f3 all 64=d4 60=28 all 64=d4 60=e7 all 64=d4 60=e9 all",
            "fa fa fa fa fa fa 10 03 28",
        ),
        ("mouse scaling", "64=d4 60=f4 all 64=d4 60=e7 all m4,-5,0 wait all", "fa fa 28 06 f7"),
        ("mouse, remote mode", "64=d4 60=f4 all 64=d4 60=f0 all m1,2,4 wait 64? 64=d4 60=eb all", "fa fa 14 fa 0c 01 02"),
        ("mouse, wrap mode", "64=d4 60=ee all 64=d4 60=f2 all 64=d4 60=ec all", "fa f2 fa"),
        ("mouse, bad rate", "64=d4 60=f3 all 64=d4 60=07 all", "fa fe"),
        ("loop tests, as Linux makes them", "64=60 60=47 64=d3 60=5a irq 64? 60? 64=d2 60=a5 64? 60?", "+12 35 5a 15 a5"),
        ("reset by pulse", "64=fe ev 64=ff ev 64=f0 ev", "Reset none Reset"),
        ("reset by the output port", "64=d1 60=df ev 64=d0 60? 64=d1 60=de ev", "none cf Reset"),
        ("A20 bit", "64=d1 60=dd 64=d0 60? ev", "cd none"),
        ("A20 commands", "64=dd 64=d0 60? 64=df 64=d0 60?", "01 03"),
        ("no password", "64=a4 60?", "f1"),
        ("unknown controller command", "64=b0 64?", "1c"),
    ];
    let got = rows.iter().map(|(name, script, expect)| (name, run(script), *expect));
    let wrong: Vec<_> = got.filter(|(_, got, expect)| got != expect).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn any_bytes_are_survived_in_bounded_space() {
    let (lines, events) = (Lines::default(), Events::default());
    let mut kbc = I8042::new(lines.line(1), lines.line(12), events.clone());
    let mut seed = 7u64;
    for step in 0..200_000u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = Access { region: (seed >> 33 & 1) as u8, offset: 0, size: 1 << (seed >> 40 & 2), now: Ticks(step * 100_000) };
        match seed >> 60 {
            0 => drop(kbc.read(at)),
            1 => kbc.key(Key { code: (seed >> 20) as u8, extended: seed >> 50 & 1 != 0 }, seed >> 51 & 1 != 0, at.now),
            2 => kbc.mouse(seed as i32, (seed >> 8) as i32, Buttons::from_bits_truncate((seed >> 20) as u8), at.now),
            _ => kbc.write(at, seed >> 20 | 0x80),
        }
        if kbc.deadline().is_some_and(|due| due <= at.now) {
            kbc.tick(at.now);
            assert!(kbc.deadline().is_none_or(|due| due > at.now), "no progress");
        }
        assert!(kbc.state.keyboard.queue.data.len() <= 16 && kbc.state.mouse.queue.data.len() <= 3);
        while lines.take().is_some() || events.take().is_some() {}
    }
}
