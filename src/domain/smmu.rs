//! IOMMUs of the guest.

use std::ops::Range;

use roxmltree::Node;

use super::Value;
use super::value::{read_attribute, text};
use super::xml::{children, start_tag};
use crate::values::numbers::decimal;

/// An IOMMU of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Iommu {
    /// Its model, such as `smmuv3`.
    pub model: Option<Value<String>>,
    /// The attributes of its `<driver>`.
    pub driver: Vec<Attribute>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

/// An attribute of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The place of its name and value.
    pub span: Range<usize>,
}

impl Iommu {
    /// Whether it is an `SMMUv3`.
    #[must_use]
    pub fn is_smmuv3(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.text == "smmuv3")
    }

    /// Whether the host's SMMU translates for it, `accel='on'`.
    #[must_use]
    pub fn is_accelerated(&self) -> bool {
        self.attribute("accel").is_some_and(|accel| accel.value == "on")
    }

    /// The index of the controller that it belongs to, `pciBus`.
    #[must_use]
    pub fn pci_bus(&self) -> Option<u32> {
        decimal(&self.attribute("pciBus")?.value)
    }

    /// An attribute of its `<driver>`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.driver.iter().find(|attribute| attribute.name == name)
    }
}

pub(super) fn read_iommu(iommu: Node<'_, '_>) -> Iommu {
    let driver = children(Some(iommu), "driver").flat_map(|driver| driver.attributes());
    let driver = driver.filter(|attribute| attribute.namespace().is_none());
    Iommu {
        model: read_attribute(iommu, "model", text),
        driver: driver
            .map(|it| Attribute {
                name: it.name().to_owned(),
                value: it.value().to_owned(),
                span: it.range(),
            })
            .collect(),
        span: start_tag(iommu),
    }
}
