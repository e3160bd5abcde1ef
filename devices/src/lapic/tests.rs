use super::*;
use crate::message::route;
use egret_bus::{Shared, shared};

const HZ: u64 = 2_000_000_000;

fn apic() -> LocalApic {
    let mut apic = LocalApic::new(0, true, HZ);
    put(&mut apic, 0xf0, 0x1ff, 0);
    apic
}

fn get(apic: &mut LocalApic, offset: u64, now: u64) -> u32 {
    apic.read(Access { region: 0, offset, size: 4, now: Ticks(now) }) as u32
}

fn put(apic: &mut LocalApic, offset: u64, value: u32, now: u64) {
    apic.write(Access { region: 0, offset, size: 4, now: Ticks(now) }, value.into());
}

#[test]
fn priorities() {
    // (delivered, TPR, vector taken, PPR after it)
    let rows: &[(&[u8], u8, Option<u8>, u8)] = &[
        (&[0x31], 0x00, Some(0x31), 0x30),
        (&[0x31, 0x55, 0x54], 0x00, Some(0x55), 0x50),
        (&[0x31], 0x2f, Some(0x31), 0x30),
        (&[0x31], 0x30, None, 0x30),
        (&[0x31], 0x40, None, 0x40),
        (&[0xff, 0x10], 0xe5, Some(0xff), 0xf0),
        (&[0x0f], 0x00, None, 0x00),
        (&[], 0x07, None, 0x07),
    ];
    for (vectors, tpr, taken, ppr) in rows {
        let mut a = apic();
        a.set_tpr(*tpr);
        vectors.iter().for_each(|&v| a.deliver(v, false));
        assert_eq!(a.acknowledge(), *taken, "{vectors:x?} tpr {tpr:x}");
        assert_eq!(a.ppr(), *ppr, "{vectors:x?} tpr {tpr:x}");
    }
}

#[test]
fn service_nests_by_class_and_eoi_ends_the_highest() {
    let mut a = apic();
    a.deliver(0x41, true);
    assert_eq!(a.acknowledge(), Some(0x41));
    a.deliver(0x42, false);
    assert_eq!(a.intr(), None, "same class waits");
    a.deliver(0x51, false);
    assert_eq!(a.acknowledge(), Some(0x51));
    put(&mut a, 0xb0, 0, 0);
    assert_eq!(a.take_eois(), [], "edge");
    put(&mut a, 0xb0, 0, 0);
    assert_eq!(a.take_eois(), [0x41], "level");
    assert_eq!(a.acknowledge(), Some(0x42));
    put(&mut a, 0xf0, 0x11ff, 0);
    a.deliver(0x61, true);
    assert_eq!(a.acknowledge(), Some(0x61));
    put(&mut a, 0xb0, 0, 0);
    assert_eq!(a.take_eois(), [], "broadcast suppressed");
}

#[test]
fn registers_hold_what_they_should() {
    // (offset, written, read)
    let rows: &[(u64, u32, u32)] = &[
        (0x020, 0x0500_0000, 0),
        (0x030, 0, VERSION),
        (0x080, 0xffff_ff37, 0x37),
        (0x0d0, u32::MAX, 0xff00_0000),
        (0x0e0, 0, 0x0fff_ffff),
        (0x0f0, 0xffff_ffff, 0x13ff),
        (0x310, u32::MAX, 0xff00_0000),
        (0x320, u32::MAX, 0x0007_00ff),
        (0x330, u32::MAX, 0x0001_07ff),
        (0x350, 0xfffe_f7ff, 0x0000_a7ff),
        (0x370, u32::MAX, 0x0001_00ff),
        (0x3e0, u32::MAX, 0xb),
        (0x0a0, 0x55, 0),
        (0x200, u32::MAX, 0),
    ];
    for &(offset, value, expect) in rows {
        let mut a = apic();
        put(&mut a, offset, value, 0);
        assert_eq!(get(&mut a, offset, 0), expect, "{offset:#x}");
    }
    let mut a = LocalApic::new(0, true, HZ);
    put(&mut a, 0x320, 0x20, 0);
    assert_eq!(get(&mut a, 0x320, 0), 0x1_0020, "masked while software-disabled");
    assert_eq!(get(&mut a, 0xf0, 0), 0xff);
    a.deliver(0x33, false);
    assert_eq!(a.intr(), None);
}

