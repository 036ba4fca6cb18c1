//! Rules for a domain with EGM as a whole, mostly policy.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use super::rules::{
    ALLOCATION, CELLS, COMMAND_LINE, HUGE_PAGES, MODEL, NAME, OBSOLETE, OTHER_MEMORY, SHIFTED,
    SLOTS, TWO_HOSTDEVS, UNEVEN,
};
use super::{Findings, Severity, Subject};
use crate::domain::{Domain, EgmDevice, Hostdev, Maybe, Value};
use crate::values::PciAddress;
use crate::values::text::{SHOWN, excerpt};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let domain = subject.domain;
    let name = domain.name_span.as_ref().unwrap_or(&domain.span);
    if domain.name.is_empty() {
        findings.add(NAME, name, "name is missing or empty").help("<name>vm1</name>");
    } else if domain.name.contains('/') {
        findings.add(NAME, name, "name contains a slash").help("use another character");
    }
    check_backing(domain, findings);
    check_other_memory(domain, findings);
    check_hostdevs(subject, findings);
    check_shares(domain, findings);
}

/// Elements that were meant to be EGM, but are not to libvirt; the domain may have no other EGM.
pub(super) fn check_forms(domain: &Domain, findings: &mut Findings) {
    // libvirt drops it, so without another device the guest has only ordinary memory.
    let severity = if domain.egm.is_empty() { Severity::Error } else { Severity::Warning };
    for span in &domain.obsolete {
        let finding = findings.add(OBSOLETE, span, "<acpiEgmMemory> is obsolete");
        finding.severity = severity;
        finding.help(
            "<memory model='egm' access='shared'> with <source><path>/dev/egm4</path></source> and \
             <target><size unit='KiB'>..</size><node>0</node><pciDev>ua-hostdev0</pciDev></target>",
        );
    }
    for device in domain.other_memory.iter().filter(|device| !device.is_known()) {
        let message = format!("unknown memory model `{}`", excerpt(device.model.text(), SHOWN));
        let finding = findings.add(MODEL, device.model.place(&device.span), message);
        if device.is_like_egm() {
            finding.help("did you mean `egm`?");
        }
    }
    for argument in &domain.qemu_arguments {
        let text = &argument.text;
        let is_memory = text.contains("memory-backend-file") && text.contains("/dev/egm");
        if text.contains("acpi-egm-memory") || is_memory {
            let message =
                "EGM in <qemu:arg> bypasses libvirt, which sets up the guest's memory itself";
            let finding = findings.add(COMMAND_LINE, &argument.span, message);
            finding.help(
                "<memory model='egm'> with a libvirt that supports it, or QEMU without libvirt",
            );
        }
    }
}

fn check_backing(domain: &Domain, findings: &mut Findings) {
    let backing = &domain.backing;
    if let Some(span) = &backing.hugepages {
        let message = "<hugepages> conflicts with EGM memory";
        let help = "remove it, as `egm-probe stanza --with numa --replace --domain FILE` does";
        findings.add(HUGE_PAGES, span, message).help(help);
    }
    match &backing.allocation {
        Some(mode) if mode.text == "immediate" => {}
        Some(mode) => {
            let message = format!("allocation mode is `{}`, expected `immediate`", mode.shown());
            findings.add(ALLOCATION, &mode.span, message).help("mode='immediate'");
        }
        None => {
            let message = "memory is not allocated at startup";
            let right = "<allocation mode='immediate'/> in <memoryBacking>";
            findings.add(ALLOCATION, &domain.span, message).help(right);
        }
    }
}

