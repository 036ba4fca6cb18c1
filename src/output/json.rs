//! The JSON documents, as `schema/*.json` describes them. Sizes are bytes; unknown is `null`.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::claims::{Claim, LeaseClaim, LibvirtClaim, ProcessClaim, Ranges, Sight, Via};
use crate::host::{
    Bar, Device, Gpu, GpuSource, LinkSpeed, NodeKind, NodeSource, NumaNode, PcieLink, Region, Shape,
};
use crate::report::{Capacity, Report, Row, State};
use crate::values::text::is_plain;
use crate::values::{Bytes, Moment, NodeId, PciAddress, RegionName};
use crate::warning::Warning;

use super::show::Selection;

/// Writes `egm-probe.list/1`: all regions of a host.
///
/// # Errors
/// The writer fails.
pub fn write_list(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let list = List {
        schema: "egm-probe.list/1",
        occupancy: occupancy(report.claims.sight),
        open_files: report.claims.open_files,
        unseen_pids: report.claims.unseen_pids(),
        regions: report.rows().map(RegionEntry::new).collect(),
        warnings: report.warnings().collect(),
    };
    write(out, &list)
}

/// Writes `egm-probe.show/1`: everything known about some regions and GPUs.
///
/// # Errors
/// The writer fails.
pub fn write_show(
    out: &mut dyn Write,
    report: &Report,
    selection: &Selection<'_>,
) -> io::Result<()> {
    let gpus = selection.gpus().into_iter();
    let nodes = selection.nodes().into_iter();
    let show = Show {
        schema: "egm-probe.show/1",
        occupancy: occupancy(report.claims.sight),
        iommufd: report.host.iommufd,
        regions: selection.regions().map(|region| RegionDetails::new(report.row(region))).collect(),
        gpus: gpus.map(|(gpu, region)| GpuDetails::new(gpu, region)).collect(),
        numa_nodes: nodes
            .filter_map(|id| Some(NodeDetails::new(id, report.host.topology.nodes.get(&id)?)))
            .collect(),
        warnings: show_warnings(report, selection),
    };
    write(out, &show)
}

/// The host's warnings, and those of regions that are not shown themselves, but have a shown GPU.
fn show_warnings(report: &Report, selection: &Selection<'_>) -> Vec<String> {
    let is_shown = |region: &&Region| selection.regions().any(|shown| shown.name == region.name);
    let others = selection.concerned_regions().filter(|region| !is_shown(region));
    let others = others.flat_map(|region| {
        region.warnings.iter().map(|warning| format!("{}: {warning}", region.name))
    });
    report.warnings().map(ToString::to_string).chain(others).collect()
}

pub(super) fn occupancy(sight: Sight) -> &'static str {
    match sight {
        Sight::Skipped => "skipped",
        Sight::Partial => "partial",
        Sight::Complete => "complete",
    }
}

pub(super) fn write(out: &mut dyn Write, document: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(document)?;
    text.lines().try_for_each(|line| write_line(out, line))
}

/// Writes a line of JSON, with terminal controls escaped, as `\u009b`.
pub(super) fn write_line(out: &mut dyn Write, line: &str) -> io::Result<()> {
    for part in line.split_inclusive(|c| !is_plain(c)) {
        let last = part.chars().next_back().filter(|last| !is_plain(*last));
        let plain = last.and_then(|last| part.strip_suffix(last)).unwrap_or(part);
        out.write_all(plain.as_bytes())?;
        for unit in last.iter().flat_map(|last| last.encode_utf16(&mut [0; 2]).to_vec()) {
            write!(out, "\\u{unit:04x}")?;
        }
    }
    writeln!(out)
}

#[derive(Serialize)]
struct List<'a> {
    schema: &'static str,
    occupancy: &'static str,
    open_files: Option<u64>,
    unseen_pids: Vec<u32>,
    regions: Vec<RegionEntry<'a>>,
    warnings: Vec<&'a Warning>,
}

