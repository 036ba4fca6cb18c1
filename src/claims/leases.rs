//! Leases: what scripts tell each other of regions that they are about to use. A word among scripts,
//! not a lock on the kernel.
//!
//! A lease is a file in `/run/egm-probe`, one a region, and several that were taken together are
//! there together or not at all: each names all of them, and counts only while each of those has a
//! lease for the same virtual machine. So the last file that is written makes all of them count, and
//! the first that is removed makes none of them count, wherever a program may be killed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};

use crate::host::RegionName;
use crate::pause::pause;
use crate::sysroot::{Sysroot, unless_gone};
use crate::text::is_plain;
use crate::warning::Warning;

/// Where leases are, below the root.
pub const DIRECTORY: &str = "/run/egm-probe";

/// What the name of a lease's file ends with: `egm4.lease`.
pub(crate) const SUFFIX: &str = ".lease";

/// The longest name of a virtual machine that is taken; libvirt's own limit is that of a file name.
const NAME_LIMIT: usize = 200;

/// More leases than that are an error: of hosts that have any regions most have two.
const LEASES_LIMIT: usize = 1024;

/// How often leases are read that somebody is writing, and the pause between.
const READS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// A moment, in whole seconds since 1970 (UTC). Shown as `2026-11-23T14:30:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment; 0 where the clock is before 1970.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_secs()))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The last second of the year 9999: there is no later one in this format.
        const LAST: u64 = 253_402_300_799;
        let time = UNIX_EPOCH + Duration::from_secs(self.0.min(LAST));
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a lease's file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseFile {
    pub(crate) schema: String,
    /// The virtual machine's name.
    pub(crate) domain: String,
    /// Seconds since 1970.
    pub(crate) expires: u64,
    /// All regions that were taken together.
    pub(crate) regions: Vec<String>,
}

/// The kind and version of a lease's file.
pub(crate) const SCHEMA: &str = "egm-probe.lease/1";

/// A lease that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseClaim {
    /// Whom the region is kept for.
    pub domain: String,
    /// Until when.
    pub expires: Moment,
}

impl LeaseClaim {
    /// A region kept for somebody until then.
    #[must_use]
    pub fn new(domain: impl Into<String>, expires: Moment) -> Self {
        Self { domain: domain.into(), expires }
    }
}

/// What the leases of a root come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    /// Those that count.
    pub(crate) valid: BTreeMap<RegionName, LeaseFile>,
    /// Regions of which it is not known whether they are leased.
    pub(crate) broken: BTreeMap<RegionName, Warning>,
    /// Files that do not count any more, or never came to count.
    pub(crate) stale: Vec<(RegionName, Warning)>,
    /// Why nothing is known of any region's lease.
    pub(crate) unread: Option<Warning>,
}

impl Leases {
    /// Reads them. On the running host somebody may be writing meanwhile: then again.
    pub(crate) fn read(root: &Sysroot, now: Moment) -> Self {
        let most = if root.is_host() { READS } else { 1 };
        let mut reads = 1;
        loop {
            let (leases, is_unsettled) = Self::read_once(root, now);
            if !is_unsettled || reads == most {
                return leases;
            }
            reads += 1;
            pause(PAUSE);
        }
    }

    /// The leases, and whether some are there without the others that they were taken with.
    pub(crate) fn read_once(root: &Sysroot, now: Moment) -> (Self, bool) {
        let mut leases = Self::default();
        let mut read = BTreeMap::new();
        let files = files(root).unwrap_or_else(|unread| {
            leases.unread = Some(unread);
            Vec::new()
        });
        for (region, path) in files {
            // Whoever takes a lease that is there for none takes what somebody else has.
            match unless_gone(|| root.read_text(&path)) {
                Ok(text) => match parse(&text, &region) {
                    Ok(file) => _ = read.insert(region, (path, file)),
                    Err(expected) => {
                        let warning = Warning::Malformed { path, found: text, expected };
                        leases.broken.insert(region, warning);
                    }
                },
                Err(error) if error.is_absent() => {}
                Err(error) => _ = leases.broken.insert(region, Warning::unreadable(&error)),
            }
        }
        let mut is_unsettled = false;
        let mut broken_with = Vec::new();
        for (region, (path, file)) in &read {
            let is_with = |other: &String| {
                let other = other.parse::<RegionName>().ok().and_then(|name| read.get(&name));
                other.is_some_and(|(_, other)| other.domain == file.domain && other.expires > now.0)
            };
            let is_whole = file.regions.iter().all(is_with);
            let with = || file.regions.iter().filter_map(|name| name.parse::<RegionName>().ok());
            let with_broken = with().find_map(|name| leases.broken.get(&name).cloned());
            if file.expires <= now.0 {
                let (path, domain) = (path.clone(), file.domain.clone());
                let expired = Moment(file.expires);
                let warning = Warning::LeaseExpired { path, domain, expired };
                leases.stale.push((region.clone(), warning));
            } else if is_whole {
                leases.valid.insert(region.clone(), file.clone());
            } else if let Some(problem) = with_broken {
                // It may count: that is not to be known.
                broken_with.push((region.clone(), problem));
            } else {
                is_unsettled = true;
                let (path, domain) = (path.clone(), file.domain.clone());
                leases.stale.push((region.clone(), Warning::LeaseHalf { path, domain }));
            }
        }
        leases.broken.extend(broken_with);
        (leases, is_unsettled)
    }
}

/// The files of leases, by region.
fn files(root: &Sysroot) -> Result<Vec<(RegionName, PathBuf)>, Warning> {
    let names = match root.entries(DIRECTORY) {
        Ok(names) => names,
        // Nobody has ever taken one; but for what is there and no directory.
        Err(error) if error.is_absent() && root.stat(DIRECTORY).is_err() => Vec::new(),
        Err(error) => return Err(Warning::unreadable(&error)),
    };
    let region = |name: &String| name.strip_suffix(SUFFIX)?.parse::<RegionName>().ok();
    let file = |name: String| Some((region(&name)?, PathBuf::from(format!("{DIRECTORY}/{name}"))));
    let files: Vec<_> = names.into_iter().filter_map(file).collect();
    if files.len() > LEASES_LIMIT {
        let cause = format!("more than {LEASES_LIMIT} leases");
        return Err(Warning::Unreadable { path: DIRECTORY.into(), cause });
    }
    Ok(files)
}

/// Reads a file; what would be right where it is wrong.
fn parse(text: &str, region: &RegionName) -> Result<LeaseFile, &'static str> {
    let file: LeaseFile = serde_json::from_str(text).map_err(|_| "a lease of egm-probe's")?;
    if file.schema != SCHEMA {
        return Err("a lease of the kind egm-probe.lease/1");
    }
    if !is_name(&file.domain) {
        return Err("a lease for somebody with a name");
    }
    if file.regions.iter().any(|name| name.parse::<RegionName>().is_err()) {
        return Err("a lease of regions, such as egm4");
    }
    if !file.regions.iter().any(|name| name == region.as_str()) {
        return Err("a lease of the region that the file is named after");
    }
    Ok(file)
}

/// Whether a text can be whom a region is kept for.
pub(crate) fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_LIMIT && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn moments_are_shown_in_utc() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_444_200, "2026-11-23T14:30:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment(seconds).to_string(), shown);
        }
    }
}
