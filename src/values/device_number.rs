//! Numbers of devices.

use std::fmt;
use std::str::FromStr;

use crate::values::numbers::decimal;

/// Major and minor number of a device, `510:4` in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Number of the driver.
    pub major: u32,
    /// Number of the device.
    pub minor: u32,
}

/// Invalid device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a device number such as 510:4")]
pub struct BadDeviceNumber;

impl FromStr for DeviceNumber {
    type Err = BadDeviceNumber;

    fn from_str(text: &str) -> Result<Self, BadDeviceNumber> {
        let (major, minor) = text.split_once(':').ok_or(BadDeviceNumber)?;
        let number = |digits| decimal(digits).ok_or(BadDeviceNumber);
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceNumber;

    #[test]
    fn device_numbers_are_two_decimals() {
        assert_eq!("510:4".parse(), Ok(DeviceNumber { major: 510, minor: 4 }));
        for text in ["", "510", "510:", ":4", "510:4:1", "0x1:4", "+1:4", "510: 4", "4294967296:0"]
        {
            assert!(text.parse::<DeviceNumber>().is_err(), "{text}");
        }
    }
}
