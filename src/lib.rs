//! Discovery of EGM, the Extended GPU Memory of NVIDIA Grace hosts.
//!
//! A Grace host hands a hidden part of each socket's memory, an EGM region with the device node
//! `/dev/egm<N>`, to a virtual machine as its RAM. This library finds the regions, the GPUs and
//! the NUMA nodes they belong to, whatever the generation of the driver.
//!
//! Data flows one way, and each step is a module:
//!
//! * [`values`]: addresses, sizes, lists and names;
//! * [`sysroot`]: the files of a host, running or recorded;
//! * [`host`]: its regions, GPUs and NUMA nodes;
//! * [`claims`]: who holds a region, and whose it may become;
//! * [`report`]: all of that together: what is free, what belongs together, what has changed;
//! * [`plan`]: which GPUs of a virtual machine get which memory;
//! * [`stanza`]: that plan as libvirt's XML and as QEMU's arguments;
//! * [`domain`] and [`check`]: the XML of a virtual machine, and the rules that it must keep;
//! * [`output`]: what a person or a script reads.
//!
//! [`capture`] records a host into a file that replays it, and [`doctor`] checks the way from the
//! firmware to QEMU.
//!
//! # Scan
//! Reading a host never fails: what cannot be read is unknown, and a [`warning`] says why. What is
//! not asked for by [`Needs`](host::Needs) is not read. Only a capture or another root can be
//! missing or damaged, which is an [`OpenError`](sysroot::OpenError).
//!
//! ```
//! use egm_probe::report::Report;
//! use egm_probe::plan::Plan;
//! use egm_probe::sysroot::Sysroot;
//!
//! // Sysroot::host() is the running one.
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = Sysroot::capture("tests/fixtures/claims-vm/host.tar.gz".as_ref())?;
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
//! A region is one virtual machine's as a whole or nobody's. Sizes are [bytes](values::Bytes), and
//! `None` where they are not known: never 0, and never free.
//!
//! ```
//! # use egm_probe::plan::Plan;
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//! use egm_probe::report::State;
//! use egm_probe::values::Bytes;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = Sysroot::capture("tests/fixtures/claims-vm/host.tar.gz".as_ref())?;
//! # let report = Report::read(&root, Plan::NEEDS);
//! let found: Vec<_> = report.rows().map(|row| (row.capacity.state, row.capacity.free)).collect();
//! assert_eq!(found[0], (State::InUse, Some(Bytes(0))));
//! assert_eq!(found[1], (State::Free, Some(Bytes(479_962_595_328))));
//! # Ok(())
//! # }
//! ```
//!
//! # Plan
//! A request becomes a plan, or a list of all that speaks against it.
//!
//! ```
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//! use egm_probe::plan::{Objection, Plan, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = Sysroot::capture("tests/fixtures/claims-vm/host.tar.gz".as_ref())?;
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
//! What is written has passed the check: as XML by itself or within a domain, or as QEMU's
//! arguments.
//!
//! ```
//! # use egm_probe::plan::{Plan, Request};
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//! use egm_probe::stanza::{Options, Parts, Stanza};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = Sysroot::capture("tests/fixtures/claims-vm/host.tar.gz".as_ref())?;
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
//! A domain that another program wrote is checked against the same rules, in one call: those of
//! libvirt and QEMU, of the host if there is one, and libvirt's schema.
//!
//! ```
//! use egm_probe::check::{self, CheckOptions, Severity, validate};
//! use egm_probe::domain::{Document, line_and_column};
//! # use egm_probe::report::Report;
//! # use egm_probe::sysroot::Sysroot;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = Sysroot::capture("tests/fixtures/gb200-full-gpu-list/host.tar.gz".as_ref())?;
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
//! `cli` (default) is the command line, `udev` (default) asks libudev for device links.

// No input may end the program other than by an exit code.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

pub mod capture;
pub mod check;
pub mod claims;
pub mod doctor;
pub mod domain;
pub mod host;
pub mod output;
pub mod plan;
pub mod report;
pub mod stanza;
pub mod sysroot;
pub mod values;
pub mod warning;

/// The command line, for `main` alone: no promise is made of what is in it.
#[cfg(feature = "cli")]
#[doc(hidden)]
// What clap prints as help is no HTML.
#[allow(rustdoc::invalid_html_tags)]
pub mod cli;

/// The README's examples are tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(feature = "cli")]
mod files;
#[cfg(feature = "cli")]
mod leases;
// Without the command line nobody writes rules, and the checks need no more than to read them.
#[cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]
mod udev_rules;
