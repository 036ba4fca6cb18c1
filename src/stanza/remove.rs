//! Takes EGM devices out of a domain, with what belongs to them and to nothing else.

mod taken;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use roxmltree::{Document, Node, NodeId};

use super::renumber::Renumbering;
use super::{Options, Unwritable, elements, merge};
use crate::domain::edit::Edit;
use crate::domain::xml::{child, children, find, text_of};
use crate::domain::{
    self, BadDomain, Bus, Cell, Dialect, Domain, GuestAddress, Hostdev, Maybe, MemoryDevice,
    PciController, PciMachine,
};
use crate::plan::{Plan, Request, pinning, vcpus};
use crate::report::Report;
use crate::values::{Bytes, IdList, PciAddress, SIZE_STEP};
pub use taken::Removal;
use taken::{Cells, Taken};

/// The reason why nothing was taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unremovable {
    /// No EGM device would be left, and the memory of the domain is not given.
    #[error(
        "no EGM memory would be left; say how much the domain is to have, as in --memory 16GiB"
    )]
    NoMemory,
    /// The memory is given, but EGM devices are left, whose memory it is.
    #[error("--memory is only for a domain without EGM, and {left} EGM devices would be left")]
    Left {
        /// The number of EGM devices that would be left.
        left: usize,
    },
    /// The memory is less than that of the domain without EGM.
    #[error("--memory {memory} is less than the {others} of other cells and memory devices")]
    TooSmall {
        /// The memory that the domain is to have.
        memory: Bytes,
        /// The memory of its other cells and devices.
        others: Bytes,
    },
}

/// Takes EGM devices out of a domain, and preserves the rest of its text.
pub(super) fn remove(
    report: &Report,
    document: &domain::Document<'_>,
    removal: &Removal,
) -> Result<Removed, Unwritable> {
    let (domain, root, xml) = (document.domain(), document.element(), document.xml());
    let edit = Edit::of(xml, None);
    let taken = Taken::of(domain, removal);
    if taken.devices.is_empty() && taken.hostdevs.is_empty() {
        let xml = xml.input_text().to_owned();
        return Ok(Removed { xml, number: 0, unpinned: IdList::default() });
    }
    let number = taken.devices.len() + taken.others;
    let left = taken.kept.len();
    match removal.memory {
        None if left == 0 && !taken.devices.is_empty() => return Err(Unremovable::NoMemory.into()),
        Some(_) if left > 0 => return Err(Unremovable::Left { left }.into()),
        _ => {}
    }
    let mut work = Work { document: xml, domain, root, removal, taken, edit };
    let mut removed = work.pci();
    let cells = Cells::of(domain, removal, &work.taken, &removed, work.cells_of_other_memory());
    removed.extend(work.taken.nodes());
    if cells.numbers.is_empty() {
        removed.extend(work.without_numa());
    }
    let renumbering = Renumbering { document, numbers: &cells.numbers, removed: &removed };
    if renumbering.is_impossible() {
        return Err(Unwritable::CommandLine);
    }
    if let Some(memory) = removal.memory {
        let others = work.other_memory(&cells);
        if memory < others {
            return Err(Unremovable::TooSmall { memory, others }.into());
        }
    }
    renumbering.apply(&mut work.edit);
    let mut shares = work.share_cpus(&cells);
    if removal.pinning {
        if left > 0 && pinning::is_own(report, domain) {
            // All are pinned anew.
            shares.clear();
        }
        work.unpin(&cells, &shares);
    }
    if !work.taken.devices.is_empty() {
        work.memory(&cells);
    }
    for node in work.taken.nodes() {
        work.remove(node);
    }
    let gpus = work.taken.kept_gpus(domain);
    let xml = work.edit.apply();
    let xml = if removal.pinning && left > 0 { pin(report, gpus, xml)? } else { xml };
    let unpinned = if left == 0 { IdList::default() } else { unpinned(domain, &xml)? };
    Ok(Removed { xml, number, unpinned })
}

/// Pins the virtual CPUs that are near to the memory of these GPUs, if that is possible.
fn pin(report: &Report, gpus: Vec<PciAddress>, xml: String) -> Result<String, Unwritable> {
    let document = domain::Document::parse(&xml)?;
    let mut request = Request::of_gpus(gpus);
    (request.force, request.machine.pinning) = (true, true);
    let Ok(plan) = Plan::new(report, &request, Some(document.domain())) else { return Ok(xml) };
    Ok(merge::merge(&document, &plan, &Options::default(), Dialect::default()))
}

