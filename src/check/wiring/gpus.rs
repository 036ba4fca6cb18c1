//! Rules for the place of each GPU: its bus, the cell of the bus, and iommufd.

use std::collections::BTreeSet;

use super::{Gpu, Wiring, bus_name, is_expander, name, root_of};
use crate::check::rules::{
    BUS_NODE, GPU_BUS, IOMMUFD, IOMMUFD_MIXED, NODE, PORT_DEVICE, PORT_INDEX, SMMU_BUS,
};
use crate::check::{Findings, Severity};
use crate::domain::{Bus, GuestAddress, Iommu, Maybe, PciController};

const PORT: &str = "<address type='pci' bus='..' slot='0x00'/>, the bus of a pcie-root-port below \
                    an expander bus";
const USES: &str = "<driver iommufd='yes'/> in the <hostdev>";

pub(super) fn check(wiring: &Wiring<'_>, findings: &mut Findings) {
    let mut reported = BTreeSet::new();
    for gpu in &wiring.gpus {
        let on = check_bus(wiring, gpu, findings);
        // A device on the port of another one may be on the wrong expander bus.
        if let Some((bus, expander)) = on.filter(|_| !findings.has(&[PORT_DEVICE])) {
            check_node(gpu, bus, expander, &mut reported, findings);
        }
    }
    check_iommufd(wiring, findings);
}

/// The expander bus that a GPU is below.
fn check_bus<'w>(
    wiring: &'w Wiring<'_>,
    gpu: &'w Gpu<'_>,
    findings: &mut Findings,
) -> Option<(&'w Bus, &'w PciController)> {
    let hostdev = gpu.hostdev;
    if hostdev.address_type.text() == "unassigned" {
        return None;
    }
    let shown = name(hostdev);
    let machine = &wiring.machine;
    let is_short = !findings.are_many();
    let port = || {
        let free = is_short.then(|| wiring.free_port(gpu.cell)).flatten();
        free.map_or(PORT.into(), |place| format!("<address type='pci' {place}/>, a free port"))
    };
    let place = hostdev.guest.as_ref().map_or(&hostdev.span, |address| &address.span);
    let bus = hostdev.guest.as_ref().and_then(GuestAddress::on_bus);
    let Some((bus, root)) = bus.clone().zip(gpu.root.as_ref()) else {
        // An SMMU of the same missing expander bus has a finding.
        let of_port =
            bus.as_ref().and_then(|bus| machine.controller(bus)?.address.as_ref()?.on_bus());
        let is_missing = |bus: &Bus| {
            machine.controller(bus).is_none() && machine.iommus_by_bus().contains_key(bus)
        };
        // libvirt adds a missing controller as a port of the first bus.
        let missing = bus.filter(|bus| machine.controller(bus).is_none());
        // It may be the controller with a wrong index.
        if missing.is_some() && findings.has(&[PORT_INDEX]) {
            return None;
        }
        if is_short && findings.has(&[SMMU_BUS]) && of_port.is_some_and(|bus| is_missing(&bus)) {
            return None;
        }
        let message = match &missing {
            Some(bus) => format!("no controller has bus {} of GPU {shown}", bus_name(bus)),
            None => format!("libvirt chooses the bus of GPU {shown}"),
        };
        let finding = findings.add(GPU_BUS, place, message);
        finding.help(port());
        if missing.is_none() {
            finding.severity = Severity::Warning;
        }
        return None;
    };
    let Some(expander) = machine.controller(root).filter(|it| is_expander(it)) else {
        let message = format!("GPU {shown} is not below an expander bus");
        findings.add(GPU_BUS, place, message).help(port());
        return None;
    };
    if machine.canonical(&bus) == *root {
        let message = format!("GPU {shown} is on an expander bus without a port in between");
        findings.add(GPU_BUS, place, message).help(port());
    }
    Some((root, expander))
}

fn check_node<'w>(
    gpu: &Gpu<'_>,
    bus: &'w Bus,
    expander: &PciController,
    reported: &mut BTreeSet<&'w Bus>,
    findings: &mut Findings,
) {
    // A wrong <node> of the EGM device is not that of the bus.
    let Some(cell) = gpu.cell.filter(|_| !findings.has(&[NODE])) else { return };
    let node = expander.target.node.as_ref();
    if node.is_some_and(|node| node.value == Some(cell)) || !reported.insert(bus) {
        return;
    }
    let (shown, number) = (name(gpu.hostdev), bus_name(bus));
    let help = format!(
        "<node>{cell}</node> in <target>; `egm-probe stanza --with pci --replace --domain FILE` changes it"
    );
    if let Some(node) = node {
        let message = format!(
            "expander bus {number} is in cell {}, but the EGM of GPU {shown} is cell {cell}",
            node.shown()
        );
        findings.add(BUS_NODE, &node.span, message).help(help);
    } else {
        let message = format!("expander bus {number} of GPU {shown} has no <node>");
        let finding = findings.add(BUS_NODE, &expander.span, message);
        finding.help(help);
        finding.severity = Severity::Warning;
    }
}

fn check_iommufd(wiring: &Wiring<'_>, findings: &mut Findings) {
    let smmus = wiring.machine.iommus_by_bus();
    let is_accelerated = |bus: &Bus| {
        let mut smmus = smmus.get(bus).into_iter().flatten();
        smmus.any(|iommu: &&Iommu| iommu.is_smmuv3() && iommu.is_accelerated())
    };
    for hostdev in wiring.subject.domain.hostdevs.iter().filter(|it| it.address.is_some()) {
        let root = root_of(&wiring.machine, hostdev);
        if root.is_some_and(|root| is_accelerated(&root)) && !wiring.uses_iommufd(hostdev) {
            let message =
                format!("{} is below an SMMUv3 with accel='on', without iommufd", name(hostdev));
            findings.add(IOMMUFD, &hostdev.span, message).help(USES);
        }
    }
    let uses = |gpu: &&Gpu<'_>| wiring.uses_iommufd(gpu.hostdev);
    let with = wiring.gpus.iter().find(uses);
    let without = wiring.gpus.iter().find(|gpu| !uses(gpu));
    if let (Some(with), Some(without)) = (with, without)
        && !findings.has(&[IOMMUFD])
    {
        let (with, shown) = (name(with.hostdev), name(without.hostdev));
        let message = format!("GPU {with} uses iommufd, but GPU {shown} does not");
        findings.add(IOMMUFD_MIXED, &without.hostdev.span, message).help(USES);
    }
}
