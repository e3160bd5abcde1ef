//! Which flags an instruction leaves defined: `metadata.json` of the SingleStepTests suites.

use std::collections::HashMap;

/// Flag masks by opcode and, for groups, by the reg field of ModRM. A clear bit is undefined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagMasks {
    plain: HashMap<u16, u16>,
    groups: HashMap<u16, [u16; 8]>,
}

#[derive(serde::Deserialize)]
struct File {
    opcodes: HashMap<String, Opcode>,
}

#[derive(serde::Deserialize)]
struct Opcode {
    #[serde(rename = "flags-mask")]
    flags_mask: Option<u16>,
    reg: Option<HashMap<String, Opcode>>,
}

impl FlagMasks {
    /// Reads the file; an error is one line.
    pub fn parse(text: &[u8]) -> Result<FlagMasks, String> {
        let file: File = serde_json::from_slice(text).map_err(|e| format!("not the metadata of a suite: {e}"))?;
        let mut masks = FlagMasks::default();
        for (name, opcode) in file.opcodes {
            // Names such as "0F01" are two-byte opcodes; others, as "6600", carry prefixes and say nothing new.
            let Ok(number) = u16::from_str_radix(&name, 16) else { continue };
            if let Some(regs) = opcode.reg {
                let mut row = [0xffff; 8];
                for (reg, sub) in regs {
                    let slot = reg.parse::<usize>().ok().and_then(|n| row.get_mut(n));
                    *slot.ok_or_else(|| format!("opcode {name} has a reg field '{reg}'"))? = sub.flags_mask.unwrap_or(0xffff);
                }
                masks.groups.insert(number, row);
            } else if let Some(mask) = opcode.flags_mask {
                masks.plain.insert(number, mask);
            }
        }
        Ok(masks)
    }

    /// The defined flags after the 16-bit-mode instruction whose bytes are `code`.
    #[must_use]
    pub fn of(&self, code: &[u8]) -> u16 {
        let is_prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
        let mut rest = code.iter().copied().skip_while(is_prefix);
        let Some(first) = rest.next() else { return 0xffff };
        let mut opcode = u16::from(first);
        // Where 0Fh is POP CS the file has no two-byte rows to find.
        if first == 0x0f
            && let Some(second) = rest.clone().next()
            && let long = 0x0f00 | u16::from(second)
            && (self.plain.contains_key(&long) || self.groups.contains_key(&long))
        {
            rest.next();
            opcode = long;
        }
        match self.groups.get(&opcode) {
            Some(row) => rest.next().map_or(0xffff, |modrm| row[usize::from(modrm >> 3 & 7)]),
            None => self.plain.get(&opcode).copied().unwrap_or(0xffff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_by_opcode_and_reg_field() {
        let text = br#"{"version": "1", "opcodes": {
            "00": {"status": "normal"}, "20": {"flags": ".....a..", "flags-mask": 65519},
            "F7": {"reg": {"4": {"flags-mask": 65323}, "0": {"status": "normal"}}}, "0FA5": {"flags-mask": 1}}}"#;
        let masks = FlagMasks::parse(text).unwrap();
        for (code, want) in [
            (&[0x00, 0xc0][..], 0xffff),
            (&[0x20, 0xc0], 65519),
            (&[0x26, 0xf3, 0x20, 0xc0], 65519),
            (&[0xf7, 0xe1], 65323),
            (&[0xf7, 0xc1], 0xffff),
            (&[0x66, 0x0f, 0xa5, 0xc0], 1),
            (&[0x0f], 0xffff),
            (&[0xf7], 0xffff),
            (&[0xf3], 0xffff),
            (&[], 0xffff),
        ] {
            assert_eq!(masks.of(code), want, "{code:x?}");
        }
        for bad in
            [&b"{}"[..], b"[1]", b"", br#"{"opcodes": {"F7": {"reg": {"8": {}}}}}"#, br#"{"opcodes": {"F7": {"flags-mask": 70000}}}"#]
        {
            assert!(FlagMasks::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
