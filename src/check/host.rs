//! Rules that need the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::policy::{in_xml, report_shifted};
use super::rules::{
    BEYOND, DEFINED, DEVICE_NODE, DRIVER, HELD, NO_GPU, NOT_A_REGION, OTHER_NAME, OTHER_REGION,
    PARTIAL, PINNING, RESERVED, SUSPECTED, TRAY, UNKNOWN, VCPUS,
};
use super::{Finding, Findings, Severity, Subject};
use crate::claims::Sight;
use crate::domain::{EgmDevice, Hostdev, Maybe, MemoryDevice, Value};
use crate::host::{Gpu, Region, is_passthrough, no_egm};
use crate::report::{Report, State, labels};
use crate::sysroot::Sysroot;
use crate::values::text::excerpts;
use crate::values::{IdList, PciAddress, RegionName, SIZE_STEP};
use crate::warning::Warning;

/// GB200, GB300 and its variant: trays whose GPUs belong together.
const BLACKWELL: [u16; 3] = [0x2941, 0x31c2, 0x31c3];

/// A domain's use of a region.
struct Use<'a> {
    region: &'a Region,
    /// The path of its first device.
    path: &'a Value<String>,
    gpus: BTreeSet<PciAddress>,
    cells: BTreeSet<u32>,
    size: u64,
}

pub(super) fn check(
    subject: &Subject<'_>,
    report: &Report,
    root: Option<&Sysroot>,
    is_starting: bool,
    findings: &mut Findings,
) {
    let mut uses: BTreeMap<&RegionName, Use<'_>> = BTreeMap::new();
    // Missing GPUs can be determined only if region and GPU of every device are known.
    let mut all_known = !subject.domain.other_memory.iter().any(MemoryDevice::is_like_egm);
    for device in &subject.domain.egm {
        let path = device.path.as_ref().filter(|path| path.text.starts_with('/'));
        let region =
            path.and_then(|path| Some((path, region_of(subject, root, device, path, findings)?)));
        let Some((path, region)) = region else {
            all_known = false;
            check_exists(subject, report, device, findings);
            continue;
        };
        let of_region = uses.entry(&region.name).or_insert_with(|| Use {
            region,
            path,
            gpus: BTreeSet::new(),
            cells: BTreeSet::new(),
            size: 0,
        });
        match check_gpu(subject, report, region, device, findings) {
            Some(gpu) => {
                all_known &= of_region.gpus.insert(gpu);
                let cell = device.cell.known().filter(|_| !findings.is_settled(device));
                of_region.cells.extend(cell);
                check_size(of_region, device, findings);
            }
            None => all_known = false,
        }
    }
    check_other_hostdevs(subject, report, findings);
    for used in uses.values() {
        if let Some(problem) = used.region.node_problem() {
            let finding = findings.add(DEVICE_NODE, &used.path.span, problem.to_string());
            finding.help("run `egm-probe doctor`");
        }
        if all_known {
            check_peers(used, findings);
        }
        check_claims(subject, report, used, is_starting, findings);
        check_pins(subject, report, used, findings);
    }
    if all_known {
        check_tray(report, &uses, findings);
    }
}

/// The region of a path, which must be the region's own device path.
fn region_of<'a>(
    subject: &Subject<'a>,
    root: Option<&Sysroot>,
    device: &EgmDevice,
    path: &Value<String>,
    findings: &mut Findings,
) -> Option<&'a Region> {
    let report = subject.report?;
    let regions = &report.host.regions;
    // Compared as paths: a non-canonical form is reported by another rule.
    let own = regions.iter().find(|region| region.device.path == Path::new(&path.text));
    if own.is_some() {
        return own;
    }
    let shown = path.shown();
    let other = root.and_then(|root| report.region_by_other_name(root, path.text.as_ref()));
    if let Some(region) = other {
        let message = format!("{shown} is another name for {}", region.name);
        let finding = findings.add(OTHER_NAME, &path.span, message);
        finding.help(format!("<path>{}</path>", region.device.path.display()));
        return other;
    }
    let finding = findings.add(
        NOT_A_REGION,
        &path.span,
        format!("{shown} is not an EGM region of this host"),
    );
    if regions.is_empty() {
        finding.help(no_egm(report.host.class));
    } else if let Some(region) = subject.region_of_gpu(device) {
        finding.help(format!("<path>{}</path>", region.device.path.display()));
    } else {
        let known: Vec<_> =
            regions.iter().map(|region| region.device.path.to_string_lossy()).collect();
        finding.help(format!("this host has {}", known.join(", ")));
    }
    None
}

