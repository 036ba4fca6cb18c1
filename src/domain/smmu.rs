//! IOMMUs of the guest.

use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::value::{named_as, number, on_off, read_attribute, text};
use super::xml::{child, children, start_tag, value_range};
use super::{Bus, Origin, Value};
use crate::values::named;

/// An IOMMU of the guest, `<iommu model='smmuv3'>`.
///
/// ```
/// use egm_probe::domain::{Bus, Domain, IdSizeName};
///
/// let domain = Domain::parse(
///     "<domain><devices><iommu model='smmuv3'>
///        <driver pciBus='1' accel='on' ats='on' ril='off' ssidSize='20' oas='48'/>
///      </iommu></devices></domain>",
/// )?;
/// let smmu = &domain.iommus[0];
/// assert_eq!(smmu.bus().and_then(|bus| bus.value), Some(Bus::Index(1)));
/// assert_eq!(smmu.switch("ats").and_then(|ats| ats.value), Some(true));
/// assert_eq!(smmu.oas().and_then(|bits| bits.value), Some(48));
/// let size = smmu.id_size().expect("it is there");
/// assert_eq!((size.name, size.bits.value), (IdSizeName::SsidSize, Some(20)));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Iommu {
    /// Its model, such as `smmuv3`; the text of an argument is QEMU's name, `arm-smmuv3`.
    pub model: Option<Value<String>>,
    /// Its alias, or the `id` that QEMU has for it.
    pub alias: Option<Value<String>>,
    /// The attributes of its `<driver>`, or its properties in QEMU's syntax.
    pub driver: Vec<Attribute>,
    /// The place of its start tag, or of its argument for QEMU.
    pub span: Range<usize>,
    /// The part of the definition that has it.
    pub origin: Origin,
    pub(crate) node: Option<NodeId>,
}

/// An attribute of an element, or a property in QEMU's syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The place of its name and value.
    pub span: Range<usize>,
    /// The place of its value within the quotes; that of the whole for a property.
    pub value_span: Range<usize>,
    /// The part of the definition that has it.
    pub origin: Origin,
}

/// The size of the ids of address spaces (`SubstreamID`, PASID) that an `SMMUv3` has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdSize {
    /// The attribute that gives it.
    pub name: IdSizeName,
    /// The number of bits, from 0 to 20. `on` stands for 20, and `off` for 0.
    pub bits: Value<u8>,
}

named! {
    /// The attribute for the size of the ids, which depends on libvirt.
    #[non_exhaustive]
    pub enum IdSizeName {
        /// `ssidSize`, of NVIDIA's libvirt 12.4.
        SsidSize = "ssidSize",
        /// `ssidsize`, of released libvirt and of QEMU.
        Ssidsize = "ssidsize",
        /// `pasid`, a switch, of NVIDIA's libvirt 11.9 and of older QEMU.
        Pasid = "pasid",
    }
}

/// The most bits of an id (PCI Express Base Specification, PASID).
const ID_BITS: u8 = 20;

impl Iommu {
    /// Whether it is an `SMMUv3`.
    #[must_use]
    pub fn is_smmuv3(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.value.as_deref() == Some("smmuv3"))
    }

    /// Attributes of which libvirt requires `accel='on'`, except the size of ids.
    pub(crate) const ACCELERATED_ONLY: [&str; 4] = ["ats", "ril", "oas", "cmdqv"];

    /// Whether the host's SMMU translates for it, `accel='on'`.
    #[must_use]
    pub fn is_accelerated(&self) -> bool {
        self.switch("accel").is_some_and(|accel| accel.value == Some(true))
    }

    /// The bus that it belongs to: the index of a controller, `pciBus`, or `primary-bus` in QEMU's
    /// syntax. Without one, an `SMMUv3` is that of the whole machine.
    #[must_use]
    pub fn bus(&self) -> Option<Value<Bus>> {
        let index = self.attribute("pciBus").map(|it| it.read(|text| number(text).map(Bus::Index)));
        let name =
            || self.attribute("primary-bus").map(|it| it.read(|name| Some(Bus::of_qemu(name))));
        index.or_else(name)
    }

    /// One of the switches `accel`, `ats`, `ril` and `cmdqv`. QEMU's `auto` has no known value.
    #[must_use]
    pub fn switch(&self, name: &str) -> Option<Value<bool>> {
        let attribute = self.attribute(name)?;
        Some(attribute.read(match attribute.origin {
            Origin::Element => on_off,
            Origin::CommandLine | Origin::Override => qemu_switch,
        }))
    }

    /// The size of output addresses in bits, `oas`.
    #[must_use]
    pub fn oas(&self) -> Option<Value<u32>> {
        self.attribute("oas").map(|attribute| attribute.read(number))
    }

    /// The sizes of ids, in the order of the definition: another libvirt's spelling may be among
    /// them.
    pub fn id_sizes(&self) -> impl Iterator<Item = IdSize> {
        let sizes = |attribute: &Attribute| {
            let name = named_as(IdSizeName::ALL, IdSizeName::name, &attribute.name)?;
            Some(IdSize { name, bits: attribute.read(id_bits) })
        };
        self.driver.iter().filter_map(sizes)
    }

    /// The size of ids; the last one if there are several.
    #[must_use]
    pub fn id_size(&self) -> Option<IdSize> {
        self.id_sizes().last()
    }

    /// An attribute of its `<driver>`, or a property in QEMU's syntax.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.driver.iter().find(|attribute| attribute.name == name)
    }
}

impl Attribute {
    /// Its value as a [`Value`].
    pub(super) fn read<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Value<T> {
        Value {
            text: self.value.clone(),
            value: parse(&self.value),
            span: self.value_span.clone(),
            origin: self.origin,
        }
    }
}

/// A switch as QEMU reads it (`qapi_bool_parse`, `qapi/qapi-util.c`).
pub(super) fn qemu_switch(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

fn id_bits(text: &str) -> Option<u8> {
    match qemu_switch(text) {
        Some(true) => Some(ID_BITS),
        Some(false) => Some(0),
        None => number(text).and_then(|bits| u8::try_from(bits).ok()).filter(|it| *it <= ID_BITS),
    }
}

pub(super) fn read_iommu(iommu: Node<'_, '_>) -> Iommu {
    let drivers = children(Some(iommu), "driver");
    let driver = drivers.flat_map(|driver| driver.attributes().map(move |it| (driver, it)));
    let driver = driver.filter(|(_, attribute)| attribute.namespace().is_none());
    Iommu {
        model: read_attribute(iommu, "model", text),
        alias: child(iommu, "alias").and_then(|alias| read_attribute(alias, "name", text)),
        driver: driver
            .map(|(driver, attribute)| Attribute {
                name: attribute.name().to_owned(),
                value: attribute.value().to_owned(),
                span: attribute.range(),
                value_span: value_range(driver, &attribute),
                origin: Origin::Element,
            })
            .collect(),
        span: start_tag(iommu),
        origin: Origin::Element,
        node: Some(iommu.id()),
    }
}
