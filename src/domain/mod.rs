//! libvirt's domain XML, as far as it concerns EGM: read with the place of every value, and edited
//! in place. Independent of any host.

mod command_line;
mod cpu;
mod dialect;
mod document;
pub(crate) mod edit;
pub(crate) mod element;
pub(crate) mod file_memory;
mod guest_address;
mod hostdev;
mod machine;
mod memory;
mod model;
mod overrides;
mod pci;
mod pci_machine;
mod qemu_options;
mod read;
mod smmu;
mod source;
mod value;
pub(crate) mod xml;

use std::collections::BTreeMap;

use crate::values::PciAddress;
pub use command_line::CommandLine;
pub use cpu::{Cell, CpuMode, CpuTopology, Distance, Pin};
pub use dialect::{BadDialect, Dialect};
pub use document::Document;
pub use file_memory::FileMemory;
pub use guest_address::{Bus, GuestAddress, GuestPlace, PciDevice};
pub use hostdev::Hostdev;
pub use machine::{Features, GicVersion, Os};
pub use memory::{Backing, EgmDevice, HugePages, MemoryDevice, MemoryMode, MemoryPolicy};
pub use model::Domain;
pub use overrides::{DeviceOverride, Property, PropertyKind};
pub use pci::{ControllerModel, ControllerTarget, PciController, UsbController};
pub use pci_machine::PciMachine;
pub use smmu::{Attribute, IdSize, IdSizeName, Iommu};
pub use source::{Encoding, SourceText};
pub(crate) use value::Maybe;
pub use value::{Origin, Value};
pub use xml::{line_and_column, lines_and_columns};

/// An invalid domain, and the place of the problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
#[non_exhaustive]
pub struct BadDomain {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// The problem.
    pub problem: String,
}

impl BadDomain {
    pub(crate) fn at(text: &str, offset: usize, problem: &str) -> Self {
        let (line, column) = line_and_column(text, offset);
        Self { line, column, problem: problem.to_owned() }
    }
}

impl Domain {
    /// Reads a definition (`<domain>`) or a status file (`<domstatus>`). Missing and invalid values
    /// are preserved as such; only the root element is required.
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
    /// let device = &domain.egm[0];
    /// assert_eq!(device.path.as_ref().map(|path| path.text.as_str()), Some("/dev/egm4"));
    /// let size = device.size.as_ref().and_then(|size| size.value);
    /// assert_eq!(size.map(|size| size.0), Some(8 << 30));
    /// # Ok::<(), egm_probe::domain::BadDomain>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, BadDomain> {
        Self::of(&xml::parse(text)?)
    }

    pub(crate) fn of(document: &roxmltree::Document<'_>) -> Result<Self, BadDomain> {
        let (domain, is_status) = xml::domain_of(document)?;
        Ok(read::read(document.root_element(), domain, is_status))
    }

    /// The PCI `<hostdev>` of this address.
    #[must_use]
    pub fn hostdev(&self, address: PciAddress) -> Option<&Hostdev> {
        self.hostdevs.iter().find(|hostdev| hostdev.pci() == Some(address))
    }

    /// The `<hostdev>` devices by alias; the first one of each.
    #[must_use]
    pub fn hostdevs_by_alias(&self) -> BTreeMap<&str, &Hostdev> {
        let mut by_alias = BTreeMap::new();
        for hostdev in &self.hostdevs {
            if let Some(alias) = &hostdev.alias {
                by_alias.entry(alias.text.as_str()).or_insert(hostdev);
            }
        }
        by_alias
    }

    /// Whether arguments for QEMU may name cells.
    pub(crate) fn arguments_name_cells(&self) -> bool {
        let names = ["-numa", "node=", "nodeid=", "node-id=", "node\":"];
        self.qemu_arguments.iter().any(|it| names.iter().any(|name| it.text.contains(name)))
    }

    /// Finds the `<hostdev>` of an EGM device's GPU.
    pub(crate) fn find_hostdev<'a>(&'a self) -> impl Fn(&EgmDevice) -> Option<&'a Hostdev> {
        let by_alias = self.hostdevs_by_alias();
        move |device| by_alias.get(device.pci_dev.as_ref()?.text.as_str()).copied()
    }
}

/// Whether libvirt keeps an alias (`USER_ALIAS_PREFIX` and `USER_ALIAS_CHARS`,
/// `src/conf/device_conf.c`): it silently replaces others with generated ones.
///
/// ```
/// use egm_probe::domain::is_lasting_alias;
///
/// assert!(is_lasting_alias("ua-hostdev0"));
/// assert!(!is_lasting_alias("hostdev0"));
/// ```
#[must_use]
pub fn is_lasting_alias(alias: &str) -> bool {
    alias.strip_prefix("ua-").is_some_and(|rest| {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !rest.is_empty() && rest.bytes().all(is_good)
    })
}

