//! Boots a kernel on the interpreter: a bring-up tool without a command line.
use egret_machine::pc::Parts;
use egret_machine::{ClockSource, Config, Image, Machine};
use std::io::Write;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let initrd = (a[2] != "-").then(|| (a[2].clone(), std::fs::read(&a[2]).unwrap()));
    let image = Image { kernel_name: a[1].clone(), kernel: std::fs::read(&a[1]).unwrap(), initrd, cmdline: a[3].clone(), unpack: Default::default() };
    let memory = 512 << 20;
    let parts = Parts {
        serial: Box::new(|b| { std::io::stdout().write_all(&[b]).unwrap(); std::io::stdout().flush().unwrap(); }),
        start_time: 1_700_000_000,
        clock: ClockSource::Host,
        memory,
    };
    let (mut m, loaded) = Machine::new(Config { memory, parts, image, engine: Box::new(egret_cpu::Interp::default()) }, None).unwrap();
    eprintln!("{:?} {:?}", loaded.protocol, loaded.version);
    let limit = a.get(4).map_or(60, |s| s.parse().unwrap());
    let t = std::time::Instant::now();
    let stop = m.run(Some(std::time::Duration::from_secs(limit)));
    eprintln!("\nstop {stop:?} after {:?}; {:?}", t.elapsed(), m.stats());
    eprintln!("rip {:#x} cs {:x} cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer {:x}", m.cpu.state.rip, m.cpu.state.seg[1].selector, m.cpu.cr0, m.cpu.cr2, m.cpu.cr3, m.cpu.cr4, m.cpu.efer);
    eprintln!("unknown {:?}", m.cpu.unknown);
    eprintln!("unclaimed {:x?}", m.board().lock().bus().unclaimed());
    let ip = m.cpu.linear_ip();
    for l in m.cpu.disassemble(ip, 8) { eprintln!("{l}"); }
    eprintln!("{:x?}", m.cpu.state.gpr);
}
