//! Rust source as far as the rules need it: which characters are code, and which lines are tests.

/// The source with the contents of comments and literals replaced by spaces, so that a word that is
/// found in it is code. Line breaks stay, so lines keep their numbers.
pub fn code_of(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' if starts_raw_string(bytes, at) => end_of_raw_string(bytes, at),
            b'\'' => end_of_char(bytes, at),
            _ => at + 1,
        };
        if end > at + 1 {
            blank(&mut out[at..end]);
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Does `word` stand in `line`, and not as a part of a longer name?
pub fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part_of_name)
            && !line[at + word.len()..].chars().next().is_some_and(part_of_name)
    })
}

/// The code that only tests run: all of a test file, or what follows `#[cfg(test)] mod tests {`.
pub fn test_code<'a>(path: &str, code: &'a str) -> &'a str {
    let whole = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/contract/");
    if whole {
        return code;
    }
    code.find("#[cfg(test)]\nmod tests {").map_or("", |at| &code[at..])
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|window| window == what).map_or(bytes.len(), |offset| from + offset)
}

fn end_of_comment(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// `r"`, `r#"`, `br"`, `cr"`; not the end of a name, and not a raw name such as `r#in`.
fn starts_raw_string(bytes: &[u8], at: usize) -> bool {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let before = match at.checked_sub(1).map(|before| bytes[before]) {
        Some(b'b' | b'c') => at.checked_sub(2).map(|before| bytes[before]),
        other => other,
    };
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    !before.is_some_and(|byte| name(&byte)) && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn end_of_raw_string(bytes: &[u8], from: usize) -> usize {
    let hashes = bytes[from + 1..].iter().take_while(|byte| **byte == b'#').count();
    let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    (find(bytes, from + 2 + hashes, &end) + end.len()).min(bytes.len())
}

/// A character literal, or one quote of a lifetime.
fn end_of_char(bytes: &[u8], from: usize) -> usize {
    match &bytes[from + 1..] {
        [b'\\', ..] => find(bytes, from + 3, b"'") + 1,
        [byte, ..] => {
            let length = match byte {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if bytes.get(from + 1 + length) == Some(&b'\'') { from + length + 2 } else { from + 1 }
        }
        [] => from + 1,
    }
}

#[test]
fn only_code_is_left() {
    for (source, code) in [
        ("a // unsafe", "a          "),
        ("a /* /* x */ y */ b", "a                 b"),
        ("f(\"x\\\"y\", b\"z\")", "f(      , b   )"),
        ("r#\"a\"b\"# + r\"c\" + r#in", "         +      + r#in"),
        ("'\\'' 'x' 'ü' <'a> '\\u{1}'", "              <'a>        "),
        ("for\"\"", "for  "),
    ] {
        assert_eq!(code_of(source).trim_end(), code.trim_end(), "{source}");
    }
    assert_eq!(code_of("\"a\nb\"\nc").lines().last(), Some("c"));
}

#[test]
fn a_word_is_not_a_part_of_a_name() {
    assert!(has_word("x unsafe {", "unsafe") && has_word("unsafe", "unsafe"));
    assert!(!has_word("unsafe_code", "unsafe") && !has_word("an_unsafe", "unsafe"));
}
