//! Amounts of memory.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::values::text::excerpt;

/// An amount of memory in bytes.
///
/// Displayed in the largest binary unit that leaves a number of at least 1, rounded to a tenth. Use
/// the number itself if the exact amount matters.
///
/// ```
/// use egm_probe::values::Bytes;
///
/// assert_eq!(Bytes(479_962_595_328).to_string(), "447 GiB");
/// assert_eq!(Bytes(56_896 << 20).to_string(), "55.6 GiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Size of EGM devices in multiples of this: libvirt rounds the size of each memory device up to
/// it, which would make the sums of the cells wrong (`qemuDomainGetMemoryModuleSizeAlignment`,
/// `src/qemu/qemu_domain.c`).
pub const SIZE_STEP: Bytes = Bytes(2 << 20);

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths_in = |power: usize| {
            let unit = 1_u128 << (10 * power);
            (u128::from(self.0) * 10 + unit / 2) / unit
        };
        let mut power = self.0.checked_ilog2().map_or(0, |bits| bits as usize / 10);
        // 1 MiB minus one byte is shown as 1 MiB, not as 1024 KiB.
        if tenths_in(power) == 1024 * 10 {
            power += 1;
        }
        let tenths = tenths_in(power);
        let unit = UNITS.get(power).unwrap_or(&"B");
        if tenths.is_multiple_of(10) {
            f.pad(&format!("{} {unit}", tenths / 10))
        } else {
            f.pad(&format!("{}.{} {unit}", tenths / 10, tenths % 10))
        }
    }
}

impl Bytes {
    /// The amount as a quantity of Kubernetes, in its canonical form: a whole number of the largest
    /// power of 1024 (`resource.Quantity`).
    ///
    /// ```
    /// use egm_probe::values::Bytes;
    ///
    /// assert_eq!(Bytes(479_962_595_328).quantity(), "447Gi");
    /// assert_eq!(Bytes(479_962_595_329).quantity(), "479962595329");
    /// ```
    #[must_use]
    pub fn quantity(self) -> String {
        let (mut number, mut unit) = (self.0, "");
        for larger in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
            if number == 0 || !number.is_multiple_of(1024) {
                break;
            }
            (number, unit) = (number / 1024, larger);
        }
        format!("{number}{unit}")
    }
}

/// A size as in libvirt's XML: a number and a unit, KiB by default.
///
/// `K` and `KiB` are 1024 bytes, `KB` is 1000; case is ignored (`virScaleInteger`,
/// src/util/virutil.c). The number may have a plus sign, but no spaces.
///
/// ```
/// use egm_probe::values::{Bytes, parse_libvirt};
///
/// assert_eq!(parse_libvirt("8388608", None), Some(Bytes(8 << 30)));
/// assert_eq!(parse_libvirt("8", Some("GiB")), Some(Bytes(8 << 30)));
/// assert_eq!(parse_libvirt("8", Some("GB")), Some(Bytes(8_000_000_000)));
/// assert_eq!(parse_libvirt("8 GiB", None), None);
/// ```
#[must_use]
pub fn parse_libvirt(number: &str, unit: Option<&str>) -> Option<Bytes> {
    let digits = number.strip_prefix('+').unwrap_or(number);
    let number = crate::values::numbers::decimal::<u64>(digits)?;
    let unit = unit.unwrap_or("KiB").to_ascii_lowercase();
    let scale = match unit.as_str() {
        "b" | "byte" | "bytes" => 1,
        _ => {
            let (letter, rest) = unit.split_at_checked(1)?;
            let base: u64 = match rest {
                "" | "ib" => 1024,
                "b" => 1000,
                _ => return None,
            };
            base.pow(match letter {
                "k" => 1,
                "m" => 2,
                "g" => 3,
                "t" => 4,
                "p" => 5,
                "e" => 6,
                _ => return None,
            })
        }
    };
    number.checked_mul(scale).map(Bytes)
}

/// A size on the command line: a number with a unit in libvirt's or Kubernetes' notation, by
/// default in bytes. Spaces between the two are allowed, fractions are not.
///
/// Kubernetes writes `Ki`, `Mi`, `Gi`, .. for powers of 1024 (its API's `resource.Quantity`).
///
/// # Errors
/// The text is not a size, or a number without a unit that is smaller than any EGM device: the unit
/// was probably forgotten.
///
/// ```
/// use egm_probe::values::{Bytes, parse_option};
///
/// assert_eq!(parse_option("8GiB"), Ok(Bytes(8 << 30)));
/// assert_eq!(parse_option("8G"), Ok(Bytes(8 << 30)));
/// assert_eq!(parse_option("8Gi"), Ok(Bytes(8 << 30)));
/// assert_eq!(parse_option("8589934592"), Ok(Bytes(8 << 30)));
/// assert!(parse_option("8.5G").is_err());
/// assert!(parse_option("8").unwrap_err().to_string().contains("did you mean 8GiB?"));
/// ```
pub fn parse_option(text: &str) -> Result<Bytes, BadSize> {
    let trimmed = text.trim();
    let end = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at_checked(end).unwrap_or_default();
    let unit = unit.trim_start();
    let is_bytes = unit.is_empty() || unit.ends_with(['i', 'I']);
    let full = if is_bytes { format!("{unit}B") } else { unit.to_owned() };
    let size = if number.is_empty() { None } else { parse_libvirt(number, Some(&full)) };
    match size {
        // QEMU takes whole MiB, libvirt more.
        Some(Bytes(size @ 1..0x10_0000)) if unit.is_empty() => Err(BadSize::NoUnit(size)),
        _ => size.ok_or_else(|| BadSize::Invalid(excerpt(text, 80))),
    }
}

