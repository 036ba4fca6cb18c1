//! From elements to a [`Domain`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use roxmltree::Node;

use super::xml::{attribute, child, children, find, is_named, start_tag, text_of};
use super::{
    Attribute, Backing, Cell, Controller, CpuTopology, Domain, EgmDevice, Hostdev, Iommu,
    MemoryDevice, MemoryMode, MemoryPolicy, Os, Pin, Value, file_memory,
};
use crate::values::numbers::decimal;
use crate::values::{Bytes, IdList, PciAddress, parse_libvirt};

/// Reads the `<domain>` below the root of a document.
pub(super) fn read(root: Node<'_, '_>, domain: Node<'_, '_>, is_status: bool) -> Domain {
    let size = |name| child(domain, name).map(read_size);
    // libvirt reads all <devices> elements.
    let devices = |name: &'static str| {
        children(Some(domain), "devices").flat_map(move |devices| children(Some(devices), name))
    };
    let cpu = child(domain, "cpu");
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
        has_acpi: find(domain, &["features", "acpi"]).is_some(),
        memory: size("memory"),
        current_memory: size("currentMemory"),
        max_memory: size("maxMemory"),
        memory_slots: child(domain, "maxMemory")
            .and_then(|maximum| read_attribute(maximum, "slots", number)),
        backing: child(domain, "memoryBacking").map(read_backing).unwrap_or_default(),
        vcpus: child(domain, "vcpu").map(|vcpu| read_text(vcpu, count)),
        vcpu_ids: children(child(domain, "vcpus"), "vcpu")
            .filter_map(|vcpu| read_attribute(vcpu, "id", number))
            .collect(),
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
        qemu_arguments: file_memory::qemu_arguments(domain)
            .filter_map(|argument| read_attribute(argument, "value", text))
            .collect(),
        hostdevs: devices("hostdev").map(read_hostdev).collect(),
        iommufd: child(domain, "iommufd")
            .and_then(|iommufd| read_attribute(iommufd, "enabled", switch)),
        iommus: devices("iommu").map(read_iommu).collect(),
        controllers: devices("controller").filter_map(read_controller).collect(),
        usb_devices: children(Some(domain), "devices")
            .flat_map(|devices| devices.children())
            .filter(|device| is_on_usb(*device))
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

fn read_os(os: Node<'_, '_>) -> Os {
    let kind = child(os, "type");
    let of_type = |name| read_attribute(kind?, name, text);
    Os {
        has_type: kind.is_some(),
        firmware: read_attribute(os, "firmware", text),
        loader: child(os, "loader").and_then(|loader| read_attribute(loader, "type", text)),
        arch: of_type("arch"),
        machine: of_type("machine"),
    }
}

fn read_controller(controller: Node<'_, '_>) -> Option<Controller> {
    let bus = read_attribute(controller, "type", text)?;
    let is_of_interest = matches!(bus.text.as_str(), "pci" | "usb");
    is_of_interest.then(|| Controller {
        bus,
        index: read_attribute(controller, "index", number),
        model: read_attribute(controller, "model", text),
        hole: child(controller, "pcihole64").map(read_size),
        span: start_tag(controller),
    })
}

/// Whether libvirt puts a device on a USB bus (`virDomainDeviceIsUSB`, `src/conf/domain_conf.c`).
fn is_on_usb(device: Node<'_, '_>) -> bool {
    let has = |name| device.attribute(name) == Some("usb");
    let target = || child(device, "target").and_then(|target| target.attribute("bus"));
    match device.tag_name().name() {
        "disk" => target() == Some("usb"),
        "hostdev" | "hub" => has("type"),
        "input" | "redirdev" => has("bus"),
        _ => false,
    }
}

fn read_other(memory: Node<'_, '_>) -> MemoryDevice {
    MemoryDevice {
        model: read_attribute(memory, "model", text),
        size: find(memory, &["target", "size"]).map(read_size),
        span: start_tag(memory),
    }
}

fn read_pin(pin: Node<'_, '_>) -> Option<Pin> {
    let vcpu = pin.attribute("vcpu").and_then(number);
    Some(Pin { vcpu, cpus: read_attribute(pin, "cpuset", list)? })
}

fn read_backing(backing: Node<'_, '_>) -> Backing {
    let value = |name, of| read_attribute(child(backing, name)?, of, text);
    Backing {
        hugepages: child(backing, "hugepages").map(start_tag),
        access: value("access", "mode"),
        allocation: value("allocation", "mode"),
        allocation_threads: child(backing, "allocation")
            .and_then(|allocation| read_attribute(allocation, "threads", number)),
    }
}

