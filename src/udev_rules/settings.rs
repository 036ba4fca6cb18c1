//! Values in the rules. Every value is checked before it gets into a rules file.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::values::text::excerpt;

/// The shipped rules file, used as a template.
const SHIPPED: &str = include_str!("../../udev-rules/60-egm.rules");

/// The permissions in the shipped rules.
const SHIPPED_PERMISSION: &str =
    "SUBSYSTEM==\"egm\", KERNEL==\"egm[0-9]*\", GROUP=\"kvm\", MODE=\"0660\"\n";

/// The program's name in the shipped rules: udev searches for it in its own directory.
const SHIPPED_HELPER: &str = "egm-probe";

/// The permissions that a rule gives to the devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The owner.
    pub(crate) user: AccountName,
    /// The group.
    pub(crate) group: AccountName,
    /// The permission bits.
    pub(crate) mode: Mode,
    /// An `SELinux` label, if required.
    pub(crate) label: Option<Label>,
    /// The program that determines the links.
    pub(crate) helper: Helper,
}

impl Default for Settings {
    /// `root:kvm`, 0660.
    fn default() -> Self {
        Self {
            user: AccountName("root".into()),
            group: AccountName("kvm".into()),
            mode: Mode(0o660),
            label: None,
            helper: Helper(SHIPPED_HELPER.into()),
        }
    }
}

/// The rules, as written to a file.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, group, mode, label, helper } = self;
        let devices = "SUBSYSTEM==\"egm\", KERNEL==\"egm[0-9]*\"";
        let owner = format!("OWNER=\"{user}\", GROUP=\"{group}\", MODE=\"{mode}\"");
        let label = label.as_ref().map(|label| format!("SECLABEL{{selinux}}=\"{label}\""));
        let lines = [Some(owner), label].into_iter().flatten();
        let lines: Vec<_> = lines.map(|given| format!("{devices}, {given}\n")).collect();
        let permission = lines.concat();
        let call = |program: &str| format!("=\"{program} udev ");
        let rules = SHIPPED.replace(SHIPPED_PERMISSION, &permission);
        f.write_str(&rules.replace(&call(SHIPPED_HELPER), &call(&helper.0)))
    }
}

/// A value that cannot be used in a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: invalid value (expected {expected})", excerpt(found, 80))]
pub(crate) struct BadSetting {
    found: String,
    expected: &'static str,
}

/// The name of a user or group, or its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountName(String);

impl AccountName {
    /// The name.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a number, which udev accepts even if no account has it.
    #[must_use]
    pub(crate) fn is_number(&self) -> bool {
        self.0.chars().all(|c| c.is_ascii_digit())
    }
}

impl FromStr for AccountName {
    type Err = BadSetting;

    /// Accepts the same names as useradd(8), also in upper case, and numbers.
    fn from_str(text: &str) -> Result<Self, BadSetting> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        // Numbers that udev accepts: without leading zeros, and not one of the reserved IDs.
        let is_number = text.chars().all(|c| c.is_ascii_digit());
        let number = text.parse::<u32>().ok().filter(|it| it.to_string() == text);
        let is_account = number.is_some_and(|it| it != u32::MAX && it != 0xffff);
        if text.is_empty()
            || (is_number && !is_account)
            || text.starts_with('-')
            || text.len() > 256
            || !text.chars().all(is_plain)
        {
            let expected = "the name of a user or group, such as kvm";
            return Err(BadSetting { found: text.to_owned(), expected });
        }
        Ok(Self(text.to_owned()))
    }
}

/// Permission bits, shown as `0660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(u32);

impl Mode {
    /// Whether all users of the host may read or write.
    #[must_use]
    pub(crate) fn is_open_to_all(self) -> bool {
        self.0 & 0o007 != 0
    }

    /// Whether it can give QEMU access, which opens the device for reading and writing.
    #[must_use]
    pub(crate) fn lets_anybody_in(self) -> bool {
        [0o600, 0o060, 0o006].iter().any(|both| self.0 & both == *both)
    }
}

