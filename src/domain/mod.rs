//! The part of libvirt's domain XML that concerns EGM, with the place of every value. Knows nothing
//! of any host.

pub(crate) mod edit;
pub(crate) mod element;
mod file_memory;
mod read;
mod source;
pub(crate) mod xml;

use std::collections::BTreeMap;
use std::ops::Range;

use roxmltree::NodeId;

use crate::id_list::IdList;
use crate::pci::PciAddress;
use crate::units::Bytes;
pub use file_memory::FileMemory;
pub use source::Source;
pub use xml::{line_and_column, lines_and_columns};

/// A virtual machine as libvirt defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Domain {
    /// Its name; empty where it has none, which libvirt refuses.
    pub name: String,
    /// Whether this is a status file of libvirt's: the domain is running.
    pub is_status: bool,
    /// The process that runs it, by the status file.
    pub pid: Option<u32>,
    /// Where its start tag stands.
    pub span: Range<usize>,
    /// What it says of host memory by the path of a file: EGM is that, and so are other things.
    pub file_memory: Vec<FileMemory>,
    /// What it is: `<type arch='aarch64' machine='virt'>`.
    pub os: Os,
    /// How much memory it has, `<memory>`.
    pub memory: Option<Value<Bytes>>,
    /// How much of it at the start, `<currentMemory>`.
    pub current_memory: Option<Value<Bytes>>,
    /// How much it may come to have, `<maxMemory>`.
    pub max_memory: Option<Value<Bytes>>,
    /// What its memory is made of, `<memoryBacking>`.
    pub backing: Backing,
    /// How many virtual CPUs it has, `<vcpu>`.
    pub vcpus: Option<Value<u32>>,
    /// How many of them it starts with.
    pub current_vcpus: Option<u32>,
    /// The numbers of those that `<vcpus>` lists.
    pub vcpu_ids: Vec<Value<u32>>,
    /// Its `<topology>`.
    pub topology: Option<Topology>,
    /// Its NUMA cells.
    pub cells: Vec<Cell>,
    /// Its EGM devices, `<memory model='egm'>`.
    pub egm: Vec<EgmDevice>,
    /// Its memory devices of other models.
    pub other_memory: Vec<MemoryDevice>,
    /// The devices of a form that libvirt has given up, `<acpiEgmMemory>`.
    pub obsolete: Vec<Range<usize>>,
    /// Which virtual CPUs run where, `<vcpupin>`.
    pub pins: Vec<Pin>,
    /// What is given to QEMU past libvirt, `<qemu:arg>`.
    pub qemu_arguments: Vec<Value<String>>,
    /// Its `<hostdev>` devices.
    pub hostdevs: Vec<Hostdev>,
    /// The aliases of all its devices.
    pub aliases: Vec<Value<String>>,
}

/// A value of the XML: what is written, what it means, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<T> {
    /// What is written.
    pub text: String,
    /// What it means; `None` where it means nothing.
    pub value: Option<T>,
    /// The bytes of the source that say it: the text of an element, or an attribute's value
    /// within its quotes.
    pub span: Range<usize>,
}

/// What machine a domain is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Os {
    /// Its architecture; that of the host where nothing is said.
    pub arch: Option<Value<String>>,
    /// The type of its machine; QEMU's default where nothing is said.
    pub machine: Option<Value<String>>,
}

/// A memory device that is not EGM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryDevice {
    /// Its model, such as `dimm`.
    pub model: Option<Value<String>>,
    /// How much memory it has.
    pub size: Option<Value<Bytes>>,
    /// Where its start tag stands.
    pub span: Range<usize>,
}

/// Where a virtual CPU runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The virtual CPU.
    pub vcpu: Option<u32>,
    /// The CPUs of the host.
    pub cpus: Value<IdList>,
}

/// What the memory of a domain is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backing {
    /// Where `<hugepages>` stands.
    pub hugepages: Option<Range<usize>>,
    /// `<access mode='shared'/>`.
    pub access: Option<Value<String>>,
    /// `<allocation mode='immediate'/>`.
    pub allocation: Option<Value<String>>,
}

/// How the CPUs of a guest are arranged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// How many CPUs that makes; `None` where it is more than can be, or nothing.
    pub cpus: Option<u32>,
    /// The numbers of sockets, dies, clusters, cores, threads: those that are written.
    pub levels: Vec<(&'static str, u32)>,
    /// Where its start tag stands.
    pub span: Range<usize>,
}

/// A NUMA cell of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cell {
    /// Its number; where none is written, its place in the list.
    pub id: Value<u32>,
    /// How much memory it has.
    pub memory: Option<Value<Bytes>>,
    /// Its virtual CPUs.
    pub cpus: Option<Value<IdList>>,
    /// The cells that it says its distance to, and the distance.
    pub distances: Vec<(Value<u32>, Option<u32>)>,
    /// Where its start tag stands.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// An EGM device: memory of the host's region for one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgmDevice {
    /// `access`, which is to be `shared`.
    pub access: Option<Value<String>>,
    /// The region's device.
    pub path: Option<Value<String>>,
    /// How much of it.
    pub size: Option<Value<Bytes>>,
    /// The guest's NUMA cell that it backs.
    pub cell: Option<Value<u32>>,
    /// The alias of its GPU's `<hostdev>`.
    pub pci_dev: Option<Value<String>>,
    /// Where its start tag stands.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// A device of the host that the guest has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hostdev {
    /// Its address, where it is a PCI function.
    pub address: Option<Value<PciAddress>>,
    /// Its alias.
    pub alias: Option<Value<String>>,
    /// The guest's NUMA cells that are its own, `<acpi nodeset='2-9'/>`.
    pub cells: Option<Value<IdList>>,
    /// Where its start tag stands.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
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

