//! Checks of the driver, its regions and their GPUs.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::{Consumer, Outcome, first_of, platform};
use crate::domain::Hostdev;
use crate::host::{Class, Driver, Gpu, Region, Shape, is_passthrough};
use crate::values::PciAddress;
use crate::values::text::{SHOWN, excerpt, plural};
use crate::warning::Warning;

pub(super) fn driver(facts: &Facts<'_>) -> Outcome {
    if let Some(reason) = platform::without_egm(facts) {
        return Outcome::fail(reason);
    }
    match facts.report.host.class {
        Class::Listed => Outcome::pass(),
        Class::Unreadable => {
            let mut warnings = facts.report.host.warnings.iter();
            let why = warnings.next().map_or(String::new(), |warning| format!(": {warning}"));
            Outcome::fail(format!("cannot determine whether this host has EGM{why}"))
        }
        Class::NoEgm => Outcome::fail(
            "no EGM on this host: the driver is loaded and found no EGM (is it enabled in the firmware?)",
        )
        .by_hand(FIRMWARE, RESTART),
        Class::Absent => {
            let gpus = facts.report.host.other_gpus.len();
            let gpus = match gpus {
                0 => "no NVIDIA GPU found".to_owned(),
                gpus => format!("{} found", plural(gpus, "NVIDIA GPU")),
            };
            let message = format!("no EGM on this host: /sys/class/egm does not exist; {gpus}");
            let outcome = Outcome::fail(message);
            if facts.report.host.other_gpus.is_empty() {
                return outcome;
            }
            let commands = ["modprobe nvgrace_gpu_vfio_pci", "modprobe nvgrace_egm"];
            let text = "load the driver (some kernels lack nvgrace_egm)";
            outcome.by_hand(text, commands)
        }
    }
}

const FIRMWARE: &str = "enable EGM in the firmware setup (SBIOS), and restart the host";
const RESTART: [&str; 1] = ["systemctl reboot --firmware-setup"];

/// The drivers that create regions if there is no separate module for that.
const MAKERS: [&str; 2] = ["nvgrace_gpu_vfio_pci", "nvidia_vgpu_vfio"];

pub(super) fn regions(facts: &Facts<'_>) -> Outcome {
    let regions = &facts.report.host.regions;
    if !regions.is_empty() {
        let names: Vec<_> = regions.iter().map(|region| region.name.as_str()).collect();
        return Outcome::passed(excerpt(&names.join(", "), 200));
    }
    let gpus = &facts.report.host.other_gpus;
    let makes = |gpu: &&Gpu| gpu.driver.name().is_some_and(|name| MAKERS.contains(&name));
    let others: Vec<&Gpu> = gpus.iter().filter(|gpu| !makes(gpu)).collect();
    let what = if facts.kernel.has_module { "nvgrace_egm" } else { "the driver" };
    if others.is_empty() {
        let or = if gpus.is_empty() { ", or the host has no GPU" } else { "" };
        let message =
            format!("{what} is loaded but shows no region: EGM is disabled in the firmware{or}");
        return Outcome::fail(message).by_hand(FIRMWARE, RESTART);
    }
    let message = format!(
        "{what} is loaded but shows no region: {} of {} not bound to nvgrace_gpu_vfio_pci, \
         or EGM is disabled in the firmware",
        others.len(),
        plural(gpus.len(), "GPU")
    );
    Outcome::fail(message)
        .by_hand("bind the GPUs", bind(&others))
        .by_hand(format!("or {FIRMWARE}"), RESTART)
}

pub(super) fn shape(facts: &Facts<'_>) -> Outcome {
    let regions = &facts.report.host.regions;
    if let Some(region) = regions.iter().find(|region| region.shape.is_none()) {
        return Outcome::warn(format!("{}: unknown sysfs layout", region.name))
            .hint("check for an egm-probe update");
    }
    let mut shapes: Vec<_> =
        regions.iter().filter_map(|region| region.shape.map(Shape::name)).collect();
    shapes.dedup();
    let shapes = shapes.join(", ");
    if regions.iter().any(|region| region.shape == Some(Shape::PciLinks)) {
        let message = format!("{shapes}: old driver, which lets two processes share a region");
        return Outcome::warn(message).hint("install a newer NVIDIA kernel");
    }
    Outcome::passed(shapes)
}

