//! Files that the program writes, or that the user names, and programs that it runs.

pub(crate) mod locked_directory;
pub(crate) mod program;
pub(crate) mod user_file;
