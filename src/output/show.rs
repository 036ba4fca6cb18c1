//! The output of `show`: everything known of a region or a GPU, and how it was learnt.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::{or_dash, shown};
use crate::capacity::Capacity;
use crate::host::{Driver, Gpu, Host, NodeId, NodeSource, NumaNode, Owner, Region, Shape};
use crate::text::printable;

/// What of a host is shown.
#[derive(Debug, Default)]
pub struct Selection<'a> {
    /// These regions, with their GPUs.
    pub regions: Vec<&'a Region>,
    /// These GPUs, each with the region that names it.
    pub single_gpus: Vec<(&'a Gpu, Option<&'a Region>)>,
}

impl<'a> Selection<'a> {
    /// The GPUs of the regions, and the others.
    pub(super) fn gpus(&self) -> Vec<(&'a Gpu, Option<&'a Region>)> {
        let of_regions = self.regions.iter().flat_map(|region| {
            let region: &'a Region = region;
            region.gpus.iter().map(move |gpu| (gpu, Some(region)))
        });
        of_regions.chain(self.single_gpus.iter().copied()).collect()
    }

    /// The NUMA nodes of the regions and GPUs.
    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        let of_regions = self.regions.iter().filter_map(|region| region.numa_node);
        let of_gpus = self
            .gpus()
            .into_iter()
            .flat_map(|(gpu, region)| [gpu.numa_node, region.and_then(|region| region.numa_node)]);
        of_regions.chain(of_gpus.flatten()).collect()
    }
}

/// Writes the selection as text, a blank line between its parts.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut dyn Write, host: &Host, selection: &Selection<'_>) -> io::Result<()> {
    let mut first = true;
    let mut separate = |out: &mut dyn Write| {
        if std::mem::take(&mut first) { Ok(()) } else { writeln!(out) }
    };
    for region in &selection.regions {
        separate(out)?;
        write_region(out, host, region)?;
    }
    for (gpu, region) in &selection.single_gpus {
        separate(out)?;
        let name = region.map_or("none", |region| region.name.as_str());
        writeln!(out, "GPU {}", gpu.address)?;
        field(out, "region", name)?;
        write_gpu(out, host, gpu, "")?;
    }
    Ok(())
}

fn write_region(out: &mut dyn Write, host: &Host, region: &Region) -> io::Result<()> {
    let Capacity { state, free, held, stranded } = Capacity::default();
    writeln!(out, "{}", region.name)?;
    field(out, "device", &device(region))?;
    if let Some(links) = region.device.links.as_ref().filter(|links| !links.is_empty()) {
        let links: Vec<_> = links.iter().map(|link| shown(link)).collect();
        field(out, "links", &links.join(", "))?;
    }
    let size = region.size.map(|size| format!("{size} ({} bytes)", size.0));
    field(out, "size", &or_dash(size))?;
    field(out, "state", state.name())?;
    field(out, "free", &or_dash(free))?;
    field(out, "held", &or_dash(held))?;
    field(out, "stranded", &or_dash(stranded))?;
    field(out, "NUMA node", &host_node(host, region))?;
    let learnt: Vec<_> = region.learnt_from.iter().map(|source| source.name()).collect();
    let learnt = (!learnt.is_empty()).then(|| learnt.join(", "));
    let shape = or_dash(region.shape.map(Shape::name));
    field(out, "driver shape", &format!("{shape} (GPUs learnt from: {})", or_dash(learnt)))?;
    field(out, "sysfs", &shown(&region.path))?;
    if region.gpus.is_empty() {
        field(out, "GPUs", "-")?;
    }
    for gpu in &region.gpus {
        field(out, "GPU", &gpu.address.to_string())?;
        write_gpu(out, host, gpu, "  ")?;
    }
    Ok(())
}

fn device(region: &Region) -> String {
    let device = &region.device;
    let number = or_dash(device.number);
    let owner = device.owner.as_ref();
    let owner = owner.map(|Owner { mode, user, group }| {
        format!("{mode:04o} {}:{}", printable(user), printable(group))
    });
    format!("{} ({number}), {}", shown(&device.path), owner.as_deref().unwrap_or("owner unknown"))
}

fn host_node(host: &Host, region: &Region) -> String {
    let (Some(node), Some(source)) = (region.numa_node, region.numa_node_from) else {
        return "-".into();
    };
    let how = match source {
        NodeSource::Gpu => "the node of its GPUs",
        NodeSource::NearestCpuNode => "the nearest with CPUs to the node of its GPUs",
        NodeSource::LocalCpus => "the node with the local CPUs of its GPUs",
    };
    format!("{}; {how}", node_text(host, node))
}

/// `0 (cpu, CPUs 0-71, 471.8 GiB)`
fn node_text(host: &Host, id: NodeId) -> String {
    let Some(node) = host.topology.nodes.get(&id) else {
        return id.to_string();
    };
    let NumaNode { cpus, memory, .. } = node;
    let cpus = cpus.as_ref().filter(|cpus| !cpus.is_empty()).map(|cpus| format!("CPUs {cpus}"));
    // Of a GPU's own node, how far it is to the sockets.
    let is_own = host.topology.has_cpus(id) == Some(false);
    let to_sockets = node
        .distances
        .iter()
        .flatten()
        .filter(|(to, _)| is_own && host.topology.has_cpus(**to) == Some(true));
    let to_sockets: Vec<_> =
        to_sockets.map(|(to, distance)| format!("{distance} to node {to}")).collect();
    let facts = [
        node.kind().map(|kind| kind.name().replace('-', " ")),
        cpus,
        memory.filter(|memory| memory.0 > 0).map(|memory| memory.to_string()),
        (!to_sockets.is_empty()).then(|| format!("distance {}", to_sockets.join(", "))),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    if facts.is_empty() { id.to_string() } else { format!("{id} ({})", facts.join(", ")) }
}

fn write_gpu(out: &mut dyn Write, host: &Host, gpu: &Gpu, indent: &str) -> io::Result<()> {
    let mut field = |label: &str, value: &str| field(out, &format!("{indent}{label}"), value);
    field("name", &or_dash(gpu.name.as_deref().map(printable)))?;
    let hex = |id: Option<u16>| or_dash(id.map(|id| format!("{id:04x}")));
    let class = or_dash(gpu.class.map(|class| format!("{class:06x}")));
    let ids = format!("{}:{}, class {class}", hex(gpu.vendor_id), hex(gpu.device_id));
    field("ids", &ids)?;
    let driver = match &gpu.driver {
        Driver::Bound(name) => printable(name),
        Driver::Unbound => "none".into(),
        Driver::Unknown => "-".into(),
    };
    field("driver", &driver)?;
    field("IOMMU group", &or_dash(gpu.iommu_group))?;
    field("NUMA node", &or_dash(gpu.numa_node.map(|node| node_text(host, node))))?;
    field("local CPUs", &or_dash(gpu.local_cpus.as_ref()))?;
    field("sysfs", &shown(&gpu.path))
}

fn field(out: &mut dyn Write, label: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {label:<14} {value}")
}
