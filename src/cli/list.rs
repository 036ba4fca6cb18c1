//! `egm-probe list`

use std::io::Write;

use super::args::{Global, ListArgs};
use super::error::Error;
use super::{Exit, Terminal, write_warnings};
use crate::host::{Class, Needs, no_egm};
use crate::output::columns::{COLUMNS, Column, EVERYTHING, choose, defaults};
use crate::output::json;
use crate::output::table::{self, Format, Style};
use crate::report::Report;

pub(super) fn run(
    args: &ListArgs,
    global: &Global,
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    if args.list_columns {
        table::write_columns(out, "")?;
        return Ok(Exit::Done);
    }
    let columns = columns(args)?;
    if args.json {
        let report = global.report(EVERYTHING)?;
        json::write_list(out, &report)?;
        return Ok(exit(&report));
    }
    let needs = columns.iter().fold(Needs::empty(), |needs, column| needs | column.needs);
    let report = global.report(needs)?;
    let rows: Vec<_> = report.rows().collect();
    let style = Style {
        format: match (args.raw, args.pairs) {
            (true, _) => Format::Raw,
            (_, true) => Format::Pairs,
            _ => Format::Table,
        },
        bytes: args.bytes,
        header: !args.noheadings,
        width: terminal.width,
        color: terminal.color,
    };
    table::write(out, &rows, &columns, style)?;
    // The answer first, where both go to a terminal.
    out.flush()?;
    write_warnings(err, &report, &report.host.regions);
    if rows.is_empty() && report.warnings().next().is_none() {
        let _ = writeln!(err, "egm-probe: {}", no_egm(report.host.class));
    }
    Ok(exit(&report))
}

/// An empty list is an answer only where it is known to be one.
fn exit(report: &Report) -> Exit {
    if report.host.class == Class::Unreadable { Exit::Failed } else { Exit::Done }
}

fn columns(args: &ListArgs) -> Result<Vec<&'static Column>, Error> {
    Ok(match &args.output {
        Some(list) => choose(list)?,
        None if args.output_all => COLUMNS.iter().collect(),
        None => defaults(),
    })
}
