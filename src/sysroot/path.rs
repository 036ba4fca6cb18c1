//! Paths of the host, and the following of symbolic links within its root.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::error::os_error;

/// As many links as the kernel follows in one path (`MAXSYMLINKS`, include/linux/namei.h).
const LINKS_LIMIT: usize = 40;

/// The deepest directory of any use; those of sysfs are not half as deep. Each step of a path is
/// looked up from the root, so that depth is paid for twice.
pub(super) const DEPTH_LIMIT: usize = 64;

/// The path that a link leads to: relative targets start at the link's directory, `..` never
/// leads above the root. Purely by the words of the path, which is right in sysfs, where the
/// directories that links lead to are real ones.
#[must_use]
pub(crate) fn join_link(link: &Path, target: &Path) -> PathBuf {
    let mut joined = PathBuf::from("/");
    let start = link.parent().unwrap_or(Path::new("/"));
    for component in start.components().chain(target.components()) {
        match component {
            Component::RootDir => joined = PathBuf::from("/"),
            Component::ParentDir => {
                joined.pop();
            }
            Component::Normal(name) => joined.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    joined
}

/// Follows the links of a path, as the kernel does after `chroot`. `link_at` tells where a path
/// without links in its directories points to, if it is a link itself. The result begins with
/// `/` and has no links, but for the last component where `follow_last` is false.
pub(super) fn resolve(
    path: &Path,
    follow_last: bool,
    mut link_at: impl FnMut(&Path) -> io::Result<Option<PathBuf>>,
) -> io::Result<PathBuf> {
    let mut todo = VecDeque::new();
    push_front(&mut todo, path);
    let mut done = PathBuf::from("/");
    let (mut links, mut depth) = (0, 0);
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            done.pop();
            depth = usize::saturating_sub(depth, 1);
            continue;
        }
        done.push(&name);
        depth += 1;
        if depth > DEPTH_LIMIT {
            return Err(os_error(Errno::ENAMETOOLONG));
        }
        if todo.is_empty() && !follow_last {
            break;
        }
        let Some(target) = link_at(&done)? else {
            continue;
        };
        links += 1;
        if links > LINKS_LIMIT {
            return Err(os_error(Errno::ELOOP));
        }
        done.pop();
        depth -= 1;
        if target.is_absolute() {
            done = PathBuf::from("/");
            depth = 0;
        }
        push_front(&mut todo, &target);
    }
    Ok(done)
}

fn push_front(todo: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => todo.push_front(name.to_owned()),
            Component::ParentDir => todo.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::join_link;
    use std::path::Path;

    #[test]
    fn links_lead_from_where_they_are_and_never_above_the_root() {
        for (link, target, path) in [
            (
                "/sys/class/egm/egm4",
                "../../devices/virtual/egm/egm4",
                "/sys/devices/virtual/egm/egm4",
            ),
            ("/sys/class/egm/egm4", "/sys/devices/x", "/sys/devices/x"),
            ("/sys/x", "../../../etc", "/etc"),
        ] {
            assert_eq!(join_link(Path::new(link), Path::new(target)), Path::new(path));
        }
    }
}
