//! The sockets of a host with their regions and GPUs, and the GPUs' own NUMA nodes, which have no
//! CPUs. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::host::{Gpu, NumaNode, Region};
use crate::report::{Report, Row};
use crate::values::{IdList, NodeId};

/// The number of nodes that the firmware of a Grace host reserves for each GPU: one for each MIG
/// instance.
const NODES_A_GPU: usize = 8;

/// Nodes at a smaller distance from each other belong to one device; 20 is the default distance
/// (`REMOTE_DISTANCE`, `include/linux/topology.h`).
const NEAR: u32 = 20;

/// The sockets of a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sockets<'a> {
    /// The sockets, by the NUMA node with their CPUs.
    pub sockets: Vec<Socket<'a>>,
    /// Regions, GPUs and nodes that belong to no known socket.
    pub elsewhere: Socket<'a>,
}

/// A socket and everything on its NUMA node.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Socket<'a> {
    /// Its NUMA node; `None` for [`Sockets::elsewhere`].
    pub node: Option<NodeId>,
    /// Details of that node.
    pub numa: Option<&'a NumaNode>,
    /// Its regions, in natural order.
    pub regions: Vec<Row<'a>>,
    /// The GPUs of its regions, and its other GPUs, by address.
    pub gpus: Vec<Place<'a>>,
    /// Groups of nodes without CPUs near the socket whose GPU is unknown.
    pub other_nodes: Vec<IdList>,
}

/// A GPU and its own NUMA nodes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Place<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// The region that lists it.
    pub region: Option<&'a Region>,
    /// Its own nodes and their source; `None` if unknown.
    pub nodes: Option<(IdList, NodesFrom)>,
}

/// The source of a GPU's own nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NodesFrom {
    /// The GPU's `numa_node` is one of them.
    Gpu,
    /// The socket has as many groups of such nodes as GPUs, so they are matched in order.
    Order,
}

/// Nodes without CPUs that belong to one device.
struct Group {
    nodes: Vec<NodeId>,
    /// The nearest socket.
    near: Option<NodeId>,
}

impl<'a> Sockets<'a> {
    /// Groups the contents of a report by socket.
    #[must_use]
    pub fn of(report: &'a Report) -> Self {
        let topology = &report.host.topology;
        let is_socket = |id: &NodeId| topology.has_cpus(*id) == Some(true);
        let mut sockets: BTreeMap<NodeId, Socket<'a>> = BTreeMap::new();
        let of_regions = report.host.regions.iter().filter_map(|region| region.numa_node);
        for id in topology.nodes.keys().copied().filter(is_socket).chain(of_regions) {
            let numa = topology.nodes.get(&id);
            sockets.entry(id).or_insert_with(|| Socket {
                node: Some(id),
                numa,
                ..Socket::default()
            });
        }
        let mut elsewhere = Socket::default();
        for row in report.rows() {
            let socket = row.region.numa_node.and_then(|id| sockets.get_mut(&id));
            socket.unwrap_or(&mut elsewhere).regions.push(row);
        }
        let mut seen = BTreeSet::new();
        for (gpu, region) in report.host.gpus() {
            // A GPU that two regions list is shown with the first.
            if !seen.insert(gpu.address) {
                continue;
            }
            let node = region.and_then(|region| region.numa_node);
            let node = node.or(gpu.host_node.map(|(node, _)| node));
            let socket = node.and_then(|id| sockets.get_mut(&id)).unwrap_or(&mut elsewhere);
            socket.gpus.push(Place { gpu, region, nodes: None });
        }
        let mut found = Self { sockets: sockets.into_values().collect(), elsewhere };
        found.give_nodes(groups(report));
        found
    }

