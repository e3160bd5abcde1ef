//! The MOO format of the SingleStepTests suites: chunks of an id, a length and a body.

use super::masks::FlagMasks;
use super::regs::{Reg, Value, value};
use super::vector::{ByteCheck, Mode, Model, Place, RegCheck, Stop, Vector, Want};
use super::{ParseError, Problem};
use std::collections::HashMap;
use std::sync::Arc;

/// The 16-bit register set: names in the order of the bitmap.
const REGS16: [&str; 14] = ["ax", "bx", "cx", "dx", "cs", "ss", "ds", "es", "sp", "bp", "si", "di", "ip", "flags"];
/// The 32-bit register set.
const REGS32: [&str; 20] = [
    "cr0", "cr3", "eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "cs", "ds", "es", "fs", "gs", "ss", "eip", "eflags", "dr6", "dr7",
];
/// Longest code of a test: some suites put a little program there.
const CODE_LIMIT: u64 = 4096;
const HLT: u8 = 0xf4;

/// A cursor over (part of) a file that knows how far from the file's start it is.
#[derive(Clone)]
struct Cursor<'a> {
    data: &'a [u8],
    offset: u64,
}

impl<'a> Cursor<'a> {
    fn problem(&self, what: impl Into<String>) -> Problem {
        Problem { offset: self.offset, what: what.into() }
    }

    fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], Problem> {
        let split = usize::try_from(n).ok().and_then(|n| self.data.split_at_checked(n));
        let (head, tail) = split.ok_or_else(|| self.problem(format!("{what} needs {n} bytes, {} are left", self.data.len())))?;
        self.data = tail;
        self.offset += n;
        Ok(head)
    }

    fn u8(&mut self, what: &str) -> Result<u8, Problem> {
        Ok(self.take(1, what)?[0])
    }

    fn u16(&mut self, what: &str) -> Result<u16, Problem> {
        self.take(2, what).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        self.take(4, what).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn chunk(&mut self) -> Result<Option<([u8; 4], Cursor<'a>)>, Problem> {
        if self.data.is_empty() {
            return Ok(None);
        }
        let id = self.take(4, "a chunk's id")?;
        let id = [id[0], id[1], id[2], id[3]];
        if !id.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            self.offset -= 4;
            return Err(self.problem(format!("{id:02x?} is no chunk id")));
        }
        let len = self.u32("a chunk's length")?;
        let offset = self.offset;
        let data = self.take(len.into(), &format!("chunk {}", String::from_utf8_lossy(&id)))?;
        Ok(Some((id, Cursor { data, offset })))
    }

    /// A u32 length and that many bytes.
    fn counted(&mut self, what: &str, limit: u64) -> Result<&'a [u8], Problem> {
        let len = u64::from(self.u32(what)?);
        if len > limit {
            return Err(self.problem(format!("{what} of {len} bytes is too long")));
        }
        self.take(len, what)
    }
}

/// Registers that a state or a mask names.
type Named = HashMap<Reg, u64>;

fn registers(body: &mut Cursor<'_>, wide: bool) -> Result<Named, Problem> {
    let (names, bits): (&[&str], u32) =
        if wide { (&REGS32, body.u32("a register bitmap")?) } else { (&REGS16, body.u16("a register bitmap")?.into()) };
    if u64::from(bits) >> names.len() != 0 {
        return Err(body.problem(format!("register bitmap {bits:#x} has bits beyond the {} registers", names.len())));
    }
    let mut named = Named::new();
    for (_, name) in names.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1) {
        let v = if wide { body.u32(name)?.into() } else { u64::from(body.u16(name)?) };
        if let Some((reg, _)) = Reg::parse(name) {
            named.insert(reg, v);
        }
    }
    Ok(named)
}

#[derive(Default)]
struct State {
    regs: Named,
    masks: Named,
    ram: Vec<(u64, u8)>,
    wide: bool,
}

