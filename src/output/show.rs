//! The output of `show`: everything known about a region or a GPU, and where it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::or_dash;
use crate::claims::{Claim, LeaseClaim, LibvirtClaim, ProcessClaim, Range};
use crate::host::{Bar, Driver, Gpu, Host, NodeSource, NumaNode, PcieLink, Region, Shape};
use crate::report::{Capacity, Report, Row};
use crate::values::text::{plural, printable, shown};
use crate::values::{Bytes, Moment, NodeId, PciAddress, RegionName};

/// The regions and GPUs to show: each once, regions in natural order, GPUs by address.
#[derive(Debug, Default)]
pub struct Selection<'a> {
    regions: BTreeMap<&'a RegionName, &'a Region>,
    /// GPUs whose regions are not shown.
    single_gpus: BTreeMap<PciAddress, (&'a Gpu, Option<&'a Region>)>,
}

impl<'a> Selection<'a> {
    /// Adds a region with its GPUs.
    pub fn add_region(&mut self, region: &'a Region) {
        self.regions.insert(&region.name, region);
    }

    /// Adds a GPU, with its region.
    pub fn add_gpu(&mut self, gpu: &'a Gpu, region: Option<&'a Region>) {
        self.single_gpus.insert(gpu.address, (gpu, region));
    }

    /// The regions.
    pub fn regions(&self) -> impl Iterator<Item = &'a Region> {
        self.regions.values().copied()
    }

    /// The regions, and those of the single GPUs: the regions with relevant warnings.
    pub fn concerned_regions(&self) -> impl Iterator<Item = &'a Region> {
        let of_gpus = self.single_gpus.values().filter_map(|(_, region)| *region);
        let all: BTreeMap<_, _> =
            self.regions().chain(of_gpus).map(|region| (&region.name, region)).collect();
        all.into_values()
    }

    /// The GPUs without a region.
    pub fn lone_gpus(&self) -> impl Iterator<Item = &'a Gpu> {
        self.single_gpus.values().filter(|(_, region)| region.is_none()).map(|(gpu, _)| *gpu)
    }

    /// The GPUs of the regions, and the single GPUs.
    pub(super) fn gpus(&self) -> Vec<(&'a Gpu, Option<&'a Region>)> {
        let mut gpus = self.single_gpus.clone();
        for region in self.regions() {
            gpus.extend(region.gpus.iter().map(|gpu| (gpu.address, (gpu, Some(region)))));
        }
        gpus.into_values().collect()
    }

    /// The NUMA nodes of the regions and GPUs.
    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        let of_regions = self.regions().filter_map(|region| region.numa_node);
        let of_gpus = self.gpus().into_iter().flat_map(|(gpu, region)| {
            [gpu.numa_node.id(), region.and_then(|region| region.numa_node)]
        });
        of_regions.chain(of_gpus.flatten()).collect()
    }
}

/// Writes the selection as text, with an empty line between entries.
///
/// # Errors
/// The writer fails.
pub fn write(out: &mut dyn Write, report: &Report, selection: &Selection<'_>) -> io::Result<()> {
    let host = &report.host;
    let mut first = true;
    let mut separate = |out: &mut dyn Write| {
        if std::mem::take(&mut first) { Ok(()) } else { writeln!(out) }
    };
    for region in selection.regions() {
        separate(out)?;
        write_region(out, host, &report.row(region))?;
    }
    for (gpu, region) in selection.single_gpus.values() {
        separate(out)?;
        let name = region.map_or("none", |region| region.name.as_str());
        writeln!(out, "GPU {}", gpu.address)?;
        field(out, "region", name)?;
        write_gpu(out, host, gpu, "")?;
    }
    Ok(())
}

