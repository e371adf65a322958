//! Invoices as CSV that no spreadsheet takes for formulas.

use crate::invoice::Invoice;

const HEADER: [&str; 12] = [
    "month", "from", "to", "position", "address", "primary", "group", "quantity", "unit", "amount", "currency", "note",
];

/// A cell with text that somebody else chose. A spreadsheet evaluates what begins with one of these, so it gets an apostrophe, which
/// spreadsheets do not show.
#[must_use]
pub fn cell(text: &str) -> String {
    let begins = text.trim_start_matches([' ', '\u{a0}']);
    let evaluated = begins.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠', '|', '%']);
    let clean = text.replace(['\r', '\n', '\0'], " ");
    if evaluated { format!("'{clean}") } else { clean }
}

/// Every line of these invoices, and at the end of each its total.
pub fn report<'a>(invoices: impl IntoIterator<Item = &'a Invoice>) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER)?;
    for invoice in invoices {
        let (month, first, last) =
            (invoice.piece.month.to_string(), invoice.piece.first.to_string(), invoice.piece.last.to_string());
        for line in &invoice.lines {
            writer.write_record([
                &month,
                &first,
                &last,
                line.position.as_str(),
                &cell(&line.address),
                &cell(&line.primary),
                &cell(&line.group),
                &line.quantity,
                &line.unit,
                &invoice.money(line.amount).to_string(),
                invoice.currency.code(),
                &cell(&line.note),
            ])?;
        }
        let total = invoice.money(invoice.total).to_string();
        writer.write_record([
            &month,
            &first,
            &last,
            "total",
            "",
            "",
            "",
            "",
            "",
            &total,
            invoice.currency.code(),
            "",
        ])?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