impl BadDomain {
    pub(crate) fn at(text: &str, offset: usize, problem: &str) -> Self {
        let (line, column) = line_and_column(text, offset);
        Self { line, column, problem: problem.to_owned() }
    }
}

impl Domain {
    /// Reads a definition (`<domain>`) or a status file (`<domstatus>`). What is missing in it or
    /// means nothing is so in what is read; no more is asked of it than that it is a domain.
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
        let document = xml::parse(text)?;
        Self::of(&document)
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

    /// The `<hostdev>` devices that have an alias; the first one of each.
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
}

impl MemoryDevice {
    /// How much it adds to the domain's memory: libvirt counts all models in that it knows
    /// (`virDomainMemoryModel`, `src/conf/domain_conf.h`), but EGM.
    #[must_use]
    pub fn counts(&self) -> Bytes {
        const KNOWN: [&str; 5] = ["dimm", "nvdimm", "virtio-pmem", "virtio-mem", "sgx-epc"];
        let model = self.model.as_ref().map(|model| model.text.as_str());
        let size = self.size.as_ref().and_then(|size| size.value);
        let is_known = model.is_some_and(|model| KNOWN.contains(&model));
        size.filter(|_| is_known).unwrap_or(Bytes(0))
    }
}

/// Whether libvirt keeps an alias (`USER_ALIAS_PREFIX` and `USER_ALIAS_CHARS`,
/// `src/conf/device_conf.c`): it drops others without a word, and makes up its own.
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

impl Hostdev {
    /// Its address, where it is a PCI function and the address is one.
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        self.address.as_ref()?.value
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Domain, FileMemory};

    fn memory(xml: &str) -> Vec<(String, Option<u64>)> {
        let domain = Domain::parse(xml).unwrap();
        let entry = |memory: FileMemory| {
            (memory.path.to_str().unwrap().to_owned(), memory.size.map(|Bytes(size)| size))
        };
        domain.file_memory.into_iter().map(entry).collect()
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

    fn shown<T: std::fmt::Debug>(xml: &str, value: Option<&super::Value<T>>) -> String {
        let shown =
            |value: &super::Value<T>| format!("{:?} {}", value.value, &xml[value.span.clone()]);
        value.map_or("-".into(), shown)
    }

    #[test]
    fn every_value_has_its_place() {
        let xml = "<domain><name>vm1</name><memory unit='GiB'> 16 </memory><vcpu>4</vcpu>
  <memoryBacking><hugepages/><access mode=\"shared\"/></memoryBacking>
  <cpu><topology sockets='2' cores='2'/><numa><cell memory='8388608'/>
    <cell id='1' cpus='2-3' memory='8' unit='GiB'/></numa></cpu>
  <metadata><x:memory xmlns:x='urn:x'>1</x:memory></metadata>
  <devices>
    <x:hostdev xmlns:x='urn:x'/>
    <hostdev type='pci'><source><address domain='0x0009' bus='1' slot='0x0'/></source>
      <alias name='ua-gpu'/><acpi nodeset='2-9'/></hostdev>
    <hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>
    <memory model='dimm'/>
    <memory model='egm' access='private'><source><path>/dev<!-- ! -->/egm4</path></source>
      <target><size>x</size><node>1</node><pciDev/></target></memory>
  </devices></domain>";
        let domain = Domain::parse(xml).unwrap();
        let hostdev = &domain.hostdevs[0];
        let device = &domain.egm[0];
        assert_eq!((domain.hostdevs.len(), domain.egm.len(), domain.cells.len()), (2, 1, 2));
        assert_eq!(domain.hostdevs[1].address, None);
        for (value, expected) in [
            (shown(xml, domain.memory.as_ref()), "Some(Bytes(17179869184)) 16"),
            (shown(xml, domain.current_memory.as_ref()), "-"),
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
        assert_eq!(topology.levels, [("sockets", 2), ("cores", 2)]);
        assert_eq!(&xml[topology.span.clone()], "<topology sockets='2' cores='2'/>");
        let address = hostdev.address.as_ref().unwrap();
        assert_eq!(address.value.unwrap().to_string(), "0009:01:00.0");
        assert_eq!(&xml[address.span.clone()], "domain='0x0009' bus='1' slot='0x0'");
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
    fn equals_signs_outside_of_tags_are_no_attributes() {
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
    fn deep_nesting_ends_in_an_error_and_not_in_the_stack() {
        let nested = |depth: usize| {
            let (open, close) = ("<a>".repeat(depth), "</a>".repeat(depth));
            Domain::parse(&format!("<domain>\n{open}{close}</domain>"))
        };
        assert!(nested(255).is_ok());
        for depth in [256, 90_000] {
            let error = nested(depth).unwrap_err().to_string();
            assert!(error.starts_with("2:766: elements more than 256 deep"), "{error}");
        }
        assert!(Domain::parse(&"<a>".repeat(300_000)).is_err());
    }
}
