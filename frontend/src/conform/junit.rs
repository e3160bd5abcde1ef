//! The score as a JUnit file, as continuous-integration services read it: a suite an engine, a case a mnemonic.

use super::report::{EngineReport, Report};
use std::fmt::Write;

/// Text with XML's five characters escaped and without what XML 1.0 cannot hold.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// The whole file.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let cases: usize = report.engines.iter().map(|e| e.rows.len()).sum();
    let failed: usize = report.engines.iter().map(|e| e.rows.values().filter(|r| r.totals.failed > 0).count()).sum();
    let _ = writeln!(
        text,
        "<testsuites name=\"egret conform\" tests=\"{}\" failures=\"{failed}\" errors=\"{}\" time=\"{:.3}\">",
        cases + report.errors.len(),
        report.errors.len(),
        report.seconds
    );
    for engine in &report.engines {
        suite(&mut text, engine);
    }
    if !report.errors.is_empty() {
        let _ = writeln!(text, "  <testsuite name=\"files\" tests=\"{0}\" failures=\"0\" errors=\"{0}\">", report.errors.len());
        for error in &report.errors {
            let (file, what) = (escape(&error.place.file), escape(&error.to_string()));
            let _ = writeln!(text, "    <testcase classname=\"files\" name=\"{file}\"><error message=\"{what}\"/></testcase>");
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn suite(text: &mut String, engine: &EngineReport) {
    let failed = engine.rows.values().filter(|r| r.totals.failed > 0).count();
    let skipped = engine.rows.values().filter(|r| r.totals.ran == 0 || (r.totals.known > 0 && r.totals.failed == 0)).count();
    let word = engine.engine.word();
    let _ = writeln!(
        text,
        "  <testsuite name=\"{word}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\">",
        engine.rows.len()
    );
    for (mnemonic, row) in &engine.rows {
        let _ = write!(text, "    <testcase classname=\"{word}\" name=\"{}\"", escape(mnemonic));
        let t = row.totals;
        if t.failed > 0 {
            let _ = writeln!(text, ">\n      <failure message=\"{} of {} vectors failed\">", t.failed, t.ran);
            for f in engine.failures.iter().filter(|f| f.mnemonic == *mnemonic) {
                let body = format!("{}  [{}]  {} at byte {}\n{}\n{}", f.name, f.code, f.file, f.offset, f.text, f.lines());
                text.push_str(&escape(&body));
            }
            text.push_str("</failure>\n    </testcase>\n");
        } else if t.ran == 0 {
            let reasons: Vec<&str> = row.skipped.keys().map(String::as_str).collect();
            let _ = writeln!(text, "><skipped message=\"{}\"/></testcase>", escape(&reasons.join("; ")));
        } else if t.known > 0 {
            let known: Vec<String> = row.known.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
            let _ = writeln!(text, "><skipped message=\"known exceptions: {}\"/></testcase>", escape(&known.join("; ")));
        } else {
            text.push_str("/>\n");
        }
    }
    text.push_str("  </testsuite>\n");
}
