//! Base64 as Judge0 reads and writes it: anything in, MIME lines out.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Half characters at the end are dropped and not refused.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Characters of a line, as Ruby's `encode64` writes them.
const LINE: usize = 60;

/// What the characters of the alphabet mean, up to the first `=`; all others are skipped. Never an error.
pub fn decode(text: &str) -> Vec<u8> {
    let mut characters: Vec<u8> = text
        .bytes()
        .take_while(|byte| *byte != b'=')
        .filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        .collect();
    if characters.len() % 4 == 1 {
        // Six bits are no byte.
        characters.pop();
    }
    LENIENT.decode(characters).unwrap_or_default()
}

/// With a line break after every 60 characters and at the end; nothing for nothing.
pub fn encode(bytes: &[u8]) -> String {
    let encoded = LENIENT.encode(bytes);
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / LINE + 1);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, others) = rest.split_at(rest.len().min(LINE));
        lines.push_str(line);
        lines.push('\n');
        rest = others;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_is_read() {
        for (text, bytes) in [
            ("aGVsbG8=", &b"hello"[..]),
            ("aGVsbG8", b"hello"),
            ("aGVs\nbG8=\n", b"hello"),
            ("a-G*V s_b\u{e9}G8", b"hello"),
            ("!!!", b""),
            ("", b""),
            ("a", b""),
            ("aGVsbG9=", b"hello"),
        ] {
            assert_eq!(decode(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn lines_have_sixty_characters_and_an_end() {
        assert_eq!(encode(b"hi\n"), "aGkK\n");
        assert_eq!(encode(b""), "");
        let text = encode(&[b'x'; 46]);
        let lines: Vec<_> = text.split('\n').map(str::len).collect();
        assert_eq!(lines, [60, 4, 0]);
        assert_eq!(encode(&[b'x'; 45]).len(), 61);
        assert_eq!(decode(&text), [b'x'; 46]);
    }
}
