//! Devices of the host that are assigned to the guest.

use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::guest_address::read_guest_address;
use super::value::{list, read_address, read_attribute, switch, text, yes_no};
use super::xml::{child, find, start_tag};
use super::{GuestAddress, Value};
use crate::values::{IdList, PciAddress};

/// A device of the host that is assigned to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hostdev {
    /// Its address, if it is a PCI function.
    pub address: Option<Value<PciAddress>>,
    /// Whether libvirt binds it to the driver for assignment, and back; it does not if missing.
    pub managed: Option<Value<bool>>,
    /// Its alias.
    pub alias: Option<Value<String>>,
    /// The type of its address in the guest, `<address type='pci'>`.
    pub address_type: Option<Value<String>>,
    /// Its PCI address in the guest; libvirt chooses one if it is missing.
    pub guest: Option<GuestAddress>,
    /// The guest's NUMA cells that belong to it, `<acpi nodeset='2-9'/>`.
    pub cells: Option<Value<IdList>>,
    /// Whether the guest sees its option ROM, `<rom bar='off'/>`.
    pub rom_bar: Option<Value<bool>>,
    /// Whether it uses iommufd, `<driver iommufd='yes'/>`.
    pub iommufd: Option<Value<bool>>,
    /// The place of its start tag.
    pub span: Range<usize>,
    pub(crate) node: NodeId,
}

impl Hostdev {
    /// Its address, if it is a PCI function with a valid address.
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        self.address.as_ref()?.value
    }
}

pub(super) fn read_hostdev(hostdev: Node<'_, '_>) -> Hostdev {
    let is_pci = hostdev.attribute("type") == Some("pci");
    let address = find(hostdev, &["source", "address"]).filter(|_| is_pci);
    Hostdev {
        address: address.map(read_address),
        managed: read_attribute(hostdev, "managed", yes_no),
        guest: read_guest_address(hostdev),
        alias: child(hostdev, "alias").and_then(|alias| read_attribute(alias, "name", text)),
        address_type: child(hostdev, "address")
            .and_then(|address| read_attribute(address, "type", text)),
        cells: child(hostdev, "acpi").and_then(|acpi| read_attribute(acpi, "nodeset", list)),
        rom_bar: child(hostdev, "rom").and_then(|rom| read_attribute(rom, "bar", switch)),
        iommufd: child(hostdev, "driver")
            .and_then(|driver| read_attribute(driver, "iommufd", switch)),
        span: start_tag(hostdev),
        node: hostdev.id(),
    }
}
