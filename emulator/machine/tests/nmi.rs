//! The NMI pin: IOCHK# through ports 61h and 70h to LINT1 of every local APIC, and the gate in address line 20.

use egret_bus::shared;
use egret_cpu::System;
use egret_machine::ClockSource;
use egret_machine::pc::{Board, BoardSystem, Parts};

fn board() -> egret_bus::Shared<Board> {
    let parts = Parts { serial: Box::new(|_| {}), start_time: 0, clock: ClockSource::Instructions, memory: 16 << 20 };
    shared(Board::new(parts).expect("a board"))
}

/// `check`: IOCHK#; `PP=VV`: a write; `PP?`: a read of the bits that do not change by themselves; `nmi`: whether one is taken.
fn run(script: &str) -> String {
    let board = board();
    let mut system = BoardSystem::new(&board, 0);
    let mut out = Vec::new();
    for word in script.split_whitespace() {
        let hex = |s: &str| u16::from_str_radix(s, 16).expect(s);
        if word == "check" {
            board.lock().channel_check();
        } else if word == "nmi" {
            out.push(if system.take_nmi() { "NMI".to_owned() } else { "-".to_owned() });
        } else if let Some(port) = word.strip_suffix('?') {
            out.push(format!("{:02x}", system.port_read(hex(port), 1) & 0xcf));
        } else {
            let (port, value) = word.split_once('=').expect(word);
            system.port_write(hex(port), 1, hex(value).into());
        }
    }
    out.join(" ")
}

#[test]
fn rows() {
    for (name, script, want) in [
        ("a check", "nmi check 61? nmi nmi", "- 40 NMI -"),
        ("it is latched: one edge", "check nmi check nmi", "NMI -"),
        ("port 61h off clears it", "check 61=08 61? 61=00 61? nmi", "08 00 NMI"),
        ("off from the start", "61=08 check nmi 61? 61=00 nmi", "- 08 -"),
        ("and comes again", "check nmi 61=08 61=00 check nmi", "NMI NMI"),
        ("port 70h masks", "70=8f check nmi 61? 70=0f nmi nmi", "- 40 NMI -"),
        ("a masked one that is cleared is gone", "70=80 check 61=08 70=00 nmi", "-"),
        ("other bits of port 61h are kept", "check 61=03 61? nmi", "43 NMI"),
    ] {
        assert_eq!(run(script), want, "{name}");
    }
}

#[test]
fn masked_in_the_local_apic() {
    const LVT_LINT1: u64 = 0xfee0_0360;
    let board = board();
    let mut system = BoardSystem::new(&board, 0);
    system.mmio_write(egret_bus::Phys(LVT_LINT1), 4, 0x1_0400);
    board.lock().channel_check();
    assert!(!system.take_nmi());
}

#[test]
fn line_20() {
    let board = board();
    let mut system = BoardSystem::new(&board, 0);
    let mut after = |port, value| {
        system.port_write(port, 1, value);
        system.a20()
    };
    assert!(!after(0x92, 0) && after(0x92, 2));
    after(0x64, 0xd1);
    assert!(!after(0x60, 0xdd));
    board.lock().reset();
    assert!(BoardSystem::new(&board, 0).a20());
}
