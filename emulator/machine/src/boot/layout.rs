//! Where everything is: the port numbers, interrupt lines and addresses of the PC. The parts list (`pc.rs`), the ACPI
//! tables and the boot protocols all take them from here, so that they cannot disagree.

use egret_bus::Phys;

/// Power management and reset: the fixed hardware that the ACPI FADT describes.
pub mod pm {
    /// PM1a event block: PM1_STS (2 bytes), then PM1_EN (2 bytes).
    pub const PM1A_EVT: u16 = 0x600;
    /// Bytes in the PM1a event block.
    pub const PM1A_EVT_LEN: u8 = 4;
    /// PM1a control block: PM1_CNT with SCI_EN, SLP_TYP and SLP_EN.
    pub const PM1A_CNT: u16 = 0x604;
    /// Bytes in the PM1a control block.
    pub const PM1A_CNT_LEN: u8 = 2;
    /// The 24-bit power management timer, 3.579545 MHz.
    pub const PM_TMR: u16 = 0x608;
    /// Bytes in the power management timer block.
    pub const PM_TMR_LEN: u8 = 4;
    /// General-purpose event block 0: GPE0_STS (2 bytes), then GPE0_EN (2 bytes).
    pub const GPE0: u16 = 0x620;
    /// Bytes in general-purpose event block 0.
    pub const GPE0_LEN: u8 = 4;
    /// SMI command port.
    pub const SMI_CMD: u16 = 0xb2;
    /// Written to [`SMI_CMD`]: sets PM1_CNT.SCI_EN.
    pub const ACPI_ENABLE: u8 = 0xa0;
    /// Written to [`SMI_CMD`]: clears PM1_CNT.SCI_EN.
    pub const ACPI_DISABLE: u8 = 0xa1;
    /// PM1_CNT.SLP_TYP that means soft-off, from `\_S5`.
    pub const SLP_TYP_S5: u8 = 5;
    /// Reset control register.
    pub const RESET: u16 = 0xcf9;
    /// Value that resets the machine when written to [`RESET`].
    pub const RESET_VALUE: u8 = 0x06;
}

/// I/O ports of the legacy chips.
pub mod port {
    /// 8259 master: command and data.
    pub const PIC_MASTER: u16 = 0x20;
    /// 8254 counters 0 to 2 and the control word.
    pub const PIT: u16 = 0x40;
    /// i8042 data.
    pub const KEYBOARD_DATA: u16 = 0x60;
    /// System control port B: speaker gate and counter 2 output.
    pub const SYSTEM_CONTROL_B: u16 = 0x61;
    /// i8042 status and command.
    pub const KEYBOARD_COMMAND: u16 = 0x64;
    /// MC146818 index; the data register follows.
    pub const RTC: u16 = 0x70;
    /// System control port A: fast A20 and reset.
    pub const SYSTEM_CONTROL_A: u16 = 0x92;
    /// 8259 slave: command and data.
    pub const PIC_SLAVE: u16 = 0xa0;
    /// Debug console: a written byte goes to the host.
    pub const DEBUG_CONSOLE: u16 = 0xe9;
    /// Clears the x87 error interrupt and has exceptions ignored; F1h does the same.
    pub const FPU_ERROR: u16 = 0xf0;
    /// Firmware configuration: selector, data.
    pub const FW_CFG: u16 = 0x510;
    /// Test device: a doubleword, flush, bytes.
    pub const TEST_WORD: u16 = 0xe0;
    /// Test device: one port for each interrupt line.
    pub const TEST_LINES: u16 = 0x2000;
    /// Debug exit: a written value ends the run.
    pub const DEBUG_EXIT: u16 = 0xf4;
    /// 16550 of COM1, eight registers.
    pub const COM1: u16 = 0x3f8;
    /// 8259 edge/level control registers, two bytes.
    pub const ELCR: u16 = 0x4d0;
    /// PCI configuration address (4 bytes); the data register follows at +4.
    pub const PCI_CONFIG: u16 = 0xcf8;
}

