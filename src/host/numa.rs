//! The NUMA nodes of the host: those with CPUs, those that hold GPU memory, and empty ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::id_list::IdList;
use crate::sysfs::DeviceDir;
use crate::sysroot::Sysroot;
use crate::units::Bytes;
use crate::warning::Warning;

const NODES: &str = "/sys/devices/system/node";

/// The most nodes that a kernel can be built for (`CONFIG_NODES_SHIFT` is 10 at most).
const NODES_LIMIT: usize = 1024;

/// The number of a NUMA node, as Linux counts them. Not a proximity domain, not a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NumaNode {
    /// Its CPUs that are online.
    pub cpus: Option<IdList>,
    /// The memory that the kernel manages there (`MemTotal`). An EGM region is not part of it.
    pub memory: Option<Bytes>,
    /// How far it is to each node that is online: 10 to itself, more to others.
    pub distances: Option<BTreeMap<NodeId, u32>>,
}

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// It has CPUs.
    Cpu,
    /// It has memory and no CPUs: on Grace hosts, the memory of a GPU.
    GpuMemory,
    /// It has neither: kept for a GPU (eight each, for its MIG instances), or unused.
    Empty,
}

impl NodeKind {
    /// The name, as it is in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::GpuMemory => "gpu-memory",
            Self::Empty => "empty",
        }
    }
}

impl NumaNode {
    /// What the node is there for; `None` where CPUs or memory are not known.
    #[must_use]
    pub fn kind(&self) -> Option<NodeKind> {
        if !self.cpus.as_ref()?.is_empty() {
            return Some(NodeKind::Cpu);
        }
        Some(if self.memory? == Bytes(0) { NodeKind::Empty } else { NodeKind::GpuMemory })
    }
}

/// The NUMA nodes of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// The nodes that are online; `None` where the kernel shows no nodes.
    pub online: Option<IdList>,
    /// The nodes that have CPUs.
    pub with_cpus: Option<IdList>,
    /// What was read of each node.
    pub nodes: BTreeMap<NodeId, NumaNode>,
    /// The nodes that have a directory, once they were listed.
    directories: Option<Vec<NodeId>>,
    /// The files that were read already, successfully or not.
    asked: BTreeSet<(NodeId, &'static str)>,
}

impl Topology {
    /// Reads which nodes there are and which have CPUs.
    pub(super) fn read_outline(root: &Sysroot, warnings: &mut Vec<Warning>) -> Self {
        let dir = DeviceDir::new(root, NODES);
        let mut topology = Self {
            online: read_list(&dir, "online", warnings),
            with_cpus: read_list(&dir, "has_cpu", warnings),
            ..Self::default()
        };
        if topology.online.is_none() {
            let ids = topology.list_directories(root, warnings);
            topology.online = (!ids.is_empty()).then(|| ids.iter().map(|id| id.0).collect());
        }
        if topology.with_cpus.is_none() && topology.online.is_some() {
            for id in topology.list_directories(root, warnings) {
                topology.read_cpus(root, id, warnings);
            }
            let with_cpus = |(id, node): (&NodeId, &NumaNode)| {
                node.cpus.as_ref().is_some_and(|cpus| !cpus.is_empty()).then_some(id.0)
            };
            topology.with_cpus = Some(topology.nodes.iter().filter_map(with_cpus).collect());
        }
        topology
    }

    /// Reads everything of every node.
    pub(super) fn read_nodes(&mut self, root: &Sysroot, warnings: &mut Vec<Warning>) {
        for id in self.list_directories(root, warnings) {
            self.read_cpus(root, id, warnings);
            self.read_distances(root, id, warnings);
            let parse = |text: &str| parse_meminfo(text);
            let memory =
                directory(root, id).value("meminfo", "a line `MemTotal: .. kB`", parse, warnings);
            self.node(id).memory = memory;
        }
    }

    /// Reads the CPUs of the nodes that have some.
    pub(super) fn read_cpu_nodes(&mut self, root: &Sysroot, warnings: &mut Vec<Warning>) {
        for id in self.cpu_nodes() {
            self.read_cpus(root, id, warnings);
        }
    }

    /// Reads the distances of one node.
    pub(super) fn read_distances(
        &mut self,
        root: &Sysroot,
        id: NodeId,
        warnings: &mut Vec<Warning>,
    ) {
        if !self.asked.insert((id, "distance")) {
            return;
        }
        let online = self.online.clone().unwrap_or_default();
        let parse = |text: &str| parse_distances(text, &online);
        let expected = "one distance for each node that is online";
        let distances = directory(root, id).value("distance", expected, parse, warnings);
        self.node(id).distances = distances;
    }

