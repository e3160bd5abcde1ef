//! The host's terminal as the guest's console.

pub mod escape;
pub mod input;
pub mod keys;
pub mod terminal;

/// Shown when the guest gets the keyboard.
pub const HINT: &str = "egret: the guest has the keyboard. Ctrl-A X quits, Ctrl-A H helps.";
/// Shown on Ctrl-A H.
pub const HELP: &str = "\
Ctrl-A X       quit: the machine is turned off
Ctrl-A H       this help
Ctrl-A Ctrl-A  send a Ctrl-A to the guest
All other keys go to the guest, Ctrl-C among them.";
