//! The thread that reads standard input.

use super::escape::{Escape, Request};
use std::io::{self, IsTerminal, Read};

/// Where input goes.
pub trait Sink: Send + 'static {
    /// Bytes for the guest. Returns false when no more are wanted. Blocks while the guest does not keep up.
    fn bytes(&mut self, bytes: &[u8]) -> bool;
    /// A request to Egret, from a terminal only.
    fn request(&mut self, request: Request);
    /// Input has ended.
    fn ended(&mut self);
}

/// Starts reading standard input into `sink`, on a thread that lives as long as the process. On a terminal, which
/// must be in raw mode by now, Ctrl-A is the escape key; other input is the guest's, byte for byte.
pub fn start(sink: impl Sink) -> io::Result<()> {
    let terminal = io::stdin().is_terminal();
    let pump = move || if terminal { from_terminal(sink) } else { from_pipe(sink) };
    std::thread::Builder::new().name("console-input".into()).spawn(pump).map(drop)
}

fn from_pipe(mut sink: impl Sink) {
    read_all(|bytes| sink.bytes(bytes));
    sink.ended();
}

/// Calls `each` with what comes until the end, an error, or `each` returns false.
fn read_all(mut each: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 4096];
    let mut stdin = io::stdin().lock();
    loop {
        match stdin.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(n) if !each(&buffer[..n]) => return,
            Ok(_) => {}
        }
    }
}

fn take(escape: &mut Escape, sink: &mut impl Sink, bytes: &[u8]) -> bool {
    let mut guest = Vec::new();
    for request in escape.feed(bytes, &mut guest) {
        sink.request(request);
    }
    guest.is_empty() || sink.bytes(&guest)
}

#[cfg(not(windows))]
fn from_terminal(mut sink: impl Sink) {
    let mut escape = Escape::default();
    read_all(|bytes| take(&mut escape, &mut sink, bytes));
    sink.ended();
}

#[cfg(windows)]
fn from_terminal(mut sink: impl Sink) {
    use crossterm::event::{Event, KeyEventKind, read};
    let mut escape = Escape::default();
    while let Ok(event) = read() {
        let mut bytes = Vec::new();
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => super::keys::encode(key.code, key.modifiers, &mut bytes),
            Event::Paste(text) => bytes.extend(text.bytes()),
            _ => {}
        }
        if !take(&mut escape, &mut sink, &bytes) {
            break;
        }
    }
    sink.ended();
}