#[derive(Serialize)]
struct Show<'a> {
    schema: &'static str,
    occupancy: &'static str,
    iommufd: Option<bool>,
    regions: Vec<RegionDetails<'a>>,
    gpus: Vec<GpuDetails<'a>>,
    numa_nodes: Vec<NodeDetails>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct RegionEntry<'a> {
    name: &'a RegionName,
    path: Text<'a>,
    shape: Option<Shape>,
    learnt_from: &'a [GpuSource],
    numa_node: Option<NodeId>,
    numa_node_from: Option<NodeSource>,
    size: Option<Bytes>,
    free: Option<Bytes>,
    held: Option<Bytes>,
    stranded: Option<Bytes>,
    state: State,
    gone: bool,
    device: DeviceEntry<'a>,
    gpus: Vec<GpuEntry<'a>>,
    claims: Vec<ClaimEntry<'a>>,
    warnings: Vec<&'a Warning>,
}

impl<'a> RegionEntry<'a> {
    pub(super) fn new(row: Row<'a>) -> Self {
        let region = row.region;
        let Capacity { state, free, held, stranded } = row.capacity;
        Self {
            name: &region.name,
            path: Text(&region.device.path),
            shape: region.shape,
            learnt_from: &region.learnt_from,
            numa_node: region.numa_node,
            numa_node_from: region.numa_node_from,
            size: region.size,
            free,
            held,
            stranded,
            state,
            gone: row.is_gone,
            device: DeviceEntry::new(&region.device),
            gpus: region.gpus.iter().map(GpuEntry::new).collect(),
            claims: row.claims.iter().map(ClaimEntry::new).collect(),
            warnings: region.all_warnings().collect(),
        }
    }
}

#[derive(Serialize)]
struct DeviceEntry<'a> {
    major: Option<u32>,
    minor: Option<u32>,
    mode: Option<String>,
    user: Option<&'a str>,
    group: Option<&'a str>,
}

impl<'a> DeviceEntry<'a> {
    fn new(device: &'a Device) -> Self {
        let owner = device.owner.as_ref();
        Self {
            major: device.number.map(|number| number.major),
            minor: device.number.map(|number| number.minor),
            mode: owner.map(|owner| format!("{:04o}", owner.mode)),
            user: owner.map(|owner| owner.user.as_str()),
            group: owner.map(|owner| owner.group.as_str()),
        }
    }
}

#[derive(Serialize)]
struct GpuEntry<'a> {
    address: PciAddress,
    vendor_id: Option<String>,
    device_id: Option<String>,
    name: Option<&'a str>,
    driver: Option<&'a str>,
    numa_node: Option<NodeId>,
    iommu_group: Option<u32>,
    smmu: Option<&'a str>,
    bars: Option<Vec<BarEntry>>,
    link: Option<LinkEntry>,
    own_nodes: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct BarEntry {
    index: u8,
    size: Bytes,
    bits: u8,
    prefetchable: bool,
}

#[derive(Serialize)]
struct LinkEntry {
    speed: Option<LinkSpeed>,
    width: Option<u8>,
}

impl BarEntry {
    fn new(bar: &Bar) -> Self {
        let Bar { index, size, is_64bit, is_prefetchable, .. } = *bar;
        let bits = if is_64bit { 64 } else { 32 };
        Self { index, size, bits, prefetchable: is_prefetchable }
    }
}

impl LinkEntry {
    fn new(link: PcieLink) -> Option<Self> {
        let PcieLink { speed, width, .. } = link;
        (link != PcieLink::default()).then_some(Self { speed, width })
    }
}

