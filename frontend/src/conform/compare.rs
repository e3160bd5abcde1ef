//! The differences between what a vector wants and what an engine did.

use super::engine::{End, Final};
use super::regs::{Reg, Value, flag_name};
use super::vector::{FaultCheck, RegCheck, Vector};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diff {
    /// The register, the address in brackets, or `end`.
    pub what: String,
    /// What the vector wants.
    pub want: String,
    /// What the engine did.
    pub got: String,
    /// The flags that differ, by name, or the bits that count.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Most differences kept for one vector.
const LIMIT: usize = 32;

/// All differences; none means the vector passed.
#[must_use]
pub fn differences(vector: &Vector, got: &Final) -> Vec<Diff> {
    let mut diffs = Vec::new();
    let end = |want: String| Diff { what: "end".into(), want, got: end_text(&got.end), note: String::new() };
    match (&vector.want.fault, &got.end) {
        (None, End::Stopped) => {}
        (None, _) => diffs.push(end("the stop condition".into())),
        (Some(want), End::Fault { vector, error, cr2 }) => fault(want, (*vector, *error, *cr2), got.regs.rip, &mut diffs),
        (Some(want), _) => diffs.push(end(exception(want.vector))),
    }
    diffs.extend(vector.want.regs.iter().filter_map(|want| register(want, got.regs.get(want.reg))));
    for (want, byte) in vector.want.mem.iter().zip(&got.mem) {
        if diffs.len() >= LIMIT {
            break;
        }
        if byte.is_none_or(|b| (b ^ want.value) & want.mask != 0) {
            diffs.push(Diff {
                what: format!("[{:#x}]", want.at),
                want: format!("{:#04x}", want.value),
                got: byte.map_or_else(|| "no memory".into(), |b| format!("{b:#04x}")),
                note: if want.mask == 0xff { String::new() } else { format!("mask {:#04x}", want.mask) },
            });
        }
    }
    if let (false, Some(name)) = (diffs.is_empty(), got.unknown.first()) {
        diffs
            .insert(0, Diff { what: "unknown".into(), want: "-".into(), got: format!("'{name}' is not implemented"), note: String::new() });
    }
    diffs
}

fn fault(want: &FaultCheck, (vector, error, cr2): (u8, Option<u32>, Option<u64>), rip: u64, diffs: &mut Vec<Diff>) {
    let hex = |v: Option<u64>| v.map_or_else(|| "none".into(), |v| format!("{v:#x}"));
    let mut check = |what: &str, differs: bool, want: String, got: String| {
        if differs {
            diffs.push(Diff { what: what.into(), want, got, note: String::new() });
        }
    };
    check("fault", want.vector != vector, exception(want.vector), exception(vector));
    check("fault error code", want.error.is_some() && want.error != error, hex(want.error.map(u64::from)), hex(error.map(u64::from)));
    check("fault cr2", want.cr2.is_some() && want.cr2 != cr2, hex(want.cr2), hex(cr2));
    check("fault rip", want.rip.is_some_and(|w| w != rip), hex(want.rip), hex(Some(rip)));
}

fn register(want: &RegCheck, got: Value) -> Option<Diff> {
    let changed: Value = std::array::from_fn(|i| (want.value[i] ^ got[i]) & want.mask[i]);
    if changed == [0; 4] {
        return None;
    }
    let masked = |v: Value| number(std::array::from_fn(|i| v[i] & want.mask[i]));
    let note = if want.reg == Reg::Rflags { flags(changed[0], want.value[0]) } else { String::new() };
    let name = want.reg.name(if want.reg == Reg::Rflags { [0xffff_ffff, 0, 0, 0] } else { want.mask });
    Some(Diff { what: name, want: masked(want.value), got: masked(got), note })
}

/// The flags in `changed` with the values that were wanted and found.
fn flags(changed: u64, want: u64) -> String {
    let bits = (0..64).filter(|bit| changed >> bit & 1 == 1);
    let one = |bit: u32| format!("{} want {} got {}", flag_name(bit), want >> bit & 1, !want >> bit & 1);
    bits.map(one).collect::<Vec<_>>().join(", ")
}

/// A register value in hex.
#[must_use]
pub fn number(v: Value) -> String {
    let top = v.iter().rposition(|q| *q != 0).unwrap_or(0);
    let low: String = v[..top].iter().rev().map(|q| format!("{q:016x}")).collect();
    format!("{:#x}{low}", v[top])
}

fn exception(vector: u8) -> String {
    const NAMES: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP", "#PF", "#15", "#MF", "#AC", "#MC",
        "#XM", "#VE", "#CP",
    ];
    NAMES.get(usize::from(vector)).map_or_else(|| format!("interrupt {vector}"), |n| format!("{n} ({vector})"))
}

