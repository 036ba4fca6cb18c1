//! The completions in their shells.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::support;

fn completions(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("completions").join(file)
}

/// Command lines with a value of a GB200, each with what all completions begin with.
const VALUES: [(&str, &str); 18] = [
    ("egm-probe list e", "list egm"),
    ("egm-probe show --json e", "show --json egm"),
    ("egm-probe reserve --for vm1 e", "reserve --for vm1 egm"),
    ("egm-probe release egm4 e", "release egm4 egm"),
    ("egm-probe stanza --region e", "stanza --region egm"),
    ("egm-probe show --gpu 0018", "show --gpu 0018:01:00.0"),
    ("egm-probe stanza --gpu 0018:01:0", "stanza --gpu 0018:01:00.0"),
    ("egm-probe stanza --gpu 0008:01:00.0,0009:", "stanza --gpu 0008:01:00.0,0009:01:00.0"),
    ("egm-probe ls -o MAJ", "ls -o MAJMIN"),
    ("egm-probe list --output +MAJMIN,QU", "list --output +MAJMIN,QUANTITY"),
    ("egm-probe watch --until in", "watch --until in-use"),
    ("egm-probe watch --until free e", "watch --until free egm"),
    ("egm-probe validate --explain E", "validate --explain EGM"),
    ("egm-probe doctor --explain D0", "doctor --explain D0"),
    // For another host.
    (
        "egm-probe --from tests/fixtures/gh200-full list e",
        "--from tests/fixtures/gh200-full list egm4",
    ),
    (
        "egm-probe list --sysroot=tests/fixtures/gh200-full e",
        "list --sysroot=tests/fixtures/gh200-full egm4",
    ),
    (
        "egm-probe --sysroot tests/fixtures/gh200-full stanza --from tests/fixtures/gh200-quad --gpu 0039",
        "--sysroot tests/fixtures/gh200-full stanza --from tests/fixtures/gh200-quad --gpu 0039:01:00.0",
    ),
    (
        "egm-probe --from tests/fixtures/gh200-full list -o MAJ",
        "--from tests/fixtures/gh200-full list -o MAJMIN",
    ),
];

/// A host with only one region, whose path has to be expanded.
const OTHER_HOST: &str = "egm-probe --from ~/a\\ host list e";

/// A program that runs `egm-probe` for a recorded GB200, in place of this host.
const STUB: &str = concat!(
    "#!/bin/sh\nexec ",
    env!("CARGO_BIN_EXE_egm-probe"),
    " --from ",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/gb200-full-gpu-list \"$@\"\n"
);

