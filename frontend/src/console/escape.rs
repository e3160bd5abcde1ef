//! The escape key, Ctrl-A, in a stream of console input.

const CTRL_A: u8 = 1;

/// What the user asks of Egret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Turn the machine off.
    Quit,
    /// Show the keys.
    Help,
}

/// Splits input into what is the guest's and what is ours.
#[derive(Debug, Default)]
pub struct Escape {
    /// Ctrl-A was the last byte.
    armed: bool,
}

impl Escape {
    /// Takes input bytes; the guest's go to `guest`. Returns the requests among them.
    pub fn feed(&mut self, input: &[u8], guest: &mut Vec<u8>) -> Vec<Request> {
        let mut requests = Vec::new();
        for &byte in input {
            if !self.armed {
                if byte == CTRL_A {
                    self.armed = true;
                } else {
                    guest.push(byte);
                }
                continue;
            }
            self.armed = false;
            match byte {
                b'x' | b'X' => requests.push(Request::Quit),
                CTRL_A => guest.push(CTRL_A),
                // Any other key was a slip: tell the keys.
                _ => requests.push(Request::Help),
            }
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        for (input, guest, requests) in [
            (&["ab\x03\r"][..], "ab\x03\r", &[][..]),
            (&["a\x01xb"], "ab", &[Request::Quit]),
            (&["a\x01", "X"], "a", &[Request::Quit]),
            (&["\x01\x01"], "\x01", &[]),
            (&["\x01", "\x01", "x"], "\x01x", &[]),
            (&["\x01h\x01?q"], "q", &[Request::Help, Request::Help]),
            (&["\x01"], "", &[]),
        ] {
            let (mut escape, mut got, mut all) = (Escape::default(), Vec::new(), Vec::new());
            for part in input {
                all.extend(escape.feed(part.as_bytes(), &mut got));
            }
            assert_eq!((got.as_slice(), all.as_slice()), (guest.as_bytes(), requests), "{input:?}");
        }
    }
}
