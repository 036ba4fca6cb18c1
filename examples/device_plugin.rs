//! Which regions can be used with these GPUs?
//!
//! For a device plugin that assigns GPUs to a virtual machine: EGM can be added only if the machine
//! gets all GPUs of a region.
//!
//! ```sh
//! cargo run --example device_plugin -- 0008:01:00.0 0009:01:00.0
//! cargo run --example device_plugin -- --from host.tar.gz 0008:01:00.0 0009:01:00.0
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use egm_probe::host::Region;
use egm_probe::plan::Plan;
use egm_probe::report::Report;
use egm_probe::sysroot::Sysroot;
use egm_probe::values::PciAddress;
use egm_probe::warning::Warning;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (root, gpus) = match args.as_slice() {
        [option, file, gpus @ ..] if option == "--from" => {
            (Sysroot::capture(Path::new(file))?, gpus)
        }
        gpus => (Sysroot::host(), gpus),
    };
    let gpus = gpus.iter().map(|gpu| gpu.parse()).collect::<Result<_, _>>()?;
    write_whole(&mut io::stdout().lock(), &root, &gpus)?;
    Ok(())
}

/// Writes a line for each region whose GPUs are all among these.
pub(crate) fn write_whole(
    out: &mut dyn Write,
    root: &Sysroot,
    gpus: &BTreeSet<PciAddress>,
) -> io::Result<()> {
    // An allocation needs the same facts as a plan: GPUs, nodes, holders.
    let report = Report::read(root, Plan::NEEDS);
    for row in report.rows().filter(|row| is_whole_within(row.region, gpus)) {
        let Region { name, device, size, numa_node, .. } = row.region;
        let or_unknown = |number: Option<u64>| number.map_or("-".into(), |it| it.to_string());
        writeln!(
            out,
            "{name} state={} device={} node={} bytes={}",
            row.capacity.state.name(),
            device.path.display(),
            or_unknown(numa_node.map(|node| node.0.into())),
            or_unknown(size.map(|size| size.0)),
        )?;
    }
    Ok(())
}

/// Whether all GPUs of a region are among these, including GPUs that may belong to the region,
/// since some drivers list only the GPUs bound to them.
fn is_whole_within(region: &Region, gpus: &BTreeSet<PciAddress>) -> bool {
    let suspected = region.warnings.iter().filter_map(|warning| match warning {
        Warning::SuspectedPeer { address, .. } => Some(address),
        _ => None,
    });
    let named = region.gpus.iter().map(|gpu| &gpu.address);
    !region.gpus.is_empty() && named.chain(suspected).all(|address| gpus.contains(address))
}