    /// All sockets, and [`Self::elsewhere`] unless it is empty.
    pub fn iter(&self) -> impl Iterator<Item = &Socket<'a>> {
        let rest = Some(&self.elsewhere).filter(|rest| !rest.is_empty());
        self.sockets.iter().chain(rest)
    }

    fn give_nodes(&mut self, groups: Vec<Group>) {
        for socket in self.sockets.iter_mut().chain([&mut self.elsewhere]) {
            socket.gpus.sort_by_key(|place| place.gpu.address);
        }
        let mut rest = Vec::new();
        for group in groups {
            let all = self.sockets.iter_mut().chain([&mut self.elsewhere]);
            let is_in = |place: &&mut Place<'_>| {
                place.gpu.numa_node.id().is_some_and(|id| group.nodes.contains(&id))
            };
            let mut owners: Vec<_> = all.flat_map(|it| &mut it.gpus).filter(is_in).collect();
            match owners.as_mut_slice() {
                [owner] => owner.nodes = Some((group.list(), NodesFrom::Gpu)),
                _ => rest.push(group),
            }
        }
        for socket in self.sockets.iter_mut().chain([&mut self.elsewhere]) {
            let own: Vec<_> = rest.iter().filter(|group| group.near == socket.node).collect();
            let without: Vec<_> =
                socket.gpus.iter_mut().filter(|place| place.nodes.is_none()).collect();
            if own.len() == without.len() {
                for (place, group) in without.into_iter().zip(own) {
                    place.nodes = Some((group.list(), NodesFrom::Order));
                }
            } else {
                socket.other_nodes = own.into_iter().map(Group::list).collect();
            }
        }
        // Groups whose nearest node is not a known socket.
        let known: BTreeSet<_> = self.sockets.iter().map(|socket| socket.node).collect();
        let lost = rest.iter().filter(|group| group.near.is_some() && !known.contains(&group.near));
        self.elsewhere.other_nodes.extend(lost.map(Group::list));
    }
}

impl Socket<'_> {
    fn is_empty(&self) -> bool {
        self.regions.is_empty() && self.gpus.is_empty() && self.other_nodes.is_empty()
    }
}

impl Group {
    fn list(&self) -> IdList {
        self.nodes.iter().map(|node| node.0).collect()
    }
}

/// The nodes without CPUs, grouped by device: nodes near each other; if distances do not show that,
/// eight per GPU if the numbers match.
fn groups(report: &Report) -> Vec<Group> {
    let topology = &report.host.topology;
    let without: Vec<NodeId> =
        topology.nodes.keys().copied().filter(|id| topology.has_cpus(*id) == Some(false)).collect();
    let distance =
        |from: NodeId, to: NodeId| topology.nodes.get(&from)?.distances.as_ref()?.get(&to).copied();
    let mut groups: Vec<Vec<NodeId>> = Vec::new();
    for id in &without {
        let is_near = |group: &&mut Vec<NodeId>| {
            group.first().is_some_and(|first| distance(*first, *id).is_some_and(|it| it < NEAR))
        };
        match groups.last_mut().filter(is_near) {
            Some(group) => group.push(*id),
            None => groups.push(vec![*id]),
        }
    }
    let gpus = report.host.gpus().count();
    let is_clear = groups.len() <= gpus;
    if !is_clear && without.len() == gpus * NODES_A_GPU {
        groups = without.chunks(NODES_A_GPU).map(<[NodeId]>::to_vec).collect();
    }
    let nearest = |first: NodeId| {
        let sockets = topology.nodes.keys().filter(|id| topology.has_cpus(**id) == Some(true));
        let mut by_distance: Vec<_> =
            sockets.filter_map(|id| Some((distance(first, *id)?, *id))).collect();
        by_distance.sort_unstable();
        match by_distance.as_slice() {
            [(nearest, id), (next, _), ..] if nearest < next => Some(*id),
            [(_, id)] => Some(*id),
            _ => None,
        }
    };
    let group =
        |nodes: Vec<NodeId>| Group { near: nodes.first().and_then(|id| nearest(*id)), nodes };
    groups.into_iter().map(group).collect()
}