fn read_policy(policy: Node<'_, '_>) -> MemoryPolicy {
    // With numad, libvirt drops the list (`virDomainNumatuneSet`, `src/conf/numa_conf.c`).
    let is_auto = policy.attribute("placement") == Some("auto");
    MemoryPolicy {
        mode: read_attribute(policy, "mode", mode),
        nodes: read_attribute(policy, "nodeset", nodes).filter(|_| !is_auto),
    }
}

fn mode(mode: &str) -> Option<MemoryMode> {
    match mode {
        "strict" => Some(MemoryMode::Strict),
        "preferred" => Some(MemoryMode::Preferred),
        "interleave" => Some(MemoryMode::Interleave),
        "restrictive" => Some(MemoryMode::Restrictive),
        _ => None,
    }
}

/// A list of host nodes; libvirt accepts only numbers below 16384 (`VIR_DOMAIN_CPUMASK_LEN`,
/// `src/conf/domain_conf.h`).
fn nodes(text: &str) -> Option<IdList> {
    list(text).filter(|nodes| nodes.last() < Some(16384))
}

fn read_topology(topology: Node<'_, '_>) -> CpuTopology {
    let levels = ["sockets", "dies", "clusters", "cores", "threads"];
    let levels = levels.map(|level| (level, topology.attribute(level).map(number)));
    let mut numbers = levels.iter().map(|(_, found)| found.unwrap_or(Some(1)));
    let cpus = numbers.try_fold(1, |product: u32, level| product.checked_mul(level?));
    let levels = levels.into_iter().filter_map(|(level, found)| Some((level, found??)));
    CpuTopology { cpus, levels: levels.collect(), span: start_tag(topology) }
}

fn read_cell(index: usize, cell: Node<'_, '_>) -> Cell {
    let index = u32::try_from(index).ok();
    Cell {
        id: read_attribute(cell, "id", number).unwrap_or_else(|| Value {
            text: index.map(|index| index.to_string()).unwrap_or_default(),
            value: index,
            span: start_tag(cell),
        }),
        memory: read_attribute(cell, "memory", |size| in_kib(size, cell.attribute("unit")))
            .map(|memory| or_unit(memory, cell)),
        cpus: read_attribute(cell, "cpus", list),
        access: read_attribute(cell, "memAccess", text),
        distances: children(child(cell, "distances"), "sibling")
            .filter_map(|sibling| {
                let distance = sibling.attribute("value").and_then(number);
                Some((read_attribute(sibling, "id", number)?, distance))
            })
            .collect(),
        span: start_tag(cell),
        node: cell.id(),
    }
}

fn read_egm(memory: Node<'_, '_>) -> EgmDevice {
    let target = |name| find(memory, &["target", name]);
    EgmDevice {
        access: read_attribute(memory, "access", text),
        path: find(memory, &["source", "path"]).map(|path| read_text(path, text)),
        size: target("size").map(read_size),
        cell: target("node").map(|node| read_text(node, number)),
        pci_dev: target("pciDev").map(|alias| read_text(alias, text)),
        iommu: child(memory, "driver").and_then(|driver| read_attribute(driver, "iommu", text)),
        span: start_tag(memory),
        node: memory.id(),
    }
}

fn read_hostdev(hostdev: Node<'_, '_>) -> Hostdev {
    let is_pci = hostdev.attribute("type") == Some("pci");
    let address = find(hostdev, &["source", "address"]).filter(|_| is_pci);
    Hostdev {
        address: address.map(read_address),
        alias: child(hostdev, "alias").and_then(|alias| read_attribute(alias, "name", text)),
        address_type: child(hostdev, "address")
            .and_then(|address| read_attribute(address, "type", text)),
        cells: child(hostdev, "acpi").and_then(|acpi| read_attribute(acpi, "nodeset", list)),
        rom_bar: child(hostdev, "rom").and_then(|rom| read_attribute(rom, "bar", switch)),
        iommufd: child(hostdev, "driver")
            .and_then(|driver| read_attribute(driver, "iommufd", switch)),
        span: start_tag(hostdev),
        node: hostdev.id(),
    }
}

fn read_iommu(iommu: Node<'_, '_>) -> Iommu {
    let driver = children(Some(iommu), "driver").flat_map(|driver| driver.attributes());
    let driver = driver.filter(|attribute| attribute.namespace().is_none());
    Iommu {
        model: read_attribute(iommu, "model", text),
        driver: driver
            .map(|it| Attribute {
                name: it.name().to_owned(),
                value: it.value().to_owned(),
                span: it.range(),
            })
            .collect(),
        span: start_tag(iommu),
    }
}

