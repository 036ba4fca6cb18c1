//! The machine of a guest: its type, firmware and features.

use std::ops::Range;

use roxmltree::Node;

use super::value::{named_as, on_off, read_attribute, text};
use super::xml::{child, start_tag};
use super::{Origin, Value};
use crate::values::named;

/// The firmware and machine of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Os {
    /// Whether `<os>` has the required `<type>`.
    pub has_type: bool,
    /// The kind of firmware for libvirt to choose, `<os firmware='efi'>`.
    pub firmware: Option<Value<String>>,
    /// The type of the firmware's file, `<loader type='pflash'>`; empty if it has none.
    pub loader: Option<Value<String>>,
    /// Its architecture; by default that of the host.
    pub arch: Option<Value<String>>,
    /// The type of its machine; by default QEMU's.
    pub machine: Option<Value<String>>,
}

/// The features of a guest, `<features>`.
///
/// ```
/// use egm_probe::domain::{Domain, GicVersion};
///
/// let domain = Domain::parse(
///     "<domain><features><acpi/><gic version='3'/><ras state='on'/></features></domain>",
/// )?;
/// let features = &domain.features;
/// assert!(features.acpi.is_some());
/// let version = features.gic_version.as_ref().and_then(|version| version.value);
/// assert_eq!(version, Some(GicVersion::V3));
/// assert_eq!(features.ras.as_ref().and_then(|ras| ras.value), Some(true));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// The place of `<acpi/>`, which gives the guest ACPI tables.
    pub acpi: Option<Range<usize>>,
    /// The place of `<gic>`, the interrupt controller.
    pub gic: Option<Range<usize>>,
    /// Its version, `<gic version='3'/>`.
    pub gic_version: Option<Value<GicVersion>>,
    /// Whether the guest receives errors of the host's hardware, `<ras state='on'/>`.
    pub ras: Option<Value<bool>>,
    /// The place of the start tag of `<features>`.
    pub span: Option<Range<usize>>,
}

named! {
    /// The version of a guest's interrupt controller (`virGICVersion`, `src/util/virgic.c`).
    #[non_exhaustive]
    pub enum GicVersion {
        /// The version of the host.
        Host = "host",
        /// `GICv2`.
        V2 = "2",
        /// `GICv3`.
        V3 = "3",
    }
}

pub(super) fn read_features(features: Node<'_, '_>) -> Features {
    let gic = child(features, "gic");
    Features {
        acpi: child(features, "acpi").map(start_tag),
        gic: gic.map(start_tag),
        gic_version: gic.and_then(|gic| {
            read_attribute(gic, "version", |text| named_as(GicVersion::ALL, GicVersion::name, text))
        }),
        ras: child(features, "ras").and_then(|ras| read_attribute(ras, "state", on_off)),
        span: Some(start_tag(features)),
    }
}

pub(super) fn read_os(os: Node<'_, '_>) -> Os {
    let kind = child(os, "type");
    let of_type = |name| read_attribute(kind?, name, text);
    Os {
        has_type: kind.is_some(),
        firmware: read_attribute(os, "firmware", text),
        loader: child(os, "loader").map(|loader| {
            read_attribute(loader, "type", text).unwrap_or_else(|| Value {
                text: String::new(),
                value: None,
                span: start_tag(loader),
                origin: Origin::Element,
            })
        }),
        arch: of_type("arch"),
        machine: of_type("machine"),
    }
}
