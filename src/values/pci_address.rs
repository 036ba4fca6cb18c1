//! PCI addresses in every notation that is in use.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The address of a PCI function: domain, bus, slot (device) and function.
///
/// Displayed in the kernel's notation, `0009:01:00.0`; the domain may have more than four digits
/// (those behind a VMD bridge start at `10000`).
///
/// Parsed from the kernel's notation in upper or lower case, without the domain (which is then 0),
/// with eight digits of domain as `nvidia-smi` prints it, and from libvirt's `pci_0009_01_00_0`.
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

/// Invalid PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}`: invalid PCI address (expected an address such as 0009:01:00.0 or pci_0009_01_00_0)"
)]
pub struct BadAddress(String);

impl PciAddress {
    /// An address with these parts; `None` if slot or function is out of range (32 slots, of 8
    /// functions each).
    #[must_use]
    pub fn new(domain: u32, bus: u8, slot: u8, function: u8) -> Option<Self> {
        (slot < 32 && function < 8).then_some(Self { domain, bus, slot, function })
    }

    /// The domain, also called segment.
    #[must_use]
    pub fn domain(&self) -> u32 {
        self.domain
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> u8 {
        self.bus
    }

    /// The slot, also called device: less than 32.
    #[must_use]
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// The function: less than 8.
    #[must_use]
    pub fn function(&self) -> u8 {
        self.function
    }

    /// The address in a name assigned by the kernel, which must be in the kernel's notation.
    #[must_use]
    pub fn from_kernel_name(name: &str) -> Option<Self> {
        // Rejects most names in a directory cheaply.
        if name.as_bytes().get(name.len().checked_sub(2)?) != Some(&b'.') {
            return None;
        }
        name.parse().ok().filter(|address: &Self| address.to_string() == name)
    }

    /// The address intended if every part is one position too far to the right: 0009:01:00.0 for
    /// `0000:09:01.0`. `None` if the domain is not 0.
    #[must_use]
    pub(crate) fn shifted(self) -> Option<Self> {
        let shifted =
            Self { domain: self.bus.into(), bus: self.slot, slot: self.function, function: 0 };
        (self.domain == 0).then_some(shifted)
    }

    /// The address in `known` that was most likely intended, if any is similar.
    ///
    /// The most common typo writes 0009:01:00.0 as `0000:09:01.0`: every part is one position too
    /// far to the right. Otherwise, the address with the fewest different characters.
    #[must_use]
    pub fn nearest<'a>(&self, known: impl IntoIterator<Item = &'a Self>) -> Vec<Self> {
        let known: Vec<_> = known.into_iter().copied().collect();
        if let Some(shifted) = self.shifted().filter(|shifted| known.contains(shifted)) {
            return vec![shifted];
        }
        let typed = self.to_string();
        let distance = |address: &Self| strsim::levenshtein(&typed, &address.to_string());
        let least = known.iter().map(distance).min().filter(|least| *least <= SIMILAR);
        known.into_iter().filter(|address| Some(distance(address)) == least).collect()
    }
}

/// Maximum number of different characters in similar addresses: of the twelve characters, three are
/// punctuation, and most of the others are zeros.
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
        parts.split('_').collect()
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

/// The part after `pci_`, in upper or lower case.
fn strip_pci(text: &str) -> Option<&str> {
    let (prefix, rest) = text.split_at_checked(4)?;
    prefix.eq_ignore_ascii_case("pci_").then_some(rest)
}

/// A number of at most `most` hexadecimal digits.
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
    fn invalid_addresses_are_rejected() {
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
    fn names_in_sysfs_are_in_the_kernels_notation() {
        assert_eq!(PciAddress::from_kernel_name("0009:01:00.0"), Some(address("0009:01:00.0")));
        assert_eq!(PciAddress::from_kernel_name("10000:e1:00.0"), Some(address("10000:e1:00.0")));
        for name in ["", "0", "power", "01:00.0", "9:1:0.0", "000A:01:00.0", "00009:01:00.0"] {
            assert_eq!(PciAddress::from_kernel_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_mistyped_address_gets_a_suggestion() {
        let known = ["0008:01:00.0", "0009:01:00.0", "0018:01:00.0", "0019:01:00.0"].map(address);
        for (typed, meant) in [
            ("0000:09:01.0", &["0009:01:00.0"][..]),
            ("0000:19:01.0", &["0019:01:00.0"]),
            ("01:00.0", &["0008:01:00.0", "0009:01:00.0"]),
            ("0009:01:00.1", &["0009:01:00.0"]),
            ("0019:06:00.0", &["0019:01:00.0"]),
            ("abcd:ef:1f.7", &[]),
        ] {
            let meant: Vec<_> = meant.iter().copied().map(address).collect();
            assert_eq!(address(typed).nearest(&known), meant, "{typed}");
        }
        assert_eq!(address("0009:01:00.0").nearest(&[]), []);
    }
}
