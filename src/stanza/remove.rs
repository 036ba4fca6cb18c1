//! Takes EGM devices out of a domain, with what belongs to them and to nothing else.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use roxmltree::{Document, Node, NodeId};

use super::elements;
use crate::domain::edit::Edit;
use crate::domain::xml::{child, children, find};
use crate::domain::{
    self, Bus, Cell, Domain, EgmDevice, GuestAddress, Hostdev, Maybe, PciController, PciMachine,
};
use crate::values::{Bytes, IdList, PciAddress, RegionName};

/// A selection of devices to take out of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
#[non_exhaustive]
pub struct Removal {
    /// All EGM devices.
    pub all: bool,
    /// The EGM devices of these GPUs.
    pub gpus: Vec<PciAddress>,
    /// The EGM devices of these regions.
    pub regions: Vec<RegionName>,
    /// Other functions that are assigned to the domain, such as NICs.
    pub devices: Vec<PciAddress>,
    /// Also the `<hostdev>` of each GPU and its cells.
    pub hostdev: bool,
    /// Also the PCI buses, ports and SMMUs that no other device uses.
    pub pci: bool,
    /// Also the pinning of the virtual CPUs in cells that get no EGM memory any more.
    pub pinning: bool,
    /// The memory of the domain if no EGM device is left.
    pub memory: Option<Bytes>,
}

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
    /// Arguments for QEMU would have to change.
    #[error("arguments for QEMU in <qemu:commandline> depend on the NUMA cells; remove them first")]
    CommandLine,
}

/// Takes EGM devices out of a domain, and preserves the rest of its text. Returns the domain and the
/// number of devices that were taken out.
pub(super) fn remove(
    document: &domain::Document<'_>,
    removal: &Removal,
) -> Result<(String, usize), Unremovable> {
    let (domain, root, xml) = (document.domain(), document.element(), document.xml());
    let edit = Edit::of(xml, None);
    let taken = Taken::of(domain, removal);
    if taken.devices.is_empty() && taken.hostdevs.is_empty() {
        return Ok((xml.input_text().to_owned(), 0));
    }
    let number = taken.devices.len() + taken.others;
    let left = taken.kept.len();
    match removal.memory {
        None if left == 0 && !taken.devices.is_empty() => return Err(Unremovable::NoMemory),
        Some(_) if left > 0 => return Err(Unremovable::Left { left }),
        _ => {}
    }
    let mut work = Work { document: xml, domain, root, removal, taken, edit };
    let controllers = work.pci();
    let cells = Cells::of(&work, &controllers);
    let line = &domain.command_line;
    if cells.is_renumbered() && !(line.controllers.is_empty() && line.devices.is_empty()) {
        return Err(Unremovable::CommandLine);
    }
    work.cells(&cells, &controllers);
    if !work.taken.devices.is_empty() {
        work.memory(&cells);
    }
    for node in work.taken.nodes() {
        work.remove(node);
    }
    Ok((work.edit.apply(), number))
}

/// The devices that are taken out, and those that are left.
struct Taken<'a> {
    devices: Vec<&'a EgmDevice>,
    kept: Vec<&'a EgmDevice>,
    hostdevs: Vec<&'a Hostdev>,
    hostdev_nodes: HashSet<NodeId>,
    /// How many of the `<hostdev>` devices were named themselves.
    others: usize,
}

