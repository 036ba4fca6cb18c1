//! The PCI machine that arguments for QEMU create.

use super::file_memory::parse_qemu_size;
use super::pci::bus_nr;
use super::qemu_options::{self, OptionKind, QemuOption};
use super::smmu::{Iommu, qemu_switch};
use super::value::{c_byte, number, text};
use super::{
    Bus, ControllerModel, ControllerTarget, GuestAddress, Origin, PciController, PciDevice, Value,
};
use crate::values::Bytes;

/// The devices and settings that `<qemu:commandline>` adds to the PCI machine of a domain.
///
/// ```
/// use egm_probe::domain::{Bus, Domain, Origin};
///
/// let domain = Domain::parse(
///     "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:commandline>
///        <qemu:arg value='-device'/>
///        <qemu:arg value='arm-smmuv3,primary-bus=pci.1,accel=on,ssidsize=20'/>
///        <qemu:arg value='-machine'/><qemu:arg value='highmem-mmio-size=4T'/>
///      </qemu:commandline></domain>",
/// )?;
/// let smmu = &domain.command_line.iommus[0];
/// assert!(smmu.is_smmuv3() && smmu.is_accelerated());
/// assert_eq!(smmu.bus().and_then(|bus| bus.value), Some(Bus::Index(1)));
/// assert_eq!(smmu.origin, Origin::CommandLine);
/// let hole = domain.command_line.hole.as_ref().and_then(|hole| hole.value);
/// assert_eq!(hole.map(|hole| hole.0), Some(4 << 40));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandLine {
    /// PCI controllers.
    pub controllers: Vec<PciController>,
    /// IOMMUs; other models than `smmuv3` are devices.
    pub iommus: Vec<Iommu>,
    /// Devices that name a PCI bus or have a PCI address, also the controllers.
    pub devices: Vec<PciDevice>,
    /// The window for large PCI devices, `-machine highmem-mmio-size=4T`.
    pub hole: Option<Value<Bytes>>,
    /// The ids of the objects of type `iommufd`.
    pub iommufds: Vec<Value<String>>,
}

/// Reads the arguments; anything else in them is skipped.
pub(super) fn read(arguments: &[Value<String>]) -> CommandLine {
    let mut line = CommandLine::default();
    for option in qemu_options::read(arguments) {
        match option.kind {
            OptionKind::Machine => {
                line.hole = option.property("highmem-mmio-size", parse_qemu_size).or(line.hole);
            }
            OptionKind::Object if option.name == "iommufd" => {
                line.iommufds.extend(option.property("id", text));
            }
            OptionKind::Object => {}
            OptionKind::Device if option.name == "arm-smmuv3" => line.iommus.push(iommu(option)),
            OptionKind::Device => {
                line.controllers.extend(controller(&option));
                line.devices.extend(device(option));
            }
        }
    }
    line
}

fn iommu(option: QemuOption) -> Iommu {
    Iommu {
        model: Some(of_option(&option, "smmuv3".to_owned())),
        alias: option.property("id", text),
        driver: option.properties,
        span: option.span,
        origin: Origin::CommandLine,
        node: None,
    }
}

fn controller(option: &QemuOption) -> Option<PciController> {
    let model = ControllerModel::of_qemu(&option.name)?;
    Some(PciController {
        index: None,
        model: Some(of_option(option, model)),
        alias: option.property("id", text),
        target: ControllerTarget {
            bus_nr: option.property("bus_nr", |text| bus_nr(c_byte(text)?)),
            chassis: option.property("chassis", c_byte),
            port: option.property("port", c_byte),
            node: option.property("numa_node", number),
            speed: option.property("x-speed", text),
            width: option.property("x-width", c_byte),
            span: None,
        },
        hole: None,
        address: Some(address(option)),
        span: option.span.clone(),
        origin: Origin::CommandLine,
        node: None,
    })
}

/// A value that the driver of a device implies.
fn of_option<T>(option: &QemuOption, value: T) -> Value<T> {
    let (text, span) = (option.name.clone(), option.span.clone());
    Value { text, value: Some(value), span, origin: Origin::CommandLine }
}

fn device(option: QemuOption) -> Option<PciDevice> {
    let address = address(&option);
    // Devices of other buses, such as USB, have no `addr`.
    let bus = address.bus.as_ref().and_then(|bus| bus.value.as_ref());
    let is_on_pci = matches!(bus, Some(Bus::Index(_)))
        || address.slot.is_some()
        || option.name.starts_with("vfio-pci")
        || ControllerModel::of_qemu(&option.name).is_some();
    is_on_pci.then(|| PciDevice {
        alias: option.property("id", text),
        host: option.property("host", |host| host.parse().ok()),
        address,
        kind: option.name,
        span: option.span,
        origin: Origin::CommandLine,
        node: None,
    })
}

fn address(option: &QemuOption) -> GuestAddress {
    GuestAddress {
        domain: None,
        bus: option.property("bus", |name| Some(Bus::of_qemu(name))),
        slot: option.property("addr", |address| Some(slot_and_function(address)?.0)),
        function: option.property("addr", |address| Some(slot_and_function(address)?.1)),
        multifunction: option.property("multifunction", qemu_switch),
        span: option.span.clone(),
        origin: Origin::CommandLine,
    }
}

/// `2.1` or `0x2`: hexadecimal in any case (`set_pci_devfn`, `hw/core/qdev-properties-system.c`).
fn slot_and_function(address: &str) -> Option<(u8, u8)> {
    let hex = |text: &str| {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)
    };
    let (slot, function) = address.split_once('.').unwrap_or((address, "0"));
    let (slot, function) = (hex(slot)?, hex(function)?);
    (slot < 32 && function < 8).then_some((slot, function))
}

#[cfg(test)]
mod tests {
    use super::slot_and_function;

    #[test]
    fn addresses_are_hexadecimal() {
        for (address, expected) in [
            ("0x1f.0x7", Some((31, 7))),
            ("10", Some((16, 0))),
            ("1.2", Some((1, 2))),
            ("20", None),
            ("1.8", None),
            ("+1", None),
            ("", None),
            ("1.", None),
        ] {
            assert_eq!(slot_and_function(address), expected, "{address:?}");
        }
    }
}
