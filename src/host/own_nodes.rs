//! The NUMA nodes that the kernel made for the memory of each GPU.
//!
//! The firmware of a Grace host declares eight generic initiators for each GPU, one for each MIG
//! instance, and the kernel makes a node for each. No file says which GPU a node belongs to. The
//! nodes are given to the GPUs in order of their addresses, eight to each, but only if the numbers
//! match exactly: with fewer or more nodes, or with a GPU that cannot be identified, all of them
//! are unknown. (`KubeVirt` also takes eight each, in order, and accepts surplus nodes.)

use std::collections::{BTreeMap, BTreeSet};

use super::gpu::{Gpu, Others};
use super::numa_reader::NumaReader;
use crate::values::{IdList, PciAddress};

/// The number of nodes for each GPU.
const NODES_A_GPU: usize = 8;

/// The own nodes of the Grace GPUs of a host, which are `known` or `others`; `None` if unknown.
pub(super) fn read(
    known: &[&Gpu],
    others: &Others,
    numa: &mut NumaReader<'_>,
) -> Option<BTreeMap<PciAddress, IdList>> {
    let mut grace = BTreeSet::new();
    for gpu in known.iter().copied().chain(&others.gpus) {
        // A GPU that cannot be identified may have nodes.
        if gpu.is_grace()? {
            grace.insert(gpu.address);
        }
    }
    if !others.is_complete || grace.is_empty() {
        return None;
    }
    numa.read_initiators();
    divide(numa.topology.with_initiators.as_ref()?, &grace, known.iter().copied())
}

/// Divides the nodes with generic initiators among all Grace GPUs of a host. `known` are GPUs whose
/// NUMA node was read: a GPU on a node that would be another one's refutes the order.
pub(super) fn divide<'a>(
    initiators: &IdList,
    grace: &BTreeSet<PciAddress>,
    known: impl IntoIterator<Item = &'a Gpu>,
) -> Option<BTreeMap<PciAddress, IdList>> {
    let expected = grace.len().checked_mul(NODES_A_GPU)?;
    if initiators.len() != u64::try_from(expected).ok()? {
        return None;
    }
    let mut nodes = initiators.iter();
    let of_gpus: BTreeMap<PciAddress, IdList> =
        grace.iter().map(|gpu| (*gpu, nodes.by_ref().take(NODES_A_GPU).collect())).collect();
    let is_refuted = |gpu: &Gpu| {
        gpu.numa_node.id().is_some_and(|node| {
            let own = of_gpus.get(&gpu.address);
            initiators.contains(node.0) && !own.is_some_and(|own| own.contains(node.0))
        })
    };
    let is_refuted = known.into_iter().any(is_refuted);
    (!is_refuted).then_some(of_gpus)
}

#[cfg(test)]
mod tests {
    use super::divide;
    use crate::host::{Gpu, GpuNode};
    use crate::values::{IdList, NodeId, PciAddress};

    fn gpu(address: &str, node: GpuNode) -> Gpu {
        let mut gpu = Gpu::at(address.parse().unwrap(), "/sys".into());
        gpu.numa_node = node;
        gpu
    }

    /// The nodes of GPUs on these nodes.
    fn nodes(initiators: &str, gpus: &[(&str, GpuNode)]) -> Option<Vec<(PciAddress, String)>> {
        let gpus: Vec<_> = gpus.iter().map(|(address, node)| gpu(address, *node)).collect();
        let grace = gpus.iter().map(|gpu| gpu.address).collect();
        let initiators: IdList = initiators.parse().unwrap();
        let nodes = divide(&initiators, &grace, &gpus)?;
        Some(nodes.into_iter().map(|(gpu, nodes)| (gpu, nodes.to_string())).collect())
    }

    #[test]
    fn each_gpu_has_eight_in_order_of_addresses() {
        let on_0 = GpuNode::Node(NodeId(0));
        let gpus = [("0018:01:00.0", on_0), ("0009:01:00.0", on_0), ("10000:01:00.0", on_0)];
        let found = nodes("2-9,12-19,40-47", &gpus).unwrap();
        let found: Vec<_> =
            found.iter().map(|(gpu, nodes)| (gpu.to_string(), nodes.as_str())).collect();
        let expected =
            [("0009:01:00.0", "2-9"), ("0018:01:00.0", "12-19"), ("10000:01:00.0", "40-47")];
        assert_eq!(found, expected.map(|(gpu, nodes)| (gpu.to_owned(), nodes)));
    }

    #[test]
    fn any_other_number_of_nodes_is_unknown() {
        let one = [("0009:01:00.0", GpuNode::None)];
        assert!(nodes("1-8", &one).is_some());
        for list in ["", "1-7", "1-9", "1-16", "0-4294967295"] {
            assert_eq!(nodes(list, &one), None, "{list}");
        }
        let two = [one[0], ("0019:01:00.0", GpuNode::None)];
        assert_eq!(nodes("1-8", &two), None);
    }

    #[test]
    fn a_gpu_on_the_node_of_another_refutes_the_order() {
        let gpus = |first, second| {
            let node = |id| GpuNode::Node(NodeId(id));
            [("0008:01:00.0", node(first)), ("0009:01:00.0", node(second))]
        };
        assert!(nodes("2-17", &gpus(0, 0)).is_some());
        assert!(nodes("2-17", &gpus(2, 10)).is_some());
        assert_eq!(nodes("2-17", &gpus(10, 2)), None);
        assert_eq!(nodes("2-17", &gpus(0, 2)), None);
    }
}
