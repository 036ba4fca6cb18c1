//! Rules for EGM devices and the `<hostdev>` of their GPUs.

use std::path::{Path, PathBuf};

use super::cells::not_a_size;
use super::policy::report_shifted;
use super::rules::{
    ACCESS, ALIAS_LASTS, CELLS, DRIVER_IOMMU, NO_HOSTDEV, NO_PCI, NODE, PATH, PCI_DEV, SIZE,
    UNASSIGNED,
};
use super::{Findings, Severity, Subject, pairs};
use crate::domain::{EgmDevice, Maybe};
use crate::values::text::{SHOWN, excerpt};
use crate::values::{Bytes, SIZE_STEP};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    pairs::check_aliases(subject, findings);
    for device in &subject.domain.egm {
        check_path(device, findings);
        check_alias(subject, device, findings);
        check_size(device, findings);
        check_access(subject, device, findings);
        check_driver(device, findings);
        check_cell(subject, device, findings);
    }
    pairs::check(subject, findings);
}

fn check_path(device: &EgmDevice, findings: &mut Findings) {
    let Some(path) = &device.path else {
        let finding = findings.add(PATH, &device.span, "<source><path> is missing");
        return finding.help("<source><path>/dev/egm4</path></source>, the region's device");
    };
    // Iterating over the components normalizes the path.
    let plain: PathBuf = Path::new(&path.text).components().collect();
    if !path.text.starts_with('/') {
        let message = format!("invalid device path `{}`", path.shown());
        let finding = findings.add(PATH, &path.span, message);
        finding.help("the absolute path of a region's device, such as /dev/egm4");
    } else if plain.as_os_str() != path.text.as_str() {
        let plain = excerpt(&plain.to_string_lossy(), SHOWN);
        let message = format!("non-canonical form of {plain}");
        findings.add(PATH, &path.span, message).help(format!("<path>{plain}</path>"));
    }
}

fn check_alias(subject: &Subject<'_>, device: &EgmDevice, findings: &mut Findings) {
    let Some(alias) = device.pci_dev.as_ref().filter(|alias| !alias.text.is_empty()) else {
        let span = device.pci_dev.place(&device.span);
        let finding = findings.add(PCI_DEV, span, "<target><pciDev> is missing");
        return finding.help("<pciDev>ua-hostdev0</pciDev>, the alias of the GPU's <hostdev>");
    };
    let trimmed = alias.text.trim();
    if trimmed != alias.text {
        let message = "alias has leading or trailing spaces, which libvirt keeps";
        let help = format!("<pciDev>{}</pciDev>", excerpt(trimmed, SHOWN));
        return findings.add(PCI_DEV, &alias.span, message).help(help);
    }
    let name = alias.shown();
    let hostdev = subject.hostdev(device);
    match hostdev.map(|hostdev| &hostdev.address) {
        None if findings.is_settled(device) => {}
        None => {
            let message = format!("no <hostdev> of this domain has the alias `{name}`");
            let help = pairs::suggestion(subject, device, findings).unwrap_or_else(|| {
                format!(
                    "<alias name='{name}'/> in the <hostdev> of the GPU; \
                     `egm-probe stanza --gpu ADDRESS --with hostdev --domain FILE` writes a missing one"
                )
            });
            findings.add(NO_HOSTDEV, &alias.span, message).help(help);
        }
        Some(None) => {
            let message = format!("<hostdev> `{name}` is not a PCI function");
            findings.add(NO_PCI, &alias.span, message);
        }
        Some(Some(address)) if address.value.is_none() => {
            let message = format!("invalid PCI address `{}`", address.shown());
            let help = "domain='0x0009' bus='0x01' slot='0x00' function='0x0'";
            findings.add(NO_PCI, &address.span, message).help(help);
        }
        Some(Some(_)) => {}
    }
    let address = hostdev.and_then(|hostdev| hostdev.address_type.as_ref());
    if let Some(kind) = address.filter(|kind| kind.text == "unassigned") {
        let message = format!("<hostdev> `{name}` is not assigned to the guest");
        let finding = findings.add(UNASSIGNED, &kind.span, message);
        finding.help("type='pci', or no <address>");
    }
    if let Some(generated) = subject.replaced_alias(&alias.text) {
        let works = generated == alias.text;
        let message = if works {
            format!("libvirt changes its generated alias `{name}` if a device is added before it")
        } else {
            format!("libvirt replaces the alias `{name}` with `{generated}`")
        };
        let rest = alias.text.trim_start_matches("ua-");
        let good = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let rest: String = rest.chars().take(SHOWN).map(good).collect();
        let help = format!("`ua-{rest}`, here and in the <hostdev>");
        let finding = findings.add(ALIAS_LASTS, &alias.span, message);
        finding.help(help);
        if works {
            finding.severity = Severity::Warning;
        }
    }
}

