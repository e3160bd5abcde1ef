//! The score as one self-contained page.

use super::coverage::{Coverage, State};
use super::failure::Failure;
use super::junit::escape;
use super::report::{Report, Row, Totals, features};
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = "\
body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:1em 0}th,td{border:1px solid #ccc;padding:.15em .6em;text-align:right}
th:first-child,td:first-child,td.l,th.l{text-align:left}thead th{position:sticky;top:0;background:#eee}
.ok{background:#d9f2d9}.bad{background:#f6c9c9}.none{color:#888}code,pre{font:12px/1.35 ui-monospace,monospace}
pre{background:#f4f4f4;padding:.5em;overflow:auto;margin:.3em 0}details{margin:.4em 0}summary{cursor:pointer}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}thead th{background:#333}pre{background:#222}
th,td{border-color:#444}.ok{background:#1f3d1f}.bad{background:#5a2222}}";

/// The whole page.
#[must_use]
pub fn html(report: &Report, coverage: &Coverage) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>egret conform</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>egret conform</h1>\n"
    );
    summary(&mut page, report);
    extensions(&mut page, coverage);
    mnemonics(&mut page, report);
    failures(&mut page, report);
    encodings(&mut page, coverage);
    page.push_str("</body></html>\n");
    page
}

fn summary(page: &mut String, report: &Report) {
    page.push_str(
        "<table><thead><tr><th>engine</th><th>ran</th><th>passed</th><th>failed</th><th>skipped</th><th>ran compiled</th></tr></thead>\n",
    );
    for e in &report.engines {
        let t = e.totals;
        let compiled = e.compiled.map_or_else(|| "–".to_owned(), |n| n.to_string());
        let class = if t.failed > 0 { "bad" } else { "ok" };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{}</td><td>{}</td><td>{compiled}</td></tr>",
            e.engine.word(),
            t.ran,
            t.passed,
            t.failed,
            t.skipped
        );
    }
    let _ = writeln!(page, "</table>\n<p>{:.1} seconds</p>", report.seconds);
    for error in &report.errors {
        let _ = writeln!(page, "<p class=\"bad\">{}</p>", escape(&error.to_string()));
    }
    for e in &report.engines {
        for (reason, n) in e.reasons() {
            let _ = writeln!(page, "<p>{}: skipped {n}: {}</p>", e.engine.word(), escape(reason));
        }
        for (name, reason) in e.rows.values().flat_map(|r| &r.known) {
            let _ = writeln!(page, "<p>{}: known exception {}: {}</p>", e.engine.word(), escape(name), escape(reason));
        }
    }
}

fn extensions(page: &mut String, coverage: &Coverage) {
    let _ = writeln!(page, "<h2>Coverage of {} by extension</h2>", escape(&coverage.model));
    page.push_str("<table><thead><tr><th>extension</th><th>encodings</th><th>implemented</th><th>with vectors</th>");
    for e in &coverage.engines {
        let _ = write!(page, "<th>pass on {}</th>", e.word());
    }
    page.push_str("</tr></thead>\n");
    for (name, counts) in coverage.by_feature() {
        let class = if counts[0] == counts[1] { "ok" } else { "bad" };
        let _ = write!(page, "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{}</td>", escape(&name), counts[0], counts[1]);
        for n in &counts[2..] {
            let _ = write!(page, "<td class=\"{}\">{n}</td>", if *n == counts[0] { "ok" } else { "" });
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn cell(totals: Totals) -> String {
    match totals {
        Totals { ran: 0, skipped: 0, .. } => "<td class=\"none\">–</td>".into(),
        Totals { ran: 0, skipped, .. } => format!("<td class=\"none\">{skipped} skipped</td>"),
        Totals { failed: 0, passed, known: 1.., .. } => format!("<td class=\"none\">{passed} and {} known</td>", totals.known),
        Totals { failed: 0, passed, .. } => format!("<td class=\"ok\">{passed}</td>"),
        Totals { ran, passed, .. } => format!("<td class=\"bad\">{passed} of {ran}</td>"),
    }
}

fn mnemonics(page: &mut String, report: &Report) {
    page.push_str("<h2>By mnemonic</h2>\n<table><thead><tr><th>mnemonic</th><th class=\"l\">extension</th>");
    let mut rows: BTreeMap<&str, Vec<Option<&Row>>> = BTreeMap::new();
    for (n, engine) in report.engines.iter().enumerate() {
        let _ = write!(page, "<th>{}</th>", engine.engine.word());
        for (mnemonic, row) in &engine.rows {
            rows.entry(mnemonic).or_insert_with(|| vec![None; report.engines.len()])[n] = Some(row);
        }
    }
    page.push_str("</tr></thead>\n");
    for (mnemonic, scores) in rows {
        let extension = scores.iter().flatten().next().map(|r| features(r)).unwrap_or_default();
        let _ = write!(page, "<tr><td>{}</td><td class=\"l\">{}</td>", escape(mnemonic), escape(&extension));
        for row in scores {
            page.push_str(&cell(row.map(|r| r.totals).unwrap_or_default()));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn failures(page: &mut String, report: &Report) {
    for engine in &report.engines {
        if engine.totals.failed == 0 {
            continue;
        }
        let shown = engine.failures.len();
        let _ = writeln!(page, "<h2>Failures on {}: {} ({shown} shown)</h2>", engine.engine.word(), engine.totals.failed);
        for f in &engine.failures {
            failure(page, f);
        }
    }
}

fn failure(page: &mut String, f: &Failure) {
    let _ = writeln!(
        page,
        "<details><summary><b>{}</b> <code>{}</code></summary>\n<p>{} at byte {}; {}</p>\n<pre>{}</pre>",
        escape(&f.name),
        escape(&f.text),
        escape(&f.file),
        f.offset,
        escape(&f.setting),
        escape(&f.code)
    );
    page.push_str("<table><thead><tr><th>what</th><th class=\"l\">expected</th><th class=\"l\">got</th><th class=\"l\">difference</th></tr></thead>\n");
    for d in &f.diffs {
        let cells = [&d.want, &d.got, &d.note].map(|text| format!("<td class=\"l\"><code>{}</code></td>", escape(text)));
        let _ = writeln!(page, "<tr><td>{}</td>{}</tr>", escape(&d.what), cells.concat());
    }
    let _ = writeln!(page, "</table>\n<details><summary>input</summary><pre>{}</pre></details></details>", escape(&f.input_lines()));
}

fn encodings(page: &mut String, coverage: &Coverage) {
    page.push_str("<h2>All encodings</h2>\n<details><summary>");
    let _ = write!(page, "{} encodings, {} of them missing", coverage.entries.len(), coverage.missing().count());
    page.push_str(
        "</summary><table><thead><tr><th>instruction</th><th class=\"l\">opcode</th><th class=\"l\">extension</th><th>state</th>",
    );
    for e in &coverage.engines {
        let _ = write!(page, "<th>{}</th>", e.word());
    }
    page.push_str("</tr></thead>\n");
    for e in &coverage.entries {
        let (class, state) = match e.state {
            State::Implemented => ("ok", "implemented"),
            State::Missing => ("bad", "missing"),
            State::Absent(why) => ("none", why),
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"l\"><code>{}</code></td><td class=\"l\">{}</td><td class=\"{class}\">{}</td>",
            escape(e.row.text),
            escape(e.row.opcode),
            escape(&e.features()),
            escape(state)
        );
        for totals in &e.scores {
            page.push_str(&cell(*totals));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></details>\n");
}
