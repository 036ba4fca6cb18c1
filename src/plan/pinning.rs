//! The pinning of virtual CPUs to the CPUs of the host.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Context;
use super::{MachineObjection, PlannedCell};
use crate::domain::{Domain, Maybe};
use crate::host::NumaNode;
use crate::report::Report;
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
        let reason = match context.domain {
            Some(_) => "the domain has no <vcpu>, so its NUMA nodes have none (use --vcpus N)",
            None => "their number is unknown (use --vcpus)",
        };
        objections.push(not_pinned(None, reason));
        return Vec::new();
    }
    let (pinned, used) = existing(context);
    if context.cells.moves_vcpus && !replaces(context) {
        check_own(context, objections);
    }
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
        let mut free: Vec<_> = free.collect();
        let quiet = without_threads(&free, context.domain);
        if quiet.len() >= vcpus.len() {
            free = quiet;
        }
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

/// Whether the pinning of the domain is replaced: on request, or because it is that of an earlier
/// plan for other cells.
pub(super) fn replaces(context: Context<'_>) -> bool {
    context.request.machine.replace
        || context.cells.moves_vcpus && context.domain.is_some_and(|it| is_own(context.report, it))
}

/// Whether the pins of a domain are as plans make them: on each node the highest CPUs, one each, in
/// the order of the virtual CPUs.
pub(crate) fn is_own(report: &Report, domain: &Domain) -> bool {
    let nodes = &report.host.topology.nodes;
    let cpus_of = |node: &NumaNode| node.cpus.clone().unwrap_or_default();
    let mut by_node: BTreeMap<NodeId, BTreeMap<u32, u32>> = BTreeMap::new();
    for pin in &domain.pins {
        let cpus = pin.cpus.value.as_ref().filter(|cpus| cpus.len() == 1);
        let Some((vcpu, cpu)) = pin.vcpu.known().zip(cpus.and_then(IdList::last)) else {
            return false;
        };
        let mut of_host = nodes.iter().filter(|(_, node)| cpus_of(node).contains(cpu));
        let Some((node, _)) = of_host.next() else { return false };
        by_node.entry(*node).or_default().insert(vcpu, cpu);
    }
    by_node.into_iter().all(|(node, pinned)| {
        let cpus = nodes.get(&node).map(cpus_of).unwrap_or_default();
        let cpus: Vec<_> = cpus.iter().take(CPUS_LIMIT).collect();
        let are_highest =
            |cpus: &[u32]| cpus.iter().rev().take(pinned.len()).eq(pinned.values().rev());
        are_highest(&without_threads(&cpus, Some(domain))) || are_highest(&cpus)
    })
}

/// The CPUs that QEMU's other threads are not pinned to.
fn without_threads(cpus: &[u32], domain: Option<&Domain>) -> Vec<u32> {
    let pins = || domain.into_iter().flat_map(|domain| &domain.thread_pins);
    let is_used = |cpu| pins().any(|pin| pin.value.as_ref().is_some_and(|it| it.contains(cpu)));
    cpus.iter().copied().filter(|cpu| !is_used(*cpu)).collect()
}

/// Refuses pins of the domain's own that are wrong for the new cells of their virtual CPUs.
fn check_own(context: Context<'_>, objections: &mut Vec<MachineObjection>) {
    let nodes = context.nodes();
    for pin in context.domain.into_iter().flat_map(|domain| &domain.pins) {
        let Some((vcpu, on)) = pin.vcpu.known().zip(pin.cpus.value.as_ref()) else { continue };
        let has_it = |cell: &&PlannedCell| cell.cpus.as_ref().is_some_and(|it| it.contains(vcpu));
        let Some(cell) = context.cells.all.iter().find(has_it) else { continue };
        let node = nodes.get(&cell.id).and_then(|it| context.report.host.topology.nodes.get(it));
        let local = node.and_then(|node| node.cpus.as_ref());
        if local.is_some_and(|local| on.first_beyond(local).is_some()) {
            return objections.push(MachineObjection::OwnPin { vcpu });
        }
    }
}

/// The virtual CPUs that the domain pins, and the host's CPUs that they have, unless they are
/// replaced.
fn existing(context: Context<'_>) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let pins = context.domain.into_iter().flat_map(|domain| &domain.pins);
    let pins = pins.filter(|_| !replaces(context));
    let (mut vcpus, mut cpus) = (BTreeSet::new(), BTreeSet::new());
    for pin in pins {
        vcpus.extend(pin.vcpu.as_ref().and_then(|vcpu| vcpu.value));
        let of_host = pin.cpus.value.iter().flat_map(IdList::iter);
        cpus.extend(of_host.take(CPUS_LIMIT));
    }
    (vcpus, cpus)
}
