//! `egm-probe topology`

use std::io::Write;

use super::args::{Global, TopologyArgs};
use super::error::Error;
use super::{Exit, Terminal, write_warnings};
use crate::files::user_file;
use crate::host::Needs;
use crate::output::svg;
use crate::output::topology::{self as output, TreeStyle};

pub(super) fn run(
    args: &TopologyArgs,
    global: &Global,
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    let report = global.report(Needs::all())?;
    if args.json {
        output::write_json(out, &report)?;
        return Ok(Exit::Done);
    }
    match &args.svg {
        Some(path) if path.as_os_str() == "-" => svg::write(out, &report)?,
        Some(path) => {
            let mut picture = Vec::new();
            svg::write(&mut picture, &report)?;
            user_file::write(path, &picture)?;
        }
        None => {
            let (ascii, all_nodes) = (args.ascii, args.all_nodes);
            let style = TreeStyle { ascii, color: terminal.color, all_nodes };
            output::write(out, &report, style)?;
        }
    }
    out.flush()?;
    write_warnings(err, &report, &report.host.regions);
    Ok(Exit::Done)
}
