//! From elements to a [`Domain`].

use std::ops::Range;

use roxmltree::Node;

use super::xml::{attribute, child, children, find, start_tag, text_of};
use super::{Backing, Cell, Domain, EgmDevice, Hostdev, Value, file_memory};
use crate::id_list::IdList;
use crate::pci::PciAddress;
use crate::sysfs::decimal;
use crate::units::{Bytes, parse_libvirt};

/// Reads the `<domain>` below the root of a document.
pub(super) fn read(root: Node<'_, '_>, domain: Node<'_, '_>, is_status: bool) -> Domain {
    let size = |name| child(domain, name).map(read_size);
    let devices = child(domain, "devices");
    let cpu = child(domain, "cpu");
    let pid = root.attribute("pid").filter(|_| is_status);
    Domain {
        name: child(domain, "name")
            .map(|name| text_of(name).0.trim().to_owned())
            .unwrap_or_default(),
        is_status,
        pid: pid.and_then(|pid| pid.parse().ok()),
        span: start_tag(domain),
        file_memory: file_memory::read(domain),
        memory: size("memory"),
        current_memory: size("currentMemory"),
        max_memory: size("maxMemory"),
        backing: child(domain, "memoryBacking").map(read_backing).unwrap_or_default(),
        vcpus: child(domain, "vcpu").map(|vcpu| read_text(vcpu, decimal)),
        topology: cpu.and_then(|cpu| child(cpu, "topology")).map(read_topology),
        cells: children(cpu.and_then(|cpu| child(cpu, "numa")), "cell")
            .enumerate()
            .map(|(index, cell)| read_cell(index, cell))
            .collect(),
        egm: children(devices, "memory")
            .filter(|memory| memory.attribute("model") == Some("egm"))
            .map(read_egm)
            .collect(),
        hostdevs: children(devices, "hostdev").map(read_hostdev).collect(),
        aliases: devices
            .into_iter()
            .flat_map(|devices| devices.children())
            .filter_map(|device| read_attribute(child(device, "alias")?, "name", text))
            .collect(),
    }
}

fn read_backing(backing: Node<'_, '_>) -> Backing {
    let value = |name, of| read_attribute(child(backing, name)?, of, text);
    Backing {
        hugepages: child(backing, "hugepages").map(start_tag),
        source: value("source", "type"),
        access: value("access", "mode"),
        allocation: value("allocation", "mode"),
    }
}

fn read_topology(topology: Node<'_, '_>) -> Value<u32> {
    let levels = ["sockets", "dies", "clusters", "cores", "threads"];
    let levels = levels.map(|level| topology.attribute(level).map_or(Some(1), number));
    let value = levels.into_iter().try_fold(1, |product: u32, level| product.checked_mul(level?));
    let span = start_tag(topology);
    Value { text: value.map(|value| value.to_string()).unwrap_or_default(), value, span }
}

fn read_cell(index: usize, cell: Node<'_, '_>) -> Cell {
    let index = u32::try_from(index).ok();
    Cell {
        id: read_attribute(cell, "id", number).unwrap_or_else(|| Value {
            text: index.map(|index| index.to_string()).unwrap_or_default(),
            value: index,
            span: start_tag(cell),
        }),
        memory: read_attribute(cell, "memory", |size| parse_libvirt(size, cell.attribute("unit"))),
        cpus: read_attribute(cell, "cpus", list),
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
        cells: child(hostdev, "acpi").and_then(|acpi| read_attribute(acpi, "nodeset", list)),
        span: start_tag(hostdev),
        node: hostdev.id(),
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
    read_text(size, |number| parse_libvirt(number, size.attribute("unit")))
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

#[allow(clippy::unnecessary_wraps)] // One of several ways to read a value.
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn number(text: &str) -> Option<u32> {
    decimal(text.trim())
}

/// libvirt's lists also take numbers out, as in `0-7,^3`.
fn list(text: &str) -> Option<IdList> {
    if !text.contains('^') {
        return text.parse().ok().filter(|list: &IdList| !list.is_empty());
    }
    let (out, within): (Vec<_>, Vec<_>) =
        text.split(',').partition(|part| part.trim().starts_with('^'));
    let within: IdList = within.join(",").parse().ok()?;
    let out: Option<Vec<u32>> =
        out.into_iter().map(|part| number(part.trim().trim_start_matches('^'))).collect();
    Some(within.without(&out?))
}

/// A number as C reads it with base 0: decimal, 0x for hexadecimal, 0 for octal.
fn c_number(text: &str) -> Option<u32> {
    let text = text.trim();
    let (digits, base) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let is_digits = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    u32::from_str_radix(digits, base).ok().filter(|_| is_digits)
}
