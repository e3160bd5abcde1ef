//! `egret cpus`: the models and features of `--cpu`.

use egret_hypervisor::exit::ExitCode;
use egret_machine::model::{BASES, CpuModel, Features, ROWS};
use std::fmt::Write as _;
use std::io::Write as _;

/// Runs the command.
pub fn cpus() -> ExitCode {
    if std::io::stdout().write_all(text().as_bytes()).is_err() { ExitCode::Interrupted } else { ExitCode::Ok }
}

/// Models, each with what it adds to the one before, then every feature.
fn text() -> String {
    let mut out = String::from("Models, each with the features that the one before has not:\n");
    let mut before = Features::NONE;
    for base in BASES {
        let default = if base.name == CpuModel::default().base().name { " [default]" } else { "" };
        let _ = writeln!(out, "  {:10}  {}{default}", base.name, base.about);
        let new: Vec<&str> = base.features().without(before).iter().map(|f| f.word()).filter(|w| !w.is_empty()).collect();
        list(&mut out, "              +", &new);
        before = base.features();
    }
    out += "\nFeatures, as --cpu MODEL,+FEATURE,-FEATURE takes them:\n";
    let all: Vec<&str> = ROWS.iter().filter(|r| r.feature.implemented() && !r.word.is_empty()).map(|r| r.word).collect();
    list(&mut out, "  ", &all);
    out
}

/// Words in lines of at most 100 columns.
fn list(out: &mut String, indent: &str, words: &[&str]) {
    let mut line = String::new();
    for word in words {
        if line.len() + word.len() > 80 {
            let _ = writeln!(out, "{indent}{line}");
            line.clear();
        }
        let _ = write!(line, " {word}");
    }
    if !line.is_empty() {
        let _ = writeln!(out, "{indent}{line}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn models_and_features_are_listed() {
        let text = super::text();
        for want in ["  8086 ", "  x86-64-v3 ", "[default]", " popcnt", "+ i186"] {
            assert_eq!(text.contains(want), want != "+ i186", "{want}\n{text}");
        }
    }
}
