//! `egm-probe metrics`

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::Error;
use super::{Exit, Session};
use crate::output::metrics;

#[derive(Args, Debug)]
pub(super) struct MetricsArgs {
    /// Write to FILE atomically, as node_exporter's textfile collector requires
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &MetricsArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let report = session.global.report(metrics::NEEDS)?;
    let path = args.output.as_deref().unwrap_or(Path::new("-"));
    session.write_to(path, |out| metrics::write(out, &report))?;
    Ok(Exit::Done)
}
