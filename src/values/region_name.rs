//! Names of regions, in natural order.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a region: `egm` and a number.
///
/// The number is the device's minor number, and usually the proximity domain that ACPI assigns to
/// the region. It is neither an index nor a NUMA node. Names sort in natural order: `egm4` before
/// `egm10`.
///
/// ```
/// use egm_probe::values::RegionName;
///
/// let mut names: Vec<RegionName> = ["egm10", "egm4"].map(|name| name.parse().unwrap()).into();
/// names.sort();
/// assert_eq!(names[0].as_str(), "egm4");
/// assert!("egm".parse::<RegionName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegionName(String);

/// Invalid region name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: invalid region name (expected a name such as egm4)")]
pub struct BadRegionName(String);

impl RegionName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits without leading zeros: the number with more digits is larger.
    fn digits(&self) -> &str {
        self.0.trim_start_matches("egm").trim_start_matches('0')
    }
}

impl FromStr for RegionName {
    type Err = BadRegionName;

    fn from_str(text: &str) -> Result<Self, BadRegionName> {
        match text.strip_prefix("egm") {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(BadRegionName(crate::values::text::printable(text))),
        }
    }
}

impl Ord for RegionName {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |name: &Self| (name.digits().len(), name.digits().to_owned(), name.0.len());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for RegionName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for RegionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for RegionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RegionName;

    #[test]
    fn names_are_in_natural_order_however_long_their_numbers() {
        let mut names = ["egm10", "egm99999999999999999999", "egm4", "egm05", "egm5", "egm0"]
            .map(|name| name.parse::<RegionName>().expect(name));
        names.sort();
        let sorted: Vec<_> = names.iter().map(RegionName::as_str).collect();
        assert_eq!(sorted, ["egm0", "egm4", "egm5", "egm05", "egm10", "egm99999999999999999999"]);
    }

    #[test]
    fn a_name_is_egm_and_digits() {
        for text in
            ["", "egm", "egm4a", "egm-4", "egm 4", "xegm4", "EGM4", "egm_ctl", "egm٤", "egm4/"]
        {
            assert!(text.parse::<RegionName>().is_err(), "{text}");
        }
    }
}