fn read_address(address: Node<'_, '_>) -> Value<PciAddress> {
    let part = |name| address.attribute(name).map_or(Some(0), c_number);
    let parts = || {
        let narrow = |name| u8::try_from(part(name)?).ok();
        PciAddress::new(part("domain")?, narrow("bus")?, narrow("slot")?, narrow("function")?)
    };
    let mut attributes = address.attributes().map(|attribute| attribute.range());
    let first = attributes.next();
    let last = attributes.next_back().or(first.clone());
    let span = match (first, last) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => start_tag(address),
    };
    let text = address.document().input_text().get(span.clone()).unwrap_or_default();
    Value { text: text.to_owned(), value: parts(), span }
}

fn read_size(size: Node<'_, '_>) -> Value<Bytes> {
    or_unit(read_text(size, |number| in_kib(number, size.attribute("unit"))), size)
}

/// libvirt counts in KiB, and rounds up (`virDomainParseMemory`, `src/conf/domain_conf.c`).
fn in_kib(number: &str, unit: Option<&str>) -> Option<Bytes> {
    let bytes = parse_libvirt(number, unit)?;
    bytes.0.div_ceil(1024).checked_mul(1024).map(Bytes)
}

/// If a size is invalid because of its unit, returns the unit in its place.
fn or_unit(size: Value<Bytes>, node: Node<'_, '_>) -> Value<Bytes> {
    let is_number = parse_libvirt(&size.text, None).is_some();
    let is_unit = |unit: &str| parse_libvirt("1", Some(unit)).is_some();
    match attribute(node, "unit") {
        Some((text, span)) if size.value.is_none() && is_number && !is_unit(&text) => {
            Value { text, value: None, span }
        }
        _ => size,
    }
}

fn read_text<T>(node: Node<'_, '_>, parse: impl Fn(&str) -> Option<T>) -> Value<T> {
    value(text_of(node), parse)
}

fn read_attribute<T>(
    node: Node<'_, '_>,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Value<T>> {
    attribute(node, name).map(|found| value(found, parse))
}

fn value<T>((text, span): (String, Range<usize>), parse: impl Fn(&str) -> Option<T>) -> Value<T> {
    Value { value: parse(&text), text, span }
}

#[allow(clippy::unnecessary_wraps)] // All readers of values have this signature.
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A switch: libvirt writes some as `yes` and `no`, others as `on` and `off`.
fn switch(text: &str) -> Option<bool> {
    match text {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        _ => None,
    }
}

/// A number as libvirt reads it with base 10: it may have a plus sign and leading zeros, and no
/// spaces (`virStrToLong_uip`, `src/util/virstring.c`).
fn number(text: &str) -> Option<u32> {
    decimal(text.strip_prefix('+').unwrap_or(text))
}

/// A list of numbers as libvirt reads it (`virBitmapParse`, `src/util/virbitmap.c`): from left to
/// right, with optional spaces; `^3` removes a number.
fn list(text: &str) -> Option<IdList> {
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    if parts.len() > LIST_LIMIT {
        return None;
    }
    let mut added = Vec::new();
    let mut out = BTreeMap::new();
    for (position, part) in parts.into_iter().enumerate() {
        if let Some(id) = part.strip_prefix('^') {
            out.insert(decimal(id.trim())?, position);
        } else {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = decimal(first.trim())?..=decimal(last.trim())?;
            if range.is_empty() {
                return None;
            }
            added.push((range, position));
        }
    }
    // A number that is added again later stays.
    out.retain(|id, out| !added.iter().any(|(range, added)| added > out && range.contains(id)));
    let out: Vec<_> = out.into_keys().collect();
    let list = added.into_iter().map(|(range, _)| range).collect::<IdList>().without(&out);
    Some(list).filter(|list| !list.is_empty())
}

/// The maximum number of parts of a list.
const LIST_LIMIT: usize = 4096;

/// A number of virtual CPUs.
fn count(text: &str) -> Option<u32> {
    number(text).filter(|count| *count > 0)
}

/// A number as libvirt reads it with base 0: decimal, 0x for hexadecimal, 0 for octal.
fn c_number(text: &str) -> Option<u32> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, base) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let is_digits = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    u32::from_str_radix(digits, base).ok().filter(|_| is_digits)
}
