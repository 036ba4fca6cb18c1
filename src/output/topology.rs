//! The output of `topology`: a host as a tree of its sockets, regions and GPUs.

use std::io::{self, Write};

use serde::Serialize;

use super::json::{self, GpuDetails, NodeDetails, RegionEntry, occupancy};
use super::{GREEN, RED, YELLOW, all_gpus, gpus_of, or_dash, painted};
use crate::report::{Capacity, NodesFrom, Place, Report, Row, Socket, Sockets, State};
use crate::values::text::{SHOWN, excerpt, printable};
use crate::values::{Bytes, IdList, NodeId, PciAddress, RegionName};
use crate::warning::Warning;

/// The style of the tree.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TreeStyle {
    /// With ASCII characters only.
    pub ascii: bool,
    /// In colours.
    pub color: bool,
    /// Each NUMA node on its own line.
    pub all_nodes: bool,
}

/// A line and its children.
struct Branch {
    text: String,
    below: Vec<Branch>,
}

impl Branch {
    fn leaf(text: impl Into<String>) -> Self {
        Self { text: text.into(), below: Vec::new() }
    }
}

/// The width of a bar in characters.
const BAR: u64 = 20;

/// Writes the tree; nothing for a host without regions, GPUs and sockets.
///
/// # Errors
/// The writer fails.
pub fn write(out: &mut dyn Write, report: &Report, style: TreeStyle) -> io::Result<()> {
    for socket in Sockets::of(report).iter() {
        let branch = socket_branch(report, socket, style);
        writeln!(out, "{}", branch.text)?;
        write_below(out, &branch.below, "", style.ascii)?;
    }
    Ok(())
}

fn write_below(
    out: &mut dyn Write,
    branches: &[Branch],
    indent: &str,
    ascii: bool,
) -> io::Result<()> {
    let (middle, last, line) =
        if ascii { ("|- ", "`- ", "|  ") } else { ("├─ ", "└─ ", "│  ") };
    for (index, branch) in branches.iter().enumerate() {
        let is_last = index + 1 == branches.len();
        writeln!(out, "{indent}{}{}", if is_last { last } else { middle }, branch.text)?;
        let indent = format!("{indent}{}", if is_last { "   " } else { line });
        write_below(out, &branch.below, &indent, ascii)?;
    }
    Ok(())
}

fn socket_branch(report: &Report, socket: &Socket<'_>, style: TreeStyle) -> Branch {
    let text = match socket.node {
        None => "unknown NUMA node".to_owned(),
        Some(id) => {
            let cpus = socket.numa.and_then(|node| node.cpus.as_ref());
            let cpus = cpus.filter(|cpus| !cpus.is_empty());
            let memory = socket.numa.and_then(|node| node.memory);
            format!("node {id}  CPUs {}, {}", or_dash(cpus), or_dash(memory))
        }
    };
    let mut below: Vec<Branch> =
        socket.regions.iter().map(|row| region_branch(report, socket, row, style)).collect();
    let others = gpus_of(socket, None).into_iter();
    below.extend(others.map(|place| gpu_branch(report, place, style)));
    for nodes in &socket.other_nodes {
        let branch = Branch::leaf(format!("{}  no CPUs", node_range(nodes)));
        below.push(Branch { below: node_branches(report, nodes, style), ..branch });
    }
    Branch { text, below }
}

fn region_branch(report: &Report, socket: &Socket<'_>, row: &Row<'_>, style: TreeStyle) -> Branch {
    let Row { region, claims, capacity, .. } = row;
    let state = painted(capacity.state.name(), color_of(capacity.state), style.color);
    let bar = bar(region.size, *capacity, style);
    let text =
        format!("{}  {}  {bar}{state}{}", region.name, or_dash(region.size), parts(*capacity));
    let mut below: Vec<Branch> =
        claims.iter().map(|claim| Branch::leaf(printable(&claim.label()))).collect();
    let own = gpus_of(socket, Some(region)).into_iter();
    below.extend(own.map(|place| gpu_branch(report, place, style)));
    Branch { text, below }
}

/// The held and stranded memory of a region in use.
fn parts(capacity: Capacity) -> String {
    match capacity.state {
        State::InUse => {
            format!(", held {}, stranded {}", or_dash(capacity.held), or_dash(capacity.stranded))
        }
        _ => String::new(),
    }
}

