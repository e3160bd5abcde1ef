//! Progress bars on standard error, when it is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// A bar, or nothing where nobody looks.
pub struct Progress(ProgressBar);

impl Progress {
    fn target() -> ProgressDrawTarget {
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() }
    }

    fn styled(bar: ProgressBar, template: &str, what: &str) -> Progress {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Progress(bar)
    }

    /// A bar over bytes, of a total that may turn out later.
    #[must_use]
    pub fn bytes(what: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(None, Self::target());
        Self::styled(bar, "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}", what)
    }

    /// A count of things with their rate.
    #[must_use]
    pub fn count(what: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(None, Self::target());
        Self::styled(bar, "{spinner} {human_pos} {msg} {per_sec}", what)
    }

    /// Sets how far it has come; a `total` of 0 is unknown.
    pub fn set(&self, done: u64, total: u64) {
        if total != 0 {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    /// Changes the text.
    pub fn message(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
