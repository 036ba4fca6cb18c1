//! PCI and USB controllers of the guest.

use std::collections::BTreeSet;
use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::guest_address::read_guest_address;
use super::value::{c_byte, named_as, number, read_attribute, read_size, read_text, text};
use super::xml::{child, start_tag};
use super::{Bus, GuestAddress, Origin, Value, is_lasting_alias};
use crate::values::{Bytes, named};

/// A PCI controller, which provides a bus.
///
/// ```
/// use egm_probe::domain::{ControllerModel, Domain};
///
/// let domain = Domain::parse(
///     "<domain><devices>
///        <controller type='pci' index='1' model='pcie-expander-bus'>
///          <target busNr='254'><node>0</node></target>
///        </controller>
///      </devices></domain>",
/// )?;
/// let expander = &domain.pci_controllers[0];
/// let model = expander.model.as_ref().and_then(|model| model.value);
/// assert_eq!(model, Some(ControllerModel::PcieExpanderBus));
/// assert_eq!(expander.target.bus_nr.as_ref().and_then(|number| number.value), Some(254));
/// assert_eq!(expander.target.node.as_ref().and_then(|node| node.value), Some(0));
/// assert_eq!(expander.qemu_name().as_deref(), Some("pci.1"));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PciController {
    /// Its index, which addresses of devices have as their bus. Only libvirt's elements have one.
    pub index: Option<Value<u32>>,
    /// Its model.
    pub model: Option<Value<ControllerModel>>,
    /// Its alias, or the `id` that QEMU has for it.
    pub alias: Option<Value<String>>,
    /// Its properties in the guest.
    pub target: ControllerTarget,
    /// The window for large PCI devices, `<pcihole64>`.
    pub hole: Option<Value<Bytes>>,
    /// Its own address.
    pub address: Option<GuestAddress>,
    /// The place of its start tag, or of its argument for QEMU.
    pub span: Range<usize>,
    /// The part of the definition that has it.
    pub origin: Origin,
    pub(crate) node: Option<NodeId>,
}

/// The properties of a PCI controller in the guest, `<target busNr='254'><node>0</node></target>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControllerTarget {
    /// The number of the bus in the guest, `busNr`: from 1 to 254
    /// (`virDomainControllerDefValidate`, `src/conf/domain_validate.c`).
    pub bus_nr: Option<Value<u8>>,
    /// The number of the chassis.
    pub chassis: Option<Value<u8>>,
    /// The number of the port.
    pub port: Option<Value<u8>>,
    /// The NUMA cell of the guest that its devices are near to.
    pub node: Option<Value<u32>>,
    /// The speed of the link in GT/s as QEMU names it: `x-speed`, which libvirt has no element for.
    pub speed: Option<Value<String>>,
    /// The width of the link in lanes: `x-width`, which libvirt has no element for.
    pub width: Option<Value<u8>>,
    /// The place of the start tag of `<target>`.
    pub span: Option<Range<usize>>,
}

named! {
    /// The model of a PCI controller (`virDomainControllerModelPCI`, `src/conf/domain_conf.c`).
    ///
    /// A model that libvirt does not have is an invalid value.
    #[non_exhaustive]
    pub enum ControllerModel {
        /// The first bus of a machine with PCI Express.
        PcieRoot = "pcie-root",
        /// A port for one device.
        PcieRootPort = "pcie-root-port",
        /// The first bus of another hierarchy, which can be near to a NUMA cell.
        PcieExpanderBus = "pcie-expander-bus",
        /// The port of a switch that leads to the root.
        PcieSwitchUpstreamPort = "pcie-switch-upstream-port",
        /// A port of a switch for one device.
        PcieSwitchDownstreamPort = "pcie-switch-downstream-port",
        /// A bridge to conventional PCI.
        PcieToPciBridge = "pcie-to-pci-bridge",
        /// An older bridge to conventional PCI.
        DmiToPciBridge = "dmi-to-pci-bridge",
        /// The first bus of a machine with conventional PCI.
        PciRoot = "pci-root",
        /// A bridge between conventional buses.
        PciBridge = "pci-bridge",
        /// The first bus of another conventional hierarchy.
        PciExpanderBus = "pci-expander-bus",
    }
}

impl ControllerModel {
    /// Whether its bus is the first one of a hierarchy.
    #[must_use]
    pub fn is_root(self) -> bool {
        use ControllerModel::{PciExpanderBus, PciRoot, PcieExpanderBus, PcieRoot};
        matches!(self, PcieRoot | PcieExpanderBus | PciRoot | PciExpanderBus)
    }

