//! Whether a host without regions can have EGM at all.

use super::facts::Facts;
use crate::host::Gpu;
use crate::values::text::{SHOWN, excerpt, plural};

/// The GPU of DGX Spark, which has no EGM and cannot be assigned to virtual machines.
const GB10: u16 = 0x2e12;

/// The reason why a host cannot have EGM; `None` if it may.
pub(super) fn without_egm(facts: &Facts<'_>) -> Option<String> {
    const GRACE: &str = "EGM is a feature of NVIDIA Grace";
    let host = &facts.report.host;
    if !host.regions.is_empty() {
        return None;
    }
    match facts.kernel.arch.as_deref() {
        Some("aarch64") | None => {}
        Some(arch) => {
            let arch = excerpt(arch, SHOWN);
            return Some(format!("no EGM on this platform ({arch}): {GRACE}, which is aarch64"));
        }
    }
    let gpus = &host.other_gpus;
    let is_gb10 = |gpu: &Gpu| gpu.device_id == Some(GB10);
    if gpus.is_empty() || gpus.iter().any(|gpu| gpu.is_grace() != Some(false)) {
        return None;
    }
    if gpus.iter().all(is_gb10) {
        return Some("no EGM on this platform: GB10 (DGX Spark) does not have it".into());
    }
    let count = plural(gpus.len(), "NVIDIA GPU");
    Some(format!("no EGM on this platform: {count} found, none known as a GPU of Grace; {GRACE}"))
}
