//! The rule for the window of large PCI devices.

use super::Wiring;
use crate::check::rules::PCI_HOLE;
use crate::check::{Findings, Severity};
use crate::domain::{Bus, Value};
use crate::values::Bytes;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A GPU's share of the window (`KubeVirt`), and the window for smaller devices.
const OF_GPU: u64 = 512 * GIB;
const OF_OTHERS: u64 = GIB;

/// The least window: of GH200 and GB200, and of GB300 and its variant (NVIDIA's table).
const LEAST: u64 = 4 * TIB;
const LEAST_GB300: u64 = 8 * TIB;
const GB300: [u16; 2] = [0x31c2, 0x31c3];

/// The largest window (`KubeVirt`).
const MOST: u64 = 16 * TIB;

pub(super) fn check(wiring: &Wiring<'_>, findings: &mut Findings) {
    let least = least(wiring);
    let right = format!("<pcihole64 unit='KiB'>{}</pcihole64>", least.0 >> 10);
    let Some(hole) = wiring.machine.hole() else {
        if wiring.has_buses() {
            let first = wiring.machine.controller(&Bus::Index(0));
            let place = first.map_or(&wiring.subject.domain.span, |it| &it.span);
            let help = format!("{right} in <controller type='pci' index='0' model='pcie-root'>");
            findings.add(PCI_HOLE, place, "<pcihole64> is missing").help(help);
        }
        return;
    };
    let Value { value: Some(size), span, .. } = hole else { return };
    let kib = size.0 >> 10;
    if !size.0.is_power_of_two() {
        let message = format!("a PCI hole of {kib} KiB is not a power of two");
        findings.add(PCI_HOLE, span, message).help(right);
    } else if *size < least {
        let message = format!("a PCI hole of {size} is too small, expected {least}");
        findings.add(PCI_HOLE, span, message).help(right);
    } else if size.0 > MOST.max(least.0) {
        let message = format!("a PCI hole of {size} is larger than {}", Bytes(MOST));
        let finding = findings.add(PCI_HOLE, span, message);
        finding.help(right);
        finding.severity = Severity::Warning;
    }
}

/// The least window for the GPUs of a domain. Without their host, they are not GB300.
fn least(wiring: &Wiring<'_>) -> Bytes {
    let count = u64::try_from(wiring.gpus.len()).unwrap_or(u64::MAX);
    let sum = count.saturating_mul(OF_GPU).saturating_add(OF_OTHERS);
    let sum = sum.checked_next_power_of_two().unwrap_or(u64::MAX);
    let is_gb300 = wiring.gpus.iter().any(|gpu| {
        let of_host = || wiring.subject.report?.host.gpu(gpu.hostdev.pci()?)?.0.device_id;
        of_host().is_some_and(|id| GB300.contains(&id))
    });
    Bytes(sum.max(if is_gb300 { LEAST_GB300 } else { LEAST }))
}
