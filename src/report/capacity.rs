//! The free memory of a region. Does no I/O.
//!
//! A region belongs to one virtual machine at a time: older drivers let a second one map the same
//! memory, newer ones refuse it. Memory that the holder does not map is therefore unusable
//! ("stranded") rather than free.

use crate::claims::{Claim, Ranges, Sight};
use crate::values::{Bytes, named};

named! {
    /// Whether a region can be given to a virtual machine.
    #[non_exhaustive]
    pub enum State {
        /// Not held, and no virtual machine is defined with it.
        Free = "free",
        /// Held by a process, or a virtual machine defined with it is running.
        InUse = "in-use",
        /// Not held, but reserved.
        Reserved = "reserved",
        /// Not held, but a virtual machine that is off is defined with it.
        Defined = "defined",
        /// The holders are unknown.
        Unknown = "unknown",
    }
}

/// The free memory of a region. Unknown is `None`, never 0 and never the whole region.
///
/// ```
/// use egm_probe::report::{Capacity, State};
/// use egm_probe::claims::Sight;
/// use egm_probe::values::Bytes;
///
/// let size = Some(Bytes(64 << 30));
/// assert_eq!(Capacity::of(size, &[], Sight::Complete).free, size);
/// let unseen = Capacity::of(size, &[], Sight::Partial);
/// assert_eq!((unseen.state, unseen.free), (State::Unknown, None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capacity {
    /// Whether it can be given to a virtual machine.
    pub state: State,
    /// Memory available to a virtual machine: all or nothing.
    pub free: Option<Bytes>,
    /// Memory mapped by the holders.
    pub held: Option<Bytes>,
    /// Memory that the holders do not map but that is unavailable to others.
    pub stranded: Option<Bytes>,
}

impl Capacity {
    /// The capacity of a region of this size with these claims.
    #[must_use]
    pub fn of(size: Option<Bytes>, claims: &[Claim], sight: Sight) -> Self {
        let nothing = Some(Bytes(0));
        if claims.iter().any(Claim::is_held) {
            let beyond = size.unwrap_or(Bytes(u64::MAX));
            let held = held(claims).map(|held| held.min(beyond));
            let stranded = size.zip(held).map(|(size, held)| Bytes(size.0.saturating_sub(held.0)));
            return Self { state: State::InUse, free: nothing, held, stranded };
        }
        match sight {
            Sight::Skipped | Sight::Partial => {
                Self { state: State::Unknown, free: None, held: None, stranded: None }
            }
            Sight::Complete => {
                if claims.iter().any(|claim| matches!(claim, Claim::Lease(_))) {
                    let state = State::Reserved;
                    return Self { state, free: nothing, held: nothing, stranded: nothing };
                }
                let state = if claims.is_empty() { State::Free } else { State::Defined };
                Self { state, free: size, held: nothing, stranded: nothing }
            }
        }
    }
}

/// The union of the mapped parts; without a process, the size in the definition.
fn held(claims: &[Claim]) -> Option<Bytes> {
    let mut processes = claims
        .iter()
        .filter_map(|claim| match claim {
            Claim::Process(process) => Some(&process.ranges),
            Claim::Libvirt(_) | Claim::Lease(_) => None,
        })
        .peekable();
    if processes.peek().is_some() {
        return Some(processes.collect::<Ranges>().total());
    }
    let running = claims.iter().filter_map(|claim| match claim {
        Claim::Libvirt(domain) if domain.is_running => Some(domain.size),
        _ => None,
    });
    running.reduce(|a, b| Some(Bytes(a?.0.saturating_add(b?.0)))).flatten()
}

#[cfg(test)]
mod tests {
    use super::{Capacity, State};
    use crate::claims::{Claim, LeaseClaim, LibvirtClaim, ProcessClaim, Sight};
    use crate::values::{Bytes, Moment};

    fn process(parts: &[(u64, u64)]) -> Claim {
        Claim::Process(ProcessClaim::new(1, parts.iter().copied().collect()))
    }

    fn domain(is_running: bool, size: Option<u64>) -> Claim {
        let size = size.map(Bytes);
        Claim::Libvirt(LibvirtClaim { is_running, size, ..LibvirtClaim::new("vm", "/x") })
    }

    /// State, free, held, stranded of a region of 100 bytes.
    fn of(claims: &[Claim], sight: Sight) -> (State, Option<u64>, Option<u64>, Option<u64>) {
        let Capacity { state, free, held, stranded } =
            Capacity::of(Some(Bytes(100)), claims, sight);
        let number = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.0);
        (state, number(free), number(held), number(stranded))
    }

    fn lease() -> Claim {
        Claim::Lease(LeaseClaim::new("vm", Moment(1)))
    }

    #[test]
    fn a_region_is_free_only_if_all_holders_are_known() {
        use Sight::{Complete, Partial, Skipped};
        use State::{Defined, Free, InUse, Reserved, Unknown};
        let full = (InUse, Some(0), Some(100), Some(0));
        for (claims, sight, expected) in [
            (vec![], Complete, (Free, Some(100), Some(0), Some(0))),
            (vec![], Partial, (Unknown, None, None, None)),
            (vec![], Skipped, (Unknown, None, None, None)),
            (vec![process(&[(0, 100)])], Complete, full),
            (vec![process(&[(0, 100)])], Partial, full),
            (vec![process(&[(0, 10), (50, 10)])], Complete, (InUse, Some(0), Some(20), Some(80))),
            (vec![process(&[])], Complete, (InUse, Some(0), Some(0), Some(100))),
            (
                vec![process(&[(0, 60)]), process(&[(40, 40)])],
                Complete,
                (InUse, Some(0), Some(80), Some(20)),
            ),
            (vec![process(&[(0, 1000)])], Complete, (InUse, Some(0), Some(100), Some(0))),
            (vec![domain(false, Some(50))], Complete, (Defined, Some(100), Some(0), Some(0))),
            (vec![domain(false, Some(50))], Partial, (Unknown, None, None, None)),
            (vec![lease()], Complete, (Reserved, Some(0), Some(0), Some(0))),
            (vec![lease()], Partial, (Unknown, None, None, None)),
            (
                vec![domain(false, Some(50)), lease()],
                Complete,
                (Reserved, Some(0), Some(0), Some(0)),
            ),
            (vec![process(&[(0, 100)]), lease()], Complete, full),
            (vec![domain(true, Some(50))], Partial, (InUse, Some(0), Some(50), Some(50))),
            (vec![domain(true, None)], Complete, (InUse, Some(0), None, None)),
            (
                vec![process(&[(0, 10)]), domain(false, Some(50)), domain(true, Some(50))],
                Complete,
                (InUse, Some(0), Some(10), Some(90)),
            ),
        ] {
            assert_eq!(of(&claims, sight), expected, "{claims:?} {sight:?}");
        }
    }

    #[test]
    fn a_free_region_may_have_an_unknown_size() {
        let capacity = Capacity::of(None, &[], Sight::Complete);
        assert_eq!((capacity.state, capacity.free), (State::Free, None));
        let capacity = Capacity::of(None, &[process(&[(0, 10)])], Sight::Complete);
        assert_eq!((capacity.held, capacity.stranded), (Some(Bytes(10)), None));
    }
}
