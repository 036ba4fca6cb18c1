//! Values of elements and attributes, as libvirt reads them.

use std::collections::BTreeMap;
use std::ops::Range;

use roxmltree::Node;

use super::xml::{attribute, start_tag, text_of};
use crate::values::numbers::decimal;
use crate::values::text::{SHOWN, excerpt};
use crate::values::{Bytes, IdList, PciAddress, named, parse_libvirt};

named! {
    /// The part of a definition that a value comes from.
    #[derive(Default)]
    #[non_exhaustive]
    pub enum Origin {
        /// An element of libvirt's own.
        #[default]
        Element = "element",
        /// An argument for QEMU, `<qemu:commandline><qemu:arg>`.
        CommandLine = "command-line",
        /// A property of a device that libvirt creates, `<qemu:override>`.
        Override = "override",
    }
}

/// A value of the XML: its text, meaning, place and origin.
///
/// ```
/// use egm_probe::domain::{Domain, Origin};
///
/// let xml = "<domain><vcpu>many</vcpu></domain>";
/// let vcpus = Domain::parse(xml)?.vcpus.expect("it is there");
/// assert_eq!((vcpus.text.as_str(), vcpus.value), ("many", None));
/// assert_eq!((&xml[vcpus.span], vcpus.origin), ("many", Origin::Element));
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value<T> {
    /// The text.
    pub text: String,
    /// The meaning; `None` if the text is invalid.
    pub value: Option<T>,
    /// Its bytes in the source: the text of an element, an attribute's value within its quotes, or
    /// the whole argument for QEMU that contains it.
    pub span: Range<usize>,
    /// The part of the definition that has it.
    pub origin: Origin,
}

impl<T> Value<T> {
    /// The text for messages.
    pub(crate) fn shown(&self) -> String {
        excerpt(&self.text, SHOWN)
    }
}

/// Access to a value that may be missing.
pub(crate) trait Maybe<T: Clone> {
    /// Its meaning, if it is present and valid.
    fn known(&self) -> Option<T>;
    /// Its text; empty if it is missing.
    fn text(&self) -> &str;
    /// Its place, or if it is missing, the given one.
    fn place<'a>(&'a self, whole: &'a Range<usize>) -> &'a Range<usize>;
}

impl<T: Clone> Maybe<T> for Option<Value<T>> {
    fn known(&self) -> Option<T> {
        self.as_ref()?.value.clone()
    }

    fn text(&self) -> &str {
        self.as_ref().map_or("", |value| &value.text)
    }

    fn place<'a>(&'a self, whole: &'a Range<usize>) -> &'a Range<usize> {
        self.as_ref().map_or(whole, |value| &value.span)
    }
}

pub(super) fn read_text<T>(node: Node<'_, '_>, parse: impl Fn(&str) -> Option<T>) -> Value<T> {
    value(text_of(node), parse)
}

pub(super) fn read_attribute<T>(
    node: Node<'_, '_>,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Value<T>> {
    attribute(node, name).map(|found| value(found, parse))
}

pub(super) fn value<T>(
    (text, span): (String, Range<usize>),
    parse: impl Fn(&str) -> Option<T>,
) -> Value<T> {
    Value { value: parse(&text), text, span, origin: Origin::Element }
}

#[allow(clippy::unnecessary_wraps)] // All readers of values have this signature.
pub(super) fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The value of an enum with this name.
pub(super) fn named_as<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|value| name(*value) == text)
}

/// A switch: libvirt writes some as `yes` and `no`, others as `on` and `off`.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        _ => None,
    }
}

/// A switch that libvirt writes only as `on` or `off` (`virTristateSwitch`).
pub(super) fn on_off(text: &str) -> Option<bool> {
    switch(text).filter(|_| text.starts_with('o'))
}

/// A switch that libvirt writes only as `yes` or `no` (`virTristateBool`).
pub(super) fn yes_no(text: &str) -> Option<bool> {
    switch(text).filter(|_| !text.starts_with('o'))
}

