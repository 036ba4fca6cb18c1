//! `egm-probe topology`

use std::path::PathBuf;

use clap::Args;

use super::error::Error;
use super::{Exit, Session};
use crate::host::Needs;
use crate::output::svg;
use crate::output::topology::{self as output, TreeStyle};

#[derive(Args, Debug)]
pub(super) struct TopologyArgs {
    /// Draw with ASCII characters only
    #[arg(long)]
    ascii: bool,
    /// Show each NUMA node on its own line
    #[arg(long)]
    all_nodes: bool,
    /// Write an SVG picture to FILE; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ascii", "all_nodes", "json"])]
    svg: Option<PathBuf>,
    /// Print JSON (egm-probe.topology/1)
    #[arg(short = 'J', long, conflicts_with_all = ["ascii", "all_nodes"])]
    json: bool,
}

pub(super) fn run(args: &TopologyArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let report = session.global.report(Needs::all())?;
    if args.json {
        output::write_json(session.out, &report)?;
        return Ok(Exit::Done);
    }
    if let Some(path) = &args.svg {
        session.write_to(path, |out| svg::write(out, &report))?;
    } else {
        let (ascii, all_nodes) = (args.ascii, args.all_nodes);
        let style = TreeStyle { ascii, color: session.terminal.color, all_nodes };
        output::write(session.out, &report, style)?;
    }
    session.out.flush()?;
    session.warn_of(&report, report.regions());
    Ok(Exit::Done)
}
