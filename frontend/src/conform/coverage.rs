//! The coverage page: every encoding that iced knows of a CPU model × implemented, tested, passing.

use super::report::{Report, Totals};
use super::runner::EngineChoice;
use egret_cpu::functions::implemented;
use egret_isa::CpuModel;
use egret_isa::Mode;
use egret_isa::rows::{Row, rows};
use iced_x86::Code;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Whether the engines have an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In every form and mode that has it.
    Implemented,
    /// In none, or not in all.
    Missing,
    /// It is #UD on every chip of the model, or not an encoding of its own; why.
    Absent(&'static str),
}

/// An encoding with its scores.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The encoding.
    pub row: Row,
    /// Whether it is there.
    pub state: State,
    /// The scores of the vectors that name it, in the order of [`Coverage::engines`].
    pub scores: Vec<Totals>,
}

impl Entry {
    /// The CPU features it needs, as one word.
    #[must_use]
    pub fn features(&self) -> String {
        self.row.features.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join("+")
    }

    fn tested(&self) -> bool {
        self.scores.iter().any(|t| t.ran > 0)
    }

    /// Some vector ran on engine number `n`, and all passed.
    fn passes(&self, n: usize) -> bool {
        self.scores.get(n).is_some_and(|t| t.ran > 0 && t.passed == t.ran)
    }

    fn modes(&self) -> String {
        let names = ["16", "32", "64"];
        names.iter().zip(self.row.modes).filter(|m| m.1).map(|m| *m.0).collect::<Vec<_>>().join("/")
    }
}

/// The page.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// The CPU model.
    pub model: String,
    /// The engines that ran vectors.
    pub engines: Vec<EngineChoice>,
    /// Every encoding of the model.
    pub entries: Vec<Entry>,
}

/// Why an encoding of the model's features is #UD on it all the same, or no encoding of its own.
fn absent(row: &Row) -> Option<&'static str> {
    use Code::*;
    Some(match row.code {
        Rsm => "#UD outside of system management mode, which the machine has not",
        Reservednop_rm16_r16_0F1F | Reservednop_rm32_r32_0F1F | Reservednop_rm64_r64_0F1F => "the same bytes are NOP r/m",
        Ud0 => "the same bytes are UD0 with a ModRM byte",
        Loopne_rel8_16_RCX | Loope_rel8_16_RCX | Loop_rel8_16_RCX | Jrcxz_rel8_16 => {
            "an operand size prefix means nothing to Intel's 64-bit branches"
        }
        code if code.op_code().fwait() => "two instructions: WAIT and the one without",
        code if format!("{code:?}").contains("_tr") => "test registers are gone since the Pentium",
        _ => return None,
    })
}

fn state(row: &Row) -> State {
    if let Some(why) = absent(row) {
        return State::Absent(why);
    }
    let (mut forms, mut known) = (0, 0);
    for mode in [Mode::M16, Mode::M32, Mode::M64] {
        for memory in [false, true] {
            if let Some((_, insn)) = row.example(mode, memory) {
                forms += 1;
                known += u32::from(implemented(&insn));
            }
        }
    }
    if forms > 0 && known == forms { State::Implemented } else { State::Missing }
}

impl Coverage {
    /// The page of a CPU model with the scores of `report`, when vectors ran. What the model should have and Egret has not yet is
    /// part of it.
    #[must_use]
    pub fn new(model: &CpuModel, report: Option<&Report>) -> Coverage {
        let base = model.base();
        let not_yet = base.wanted().without(base.features());
        let features = not_yet.iter().fold(model.features(), |all, f| all.with(f));
        let engines: Vec<EngineChoice> = report.iter().flat_map(|r| &r.engines).map(|e| e.engine).collect();
        let scores: Vec<BTreeMap<Code, Totals>> = report.iter().flat_map(|r| &r.engines).map(|e| e.codes()).collect();
        let entries = rows().filter(|row| features.allows(row.code)).map(|row| Entry {
            state: state(&row),
            scores: scores.iter().map(|s| s.get(&row.code).copied().unwrap_or_default()).collect(),
            row,
        });
        Coverage { model: model.to_string(), engines, entries: entries.collect() }
    }

