//! `egm-probe metrics`

use std::io::Write;

use super::Exit;
use super::args::{Global, MetricsArgs};
use super::error::Error;
use crate::files::user_file;
use crate::output::metrics;

pub(super) fn run(args: &MetricsArgs, global: &Global, out: &mut dyn Write) -> Result<Exit, Error> {
    let report = global.report(metrics::NEEDS)?;
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
