//! Every chip on one bus, with a guest that writes anything anywhere: no panic, bounded queues, time that moves on.

use egret_bus::{Bus, Device, Events, Lines, Phys, Shared, Ticks, shared};
use egret_devices::a20::A20;
use egret_devices::acpi_pm::{AcpiPm, Config};
use egret_devices::debug_console::DebugConsole;
use egret_devices::dma8237::Dma;
use egret_devices::fpu_error::FpuError;
use egret_devices::fw_cfg::FwCfg;
use egret_devices::hpet::{self, Hpet};
use egret_devices::pci::{HostBridge, PciHost, Slot};
use egret_devices::port92::SystemControlA;
use egret_devices::post::Post;
use egret_devices::test_device::TestDevice;
use egret_devices::{I8042, IoApic, Lint, LocalApic, Pic, Pit, Rtc, Uart16550, route};

struct Machine {
    bus: Bus,
    lines: Lines,
    events: Events,
    pic: Shared<Pic>,
    ioapic: Shared<IoApic>,
    lapics: [Shared<LocalApic>; 1],
    uart: Shared<Uart16550>,
}

fn add<D: Device + 'static>(bus: &mut Bus, device: Shared<D>, ports: &[(u16, u16, u8)]) -> Shared<D> {
    let id = bus.add(device.clone());
    for &(base, len, region) in ports {
        bus.map_ports(id, device.lock().name(), base, len, region).unwrap();
    }
    device
}

impl Machine {
    fn new() -> Machine {
        let (mut bus, lines, events) = (Bus::default(), Lines::default(), Events::default());
        let b = &mut bus;
        let pic = add(b, shared(Pic::default()), &[(0x20, 2, 0), (0xa0, 2, 1), (0x4d0, 2, 2)]);
        add(b, shared(Pit::new(lines.line(0))), &[(0x40, 4, 0), (0x61, 1, 1)]);
        add(b, shared(Rtc::new(1_700_000_000, lines.line(8))), &[(0x70, 4, 0)]);
        let uart = add(b, shared(Uart16550::new(lines.line(4), Box::new(|_| {}))), &[(0x3f8, 8, 0)]);
        add(b, shared(I8042::new(lines.line(1), lines.line(12), events.clone())), &[(0x60, 1, 0), (0x64, 1, 1)]);
        let config = Config { slp_typ_s5: 5, acpi_enable: 0xa0, acpi_disable: 0xa1 };
        let pm = AcpiPm::new(config, lines.line(9), events.clone());
        add(b, shared(pm), &[(0x600, 4, 0), (0x604, 2, 1), (0x608, 4, 2), (0x620, 4, 3), (0xb2, 1, 4)]);
        let mut pci = PciHost::new(events.clone());
        pci.add(Slot { device: 0, function: 0 }, shared(HostBridge::default()));
        add(b, shared(pci), &[(0xcf8, 4, 0), (0xcfc, 4, 1)]);
        add(b, shared(Dma::default()), &[(0, 16, 0), (0xc0, 32, 1), (0x81, 15, 2)]);
        add(b, shared(SystemControlA::new(A20::default(), events.clone())), &[(0x92, 1, 0)]);
        add(b, shared(Post::default()), &[(0x80, 1, 0)]);
        add(b, shared(FpuError::new(lines.line(13))), &[(0xf0, 2, 0)]);
        add(b, shared(FwCfg::new(&Default::default())), &[(0x510, 2, 0)]);
        add(b, shared(DebugConsole::default()), &[(0xe9, 1, 0)]);
        let test = TestDevice::new((0..24).map(|n| lines.line(n)).collect());
        add(b, shared(test), &[(0xe0, 4, 0), (0xe4, 4, 1), (0xe8, 1, 2), (0x2000, 24, 3)]);
        let ioapic = shared(IoApic::new(0, 0xff << 16));
        let lapic = shared(LocalApic::new(0, true, 2_000_000_000));
        let (io, local) = (bus.add(ioapic.clone()), bus.add(lapic.clone()));
        bus.map_mmio(io, "I/O APIC", Phys(0xfec0_0000), 0x1000, 0).unwrap();
        bus.map_mmio(local, "local APIC", Phys(0xfee0_0000), 0x1000, 0).unwrap();
        let hpet = bus.add(shared(Hpet::new([20, 21, 22, 23].map(|n| lines.line(n)))));
        bus.map_mmio(hpet, "HPET", Phys(0xfed0_0000), hpet::LEN, 0).unwrap();
        Machine { bus, lines, events, pic, ioapic, lapics: [lapic], uart }
    }