fn end_text(end: &End) -> String {
    match end {
        End::Stopped => "the stop condition".into(),
        End::Fault { vector, error, cr2 } => {
            let error = error.map_or_else(String::new, |e| format!(" error {e:#x}"));
            let cr2 = cr2.map_or_else(String::new, |a| format!(" cr2 {a:#x}"));
            format!("{}{error}{cr2}", exception(*vector))
        }
        End::Shutdown => "a triple fault".into(),
        End::Runaway => "no end".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::jsonl;
    use crate::conform::regs::{RegFile, value};

    fn vector(want: &str) -> Vector {
        let line = format!(r#"{{"name": "x", "mode": "64", "code": "90", "stop": "hlt", "want": {want}}}"#);
        jsonl::Reader::new(line.as_bytes(), &"t".into(), 0).next().unwrap().unwrap()
    }

    fn check(want: &str, end: End, set: &[(&str, Value)], mem: &[Option<u8>], expected: &[&str]) {
        let mut regs = RegFile::default();
        for (name, v) in set {
            regs.set(Reg::parse(name).unwrap().0, *v);
        }
        let diffs = differences(&vector(want), &Final { end, regs, mem: mem.to_vec(), unknown: Vec::new(), compiled: None });
        let text: Vec<String> =
            diffs.iter().map(|d| format!("{}: want {} got {} {}", d.what, d.want, d.got, d.note).trim_end().to_owned()).collect();
        assert_eq!(text, expected, "{want}");
    }

    #[test]
    fn rows() {
        let page_fault = || End::Fault { vector: 14, error: Some(2), cr2: Some(0x1000) };
        check(r#"{"rax": "0x5"}"#, End::Stopped, &[("rax", value(5))], &[], &[]);
        check(r#"{"ax": "0x5"}"#, End::Stopped, &[("rax", value(0x1_0005))], &[], &[]);
        check(r#"{"eax": "0x5"}"#, End::Stopped, &[("rax", value(6))], &[], &["eax: want 0x5 got 0x6"]);
        check(
            r#"{"rflags": {"value": "0x41", "mask": "0x8c5"}}"#,
            End::Stopped,
            &[("rflags", value(0x816))],
            &[],
            &["eflags: want 0x41 got 0x804 CF want 1 got 0, PF want 0 got 1, ZF want 1 got 0, OF want 0 got 1"],
        );
        check(
            r#"{"xmm1": ["0x1", "0x2"]}"#,
            End::Stopped,
            &[("ymm1", [1, 3, 9, 9])],
            &[],
            &["xmm1: want 0x20000000000000001 got 0x30000000000000001"],
        );
        check(r#"{"mem": [["0x10", "0102"]]}"#, End::Stopped, &[], &[Some(1), None], &["[0x11]: want 0x02 got no memory"]);
        check("{}", page_fault(), &[], &[], &["end: want the stop condition got #PF (14) error 0x2 cr2 0x1000"]);
        check("{}", End::Shutdown, &[], &[], &["end: want the stop condition got a triple fault"]);
        check(r#"{"fault": {"vector": 13}}"#, End::Stopped, &[], &[], &["end: want #GP (13) got the stop condition"]);
        check(r#"{"fault": {"vector": 14, "error": "0x2", "cr2": "0x1000", "rip": "0x0"}}"#, page_fault(), &[], &[], &[]);
        check(
            r#"{"fault": {"vector": 14, "error": "0x3", "cr2": "0x1008", "rip": "0x1"}}"#,
            page_fault(),
            &[],
            &[],
            &["fault error code: want 0x3 got 0x2", "fault cr2: want 0x1008 got 0x1000", "fault rip: want 0x1 got 0x0"],
        );
    }
}
