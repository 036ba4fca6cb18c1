//! PCI addresses of devices in the guest.

use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::value::{c_byte, c_number, on_off, read_address, read_attribute, text, value};
use super::xml::{attribute, child, find, is_named, start_tag};
use super::{Origin, Value};
use crate::values::PciAddress;
use crate::values::numbers::decimal;

/// A PCI bus of the guest.
///
/// ```
/// use egm_probe::domain::Bus;
///
/// assert_eq!(Bus::of_qemu("pcie.0"), Bus::Index(0));
/// assert_eq!(Bus::of_qemu("pci.3"), Bus::Index(3));
/// assert_eq!(Bus::of_qemu("ua-port"), Bus::Name("ua-port".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Bus {
    /// The bus of the controller with this index.
    Index(u32),
    /// The bus of the controller that QEMU has under this name.
    Name(String),
}

impl Bus {
    /// The bus that QEMU has under this name: libvirt calls the first one `pcie.0` and the others
    /// `pci.INDEX` (`qemuAssignDeviceControllerAlias`, `src/qemu/qemu_alias.c`).
    #[must_use]
    pub fn of_qemu(name: &str) -> Self {
        let number = |digits: &str| {
            // Another spelling of the number is another name.
            decimal(digits).filter(|index: &u32| *index > 0 && index.to_string() == digits)
        };
        match name.strip_prefix("pci.").and_then(number) {
            Some(index) => Self::Index(index),
            None if name == "pcie.0" => Self::Index(0),
            None => Self::Name(name.to_owned()),
        }
    }
}

/// The address of a device in the guest, `<address type='pci' bus='0x01' slot='0x00'/>`.
///
/// ```
/// use egm_probe::domain::{Bus, Domain};
///
/// let domain = Domain::parse(
///     "<domain><devices><hostdev type='pci'>
///        <address type='pci' bus='0x02' slot='0x00' function='9'/>
///      </hostdev></devices></domain>",
/// )?;
/// let address = domain.hostdevs[0].guest.as_ref().expect("it has one");
/// assert_eq!(address.bus.as_ref().and_then(|bus| bus.value.clone()), Some(Bus::Index(2)));
/// assert_eq!(address.function.as_ref().map(|function| function.value), Some(None), "at most 7");
/// assert_eq!(address.place(), None);
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestAddress {
    /// The PCI domain.
    pub domain: Option<Value<u32>>,
    /// The bus: in libvirt's syntax, the index of a controller.
    pub bus: Option<Value<Bus>>,
    /// The slot, less than 32.
    pub slot: Option<Value<u8>>,
    /// The function, less than 8.
    pub function: Option<Value<u8>>,
    /// Whether the slot has several functions.
    pub multifunction: Option<Value<bool>>,
    /// The place of its start tag, or of the argument for QEMU that has it.
    pub span: Range<usize>,
    /// The part of the definition that has it.
    pub origin: Origin,
}

/// A function of a slot of a bus of the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct GuestPlace {
    /// The bus.
    pub bus: Bus,
    /// The slot.
    pub slot: u8,
    /// The function.
    pub function: u8,
}

impl GuestAddress {
    /// The bus. `None` if it is invalid, or if libvirt chooses the address: it does so for bus 0
    /// and slot 0 (`virPCIDeviceAddressIsEmpty`, `src/util/virpci.c`). QEMU's default is the first
    /// bus.
    #[must_use]
    pub fn on_bus(&self) -> Option<Bus> {
        let bus = self.bus.as_ref().map_or(Some(Bus::Index(0)), |bus| bus.value.clone())?;
        let is_given = self.origin == Origin::CommandLine
            || bus != Bus::Index(0)
            || part(self.slot.as_ref())? > 0;
        // A guest has one domain.
        (part(self.domain.as_ref()) == Some(0) && is_given).then_some(bus)
    }

    /// The place in the guest. `None` if a part is invalid, if libvirt chooses the address, or if
    /// QEMU chooses the slot, for lack of `addr`.
    #[must_use]
    pub fn place(&self) -> Option<GuestPlace> {
        if self.origin == Origin::CommandLine && self.slot.is_none() {
            return None;
        }
        let (slot, function) = (part(self.slot.as_ref())?, part(self.function.as_ref())?);
        Some(GuestPlace { bus: self.on_bus()?, slot, function })
    }
}

/// A part of an address, which is 0 if it is missing.
fn part<T: Copy + Default>(part: Option<&Value<T>>) -> Option<T> {
    part.map_or(Some(T::default()), |part| part.value)
}

/// A device with a PCI address in the guest.
///
/// ```
/// use egm_probe::domain::Domain;
///
/// let domain = Domain::parse(
///     "<domain><devices><disk><address type='pci' slot='3'/></disk>
///        <disk><address type='drive' unit='1'/></disk></devices></domain>",
/// )?;
/// let [disk] = &domain.pci_devices[..] else { panic!("one of them is on a PCI bus") };
/// assert_eq!(disk.kind, "disk");
/// assert_eq!(disk.address.place().map(|place| place.slot), Some(3));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PciDevice {
    /// The name of its element, such as `disk`, or of QEMU's driver, such as `vfio-pci`.
    pub kind: String,
    /// Its alias, or the `id` that QEMU has for it.
    pub alias: Option<Value<String>>,
    /// Its address in the guest.
    pub address: GuestAddress,
    /// The function of the host that is assigned to the guest.
    pub host: Option<Value<PciAddress>>,
    /// The place of its start tag, or of its argument for QEMU.
    pub span: Range<usize>,
    /// The part of the definition that has it.
    pub origin: Origin,
    pub(crate) node: Option<NodeId>,
}

/// The address of a device, if it is one on a PCI bus.
pub(super) fn read_guest_address(device: Node<'_, '_>) -> Option<GuestAddress> {
    let address = device
        .children()
        .find(|child| is_named(*child, "address") && child.attribute("type") == Some("pci"))?;
    let index = |text: &str| c_byte(text).map(u32::from).map(Bus::Index);
    Some(GuestAddress {
        domain: read_attribute(address, "domain", c_number),
        bus: attribute(address, "bus").map(|bus| value(bus, index)),
        slot: read_attribute(address, "slot", slot),
        function: read_attribute(address, "function", function),
        multifunction: read_attribute(address, "multifunction", on_off),
        span: start_tag(address),
        origin: Origin::Element,
    })
}

pub(super) fn read_pci_device(device: Node<'_, '_>) -> Option<PciDevice> {
    let is_pci_hostdev = is_named(device, "hostdev") && device.attribute("type") == Some("pci");
    Some(PciDevice {
        kind: device.tag_name().name().to_owned(),
        alias: child(device, "alias").and_then(|alias| read_attribute(alias, "name", text)),
        address: read_guest_address(device)?,
        host: find(device, &["source", "address"]).filter(|_| is_pci_hostdev).map(read_address),
        span: start_tag(device),
        origin: Origin::Element,
        node: Some(device.id()),
    })
}

/// A slot: a bus has 32.
fn slot(text: &str) -> Option<u8> {
    c_byte(text).filter(|slot| *slot < 32)
}

/// A function: a slot has 8.
fn function(text: &str) -> Option<u8> {
    c_byte(text).filter(|function| *function < 8)
}
