//! Text from elsewhere (an application's output, its last words, its status) as it is shown to
//! people: nothing in it can drive a terminal or turn the direction of writing. The one place that
//! knows which characters could.
//!
//! Control characters are shown as `\x1b`, marks of writing direction as `\u{202e}`. Nothing is
//! left out.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Must this character not reach a terminal? Control characters but the tab, and marks that turn
/// the direction of writing.
fn is_unsafe(c: char) -> bool {
    let turns = matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && c != '\t'
}

/// On one line: a newline is escaped, too.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// The same over several lines.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_unsafe(c))
}

/// JSON stays what it was: in its texts the same characters are written as `\uXXXX`.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Those of ASCII are escaped already, but for this one.
    let must = |c: char| c >= '\u{7f}' && is_unsafe(c);
    if !text.contains(must) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match must(c) {
            true => _ = write!(shown, "\\u{:04x}", u32::from(c)),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

fn escaped(text: &str, must: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&must) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match u32::from(c) {
            _ if !must(c) => shown.push(c),
            code @ ..0x100 => _ = write!(shown, "\\x{code:02x}"),
            code => _ = write!(shown, "\\u{{{code:x}}}"),
        }
    }
    Cow::Owned(shown)
}

/// The same for bytes that come in pieces: a character may be cut in two between them, and what is
/// no text is shown as `\xff`.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The beginning of a character whose end is still to come.
    begun: Vec<u8>,
}

impl Pieces {
    /// What can be shown of it by now.
    pub fn add(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(piece);
        let mut shown = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            shown.push_str(&lines(chunk.valid()));
            let invalid = chunk.invalid();
            let may_go_on = chunks.peek().is_none()
                && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
            match may_go_on {
                true => self.begun = invalid.to_vec(),
                false => as_bytes(invalid, &mut shown),
            }
        }
        shown
    }

    /// What was begun and never ended.
    pub fn rest(&mut self) -> String {
        let mut shown = String::new();
        as_bytes(&std::mem::take(&mut self.begun), &mut shown);
        shown
    }
}

fn as_bytes(bytes: &[u8], shown: &mut String) {
    for byte in bytes {
        _ = write!(shown, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_drives_a_terminal_is_left() {
        assert_eq!(
            line("a\u{1b}]0;t\u{7}\nb\r\tc\u{9b}2J\u{7f}"),
            "a\\x1b]0;t\\x07\\x0ab\\x0d\tc\\x9b2J\\x7f"
        );
        assert_eq!(lines("a\n\u{1b}[2Jb\n"), "a\n\\x1b[2Jb\n");
        assert_eq!(
            line("a\u{202e}b\u{2066}\u{61c}\u{200f}"),
            "a\\u{202e}b\\u{2066}\\u{61c}\\u{200f}"
        );
        for plain in ["plain é", "שלום", "日本 👩\u{200d}💻"] {
            assert!(matches!(line(plain), Cow::Borrowed(_)), "{plain}");
        }
    }

    #[test]
    fn json_means_the_same() {
        let text = "a\u{202e}b\u{9b}\u{1b}\u{7f}é";
        let json_text = serde_json::to_string(text).unwrap();
        let shown = json(&json_text);
        assert!(!shown.chars().any(is_unsafe), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }

    #[test]
    fn characters_that_are_cut_in_two_are_whole_again() {
        let text = "é\u{202e}日\u{1b}x\n".as_bytes();
        for cut in 0..=text.len() {
            let mut pieces = Pieces::default();
            let shown = pieces.add(&text[..cut]) + &pieces.add(&text[cut..]) + &pieces.rest();
            assert_eq!(shown, "é\\u{202e}日\\x1bx\n", "{cut}");
        }
        let mut pieces = Pieces::default();
        assert_eq!(pieces.add(b"a\xffb\x9bc\xe2\x80"), "a\\xffb\\x9bc");
        assert_eq!(pieces.rest(), "\\xe2\\x80");
    }
}
