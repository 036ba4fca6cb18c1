//! Reads NUMA nodes: only the requested parts, and each file once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::gpu::{Gpu, GpuNode};
use super::numa::{NODES_LIMIT, NumaNode, NumaTopology};
use crate::host::sysfs::DeviceDir;
use crate::sysroot::Sysroot;
use crate::values::numbers::decimal;
use crate::values::{Bytes, IdList, NodeId};
use crate::warning::Warning;

const NODES: &str = "/sys/devices/system/node";

pub(super) struct NumaReader<'a> {
    root: &'a Sysroot,
    pub(super) topology: NumaTopology,
    pub(super) warnings: Vec<Warning>,
    /// The nodes with a directory, after they were listed.
    directories: Option<Vec<NodeId>>,
    /// Files that were read, successfully or not.
    asked: BTreeSet<(NodeId, &'static str)>,
}

impl<'a> NumaReader<'a> {
    pub(super) fn of(root: &'a Sysroot) -> Self {
        let (topology, warnings) = Default::default();
        Self { root, topology, warnings, directories: None, asked: BTreeSet::new() }
    }

    /// Reads which nodes exist and which have CPUs.
    pub(super) fn read_outline(&mut self) {
        let dir = DeviceDir::new(self.root, NODES);
        self.topology.online = read_list(&dir, "online", &mut self.warnings);
        self.topology.with_cpus = read_list(&dir, "has_cpu", &mut self.warnings);
        if self.topology.online.is_none() {
            let ids = self.directories();
            self.topology.online = (!ids.is_empty()).then(|| ids.iter().map(|id| id.0).collect());
        }
        // On an old or broken kernel, each node is read for that.
        if self.topology.with_cpus.is_none() {
            for id in self.directories() {
                self.read_cpus(id);
            }
        }
    }

    /// Reads which nodes have generic initiators (Linux 5.10 and later).
    pub(super) fn read_initiators(&mut self) {
        let dir = DeviceDir::new(self.root, NODES);
        self.topology.with_initiators =
            read_list(&dir, "has_generic_initiator", &mut self.warnings);
    }

    /// Reads all nodes completely.
    pub(super) fn read_nodes(&mut self) {
        for id in self.directories() {
            self.read_cpus(id);
            self.read_distances(id);
            let expected = "a line `MemTotal: .. kB`";
            let dir = self.directory(id);
            let memory = dir.value("meminfo", expected, parse_meminfo, &mut self.warnings);
            self.node(id).memory = memory;
        }
    }

    /// Reads what is needed to place a GPU in addition to its own node.
    pub(super) fn read_for(&mut self, gpu: &Gpu) {
        if let GpuNode::Node(id) = gpu.numa_node {
            if self.topology.has_cpus(id) == Some(true) {
                return;
            }
            self.read_distances(id);
        }
        for id in self.topology.possible_cpu_nodes() {
            self.read_cpus(id);
        }
    }

    fn read_distances(&mut self, id: NodeId) {
        if self.asked.insert((id, "distance")) {
            let online = self.topology.online.clone().unwrap_or_default();
            let parse = |text: &str| parse_distances(text, &online);
            let expected = "one distance for each online node";
            let dir = self.directory(id);
            let distances = dir.value("distance", expected, parse, &mut self.warnings);
            self.node(id).distances = distances;
        }
    }

    fn read_cpus(&mut self, id: NodeId) {
        if self.asked.insert((id, "cpulist")) {
            let cpus = read_list(&self.directory(id), "cpulist", &mut self.warnings);
            self.node(id).cpus = cpus;
        }
    }

    /// The nodes with a directory, which are online. A region's own node has none.
    fn directories(&mut self) -> Vec<NodeId> {
        if let Some(ids) = &self.directories {
            return ids.clone();
        }
        let entries = self.root.entries(NODES).unwrap_or_else(|error| {
            self.warnings.extend(Warning::unless_absent(&error));
            Vec::new()
        });
        let number = |entry: &String| entry.strip_prefix("node").and_then(decimal).map(NodeId);
        let mut ids: Vec<_> = entries.iter().filter_map(number).take(NODES_LIMIT).collect();
        ids.sort_unstable();
        ids.dedup();
        self.directories.insert(ids).clone()
    }

    fn directory(&self, id: NodeId) -> DeviceDir {
        DeviceDir::new(self.root, Path::new(NODES).join(format!("node{id}")))
    }

    fn node(&mut self, id: NodeId) -> &mut NumaNode {
        self.topology.nodes.entry(id).or_default()
    }
}

fn read_list(dir: &DeviceDir, name: &str, warnings: &mut Vec<Warning>) -> Option<IdList> {
    dir.value(name, "a list of numbers such as 0-3,8", |text| text.parse().ok(), warnings)
}

/// The kernel prints one distance for each online node, in order of their numbers
/// (`node_read_distance`, drivers/base/node.c).
fn parse_distances(text: &str, online: &IdList) -> Option<BTreeMap<NodeId, u32>> {
    let distances: Vec<u32> = text.split_ascii_whitespace().map(decimal).collect::<Option<_>>()?;
    (distances.len() as u64 == online.len())
        .then(|| online.iter().map(NodeId).zip(distances).collect())
}

/// `Node 0 MemTotal:  706764 kB` (`node_read_meminfo`, drivers/base/node.c).
pub(crate) fn parse_meminfo(text: &str) -> Option<Bytes> {
    let value = text.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    let kibibytes: u64 = decimal(value.trim().strip_suffix(" kB")?.trim_end())?;
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
    fn distances_belong_to_online_nodes() {
        let online = "0,2".parse().unwrap();
        let distances = parse_distances("10 80\n", &online).unwrap();
        assert_eq!(distances.into_iter().collect::<Vec<_>>(), [(NodeId(0), 10), (NodeId(2), 80)]);
        for text in ["10", "10 80 80", "10 x", ""] {
            assert_eq!(parse_distances(text, &online), None, "{text}");
        }
        assert_eq!(parse_distances("10", &"0-4294967295".parse().unwrap()), None);
    }
}
