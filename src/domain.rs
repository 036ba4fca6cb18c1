//! The part of libvirt's domain XML that concerns EGM. Knows nothing of any host.

use std::path::PathBuf;

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use crate::text::excerpt;
use crate::units::{Bytes, parse_libvirt};

/// The namespace of `<qemu:commandline>`.
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// How much of the parser's words is shown.
const PROBLEM_SHOWN: usize = 200;

/// More nodes than this are no domain of libvirt's.
const NODES_LIMIT: u32 = 200_000;

/// More attributes than this are no element of libvirt's, and take the parser very long.
const ATTRIBUTES_LIMIT: usize = 500;

/// More memory devices than this are no domain of libvirt's: it allows 16 slots by default, and
/// EGM has one a GPU.
const MEMORY_LIMIT: usize = 1024;

/// A virtual machine as libvirt defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Whether this is a status file of libvirt's: the domain is running.
    pub is_status: bool,
    /// The process that runs it, by the status file.
    pub pid: Option<u32>,
    /// What it says of host memory by the path of a file: EGM is that, and so are other things.
    pub memory: Vec<FileMemory>,
}

/// Guest memory that comes from a file of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMemory {
    /// The file.
    pub path: PathBuf,
    /// How much of it; `None` where the definition does not say.
    pub size: Option<Bytes>,
}

/// A text that is no domain of libvirt's, and where it ceases to be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
pub struct BadDomain {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong there.
    pub problem: String,
}

impl Domain {
    /// Reads a definition (`<domain>`) or a status file (`<domstatus>`).
    ///
    /// # Errors
    /// It is not XML, has a DTD, or is neither.
    ///
    /// ```
    /// use egm_probe::domain::Domain;
    ///
    /// let domain = Domain::parse(
    ///     "<domain type='kvm'><name>vm1</name><devices>
    ///        <memory model='egm' access='shared'>
    ///          <source><path>/dev/egm4</path></source>
    ///          <target><size unit='GiB'>8</size><node>0</node><pciDev>ua-hostdev0</pciDev></target>
    ///        </memory>
    ///      </devices></domain>",
    /// )?;
    /// assert_eq!(domain.memory[0].path.to_str(), Some("/dev/egm4"));
    /// assert_eq!(domain.memory[0].size.map(|size| size.0), Some(8 << 30));
    /// # Ok::<(), egm_probe::domain::BadDomain>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, BadDomain> {
        if let Some(offset) = too_many_attributes(text) {
            let before = text.get(..offset).unwrap_or_default();
            let (line, column) = end_of(before);
            let problem = format!("an element with more than {ATTRIBUTES_LIMIT} attributes");
            return Err(BadDomain { line, column, problem });
        }
        // No DTD: entities can be made to grow without bound.
        let options =
            ParsingOptions { allow_dtd: false, nodes_limit: NODES_LIMIT, ..Default::default() };
        let document =
            Document::parse_with_options(text, options).map_err(|error| not_xml(&error, text))?;
        let root = document.root_element();
        let problem = |node: Node<'_, '_>, problem: &str| {
            let at = document.text_pos_at(node.range().start);
            BadDomain { line: at.row, column: at.col, problem: problem.to_owned() }
        };
        let is_status = root.has_tag_name("domstatus");
        let domain = if is_status {
            child(root, "domain").ok_or_else(|| problem(root, "<domstatus> without <domain>"))?
        } else if root.has_tag_name("domain") {
            root
        } else {
            let found = excerpt(root.tag_name().name(), PROBLEM_SHOWN);
            let found = format!("<{found}> is not a domain of libvirt's");
            return Err(problem(root, &found));
        };
        let name = child(domain, "name").and_then(|name| name.text()).map(str::trim);
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| problem(domain, "a domain without <name>"))?;
        Ok(Self {
            name: name.to_owned(),
            is_status,
            pid: root.attribute("pid").filter(|_| is_status).and_then(|pid| pid.parse().ok()),
            memory: memory_devices(domain)
                .chain(memory_backing(domain))
                .chain(command_line(domain))
                .take(MEMORY_LIMIT)
                .collect(),
        })
    }
}

