//! Is the output the expected one?

/// Compares two texts, ignoring trailing white space of each line and trailing blank lines.
/// Bytes, not characters: a judge must not choke on what is no UTF-8.
pub fn same_output(got: &[u8], expected: &[u8]) -> bool {
    lines(got).eq(lines(expected))
}

/// Where two outputs first differ, for a reason that helps: the line number (from 1) and both lines.
pub fn first_difference(got: &[u8], expected: &[u8]) -> Option<(usize, Option<Vec<u8>>, Option<Vec<u8>>)> {
    let (mut left, mut right) = (lines(got), lines(expected));
    let mut number = 0;
    loop {
        number += 1;
        match (left.next(), right.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => return Some((number, a.map(<[u8]>::to_vec), b.map(<[u8]>::to_vec))),
        }
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    trim_end(text).split(|&b| b == b'\n').map(trim_end)
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| !b.is_ascii_whitespace() && *b != 0x0b).map_or(0, |at| at + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_space_and_blank_lines_do_not_matter() {
        for (got, expected) in [("7", "7\n"), ("7 \t\r\n\n\n", "7"), ("a\nb \nc", "a  \nb\nc\n"), ("", "\n \n")] {
            assert!(same_output(got.as_bytes(), expected.as_bytes()), "{got:?} {expected:?}");
        }
    }

    #[test]
    fn everything_else_matters() {
        for (got, expected) in [("7", "8"), (" 7", "7"), ("a\n\nb", "a\nb"), ("a b", "a  b"), ("", "x"), ("A", "a")] {
            assert!(!same_output(got.as_bytes(), expected.as_bytes()), "{got:?} {expected:?}");
        }
        assert!(!same_output(b"\xff\n", b"\xfe\n"));
    }

    #[test]
    fn the_first_different_line_is_named() {
        let (line, got, want) = first_difference(b"1\n2\n4\n", b"1\n2\n3\n").unwrap();
        assert_eq!((line, got.unwrap(), want.unwrap()), (3, b"4".to_vec(), b"3".to_vec()));
        assert_eq!(first_difference(b"1\n", b"1\n2").unwrap(), (2, None, Some(b"2".to_vec())));
        assert_eq!(first_difference(b"1", b"1\n"), None);
    }
}
