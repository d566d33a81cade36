//! Tables: columns three blanks apart, fitted to the terminal. What is no terminal gets the whole text.

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, Width, presets};

/// Blanks between columns.
const GAP: u16 = 3;
/// A terminal narrower than this has to break lines itself.
const NARROWEST_TERMINAL: u16 = 80;
/// Text cut into narrower columns can't be read.
const NARROWEST_COLUMN: u16 = 20;

/// A table with these headers, or without any.
fn new(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !headers.is_empty() {
        table.set_header(headers);
    }
    table
}

/// The table as text, without blanks at the ends of lines. In a terminal, leaves `margin` columns free.
fn render(mut table: Table, margin: u16) -> String {
    let columns = table.column_max_content_widths();
    let Some(terminal) = table.width().map(|width| width.max(NARROWEST_TERMINAL).saturating_sub(margin)) else {
        return columns_apart(&mut table, &columns, GAP);
    };
    for gap in [GAP, 1] {
        if let Some(widest) = widest_column(&columns, gap, terminal) {
            let columns: Vec<_> = columns.iter().map(|width| *width.min(&widest)).collect();
            return columns_apart(&mut table, &columns, gap);
        }
    }
    match table.header() {
        Some(header) => records(header, &table, terminal),
        None => columns_apart(&mut table, &columns, GAP),
    }
}

/// How wide a column may be, so that all fit; `None` if that can't be read.
fn widest_column(columns: &[u16], gap: u16, terminal: u16) -> Option<u16> {
    let gaps = u32::from(gap) * (columns.len() as u32).saturating_sub(1);
    let width_with = |widest: u16| gaps + columns.iter().map(|width| u32::from(*width.min(&widest))).sum::<u32>();
    let natural = columns.iter().copied().max().unwrap_or_default();
    let narrowest = natural.min(NARROWEST_COLUMN);
    (narrowest..=natural.min(terminal).max(narrowest)).rev().find(|widest| width_with(*widest) <= u32::from(terminal))
}

fn columns_apart(table: &mut Table, widths: &[u16], gap: u16) -> String {
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for (column, width) in table.column_iter_mut().zip(widths) {
        let whole = Width::Fixed(width.saturating_add(gap));
        column.set_padding((0, gap)).set_constraint(ColumnConstraint::Absolute(whole));
    }
    table.trim_fmt()
}

/// One field a line, for a table that has too many columns for the terminal.
fn records(header: &Row, table: &Table, terminal: u16) -> String {
    let names: Vec<_> = header.cell_iter().map(|cell| cell.content().replace('\n', " ")).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default() as u16;
    let room = terminal.saturating_sub(longest + GAP);
    let record = |row: &Row| {
        let mut fields = new(&[]);
        fields.add_rows(names.iter().zip(row.cell_iter()).map(|(name, cell)| [name.clone(), cell.content()]));
        columns_apart(&mut fields, &[longest, room], GAP)
    };
    table.row_iter().map(record).collect::<Vec<_>>().join("\n\n")
}

/// A whole table at once.
pub(crate) fn of<R: Into<Row>>(headers: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    beside(0, headers, rows)
}

/// The same for a place with a margin at its left.
pub(crate) fn beside<R: Into<Row>>(margin: u16, headers: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = new(headers);
    table.add_rows(rows);
    render(table, margin)
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
