//! The documentation matches the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn egm_7_and_the_readme_describe_every_shape() {
    let readme = read("README.md");
    let page = read("man/egm.7").replace("\\-", "-");
    let shapes = support::machines().into_iter().map(|machine| {
        let from = support::machine(&machine);
        let args = ["--from", from.to_str().unwrap(), "list", "-n", "-r", "-o", "SHAPE"];
        support::run(args.into_iter(), &support::fixtures().join(machine))
    });
    let shapes: BTreeSet<String> =
        shapes.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let shapes: Vec<_> =
        shapes.iter().filter(|line| line.len() > 1 && !line.contains(' ')).collect();
    assert!(shapes.iter().any(|shape| *shape == "gpu-list"), "{shapes:?}");
    for shape in shapes {
        assert!(page.contains(&format!("\n.B {shape}\n")), "{shape}");
        assert!(readme.contains(&format!("\n| `{shape}` |")), "{shape} in the README");
    }
}

#[test]
fn completions_are_up_to_date() {
    for (shell, file) in
        [("bash", "egm-probe.bash"), ("zsh", "_egm-probe"), ("fish", "egm-probe.fish")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .args(["completions", shell])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &printed).unwrap();
        }
        assert!(fs::read_to_string(path).unwrap() == printed, "{file}: run `make golden`");
    }
}
