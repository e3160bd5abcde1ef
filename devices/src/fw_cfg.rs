//! The firmware configuration device, by which a guest asks what machine it is on (QEMU documentation, "QEMU Firmware
//! Configuration (fw_cfg) Device"): a 16-bit selector at port 510h, and a data port behind it that gives the item's bytes one
//! after the other. There is no DMA interface.

use crate::Chip;
use egret_bus::{Access, Device};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Selector keys, by the names of the specification.
pub mod key {
    #![allow(missing_docs)]
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const RAM_SIZE: u16 = 0x03;
    pub const NOGRAPHIC: u16 = 0x04;
    pub const NB_CPUS: u16 = 0x05;
    pub const INITRD_SIZE: u16 = 0x0b;
    pub const BOOT_DEVICE: u16 = 0x0c;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const FILE_DIR: u16 = 0x19;
}

/// Regions.
pub mod region {
    /// Ports 510h and 511h.
    pub const PORTS: u8 = 0;
}

/// The selected item, and how much of it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The key.
    pub selector: u16,
    /// Offset of the next byte.
    pub offset: u32,
}

/// What the device tells.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// RAM in bytes.
    pub memory: u64,
    /// Processors.
    pub cpus: u16,
    /// The kernel's command line.
    pub cmdline: String,
    /// The initial RAM disk.
    pub initrd: Option<Arc<[u8]>>,
}

/// The device.
pub struct FwCfg {
    state: State,
    items: BTreeMap<u16, Arc<[u8]>>,
}

/// The bits of a selector that name an item; bit 14 would ask to write it, bit 15 names architecture-specific ones.
const KEY: u16 = 0xbfff;

impl FwCfg {
    /// A device that tells of `machine`.
    #[must_use]
    pub fn new(machine: &Machine) -> FwCfg {
        let mut items: BTreeMap<u16, Arc<[u8]>> = BTreeMap::new();
        let mut put = |key: u16, bytes: &[u8]| drop(items.insert(key, bytes.into()));
        put(key::SIGNATURE, b"QEMU");
        put(key::ID, &1u32.to_le_bytes());
        put(key::RAM_SIZE, &machine.memory.to_le_bytes());
        put(key::NOGRAPHIC, &1u16.to_le_bytes());
        put(key::NB_CPUS, &machine.cpus.to_le_bytes());
        put(key::MAX_CPUS, &machine.cpus.to_le_bytes());
        put(key::BOOT_DEVICE, &u16::from(b'c').to_le_bytes());
        put(key::BOOT_MENU, &0u16.to_le_bytes());
        // No files.
        put(key::FILE_DIR, &0u32.to_be_bytes());
        let mut cmdline = machine.cmdline.clone().into_bytes();
        cmdline.push(0);
        put(key::CMDLINE_SIZE, &(cmdline.len() as u32).to_le_bytes());
        put(key::CMDLINE_DATA, &cmdline);
        let initrd_size = machine.initrd.as_ref().map_or(0, |i| i.len() as u32);
        put(key::INITRD_SIZE, &initrd_size.to_le_bytes());
        if let Some(initrd) = &machine.initrd {
            items.insert(key::INITRD_DATA, initrd.clone());
        }
        FwCfg { state: State::default(), items }
    }

    /// The next byte; zero behind an item's end and of unknown items.
    fn next(&mut self) -> u8 {
        let item = self.items.get(&(self.state.selector & KEY));
        let byte = item.and_then(|i| i.get(self.state.offset as usize)).copied().unwrap_or(0);
        self.state.offset = self.state.offset.saturating_add(1);
        byte
    }
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "firmware configuration"
    }

    fn read(&mut self, at: Access) -> u64 {
        if at.offset == 0 && at.size != 1 {
            return self.state.selector.into();
        }
        if at.offset == 0 {
            return u64::from(self.state.selector & 0xff);
        }
        (0..at.size.min(8)).fold(0, |v, n| v | u64::from(self.next()) << (8 * n))
    }

    fn write(&mut self, at: Access, value: u64) {
        // Data is read-only.
        if at.offset == 0 && at.size >= 2 {
            self.state = State { selector: value as u16, offset: 0 };
        }
    }

    fn reset(&mut self) {
        self.state = State::default();
    }
}

impl Chip for FwCfg {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn restore(&mut self, state: State) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_bus::Ticks;

    fn select(f: &mut FwCfg, key: u16) {
        f.write(Access { region: 0, offset: 0, size: 2, now: Ticks(0) }, key.into());
    }

    fn bytes(f: &mut FwCfg, n: usize) -> Vec<u8> {
        let at = Access { region: 0, offset: 1, size: 1, now: Ticks(0) };
        (0..n).map(|_| f.read(at) as u8).collect()
    }

    #[test]
    fn items_read_byte_by_byte_and_end_in_zeros() {
        let initrd: Arc<[u8]> = Arc::from(&b"disk"[..]);
        let machine = Machine { memory: 0x1_2345_0000, cpus: 3, cmdline: "a b".into(), initrd: Some(initrd) };
        let mut f = FwCfg::new(&machine);
        let rows: [(u16, &[u8]); 9] = [
            (key::SIGNATURE, b"QEMU\0\0"),
            (key::ID, &[1, 0, 0, 0]),
            (key::RAM_SIZE, &[0, 0, 0x45, 0x23, 1, 0, 0, 0, 0]),
            (key::NB_CPUS, &[3, 0, 0]),
            (key::CMDLINE_SIZE, &[4, 0, 0, 0]),
            (key::CMDLINE_DATA, b"a b\0\0"),
            (key::INITRD_SIZE, &[4, 0, 0, 0]),
            (key::INITRD_DATA, b"disk\0"),
            (0x1234, &[0, 0]),
        ];
        for (key, want) in rows {
            select(&mut f, key);
            assert_eq!(bytes(&mut f, want.len()), want, "{key:#x}");
        }
        // Selecting starts over; a byte write selects nothing.
        select(&mut f, key::SIGNATURE);
        assert_eq!(bytes(&mut f, 2), b"QE");
        f.write(Access { region: 0, offset: 0, size: 1, now: Ticks(0) }, 5);
        assert_eq!(bytes(&mut f, 1), b"M");
        select(&mut f, key::SIGNATURE);
        assert_eq!(bytes(&mut f, 4), b"QEMU");
    }
}
