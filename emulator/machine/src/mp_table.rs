//! The tables of the MultiProcessor Specification 1.4, chapter 4, for guests that know no ACPI: the floating pointer in the BIOS
//! area, and the configuration table with processors, buses, the I/O APIC and the interrupts' wiring.

use crate::boot::layout::{self, irq};
use egret_bus::{GuestRam, Phys};

/// Entry types, in the order in which they must come.
mod entry {
    pub const PROCESSOR: u8 = 0;
    pub const BUS: u8 = 1;
    pub const IO_APIC: u8 = 2;
    pub const IO_INTERRUPT: u8 = 3;
    pub const LOCAL_INTERRUPT: u8 = 4;
}

/// Interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Polarity and trigger mode: as the bus has it; active high, level.
const CONFORMS: u16 = 0;
const HIGH_LEVEL: u16 = 0b1101;
const PCI: u8 = 0;
const ISA: u8 = 1;

/// Builds floating pointer and configuration table for `cpus` processors with APIC ids from 0; the I/O APIC's id is `cpus`.
#[must_use]
pub fn build(cpus: u8, signature: u32, features: u32) -> ([u8; 16], Vec<u8>) {
    let mut pointer = [0; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&(layout::MP_TABLE as u32).to_le_bytes());
    (pointer[8], pointer[9]) = (1, 4);
    pointer[10] = checksum(&pointer);

    let mut t = b"PCMP\0\0\x04\0EGRET   PC          ".to_vec();
    t.extend([0; 8]);
    t.extend((layout::LOCAL_APIC as u32).to_le_bytes());
    t.extend([0; 4]);
    for id in 0..cpus {
        t.extend([entry::PROCESSOR, id, 0x14, 1 | u8::from(id == 0) << 1]);
        t.extend(signature.to_le_bytes());
        t.extend(features.to_le_bytes());
        t.extend([0; 8]);
    }
    for (id, name) in [(PCI, b"PCI   "), (ISA, b"ISA   ")] {
        t.extend([entry::BUS, id]);
        t.extend(name);
    }
    t.extend([entry::IO_APIC, cpus, 0x20, 1]);
    t.extend((layout::IO_APIC as u32).to_le_bytes());
    interrupts(&mut t, cpus);
    let count = usize::from(cpus) + (t.len() - 44 - 20 * usize::from(cpus)) / 8;
    t[34..36].copy_from_slice(&(count as u16).to_le_bytes());
    let len = t.len() as u16;
    t[4..6].copy_from_slice(&len.to_le_bytes());
    t[7] = checksum(&t);
    (pointer, t)
}

fn interrupts(t: &mut Vec<u8>, io_apic: u8) {
    let mut put = |kind: u8, what: u8, flags: u16, bus: u8, source: u8, to: u8, pin: u8| {
        t.extend([kind, what]);
        t.extend(flags.to_le_bytes());
        t.extend([bus, source, to, pin]);
    };
    for device in 0..32u8 {
        for pin in 0..4 {
            put(entry::IO_INTERRUPT, INT, HIGH_LEVEL, PCI, device << 2 | pin, io_apic, layout::pci_gsi(device, pin));
        }
    }
    // Line 2 is the cascade, and its input is the timer's.
    for line in (0..16).filter(|line| *line != irq::TIMER_GSI) {
        let flags = if line == irq::SCI { HIGH_LEVEL } else { CONFORMS };
        put(entry::IO_INTERRUPT, INT, flags, ISA, line, io_apic, if line == irq::TIMER { irq::TIMER_GSI } else { line });
    }
    put(entry::LOCAL_INTERRUPT, EXT_INT, CONFORMS, ISA, 0, 0, 0);
    put(entry::LOCAL_INTERRUPT, NMI, CONFORMS, ISA, 0, 0xff, 1);
}

/// Writes the tables into `ram`; false when there is no RAM for them.
#[must_use]
pub fn install(ram: &GuestRam, cpus: u8, signature: u32, features: u32) -> bool {
    let (pointer, table) = build(cpus, signature, features);
    ram.write(Phys(layout::MP_POINTER), &pointer) && ram.write(Phys(layout::MP_TABLE), &table)
}

/// The byte that makes the sum of `bytes` zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_sub(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_add_up_and_come_in_order() {
        for cpus in [1, 2, 64, layout::MAX_CPUS] {
            let (pointer, t) = build(cpus, 0x106ca, 1);
            let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |a, b| a.wrapping_add(*b));
            assert_eq!((&pointer[..4], sum(&pointer), &t[..4], sum(&t)), (b"_MP_".as_slice(), 0, b"PCMP".as_slice(), 0));
            assert_eq!(usize::from(u16::from_le_bytes([t[4], t[5]])), t.len());
            assert_eq!(&t[36..40], &0xfee0_0000u32.to_le_bytes());
            assert!(layout::MP_TABLE + t.len() as u64 <= layout::EXTENDED_MEMORY);
            let (mut at, mut kinds) = (44, Vec::new());
            while at < t.len() {
                kinds.push(t[at]);
                at += if t[at] == entry::PROCESSOR { 20 } else { 8 };
            }
            assert_eq!((at, kinds.len()), (t.len(), usize::from(u16::from_le_bytes([t[34], t[35]]))));
            assert!(kinds.is_sorted());
            assert_eq!(kinds.iter().filter(|k| **k == entry::PROCESSOR).count(), usize::from(cpus));
            assert_eq!((t[45], t[47], t[44 + 20 * usize::from(cpus) - 20 + 1]), (0, 3, cpus - 1), "the first is the bootstrap processor");
        }
    }
}
