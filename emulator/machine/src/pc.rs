//! The parts list of the PC: which chips there are, at which ports and addresses, on which interrupt lines.

use crate::boot::layout::{self, IO_APIC, LOCAL_APIC, irq, pm, port};
use crate::clock::{Clock, ClockSource, TSC_HZ};
use egret_bus::{Bus, DeviceId, Event, Events, LineChange, Lines, MapError, Phys, Shared, Ticks, shared};
use egret_cpu::System;
use egret_devices::acpi_pm::{self, AcpiPm};
use egret_devices::debug_console::DebugConsole;
use egret_devices::debug_exit::DebugExit;
use egret_devices::dma8237::{self, Dma};
use egret_devices::fpu_error::FpuError;
use egret_devices::fw_cfg::{self, FwCfg};
use egret_devices::pci::{self, HostBridge, PciHost};
use egret_devices::port92::SystemControlA;
use egret_devices::post::Post;
use egret_devices::test_device::{self, TestDevice};
use egret_devices::uart16550::{Sink, Uart16550};
use egret_devices::{I8042, IoApic, Lint, LocalApic, Pic, Pit, Rtc, route};

/// What a PC is built from.
pub struct Parts {
    /// Where the first serial port's bytes go.
    pub serial: Sink,
    /// The time on the clock at power-on, in Unix seconds.
    pub start_time: i64,
    /// What guest time follows.
    pub clock: ClockSource,
    /// Guest RAM in bytes, for the CMOS.
    pub memory: u64,
}

/// The board: everything but CPU and RAM.
pub struct Board {
    bus: Bus,
    lines: Lines,
    events: Events,
    clock: Clock,
    pic: Shared<Pic>,
    lapic: Shared<LocalApic>,
    ioapic: Shared<IoApic>,
    uart: Shared<Uart16550>,
    keyboard: Shared<I8042>,
    fpu_error: Shared<FpuError>,
    fw_cfg: Shared<FwCfg>,
    debug_console: Shared<DebugConsole>,
    apics: Vec<Shared<LocalApic>>,
    stop: Option<Event>,
}

/// A builder's helper: adds a device and maps its regions.
struct Plug<'a>(&'a mut Bus, DeviceId);

impl Plug<'_> {
    fn ports(self, name: &'static str, base: u16, len: u16, region: u8) -> Result<Self, MapError> {
        self.0.map_ports(self.1, name, base, len, region)?;
        Ok(self)
    }

    fn mmio(self, name: &'static str, base: u64, len: u64, region: u8) -> Result<Self, MapError> {
        self.0.map_mmio(self.1, name, Phys(base), len, region)?;
        Ok(self)
    }
}

/// Adds a device and lets `map` map its regions.
fn add<D>(bus: &mut Bus, device: &Shared<D>, map: impl FnOnce(Plug) -> Result<Plug, MapError>) -> Result<(), MapError>
where
    D: egret_bus::Device + 'static,
{
    let id = bus.add(device.clone());
    map(Plug(bus, id)).map(|_| ())
}

