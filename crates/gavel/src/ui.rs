//! What people see: colours on a terminal only, and tables that line up.

use std::io::{IsTerminal, Write};

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For a stream: a terminal that wants colours. NO_COLOR is what people set to turn them off.
    pub fn for_stream(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { on: stream.is_terminal() && !refused && !dumb }
    }

    #[cfg(test)]
    pub fn off() -> Self {
        Self { on: false }
    }

    pub fn is_on(self) -> bool {
        self.on
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }
}

/// Prints to stdout. Whoever closed the other end wants no more of it, and that is no failure: a
/// server must not end because nobody reads its greeting.
pub fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    _ = out.write_fmt(format_args!("{text}")).and_then(|()| out.flush());
}

/// `println!` by way of [`say`].
macro_rules! say_line {
    ($($arg:tt)*) => { $crate::ui::say(format_args!("{}\n", format_args!($($arg)*))) };
}
pub(crate) use say_line;

/// Columns as wide as their widest cell. Numbers (all but the first column) are set to the right.
pub fn table(header: &[&str], rows: &[Vec<String>], numbers: bool) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| {
            if numbers && i > 0 { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let mut line = cells.collect::<Vec<_>>().join("  ");
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    let head = line(header.to_vec());
    rows.iter().fold(head, |out, row| out + &line(row.iter().map(String::as_str).collect()))
}

/// A time as people read it: three digits and the unit that fits.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "100".to_owned()]];
        assert_eq!(table(&["x", "n"], &rows, true), "x       n\na       1\nlong  100\n");
        assert_eq!(table(&["x", "n"], &rows, false), "x     n\na     1\nlong  100\n");
    }
}
