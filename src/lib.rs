//! Discovery of EGM, the Extended GPU Memory of NVIDIA Grace hosts.
//!
//! A Grace host hands a hidden part of each socket's memory, an EGM region with the device node
//! `/dev/egm<N>`, to a virtual machine as its RAM. This library finds the regions and the GPUs and
//! NUMA nodes they belong to, for every generation of the driver.
//!
//! Data flows one way, and each step is a module:
//!
//! * [`values`]: addresses, sizes, lists and names;
//! * [`sysroot`]: the files of a host, running or recorded;
//! * [`host`]: its regions, GPUs and NUMA nodes;
//! * [`claims`]: the holders of a region, and its possible owners;
//! * [`report`]: all of that together: free memory, sockets, changes;
//! * [`plan`]: which GPUs of a virtual machine get which memory;
//! * [`stanza`]: that plan as libvirt's XML and as QEMU's arguments;
//! * [`domain`] and [`check`]: the XML of a virtual machine, and the rules it must follow;
//! * [`export`]: the inventory for other systems;
//! * [`output`]: text for people and scripts.
//!
//! [`capture`] records a host into a file that replays it, and [`doctor`] checks everything from
//! the firmware to QEMU.
//!
//! # Scan
//! Reading a host never fails: unreadable values are unknown, and a [`warning`] gives the reason.
//! Only the parts requested by [`Needs`](host::Needs) are read. Only a capture or another root can
//! be missing or damaged, which is an [`OpenError`](sysroot::OpenError).
//!
//! ```
//! use egm_probe::report::Report;
//! use egm_probe::plan::Plan;
//! use egm_probe::sysroot::Sysroot;
//!
//! // Sysroot::host() is the running host.
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = Sysroot::capture("tests/fixtures/claims-vm".as_ref())?;
//! let report = Report::read(&root, Plan::NEEDS);
//! let egm4 = &report.host.regions[0];
//! assert_eq!(egm4.name.as_str(), "egm4");
//! assert_eq!(egm4.device.path.to_str(), Some("/dev/egm4"));
//! assert_eq!(egm4.gpus[1].address.to_string(), "0009:01:00.0");
//! # Ok(())
//! # }
//! ```
//!
//! # Capacity
//! A region is given to one virtual machine as a whole. Sizes are [bytes](values::Bytes), and
//! `None` if unknown: never 0, and never free.
//!
//! ```
//! # use egm_probe::plan::Plan;
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//! use egm_probe::report::State;
//! use egm_probe::values::Bytes;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = Sysroot::capture("tests/fixtures/claims-vm".as_ref())?;
//! # let report = Report::read(&root, Plan::NEEDS);
//! let found: Vec<_> = report.rows().map(|row| (row.capacity.state, row.capacity.free)).collect();
//! assert_eq!(found[0], (State::InUse, Some(Bytes(0))));
//! assert_eq!(found[1], (State::Free, Some(Bytes(479_962_595_328))));
//! # Ok(())
//! # }
//! ```
//!
//! # Plan
//! A request becomes a plan, or a list of all objections to it.
//!
//! ```
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//! use egm_probe::plan::{Objection, Plan, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = Sysroot::capture("tests/fixtures/claims-vm".as_ref())?;
//! # let report = Report::read(&root, Plan::NEEDS);
//! let plan = Plan::new(&report, &Request::of_regions(["egm5".parse()?]), None)?;
//! assert_eq!(plan.placements.len(), 2, "one for each GPU");
//!
//! let refused = Plan::new(&report, &Request::of_regions(["egm4".parse()?]), None).unwrap_err();
//! assert!(matches!(refused.refusals[..], [Objection::InUse { .. }]));
//! # Ok(())
//! # }
//! ```
//!
//! # Emit
//! Output has passed the check: as XML on its own or merged into a domain, or as QEMU's arguments.
//!
//! ```
//! # use egm_probe::plan::{Plan, Request};
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//! use egm_probe::stanza::{Options, Parts, Stanza};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = Sysroot::capture("tests/fixtures/claims-vm".as_ref())?;
//! # let report = Report::read(&root, Plan::NEEDS);
//! # let plan = Plan::new(&report, &Request::of_regions(["egm5".parse()?]), None)?;
//! let stanza = Stanza::new(&report, plan, &Options::of(Parts::all()))?;
//! assert!(stanza.xml.contains("<memory model='egm' access='shared'>"));
//! assert!(stanza.qemu_arguments()?.iter().any(|(option, _)| *option == "-numa"));
//! # Ok(())
//! # }
//! ```
//!
//! # Check
//! A domain from another program is checked against the same rules in one call: those of libvirt
//! and QEMU, those of the host if there is one, and libvirt's schema.
//!
//! ```
//! use egm_probe::check::{self, CheckOptions, Severity, validate};
//! use egm_probe::domain::{Document, line_and_column};
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = Sysroot::capture("tests/fixtures/gb200-full-gpu-list".as_ref())?;
//! let report = Report::read(&root, check::NEEDS);
//! let bad = "tests/fixtures/domains/bad/gb200-full-gpu-list/cell-too-large.xml";
//! let text = std::fs::read_to_string(bad)?;
//!
//! let host = CheckOptions { report: Some(&report), root: Some(&root), ..Default::default() };
//! let finding = &validate(&Document::parse(&text)?, &host)?[0];
//! assert_eq!((finding.rule.code, finding.severity), ("EGM011", Severity::Error));
//! assert_eq!(line_and_column(&text, finding.span.start), (20, 40));
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here ever opens `/dev/egm<N>`: the driver would clear the whole region.
//!
//! # Features
//! `cli` (default) is the command line, `udev` (default) queries libudev for device links.

// No input may crash the program.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

pub mod capture;
pub mod check;
pub mod claims;
pub mod doctor;
pub mod domain;
pub mod export;
pub mod host;
pub mod output;
pub mod plan;
pub mod report;
pub mod stanza;
pub mod sysroot;
pub mod values;
pub mod warning;

/// The command line, for `main` only; its contents are not a stable API.
#[cfg(feature = "cli")]
#[doc(hidden)]
// Help texts of clap are not HTML.
#[allow(rustdoc::invalid_html_tags)]
pub mod cli;

/// The README's examples are tested as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(feature = "cli")]
mod files;
#[cfg(feature = "cli")]
mod leases;
// Without the command line nothing writes rules, and the checks only read them.
#[cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]
mod udev_rules;
