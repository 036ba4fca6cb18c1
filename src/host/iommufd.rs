//! Whether a host has `/dev/iommu`, through which QEMU uses GPUs (iommufd).

use std::path::Path;

use crate::sysroot::{FileKind, Sysroot};

/// The device node, which is never opened.
pub(crate) const NODE: &str = "/dev/iommu";

/// Whether the node exists. `None` if the root has no `/dev`, the node cannot be examined, or a
/// capture does not say: older versions of egm-probe did not record it.
pub(super) fn exists(root: &Sysroot) -> Option<bool> {
    root.stat("/dev").ok()?;
    match root.stat(NODE) {
        Ok(stat) => Some(matches!(stat.kind, FileKind::CharDevice(_))),
        Err(error) => (error.is_absent() && root.knows_absence(Path::new(NODE))).then_some(false),
    }
}
