//! The claims on a region from the point of view of one virtual machine. Does no I/O.

use std::collections::BTreeMap;

use super::{Report, State};
use crate::claims::{Claim, LeaseClaim, Owner, ProcessClaim, Range, Ranges, Via};
use crate::host::Region;
use crate::warning::Warning;

/// Whether a virtual machine can have a region, and the claims of others on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Availability<'a> {
    /// The state of the region, for any virtual machine.
    pub state: State,
    /// The claims of others that hold the region now.
    pub holders: Vec<&'a Claim>,
    /// The definitions of other virtual machines that are off.
    pub defined: Vec<&'a Claim>,
    /// The leases of others: for at most one name, unless the file was edited.
    pub leases: Vec<&'a LeaseClaim>,
    /// The claims of the virtual machine itself.
    pub own: Vec<&'a Claim>,
}

impl Report {
    /// The availability of a region for the virtual machine with this name. Without a name, all
    /// claims are those of others.
    #[must_use]
    pub fn availability(&self, region: &Region, owner: Option<&str>) -> Availability<'_> {
        let state = self.row(region).capacity.state;
        Availability::of(self.claims.of(&region.name), state, owner)
    }
}

impl<'a> Availability<'a> {
    fn of(claims: &'a [Claim], state: State, owner: Option<&str>) -> Self {
        let [holders, defined, own] = [(); 3].map(|()| Vec::new());
        let mut all = Self { state, holders, defined, leases: Vec::new(), own };
        for claim in claims {
            match claim {
                _ if owner.is_some_and(|owner| claim.owner() == Owner::Domain(owner)) => {
                    all.own.push(claim);
                }
                Claim::Lease(lease) => all.leases.push(lease),
                _ if claim.is_held() => all.holders.push(claim),
                _ => all.defined.push(claim),
            }
        }
        all
    }

    /// The holders, without the helpers of others among them: a label, and the mapped parts of each.
    fn rivals(&self) -> Vec<(String, Ranges)> {
        let mut rivals: BTreeMap<Owner<'_>, (String, Ranges)> = BTreeMap::new();
        for claim in &self.holders {
            let own = match claim {
                Claim::Process(process) => process.ranges.clone(),
                Claim::Libvirt(_) | Claim::Lease(_) => Ranges::default(),
            };
            let (label, ranges) = rivals.entry(claim.owner()).or_default();
            *ranges = [&*ranges, &own].into_iter().collect();
            if label.is_empty() || !claim.is_helper() {
                *label = claim.label();
            }
        }
        rivals.into_values().collect()
    }

    /// A label for each virtual machine or process among the holders.
    #[must_use]
    pub fn distinct_holders(&self) -> Vec<String> {
        self.rivals().into_iter().map(|(label, _)| label).collect()
    }

    /// Warnings about the holders. `is_sharing_known`: whether the helpers of a holder are known.
    pub(super) fn warnings(&self, is_sharing_known: bool) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let rivals = self.rivals();
        if rivals.len() > 1 && is_sharing_known {
            let mut pairs = rivals.iter().enumerate();
            let overlap = pairs.any(|(index, (_, one))| {
                rivals.iter().skip(index + 1).any(|(_, other)| one.overlap(other))
            });
            let is_known = rivals.iter().all(|(_, ranges)| ranges.total().0 > 0);
            let overlap = (overlap || is_known).then_some(overlap);
            let holders = rivals.iter().map(|(label, ranges)| with_ranges(label, ranges)).collect();
            warnings.push(Warning::SeveralHolders { holders, overlap });
        } else if rivals.len() > 1 {
            let holders = rivals.into_iter().map(|(label, _)| label).collect();
            warnings.push(Warning::SharingUnknown { holders });
        }
        for claim in &self.holders {
            if let Claim::Process(ProcessClaim { via: Via::Private, .. }) = claim {
                warnings.push(Warning::PrivateMapping { holder: claim.label() });
            }
        }
        warnings
    }
}

/// `vm1[4242] 0x0-0x200000000`
fn with_ranges(label: &str, ranges: &Ranges) -> String {
    let shown = |range: &Range| format!(" {:#x}-{:#x}", range.offset, range.offset + range.length);
    ranges.iter().take(3).map(shown).fold(label.to_owned(), |all, one| all + &one)
}

/// The labels of claims on one region, in their order, with the number of its helpers behind a
/// holder: `vm1[4242]+1`.
pub(crate) fn labels<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> Vec<String> {
    let claims: Vec<&Claim> = claims.into_iter().collect();
    let helpers = |claim: &Claim| claims.iter().filter(|it| it.is_helper_of(claim)).count();
    let label = |claim: &&Claim| match helpers(claim) {
        0 => claim.label(),
        count => format!("{}+{count}", claim.label()),
    };
    claims.iter().filter(|claim| !claim.is_helper()).map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::{Availability, labels};
    use crate::claims::{Claim, LeaseClaim, LibvirtClaim, ProcessClaim, Ranges};
    use crate::report::State;
    use crate::values::Moment;

    fn process(pid: u32, domain: Option<&str>) -> Claim {
        let process = ProcessClaim::new(pid, Ranges::default());
        Claim::Process(ProcessClaim { domain: domain.map(str::to_owned), ..process })
    }

    fn domain(name: &str, is_running: bool) -> Claim {
        Claim::Libvirt(LibvirtClaim { is_running, ..LibvirtClaim::new(name, "/x") })
    }

    fn lease(name: &str) -> Claim {
        Claim::Lease(LeaseClaim::new(name, Moment(1)))
    }

    #[test]
    fn each_claim_is_in_one_place() {
        let claims = [
            process(1, Some("a")),
            process(2, Some("a")),
            process(3, None),
            domain("a", false),
            domain("b", true),
            domain("c", false),
            lease("a"),
            lease("c"),
        ];
        for (owner, own, holders, defined, leases) in [
            (None, "", "a[1] a[2] [3] b", "a(off) c(off)", "a c"),
            (Some("a"), "a[1] a[2] a(off) a(reserved)", "[3] b", "c(off)", "c"),
            (Some("b"), "b", "a[1] a[2] [3]", "a(off) c(off)", "a c"),
            (Some("c"), "c(off) c(reserved)", "a[1] a[2] [3] b", "a(off)", "a"),
            // A process is not identified by a name.
            (Some("3"), "", "a[1] a[2] [3] b", "a(off) c(off)", "a c"),
        ] {
            let found = Availability::of(&claims, State::InUse, owner);
            let reserved: Vec<_> = found.leases.iter().map(|it| it.domain.as_str()).collect();
            let [found_own, found_holders, found_defined] =
                [found.own, found.holders, found.defined].map(|it| labels(it).join(" "));
            assert_eq!(
                (&*found_own, &*found_holders, &*found_defined, &*reserved.join(" ")),
                (own, holders, defined, leases),
                "{owner:?}"
            );
        }
        let of_all = Availability::of(&claims, State::InUse, None);
        assert_eq!(of_all.distinct_holders(), ["a[2]", "b", "[3]"]);
    }
}
