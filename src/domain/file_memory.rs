//! Host memory that a domain takes from files, from which claims on regions are derived.

use std::path::PathBuf;

use roxmltree::Node;

use super::qemu_options::properties;
use super::xml::{child, children, find, text_of};
use crate::values::{Bytes, parse_libvirt};

/// The namespace of `<qemu:commandline>`.
pub(crate) const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// The maximum number of memory devices: libvirt allows 16 slots by default, and EGM has one device
/// per GPU.
const MEMORY_LIMIT: usize = 1024;

/// Guest memory that comes from a file of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileMemory {
    /// The file.
    pub path: PathBuf,
    /// The size; `None` if the definition has none.
    pub size: Option<Bytes>,
}

/// Everything in a domain that takes memory from a file.
pub(super) fn read(domain: Node<'_, '_>) -> Vec<FileMemory> {
    memory_devices(domain)
        .chain(memory_backing(domain))
        .chain(command_line(domain))
        .take(MEMORY_LIMIT)
        .collect()
}

/// `<devices><memory>` of any model with a file as its source: `egm` today.
fn memory_devices<'a>(domain: Node<'a, '_>) -> impl Iterator<Item = FileMemory> + 'a {
    children(child(domain, "devices"), "memory").filter_map(|memory| {
        let (path, _) = text_of(find(memory, &["source", "path"])?);
        let path = Some(path.trim()).filter(|path| !path.is_empty())?;
        let size = find(memory, &["target", "size"]);
        let size = size.and_then(|size| parse_libvirt(&text_of(size).0, size.attribute("unit")));
        Some(FileMemory { path: path.into(), size })
    })
}

/// `<memoryBacking>`: released libvirt accepts no path there, but patched versions did in several
/// ways, so any absolute path in it counts.
fn memory_backing<'a>(domain: Node<'a, '_>) -> impl Iterator<Item = FileMemory> + 'a {
    children(Some(domain), "memoryBacking")
        .flat_map(|backing| backing.descendants().filter(Node::is_element))
        .flat_map(|node| {
            let attributes = node.attributes().map(|attribute| attribute.value().to_owned());
            // Only its own text; that of its children is read separately.
            let text = node.children().filter(Node::is_text).filter_map(|text| text.text());
            attributes.chain([text.collect()]).collect::<Vec<_>>()
        })
        .map(|text| text.trim().to_owned())
        .filter(|text| text.starts_with('/'))
        .map(|path| FileMemory { path: path.into(), size: None })
}

/// The `<qemu:arg>` elements.
pub(super) fn qemu_arguments<'a, 'input>(
    domain: Node<'a, 'input>,
) -> impl Iterator<Item = Node<'a, 'input>> {
    domain
        .children()
        .filter(|child| child.has_tag_name((QEMU, "commandline")))
        .flat_map(|command_line| command_line.children())
        .filter(|child| child.has_tag_name((QEMU, "arg")))
}

/// `<qemu:commandline>` with `-object memory-backend-file,..` or `-mem-path PATH`.
fn command_line<'a>(domain: Node<'a, '_>) -> impl Iterator<Item = FileMemory> + 'a {
    let mut previous = "";
    qemu_arguments(domain).filter_map(move |argument| {
        let value = argument.attribute("value")?;
        let option = std::mem::replace(&mut previous, value);
        if is_mem_path(option) {
            return Some(FileMemory { path: value.into(), size: None });
        }
        memory_backend(value)
    })
}

/// Whether an argument takes memory from a file or gives it to a GPU.
pub(crate) fn is_memory_argument(previous: &str, argument: &str) -> bool {
    is_mem_path(previous)
        || is_mem_path(argument)
        || memory_backend(argument).is_some()
        || object(argument, "acpi-egm-memory").is_some()
}

fn is_mem_path(option: &str) -> bool {
    matches!(option, "-mem-path" | "--mem-path")
}

fn memory_backend(argument: &str) -> Option<FileMemory> {
    let properties = object(argument, "memory-backend-file")?;
    let path = last(&properties, "mem-path")?.into();
    Some(FileMemory { path, size: last(&properties, "size").and_then(parse_qemu_size) })
}

/// The properties of an object of this type, in the syntax of QEMU's `-object`.
fn object(argument: &str, kind: &str) -> Option<Vec<(String, String)>> {
    const TYPE: &str = "qom-type";
    properties(argument, TYPE).filter(|properties| last(properties, TYPE) == Some(kind))
}

/// The value of a property. QEMU uses the last one of several.
fn last<'a>(properties: &'a [(String, String)], name: &str) -> Option<&'a str> {
    properties.iter().rfind(|property| property.0 == name).map(|property| property.1.as_str())
}

/// `8589934592`, `8G`, `64M`: powers of 1024 (QEMU's `qemu_strtosz`).
pub(super) fn parse_qemu_size(text: &str) -> Option<Bytes> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" | "B" | "b" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift).map(Bytes)
}
