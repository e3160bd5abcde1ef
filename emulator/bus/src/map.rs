//! The port map and the memory-mapped I/O map.

use crate::{Access, Device, Phys, Ticks};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A device known to a [`Bus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId(usize);

/// Why a region could not be mapped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MapError {
    /// Two regions of one map overlap.
    #[error("{name} at {base:#x} (length {len:#x}) overlaps {other}")]
    Overlap {
        /// The new region's name.
        name: &'static str,
        /// Its first address.
        base: u64,
        /// Its length in bytes.
        len: u64,
        /// The name of the region that is there already.
        other: &'static str,
    },
    /// A region of length zero, or one that wraps.
    #[error("{name} at {base:#x} has the impossible length {len:#x}")]
    Length {
        /// The region's name.
        name: &'static str,
        /// Its first address.
        base: u64,
        /// Its length in bytes.
        len: u64,
    },
}

#[derive(Clone, Copy)]
struct Region {
    name: &'static str,
    base: u64,
    len: u64,
    device: usize,
    region: u8,
}

#[derive(Default)]
struct Map(Vec<Region>);

impl Map {
    fn insert(&mut self, new: Region) -> Result<(), MapError> {
        let Region { name, base, len, .. } = new;
        if len == 0 || base.checked_add(len - 1).is_none() {
            return Err(MapError::Length { name, base, len });
        }
        let at = self.0.partition_point(|r| r.base < base);
        let clash = |r: &&Region| r.base <= base + (len - 1) && base <= r.base + (r.len - 1);
        let near = self.0.iter().take(at + 1).skip(at.saturating_sub(1));
        if let Some(other) = near.clone().find(clash) {
            return Err(MapError::Overlap { name, base, len, other: other.name });
        }
        self.0.insert(at, new);
        Ok(())
    }

    fn find(&self, addr: u64) -> Option<&Region> {
        let at = self.0.partition_point(|r| r.base <= addr);
        self.0.get(at.checked_sub(1)?).filter(|r| addr - r.base < r.len)
    }
}

struct Slot {
    device: Arc<Mutex<dyn Device>>,
    deadline: Option<Ticks>,
}

/// Accesses that no device claimed, by address: how many reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unclaimed {
    /// Port number to (reads, writes).
    pub ports: BTreeMap<u16, (u64, u64)>,
    /// Physical page address to (reads, writes).
    pub pages: BTreeMap<u64, (u64, u64)>,
}

/// The maps of one machine and the devices on them. RAM is not here: see [`crate::GuestRam`].
#[derive(Default)]
pub struct Bus {
    ports: Map,
    mmio: Map,
    slots: Vec<Slot>,
    unclaimed: Unclaimed,
}

impl Bus {
    /// Most distinct unclaimed addresses that are remembered by name.
    const UNCLAIMED_LIMIT: usize = 1024;

    /// Adds a device; it answers nothing until regions are mapped to it.
    pub fn add<D: Device + 'static>(&mut self, device: Arc<Mutex<D>>) -> DeviceId {
        let deadline = device.lock().deadline();
        self.slots.push(Slot { device, deadline });
        DeviceId(self.slots.len() - 1)
    }

    /// Maps `len` ports from `base` to region number `region` of a device.
    pub fn map_ports(&mut self, id: DeviceId, name: &'static str, base: u16, len: u16, region: u8) -> Result<(), MapError> {
        self.ports.insert(Region { name, base: base.into(), len: len.into(), device: id.0, region })
    }

    /// Maps `len` bytes of physical memory from `base` to region number `region` of a device.
    pub fn map_mmio(&mut self, id: DeviceId, name: &'static str, base: Phys, len: u64, region: u8) -> Result<(), MapError> {
        self.mmio.insert(Region { name, base: base.0, len, device: id.0, region })
    }

    /// Reads a port. An unclaimed one floats high, as on the ISA bus, and is counted. An access that runs
    /// over the end of a region is split into bytes, as a PC's bridge does.
    pub fn port_read(&mut self, port: u16, size: u8, now: Ticks) -> u32 {
        self.read(true, port.into(), size.min(4), now) as u32
    }

    /// Writes a port; see [`Bus::port_read`].
    pub fn port_write(&mut self, port: u16, size: u8, value: u32, now: Ticks) {
        self.write(true, port.into(), size.min(4), value.into(), now);
    }

    /// Reads memory-mapped I/O. Unclaimed addresses read as all ones and are counted.
    pub fn mmio_read(&mut self, addr: Phys, size: u8, now: Ticks) -> u64 {
        self.read(false, addr.0, size, now)
    }

    /// Writes memory-mapped I/O.
    pub fn mmio_write(&mut self, addr: Phys, size: u8, value: u64, now: Ticks) {
        self.write(false, addr.0, size, value, now);
    }

    /// The name of the region at a port, if one is mapped.
    #[must_use]
    pub fn port_name(&self, port: u16) -> Option<&'static str> {
        self.ports.find(port.into()).map(|r| r.name)
    }

    /// The name of the region at a physical address, if one is mapped.
    #[must_use]
    pub fn mmio_name(&self, addr: Phys) -> Option<&'static str> {
        self.mmio.find(addr.0).map(|r| r.name)
    }

    /// Every mapped region as (is a port region, name, base, length), in order of address.
    pub fn regions(&self) -> impl Iterator<Item = (bool, &'static str, u64, u64)> + '_ {
        let ports = self.ports.0.iter().map(|r| (true, r.name, r.base, r.len));
        ports.chain(self.mmio.0.iter().map(|r| (false, r.name, r.base, r.len)))
    }

    /// Accesses that nothing claimed so far.
    #[must_use]
    pub fn unclaimed(&self) -> &Unclaimed {
        &self.unclaimed
    }

    /// Advances every device whose deadline has come.
    pub fn tick(&mut self, now: Ticks) {
        for slot in &mut self.slots {
            if slot.deadline.is_some_and(|at| at <= now) {
                let mut device = slot.device.lock();
                device.tick(now);
                slot.deadline = device.deadline();
            }
        }
    }

    /// The earliest deadline of any device.
    #[must_use]
    pub fn deadline(&self) -> Option<Ticks> {
        self.slots.iter().filter_map(|s| s.deadline).min()
    }

    /// Asks a device for its deadline anew, after its state was changed other than through the bus.
    pub fn refresh_deadlines(&mut self) {
        for slot in &mut self.slots {
            slot.deadline = slot.device.lock().deadline();
        }
    }

    /// Resets every device.
    pub fn reset(&mut self) {
        for slot in &mut self.slots {
            let mut device = slot.device.lock();
            device.reset();
            slot.deadline = device.deadline();
        }
    }

    fn read(&mut self, port: bool, addr: u64, size: u8, now: Ticks) -> u64 {
        let map = if port { &self.ports } else { &self.mmio };
        if let Some(r) = map.find(addr) {
            let offset = addr - r.base;
            if offset + u64::from(size) <= r.len
                && let Some(slot) = self.slots.get_mut(r.device)
            {
                let mut device = slot.device.lock();
                let value = device.read(Access { region: r.region, offset, size, now });
                slot.deadline = device.deadline();
                return value & ones(size);
            }
        }
        if size > 1 && self.touches(port, addr, size) {
            return (0..size).rev().fold(0, |v, i| v << 8 | self.read(port, self.step(port, addr, i), 1, now));
        }
        self.count(port, addr, false);
        ones(size)
    }

    fn write(&mut self, port: bool, addr: u64, size: u8, value: u64, now: Ticks) {
        let map = if port { &self.ports } else { &self.mmio };
        if let Some(r) = map.find(addr) {
            let offset = addr - r.base;
            if offset + u64::from(size) <= r.len
                && let Some(slot) = self.slots.get_mut(r.device)
            {
                let mut device = slot.device.lock();
                device.write(Access { region: r.region, offset, size, now }, value & ones(size));
                slot.deadline = device.deadline();
                return;
            }
        }
        if size > 1 && self.touches(port, addr, size) {
            for i in 0..size {
                self.write(port, self.step(port, addr, i), 1, value >> (8 * i), now);
            }
            return;
        }
        self.count(port, addr, true);
    }

    fn step(&self, port: bool, addr: u64, i: u8) -> u64 {
        let next = addr.wrapping_add(i.into());
        if port { next & 0xffff } else { next }
    }

    fn touches(&self, port: bool, addr: u64, size: u8) -> bool {
        let map = if port { &self.ports } else { &self.mmio };
        (0..size).any(|i| map.find(self.step(port, addr, i)).is_some())
    }

    fn count(&mut self, port: bool, addr: u64, write: bool) {
        fn bump<K: Ord>(map: &mut BTreeMap<K, (u64, u64)>, key: K, write: bool) {
            if map.len() < Bus::UNCLAIMED_LIMIT || map.contains_key(&key) {
                let (reads, writes) = map.entry(key).or_default();
                *if write { writes } else { reads } += 1;
            }
        }
        if port {
            bump(&mut self.unclaimed.ports, addr as u16, write);
        } else {
            bump(&mut self.unclaimed.pages, addr & !0xfff, write);
        }
    }
}

fn ones(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * u32::from(size))) - 1 }
}
