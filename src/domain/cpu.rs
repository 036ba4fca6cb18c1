//! The CPUs of a guest: topology, NUMA cells, pinning.

use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::value::{in_kib, list, named_as, number, or_unit, read_attribute, text};
use super::xml::{child, children, start_tag};
use super::{Maybe, Origin, Value};
use crate::values::{Bytes, IdList, named};

/// The topology of a guest's CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuTopology {
    /// The resulting number of CPUs; `None` if it is invalid.
    pub cpus: Option<u32>,
    /// The numbers of `sockets`, `dies`, `clusters`, `cores` and `threads` that are given.
    pub levels: Vec<(&'static str, Value<u32>)>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

/// A NUMA cell of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cell {
    /// Its number; by default its position in the list.
    pub id: Value<u32>,
    /// Its memory.
    pub memory: Option<Value<Bytes>>,
    /// Its virtual CPUs.
    pub cpus: Option<Value<IdList>>,
    /// Whether its memory is shared, `memAccess`.
    pub access: Option<Value<String>>,
    /// Its distances to cells, in the order of the definition.
    pub distances: Vec<Distance>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// The distance of a cell to a cell, `<sibling id='1' value='40'/>`.
///
/// ```
/// use egm_probe::domain::Domain;
///
/// let domain = Domain::parse(
///     "<domain><cpu><numa><cell id='0'><distances><sibling id='1' value='far'/></distances></cell>
///      </numa></cpu></domain>",
/// )?;
/// let distance = &domain.cells[0].distances[0];
/// assert_eq!(distance.cell.as_ref().and_then(|cell| cell.value), Some(1));
/// assert_eq!(distance.value.as_ref().and_then(|value| value.value), None, "`far` is not a number");
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Distance {
    /// The other cell, `id`.
    pub cell: Option<Value<u32>>,
    /// The distance; that of a cell to itself is 10, as in the ACPI SLIT.
    pub value: Option<Value<u32>>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

impl Cell {
    /// Whether it has memory, as far as its size can be read.
    pub(crate) fn has_memory(&self) -> bool {
        self.memory.known().is_some_and(|memory| memory > Bytes(0))
    }

    /// Whether it has neither virtual CPUs nor memory, like the cells of a GPU.
    pub(crate) fn is_empty(&self) -> bool {
        self.cpus.is_none() && !self.has_memory()
    }
}

named! {
    /// The model of a guest's CPUs, `<cpu mode='host-passthrough'>`.
    #[non_exhaustive]
    pub enum CpuMode {
        /// A named model.
        Custom = "custom",
        /// The named model that resembles the host's CPU most.
        HostModel = "host-model",
        /// The host's CPU.
        HostPassthrough = "host-passthrough",
        /// Every feature that QEMU can provide.
        Maximum = "maximum",
    }
}

/// The pinning of a virtual CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The virtual CPU.
    pub vcpu: Option<Value<u32>>,
    /// The CPUs of the host.
    pub cpus: Value<IdList>,
    pub(crate) node: NodeId,
}

pub(super) fn read_topology(topology: Node<'_, '_>) -> CpuTopology {
    let levels = ["sockets", "dies", "clusters", "cores", "threads"];
    let read = |level| Some((level, read_attribute(topology, level, number)?));
    let levels: Vec<(_, Value<u32>)> = levels.into_iter().filter_map(read).collect();
    let mut numbers = levels.iter().map(|(_, level)| level.value);
    let cpus = numbers.try_fold(1, |product: u32, level| product.checked_mul(level?));
    CpuTopology { cpus, levels, span: start_tag(topology) }
}

pub(super) fn read_mode(cpu: Node<'_, '_>) -> Option<Value<CpuMode>> {
    read_attribute(cpu, "mode", |text| named_as(CpuMode::ALL, CpuMode::name, text))
}

pub(super) fn read_cell(index: usize, cell: Node<'_, '_>) -> Cell {
    let index = u32::try_from(index).ok();
    Cell {
        id: read_attribute(cell, "id", number).unwrap_or_else(|| Value {
            text: index.map(|index| index.to_string()).unwrap_or_default(),
            value: index,
            span: start_tag(cell),
            origin: Origin::Element,
        }),
        memory: read_attribute(cell, "memory", |size| in_kib(size, cell.attribute("unit")))
            .map(|memory| or_unit(memory, cell)),
        cpus: read_attribute(cell, "cpus", list),
        access: read_attribute(cell, "memAccess", text),
        distances: children(child(cell, "distances"), "sibling")
            .map(|sibling| Distance {
                cell: read_attribute(sibling, "id", number),
                value: read_attribute(sibling, "value", number),
                span: start_tag(sibling),
            })
            .collect(),
        span: start_tag(cell),
        node: cell.id(),
    }
}

pub(super) fn read_pin(pin: Node<'_, '_>) -> Option<Pin> {
    let vcpu = read_attribute(pin, "vcpu", number);
    Some(Pin { vcpu, cpus: read_attribute(pin, "cpuset", list)?, node: pin.id() })
}
