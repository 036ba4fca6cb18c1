//! The dialects of libvirt's domain XML for EGM and other parts of a Grace guest.

use std::fmt;
use std::str::FromStr;

use crate::values::named;

named! {
    /// A libvirt that spells elements of a Grace guest in its own way.
    ///
    /// ```
    /// use egm_probe::domain::Dialect;
    ///
    /// assert_eq!("nvidia-11.9".parse(), Ok(Dialect::Nvidia11_9));
    /// assert_eq!(Dialect::default().to_string(), "nvidia-12.4");
    /// ```
    #[derive(Default)]
    #[allow(non_camel_case_types)] // 12.4 is a version.
    #[non_exhaustive]
    pub enum Dialect {
        /// NVIDIA's libvirt 12.4.0+nvidia-stable1 and later.
        #[default]
        Nvidia12_4 = "nvidia-12.4",
        /// NVIDIA's libvirt 11.9.0+nvidia4 and similar.
        Nvidia11_9 = "nvidia-11.9",
        /// Released libvirt, which does not support EGM.
        Upstream = "upstream",
    }
}

/// An unknown dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected nvidia-12.4, nvidia-11.9 or upstream")]
pub struct BadDialect;

impl Dialect {
    /// The attribute of the `<driver>` of an `SMMUv3` for process address space ids: `ssidSize='20'` and
    /// `ssidsize='20'` give their width, `pasid='on'` the widest.
    #[must_use]
    pub fn pasid_attribute(self) -> &'static str {
        match self {
            Self::Nvidia12_4 => "ssidSize",
            Self::Nvidia11_9 => "pasid",
            Self::Upstream => "ssidsize",
        }
    }

    /// Whether this libvirt has `<memory model='egm'>`.
    #[must_use]
    pub fn supports_egm(self) -> bool {
        self != Self::Upstream
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dialect {
    type Err = BadDialect;

    fn from_str(text: &str) -> Result<Self, BadDialect> {
        Self::ALL.iter().copied().find(|dialect| dialect.name() == text).ok_or(BadDialect)
    }
}