/// Checks that the host has the GPU of a device without a known region.
fn check_exists(
    subject: &Subject<'_>,
    report: &Report,
    device: &EgmDevice,
    findings: &mut Findings,
) {
    let found = subject.hostdev(device).and_then(|hostdev| hostdev.address.as_ref());
    let Some((found, address)) = found.and_then(|found| Some((found, found.value?))) else {
        return;
    };
    // Without regions, their absence is the problem.
    if report.host.gpu(address).is_none() && !report.host.regions.is_empty() {
        let gpus = report.host.regions.iter().flat_map(|region| &region.gpus);
        let known = gpus.map(|gpu| gpu.address).collect();
        no_gpu(found, address, &known, findings);
    }
}

/// Reports a GPU that does not exist; returns the finding if no similar address is known.
fn no_gpu<'a>(
    found: &Value<PciAddress>,
    address: PciAddress,
    known: &BTreeSet<PciAddress>,
    findings: &'a mut Findings,
) -> Option<&'a mut Finding> {
    let finding = findings.add(NO_GPU, &found.span, format!("this host has no GPU {address}"));
    let meant: Vec<_> = address.nearest(known).into_iter().map(in_xml).collect();
    if meant.is_empty() {
        return Some(finding);
    }
    finding.help(format!("did you mean {}?", meant.join(" or ")));
    None
}

/// The GPU of a device, if it is one of the region's.
fn check_gpu(
    subject: &Subject<'_>,
    report: &Report,
    region: &Region,
    device: &EgmDevice,
    findings: &mut Findings,
) -> Option<PciAddress> {
    let alias = device.pci_dev.as_ref()?;
    let found = subject.hostdev(device)?.address.as_ref()?;
    let address = found.value?;
    if let Some(gpu) = region.gpus.iter().find(|gpu| gpu.address == address) {
        check_driver(gpu, found, findings);
        return Some(address);
    }
    let Some((_, other)) = report.host.gpu(address) else {
        let known: BTreeSet<_> = region.gpus.iter().map(|gpu| gpu.address).collect();
        if let Some(finding) = no_gpu(found, address, &known, findings) {
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            finding.help(format!("{} has {}", region.name, known.join(", ")));
        }
        return None;
    };
    if findings.is_settled(device) {
        return None;
    }
    let belongs = other.map_or("no region".into(), |other| other.name.to_string());
    let message = format!("GPU {address} belongs to {belongs}, not to {}", region.name);
    let meant = if findings.are_many() { None } else { other_gpu(subject, region, device) };
    let finding = findings.add(OTHER_REGION, &alias.span, message);
    if let Some(meant) = meant {
        finding.help(format!("did you mean GPU {meant} of {}?", region.name));
    } else if let Some(other) = other {
        finding.help(format!("<path>{}</path>", other.device.path.display()));
    }
    None
}

