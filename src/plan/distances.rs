//! The distances between the NUMA cells of a guest.

use std::collections::BTreeMap;

use super::MachineObjection;
use super::machine::{Context, DistanceChoice};
use crate::check::CELLS_LIMIT;
use crate::domain::Maybe;
use crate::values::{IdList, NodeId, PciAddress};

/// The distance of a cell to itself, as in the ACPI SLIT.
const SELF: u8 = 10;

/// The least distance between different cells: QEMU and Linux refuse 10.
const LEAST: u8 = 11;

/// The distances between all cells of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Distances {
    /// Whether they are those of the host; otherwise, they are the fixed ones of a Grace guest.
    pub are_of_host: bool,
    /// A row for each cell, with the distance to each cell; existing distances are kept.
    pub rows: BTreeMap<u32, BTreeMap<u32, u8>>,
}

/// The purpose of a cell.
#[derive(Clone, Copy)]
enum Role {
    /// It has CPUs and memory.
    Cpu { node: Option<NodeId> },
    /// It is one of the cells of a GPU's own memory.
    Gpu { gpu: PciAddress, socket: u32, node: Option<NodeId> },
}

impl Role {
    /// The node of the host.
    fn node(self) -> Option<NodeId> {
        match self {
            Self::Cpu { node } | Self::Gpu { node, .. } => node,
        }
    }
}

/// The distances of all cells of a plan.
pub(super) fn plan(
    context: Context<'_>,
    choice: DistanceChoice,
    objections: &mut Vec<MachineObjection>,
) -> Option<Distances> {
    let roles = roles(context);
    let of_host = match choice {
        DistanceChoice::Grace => None,
        DistanceChoice::Known => matrix(&roles, |from, to| host(context, from, to)).ok(),
        DistanceChoice::Host => match matrix(&roles, |from, to| host(context, from, to)) {
            Ok(rows) => Some(rows),
            Err((from, to)) => {
                objections.push(MachineObjection::NoDistance { from, to });
                return None;
            }
        },
    };
    let are_of_host = of_host.is_some();
    let mut rows = of_host.or_else(|| matrix(&roles, |from, to| Some(grace(from, to))).ok())?;
    if !context.request.machine.replace {
        keep(context, &mut rows);
    }
    Some(Distances { are_of_host, rows })
}

type Rows = BTreeMap<u32, BTreeMap<u32, u8>>;
type Cell = (u32, Role);

/// All distances, or two cells for which it is unknown.
fn matrix(
    roles: &BTreeMap<u32, Role>,
    distance: impl Fn(Cell, Cell) -> Option<u8>,
) -> Result<Rows, (u32, u32)> {
    let mut rows = Rows::new();
    for (&from, &role) in roles {
        let row = rows.entry(from).or_default();
        for (&to, &other) in roles {
            let value = if from == to { Some(SELF) } else { distance((from, role), (to, other)) };
            row.insert(to, value.ok_or((from, to))?);
        }
    }
    Ok(rows)
}

/// The fixed distances (kubevirt-aie's converter for Grace).
fn grace((from_cell, from): Cell, (to_cell, to): Cell) -> u8 {
    match (from, to) {
        (Role::Gpu { gpu, .. }, Role::Gpu { gpu: other, .. }) if gpu == other => LEAST,
        (Role::Gpu { .. }, Role::Gpu { .. }) | (Role::Cpu { .. }, Role::Cpu { .. }) => 40,
        (Role::Cpu { .. }, Role::Gpu { socket, .. }) if socket == from_cell => 80,
        (Role::Gpu { socket, .. }, Role::Cpu { .. }) if socket == to_cell => 80,
        _ => 120,
    }
}

/// The distance between the nodes of the host. `None` if it is unknown, or invalid in a guest.
fn host(context: Context<'_>, (_, from): Cell, (_, to): Cell) -> Option<u8> {
    let nodes = &context.report.host.topology.nodes;
    let distance = *nodes.get(&from.node()?)?.distances.as_ref()?.get(&to.node()?)?;
    u8::try_from(distance).ok().filter(|it| *it >= SELF).map(|distance| distance.max(LEAST))
}

fn roles(context: Context<'_>) -> BTreeMap<u32, Role> {
    let nodes = context.nodes();
    let cells = context.cells.all.iter().map(|cell| cell.id).take(CELLS_LIMIT);
    let mut roles: BTreeMap<_, _> =
        cells.map(|id| (id, Role::Cpu { node: nodes.get(&id).copied() })).collect();
    let new: BTreeMap<_, _> =
        context.placements.iter().filter_map(|it| Some((it.gpu, it.gpu_cells.as_ref()?))).collect();
    for (gpu, socket) in context.gpus() {
        let hostdev = context.domain.and_then(|domain| domain.hostdev(gpu));
        let existing = hostdev.and_then(|hostdev| hostdev.cells.as_ref()?.value.as_ref());
        let Some(cells) = new.get(&gpu).copied().or(existing) else { continue };
        let found = context.report.host.gpu(gpu);
        let own = found.and_then(|(gpu, _)| gpu.own_nodes.as_ref());
        let mut own = own.filter(|own| own.len() == cells.len()).into_iter().flat_map(IdList::iter);
        for cell in cells.iter().take(CELLS_LIMIT) {
            let node = own.next().map(NodeId);
            if cell != socket
                && let Some(role) = roles.get_mut(&cell)
            {
                *role = Role::Gpu { gpu, socket, node };
            }
        }
    }
    roles
}

/// Keeps the valid distances of the domain. libvirt uses the opposite one for a missing one
/// (`virDomainNumaDefNodeDistanceParseXML`, `src/conf/numa_conf.c`).
fn keep(context: Context<'_>, rows: &mut Rows) {
    let mut existing = BTreeMap::new();
    for cell in context.domain.into_iter().flat_map(|domain| &domain.cells) {
        for distance in &cell.distances {
            let pair = cell.id.value.zip(distance.cell.known());
            let value = distance.value.known().and_then(|value| u8::try_from(value).ok());
            if let Some(((from, to), value)) = pair.zip(value.filter(|value| *value >= LEAST)) {
                existing.insert((from, to), value);
            }
        }
    }
    for (from, row) in rows {
        for (to, value) in row.iter_mut().filter(|(to, _)| *to != from) {
            let kept = existing.get(&(*from, *to)).or_else(|| existing.get(&(*to, *from)));
            *value = kept.copied().unwrap_or(*value);
        }
    }
}