/// The virtual CPUs that were pinned before, but are not pinned in a changed domain.
fn unpinned(before: &Domain, xml: &str) -> Result<IdList, BadDomain> {
    let after = Domain::parse(xml)?;
    let pinned = |domain: &Domain| -> BTreeSet<u32> {
        domain.pins.iter().filter_map(|pin| pin.vcpu.known()).collect()
    };
    let gone = &pinned(before) - &pinned(&after);
    Ok(gone.into_iter().collect())
}

/// The domain without the devices.
pub(super) struct Removed {
    pub(super) xml: String,
    /// The number of devices that were taken out.
    pub(super) number: usize,
    /// The virtual CPUs that are not pinned any more.
    pub(super) unpinned: IdList,
}

struct Work<'a, 'input> {
    document: &'a Document<'input>,
    domain: &'a Domain,
    root: Node<'a, 'input>,
    removal: &'a Removal,
    taken: Taken<'a>,
    edit: Edit<'a>,
}

impl<'a, 'input> Work<'a, 'input> {
    fn remove(&mut self, node: NodeId) {
        if let Some(node) = self.document.get_node(node) {
            self.edit.remove(node);
        }
    }

    /// The elements of `<devices>`.
    fn devices(&self, name: &'static str) -> impl Iterator<Item = Node<'a, 'input>> {
        children(child(self.root, "devices"), name)
    }

    /// The cells of memory devices of other models.
    fn cells_of_other_memory(&self) -> Vec<u32> {
        let others = self.devices("memory").filter(|node| node.attribute("model") != Some("egm"));
        others
            .filter_map(|node| text_of(find(node, &["target", "node"])?).0.trim().parse().ok())
            .collect()
    }

    /// Removes the buses and SMMUs that no other device uses; returns their controllers.
    fn pci(&mut self) -> HashSet<NodeId> {
        let mut gone = HashSet::new();
        if !self.removal.pci {
            return gone;
        }
        let machine = PciMachine::of(self.domain);
        let occupied = machine.occupied();
        let mut nodes = self.taken.hostdev_nodes.clone();
        let buses = self.taken.hostdevs.iter().filter_map(|it| it.guest.as_ref()?.on_bus());
        let mut next: Vec<_> = buses.collect();
        // From each device upwards to the first bus.
        while let Some(bus) = next.pop() {
            let on_it = occupied.get(&machine.canonical(&bus));
            let mut on_it = on_it.into_iter().flat_map(BTreeMap::values).flatten();
            let Some(controller) = machine.controller(&bus) else { continue };
            let is_first = controller.bus() == Some(Bus::Index(0));
            let is_used = on_it.any(|device| device.node.is_none_or(|node| !nodes.contains(&node)));
            let Some(node) = controller.node.filter(|_| !is_first && !is_used) else { continue };
            if nodes.insert(node) {
                gone.insert(node);
                next.extend(controller.address.as_ref().and_then(GuestAddress::on_bus));
                let of_bus = machine.iommus_by_bus().remove(&machine.canonical(&bus));
                for iommu in of_bus.unwrap_or_default() {
                    nodes.extend(iommu.node);
                    if let Some(node) = iommu.node {
                        self.remove(node);
                    }
                }
            }
        }
        for node in &gone {
            self.remove(*node);
        }
        let is_left = |it: &Hostdev| it.address.is_some() && !self.taken.has_hostdev(it);
        if !self.domain.hostdevs.iter().any(is_left) {
            self.hole(gone.len());
        }
        gone
    }

    /// Removes the window for large devices, which no device needs any more, and its controller if
    /// the domain has no other one: libvirt adds it then.
    fn hole(&mut self, gone: usize) {
        let is_first = |it: &&PciController| it.bus() == Some(Bus::Index(0));
        let Some(first) = self.domain.pci_controllers.iter().find(is_first) else { return };
        let Some(node) = first.node.and_then(|node| self.document.get_node(node)) else { return };
        let Some(hole) = child(node, "pcihole64") else { return };
        let is_only_child = node.children().filter(Node::is_element).count() == 1;
        if is_only_child && self.domain.pci_controllers.len() == gone + 1 {
            self.edit.remove(node);
        } else if is_only_child {
            self.edit.empty(node);
        } else {
            self.edit.remove(hole);
        }
    }