impl Board {
    /// Builds the PC.
    pub fn new(parts: Parts) -> Result<Board, MapError> {
        let (lines, events) = (Lines::default(), Events::default());
        let mut bus = Bus::default();
        let pic = shared(Pic::default());
        let lapic = shared(LocalApic::new(0, true, TSC_HZ));
        let ioapic = shared(IoApic::new(1, 0));
        let uart = shared(Uart16550::new(lines.line(irq::COM1), parts.serial));
        let keyboard = shared(I8042::new(lines.line(irq::KEYBOARD), lines.line(irq::MOUSE), events.clone()));
        let mut rtc = Rtc::new(parts.start_time, lines.line(irq::RTC));
        rtc.set_memory_size(parts.memory.min(layout::LOW_MEMORY_END), parts.memory.saturating_sub(layout::LOW_MEMORY_END));
        let config = acpi_pm::Config { slp_typ_s5: pm::SLP_TYP_S5, acpi_enable: pm::ACPI_ENABLE, acpi_disable: pm::ACPI_DISABLE };
        let power = shared(AcpiPm::new(config, lines.line(irq::SCI), events.clone()));
        let mut host = PciHost::new(events.clone());
        host.add(pci::Slot { device: 0, function: 0 }, shared(HostBridge::default()));

        add(&mut bus, &pic, |p| {
            p.ports("PIC master", port::PIC_MASTER, 2, 0)?.ports("PIC slave", port::PIC_SLAVE, 2, 1)?.ports("ELCR", port::ELCR, 2, 2)
        })?;
        let pit = shared(Pit::new(lines.line(irq::TIMER)));
        add(&mut bus, &pit, |p| p.ports("PIT", port::PIT, 4, 0)?.ports("system control port B", port::SYSTEM_CONTROL_B, 1, 1))?;
        add(&mut bus, &shared(rtc), |p| p.ports("RTC", port::RTC, 2, 0))?;
        add(&mut bus, &lapic, |p| p.mmio("local APIC", LOCAL_APIC, 0x1000, 0))?;
        add(&mut bus, &ioapic, |p| p.mmio("I/O APIC", IO_APIC, 0x1000, 0))?;
        add(&mut bus, &uart, |p| p.ports("COM1", port::COM1, 8, 0))?;
        add(&mut bus, &keyboard, |p| {
            p.ports("i8042 data", port::KEYBOARD_DATA, 1, 0)?.ports("i8042 command", port::KEYBOARD_COMMAND, 1, 1)
        })?;
        add(&mut bus, &power, |p| {
            p.ports("PM1a event", pm::PM1A_EVT, pm::PM1A_EVT_LEN.into(), acpi_pm::region::EVENT)?
                .ports("PM1a control", pm::PM1A_CNT, pm::PM1A_CNT_LEN.into(), acpi_pm::region::CONTROL)?
                .ports("PM timer", pm::PM_TMR, pm::PM_TMR_LEN.into(), acpi_pm::region::TIMER)?
                .ports("GPE0", pm::GPE0, pm::GPE0_LEN.into(), acpi_pm::region::GPE0)?
                .ports("SMI command", pm::SMI_CMD, 1, acpi_pm::region::SMI)
        })?;
        add(&mut bus, &shared(host), |p| {
            p.ports("PCI address", port::PCI_CONFIG, 4, pci::region::ADDRESS)?.ports("PCI data", port::PCI_CONFIG + 4, 4, pci::region::DATA)
        })?;
        let fpu_error = shared(FpuError::new(lines.line(irq::FPU)));
        add(&mut bus, &fpu_error, |p| p.ports("FPU error", port::FPU_ERROR, 2, 0))?;
        let (fw_cfg, debug_console) = add_for_tests(&mut bus, &lines, parts.memory)?;
        add_small(&mut bus, &events)?;
        let apics = vec![lapic.clone()];
        let mut board = Board {
            bus,
            lines,
            events,
            clock: Clock::new(parts.clock),
            pic,
            lapic,
            ioapic,
            uart,
            keyboard,
            fpu_error,
            fw_cfg,
            debug_console,
            apics,
            stop: None,
        };
        board.virtual_wire();
        Ok(board)
    }
}

/// What test kernels ask for: configuration, a console, a device to play with.
fn add_for_tests(bus: &mut Bus, lines: &Lines, memory: u64) -> Result<(Shared<FwCfg>, Shared<DebugConsole>), MapError> {
    let fw_cfg = shared(FwCfg::new(&fw_cfg::Machine { memory, cpus: 1, ..fw_cfg::Machine::default() }));
    add(bus, &fw_cfg, |p| p.ports("firmware configuration", port::FW_CFG, 2, fw_cfg::region::PORTS))?;
    let console = shared(DebugConsole::default());
    add(bus, &console, |p| p.ports("debug console", port::DEBUG_CONSOLE, 1, 0))?;
    let test = shared(TestDevice::new((0..layout::LINES).map(|n| lines.line(n)).collect()));
    add(bus, &test, |p| {
        p.ports("test word", port::TEST_WORD, 4, test_device::region::WORD)?
            .ports("test flush", port::TEST_WORD + 4, 4, test_device::region::FLUSH)?
            .ports("test byte", port::TEST_WORD + 8, 1, test_device::region::BYTES)?
            .ports("test lines", port::TEST_LINES, layout::LINES.into(), test_device::region::LINES)?
            .mmio("test memory", layout::TEST_MEMORY, test_device::MEMORY_LEN as u64, test_device::region::MEMORY)
    })?;
    Ok((fw_cfg, console))
}