/// What the parser says, where it says it, or at the end where there is no more to say it of.
fn not_xml(error: &roxmltree::Error, text: &str) -> BadDomain {
    use roxmltree::Error::{NoRootNode, UnclosedRootNode, UnexpectedEndOfStream};
    let (line, column) = match error {
        NoRootNode | UnclosedRootNode | UnexpectedEndOfStream => end_of(text),
        _ => (error.pos().row, error.pos().col),
    };
    let problem = error.to_string();
    let problem = problem.strip_suffix(&format!(" at {}", error.pos())).unwrap_or(&problem);
    BadDomain { line, column, problem: excerpt(problem, PROBLEM_SHOWN) }
}

/// The line and column behind a text.
fn end_of(text: &str) -> (u32, u32) {
    let last = text.rsplit('\n').next().unwrap_or_default();
    let count = |number: usize| u32::try_from(number + 1).unwrap_or(u32::MAX);
    (count(text.matches('\n').count()), count(last.chars().count()))
}

/// Where an element begins that has too many attributes: each has an equals sign outside of
/// quotes, between the brackets of its tag.
fn too_many_attributes(text: &str) -> Option<usize> {
    let (mut start, mut quote, mut count) = (None, None, 0);
    for (offset, byte) in text.bytes().enumerate() {
        match (start, quote, byte) {
            (_, None, b'<') => (start, count) = (Some(offset), 0),
            (Some(_), None, b'>') => start = None,
            (Some(_), None, b'"' | b'\'') => quote = Some(byte),
            (Some(_), Some(open), byte) if byte == open => quote = None,
            (Some(tag), None, b'=') => {
                count += 1;
                if count > ATTRIBUTES_LIMIT {
                    return Some(tag);
                }
            }
            _ => {}
        }
    }
    None
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn children<'a, 'input: 'a>(
    node: Option<Node<'a, 'input>>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.into_iter().flat_map(|node| node.children()).filter(move |child| child.has_tag_name(name))
}

/// `<devices><memory>` of any model that has a file for its source: `egm` today.
fn memory_devices<'a>(domain: Node<'a, '_>) -> impl Iterator<Item = FileMemory> + 'a {
    children(child(domain, "devices"), "memory").filter_map(|memory| {
        let path = child(child(memory, "source")?, "path")?.text()?.trim();
        let size = child(memory, "target").and_then(|target| child(target, "size"));
        let size = size.and_then(|size| parse_libvirt(size.text()?, size.attribute("unit")));
        Some(FileMemory { path: path.into(), size })
    })
}

/// `<memoryBacking>`: no released libvirt takes a path there, patched ones did in several ways, so
/// whatever is an absolute path in it counts.
fn memory_backing<'a>(domain: Node<'a, '_>) -> impl Iterator<Item = FileMemory> + 'a {
    children(Some(domain), "memoryBacking")
        .flat_map(|backing| backing.descendants())
        .flat_map(|node| {
            let attributes = node.attributes().map(|attribute| attribute.value());
            let text = node.text().filter(|_| node.is_text());
            attributes.chain(text).collect::<Vec<_>>()
        })
        .map(str::trim)
        .filter(|text| text.starts_with('/'))
        .map(|path| FileMemory { path: path.into(), size: None })
}

/// `<qemu:commandline>` with `-object memory-backend-file,..` or `-mem-path PATH`.
fn command_line<'a>(domain: Node<'a, '_>) -> impl Iterator<Item = FileMemory> + 'a {
    let mut previous = "";
    domain
        .children()
        .filter(|child| child.has_tag_name((QEMU, "commandline")))
        .flat_map(|command_line| command_line.children())
        .filter(|child| child.has_tag_name((QEMU, "arg")))
        .filter_map(move |argument| {
            let value = argument.attribute("value")?;
            let option = std::mem::replace(&mut previous, value);
            if matches!(option, "-mem-path" | "--mem-path") {
                return Some(FileMemory { path: value.into(), size: None });
            }
            memory_backend(value)
        })
}

/// The file and size of a memory backend, as QEMU's `-object` takes them: JSON or `key=value`.
fn memory_backend(argument: &str) -> Option<FileMemory> {
    const BACKEND: &str = "memory-backend-file";
    if argument.trim_start().starts_with('{') {
        let object: Value = serde_json::from_str(argument).ok()?;
        let is_backend = object.get("qom-type")?.as_str()? == BACKEND;
        let path = object.get("mem-path")?.as_str()?;
        let size = object.get("size").and_then(Value::as_u64).map(Bytes);
        return is_backend.then(|| FileMemory { path: path.into(), size });
    }
    let mut options = argument.split(',');
    let kind = options.next()?;
    if kind != BACKEND && kind.strip_prefix("qom-type=") != Some(BACKEND) {
        return None;
    }
    let value = |key: &str| options.clone().find_map(|option| option.strip_prefix(key));
    let path = value("mem-path=")?;
    Some(FileMemory { path: path.into(), size: value("size=").and_then(parse_qemu_size) })
}