#[test]
fn error_status_is_latched_by_a_write() {
    let mut a = apic();
    put(&mut a, 0x370, 0xfe, 0);
    a.deliver(3, false);
    get(&mut a, 0x3f0, 0);
    put(&mut a, 0x300, 0x4004, 0);
    assert_eq!(get(&mut a, 0x280, 0), 0);
    put(&mut a, 0x280, 0, 0);
    assert_eq!(get(&mut a, 0x280, 0), 0xe0);
    put(&mut a, 0x280, 0, 0);
    assert_eq!(get(&mut a, 0x280, 0), 0);
    assert_eq!(a.acknowledge(), Some(0xfe));
    put(&mut a, 0x370, 0x03, 0);
    a.deliver(3, false);
    assert_eq!(a.acknowledge(), None, "an error vector that is itself illegal does not recurse");
}

#[test]
fn timer_counts_and_fires() {
    // (LVT, divide, initial, time, count then, fired by then, next deadline)
    type Row = (u32, u32, u32, u64, u32, bool, Option<u64>);
    let rows: &[Row] = &[
        (0x0_0040, 0xb, 1000, 400, 600, false, Some(1000)),
        (0x0_0040, 0xb, 1000, 1000, 0, true, None),
        (0x0_0040, 0x0, 1000, 400, 800, false, Some(2000)),
        (0x0_0040, 0x3, 1000, 16_000, 0, true, None),
        (0x0_0040, 0xa, 1000, 64_000, 500, false, Some(128_000)),
        (0x1_0040, 0xb, 1000, 5000, 0, false, None),
        (0x2_0040, 0xb, 1000, 3400, 600, true, Some(4000)),
        (0x2_0040, 0xb, 1, 3400, 1, true, Some(3401)),
        (0x0_0040, 0xb, 0, 3400, 0, false, None),
        (0x2_0040, 0xa, u32::MAX, 0, u32::MAX, false, Some(128 * 0xffff_ffff)),
    ];
    for &(lvt, divide, initial, now, count, fired, deadline) in rows {
        let mut a = apic();
        put(&mut a, 0x320, lvt, 0);
        put(&mut a, 0x3e0, divide, 0);
        put(&mut a, 0x380, initial, 0);
        a.tick(Ticks(now));
        assert_eq!(get(&mut a, 0x390, now), count, "{lvt:x} {divide:x} {initial} at {now}");
        assert_eq!(a.acknowledge(), fired.then_some(0x40), "{lvt:x} {divide:x} {initial} at {now}");
        assert_eq!(a.deadline(), deadline.map(Ticks), "{lvt:x} {divide:x} {initial} at {now}");
    }
}

#[test]
fn tsc_deadline_mode() {
    let mut a = apic();
    a.set_tsc_deadline(500);
    assert_eq!(a.tsc_deadline(), 0, "not in TSC-deadline mode");
    put(&mut a, 0x320, 0x4_0040, 0);
    a.set_tsc_deadline(2001);
    assert_eq!((a.tsc_deadline(), a.deadline()), (2001, Some(Ticks(1001))));
    a.set_tsc_offset(1001);
    assert_eq!(a.deadline(), Some(Ticks(500)));
    a.tick(Ticks(499));
    assert_eq!(a.intr(), None);
    a.tick(Ticks(500));
    assert_eq!((a.acknowledge(), a.tsc_deadline(), a.deadline()), (Some(0x40), 0, None));
    put(&mut a, 0xb0, 0, 500);
    a.set_tsc_deadline(1);
    assert_eq!(a.deadline(), Some(Ticks(0)), "in the past: at once");
    a.set_tsc_deadline(0);
    assert_eq!(a.deadline(), None, "disarmed");
    a.set_tsc_deadline(u64::MAX);
    a.set_tsc_offset(i64::MIN);
    assert_eq!(a.deadline(), None, "never");
    put(&mut a, 0x380, 100, 500);
    assert_eq!(a.deadline(), None, "the initial count is not for this mode");
    put(&mut a, 0x320, 0x0_0040, 500);
    assert_eq!(a.tsc_deadline(), 0);
}