fn check_size(device: &EgmDevice, findings: &mut Findings) {
    let Some(size) = &device.size else {
        let finding = findings.add(SIZE, &device.span, "<target><size> is missing");
        return finding.help("<size unit='KiB'>8388608</size>");
    };
    match size.value {
        None => findings.add(SIZE, &size.span, not_a_size(size)).help(
            "a whole number without spaces, in the unit of the attribute `unit` (default KiB)",
        ),
        Some(Bytes(0)) => {
            findings.add(SIZE, &size.span, "size is 0");
        }
        Some(Bytes(bytes)) if bytes % SIZE_STEP.0 != 0 => {
            let below = (bytes - bytes % SIZE_STEP.0) >> 10;
            let above = below.saturating_add(SIZE_STEP.0 >> 10);
            let help = if below == 0 { String::new() } else { format!("{below} or ") };
            let help = format!("{help}{above} KiB");
            let message = format!("{} KiB is not a multiple of 2 MiB", bytes >> 10);
            findings.add(SIZE, &size.span, message).help(help);
        }
        Some(_) => {}
    }
}

/// The device decides, else its cell, else the domain (`qemuBuildMemoryBackendProps`,
/// `src/qemu/qemu_command.c`).
fn check_access(subject: &Subject<'_>, device: &EgmDevice, findings: &mut Findings) {
    let cell = device.cell.as_ref().and_then(|cell| subject.cells.get(&cell.value?));
    let of_cell = || cell.and_then(|cell| cell.access.as_ref());
    let of_domain = || subject.domain.backing.access.as_ref();
    let own = device.access.as_ref().map(|access| (access, "access"));
    let access = own
        .or_else(|| Some((of_cell()?, "memAccess")))
        .or_else(|| Some((of_domain()?, "mode")))
        .filter(|(access, _)| access.text != "shared");
    let has_access = device.access.is_some() || of_cell().is_some() || of_domain().is_some();
    let (span, what, name) = match access {
        Some((access, name)) => (&access.span, format!("`{}`", access.shown()), name),
        None if has_access => return,
        None => (&device.span, "`private` by default".into(), "access"),
    };
    findings
        .add(ACCESS, span, format!("access is {what}, expected `shared`"))
        .help(format!("{name}='shared'"));
}

fn check_driver(device: &EgmDevice, findings: &mut Findings) {
    if let Some(iommu) = &device.iommu {
        let finding = findings.add(DRIVER_IOMMU, &iommu.span, "<driver iommu=..> in an EGM device");
        finding.help("remove the attribute");
    }
}

fn check_cell(subject: &Subject<'_>, device: &EgmDevice, findings: &mut Findings) {
    let ids = &subject.cells;
    let Some(cell) = &device.cell else {
        let finding = findings.add(NODE, &device.span, "<target><node> is missing");
        return finding.help("<node>0</node>, the guest NUMA cell that it backs");
    };
    // Skipped if the cell numbers are invalid; a guest without cells is reported only once.
    if findings.has(&[CELLS]) || (ids.is_empty() && findings.has(&[NODE])) {
        return;
    }
    if cell.value.is_none_or(|id| !ids.contains_key(&id)) {
        let message = format!("the guest has no NUMA cell `{}`", cell.shown());
        let is_short = !findings.are_many();
        let has_path = |other: &&EgmDevice| is_short && other.path.text() == device.path.text();
        let of_others = subject.domain.egm.iter().filter(has_path);
        let mut of_others = of_others.filter_map(|other| other.cell.known());
        let of_guest = || match (ids.keys().next(), ids.keys().next_back()) {
            (Some(first), Some(last)) if first == last => {
                format!("the guest has only cell {first}")
            }
            (Some(first), Some(last)) => format!("the guest has cells {first} to {last}"),
            _ => "add <cpu><numa><cell id='0' memory=.. unit='KiB'/></numa></cpu>".into(),
        };
        let help = of_others
            .find(|id| ids.contains_key(id))
            .map_or_else(of_guest, |id| format!("<node>{id}</node>"));
        findings.add(NODE, &cell.span, message).help(help);
    }
}

/// Without a host: GPUs of Grace hosts are never in PCI domain 0, and always in slot 0.
pub(super) fn check_shifted(subject: &Subject<'_>, findings: &mut Findings) {
    for device in &subject.domain.egm {
        let hostdev = subject.hostdev(device);
        let Some((found, address)) = hostdev.and_then(|it| Some((it.address.as_ref()?, it.pci()?)))
        else {
            continue;
        };
        let meant = address.shifted().filter(|meant| meant.domain() > 0 && meant.bus() > 0);
        if let Some(meant) = meant {
            report_shifted(found, address, meant, findings);
        }
    }
}
