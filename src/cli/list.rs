//! `egm-probe list`

use std::collections::BTreeSet;

use clap::Args;

use super::args::{Target, parse_target};
use super::error::Error;
use super::{Exit, Session};
use crate::host::{Needs, NotFound, no_egm};
use crate::output::columns::{COLUMNS, Column, EVERYTHING, choose, defaults};
use crate::output::json;
use crate::output::table::{self, Format, Style};
use crate::report::Report;

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct ListArgs {
    /// List only these regions, such as egm4 or /dev/egm4, or the regions of these GPUs
    #[arg(value_name = "REGION", value_parser = parse_target)]
    targets: Vec<Target>,
    /// Show these columns; +LIST adds them to the default ones
    #[arg(short, long, value_name = "LIST")]
    output: Option<String>,
    /// Show all columns
    #[arg(short = 'O', long, conflicts_with = "output")]
    output_all: bool,
    /// Show sizes in bytes
    #[arg(short, long)]
    bytes: bool,
    /// Omit the header
    #[arg(short, long)]
    noheadings: bool,
    /// Separate columns with a single space; escape spaces in values
    #[arg(short, long, group = "format")]
    raw: bool,
    /// Print NAME="value" pairs, for shells
    #[arg(short = 'P', long, group = "format")]
    pairs: bool,
    /// Print JSON (egm-probe.list/1), always with all fields and sizes in bytes
    #[arg(short = 'J', long, group = "format")]
    json: bool,
    /// List the available columns, and exit
    #[arg(short = 'H', long)]
    list_columns: bool,
}

pub(super) fn run(args: &ListArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    if args.list_columns {
        table::write_columns(session.out, "")?;
        return Ok(Exit::Done);
    }
    let columns = columns(args)?;
    let of_columns = || columns.iter().fold(Needs::empty(), |needs, column| needs | column.needs);
    let report = read(args, if args.json { EVERYTHING } else { of_columns() }, session)?;
    if args.json {
        json::write_list(session.out, &report)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = report.rows().collect();
    let style = Style {
        format: match (args.raw, args.pairs) {
            (true, _) => Format::Raw,
            (_, true) => Format::Pairs,
            _ => Format::Table,
        },
        bytes: args.bytes,
        header: !args.noheadings,
        width: session.terminal.width,
        color: session.terminal.color,
    };
    table::write(session.out, &rows, &columns, style)?;
    // Output before warnings if both go to a terminal.
    session.out.flush()?;
    session.warn_of(&report, report.regions());
    if rows.is_empty() && report.warnings().next().is_none() {
        let _ = writeln!(session.err, "egm-probe: {}", no_egm(report.host.class));
    }
    Ok(Exit::Done)
}

/// The host with the requested regions only.
fn read(args: &ListArgs, needs: Needs, session: &mut Session<'_>) -> Result<Report, Error> {
    if args.targets.is_empty() {
        return session.global.report(needs);
    }
    let root = session.global.root()?;
    let needs = session.global.wanted(needs | Needs::GPUS | Needs::DEVICE_LINKS);
    let mut report = Report::read(&root, needs);
    let found = args.targets.iter().map(|target| Ok(target.region(&report, &root)?.name.clone()));
    let found: Result<BTreeSet<_>, NotFound> = found.collect();
    let found = found.inspect_err(|_| session.warn_of(&report, []))?;
    report.host.regions.retain(|region| found.contains(&region.name));
    report.gone.retain(|region| found.contains(&region.name));
    Ok(report)
}

fn columns(args: &ListArgs) -> Result<Vec<&'static Column>, Error> {
    Ok(match &args.output {
        Some(list) => choose(list)?,
        None if args.output_all => COLUMNS.iter().collect(),
        None => defaults(),
    })
}

/// The columns as help text.
pub(super) fn columns_help() -> String {
    let mut help = b"Columns:\n".to_vec();
    // Writing to a vector cannot fail.
    let _ = table::write_columns(&mut help, "  ");
    String::from_utf8_lossy(&help).trim_end().to_owned()
}
