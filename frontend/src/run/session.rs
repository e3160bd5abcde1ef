//! What can end a machine from outside: the user's keys, signals, the timeout, a closed output. And the console between.

use crate::console::escape::Request;
use crate::console::input::{self, Sink};
use crate::console::terminal::{RawMode, restore, say};
use crate::console::{HELP, HINT};
use egret_hypervisor::exit::ExitCode;
use egret_hypervisor::options::Serial;
use egret_machine::Control;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a machine may take to stop before the process ends without it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before offering input again to a guest that does not keep up.
const INPUT_PAUSE: Duration = Duration::from_millis(5);

/// Why the machine was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// It was not.
    None,
    /// Ctrl-A X.
    Quit,
    /// `--timeout`.
    Timeout,
    /// Ctrl-C, SIGTERM, SIGHUP.
    Signal,
    /// Standard output was closed, or a serial file cannot be written.
    OutputClosed,
    /// Standard input ended, under `--stop-on-eof`.
    InputEnded,
}

impl Cause {
    const ALL: [Cause; 6] = [Cause::None, Cause::Quit, Cause::Timeout, Cause::Signal, Cause::OutputClosed, Cause::InputEnded];

    /// The exit code of a machine stopped so.
    #[must_use]
    pub fn code(self) -> ExitCode {
        match self {
            Cause::None => ExitCode::Internal,
            Cause::Quit => ExitCode::Ok,
            Cause::Timeout => ExitCode::Timeout,
            Cause::Signal | Cause::OutputClosed | Cause::InputEnded => ExitCode::Interrupted,
        }
    }
}

/// A handle that stops the machine once, for the first cause.
#[derive(Clone, Default)]
pub struct Stopper {
    /// The machine, once there is one.
    control: Arc<OnceLock<Control>>,
    cause: Arc<AtomicU8>,
}

impl Stopper {
    /// A stopper of a machine that is still to come.
    #[must_use]
    pub fn new() -> Stopper {
        Stopper { control: Arc::default(), cause: Arc::new(AtomicU8::new(Cause::None as u8)) }
    }

    /// Names the machine.
    pub fn attach(&self, control: Control) {
        let control = self.control.get_or_init(|| control);
        if self.cause() != Cause::None {
            control.stop();
        }
    }

    /// Asks for the stop; when the machine does not heed it for long, ends the process.
    pub fn stop(&self, cause: Cause) {
        let first = self.cause.compare_exchange(Cause::None as u8, cause as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if let Some(control) = self.control.get() {
            control.stop();
        }
        if first {
            std::thread::spawn(move || {
                std::thread::sleep(PATIENCE);
                restore();
                say("the machine does not stop; ending without it");
                std::process::exit(i32::from(cause.code() as u8));
            });
        }
    }

    /// Why the machine was stopped.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause::ALL[usize::from(self.cause.load(Ordering::SeqCst)).min(Cause::ALL.len() - 1)]
    }
}

/// Gives the guest the console for as long as it lives.
pub struct Session(Option<RawMode>);

impl Session {
    /// Takes over signals, starts the timeout and the console's input.
    pub fn start(stopper: &Stopper, serial: &Serial, timeout: Option<Duration>, stop_on_eof: bool) -> io::Result<Session> {
        let on_signal = stopper.clone();
        let handler = move || {
            if on_signal.cause() != Cause::None {
                restore();
                std::process::exit(i32::from(Cause::Signal.code() as u8));
            }
            on_signal.stop(Cause::Signal);
        };
        ctrlc::set_handler(handler).map_err(io::Error::other)?;
        if let Some(timeout) = timeout {
            let stopper = stopper.clone();
            std::thread::spawn(move || {
                std::thread::sleep(timeout);
                stopper.stop(Cause::Timeout);
            });
        }
        let console = *serial == Serial::Stdio;
        let mut raw = None;
        if console && io::stdin().is_terminal() {
            say(HINT.trim_start_matches("egret: "));
            raw = Some(RawMode::enter()?);
        }
        if console || stop_on_eof {
            input::start(Keyboard { stopper: stopper.clone(), console, stop_on_eof })?;
        }
        Ok(Session(raw))
    }

    /// Whether the terminal is in raw mode.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.0.is_some()
    }
}

struct Keyboard {
    stopper: Stopper,
    /// The guest gets the bytes.
    console: bool,
    stop_on_eof: bool,
}

impl Sink for Keyboard {
    fn bytes(&mut self, mut bytes: &[u8]) -> bool {
        while self.console && !bytes.is_empty() {
            let control = self.stopper.control.get();
            let taken = control.map_or(0, |c| c.push_input(bytes));
            bytes = bytes.get(taken..).unwrap_or_default();
            if !bytes.is_empty() {
                if control.is_some_and(Control::stopped) {
                    return false;
                }
                std::thread::sleep(INPUT_PAUSE);
            }
        }
        true
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Quit => self.stopper.stop(Cause::Quit),
            Request::Help => say(HELP),
        }
    }

    fn ended(&mut self) {
        if self.stop_on_eof {
            self.stopper.stop(Cause::InputEnded);
        }
    }
}
