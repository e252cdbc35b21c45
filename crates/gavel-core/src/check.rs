//! Is the output the expected one?

/// By which rule a job's output is compared. Bytes, not characters: a judge must not choke on what is
/// no UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Comparison {
    /// White space at the end of lines and blank lines at the end do not matter.
    #[default]
    Native,
    /// As [`Comparison::Native`], and NUL counts as white space; but no output at all is not the same as
    /// anything, not even as nothing.
    Judge0,
}

/// Are two texts the same by the native rule?
pub fn same_output(got: &[u8], expected: &[u8]) -> bool {
    Comparison::Native.first_difference(got, expected).is_none()
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

impl Comparison {
    pub fn first_difference<'a>(self, got: &'a [u8], expected: &'a [u8]) -> Option<Difference<'a>> {
        let (mut left, mut right) = (self.lines(got), self.lines(expected));
        if self == Self::Judge0 && got.is_empty() {
            return Some(Difference { line: 1, got: None, expected: right.next() });
        }
        (1..).find_map(|line| match (left.next(), right.next()) {
            (None, None) => Some(None),
            (got, expected) if got == expected => None,
            (got, expected) => Some(Some(Difference { line, got, expected })),
        })?
    }

    fn lines(self, text: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.trim_end(text).split(|&b| b == b'\n').map(move |line| self.trim_end(line))
    }

    fn trim_end(self, text: &[u8]) -> &[u8] {
        let end = text.iter().rposition(|&b| !self.is_space(b)).map_or(0, |at| at + 1);
        &text[..end]
    }

    fn is_space(self, byte: u8) -> bool {
        const VERTICAL_TAB: u8 = 0x0b;
        byte.is_ascii_whitespace() || byte == VERTICAL_TAB || (byte == 0 && self == Self::Judge0)
    }
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
            Comparison::Native
                .first_difference(got, expected)
                .map(|d| (d.line, d.got.map(<[u8]>::to_vec), d.expected.map(<[u8]>::to_vec)))
        };
        assert_eq!(difference(b"1\n2\n4\n", b"1\n2\n3\n"), Some((3, Some(b"4".to_vec()), Some(b"3".to_vec()))));
        assert_eq!(difference(b"1\n", b"1\n2"), Some((2, None, Some(b"2".to_vec()))));
        assert_eq!(difference(b"1", b"1\n"), None);
    }

    /// One line for each sentence of the rule.
    #[test]
    fn judge0s_rule_sentence_by_sentence() {
        let same = |got: &[u8], expected: &[u8]| Comparison::Judge0.first_difference(got, expected).is_none();
        // Trailing white space of each line is stripped on both sides: space, tab, CR, VT, FF, NUL, also mixed.
        for space in [" ", "\t", "\r", "\x0b", "\x0c", "\0", " \0\t\0\r"] {
            let (bare, padded) = (b"a\nb".to_vec(), format!("a{space}\nb{space}").into_bytes());
            assert!(same(&padded, &bare) && same(&bare, &padded), "{space:?}");
        }
        // And that of the whole, with its blank lines.
        assert!(same(b"a\n \n\0\n\r\n", b"a") && same(b"a", b"a\n\n\n"));
        // Then the bytes must be equal.
        assert!(!same(b"a", b"b") && !same(b"a\nb", b"a") && !same(b"a", b"a\nb") && !same(b"a", b"A"));
        // Leading spaces, leading blank lines and inner spacing count, and so does a NUL within.
        for (got, expected) in [(" a", "a"), ("\na", "a"), ("a\n\nb", "a\nb"), ("a  b", "a b"), ("\0a", "a")] {
            assert!(!same(got.as_bytes(), expected.as_bytes()), "{got:?} {expected:?}");
        }
        // A no-break space is not white space.
        assert!(!same("a\u{a0}".as_bytes(), b"a"));
        // CR LF is LF.
        assert!(same(b"a\r\nb\r\n", b"a\nb\n"));
        // What is not UTF-8 is compared as bytes.
        assert!(same(b"\xff\xfe\n", b"\xff\xfe") && !same(b"\xff", b"\xfe") && !same(b"\xff", "\u{fffd}".as_bytes()));
        // No output equals nothing, not even nothing; output that is only white space does.
        for expected in ["", "\n", "a"] {
            assert!(!same(b"", expected.as_bytes()), "{expected:?}");
        }
        assert!(same(b"\n", b"") && same(b" ", b"\n\n") && !same(b"\n", b"a"));
        let difference = Comparison::Judge0.first_difference(b"", b"");
        assert_eq!(difference, Some(Difference { line: 1, got: None, expected: Some(b"") }));
    }

    #[test]
    fn the_native_rule_differs_from_it_in_two_points() {
        assert!(!same_output(b"a\0", b"a"));
        assert!(same_output(b"", b"") && same_output(b"", b"\n"));
    }
}
