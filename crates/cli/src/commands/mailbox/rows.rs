//! A list of mailboxes to protect, from a CSV file or one address a line.
//!
//! In: the file's text. Out: rows with their line, and bad ones with line, reason and the nearest valid name.
//! Not here: whether servers and mailboxes exist; the API knows.

use serde_json::{Value, json};

use crate::config::nearest;

const COLUMNS: [&str; 6] = ["address", "standby_address", "policy", "group", "primary", "standby"];

/// One mailbox to protect; empty fields are left to the defaults.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    /// Column and value, the address among them.
    fields: Vec<(&'static str, String)>,
}

/// A row that cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRow {
    pub(super) line: u64,
    pub(super) why: String,
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) good: Vec<Row>,
    pub(super) bad: Vec<BadRow>,
}

impl Row {
    /// As an item of the request.
    pub(super) fn item(&self) -> Value {
        let mut item = json!({"line": self.line});
        for (column, value) in &self.fields {
            item[*column] = json!(value);
        }
        item
    }
}

/// Reads `text`. The error is about the file as a whole: its header, or bytes that are no text.
pub(super) fn read(text: &str) -> Result<Rows, BadRow> {
    let text = text.trim_start_matches('\u{feff}');
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let separator = if first.contains(';') && !first.contains(',') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .delimiter(separator)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut columns: Option<Vec<&'static str>> = None;
    let mut rows = Rows::default();
    let mut lines = Lines { text, offset: 0, line: 1 };
    for record in reader.records() {
        let record = record.map_err(|error| BadRow {
            line: error.position().map_or(1, csv::Position::line),
            why: "cannot be read as CSV".into(),
        })?;
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        match &columns {
            None => match header(&record, line)? {
                Header::Named(named) => columns = Some(named),
                Header::None => {
                    columns = Some(vec!["address"]);
                    rows.take(&["address"], &record, line);
                }
            },
            Some(columns) => rows.take(columns, &record, line),
        }
    }
    Ok(rows)
}

/// Finds the line of each record. The reader's own position is where it began to look, before the empty lines and comments
/// that it passes over, and half way through a `\r\n`.
struct Lines<'t> {
    text: &'t str,
    offset: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the record that was looked for from byte `start` on; records come in order.
    fn of(&mut self, start: u64) -> u64 {
        let start = usize::try_from(start).unwrap_or(usize::MAX).clamp(self.offset, self.text.len());
        let passed = self.text.as_bytes()[self.offset..start].iter().filter(|byte| **byte == b'\n').count();
        (self.offset, self.line) = (start, self.line + passed as u64);
        while let Some(end) = self.text[self.offset..].find('\n') {
            let line = &self.text[self.offset..self.offset + end];
            if !line.trim().is_empty() && !line.starts_with('#') {
                break;
            }
            (self.offset, self.line) = (self.offset + end + 1, self.line + 1);
        }
        self.line
    }
}

