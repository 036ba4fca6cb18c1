//! GPUs that the driver lists for no region, or for several.

use std::collections::BTreeMap;

use super::gpu::Gpu;
use super::region::Region;
use super::scan::Host;
use super::shape::{GpuSource, Shape};
use crate::values::{NodeId, PciAddress, RegionName};
use crate::warning::Warning;

impl Host {
    /// Reports the GPUs that several regions list.
    pub(super) fn report_shared_gpus(&mut self) {
        let mut owners: BTreeMap<PciAddress, &RegionName> = BTreeMap::new();
        for region in &self.regions {
            for gpu in &region.gpus {
                if let Some(first) = owners.insert(gpu.address, &region.name) {
                    self.warnings.push(Warning::GpuOfTwoRegions {
                        address: gpu.address,
                        first: first.clone(),
                        second: region.name.clone(),
                    });
                }
            }
        }
    }

    /// Whether a region lists no GPUs but has a NUMA node of its own.
    pub(super) fn lists_no_gpus_of_a_node(&self) -> bool {
        self.regions.iter().any(|region| region.gpus.is_empty() && region.numa_node.is_some())
    }

    /// Gives the regions that list no GPUs but have a NUMA node the Grace GPUs of that node.
    pub(super) fn infer_gpus(&mut self) {
        let lists_none = |region: &Region| region.gpus.is_empty();
        let mut regions: BTreeMap<NodeId, usize> = BTreeMap::new();
        for node in self.regions.iter().filter(|it| lists_none(it)).filter_map(|it| it.numa_node) {
            *regions.entry(node).or_default() += 1;
        }
        for region in self.regions.iter_mut().filter(|region| lists_none(region)) {
            let Some(node) = region.numa_node else { continue };
            // The GPUs of a node with several regions may belong to any of them.
            let is_only = regions.get(&node) == Some(&1);
            let is_on_node = |gpu: &Gpu| gpu.host_node.is_some_and(|(of, _)| of == node);
            let (gpus, others) = std::mem::take(&mut self.other_gpus)
                .into_iter()
                .partition(|gpu| is_only && gpu.is_grace() == Some(true) && is_on_node(gpu));
            (region.gpus, self.other_gpus) = (gpus, others);
            if region.gpus.is_empty() {
                region.warnings.push(Warning::NoGpus { path: region.path.clone() });
            } else {
                region.learnt_from.push(GpuSource::NumaNode);
                region.warnings.push(Warning::GpusInferred { node });
            }
        }
    }

    /// Finds the GPUs that no region lists but that may belong to one.
    pub(super) fn suspect_peers(&mut self) {
        for region in &mut self.regions {
            if !region.shape.is_some_and(Shape::lists_only_bound_gpus) {
                continue;
            }
            let is_peer = |other: &&Gpu| {
                let node = other.host_node.map(|(node, _)| node);
                node.is_some()
                    && node == region.numa_node
                    && region.gpus.iter().any(|gpu| gpu.is_same_kind(other))
            };
            let suspected = self.other_gpus.iter().filter(is_peer).map(|gpu| {
                let driver = gpu.driver.name().map(str::to_owned);
                Warning::SuspectedPeer { address: gpu.address, driver }
            });
            region.warnings.extend(suspected);
        }
    }
}