fn state(body: &mut Cursor<'_>) -> Result<State, Problem> {
    let mut state = State::default();
    let mut seen = false;
    while let Some((id, mut body)) = body.chunk()? {
        match &id {
            b"REGS" | b"RG32" => {
                state.wide = &id == b"RG32";
                state.regs = registers(&mut body, state.wide)?;
                seen = true;
            }
            b"RMSK" | b"RM32" => state.masks = registers(&mut body, &id == b"RM32")?,
            b"RAM " => {
                let count = body.u32("a RAM count")?;
                if u64::from(count) * 5 != body.data.len() as u64 {
                    return Err(body.problem(format!("{count} RAM entries do not fill {} bytes", body.data.len())));
                }
                for _ in 0..count {
                    state.ram.push((body.u32("an address")?.into(), body.u8("a byte")?));
                }
            }
            // Prefetch queue, effective address: for cycle-exact emulators.
            _ => {}
        }
    }
    if seen { Ok(state) } else { Err(body.problem("a state without registers")) }
}

/// What the chip's stored flags look like and which of their bits tests may load and compare.
struct Chip {
    model: Model,
    /// Bits of FLAGS that a test loads.
    load: u64,
    /// Bits of FLAGS that are compared.
    compare: u64,
    /// The chip runs on to a HLT behind the instruction.
    hlt: bool,
}

fn chip(id: &[u8]) -> Chip {
    match id.trim_ascii_end() {
        b"8086" | b"8088" => Chip { model: Model::I8086, load: 0xffff, compare: 0xffff, hlt: false },
        b"V20" | b"V30" => Chip { model: Model::V30, load: 0xffff, compare: 0xffff, hlt: false },
        // The 286 clears the top four bits in real mode; the capture loaded them with noise.
        b"286" | b"C286" | b"80286" => Chip { model: Model::I80286, load: 0x0fff, compare: 0xffff, hlt: true },
        // The upper 14 bits are not implemented and read as ones.
        b"386" | b"386E" | b"80386" => Chip { model: Model::I80386, load: 0x3_7fd7, compare: 0x3_ffff, hlt: true },
        other => Chip { model: Model::Other(String::from_utf8_lossy(other).into_owned()), load: 0x3_ffff, compare: 0x3_ffff, hlt: true },
    }
}

/// An open MOO file: an iterator over its tests. After an error it ends.
pub struct Reader<'a> {
    file: Arc<str>,
    masks: Option<&'a FlagMasks>,
    rest: Cursor<'a>,
    chip: Chip,
    mode: Mode,
    file_masks: Named,
    /// Tests that the header speaks of, where all of them must be in sight.
    announced: Option<u32>,
    found: u32,
    done: bool,
}

/// Where the test count stands: behind the first chunk's id and length, the version and two reserved bytes.
pub(super) const COUNT_AT: usize = 12;

/// The error of a file with too few tests or too many.
pub(super) fn miscounted(announced: u32, found: u32) -> Problem {
    Problem { offset: COUNT_AT as u64, what: format!("the header says {announced} tests, the file holds {found}") }
}

