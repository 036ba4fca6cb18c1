//! The memory of a domain: its backing, its policy and its devices.

use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::Value;
use super::value::{in_kib, list, number, or_unit, read_attribute, read_size, read_text, text};
use super::xml::{child, children, find, start_tag};
use crate::values::{Bytes, IdList};

/// The backing of a domain's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backing {
    /// The place of `<hugepages>`.
    pub hugepages: Option<Range<usize>>,
    /// The pages in it; without any, libvirt uses the default size of the host.
    pub pages: Vec<HugePages>,
    /// The kind of memory, `<source type='file'/>`.
    pub source: Option<Value<String>>,
    /// The place of `<locked/>`, which keeps the memory from being swapped out.
    pub locked: Option<Range<usize>>,
    /// `<access mode='shared'/>`.
    pub access: Option<Value<String>>,
    /// `<allocation mode='immediate'/>`.
    pub allocation: Option<Value<String>>,
    /// The number of threads that allocate, `<allocation threads='4'/>`.
    pub allocation_threads: Option<Value<u32>>,
}

/// Huge pages of one size, `<page size='2' unit='MiB' nodeset='0'/>`.
///
/// ```
/// use egm_probe::domain::Domain;
///
/// let domain = Domain::parse(
///     "<domain><memoryBacking><hugepages><page size='1' unit='GiB' nodeset='0-1'/></hugepages>
///      </memoryBacking></domain>",
/// )?;
/// let pages = &domain.backing.pages[0];
/// assert_eq!(pages.size.as_ref().and_then(|size| size.value).map(|size| size.0), Some(1 << 30));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugePages {
    /// The size of a page.
    pub size: Option<Value<Bytes>>,
    /// The cells of the guest that use them; all, if missing.
    pub cells: Option<Value<IdList>>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// The host NUMA nodes that memory of the guest comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPolicy {
    /// The use of the nodes; strict if missing.
    pub mode: Option<Value<MemoryMode>>,
    /// The nodes; `None` if libvirt asks numad for them.
    pub nodes: Option<Value<IdList>>,
}

/// The use of the host NUMA nodes of a [`MemoryPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryMode {
    /// Memory comes from these nodes only.
    Strict,
    /// Memory comes from another node if the preferred one has none left.
    Preferred,
    /// Pages alternate between the nodes.
    Interleave,
    /// Only libvirt's cgroup limits the nodes; QEMU sets no policy.
    Restrictive,
}

/// A memory device that is not EGM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryDevice {
    /// Its model, such as `dimm`.
    pub model: Option<Value<String>>,
    /// Its memory.
    pub size: Option<Value<Bytes>>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

/// An EGM device: memory of the host's region for one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgmDevice {
    /// `access`, which should be `shared`.
    pub access: Option<Value<String>>,
    /// The region's device.
    pub path: Option<Value<String>>,
    /// The size.
    pub size: Option<Value<Bytes>>,
    /// The guest's NUMA cell that it backs.
    pub cell: Option<Value<u32>>,
    /// The alias of its GPU's `<hostdev>`.
    pub pci_dev: Option<Value<String>>,
    /// The `iommu` attribute of its `<driver>`.
    pub iommu: Option<Value<String>>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

impl MemoryDevice {
    /// Whether its model looks like a typo of `egm`: `EGM`, `egmm`.
    #[must_use]
    pub fn is_like_egm(&self) -> bool {
        self.model.as_ref().is_some_and(|model| {
            let model = model.text.trim().to_ascii_lowercase();
            !model.is_empty() && strsim::osa_distance(&model, "egm") <= 1
        })
    }

    /// Its share of the domain's memory: libvirt counts all known models
    /// (`virDomainMemoryModel`, `src/conf/domain_conf.h`) except EGM.
    #[must_use]
    pub fn counts(&self) -> Bytes {
        let size = self.size.as_ref().and_then(|size| size.value);
        size.filter(|_| self.is_known()).unwrap_or(Bytes(0))
    }

    /// Whether libvirt has a memory device of this model.
    #[must_use]
    pub fn is_known(&self) -> bool {
        const KNOWN: [&str; 5] = ["dimm", "nvdimm", "virtio-pmem", "virtio-mem", "sgx-epc"];
        self.model.as_ref().is_some_and(|model| KNOWN.contains(&model.text.as_str()))
    }

    /// Whether it takes one of the slots of `<maxMemory>`.
    #[must_use]
    pub fn takes_a_slot(&self) -> bool {
        self.model.as_ref().is_some_and(|model| matches!(model.text.as_str(), "dimm" | "nvdimm"))
    }
}

pub(super) fn read_backing(backing: Node<'_, '_>) -> Backing {
    let value = |name, of| read_attribute(child(backing, name)?, of, text);
    Backing {
        hugepages: child(backing, "hugepages").map(start_tag),
        pages: children(child(backing, "hugepages"), "page")
            .map(|page| HugePages {
                size: read_attribute(page, "size", |size| in_kib(size, page.attribute("unit")))
                    .map(|size| or_unit(size, page)),
                cells: read_attribute(page, "nodeset", list),
                span: start_tag(page),
                node: page.id(),
            })
            .collect(),
        source: value("source", "type"),
        locked: child(backing, "locked").map(start_tag),
        access: value("access", "mode"),
        allocation: value("allocation", "mode"),
        allocation_threads: child(backing, "allocation")
            .and_then(|allocation| read_attribute(allocation, "threads", number)),
    }
}

pub(super) fn read_policy(policy: Node<'_, '_>) -> MemoryPolicy {
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

pub(super) fn read_other(memory: Node<'_, '_>) -> MemoryDevice {
    MemoryDevice {
        model: read_attribute(memory, "model", text),
        size: find(memory, &["target", "size"]).map(read_size),
        span: start_tag(memory),
    }
}

pub(super) fn read_egm(memory: Node<'_, '_>) -> EgmDevice {
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
