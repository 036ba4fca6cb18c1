//! The rules that need the host.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::{BEYOND, NO_GPU, NOT_A_REGION, OTHER_REGION};
use super::{Findings, Subject};
use crate::domain::EgmDevice;
use crate::host::{Host, Region, instead};
use crate::report::Report;
use crate::text::excerpt;

const SHOWN: usize = 80;

pub(super) fn check(subject: &Subject<'_>, report: &Report, findings: &mut Findings) {
    let host = &report.host;
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for device in &subject.domain.egm {
        let Some(path) = &device.path else { continue };
        let Some(region) = region_of(host, &path.text) else {
            let regions: Vec<_> =
                host.regions.iter().map(|region| region.device.path.to_string_lossy()).collect();
            let message = format!("{} is no EGM region of this host", excerpt(&path.text, SHOWN));
            let finding = findings.add(NOT_A_REGION, &path.span, message);
            if !regions.is_empty() {
                finding.help(format!("this host has {}", regions.join(", ")));
            }
            continue;
        };
        check_gpu(subject, host, region, device, findings);
        let Some(size) = &device.size else { continue };
        let sum = sums.entry(&path.text).or_default();
        let before = *sum;
        *sum = sum.saturating_add(size.value.map_or(0, |size| size.0));
        if let Some(all) = region.size.filter(|all| *sum > all.0) {
            let left = all.0.saturating_sub(before) >> 10;
            let message = format!(
                "{} has {} KiB, and its devices {} KiB",
                region.name,
                all.0 >> 10,
                *sum >> 10
            );
            findings.add(BEYOND, &size.span, message).help(format!("{left} KiB, or less"));
        }
    }
}

fn region_of<'a>(host: &'a Host, path: &str) -> Option<&'a Region> {
    host.regions.iter().find(|region| region.device.path.as_os_str() == path)
}

fn check_gpu(
    subject: &Subject<'_>,
    host: &Host,
    region: &Region,
    device: &EgmDevice,
    findings: &mut Findings,
) {
    let Some(alias) = &device.pci_dev else { return };
    let hostdev = subject.hostdev(device);
    let Some(found) = hostdev.and_then(|hostdev| hostdev.address.as_ref()) else { return };
    let Some(address) = found.value else { return };
    if region.gpus.iter().any(|gpu| gpu.address == address) {
        return;
    }
    let own = region.gpus.iter().map(|gpu| gpu.address);
    let Some((_, other)) = host.gpu(address) else {
        let message = format!("this host has no GPU {address}");
        let known: BTreeSet<_> = own.collect();
        let finding = findings.add(NO_GPU, &found.span, message);
        if !known.is_empty() {
            let help = instead(address, &known);
            finding.help(help.trim_start_matches("; "));
        }
        return;
    };
    let belongs = other.map_or("no region".into(), |other| other.name.to_string());
    let message = format!("GPU {address} belongs to {belongs}, not to {}", region.name);
    let finding = findings.add(OTHER_REGION, &alias.span, message);
    if let Some(other) = other {
        finding.help(format!("<path>{}</path>", other.device.path.display()));
    }
}
