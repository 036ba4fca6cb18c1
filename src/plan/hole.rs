//! The window for large PCI devices in the guest's address space, `<pcihole64>`.

use super::MachineObjection;
use super::machine::{Context, Device};
use crate::host::Gpu;
use crate::values::Bytes;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The size for a GPU of unknown size: that of most Grace hosts.
const DEFAULT: Bytes = Bytes(4 * TIB);

/// The least that is computed for a GPU: the driver for passthrough makes the BARs of its memory, so
/// that the host does not see all of them (`nvgrace_gpu_vfio_pci`).
const LEAST_OF_GPU: u64 = 512 * GIB;

/// Room for small BARs (`KubeVirt`, VEP-199).
const MARGIN: u64 = GIB;

/// The limit (`KubeVirt`, VEP-199).
const LIMIT: Bytes = Bytes(16 * TIB);

/// NVIDIA's size for a model, by vendor and device id.
fn of_model(gpu: &Gpu) -> Option<u64> {
    match (gpu.vendor_id?, gpu.device_id?) {
        // GH200 and GB200.
        (0x10de, 0x2342 | 0x2345 | 0x2348 | 0x2941) => Some(4 * TIB),
        // GB300.
        (0x10de, 0x31c2 | 0x31c3) => Some(8 * TIB),
        _ => None,
    }
}

/// The 64-bit prefetchable BARs of a GPU.
fn of_bars(gpu: &Gpu) -> u64 {
    let bars = gpu.bars.iter().flatten().filter(|bar| bar.is_64bit && bar.is_prefetchable);
    bars.map(|bar| bar.size.0).fold(0, u64::saturating_add)
}

/// The size that all GPUs of the guest need. `None` if it is too large.
pub(super) fn size(
    context: Context<'_>,
    devices: &[Device],
    objections: &mut Vec<MachineObjection>,
) -> Option<Bytes> {
    let host = &context.report.host;
    let others = devices.iter().map(|device| device.address);
    let gpus = context.gpus().into_keys().chain(others);
    let (mut least, mut sum) = (0, MARGIN);
    for (gpu, _) in gpus.filter_map(|address| host.gpu(address)) {
        let (model, bars) = (of_model(gpu), of_bars(gpu));
        if model.is_none() && bars == 0 {
            let (address, size) = (gpu.address, DEFAULT);
            objections.push(MachineObjection::UnknownModel { address, size });
            least = least.max(DEFAULT.0);
        }
        least = least.max(model.unwrap_or_default());
        sum = sum.saturating_add(bars.max(LEAST_OF_GPU));
    }
    let size = sum.checked_next_power_of_two().unwrap_or(u64::MAX).max(least);
    if size > LIMIT.0 {
        objections.push(MachineObjection::HoleTooLarge { size: Bytes(size), limit: LIMIT });
        return None;
    }
    Some(Bytes(size))
}
