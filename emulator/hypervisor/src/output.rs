//! The output of several machines on one terminal: whole lines with the machine's name before them, prompts (lines
//! without an end) shown after a short delay, and no control sequence that could move another machine's text.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Which of a process' two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output: the guest's console.
    Out,
    /// Standard error: Egret's own words.
    Err,
}

/// Longest line before it is cut.
const LINE_LIMIT: usize = 4096;
/// Longest colour sequence that is let through.
const SEQUENCE_LIMIT: usize = 32;
const SGR_RESET: &[u8] = b"\x1b[0m";

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    /// After ESC, and after ESC with intermediate bytes.
    Escape,
    /// In a control sequence (ECMA-48, "CSI").
    Csi,
    /// In a string (OSC, DCS, …) that BEL or ST ends; the flag says that ESC was the last byte.
    Text(bool),
    /// After C2h, the first byte of a C1 control in UTF-8.
    C2,
}

/// Lets text, tabs, line ends and colours through and drops every other control.
struct Scrubber {
    state: State,
    sequence: Vec<u8>,
    coloured: bool,
}

impl Scrubber {
    fn feed(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Ground => match byte {
                0x1b => self.state = State::Escape,
                0xc2 => self.state = State::C2,
                b'\t' | 0x20..=0x7e | 0x80.. => out.push(byte),
                _ => {}
            },
            State::C2 => {
                self.state = State::Ground;
                if !(0x80..=0x9f).contains(&byte) {
                    out.push(0xc2);
                    self.feed(byte, out);
                }
            }
            State::Escape => match byte {
                b'[' => {
                    self.sequence.clear();
                    self.state = State::Csi;
                }
                b']' | b'P' | b'X' | b'^' | b'_' => self.state = State::Text(false),
                0x20..=0x2f => {}
                _ => self.state = State::Ground,
            },
            State::Csi => match byte {
                b'm' => {
                    self.state = State::Ground;
                    if self.sequence.len() < SEQUENCE_LIMIT {
                        self.coloured = !matches!(self.sequence.as_slice(), b"" | b"0");
                        out.extend_from_slice(b"\x1b[");
                        out.extend_from_slice(&self.sequence);
                        out.push(b'm');
                    }
                }
                b'0'..=b'9' | b';' | b':' => {
                    if self.sequence.len() < SEQUENCE_LIMIT {
                        self.sequence.push(byte);
                    }
                }
                // Private parameters and intermediates: no colour, whatever the end.
                0x20..=0x3f => self.sequence.resize(SEQUENCE_LIMIT, 0),
                _ => self.state = State::Ground,
            },
            State::Text(after_escape) => {
                self.state = match byte {
                    0x07 => State::Ground,
                    b'\\' if after_escape => State::Ground,
                    _ => State::Text(byte == 0x1b),
                }
            }
        }
    }
}

struct Half {
    scrubber: Scrubber,
    /// The unfinished line.
    line: Vec<u8>,
    /// When the oldest byte of `line` came.
    since: Option<Instant>,
}

impl Half {
    fn new() -> Half {
        Half { scrubber: Scrubber { state: State::Ground, sequence: Vec::new(), coloured: false }, line: Vec::new(), since: None }
    }
}

struct Source {
    prefix: Vec<u8>,
    halves: [Half; 2],
}

/// Merges the output of several machines into one pair of outputs.
pub struct Merger<O, E> {
    out: O,
    err: E,
    sources: Vec<Source>,
    delay: Duration,
    /// The source and stream whose unfinished line the cursor stands in.
    open: Option<(usize, Stream)>,
}

impl<O: Write, E: Write> Merger<O, E> {
    /// A merger for machines called `names`; unfinished lines are shown after `delay`. `colour` paints the names.
    pub fn new(names: &[&str], out: O, err: E, delay: Duration, colour: bool) -> Merger<O, E> {
        let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        let prefix = |(i, name): (usize, &&str)| {
            let text = format!("{name:width$} | ");
            let text = if colour { format!("\x1b[{}m{text}\x1b[0m", 31 + i % 6) } else { text };
            Source { prefix: text.into_bytes(), halves: [Half::new(), Half::new()] }
        };
        Merger { out, err, sources: names.iter().enumerate().map(prefix).collect(), delay, open: None }
    }

    /// Takes bytes of machine number `id`.
    pub fn feed(&mut self, id: usize, stream: Stream, bytes: &[u8], now: Instant) -> io::Result<()> {
        for &byte in bytes {
            let Some(source) = self.sources.get_mut(id) else { return Ok(()) };
            let half = &mut source.halves[stream as usize];
            if byte == b'\n' {
                half.scrubber.state = State::Ground;
                self.show(id, stream, true)?;
            } else {
                half.scrubber.feed(byte, &mut half.line);
                if half.line.len() >= LINE_LIMIT {
                    self.show(id, stream, true)?;
                } else if half.since.is_none() && !half.line.is_empty() {
                    half.since = Some(now);
                }
            }
        }
        self.flush()
    }