pub(super) fn whole(facts: &Facts<'_>) -> Outcome {
    let mut lacking = Vec::new();
    let mut problems = Vec::new();
    for region in &facts.report.host.regions {
        let parts = [
            ("size", region.size.is_none()),
            ("GPUs", region.gpus.is_empty()),
            ("NUMA node", region.numa_node.is_none()),
        ];
        let unknown: Vec<_> = parts.iter().filter(|part| part.1).map(|part| part.0).collect();
        if !unknown.is_empty() {
            lacking.push(format!("{}: unknown {}", region.name, unknown.join(", ")));
        }
        let mut warnings: Vec<_> = region.all_warnings().filter(|it| is_of_region(it)).collect();
        // Specific problems come before the fact that the region is incomplete.
        warnings.sort_by_key(|warning| matches!(warning, Warning::Incomplete { .. }));
        let warnings = warnings.into_iter();
        problems.extend(warnings.map(|warning| format!("{}: {warning}", region.name)));
    }
    problems.extend(facts.report.host.warnings.iter().map(ToString::to_string));
    let show = ["egm-probe show"];
    match (lacking.is_empty(), problems.first()) {
        (true, None) => Outcome::pass(),
        (true, Some(_)) => {
            Outcome::warn(first_of(&problems)).by_hand("show the regions with their warnings", show)
        }
        (false, _) => {
            Outcome::fail(lacking.join("; ")).by_hand("show the regions with their warnings", show)
        }
    }
}

/// Warnings not covered by another check.
fn is_of_region(warning: &Warning) -> bool {
    !matches!(
        warning,
        Warning::SuspectedPeer { .. }
            | Warning::SeveralHolders { .. }
            | Warning::SharingUnknown { .. }
            | Warning::PrivateMapping { .. }
            | Warning::DeviceNodeMissing { .. }
            | Warning::DeviceNodeForeign { .. }
    )
}

pub(super) fn binding(facts: &Facts<'_>) -> Outcome {
    let host = &facts.report.host;
    let peers = host.regions.iter().flat_map(|region| &region.warnings);
    let peers = peers.filter_map(|warning| match warning {
        Warning::SuspectedPeer { address, .. } => host.gpu(*address).map(|(gpu, _)| gpu),
        _ => None,
    });
    let of_regions = host.regions.iter().flat_map(|region| &region.gpus);
    // Missing GPUs are reported by another check.
    let all: Vec<&Gpu> = of_regions.filter(|gpu| gpu.is_there).chain(peers).collect();
    let not_ready: Vec<&Gpu> = all.iter().copied().filter(|gpu| !is_passthrough(gpu)).collect();
    let shown = |gpus: &[&Gpu]| {
        let shown = gpus.iter().map(|gpu| format!("{}: {}", gpu.address, gpu.driver.in_words()));
        shown.collect::<Vec<_>>().join("; ")
    };
    let (unknown, not_ready): (Vec<&Gpu>, Vec<&Gpu>) =
        not_ready.into_iter().partition(|gpu| gpu.driver == Driver::Unknown);
    let (bound_at_start, wrong): (Vec<&Gpu>, Vec<&Gpu>) =
        not_ready.into_iter().partition(|gpu| is_bound_at_start(facts, gpu));
    if !wrong.is_empty() {
        return unbound(&wrong, &shown(&wrong));
    }
    let plain: Vec<&Gpu> = all.into_iter().filter(|gpu| gpu.lacks_memory_access()).collect();
    if !plain.is_empty() {
        let message = format!(
            "{}; without nvgrace_gpu_vfio_pci the guest has no access to the GPU's memory",
            shown(&plain)
        );
        return Outcome::warn(message).by_hand(
            "bind them to the driver for Grace GPUs while no virtual machine uses them",
            bind(&plain),
        );
    }
    if !unknown.is_empty() {
        return Outcome::skip(shown(&unknown));
    }
    if bound_at_start.is_empty() {
        return Outcome::pass();
    }
    Outcome::note(format!("{}; libvirt binds it when its domain starts", shown(&bound_at_start)))
}

/// Whether an unbound GPU is bound by libvirt when a domain starts, and its region is there without
/// that.
fn is_bound_at_start(facts: &Facts<'_>, gpu: &Gpu) -> bool {
    let is_managed = |hostdev: &Hostdev| {
        hostdev.pci() == Some(gpu.address)
            && hostdev.managed.as_ref().is_some_and(|it| it.value == Some(true))
    };
    let mut domains = facts.report.claims.definitions.iter();
    facts.consumer == Consumer::Libvirt
        && gpu.driver == Driver::Unbound
        && facts
            .report
            .host
            .regions
            .iter()
            .any(|region| region.shape == Some(Shape::Standalone) && has(region, gpu.address))
        && domains.any(|it| it.domain.hostdevs.iter().any(is_managed))
}

/// GPUs without a driver for passthrough.
fn unbound(gpus: &[&Gpu], shown: &str) -> Outcome {
    let is_used = |gpu: &&Gpu| gpu.driver.name() == Some("nvidia");
    let mut outcome = Outcome::fail(shown.to_owned());
    if gpus.iter().any(is_used) {
        outcome = outcome.by_hand(
            "stop what uses the GPUs: unbinding hangs while a process has /dev/nvidia* open",
            ["systemctl stop nvidia-persistenced", "fuser -v /dev/nvidia*"],
        );
    }
    outcome
        .by_hand("bind them to the driver for Grace GPUs while they are not in use", bind(gpus))
        .by_hand(
            "do the same at every boot: driver_override does not outlast a reboot",
            lasting(gpus),
        )
}

