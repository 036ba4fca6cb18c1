//! The PCIe link that a function supports, from `max_link_speed` and `max_link_width` in sysfs.

use crate::host::sysfs::DeviceDir;
use crate::values::named;
use crate::values::numbers::decimal;
use crate::warning::Warning;

/// The fastest link that a function supports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PcieLink {
    /// Its speed.
    pub speed: Option<LinkSpeed>,
    /// Its number of lanes, from 1 to 254.
    pub width: Option<u8>,
}

named! {
    /// The speed of a PCIe link; its name is the rate in GT/s (`pci_speed_string`,
    /// drivers/pci/probe.c).
    #[non_exhaustive]
    pub enum LinkSpeed {
        /// 2.5 GT/s, generation 1.
        Gen1 = "2.5",
        /// 5 GT/s, generation 2.
        Gen2 = "5",
        /// 8 GT/s, generation 3.
        Gen3 = "8",
        /// 16 GT/s, generation 4.
        Gen4 = "16",
        /// 32 GT/s, generation 5.
        Gen5 = "32",
        /// 64 GT/s, generation 6.
        Gen6 = "64",
    }
}

impl LinkSpeed {
    /// The value of the property `x-speed` of QEMU's root ports (`PCIELinkSpeed`,
    /// qapi/common.json): the rate, with an underscore for the point.
    #[must_use]
    pub fn qemu_name(self) -> &'static str {
        match self {
            Self::Gen1 => "2_5",
            _ => self.name(),
        }
    }

    /// `32.0 GT/s PCIe`, or without `PCIe` in older kernels.
    fn parse(text: &str) -> Option<Self> {
        let rate = text.strip_suffix(" PCIe").unwrap_or(text).strip_suffix(" GT/s")?;
        let rate = rate.strip_suffix(".0").unwrap_or(rate);
        Self::ALL.iter().copied().find(|speed| speed.name() == rate)
    }
}

impl PcieLink {
    /// Reads both attributes. Only PCIe functions have them.
    pub(super) fn read(dir: &DeviceDir, warnings: &mut Vec<Warning>) -> Self {
        let speed = |text: &str| match text {
            "Unknown" | "Unknown speed" => Some(None),
            _ => LinkSpeed::parse(text).map(Some),
        };
        let expected = "the speed of a PCIe link such as 32.0 GT/s PCIe";
        let speed = dir.value("max_link_speed", expected, speed, warnings).flatten();
        // The kernel shows 255 for a link of unknown width (`PCIE_LNK_WIDTH_UNKNOWN`,
        // include/linux/pci.h), and 0 for one without lanes.
        let width = |text: &str| {
            decimal::<u8>(text).map(|lanes| Some(lanes).filter(|lanes| !matches!(lanes, 0 | 255)))
        };
        let expected = "the number of lanes of a PCIe link";
        let width = dir.value("max_link_width", expected, width, warnings).flatten();
        Self { speed, width }
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceDir, LinkSpeed, PcieLink};
    use crate::sysroot::Sysroot;
    use crate::warning::Warning;
    use std::fs;

    /// The link of a function with these attributes, and the number of warnings.
    fn link(speed: Option<&str>, width: Option<&str>) -> (PcieLink, usize) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("max_link_speed", speed), ("max_link_width", width)] {
            if let Some(text) = text {
                fs::write(folder.path().join(name), format!("{text}\n")).unwrap();
            }
        }
        let root = Sysroot::directory(folder.path()).unwrap();
        let mut warnings: Vec<Warning> = Vec::new();
        let link = PcieLink::read(&DeviceDir::new(&root, "/"), &mut warnings);
        (link, warnings.len())
    }

    #[test]
    fn speeds_are_rates_without_a_unit() {
        for (text, name, qemu) in [
            ("2.5 GT/s PCIe", "2.5", "2_5"),
            ("5.0 GT/s PCIe", "5", "5"),
            ("8.0 GT/s PCIe", "8", "8"),
            ("8 GT/s", "8", "8"),
            ("16.0 GT/s PCIe", "16", "16"),
            ("32.0 GT/s PCIe", "32", "32"),
            ("64.0 GT/s PCIe", "64", "64"),
        ] {
            let (link, warnings) = link(Some(text), None);
            let speed = link.speed.unwrap();
            assert_eq!((speed.name(), speed.qemu_name(), warnings), (name, qemu, 0), "{text}");
        }
    }

    #[test]
    fn speeds_may_be_unknown() {
        for (text, warnings) in [
            (None, 0),
            (Some("Unknown"), 0),
            (Some("Unknown speed"), 0),
            (Some(""), 1),
            (Some("32.0"), 1),
            (Some("32.5 GT/s PCIe"), 1),
            (Some("-2.5 GT/s PCIe"), 1),
            (Some("99999999999999999999.0 GT/s PCIe"), 1),
        ] {
            assert_eq!(link(text, None), (PcieLink::default(), warnings), "{text:?}");
        }
    }

    #[test]
    fn widths_of_0_and_255_are_unknown() {
        for (text, width, warnings) in [
            (Some("1"), Some(1), 0),
            (Some("16"), Some(16), 0),
            (None, None, 0),
            (Some("0"), None, 0),
            (Some("255"), None, 0),
            (Some("256"), None, 1),
            (Some("+1"), None, 1),
            (Some("x16"), None, 1),
            (Some(""), None, 1),
        ] {
            let expected = (PcieLink { speed: None, width }, warnings);
            assert_eq!(link(None, text), expected, "{text:?}");
        }
        let both = link(Some("16.0 GT/s PCIe"), Some("4"));
        assert_eq!(both, (PcieLink { speed: Some(LinkSpeed::Gen4), width: Some(4) }, 0));
    }
}
