//! Reduces a domain's XML to the parts that concern EGM: captures are given to strangers, and a
//! domain may contain console passwords, disk keys, host names and more. Therefore the parts to
//! keep are listed, and everything else is omitted.

use std::fmt::Write;

use roxmltree::{Namespace, Node};

use crate::domain::BadDomain;
use crate::domain::element::escape;
use crate::domain::file_memory::{QEMU, is_memory_argument};
use crate::domain::xml;

/// The parts to keep of an element.
#[derive(Clone, Copy)]
enum Keep {
    /// All of it except comments.
    Whole,
    /// Its tags, and the children with these names.
    Some(&'static [(&'static str, Keep)]),
}

use Keep::{Some as Of, Whole};

/// The attributes to keep of an element that is not kept completely.
const ATTRIBUTES: [&str; 11] = [
    "type", "id", "state", "pid", "mode", "managed", "model", "index", "firmware", "enabled",
    "iommufd",
];

const DOMAIN: &[(&str, Keep)] = &[
    ("name", Whole),
    ("memory", Whole),
    ("currentMemory", Whole),
    ("maxMemory", Whole),
    ("memoryBacking", Whole),
    ("vcpu", Whole),
    ("numatune", Whole),
    ("os", Of(&[("type", Whole), ("loader", Of(&[]))])),
    ("features", Of(&[("acpi", Whole), ("gic", Whole), ("ras", Whole)])),
    ("cputune", Of(&[("vcpupin", Whole), ("emulatorpin", Whole)])),
    ("memtune", Of(&[("hard_limit", Whole)])),
    ("iommufd", Of(&[])),
    ("cpu", Of(&[("topology", Whole), ("numa", Whole)])),
    (
        "devices",
        Of(&[
            ("memory", Whole),
            ("acpiEgmMemory", Whole),
            ("iommu", Of(&[("driver", Whole)])),
            ("controller", Of(&[("pcihole64", Whole), ("target", Whole), ("address", Whole)])),
            (
                "hostdev",
                Of(&[
                    ("driver", Of(&[])),
                    ("source", Of(&[("address", Whole)])),
                    ("alias", Whole),
                    ("acpi", Whole),
                    ("address", Whole),
                ]),
            ),
        ]),
    ),
];

/// Redacts a definition or status file. The output is assembled from the parts to keep, so that
/// unknown parts are omitted.
///
/// # Errors
/// The text is not a domain, so its secrets cannot be recognised.
pub(super) fn redact(text: &str) -> Result<String, BadDomain> {
    let document = xml::parse(text)?;
    let (domain, is_status) = xml::domain_of(&document)?;
    let mut writer = Writer { text, kept: String::new(), depth: 0 };
    if is_status {
        writer.element(document.root_element(), |writer| writer.element_of(domain, DOMAIN));
    } else {
        writer.element_of(domain, DOMAIN);
    }
    Ok(writer.kept)
}

struct Writer<'a> {
    text: &'a str,
    kept: String,
    depth: usize,
}

