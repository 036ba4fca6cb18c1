//! Checks of a node of Kubernetes for `KubeVirt`.

use std::collections::BTreeSet;

use super::config::{kubelet, runtime};
use super::facts::Facts;
use super::{Consumer, Outcome, Verdict, first_of};
use crate::host::{GpuNode, Shape};

/// User and group of QEMU in the pods that `KubeVirt` starts.
pub(super) const QEMU: u32 = 107;

/// The alternative to permissions on the host.
pub(super) const OWNERSHIP: &str = "set device_ownership_from_security_context = true in the \
    configuration of containerd or CRI-O and restart it, so that pods own their devices";

/// Checks permissions on the host, which do not matter if the container runtime gives devices to the
/// user of their pod.
pub(super) fn unless_owned_by_pods(facts: &Facts<'_>, check: impl FnOnce() -> Outcome) -> Outcome {
    if facts.consumer != Consumer::Kubernetes {
        return check();
    }
    match &facts.runtime_owns_devices {
        Ok(true) => {
            Outcome::passed(format!("the container runtime sets the owner ({})", runtime::KEY))
        }
        Ok(false) => check(),
        Err(problem) => {
            let outcome = check();
            if outcome.verdict == Verdict::Pass { outcome } else { Outcome::skip(problem) }
        }
    }
}

const RESTART: &str = "rm -f /var/lib/kubelet/cpu_manager_state && systemctl restart kubelet";

pub(super) fn numa_nodes(facts: &Facts<'_>) -> Outcome {
    let kubelet = match &facts.kubelet {
        Ok(kubelet) => kubelet,
        Err(problem) => return Outcome::skip(problem.clone()),
    };
    let Some(nodes) = &facts.report.host.topology.online else {
        return Outcome::skip("the host's NUMA nodes are unknown");
    };
    let (count, limit) = (nodes.iter().count(), kubelet.nodes_limit());
    if kubelet.topology_policy() == "none" || count <= limit {
        return Outcome::pass();
    }
    let message = format!(
        "the host has {count} NUMA nodes, and kubelet's topology manager accepts {limit}: kubelet \
         does not start"
    );
    let path = kubelet::PATH;
    Outcome::fail(message).by_hand(
        format!(
            "in {path}, set max-allowable-numa-nodes: \"{count}\" in topologyManagerPolicyOptions"
        ),
        ["systemctl restart kubelet"],
    )
}

pub(super) fn policies(facts: &Facts<'_>) -> Outcome {
    let kubelet = match &facts.kubelet {
        Ok(kubelet) => kubelet,
        Err(problem) => return Outcome::skip(problem.clone()),
    };
    let path = kubelet::PATH;
    if kubelet.cpu_policy() != "static" {
        let message = "cpuManagerPolicy is not static: virtual machines get no dedicated CPUs, \
                       which KubeVirt requires for EGM";
        return Outcome::fail(message).by_hand(
            format!(
                "drain the node, and in {path}, set cpuManagerPolicy: static and reserve CPUs for \
                 the host (reservedSystemCPUs), which that policy requires"
            ),
            [RESTART],
        );
    }
    let sockets: BTreeSet<_> =
        facts.report.regions().iter().filter_map(|region| region.numa_node).collect();
    let message = match kubelet.topology_policy() {
        "none" => "topologyManagerPolicy is none: CPUs may be on another socket than the GPUs",
        "single-numa-node" if sockets.len() > 1 => {
            "topologyManagerPolicy is single-numa-node: a virtual machine with the GPUs of several \
             sockets is not admitted"
        }
        _ => return Outcome::pass(),
    };
    Outcome::warn(message).by_hand(
        format!("in {path}, set topologyManagerPolicy: restricted or best-effort"),
        ["systemctl restart kubelet"],
    )
}

pub(super) fn device_plugin(facts: &Facts<'_>) -> Outcome {
    let regions = &facts.report.host.regions;
    let unread: Vec<_> = regions
        .iter()
        .filter(|region| region.shape != Some(Shape::GpuList))
        .map(|region| {
            format!("{}: {}", region.name, region.shape.map_or("unknown layout", Shape::name))
        })
        .collect();
    if !unread.is_empty() {
        return Outcome::fail(format!(
            "{}; KubeVirt's device plugin knows only gpu-list, and gives no pod these regions",
            first_of(&unread)
        ))
        .hint("use a driver that lists GPUs in gpu_devices (NVIDIA's kernels do), or another device plugin");
    }
    let mut problems = Vec::new();
    for region in regions {
        let ids: BTreeSet<_> = region.gpus.iter().filter_map(|gpu| gpu.device_id).collect();
        if ids.len() > 1 {
            problems.push(format!(
                "{}: its GPUs have different ids, and so different resource names; the plugin \
                 leaves the region out",
                region.name
            ));
        }
        for gpu in region.gpus.iter().filter(|gpu| gpu.numa_node == GpuNode::None) {
            problems.push(format!(
                "{}: numa_node is -1, for which the plugin reports node 0",
                gpu.address
            ));
        }
        let known = |id: u16| KNOWN.contains(&id);
        for gpu in region.gpus.iter().filter(|gpu| gpu.device_id.is_some_and(|id| !known(id))) {
            let id = gpu.device_id.unwrap_or_default();
            problems.push(format!(
                "{}: KubeVirt 1.9 does not treat GPUs with the id {id:04x} as those of Grace",
                gpu.address
            ));
        }
    }
    if problems.is_empty() {
        return Outcome::passed(
            "QEMU and libvirt are in the image of virt-launcher, and must be NVIDIA's",
        );
    }
    Outcome::warn(first_of(&problems))
        .hint("request all GPUs of a region as one resource, and check the pod for /dev/egm*")
}

/// The GPUs that `KubeVirt` 1.9 takes for those of Grace.
const KNOWN: [u16; 3] = [0x2342, 0x2348, 0x2941];