/// ISA interrupt lines, which are also the global system interrupts of the I/O APIC except for the timer.
pub mod irq {
    /// 8254 counter 0, on the 8259.
    pub const TIMER: u8 = 0;
    /// Keyboard.
    pub const KEYBOARD: u8 = 1;
    /// COM1.
    pub const COM1: u8 = 4;
    /// Real-time clock.
    pub const RTC: u8 = 8;
    /// ACPI's system control interrupt: level, active high.
    pub const SCI: u8 = 9;
    /// PS/2 mouse.
    pub const MOUSE: u8 = 12;
    /// x87 exceptions with CR0.NE clear.
    pub const FPU: u8 = 13;
    /// The I/O APIC input to which 8254 counter 0 is wired (input 0 takes the 8259's INTR).
    pub const TIMER_GSI: u8 = 2;
    /// First I/O APIC input for PCI INTA# to INTD#.
    pub const PCI_GSI: u8 = 16;
}

/// Interrupt lines: the inputs of the I/O APIC.
pub const LINES: u8 = 24;

/// What firmware leaves in the boot processor's local APIC, as (register offset, value): software-enabled, in virtual wire mode, so that
/// a guest that knows only the 8259 gets its interrupts (MultiProcessor Specification 1.4, 3.6.2.2, "Virtual Wire Mode"). The
/// machine writes them before the kernel is entered: SVR, then LVT LINT0 = ExtINT, then LVT LINT1 = NMI.
pub const VIRTUAL_WIRE: [(u64, u32); 3] = [(0x0f0, 0x1ff), (0x350, 0x700), (0x360, 0x400)];

/// The I/O APIC input for `pin` (0 = INTA#) of PCI device `device` on bus 0.
#[must_use]
pub fn pci_gsi(device: u8, pin: u8) -> u8 {
    irq::PCI_GSI + (device.wrapping_add(pin) & 3)
}

/// The 8259 input for `pin` (0 = INTA#) of PCI device `device` on bus 0, for guests that leave the I/O APIC alone.
#[must_use]
pub fn pci_isa_irq(device: u8, pin: u8) -> u8 {
    [10, 11][usize::from(device.wrapping_add(pin) & 1)]
}

/// Usable conventional memory ends here; the extended BIOS data area follows.
pub const EBDA: u64 = 0x9_fc00;
/// First address of the hole for video memory, which is not RAM.
pub const VGA_HOLE: u64 = 0xa_0000;
/// First address after the hole for video memory.
pub const VGA_HOLE_END: u64 = 0xc_0000;
/// First address of the ACPI tables.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// ACPI's root pointer, where a scan of the BIOS area finds it.
pub const RSDP: u64 = 0xf_0000;
/// The MultiProcessor Specification's floating pointer, behind ACPI's.
pub const MP_POINTER: u64 = RSDP + 0x40;
/// Its configuration table.
pub const MP_TABLE: u64 = RSDP + 0x80;
/// End of the BIOS area, start of extended memory.
pub const EXTENDED_MEMORY: u64 = 0x10_0000;
/// RAM stops here and goes on at [`HIGH_MEMORY`]; PCI's memory window starts.
pub const LOW_MEMORY_END: u64 = 0xc000_0000;
/// First address of PCI's memory window.
pub const PCI_MMIO: u64 = LOW_MEMORY_END;
/// Last address of PCI's memory window.
pub const PCI_MMIO_LAST: u64 = 0xfebf_ffff;
/// I/O APIC registers, one page.
pub const IO_APIC: u64 = 0xfec0_0000;
/// HPET registers.
pub const HPET: u64 = 0xfed0_0000;
/// Local APIC registers at reset, one page.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// The test device's memory-mapped I/O.
pub const TEST_MEMORY: u64 = 0xff00_0000;
/// RAM above 4 GiB.
pub const HIGH_MEMORY: u64 = 0x1_0000_0000;
/// Least memory of a machine, in bytes.
pub const MIN_MEMORY: u64 = 2 << 20;
/// Most processors of a machine: 8-bit APIC ids, of which 255 is the broadcast and the I/O APIC takes one.
pub const MAX_CPUS: u8 = 254;

