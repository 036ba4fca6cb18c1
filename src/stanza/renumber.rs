//! Renumbers the cells of a domain, wherever they are named.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use roxmltree::{Node, NodeId};

use super::{Rearranged, Unwritable};
use crate::domain::edit::Edit;
use crate::domain::xml::{child, children, find, text_of};
use crate::domain::{self, Domain, Maybe};
use crate::plan::{Plan, orphans};
use crate::values::IdList;

/// New numbers of the cells of a domain; cells without one are removed.
pub(super) struct Renumbering<'a, 'input> {
    pub(super) document: &'a domain::Document<'input>,
    pub(super) numbers: &'a BTreeMap<u32, u32>,
    /// Elements that are removed as a whole.
    pub(super) removed: &'a HashSet<NodeId>,
}

impl Renumbering<'_, '_> {
    /// Whether arguments for QEMU, which are not changed, depend on the numbers.
    pub(super) fn is_impossible(&self) -> bool {
        let domain = self.document.domain();
        let line = &domain.command_line;
        let has_devices = !(line.controllers.is_empty() && line.devices.is_empty());
        (has_devices || domain.arguments_name_cells())
            && self.numbers.iter().any(|(old, new)| old != new)
    }

    pub(super) fn apply(&self, edit: &mut Edit<'_>) {
        let root = self.document.element();
        let numa = find(root, &["cpu", "numa"]).filter(|numa| !self.removed.contains(&numa.id()));
        if numa.is_some() {
            self.cells(edit);
        }
        for part in children(child_of(numa, "interconnects"), "latency")
            .chain(children(child_of(numa, "interconnects"), "bandwidth"))
        {
            self.attribute(part, "initiator", edit);
            self.attribute(part, "target", edit);
        }
        for node in children(child(root, "numatune"), "memnode") {
            self.attribute(node, "cellid", edit);
        }
        let devices = child(root, "devices");
        let of_cells = children(devices, "memory").chain(children(devices, "controller"));
        for node in of_cells.filter(|node| !self.removed.contains(&node.id())) {
            let Some(place) = find(node, &["target", "node"]) else { continue };
            let old = text_of(place).0.trim().parse().ok();
            if let Some(new) = old.and_then(|old: u32| self.changed(old)) {
                edit.set_text(place, &new.to_string());
            }
        }
        self.nodesets(edit);
        self.pages(edit);
    }

    /// The new number of a cell, if it is another one.
    fn changed(&self, old: u32) -> Option<u32> {
        self.numbers.get(&old).copied().filter(|new| *new != old)
    }

    fn cells(&self, edit: &mut Edit<'_>) {
        for cell in &self.document.domain().cells {
            let Some(node) = self.document.xml().get_node(cell.node) else { continue };
            let Some(old) = cell.id.value else { continue };
            if !self.numbers.contains_key(&old) {
                edit.remove(node);
                continue;
            }
            // Without `id`, cells are counted, also after some before it were removed.
            let is_complete = self.numbers.len() == self.document.domain().cells.len();
            let is_written =
                |new: &u32| node.attribute("id").is_some() || *new > old || is_complete;
            if let Some(new) = self.changed(old).filter(is_written) {
                edit.set_attribute(node, "id", &new.to_string());
            }
            for sibling in children(child(node, "distances"), "sibling") {
                self.attribute(sibling, "id", edit);
            }
        }
    }

    /// Renumbers an attribute that names a cell; removes the element if that cell is removed.
    fn attribute(&self, node: Node<'_, '_>, name: &str, edit: &mut Edit<'_>) {
        let number = node.attribute(name).and_then(|id| id.trim().parse::<u32>().ok());
        let Some(old) = number else { return };
        let is_cell = |cell: &domain::Cell| cell.id.value == Some(old);
        if let Some(new) = self.changed(old) {
            edit.set_attribute(node, name, &new.to_string());
        } else if !self.numbers.contains_key(&old)
            && self.document.domain().cells.iter().any(is_cell)
        {
            edit.remove(node);
        }
    }

