//! Egret's own vectors: JSON lines, one test a line.

use super::regs::{Reg, Value};
use super::vector::{Access, ByteCheck, FaultCheck, Mode, Model, PAGE, Place, RegCheck, Region, Stop, Vector, Want};
use super::{ParseError, Problem};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest line.
pub(super) const LINE_LIMIT: usize = 16 << 20;
/// Most bytes of memory one vector may map.
const MAP_LIMIT: u64 = 16 << 20;
/// Longest code: a whole program with its data, some of them.
const CODE_LIMIT: usize = 1 << 20;
/// Most instructions one vector may run.
const COUNT_LIMIT: u64 = 1_000_000;

#[derive(Deserialize)]
struct Line {
    name: String,
    mode: String,
    cpu: Option<String>,
    cpl: Option<u8>,
    code: String,
    at: Option<Number>,
    #[serde(default)]
    map: Vec<MapText>,
    /// Initial memory inside of `map`, where it is not zero.
    #[serde(default)]
    mem: Vec<(String, String)>,
    #[serde(default)]
    init: BTreeMap<String, Text>,
    stop: StopText,
    want: WantText,
    /// Other keys: remarks, such as the manual's section.
    #[serde(flatten)]
    remarks: BTreeMap<String, serde_json::Value>,
}

/// A number: hexadecimal text as the format has it, or a JSON number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(u64),
}