/// The GPU that was meant if not the path is wrong, but the GPU: another device of the same path and
/// cell has a GPU of the region, and a third GPU of the region has no device.
fn other_gpu(subject: &Subject<'_>, region: &Region, device: &EgmDevice) -> Option<PciAddress> {
    let mut free: BTreeSet<_> = region.gpus.iter().map(|gpu| gpu.address).collect();
    let mut is_shared = false;
    for other in &subject.domain.egm {
        let has = subject.hostdev(other).and_then(Hostdev::pci);
        let is_own = !subject.is_foreign(other) && has.is_some_and(|gpu| free.remove(&gpu));
        is_shared |= is_own
            && other.path.text() == device.path.text()
            && other.cell.known() == device.cell.known();
    }
    free.into_iter().next().filter(|_| is_shared)
}

fn check_driver(gpu: &Gpu, found: &Value<PciAddress>, findings: &mut Findings) {
    if !is_passthrough(gpu) || gpu.lacks_memory_access() {
        let message = format!("GPU {} {}", gpu.address, gpu.driver.unfit());
        findings.add(DRIVER, &found.span, message).help("bind it to nvgrace_gpu_vfio_pci");
    }
}

fn check_size(used: &mut Use<'_>, device: &EgmDevice, findings: &mut Findings) {
    let Some(size) = &device.size else { return };
    let before = used.size;
    used.size = before.saturating_add(size.value.map_or(0, |size| size.0));
    if let Some(all) = used.region.size.filter(|all| used.size > all.0) {
        let left = all.0.saturating_sub(before);
        let left = (left - left % SIZE_STEP.0) >> 10;
        let name = &used.region.name;
        let sum = used.size >> 10;
        let message = format!("{name} has {} KiB, but its devices have {sum} KiB", all.0 >> 10);
        let help = match left {
            0 => "reduce the size of each device".into(),
            left => format!("at most {left} KiB"),
        };
        findings.add(BEYOND, &size.span, message).help(help);
    }
}

/// The other `<hostdev>`: one that the host does not have may be a GPU with a misaligned address.
fn check_other_hostdevs(subject: &Subject<'_>, report: &Report, findings: &mut Findings) {
    let of_egm: BTreeSet<_> =
        subject.domain.egm.iter().filter_map(|device| subject.hostdev(device)?.pci()).collect();
    let known: BTreeSet<_> = report.host.gpus().map(|(gpu, _)| gpu.address).collect();
    for hostdev in &subject.domain.hostdevs {
        let Some((found, address)) = hostdev.address.as_ref().zip(hostdev.pci()) else { continue };
        if let Some(meant) = address.shifted().filter(|meant| known.contains(meant))
            && !known.contains(&address)
            && !of_egm.contains(&address)
        {
            report_shifted(found, address, meant, findings);
        }
    }
}

fn check_peers(used: &Use<'_>, findings: &mut Findings) {
    let region = used.region;
    let missing: Vec<_> = region
        .gpus
        .iter()
        .filter(|gpu| !used.gpus.contains(&gpu.address))
        .map(|gpu| gpu.address.to_string())
        .collect();
    if !missing.is_empty() {
        let list = missing.join(", GPU ");
        let verb = if missing.len() == 1 { "is" } else { "are" };
        let message = format!("GPU {list} of {} {verb} not in this domain", region.name);
        findings
            .add(PARTIAL, &used.path.span, message)
            .help("add every GPU of the region, or none");
    }
    for warning in &region.warnings {
        if matches!(warning, Warning::SuspectedPeer { .. }) {
            findings.add(SUSPECTED, &used.path.span, format!("{}: {warning}", region.name));
        }
    }
}

