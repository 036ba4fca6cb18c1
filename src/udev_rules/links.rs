//! Additional names that the rules give to a region's device.

use crate::host::{Host, Needs};
use crate::sysroot::Sysroot;
use crate::values::RegionName;

/// The links of a region's device, as paths below `/dev`: `grace-egm/by-node/0` and
/// `grace-egm/by-gpu/0009:01:00.0` for each GPU. They are built from numbers, so text in sysfs does
/// not get into a path. Empty if neither is known.
#[must_use]
pub(crate) fn links(root: &Sysroot, name: &RegionName) -> Vec<String> {
    let host = Host::read(root, Needs::NUMA);
    let Some(region) = host.region(name) else { return Vec::new() };
    let node = region.numa_node.map(|node| format!("grace-egm/by-node/{}", node.0));
    let gpus = region.gpus.iter().map(|gpu| format!("grace-egm/by-gpu/{}", gpu.address));
    node.into_iter().chain(gpus).collect()
}
