//! Output for people and scripts: tables, plain text and JSON. Writers only; nothing here reads a
//! host.

pub mod columns;
#[cfg(feature = "cli")]
pub(crate) mod doctor;
#[cfg(feature = "cli")]
pub(crate) mod errors;
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
use std::collections::BTreeMap;

use crate::host::{Gpu, Host, Region};
use crate::report::{Place, Socket};
use crate::values::{PciAddress, RegionName};

const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

/// A text in a colour, if `paint` is set.
fn painted(text: &str, color: u8, paint: bool) -> String {
    if paint { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The GPUs of a socket that belong to the given region, or to none of the socket's regions.
fn gpus_of<'a>(socket: &'a Socket<'_>, region: Option<&Region>) -> Vec<&'a Place<'a>> {
    let is_here = |name: &RegionName| socket.regions.iter().any(|row| row.region.name == *name);
    let is_wanted = |place: &&Place<'_>| match (region, place.region) {
        (Some(region), own) => own.is_some_and(|own| own.name == region.name),
        (None, own) => !own.is_some_and(|own| is_here(&own.name)),
    };
    socket.gpus.iter().filter(is_wanted).collect()
}

/// Every GPU of a host once, by address, with its region.
fn all_gpus(host: &Host) -> BTreeMap<PciAddress, (&Gpu, Option<&Region>)> {
    // The first region wins.
    let gpus: Vec<_> = host.gpus().collect();
    gpus.into_iter().rev().map(|(gpu, region)| (gpu.address, (gpu, region))).collect()
}

/// A value, or `-` for unknown.
fn or_dash<T: ToString>(value: Option<T>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed("-"), |value| Cow::Owned(value.to_string()))
}