/// `8589934592`, `8G`, `64M`: powers of 1024 (QEMU's `qemu_strtosz`).
fn parse_qemu_size(text: &str) -> Option<Bytes> {
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

#[cfg(test)]
mod tests {
    use super::{Bytes, Domain, FileMemory};

    fn memory(xml: &str) -> Vec<(String, Option<u64>)> {
        let domain = Domain::parse(xml).unwrap();
        let entry = |memory: FileMemory| {
            (memory.path.to_str().unwrap().to_owned(), memory.size.map(|Bytes(size)| size))
        };
        domain.memory.into_iter().map(entry).collect()
    }

    #[test]
    fn every_way_to_take_memory_from_a_file_is_seen() {
        let xml = "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
          <name>vm1</name>
          <memoryBacking><source type='file'/><path>/dev/egm6</path></memoryBacking>
          <devices>
            <memory model='dimm'><target><size>1</size></target></memory>
            <memory model='nvdimm'><source><path>/dev/egm8</path></source></memory>
            <memory model='egm'><source><path> /dev/egm4 </path></source>
              <target><size>8388608</size></target></memory>
            <memory model='egm'><target><size>1</size></target></memory>
          </devices>
          <qemu:commandline>
            <qemu:arg value='-object'/>
            <qemu:arg value='memory-backend-file,id=m0,mem-path=/dev/egm5,size=8G,share=on'/>
            <qemu:arg value='{\"qom-type\":\"memory-backend-file\",\"mem-path\":\"/dev/egm7\",\"size\":4096}'/>
            <qemu:arg value='{\"qom-type\":\"memory-backend-ram\",\"size\":4096}'/>
            <qemu:arg value='{'/>
            <qemu:arg value='-mem-path'/>
            <qemu:arg value='/dev/egm9'/>
          </qemu:commandline>
        </domain>";
        assert_eq!(
            memory(xml),
            [
                ("/dev/egm8".into(), None),
                ("/dev/egm4".into(), Some(8 << 30)),
                ("/dev/egm6".into(), None),
                ("/dev/egm5".into(), Some(8 << 30)),
                ("/dev/egm7".into(), Some(4096)),
                ("/dev/egm9".into(), None),
            ]
        );
    }

    #[test]
    fn a_status_file_tells_the_process() {
        let xml = "<domstatus state='running' pid='42'><domain id='1'><name>vm1</name></domain></domstatus>";
        let domain = Domain::parse(xml).unwrap();
        assert_eq!((domain.name.as_str(), domain.is_status, domain.pid), ("vm1", true, Some(42)));
    }

    #[test]
    fn what_is_no_domain_is_refused_with_its_place() {
        for (xml, place) in [
            ("", "1:1"),
            ("<domain>\n<name>x</nam></domain>", "2:"),
            ("<domain/>", "1:1"),
            ("<domain><name> </name></domain>", "1:1"),
            ("<network><name>x</name></network>", "1:1"),
            ("<domstatus><name>x</name></domstatus>", "1:1"),
            ("<!DOCTYPE x [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>", "1:"),
            ("<domain>\n<name>x</name>", "2:15: "),
            ("<domain><name>\u{0}</name></domain>", "1:"),
            ("<domain><qemu:x/></domain>", "1:"),
            (&format!("<domain>\n<a {}/></domain>", "x='>' ".repeat(501)), "2:1: an element with"),
        ] {
            let error = Domain::parse(xml).unwrap_err().to_string();
            assert!(error.starts_with(place), "{xml}: {error}");
        }
    }

    #[test]
    fn deep_nesting_ends_in_an_error_and_not_in_the_stack() {
        let deep = "<a>".repeat(300_000);
        assert!(Domain::parse(&deep).is_err());
        let deep = format!(
            "<domain><name>x</name>{}{}</domain>",
            "<a>".repeat(90_000),
            "</a>".repeat(90_000)
        );
        assert!(Domain::parse(&deep).is_ok());
    }
}
