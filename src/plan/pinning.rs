//! The pinning of virtual CPUs to the CPUs of the host.

use std::collections::{BTreeMap, BTreeSet};

use super::MachineObjection;
use super::machine::Context;
use crate::values::{IdList, NodeId};

/// The largest number of CPUs of a node that are considered, more than any host has.
const CPUS_LIMIT: usize = 4096;

/// A virtual CPU, and the CPU of the host that it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Pin {
    /// The virtual CPU.
    pub vcpu: u32,
    /// The CPU of the host.
    pub cpu: u32,
}

/// Pins the virtual CPUs of each cell to the highest CPUs of its region's node, one each. The
/// lowest CPUs are left to the host.
pub(super) fn plan(context: Context<'_>, objections: &mut Vec<MachineObjection>) -> Vec<Pin> {
    let not_pinned = |cell, reason| MachineObjection::NotPinned { cell, reason };
    if context.cells.vcpus.is_none() {
        objections.push(not_pinned(None, "their number is unknown (use --vcpus)"));
        return Vec::new();
    }
    let (pinned, used) = existing(context);
    let nodes = context.nodes();
    let mut by_node: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
    for cell in &context.cells.all {
        let Some(vcpus) = cell.cpus.as_ref() else { continue };
        let vcpus = vcpus.iter().take(CPUS_LIMIT).filter(|vcpu| !pinned.contains(vcpu));
        let vcpus: Vec<_> = vcpus.collect();
        match nodes.get(&cell.id) {
            _ if vcpus.is_empty() => {}
            Some(node) => by_node.entry(*node).or_default().extend(vcpus),
            None => objections.push(not_pinned(Some(cell.id), "its host NUMA node is unknown")),
        }
    }
    let mut pins = Vec::new();
    for (node, vcpus) in by_node {
        let topology = &context.report.host.topology;
        let Some(cpus) = topology.nodes.get(&node).and_then(|node| node.cpus.as_ref()) else {
            let cells = nodes.iter().filter(|(_, of_cell)| **of_cell == node);
            objections.extend(cells.map(|(cell, _)| {
                not_pinned(Some(*cell), "the CPUs of its host NUMA node are unknown")
            }));
            continue;
        };
        let free = cpus.iter().take(CPUS_LIMIT).skip(1).filter(|cpu| !used.contains(cpu));
        let free: Vec<_> = free.collect();
        let Some(left) = free.len().checked_sub(vcpus.len()) else {
            let count = |list: &[u32]| u64::try_from(list.len()).unwrap_or(u64::MAX);
            let (vcpus, cpus) = (count(&vcpus), count(&free));
            objections.push(MachineObjection::TooManyVcpus { vcpus, node, cpus });
            continue;
        };
        let cpus = free.into_iter().skip(left);
        pins.extend(vcpus.into_iter().zip(cpus).map(|(vcpu, cpu)| Pin { vcpu, cpu }));
    }
    pins.sort_unstable();
    pins
}

/// The virtual CPUs that the domain pins, and the host's CPUs that they have, unless they are
/// replaced.
fn existing(context: Context<'_>) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let pins = context.domain.into_iter().flat_map(|domain| &domain.pins);
    let pins = pins.filter(|_| !context.request.machine.replace);
    let (mut vcpus, mut cpus) = (BTreeSet::new(), BTreeSet::new());
    for pin in pins {
        vcpus.extend(pin.vcpu.as_ref().and_then(|vcpu| vcpu.value));
        let of_host = pin.cpus.value.iter().flat_map(IdList::iter);
        cpus.extend(of_host.take(CPUS_LIMIT));
    }
    (vcpus, cpus)
}
