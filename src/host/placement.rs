//! On which NUMA node of the host a region lies. Pure.
//!
//! The region is memory of a socket, so its node is the one with that socket's CPUs. It cannot be
//! told from the region: the number in its name is a proximity domain, and the node that Linux
//! makes of that one is never online. It is told from the GPUs of the region.

use serde::Serialize;

use super::gpu::Gpu;
use super::numa::{NodeId, Topology};
use super::region::Region;
use crate::pci::PciAddress;
use crate::warning::Warning;

/// How the host NUMA node of a region was learnt. The surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeSource {
    /// The `numa_node` of its GPUs has CPUs.
    Gpu,
    /// The `numa_node` of its GPUs has none (it is a node of the GPU's own): of the nodes with
    /// CPUs this one is nearest to it.
    NearestCpuNode,
    /// Its GPUs have no `numa_node`, but their local CPUs are those of exactly one node.
    LocalCpus,
}

impl NodeSource {
    /// The name, as it is in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::NearestCpuNode => "nearest-cpu-node",
            Self::LocalCpus => "local-cpus",
        }
    }
}

/// Sets the region's node to that of its GPUs, which must agree.
pub(super) fn place(region: &mut Region, topology: &Topology) {
    let mut placed: Vec<(PciAddress, NodeId, NodeSource)> = Vec::new();
    for gpu in &region.gpus {
        let gone = |warning: &Warning| matches!(warning, Warning::GpuGone { address, .. } if *address == gpu.address);
        match place_gpu(gpu, topology) {
            Ok((node, source)) => placed.push((gpu.address, node, source)),
            // Said already: it is not there.
            Err(_) if region.warnings.iter().any(gone) => {}
            Err(reason) => {
                region.warnings.push(Warning::NodeUnknown { address: gpu.address, reason });
            }
        }
    }
    let Some(&(first, node, _)) = placed.first() else {
        return;
    };
    if let Some(&(other, elsewhere, _)) = placed.iter().find(|(_, other, _)| *other != node) {
        region.warnings.push(Warning::NodeDisagreement((first, node), (other, elsewhere)));
        return;
    }
    region.numa_node = Some(node);
    region.numa_node_from = placed.iter().map(|(_, _, source)| *source).min();
}

/// The node with the CPUs of the GPU's socket, or why it cannot be told.
fn place_gpu(gpu: &Gpu, topology: &Topology) -> Result<(NodeId, NodeSource), String> {
    let by_node = match gpu.numa_node {
        None => Err("the kernel gives it none".into()),
        Some(node) => match topology.has_cpus(node) {
            None => Err(format!("whether its node {node} has CPUs is not known")),
            Some(true) => return Ok((node, NodeSource::Gpu)),
            Some(false) => nearest_cpu_node(node, topology),
        },
    };
    match by_node {
        Ok(node) => Ok((node, NodeSource::NearestCpuNode)),
        Err(reason) => match node_of_local_cpus(gpu, topology) {
            Ok(node) => Ok((node, NodeSource::LocalCpus)),
            Err(also) => Err(format!("{reason}, and {also}")),
        },
    }
}

fn nearest_cpu_node(node: NodeId, topology: &Topology) -> Result<NodeId, String> {
    let Some(distances) = topology.nodes.get(&node).and_then(|node| node.distances.as_ref()) else {
        return Err(format!("its node {node} has no CPUs and its distances are not known"));
    };
    let mut by_distance: Vec<_> = topology
        .cpu_nodes()
        .into_iter()
        .filter_map(|id| distances.get(&id).map(|distance| (*distance, id)))
        .collect();
    by_distance.sort_unstable();
    match by_distance.as_slice() {
        [] => Err(format!("no node with CPUs is known near its node {node}")),
        [(nearest, first), (next, second), ..] if nearest == next => {
            Err(format!("nodes {first} and {second} are equally near to its node {node}"))
        }
        [(_, nearest), ..] => Ok(*nearest),
    }
}

fn node_of_local_cpus(gpu: &Gpu, topology: &Topology) -> Result<NodeId, String> {
    let Some(cpus) = gpu.local_cpus.as_ref().filter(|cpus| !cpus.is_empty()) else {
        return Err("its local CPUs are not known".into());
    };
    let mut nodes = topology.nodes.iter().filter(|(_, node)| node.cpus.as_ref() == Some(cpus));
    match (nodes.next(), nodes.next()) {
        (Some((node, _)), None) => Ok(*node),
        (Some(_), Some(_)) => Err(format!("its local CPUs {cpus} are those of several nodes")),
        (None, _) => Err(format!("its local CPUs {cpus} are not those of one node")),
    }
}
