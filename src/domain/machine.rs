//! The machine of a guest: its type and firmware.

use roxmltree::Node;

use super::Value;
use super::value::{read_attribute, text};
use super::xml::child;

/// The firmware and machine of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Os {
    /// Whether `<os>` has the required `<type>`.
    pub has_type: bool,
    /// The kind of firmware for libvirt to choose, `<os firmware='efi'>`.
    pub firmware: Option<Value<String>>,
    /// The type of the firmware's file, `<loader type='pflash'>`.
    pub loader: Option<Value<String>>,
    /// Its architecture; by default that of the host.
    pub arch: Option<Value<String>>,
    /// The type of its machine; by default QEMU's.
    pub machine: Option<Value<String>>,
}

pub(super) fn read_os(os: Node<'_, '_>) -> Os {
    let kind = child(os, "type");
    let of_type = |name| read_attribute(kind?, name, text);
    Os {
        has_type: kind.is_some(),
        firmware: read_attribute(os, "firmware", text),
        loader: child(os, "loader").and_then(|loader| read_attribute(loader, "type", text)),
        arch: of_type("arch"),
        machine: of_type("machine"),
    }
}
