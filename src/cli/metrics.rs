//! `egm-probe metrics`

use std::io::Write;

use super::Exit;
use super::args::{Global, MetricsArgs};
use super::error::Error;
use crate::host::Needs;
use crate::output::metrics;
use crate::user_file;

/// What the metrics tell of.
const NEEDS: Needs =
    Needs::OTHER_GPUS.union(Needs::GPU_NAMES).union(Needs::CLAIMS).union(Needs::DEVICE_NODE);

pub(super) fn run(args: &MetricsArgs, global: &Global, out: &mut dyn Write) -> Result<Exit, Error> {
    let report = global.report(NEEDS)?;
    match &args.output {
        Some(path) if path.as_os_str() != "-" => {
            let mut text = Vec::new();
            metrics::write(&mut text, &report)?;
            user_file::write(path, &text)?;
        }
        _ => metrics::write(out, &report)?,
    }
    Ok(Exit::Done)
}