/// Commands that bind all GPUs of these kinds at boot.
fn lasting(gpus: &[&Gpu]) -> Vec<String> {
    let ids: BTreeSet<_> = gpus.iter().filter_map(|gpu| gpu.device_id).collect();
    let rule = |id: &u16| {
        format!(
            "echo 'ACTION==\"add\", SUBSYSTEM==\"pci\", ATTR{{vendor}}==\"0x10de\", \
             ATTR{{device}}==\"0x{id:04x}\", ATTR{{driver_override}}=\"nvgrace_gpu_vfio_pci\"' \
             >> /etc/udev/rules.d/59-egm-gpus.rules"
        )
    };
    let fixed = [
        "echo nvgrace_gpu_vfio_pci > /etc/modules-load.d/egm.conf",
        "echo 'softdep nvidia pre: nvgrace_gpu_vfio_pci' > /etc/modprobe.d/egm.conf",
    ];
    fixed.map(String::from).into_iter().chain(ids.iter().map(rule)).collect()
}

/// Contains only addresses: the name of a driver must not get into a command.
fn bind(gpus: &[&Gpu]) -> Vec<String> {
    let mut commands = vec!["modprobe nvgrace_gpu_vfio_pci".to_owned()];
    for gpu in gpus {
        let device = format!("/sys/bus/pci/devices/{}", gpu.address);
        if gpu.driver.name().is_some() {
            commands.push(format!("echo {} > {device}/driver/unbind", gpu.address));
        }
        commands.push(format!("echo nvgrace_gpu_vfio_pci > {device}/driver_override"));
        commands.push(format!("echo {} > /sys/bus/pci/drivers_probe", gpu.address));
    }
    commands
}

pub(super) fn groups(facts: &Facts<'_>) -> Outcome {
    const BRIDGE: u64 = 0x06;
    let (mut without, mut shared, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let regions = facts.report.host.regions.iter();
    let gpus = regions.flat_map(|region| region.gpus.iter().map(move |gpu| (region, gpu)));
    for (region, gpu) in gpus.filter(|(_, gpu)| gpu.is_there) {
        let Some(group) = gpu.iommu_group else {
            if is_unread(gpu, "iommu_group") {
                unknown.push(format!("{}: unknown IOMMU group", gpu.address));
            } else {
                without.push(gpu.address.to_string());
            }
            continue;
        };
        let members = match facts.iommu_groups.get(&group) {
            Some(Ok(members)) => members.as_slice(),
            None => &[],
            Some(Err(error)) => {
                unknown.push(error.clone());
                continue;
            }
        };
        // The GPU's other functions are assigned together with it.
        let slot = |address: PciAddress| (address.domain(), address.bus(), address.slot());
        let others = members.iter().filter(|member| {
            !has(region, member.address) && slot(member.address) != slot(gpu.address)
        });
        let (known, unread): (Vec<_>, Vec<_>) = others.partition(|other| other.class.is_some());
        unknown.extend(unread.iter().map(|it| format!("cannot identify {}", it.address)));
        let is_bridge = |class: u64| class >> 16 == BRIDGE;
        let others = known.iter().filter(|other| !other.class.is_some_and(is_bridge));
        let others: Vec<_> = others.map(|other| other.address.to_string()).collect();
        if !others.is_empty() {
            shared.push(format!("{} with {}", gpu.address, others.join(", ")));
        }
    }
    if !without.is_empty() {
        return Outcome::fail(format!(
            "{}: not in an IOMMU group; the IOMMU is disabled",
            without.join(", ")
        ))
        .by_hand(
            "enable the SMMU in the firmware setup and on the kernel command line",
            ["grep -o 'iommu[^ ]*\\|arm-smmu[^ ]*' /proc/cmdline"],
        );
    }
    if !shared.is_empty() {
        let message = format!("GPUs share IOMMU groups with other devices: {}", shared.join("; "));
        return Outcome::fail(message)
            .hint("assign the whole group to one virtual machine, or move the other devices to other slots");
    }
    unknown.into_iter().next().map_or(Outcome::pass(), Outcome::skip)
}

/// Whether a file in a GPU's directory exists but could not be read.
fn is_unread(gpu: &Gpu, name: &str) -> bool {
    gpu.warnings.iter().any(|warning| match warning {
        Warning::Unreadable { path, .. } | Warning::Malformed { path, .. } => path.ends_with(name),
        _ => false,
    })
}

fn has(region: &Region, address: PciAddress) -> bool {
    region.gpus.iter().any(|gpu| gpu.address == address)
}

pub(super) fn iommufd(facts: &Facts<'_>) -> Outcome {
    match facts.report.host.iommufd {
        None => Outcome::skip("device nodes are unknown"),
        Some(true) => Outcome::pass(),
        Some(false) => {
            let release = facts.kernel.release.as_deref().unwrap_or("-");
            Outcome::warn(format!(
                "/dev/iommu: missing (kernel {}); QEMU can only use the older vfio container",
                excerpt(release, SHOWN)
            ))
        }
    }
}
