//! The PCI machine of a guest as QEMU gets it.

use std::collections::BTreeMap;

use super::pci::bus_nr;
use super::smmu::{Attribute, IdSizeName};
use super::value::{c_byte, named_as, number, text};
use super::{
    Bus, Domain, GuestAddress, Hostdev, Iommu, Origin, PciController, PciDevice, Property, Value,
    is_lasting_alias,
};
use crate::values::Bytes;

/// The PCI machine of a guest as QEMU gets it: libvirt's elements, with the properties that
/// `<qemu:override>` replaces, and the devices that `<qemu:commandline>` adds.
///
/// Properties are found by the alias of their device, or by the alias that libvirt generates:
/// `pci.1` for the controller with index 1, and `iommu0` for the first IOMMU. Addresses that
/// libvirt has yet to choose are unknown.
///
/// ```
/// use egm_probe::domain::{Bus, Domain, Origin, PciMachine};
///
/// let domain = Domain::parse(
///     "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><devices>
///        <controller type='pci' index='1' model='pcie-expander-bus'/>
///        <controller type='pci' index='2' model='pcie-root-port'>
///          <address type='pci' bus='0x01' slot='0x00'/>
///        </controller>
///        <iommu model='smmuv3'><driver pciBus='1' accel='off'/></iommu>
///      </devices>
///      <qemu:override><qemu:device alias='iommu0'><qemu:frontend>
///        <qemu:property name='accel' type='bool' value='true'/>
///      </qemu:frontend></qemu:device></qemu:override></domain>",
/// )?;
/// let machine = PciMachine::of(&domain);
/// let root = machine.root_of(&Bus::Index(2)).expect("the port is on the expander bus");
/// assert_eq!(root, Bus::Index(1));
/// let accel = machine.iommus_by_bus()[&root][0].switch("accel").expect("it is there");
/// assert_eq!((accel.value, accel.origin), (Some(true), Origin::Override));
/// assert!(machine.occupied()[&Bus::Index(1)].contains_key(&0));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug)]
pub struct PciMachine {
    controllers: Vec<PciController>,
    iommus: Vec<Iommu>,
    devices: Vec<PciDevice>,
    hole: Option<Value<Bytes>>,
    iommufd: Option<Value<bool>>,
    /// Overrides by alias.
    iommufds: BTreeMap<String, Value<bool>>,
    /// The controllers by each bus name and index; the first one of each.
    by_bus: BTreeMap<Bus, usize>,
    /// The first bus of the hierarchy of each controller.
    roots: Vec<Option<Bus>>,
}

impl PciMachine {
    /// The machine of a domain.
    #[must_use]
    pub fn of(domain: &Domain) -> Self {
        let mut overrides: BTreeMap<&str, Vec<&Property>> = BTreeMap::new();
        for device in &domain.overrides {
            let Some(alias) = &device.alias else { continue };
            overrides.entry(&alias.text).or_default().extend(&device.properties);
        }
        let line = &domain.command_line;
        let mut controllers = domain.pci_controllers.clone();
        for controller in &mut controllers {
            let name = controller.qemu_name().unwrap_or_default();
            for property in overrides.get(name.as_str()).into_iter().flatten() {
                replace_in_controller(controller, property);
            }
        }
        controllers.extend(line.controllers.iter().cloned());
        let mut iommus = domain.iommus.clone();
        for (index, iommu) in iommus.iter_mut().enumerate() {
            let alias = iommu.alias.as_ref().map(|alias| alias.text.clone());
            let name =
                alias.filter(|it| is_lasting_alias(it)).unwrap_or_else(|| format!("iommu{index}"));
            for property in overrides.get(name.as_str()).into_iter().flatten() {
                replace_in_iommu(iommu, property);
            }
        }
        iommus.extend(line.iommus.iter().cloned());
        let by_bus = by_bus(&controllers);
        Self {
            roots: roots(&controllers, &by_bus),
            by_bus,
            iommus,
            devices: domain.pci_devices.iter().chain(&line.devices).cloned().collect(),
            hole: line.hole.clone().or_else(|| hole(&controllers)),
            iommufd: domain.iommufd.clone(),
            iommufds: overrides
                .iter()
                .filter_map(|(alias, properties)| Some(((*alias).to_owned(), iommufd(properties)?)))
                .collect(),
            controllers,
        }
    }

    /// Its PCI controllers, those of the command line last.
    #[must_use]
    pub fn controllers(&self) -> &[PciController] {
        &self.controllers
    }

    /// Its IOMMUs, those of the command line last.
    #[must_use]
    pub fn iommus(&self) -> &[Iommu] {
        &self.iommus
    }

    /// Its devices with a PCI address, those of the command line last.
    #[must_use]
    pub fn devices(&self) -> &[PciDevice] {
        &self.devices
    }

    /// The window for large PCI devices: that of QEMU's arguments, or `<pcihole64>` of the first
    /// bus.
    #[must_use]
    pub fn hole(&self) -> Option<&Value<Bytes>> {
        self.hole.as_ref()
    }

    /// Whether a `<hostdev>` uses iommufd: overridden, by itself, or by the `<iommufd>` of the
    /// domain. `None` if the definition has none of these.
    #[must_use]
    pub fn iommufd<'a>(&'a self, hostdev: &'a Hostdev) -> Option<&'a Value<bool>> {
        let alias = hostdev.alias.as_ref().map(|alias| alias.text.as_str());
        let overridden = alias.and_then(|alias| self.iommufds.get(alias));
        overridden.or(hostdev.iommufd.as_ref()).or(self.iommufd.as_ref())
    }

