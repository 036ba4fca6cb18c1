//! The CPUs of a guest: topology, NUMA cells, pinning.

use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::Value;
use super::value::{in_kib, list, number, or_unit, read_attribute, text};
use super::xml::{child, children, start_tag};
use crate::values::{Bytes, IdList};

/// The topology of a guest's CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuTopology {
    /// The resulting number of CPUs; `None` if it is invalid.
    pub cpus: Option<u32>,
    /// The numbers of sockets, dies, clusters, cores and threads, as far as they are given.
    pub levels: Vec<(&'static str, u32)>,
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
    /// The cells with a given distance, and the distance.
    pub distances: Vec<(Value<u32>, Option<u32>)>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

/// The pinning of a virtual CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The virtual CPU.
    pub vcpu: Option<u32>,
    /// The CPUs of the host.
    pub cpus: Value<IdList>,
}

pub(super) fn read_topology(topology: Node<'_, '_>) -> CpuTopology {
    let levels = ["sockets", "dies", "clusters", "cores", "threads"];
    let levels = levels.map(|level| (level, topology.attribute(level).map(number)));
    let mut numbers = levels.iter().map(|(_, found)| found.unwrap_or(Some(1)));
    let cpus = numbers.try_fold(1, |product: u32, level| product.checked_mul(level?));
    let levels = levels.into_iter().filter_map(|(level, found)| Some((level, found??)));
    CpuTopology { cpus, levels: levels.collect(), span: start_tag(topology) }
}

pub(super) fn read_cell(index: usize, cell: Node<'_, '_>) -> Cell {
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

pub(super) fn read_pin(pin: Node<'_, '_>) -> Option<Pin> {
    let vcpu = pin.attribute("vcpu").and_then(number);
    Some(Pin { vcpu, cpus: read_attribute(pin, "cpuset", list)? })
}