/// A number as libvirt reads it with base 10: it may have a plus sign and leading zeros, and no
/// spaces (`virStrToLong_uip`, `src/util/virstring.c`).
pub(super) fn number(text: &str) -> Option<u32> {
    decimal(text.strip_prefix('+').unwrap_or(text))
}

/// A number of virtual CPUs.
pub(super) fn count(text: &str) -> Option<u32> {
    number(text).filter(|count| *count > 0)
}

/// A number as libvirt reads it with base 0: decimal, 0x for hexadecimal, 0 for octal.
pub(super) fn c_number(text: &str) -> Option<u32> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, base) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let is_digits = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    u32::from_str_radix(digits, base).ok().filter(|_| is_digits)
}

/// A number of up to 8 bits, as libvirt reads it with base 0.
pub(super) fn c_byte(text: &str) -> Option<u8> {
    c_number(text).and_then(|number| u8::try_from(number).ok())
}

/// A list of numbers as libvirt reads it (`virBitmapParse`, `src/util/virbitmap.c`): from left to
/// right, with optional spaces and a comma at the end; `^3` removes a number.
pub(super) fn list(text: &str) -> Option<IdList> {
    let text = text.trim_end();
    let parts: Vec<_> = text.strip_suffix(',').unwrap_or(text).split(',').map(str::trim).collect();
    if parts.len() > LIST_LIMIT {
        return None;
    }
    let mut added = Vec::new();
    let mut out = BTreeMap::new();
    for (position, part) in parts.into_iter().enumerate() {
        if let Some(id) = part.strip_prefix('^') {
            out.insert(decimal(id.trim())?, position);
        } else {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = decimal(first.trim())?..=decimal(last.trim())?;
            if range.is_empty() {
                return None;
            }
            added.push((range, position));
        }
    }
    // A number that is added again later stays.
    out.retain(|id, out| !added.iter().any(|(range, added)| added > out && range.contains(id)));
    let out: Vec<_> = out.into_keys().collect();
    let list = added.into_iter().map(|(range, _)| range).collect::<IdList>().without(&out);
    Some(list).filter(|list| !list.is_empty())
}

/// The maximum number of parts of a list.
const LIST_LIMIT: usize = 4096;

pub(super) fn read_size(size: Node<'_, '_>) -> Value<Bytes> {
    or_unit(read_text(size, |number| in_kib(number, size.attribute("unit"))), size)
}

/// libvirt counts in KiB, and rounds up (`virDomainParseMemory`, `src/conf/domain_conf.c`).
pub(super) fn in_kib(number: &str, unit: Option<&str>) -> Option<Bytes> {
    let bytes = parse_libvirt(number, unit)?;
    bytes.0.div_ceil(1024).checked_mul(1024).map(Bytes)
}

/// If a size is invalid because of its unit, returns the unit in its place.
pub(super) fn or_unit(size: Value<Bytes>, node: Node<'_, '_>) -> Value<Bytes> {
    let is_number = parse_libvirt(&size.text, None).is_some();
    let is_unit = |unit: &str| parse_libvirt("1", Some(unit)).is_some();
    match attribute(node, "unit") {
        Some((text, span)) if size.value.is_none() && is_number && !is_unit(&text) => {
            Value { text, value: None, span, origin: Origin::Element }
        }
        _ => size,
    }
}

pub(super) fn read_address(address: Node<'_, '_>) -> Value<PciAddress> {
    let part = |name| address.attribute(name).map_or(Some(0), c_number);
    let parts = || {
        let narrow = |name| u8::try_from(part(name)?).ok();
        PciAddress::new(part("domain")?, narrow("bus")?, narrow("slot")?, narrow("function")?)
    };
    let mut attributes = address.attributes().map(|attribute| attribute.range());
    let first = attributes.next();
    let last = attributes.next_back().or(first.clone());
    let span = match (first, last) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => start_tag(address),
    };
    let text = address.document().input_text().get(span.clone()).unwrap_or_default();
    Value { text: text.to_owned(), value: parts(), span, origin: Origin::Element }
}