/// The output of a shell script; `$1` is a file of completions, followed by the other arguments.
fn printed(shell: &str, options: &[&str], script: &str, args: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let stub = home.path().join("egm-probe");
    fs::write(&stub, STUB).unwrap();
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    let other = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gh200-full");
    symlink(other, home.path().join("a host")).unwrap();
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(shell)
        .args(options)
        .args(["-c", script])
        .args((shell != "fish").then_some(shell))
        .args(args)
        .env("PATH", path)
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("XDG_DATA_HOME", home.path())
        .env("TERM", "dumb")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{shell}: {}{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The visible commands.
fn commands() -> Vec<String> {
    let command = egm_probe::cli::command();
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let commands: Vec<_> = shown.map(|command| command.get_name().to_owned()).collect();
    assert!(commands.len() > 10);
    commands
}

/// The completions of a command line, from a shell that prints one per line.
fn check(shell: &str, offers: impl Fn(&str) -> Vec<String>) {
    let offered = offers("egm-probe ");
    for command in commands() {
        assert!(offered.contains(&command), "{shell} does not offer {command}: {offered:?}");
    }
    assert!(!offered.contains(&"complete-values".to_owned()), "{shell} offers a hidden command");
    for (line, completed) in VALUES {
        let last = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
        let (offers, start) = (offers(line), last(completed));
        assert!(!offers.is_empty(), "{shell}: {line}");
        assert!(offers.iter().all(|it| it.starts_with(&start)), "{shell}: {line}: {offers:?}");
    }
    let rules = offers("egm-probe validate --allow EGM01");
    assert!(rules.contains(&"EGM011".to_owned()) && !rules.contains(&"EGM021".to_owned()));
    assert_eq!(offers("egm-probe reserve --for eg"), [""; 0], "{shell}");
    assert_eq!(offers("egm-probe list --from - eg"), [""; 0], "{shell}");
    assert_eq!(offers("egm-probe list --from no-file eg"), [""; 0], "{shell}");
    assert_eq!(offers(OTHER_HOST), ["egm4"], "{shell}");
    for (line, expected) in [
        ("egm-probe li", &["list"][..]),
        ("egm-probe stanza --shel", &["--shell"]),
        ("egm-probe udev un", &["uninstall"]),
        ("egm-probe list --color al", &["always"]),
        ("egm-probe nothing-of-ours --shel", &[]),
    ] {
        assert_eq!(offers(line), expected, "{shell}: {line}");
    }
}

#[test]
fn bash_completes() {
    const SCRIPT: &str = "source \"$1\" && shift
        how=$(complete -p egm-probe) && how=${how#*-F } && how=${how%% *} || exit 1
        COMP_LINE=$1 COMP_POINT=${#1} split=${1//:/ : }
        read -ra COMP_WORDS <<<\"$split\"
        [[ $split != *' ' ]] || COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) word=${1##* } current=${COMP_WORDS[-1]}
        $how egm-probe \"$current\" \"${COMP_WORDS[-2]}\"
        ((${#COMPREPLY[@]} == 0)) || printf \"${word%\"$current\"}%s\\n\" \"${COMPREPLY[@]}\"";
    if !support::has(&["bash"]) {
        return;
    }
    let file = completions("egm-probe.bash");
    check("bash", |line| {
        let args = [file.to_str().unwrap(), line];
        let text = printed("bash", &["--norc", "--noprofile"], SCRIPT, &args);
        text.lines().map(str::to_owned).collect()
    });
}

#[test]
fn fish_completes() {
    if !support::has(&["fish"]) {
        return;
    }
    let file = completions("egm-probe.fish");
    check("fish", |line| {
        let script = "source $argv[1]; and complete -C $argv[2]";
        let text = printed("fish", &["--no-config"], script, &[file.to_str().unwrap(), line]);
        text.lines().map(|offer| offer.split('\t').next().unwrap().to_owned()).collect()
    });
}

/// zsh completes only on a terminal, so the test defines the program as a function that prints its
/// arguments, types a command line, and presses the tab key.
#[test]
fn zsh_completes() {
    const SCRIPT: &str = r#"
        zmodload zsh/zpty
        zpty shell "zsh -f -i"
        zpty -w shell "unsetopt zle_bracketed_paste prompt_cr prompt_sp; unset zle_bracketed_paste"
        zpty -w shell "PS1= PS2= RPS1=; fpath=(${(q)1:h} \$fpath)"
        zpty -w shell "autoload -Uz compinit; compinit -u -D; stty -echo"
        zpty -w shell "egm-probe() { [[ \$1 != complete-values ]] || { command egm-probe \$*; return }; print -r - \"got<\$*>\"; exit }"
        zpty -w -n shell "$2"$'\t\n'
        while zpty -r shell line; do
            text+=$line
        done
        print -r - "$text"
    "#;
    if !support::has(&["zsh"]) {
        return;
    }
    let file = completions("_egm-probe");
    let file = file.to_str().unwrap();
    let got = |line: &str| {
        let text = printed("zsh", &["-f"], SCRIPT, &[file, line]);
        let got = text.rsplit_once("got<").and_then(|(_, got)| got.split_once('>'));
        got.map(|(got, _)| got.to_owned()).ok_or(text)
    };
    let other = got(OTHER_HOST).unwrap();
    assert!(other.ends_with("/a host list egm4"), "{other}");
    for (line, expected) in [
        ("egm-probe li", "list"),
        ("egm-probe stanza --gu", "stanza --guest-node"),
        ("egm-probe udev un", "udev uninstall"),
        ("egm-probe list --color al", "list --color always"),
        ("egm-probe nothing-of-ours --gu", "nothing-of-ours --gu"),
    ]
    .into_iter()
    .chain(VALUES)
    {
        assert_eq!(got(line).as_deref(), Ok(expected), "{line}");
    }
}
