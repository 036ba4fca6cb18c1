//! Processes that share the memory of one virtual machine, such as its vhost-user back ends.

use std::collections::BTreeSet;

use super::{Claim, ProcessClaim};

/// The number of open files that the holders of one region explain: one, and one more for each
/// further virtual machine.
pub(super) fn explained_files<'a>(holders: impl IntoIterator<Item = &'a ProcessClaim>) -> u64 {
    let mut holders = holders.into_iter().peekable();
    if holders.peek().is_none() {
        return 0;
    }
    let domains: BTreeSet<_> = holders.filter_map(|claim| claim.domain.as_ref()).collect();
    domains.len().max(1) as u64
}

/// Makes the processes on one region helpers of the one that opened it, unless they belong to
/// several virtual machines. `guests` are the processes that run a guest.
pub(super) fn mark_helpers(claims: &mut [Claim], guests: &BTreeSet<u32>) {
    let mut processes: Vec<_> = claims
        .iter_mut()
        .filter_map(|claim| match claim {
            Claim::Process(process) => Some(process),
            Claim::Libvirt(_) | Claim::Lease(_) => None,
        })
        .collect();
    let domains: BTreeSet<_> = processes.iter().filter_map(|it| it.domain.clone()).collect();
    if domains.len() > 1 {
        return;
    }
    // The lowest of equals: the parent of a fork.
    let rank = |it: &&&mut ProcessClaim| (!guests.contains(&it.pid), it.domain.is_none(), it.pid);
    let Some(owner) = processes.iter().min_by_key(rank).map(|it| it.pid) else { return };
    let domain = domains.into_iter().next();
    for helper in processes.iter_mut().filter(|it| it.pid != owner) {
        helper.helper_of = Some(owner);
        helper.domain.clone_from(&domain);
    }
}

#[cfg(test)]
mod tests {
    use super::{explained_files, mark_helpers};
    use crate::claims::{Claim, ProcessClaim, Ranges};

    fn process(pid: u32, domain: Option<&str>) -> ProcessClaim {
        let process = ProcessClaim::new(pid, Ranges::default());
        ProcessClaim { domain: domain.map(str::to_owned), ..process }
    }

    #[test]
    fn each_further_virtual_machine_explains_a_file() {
        for (domains, files) in [
            (&[][..], 0),
            (&[None], 1),
            (&[None, None], 1),
            (&[Some("a"), None, Some("a")], 1),
            (&[Some("a"), Some("b"), None], 2),
        ] {
            let claims: Vec<_> = domains.iter().map(|domain| process(1, *domain)).collect();
            assert_eq!(explained_files(&claims), files, "{domains:?}");
        }
    }

    /// The helpers as `pid<owner:domain`.
    fn helpers(claims: &[(u32, Option<&str>)], guests: &[u32]) -> String {
        let claims = claims.iter().map(|(pid, domain)| Claim::Process(process(*pid, *domain)));
        let mut claims: Vec<_> = claims.collect();
        mark_helpers(&mut claims, &guests.iter().copied().collect());
        let marked = claims.iter().filter_map(|claim| match claim {
            Claim::Process(ProcessClaim { pid, helper_of: Some(owner), domain, .. }) => {
                Some(format!("{pid}<{owner}:{}", domain.as_deref().unwrap_or("-")))
            }
            _ => None,
        });
        marked.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn back_ends_and_forks_are_helpers() {
        assert_eq!(helpers(&[(1, None)], &[]), "");
        assert_eq!(helpers(&[(1, None), (2, Some("a"))], &[2]), "1<2:a");
        assert_eq!(helpers(&[(1, Some("a")), (2, Some("a"))], &[2]), "1<2:a");
        assert_eq!(helpers(&[(4, Some("a")), (7, Some("a"))], &[4, 7]), "7<4:a");
        assert_eq!(helpers(&[(4, None), (7, None)], &[]), "7<4:-");
        assert_eq!(helpers(&[(1, None), (2, Some("a")), (3, Some("b"))], &[2, 3]), "");
    }
}
