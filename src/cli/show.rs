//! `egm-probe show`

use std::io::Write;

use super::args::{Global, ShowArgs};
use super::error::Error;
use super::{Exit, write_gpu_warnings, write_warnings};
use crate::host::{Host, Needs, NotFound};
use crate::output::json;
use crate::output::show::{self, Selection};
use crate::values::PciAddress;

pub(super) fn run(
    args: &ShowArgs,
    global: &Global,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    let report = global.report(Needs::all())?;
    let selection = select(args, &report.host).inspect_err(|_| write_warnings(err, &report, []))?;
    if args.json {
        json::write_show(out, &report, &selection)?;
        return Ok(Exit::Done);
    }
    show::write(out, &report, &selection)?;
    out.flush()?;
    write_warnings(err, &report, selection.concerned_regions());
    for gpu in selection.lone_gpus() {
        write_gpu_warnings(err, gpu);
    }
    Ok(Exit::Done)
}

/// The regions and GPUs that were asked for.
fn select<'a>(args: &ShowArgs, host: &'a Host) -> Result<Selection<'a>, NotFound> {
    let mut selection = Selection::default();
    if args.regions.is_empty() && args.gpus.is_empty() {
        if host.regions.is_empty() {
            return Err(NotFound::no_egm(host, ""));
        }
        host.regions.iter().for_each(|region| selection.add_region(region));
    }
    for name in &args.regions {
        selection.add_region(host.find_region(name)?);
    }
    for address in &args.gpus {
        let (gpu, region) = host.gpu(*address).ok_or_else(|| no_gpu(*address, host))?;
        selection.add_gpu(gpu, region);
    }
    Ok(selection)
}

fn no_gpu(address: PciAddress, host: &Host) -> NotFound {
    NotFound::gpu(host, address, host.gpus().map(|(gpu, _)| gpu.address).collect())
}
