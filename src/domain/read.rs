//! From elements to a [`Domain`].

use std::collections::BTreeSet;

use roxmltree::Node;

use super::cpu::{read_cell, read_mode, read_pin, read_topology};
use super::guest_address::read_pci_device;
use super::hostdev::read_hostdev;
use super::machine::{read_features, read_os};
use super::memory::{read_backing, read_egm, read_other, read_policy};
use super::pci::{read_pci_controller, read_usb_controller, with_indexes};
use super::smmu::read_iommu;
use super::value::{
    count, list, number, read_address, read_attribute, read_size, read_text, switch, text,
};
use super::xml::{child, children, find, is_named, start_tag, text_of};
use super::{Domain, Origin, Value, command_line, file_memory, overrides};

/// Reads the `<domain>` below the root of a document.
pub(super) fn read(root: Node<'_, '_>, domain: Node<'_, '_>, is_status: bool) -> Domain {
    let size = |name| child(domain, name).map(read_size);
    // libvirt reads all <devices> elements.
    let devices = |name: &'static str| {
        children(Some(domain), "devices").flat_map(move |devices| children(Some(devices), name))
    };
    let controllers = |kind: &'static str| {
        devices("controller").filter(move |it| it.attribute("type") == Some(kind))
    };
    let cpu = child(domain, "cpu");
    let arch = find(domain, &["os", "type"]).and_then(|kind| kind.attribute("arch"));
    let is_x86 = arch.is_some_and(|arch| arch == "x86_64" || arch == "i686");
    let qemu_arguments: Vec<_> = file_memory::qemu_arguments(domain)
        .filter_map(|argument| read_attribute(argument, "value", text))
        .map(|argument| Value { origin: Origin::CommandLine, ..argument })
        .collect();
    let name = child(domain, "name").map(text_of).map(|(name, span)| {
        // libvirt accepts spaces as a name.
        let trimmed = name.trim();
        (if trimmed.is_empty() { name.clone() } else { trimmed.to_owned() }, span)
    });
    let pid = root.attribute("pid").filter(|_| is_status);
    Domain {
        name: name.as_ref().map(|(name, _)| name.clone()).unwrap_or_default(),
        name_span: name.map(|(_, span)| span),
        is_status,
        pid: pid.and_then(|pid| pid.parse().ok()),
        span: start_tag(domain),
        file_memory: file_memory::read(domain),
        os: child(domain, "os").map(read_os).unwrap_or_default(),
        features: child(domain, "features").map(read_features).unwrap_or_default(),
        memory: size("memory"),
        current_memory: size("currentMemory"),
        max_memory: size("maxMemory"),
        memory_slots: child(domain, "maxMemory")
            .and_then(|maximum| read_attribute(maximum, "slots", number)),
        backing: child(domain, "memoryBacking").map(read_backing).unwrap_or_default(),
        vcpus: child(domain, "vcpu").map(|vcpu| read_text(vcpu, count)),
        vcpu_ids: children(child(domain, "vcpus"), "vcpu")
            .filter_map(|vcpu| read_attribute(vcpu, "id", list))
            .chain(
                children(child(domain, "cputune"), "vcpusched")
                    .filter_map(|scheduler| read_attribute(scheduler, "vcpus", list)),
            )
            .collect(),
        vcpu_placement: child(domain, "vcpu")
            .and_then(|vcpu| read_attribute(vcpu, "placement", text)),
        vcpu_cpus: child(domain, "vcpu").and_then(|vcpu| read_attribute(vcpu, "cpuset", list)),
        current_vcpus: child(domain, "vcpu")
            .and_then(|vcpu| read_attribute(vcpu, "current", number)),
        memory_policy: find(domain, &["numatune", "memory"]).map(read_policy),
        placed_cells: children(child(domain, "numatune"), "memnode")
            .filter_map(|node| Some((read_attribute(node, "cellid", number)?, read_policy(node))))
            .collect(),
        interfaces: devices("interface")
            .filter(|interface| interface.attribute("type") == Some("hostdev"))
            .filter_map(|interface| find(interface, &["source", "address"]))
            .map(read_address)
            .collect(),
        cpu_mode: cpu.and_then(read_mode),
        topology: cpu.and_then(|cpu| child(cpu, "topology")).map(read_topology),
        cells: children(cpu.and_then(|cpu| child(cpu, "numa")), "cell")
            .enumerate()
            .map(|(index, cell)| read_cell(index, cell))
            .collect(),
        egm: devices("memory")
            .filter(|memory| memory.attribute("model") == Some("egm"))
            .map(read_egm)
            .collect(),
        other_memory: devices("memory")
            .filter(|memory| memory.attribute("model") != Some("egm"))
            .map(read_other)
            .collect(),
        obsolete: devices("acpiEgmMemory").map(start_tag).collect(),
        pins: children(child(domain, "cputune"), "vcpupin").filter_map(read_pin).collect(),
        thread_pins: ["emulatorpin", "iothreadpin"]
            .into_iter()
            .flat_map(|name| children(child(domain, "cputune"), name))
            .filter_map(|pin| read_attribute(pin, "cpuset", list))
            .collect(),
        hard_limit: find(domain, &["memtune", "hard_limit"]).map(read_size),
        command_line: command_line::read(&qemu_arguments),
        qemu_arguments,
        overrides: overrides::read(domain),
        hostdevs: devices("hostdev").map(read_hostdev).collect(),
        iommufd: child(domain, "iommufd")
            .and_then(|iommufd| read_attribute(iommufd, "enabled", switch)),
        iommus: devices("iommu").map(read_iommu).collect(),
        pci_controllers: with_indexes(controllers("pci").map(read_pci_controller).collect()),
        pci_devices: children(Some(domain), "devices")
            .flat_map(|devices| devices.children().filter(Node::is_element))
            .filter_map(read_pci_device)
            .collect(),
        usb_controllers: controllers("usb").map(read_usb_controller).collect(),
        usb_devices: children(Some(domain), "devices")
            .flat_map(|devices| devices.children())
            .filter(|device| is_on_usb(*device, is_x86))
            .map(start_tag)
            .collect(),
        aliases: read_aliases(domain),
    }
}