impl Number {
    fn value(&self) -> Result<u64, String> {
        match self {
            Number::Text(text) => number(text),
            Number::Plain(n) => Ok(*n),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapText {
    at: Number,
    len: Number,
    prot: String,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StopText {
    Word(String),
    Count { count: u64 },
}

#[derive(Deserialize)]
struct WantText {
    #[serde(default)]
    mem: Vec<(Number, String)>,
    fault: Option<FaultText>,
    #[serde(flatten)]
    regs: BTreeMap<String, Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultText {
    vector: Number,
    error: Option<Number>,
    cr2: Option<Number>,
    rip: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    One(Number),
    List(Vec<Number>),
    Masked { value: Plain, mask: Plain },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Plain {
    One(Number),
    List(Vec<Number>),
}

fn number(text: &str) -> Result<u64, String> {
    wide(text).and_then(|v| if v[1..] == [0; 3] { Ok(v[0]) } else { Err(format!("'{text}' is wider than 64 bits")) })
}

/// A hexadecimal number of at most 256 bits.
fn wide(text: &str) -> Result<Value, String> {
    let bad = || format!("'{text}' is not a number like 0x1f");
    let digits = text.strip_prefix("0x").ok_or_else(bad)?;
    if digits.is_empty() || digits.len() > 64 {
        return Err(bad());
    }
    let mut v = [0; 4];
    for (n, digit) in digits.bytes().rev().enumerate() {
        let digit = char::from(digit).to_digit(16).ok_or_else(bad)?;
        v[n / 16] |= u64::from(digit) << (n % 16 * 4);
    }
    Ok(v)
}

fn hex(text: &str, limit: usize) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    if bytes.len() > limit.saturating_mul(2) {
        return Err(format!("{} hex digits are more than {limit} bytes", bytes.len()));
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let pair = |p: &[u8]| match p {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    bytes.chunks(2).map(|p| pair(p).ok_or_else(|| "bytes must be written as pairs of hex digits".to_owned())).collect()
}

fn plain(one: Option<&Number>, list: &[Number], mask: Value) -> Result<Value, String> {
    let v = match one {
        Some(Number::Text(text)) => wide(text)?,
        Some(Number::Plain(n)) => [*n, 0, 0, 0],
        None if list.len() > 4 => return Err("a register has at most four quadwords".into()),
        None => {
            let mut v = [0; 4];
            for (slot, text) in v.iter_mut().zip(list) {
                *slot = text.value()?;
            }
            v
        }
    };
    if v.iter().zip(mask).any(|(v, m)| v & !m != 0) { Err("the value is wider than the register".into()) } else { Ok(v) }
}

impl Plain {
    fn value(&self, width: Value) -> Result<Value, String> {
        match self {
            Plain::One(text) => plain(Some(text), &[], width),
            Plain::List(list) => plain(None, list, width),
        }
    }
}

impl Text {
    /// The value and the bits that count.
    fn value(&self, width: Value) -> Result<(Value, Value), String> {
        match self {
            Text::One(text) => Ok((plain(Some(text), &[], width)?, width)),
            Text::List(list) => Ok((plain(None, list, width)?, width)),
            Text::Masked { value, mask } => Ok((value.value(width)?, mask.value(width)?)),
        }
    }
}

fn register(name: &str, text: &Text) -> Result<(Reg, Value, Value), String> {
    let (reg, width) = Reg::parse(name).ok_or_else(|| format!("unknown register '{name}'"))?;
    let (v, mask) = text.value(width).map_err(|e| format!("{name}: {e}"))?;
    Ok((reg, v, mask))
}

fn region(map: &MapText) -> Result<Region, String> {
    let (at, len) = (map.at.value()?, map.len.value()?);
    let access = match map.prot.as_str() {
        "r" => Access { write: false, execute: false },
        "rw" => Access { write: true, execute: false },
        "rx" => Access { write: false, execute: true },
        "rwx" => Access { write: true, execute: true },
        other => return Err(format!("prot '{other}' is none of r, rw, rx, rwx")),
    };
    if len == 0 || (at | len) % PAGE != 0 || at.checked_add(len - 1).is_none() {
        return Err(format!("the region at {at:#x} of {len:#x} bytes is empty or not made of pages"));
    }
    if len > MAP_LIMIT {
        return Err(format!("a region of {len:#x} bytes is too long"));
    }
    Ok(Region { at, len, access, data: hex(&map.data, len as usize)? })
}

fn want(text: &WantText) -> Result<Want, String> {
    let mut want = Want::default();
    for (name, text) in &text.regs {
        let (reg, value, mask) = register(name, text)?;
        want.regs.push(RegCheck { reg, value, mask });
    }
    for (at, bytes) in &text.mem {
        let at = at.value()?;
        for (n, value) in hex(bytes, MAP_LIMIT as usize)?.into_iter().enumerate() {
            want.mem.push(ByteCheck { at: at.wrapping_add(n as u64), value, mask: 0xff });
        }
    }
    if let Some(fault) = &text.fault {
        let optional = |text: &Option<Number>| text.as_ref().map(Number::value).transpose();
        let vector = u8::try_from(fault.vector.value()?).map_err(|_| "an exception vector beyond 255")?;
        let error = optional(&fault.error)?.map(|e| u32::try_from(e).map_err(|_| "an error code wider than 32 bits")).transpose()?;
        want.fault = Some(FaultCheck { vector, error, cr2: optional(&fault.cr2)?, rip: optional(&fault.rip)? });
    }
    Ok(want)
}

fn build(line: &Line, place: Place) -> Result<Vector, String> {
    // A misspelt key would silently change the test, a remark does not.
    if let Some((key, _)) = line.remarks.iter().find(|(_, v)| !v.is_string()) {
        return Err(format!("unknown field '{key}'"));
    }
    let mode = match line.mode.as_str() {
        "64" => Mode::Long64,
        "32" => Mode::Protected32,
        "16" => Mode::Protected16,
        "real" => Mode::Real,
        other => return Err(format!("mode '{other}' is none of 64, 32, 16, real")),
    };
    let stop = match &line.stop {
        StopText::Word(word) if word == "hlt" => Stop::Hlt,
        StopText::Count { count } if (1..=COUNT_LIMIT).contains(count) => Stop::Count(*count),
        _ => return Err(format!("stop must be \"hlt\" or {{\"count\": N}} with N up to {COUNT_LIMIT}")),
    };
    let code = hex(&line.code, CODE_LIMIT)?;
    if code.is_empty() {
        return Err("no code".into());
    }
    let default_at = if mode.bits() == 16 { 0x1000 } else { 0x10000 };
    let at = line.at.as_ref().map_or(Ok(default_at), Number::value)?;
    let regions: Vec<Region> = line.map.iter().map(region).collect::<Result<_, _>>()?;
    if regions.iter().map(|r| r.len).sum::<u64>() > MAP_LIMIT {
        return Err(format!("more than {MAP_LIMIT:#x} bytes mapped"));
    }
    let mut init: Vec<(Reg, Value)> = Vec::new();
    for (name, text) in &line.init {
        let (reg, v, mask) = register(name, text)?;
        if matches!(text, Text::Masked { .. }) {
            return Err(format!("{name}: an initial value has no mask"));
        }
        // The halves of a vector register can be named apart.
        match init.iter_mut().find(|(r, _)| *r == reg) {
            Some((_, old)) => *old = std::array::from_fn(|i| old[i] & !mask[i] | v[i]),
            None => init.push((reg, v)),
        }
    }
    let cpl = line.cpl.unwrap_or(0);
    if cpl != 0 && cpl != 3 || cpl == 3 && matches!(mode, Mode::Real) {
        return Err(format!("cpl {cpl} cannot be run in mode {mode}"));
    }
    let mut bytes = if mode == Mode::Real { real_bytes(&code, at, &regions)? } else { Vec::new() };
    for (at, text) in &line.mem {
        let at = number(at)?;
        bytes.extend(hex(text, CODE_LIMIT)?.into_iter().enumerate().map(|(n, byte)| (at.wrapping_add(n as u64), byte)));
    }
    let vector = Vector {
        name: line.name.clone(),
        mnemonic: Vector::mnemonic_of(line.name.split('/').next().unwrap_or_default()),
        place,
        model: Model::from_name(line.cpu.as_deref().unwrap_or("x86-64-v3")),
        mode,
        cpl,
        code,
        at,
        regions,
        bytes,
        init,
        stop,
        want: want(&line.want)?,
        delivers: false,
    };
    let rip = vector.initial().rip;
    if mode.bits() == 16 && rip > 0xffff {
        return Err(format!("the code at {at:#x} cannot be reached from its CS"));
    }
    Ok(vector)
}

/// Real mode has no paging: regions become bytes.
fn real_bytes(code: &[u8], at: u64, regions: &[Region]) -> Result<Vec<(u64, u8)>, String> {
    let mut bytes = Vec::new();
    let ranges = regions.iter().map(|r| (r.at, r.len, r.data.as_slice())).chain([(at, code.len() as u64, code)]);
    for (at, len, data) in ranges {
        if at.checked_add(len).is_none_or(|end| end > 0x11_0000) {
            return Err(format!("{at:#x} is out of reach in real mode"));
        }
        bytes.extend((at..at + len).zip(data.iter().copied().chain(std::iter::repeat(0))));
    }
    Ok(bytes)
}

/// An open file of JSON lines, or a part of one: an iterator over its tests. A bad line ends it.
pub struct Reader<'a> {
    file: Arc<str>,
    rest: &'a [u8],
    offset: u64,
}

impl<'a> Reader<'a> {
    /// Opens `data`, which starts `offset` bytes into the file.
    #[must_use]
    pub fn new(data: &'a [u8], file: &Arc<str>, offset: u64) -> Reader<'a> {
        Reader { file: Arc::clone(file), rest: data, offset }
    }

    fn line(&self, line: &[u8]) -> Result<Vector, Problem> {
        let problem = |at: u64, what: String| Problem { offset: self.offset + at, what };
        if line.len() > LINE_LIMIT {
            return Err(problem(0, format!("a line of {} bytes is too long", line.len())));
        }
        let parsed: Line = serde_json::from_slice(line).map_err(|e| {
            let text = e.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text).to_owned();
            problem(e.column().saturating_sub(1) as u64, what)
        })?;
        build(&parsed, Place { file: Arc::clone(&self.file), offset: self.offset }).map_err(|what| problem(0, what))
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Vector, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|b| *b == b'\n').unwrap_or(self.rest.len());
            let line = &self.rest[..end];
            let result = (!line.trim_ascii().is_empty()).then(|| self.line(line).map_err(|p| p.in_file(&self.file)));
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            self.offset += end as u64 + 1;
            match result {
                None => {}
                Some(Ok(v)) => return Some(Ok(v)),
                Some(Err(e)) => {
                    self.rest = &[];
                    return Some(Err(e));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::regs::value;

    const EXAMPLE: &str = concat!(
        r#"{"name": "adc/al-imm8/carry-out", "mode": "64", "cpu": "x86-64-v3", "code": "1401", "at": "0x10000","#,
        r#" "map": [{"at": "0xe0000000", "len": "0xa000", "prot": "rw", "data": "00ff"}],"#,
        r#" "init": {"rax": "0xff", "rflags": "0x3", "xmm0": ["0x1", "0x2"], "st0": "0x3fff8000000000000000", "ds": "0x2b", "fs_base": "0x9"},"#,
        r#" "stop": {"count": 1},"#,
        r#" "want": {"rax": "0x0", "rflags": {"value": "0x57", "mask": "0xcd5"}, "mem": [["0xe0000000", "00ff"]],"#,
        r#" "fault": {"vector": 14, "error": "0x6", "cr2": "0xe000a000", "rip": "0x10000"}}}"#
    );

    fn read(text: &str) -> Vec<Result<Vector, String>> {
        Reader::new(text.as_bytes(), &"v.jsonl".into(), 0).map(|r| r.map_err(|e| e.to_string())).collect()
    }

    #[test]
    fn the_example_of_the_format() {
        let text = format!("{EXAMPLE}\n\n{EXAMPLE}");
        let vectors = read(&text);
        assert_eq!(vectors.len(), 2);
        assert_eq!(vectors[1].as_ref().unwrap().place.offset, EXAMPLE.len() as u64 + 2);
        let v = vectors[0].as_ref().unwrap();
        assert_eq!((v.mnemonic.as_str(), v.mode, &v.model, v.stop), ("adc", Mode::Long64, &Model::X8664V3, Stop::Count(1)));
        assert_eq!(v.code, [0x14, 1]);
        assert_eq!(v.regions[0].data, [0, 0xff]);
        assert_eq!(v.want.mem.len(), 2);
        assert_eq!(v.want.fault, Some(FaultCheck { vector: 14, error: Some(6), cr2: Some(0xe000_a000), rip: Some(0x10000) }));
        let flags = v.want.regs.iter().find(|r| r.reg == Reg::Rflags).unwrap();
        assert_eq!((flags.value, flags.mask), (value(0x57), value(0xcd5)));
        let start = v.initial();
        assert_eq!((start.gpr[0], start.rflags, start.rip, start.sel[3], start.base[4]), (0xff, 3, 0x10000, 0x2b, 9));
        assert_eq!(start.vec[0], [1, 2, 0, 0]);
        assert_eq!(start.x87[0], (0x8000_0000_0000_0000, 0x3fff));
        assert_eq!((start.gpr[4], start.mxcsr, start.fcw), (0x8000, 0x1f80, 0x37f));
    }

    #[test]
    fn plain_numbers_and_remarks_are_welcome() {
        let line = concat!(
            r#"{"name": "x", "mode": "64", "code": "90", "at": 4096, "init": {"rax": 5, "xmm0": [1, "0x2"]}, "stop": "hlt","#,
            r#" "cite": "SDM Vol. 2", "want": {"rax": {"value": 5, "mask": 255}, "fault": {"vector": "0xe", "error": 2}}}"#
        );
        let v = read(line).pop().unwrap().unwrap();
        assert_eq!((v.at, v.initial().gpr[0], v.initial().vec[0]), (4096, 5, [1, 2, 0, 0]));
        assert_eq!(v.want.regs[0].mask, value(255));
        assert_eq!(v.want.fault, Some(FaultCheck { vector: 14, error: Some(2), cr2: None, rip: None }));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (from, to, want) in [
            (r#""mode": "64""#, r#""mode": "65""#, "v.jsonl at byte 0: mode '65'"),
            (r#""0xff""#, r#""255""#, "rax: '255' is not a number like 0x1f"),
            (r#""rax": "0xff""#, r#""raz": "0xff""#, "unknown register 'raz'"),
            (r#""ds": "0x2b""#, r#""ds": "0x2bbbb""#, "ds: the value is wider"),
            (r#""code": "1401""#, r#""code": "140""#, "pairs of hex digits"),
            (r#""code": "1401""#, r#""code": """#, "no code"),
            (r#""code""#, r#""kode""#, "missing field `code`"),
            (r#""init""#, r#""int""#, "unknown field 'int'"),
            (r#""vector": 14"#, r#""vector": 256"#, "an exception vector beyond 255"),
            (r#""prot": "rw""#, r#""prot": "w""#, "prot 'w'"),
            (r#""len": "0xa000""#, r#""len": "0xa001""#, "not made of pages"),
            (r#""len": "0xa000""#, r#""len": "0xfffffffffffff000""#, "not made of pages"),
            (r#""len": "0xa000""#, r#""len": "0x7ffffffffff000""#, "too long"),
            (r#"{"count": 1}"#, r#"{"count": 0}"#, "stop must be"),
            (r#"{"count": 1}"#, r#""halt""#, "stop must be"),
            (r#""stop": {"count": 1},"#, "", "missing field `stop`"),
            (r#"["0x1", "0x2"]"#, r#"["0x1", "0x2", "0x3"]"#, "xmm0: the value is wider"),
            (r#""0xff""#, r#"{"value": "0xff", "mask": "0xff"}"#, "an initial value has no mask"),
            (r#""mode": "64""#, r#""mode": "real""#, "is out of reach in real mode"),
            (r#""mode": "64""#, r#""mode": "16""#, "cannot be reached"),
            (r#""mode": "64""#, r#""mode": "64", "cpl": 2"#, "cpl 2"),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = read(&EXAMPLE.replacen(from, to, 1)).pop().unwrap().expect_err(to);
            assert!(error.contains(want), "{to}\n got {error}\nwant {want}");
        }
        assert!(read(&EXAMPLE[..100])[0].as_ref().unwrap_err().contains("at byte 99: EOF"), "{:?}", read(&EXAMPLE[..100]));
    }

    #[test]
    fn damaged_lines_are_errors_not_panics() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut text = EXAMPLE.as_bytes().to_vec();
            for _ in 0..2 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state >> 8) as usize % text.len();
                text[at] = state as u8;
            }
            refused += Reader::new(&text, &"v".into(), 0).filter(Result::is_err).count();
        }
        assert!(refused > 10_000, "{refused} refused");
    }
}
