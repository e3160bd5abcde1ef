//! The guest's serial output: collected byte by byte, written by a thread of its own in pieces as large as they come.

use super::session::{Cause, Stopper};
use crate::console::terminal::say;
use egret_hypervisor::options::Serial;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Bytes that may wait; a guest that writes faster than the host reads waits itself.
const LIMIT: usize = 1 << 20;

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// No more will come.
    closed: bool,
    /// The writer has gone: bytes are dropped.
    broken: bool,
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's end of a serial port's output.
pub struct Output {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Output {
    /// Opens the output of a serial port. When it cannot be written any more, `stopper` stops the machine.
    pub fn open(serial: &Serial, stopper: &Stopper) -> io::Result<Output> {
        let named = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let target: Option<Box<dyn Write + Send>> = match serial {
            Serial::Stdio => Some(Box::new(io::stdout())),
            Serial::File(path) => Some(Box::new(File::create(path).map_err(|e| named(path, e))?)),
            Serial::None => None,
        };
        let Some(target) = target else { return Ok(Output { shared: Arc::default(), writer: None }) };
        let file = matches!(serial, Serial::File(_));
        let stopper = stopper.clone();
        Output::to(target, move |e| {
            // A closed pipe is how `egret run | head` ends: no message.
            if file || e.kind() != io::ErrorKind::BrokenPipe {
                say(&format!("the serial output cannot be written: {e}"));
            }
            stopper.stop(Cause::OutputClosed);
        })
    }

    fn to(mut target: Box<dyn Write + Send>, failed: impl FnOnce(io::Error) + Send + 'static) -> io::Result<Output> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let write = move || {
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                {
                    let mut buffer = theirs.lock();
                    while buffer.bytes.is_empty() {
                        if buffer.closed {
                            return;
                        }
                        buffer = theirs.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner);
                    }
                    std::mem::swap(&mut bytes, &mut buffer.bytes);
                }
                theirs.changed.notify_all();
                if let Err(e) = target.write_all(&bytes).and_then(|()| target.flush()) {
                    theirs.lock().broken = true;
                    theirs.changed.notify_all();
                    return failed(e);
                }
            }
        };
        let writer = std::thread::Builder::new().name("serial-output".into()).spawn(write)?;
        Ok(Output { shared, writer: Some(writer) })
    }

    /// What the serial port sends its bytes to.
    #[must_use]
    pub fn sink(&self) -> Box<dyn FnMut(u8) + Send> {
        if self.writer.is_none() {
            return Box::new(|_| {});
        }
        let shared = Arc::clone(&self.shared);
        Box::new(move |byte| {
            let mut buffer = shared.lock();
            while buffer.bytes.len() >= LIMIT && !buffer.broken {
                buffer = shared.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner);
            }
            if !buffer.broken {
                buffer.bytes.push(byte);
                if buffer.bytes.len() == 1 {
                    shared.changed.notify_all();
                }
            }
        })
    }

    /// Waits until everything is written.
    pub fn finish(mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Slow(mpsc::Sender<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(1000);
            for b in &bytes[..n] {
                self.0.send(*b).map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_byte_arrives_in_order() {
        let (send, receive) = mpsc::channel();
        let output = Output::to(Box::new(Slow(send)), |e| panic!("{e}")).unwrap();
        let mut sink = output.sink();
        let count = 3 * LIMIT;
        (0..count).for_each(|n| sink(n as u8));
        output.finish();
        let got: Vec<u8> = receive.try_iter().collect();
        assert!(got.len() == count && got.iter().enumerate().all(|(n, b)| *b == n as u8), "{} bytes", got.len());
    }

    #[test]
    fn a_closed_output_is_told_once_and_blocks_nobody() {
        let (send, receive) = mpsc::channel();
        drop(receive);
        let (told, tell) = mpsc::channel();
        let output = Output::to(Box::new(Slow(send)), move |e| told.send(e.kind()).unwrap()).unwrap();
        let mut sink = output.sink();
        (0..3 * LIMIT).for_each(|n| sink(n as u8));
        output.finish();
        assert_eq!(tell.iter().collect::<Vec<_>>(), [io::ErrorKind::BrokenPipe]);
    }
}