/// The aliases of all devices. The first console is a serial port with the same alias.
fn read_aliases(domain: Node<'_, '_>) -> Vec<Value<String>> {
    let mut aliases = Vec::new();
    let mut serials = BTreeSet::new();
    for device in children(Some(domain), "devices").flat_map(|devices| devices.children()) {
        let alias = child(device, "alias").and_then(|alias| read_attribute(alias, "name", text));
        let Some(alias) = alias else { continue };
        if is_named(device, "serial") {
            serials.insert(alias.text.clone());
        } else if is_named(device, "console") && serials.remove(&alias.text) {
            continue;
        }
        aliases.push(alias);
    }
    aliases
}

/// Whether libvirt puts a device on a USB bus (`virDomainDeviceIsUSB`, `src/conf/domain_conf.c`), as
/// it does with a mouse, tablet or keyboard on other machines than x86
/// (`virDomainInputDefPostParse`).
fn is_on_usb(device: Node<'_, '_>, is_x86: bool) -> bool {
    let has = |name| device.attribute(name) == Some("usb");
    let target = || child(device, "target").and_then(|target| target.attribute("bus"));
    match device.tag_name().name() {
        "disk" => target() == Some("usb"),
        "hostdev" | "hub" => has("type"),
        "input" if device.attribute("bus").is_none() => {
            let kind = device.attribute("type");
            !is_x86 && kind.is_some_and(|kind| ["mouse", "tablet", "keyboard"].contains(&kind))
        }
        "input" | "redirdev" => has("bus"),
        _ => false,
    }
}
