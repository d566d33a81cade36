//! Tables: columns three blanks apart, wrapped to the terminal.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Row, Table, presets};

/// A table with these headers, or without any.
pub(crate) fn new(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !headers.is_empty() {
        table.set_header(headers);
    }
    table
}

/// The table as text, without blanks at the ends of lines.
pub(crate) fn render(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt()
}

/// A whole table at once.
pub(crate) fn of<R: Into<Row>>(headers: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = new(headers);
    table.add_rows(rows);
    render(table)
}

/// Text in green, yellow or red, for what is well, impaired or broken; plain for anything else.
pub(crate) fn coloured(state: &str) -> String {
    let colour = match state {
        "Ok" | "OK" | "ready" => AnsiColor::Green,
        "Warning" | "regenerating" | "restoring" => AnsiColor::Yellow,
        "Failure" | "not-ready" | "invalid" => AnsiColor::Red,
        _ => return state.to_owned(),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{state}{style:#}")
}