    /// The encodings that the model has and Egret has not.
    pub fn missing(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.state == State::Missing)
    }

    /// The encodings that no vector names.
    pub fn untested(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.state == State::Implemented && !e.tested())
    }

    /// Counts by feature: all, implemented, tested, passing by engine. Encodings that are absent do not count.
    #[must_use]
    pub fn by_feature(&self) -> BTreeMap<String, Vec<u64>> {
        let mut table: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for entry in self.entries.iter().filter(|e| !matches!(e.state, State::Absent(_))) {
            let counts = table.entry(entry.features()).or_insert_with(|| vec![0; 3 + self.engines.len()]);
            let yes = [true, entry.state == State::Implemented, entry.tested()];
            let passes = (0..self.engines.len()).map(|n| entry.passes(n));
            for (count, yes) in counts.iter_mut().zip(yes.into_iter().chain(passes)) {
                *count += u64::from(yes);
            }
        }
        table
    }

    /// The page as text.
    #[must_use]
    pub fn text(&self) -> String {
        let table = self.by_feature();
        let width = table.keys().map(String::len).chain([7]).max().unwrap_or(7);
        let mut text = format!("model {}\n{:width$}{:>10}{:>12}{:>8}", self.model, "feature", "encodings", "implemented", "tested");
        for engine in &self.engines {
            let _ = write!(text, "{:>8}", engine.word());
        }
        text.push('\n');
        let mut total = vec![0; 3 + self.engines.len()];
        let mut line = |name: &str, counts: &[u64]| {
            let _ = write!(text, "{name:width$}{:>10}{:>12}", counts[0], counts[1]);
            for n in &counts[2..] {
                let _ = write!(text, "{n:>8}");
            }
            text.push('\n');
        };
        for (name, counts) in &table {
            line(name, counts);
            total.iter_mut().zip(counts).for_each(|(all, n)| *all += n);
        }
        line("total", &total);
        self.list(&mut text, "not implemented", self.missing());
        if self.engines.is_empty() {
            text.push_str("\nno vectors ran: give their PATHs to see what is tested and passes\n");
        } else {
            self.list(&mut text, "without a vector", self.untested());
            for (n, engine) in self.engines.iter().enumerate() {
                self.list(&mut text, &format!("failing on {}", engine.word()), self.entries.iter().filter(|e| e.scores[n].failed > 0));
            }
        }
        let absent = self.entries.iter().filter(|e| matches!(e.state, State::Absent(_)));
        self.list(&mut text, "known to iced and not counted", absent);
        text
    }

    fn list<'a>(&self, text: &mut String, title: &str, entries: impl Iterator<Item = &'a Entry>) {
        let entries: Vec<&Entry> = entries.collect();
        let _ = writeln!(text, "\n{title}: {}", entries.len());
        for e in entries {
            let why = if let State::Absent(why) = e.state { format!("  ({why})") } else { String::new() };
            let _ = writeln!(text, "  {:12} {:48} {:28} {}{why}", e.features(), e.row.text, e.row.opcode, e.modes());
        }
    }

    /// The page as one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let entries = self.entries.iter().map(|e| {
            let (state, why) = match e.state {
                State::Implemented => ("implemented", None),
                State::Missing => ("missing", None),
                State::Absent(why) => ("absent", Some(why)),
            };
            let scores: serde_json::Map<String, serde_json::Value> =
                self.engines.iter().zip(&e.scores).map(|(engine, t)| (engine.word().to_owned(), serde_json::json!(t))).collect();
            serde_json::json!({
                "encoding": format!("{:?}", e.row.code), "mnemonic": format!("{:?}", e.row.mnemonic).to_lowercase(), "text": e.row.text,
                "opcode": e.row.opcode, "features": e.row.features.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>(),
                "modes": e.modes(), "state": state, "why": why, "vectors": scores,
            })
        });
        let features: BTreeMap<String, serde_json::Value> = self
            .by_feature()
            .into_iter()
            .map(|(name, c)| {
                let passing: BTreeMap<&str, u64> = self.engines.iter().map(|e| e.word()).zip(c[3..].iter().copied()).collect();
                (name, serde_json::json!({"encodings": c[0], "implemented": c[1], "tested": c[2], "passing": passing}))
            })
            .collect();
        serde_json::json!({
            "model": self.model, "features": features, "missing": self.missing().count(), "encodings": entries.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_isa::model::{BASES, Features, NOT_YET};

    #[test]
    fn the_page_knows_what_is_there() {
        let page = Coverage::new(&CpuModel::default(), None);
        let find = |code| page.entries.iter().find(|e| e.row.code == code).map(|e| e.state);
        assert_eq!(find(Code::Adc_AL_imm8), Some(State::Implemented));
        assert!(matches!(find(Code::Ud0), Some(State::Absent(_))));
        assert_eq!(find(Code::EVEX_Vaddpd_zmm_k1z_zmm_zmmm512b64_er), None, "no AVX-512 in the model");
        assert!(page.entries.len() > 2000, "{} encodings", page.entries.len());
        let old = Coverage::new(&CpuModel::named("386").unwrap(), None);
        assert!(old.entries.len() < page.entries.len() && old.entries.iter().all(|e| e.row.code != Code::Movaps_xmm_xmmm128));
        let table = page.by_feature();
        assert!(table["INTEL8086"][0] > 200, "{table:?}");
        let text = page.text();
        assert!(text.contains("\ntotal") && text.contains("not implemented: "), "{text}");
        assert_eq!(page.json()["missing"], page.missing().count());
    }

    /// Every base model, and the newest with everything that can be added to it.
    #[test]
    fn nothing_is_missing_in_any_model() {
        let newest = CpuModel::default();
        let all = Features::of(NOT_YET);
        let everything = newest.with_features(Features::ALL.without(all));
        let bases = BASES.iter().filter_map(|b| CpuModel::named(b.name));
        for model in bases.chain([everything]) {
            let page = Coverage::new(&model, None);
            let missing: Vec<&str> = page.missing().map(|e| e.row.text).collect();
            assert!(missing.is_empty(), "{model}: {missing:?}");
            let (absent, there): (Vec<&Entry>, Vec<&Entry>) = page.entries.iter().partition(|e| matches!(e.state, State::Absent(_)));
            assert!(absent.len() <= 22 && there.len() > 10 * absent.len(), "{model}: {} of {}", absent.len(), page.entries.len());
        }
        assert!(Coverage::new(&newest, None).entries.len() > 2250);
        let counted = |code| Coverage::new(&everything, None).entries.iter().any(|e| e.row.code == code && e.state == State::Implemented);
        assert!([Code::Extrq_xmm_xmm, Code::Clzerod, Code::Mwait, Code::Serialize].into_iter().all(counted));
    }
}
