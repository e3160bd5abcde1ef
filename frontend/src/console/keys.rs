//! Keys as the bytes that a VT terminal sends for them. Unix terminals send the bytes themselves; Windows consoles send keys.

use crossterm::event::{KeyCode, KeyModifiers};

/// Appends the bytes of a key press; keys that a VT terminal does not have send nothing.
pub fn encode(code: KeyCode, modifiers: KeyModifiers, out: &mut Vec<u8>) {
    if modifiers.contains(KeyModifiers::ALT) {
        out.push(0x1b);
    }
    match code {
        KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) && c.is_ascii() => out.extend(control(c)),
        KeyCode::Char(c) => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        KeyCode::Enter => out.push(b'\r'),
        KeyCode::Tab => out.push(b'\t'),
        KeyCode::Backspace => out.push(0x7f),
        KeyCode::Esc => out.push(0x1b),
        _ => out.extend_from_slice(sequence(code)),
    }
}

/// Ctrl with an ASCII character: ECMA-48 C0 set.
fn control(c: char) -> Option<u8> {
    match c.to_ascii_uppercase() {
        c @ '@'..='_' => Some(c as u8 & 0x1f),
        ' ' | '2' => Some(0),
        '?' => Some(0x7f),
        _ => None,
    }
}

/// Cursor and function keys as xterm sends them.
fn sequence(code: KeyCode) -> &'static [u8] {
    const FUNCTION: [&[u8]; 12] = [
        b"\x1bOP",
        b"\x1bOQ",
        b"\x1bOR",
        b"\x1bOS",
        b"\x1b[15~",
        b"\x1b[17~",
        b"\x1b[18~",
        b"\x1b[19~",
        b"\x1b[20~",
        b"\x1b[21~",
        b"\x1b[23~",
        b"\x1b[24~",
    ];
    match code {
        KeyCode::Up => b"\x1b[A",
        KeyCode::Down => b"\x1b[B",
        KeyCode::Right => b"\x1b[C",
        KeyCode::Left => b"\x1b[D",
        KeyCode::Home => b"\x1b[H",
        KeyCode::End => b"\x1b[F",
        KeyCode::Insert => b"\x1b[2~",
        KeyCode::Delete => b"\x1b[3~",
        KeyCode::PageUp => b"\x1b[5~",
        KeyCode::PageDown => b"\x1b[6~",
        KeyCode::BackTab => b"\x1b[Z",
        KeyCode::F(n) => FUNCTION.get(usize::from(n).wrapping_sub(1)).copied().unwrap_or_default(),
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        const C: KeyModifiers = KeyModifiers::CONTROL;
        const N: KeyModifiers = KeyModifiers::NONE;
        for (code, modifiers, want) in [
            (KeyCode::Char('a'), N, &b"a"[..]),
            (KeyCode::Char('A'), KeyModifiers::SHIFT, b"A"),
            (KeyCode::Char('a'), C, b"\x01"),
            (KeyCode::Char('['), C, b"\x1b"),
            (KeyCode::Char(' '), C, b"\0"),
            (KeyCode::Char('5'), C, b""),
            (KeyCode::Char('x'), KeyModifiers::ALT, b"\x1bx"),
            (KeyCode::Char('é'), N, "é".as_bytes()),
            (KeyCode::Enter, N, b"\r"),
            (KeyCode::Backspace, N, b"\x7f"),
            (KeyCode::Up, N, b"\x1b[A"),
            (KeyCode::F(1), N, b"\x1bOP"),
            (KeyCode::F(12), N, b"\x1b[24~"),
            (KeyCode::F(13), N, b""),
            (KeyCode::F(0), N, b""),
            (KeyCode::CapsLock, N, b""),
        ] {
            let mut got = Vec::new();
            encode(code, modifiers, &mut got);
            assert_eq!(got, want, "{code:?} {modifiers:?}");
        }
    }
}