    /// The domain keeps no cells. Returns their element.
    fn without_numa(&mut self) -> Option<NodeId> {
        let numa = find(self.root, &["cpu", "numa"])?;
        let cpu = numa.parent()?;
        let is_only_child = cpu.children().filter(Node::is_element).count() == 1;
        match (is_only_child, cpu.attributes().len()) {
            (true, 0) => self.edit.remove(cpu),
            (true, _) => self.edit.empty(cpu),
            (false, _) => self.edit.remove(numa),
        }
        Some(numa.id())
    }

    /// Gives the virtual CPUs of removed cells to the others that have some. Returns those of the cells
    /// that stay.
    fn share_cpus(&mut self, cells: &Cells) -> BTreeMap<u32, IdList> {
        let with_cpus = |cell: &Cell| Some((cell.id.value?, cell.cpus.known()?));
        let all: BTreeMap<_, _> = self.domain.cells.iter().filter_map(with_cpus).collect();
        let (mut own, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(id, _)| !cells.gone.contains(id));
        if gone.is_empty() || own.is_empty() {
            return own;
        }
        match self.domain.vcpus.known().filter(|_| vcpus::are_shared(self.domain)) {
            Some(count) => {
                let kept = self.taken.kept.iter().filter_map(|device| device.cell.known());
                let receivers: BTreeSet<_> = own.into_keys().chain(kept).collect();
                own = vcpus::share(count, receivers);
                self.topology(count, own.len());
            }
            None => spread(&gone, &mut own),
        }
        for cell in &self.domain.cells {
            let cpus = cell.id.value.and_then(|id| own.get(&id));
            let cpus = cpus.filter(|cpus| cell.cpus.known().as_ref() != Some(cpus));
            if let Some((cpus, node)) = cpus.zip(self.document.get_node(cell.node)) {
                self.edit.set_attribute(node, "cpus", &cpus.to_string());
            }
        }
        own
    }

    fn topology(&mut self, vcpus: u32, sockets: usize) {
        let topology = find(self.root, &["cpu", "topology"]);
        if let Some(node) = topology.filter(|_| elements::is_own_topology(self.domain)) {
            elements::set_topology(&mut self.edit, node, elements::levels(vcpus, sockets));
        }
    }

    /// Removes the pinning of virtual CPUs that get another cell, or whose cell has no EGM memory any
    /// more.
    fn unpin(&mut self, cells: &Cells, shares: &BTreeMap<u32, IdList>) {
        let Some(cputune) = child(self.root, "cputune") else { return };
        let stays = |cell: &Cell, vcpu: u32| {
            let id = cell.id.value.filter(|id| !cells.emptied.contains(id));
            id.and_then(|id| shares.get(&id)).is_some_and(|cpus| cpus.contains(vcpu))
        };
        let is_gone = |node: &Node<'_, '_>| {
            let vcpu = node.attribute("vcpu").and_then(|vcpu| vcpu.trim().parse().ok());
            let Some(vcpu) = vcpu else { return false };
            let mut of_cells = self.domain.cells.iter();
            let has_it = |cell: &&Cell| cell.cpus.known().is_some_and(|it| it.contains(vcpu));
            of_cells.find(has_it).is_some_and(|cell| !stays(cell, vcpu))
        };
        let pins: Vec<_> = children(Some(cputune), "vcpupin").filter(is_gone).collect();
        if pins.len() == cputune.children().filter(Node::is_element).count() {
            return self.edit.remove(cputune);
        }
        for pin in pins {
            self.edit.remove(pin);
        }
    }

