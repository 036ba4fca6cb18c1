//! Rules for the machine: type, firmware, ACPI, PCI and USB controllers.

use super::Findings;
use super::cells::not_a_size;
use super::rules::{ACPI, HOLE, MACHINE, OS_TYPE, UEFI, USB};
use crate::domain::{Controller, Domain, Maybe};

const WITH_MACHINE: &str = "`egm-probe stanza --with machine` adds it";

pub(super) fn check(domain: &Domain, findings: &mut Findings) {
    check_type(domain, findings);
    check_firmware(domain, findings);
    for controller in &domain.controllers {
        check_hole(controller, findings);
    }
    check_usb(domain, findings);
}

fn check_type(domain: &Domain, findings: &mut Findings) {
    if !domain.os.has_type {
        let finding = findings.add(OS_TYPE, &domain.span, "<os><type> is missing");
        finding.help("<type arch='aarch64' machine='virt'>hvm</type> in <os>");
    }
    if let Some(arch) = domain.os.arch.as_ref().filter(|arch| arch.text != "aarch64") {
        let message = format!("unsupported architecture `{}` for EGM", arch.shown());
        findings.add(MACHINE, &arch.span, message).help("arch='aarch64'");
    }
    let is_virt = |machine: &str| machine == "virt" || machine.starts_with("virt-");
    if let Some(machine) = domain.os.machine.as_ref().filter(|it| !is_virt(&it.text)) {
        let message = format!("unsupported machine type `{}` for EGM", machine.shown());
        findings.add(MACHINE, &machine.span, message).help("machine='virt'");
    }
}

fn check_firmware(domain: &Domain, findings: &mut Findings) {
    if !domain.has_acpi {
        let message = "<features><acpi/> is missing: the guest starts without EGM";
        let help = format!("<acpi/> in <features>; {WITH_MACHINE}");
        findings.add(ACPI, &domain.span, message).help(help);
        return;
    }
    let os = &domain.os;
    // Other architectures support ACPI without UEFI.
    let wants_uefi = os.arch.as_ref().is_none_or(|arch| arch.text == "aarch64");
    if wants_uefi && os.firmware.text() != "efi" && os.loader.text() != "pflash" {
        let help = format!("<os firmware='efi'>, or a <loader> with type='pflash'; {WITH_MACHINE}");
        findings.add(UEFI, &domain.span, "<acpi/> requires UEFI firmware").help(help);
    }
}

fn check_hole(controller: &Controller, findings: &mut Findings) {
    const ROOT: &str = "<controller type='pci' index='0' model='pcie-root'>";
    let model = controller.model.as_ref().filter(|_| controller.bus.text == "pci");
    let name = model.map_or("", |model| model.text.as_str());
    let is_first = controller.index.as_ref().is_none_or(|index| index.value == Some(0));
    if let Some(model) = model.filter(|model| model.text == "pci-root") {
        let message = "controller model `pci-root` is unsupported by the machine type `virt`";
        findings.add(HOLE, &model.span, message).help("model='pcie-root'");
    } else if let Some(hole) = controller.hole.as_ref().filter(|_| controller.bus.text == "pci") {
        if name != "pcie-root" || !is_first {
            let message = "<pcihole64> outside the first controller of model pcie-root";
            findings.add(HOLE, &hole.span, message).help(ROOT);
        } else if hole.value.is_none() {
            findings.add(HOLE, &hole.span, not_a_size(hole)).help("a size in KiB");
        }
    }
}

fn check_usb(domain: &Domain, findings: &mut Findings) {
    let is_controller = |controller: &Controller| {
        let model = controller.model.as_ref().map(|model| model.text.as_str());
        controller.bus.text == "usb" && model != Some("none")
    };
    if domain.controllers.iter().any(is_controller) {
        return;
    }
    if let Some(device) = domain.usb_devices.first() {
        let finding = findings.add(USB, device, "USB device without a USB controller");
        finding.help("<controller type='usb' model='qemu-xhci'/>");
    }
}