impl<'a> Taken<'a> {
    fn of(domain: &'a Domain, removal: &Removal) -> Self {
        let by_alias = domain.hostdevs_by_alias();
        let gpu = |device: &EgmDevice| {
            by_alias.get(device.pci_dev.as_ref()?.text.as_str()).and_then(|hostdev| hostdev.pci())
        };
        let is_taken = |device: &&EgmDevice| {
            let of_region = device.path.as_ref().is_some_and(|path| {
                let name = path.text.rsplit('/').next().unwrap_or_default();
                removal.regions.iter().any(|region| region.as_str() == name)
            });
            let of_gpu = gpu(device).is_some_and(|gpu| removal.gpus.contains(&gpu));
            removal.all || of_region || of_gpu
        };
        let (devices, kept): (Vec<_>, Vec<_>) = domain.egm.iter().partition(is_taken);
        let names = |devices: &[&'a EgmDevice]| -> BTreeSet<&'a str> {
            devices.iter().filter_map(|it| Some(it.pci_dev.as_ref()?.text.as_str())).collect()
        };
        let (used, needed) = (names(&devices), names(&kept));
        let is_other = |hostdev: &&Hostdev| {
            hostdev.pci().is_some_and(|address| removal.devices.contains(&address))
        };
        let is_gpu = |hostdev: &&Hostdev| {
            let alias = hostdev.alias.as_ref().map(|alias| alias.text.as_str());
            removal.hostdev && alias.is_some_and(|it| used.contains(it) && !needed.contains(it))
        };
        let of_domain = || domain.hostdevs.iter();
        let hostdevs: Vec<_> = of_domain().filter(|it| is_gpu(it) || is_other(it)).collect();
        Self {
            others: of_domain().filter(is_other).count(),
            hostdev_nodes: hostdevs.iter().map(|hostdev| hostdev.node).collect(),
            hostdevs,
            devices,
            kept,
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        let devices = self.devices.iter().map(|device| device.node);
        devices.chain(self.hostdev_nodes.iter().copied()).collect()
    }

    fn has_hostdev(&self, hostdev: &Hostdev) -> bool {
        self.hostdev_nodes.contains(&hostdev.node)
    }
}

/// The cells after the removal.
struct Cells {
    /// The cells that go.
    gone: BTreeSet<u32>,
    /// The new number of each cell that stays.
    numbers: BTreeMap<u32, u32>,
    /// The cells that stay without their EGM memory.
    emptied: Vec<u32>,
}

impl Cells {
    fn of(work: &Work<'_, '_>, controllers: &HashSet<NodeId>) -> Self {
        let (domain, taken) = (work.domain, &work.taken);
        let cells_of = |hostdev: &Hostdev| -> BTreeSet<u32> {
            hostdev.cells.known().iter().flat_map(IdList::iter).take(domain.cells.len()).collect()
        };
        let place_of = |device: &&EgmDevice| device.cell.known();
        let kept: BTreeSet<_> = taken.kept.iter().filter_map(place_of).collect();
        let of_others = domain.hostdevs.iter().filter(|hostdev| !taken.has_hostdev(hostdev));
        let mut used: BTreeSet<_> =
            of_others.flat_map(cells_of).chain(kept.iter().copied()).collect();
        used.extend(work.other_memory());
        let stays = |it: &&PciController| it.node.is_some_and(|node| !controllers.contains(&node));
        let buses = domain.pci_controllers.iter().filter(stays);
        used.extend(buses.filter_map(|controller| controller.target.node.known()));
        let is_unused = |id: &u32| !used.contains(id);
        let is_empty = |cell: &&Cell| {
            cell.cpus.is_none() && cell.memory.known().is_none_or(|memory| memory == Bytes(0))
        };
        let of_gpus: BTreeSet<_> = taken.hostdevs.iter().copied().flat_map(cells_of).collect();
        let empty = domain.cells.iter().filter(is_empty).filter_map(|cell| cell.id.value);
        let mut gone: BTreeSet<_> =
            empty.filter(|id| of_gpus.contains(id)).filter(is_unused).collect();
        let emptied: BTreeSet<_> = taken.devices.iter().filter_map(place_of).collect();
        let emptied = emptied.into_iter().filter(|id| !kept.contains(id));
        let (unused, mut emptied): (Vec<_>, Vec<_>) = emptied.partition(is_unused);
        let ids: Vec<_> = domain.cells.iter().filter_map(|cell| cell.id.value).collect();
        let would_go = |id: &u32| gone.contains(id) || unused.contains(id);
        let has_others = ids.iter().any(|id| !would_go(id));
        if has_others && taken.kept.is_empty() {
            // They get the domain's memory.
            emptied.extend(unused);
        } else {
            gone.extend(unused);
        }
        let stay = ids.iter().copied().filter(|id| !gone.contains(id)).collect::<BTreeSet<_>>();
        Self { numbers: stay.into_iter().zip(0..).collect(), gone, emptied }
    }

    fn is_renumbered(&self) -> bool {
        self.numbers.iter().any(|(old, new)| old != new)
    }

    fn number(&self, id: &str) -> Option<u32> {
        self.numbers.get(&id.trim().parse().ok()?).copied()
    }
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
    fn other_memory(&self) -> Vec<u32> {
        let others = self.devices("memory").filter(|node| node.attribute("model") != Some("egm"));
        others
            .filter_map(|node| find(node, &["target", "node"])?.text()?.trim().parse().ok())
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
        let is_gpu = |it: &&Hostdev| !self.taken.has_hostdev(it);
        if self.domain.hostdevs.iter().find(is_gpu).is_none() {
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

    /// Removes cells, and renumbers the others wherever they are named.
    fn cells(&mut self, cells: &Cells, controllers: &HashSet<NodeId>) {
        let numa = find(self.root, &["cpu", "numa"]);
        if cells.numbers.is_empty() {
            self.without_numa(numa);
        } else {
            for node in children(numa, "cell").collect::<Vec<_>>() {
                self.cell(node, cells);
            }
            self.spread_cpus(cells);
        }
        for node in children(child(self.root, "numatune"), "memnode").collect::<Vec<_>>() {
            self.renumber_attribute(node, "cellid", cells);
        }
        for device in self.taken.kept.clone() {
            let node = self.document.get_node(device.node);
            let number = device.cell.known().and_then(|id| cells.numbers.get(&id).copied());
            let place = node.and_then(|node| find(node, &["target", "node"]));
            if let (Some(place), Some(number)) = (place, number) {
                self.renumber_text(place, device.cell.known(), number);
            }
        }
        let others = self.devices("memory").filter(|node| node.attribute("model") != Some("egm"));
        let buses = self.devices("controller").filter(|node| !controllers.contains(&node.id()));
        for node in others.chain(buses).collect::<Vec<_>>() {
            let Some(place) = find(node, &["target", "node"]) else { continue };
            let old = place.text().and_then(|text| text.trim().parse().ok());
            if let Some(number) = place.text().and_then(|text| cells.number(text)) {
                self.renumber_text(place, old, number);
            }
        }
        for hostdev in &self.domain.hostdevs {
            let Some(old) = hostdev.cells.known().filter(|_| !self.taken.has_hostdev(hostdev))
            else {
                continue;
            };
            let new = old.iter().take(self.domain.cells.len());
            let new = new.filter_map(|id| cells.numbers.get(&id)).map(|id| *id..=*id);
            let new: IdList = new.collect();
            let node = self.document.get_node(hostdev.node);
            if let Some(acpi) = node.and_then(|node| child(node, "acpi")).filter(|_| new != old) {
                self.edit.set_attribute(acpi, "nodeset", &new.to_string());
            }
        }
        if self.removal.pinning {
            self.unpin(cells);
        }
    }

    fn cell(&mut self, node: Node<'a, 'input>, cells: &Cells) {
        let cell = self.domain.cells.iter().find(|cell| cell.node == node.id());
        let Some(id) = cell.and_then(|cell| cell.id.value) else { return };
        let Some(number) = cells.numbers.get(&id) else { return self.edit.remove(node) };
        if node.attribute("id").is_some() && id != *number {
            self.edit.set_attribute(node, "id", &number.to_string());
        }
        let distances = child(node, "distances");
        for sibling in children(distances, "sibling").collect::<Vec<_>>() {
            self.renumber_attribute(sibling, "id", cells);
        }
    }

    /// Renumbers an attribute that names a cell; removes the element if that cell is gone.
    fn renumber_attribute(&mut self, node: Node<'_, '_>, name: &str, cells: &Cells) {
        let Some(id) = node.attribute(name).and_then(|id| id.trim().parse::<u32>().ok()) else {
            return;
        };
        match cells.numbers.get(&id) {
            Some(number) if *number != id => {
                self.edit.set_attribute(node, name, &number.to_string());
            }
            None if cells.gone.contains(&id) => self.edit.remove(node),
            _ => {}
        }
    }

    fn renumber_text(&mut self, node: Node<'_, '_>, old: Option<u32>, new: u32) {
        if old != Some(new) {
            self.edit.set_text(node, &new.to_string());
        }
    }

    /// The domain keeps no cells.
    fn without_numa(&mut self, numa: Option<Node<'_, '_>>) {
        let Some((numa, cpu)) = numa.and_then(|numa| Some((numa, numa.parent()?))) else { return };
        let is_only_child = cpu.children().filter(Node::is_element).count() == 1;
        match (is_only_child, cpu.attributes().len()) {
            (true, 0) => self.edit.remove(cpu),
            (true, _) => self.edit.empty(cpu),
            (false, _) => self.edit.remove(numa),
        }
    }

    /// Gives the virtual CPUs of cells that are gone to the others that have some.
    fn spread_cpus(&mut self, cells: &Cells) {
        let of = |is_gone: bool| {
            let is_it = move |cell: &&Cell| {
                cell.cpus.is_some()
                    && cell.id.value.is_some_and(|id| cells.gone.contains(&id) == is_gone)
            };
            self.domain.cells.iter().filter(is_it)
        };
        let free: Vec<u32> = of(true)
            .filter_map(|cell| cell.cpus.known())
            .flat_map(|cpus| cpus.iter().collect::<Vec<_>>())
            .collect();
        let receivers: Vec<_> = of(false).collect();
        for (position, cell) in receivers.iter().enumerate() {
            let bound = |position: usize| free.len() * position / receivers.len();
            let more = free.get(bound(position)..bound(position + 1)).unwrap_or_default();
            let (Some(own), Some(node)) = (cell.cpus.known(), self.document.get_node(cell.node))
            else {
                continue;
            };
            if !more.is_empty() {
                let more: IdList = more.iter().map(|cpu| *cpu..=*cpu).collect();
                self.edit.set_attribute(node, "cpus", &own.with(&more).to_string());
            }
        }
    }

    /// Removes the pinning of the CPUs whose cells are gone or have no EGM memory any more.
    fn unpin(&mut self, cells: &Cells) {
        let is_left = |cell: &&Cell| {
            cell.id.value.is_some_and(|id| cells.gone.contains(&id) || cells.emptied.contains(&id))
        };
        let left = self.domain.cells.iter().filter(is_left);
        let cpus: Vec<IdList> = left.filter_map(|cell| cell.cpus.known()).collect();
        let Some(cputune) = child(self.root, "cputune") else { return };
        let is_left = |node: &Node<'_, '_>| {
            let vcpu = node.attribute("vcpu").and_then(|vcpu| vcpu.trim().parse().ok());
            vcpu.is_some_and(|vcpu| cpus.iter().any(|list| list.contains(vcpu)))
        };
        let pins: Vec<_> = children(Some(cputune), "vcpupin").filter(is_left).collect();
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
            for (position, id) in (0..).zip(&cells.emptied) {
                sums.insert(*id, share(memory.0, shares, position));
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
        if cells.numbers.is_empty() {
            total = self.removal.memory.or(self.domain.memory.known()).map_or(0, |memory| memory.0);
        }
        let others = self.domain.other_memory.iter().map(|device| device.counts().0);
        let total = Bytes(others.fold(total, u64::saturating_add));
        self.sizes(total);
        if self.taken.kept.is_empty() {
            self.backing();
        }
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
            } else if found != Some(total) {
                self.edit.set_attribute(node, "unit", "KiB");
                self.edit.set_text(node, &elements::in_kib(total));
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
            .map(|part| (part.tag_name().name(), part.attributes().next().map(|it| it.value())))
            .collect();
        let of_egm = [("source", "file"), ("access", "shared"), ("allocation", "immediate")];
        let is_of_egm = parts == of_egm.map(|(name, value)| (name, Some(value))).into();
        if is_of_egm && !self.root.descendants().any(is_shared) {
            self.edit.remove(backing);
        }
    }
}

/// One of equal shares of memory in multiples of 2 MiB; the first one has the rest.
fn share(memory: u64, shares: u64, position: u64) -> u64 {
    const STEP: u64 = 2 << 20;
    let each = memory / shares.max(1) / STEP * STEP;
    if position == 0 { memory.saturating_sub(each * shares.saturating_sub(1)) } else { each }
}