/// The regions of RAM, as (first address, bytes), of a machine with `bytes` of memory, rounded down to pages. The part under the
/// video hole is lost, as on a real PC.
#[must_use]
pub fn ram_regions(bytes: u64) -> Vec<(Phys, u64)> {
    let bytes = bytes & !0xfff;
    let low = bytes.min(LOW_MEMORY_END);
    let high = bytes - low;
    let candidates = [(0, low.min(VGA_HOLE)), (VGA_HOLE_END, low.saturating_sub(VGA_HOLE_END)), (HIGH_MEMORY, high)];
    candidates.into_iter().filter(|&(_, len)| len > 0).map(|(base, len)| (Phys(base), len)).collect()
}

/// What a stretch of the memory map is for. The values are those of INT 15h, AX=E820h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum MapKind {
    /// RAM that the guest may use.
    Usable = 1,
    /// Not to be used: firmware data or chips.
    Reserved = 2,
}

/// One stretch of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is for.
    pub kind: MapKind,
}

/// The memory map that the boot protocols hand to the guest, for RAM made of `regions`.
#[must_use]
pub fn memory_map(regions: impl Iterator<Item = (Phys, u64)>) -> Vec<MapEntry> {
    let entry = |start: u64, end: u64, kind| (start < end).then(|| MapEntry { start, len: end - start, kind });
    let mut map = Vec::new();
    for (Phys(base), len) in regions {
        let end = base.saturating_add(len);
        if base < EXTENDED_MEMORY {
            map.extend(entry(base, end.min(EBDA), MapKind::Usable));
            map.extend(entry(base.max(EBDA), end.min(VGA_HOLE), MapKind::Reserved));
            map.extend(entry(base.max(ACPI_TABLES), end.min(EXTENDED_MEMORY), MapKind::Reserved));
            map.extend(entry(base.max(EXTENDED_MEMORY), end, MapKind::Usable));
        } else {
            map.extend(entry(base, end, MapKind::Usable));
        }
    }
    map.extend(entry(IO_APIC, IO_APIC + 0x1000, MapKind::Reserved));
    map.extend(entry(HPET, HPET + 0x1000, MapKind::Reserved));
    map.extend(entry(LOCAL_APIC, LOCAL_APIC + 0x1000, MapKind::Reserved));
    map.sort_by_key(|e| e.start);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_leaves_the_holes_out() {
        const MIB: u64 = 1 << 20;
        let rows: [(u64, &[(u64, u64)]); 4] = [
            (512 * MIB, &[(0, 0xa_0000), (0xc_0000, 512 * MIB - 0xc_0000)]),
            (3072 * MIB, &[(0, 0xa_0000), (0xc_0000, 3072 * MIB - 0xc_0000)]),
            (4096 * MIB + 7, &[(0, 0xa_0000), (0xc_0000, 3072 * MIB - 0xc_0000), (0x1_0000_0000, 1024 * MIB)]),
            (0x8_0000, &[(0, 0x8_0000)]),
        ];
        for (bytes, want) in rows {
            let want: Vec<_> = want.iter().map(|&(b, l)| (Phys(b), l)).collect();
            assert_eq!(ram_regions(bytes), want, "{bytes:#x}");
        }
    }

    #[test]
    fn the_map_is_ordered_and_disjoint_and_lists_the_ram() {
        for bytes in [4 << 20, 512 << 20, 5 << 30] {
            let map = memory_map(ram_regions(bytes).into_iter());
            for pair in map.windows(2) {
                assert!(pair[0].start + pair[0].len <= pair[1].start, "{pair:x?}");
            }
            let usable: u64 = map.iter().filter(|e| e.kind == MapKind::Usable).map(|e| e.len).sum();
            assert_eq!(usable, bytes - (EXTENDED_MEMORY - EBDA));
            assert!(map.iter().any(|e| e.kind == MapKind::Reserved && e.start == ACPI_TABLES && e.len == 0x2_0000));
        }
    }
}
