//! The rules file that `udev install` writes and `udev uninstall` removes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::host_rules::FILE_NAME;
use crate::files::locked_directory::{DirectoryProblem, Locked, OwnDirectory, read_regular};
use crate::values::text::shown;

const DIRECTORY: [&str; 3] = ["etc", "udev", "rules.d"];
const LIMIT: usize = 1 << 20;

/// Maximum time to wait for another process that works in the directory.
const WAIT: Duration = Duration::from_secs(5);

/// Suffix of the replaced file: udev reads only names that end in `.rules`.
const BACKUP: &str = ".orig";

/// Prefix of a file's name while it is being written.
const UNFINISHED: &str = ".60-egm.rules.egm-probe-";

/// Start of the first line, by which the program recognises its own file.
const MARKER: &str = "# Written by `egm-probe udev install`";
const ADVICE: &str = ", which overwrites it; delete this line to keep changes.\n";

/// The reason why the rules were not written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileProblem {
    #[error(transparent)]
    Directory(#[from] DirectoryProblem),
    #[error(
        "{}: symbolic link to {}{} (remove it first)",
        shown(path), shown(target),
        if target == Path::new("/dev/null") { ", which disables these rules" } else { "" }
    )]
    Link { path: PathBuf, target: PathBuf },
    #[error("{}: not written by `egm-probe udev install` ({hint})", shown(path))]
    NotOwn { path: PathBuf, hint: &'static str },
    #[error("{}: already exists (move it elsewhere first)", shown(path))]
    BackupExists { path: PathBuf },
}

impl FileProblem {
    /// Whether the command was refused, as opposed to failed.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Directory(problem) if !problem.is_refusal())
    }
}

/// The rules file of one root.
#[derive(Debug)]
pub(crate) struct RulesFile {
    directory: OwnDirectory,
    path: PathBuf,
    backup: PathBuf,
}

/// Content of the file before a command.
#[derive(Debug, PartialEq, Eq)]
enum Current {
    Absent,
    /// Written by this program, with or without manual changes.
    Own(Vec<u8>),
    Foreign(Vec<u8>),
}

/// Change of the file, planned or made.
#[derive(Debug)]
pub(crate) struct Change {
    before: Current,
    /// Content afterwards; empty if the file is removed.
    pub(crate) after: Vec<u8>,
    /// File with the replaced content; for a removal, the one that an earlier `install` left.
    pub(crate) backup: Option<PathBuf>,
}

impl Change {
    pub(crate) fn before(&self) -> &[u8] {
        match &self.before {
            Current::Absent => &[],
            Current::Own(bytes) | Current::Foreign(bytes) => bytes,
        }
    }

    /// Whether anything differs.
    pub(crate) fn is_any(&self) -> bool {
        self.before() != self.after
    }
}

