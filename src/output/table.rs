//! The output of `list` as a table, and for line-based scripts as raw lines or pairs.

use std::io::{self, Write};

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width,
    presets,
};

use super::columns::{COLUMNS, Column, ColumnValue, Kind};
use crate::report::{Row, State};
use crate::values::text::{escape, printable};

/// The format of `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Aligned columns.
    Table,
    /// A single space between values, and spaces in values escaped.
    Raw,
    /// `NAME="value"`, for `eval` in a shell.
    Pairs,
}

/// The style of the rows.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Whether sizes are in bytes.
    pub bytes: bool,
    /// Whether to print a header.
    pub header: bool,
    /// The maximum width of a table, in characters.
    pub width: Option<u16>,
    /// Whether a table has colours.
    pub color: bool,
}

impl Style {
    /// A format with a header, human-readable sizes, unlimited width, and no colours.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, bytes: false, header: true, width: None, color: false }
    }
}

/// Writes the rows; nothing, not even a header, if there are none.
///
/// # Errors
/// The writer fails.
pub fn write(
    out: &mut dyn Write,
    rows: &[Row<'_>],
    columns: &[&Column],
    style: Style,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    match style.format {
        Format::Table => write_table(out, rows, columns, style),
        Format::Raw => write_raw(out, rows, columns, style),
        Format::Pairs => write_pairs(out, rows, columns, style),
    }
}

fn write_table(
    out: &mut dyn Write,
    rows: &[Row<'_>],
    columns: &[&Column],
    style: Style,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // The caller decides about colours, not the crate's terminal detection.
    table.force_no_tty();
    if style.color {
        table.enforce_styling();
    }
    if let Some(width) = style.width {
        // The last column's padding may exceed the width.
        table.set_width(width.saturating_add(GAP));
    }
    if style.header {
        let cell = |column: &&Column| Cell::new(column.name).add_attribute(Attribute::Bold);
        table.set_header(columns.iter().map(cell).collect::<Vec<_>>());
    }
    let mut widths = vec![0; columns.len()];
    for row in rows {
        let cell = |(column, width): (&&Column, &mut u16)| {
            let value = column.value(row);
            *width = longest_part(&value).max(*width);
            let text = printable(&joined(value, style.bytes, ", "));
            colored(Cell::new(text), column, row.capacity.state)
        };
        table.add_row(columns.iter().zip(&mut widths).map(cell).collect::<Vec<_>>());
    }
    for ((index, column), width) in columns.iter().enumerate().zip(widths) {
        let Some(set) = table.column_mut(index) else { continue };
        set.set_padding((0, GAP));
        if column.kind.is_numeric() {
            set.set_cell_alignment(CellAlignment::Right);
        }
        // Lists may be wrapped; values are never truncated.
        set.set_constraint(match column.kind {
            Kind::List => ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(GAP))),
            Kind::Text | Kind::Number | Kind::Bytes => ColumnConstraint::ContentWidth,
        });
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Spaces between columns.
const GAP: u16 = 2;

fn colored(cell: Cell, column: &Column, state: State) -> Cell {
    if column.name != "STATE" {
        return cell;
    }
    cell.fg(match state {
        State::Free => Color::Green,
        State::InUse => Color::Red,
        State::Reserved | State::Defined | State::Unknown => Color::Yellow,
    })
}

/// The minimum width of a list's column: its longest value with the following comma.
fn longest_part(value: &ColumnValue) -> u16 {
    let ColumnValue::List(texts) = value else { return 0 };
    let commas = texts.iter().skip(1).map(|_| 1).chain([0]);
    let widths =
        texts.iter().zip(commas).map(|(text, comma)| printable(text).chars().count() + comma);
    widths.max().and_then(|width| u16::try_from(width).ok()).unwrap_or(0)
}

fn write_raw(
    out: &mut dyn Write,
    rows: &[Row<'_>],
    columns: &[&Column],
    style: Style,
) -> io::Result<()> {
    if style.header {
        write_words(out, columns.iter().map(|column| column.name.to_owned()))?;
    }
    for row in rows {
        let cell = |column: &&Column| {
            let value = escaped(column.value(row), |c| c.is_whitespace() || c == '\\');
            joined(value, style.bytes, ",").replace(' ', "\\x20")
        };
        write_words(out, columns.iter().map(cell))?;
    }
    Ok(())
}

fn write_pairs(
    out: &mut dyn Write,
    rows: &[Row<'_>],
    columns: &[&Column],
    style: Style,
) -> io::Result<()> {
    for row in rows {
        let cell = |column: &&Column| {
            // Special characters of a shell within double quotes.
            let value = escaped(column.value(row), |c| matches!(c, '"' | '\\' | '$' | '`'));
            format!("{}=\"{}\"", column.name, joined(value, style.bytes, ","))
        };
        write_words(out, columns.iter().map(cell))?;
    }
    Ok(())
}

fn write_words(out: &mut dyn Write, words: impl Iterator<Item = String>) -> io::Result<()> {
    writeln!(out, "{}", words.collect::<Vec<_>>().join(" "))
}

/// Escapes these characters in a value, and also commas within the parts of a list.
fn escaped(value: ColumnValue, also: impl Fn(char) -> bool) -> ColumnValue {
    match value {
        ColumnValue::Text(text) => ColumnValue::Text(text.map(|text| escape(&text, also))),
        ColumnValue::List(texts) => {
            let part = |text: &String| escape(text, |c| c == ',' || also(c));
            ColumnValue::List(texts.iter().map(part).collect())
        }
        ColumnValue::Bytes(bytes) => ColumnValue::Bytes(bytes),
    }
}

fn joined(value: ColumnValue, bytes: bool, separator: &str) -> String {
    let text = match value {
        ColumnValue::Text(text) => text.unwrap_or_default(),
        ColumnValue::Bytes(Some(size)) if bytes => size.0.to_string(),
        ColumnValue::Bytes(size) => size.map(|size| size.to_string()).unwrap_or_default(),
        ColumnValue::List(texts) => texts.join(separator),
    };
    if text.is_empty() { "-".into() } else { text }
}

/// Writes all columns with their kinds and descriptions, one per line.
///
/// # Errors
/// The writer fails.
pub fn write_columns(out: &mut dyn Write, indent: &str) -> io::Result<()> {
    for Column { name, kind, help, .. } in &COLUMNS {
        writeln!(out, "{indent}{name:<9} {:<7} {help}", kind.name())?;
    }
    Ok(())
}