fn write_region(out: &mut dyn Write, host: &Host, row: &Row<'_>) -> io::Result<()> {
    let Row { region, claims, capacity: Capacity { state, free, held, stranded }, .. } = *row;
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
    for claim in claims {
        write_claim(out, claim)?;
    }
    field(out, "NUMA node", &host_node(host, region))?;
    let learnt: Vec<_> = region.learnt_from.iter().map(|source| source.name()).collect();
    let learnt = (!learnt.is_empty()).then(|| learnt.join(", "));
    let shape = or_dash(region.shape.map(Shape::name));
    field(out, "driver shape", &format!("{shape} (source of GPUs: {})", or_dash(learnt)))?;
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

fn write_claim(out: &mut dyn Write, claim: &Claim) -> io::Result<()> {
    match claim {
        Claim::Process(ProcessClaim {
            pid, command, user, domain, helper_of, via, ranges, ..
        }) => {
            let text = |text: &Option<String>| or_dash(text.as_deref().map(printable));
            field(out, "held by", &format!("process {pid} ({})", text(command)))?;
            field(out, "  user", &text(user))?;
            field(out, "  domain", &text(domain))?;
            if let Some(owner) = helper_of {
                field(out, "  helper of", &format!("process {owner}, whose memory it shares"))?;
            }
            field(out, "  via", via.name())?;
            field(out, "  mapped", &ranges.total().to_string())?;
            for range in ranges.iter() {
                let Range { offset, length } = *range;
                let end = offset.saturating_add(length);
                field(out, "", &format!("{offset:#x}-{end:#x} ({})", Bytes(length)))?;
            }
            Ok(())
        }
        Claim::Libvirt(LibvirtClaim { domain, is_running, size, file }) => {
            let label = if *is_running { "held by" } else { "defined for" };
            let state = if *is_running { "running" } else { "off" };
            field(out, label, &format!("domain {} ({state})", printable(domain)))?;
            field(out, "  size", &or_dash(*size))?;
            field(out, "  file", &shown(file))
        }
        Claim::Lease(LeaseClaim { domain, expires, pid }) => {
            field(out, "reserved for", &printable(domain))?;
            if let Some(pid) = pid {
                field(out, "  while", &format!("process {pid} runs"))?;
            }
            if pid.is_none() || *expires < Moment::LAST {
                field(out, "  until", &expires.to_string())?;
            }
            Ok(())
        }
    }
}

fn device(region: &Region) -> String {
    let device = &region.device;
    let number = or_dash(device.number);
    let owner = device.owner.as_ref();
    let owner = owner.map(|owner| printable(&owner.to_string()));
    format!("{} ({number}), {}", shown(&device.path), owner.as_deref().unwrap_or("owner unknown"))
}

fn host_node(host: &Host, region: &Region) -> String {
    let (Some(node), Some(source)) = (region.numa_node, region.numa_node_from) else {
        return "-".into();
    };
    let how = match source {
        NodeSource::Region => "as shown by the driver",
        NodeSource::Gpu => "the node of its GPUs",
        NodeSource::NearestCpuNode => "the nearest node with CPUs to that of its GPUs",
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
    // For a GPU's own node, the distance to the sockets.
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
    field("SMMU", &or_dash(gpu.smmu.as_deref().map(printable)))?;
    match gpu.bars.as_deref() {
        None => field("BARs", "-")?,
        Some([]) => field("BARs", "none")?,
        Some(bars) => {
            bars.iter().try_for_each(|bar| field(&format!("BAR {}", bar.index), &bar_text(bar)))?;
        }
    }
    field("PCIe link", &link_text(gpu.link))?;
    field("NUMA node", &or_dash(gpu.numa_node.id().map(|node| node_text(host, node))))?;
    let own_nodes = gpu.own_nodes.as_ref().map(|nodes| format!("{nodes} (assumed)"));
    field("own nodes", &or_dash(own_nodes))?;
    field("local CPUs", &or_dash(gpu.local_cpus.as_ref()))?;
    field("sysfs", &shown(&gpu.path))
}

/// `16 MiB, 64-bit, prefetchable`
fn bar_text(bar: &Bar) -> String {
    let wide = if bar.is_64bit { ", 64-bit" } else { "" };
    let prefetchable = if bar.is_prefetchable { ", prefetchable" } else { "" };
    format!("{}{wide}{prefetchable}", bar.size)
}

/// `32 GT/s, 16 lanes`
fn link_text(link: PcieLink) -> String {
    let speed = link.speed.map(|speed| format!("{} GT/s", speed.name()));
    let width = link.width.map(|width| plural(width, "lane"));
    let known: Vec<_> = [speed, width].into_iter().flatten().collect();
    or_dash((!known.is_empty()).then(|| known.join(", "))).into_owned()
}

fn field(out: &mut dyn Write, label: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {label:<14} {value}")
}
