//! Known exceptions: vectors that Egret fails on purpose, each with its reason, as `tests/KNOWN.md` lists them. They show as
//! known in the score, neither as passed nor as failed.

use super::vector::Vector;
use std::collections::BTreeMap;

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(BTreeMap<(String, String), String>);

impl Known {
    /// Most rows: a longer list hides what it should show.
    const MOST: usize = 10;

    /// Reads the rows `| file | test | reason |` of a Markdown table: the file's name without folders and packing, the test's
    /// name, why it fails. An error is one line.
    pub fn parse(text: &str) -> Result<Known, String> {
        let mut known = Known::default();
        for (n, line) in text.lines().enumerate().filter(|(_, l)| l.starts_with('|')) {
            let cells: Vec<&str> = line.trim_end().trim_matches('|').split('|').map(|c| c.trim().trim_matches('`')).collect();
            match cells[..] {
                [file, name, reason] if [file, name, reason].iter().all(|c| !c.is_empty()) => {
                    let rule = file.bytes().all(|b| matches!(b, b'-' | b':'));
                    if !rule && file != "file" {
                        known.0.insert((file.to_owned(), name.to_owned()), reason.to_owned());
                    }
                }
                _ => return Err(format!("line {}: not a row of file, test and reason", n + 1)),
            }
        }
        if known.0.len() >= Self::MOST {
            return Err(format!("{} known exceptions: there must be less than {}", known.0.len(), Self::MOST));
        }
        Ok(known)
    }

    /// Why this vector may fail.
    #[must_use]
    pub fn reason(&self, vector: &Vector) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let file = vector.place.file.rsplit(['/', '\\', ':']).next().unwrap_or_default();
        let file = file.strip_suffix(".gz").or_else(|| file.strip_suffix(".xz")).unwrap_or(file);
        self.0.get(&(file.to_owned(), vector.name.clone())).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::jsonl;

    #[test]
    fn rows_name_file_test_and_reason() {
        let text = "# Head\n\n| file | test | reason |\n|---|:-:|---|\n| `D4.MOO` | `aam 00h` | the chip says so |\n";
        let known = Known::parse(text).unwrap();
        let line = r#"{"name": "aam 00h", "mode": "64", "code": "90", "stop": "hlt", "want": {}}"#;
        let at = |file: &str| jsonl::Reader::new(line.as_bytes(), &file.into(), 0).next().unwrap().unwrap();
        for (file, found) in [("D4.MOO", true), ("a/x.tar.xz:v1/D4.MOO.gz", true), ("D5.MOO", false), ("xD4.MOO", false)] {
            assert_eq!(known.reason(&at(file)), found.then_some("the chip says so"), "{file}");
        }
    }

    #[test]
    fn mistakes() {
        assert_eq!(Known::parse("| a | b |"), Err("line 1: not a row of file, test and reason".into()));
        let many: String = (0..10).map(|n| format!("| f | t{n} | r |\n")).collect();
        assert!(Known::parse(&many).unwrap_err().contains("less than 10"));
    }

    #[test]
    fn the_list_of_this_repository() {
        Known::parse(include_str!("../../../tests/KNOWN.md")).unwrap();
    }
}
