//! What a PS/2 device has to send: responses first, then its own data.

use std::collections::VecDeque;

/// Bytes on their way to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    responses: VecDeque<u8>,
    /// Scan codes or movement; the device bounds it.
    pub data: VecDeque<u8>,
    last: u8,
}

impl Queue {
    /// A response to a command. It replaces what was left of the one before.
    pub fn respond(&mut self, response: &[u8]) {
        if !response.is_empty() {
            self.responses.clear();
            self.responses.extend(response);
        }
    }

    /// The last byte comes again.
    pub fn resend(&mut self) {
        self.responses.clear();
        self.responses.push_back(self.last);
    }

    pub fn is_empty(&self) -> bool {
        self.responses.is_empty() && self.data.is_empty()
    }

    pub fn take(&mut self) -> Option<u8> {
        let byte = self.responses.pop_front().or_else(|| self.data.pop_front())?;
        self.last = byte;
        Some(byte)
    }
}
