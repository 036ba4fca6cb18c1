//! `egm-probe completions`

use clap::Args;
use clap_complete::Shell;

use super::error::Error;
use super::{Exit, Session, command};

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell to print completions for
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    // The generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "egm-probe", &mut script);
    if args.shell == Shell::Bash {
        // For a program with a hyphen in its name, clap_complete 4.6 defines other command names than
        // it looks up.
        let text = String::from_utf8_lossy(&script);
        script = text.replace("egm__subcmd__probe__", "egm__probe__").into_bytes();
    }
    session.out.write_all(&script)?;
    Ok(Exit::Done)
}