impl RulesFile {
    /// The file below a root. The root, and each existing directory on the way, must be a directory.
    pub(crate) fn below(root: &Path) -> Result<Self, FileProblem> {
        let directory = OwnDirectory::below(root, &DIRECTORY, UNFINISHED)?;
        let path = directory.path().join(FILE_NAME);
        let backup = directory.path().join(format!("{FILE_NAME}{BACKUP}"));
        Ok(Self { directory, path, backup })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn current(&self) -> Result<Current, FileProblem> {
        match fs::symlink_metadata(&self.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Current::Absent),
            Err(cause) => return Err(self.failed(cause)),
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&self.path).map_err(|cause| self.failed(cause))?;
                return Err(FileProblem::Link { path: self.path.clone(), target });
            }
            Ok(_) => {}
        }
        let bytes = read_regular(&self.path, LIMIT).map_err(|cause| self.failed(cause))?;
        let is_own = bytes.starts_with(MARKER.as_bytes());
        Ok(if is_own { Current::Own(bytes) } else { Current::Foreign(bytes) })
    }

    /// Plans `install` without changing anything. `force` saves and replaces another's file.
    pub(crate) fn plan_install(&self, rules: &str, force: bool) -> Result<Change, FileProblem> {
        let before = self.current()?;
        let is_foreign = matches!(before, Current::Foreign(_));
        if is_foreign && !force {
            let hint = "--force saves it as 60-egm.rules.orig and replaces it";
            return Err(FileProblem::NotOwn { path: self.path.clone(), hint });
        }
        if is_foreign && fs::symlink_metadata(&self.backup).is_ok() && !self.is_saved() {
            return Err(FileProblem::BackupExists { path: self.backup.clone() });
        }
        let after = format!("{MARKER}{ADVICE}{rules}").into_bytes();
        Ok(Change { before, after, backup: is_foreign.then(|| self.backup.clone()) })
    }

    /// Writes the rules.
    pub(crate) fn install(&self, rules: &str, force: bool) -> Result<Change, FileProblem> {
        // Refuse before a directory is made.
        self.plan_install(rules, force)?;
        self.directory.create()?;
        let locked = self.directory.lock(WAIT)?;
        let change = self.plan_install(rules, force)?;
        if change.is_any() {
            if change.backup.is_some() {
                self.save(&locked)?;
            }
            self.put(&locked, &change.after, change.before == Current::Absent)?;
        }
        Ok(change)
    }

    /// Plans `uninstall` without changing anything.
    pub(crate) fn plan_uninstall(&self) -> Result<Change, FileProblem> {
        let before = self.current()?;
        if matches!(before, Current::Foreign(_)) {
            let hint = "remove it manually";
            return Err(FileProblem::NotOwn { path: self.path.clone(), hint });
        }
        let has_backup = fs::symlink_metadata(&self.backup).is_ok();
        let backup = has_backup.then(|| self.backup.clone());
        Ok(Change { before, after: Vec::new(), backup })
    }

    /// Removes the rules.
    pub(crate) fn uninstall(&self) -> Result<Change, FileProblem> {
        let change = self.plan_uninstall()?;
        // Without a directory there is nothing to lock.
        if !change.is_any() {
            return Ok(change);
        }
        let locked = self.directory.lock(WAIT)?;
        let change = self.plan_uninstall()?;
        if change.is_any() {
            let removed = fs::remove_file(&self.path).and_then(|()| locked.sync());
            removed.map_err(|cause| self.failed(cause))?;
        }
        Ok(change)
    }

    /// Undoes a change that `install` made.
    pub(crate) fn undo(&self, change: &Change) -> Result<(), FileProblem> {
        let locked = self.directory.lock(WAIT)?;
        let undone = match &change.before {
            Current::Absent => fs::remove_file(&self.path),
            Current::Foreign(_) => fs::rename(&self.backup, &self.path),
            Current::Own(bytes) => return self.put(&locked, bytes, false),
        };
        undone.and_then(|()| locked.sync()).map_err(|cause| self.failed(cause))
    }

    /// Saves another's file by a hard link, which keeps owner, mode and label, and overwrites nothing.
    fn save(&self, locked: &Locked) -> Result<(), FileProblem> {
        let saved = match fs::hard_link(&self.path, &self.backup) {
            // An interrupted run saved it.
            Err(_) if self.is_saved() => Ok(()),
            result => result,
        };
        let saved = saved.and_then(|()| locked.sync());
        saved.map_err(|cause| DirectoryProblem::io(&self.backup, cause).into())
    }

    /// Whether the backup is a second name of the current file.
    fn is_saved(&self) -> bool {
        let inode = |path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino())).ok();
        inode(&self.path).is_some_and(|file| inode(&self.backup) == Some(file))
    }

    /// Puts a file there; if none is expected, an existing one is left alone.
    fn put(&self, locked: &Locked, bytes: &[u8], is_new: bool) -> Result<(), FileProblem> {
        let put = locked.write(bytes, 0o644).and_then(|new| {
            if is_new { locked.put_new(new, &self.path) } else { locked.put(new, &self.path) }
        });
        put.map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: io::Error) -> FileProblem {
        DirectoryProblem::io(&self.path, cause).into()
    }
}
