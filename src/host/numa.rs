//! The NUMA nodes of the host: nodes with CPUs, nodes with GPU memory, and empty nodes.

use std::collections::BTreeMap;

use crate::values::{Bytes, IdList, NodeId, named};

/// Maximum number of nodes in a kernel (`CONFIG_NODES_SHIFT` is 10 at most).
pub(super) const NODES_LIMIT: usize = 1024;

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NumaNode {
    /// Its online CPUs.
    pub cpus: Option<IdList>,
    /// The memory that the kernel manages on the node (`MemTotal`). EGM regions are not included.
    pub memory: Option<Bytes>,
    /// The distance to each online node: 10 to itself, more to others.
    pub distances: Option<BTreeMap<NodeId, u32>>,
}

named! {
    /// The purpose of a node.
    #[non_exhaustive]
    pub enum NodeKind {
        /// It has CPUs.
        Cpu = "cpu",
        /// It has memory and no CPUs: on Grace hosts, the memory of a GPU.
        GpuMemory = "gpu-memory",
        /// It has neither: reserved for a GPU (eight each, for its MIG instances), or unused.
        Empty = "empty",
    }
}

impl NumaNode {
    /// The purpose of the node; `None` if CPUs or memory are unknown.
    #[must_use]
    pub fn kind(&self) -> Option<NodeKind> {
        if !self.cpus.as_ref()?.is_empty() {
            return Some(NodeKind::Cpu);
        }
        Some(if self.memory? == Bytes(0) { NodeKind::Empty } else { NodeKind::GpuMemory })
    }
}

/// The NUMA nodes of a host, as far as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NumaTopology {
    /// The online nodes; `None` if the kernel shows no nodes.
    pub online: Option<IdList>,
    /// The nodes with CPUs, if the kernel lists them.
    pub with_cpus: Option<IdList>,
    /// The nodes with generic initiators, if they were read and the kernel lists them: on Grace hosts,
    /// the nodes of the GPUs' memory.
    pub with_initiators: Option<IdList>,
    /// The nodes that were read.
    pub nodes: BTreeMap<NodeId, NumaNode>,
}

impl NumaTopology {
    /// Whether a node has CPUs; `None` if unknown. A node that is offline has none.
    #[must_use]
    pub fn has_cpus(&self, id: NodeId) -> Option<bool> {
        if self.online.as_ref().is_some_and(|online| !online.contains(id.0)) {
            return Some(false);
        }
        match &self.with_cpus {
            Some(with_cpus) => Some(with_cpus.contains(id.0)),
            None => Some(!self.nodes.get(&id)?.cpus.as_ref()?.is_empty()),
        }
    }

    /// The nodes with CPUs, and nodes for which that is unknown.
    pub(super) fn possible_cpu_nodes(&self) -> Vec<NodeId> {
        let ids = self.with_cpus.iter().chain(&self.online).next();
        let ids = ids.into_iter().flat_map(IdList::iter).take(NODES_LIMIT).map(NodeId);
        ids.filter(|id| self.has_cpus(*id) != Some(false)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::NumaTopology;
    use crate::values::NodeId;

    #[test]
    fn whether_a_node_has_cpus_may_be_unknown() {
        let mut topology = NumaTopology::default();
        assert_eq!(topology.has_cpus(NodeId(0)), None);
        assert!(topology.possible_cpu_nodes().is_empty());
        topology.online = Some("0-2".parse().unwrap());
        assert_eq!(topology.possible_cpu_nodes().len(), 3);
        topology.with_cpus = Some("0".parse().unwrap());
        assert_eq!(topology.possible_cpu_nodes(), [NodeId(0)]);
        assert_eq!(topology.has_cpus(NodeId(1)), Some(false));
    }
}