    /// Routes everything that waits, as the machine does after each access.
    fn settle(&mut self) {
        let lapic = self.lapics[0].clone();
        for _ in 0..100 {
            while let Some(change) = self.lines.take() {
                self.pic.lock().set_line(change.line, change.level);
                self.ioapic.lock().set_line(if change.line == 0 { 2 } else { change.line }, change.level);
            }
            lapic.lock().set_lint(Lint::Lint0, self.pic.lock().intr());
            let eois = lapic.lock().take_eois();
            eois.into_iter().for_each(|vector| self.ioapic.lock().eoi(vector));
            let (messages, ipis) = (self.ioapic.lock().take_messages(), lapic.lock().take_ipis());
            if messages.is_empty() && ipis.is_empty() {
                return;
            }
            messages.iter().for_each(|m| _ = route(m, None, &self.lapics));
            ipis.iter().for_each(|m| _ = route(m, Some(0), &self.lapics));
        }
        panic!("interrupts never settle");
    }

    /// The processor's side: whether an interrupt was taken.
    fn interrupt(&mut self) -> bool {
        let mut lapic = self.lapics[0].lock();
        _ = (lapic.take_nmi(), lapic.take_init(), lapic.take_startup(), lapic.take_smi());
        if lapic.extint() {
            lapic.acknowledge_extint();
            self.pic.lock().acknowledge();
            return true;
        }
        lapic.acknowledge().is_some()
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Values that registers care about: all bits, few bits, or none.
    fn value(&mut self) -> u64 {
        match self.next() % 4 {
            0 => self.next(),
            1 => 1 << (self.next() % 64),
            2 => self.next() & self.next() & self.next(),
            _ => [0, u64::MAX, 0xff, 0x8000_0000][self.next() as usize % 4],
        }
    }
}

#[test]
fn a_guest_that_writes_anything() {
    for seed in 1..=4 {
        let (mut m, mut random, mut now) = (Machine::new(), Random(seed), Ticks(0));
        let (mut taken, mut raised) = (0, 0);
        let ports: Vec<(u64, u64)> = m.bus.regions().filter(|r| r.0).map(|r| (r.2, r.3)).collect();
        for _ in 0..150_000 {
            let (r, value) = (random.next(), random.value());
            let size = 1 << (r & 3);
            let (base, len) = ports[r as usize / 16 % ports.len()];
            let port = (base + (r >> 20) % len) as u16;
            let page = [0xfec0_0000, 0xfee0_0000, 0xfee0_0000, 0xfed0_0000][(r >> 30 & 3) as usize];
            let addr = Phys(page + (if r >> 31 & 1 == 0 { r >> 32 & 0xff0 } else { r >> 32 & 0xfff }));
            match r >> 60 {
                0..=5 => m.bus.port_write(port, size, value as u32, now),
                6..=8 => _ = m.bus.port_read(port, size, now),
                9..=11 => m.bus.mmio_write(addr, size, value, now),
                12 => _ = m.bus.mmio_read(addr, size, now),
                13 => taken += u32::from(m.interrupt()),
                14 => _ = m.uart.lock().push_input(&value.to_le_bytes()[..r as usize / 4 % 9]),
                _ => {
                    let mut lapic = m.lapics[0].lock();
                    _ = lapic.write_msr(0x800 + (r >> 32 & 0xff) as u32, value, now);
                    if r >> 40 & 0xf == 0 {
                        _ = lapic.set_base(value & 0xd00 | 0xfee0_0000);
                    }
                    lapic.set_tsc_deadline(value);
                }
            }
            m.bus.refresh_deadlines();
            now = now.after(if r >> 50 & 0xff == 0 { value >> 20 } else { r >> 40 & 0xfff });
            if m.bus.deadline().is_some_and(|at| at <= now) {
                m.bus.tick(now);
                assert!(m.bus.deadline().is_none_or(|at| at > now), "a deadline stays in the past");
            }
            m.settle();
            raised += u32::from(m.events.take().is_some());
        }
        assert!(taken > 100 && raised > 100, "{taken} interrupts and {raised} events: the guest reached too little");
    }
}
