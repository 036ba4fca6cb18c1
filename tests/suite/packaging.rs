//! `make install`, `make uninstall`, and the versions of packages.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn make(target: &str, folder: &Path, variables: &[&str]) {
    let output = Command::new("make")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), target])
        .arg(format!("DESTDIR={}", folder.display()))
        .arg(concat!("PROGRAM=", env!("CARGO_BIN_EXE_egm-probe")))
        .args(variables)
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// All files below a directory, by relative path.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found
}

/// Whether a directory belongs to the program.
fn own_folders(root: &Path) -> Vec<PathBuf> {
    ["usr/share/egm-probe", "usr/share/doc/egm-probe", "usr/share/licenses/egm-probe"]
        .map(|path| root.join(path))
        .into_iter()
        .filter(|path| path.exists())
        .collect()
}

#[test]
fn uninstall_removes_exactly_the_installed_files() {
    let everything = ["PREFIX=/usr", "UDEVDIR=/usr/lib/udev", "SYSUSERSDIR=/usr/lib/sysusers.d"];
    let licences = ["LICENSEDIR=/usr/share/licenses/egm-probe"];
    let fewer = ["UDEVDIR=", "SYSUSERSDIR="];
    for variables in [
        &everything[..],
        &[&everything[..], &licences].concat(),
        &[&["PREFIX=/usr"], &fewer[..]].concat(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        make("install", folder.path(), variables);
        let installed = files(folder.path());
        assert!(installed.contains(Path::new("usr/bin/egm-probe")), "{installed:?}");
        // Files of others next to each of them.
        let mut others = BTreeSet::new();
        for path in &installed {
            others.insert(path.with_file_name("of-another-package"));
        }
        let own = own_folders(folder.path());
        assert!(own.len() >= 2, "{own:?}");
        others.retain(|path| !own.iter().any(|own| folder.path().join(path).starts_with(own)));
        for path in &others {
            fs::write(folder.path().join(path), "").unwrap();
        }
        make("uninstall", folder.path(), variables);
        assert_eq!(files(folder.path()), others, "{variables:?}");
        assert_eq!(own_folders(folder.path()), Vec::<PathBuf>::new(), "{variables:?}");
    }
}

#[test]
fn everything_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    make(
        "install",
        folder.path(),
        &["PREFIX=/usr", "UDEVDIR=/usr/lib/udev", "SYSUSERSDIR=/usr/lib/sysusers.d"],
    );
    let installed = files(folder.path());
    let has =
        |path: String| assert!(installed.contains(Path::new(&path)), "{path} is not installed");
    for (from, to) in
        [("schema", "usr/share/egm-probe/schema"), ("examples", "usr/share/doc/egm-probe/examples")]
    {
        for path in files(&source().join(from)) {
            has(format!("{to}/{}", path.display()));
        }
    }
    for path in files(&source().join("man")) {
        let section = path.extension().unwrap().to_str().unwrap();
        has(format!("usr/share/man/man{section}/{}", path.display()));
    }
    for path in [
        "usr/lib/udev/rules.d/60-egm.rules",
        "usr/lib/sysusers.d/egm-probe.conf",
        "usr/share/bash-completion/completions/egm-probe",
        "usr/share/zsh/site-functions/_egm-probe",
        "usr/share/fish/vendor_completions.d/egm-probe.fish",
        "usr/share/doc/egm-probe/README.md",
        "usr/share/doc/egm-probe/CHANGELOG.md",
        "usr/share/doc/egm-probe/LICENSE-MIT",
        "usr/share/doc/egm-probe/LICENSE-APACHE",
    ] {
        has(path.to_owned());
    }
    let hook = folder.path().join("usr/share/doc/egm-probe/examples/libvirt-hook");
    assert_eq!(fs::metadata(hook).unwrap().permissions().mode() & 0o777, 0o755);
    let link = fs::read_link(folder.path().join("usr/lib/udev/egm-probe")).unwrap();
    assert_eq!(link, Path::new("/usr/bin/egm-probe"));
    let fact = folder.path().join("usr/share/doc/egm-probe/examples/ansible/egm.fact");
    assert_eq!(fs::metadata(fact).unwrap().permissions().mode() & 0o777, 0o755);
    for (service, command) in [("metrics", "metrics"), ("cdi", "export cdi"), ("nfd", "export nfd")]
    {
        let path = format!("usr/share/doc/egm-probe/examples/systemd/egm-probe-{service}.service");
        let service = fs::read_to_string(folder.path().join(path)).unwrap();
        assert!(
            service.contains(&format!("\nExecStart=/usr/bin/egm-probe {command}")),
            "{service}"
        );
    }
}

#[test]
fn packages_have_the_version_of_the_program() {
    let read = |path: &str| fs::read_to_string(source().join("packaging").join(path)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("debian/changelog");
    assert!(changelog.starts_with(&format!("egm-probe ({version}) ")), "{changelog}");
    let spec = read("egm-probe.spec");
    assert!(spec.lines().any(|line| line.split_whitespace().eq(["Version:", version])), "{spec}");
    assert!(spec.contains(&format!("> - {version}-1\n")), "{spec}");
}