/// The chips that raise no interrupts.
fn add_small(bus: &mut Bus, events: &Events) -> Result<(), MapError> {
    add(bus, &shared(Dma::default()), |p| {
        p.ports("DMA 1", 0x00, 16, dma8237::region::FIRST)?.ports("DMA page", 0x81, 15, dma8237::region::PAGES)?.ports(
            "DMA 2",
            0xc0,
            32,
            dma8237::region::SECOND,
        )
    })?;
    add(bus, &shared(SystemControlA::new(events.clone())), |p| p.ports("system control port A", port::SYSTEM_CONTROL_A, 1, 0))?;
    add(bus, &shared(Post::default()), |p| p.ports("POST", 0x80, 1, 0))?;
    add(bus, &shared(DebugExit::new(events.clone())), |p| p.ports("debug exit", port::DEBUG_EXIT, 4, 0))
}

impl Board {
    /// The clock.
    pub fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// The maps, with the counts of accesses that nothing claimed.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Advances the chips to now and routes what they did.
    pub fn tick(&mut self) {
        let now = self.clock.now();
        self.bus.tick(now);
        self.route();
    }

    /// When a chip next wants to be advanced.
    #[must_use]
    pub fn deadline(&self) -> Option<Ticks> {
        self.bus.deadline()
    }

    /// Offers console input to the serial port; how many bytes it took. It takes none before the guest has asserted RTS: what
    /// came earlier would be lost when the guest clears the FIFO.
    pub fn serial_input(&mut self, bytes: &[u8]) -> usize {
        let taken = {
            let mut uart = self.uart.lock();
            if uart.request_to_send() { uart.push_input(bytes) } else { 0 }
        };
        self.route();
        taken
    }

    /// The keyboard controller; [`Board::route_now`] is to follow a key press.
    #[must_use]
    pub fn keyboard(&self) -> &Shared<I8042> {
        &self.keyboard
    }

    /// Replaces what the firmware configuration device tells.
    pub fn set_configuration(&mut self, machine: &fw_cfg::Machine) {
        *self.fw_cfg.lock() = FwCfg::new(machine);
    }

    /// Sends what the guest writes to the debug console to `sink`.
    pub fn set_debug_console(&mut self, sink: Sink) {
        *self.debug_console.lock() = DebugConsole::new(sink);
    }

    /// Routes what was caused from outside the guest.
    pub fn route_now(&mut self) {
        self.bus.refresh_deadlines();
        self.route();
    }

    /// The event that a chip raised and nobody has taken yet.
    pub fn take_event(&mut self) -> Option<Event> {
        self.stop.take().or_else(|| self.events.take())
    }

    /// Resets every chip. The local APIC is left as firmware leaves it.
    pub fn reset(&mut self) {
        self.bus.reset();
        self.virtual_wire();
        while self.lines.take().is_some() {}
        self.route();
        self.bus.refresh_deadlines();
    }

    /// Puts the boot processor's local APIC into virtual wire mode: see [`layout::VIRTUAL_WIRE`].
    fn virtual_wire(&mut self) {
        let now = self.clock.now();
        for (offset, value) in layout::VIRTUAL_WIRE {
            self.bus.mmio_write(Phys(LOCAL_APIC + offset), 4, value.into(), now);
        }
    }

    /// Whether INTR is asserted at the processor.
    pub fn interrupt_pending(&mut self) -> bool {
        let lapic = self.lapic.lock();
        lapic.intr().is_some() || lapic.extint() || (lapic.accepts_extint() && self.pic.lock().intr())
    }

