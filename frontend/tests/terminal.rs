//! The console on a (pseudo-)terminal: keys, signals, and the terminal as it was on every way out.
#![cfg(unix)]

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// `egret` on a terminal of its own.
struct Console {
    child: Child,
    keyboard: File,
    terminal: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Console {
    fn start(args: &[&str]) -> Console {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let end = || terminal.try_clone().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        let child = command.args(args).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Console { child, keyboard, terminal, screen, seen: String::new() }
    }

    /// Whether the terminal is in raw mode.
    fn raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits until `text` shows behind what was waited for before.
    fn expect(&mut self, text: &str) {
        let begin = Instant::now();
        while !self.seen.contains(text) {
            assert!(begin.elapsed() < PATIENCE, "no {text:?} in {:?}", self.seen);
            if let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(50)) {
                self.seen += &String::from_utf8_lossy(&bytes);
            }
        }
        self.seen = self.seen.split_once(text).unwrap().1.to_owned();
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn exit_code(mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(!self.raw(), "the terminal is left raw");
                return status.code();
            }
            assert!(begin.elapsed() < PATIENCE, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Only a failed test leaves a child behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn at_the_prompt(args: &[&str]) -> Console {
    let mut console = Console::start(args);
    console.expect("Ctrl-A X quits");
    console.expect(egret_guests::os::PROMPT);
    assert!(console.raw());
    console
}

#[test]
fn keys_reach_the_guest_and_ctrl_a_x_quits() {
    let mut console = at_the_prompt(&[]);
    console.press("hel\x03\x01\x01");
    console.press("\r");
    console.expect(egret_guests::os::PROMPT);
    console.press("\x01h");
    console.expect("\r\negret: Ctrl-A Ctrl-A  send a Ctrl-A to the guest\r\n");
    console.press("\x01x");
    assert_eq!(console.exit_code(), Some(0));
}

#[test]
fn the_terminal_is_restored_after_power_off_timeout_and_signal() {
    let mut console = at_the_prompt(&["run"]);
    console.press("off\r");
    assert_eq!(console.exit_code(), Some(0));

    let console = at_the_prompt(&["run", "--timeout", "2"]);
    assert_eq!(console.exit_code(), Some(4));

    for signal in [Signal::TERM, Signal::INT] {
        let console = at_the_prompt(&["run"]);
        kill_process(Pid::from_child(&console.child), signal).unwrap();
        assert_eq!(console.exit_code(), Some(130), "{signal:?}");
    }
}

#[test]
fn without_a_serial_console_the_terminal_is_left_alone() {
    let console = Console::start(&["run", "--serial", "none", "--timeout", "1"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!console.raw());
    assert_eq!(console.exit_code(), Some(4));
}