impl<'a> Reader<'a> {
    /// Opens the file whose content is `data`; `masks` come from the suite's metadata.
    pub fn new(data: &'a [u8], file: &Arc<str>, masks: Option<&'a FlagMasks>) -> Result<Reader<'a>, ParseError> {
        let mut rest = Cursor { data, offset: 0 };
        let open = |rest: &mut Cursor<'a>| {
            let (id, mut body) = rest.chunk()?.ok_or(Problem { offset: 0, what: "an empty file".into() })?;
            if &id != b"MOO " {
                return Err(Problem { offset: 0, what: "not a MOO file".into() });
            }
            let version = (body.u8("the version")?, body.u8("the version")?);
            if version.0 != 1 {
                return Err(Problem { offset: 8, what: format!("MOO version {}.{} is unknown", version.0, version.1) });
            }
            body.take(2, "the header")?;
            Ok((body.u32("the test count")?, chip(body.take(4, "the CPU id")?)))
        };
        let (announced, chip) = open(&mut rest).map_err(|p| p.in_file(file))?;
        Ok(Reader {
            file: Arc::clone(file),
            masks,
            rest,
            chip,
            mode: Mode::Real,
            file_masks: Named::new(),
            announced: Some(announced),
            found: 0,
            done: false,
        })
    }

    /// Opens a part of a file, the tests in `data`, which starts `offset` bytes into it; `head` are the chunks before the tests.
    pub fn part(
        head: &'a [u8],
        data: &'a [u8],
        offset: u64,
        file: &Arc<str>,
        masks: Option<&'a FlagMasks>,
    ) -> Result<Reader<'a>, ParseError> {
        let mut reader = Reader::new(head, file, masks)?;
        reader.announced = None;
        // Its chunks are read for what they say of the tests.
        while reader.step().map_err(|p| p.in_file(file))?.is_some() {}
        reader.rest = Cursor { data, offset };
        Ok(reader)
    }

    fn step(&mut self) -> Result<Option<Vector>, Problem> {
        loop {
            let start = self.rest.offset;
            let Some((id, mut body)) = self.rest.chunk()? else {
                return match self.announced {
                    Some(announced) if announced != self.found => Err(miscounted(announced, self.found)),
                    _ => Ok(None),
                };
            };
            match &id {
                b"TEST" => {
                    self.found = self.found.saturating_add(1);
                    return self.test(body, start).map(Some);
                }
                b"RMSK" | b"RM32" => self.file_masks = registers(&mut body, &id == b"RM32")?,
                // Version 1.1: two version bytes, CPU type, opcode, mnemonic, test count, seed, CPU mode. Before there was no mode.
                b"META" if body.data.len() > 27 => {
                    body.take(27, "META")?;
                    self.mode = match body.u8("META")? {
                        0 => Mode::Real,
                        n => Mode::Unknown(n),
                    };
                }
                _ => {}
            }
        }
    }

    fn test(&self, mut body: Cursor<'a>, offset: u64) -> Result<Vector, Problem> {
        let whole = body.clone();
        body.u32("a test's index")?;
        let (mut name, mut code, mut init, mut fina, mut excp) = (None, None, None, None, None);
        while let Some((id, mut body)) = body.chunk()? {
            match &id {
                b"NAME" => name = Some(String::from_utf8_lossy(body.counted("a name", 1024)?).into_owned()),
                b"BYTS" => code = Some(body.counted("code", CODE_LIMIT)?),
                b"INIT" => init = Some(state(&mut body)?),
                b"FINA" => fina = Some(state(&mut body)?),
                b"EXCP" => excp = Some((body.u8("an exception")?, body.u32("an exception")?)),
                // Generator's metadata, bus cycles, hash.
                _ => {}
            }
        }
        let missing = |what: &str| whole.problem(format!("a test without {what}"));
        let (init, fina) = (init.ok_or_else(|| missing("an initial state"))?, fina.ok_or_else(|| missing("a final state"))?);
        let name = name.ok_or_else(|| missing("a name"))?;
        let code = code.ok_or_else(|| missing("code"))?;
        let place = Place { file: Arc::clone(&self.file), offset };
        self.build(place, name, code, &init, &fina, excp.map(|e| e.1.into())).map_err(|what| whole.problem(what))
    }

    fn build(&self, place: Place, name: String, code: &[u8], init: &State, fina: &State, excp: Option<u64>) -> Result<Vector, String> {
        let names: &[&str] = if init.wide { &REGS32 } else { &REGS16 };
        if let Some(name) = names.iter().find(|name| Reg::parse(name).is_some_and(|(reg, _)| !init.regs.contains_key(&reg))) {
            return Err(format!("the initial state has no {name}"));
        }
        let load = |reg: Reg, v: u64| match reg {
            Reg::Rflags => v & self.chip.load | 2,
            // Reserved bits of the 386 read as ones.
            Reg::Cr(0) => v & 0x8000_001f,
            _ => v,
        };
        let start: Named = init.regs.iter().map(|(reg, v)| (*reg, load(*reg, *v))).collect();
        let get = |reg: Reg| start.get(&reg).copied().unwrap_or(0);
        let flags = self.defined_flags(code, fina);
        let mut want = Want::default();
        for name in names {
            let Some((reg, width)) = Reg::parse(name) else { continue };
            let changed = fina.regs.get(&reg).copied();
            let system = matches!(reg, Reg::Cr(_) | Reg::Dr(_));
            if system && changed.is_none() {
                continue;
            }
            let mut mask = width[0] & self.register_mask(fina, reg);
            match reg {
                Reg::Rflags => mask &= flags,
                Reg::Cr(0) => mask &= 0x8000_001f,
                Reg::Cr(_) | Reg::Dr(_) => mask &= 0xffff_ffff,
                _ => {}
            }
            want.regs.push(RegCheck { reg, value: value(changed.unwrap_or_else(|| get(reg))), mask: value(mask) });
        }
        let frame = self.flags_frame(&start, fina, excp);
        want.mem = expected_memory(init, fina, frame, flags as u16);
        let mut ordered: Vec<(Reg, Value)> = start.iter().map(|(reg, v)| (*reg, value(*v))).collect();
        ordered.sort_unstable();
        let at = (get(Reg::Sel(1)) << 4) + get(Reg::Rip);
        let hlt = self.chip.hlt && (code.last() == Some(&HLT) || init.ram.contains(&(at + code.len() as u64, HLT)));
        Ok(Vector {
            mnemonic: Vector::mnemonic_of(&name),
            name,
            place,
            model: self.chip.model.clone(),
            mode: self.mode,
            cpl: 0,
            code: code.to_vec(),
            at,
            regions: Vec::new(),
            bytes: init.ram.clone(),
            init: ordered,
            stop: if hlt { Stop::Hlt } else { Stop::Count(1) },
            want,
            delivers: true,
        })
    }

    fn register_mask(&self, fina: &State, reg: Reg) -> u64 {
        fina.masks.get(&reg).or_else(|| self.file_masks.get(&reg)).copied().unwrap_or(u64::MAX)
    }

    /// The FLAGS bits that the instruction leaves defined.
    fn defined_flags(&self, code: &[u8], fina: &State) -> u64 {
        let by_opcode = self.masks.map_or(u64::MAX, |m| u64::from(m.of(code)) | !0xffff);
        by_opcode & self.chip.compare & self.register_mask(fina, Reg::Rflags)
    }

    /// The address of the FLAGS image that an exception pushed. Files without `EXCP` are asked whether three words were pushed
    /// and CS:IP left. The 286's suite rounds its addresses down to words.
    fn flags_frame(&self, start: &Named, fina: &State, excp: Option<u64>) -> Option<u64> {
        let (sp, ss) = (Reg::Gpr(4), Reg::Sel(2));
        let before = start.get(&sp)? & 0xffff;
        let after = fina.regs.get(&sp).copied().unwrap_or(before) & 0xffff;
        let frame = (start.get(&ss)? << 4) + (after.wrapping_add(4) & 0xffff);
        let frame = if self.chip.model == Model::I8086 { frame & 0xf_ffff } else { frame };
        match excp {
            Some(at) if frame.wrapping_sub(at) <= 1 => Some(frame),
            Some(at) => Some(at),
            None if self.chip.hlt => None,
            None => (after == before.wrapping_sub(6) & 0xffff && fina.regs.contains_key(&Reg::Sel(1))).then_some(frame),
        }
    }
}

/// Every byte that either state names, with the final value; the FLAGS image at `frame` is masked by `flags`.
fn expected_memory(init: &State, fina: &State, frame: Option<u64>, flags: u16) -> Vec<ByteCheck> {
    let mut bytes: Vec<(u64, u8)> = Vec::with_capacity(init.ram.len() + fina.ram.len());
    bytes.extend(&init.ram);
    bytes.extend(&fina.ram);
    // Stable, so that of equal addresses the last entry is the final one.
    bytes.sort_by_key(|b| b.0);
    let mut checks: Vec<ByteCheck> = Vec::with_capacity(bytes.len());
    for (at, value) in bytes {
        let mask = match frame.map(|f| at.wrapping_sub(f)) {
            Some(0) => flags as u8,
            Some(1) => (flags >> 8) as u8,
            _ => 0xff,
        };
        match checks.last_mut() {
            Some(last) if last.at == at => last.value = value,
            _ => checks.push(ByteCheck { at, value, mask }),
        }
    }
    checks
}

impl Iterator for Reader<'_> {
    type Item = Result<Vector, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.step().map_err(|p| p.in_file(&self.file)).transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}
