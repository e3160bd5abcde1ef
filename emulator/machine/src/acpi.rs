//! The ACPI tables of the PC: RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET and a DSDT, with fixed hardware (not hardware-reduced).
//!
//! Field names and layouts: ACPI Specification 6.5, chapters 5 ("ACPI Software Programming Model") and 6 ("Device Configuration").

use crate::boot::layout::{self, irq, pm, port};
use acpi_tables::Aml;
use acpi_tables::aml::{AddressSpace, AddressSpaceCacheable};
use acpi_tables::aml::{
    Arg, Device, EISAName, Equal, IO, If, Interrupt, Method, Name, PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, Zero,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::sdt::Sdt;
use egret_bus::{GuestRam, Phys};
use egret_devices::hpet::CAPABILITIES;

const OEM_ID: [u8; 6] = *b"EGRET ";
const OEM_TABLE_ID: [u8; 8] = *b"EGRETPC ";
const OEM_REVISION: u32 = 1;

/// Why the tables could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// The machine has no RAM at 0xE0000-0xFFFFF.
    #[error("the ACPI tables need RAM up to 1 MiB")]
    NoRam,
    /// The processor count is 0 or over the limit.
    #[error("{0} processors: a machine has 1 to {max}", max = layout::MAX_CPUS)]
    Cpus(u8),
    /// The tables do not fit below the root pointer.
    #[error("the ACPI tables take {0} bytes, more than there is room for")]
    Room(usize),
}

/// The finished tables: their bytes, and where they go.
pub struct Tables {
    /// Everything but the root pointer, to be placed at [`layout::ACPI_TABLES`].
    pub tables: Vec<u8>,
    /// The root pointer, to be placed at [`layout::RSDP`].
    pub rsdp: [u8; 36],
}

/// Builds the tables for a machine with `cpus` processors (APIC ids 0 to `cpus` - 1; the I/O APIC's id is `cpus`).
pub fn build(cpus: u8) -> Result<Tables, AcpiError> {
    if cpus == 0 || cpus > layout::MAX_CPUS {
        return Err(AcpiError::Cpus(cpus));
    }
    let mut area = Area { bytes: Vec::new() };
    let facs = area.add(&FACS::new());
    let dsdt = area.add(&dsdt(cpus));
    let fadt = area.add(&fadt(facs, dsdt).finalize());
    let madt = area.add(&madt(cpus));
    let hpet = area.add(&hpet());
    let rsdt = area.add(&root(*b"RSDT", &[fadt, madt, hpet], 4));
    let xsdt = area.add(&root(*b"XSDT", &[fadt, madt, hpet], 8));
    if area.bytes.len() as u64 > layout::RSDP - layout::ACPI_TABLES {
        return Err(AcpiError::Room(area.bytes.len()));
    }
    Ok(Tables { tables: area.bytes, rsdp: rsdp(rsdt, xsdt) })
}

/// Writes the tables into `ram` and returns the address of the root pointer.
pub fn install(ram: &GuestRam, cpus: u8) -> Result<Phys, AcpiError> {
    let made = build(cpus)?;
    let rsdp = Phys(layout::RSDP);
    (ram.write(Phys(layout::ACPI_TABLES), &made.tables) && ram.write(rsdp, &made.rsdp)).then_some(rsdp).ok_or(AcpiError::NoRam)
}

/// The table area as it grows.
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table on a 64-byte boundary (the FACS needs it) and returns its address.
    fn add(&mut self, table: &dyn Aml) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let at = layout::ACPI_TABLES as u32 + self.bytes.len() as u32;
        table.to_aml_bytes(&mut self.bytes);
        at
    }
}

/// ACPI 5.2.5.3, "Root System Description Pointer (RSDP) Structure". `acpi_tables` leaves the RSDT out, which ACPI 1.0 guests need.
fn rsdp(rsdt: u32, xsdt: u32) -> [u8; 36] {
    let mut r = [0; 36];
    r[..8].copy_from_slice(b"RSD PTR ");
    r[9..15].copy_from_slice(&OEM_ID);
    r[15] = 2;
    r[16..20].copy_from_slice(&rsdt.to_le_bytes());
    r[20] = 36;
    r[24..28].copy_from_slice(&xsdt.to_le_bytes());
    r[8] = checksum(&r[..20]);
    r[32] = checksum(&r);
    r
}

