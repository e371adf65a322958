//! What commands print: aligned tables, JSON, and words about sizes and times.
//!
//! Keeps true: colours only on a terminal and not under `NO_COLOR`; a closed pipe ends the program quietly.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
pub(crate) use understudy_protocol::words::counted as count;

/// How a cell is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Busy,
    Bad,
    Faint,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31;1"),
            Self::Faint => Some("2"),
        }
    }

    /// The tone of a mailbox state or of a run's.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "mirroring" | "done" | "ok" => Self::Good,
            "faulted" | "held" | "failed" => Self::Bad,
            "paused" | "cancelled" | "note" => Self::Faint,
            _ => Self::Busy,
        }
    }
}

/// Whether standard output is a terminal that may be coloured.
pub(crate) fn colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !no_color && !dumb
}

/// `text` in the colour of `tone`, where colours are shown.
pub(crate) fn paint(text: &str, tone: Tone) -> String {
    match tone.code().filter(|_| colours()) {
        Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

/// Writes to standard output. Nobody reading any more is no error.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: cannot write the output\n  why: {error}\n  do:  check where it is sent");
            std::process::exit(1);
        }
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl AsRef<str>) {
    print(&format!("{}\n", text.as_ref()));
}

/// Writes `value` as JSON, for programs.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => eprintln!("error: cannot write JSON: {error}"),
    }
}

/// Rows under a heading, every column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell of a [`Table`].
#[derive(Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Table {
    pub(crate) fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, colours where they are shown.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).chain([self.heading.len()]).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
            cells.chain(self.heading.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        if !self.heading.is_empty() {
            let heading: Vec<Cell> = self.heading.iter().map(|name| Cell::toned(*name, Tone::Faint)).collect();
            render_row(&mut text, &heading, &widths);
        }
        for row in &self.rows {
            render_row(&mut text, row, &widths);
        }
        text
    }
}

fn render_row(text: &mut String, row: &[Cell], widths: &[usize]) {
    for (number, (cell, width)) in row.iter().zip(widths).enumerate() {
        text.push_str(&paint(&cell.text, cell.tone));
        if number + 1 < row.len() {
            let gap = width.saturating_sub(cell.text.chars().count()) + 2;
            text.extend(std::iter::repeat_n(' ', gap));
        }
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// `12.4 MiB`
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// `0.4 s`, `35 s`, `12 min`, `3 h`, `2 d`
pub(crate) fn seconds(count: f64) -> String {
    match count {
        c if c <= 0.0 => "0 s".to_owned(),
        c if c < 10.0 => format!("{c:.1} s"),
        c if c < 120.0 => format!("{c:.0} s"),
        c if c < 7200.0 => format!("{:.0} min", c / 60.0),
        c if c < 172_800.0 => format!("{:.0} h", c / 3600.0),
        c => format!("{:.0} d", c / 86400.0),
    }
}

/// `4 s ago`, or `never`.
pub(crate) fn ago(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    match time {
        None => "never".to_owned(),
        Some(time) => {
            let elapsed = (now - time).to_std().unwrap_or(Duration::ZERO);
            format!("{} ago", seconds(elapsed.as_secs_f64()))
        }
    }
}

/// `2026-11-21 23:22:58 UTC`, or `-`.
pub(crate) fn moment(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Asks a question that is answered with yes or no; nothing but yes is yes.
pub(crate) fn ask(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Whether there is a person to ask.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", "state"]);
        table.row(["ana".into(), "mirroring".into()]);
        table.row(["björn@example.org".into(), "".into()]);
        assert_eq!(table.render(), "name               state\nana                mirroring\nbjörn@example.org\n");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(812_345_678), "774.7 MiB");
        assert_eq!(seconds(0.0), "0 s");
        assert_eq!(seconds(0.44), "0.4 s");
        assert_eq!(seconds(90.0), "90 s");
        assert_eq!(seconds(600.0), "10 min");
    }
}