#[test]
fn icr_makes_messages() {
    let message = |destination, delivery, vector| Message { destination, delivery, vector, trigger: Trigger::Edge };
    use {Delivery::*, Destination::*};
    let rows = [
        (0x03 << 24, 0x41u32, Some(message(Physical(3), Fixed, 0x41))),
        (0xff << 24, 0x0041, Some(message(All, Fixed, 0x41))),
        (0x0c << 24, 0x0841, Some(message(Logical(0x0c), Fixed, 0x41))),
        (0x0c << 24, 0x0941, Some(message(Logical(0x0c), LowestPriority, 0x41))),
        (0x01 << 24, 0x4500, Some(message(Physical(1), Init, 0))),
        (0x01 << 24, 0xc500, Some(message(Physical(1), Init, 0))),
        (0x01 << 24, 0x8500, None),
        (0x01 << 24, 0x4699, Some(message(Physical(1), Startup, 0x99))),
        (0, 0xc_4400, Some(message(AllButSelf, Nmi, 0))),
        (0, 0x8_4041, Some(message(All, Fixed, 0x41))),
        (0x01 << 24, 0x4341, None),
        (0x01 << 24, 0x4741, None),
        (0x01 << 24, 0x400f, None),
    ];
    for (high, low, expect) in rows {
        let mut a = apic();
        put(&mut a, 0x310, high, 0);
        put(&mut a, 0x300, low, 0);
        assert_eq!(a.take_ipis(), Vec::from_iter(expect), "{high:x} {low:x}");
    }
    let mut a = apic();
    put(&mut a, 0x300, 0x4_4077, 0);
    assert_eq!((a.take_ipis(), a.acknowledge()), (vec![], Some(0x77)), "self");
}

#[test]
fn logical_destinations() {
    // (DFR, LDR, destination, matches)
    let rows = [
        (u32::MAX, 0x02, 0x03, true),
        (u32::MAX, 0x02, 0x04, false),
        (u32::MAX, 0x02, 0xff, true),
        (u32::MAX, 0x00, 0xff, false),
        (0x0fff_ffff, 0x21, 0x21, true),
        (0x0fff_ffff, 0x21, 0x23, true),
        (0x0fff_ffff, 0x21, 0x31, false),
        (0x0fff_ffff, 0x21, 0x22, false),
        (0x0fff_ffff, 0x21, 0xff, true),
        (u32::MAX, 0x02, 0x102, false),
    ];
    for (dfr, ldr, to, expect) in rows {
        let mut a = apic();
        put(&mut a, 0xe0, dfr, 0);
        put(&mut a, 0xd0, ldr << 24, 0);
        assert_eq!(a.matches(Destination::Logical(to)), expect, "{dfr:x} {ldr:x} {to:x}");
    }
}

#[test]
fn x2apic_view() {
    let now = Ticks(0);
    let mut a = LocalApic::new(0x25, false, HZ);
    assert_eq!(a.read_msr(0x802, now), Err(BadMsr), "not in x2APIC mode");
    a.set_base(0xfee0_0c00).unwrap();
    assert_eq!(get(&mut a, 0x20, 0), u32::MAX, "no page");
    // (MSR, written, read back): `None` written is refused.
    assert_eq!(a.write_msr(0x80f, 0x1ff, now), Ok(()));
    let rows: &[(u32, u64, bool, Option<u64>)] = &[
        (0x802, 1, false, Some(0x25)),
        (0x803, 1, false, Some(VERSION.into())),
        (0x808, 0x30, true, Some(0x30)),
        (0x808, 0x130, false, Some(0x30)),
        (0x80b, 0, true, None),
        (0x80b, 1, false, None),
        (0x80d, 0, false, Some(0x2_0020)),
        (0x80e, 0, false, None),
        (0x828, 0, true, Some(0)),
        (0x828, 1, false, Some(0)),
        (0x830, 0x12_0000_4041, true, Some(0x12_0000_4041)),
        (0x830, 0xffff_ffff_fff0_0041, false, Some(0x12_0000_4041)),
        (0x831, 0, false, None),
        (0x832, 0x1_0020, true, Some(0x1_0020)),
        (0x832, 0x1_5020, false, Some(0x1_0020)),
        (0x835, 0x1_5720, true, Some(0x1_0720)),
        (0x83f, 0x88, true, None),
        (0x8ff, 0, false, None),
        (0x7ff, 0, false, None),
    ];
    for &(msr, value, taken, read) in rows {
        assert_eq!(a.write_msr(msr, value, now).is_ok(), taken, "write {msr:x} {value:x}");
        assert_eq!(a.read_msr(msr, now).ok(), read, "read {msr:x}");
    }
    assert_eq!(a.acknowledge(), Some(0x88));
    assert_eq!(a.take_ipis().first().map(|m| m.destination), Some(Destination::Physical(0x12)));
    a.write_msr(0x830, 0xffff_ffff_0000_4841, now).unwrap();
    a.write_msr(0x830, 0x0002_0020_0000_4841, now).unwrap();
    let to: Vec<_> = a.take_ipis().iter().map(|m| m.destination).collect();
    assert_eq!(to, [Destination::All, Destination::Logical(0x2_0020)]);
    assert!(a.matches(Destination::Logical(0x2_0030)) && !a.matches(Destination::Logical(0x1_0020)));
}