enum Header {
    Named(Vec<&'static str>),
    /// The first line is an address already.
    None,
}

fn header(record: &csv::StringRecord, line: u64) -> Result<Header, BadRow> {
    let known = |name: &str| COLUMNS.into_iter().find(|column| column.eq_ignore_ascii_case(name));
    let names: Vec<&str> = record.iter().collect();
    if names.len() == 1 && known(names[0]).is_none() {
        // `adress` alone is more likely a slip than a user of that name.
        return match nearest(names[0], COLUMNS) {
            Some(near) if strsim::damerau_levenshtein(names[0], near) <= 2 => {
                Err(BadRow { line, why: format!("unknown column \"{}\"; did you mean \"{near}\"?", names[0]) })
            }
            _ => Ok(Header::None),
        };
    }
    let mut columns = Vec::new();
    for name in names {
        let Some(column) = known(name) else {
            let hint = match nearest(name, COLUMNS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("valid columns: {}", COLUMNS.join(", ")),
            };
            return Err(BadRow { line, why: format!("unknown column \"{name}\"; {hint}") });
        };
        if columns.contains(&column) {
            return Err(BadRow { line, why: format!("the column \"{column}\" comes twice") });
        }
        columns.push(column);
    }
    match columns.contains(&"address") {
        true => Ok(Header::Named(columns)),
        false => Err(BadRow { line, why: "there is no column \"address\"".into() }),
    }
}

impl Rows {
    fn take(&mut self, columns: &[&'static str], record: &csv::StringRecord, line: u64) {
        if record.len() > columns.len() {
            let why = format!("{} fields, and only {} columns", record.len(), columns.len());
            return self.bad.push(BadRow { line, why });
        }
        let fields: Vec<(&'static str, String)> = columns
            .iter()
            .zip(record)
            .filter(|(_, value)| !value.is_empty())
            .map(|(column, value)| (*column, value.to_owned()))
            .collect();
        if fields.is_empty() {
            return;
        }
        if !fields.iter().any(|(column, _)| *column == "address") {
            return self.bad.push(BadRow { line, why: "the address is missing".into() });
        }
        self.good.push(Row { line, fields });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<String> {
        read(text).unwrap().good.iter().map(|row| row.item().to_string()).collect()
    }

    #[test]
    fn a_file_with_a_header_is_read_in_any_order_of_columns() {
        assert_eq!(
            items("group,address,policy\nboard,ana@example.org,gold\n\n,bob@example.org,\n"),
            [
                r#"{"address":"ana@example.org","group":"board","line":2,"policy":"gold"}"#,
                r#"{"address":"bob@example.org","line":4}"#
            ]
        );
    }

    #[test]
    fn one_address_a_line_needs_no_header() {
        assert_eq!(
            items("\u{feff}# the board\nana@example.org\r\n\nbob\n"),
            [r#"{"address":"ana@example.org","line":2}"#, r#"{"address":"bob","line":4}"#]
        );
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        let lines = |text: &str| read(text).unwrap().good.iter().map(|row| row.line).collect::<Vec<_>>();
        assert_eq!(lines("address,group\r\n\r\nana,x\r\n# no\r\nbob,y\r\n"), [3, 5]);
        assert_eq!(lines("address,group\n\"ana\",\"two\nlines\"\n   \nbob,y"), [2, 5]);
    }

    #[test]
    fn semicolons_separate_as_well() {
        assert_eq!(items("address;group\nana;board\n"), [r#"{"address":"ana","group":"board","line":2}"#]);
    }

    #[test]
    fn bad_rows_are_named_with_their_line_and_the_others_kept() {
        let rows = read("address,group\nana,board\n,board\nbob,x,y\ncarl\n").unwrap();
        assert_eq!(rows.good.len(), 2);
        assert_eq!(
            rows.bad,
            [
                BadRow { line: 3, why: "the address is missing".into() },
                BadRow { line: 4, why: "3 fields, and only 2 columns".into() }
            ]
        );
    }

    #[test]
    fn an_unknown_column_is_refused_with_the_nearest_one() {
        let why = |text: &str| read(text).unwrap_err().why;
        assert_eq!(why("adress,group\nana,x\n"), "unknown column \"adress\"; did you mean \"address\"?");
        assert_eq!(why("adress\nana\n"), "unknown column \"adress\"; did you mean \"address\"?");
        assert_eq!(why("group,policy\nx,y\n"), "there is no column \"address\"");
        assert!(why("address,colour\nx,y\n").contains("valid columns: address"));
    }

    #[test]
    fn any_text_is_a_list_of_mailboxes_or_says_what_is_wrong() {
        understudy_fuzz::run("rows", |input| {
            let text = String::from_utf8_lossy(input);
            let lines = text.lines().count() as u64 + 1;
            match read(&text) {
                Ok(rows) => {
                    assert!(
                        rows.good
                            .iter()
                            .all(|row| (1..=lines).contains(&row.line) && row.item()["address"].is_string())
                    );
                    assert!(rows.bad.iter().all(|row| (1..=lines).contains(&row.line) && !row.why.is_empty()));
                    (rows.good.len(), rows.bad.len(), String::new())
                }
                Err(bad) => (0, 0, bad.why.chars().take(40).collect()),
            }
        });
    }
}