#[cfg(test)]
mod tests {
    use super::{Domain, FileMemory};
    use crate::values::Bytes;

    fn memory(xml: &str) -> Vec<(String, Option<u64>)> {
        let domain = Domain::parse(xml).unwrap();
        let entry = |memory: FileMemory| {
            (memory.path.to_str().unwrap().to_owned(), memory.size.map(|Bytes(size)| size))
        };
        domain.file_memory.into_iter().map(entry).collect()
    }

    #[test]
    fn memory_from_files_is_found_in_every_syntax() {
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
            <qemu:arg value='id=a,,b,size=1G,qom-type=memory-backend-file,mem-path=/dev/egm3,size=2G'/>
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
                ("/dev/egm3".into(), Some(2 << 30)),
                ("/dev/egm9".into(), None),
            ]
        );
    }

    fn shown<T: std::fmt::Debug>(xml: &str, value: Option<&super::Value<T>>) -> String {
        let shown =
            |value: &super::Value<T>| format!("{:?} {}", value.value, &xml[value.span.clone()]);
        value.map_or("-".into(), shown)
    }

    #[test]
    fn every_value_has_its_place() {
        let xml = "<domain><name>vm1</name><memory unit='GiB'>16</memory><vcpu>4</vcpu>
  <memoryBacking><hugepages/><access mode=\"shared\"/><allocation threads='4'/></memoryBacking>
  <maxMemory slots='2'>8</maxMemory><iommufd enabled='yes'/><numatune>
    <memory mode='preferred' nodeset='0-1'/><memnode cellid='1' mode='x' nodeset='16384'/>
  </numatune>
  <cpu><topology sockets='2' cores='2'/><numa><cell memory='8388608'/>
    <cell id='1' cpus='2-3' memory='8' unit='GiB'/></numa></cpu>
  <metadata><x:memory xmlns:x='urn:x'>1</x:memory></metadata>
  <devices>
    <x:hostdev xmlns:x='urn:x'/>
    <hostdev type='pci'><source><address domain='0x0009' bus='1' slot='0x0'/></source>
      <alias name='ua-gpu'/><acpi nodeset='2-9'/><driver iommufd='no'/><rom bar='off'/></hostdev>
    <hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>
    <memory model='dimm'/>
    <memory model='egm' access='private'><source><path>/dev<!-- ! -->/egm4</path></source>
      <target><size>x</size><node>1</node><pciDev/></target></memory>
  </devices></domain>";
        let domain = Domain::parse(xml).unwrap();
        let hostdev = &domain.hostdevs[0];
        let device = &domain.egm[0];
        let all = domain.memory_policy.as_ref().unwrap();
        let (cell, own) = &domain.placed_cells[0];
        let nodes = all.nodes.as_ref().and_then(|nodes| nodes.value.as_ref()).unwrap();
        assert_eq!(nodes.to_string(), "0-1");
        assert_eq!((domain.hostdevs.len(), domain.egm.len(), domain.cells.len()), (2, 1, 2));
        assert_eq!(domain.hostdevs[1].address, None);
        for (value, expected) in [
            (shown(xml, domain.memory.as_ref()), "Some(Bytes(17179869184)) 16"),
            (shown(xml, domain.current_memory.as_ref()), "-"),
            (shown(xml, domain.memory_slots.as_ref()), "Some(2) 2"),
            (shown(xml, domain.backing.allocation_threads.as_ref()), "Some(4) 4"),
            (shown(xml, domain.iommufd.as_ref()), "Some(true) yes"),
            (shown(xml, all.mode.as_ref()), "Some(Preferred) preferred"),
            (shown(xml, Some(cell)), "Some(1) 1"),
            (shown(xml, own.mode.as_ref()), "None x"),
            (shown(xml, own.nodes.as_ref()), "None 16384"),
            (shown(xml, hostdev.iommufd.as_ref()), "Some(false) no"),
            (shown(xml, hostdev.rom_bar.as_ref()), "Some(false) off"),
            (shown(xml, domain.vcpus.as_ref()), "Some(4) 4"),
            (shown(xml, domain.backing.access.as_ref()), "Some(\"shared\") shared"),
            (shown(xml, Some(&domain.cells[0].id)), "Some(0) <cell memory='8388608'/>"),
            (shown(xml, domain.cells[0].memory.as_ref()), "Some(Bytes(8589934592)) 8388608"),
            (shown(xml, Some(&domain.cells[1].id)), "Some(1) 1"),
            (shown(xml, hostdev.alias.as_ref()), "Some(\"ua-gpu\") ua-gpu"),
            (shown(xml, device.access.as_ref()), "Some(\"private\") private"),
            (shown(xml, device.path.as_ref()), "Some(\"/dev/egm4\") /dev<!-- ! -->/egm4"),
            (shown(xml, device.size.as_ref()), "None x"),
            (shown(xml, device.pci_dev.as_ref()), "Some(\"\") <pciDev/>"),
            (shown(xml, Some(&domain.aliases[0])), "Some(\"ua-gpu\") ua-gpu"),
        ] {
            assert_eq!(value, expected);
        }
        let topology = domain.topology.as_ref().unwrap();
        assert_eq!(topology.cpus, Some(4));
        let levels: Vec<_> =
            topology.levels.iter().map(|(name, level)| (*name, level.value)).collect();
        assert_eq!(levels, [("sockets", Some(2)), ("cores", Some(2))]);
        assert_eq!(&xml[topology.span.clone()], "<topology sockets='2' cores='2'/>");
        let address = hostdev.address.as_ref().unwrap();
        assert_eq!(address.value.unwrap().to_string(), "0009:01:00.0");
        assert_eq!(&xml[address.span.clone()], "domain='0x0009' bus='1' slot='0x0'");
    }

    #[test]
    fn numbers_are_read_as_libvirt_reads_them() {
        for (number, expected) in [
            ("+1", Some(1)),
            ("01", Some(1)),
            ("1", Some(1)),
            (" 1", None),
            ("1\n", None),
            ("++1", None),
            ("-1", None),
            ("0x1", None),
            ("", None),
        ] {
            let xml = format!(
                "<domain><memory unit='KiB'>{number}</memory><devices><memory model='egm'><target>\
                 <node>{number}</node></target></memory></devices></domain>"
            );
            let domain = Domain::parse(&xml).unwrap();
            let cell = domain.egm[0].cell.as_ref().unwrap().value;
            let memory = domain.memory.unwrap().value;
            assert_eq!((cell, memory), (expected, expected.map(|it| Bytes(u64::from(it) << 10))));
        }
    }

    #[test]
    fn a_status_file_has_the_process() {
        let xml = "<domstatus state='running' pid='42'><domain id='1'><name>vm1</name></domain></domstatus>";
        let domain = Domain::parse(xml).unwrap();
        assert_eq!((domain.name.as_str(), domain.is_status, domain.pid), ("vm1", true, Some(42)));
    }

    #[test]
    fn an_invalid_domain_is_refused_with_the_place() {
        for (xml, place) in [
            ("", "1:1"),
            ("<domain>\n<name>x</nam></domain>", "2:"),
            ("<network><name>x</name></network>", "1:1"),
            ("<domstatus><name>x</name></domstatus>", "1:1"),
            ("<!DOCTYPE x [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>", "1:"),
            ("<domain>\n<name>x</name>", "2:15: "),
            ("<domain><name>\u{0}</name></domain>", "1:"),
            ("<domain><qemu:x/></domain>", "1:"),
            (&format!("<domain>\n<a {}/></domain>", "x='>' ".repeat(101)), "2:1: an element with"),
            (
                &format!("<domain><!-- don't -->\n<a {}/></domain>", "x='>' ".repeat(101)),
                "2:1: an element with",
            ),
        ] {
            let error = Domain::parse(xml).unwrap_err().to_string();
            assert!(error.starts_with(place), "{xml}: {error}");
        }
    }

    #[test]
    fn equals_signs_outside_of_tags_do_not_count_as_attributes() {
        let signs = "=".repeat(1000);
        let xml = format!(
            "<?xml version='1.0'?><!--{signs}--><domain><name>x</name><?p {signs}?>\
             <description><![CDATA[<a {signs}]]>{signs}</description></domain>"
        );
        assert_eq!(Domain::parse(&xml).unwrap().name, "x");
    }

    #[test]
    fn lists_are_read_as_libvirt_reads_them() {
        for (text, expected) in [
            ("0-3, 5", Some("0-3,5")),
            ("0-7,^3", Some("0-2,4-7")),
            ("0-7,^3,3", Some("0-7")),
            ("^3,0-7", Some("0-7")),
            (" 1 - 2 ", Some("1-2")),
            ("0,^0", None),
            ("", None),
            ("3-1", None),
            ("^1-2,0-7", None),
            ("0,,1", None),
        ] {
            let xml = format!("<domain><cpu><numa><cell cpus='{text}'/></numa></cpu></domain>");
            let cpus = Domain::parse(&xml).unwrap().cells[0].cpus.clone().unwrap().value;
            assert_eq!(cpus.map(|cpus| cpus.to_string()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let nested = |depth: usize| {
            let (open, close) = ("<a>".repeat(depth), "</a>".repeat(depth));
            Domain::parse(&format!("<domain>\n{open}{close}</domain>"))
        };
        assert!(nested(255).is_ok());
        for depth in [256, 90_000] {
            let error = nested(depth).unwrap_err().to_string();
            assert!(error.starts_with("2:766: elements nested more than 256 deep"), "{error}");
        }
        assert!(Domain::parse(&"<a>".repeat(300_000)).is_err());
    }
}
