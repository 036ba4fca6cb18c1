//! PCI addresses, in every form that people and programs write them.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The address of a PCI function: domain, bus, slot (device) and function.
///
/// Displayed as the kernel names it, `0009:01:00.0`; the domain has more than four digits where it
/// needs them (those behind a VMD bridge start at `10000`).
///
/// Read from the kernel's form in upper or lower case, without the domain (which is then 0), with
/// eight digits of domain as `nvidia-smi` writes it, and from libvirt's `pci_0009_01_00_0`.
///
/// ```
/// use egm_probe::values::PciAddress;
///
/// for text in ["0009:01:00.0", "00000009:01:00.0", "pci_0009_01_00_0"] {
///     assert_eq!(text.parse::<PciAddress>()?.to_string(), "0009:01:00.0");
/// }
/// assert_eq!("C1:1f.7".parse::<PciAddress>()?.to_string(), "0000:c1:1f.7");
/// assert!("0009:01:20.0".parse::<PciAddress>().is_err(), "a bus has 32 slots");
/// # Ok::<(), egm_probe::values::BadAddress>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    slot: u8,
    function: u8,
}

/// A text that is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a PCI address; one looks like 0009:01:00.0 or pci_0009_01_00_0")]
pub struct BadAddress(String);

impl PciAddress {
    /// The address of these parts; `None` where slot or function is more than a bus has (32
    /// slots, of 8 functions each).
    #[must_use]
    pub fn new(domain: u32, bus: u8, slot: u8, function: u8) -> Option<Self> {
        (slot < 32 && function < 8).then_some(Self { domain, bus, slot, function })
    }

    /// The domain, which is also called segment.
    #[must_use]
    pub fn domain(&self) -> u32 {
        self.domain
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> u8 {
        self.bus
    }

    /// The slot, which is also called device: less than 32.
    #[must_use]
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// The function: less than 8.
    #[must_use]
    pub fn function(&self) -> u8 {
        self.function
    }

    /// The address of a name that the kernel gave: exactly as it writes them, nothing else.
    #[must_use]
    pub fn from_kernel_name(name: &str) -> Option<Self> {
        // Cheap to tell for most names in a directory.
        if name.as_bytes().get(name.len().checked_sub(2)?) != Some(&b'.') {
            return None;
        }
        name.parse().ok().filter(|address: &Self| address.to_string() == name)
    }

    /// What was meant where every part is one place too far to the right: 0009:01:00.0 for
    /// `0000:09:01.0`. `None` where there is something in the place of the domain.
    #[must_use]
    pub(crate) fn shifted(self) -> Option<Self> {
        let shifted =
            Self { domain: self.bus.into(), bus: self.slot, slot: self.function, function: 0 };
        (self.domain == 0).then_some(shifted)
    }

    /// The one of `known` that was most likely meant by this address, if any is like it.
    ///
    /// The commonest slip writes 0009:01:00.0 as `0000:09:01.0`: every part one place too far to
    /// the right. Next comes the address with the fewest other characters.
    #[must_use]
    pub fn nearest<'a>(&self, known: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let known: Vec<_> = known.into_iter().copied().collect();
        if let Some(shifted) = self.shifted().filter(|shifted| known.contains(shifted)) {
            return Some(shifted);
        }
        let typed = self.to_string();
        known
            .into_iter()
            .map(|address| (strsim::levenshtein(&typed, &address.to_string()), address))
            .min()
            .filter(|(distance, _)| *distance <= SIMILAR)
            .map(|(_, address)| address)
    }
}

/// Addresses with more than so many other characters are not alike: of the twelve, three are
/// punctuation, and most of the others are zeros anyway.
const SIMILAR: usize = 3;

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, slot, function } = self;
        f.pad(&format!("{domain:04x}:{bus:02x}:{slot:02x}.{function}"))
    }
}

