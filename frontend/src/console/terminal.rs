//! Raw mode, and the way back from it on every path: end, error, panic, signal.

use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static RAW: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// Raw mode for as long as it lives.
pub struct RawMode(());

impl RawMode {
    /// Puts the terminal of standard input into raw mode.
    pub fn enter() -> io::Result<RawMode> {
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                previous(info);
            }));
        });
        crossterm::terminal::enable_raw_mode()?;
        RAW.store(true, Ordering::SeqCst);
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves raw mode if it is on. May be called at any time from any thread.
pub fn restore() {
    if RAW.swap(false, Ordering::SeqCst) {
        // Guests leave colours and a hidden cursor behind.
        let _ = io::stdout().write_all(b"\x1b[0m\x1b[?25h");
        let _ = io::stdout().flush();
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// Writes a line to standard error as it is, for programs to read.
pub fn line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes lines of Egret's own to standard error, prefixed; correct in raw mode too.
pub fn say(text: &str) {
    let raw = RAW.load(Ordering::SeqCst);
    // The guest may have left the cursor anywhere.
    let mut out = String::from(if raw { "\r\n" } else { "" });
    for line in text.lines() {
        out.push_str("egret: ");
        out.extend(line.chars().map(|c| if c.is_control() { '?' } else { c }));
        out.push_str(if raw { "\r\n" } else { "\n" });
    }
    // Nobody is left to tell when standard error is gone.
    let _ = io::stderr().write_all(out.as_bytes());
}
