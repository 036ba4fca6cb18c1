//! The JSON documents, as `schema/*.json` describes them. Sizes are bytes; unknown is `null`.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::capacity::{Capacity, Occupancy, State};
use crate::host::{
    Device, Gpu, Host, NodeId, NodeKind, NodeSource, NumaNode, Region, RegionName, Shape, Source,
};
use crate::pci::PciAddress;
use crate::units::Bytes;
use crate::warning::Warning;

use super::show::Selection;

/// Writes `egm-probe.list/1`: all regions of a host.
///
/// # Errors
/// Those of the writer.
pub fn write_list(out: &mut dyn Write, host: &Host) -> io::Result<()> {
    let list = List {
        schema: "egm-probe.list/1",
        occupancy: Occupancy::default(),
        regions: host.regions.iter().map(RegionEntry::new).collect(),
        warnings: &host.warnings,
    };
    write(out, &list)
}

/// Writes `egm-probe.show/1`: everything known of some regions and GPUs.
///
/// # Errors
/// Those of the writer.
pub fn write_show(out: &mut dyn Write, host: &Host, selection: &Selection<'_>) -> io::Result<()> {
    let nodes = selection.nodes();
    let show = Show {
        schema: "egm-probe.show/1",
        occupancy: Occupancy::default(),
        regions: selection.regions.iter().map(|region| RegionDetails::new(region)).collect(),
        gpus: selection
            .gpus()
            .into_iter()
            .map(|(gpu, region)| GpuDetails::new(gpu, region))
            .collect(),
        numa_nodes: nodes
            .iter()
            .filter_map(|id| Some(NodeDetails::new(*id, host.topology.nodes.get(id)?)))
            .collect(),
        warnings: &host.warnings,
    };
    write(out, &show)
}

fn write(out: &mut dyn Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}

#[derive(Serialize)]
struct List<'a> {
    schema: &'static str,
    occupancy: Occupancy,
    regions: Vec<RegionEntry<'a>>,
    warnings: &'a [Warning],
}

#[derive(Serialize)]
struct Show<'a> {
    schema: &'static str,
    occupancy: Occupancy,
    regions: Vec<RegionDetails<'a>>,
    gpus: Vec<GpuDetails<'a>>,
    numa_nodes: Vec<NodeDetails>,
    warnings: &'a [Warning],
}

#[derive(Serialize)]
struct RegionEntry<'a> {
    name: &'a RegionName,
    path: Text<'a>,
    shape: Option<Shape>,
    learnt_from: &'a [Source],
    numa_node: Option<NodeId>,
    numa_node_from: Option<NodeSource>,
    size: Option<Bytes>,
    free: Option<Bytes>,
    held: Option<Bytes>,
    stranded: Option<Bytes>,
    state: State,
    device: DeviceEntry<'a>,
    gpus: Vec<GpuEntry<'a>>,
    claims: [(); 0],
    warnings: &'a [Warning],
}

impl<'a> RegionEntry<'a> {
    fn new(region: &'a Region) -> Self {
        let Capacity { state, free, held, stranded } = Capacity::default();
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
            device: DeviceEntry::new(&region.device),
            gpus: region.gpus.iter().map(GpuEntry::new).collect(),
            claims: [],
            warnings: &region.warnings,
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
}

impl<'a> GpuEntry<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        Self {
            address: gpu.address,
            vendor_id: gpu.vendor_id.map(|id| format!("{id:04x}")),
            device_id: gpu.device_id.map(|id| format!("{id:04x}")),
            name: gpu.name.as_deref(),
            driver: gpu.driver.name(),
            numa_node: gpu.numa_node,
            iommu_group: gpu.iommu_group,
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
    fn new(region: &'a Region) -> Self {
        let links = region.device.links.as_ref();
        Self {
            entry: RegionEntry::new(region),
            sysfs: Text(&region.path),
            links: links.map(|links| links.iter().map(|link| Text(link)).collect()),
        }
    }
}

#[derive(Serialize)]
struct GpuDetails<'a> {
    #[serde(flatten)]
    entry: GpuEntry<'a>,
    region: Option<&'a RegionName>,
    class: Option<String>,
    local_cpus: Option<String>,
    sysfs: Text<'a>,
}

impl<'a> GpuDetails<'a> {
    fn new(gpu: &'a Gpu, region: Option<&'a Region>) -> Self {
        Self {
            entry: GpuEntry::new(gpu),
            region: region.map(|region| &region.name),
            class: gpu.class.map(|class| format!("{class:06x}")),
            local_cpus: gpu.local_cpus.as_ref().map(ToString::to_string),
            sysfs: Text(&gpu.path),
        }
    }
}

#[derive(Serialize)]
struct NodeDetails {
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
    fn new(id: NodeId, node: &NumaNode) -> Self {
        let distances = node.distances.as_ref();
        Self {
            node: id,
            kind: node.kind(),
            cpus: node.cpus.as_ref().map(ToString::to_string),
            memory: node.memory,
            distances: distances.map(|distances| {
                let entry = |(node, distance): (&NodeId, &u32)| Distance {
                    node: *node,
                    distance: *distance,
                };
                distances.iter().map(entry).collect()
            }),
        }
    }
}

/// A path as text; what is not UTF-8 in it is replaced, since JSON has no other strings.
struct Text<'a>(&'a Path);

impl Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string_lossy())
    }
}
