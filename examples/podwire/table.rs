//! Tables: columns three blanks apart, wrapped to the terminal.

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets};

/// A table with these headers, or without any.
pub(crate) fn new(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !headers.is_empty() {
        table.set_header(headers);
    }
    table
}

/// Columns up to this width are never wrapped, however narrow the terminal.
const NARROW: u16 = 20;
/// Blanks between columns.
const GAP: u16 = 3;

/// The table as text, without blanks at the ends of lines.
pub(crate) fn render(mut table: Table) -> String {
    let widths = table.column_max_content_widths();
    let (narrow, wide): (Vec<_>, Vec<_>) = widths.iter().copied().partition(|width| *width <= NARROW);
    let fixed: u16 = narrow.iter().sum::<u16>().saturating_add(GAP * widths.len() as u16);
    let room = table.width().map_or(u16::MAX, |width| width.saturating_sub(fixed));
    if room / (wide.len() as u16).max(1) < NARROW {
        // Columns of a few letters could not be read: better that the terminal breaks the lines.
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    for (column, width) in table.column_iter_mut().zip(widths) {
        column.set_padding((0, GAP));
        if width <= NARROW {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
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
