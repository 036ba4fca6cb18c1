//! Host paths, and resolution of symbolic links within a root.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::error::os_error;

/// Maximum number of links in one path, as in the kernel (`MAXSYMLINKS`, include/linux/namei.h).
const LINKS_LIMIT: usize = 40;

/// Maximum depth of a path; those in sysfs are less than half as deep. Each component is looked up
/// from the root, so the cost is quadratic.
pub(super) const DEPTH_LIMIT: usize = 64;

/// The path that a link leads to: relative targets start at the link's directory, and `..` stops at
/// the root. This is purely lexical, which is correct in sysfs, where the directories in link
/// targets are real.
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

/// Resolves the links of a path as the kernel does after `chroot`. `link_at` returns the target of
/// a path without links in its directories if it is a link itself. The result begins with `/` and
/// contains no links, except for the last component if `follow_last` is false.
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
    fn links_are_relative_to_their_directory_and_stop_at_the_root() {
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