/// The byte that makes the sum of `bytes` zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_sub(b))
}

/// The RSDT (`width` 4) or XSDT (`width` 8) that lists `entries`.
fn root(signature: [u8; 4], entries: &[u32], width: usize) -> Sdt {
    let mut t = Sdt::new(signature, 36, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for &e in entries {
        t.append_slice(&u64::from(e).to_le_bytes()[..width]);
    }
    t
}

/// IA-PC HPET Specification 1.0a, 3.2.4, "The ACPI 2.0 HPET Description Table (HPET)".
fn hpet() -> Sdt {
    let mut t = Sdt::new(*b"HPET", 36, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    t.append_slice(&(CAPABILITIES as u32).to_le_bytes());
    // Memory, 64 bits wide.
    t.append_slice(&[0, 64, 0, 0]);
    t.append_slice(&layout::HPET.to_le_bytes());
    // Its number, the least count of a periodic timer that loses no interrupt, no page protection.
    t.append_slice(&[0, 0x80, 0, 0]);
    t
}

fn io_gas(port: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(GasSpace::SystemIo, bits, 0, access, port.into())
}

/// ACPI 5.2.9, "Fixed ACPI Description Table (FADT)".
fn fadt(facs: u32, dsdt: u32) -> FADTBuilder {
    /// IAPC_BOOT_ARCH: devices on the ISA bus, an i8042, no VGA hardware.
    const LEGACY_DEVICES: u16 = 1 << 0;
    const I8042: u16 = 1 << 1;
    const VGA_NOT_PRESENT: u16 = 1 << 2;
    let mut t = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .firmware_ctrl_32(facs)
        .preferred_pm_profile(PmProfile::Desktop)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    // Guests before ACPI 2.0 know only the 32-bit field; both may be set when they agree.
    t.dsdt = dsdt.into();
    t.x_dsdt = u64::from(dsdt).into();
    t.sci_int = u16::from(irq::SCI).into();
    t.smi_cmd = u32::from(pm::SMI_CMD).into();
    t.acpi_enable = pm::ACPI_ENABLE;
    t.acpi_disable = pm::ACPI_DISABLE;
    t.pm1a_evt_blk = u32::from(pm::PM1A_EVT).into();
    t.pm1_evt_len = pm::PM1A_EVT_LEN;
    t.pm1a_cnt_blk = u32::from(pm::PM1A_CNT).into();
    t.pm1_cnt_len = pm::PM1A_CNT_LEN;
    t.pm_tmr_blk = u32::from(pm::PM_TMR).into();
    t.pm_tmr_len = pm::PM_TMR_LEN;
    t.gpe0_blk = u32::from(pm::GPE0).into();
    t.gpe0_blk_len = pm::GPE0_LEN;
    t.x_pm1a_evt_blk = io_gas(pm::PM1A_EVT, 32, AccessSize::WordAccess);
    t.x_pm1a_cnt_blk = io_gas(pm::PM1A_CNT, 16, AccessSize::WordAccess);
    t.x_pm_tmr_blk = io_gas(pm::PM_TMR, 32, AccessSize::DwordAccess);
    t.x_gpe0_blk = io_gas(pm::GPE0, 32, AccessSize::ByteAccess);
    // Over 100 and 1000: no C2, no C3.
    t.p_lvl2_lat = 101.into();
    t.p_lvl3_lat = 1001.into();
    t.century = 0x32;
    t.iapc_boot_arch = (LEGACY_DEVICES | I8042 | VGA_NOT_PRESENT).into();
    t.reset_reg = io_gas(pm::RESET, 8, AccessSize::ByteAccess);
    t.reset_value = pm::RESET_VALUE;
    t
}

/// ACPI 5.2.12, "Multiple APIC Description Table (MADT)". `acpi_tables` has neither source overrides nor the PCAT_COMPAT flag.
fn madt(cpus: u8) -> Sdt {
    const PCAT_COMPAT: u32 = 1;
    const LOCAL_APIC: u8 = 0;
    const IO_APIC: u8 = 1;
    const SOURCE_OVERRIDE: u8 = 2;
    const LOCAL_APIC_NMI: u8 = 4;
    const ACTIVE_HIGH_LEVEL: u16 = 0b1101;
    let mut t = Sdt::new(*b"APIC", 36, 5, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    t.append_slice(&(layout::LOCAL_APIC as u32).to_le_bytes());
    t.append_slice(&PCAT_COMPAT.to_le_bytes());
    for id in 0..cpus {
        t.append_slice(&[LOCAL_APIC, 8, id, id, 1, 0, 0, 0]);
    }
    t.append_slice(&[IO_APIC, 12, cpus, 0]);
    t.append_slice(&(layout::IO_APIC as u32).to_le_bytes());
    t.append_slice(&0u32.to_le_bytes());
    for (source, gsi, flags) in [(irq::TIMER, irq::TIMER_GSI, 0u16), (irq::SCI, irq::SCI, ACTIVE_HIGH_LEVEL)] {
        t.append_slice(&[SOURCE_OVERRIDE, 10, 0, source, gsi, 0, 0, 0]);
        t.append_slice(&flags.to_le_bytes());
    }
    t.append_slice(&[LOCAL_APIC_NMI, 6, 0xff, 0, 0, 1]);
    t
}

fn dsdt(cpus: u8) -> Sdt {
    let mut aml = Vec::new();
    let zero = Zero {};
    let mut s5 = PackageBuilder::new();
    for value in [pm::SLP_TYP_S5, pm::SLP_TYP_S5, 0, 0] {
        s5.add_element(&value);
    }
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut aml);
    // \_PIC tells which interrupt controller the guest uses: 0 is the 8259, 1 the I/O APIC.
    Name::new("PICM".into(), &zero).to_aml_bytes(&mut aml);
    Method::new("_PIC".into(), 1, false, vec![&Store::new(&Path::new("PICM"), &Arg(0))]).to_aml_bytes(&mut aml);
    pci_host_bridge(&mut aml);
    isa_devices(&mut aml);
    processors(cpus, &mut aml);
    let mut t = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    t.append_slice(&aml);
    t
}

fn pci_host_bridge(aml: &mut Vec<u8>) {
    let pci = EISAName::new("PNP0A03");
    let hid = Name::new("_HID".into(), &pci);
    let uid = Name::new("_UID".into(), &Zero {});
    let bus = AddressSpace::<u16>::new_bus_number(0, 0);
    let config = IO::new(port::PCI_CONFIG, port::PCI_CONFIG, 1, 8);
    let io_low = AddressSpace::<u16>::new_io(0, port::PCI_CONFIG - 1, None);
    let io_high = AddressSpace::<u16>::new_io(port::PCI_CONFIG + 8, 0xffff, None);
    let memory =
        |first: u64, last: u64| AddressSpace::<u32>::new_memory(AddressSpaceCacheable::NotCacheable, true, first as u32, last as u32, None);
    let vga = memory(layout::VGA_HOLE, layout::VGA_HOLE_END - 1);
    let mmio = memory(layout::PCI_MMIO, layout::PCI_MMIO_LAST);
    let resources = ResourceTemplate::new(vec![&bus, &config, &io_low, &io_high, &vga, &mmio]);
    let crs = Name::new("_CRS".into(), &resources);
    let (apic_routes, pic_routes) = (routes(layout::pci_gsi), routes(layout::pci_isa_irq));
    let by_apic = Name::new("APRT".into(), &apic_routes);
    let by_pic = Name::new("PPRT".into(), &pic_routes);
    let (mode, apic_path, pic_path) = (Path::new("PICM"), Path::new("APRT"), Path::new("PPRT"));
    let (return_pic, return_apic) = (Return::new(&pic_path), Return::new(&apic_path));
    let is_pic = Equal::new(&mode, &Zero {});
    let choose = If::new(&is_pic, vec![&return_pic]);
    let prt = Method::new("_PRT".into(), 0, false, vec![&choose, &return_apic]);
    let bridge = Device::new("PCI0".into(), vec![&hid, &uid, &crs, &by_apic, &by_pic, &prt]);
    Scope::new("_SB_".into(), vec![&bridge]).to_aml_bytes(aml);
}

/// The routing of every pin of every device on bus 0 to the interrupt that `line(device, pin)` names (ACPI 6.2.13, "_PRT").
fn routes(line: fn(u8, u8) -> u8) -> PackageBuilder {
    let mut all = PackageBuilder::new();
    for device in 0..32u8 {
        for pin in 0..4u8 {
            let mut row = PackageBuilder::new();
            row.add_element(&(u32::from(device) << 16 | 0xffff));
            row.add_element(&pin);
            row.add_element(&Zero {});
            row.add_element(&line(device, pin));
            all.add_element(&row);
        }
    }
    all
}

/// One row per legacy device: name, hardware id, (first port, ports) ranges, interrupt line.
type IsaRow = (&'static str, &'static str, &'static [(u16, u8)], Option<u8>);

const ISA: &[IsaRow] = &[
    ("PIC_", "PNP0000", &[(port::PIC_MASTER, 2), (port::PIC_SLAVE, 2), (port::ELCR, 2)], None),
    ("TIMR", "PNP0100", &[(port::PIT, 4)], Some(irq::TIMER)),
    ("RTC_", "PNP0B00", &[(port::RTC, 2)], Some(irq::RTC)),
    ("KBD_", "PNP0303", &[(port::KEYBOARD_DATA, 1), (port::KEYBOARD_COMMAND, 1)], Some(irq::KEYBOARD)),
    ("MOU_", "PNP0F13", &[], Some(irq::MOUSE)),
    ("COM1", "PNP0501", &[(port::COM1, 8)], Some(irq::COM1)),
    ("PMIO", "PNP0C02", &[(pm::PM1A_EVT, 0x28), (pm::SMI_CMD, 2), (port::SYSTEM_CONTROL_A, 1)], None),
];

fn isa_devices(aml: &mut Vec<u8>) {
    for &(name, id, ports, line) in ISA {
        let id = EISAName::new(id);
        let hid = Name::new("_HID".into(), &id);
        let uid = Name::new("_UID".into(), &Zero {});
        let ports: Vec<IO> = ports.iter().map(|&(first, len)| IO::new(first, first, 1, len)).collect();
        let line = line.map(|n| Interrupt::new(true, true, false, false, n.into()));
        let resources = ports.iter().map(|p| p as &dyn Aml).chain(line.iter().map(|l| l as &dyn Aml)).collect();
        let resources = ResourceTemplate::new(resources);
        let crs = Name::new("_CRS".into(), &resources);
        let device = Device::new(name.into(), vec![&hid, &uid, &crs]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(aml);
    }
}

fn processors(cpus: u8, aml: &mut Vec<u8>) {
    for id in 0..cpus {
        let hid = Name::new("_HID".into(), &"ACPI0007");
        let uid = Name::new("_UID".into(), &id);
        let name = format!("C{id:03}");
        let device = Device::new(name.as_str().into(), vec![&hid, &uid]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(aml);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The table at a guest address, whole.
    fn table(ram: &GuestRam, at: u32) -> Vec<u8> {
        let len = ram.load(Phys(u64::from(at) + 4), 4).unwrap();
        let mut bytes = vec![0; len as usize];
        assert!(ram.read(Phys(at.into()), &mut bytes));
        bytes
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |a, &b| a.wrapping_add(b))
    }

    #[test]
    fn every_table_is_found_from_the_root_with_its_checksum() {
        for cpus in [1, 4, layout::MAX_CPUS] {
            let ram = GuestRam::new(&layout::ram_regions(2 << 20)).unwrap();
            let at = install(&ram, cpus).unwrap();
            let mut rsdp = [0; 36];
            assert!(ram.read(at, &mut rsdp));
            assert_eq!(at.0 % 16, 0);
            assert_eq!((&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp)), (b"RSD PTR ".as_slice(), 0, 0));
            let (rsdt, xsdt) = (table(&ram, u32_at(&rsdp, 16)), table(&ram, u32_at(&rsdp, 24)));
            assert_eq!((&rsdt[..4], sum(&rsdt), &xsdt[..4], sum(&xsdt)), (b"RSDT".as_slice(), 0, b"XSDT".as_slice(), 0));
            let entries: Vec<u32> = rsdt[36..].chunks(4).map(|c| u32_at(c, 0)).collect();
            assert_eq!(entries, xsdt[36..].chunks(8).map(|c| u32_at(c, 0)).collect::<Vec<_>>());
            for (&e, name) in entries.iter().zip([b"FACP", b"APIC", b"HPET"]) {
                let t = table(&ram, e);
                assert_eq!((&t[..4], sum(&t)), (name.as_slice(), 0));
            }
            let fadt = table(&ram, entries[0]);
            assert_eq!(&table(&ram, u32_at(&fadt, 36))[..4], b"FACS");
            assert_eq!(u32_at(&fadt, 36) % 64, 0);
            let dsdt = table(&ram, u32_at(&fadt, 40));
            assert_eq!((&dsdt[..4], sum(&dsdt)), (b"DSDT".as_slice(), 0));
            assert_eq!(u32_at(&fadt, 140), u32_at(&fadt, 40), "X_DSDT");
        }
    }

    #[test]
    fn fadt_fields_are_at_their_offsets() {
        let t = build(1).unwrap();
        let at = t.tables.windows(4).position(|w| w == b"FACP").unwrap();
        let f = &t.tables[at..];
        let rows: [(usize, u32); 7] = [(48, 0xb2), (56, 0x600), (64, 0x604), (76, 0x608), (80, 0x620), (116 + 4, 0xcf9), (128, 6)];
        for (offset, want) in rows {
            let got = u32_at(f, offset) & if offset == 128 { 0xff } else { u32::MAX };
            assert_eq!(got, want, "offset {offset}");
        }
        assert_eq!(f[46..48], [9, 0]);
        assert_eq!(f[52..54], [0xa0, 0xa1]);
        assert_eq!(f[88..93], [4, 2, 0, 4, 4]);
        assert_eq!(u32_at(f, 112) & (1 << 20), 0, "not hardware-reduced");
        assert_ne!(u32_at(f, 112) & (1 << 10), 0, "reset register");
    }

    #[test]
    fn hpet_is_where_the_board_has_it() {
        let t = build(1).unwrap();
        let at = t.tables.windows(4).position(|w| w == b"HPET").unwrap();
        let h = &t.tables[at..];
        assert_eq!((u32_at(h, 4), u32_at(h, 36), u32_at(h, 44), u32_at(h, 48)), (56, 0x8086_2201, 0xfed0_0000, 0));
    }

    #[test]
    fn madt_lists_processors_then_io_apic_then_overrides() {
        let t = build(2).unwrap();
        let at = t.tables.windows(4).position(|w| w == b"APIC").unwrap();
        let len = u32_at(&t.tables, at + 4) as usize;
        let m = &t.tables[at + 36..at + len];
        assert_eq!((u32_at(m, 0), u32_at(m, 4)), (0xfee0_0000, 1));
        let want: &[&[u8]] = &[
            &[0, 8, 0, 0, 1, 0, 0, 0],
            &[0, 8, 1, 1, 1, 0, 0, 0],
            &[1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
            &[2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0],
            &[4, 6, 0xff, 0, 0, 1],
        ];
        assert_eq!(&m[8..], want.concat());
    }

    #[test]
    fn bad_machines_are_refused() {
        assert!(matches!(build(0), Err(AcpiError::Cpus(0))));
        assert!(matches!(build(255), Err(AcpiError::Cpus(255))));
        let small = GuestRam::new(&[(Phys(0), 0xa_0000)]).unwrap();
        assert!(matches!(install(&small, 1), Err(AcpiError::NoRam)));
    }
}