fn check_hostdevs(subject: &Subject<'_>, findings: &mut Findings) {
    let domain = subject.domain;
    let by_hostdev = |device| Some((subject.hostdev(device)?.span.start, device));
    let devices: BTreeMap<_, &EgmDevice> = domain.egm.iter().filter_map(by_hostdev).collect();
    let mut seen: BTreeMap<PciAddress, Option<&Hostdev>> = BTreeMap::new();
    seen.extend(domain.interfaces.iter().filter_map(|address| Some((address.value?, None))));
    let mut twice = Vec::new();
    for hostdev in &domain.hostdevs {
        let Some(address) = hostdev.pci() else { continue };
        match seen.entry(address) {
            Entry::Vacant(place) => _ = place.insert(Some(hostdev)),
            Entry::Occupied(first) => twice.push((address, *first.get(), hostdev)),
        }
    }
    for (address, first, second) in twice {
        // The first one is wrong if its EGM is of another region.
        let device = |hostdev: &Hostdev| devices.get(&hostdev.span.start).copied();
        let is_foreign = |it: &&Hostdev| device(it).is_some_and(|it| subject.is_foreign(it));
        let wrong = first.filter(is_foreign).unwrap_or(second);
        let Some(found) = &wrong.address else { continue };
        let device = device(wrong);
        let path = device.and_then(|device| device.path.as_ref());
        let meant = path.and_then(|path| {
            let regions = &subject.report?.host.regions;
            let region = regions.iter().find(|it| it.device.path == Path::new(&path.text))?;
            region.gpus.iter().map(|gpu| gpu.address).find(|address| !seen.contains_key(address))
        });
        let help = meant.map_or("remove one of them".into(), in_xml);
        let message = format!("duplicate device {address}");
        findings.add(TWO_HOSTDEVS, &found.span, message).help(help);
        if let Some(device) = device {
            findings.settle(device);
        }
    }
}

/// Reports a GPU address that looks misaligned, if the host has no such function.
pub(super) fn report_shifted(
    found: &Value<PciAddress>,
    address: PciAddress,
    meant: PciAddress,
    findings: &mut Findings,
) {
    let message = format!("{address} looks like {meant} with misaligned parts");
    findings.add(SHIFTED, &found.span, message).help(in_xml(meant));
}

/// An address as libvirt writes it.
pub(super) fn in_xml(address: PciAddress) -> String {
    format!(
        "domain='0x{:04x}' bus='0x{:02x}' slot='0x{:02x}' function='0x{:x}'",
        address.domain(),
        address.bus(),
        address.slot(),
        address.function()
    )
}

fn check_other_memory(domain: &Domain, findings: &mut Findings) {
    for model in
        domain.other_memory.iter().filter(|it| it.is_known()).filter_map(|it| it.model.as_ref())
    {
        let message = format!("memory of model `{}` in addition to EGM", model.shown());
        findings.add(OTHER_MEMORY, &model.span, message).help("use EGM only");
    }
    let taking = domain.other_memory.iter().filter(|device| device.takes_a_slot());
    let slots = domain.memory_slots.known().unwrap_or(0);
    let beyond = taking.enumerate().find(|(index, _)| u32::try_from(*index).ok() >= Some(slots));
    if let Some((_, device)) = beyond {
        let message = format!("no free memory slot for the device: <maxMemory> has {slots}");
        findings.add(SLOTS, &device.span, message).help("slots='..' in <maxMemory>, or EGM only");
    }
    if findings.has(&[CELLS]) || !findings.settled.is_empty() {
        return;
    }
    let backed = |id| {
        let cells = domain.egm.iter().filter_map(|device| device.cell.known());
        cells.into_iter().any(|cell| cell == id)
    };
    for cell in domain.cells.iter().take(super::CELLS_LIMIT) {
        let Some(memory) = &cell.memory else { continue };
        let has_memory = memory.value.is_some_and(|memory| memory.0 > 0);
        if has_memory && cell.id.value.is_some_and(|id| !backed(id)) {
            let message = format!("cell {} has memory that is not EGM", cell.id.shown());
            findings.add(OTHER_MEMORY, &memory.span, message).help("memory='0', or EGM devices");
        }
    }
}

/// The devices of one region have the same size.
fn check_shares(domain: &Domain, findings: &mut Findings) {
    let mut first = BTreeMap::new();
    for device in &domain.egm {
        let (Some(path), Some(size)) = (&device.path, &device.size) else { continue };
        let Some(value) = size.value.filter(|size| size.0 > 0 && size.0 % (1 << 20) == 0) else {
            continue;
        };
        let first = *first.entry(&path.text).or_insert(value);
        if first != value {
            let shown = path.shown();
            let message = format!(
                "{} KiB of {shown}, but another GPU has {} KiB of it",
                value.0 >> 10,
                first.0 >> 10
            );
            let help = format!("{} KiB for each", first.0 >> 10);
            findings.add(UNEVEN, &size.span, message).help(help);
        }
    }
}