fn check_claims(
    subject: &Subject<'_>,
    report: &Report,
    used: &Use<'_>,
    is_starting: bool,
    findings: &mut Findings,
) {
    let severity = if is_starting { Severity::Error } else { Severity::Warning };
    let availability = report.availability(used.region, Some(&subject.domain.name));
    if !availability.defined.is_empty() {
        let domains = excerpts(&labels(availability.defined));
        let message = format!("{} is also in the definition of {domains}", used.region.name);
        let help = "run only one of them at a time, or give them different regions";
        findings.add(DEFINED, &used.path.span, message).help(help);
    }
    let holders = availability.holders;
    if !holders.is_empty() {
        let holders = excerpts(&labels(holders));
        let message = format!("{} is in use by {holders}", used.region.name);
        findings.add(HELD, &used.path.span, message).severity = severity;
    } else if is_starting && availability.state == State::Unknown {
        check_sight(report, used, findings);
    }
    for lease in availability.leases {
        let message = format!("{} is reserved for {}", used.region.name, lease.describe());
        let finding = findings.add(RESERVED, &used.path.span, message);
        finding.severity = severity;
        finding.help("`egm-probe release` ends a reservation");
    }
}

/// The reason why the state of a region is unknown.
fn check_sight(report: &Report, used: &Use<'_>, findings: &mut Findings) {
    let name = &used.region.name;
    let (problem, help) = match &report.claims.leases_unread {
        // It includes the remedy.
        Some(problem) => (problem.to_string(), None),
        None if report.claims.sight == Sight::Skipped => {
            ("holders were not checked".into(), Some("check on the host, without --no-occupancy"))
        }
        None => ("not all potential holders are visible".into(), Some("run as root")),
    };
    let message = format!("cannot determine whether {name} is available: {problem}");
    findings.add(UNKNOWN, &used.path.span, message).help = help.map(Into::into);
}

/// The virtual CPUs of a region's cells run on the CPUs of the region's node.
fn check_pins(subject: &Subject<'_>, report: &Report, used: &Use<'_>, findings: &mut Findings) {
    // A CPU that is in two cells may belong to either.
    let Some(node) = used.region.numa_node.filter(|_| !findings.has(&[VCPUS])) else { return };
    let topology = report.host.topology.nodes.get(&node);
    let Some(local) = topology.and_then(|node| node.cpus.as_ref()) else { return };
    let cells = used.cells.iter().filter_map(|id| subject.cells.get(id));
    let cpus: IdList = cells
        .filter_map(|cell| cell.cpus.as_ref()?.value.clone())
        .fold(IdList::default(), |all, cpus| all.with(&cpus));
    let pins = subject.domain.pins.iter().filter_map(|pin| {
        let vcpu = pin.vcpu.known().filter(|&vcpu| cpus.contains(vcpu))?;
        let far = pin.cpus.value.as_ref()?.first_beyond(local)?;
        Some((vcpu, far, &pin.cpus.span))
    });
    let pins: Vec<_> = pins.collect();
    let Some((_, far, span)) = pins.first() else { return };
    let vcpus: IdList = pins.iter().map(|(vcpu, ..)| *vcpu).collect();
    let name = &used.region.name;
    let message = if vcpus.len() == 1 {
        format!("virtual CPU {vcpus} runs on CPU {far}, but {name} is on NUMA node {node}")
    } else {
        format!("virtual CPUs {vcpus} run on CPUs such as {far}, but {name} is on NUMA node {node}")
    };
    findings.add(PINNING, span, message).help(format!(
        "CPUs {local}; `egm-probe stanza --with pinning --replace --domain FILE` pins all"
    ));
}

fn check_tray(report: &Report, uses: &BTreeMap<&RegionName, Use<'_>>, findings: &mut Findings) {
    let Some(first) = uses.values().next() else { return };
    let is_blackwell = |gpu: &Gpu| gpu.device_id.is_some_and(|id| BLACKWELL.contains(&id));
    let mut others = Vec::new();
    for region in &report.host.regions {
        if !uses.contains_key(&region.name) && region.gpus.iter().any(is_blackwell) {
            others.push(region.name.as_str());
        }
    }
    if !others.is_empty() && first.region.gpus.iter().any(is_blackwell) {
        let message = format!("this domain has no EGM memory of {}", others.join(", "));
        findings
            .add(TRAY, &first.path.span, message)
            .help("`egm-probe stanza --all --complete --domain FILE` adds the other GPUs");
    }
}
