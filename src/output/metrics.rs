//! A host's regions as metrics, in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Unknown values have no sample.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::all_gpus;
use crate::claims::{Claim, Sight};
use crate::host::{Class, Needs, Region, Shape};
use crate::report::{Report, Row, State};
use crate::values::text::printable;
use crate::values::{Bytes, NodeId};

/// The parts of a host that the metrics need, for [`Report::read`].
pub const NEEDS: Needs =
    Needs::OTHER_GPUS.union(Needs::GPU_NAMES).union(Needs::CLAIMS).union(Needs::DEVICE_NODE);

/// The number of domains for each region: each is a time series of its own.
const DOMAINS: usize = 8;

/// Writes all metrics of a host, which must have been read with [`NEEDS`].
///
/// # Errors
/// The writer fails.
pub fn write(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut metrics = String::new();
    let rows: Vec<_> = report.rows().collect();
    add(&mut metrics, &rows, report);
    out.write_all(metrics.as_bytes())
}

fn add(out: &mut String, rows: &[Row<'_>], report: &Report) {
    add_sizes(out, rows);
    add_states(out, rows);
    add_descriptions(out, rows, report);
    head(out, "egm_regions", "Number of regions.");
    if report.host.class != Class::Unreadable {
        sample(out, "egm_regions", &[], count(report.host.regions.len()));
    }
    head(out, "egm_scan_complete", "Whether all potential holders could be examined.");
    let complete = report.claims.sight == Sight::Complete && report.claims.leases_unread.is_none();
    sample(out, "egm_scan_complete", &[], u64::from(complete));
    head(out, "egm_scan_warnings", "Number of warnings for the host as a whole.");
    sample(out, "egm_scan_warnings", &[], count(report.warnings().count()));
}

fn domain(claim: &Claim) -> Option<&str> {
    match claim {
        Claim::Process(process) => process.domain.as_deref(),
        Claim::Libvirt(definition) => Some(&definition.domain),
        Claim::Lease(_) => None,
    }
}

fn add_sizes(out: &mut String, rows: &[Row<'_>]) {
    let mut add = |name: &str, help: &str, value: fn(&Row<'_>) -> Option<Bytes>| {
        of_regions(out, rows, &format!("egm_region_{name}_bytes"), help, |row| Some(value(row)?.0));
    };
    add("size", "Size of the region.", |row| row.region.size);
    add("free", "Memory of the region that is available to a virtual machine.", |row| {
        row.capacity.free
    });
    add("held", "Memory mapped by the region's holder.", |row| row.capacity.held);
    let unmapped = "Memory not mapped by the region's holder, unusable for others.";
    add("stranded", unmapped, |row| row.capacity.stranded);
}

fn add_states(out: &mut String, rows: &[Row<'_>]) {
    head(out, "egm_region_state", "State of the region: 1 for the current state, 0 for others.");
    for row in rows {
        for &state in State::ALL {
            let labels = [("region", row.region.name.as_str()), ("state", state.name())];
            sample(out, "egm_region_state", &labels, u64::from(row.capacity.state == state));
        }
    }
    let help = "Number of processes and running virtual machines that hold the region.";
    of_regions(out, rows, "egm_region_holders", help, |row| {
        let holders = row.claims.iter().filter(|claim| claim.is_held()).count();
        (row.capacity.state != State::Unknown).then(|| count(holders))
    });
    let name = "egm_region_holder_info";
    head(out, name, "Virtual machines that hold the region, at most eight of them.");
    for row in rows {
        let domains = row.claims.iter().filter(|claim| claim.is_held());
        let domains: BTreeSet<&str> = domains.filter_map(domain).collect();
        for domain in domains.into_iter().take(DOMAINS) {
            sample(out, name, &[("region", row.region.name.as_str()), ("domain", domain)], 1);
        }
    }
    let name = "egm_region_lease_expires_timestamp_seconds";
    head(out, name, "Time when the reservation of the region expires.");
    for row in rows {
        for claim in row.claims {
            if let Claim::Lease(lease) = claim {
                let labels = [("region", row.region.name.as_str()), ("domain", &lease.domain)];
                sample(out, name, &labels, lease.expires.0);
            }
        }
    }
}

fn add_descriptions(out: &mut String, rows: &[Row<'_>], report: &Report) {
    let help = "Number of warnings for the region.";
    let warnings = |row: &Row<'_>| Some(count(row.region.all_warnings().count()));
    of_regions(out, rows, "egm_region_warnings", help, warnings);
    head(out, "egm_region_info", "Properties of the region; always 1.");
    for row in rows {
        let Region { name, numa_node, shape, device, .. } = row.region;
        let node = numa_node.map(|node: NodeId| node.to_string()).unwrap_or_default();
        let path = device.path.to_string_lossy();
        let shape = shape.map_or("", Shape::name);
        let labels =
            [("region", name.as_str()), ("path", &path), ("numa_node", &node), ("shape", shape)];
        sample(out, "egm_region_info", &labels, 1);
    }
    head(out, "egm_gpu_info", "Properties of the GPU; always 1.");
    for (gpu, region) in all_gpus(&report.host).into_values() {
        let address = gpu.address.to_string();
        let region = region.map_or("", |region| region.name.as_str());
        let driver = gpu.driver.name().unwrap_or_default();
        let name = gpu.name.as_deref().unwrap_or_default();
        let labels = [("gpu", &*address), ("region", region), ("driver", driver), ("name", name)];
        sample(out, "egm_gpu_info", &labels, 1);
    }
}

/// A metric with one sample for each region whose value is known.
fn of_regions(
    out: &mut String,
    rows: &[Row<'_>],
    name: &str,
    help: &str,
    value: impl Fn(&Row<'_>) -> Option<u64>,
) {
    head(out, name, help);
    for row in rows {
        if let Some(value) = value(row) {
            sample(out, name, &[("region", row.region.name.as_str())], value);
        }
    }
}

fn head(out: &mut String, name: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let _ = write!(out, "{before}{label}=\"{}\"", escaped(text));
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(out, "{end} {value}");
}

/// Escapes a label value. Control characters, such as newlines, have become backslash escapes before.
fn escaped(text: &str) -> String {
    printable(text).replace('\\', "\\\\").replace('"', "\\\"")
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