    /// Shows the unfinished lines that are older than the delay.
    pub fn tick(&mut self, now: Instant) -> io::Result<()> {
        for id in 0..self.sources.len() {
            for stream in [Stream::Out, Stream::Err] {
                let since = self.sources[id].halves[stream as usize].since;
                if since.is_some_and(|since| now.saturating_duration_since(since) >= self.delay) {
                    self.show(id, stream, false)?;
                }
            }
        }
        self.flush()
    }

    /// Ends the lines of a machine that will say no more.
    pub fn finish(&mut self, id: usize) -> io::Result<()> {
        for stream in [Stream::Out, Stream::Err] {
            if self.open == Some((id, stream)) || !self.sources[id].halves[stream as usize].line.is_empty() {
                self.show(id, stream, true)?;
            }
        }
        self.flush()
    }

    fn show(&mut self, id: usize, stream: Stream, ends: bool) -> io::Result<()> {
        let half = &mut self.sources[id].halves[stream as usize];
        let line = std::mem::take(&mut half.line);
        half.since = None;
        let reset = std::mem::take(&mut half.scrubber.coloured);
        if self.open.is_some_and(|open| open != (id, stream)) {
            self.end_line()?;
        }
        let started = self.open.is_some();
        let out: &mut dyn Write = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        if !started {
            out.write_all(&self.sources[id].prefix)?;
        }
        out.write_all(&line)?;
        if reset {
            out.write_all(SGR_RESET)?;
        }
        self.open = Some((id, stream));
        if ends { self.end_line() } else { Ok(()) }
    }

    fn end_line(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((_, Stream::Out)) => self.out.write_all(b"\n"),
            Some((_, Stream::Err)) => self.err.write_all(b"\n"),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    /// Feeds rows of (milliseconds, machine, stream, bytes); a row without bytes is a tick.
    fn merged(rows: &[(u64, usize, Stream, &str)]) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let start = Instant::now();
        let mut merger = Merger::new(&["a", "bee"], &mut out, &mut err, DELAY, false);
        for &(ms, id, stream, text) in rows {
            let now = start + Duration::from_millis(ms);
            if text.is_empty() { merger.tick(now).unwrap() } else { merger.feed(id, stream, text.as_bytes(), now).unwrap() }
        }
        merger.finish(0).unwrap();
        merger.finish(1).unwrap();
        drop(merger);
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    use Stream::{Err as E, Out as O};

    #[test]
    fn lines_are_whole_and_prefixed() {
        let (out, err) = merged(&[(0, 0, O, "one\r\nt"), (1, 1, O, "other\n"), (2, 0, O, "wo\n"), (3, 1, E, "oops\n")]);
        assert_eq!(out, "a   | one\nbee | other\na   | two\n");
        assert_eq!(err, "bee | oops\n");
    }

    #[test]
    fn a_prompt_is_shown_after_the_delay_and_goes_on_in_its_line() {
        let (out, _) = merged(&[(0, 0, O, "/ # "), (99, 0, O, ""), (100, 0, O, ""), (200, 0, O, "ls\n"), (201, 0, O, "bin\n")]);
        assert_eq!(out, "a   | / # ls\na   | bin\n");
    }

    #[test]
    fn another_machine_ends_the_open_line() {
        let (out, err) = merged(&[
            (0, 0, O, "/ # "),
            (100, 0, O, ""),
            (150, 1, O, "hi\n"),
            (160, 0, O, "x\n"),
            (170, 0, O, "y"),
            (300, 0, O, ""),
            (301, 1, E, "e\n"),
        ]);
        assert_eq!(out, "a   | / # \nbee | hi\na   | x\na   | y\n");
        assert_eq!(err, "bee | e\n");
    }

    #[test]
    fn a_shown_prompt_is_not_shown_twice() {
        let (out, _) = merged(&[(0, 0, O, "$ "), (100, 0, O, ""), (500, 0, O, ""), (900, 0, O, "")]);
        assert_eq!(out, "a   | $ \n");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = "x".repeat(LINE_LIMIT + 10);
        let (out, _) = merged(&[(0, 0, O, &long)]);
        assert_eq!(out, format!("a   | {}\na   | {}\n", "x".repeat(LINE_LIMIT), "x".repeat(10)));
    }

    #[test]
    fn controls_are_dropped_and_colours_closed() {
        for (text, want) in [
            ("\x1b[2J\x1b[1;1Hx\n", "x"),
            ("\x1b]0;title\x07x\n", "x"),
            ("\x1b]0;title\x1b\\x\n", "x"),
            ("a\x08\x07b\x0c\n", "ab"),
            ("\x1b(Bx\x1b7\n", "x"),
            ("\x1b[1;31mred\n", "\x1b[1;31mred\x1b[0m"),
            ("\x1b[31mred\x1b[0m!\n", "\x1b[31mred\x1b[0m!"),
            ("\x1b[?25lx\x1b[>1mz\n", "xz"),
            ("\u{9b}2Jx\n", "2Jx"),
            ("caf\u{e9} \u{a3}\n", "caf\u{e9} \u{a3}"),
            ("tab\there\n", "tab\there"),
        ] {
            let (out, _) = merged(&[(0, 0, O, text)]);
            assert_eq!(out, format!("a   | {want}\n"), "{text:?}");
        }
    }
}
