//! The output of `watch`: a line for each change.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;

use super::{json, or_dash};
use crate::report::Event;
use crate::values::text::printable;
use crate::values::{Moment, PciAddress};

/// Writes an event as text; without a time for a recorded host.
pub(crate) fn write(out: &mut dyn Write, event: &Event, time: Option<Moment>) -> io::Result<()> {
    let time = time.map_or(String::new(), |time| format!("{time}  "));
    writeln!(out, "{time}{}", printable(&in_words(event)))
}

fn in_words(event: &Event) -> String {
    let list = |gpus: &BTreeSet<PciAddress>| {
        let gpus: Vec<_> = gpus.iter().map(ToString::to_string).collect();
        if gpus.is_empty() { "-".to_owned() } else { gpus.join(", ") }
    };
    match event {
        Event::RegionAdded { region, size, gpus } => {
            format!("{region}  added: {}, GPUs {}", or_dash(*size), list(gpus))
        }
        Event::RegionRemoved { region } => format!("{region}  removed"),
        Event::RegionChanged { region, size, gpus } => {
            format!("{region}  changed: {}, GPUs {}", or_dash(*size), list(gpus))
        }
        Event::PermissionChanged { region, before, now } => {
            format!(
                "{region}  permission: {}, was {}",
                or_dash(now.as_ref()),
                or_dash(before.as_ref())
            )
        }
        Event::GpuBound { gpu, driver } => format!("GPU {gpu}  bound to {driver}"),
        Event::GpuUnbound { gpu, driver } => format!("GPU {gpu}  unbound from {driver}"),
        Event::GpuAdded { gpu, driver: Some(driver) } => {
            format!("GPU {gpu}  added: driver {driver}")
        }
        Event::GpuAdded { gpu, driver: None } => format!("GPU {gpu}  added"),
        Event::GpuRemoved { gpu } => format!("GPU {gpu}  removed"),
        Event::HolderCame { region, holder } => format!("{region}  acquired by {holder}"),
        Event::HolderWent { region, holder } => format!("{region}  released by {holder}"),
        Event::StateChanged { region, before, now } => {
            format!("{region}  {}, was {}", now.name(), before.name())
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    time: Option<Moment>,
    #[serde(flatten)]
    event: &'a Event,
}

/// Writes a line of JSON, `egm-probe.watch/1`.
pub(crate) fn write_json(
    out: &mut dyn Write,
    event: &Event,
    time: Option<Moment>,
) -> io::Result<()> {
    let line = serde_json::to_string(&Line { schema: "egm-probe.watch/1", time, event })?;
    json::write_line(out, &line)
}
