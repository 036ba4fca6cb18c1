//! Checks for Kata Containers.

use super::facts::Facts;
use super::{Outcome, first_of};
use crate::host::{GpuNode, Region};
use crate::sysroot::Sysroot;

/// The directory in which Kata Containers looks for the regions and their sizes.
const CLASS: &str = "/sys/class/misc";

/// Whether Kata Containers finds a region with its size.
pub(super) fn finds(root: &Sysroot, region: &Region) -> bool {
    root.stat(format!("{CLASS}/{}/size", region.name)).is_ok()
}

pub(super) fn regions(facts: &Facts<'_>) -> Outcome {
    let host = &facts.report.host;
    let mut problems = Vec::new();
    let unfound = host.regions.iter().zip(&facts.kata).filter(|(_, is_found)| !**is_found);
    problems.extend(unfound.map(|(region, _)| {
        format!(
            "{}: Kata Containers looks for {CLASS}/{0}/size, which this driver lacks",
            region.name
        )
    }));
    for gpu in host.regions.iter().flat_map(|region| &region.gpus) {
        match gpu.numa_node {
            GpuNode::None => problems
                .push(format!("{}: numa_node is -1, which is taken for node 0", gpu.address)),
            GpuNode::Node(node)
                if host.topology.with_cpus.as_ref().is_some_and(|it| !it.contains(node.0)) =>
            {
                problems.push(format!(
                    "{}: NUMA node {node} has no CPUs, with which Kata Containers stops",
                    gpu.address
                ));
            }
            _ => {}
        }
    }
    if problems.is_empty() {
        return Outcome::pass();
    }
    Outcome::warn(first_of(&problems))
        .hint("start QEMU with the arguments of `egm-probe stanza --format qemu-args` instead")
}
