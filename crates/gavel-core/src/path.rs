//! Paths inside a working directory, as clients may name them.

/// Longest path and component that a job may name, and how deep it may go.
pub const MAX_PATH: usize = 1024;
pub const MAX_COMPONENT: usize = 255;
pub const MAX_DEPTH: usize = 16;

/// Accepts a relative path of plain components; says what is wrong with any other.
pub fn check(path: &str) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("the path {path:?} {what}"));
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.len() > MAX_PATH {
        return Err(format!("a path is longer than {MAX_PATH} bytes"));
    }
    if path.contains('\0') {
        return refuse("contains a NUL byte");
    }
    if path.starts_with('/') {
        return refuse("is absolute: give one relative to the working directory");
    }
    let mut depth = 0;
    for component in path.split('/') {
        match component {
            "" => return refuse("has an empty component"),
            "." | ".." => return refuse("contains \".\" or \"..\": name the file directly"),
            c if c.len() > MAX_COMPONENT => {
                return Err(format!("a component of a path is longer than {MAX_COMPONENT} bytes"));
            }
            _ => depth += 1,
        }
    }
    if depth > MAX_DEPTH {
        return refuse(&format!("is deeper than {MAX_DEPTH} directories"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn plain_relative_paths_pass() {
        for path in ["a", "a/b.txt", ".hidden", "..a", "a b/ü", "-x"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn whatever_leaves_the_directory_is_refused() {
        let deep = "a/".repeat(40) + "b";
        for path in ["", "/etc/passwd", "../x", "a/../b", "a/..", ".", "a//b", "a/", "a\0b", deep.as_str()] {
            assert!(check(path).is_err(), "{path:?}");
        }
        assert!(check(&"x".repeat(256)).is_err());
    }
}
