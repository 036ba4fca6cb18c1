//! `egm-probe show`

use std::io::Write;

use super::args::{Global, ShowArgs};
use super::error::Error;
use super::{Exit, no_egm, write_warnings};
use crate::host::{Host, Needs, RegionName};
use crate::output::json;
use crate::output::show::{self, Selection};
use crate::pci::PciAddress;

pub(super) fn run(
    args: &ShowArgs,
    global: &Global,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    let host = Host::read(&global.root()?, Needs::all());
    let selection = select(args, &host).inspect_err(|_| write_warnings(err, &host, []))?;
    if args.json {
        json::write_show(out, &host, &selection)?;
        return Ok(Exit::Done);
    }
    show::write(out, &host, &selection)?;
    out.flush()?;
    let of_gpus = selection.single_gpus.iter().filter_map(|(_, region)| *region);
    let mut regions: Vec<_> = selection.regions.iter().copied().chain(of_gpus).collect();
    regions.sort_by_key(|region| &region.name);
    regions.dedup_by_key(|region| &region.name);
    write_warnings(err, &host, regions);
    Ok(Exit::Done)
}

/// The regions and GPUs that were asked for, each once, in the order they were asked for.
fn select<'a>(args: &ShowArgs, host: &'a Host) -> Result<Selection<'a>, Error> {
    let mut selection = Selection::default();
    if args.regions.is_empty() && args.gpus.is_empty() {
        if host.regions.is_empty() {
            return Err(Error::NoEgm(no_egm(host).into()));
        }
        selection.regions = host.regions.iter().collect();
    }
    for name in &args.regions {
        let region = host.region(name).ok_or_else(|| no_region(name, host))?;
        if !selection.regions.iter().any(|chosen| chosen.name == *name) {
            selection.regions.push(region);
        }
    }
    for address in &args.gpus {
        let gpu = host.gpu(*address).ok_or_else(|| no_gpu(*address, host))?;
        if !selection.single_gpus.iter().any(|(chosen, _)| chosen.address == *address) {
            selection.single_gpus.push(gpu);
        }
    }
    Ok(selection)
}

fn no_region(name: &RegionName, host: &Host) -> Error {
    if host.regions.is_empty() {
        return Error::NoEgm(format!("{name}: {}", no_egm(host)));
    }
    let names: Vec<_> = host.regions.iter().map(|region| region.name.as_str()).collect();
    Error::No(format!("no region {name}; this host has {}", names.join(", ")))
}

fn no_gpu(address: PciAddress, host: &Host) -> Error {
    let known: Vec<_> = host.gpu_addresses().copied().collect();
    if known.is_empty() && host.regions.is_empty() {
        return Error::NoEgm(format!("no GPU {address}, and {}", no_egm(host)));
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
