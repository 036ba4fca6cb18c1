//! Determines the NUMA node of a region. Does no I/O.
//!
//! A region is memory of a socket, so its node is the one with that socket's CPUs. No released
//! driver shows it: the number in its name is a proximity domain, and the node that Linux
//! creates for that domain is never online. Therefore the node is derived from the GPUs of the
//! region.

use super::gpu::{Gpu, GpuNode};
use super::numa::NumaTopology;
use super::region::Region;
use crate::values::text::excerpt;
use crate::values::{NodeId, named};
use crate::warning::Warning;

named! {
    /// The source of a region's host NUMA node, most reliable first.
    #[non_exhaustive]
    pub enum NodeSource {
        /// The region's own attribute `numa_node`.
        Region = "region",
        /// The `numa_node` of its GPUs has CPUs.
        Gpu = "gpu",
        /// The `numa_node` of its GPUs has no CPUs (it is the GPU's own node): this is the nearest
        /// node with CPUs.
        NearestCpuNode = "nearest-cpu-node",
        /// Its GPUs have no `numa_node`, but their local CPUs are exactly those of one node.
        LocalCpus = "local-cpus",
    }
}

/// Sets the region's node to that of its GPUs if they agree, unless the driver shows its node.
pub(super) fn place_region(region: &mut Region) {
    if region.numa_node.is_some() {
        return;
    }
    let mut placed = region.gpus.iter().filter_map(|gpu| Some((gpu.address, gpu.host_node?)));
    let Some((first, (node, mut surest))) = placed.next() else { return };
    for (other, (elsewhere, source)) in placed {
        if elsewhere != node {
            region.warnings.push(Warning::NodeDisagreement((first, node), (other, elsewhere)));
            return;
        }
        surest = surest.min(source);
    }
    region.numa_node = Some(node);
    region.numa_node_from = Some(surest);
}

/// Sets a GPU's host node: the one with the CPUs of its socket.
pub(super) fn place_gpu(gpu: &mut Gpu, topology: &NumaTopology) {
    match host_node(gpu, topology) {
        Ok(node) => gpu.host_node = Some(node),
        // A missing GPU already has a warning.
        Err(_) if !gpu.is_there => {}
        Err(reason) => gpu.warnings.push(Warning::NodeUnknown { address: gpu.address, reason }),
    }
}

fn host_node(gpu: &Gpu, topology: &NumaTopology) -> Result<(NodeId, NodeSource), String> {
    let by_node = match gpu.numa_node {
        GpuNode::Unknown => Err("its numa_node is unknown".into()),
        GpuNode::None => Err("its numa_node is -1".into()),
        GpuNode::Node(node) => match topology.has_cpus(node) {
            None => Err(format!("its node {node} may or may not have CPUs")),
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

fn nearest_cpu_node(node: NodeId, topology: &NumaTopology) -> Result<NodeId, String> {
    let Some(distances) = topology.nodes.get(&node).and_then(|node| node.distances.as_ref()) else {
        return Err(format!("its node {node} has no CPUs and unknown distances"));
    };
    let mut by_distance: Vec<_> = topology
        .possible_cpu_nodes()
        .into_iter()
        .filter_map(|id| distances.get(&id).map(|distance| (*distance, id)))
        .collect();
    by_distance.sort_unstable();
    let Some(&(nearest, first)) = by_distance.first() else {
        return Err(format!("no known node with CPUs is near its node {node}"));
    };
    let as_near: Vec<_> = by_distance.iter().take_while(|(near, _)| *near == nearest).collect();
    if let Some((_, unknown)) = as_near.iter().find(|(_, id)| topology.has_cpus(*id).is_none()) {
        return Err(format!(
            "node {unknown}, the nearest to its node {node}, may or may not have CPUs"
        ));
    }
    match as_near.as_slice() {
        [_] => Ok(first),
        _ => Err(format!("several nodes with CPUs are equally near to its node {node}")),
    }
}

fn node_of_local_cpus(gpu: &Gpu, topology: &NumaTopology) -> Result<NodeId, String> {
    let Some(cpus) = gpu.local_cpus.as_ref().filter(|cpus| !cpus.is_empty()) else {
        return Err("its local CPUs are unknown".into());
    };
    let shown = || excerpt(&cpus.to_string(), 40);
    let mut found = None;
    for id in topology.possible_cpu_nodes() {
        match topology.nodes.get(&id).and_then(|node| node.cpus.as_ref()) {
            None => return Err(format!("the CPUs of node {id} are unknown")),
            Some(of_node) if of_node != cpus => {}
            Some(_) if found.is_some() => {
                return Err(format!("its local CPUs {} belong to several nodes", shown()));
            }
            Some(_) => found = Some(id),
        }
    }
    found.ok_or_else(|| format!("its local CPUs {} do not match any node", shown()))
}