/// A bar of the parts in proportion; empty if they are unknown.
fn bar(size: Option<Bytes>, capacity: Capacity, style: TreeStyle) -> String {
    let Capacity { held: Some(held), stranded: Some(stranded), .. } = capacity else {
        return String::new();
    };
    let Some(size) = size.filter(|size| size.0 > 0) else { return String::new() };
    if capacity.state == State::Reserved {
        let kept = if style.ascii { "-" } else { "▞" };
        let whole = usize::try_from(BAR).unwrap_or(0);
        return format!("[{}]  ", painted(&kept.repeat(whole), YELLOW, style.color));
    }
    let (used, lost, left) = if style.ascii { ("#", "x", ".") } else { ("█", "▒", "░") };
    let characters = |part: Bytes| {
        let exact = u128::from(part.0) * u128::from(BAR);
        // Rounded up, so that small parts stay visible.
        usize::try_from(exact.div_ceil(u128::from(size.0))).unwrap_or(0)
    };
    let whole = characters(size);
    let held = characters(held).min(whole);
    let stranded = characters(stranded).min(whole - held);
    let drawn = [
        painted(&used.repeat(held), RED, style.color && held > 0),
        painted(&lost.repeat(stranded), YELLOW, style.color && stranded > 0),
        painted(
            &left.repeat(whole - held - stranded),
            GREEN,
            style.color && held + stranded < whole,
        ),
    ];
    format!("[{}]  ", drawn.concat())
}

fn color_of(state: State) -> u8 {
    match state {
        State::Free => GREEN,
        State::InUse => RED,
        _ => YELLOW,
    }
}

fn gpu_branch(report: &Report, place: &Place<'_>, style: TreeStyle) -> Branch {
    let gpu = place.gpu;
    let name = gpu.name.as_deref().map(printable);
    let smmu = gpu.smmu.as_deref().map(|smmu| format!(", SMMU {}", excerpt(smmu, SHOWN)));
    let nodes = place.nodes.as_ref();
    let shown = nodes.map(|(nodes, from)| format!(", {}", own_nodes(nodes, *from)));
    let text = format!(
        "GPU {}  {}, {}{}{}",
        gpu.address,
        or_dash(name),
        gpu.driver.in_words(),
        smmu.unwrap_or_default(),
        shown.unwrap_or_default()
    );
    let below = nodes.map(|(nodes, _)| node_branches(report, nodes, style)).unwrap_or_default();
    Branch { text, below }
}

/// `nodes 2-9 (assumed)`
pub(super) fn own_nodes(nodes: &IdList, from: NodesFrom) -> String {
    let guess = if from == NodesFrom::Order { " (assumed)" } else { "" };
    format!("{}{guess}", node_range(nodes))
}

/// `node 2`, `nodes 2-9`
pub(super) fn node_range(nodes: &IdList) -> String {
    format!("{} {nodes}", if nodes.len() == 1 { "node" } else { "nodes" })
}

/// A branch for each node, with `all_nodes`.
fn node_branches(report: &Report, nodes: &IdList, style: TreeStyle) -> Vec<Branch> {
    if !style.all_nodes {
        return Vec::new();
    }
    let line = |id: u32| {
        let node = report.host.topology.nodes.get(&NodeId(id));
        let memory = or_dash(node.and_then(|node| node.memory));
        Branch::leaf(format!("node {id}  {memory}"))
    };
    nodes.iter().map(line).collect()
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    occupancy: &'static str,
    sockets: Vec<SocketEntry>,
    regions: Vec<RegionEntry<'a>>,
    gpus: Vec<GpuDetails<'a>>,
    numa_nodes: Vec<NodeDetails>,
    warnings: Vec<&'a Warning>,
}

#[derive(Serialize)]
struct SocketEntry {
    numa_node: Option<NodeId>,
    regions: Vec<RegionName>,
    gpus: Vec<PlaceEntry>,
    other_nodes: Vec<String>,
}

#[derive(Serialize)]
struct PlaceEntry {
    address: PciAddress,
    numa_nodes: Option<String>,
    numa_nodes_from: Option<NodesFrom>,
}

/// Writes `egm-probe.topology/1`.
///
/// # Errors
/// The writer fails.
pub fn write_json(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let sockets = Sockets::of(report);
    let place = |place: &Place<'_>| PlaceEntry {
        address: place.gpu.address,
        numa_nodes: place.nodes.as_ref().map(|(nodes, _)| nodes.to_string()),
        numa_nodes_from: place.nodes.as_ref().map(|(_, from)| *from),
    };
    let entry = |socket: &Socket<'_>| SocketEntry {
        numa_node: socket.node,
        regions: socket.regions.iter().map(|row| row.region.name.clone()).collect(),
        gpus: socket.gpus.iter().map(place).collect(),
        other_nodes: socket.other_nodes.iter().map(ToString::to_string).collect(),
    };
    let topology = &report.host.topology;
    let gpus = all_gpus(&report.host).into_values();
    let document = Document {
        schema: "egm-probe.topology/1",
        occupancy: occupancy(report.claims.sight),
        sockets: sockets.iter().map(entry).collect(),
        regions: report.rows().map(RegionEntry::new).collect(),
        gpus: gpus.map(|(gpu, region)| GpuDetails::new(gpu, region)).collect(),
        numa_nodes: topology.nodes.iter().map(|(id, node)| NodeDetails::new(*id, node)).collect(),
        warnings: report.warnings().collect(),
    };
    json::write(out, &document)
}
