//! `egm-probe show`

use clap::Args;

use super::args::{Target, parse_gpu, parse_target};
use super::error::Error;
use super::{Exit, Session};
use crate::host::{Host, Needs, NotFound};
use crate::output::json;
use crate::output::show::{self, Selection};
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::values::PciAddress;

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Show these regions, such as egm4 or /dev/egm4, or GPUs [default: all regions]
    #[arg(value_name = "REGION", value_parser = parse_target)]
    targets: Vec<Target>,
    /// Show these GPUs, such as 0009:01:00.0 or pci_0009_01_00_0
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu)]
    gpus: Vec<PciAddress>,
    /// Print JSON (egm-probe.show/1)
    #[arg(short = 'J', long)]
    json: bool,
}

pub(super) fn run(args: &ShowArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let root = session.global.root()?;
    let report = Report::read(&root, session.global.wanted(Needs::all()));
    let selection = select(args, &report, &root).inspect_err(|_| session.warn_of(&report, []))?;
    if args.json {
        json::write_show(session.out, &report, &selection)?;
        return Ok(Exit::Done);
    }
    show::write(session.out, &report, &selection)?;
    session.out.flush()?;
    session.warn_of(&report, selection.concerned_regions());
    for warning in selection.lone_gpus().flat_map(|gpu| &gpu.warnings) {
        session.warn(warning);
    }
    Ok(Exit::Done)
}

/// The requested regions and GPUs.
fn select<'a>(
    args: &ShowArgs,
    report: &'a Report,
    root: &Sysroot,
) -> Result<Selection<'a>, NotFound> {
    let host = &report.host;
    let mut selection = Selection::default();
    if args.targets.is_empty() && args.gpus.is_empty() {
        let regions = report.regions();
        if regions.is_empty() {
            return Err(NotFound::no_egm(host, ""));
        }
        for region in regions {
            selection.add_region(region);
        }
    }
    let mut gpus = args.gpus.clone();
    for target in &args.targets {
        match target {
            Target::Gpu(address) => gpus.push(*address),
            target => selection.add_region(target.region(report, root)?),
        }
    }
    for address in &gpus {
        let (gpu, region) = host.gpu(*address).ok_or_else(|| no_gpu(*address, host))?;
        selection.add_gpu(gpu, region);
    }
    Ok(selection)
}

fn no_gpu(address: PciAddress, host: &Host) -> NotFound {
    NotFound::gpu(host, address, host.gpus().map(|(gpu, _)| gpu.address).collect())
}