    /// The model that a driver of QEMU implements.
    pub(super) fn of_qemu(driver: &str) -> Option<Self> {
        Some(match driver {
            "pxb-pcie" => Self::PcieExpanderBus,
            "pcie-root-port" | "ioh3420" => Self::PcieRootPort,
            "x3130-upstream" => Self::PcieSwitchUpstreamPort,
            "xio3130-downstream" => Self::PcieSwitchDownstreamPort,
            "pcie-pci-bridge" => Self::PcieToPciBridge,
            "i82801b11-bridge" => Self::DmiToPciBridge,
            "pci-bridge" => Self::PciBridge,
            "pxb" => Self::PciExpanderBus,
            _ => return None,
        })
    }
}

/// A USB controller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsbController {
    /// Its index.
    pub index: Option<Value<u32>>,
    /// Its model; `none` if the guest has none.
    pub model: Option<Value<String>>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

impl PciController {
    /// The bus that it provides.
    #[must_use]
    pub fn bus(&self) -> Option<Bus> {
        match &self.index {
            Some(index) => index.value.map(Bus::Index),
            None => Some(Bus::of_qemu(&self.alias.as_ref()?.text)),
        }
    }

    /// The name of its bus in QEMU, which its alias overrides.
    #[must_use]
    pub fn qemu_name(&self) -> Option<String> {
        let is_kept = |alias: &str| self.origin == Origin::CommandLine || is_lasting_alias(alias);
        if let Some(alias) = self.alias.as_ref().filter(|alias| is_kept(&alias.text)) {
            return Some(alias.text.clone());
        }
        match self.index.as_ref()?.value? {
            0 => Some("pcie.0".into()),
            index => Some(format!("pci.{index}")),
        }
    }

    /// Whether its bus is the first one of a hierarchy.
    #[must_use]
    pub fn is_root(&self) -> bool {
        let model = self.model.as_ref().and_then(|model| model.value);
        model.is_some_and(ControllerModel::is_root)
    }
}

/// Gives each controller without an index the lowest unused one, as libvirt does
/// (`virDomainAssignControllerIndexes`, `src/conf/domain_postparse.c`).
pub(super) fn with_indexes(mut controllers: Vec<PciController>) -> Vec<PciController> {
    let used = controllers.iter().filter_map(|it| it.index.as_ref()?.value);
    let used: BTreeSet<u32> = used.collect();
    let mut free = (0..=u32::MAX).filter(|index| !used.contains(index));
    for controller in controllers.iter_mut().filter(|it| it.index.is_none()) {
        controller.index = free.next().map(|index| Value {
            text: index.to_string(),
            value: Some(index),
            span: controller.span.clone(),
            origin: Origin::Element,
        });
    }
    controllers
}

pub(super) fn read_pci_controller(controller: Node<'_, '_>) -> PciController {
    let model = |text: &str| named_as(ControllerModel::ALL, ControllerModel::name, text);
    PciController {
        index: read_attribute(controller, "index", number),
        model: read_attribute(controller, "model", model),
        alias: child(controller, "alias").and_then(|alias| read_attribute(alias, "name", text)),
        target: child(controller, "target").map(read_target).unwrap_or_default(),
        hole: child(controller, "pcihole64").map(read_size),
        address: read_guest_address(controller),
        span: start_tag(controller),
        origin: Origin::Element,
        node: Some(controller.id()),
    }
}

fn read_target(target: Node<'_, '_>) -> ControllerTarget {
    ControllerTarget {
        bus_nr: read_attribute(target, "busNr", |text| bus_nr(c_byte(text)?)),
        chassis: read_attribute(target, "chassis", c_byte),
        port: read_attribute(target, "port", c_byte),
        node: child(target, "node").map(|node| read_text(node, number)),
        speed: None,
        width: None,
        span: Some(start_tag(target)),
    }
}

/// A number that an expander bus can have: 0 is that of the first bus, and the ports need one.
pub(super) fn bus_nr(number: u8) -> Option<u8> {
    Some(number).filter(|number| (1..=254).contains(number))
}

pub(super) fn read_usb_controller(controller: Node<'_, '_>) -> UsbController {
    UsbController {
        index: read_attribute(controller, "index", number),
        model: read_attribute(controller, "model", text),
        span: start_tag(controller),
    }
}