impl FromStr for Mode {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        let is_octal =
            (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
        let expected = "a mode in octal digits from 0000 to 0777, such as 0660";
        mode.map(Self).ok_or_else(|| BadSetting { found: text.to_owned(), expected })
    }
}

/// An `SELinux` context, `system_u:object_r:svirt_image_t:s0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(String);

impl FromStr for Label {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.,:-".contains(c);
        let parts: Vec<_> = text.splitn(4, ':').collect();
        if parts.len() < 3
            || parts.iter().any(|part| part.is_empty())
            || !text.chars().all(is_plain)
        {
            let expected = "an SELinux context, such as system_u:object_r:svirt_image_t:s0";
            return Err(BadSetting { found: text.to_owned(), expected });
        }
        Ok(Self(text.to_owned()))
    }
}

/// The program that a rule calls to determine the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Helper(String);

impl Helper {
    /// A program given by its path; `None` if the path cannot be used unquoted in a rule.
    #[must_use]
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        // Excludes spaces, which end a word, and characters that udev substitutes.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_.+-".contains(c);
        (path.is_absolute() && text.chars().all(is_plain)).then(|| Self(text.to_owned()))
    }
}

macro_rules! show {
    ($($name:ident)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        })*
    };
}

show!(AccountName Label Helper);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{AccountName, Helper, Label, Mode, SHIPPED, Settings};
    use std::path::Path;

    #[test]
    fn the_rules_are_the_shipped_file_with_values_filled_in() {
        let written = Settings::default().to_string();
        let differs: Vec<_> =
            written.lines().zip(SHIPPED.lines()).filter(|(a, b)| a != b).collect();
        let devices = r#"SUBSYSTEM=="egm", KERNEL=="egm[0-9]*""#;
        let (own, shipped) = (
            format!(r#"{devices}, OWNER="root", GROUP="kvm", MODE="0660""#),
            format!(r#"{devices}, GROUP="kvm", MODE="0660""#),
        );
        assert_eq!(differs, [(own.as_str(), shipped.as_str())]);

        let settings = Settings {
            user: "qemu".parse().unwrap(),
            group: "107".parse().unwrap(),
            mode: "600".parse().unwrap(),
            label: Some("system_u:object_r:svirt_image_t:s0".parse().unwrap()),
            helper: Helper::at(Path::new("/usr/local/bin/egm-probe")).unwrap(),
        };
        let written = settings.to_string();
        for line in [
            format!(r#"{devices}, OWNER="qemu", GROUP="107", MODE="0600""#),
            format!(r#"{devices}, SECLABEL{{selinux}}="system_u:object_r:svirt_image_t:s0""#),
        ] {
            assert!(written.lines().any(|written| written == line), "{line}\n{written}");
        }
        assert!(written.contains(r#"PROGRAM=="/usr/local/bin/egm-probe udev links %k""#));
        assert!(written.contains(r#"RUN+="/usr/local/bin/egm-probe udev refresh""#));
    }

    #[test]
    fn characters_that_end_a_string_are_rejected() {
        for text in ["", "a b", "a\"b", "a\nb", "-a", "a$", "a,b", "ü", "%k", "a/b"] {
            assert!(text.parse::<AccountName>().is_err(), "{text}");
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
        for name in ["kvm", "libvirt-qemu", "_x", "36", "First.Last"] {
            assert!(name.parse::<AccountName>().is_ok(), "{name}");
        }
        for path in ["egm-probe", "/a b", "/a\"", "/a%k", "/a$b", "/ü"] {
            assert!(Helper::at(Path::new(path)).is_none(), "{path}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!("660".parse::<Mode>().unwrap().to_string(), "0660");
        for text in ["9999", "1660", "66", "", "0o660", "+660", "00660", "rw-rw----", "4755"] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
        let mode = |text: &str| text.parse::<Mode>().unwrap();
        assert!(mode("0666").is_open_to_all() && mode("0661").is_open_to_all());
        assert!(!mode("0660").is_open_to_all());
        assert!(mode("0660").lets_anybody_in() && !mode("0440").lets_anybody_in());
    }
}
