//! `egm-probe list`

use std::io::Write;

use super::args::{Global, ListArgs};
use super::error::Error;
use super::{Exit, Terminal, no_egm, write_warnings};
use crate::capacity::Capacity;
use crate::host::{Host, Needs};
use crate::output::columns::{COLUMNS, Column, choose, defaults};
use crate::output::json;
use crate::output::table::{self, Format, Style};

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
    let root = global.root()?;
    if args.json {
        let host = Host::read(&root, Needs::GPU_NAMES | Needs::NUMA | Needs::DEVICE_NODE);
        json::write_list(out, &host)?;
        return Ok(Exit::Done);
    }
    let needs = columns.iter().fold(Needs::empty(), |needs, column| needs | column.needs);
    let host = Host::read(&root, needs);
    let rows: Vec<_> = host.regions.iter().map(|region| (region, Capacity::default())).collect();
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
    write_warnings(err, &host, &host.regions);
    if host.regions.is_empty() && host.warnings.is_empty() {
        let _ = writeln!(err, "egm-probe: {}", no_egm(&host));
    }
    Ok(Exit::Done)
}

fn columns(args: &ListArgs) -> Result<Vec<&'static Column>, Error> {
    Ok(match &args.output {
        Some(list) => choose(list)?,
        None if args.output_all => COLUMNS.iter().collect(),
        None => defaults(),
    })
}