impl<'a> GpuEntry<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        Self {
            address: gpu.address,
            vendor_id: gpu.vendor_id.map(|id| format!("{id:04x}")),
            device_id: gpu.device_id.map(|id| format!("{id:04x}")),
            name: gpu.name.as_deref(),
            driver: gpu.driver.name(),
            numa_node: gpu.numa_node.id(),
            iommu_group: gpu.iommu_group,
            smmu: gpu.smmu.as_deref(),
            bars: gpu.bars.as_ref().map(|bars| bars.iter().map(BarEntry::new).collect()),
            link: LinkEntry::new(gpu.link),
            own_nodes: gpu.own_nodes.as_ref().map(|nodes| nodes.iter().collect()),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum ClaimEntry<'a> {
    Process {
        pid: u32,
        command: Option<&'a str>,
        user: Option<&'a str>,
        domain: Option<&'a str>,
        helper_of: Option<u32>,
        via: Via,
        held: Bytes,
        ranges: &'a Ranges,
    },
    Libvirt {
        domain: &'a str,
        running: bool,
        held: Option<Bytes>,
        file: Text<'a>,
    },
    Lease {
        domain: &'a str,
        expires: Moment,
        pid: Option<u32>,
    },
}

impl<'a> ClaimEntry<'a> {
    fn new(claim: &'a Claim) -> Self {
        match claim {
            Claim::Process(ProcessClaim {
                pid,
                command,
                user,
                domain,
                helper_of,
                via,
                ranges,
                ..
            }) => Self::Process {
                pid: *pid,
                command: command.as_deref(),
                user: user.as_deref(),
                domain: domain.as_deref(),
                helper_of: *helper_of,
                via: *via,
                held: ranges.total(),
                ranges,
            },
            Claim::Libvirt(LibvirtClaim { domain, is_running, size, file }) => {
                Self::Libvirt { domain, running: *is_running, held: *size, file: Text(file) }
            }
            Claim::Lease(LeaseClaim { domain, expires, pid }) => {
                Self::Lease { domain, expires: *expires, pid: *pid }
            }
        }
    }
}

#[derive(Serialize)]
struct RegionDetails<'a> {
    #[serde(flatten)]
    entry: RegionEntry<'a>,
    sysfs: Text<'a>,
    links: Option<Vec<Text<'a>>>,
}

impl<'a> RegionDetails<'a> {
    fn new(row: Row<'a>) -> Self {
        let region = row.region;
        let links = region.device.links.as_ref();
        Self {
            entry: RegionEntry::new(row),
            sysfs: Text(&region.path),
            links: links.map(|links| links.iter().map(|link| Text(link)).collect()),
        }
    }
}

#[derive(Serialize)]
pub(super) struct GpuDetails<'a> {
    #[serde(flatten)]
    entry: GpuEntry<'a>,
    region: Option<&'a RegionName>,
    class: Option<String>,
    local_cpus: Option<String>,
    sysfs: Text<'a>,
    warnings: &'a [Warning],
}

impl<'a> GpuDetails<'a> {
    pub(super) fn new(gpu: &'a Gpu, region: Option<&'a Region>) -> Self {
        Self {
            entry: GpuEntry::new(gpu),
            region: region.map(|region| &region.name),
            class: gpu.class.map(|class| format!("{class:06x}")),
            local_cpus: gpu.local_cpus.as_ref().map(ToString::to_string),
            sysfs: Text(&gpu.path),
            warnings: &gpu.warnings,
        }
    }
}

#[derive(Serialize)]
pub(super) struct NodeDetails {
    node: NodeId,
    kind: Option<NodeKind>,
    cpus: Option<String>,
    memory: Option<Bytes>,
    distances: Option<Vec<Distance>>,
}

#[derive(Serialize)]
struct Distance {
    node: NodeId,
    distance: u32,
}

impl NodeDetails {
    pub(super) fn new(id: NodeId, node: &NumaNode) -> Self {
        let distances = node.distances.as_ref();
        Self {
            node: id,
            kind: node.kind(),
            cpus: node.cpus.as_ref().map(ToString::to_string),
            memory: node.memory,
            distances: distances.map(|distances| {
                distances.iter().map(|(&node, &distance)| Distance { node, distance }).collect()
            }),
        }
    }
}

/// A path as text; invalid UTF-8 is replaced, because JSON strings are Unicode.
struct Text<'a>(&'a Path);

impl Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string_lossy())
    }
}
