//! The udev rules that let QEMU open the regions' devices: their contents, the combined effect of a
//! host's rules, and whether its device nodes match it.
//!
//! The rules are in `udev-rules/60-egm.rules`.

mod effective;
#[cfg(feature = "cli")]
pub(crate) mod file;
mod host_rules;
mod line;
mod links;
mod nodes;
mod redact;
mod settings;
#[cfg(feature = "cli")]
pub(crate) mod udevadm;

pub(crate) use effective::{Effective, Given, RulePlace};
pub(crate) use host_rules::{FILE_NAME, HostRules, Shadowed};
pub(crate) use links::links;
#[cfg(feature = "cli")]
pub(crate) use nodes::nodes;
pub(crate) use nodes::{Asked, Got, RegionNode, open_to_all};
pub(crate) use redact::redact;
pub(crate) use settings::{AccountName, Helper, Label, Mode, Settings};
