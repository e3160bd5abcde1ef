//! Interrupt messages: what the I/O APIC, MSIs and interprocessor interrupts send to local APICs.

use crate::LocalApic;
use egret_bus::Shared;

/// How a local APIC treats a message. SDM Vol. 3, "Interrupt Command Register (ICR)", delivery mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To all destinations, as an interrupt with the message's vector.
    Fixed,
    /// As fixed, to the one destination of lowest priority.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up: the vector is the page at which the processor starts.
    Startup,
    /// The vector comes from the 8259A.
    ExtInt,
}

impl Delivery {
    /// Decodes the 3-bit field; `None` for the reserved encoding 3.
    #[must_use]
    pub fn from_field(field: u32) -> Option<Delivery> {
        Some(match field & 7 {
            0 => Delivery::Fixed,
            1 => Delivery::LowestPriority,
            2 => Delivery::Smi,
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            6 => Delivery::Startup,
            7 => Delivery::ExtInt,
            _ => return None,
        })
    }
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The local APIC with this ID.
    Physical(u32),
    /// The local APICs whose logical destination registers match.
    Logical(u32),
    /// The sender (a shorthand of the ICR).
    Own,
    /// Everybody.
    All,
    /// Everybody but the sender.
    AllButSelf,
}

impl Destination {
    /// The destination of an 8-bit field, as I/O APIC, MSI and xAPIC ICR have it: physical 0xff is everybody.
    #[must_use]
    pub fn from_byte(logical: bool, id: u8) -> Destination {
        match (logical, id) {
            (true, _) => Destination::Logical(id.into()),
            (false, 0xff) => Destination::All,
            (false, _) => Destination::Physical(id.into()),
        }
    }
}

/// Edge or level; a level-triggered interrupt wants an EOI back at the I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// One interrupt for each message.
    Edge,
    /// The sender repeats the message after the EOI while its line is asserted.
    Level,
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whom it is for.
    pub destination: Destination,
    /// How it is taken.
    pub delivery: Delivery,
    /// The vector; meaningless for NMI, SMI, INIT and ExtINT.
    pub vector: u8,
    /// Edge or level.
    pub trigger: Trigger,
}

impl Message {
    /// The message that a write of `data` to `address` makes. SDM Vol. 3, "Message Signalled Interrupts".
    /// `None` outside the interrupt window (0xfeexxxxx) and for the reserved delivery mode.
    #[must_use]
    pub fn from_msi(address: u64, data: u32) -> Option<Message> {
        if address >> 20 != 0xfee {
            return None;
        }
        let level = data >> 14 & 3 == 3;
        Some(Message {
            destination: Destination::from_byte(address & 4 != 0, (address >> 12) as u8),
            delivery: Delivery::from_field(data >> 8)?,
            vector: data as u8,
            trigger: if level { Trigger::Level } else { Trigger::Edge },
        })
    }
}

/// Gives a message to the local APICs it is for; `source` is the sender's index in `apics`, when a local APIC sent it.
/// Returns whether anybody took it. The caller holds no lock of `apics`.
pub fn route(message: &Message, source: Option<usize>, apics: &[Shared<LocalApic>]) -> bool {
    let mut taken = false;
    route_each(message, source, apics, |_| taken = true);
    taken
}

/// As [`route`]; `taken` hears of the index of each that took it.
pub fn route_each(message: &Message, source: Option<usize>, apics: &[Shared<LocalApic>], mut taken: impl FnMut(usize)) {
    let is_for = |index: usize, apic: &LocalApic| match message.destination {
        Destination::Own => source == Some(index),
        Destination::AllButSelf => source != Some(index) && apic.enabled(),
        destination => apic.matches(destination),
    };
    if message.delivery == Delivery::LowestPriority {
        let candidates = apics.iter().enumerate().filter_map(|(i, apic)| {
            let apic = apic.lock();
            (is_for(i, &apic) && apic.software_enabled()).then(|| (apic.ppr(), i))
        });
        if let Some((i, apic)) = candidates.min().and_then(|(_, i)| apics.get(i).map(|a| (i, a))) {
            apic.lock().accept(message);
            taken(i);
        }
        return;
    }
    for (i, apic) in apics.iter().enumerate() {
        let mut apic = apic.lock();
        if is_for(i, &apic) {
            apic.accept(message);
            taken(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi_fields() {
        let row = |address, data| Message::from_msi(address, data).map(|m| (m.destination, m.delivery, m.vector, m.trigger));
        assert_eq!(row(0xfee0_3000, 0x0041), Some((Destination::Physical(3), Delivery::Fixed, 0x41, Trigger::Edge)));
        assert_eq!(row(0xfeef_f004, 0xc142), Some((Destination::Logical(0xff), Delivery::LowestPriority, 0x42, Trigger::Level)));
        assert_eq!(row(0xfeef_f000, 0x0400), Some((Destination::All, Delivery::Nmi, 0, Trigger::Edge)));
        assert_eq!(row(0xfee0_0000, 0x0300), None);
        assert_eq!(row(0xfed0_0000, 0x0041), None);
    }
}