#[test]
fn mode_changes() {
    // (from, to, allowed)
    let rows = [
        (0x900, 0xd00, true),
        (0xd00, 0x900, false),
        (0xd00, 0x100, true),
        (0x100, 0xd00, false),
        (0x100, 0x900, true),
        (0x900, 0x500, false),
        (0x900, 0x901, false),
    ];
    for (from, to, allowed) in rows {
        let mut a = LocalApic::new(0, true, HZ);
        if from == 0x100 {
            a.set_base(0xfee0_0100).unwrap();
        } else {
            a.set_base(0xfee0_0000 | from).unwrap();
        }
        assert_eq!(a.set_base(0xfee0_0000 | to).is_ok(), allowed, "{from:x} to {to:x}");
        assert_eq!(a.base(), 0xfee0_0000 | if allowed { to } else { from });
    }
}

#[test]
fn local_pins() {
    let mut a = apic();
    a.set_lint(Lint::Lint0, true);
    assert!(!a.extint(), "masked");
    put(&mut a, 0x350, 0x700, 0);
    assert!(a.extint());
    a.set_lint(Lint::Lint0, false);
    assert!(!a.extint());
    put(&mut a, 0x360, 0x400, 0);
    a.set_lint(Lint::Lint1, true);
    assert!(a.take_nmi() && !a.take_nmi());
    put(&mut a, 0x350, 0x8033, 0);
    a.set_lint(Lint::Lint0, true);
    assert_eq!(a.acknowledge(), Some(0x33));
    assert_eq!(get(&mut a, 0x350, 0), 0xc033, "remote IRR");
    put(&mut a, 0xb0, 0, 0);
    assert_eq!(a.acknowledge(), Some(0x33), "still asserted");
    a.set_lint(Lint::Lint0, false);
    put(&mut a, 0xb0, 0, 0);
    assert_eq!(a.acknowledge(), None);
    a.set_base(0xfee0_0100).unwrap();
    a.set_lint(Lint::Lint0, true);
    assert!(a.extint(), "off: LINT0 is INTR");
    a.set_lint(Lint::Lint1, false);
    a.set_lint(Lint::Lint1, true);
    assert!(a.take_nmi(), "off: LINT1 is NMI");
}

#[test]
fn routing() {
    use {Delivery::*, Destination::*};
    let message = |destination, delivery| Message { destination, delivery, vector: 0x41, trigger: Trigger::Edge };
    // Who of three takes it; 0 sends. APIC 1 is busy (TPR 0x80).
    let rows = [
        (message(Physical(2), Fixed), "2"),
        (message(Physical(9), Fixed), ""),
        (message(All, Fixed), "012"),
        (message(AllButSelf, Fixed), "12"),
        (message(Own, Fixed), "0"),
        (message(Logical(0b110), Fixed), "12"),
        (message(Logical(0b110), LowestPriority), "2"),
        (message(Logical(0b011), LowestPriority), "0"),
        (message(Logical(0), LowestPriority), ""),
    ];
    for (m, expect) in rows {
        let apics: Vec<Shared<LocalApic>> = (0..3)
            .map(|id| {
                let mut a = LocalApic::new(id, id == 0, HZ);
                put(&mut a, 0xf0, 0x1ff, 0);
                put(&mut a, 0xd0, 0x0100_0000 << id, 0);
                a.set_tpr(if id == 1 { 0x80 } else { 0 });
                shared(a)
            })
            .collect();
        assert_eq!(route(&m, Some(0), &apics), !expect.is_empty());
        let mut took = String::new();
        for (i, a) in apics.iter().enumerate() {
            a.lock().set_tpr(0);
            if a.lock().acknowledge().is_some() {
                took += &i.to_string();
            }
        }
        assert_eq!(took, expect, "{m:?}");
    }
}

#[test]
fn init_and_startup() {
    let mut a = apic();
    a.deliver(0x55, false);
    for delivery in [Delivery::Init, Delivery::Startup] {
        a.accept(&Message { destination: Destination::Physical(0), delivery, vector: 0x9a, trigger: Trigger::Edge });
    }
    assert!(a.event_pending());
    assert!(a.take_init() && !a.take_init());
    assert_eq!((a.take_startup(), a.take_startup()), (Some(0x9a), None));
    assert_eq!((a.intr(), get(&mut a, 0xf0, 0)), (None, 0xff));
    assert_eq!(a.base(), 0xfee0_0900);
}