impl Writer<'_> {
    fn element_of(&mut self, element: Node<'_, '_>, kept: &[(&str, Keep)]) {
        self.element(element, |writer| {
            for child in element.children().filter(Node::is_element) {
                let name = child.tag_name();
                let is_it = |(kept, _): &&(&str, Keep)| name.name() == *kept;
                match kept.iter().find(is_it).filter(|_| name.namespace().is_none()) {
                    Some((_, Whole)) => writer.whole(child),
                    Some((_, Of(kept))) => writer.element_of(child, kept),
                    None => {}
                }
            }
            let mut previous = "";
            for child in element.children().filter(is_command_line) {
                writer.element(child, |writer| previous = writer.arguments(child, previous));
            }
        });
    }

    /// Keeps those of QEMU's own arguments that map memory from a file or assign it to a GPU.
    /// Returns the last argument.
    fn arguments<'b>(&mut self, command_line: Node<'b, '_>, mut previous: &'b str) -> &'b str {
        for child in command_line.children().filter(|child| child.has_tag_name((QEMU, "arg"))) {
            let Some(value) = child.attribute("value") else { continue };
            if is_memory_argument(previous, value) {
                self.whole(child);
            }
            previous = value;
        }
        previous
    }

    /// Writes the tags of an element with the relevant attributes and namespaces, and the inner
    /// part between them.
    fn element(&mut self, element: Node<'_, '_>, write_inner: impl FnOnce(&mut Self)) {
        let start = self.text.get(element.range()).unwrap_or_default().trim_start_matches('<');
        let is_end = |c: char| c.is_whitespace() || matches!(c, '>' | '/');
        let name = start.split(is_end).next().unwrap_or_default();
        let mut tag = format!("<{name}");
        let above = |space: &Namespace<'_>| {
            let parent = element.parent();
            parent.is_some_and(|parent| {
                parent.lookup_namespace_uri(space.name()) == Some(space.uri())
            })
        };
        for space in
            element.namespaces().filter(|space| space.name() != Some("xml") && !above(space))
        {
            let prefix = space.name().map_or(String::new(), |prefix| format!(":{prefix}"));
            let _ = write!(tag, " xmlns{prefix}='{}'", escape(space.uri()));
        }
        let is_kept = |name: &str| ATTRIBUTES.contains(&name);
        for attribute in
            element.attributes().filter(|it| it.namespace().is_none() && is_kept(it.name()))
        {
            let _ = write!(tag, " {}='{}'", attribute.name(), escape(attribute.value()));
        }
        self.line(&format!("{tag}>"));
        self.depth += 1;
        write_inner(self);
        self.depth -= 1;
        self.line(&format!("</{name}>"));
    }

    /// Writes an element unchanged except for comments.
    fn whole(&mut self, element: Node<'_, '_>) {
        let is_cut = |node: &Node<'_, '_>| node.is_comment() || node.is_pi();
        let range = element.range();
        let (mut from, mut text) = (range.start, String::new());
        for cut in element.descendants().filter(is_cut).map(|node| node.range()) {
            text.push_str(self.text.get(from..cut.start).unwrap_or_default());
            from = cut.end;
        }
        text.push_str(self.text.get(from..range.end).unwrap_or_default());
        self.line(&text);
    }

    fn line(&mut self, text: &str) {
        self.kept.extend(std::iter::repeat_n("  ", self.depth));
        self.kept.push_str(text);
        self.kept.push('\n');
    }
}

