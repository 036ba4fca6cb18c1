//! Rules for the machine: type, firmware, ACPI, PCI and USB controllers.

use super::Findings;
use super::cells::not_a_size;
use super::rules::{ACPI, HOLE, MACHINE, OS_TYPE, UEFI, USB};
use crate::domain::{ControllerModel, Domain, Maybe, PciController, UsbController};

const WITH_MACHINE: &str = "`egm-probe stanza --with machine --domain FILE` adds it";

pub(super) fn check(domain: &Domain, findings: &mut Findings) {
    check_type(domain, findings);
    check_firmware(domain, findings);
    for controller in &domain.pci_controllers {
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
    if domain.features.acpi.is_none() {
        let message = "<features><acpi/> is missing: the guest starts without EGM";
        let help = format!("<acpi/> in <features>; {WITH_MACHINE}");
        findings.add(ACPI, &domain.span, message).help(help);
        return;
    }
    let os = &domain.os;
    // Other architectures support ACPI without UEFI.
    let wants_uefi = os.arch.as_ref().is_none_or(|arch| arch.text == "aarch64");
    if wants_uefi && os.firmware.text() != "efi" && os.loader.text() != "pflash" {
        let message = "<acpi/> requires UEFI firmware";
        if let Some(loader) = &os.loader {
            findings.add(UEFI, &loader.span, message).help("<loader> with type='pflash'");
            return;
        }
        let help = format!("<os firmware='efi'>, or a <loader> with type='pflash'; {WITH_MACHINE}");
        findings.add(UEFI, &domain.span, message).help(help);
    }
}

fn check_hole(controller: &PciController, findings: &mut Findings) {
    const ROOT: &str = "<controller type='pci' index='0' model='pcie-root'>";
    let model = controller.model.known();
    let is_first = controller.index.as_ref().is_none_or(|index| index.value == Some(0));
    if let Some(found) =
        controller.model.as_ref().filter(|_| model == Some(ControllerModel::PciRoot))
    {
        let message = "controller model `pci-root` is unsupported by the machine type `virt`";
        findings.add(HOLE, &found.span, message).help("model='pcie-root'");
    } else if let Some(hole) = &controller.hole {
        if model != Some(ControllerModel::PcieRoot) || !is_first {
            let message = "<pcihole64> outside the first controller of model pcie-root";
            findings.add(HOLE, &hole.span, message).help(ROOT);
        } else if hole.value.is_none() {
            findings.add(HOLE, &hole.span, not_a_size(hole)).help("a size in KiB");
        }
    }
}

fn check_usb(domain: &Domain, findings: &mut Findings) {
    let is_controller = |controller: &UsbController| controller.model.text() != "none";
    if domain.usb_controllers.iter().any(is_controller) {
        return;
    }
    if let Some(device) = domain.usb_devices.first() {
        let finding = findings.add(USB, device, "USB device without a USB controller");
        finding.help("<controller type='usb' model='qemu-xhci'/>");
    }
}