    /// The cells of devices, `<acpi nodeset>`.
    fn nodesets(&self, edit: &mut Edit<'_>) {
        let domain = self.document.domain();
        for hostdev in domain.hostdevs.iter().filter(|it| !self.removed.contains(&it.node)) {
            let Some(old) = hostdev.cells.known() else { continue };
            let new = self.renumbered(&old);
            let node = self.document.xml().get_node(hostdev.node);
            if let Some(acpi) = node.and_then(|node| child(node, "acpi")).filter(|_| new != old) {
                edit.set_attribute(acpi, "nodeset", &new.to_string());
            }
        }
    }

    /// The cells of huge pages. Pages for no cell are removed; `<hugepages>` without any would be for
    /// all cells.
    fn pages(&self, edit: &mut Edit<'_>) {
        let pages = &self.document.domain().backing.pages;
        let mut left = pages.len();
        for page in pages {
            let Some(old) = page.cells.known() else { continue };
            let new = self.renumbered(&old);
            let Some(node) = self.document.xml().get_node(page.node) else { continue };
            if !new.is_empty() {
                if new != old {
                    edit.set_attribute(node, "nodeset", &new.to_string());
                }
                continue;
            }
            left -= 1;
            edit.remove(if left == 0 { node.parent().unwrap_or(node) } else { node });
        }
    }

    /// A list of cells without those that are removed.
    fn renumbered(&self, cells: &IdList) -> IdList {
        let cells = cells.iter().take(self.document.domain().cells.len());
        cells.filter_map(|id| self.numbers.get(&id).copied()).collect()
    }
}

/// Moves the empty cells of devices behind the others, and leaves numbers before them free for the
/// new cells of a plan. `None` if the cells are in that order.
pub(super) fn rearrange(
    document: &domain::Document<'_>,
    plan: &Plan,
) -> Result<Option<Rearranged>, Unwritable> {
    let domain = document.domain();
    let placed: BTreeSet<_> = plan.placements.iter().map(|it| it.cell).collect();
    let of_devices = &cells_of_devices(domain) - &placed;
    let all: BTreeSet<_> = domain.cells.iter().filter_map(|cell| cell.id.value).collect();
    let new = placed.difference(&all).count();
    let others: Vec<_> = all.difference(&of_devices).copied().collect();
    let is_in_order = of_devices.first() > others.last();
    if all.is_empty()
        || of_devices.is_empty()
        || new == 0 && (is_in_order || !plan.machine.replaces)
    {
        return Ok(None);
    }
    let first = others.len() + new;
    let numbers = others.into_iter().zip(0..);
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    let numbers: BTreeMap<_, _> = numbers.chain(of_devices.into_iter().zip(first..)).collect();
    let none = HashSet::new();
    let renumbering = Renumbering { document, numbers: &numbers, removed: &none };
    if renumbering.is_impossible() {
        return Err(Unwritable::CommandLine);
    }
    let mut edit = Edit::of(document.xml(), None);
    renumbering.apply(&mut edit);
    let renumbered = numbers.into_iter().filter(|(old, new)| old != new).collect();
    Ok(Some(Rearranged { xml: edit.apply(), renumbered }))
}

/// The empty cells of devices' own memory, including those that are left of deleted devices.
fn cells_of_devices(domain: &Domain) -> BTreeSet<u32> {
    let backed: BTreeSet<_> = domain.egm.iter().filter_map(|device| device.cell.known()).collect();
    let empty = domain.cells.iter().filter(|cell| cell.is_empty()).filter_map(|cell| cell.id.value);
    let is_named = |id: &u32| {
        let mut lists = domain.hostdevs.iter().filter_map(|hostdev| hostdev.cells.known());
        lists.any(|list| list.contains(*id))
    };
    let orphans = orphans::of(domain);
    empty.filter(|id| !backed.contains(id) && (is_named(id) || orphans.contains(id))).collect()
}

fn child_of<'a, 'input>(parent: Option<Node<'a, 'input>>, name: &str) -> Option<Node<'a, 'input>> {
    parent.and_then(|parent| child(parent, name))
}
