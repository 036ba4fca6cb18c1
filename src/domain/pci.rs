//! Controllers of the guest.

use std::ops::Range;

use roxmltree::Node;

use super::Value;
use super::value::{number, read_attribute, read_size, text};
use super::xml::{child, start_tag};
use crate::values::Bytes;

/// A PCI or USB controller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Controller {
    /// `pci` or `usb`.
    pub bus: Value<String>,
    /// Its number, by which other elements refer to it.
    pub index: Option<Value<u32>>,
    /// Its model, such as `pcie-root`.
    pub model: Option<Value<String>>,
    /// The window for large PCI devices, `<pcihole64>`.
    pub hole: Option<Value<Bytes>>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

pub(super) fn read_controller(controller: Node<'_, '_>) -> Option<Controller> {
    let bus = read_attribute(controller, "type", text)?;
    let is_of_interest = matches!(bus.text.as_str(), "pci" | "usb");
    is_of_interest.then(|| Controller {
        bus,
        index: read_attribute(controller, "index", number),
        model: read_attribute(controller, "model", text),
        hole: child(controller, "pcihole64").map(read_size),
        span: start_tag(controller),
    })
}