    /// Makes the memory of cells and domain fit.
    fn memory(&mut self, cells: &Cells) {
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        for device in &self.taken.kept {
            let size = device.size.known().map_or(0, |size| size.0);
            if let Some(sum) = device.cell.known().map(|id| sums.entry(id).or_default()) {
                *sum = sum.saturating_add(size);
            }
        }
        if let Some(memory) = self.removal.memory {
            let shares = u64::try_from(cells.emptied.len()).unwrap_or(u64::MAX);
            let memory = memory.0.saturating_sub(self.other_memory(cells).0);
            for (position, id) in (0..).zip(&cells.emptied) {
                sums.insert(*id, share(memory, shares, position));
            }
        } else {
            sums.extend(cells.emptied.iter().map(|id| (*id, 0)));
        }
        let mut total = 0_u64;
        for cell in &self.domain.cells {
            let Some(id) = cell.id.value.filter(|id| cells.numbers.contains_key(id)) else {
                continue;
            };
            let found = cell.memory.known();
            let memory = sums.get(&id).copied().map(Bytes).or(found);
            total = total.saturating_add(memory.map_or(0, |memory| memory.0));
            let node = self.document.get_node(cell.node).filter(|_| memory != found);
            if let (Some(node), Some(memory)) = (node, memory) {
                self.edit.set_attribute(node, "memory", &elements::in_kib(memory));
                self.edit.set_attribute(node, "unit", "KiB");
            }
        }
        let others = self.domain.other_memory.iter().map(|device| device.counts().0);
        let mut total = Bytes(others.fold(total, u64::saturating_add));
        if cells.numbers.is_empty() {
            total = self.removal.memory.or(self.domain.memory.known()).unwrap_or(total);
        }
        self.sizes(total);
        if self.taken.kept.is_empty() {
            self.backing();
        }
    }

    /// The memory of the cells that keep theirs, and of other memory devices.
    fn other_memory(&self, cells: &Cells) -> Bytes {
        let keeps = |cell: &&Cell| {
            let id = cell.id.value.filter(|id| cells.numbers.contains_key(id));
            id.is_some_and(|id| !cells.emptied.contains(&id))
        };
        let of_cells = self.domain.cells.iter().filter(keeps).filter_map(|it| it.memory.known());
        let devices = self.domain.other_memory.iter().map(MemoryDevice::counts);
        Bytes(of_cells.chain(devices).map(|it| it.0).fold(0, u64::saturating_add))
    }

    fn sizes(&mut self, total: Bytes) {
        let has_slots = self.domain.memory_slots.is_some() || !self.domain.other_memory.is_empty();
        for (name, found) in [
            ("maxMemory", self.domain.max_memory.known()),
            ("memory", self.domain.memory.known()),
            ("currentMemory", self.domain.current_memory.known()),
        ] {
            let Some(node) = child(self.root, name) else { continue };
            if name == "maxMemory" && self.taken.kept.is_empty() && !has_slots {
                // Without slots it is only for EGM devices.
                self.edit.remove(node);
                continue;
            }
            // A larger maximum than EGM needs is for memory that is added later.
            let is_chosen = name == "maxMemory" && found > self.domain.memory.known();
            let new = found.filter(|_| is_chosen).unwrap_or(total).max(total);
            if found != Some(new) {
                self.edit.set_attribute(node, "unit", "KiB");
                self.edit.set_text(node, &elements::in_kib(new));
            }
        }
    }

    /// Removes the memory backing of EGM, unless another device needs shared memory, or it says more
    /// than that of EGM.
    fn backing(&mut self) {
        let Some(backing) = child(self.root, "memoryBacking") else { return };
        let is_shared = |node: Node<'_, '_>| {
            node.attribute("type")
                .is_some_and(|kind| matches!(kind, "virtiofs" | "vhostuser" | "vdpa"))
        };
        let parts: BTreeMap<_, _> = backing
            .children()
            .filter(Node::is_element)
            .map(|part| {
                let only = part.attributes().next().filter(|_| part.attributes().len() == 1);
                (part.tag_name().name(), only.map(|it| it.value()))
            })
            .collect();
        let of_egm = [("source", "file"), ("access", "shared"), ("allocation", "immediate")];
        let is_of_egm = parts == of_egm.map(|(name, value)| (name, Some(value))).into();
        if is_of_egm && !self.root.descendants().any(is_shared) {
            self.edit.remove(backing);
        }
    }
}

/// Gives the virtual CPUs of removed cells to the others.
fn spread(gone: &BTreeMap<u32, IdList>, others: &mut BTreeMap<u32, IdList>) {
    let free: Vec<u32> = gone.values().flat_map(IdList::iter).collect();
    let receivers = others.len();
    for (position, own) in others.values_mut().enumerate() {
        let bound = |position: usize| free.len() * position / receivers;
        let more = free.get(bound(position)..bound(position + 1)).unwrap_or_default();
        *own = own.with(&more.iter().copied().collect());
    }
}

/// One of equal shares of memory in multiples of 2 MiB; the first one has the rest.
fn share(memory: u64, shares: u64, position: u64) -> u64 {
    let each = memory / shares.max(1) / SIZE_STEP.0 * SIZE_STEP.0;
    if position == 0 { memory.saturating_sub(each * shares.saturating_sub(1)) } else { each }
}
