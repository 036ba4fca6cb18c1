//! Properties of libvirt's devices that a domain overrides.

use std::ops::Range;

use roxmltree::{Node, NodeId};

use super::file_memory::QEMU;
use super::value::{named_as, read_attribute, text};
use super::xml::start_tag;
use super::{Origin, Value};
use crate::values::named;

/// Properties of a device that replace those that libvirt gives to QEMU, `<qemu:device>` in
/// `<qemu:override>`.
///
/// ```
/// use egm_probe::domain::{Domain, PropertyKind};
///
/// let domain = Domain::parse(
///     "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:override>
///        <qemu:device alias='ua-port'><qemu:frontend>
///          <qemu:property name='x-speed' type='string' value='16'/>
///        </qemu:frontend></qemu:device>
///      </qemu:override></domain>",
/// )?;
/// let device = &domain.overrides[0];
/// assert_eq!(device.alias.as_ref().map(|alias| alias.text.as_str()), Some("ua-port"));
/// let kind = device.properties[0].kind.as_ref().and_then(|kind| kind.value);
/// assert_eq!(kind, Some(PropertyKind::String));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceOverride {
    /// The alias of the device.
    pub alias: Option<Value<String>>,
    /// Its properties.
    pub properties: Vec<Property>,
    /// The place of its start tag.
    pub span: Range<usize>,
    /// The element in its document.
    pub(crate) node: NodeId,
}

/// A property of QEMU's device, `<qemu:property name='x-speed' type='string' value='16'/>`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property {
    /// Its name in QEMU.
    pub name: Option<Value<String>>,
    /// The type of its value.
    pub kind: Option<Value<PropertyKind>>,
    /// Its value; none if the property is removed.
    pub value: Option<Value<String>>,
    /// The place of its start tag.
    pub span: Range<usize>,
}

named! {
    /// The type of an overriding value (`qemuDomainXmlNsOverrideType`, `src/qemu/qemu_domain.h`).
    #[non_exhaustive]
    pub enum PropertyKind {
        /// A text.
        String = "string",
        /// A number that may be negative.
        Signed = "signed",
        /// A number.
        Unsigned = "unsigned",
        /// `true` or `false`.
        Bool = "bool",
        /// QEMU's default: libvirt leaves the property out.
        Remove = "remove",
    }
}

impl Property {
    /// Replaces a value that libvirt would give to QEMU.
    pub(super) fn replace<T>(&self, old: &mut Option<Value<T>>, parse: impl Fn(&str) -> Option<T>) {
        let is_removed =
            self.kind.as_ref().and_then(|kind| kind.value) == Some(PropertyKind::Remove);
        *old = self.value.as_ref().filter(|_| !is_removed).map(|new| Value {
            text: new.text.clone(),
            value: parse(&new.text),
            span: new.span.clone(),
            origin: Origin::Override,
        });
    }
}

/// Reads `<qemu:override>`.
pub(super) fn read(domain: Node<'_, '_>) -> Vec<DeviceOverride> {
    of_qemu(domain, "override")
        .flat_map(|overriding| of_qemu(overriding, "device"))
        .map(|device| DeviceOverride {
            alias: read_attribute(device, "alias", text).map(overriding),
            properties: of_qemu(device, "frontend")
                .flat_map(|frontend| of_qemu(frontend, "property"))
                .map(read_property)
                .collect(),
            span: start_tag(device),
            node: device.id(),
        })
        .collect()
}

fn read_property(property: Node<'_, '_>) -> Property {
    let kind = |text: &str| named_as(PropertyKind::ALL, PropertyKind::name, text);
    Property {
        name: read_attribute(property, "name", text).map(overriding),
        kind: read_attribute(property, "type", kind).map(overriding),
        value: read_attribute(property, "value", text).map(overriding),
        span: start_tag(property),
    }
}

fn overriding<T>(value: Value<T>) -> Value<T> {
    Value { origin: Origin::Override, ..value }
}

/// Child elements in QEMU's namespace.
fn of_qemu<'a, 'input: 'a>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name((QEMU, name)))
}
