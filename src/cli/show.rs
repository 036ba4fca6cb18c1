//! `egm-probe show`

use std::collections::BTreeSet;
use std::io::Write;

use super::args::{Global, ShowArgs};
use super::error::Error;
use super::{Exit, no_egm, write_gpu_warnings, write_warnings};
use crate::host::{Class, Host, Needs, RegionName};
use crate::output::json;
use crate::output::show::{self, Selection};
use crate::pci::PciAddress;

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
fn select<'a>(args: &ShowArgs, host: &'a Host) -> Result<Selection<'a>, Error> {
    let mut selection = Selection::default();
    if args.regions.is_empty() && args.gpus.is_empty() {
        if host.regions.is_empty() {
            return Err(none_of(host, String::new()));
        }
        host.regions.iter().for_each(|region| selection.add_region(region));
    }
    for name in &args.regions {
        selection.add_region(host.region(name).ok_or_else(|| no_region(name, host))?);
    }
    for address in &args.gpus {
        let (gpu, region) = host.gpu(*address).ok_or_else(|| no_gpu(*address, host))?;
        selection.add_gpu(gpu, region);
    }
    Ok(selection)
}

/// That a host has no region: not known where the class could not be read.
fn none_of(host: &Host, prefix: String) -> Error {
    let text = prefix + no_egm(host);
    match host.class {
        Class::Unreadable => Error::Unreadable(text),
        Class::Absent | Class::Listed => Error::NoEgm(text),
    }
}

fn no_region(name: &RegionName, host: &Host) -> Error {
    if host.regions.is_empty() {
        return none_of(host, format!("{name}: "));
    }
    let names: Vec<_> = host.regions.iter().map(|region| region.name.as_str()).collect();
    Error::No(format!("no region {name}; this host has {}", names.join(", ")))
}

fn no_gpu(address: PciAddress, host: &Host) -> Error {
    let known: BTreeSet<_> = host.gpus().map(|(gpu, _)| gpu.address).collect();
    if known.is_empty() && host.regions.is_empty() {
        return none_of(host, format!("no GPU {address}, and "));
    }
    let instead = match address.nearest(&known) {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None if known.is_empty() => String::new(),
        None => {
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            format!("; this host has {}", known.join(", "))
        }
    };
    Error::No(format!("no GPU {address} on this host{instead}"))
}