    /// The controller that provides a bus; the first one if there are several.
    #[must_use]
    pub fn controller(&self, bus: &Bus) -> Option<&PciController> {
        self.controllers.get(*self.by_bus.get(bus)?)
    }

    /// The same bus by the index of its controller, if it has one.
    #[must_use]
    pub fn canonical(&self, bus: &Bus) -> Bus {
        self.controller(bus).and_then(PciController::bus).unwrap_or_else(|| bus.clone())
    }

    /// The first bus of the hierarchy that a bus is in: `pcie.0`, or that of an expander. `None` if
    /// a controller on the way is missing, has an unknown address, or is below itself.
    #[must_use]
    pub fn root_of(&self, bus: &Bus) -> Option<Bus> {
        match self.by_bus.get(bus) {
            Some(position) => self.roots.get(*position).cloned().flatten(),
            // libvirt adds the first controller.
            None => (*bus == Bus::Index(0)).then_some(Bus::Index(0)),
        }
    }

    /// The IOMMUs by bus; those of the whole machine have none, and are left out.
    #[must_use]
    pub fn iommus_by_bus(&self) -> BTreeMap<Bus, Vec<&Iommu>> {
        let mut iommus: BTreeMap<Bus, Vec<&Iommu>> = BTreeMap::new();
        for iommu in &self.iommus {
            if let Some(bus) = iommu.bus().and_then(|bus| bus.value) {
                iommus.entry(self.canonical(&bus)).or_default().push(iommu);
            }
        }
        iommus
    }

    /// The devices of each slot of each bus.
    #[must_use]
    pub fn occupied(&self) -> BTreeMap<Bus, BTreeMap<u8, Vec<&PciDevice>>> {
        let mut buses: BTreeMap<Bus, BTreeMap<u8, Vec<&PciDevice>>> = BTreeMap::new();
        for device in &self.devices {
            if let Some(place) = device.address.place() {
                let slots = buses.entry(self.canonical(&place.bus)).or_default();
                slots.entry(place.slot).or_default().push(device);
            }
        }
        buses
    }
}

fn by_bus(controllers: &[PciController]) -> BTreeMap<Bus, usize> {
    let mut by_bus = BTreeMap::new();
    for (position, controller) in controllers.iter().enumerate() {
        let name = controller.qemu_name().map(|name| Bus::of_qemu(&name));
        for bus in controller.bus().into_iter().chain(name) {
            by_bus.entry(bus).or_insert(position);
        }
    }
    by_bus
}

/// The first bus above each controller. Visits each controller once.
fn roots(controllers: &[PciController], by_bus: &BTreeMap<Bus, usize>) -> Vec<Option<Bus>> {
    let mut roots: Vec<Option<Option<Bus>>> = vec![None; controllers.len()];
    for start in 0..controllers.len() {
        let (mut path, mut at) = (Vec::new(), start);
        let root = loop {
            let (Some(controller), Some(root)) = (controllers.get(at), roots.get_mut(at)) else {
                break None;
            };
            if let Some(root) = root {
                break root.clone();
            }
            // A controller that is met again while it is on the path is below itself.
            *root = Some(None);
            path.push(at);
            if controller.is_root() {
                break controller.bus();
            }
            let Some(bus) = controller.address.as_ref().and_then(GuestAddress::on_bus) else {
                break None;
            };
            match by_bus.get(&bus) {
                Some(above) => at = *above,
                None => break Some(bus).filter(|bus| *bus == Bus::Index(0)),
            }
        };
        for at in path {
            if let Some(place) = roots.get_mut(at) {
                *place = Some(root.clone());
            }
        }
    }
    roots.into_iter().map(Option::flatten).collect()
}

fn hole(controllers: &[PciController]) -> Option<Value<Bytes>> {
    let first = controllers.iter().find(|it| it.bus() == Some(Bus::Index(0)))?;
    first.hole.clone()
}

fn iommufd(properties: &[&Property]) -> Option<Value<bool>> {
    let is_it =
        |property: &&&Property| property.name.as_ref().is_some_and(|it| it.text == "iommufd");
    let property = properties.iter().rfind(is_it)?;
    let mut id = None;
    // Any object of this type will do.
    property.replace(&mut id, |_| Some(true));
    Some(id.unwrap_or_else(|| Value {
        text: String::new(),
        value: Some(false),
        span: property.span.clone(),
        origin: Origin::Override,
    }))
}

fn replace_in_controller(controller: &mut PciController, property: &Property) {
    let target = &mut controller.target;
    match property.name.as_ref().map(|name| name.text.as_str()) {
        Some("bus_nr") => property.replace(&mut target.bus_nr, |text| bus_nr(c_byte(text)?)),
        Some("numa_node") => property.replace(&mut target.node, number),
        Some("chassis") => property.replace(&mut target.chassis, c_byte),
        Some("port") => property.replace(&mut target.port, c_byte),
        Some("x-speed") => property.replace(&mut target.speed, text),
        Some("x-width") => property.replace(&mut target.width, c_byte),
        _ => {}
    }
}

fn replace_in_iommu(iommu: &mut Iommu, property: &Property) {
    let Some(name) = property.name.as_ref().map(|name| name.text.as_str()) else { return };
    let is_id_size = |name: &str| named_as(IdSizeName::ALL, IdSizeName::name, name).is_some();
    iommu.driver.retain(|attribute| match (name, attribute.name.as_str()) {
        ("primary-bus", "pciBus") => false,
        (name, old) => name != old && !(is_id_size(name) && is_id_size(old)),
    });
    let mut new = None;
    property.replace(&mut new, text);
    iommu.driver.extend(new.map(|new| Attribute {
        name: name.to_owned(),
        value: new.text,
        span: property.span.clone(),
        value_span: new.span,
        origin: Origin::Override,
    }));
}