impl FromStr for PciAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        parse(text).ok_or_else(|| BadAddress(crate::values::text::printable(text)))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let parts = if let Some(parts) = strip_pci(text) {
        let mut parts = parts.split('_');
        [parts.next()?, parts.next()?, parts.next()?, parts.next()?]
            .into_iter()
            .chain(parts)
            .collect()
    } else {
        let (rest, function) = text.rsplit_once('.')?;
        let (rest, slot) = rest.rsplit_once(':')?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        vec![domain, bus, slot, function]
    };
    let [domain, bus, slot, function] = parts.as_slice() else {
        return None;
    };
    PciAddress::new(
        hexadecimal(domain, 8)?,
        hexadecimal(bus, 2)?.try_into().ok()?,
        hexadecimal(slot, 2)?.try_into().ok()?,
        hexadecimal(function, 1)?.try_into().ok()?,
    )
}

/// What follows `pci_`, in upper or lower case.
fn strip_pci(text: &str) -> Option<&str> {
    let (prefix, rest) = text.split_at_checked(4)?;
    prefix.eq_ignore_ascii_case("pci_").then_some(rest)
}

/// A number of at most so many hexadecimal digits, and nothing but digits.
fn hexadecimal(digits: &str, most: usize) -> Option<u32> {
    let fits = (1..=most).contains(&digits.len());
    (fits && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

impl Serialize for PciAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::PciAddress;

    fn address(text: &str) -> PciAddress {
        text.parse().expect(text)
    }

    #[test]
    fn every_written_form_is_the_same_address() {
        for (text, shown) in [
            ("0009:01:00.0", "0009:01:00.0"),
            ("0009:01:00.0", "0009:01:00.0"),
            ("00000009:01:00.0", "0009:01:00.0"),
            ("9:1:0.0", "0009:01:00.0"),
            ("01:00.0", "0000:01:00.0"),
            ("000A:C1:1F.7", "000a:c1:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
            ("ffffffff:ff:1f.7", "ffffffff:ff:1f.7"),
            ("pci_0009_01_00_0", "0009:01:00.0"),
            ("pci_10000_e1_00_0", "10000:e1:00.0"),
            ("PCI_0009_C1_00_0", "0009:c1:00.0"),
        ] {
            assert_eq!(address(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_address() {
        for text in [
            "",
            ".",
            ":",
            "::.",
            "0009:01:00",
            "0009:01:00.",
            "0009:01:00.8",
            "0009:01:20.0",
            "0009:100:00.0",
            "100000000:01:00.0",
            "0009:01:00.0 ",
            " 0009:01:00.0",
            "+9:01:00.0",
            "0009:-1:00.0",
            "0009:01:00.0.0",
            "1:0009:01:00.0",
            "pci_0009_01_00",
            "pci_",
            "pci_0009_01_00_0_0",
            "0009_01_00_0",
            "٣:01:00.0",
            "egm4",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?} was read as an address");
        }
    }

    #[test]
    fn only_the_kernels_own_form_is_a_name_in_sysfs() {
        assert_eq!(PciAddress::from_kernel_name("0009:01:00.0"), Some(address("0009:01:00.0")));
        assert_eq!(PciAddress::from_kernel_name("10000:e1:00.0"), Some(address("10000:e1:00.0")));
        for name in ["", "0", "power", "01:00.0", "9:1:0.0", "000A:01:00.0", "00009:01:00.0"] {
            assert_eq!(PciAddress::from_kernel_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_slip_is_led_to_the_address_that_was_meant() {
        let known = ["0008:01:00.0", "0009:01:00.0", "0018:01:00.0", "0019:01:00.0"].map(address);
        for (typed, meant) in [
            ("0000:09:01.0", Some("0009:01:00.0")),
            ("0000:19:01.0", Some("0019:01:00.0")),
            ("01:00.0", Some("0008:01:00.0")),
            ("0009:01:00.1", Some("0009:01:00.0")),
            ("0019:06:00.0", Some("0019:01:00.0")),
            ("abcd:ef:1f.7", None),
        ] {
            assert_eq!(address(typed).nearest(&known), meant.map(address), "{typed}");
        }
        assert_eq!(address("0009:01:00.0").nearest(&[]), None);
    }
}
