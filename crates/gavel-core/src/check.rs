//! Is the output the expected one?

/// By which rule a job's output is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Comparison {
    #[default]
    Native,
    Judge0,
}

/// Compares two texts, ignoring trailing white space of each line and trailing blank lines.
/// Bytes, not characters: a judge must not choke on what is no UTF-8.
pub fn same_output(got: &[u8], expected: &[u8]) -> bool {
    lines(got).eq(lines(expected))
}

/// Where two outputs first differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Counted from 1.
    pub line: usize,
    /// `None`: the output has no such line.
    pub got: Option<&'a [u8]>,
    pub expected: Option<&'a [u8]>,
}

pub fn first_difference<'a>(got: &'a [u8], expected: &'a [u8]) -> Option<Difference<'a>> {
    let (mut left, mut right) = (lines(got), lines(expected));
    (1..).find_map(|line| match (left.next(), right.next()) {
        (None, None) => Some(None),
        (got, expected) if got == expected => None,
        (got, expected) => Some(Some(Difference { line, got, expected })),
    })?
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
        let difference = |got, expected| {
            first_difference(got, expected).map(|d| (d.line, d.got.map(<[u8]>::to_vec), d.expected.map(<[u8]>::to_vec)))
        };
        assert_eq!(difference(b"1\n2\n4\n", b"1\n2\n3\n"), Some((3, Some(b"4".to_vec()), Some(b"3".to_vec()))));
        assert_eq!(difference(b"1\n", b"1\n2"), Some((2, None, Some(b"2".to_vec()))));
        assert_eq!(difference(b"1", b"1\n"), None);
    }
}