    /// The interrupt acknowledge cycle.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let mut lapic = self.lapic.lock();
        let vector = lapic.acknowledge();
        if vector.is_some() {
            return vector;
        }
        if lapic.extint() || lapic.accepts_extint() {
            lapic.acknowledge_extint();
            drop(lapic);
            let vector = self.pic.lock().acknowledge();
            self.route();
            return Some(vector);
        }
        None
    }

    /// Carries line changes to the interrupt controllers, and messages between them, until nothing moves.
    fn route(&mut self) {
        // A bound against two controllers that answer each other for ever.
        for _ in 0..1000 {
            while let Some(LineChange { line, level }) = self.lines.take() {
                if line < irq::PCI_GSI {
                    self.pic.lock().set_line(line, level);
                }
                let pin = if line == irq::TIMER { irq::TIMER_GSI } else { line };
                self.ioapic.lock().set_line(pin, level);
            }
            let intr = self.pic.lock().intr();
            self.lapic.lock().set_lint(Lint::Lint0, intr);
            let messages = self.ioapic.lock().take_messages();
            for message in &messages {
                route(message, None, &self.apics);
            }
            let (eois, ipis) = {
                let mut lapic = self.lapic.lock();
                (lapic.take_eois(), lapic.take_ipis())
            };
            for vector in &eois {
                self.ioapic.lock().eoi(*vector);
            }
            for ipi in &ipis {
                route(ipi, Some(0), &self.apics);
            }
            if messages.is_empty() && eois.is_empty() && ipis.is_empty() && !self.lines.pending() {
                break;
            }
        }
    }

    fn note_event(&mut self) {
        if self.stop.is_none() {
            self.stop = self.events.take();
        }
    }
}

/// Base address and mode of the local APIC.
const IA32_APIC_BASE: u32 = 0x1b;
/// The local APIC timer's deadline.
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// The board as the CPU sees it.
pub struct BoardSystem(pub Shared<Board>);

impl System for BoardSystem {
    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        let mut b = self.0.lock();
        let now = b.clock.now();
        let v = b.bus.port_read(port, size, now);
        b.route();
        v
    }

    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        let mut b = self.0.lock();
        let now = b.clock.now();
        b.bus.port_write(port, size, value, now);
        b.route();
        b.note_event();
    }

    fn mmio_read(&mut self, addr: Phys, size: u8) -> u64 {
        let mut b = self.0.lock();
        let now = b.clock.now();
        let v = b.bus.mmio_read(addr, size, now);
        b.route();
        v
    }

    fn mmio_write(&mut self, addr: Phys, size: u8, value: u64) {
        let mut b = self.0.lock();
        let now = b.clock.now();
        b.bus.mmio_write(addr, size, value, now);
        b.route();
        b.note_event();
    }

    fn interrupt_pending(&mut self) -> bool {
        self.0.lock().interrupt_pending()
    }

    fn acknowledge(&mut self) -> Option<u8> {
        self.0.lock().acknowledge()
    }

    fn take_nmi(&mut self) -> bool {
        self.0.lock().lapic.lock().take_nmi()
    }

    fn tsc(&mut self) -> u64 {
        // One count a nanosecond: see `TSC_HZ`.
        self.0.lock().clock.now().0
    }

    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        let (lapic, now) = {
            let mut b = self.0.lock();
            (b.lapic.clone(), b.clock.now())
        };
        let mut lapic = lapic.lock();
        match msr {
            IA32_APIC_BASE => Some(lapic.base()),
            IA32_TSC_DEADLINE => Some(lapic.tsc_deadline()),
            _ => lapic.read_msr(msr, now).ok(),
        }
    }

    fn apic_write(&mut self, msr: u32, value: u64) -> bool {
        let mut b = self.0.lock();
        let now = b.clock.now();
        let done = {
            let mut lapic = b.lapic.lock();
            match msr {
                IA32_APIC_BASE => lapic.set_base(value).is_ok(),
                IA32_TSC_DEADLINE => {
                    lapic.set_tsc_deadline(value);
                    true
                }
                _ => lapic.write_msr(msr, value, now).is_ok(),
            }
        };
        b.route_now();
        done
    }

    fn task_priority(&mut self) -> u8 {
        self.0.lock().lapic.lock().tpr() >> 4
    }

    fn set_task_priority(&mut self, value: u8) {
        self.0.lock().lapic.lock().set_tpr(value << 4);
    }

    fn set_ferr(&mut self, level: bool) {
        let mut b = self.0.lock();
        b.fpu_error.lock().set_ferr(level);
        b.route();
    }

    fn ignne(&mut self) -> bool {
        self.0.lock().fpu_error.lock().ignne()
    }

    fn wants_attention(&mut self) -> bool {
        self.0.lock().stop.is_some()
    }
}
