//! The parts list of the PC: which chips there are, at which ports and addresses, on which interrupt lines.

use crate::boot::layout::{self, IO_APIC, irq, pm, port};
use crate::clock::{Clock, ClockSource, TSC_HZ};
use crate::control::Control;
pub use crate::system::BoardSystem;
use crate::system::Common;
use egret_bus::{Access, Bus, Device, DeviceId, Event, Events, LineChange, Lines, MapError, Phys, Shared, Ticks, shared};
use egret_cpu::Kick;
use egret_devices::a20::A20;
use egret_devices::acpi_pm::{self, AcpiPm};
use egret_devices::debug_console::DebugConsole;
use egret_devices::debug_exit::DebugExit;
use egret_devices::dma8237::{self, Dma};
use egret_devices::fpu_error::FpuError;
use egret_devices::fw_cfg::{self, FwCfg};
use egret_devices::hpet::{self, Hpet};
use egret_devices::pci::{self, HostBridge, PciHost};
use egret_devices::port92::SystemControlA;
use egret_devices::post::Post;
use egret_devices::test_device::{self, TestDevice};
use egret_devices::uart16550::{Sink, Uart16550};
use egret_devices::{I8042, IoApic, Lint, LocalApic, Message, Pic, Pit, Rtc, route_each};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

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
    common: Arc<Common>,
    ioapic: Shared<IoApic>,
    uart: Shared<Uart16550>,
    keyboard: Shared<I8042>,
    fpu_error: Shared<FpuError>,
    fw_cfg: Shared<FwCfg>,
    pit: Shared<Pit>,
    rtc: Shared<Rtc>,
    debug_console: Shared<DebugConsole>,
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
    /// Builds a PC with one CPU.
    pub fn new(parts: Parts) -> Result<Board, MapError> {
        Board::with_cpus(parts, 1, Vec::new())
    }

    /// Builds a PC with `cpus` CPUs (1 to [`layout::MAX_CPUS`]), which `kicks` wake.
    pub fn with_cpus(parts: Parts, cpus: u8, kicks: Vec<Kick>) -> Result<Board, MapError> {
        let cpus = cpus.clamp(1, layout::MAX_CPUS);
        let (lines, events) = (Lines::default(), Events::default());
        let mut bus = Bus::default();
        let pic = shared(Pic::default());
        let apics = (0..cpus).map(|n| shared(LocalApic::new(n.into(), n == 0, TSC_HZ))).collect();
        let ioapic = shared(IoApic::new(cpus, 0));
        let uart = shared(Uart16550::new(lines.line(irq::COM1), parts.serial));
        let a20 = A20::default();
        let keyboard = I8042::new(lines.line(irq::KEYBOARD), lines.line(irq::MOUSE), events.clone());
        let keyboard = shared(keyboard.with_a20(a20.clone()));
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
        let rtc = shared(rtc);
        add(&mut bus, &rtc, |p| p.ports("RTC", port::RTC, 2, 0))?;
        add(&mut bus, &ioapic, |p| p.mmio("I/O APIC", IO_APIC, 0x1000, 0))?;
        let hpet = Hpet::new(std::array::from_fn(|n| lines.line(hpet::FIRST_LINE + n as u8)));
        add(&mut bus, &shared(hpet), |p| p.mmio("HPET", layout::HPET, hpet::LEN, 0))?;
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
        add_small(&mut bus, &events, &a20)?;
        let common = Common::new(Clock::new(parts.clock), apics, pic, kicks, a20);
        let mut board =
            Board { bus, lines, events, common, ioapic, uart, keyboard, fpu_error, fw_cfg, pit, rtc, debug_console, stop: None };
        board.virtual_wire();
        board.refresh();
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
fn add_small(bus: &mut Bus, events: &Events, a20: &A20) -> Result<(), MapError> {
    add(bus, &shared(Dma::default()), |p| {
        p.ports("DMA 1", 0x00, 16, dma8237::region::FIRST)?.ports("DMA page", 0x81, 15, dma8237::region::PAGES)?.ports(
            "DMA 2",
            0xc0,
            32,
            dma8237::region::SECOND,
        )
    })?;
    add(bus, &shared(SystemControlA::new(a20.clone(), events.clone())), |p| {
        p.ports("system control port A", port::SYSTEM_CONTROL_A, 1, 0)
    })?;
    add(bus, &shared(Post::default()), |p| p.ports("POST", 0x80, 1, 0))?;
    add(bus, &shared(DebugExit::new(events.clone())), |p| p.ports("debug exit", port::DEBUG_EXIT, 4, 0))
}

impl Board {
    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.common.clock
    }

    /// The outside's handle on the machine.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.common.control
    }

    /// What the CPUs reach without the board's lock.
    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// The maps, with the counts of accesses that nothing claimed.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Advances the chips to now and routes what they did.
    pub fn tick(&mut self) {
        let now = self.common.clock.now();
        self.common.tick(now);
        self.bus.tick(now);
        self.common.set_bus_deadline(self.bus.deadline());
        self.route(None);
    }

    /// When a chip next wants to be advanced.
    #[must_use]
    pub fn deadline(&self) -> Option<Ticks> {
        self.common.deadline()
    }

    pub(crate) fn port_read(&mut self, port: u16, size: u8, by: usize) -> u32 {
        let v = self.bus.port_read(port, size, self.common.clock.now());
        self.after_access(by);
        v
    }

    pub(crate) fn port_write(&mut self, port: u16, size: u8, value: u32, by: usize) {
        let a20 = self.common.a20.passes();
        self.bus.port_write(port, size, value, self.common.clock.now());
        self.after_access(by);
        let touches = |target: u16| (port..port.saturating_add(size.into())).contains(&target);
        if touches(port::SYSTEM_CONTROL_B) || touches(port::RTC) {
            self.drive_nmi();
        }
        if self.common.a20.passes() != a20 {
            // The writer looks by itself.
            (0..self.common.kicks.len()).filter(|n| *n != by).for_each(|n| self.common.wake(n));
        }
    }

    pub(crate) fn mmio_read(&mut self, addr: Phys, size: u8, by: usize) -> u64 {
        let v = self.bus.mmio_read(addr, size, self.common.clock.now());
        self.after_access(by);
        v
    }

    pub(crate) fn mmio_write(&mut self, addr: Phys, size: u8, value: u64, by: usize) {
        self.bus.mmio_write(addr, size, value, self.common.clock.now());
        self.after_access(by);
    }

    fn after_access(&mut self, by: usize) {
        self.common.set_bus_deadline(self.bus.deadline());
        self.route(Some(by));
        self.note_event();
    }

    /// Offers console input to the serial port; how many bytes it took. It takes none before the guest has asserted RTS: what
    /// came earlier would be lost when the guest clears the FIFO.
    pub fn serial_input(&mut self, bytes: &[u8]) -> usize {
        let taken = {
            let mut uart = self.uart.lock();
            if uart.request_to_send() { uart.push_input(bytes) } else { 0 }
        };
        self.route(None);
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
        self.refresh();
        self.route(None);
    }

    fn refresh(&mut self) {
        self.bus.refresh_deadlines();
        self.common.set_bus_deadline(self.bus.deadline());
        self.common.refresh();
    }

    /// The event that a chip raised and nobody has taken yet.
    pub fn take_event(&mut self) -> Option<Event> {
        let event = self.stop.take().or_else(|| self.events.take());
        self.common.stopping.store(self.stop.is_some(), SeqCst);
        event
    }

    /// Resets every chip. The local APIC is left as firmware leaves it.
    pub fn reset(&mut self) {
        self.bus.reset();
        for apic in &self.common.apics {
            apic.lock().reset();
        }
        self.virtual_wire();
        while self.lines.take().is_some() {}
        self.route(None);
        self.refresh();
    }

    /// Puts the boot processor's local APIC into virtual wire mode: see [`layout::VIRTUAL_WIRE`].
    fn virtual_wire(&mut self) {
        let now = self.common.clock.now();
        let mut apic = self.common.apics[0].lock();
        for (offset, value) in layout::VIRTUAL_WIRE {
            apic.write(Access { region: 0, offset, size: 4, now }, value.into());
        }
    }

    /// The interrupt acknowledge cycle of the 8259A.
    pub(crate) fn acknowledge_pic(&mut self, by: usize) -> u8 {
        let vector = self.common.pic.lock().acknowledge();
        self.route(Some(by));
        vector
    }

    /// Routes what the local APIC of a CPU has sent.
    pub(crate) fn collect(&mut self, by: usize) {
        let (eois, ipis) = {
            let mut apic = self.common.apics[by].lock();
            (apic.take_eois(), apic.take_ipis())
        };
        for vector in eois {
            self.ioapic.lock().eoi(vector);
        }
        for ipi in &ipis {
            self.send(ipi, Some(by), Some(by));
        }
        self.route(Some(by));
    }

    /// Gives a message to whom it is for; they wake up. `by` looks for interrupts by itself.
    fn send(&self, message: &Message, source: Option<usize>, by: Option<usize>) {
        let common = &self.common;
        route_each(message, source, &common.apics, |n| {
            if by != Some(n) {
                common.wake(n);
            }
        });
    }

    /// Carries line changes to the interrupt controllers, and messages to the local APICs, until nothing moves.
    fn route(&mut self, by: Option<usize>) {
        // A bound against two controllers that answer each other for ever.
        for _ in 0..1000 {
            while let Some(LineChange { line, level }) = self.lines.take() {
                if line < irq::PCI_GSI {
                    self.common.pic.lock().set_line(line, level);
                }
                let pin = if line == irq::TIMER { irq::TIMER_GSI } else { line };
                self.ioapic.lock().set_line(pin, level);
            }
            let intr = self.common.pic.lock().intr();
            let passed = {
                let mut first = self.common.apics[0].lock();
                first.set_lint(Lint::Lint0, intr);
                intr && (first.accepts_extint() || first.rouses())
            };
            if passed && by != Some(0) {
                self.common.wake(0);
            }
            let messages = self.ioapic.lock().take_messages();
            for message in &messages {
                self.send(message, None, by);
            }
            if messages.is_empty() && !self.lines.pending() {
                break;
            }
        }
    }

    fn note_event(&mut self) {
        if self.stop.is_none() {
            self.stop = self.events.take();
            self.common.stopping.store(self.stop.is_some(), SeqCst);
        }
    }

    /// A card on the bus asserts IOCHK#: an NMI, if ports 61h and 70h let it pass.
    pub fn channel_check(&mut self) {
        self.pit.lock().channel_check();
        self.drive_nmi();
    }

    /// Drives the NMI pin, which is LINT1 of every processor's local APIC.
    fn drive_nmi(&mut self) {
        let level = self.pit.lock().nmi() && self.rtc.lock().nmi_enabled();
        for (n, apic) in self.common.apics.iter().enumerate() {
            let rouses = {
                let mut apic = apic.lock();
                apic.set_lint(Lint::Lint1, level);
                apic.rouses()
            };
            if rouses {
                self.common.wake(n);
            }
        }
    }

    /// Drives FERR#.
    pub(crate) fn set_ferr(&mut self, level: bool, by: usize) {
        self.fpu_error.lock().set_ferr(level);
        self.route(Some(by));
    }

    /// Whether IGNNE# is asserted.
    pub(crate) fn ignne(&self) -> bool {
        self.fpu_error.lock().ignne()
    }
}
