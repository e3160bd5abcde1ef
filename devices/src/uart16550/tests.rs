use super::*;
use egret_bus::{Lines, Ticks};
use std::sync::{Arc, Mutex};

/// Runs a script: `N=V` writes register N, `N?` reads it, `<text` receives, `brk` receives a break, `irq` shows the line's changes since last asked, `out` shows what was sent.
fn run(script: &str) -> String {
    let (lines, sent) = (Lines::default(), Arc::new(Mutex::new(String::new())));
    let to = Arc::clone(&sent);
    let mut uart = Uart16550::new(lines.line(4), Box::new(move |byte| to.lock().unwrap().push(byte.into())));
    let mut out: Vec<String> = vec![];
    for step in script.split_whitespace() {
        let access = |n: &str| Access { region: 0, offset: n.parse().unwrap(), size: 1, now: Ticks(0) };
        if let Some((n, value)) = step.split_once('=') {
            uart.write(access(n), u64::from_str_radix(value, 16).unwrap());
        } else if let Some(n) = step.strip_suffix('?') {
            out.push(format!("{:02x}", uart.read(access(n))));
        } else if let Some(text) = step.strip_prefix('<') {
            out.push(uart.push_input(text.as_bytes()).to_string());
        } else if step == "brk" {
            uart.push_break();
        } else if step == "irq" {
            out.push(std::iter::from_fn(|| lines.take()).map(|c| if c.level { '+' } else { '-' }).collect());
        } else {
            assert_eq!(step, "out");
            out.push(std::mem::take(&mut *sent.lock().unwrap()));
        }
    }
    out.join(" ")
}

#[test]
fn behaviour() {
    let rows = [
        ("reset values", "1? 2? 3? 4? 5? 6? 7?", "00 01 00 00 60 b0 00"),
        ("what can be written", "1=ff 1? 3=7f 3? 4=0f 4? 7=5a 7? 5=00 5? 6=00 6?", "0f 7f 0f 5a 60 b0"),
        ("divisor", "3=80 0=34 1=12 0? 1? 3=03 1? 3=80 0? 1?", "34 12 00 34 12"),
        ("FIFOs show in IIR", "2=01 2? 2=00 2?", "c1 01"),
        ("FCR without enable does nothing", "2=c0 2?", "01"),
        ("sending", "0=48 0=69 5? out", "60 Hi"),
        ("no OUT2, no interrupt line", "1=02 irq 2? 2?", " 02 01"),
        ("THRE on enabling; IIR takes it back", "4=08 1=02 irq 2? irq 2?", "+ 02 - 01"),
        ("THRE again after enabling anew", "4=08 1=02 2? 1=00 1=02 2?", "02 02"),
        ("THRE: each byte makes an edge", "4=08 1=02 irq 0=41 irq 0=42 irq 2? irq 0=43 irq", "+ -+ -+ 02 - +"),
        ("THRE off by IER", "4=08 1=02 irq 1=00 irq 2?", "+ - 01"),
        ("receiving without FIFO", "4=08 1=01 <ab irq 5? 2? 0? irq 5? 2? 0?", "1 + 61 04 61 - 60 01 61"),
        ("trigger level 4", "4=08 1=01 2=41 <abc irq 2? <d irq 2? 0? irq 2?", "3 + cc 1  c4 61  cc"),
        ("trigger level 14", "4=08 1=01 2=c1 <abcdefghijklm irq <n irq", "13 + 1 "),
        ("the FIFO holds 16", "2=01 <abcdefghijklmnopq 5?", "16 61"),
        ("below the trigger level: timeout", "4=08 1=01 2=81 <a irq 2? 0? irq 2?", "1 + cc 61 - c1"),
        ("down to the timeout", "1=01 2=41 <abcd 2? 0? 2?", "4 c4 61 cc"),
        ("clearing the FIFO", "2=01 1=01 <abc 2=03 5? 2? 0?", "3 60 c1 00"),
        ("toggling the FIFOs clears them", "2=01 <abc 2=00 5?", "3 60"),
        ("break", "4=08 1=04 2=01 brk irq 2? 5? irq 5? 0?", "+ c6 f1 - 61 00"),
        ("an error waits until its character is on top", "1=04 2=01 <a brk 5? 2? 0? 2? 5?", "1 e1 c1 61 c6 f1"),
        ("loopback of data", "4=10 3=03 0=41 5? 0? out", "61 41 "),
        ("loopback keeps 5 bits of a 5-bit character", "4=10 3=00 0=ff 0?", "1f"),
        ("loopback of modem lines, as Linux probes", "4=1a 6? 4=15 6? 6? 4=00 6?", "92 6b 60 bd"),
        ("loopback overruns", "4=10 1=04 0=41 0=42 2? 5? 5? 0?", "06 63 61 02"),
        ("loopback overruns the FIFO", "4=10 2=01 0=1 0=2 0=3 0=4 0=5 0=6 0=7 0=8 0=9 0=a 0=b 0=c 0=d 0=e 0=f 0=10 0=11 5? 0?", "63 01"),
        ("loopback takes no input and drives no line", "4=18 1=03 <a irq", "0 "),
        ("loopback of a break", "4=10 3=40 5?", "71"),
        ("modem status interrupt", "4=08 1=08 irq 4=18 4=08 irq 2? 6? irq 2?", " + 00 b3 - 01"),
        ("priority", "4=08 2=01 1=0f 4=18 4=08 brk 2? 5? 2? 0? 2? 2? 6? 2?", "c6 f1 c4 00 c2 c0 b3 c1"),
    ];
    let wrong: Vec<_> =
        rows.iter().map(|(name, script, expect)| (name, run(script), *expect)).filter(|(_, got, expect)| got != expect).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_error_and_register_survives_any_bytes() {
    let lines = Lines::default();
    let mut uart = Uart16550::new(lines.line(4), Box::new(|_| {}));
    let mut seed = 1u64;
    for step in 0..200_000u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = Access { region: 0, offset: seed >> 33 & 7, size: 1 << (seed >> 40 & 2), now: Ticks(step) };
        if seed >> 50 & 1 == 0 {
            uart.write(at, seed >> 20);
        } else {
            uart.read(at);
        }
        assert!(uart.state.received.len() <= FIFO);
        while lines.take().is_some() {}
    }
}