fn is_command_line(child: &Node<'_, '_>) -> bool {
    let is_domains = |parent: Node<'_, '_>| parent.has_tag_name("domain");
    child.has_tag_name((QEMU, "commandline")) && child.parent().is_some_and(is_domains)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::redact;
    use crate::check::{CheckOptions, check};
    use crate::domain::{Domain, Maybe};

    const DOMAIN: &str = "<?xml version='1.0'?>
<!-- of SECRET -->
<domstatus state='running' pid='42'>
  <vcpus>SECRET</vcpus>
  <domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    SECRET
    <name>vm1</name>
    <title>SECRET</title>
    <sysinfo type='smbios'><system><entry name='serial'>SECRET</entry></system></sysinfo>
    <memory unit='KiB'>8388608<!-- SECRET --></memory>
    <x:memory xmlns:x='urn:x'>SECRET</x:memory><![CDATA[SECRET]]>
    <uuid>SECRET</uuid>
    <os firmware='efi'><type arch='aarch64'>hvm</type><nvram>SECRET</nvram>
      <loader type='pflash' secure='no'>/SECRET</loader></os>
    <features><acpi/><gic version='3'/><ras state='on'/><hyperv><vendor_id value='SECRET'/></hyperv></features>
    <cputune><vcpupin vcpu='0' cpuset='4'/><emulatorpin cpuset='1'/><x>SECRET</x></cputune>
    <memtune><hard_limit unit='KiB'>8388608</hard_limit><x>SECRET</x></memtune>
    <iommufd enabled='yes' x='SECRET'/>
    <devices x='>SECRET'>
      <disk type='network'><auth><secret uuid='SECRET'/></auth><source><host name='SECRET'/></source></disk>
      <graphics type='vnc' passwd='SECRET'/>
      <controller type='pci' index='1' model='pcie-expander-bus' x='SECRET'>
        <model name='SECRET'/><target busNr='33'><node>0</node></target><driver x='SECRET'/>
      </controller>
      <controller type='pci' index='2' model='pcie-root-port'>
        <target chassis='1'/><address type='pci' bus='1' slot='0'/>
      </controller>
      <iommu model='smmuv3'><driver pciBus='1' accel='on'/><alias name='SECRET'/></iommu>
      <hostdev type='pci'>
        <driver iommufd='yes' name='SECRET'/><address type='pci' bus='2' slot='0'/>
        <source><address domain='0x0009' bus='1' slot='0'/></source><rom file='SECRET'/>
        <alias name='ua-a'/>
      </hostdev>
      <memory model='egm'><source><path>/dev/egm4</path></source></memory>
    </devices>
    <qemu:commandline>
      <qemu:arg value='-object'/>
      <qemu:arg value='secret,id=s,data=SECRET'/>
      <qemu:arg value='-object'/>
      <qemu:arg value='memory-backend-file,id=m0,mem-path=/dev/egm5,size=8G,share=on'/>
      <qemu:arg value='-mem-path'/>
      <qemu:arg value='/dev/egm6'/>
      <qemu:arg value='/SECRET'/>
      <qemu:env name='K' value='SECRET'/>
    </qemu:commandline>
    <!-- SECRET -->
  </domain>
</domstatus>
<!-- SECRET -->
";

    #[test]
    fn only_parts_that_concern_egm_are_kept() {
        let text = redact(DOMAIN).unwrap();
        assert!(!text.contains("SECRET"), "{text}");
        let [before, after] = [DOMAIN, &text].map(|text| Domain::parse(text).unwrap());
        assert_eq!(before.file_memory, after.file_memory);
        assert_eq!(after.file_memory.len(), 3);
        assert_eq!((after.name, after.pid, after.is_status), (before.name, before.pid, true));
        assert_eq!(after.hostdevs.len(), 1);
        assert_eq!(after.egm.len(), 1);
        assert_eq!((after.os.firmware.text(), after.os.loader.text()), ("efi", "pflash"));
        assert!(after.features.acpi.is_some() && after.features.ras.known() == Some(true));
        assert_eq!(after.features.gic_version.known(), before.features.gic_version.known());
        assert_eq!((after.pins.len(), after.thread_pins[0].text.as_str()), (1, "1"));
        assert_eq!(after.hard_limit.known(), before.hard_limit.known());
        assert_eq!(after.iommufd.known(), Some(true));
        assert_eq!(after.hostdevs[0].iommufd.known(), Some(true));
        assert_eq!(after.pci_controllers[0].target.node.known(), Some(0));
        assert_eq!(redact(&text).as_deref(), Ok(text.as_str()), "redacting again changes nothing");
    }

    /// A redacted domain breaks the same rules.
    #[test]
    fn the_machine_of_a_guest_is_kept() {
        let folder = Path::new("tests/fixtures/domains");
        let text =
            fs::read_to_string(folder.join("good/gb200-full-gpu-list/complete.xml")).unwrap();
        let broken = [
            "",
            "pciBus='1'",
            "busNr='35'",
            "chassis='2'",
            "<node>0</node>",
            "<driver iommufd='yes'/>",
            "nodeset='2-9'",
            "mode='host-passthrough'",
            " firmware='efi'",
            "<acpi/>",
            "<pcihole64 unit='KiB'>4294967296</pcihole64>",
            "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>",
            "<address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>",
        ];
        for part in broken {
            assert!(text.contains(part), "{part}");
            let before = text.replacen(part, "", usize::from(!part.is_empty()));
            let after = redact(&before).unwrap();
            let [before, after] = [before, after].map(|text| {
                let findings = check(&Domain::parse(&text).unwrap(), &CheckOptions::default());
                let mut messages: Vec<_> = findings.into_iter().map(|it| it.message).collect();
                messages.sort();
                messages
            });
            assert_eq!(before, after, "without {part}");
        }
    }

    #[test]
    fn only_domains_are_redacted() {
        for text in ["", "<domain><name>", "<network/>"] {
            assert!(redact(text).is_err(), "{text}");
        }
    }
}
