//! What a person or a script reads: tables, plain text and JSON. Writers only; nothing here
//! reads a host.

pub mod capture;
pub mod columns;
#[cfg(feature = "cli")]
pub(crate) mod doctor;
#[cfg(feature = "cli")]
pub(crate) mod findings;
pub mod json;
pub mod metrics;
pub mod show;
pub mod stanza;
pub mod svg;
#[cfg(feature = "cli")]
pub mod table;
pub mod topology;
#[cfg(feature = "cli")]
pub(crate) mod udev;
#[cfg(feature = "cli")]
pub(crate) mod watch;

use std::borrow::Cow;

/// A value, or the `-` that stands for unknown.
fn or_dash<T: ToString>(value: Option<T>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed("-"), |value| Cow::Owned(value.to_string()))
}