    /// The nodes that have CPUs.
    #[must_use]
    pub fn cpu_nodes(&self) -> Vec<NodeId> {
        self.with_cpus.iter().flat_map(IdList::iter).take(NODES_LIMIT).map(NodeId).collect()
    }

    /// Whether a node has CPUs; `None` where that is not known.
    #[must_use]
    pub fn has_cpus(&self, id: NodeId) -> Option<bool> {
        Some(self.with_cpus.as_ref()?.contains(id.0))
    }

    /// Whether a function's node is one with CPUs, so that nothing else is needed to place it.
    pub(super) fn knows_cpus_of(&self, node: Option<NodeId>) -> bool {
        node.and_then(|node| self.has_cpus(node)) == Some(true)
    }

    fn read_cpus(&mut self, root: &Sysroot, id: NodeId, warnings: &mut Vec<Warning>) {
        if self.asked.insert((id, "cpulist")) {
            let cpus = read_list(&directory(root, id), "cpulist", warnings);
            self.node(id).cpus = cpus;
        }
    }

    /// The nodes that have a directory: those online. A region's own node has none.
    fn list_directories(&mut self, root: &Sysroot, warnings: &mut Vec<Warning>) -> Vec<NodeId> {
        if let Some(ids) = &self.directories {
            return ids.clone();
        }
        let entries = root.entries(NODES).unwrap_or_else(|error| {
            if !error.is_absent() {
                warnings.push(Warning::unreadable(&error));
            }
            Vec::new()
        });
        let number = |entry: &String| {
            let id = entry.strip_prefix("node")?.parse().ok().map(NodeId)?;
            (format!("node{id}") == *entry).then_some(id)
        };
        let mut ids: Vec<_> = entries.iter().filter_map(number).take(NODES_LIMIT).collect();
        ids.sort_unstable();
        self.directories.insert(ids).clone()
    }

    fn node(&mut self, id: NodeId) -> &mut NumaNode {
        self.nodes.entry(id).or_insert(NumaNode { cpus: None, memory: None, distances: None })
    }
}

fn directory(root: &Sysroot, id: NodeId) -> DeviceDir {
    DeviceDir::new(root, Path::new(NODES).join(format!("node{id}")))
}

fn read_list(dir: &DeviceDir, name: &str, warnings: &mut Vec<Warning>) -> Option<IdList> {
    dir.value(name, "a list of numbers such as 0-3,8", |text| text.parse().ok(), warnings)
}

/// The kernel writes one distance for each node that is online, in order of their numbers
/// (`node_read_distance`, drivers/base/node.c).
fn parse_distances(text: &str, online: &IdList) -> Option<BTreeMap<NodeId, u32>> {
    let distances: Vec<u32> =
        text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    (distances.len() as u64 == online.len())
        .then(|| online.iter().map(NodeId).zip(distances).collect())
}

/// `Node 0 MemTotal:  706764 kB` (`node_read_meminfo`, drivers/base/node.c).
fn parse_meminfo(text: &str) -> Option<Bytes> {
    let value = text.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::{Bytes, NodeId, parse_distances, parse_meminfo};

    #[test]
    fn memory_is_read_in_bytes_and_never_overflows() {
        assert_eq!(parse_meminfo("Node 0 MemTotal:  706764 kB\n"), Some(Bytes(723_726_336)));
        for text in [
            "",
            "Node 0 MemFree: 1 kB",
            "MemTotal:",
            "MemTotal: x kB",
            "MemTotal: 1 MB",
            "MemTotal: 18446744073709551615 kB",
        ] {
            assert_eq!(parse_meminfo(text), None, "{text}");
        }
    }

    #[test]
    fn distances_belong_to_the_nodes_that_are_online() {
        let online = "0,2".parse().unwrap();
        let distances = parse_distances("10 80\n", &online).unwrap();
        assert_eq!(distances.into_iter().collect::<Vec<_>>(), [(NodeId(0), 10), (NodeId(2), 80)]);
        for text in ["10", "10 80 80", "10 x", ""] {
            assert_eq!(parse_distances(text, &online), None, "{text}");
        }
        assert_eq!(parse_distances("10", &"0-4294967295".parse().unwrap()), None);
    }
}