/// Invalid size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSize {
    /// Not a size.
    #[error(
        "`{0}`: invalid size (expected a whole number of bytes, or of KiB, MiB, GiB, TiB, KB, MB, GB, TB; K, M, G, T and Ki, Mi, Gi, Ti are powers of 1024)"
    )]
    Invalid(String),
    /// A number of bytes that is smaller than any EGM device.
    #[error("`{0}`: only {0} bytes (did you mean {0}{unit}?)", unit = likely_unit(*.0))]
    NoUnit(u64),
}

/// The unit that was probably meant by a small number.
fn likely_unit(number: u64) -> &'static str {
    if number < 4096 { "GiB" } else { "MiB" }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, parse_libvirt, parse_option};

    #[test]
    fn libvirts_units_are_those_of_libvirt() {
        for (number, unit, bytes) in [
            ("1", None, Some(1024)),
            ("+1", Some("b"), Some(1)),
            ("007", Some("b"), Some(7)),
            (" 1", None, None),
            ("1\n", None, None),
            ("++1", None, None),
            ("1", Some(" KiB"), None),
            ("1", Some("bytes"), Some(1)),
            ("1", Some("k"), Some(1024)),
            ("1", Some("KB"), Some(1000)),
            ("1", Some("mib"), Some(1 << 20)),
            ("1", Some("EB"), Some(1_000_000_000_000_000_000)),
            ("16", Some("EiB"), None),
            ("18446744073709551615", None, None),
            ("-1", None, None),
            ("", None, None),
            ("1", Some(""), None),
            ("1", Some("x"), None),
            ("1", Some("KiBs"), None),
            ("1", Some("\u{fc}B"), None),
        ] {
            assert_eq!(parse_libvirt(number, unit), bytes.map(Bytes), "{number} {unit:?}");
        }
    }

    #[test]
    fn sizes_in_options_are_strict() {
        for (text, bytes) in [
            ("1048576", Some(1 << 20)),
            ("1048575", None),
            ("64", None),
            ("64B", Some(64)),
            ("8GiB", Some(8 << 30)),
            (" 8 GiB ", Some(8 << 30)),
            ("8g", Some(8 << 30)),
            ("234356736Ki", Some(234_356_736 << 10)),
            ("228864Mi", Some(228_864 << 20)),
            ("8 Gi", Some(8 << 30)),
            ("8i", None),
            ("8Bi", None),
            ("8GiBi", None),
            ("8GB", Some(8_000_000_000)),
            ("234356736KiB", Some(234_356_736 << 10)),
            ("0", Some(0)),
            ("", None),
            ("GiB", None),
            ("-1", None),
            ("+1", None),
            ("1.5G", None),
            ("1e3", None),
            ("0x10", None),
            ("8 G iB", None),
            ("16EiB", None),
            ("\u{0663}G", None),
        ] {
            assert_eq!(parse_option(text).ok(), bytes.map(Bytes), "{text}");
        }
    }

    #[test]
    fn a_forgotten_unit_is_suggested() {
        for (text, meant) in [("64", "64GiB"), ("4095", "4095GiB"), ("228864", "228864MiB")] {
            let error = parse_option(text).unwrap_err().to_string();
            assert!(error.ends_with(&format!("(did you mean {meant}?)")), "{error}");
        }
    }

    #[test]
    fn quantities_are_canonical_and_exact() {
        for (bytes, shown) in [
            (0, "0"),
            (1023, "1023"),
            (1 << 10, "1Ki"),
            (1536 << 10, "1536Ki"),
            (228_864 << 20, "228864Mi"),
            (479_962_595_328, "447Gi"),
            (1 << 60, "1Ei"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(Bytes(bytes).quantity(), shown);
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_people_would_use() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            ((1 << 20) - 1, "1 MiB"),
            (479_962_595_328, "447 GiB"),
            (959_925_190_656, "894 GiB"),
            (56_896 << 20, "55.6 GiB"),
            (1 << 40, "1 TiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown, "{bytes} bytes");
        }
    }
}
